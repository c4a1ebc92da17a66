//! The 61 bytes that open every frame of a log: a data batch or one of our marks.

use crate::batch::{BatchError, Compression, crc32c};
use crate::ids::{Offset, ProducerEpoch, ProducerId, Term, Timestamp};
use crate::wire::{u16_at, u32_at, u64_at};

/// Bytes before the records of a batch.
pub const HEADER_BYTES: usize = 61;
/// Bytes before those that `batchLength` counts.
pub(crate) const LENGTH_END: usize = 12;
/// Where the bytes begin that the checksum covers.
pub(crate) const CHECKED_FROM: usize = 21;
/// The only record format there is.
pub(crate) const MAGIC: u8 = 2;
/// Attribute bits of a mark: Kafka's control bit, and the highest bit, which Kafka leaves unused.
pub(crate) const MARK_ATTRIBUTES: u16 = 0x8020;
/// Attribute bits of a gap: the control bit, and another one that Kafka leaves unused.
pub(crate) const GAP_ATTRIBUTES: u16 = 0x4020;

/// The fewest bytes of a record: each of its seven fields takes at least one.
pub(crate) const RECORD_BYTES_MIN: u32 = 7;
pub(crate) const COMPRESSION_BITS: u16 = 0x0007;
const LOG_APPEND_TIME_BIT: u16 = 0x0008;
const TRANSACTIONAL_BIT: u16 = 0x0010;
const CONTROL_BIT: u16 = 0x0020;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Records.
    Data,
    /// An entry of Raft's own, without records.
    Mark,
}

/// Who wrote a batch, and where it stands in the writer's sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer.
    pub id: ProducerId,
    /// Its life.
    pub epoch: ProducerEpoch,
    /// The sequence number of the batch's first record; wraps after `i32::MAX`.
    pub base_sequence: u32,
}

/// The fields of a frame's header, checked for what can be checked without the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Offset of the first record; of the next record, for a mark.
    pub base_offset: Offset,
    /// The term that wrote it; the leader stamps it.
    pub term: Term,
    /// CRC-32C of everything from byte 21 on.
    pub checksum: u32,
    /// Timestamp of the first record.
    pub base_timestamp: Timestamp,
    /// The latest timestamp of its records.
    pub max_timestamp: Timestamp,
    frame_bytes: u32,
    attributes: u16,
    records: u32,
    producer: Option<ProducerStamp>,
}

impl FrameHeader {
    /// Reads a header from the front of `bytes`, which may end right behind it.
    pub fn parse(bytes: &[u8]) -> Result<FrameHeader, BatchError> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Short { needed: HEADER_BYTES, found: bytes.len() });
        };
        let magic = header[16];
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let length = u32_at(header, 8);
        let frame_bytes = u64::from(length) + LENGTH_END as u64;
        if frame_bytes < HEADER_BYTES as u64 || frame_bytes > i32::MAX as u64 {
            return Err(BatchError::Length(length));
        }
        let attributes = u16_at(header, 21);
        let (last_offset_delta, count) = (u32_at(header, 23) as i32, u32_at(header, 57));
        // A gap has no records, and takes the offsets of those that it had.
        let records = match (attributes, count) {
            (GAP_ATTRIBUTES, 0) => last_offset_delta.wrapping_add(1) as u32,
            _ => count,
        };
        let parsed = FrameHeader {
            base_offset: Offset(u64_at(header, 0)),
            term: Term(u32_at(header, 12)),
            checksum: u32_at(header, 17),
            base_timestamp: Timestamp(u64_at(header, 27) as i64),
            max_timestamp: Timestamp(u64_at(header, 35) as i64),
            frame_bytes: frame_bytes as u32,
            attributes,
            records,
            producer: parse_producer(header)?,
        };
        parsed.check_counts(last_offset_delta)?;
        parsed.check_bounds()?;
        Ok(parsed)
    }

    /// What the frame is.
    pub fn kind(&self) -> FrameKind {
        if self.attributes & MARK_ATTRIBUTES == MARK_ATTRIBUTES {
            FrameKind::Mark
        } else {
            FrameKind::Data
        }
    }

    /// Bytes of the whole frame, the header included.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes as usize
    }

    /// Whether it only keeps the place of records that were given up: offsets without records.
    pub fn is_gap(&self) -> bool {
        self.attributes == GAP_ATTRIBUTES
    }

    /// How many offsets the frame takes: those of its records, or of the records that it is the gap of.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// How many Raft entries the frame is: its records, or one for a mark.
    pub fn entries(&self) -> u64 {
        match self.kind() {
            FrameKind::Data => u64::from(self.records),
            FrameKind::Mark => 1,
        }
    }

    /// The idempotent producer that wrote the batch, if one did.
    pub fn producer(&self) -> Option<ProducerStamp> {
        self.producer
    }

    /// The attribute bits as they lie in the header.
    pub fn attributes(&self) -> u16 {
        self.attributes
    }

    /// How the records are packed; `None` for a codec number that nobody has defined.
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_number(self.attributes & COMPRESSION_BITS)
    }

    /// Whether the broker's clock stamped the records.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether Kafka would call it a control batch; true for marks too.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether `frame`, which this is the header of, has the checksum that the header names.
    pub fn verify_checksum(&self, frame: &[u8]) -> Result<(), BatchError> {
        let computed = crc32c(&frame[CHECKED_FROM..self.frame_bytes()]);
        if computed == self.checksum {
            Ok(())
        } else {
            Err(BatchError::Checksum { stored: self.checksum, computed })
        }
    }

    fn check_counts(&self, last_offset_delta: i32) -> Result<(), BatchError> {
        let consistent = match self.kind() {
            FrameKind::Data => {
                self.records > 0
                    && self.records <= i32::MAX as u32
                    && last_offset_delta == self.records as i32 - 1
            }
            FrameKind::Mark => self.records == 0 && last_offset_delta == -1,
        };
        if consistent {
            Ok(())
        } else {
            Err(BatchError::Counts { records: self.records as i32, last_offset_delta })
        }
    }

    /// A few bytes must not claim two billion records, nor an offset from which nobody can count on:
    /// either would burn offsets for good before the first record is read.
    fn check_bounds(&self) -> Result<(), BatchError> {
        if self.base_offset.0 > i64::MAX as u64 {
            return Err(BatchError::Record { at: 0, what: "its offset is negative" });
        }
        let room = (self.frame_bytes - HEADER_BYTES as u32) / RECORD_BYTES_MIN;
        let plain = self.compression() == Some(Compression::None) && !self.is_gap();
        if plain && self.records > room {
            return Err(BatchError::Record { at: room, what: "there is no room for it" });
        }
        Ok(())
    }
}

/// Writes what only the leader knows, base offset and term, which the checksum does not cover.
pub fn stamp(header: &mut [u8; HEADER_BYTES], base: Offset, term: Term) {
    header[0..8].copy_from_slice(&base.0.to_be_bytes());
    header[12..16].copy_from_slice(&term.0.to_be_bytes());
}

/// Makes a whole batch say that a leader took it at `time`: every record has this timestamp then. The
/// checksum, which covers it, is made anew.
pub fn stamp_append_time(batch: &mut [u8], time: Timestamp) {
    batch[35..43].copy_from_slice(&time.0.to_be_bytes());
    let attributes = u16::from_be_bytes([batch[CHECKED_FROM], batch[CHECKED_FROM + 1]]);
    seal(batch, attributes | LOG_APPEND_TIME_BIT);
}

/// Gives a batch whose records were replaced its length, these attributes and its checksum.
pub(crate) fn seal(batch: &mut [u8], attributes: u16) {
    let length = u32::try_from(batch.len() - LENGTH_END).expect("batches are far below 4 GiB");
    batch[8..LENGTH_END].copy_from_slice(&length.to_be_bytes());
    batch[CHECKED_FROM..23].copy_from_slice(&attributes.to_be_bytes());
    let checksum = crc32c(&batch[CHECKED_FROM..]);
    batch[17..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
}

fn parse_producer(header: &[u8; HEADER_BYTES]) -> Result<Option<ProducerStamp>, BatchError> {
    let id = u64_at(header, 43) as i64;
    let epoch = u16_at(header, 51) as i16;
    let base_sequence = u32_at(header, 53) as i32;
    if id < 0 {
        return Ok(None);
    }
    if epoch < 0 || base_sequence < 0 {
        return Err(BatchError::Producer { id, epoch, base_sequence });
    }
    Ok(Some(ProducerStamp {
        id: ProducerId(id as u64),
        epoch: ProducerEpoch(epoch as u16),
        base_sequence: base_sequence as u32,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BuilderOptions};

    #[test]
    fn a_stamp_changes_offset_and_term_and_keeps_the_checksum() {
        let mut batch = one_record();
        stamp(batch.first_chunk_mut().expect("a header"), Offset(41), Term(7));
        let header = FrameHeader::parse(&batch).expect("still a batch");
        assert_eq!((header.base_offset, header.term), (Offset(41), Term(7)));
        assert_eq!(header.verify_checksum(&batch), Ok(()));
    }

    #[test]
    fn a_header_is_enough_to_know_what_follows() {
        let batch = one_record();
        let header = FrameHeader::parse(&batch[..HEADER_BYTES]).expect("a header");
        assert_eq!(header.frame_bytes(), batch.len());
        assert_eq!((header.records(), header.entries(), header.kind()), (1, 1, FrameKind::Data));
        assert_eq!((header.producer(), header.compression()), (None, Some(Compression::None)));
    }

    #[test]
    fn what_no_batch_can_say_is_refused() {
        let refused = |at: usize, bytes: &[u8]| {
            let mut batch = one_record();
            batch[at..at + bytes.len()].copy_from_slice(bytes);
            FrameHeader::parse(&batch).expect_err("nonsense")
        };
        assert_eq!(
            refused(0, &[0xff; 8]),
            BatchError::Record { at: 0, what: "its offset is negative" }
        );
        assert_eq!(refused(8, &48_u32.to_be_bytes()), BatchError::Length(48));
        assert_eq!(refused(8, &[0xff; 4]), BatchError::Length(u32::MAX));
        assert_eq!(refused(16, &[1]), BatchError::Magic(1));
        assert_eq!(refused(57, &[0; 4]), BatchError::Counts { records: 0, last_offset_delta: 0 });
        let producer = BatchError::Producer { id: 0, epoch: -1, base_sequence: -1 };
        assert_eq!(refused(43, &[0; 8]), producer);
    }

    #[test]
    fn a_gap_takes_offsets_and_says_that_it_has_no_records() {
        let mut batch = one_record();
        batch[23..27].copy_from_slice(&41_i32.to_be_bytes());
        batch[57..61].copy_from_slice(&0_u32.to_be_bytes());
        seal(&mut batch, GAP_ATTRIBUTES);
        let header = FrameHeader::parse(&batch).expect("a gap");
        assert!(header.is_gap() && header.is_control());
        assert_eq!((header.records(), header.entries(), header.kind()), (42, 42, FrameKind::Data));
        for delta in [-1, -2, i32::MIN, i32::MAX] {
            batch[23..27].copy_from_slice(&delta.to_be_bytes());
            assert!(
                matches!(FrameHeader::parse(&batch), Err(BatchError::Counts { .. })),
                "{delta}"
            );
        }
    }

    #[test]
    fn a_few_bytes_cannot_claim_billions_of_records() {
        let mut batch = one_record();
        batch[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
        batch[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
        assert!(matches!(FrameHeader::parse(&batch), Err(BatchError::Record { at: 1, .. })));
        // Packed records may be many in few bytes: nobody knows before they are unpacked.
        batch[22] = 4;
        assert!(FrameHeader::parse(&batch).is_ok());
    }

    fn one_record() -> Vec<u8> {
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        builder.push(Timestamp(5), None, None, &[]);
        builder.finish().to_vec()
    }
}
