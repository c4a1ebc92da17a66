//! One way through the operations: gathers what lies where, and reports what shows at once.
//!
//! Sends and polls come in the order in which they ended, so a record may be read before its send
//! is recorded. What can only be said in the end (lost, aborted, out of order) is in `judge`. Memory
//! grows with the values and offsets, some 80 bytes for each record, not with the polls.

use std::collections::{BTreeMap, HashMap};

use highwater_client::{AckMode, NodeId, Offset, PartitionId};

use super::anomaly::{Anomaly, Report};
use super::op::{Drained, Id, Op, Outcome, Poll, PollKind, Process, Seen, Send, mode_name};
use super::sparse::Sparse;
use crate::workload::RecordId;

/// Goes through a history.
#[derive(Debug, Default)]
pub struct Checker {
    /// The next operation's number.
    next: u32,
    /// By value.
    pub(super) values: Sparse<Value>,
    pub(super) partitions: BTreeMap<PartitionId, Partition>,
    positions: HashMap<(Process, PartitionId), Position>,
    pub(super) report: Report,
}

/// What is known of a value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value {
    /// The operations that sent it and that read it first.
    pub sent_by: u32,
    pub read_by: u32,
    pub fate: Fate,
    pub reads: Reads,
    /// Where it was sent.
    pub partition: PartitionId,
    pub invoke: u64,
    pub complete: u64,
    /// Where the acknowledgement says that it lies.
    pub acked_at: Offset,
    /// Where it was read first.
    pub read_in: PartitionId,
    pub read_at: Offset,
}

/// What the sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    NeverSent,
    /// Acknowledged by those that a failover needs.
    Durable,
    /// Acknowledged by the leader alone.
    AckedAsync,
    NotWritten,
    Unknown,
}

/// Who has read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reads {
    Never,
    /// An ordinary reader only.
    ByTail,
    /// The final reading, too.
    ByFinal,
}

/// A partition's offsets.
#[derive(Debug, Default)]
pub(super) struct Partition {
    pub offsets: Sparse<Cell>,
    /// One behind the highest that was read.
    pub read_end: Offset,
    /// How far the final reading came, and in which operation.
    pub drained: Option<(Offset, u32)>,
    /// The same of each replica.
    pub replicas: BTreeMap<NodeId, (Offset, u32)>,
}

/// What lies at an offset, by the first word of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    pub holds: Holds,
    /// The operation that said so.
    pub op: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Nothing,
    Stranger,
    Value(RecordId),
}

/// Where a reader stands in a partition.
#[derive(Debug, Clone, Copy)]
struct Position {
    next: Offset,
    op: u32,
}

impl Default for Value {
    fn default() -> Value {
        Value {
            sent_by: NO_OP,
            read_by: NO_OP,
            fate: Fate::NeverSent,
            reads: Reads::Never,
            partition: PartitionId(0),
            invoke: 0,
            complete: 0,
            acked_at: Offset(0),
            read_in: PartitionId(0),
            read_at: Offset(0),
        }
    }
}

impl Default for Cell {
    fn default() -> Cell {
        Cell { holds: Holds::Nothing, op: NO_OP }
    }
}

impl Checker {
    /// Takes the next operation.
    pub fn take(&mut self, op: &Op) {
        assert!(self.next < NO_OP, "a history has fewer than four thousand million operations");
        match op {
            Op::Send(send) => self.send(send),
            Op::Poll(poll) => self.poll(poll),
            Op::Drained(drained) => self.drained(drained),
        }
        self.next += 1;
        self.report.operations += 1;
    }

    fn send(&mut self, send: &Send) {
        self.report.sends += 1;
        let op = self.next;
        let value = self.values.at(send.id.0);
        if value.sent_by != NO_OP {
            let ops = [value.sent_by, op];
            self.report.add(Anomaly::Duplicate, &ops, || {
                format!("{} was sent twice: the history itself is wrong", Id(send.id))
            });
            return;
        }
        value.sent_by = op;
        (value.invoke, value.complete) = (send.invoke.0, send.complete.0);
        value.partition = send.partition;
        match send.outcome {
            Outcome::Ok(offset) => {
                value.acked_at = offset;
                value.fate = match send.acks {
                    AckMode::Async => Fate::AckedAsync,
                    AckMode::SemiSync | AckMode::Sync => Fate::Durable,
                };
                *self.report.acked.entry(mode_name(send.acks)).or_default() += 1;
                let value = *value;
                self.acked(send, offset, value);
            }
            Outcome::Fail => {
                value.fate = Fate::NotWritten;
                self.report.failed += 1;
            }
            Outcome::Info => {
                value.fate = Fate::Unknown;
                self.report.unknown += 1;
            }
        }
    }

    fn acked(&mut self, send: &Send, offset: Offset, value: Value) {
        let op = self.next;
        if value.reads > Reads::Never && (value.read_in, value.read_at) != (send.partition, offset)
        {
            self.misplaced(send.id, value);
        }
        // An offset that only a leader had may be given again by the next one.
        if value.fate == Fate::Durable {
            let seen = Seen { offset, id: Some(send.id) };
            self.lies_at(send.partition, seen, op, Anomaly::InconsistentOffset);
        }
    }

    fn poll(&mut self, poll: &Poll) {
        self.report.polls += 1;
        self.report.records_read += poll.records.len() as u64;
        self.follow(poll);
        for seen in &poll.records {
            let disagreement = match poll.kind {
                PollKind::Tail | PollKind::Final => Anomaly::InconsistentOffset,
                PollKind::Replica(_) => Anomaly::Divergence,
            };
            self.lies_at(poll.partition, *seen, self.next, disagreement);
            match seen.id {
                Some(id) => self.read(poll, *seen, id),
                None => self.report.strangers += 1,
            }
        }
    }

    /// Compares a poll's offsets with where its reader stood.
    fn follow(&mut self, poll: &Poll) {
        let key = (poll.process, poll.partition);
        let mut before = self.positions.get(&key).copied();
        for (at, seen) in poll.records.iter().enumerate() {
            if let Some(before) = before.filter(|before| before.next != seen.offset) {
                let is_skip = seen.offset > before.next;
                let anomaly = match (at, is_skip) {
                    (0, true) => Anomaly::PollSkip,
                    (0, false) => Anomaly::NonmonotonicPoll,
                    (_, true) => Anomaly::InternalPollSkip,
                    (_, false) => Anomaly::InternalNonmonotonicPoll,
                };
                self.report.add(anomaly, &[before.op, self.next], || {
                    format!(
                        "process {} in partition {}: offset {} where {} comes next",
                        poll.process.0, poll.partition.0, seen.offset.0, before.next.0
                    )
                });
            }
            before = Some(Position { next: seen.offset.advance(1), op: self.next });
        }
        if let Some(position) = before {
            self.positions.insert(key, Position { op: self.next, ..position });
        }
    }

    /// Takes note of what someone says lies at an offset.
    fn lies_at(&mut self, partition: PartitionId, seen: Seen, op: u32, disagreement: Anomaly) {
        let holds = seen.id.map_or(Holds::Stranger, Holds::Value);
        let cell = self.partitions.entry(partition).or_default().offsets.at(seen.offset.0);
        if cell.holds == Holds::Nothing {
            *cell = Cell { holds, op };
        } else if cell.holds != holds {
            let before = *cell;
            self.report.add(disagreement, &[before.op, op], || {
                let (one, other) = (before.holds, holds);
                format!(
                    "offset {} of partition {} holds {one} and {other}",
                    seen.offset.0, partition.0
                )
            });
        }
    }

    fn read(&mut self, poll: &Poll, seen: Seen, id: RecordId) {
        let reads = match poll.kind {
            PollKind::Tail => Reads::ByTail,
            PollKind::Final => Reads::ByFinal,
            // A replica's own log says nothing about what readers are given.
            PollKind::Replica(_) => return,
        };
        let partition = self.partitions.entry(poll.partition).or_default();
        partition.read_end = partition.read_end.max(seen.offset.advance(1));
        let place = (poll.partition, seen.offset);
        let op = self.next;
        let value = self.values.at(id.0);
        if value.reads == Reads::Never {
            (value.read_in, value.read_at) = place;
            value.read_by = op;
            value.reads = reads;
            let acked = matches!(value.fate, Fate::Durable | Fate::AckedAsync);
            if acked && (value.partition, value.acked_at) != place {
                let value = *value;
                self.misplaced(id, value);
            }
            return;
        }
        value.reads = value.reads.max(reads);
        if (value.read_in, value.read_at) != place {
            let (ops, before) = ([value.read_by, op], *value);
            self.report.add(Anomaly::Duplicate, &ops, || {
                let (read_in, read_at) = (before.read_in.0, before.read_at.0);
                let (partition, offset) = (poll.partition.0, seen.offset.0);
                format!("{} lies at {read_in}@{read_at} and {partition}@{offset}", Id(id))
            });
        }
    }

    /// A record that was read somewhere else than its acknowledgement says.
    fn misplaced(&mut self, id: RecordId, value: Value) {
        self.report.add(Anomaly::Duplicate, &[value.sent_by, value.read_by], || {
            format!(
                "{} was acknowledged at {}@{} and lies at {}@{}",
                Id(id),
                value.partition.0,
                value.acked_at.0,
                value.read_in.0,
                value.read_at.0
            )
        });
    }

    fn drained(&mut self, drained: &Drained) {
        let partition = self.partitions.entry(drained.partition).or_default();
        match drained.kind {
            // That an ordinary reader came to some end at some time says nothing.
            PollKind::Tail => {}
            PollKind::Final => {
                let farther = partition.drained.is_none_or(|(end, _)| end <= drained.end);
                if farther {
                    partition.drained = Some((drained.end, self.next));
                }
            }
            PollKind::Replica(node) => {
                partition.replicas.insert(node, (drained.end, self.next));
            }
        }
    }
}

impl std::fmt::Display for Holds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Holds::Nothing => f.write_str("nothing"),
            Holds::Stranger => f.write_str("a stranger"),
            Holds::Value(id) => write!(f, "{}", Id(*id)),
        }
    }
}

/// Stands for no operation.
pub(super) const NO_OP: u32 = u32::MAX;
