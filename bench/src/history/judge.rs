//! What can only be said once the whole history is known.

use std::collections::{BTreeMap, HashMap};

use highwater_client::{Offset, PartitionId};

use super::anomaly::{Anomaly, Report};
use super::check::{Checker, Fate, Holds, Partition, Reads, Value};
use super::op::Id;
use crate::workload::RecordId;

/// Whether the file ended as its writer ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It did.
    Closed,
    /// It was cut off.
    CutOff,
}

/// The first and the last number of a producer that is left in a partition.
type Left = HashMap<(u32, PartitionId), (u64, u64)>;

impl Checker {
    /// Everything that is wrong.
    pub fn finish(mut self, ending: Ending) -> Report {
        self.report.complete = ending == Ending::Closed;
        self.report.drained =
            self.partitions.values().filter(|partition| partition.drained.is_some()).count() as u64;
        let left = self.left();
        let mut report = std::mem::take(&mut self.report);
        self.judge_values(&left, &mut report);
        for (number, partition) in &self.partitions {
            self.judge_real_time(partition, &mut report);
            judge_replicas(*number, partition, &mut report);
        }
        report
    }

    fn left(&self) -> Left {
        let mut left = Left::new();
        for (number, value) in self.values.iter().filter(|(_, value)| self.is_there(value)) {
            let id = RecordId(number);
            let sequence = id.sequence();
            let ends = left.entry((id.producer(), value.read_in)).or_insert((sequence, sequence));
            ends.1 = sequence;
        }
        left
    }

    /// Whether it was read, by the final reading if there was one.
    fn is_there(&self, value: &Value) -> bool {
        let is_drained = |partition| {
            self.partitions.get(&partition).is_some_and(|partition| partition.drained.is_some())
        };
        match value.reads {
            Reads::Never => false,
            Reads::ByTail => !is_drained(value.read_in),
            Reads::ByFinal => true,
        }
    }

    fn judge_values(&self, left: &Left, report: &mut Report) {
        // Values come by producer and number, so this holds one producer at a time.
        let mut last: BTreeMap<PartitionId, (Offset, u32)> = BTreeMap::new();
        let mut producer = None;
        for (number, value) in self.values.iter() {
            let id = RecordId(number);
            if producer.replace(id.producer()) != Some(id.producer()) {
                last.clear();
            }
            let is_read = value.reads > Reads::Never;
            if is_read && value.fate == Fate::NotWritten {
                report.add(Anomaly::AbortedRead, &[value.sent_by, value.read_by], || {
                    format!("{} was read although its send failed", Id(id))
                });
            }
            if is_read && value.fate == Fate::NeverSent && report.complete {
                report.add(Anomaly::UnexpectedRead, &[value.read_by], || {
                    format!("{} was read and nobody sent it", Id(id))
                });
            }
            if !self.is_there(value) {
                self.judge_absent(id, value, left, report);
            }
            let place = match value.fate {
                _read if is_read => Some((value.read_in, value.read_at)),
                Fate::Durable => Some((value.partition, value.acked_at)),
                Fate::NeverSent | Fate::AckedAsync | Fate::NotWritten | Fate::Unknown => None,
            };
            let Some((partition, offset)) = place else { continue };
            let before = last.insert(partition, (offset, value.sent_by));
            if let Some((before, sent_by)) = before.filter(|(before, _)| *before > offset) {
                report.add(Anomaly::NonmonotonicSend, &[sent_by, value.sent_by], || {
                    let (offset, before) = (offset.0, before.0);
                    format!("{} lies at {offset}, an earlier one at {before}", Id(id))
                });
            }
        }
    }

    /// A value that is not there: may it be missing?
    fn judge_absent(&self, id: RecordId, value: &Value, left: &Left, report: &mut Report) {
        let was_read = value.reads > Reads::Never;
        let (partition, offset) = match value.fate {
            _read if was_read => (value.read_in, value.read_at),
            Fate::Durable => (value.partition, value.acked_at),
            Fate::AckedAsync => {
                report.async_lost += u64::from(self.is_covered(value.partition, value.acked_at));
                return;
            }
            Fate::NeverSent | Fate::NotWritten | Fate::Unknown => return,
        };
        let held = self.partitions.get(&partition);
        let drained = held.and_then(|held| held.drained);
        let ops = [value.sent_by, value.read_by, drained.map_or(super::check::NO_OP, |it| it.1)];
        if drained.is_some_and(|(end, _)| end <= offset) && !was_read {
            report.add(Anomaly::Unseen, &ops, || {
                let end = drained.map_or(0, |(end, _)| end.0);
                format!("{} was acknowledged at {} and the end is {end}", Id(id), offset.0)
            });
            return;
        }
        if !self.is_covered(partition, offset) {
            return;
        }
        let sequence = id.sequence();
        let anomaly = match left.get(&(id.producer(), partition)) {
            Some((first, last)) if *first < sequence && sequence < *last => Anomaly::LostMiddle,
            Some((first, _)) if sequence < *first => Anomaly::LostPrefix,
            Some(_) | None => Anomaly::LostTail,
        };
        let how = if was_read { "read" } else { "acknowledged" };
        report.add(anomaly, &ops, || {
            format!("{} was {how} at {}@{} and is gone", Id(id), partition.0, offset.0)
        });
    }

    /// Whether readers have come past an offset, so that what is not read there is not there.
    fn is_covered(&self, partition: PartitionId, offset: Offset) -> bool {
        let held = self.partitions.get(&partition);
        held.is_some_and(|held| held.drained.is_some() || offset < held.read_end)
    }

    /// By rising offset: nothing may be called after something above it was acknowledged.
    fn judge_real_time(&self, partition: &Partition, report: &mut Report) {
        let mut latest: Option<(u64, u32)> = None;
        for (offset, cell) in partition.offsets.iter() {
            let Holds::Value(id) = cell.holds else { continue };
            let Some(value) = self.values.get(id.0) else { continue };
            let is_acked = match value.fate {
                Fate::Durable => true,
                // An acknowledgement that a failover took back orders nothing.
                Fate::AckedAsync => value.reads > Reads::Never,
                Fate::Unknown | Fate::NotWritten | Fate::NeverSent => false,
            };
            let overtaken = latest.filter(|(invoke, _)| is_acked && value.complete < *invoke);
            if let Some((_, later)) = overtaken {
                report.add(Anomaly::RealTime, &[value.sent_by, later], || {
                    format!("{} at {offset} was acknowledged before one below it was sent", Id(id))
                });
            }
            let is_latest = latest.is_none_or(|(invoke, _)| invoke < value.invoke);
            if value.fate != Fate::NeverSent && is_latest {
                latest = Some((value.invoke, value.sent_by));
            }
        }
    }
}

/// All replicas end where the others do; that they hold the same is seen while reading them.
fn judge_replicas(number: PartitionId, partition: &Partition, report: &mut Report) {
    let Some((_, (end, op))) = partition.replicas.first_key_value() else { return };
    for (node, (other_end, other_op)) in &partition.replicas {
        if other_end != end {
            report.add(Anomaly::Divergence, &[*op, *other_op], || {
                let (number, node) = (number.0, node.0);
                format!(
                    "partition {number} ends at {} on {node}, elsewhere at {}",
                    other_end.0, end.0
                )
            });
        }
    }
}
