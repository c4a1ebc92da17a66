//! Operations as clients see them: calls with a begin, an end, and what came of them.

use std::fmt;

use highwater_client::{AckMode, NodeId, Offset, PartitionId};

use crate::workload::{Nanos, RecordId};

/// One operation that has ended, or of which nothing was heard until the history was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A record was sent.
    Send(Send),
    /// Records were read.
    Poll(Poll),
    /// A reader has come to the end of a partition.
    Drained(Drained),
}

/// Who did it: a producer or a reader from its making to its end. Each is used by one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub u32);

/// A record on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Who sent it.
    pub process: Process,
    /// Where it went; known even if it failed, for the key decides.
    pub partition: PartitionId,
    /// Its value, which no other record has.
    pub id: RecordId,
    /// What was asked for.
    pub acks: AckMode,
    /// When it was called.
    pub invoke: Nanos,
    /// When it ended; for one that never did, when the history was closed.
    pub complete: Nanos,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged as was asked for, at this offset.
    Ok(Offset),
    /// It was surely not written.
    Fail,
    /// Nobody knows, or it was written with less than what was asked for.
    Info,
}

/// A batch of records that a reader was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    /// Who read.
    pub process: Process,
    /// Where.
    pub partition: PartitionId,
    /// What for.
    pub kind: PollKind,
    /// When it was called.
    pub invoke: Nanos,
    /// When it ended.
    pub complete: Nanos,
    /// What was read, in the order in which it came.
    pub records: Vec<Seen>,
}

/// What a poll is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PollKind {
    /// An ordinary reader, while things happen.
    Tail,
    /// The final reading of everything, after all is healed and nobody writes.
    Final,
    /// The same of one replica's log.
    Replica(NodeId),
}

/// A record as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Where it lay.
    pub offset: Offset,
    /// What it was; `None` for a record that is not of this history.
    pub id: Option<RecordId>,
}

/// A reader has come to the end of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// Who.
    pub process: Process,
    /// Of which partition.
    pub partition: PartitionId,
    /// What for.
    pub kind: PollKind,
    /// The exclusive end that it reached.
    pub end: Offset,
    /// When.
    pub at: Nanos,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Send(send) => write!(
                f,
                "{} process {} sends {} to partition {} ({}): {}",
                Span(send.invoke, send.complete),
                send.process.0,
                Id(send.id),
                send.partition.0,
                mode_name(send.acks),
                send.outcome,
            ),
            Op::Poll(poll) => {
                let (first, last) = (poll.records.first(), poll.records.last());
                write!(
                    f,
                    "{} process {} polls partition {}{}: {} records, {} to {}",
                    Span(poll.invoke, poll.complete),
                    poll.process.0,
                    poll.partition.0,
                    poll.kind,
                    poll.records.len(),
                    At(first),
                    At(last),
                )
            }
            Op::Drained(drained) => write!(
                f,
                "{:.6} process {} reaches the end of partition {}{}: {}",
                seconds(drained.at),
                drained.process.0,
                drained.partition.0,
                drained.kind,
                drained.end.0,
            ),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ok(offset) => write!(f, "ok at offset {}", offset.0),
            Outcome::Fail => f.write_str("fail, not written"),
            Outcome::Info => f.write_str("info, unknown"),
        }
    }
}

impl fmt::Display for PollKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PollKind::Tail => Ok(()),
            PollKind::Final => f.write_str(" (final)"),
            PollKind::Replica(node) => write!(f, " (replica on {})", node.0),
        }
    }
}

/// A record's value for people.
pub(super) struct Id(pub RecordId);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0.producer(), self.0.sequence())
    }
}

struct Span(Nanos, Nanos);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}..{:.6}", seconds(self.0), seconds(self.1))
    }
}

struct At<'a>(Option<&'a Seen>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Seen { offset, id: Some(id) }) => write!(f, "{} at {}", Id(*id), offset.0),
            Some(Seen { offset, id: None }) => write!(f, "a stranger at {}", offset.0),
            None => f.write_str("nothing"),
        }
    }
}

/// The name of a mode as it is written everywhere else.
pub(super) fn mode_name(acks: AckMode) -> &'static str {
    match acks {
        AckMode::Async => "async",
        AckMode::SemiSync => "semi-sync",
        AckMode::Sync => "sync",
    }
}

fn seconds(time: Nanos) -> f64 {
    time.0 as f64 / 1e9
}
