//! Frames between brokers as bytes: a head that says everything, then the entries of the appends as
//! they lie in the sender's log, which are neither copied on the way out nor on the way in.

use bytes::Bytes;

use crate::ids::{Incarnation, Position, RecoveryEpoch, Term};
use crate::native::coding;
use crate::peer::heartbeats::{self, Beats};
use crate::peer::{
    AppendAnswer, AppendOutcome, AppendRequest, Ballot, FramesFound, FramesWanted, GroupMessage,
    Heartbeat, HeartbeatAnswer, LeaderNews, Legible, PeerBody, PeerFrame, RaftMessage, VoteAnswer,
    VoteRequest,
};
use crate::wire::{DecodeError, Reader, Writer};

const BODY_RAFT: u8 = 0;
const BODY_LEADERS: u8 = 1;
const BODY_COMMAND: u8 = 2;
const BODY_COMMAND_ANSWER: u8 = 3;

const VOTE: u8 = 0;
const VOTE_ANSWER: u8 = 1;
const APPEND: u8 = 2;
const APPEND_ACCEPTED: u8 = 3;
const APPEND_REJECTED: u8 = 4;
const TIMEOUT_NOW: u8 = 5;
/// Before the kind, where the group is not the first of its partition.
const OF_EPOCH: u8 = 50;
const HEARTBEAT: u8 = 51;
const HEARTBEAT_ANSWER: u8 = 52;
const WANTED: u8 = 6;
const FOUND: u8 = 7;
const ACCEPTED_WITH_GAPS: u8 = 8;
/// An append accepted by a follower that vouches for more, or less, than it has on disk.
const APPEND_VOUCHED: u8 = 9;

/// The fewest bytes of a message: a group, a kind and a term.
const MESSAGE_BYTES_MIN: usize = 25;

impl PeerFrame {
    /// The frame as chunks to be written one after another, without its length.
    pub fn encode_chunks(&self) -> Vec<Bytes> {
        let mut writer = Writer::with_capacity(256);
        writer.u64(self.from.0);
        writer.optional(self.to, |writer, to| writer.u64(to.0));
        let mut entries = Vec::new();
        match &self.body {
            PeerBody::Raft(messages) => encode_messages(&mut writer, messages, &mut entries),
            PeerBody::Leaders(news) => {
                writer.u8(BODY_LEADERS);
                writer.list(news, |writer, one| {
                    coding::put_partition(writer, one.partition);
                    writer.u32(one.term.0);
                    coding::put_nodes(writer, &one.in_sync);
                });
            }
            PeerBody::Command { id, command } => {
                writer.u8(BODY_COMMAND);
                writer.u64(*id);
                writer.blob(command);
            }
            PeerBody::CommandAnswer { id, result } => {
                writer.u8(BODY_COMMAND_ANSWER);
                writer.u64(*id);
                coding::put_result(&mut writer, result, |writer, answer| writer.blob(answer));
            }
        }
        writer.no_tagged_fields();
        let mut chunks = Vec::with_capacity(1 + entries.len());
        chunks.push(writer.finish());
        chunks.extend(entries);
        chunks
    }

    /// Reads a frame without its length; entries stay slices of it.
    pub fn decode(frame: Bytes) -> Result<PeerFrame, DecodeError> {
        let mut reader = Reader::new(&frame);
        reader.within("a frame between brokers");
        let from = Incarnation(reader.u64()?);
        let to = reader.optional("an incarnation", |reader| reader.u64().map(Incarnation))?;
        let mut entry_bytes = Vec::new();
        let mut body = match reader.u8()? {
            BODY_RAFT => PeerBody::Raft(decode_messages(&mut reader, &mut entry_bytes)?),
            BODY_LEADERS => PeerBody::Leaders(reader.list("leader news", 25, |reader| {
                Ok(LeaderNews {
                    partition: coding::partition(reader)?,
                    term: Term(reader.u32()?),
                    in_sync: coding::nodes(reader)?,
                })
            })?),
            BODY_COMMAND => PeerBody::Command {
                id: reader.u64()?,
                command: frame.slice_ref(reader.blob("a command")?),
            },
            BODY_COMMAND_ANSWER => PeerBody::CommandAnswer {
                id: reader.u64()?,
                result: coding::result(&mut reader, |reader| {
                    Ok(frame.slice_ref(reader.blob("an answer")?))
                })?,
            },
            found => {
                return Err(DecodeError::Invalid { what: "a frame's body", found: found.into() });
            }
        };
        reader.tagged_fields()?;
        if let PeerBody::Raft(messages) = &mut body {
            attach_entries(&frame, &mut reader, messages, &entry_bytes)?;
        }
        reader.end()?;
        Ok(PeerFrame { from, to, body })
    }
}

fn encode_messages(writer: &mut Writer, messages: &[GroupMessage], entries: &mut Vec<Bytes>) {
    writer.u8(BODY_RAFT);
    let mut beats = Beats::default();
    let mut others = Vec::new();
    for one in messages {
        if one.epoch > RecoveryEpoch::default() {
            // Few groups were ever begun anew, and the heartbeats of all others should not pay for it.
            others.push(one);
            continue;
        }
        match &one.message {
            RaftMessage::Heartbeat(beat) => beats.add(one.group, *beat),
            RaftMessage::HeartbeatAnswer(answer) => beats.add_answer(one.group, *answer),
            RaftMessage::Vote(_)
            | RaftMessage::VoteAnswer(_)
            | RaftMessage::Append(_)
            | RaftMessage::AppendAnswer(_)
            | RaftMessage::TimeoutNow { .. }
            | RaftMessage::Wanted(_)
            | RaftMessage::Found(_) => others.push(one),
        }
    }
    beats.encode(writer);
    writer.list(&others, |writer, one| {
        coding::put_partition(writer, one.group);
        if one.epoch > RecoveryEpoch::default() {
            writer.u8(OF_EPOCH);
            writer.u32(one.epoch.0);
        }
        encode_message(writer, &one.message, entries);
    });
}

fn encode_message(writer: &mut Writer, message: &RaftMessage, entries: &mut Vec<Bytes>) {
    match message {
        RaftMessage::Vote(vote) => {
            writer.u8(VOTE);
            writer.u32(vote.term.0);
            writer.u8(ballot_number(vote.ballot));
            put_position(writer, vote.last);
        }
        RaftMessage::VoteAnswer(answer) => {
            writer.u8(VOTE_ANSWER);
            writer.u32(answer.term.0);
            writer.u8(ballot_number(answer.ballot));
            coding::put_flag(writer, answer.granted);
        }
        RaftMessage::Append(append) => {
            writer.u8(APPEND);
            writer.u32(append.term.0);
            put_position(writer, append.prev);
            writer.uvarint(append.commit.0);
            writer.optional(append.start.as_ref(), |writer, start| writer.blob(start));
            put_entries(writer, &append.entries, entries);
        }
        RaftMessage::AppendAnswer(answer) => put_append_answer(writer, answer),
        RaftMessage::TimeoutNow { term } => {
            writer.u8(TIMEOUT_NOW);
            writer.u32(term.0);
        }
        RaftMessage::Wanted(FramesWanted { behind, bytes_max }) => {
            writer.u8(WANTED);
            put_position(writer, *behind);
            writer.u32(*bytes_max);
        }
        RaftMessage::Found(found) => {
            writer.u8(FOUND);
            put_position(writer, found.behind);
            put_entries(writer, &found.entries, entries);
        }
        RaftMessage::Heartbeat(Heartbeat { term, commit }) => {
            writer.u8(HEARTBEAT);
            writer.u32(term.0);
            writer.uvarint(commit.0);
        }
        RaftMessage::HeartbeatAnswer(HeartbeatAnswer { term, log_end }) => {
            writer.u8(HEARTBEAT_ANSWER);
            writer.u32(term.0);
            writer.uvarint(log_end.0);
        }
    }
}

fn put_append_answer(writer: &mut Writer, answer: &AppendAnswer) {
    match &answer.outcome {
        AppendOutcome::Accepted { appended, flushed, vouched, legible } => {
            let differs = vouched != flushed;
            writer.u8(match legible {
                Legible::All | Legible::Gaps if differs => APPEND_VOUCHED,
                Legible::All => APPEND_ACCEPTED,
                Legible::Gaps => ACCEPTED_WITH_GAPS,
            });
            writer.u32(answer.term.0);
            writer.uvarint(appended.0);
            writer.uvarint(flushed.0);
            if differs {
                writer.uvarint(vouched.0);
                coding::put_flag(writer, *legible == Legible::All);
            }
        }
        AppendOutcome::Rejected { at, hint } => {
            writer.u8(APPEND_REJECTED);
            writer.u32(answer.term.0);
            writer.uvarint(at.0);
            put_position(writer, *hint);
        }
    }
}

/// Their sizes; they themselves follow the head.
fn put_entries(writer: &mut Writer, put: &[Bytes], entries: &mut Vec<Bytes>) {
    writer.list(put, |writer, slice| writer.uvarint(slice.len() as u64));
    entries.extend(put.iter().cloned());
}

/// Reads the messages; of an append's entries only the sizes, which `entry_bytes` collects.
fn decode_messages(
    reader: &mut Reader<'_>,
    entry_bytes: &mut Vec<Vec<usize>>,
) -> Result<Vec<GroupMessage>, DecodeError> {
    let mut messages = heartbeats::decode(reader)?;
    for _ in 0..reader.count("messages", MESSAGE_BYTES_MIN)? {
        let group = coding::partition(reader)?;
        let (epoch, kind) = epoch_and_kind(reader)?;
        let message = decode_message(reader, kind, entry_bytes)?;
        messages.push(GroupMessage { group, epoch, message });
    }
    Ok(messages)
}

fn decode_message(
    reader: &mut Reader<'_>,
    kind: u8,
    entry_bytes: &mut Vec<Vec<usize>>,
) -> Result<RaftMessage, DecodeError> {
    let term = Term(reader.u32()?);
    Ok(match kind {
        VOTE => RaftMessage::Vote(VoteRequest {
            term,
            ballot: ballot(reader)?,
            last: position(reader)?,
        }),
        VOTE_ANSWER => {
            let ballot = ballot(reader)?;
            RaftMessage::VoteAnswer(VoteAnswer {
                term,
                ballot,
                granted: coding::flag(reader, "a vote")?,
            })
        }
        APPEND => {
            let (prev, commit) = (position(reader)?, coding::short_log_index(reader)?);
            let start = reader.optional("a log start", |reader| {
                Ok(Bytes::copy_from_slice(reader.blob("a log start")?))
            })?;
            entry_bytes.push(sizes(reader)?);
            RaftMessage::Append(AppendRequest { term, prev, commit, start, entries: Vec::new() })
        }
        APPEND_ACCEPTED | ACCEPTED_WITH_GAPS | APPEND_VOUCHED | APPEND_REJECTED => {
            RaftMessage::AppendAnswer(AppendAnswer { term, outcome: outcome(reader, kind)? })
        }
        TIMEOUT_NOW => RaftMessage::TimeoutNow { term },
        HEARTBEAT => {
            RaftMessage::Heartbeat(Heartbeat { term, commit: coding::short_log_index(reader)? })
        }
        HEARTBEAT_ANSWER => RaftMessage::HeartbeatAnswer(HeartbeatAnswer {
            term,
            log_end: coding::short_log_index(reader)?,
        }),
        WANTED => {
            let behind = Position { term, index: coding::short_log_index(reader)? };
            RaftMessage::Wanted(FramesWanted { behind, bytes_max: reader.u32()? })
        }
        FOUND => {
            let behind = Position { term, index: coding::short_log_index(reader)? };
            entry_bytes.push(sizes(reader)?);
            RaftMessage::Found(FramesFound { behind, entries: Vec::new() })
        }
        found => {
            return Err(DecodeError::Invalid { what: "a message's kind", found: found.into() });
        }
    })
}

fn outcome(reader: &mut Reader<'_>, kind: u8) -> Result<AppendOutcome, DecodeError> {
    let first = coding::short_log_index(reader)?;
    let read_all = |whole| if whole { Legible::All } else { Legible::Gaps };
    if kind == APPEND_REJECTED {
        return Ok(AppendOutcome::Rejected { at: first, hint: position(reader)? });
    }
    let flushed = coding::short_log_index(reader)?;
    let (vouched, legible) = match kind == APPEND_VOUCHED {
        true => (coding::short_log_index(reader)?, read_all(coding::flag(reader, "legible")?)),
        false => (flushed, read_all(kind == APPEND_ACCEPTED)),
    };
    Ok(AppendOutcome::Accepted { appended: first, flushed, vouched, legible })
}

fn epoch_and_kind(reader: &mut Reader<'_>) -> Result<(RecoveryEpoch, u8), DecodeError> {
    Ok(match reader.u8()? {
        OF_EPOCH => (RecoveryEpoch(reader.u32()?), reader.u8()?),
        kind => (RecoveryEpoch::default(), kind),
    })
}

fn sizes(reader: &mut Reader<'_>) -> Result<Vec<usize>, DecodeError> {
    reader.list("sizes of entries", 1, |reader| {
        usize::try_from(reader.uvarint()?).map_err(|_| DecodeError::Short("entries"))
    })
}

/// Gives each message its entries, which follow the head in the order of the messages.
fn attach_entries(
    frame: &Bytes,
    reader: &mut Reader<'_>,
    messages: &mut [GroupMessage],
    entry_bytes: &[Vec<usize>],
) -> Result<(), DecodeError> {
    let carriers = messages.iter_mut().filter_map(|one| match &mut one.message {
        RaftMessage::Append(append) => Some(&mut append.entries),
        RaftMessage::Found(found) => Some(&mut found.entries),
        RaftMessage::Vote(_)
        | RaftMessage::VoteAnswer(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::Heartbeat(_)
        | RaftMessage::HeartbeatAnswer(_)
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_) => None,
    });
    for (entries, sizes) in carriers.zip(entry_bytes) {
        for size in sizes {
            let slice = reader.take(*size).map_err(|_| DecodeError::Short("entries"))?;
            entries.push(frame.slice_ref(slice));
        }
    }
    Ok(())
}

fn put_position(writer: &mut Writer, position: Position) {
    writer.u32(position.term.0);
    writer.uvarint(position.index.0);
}

fn position(reader: &mut Reader<'_>) -> Result<Position, DecodeError> {
    Ok(Position { term: Term(reader.u32()?), index: coding::short_log_index(reader)? })
}

fn ballot_number(ballot: Ballot) -> u8 {
    match ballot {
        Ballot::Pre => 0,
        Ballot::Real => 1,
        Ballot::Transfer => 2,
    }
}

fn ballot(reader: &mut Reader<'_>) -> Result<Ballot, DecodeError> {
    match reader.u8()? {
        0 => Ok(Ballot::Pre),
        1 => Ok(Ballot::Real),
        2 => Ok(Ballot::Transfer),
        found => Err(DecodeError::Invalid { what: "a ballot", found: found.into() }),
    }
}
