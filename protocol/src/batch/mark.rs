//! Marks: entries of Raft's own that lie among the batches and take no offset.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::header::{LENGTH_END, MAGIC, MARK_ATTRIBUTES};
use crate::batch::{BatchError, FrameHeader, FrameKind, HEADER_BYTES, crc32c};
use crate::ids::{LogIndex, NodeId, Offset, Term};
use crate::wire::Reader;

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// A leader's term begins here: the textbook's no-op (Raft paper, section 8).
    TermStart,
    /// From here on these are the members.
    Voters(VoterSet),
    /// Once this is committed, the log starts there.
    LogStart(LogStart),
}

/// A decision that everything before a place is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStart {
    /// The boundary of a frame, before this mark.
    pub index: LogIndex,
    /// The offset of the first record behind it.
    pub offset: Offset,
    /// Why.
    pub reason: TrimReason,
}

/// Why records are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrimReason {
    /// Somebody asked for it.
    Asked,
    /// They are older than `retention.ms`.
    Age,
    /// The partition is larger than `retention.bytes`.
    Size,
}

/// Who votes and who only follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VoterSet {
    /// Brokers whose majority decides.
    pub voters: Vec<NodeId>,
    /// Brokers that get everything and decide nothing.
    pub learners: Vec<NodeId>,
}

const KIND_TERM_START: u8 = 1;
const KIND_VOTERS: u8 = 2;
const KIND_LOG_START: u8 = 3;
const VOTERS_VERSION: u8 = 0;
const LOG_START_VERSION: u8 = 0;
const MEMBERS_MAX: usize = 1024;

impl Mark {
    /// The frame of this mark, as the leader of `term` appends it before the record at `next_offset`.
    pub fn encode(&self, next_offset: Offset, term: Term) -> Bytes {
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + 64);
        frame.put_u64(next_offset.0);
        frame.put_u32(0);
        frame.put_u32(term.0);
        frame.put_u8(MAGIC);
        frame.put_u32(0);
        frame.put_u16(MARK_ATTRIBUTES);
        frame.put_i32(-1);
        frame.put_i64(-1);
        frame.put_i64(-1);
        frame.put_i64(-1);
        frame.put_i16(-1);
        frame.put_i32(-1);
        frame.put_u32(0);
        match self {
            Mark::TermStart => frame.put_u8(KIND_TERM_START),
            Mark::Voters(set) => {
                frame.put_u8(KIND_VOTERS);
                frame.put_u8(VOTERS_VERSION);
                put_nodes(&mut frame, &set.voters);
                put_nodes(&mut frame, &set.learners);
            }
            Mark::LogStart(start) => {
                frame.put_u8(KIND_LOG_START);
                frame.put_u8(LOG_START_VERSION);
                frame.put_u64(start.index.0);
                frame.put_u64(start.offset.0);
                frame.put_u8(start.reason.number());
            }
        }
        let length =
            u32::try_from(frame.len() - LENGTH_END).expect("a mark is a few hundred bytes");
        frame[8..LENGTH_END].copy_from_slice(&length.to_be_bytes());
        let checksum = crc32c(&frame[21..]);
        frame[17..21].copy_from_slice(&checksum.to_be_bytes());
        frame.freeze()
    }

    /// Reads a whole frame that should be a mark; its checksum is the caller's business.
    pub fn parse(frame: &[u8]) -> Result<Mark, BatchError> {
        let header = FrameHeader::parse(frame)?;
        if header.kind() != FrameKind::Mark {
            return Err(BatchError::Kind("mark"));
        }
        let body = frame
            .get(HEADER_BYTES..header.frame_bytes())
            .ok_or(BatchError::Short { needed: header.frame_bytes(), found: frame.len() })?;
        match body {
            [KIND_TERM_START] => Ok(Mark::TermStart),
            [KIND_VOTERS, VOTERS_VERSION, rest @ ..] => parse_voters(rest),
            [KIND_VOTERS, ..] => {
                Err(BatchError::Mark("voters of a version that this build does not know"))
            }
            [KIND_LOG_START, LOG_START_VERSION, rest @ ..] => parse_log_start(rest),
            [KIND_LOG_START, ..] => {
                Err(BatchError::Mark("a log start of a version that this build does not know"))
            }
            _ => Err(BatchError::Mark("of a kind that this build does not know")),
        }
    }
}

fn put_nodes(frame: &mut BytesMut, nodes: &[NodeId]) {
    assert!(nodes.len() <= MEMBERS_MAX, "a group of more than {MEMBERS_MAX} replicas");
    frame.put_u16(nodes.len() as u16);
    for node in nodes {
        frame.put_u32(node.0);
    }
}

fn parse_voters(body: &[u8]) -> Result<Mark, BatchError> {
    let mut reader = Reader::new(body);
    let set = VoterSet { voters: take_nodes(&mut reader)?, learners: take_nodes(&mut reader)? };
    reader.end().map_err(|_| BatchError::Mark("bytes behind the members"))?;
    Ok(Mark::Voters(set))
}

fn parse_log_start(body: &[u8]) -> Result<Mark, BatchError> {
    let mut reader = Reader::new(body);
    let short = |_| BatchError::Mark("ends within its place");
    let (index, offset) = (reader.u64().map_err(short)?, reader.u64().map_err(short)?);
    let reason = TrimReason::from_number(reader.u8().map_err(short)?);
    let reason = reason.ok_or(BatchError::Mark("a reason that this build does not know"))?;
    reader.end().map_err(|_| BatchError::Mark("bytes behind the place"))?;
    if index >= 1 << 63 || offset > index {
        return Err(BatchError::Mark("an offset above its index"));
    }
    Ok(Mark::LogStart(LogStart { index: LogIndex(index), offset: Offset(offset), reason }))
}

impl TrimReason {
    /// What stands for it on disk and on the wire.
    pub fn number(self) -> u8 {
        match self {
            TrimReason::Asked => 0,
            TrimReason::Age => 1,
            TrimReason::Size => 2,
        }
    }

    fn from_number(number: u8) -> Option<TrimReason> {
        [TrimReason::Asked, TrimReason::Age, TrimReason::Size]
            .into_iter()
            .find(|reason| reason.number() == number)
    }
}

fn take_nodes(reader: &mut Reader<'_>) -> Result<Vec<NodeId>, BatchError> {
    let short = |_| BatchError::Mark("ends within its members");
    let count = reader.u16().map_err(short)?;
    (0..count).map(|_| reader.u32().map(NodeId).map_err(short)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchView;

    #[test]
    fn marks_come_back_as_they_were() {
        let set = VoterSet { voters: vec![NodeId(1), NodeId(2)], learners: vec![NodeId(9)] };
        let start = LogStart { index: LogIndex(9), offset: Offset(5), reason: TrimReason::Size };
        let voters = [Mark::Voters(set), Mark::Voters(VoterSet::default())];
        for mark in voters.into_iter().chain([Mark::TermStart, Mark::LogStart(start)]) {
            let frame = mark.encode(Offset(7), Term(3));
            let header = FrameHeader::parse(&frame).expect("our own mark");
            header.verify_checksum(&frame).expect("our own checksum");
            assert_eq!((header.base_offset, header.term), (Offset(7), Term(3)));
            assert_eq!((header.entries(), header.records()), (1, 0));
            assert_eq!(Mark::parse(&frame), Ok(mark));
        }
    }

    #[test]
    fn a_mark_of_the_future_or_with_too_much_is_refused() {
        let frame = Mark::Voters(VoterSet::default()).encode(Offset(0), Term(1));
        let refused = |at: usize, value: u8| {
            let mut frame = frame.to_vec();
            frame[at] = value;
            Mark::parse(&frame).expect_err("not a mark of ours").to_string()
        };
        assert!(refused(HEADER_BYTES, 9).contains("kind"));
        assert!(refused(HEADER_BYTES + 1, 9).contains("version"));
        // One learner is announced and none follows.
        assert!(refused(HEADER_BYTES + 5, 1).contains("ends within its members"));
    }

    #[test]
    fn a_mark_is_no_batch_for_clients_to_send_or_to_get() {
        let frame = Mark::TermStart.encode(Offset(0), Term(1));
        assert!(matches!(BatchView::parse(&frame), Err(BatchError::Kind("data batch"))));
    }

    #[test]
    fn a_mark_cut_anywhere_is_refused() {
        let set = VoterSet { voters: vec![NodeId(1), NodeId(2)], learners: vec![] };
        let start = LogStart { index: LogIndex(9), offset: Offset(5), reason: TrimReason::Asked };
        for mark in [Mark::Voters(set), Mark::LogStart(start)] {
            let frame = mark.encode(Offset(0), Term(1));
            for end in 0..frame.len() {
                assert!(Mark::parse(&frame[..end]).is_err());
            }
        }
    }
}
