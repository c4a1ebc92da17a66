//! What a partition remembers of its idempotent producers: a fold over the batches of its log.
//!
//! Every replica folds the same batches in the same order, so whoever leads next knows duplicates
//! as well. After a truncation the table is folded anew. Rules are Kafka's: the last five batches
//! of a producer are remembered; a repeat of one of them is answered with what the original got; a
//! batch must continue the sequence; a newer epoch starts at 0; and a producer that is not
//! remembered must start at 0 too, since what it claims to continue may be lost.

use std::collections::{BTreeMap, VecDeque};

use crate::log::FrameSummary;
use crate::mutant::{self, Mutant};
use highwater_protocol::batch::ProducerStamp;
use highwater_protocol::ids::{LogIndex, Offset, ProducerEpoch, ProducerId, Term, Timestamp};

/// Where a batch of a producer lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub base_offset: Offset,
    pub end: LogIndex,
    pub term: Term,
    /// When its leader stamped it, if that is known: an index, from which a table may be folded, does
    /// not tell.
    pub stamped: Option<Timestamp>,
}

/// What a batch is to the producer's sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The next one.
    Fresh,
    /// One that is in the log already.
    Duplicate(Placed),
    /// The producer is not remembered, and this is not its first batch.
    Unknown,
    /// It does not follow what came before; this sequence number would.
    OutOfOrder { expected: u32 },
    /// A newer epoch has written.
    Fenced { newer: ProducerEpoch },
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Producers {
    known: BTreeMap<ProducerId, Producer>,
}

#[derive(Debug)]
struct Producer {
    epoch: ProducerEpoch,
    /// Oldest first, never empty.
    batches: VecDeque<Batch>,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    base_sequence: u32,
    records: u32,
    placed: Placed,
}

impl Producers {
    /// What a batch of `records` records would be.
    pub(super) fn check(&self, stamp: ProducerStamp, records: u32) -> Verdict {
        let Some(producer) = self.known.get(&stamp.id) else {
            return match stamp.base_sequence {
                0 => Verdict::Fresh,
                _ => Verdict::Unknown,
            };
        };
        if stamp.epoch < producer.epoch {
            return Verdict::Fenced { newer: producer.epoch };
        }
        let expected = match stamp.epoch > producer.epoch {
            true => 0,
            false => {
                let same = |batch: &&Batch| {
                    batch.base_sequence == stamp.base_sequence && batch.records == records
                };
                if let Some(original) = producer.batches.iter().find(same) {
                    return match mutant::active(Mutant::NoDeduplication) {
                        true => Verdict::Fresh,
                        false => Verdict::Duplicate(original.placed),
                    };
                }
                producer.next_sequence()
            }
        };
        match stamp.base_sequence == expected {
            true => Verdict::Fresh,
            false => Verdict::OutOfOrder { expected },
        }
    }

    /// A batch was appended.
    pub(super) fn appended(&mut self, stamp: ProducerStamp, records: u32, placed: Placed) {
        if self.known.len() >= PRODUCERS_MAX && !self.known.contains_key(&stamp.id) {
            self.forget_oldest();
        }
        let producer = self.known.entry(stamp.id).or_insert_with(|| Producer {
            epoch: stamp.epoch,
            batches: VecDeque::with_capacity(BATCHES_KEPT),
        });
        if producer.epoch != stamp.epoch {
            producer.epoch = stamp.epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.pop_front();
        }
        let base_sequence = stamp.base_sequence;
        producer.batches.push_back(Batch { base_sequence, records, placed });
    }

    /// The batches that end before a log's new start, oldest first: the log keeps them beside it. The
    /// newest of them, where there are many.
    pub(super) fn before(&self, start: LogIndex) -> Vec<FrameSummary> {
        let of = |id: ProducerId, producer: &Producer| {
            let epoch = producer.epoch;
            let behind = |batch: &&Batch| batch.placed.end <= start;
            let kept = producer.batches.iter().filter(behind).map(move |batch| FrameSummary {
                base_offset: batch.placed.base_offset,
                end: batch.placed.end,
                records: batch.records,
                term: batch.placed.term,
                producer: ProducerStamp { id, epoch, base_sequence: batch.base_sequence },
            });
            kept.collect::<Vec<_>>()
        };
        let mut found: Vec<FrameSummary> =
            self.known.iter().flat_map(|(id, producer)| of(*id, producer)).collect();
        found.sort_unstable_by_key(|batch| batch.end);
        let surplus = found.len().saturating_sub(KEPT_BEFORE_START_MAX);
        found.split_off(surplus)
    }

    /// Forgets everything, to be folded anew.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// Drops the half that has been silent longest, so that the cost is spread over many newcomers.
    fn forget_oldest(&mut self) {
        let mut ends: Vec<LogIndex> = self.known.values().map(Producer::last_end).collect();
        let middle = ends.len() / 2;
        let (_, median, _) = ends.select_nth_unstable(middle);
        let median = *median;
        self.known.retain(|_, producer| producer.last_end() >= median);
    }
}

impl Producer {
    fn last(&self) -> &Batch {
        self.batches.back().expect("a producer is known by its batches")
    }

    fn last_end(&self) -> LogIndex {
        self.last().placed.end
    }

    fn next_sequence(&self) -> u32 {
        let last = self.last();
        // Sequences are Kafka's positive i32 and wrap to 0.
        (last.base_sequence.wrapping_add(last.records)) & SEQUENCE_MASK
    }
}

/// How many batches a producer may have in flight; Kafka's number.
const BATCHES_KEPT: usize = 5;
const SEQUENCE_MASK: u32 = 0x7fff_ffff;
/// Batches remembered beside the start of a log: 160 KiB of the file `start`.
const KEPT_BEFORE_START_MAX: usize = 4_096;
/// Producers remembered in a partition; beyond, the longest silent ones must start anew.
const PRODUCERS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: u16, base_sequence: u32) -> ProducerStamp {
        ProducerStamp { id: ProducerId(7), epoch: ProducerEpoch(epoch), base_sequence }
    }

    fn placed(offset: u64) -> Placed {
        let (base_offset, end) = (Offset(offset), LogIndex(offset + 10));
        Placed { base_offset, end, term: Term(1), stamped: None }
    }

    /// Batches of 10 records from sequence 0 on.
    fn table(batches: u32) -> Producers {
        let mut table = Producers::default();
        for batch in 0..batches {
            table.appended(stamp(1, batch * 10), 10, placed(u64::from(batch) * 10));
        }
        table
    }

    #[test]
    fn a_batch_must_continue_the_sequence() {
        assert_eq!(table(3).check(stamp(1, 30), 5), Verdict::Fresh);
        assert_eq!(table(3).check(stamp(1, 31), 5), Verdict::OutOfOrder { expected: 30 });
        assert_eq!(table(0).check(stamp(1, 0), 5), Verdict::Fresh);
        assert_eq!(table(0).check(stamp(1, 10), 5), Verdict::Unknown);
    }

    #[test]
    fn a_repeat_of_the_last_five_gets_the_original() {
        let table = table(7);
        assert_eq!(table.check(stamp(1, 20), 10), Verdict::Duplicate(placed(20)));
        assert_eq!(table.check(stamp(1, 60), 10), Verdict::Duplicate(placed(60)));
        assert_eq!(table.check(stamp(1, 10), 10), Verdict::OutOfOrder { expected: 70 });
        assert_eq!(table.check(stamp(1, 60), 9), Verdict::OutOfOrder { expected: 70 });
    }

    #[test]
    fn a_newer_epoch_starts_at_zero_and_fences_the_older_one() {
        let mut table = table(2);
        assert_eq!(table.check(stamp(2, 20), 5), Verdict::OutOfOrder { expected: 0 });
        assert_eq!(table.check(stamp(2, 0), 10), Verdict::Fresh);
        table.appended(stamp(2, 0), 10, placed(20));
        assert_eq!(table.check(stamp(1, 20), 5), Verdict::Fenced { newer: ProducerEpoch(2) });
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut table = Producers::default();
        table.appended(stamp(1, SEQUENCE_MASK - 4), 5, placed(0));
        assert_eq!(table.check(stamp(1, 0), 5), Verdict::Fresh);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_longest_silent() {
        let mut table = Producers::default();
        let of = |id| ProducerStamp { id: ProducerId(id), ..stamp(1, 0) };
        for id in 0..=PRODUCERS_MAX as u64 {
            table.appended(of(id), 10, placed(id * 10));
        }
        assert!(table.known.len() <= PRODUCERS_MAX / 2 + 1);
        assert!(table.known.contains_key(&ProducerId(PRODUCERS_MAX as u64)));
        assert!(!table.known.contains_key(&ProducerId(0)));
    }
}
