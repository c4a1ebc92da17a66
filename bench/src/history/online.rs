//! Nothing lost, nothing twice, nothing out of order: checked while measuring.
//!
//! Every record names its producer and its number. A consumer's side marks each number that it
//! sees and watches that numbers of one producer rise within a partition; the producer's side
//! marks what became of each. In the end the two are compared. Memory is a bit per record and side.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::workload::RecordId;

/// A set of sequence numbers, dense from 0 in practice; wild numbers cost a chunk each, no more.
#[derive(Debug, Default, Clone)]
pub struct Numbers {
    chunks: BTreeMap<u64, Box<[u64; CHUNK_WORDS]>>,
    count: u64,
}

/// What a producer's side knows of each record.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// Acknowledged: these must be there.
    pub acked: HashMap<u32, Numbers>,
    /// Failed with the word that they were not written: these must not be there.
    pub not_written: HashMap<u32, Numbers>,
}

/// Watches records arrive.
#[derive(Debug, Default)]
pub struct Verifier {
    seen: HashMap<u32, Numbers>,
    partitions: HashMap<u32, Partition>,
    verdict: Verdict,
}

#[derive(Debug, Default)]
struct Partition {
    next_offset: Option<u64>,
    /// The highest sequence of each producer here.
    highest: HashMap<u32, u64>,
}

/// What was found.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Records that arrived.
    pub received: u64,
    /// Records that no bench wrote, or another run's.
    pub foreign: u64,
    /// Acknowledged and never seen.
    pub lost: u64,
    /// Numbers missing below the largest that was seen, where no ledger says more.
    pub holes: u64,
    /// Seen twice.
    pub duplicated: u64,
    /// Seen after a later one of the same producer and partition.
    pub reordered: u64,
    /// Seen although the producer was told that they were not written.
    pub phantom: u64,
    /// Offsets that do not follow the one before.
    pub offset_jumps: u64,
    /// The first few anomalies in words.
    pub examples: Vec<String>,
}

impl Numbers {
    /// Adds a number; whether it was there before.
    pub fn insert(&mut self, number: u64) -> Before {
        let chunk =
            self.chunks.entry(number / CHUNK_BITS).or_insert_with(|| Box::new([0; CHUNK_WORDS]));
        let word = &mut chunk[(number % CHUNK_BITS / 64) as usize];
        let bit = 1 << (number % 64);
        if *word & bit != 0 {
            return Before::There;
        }
        *word |= bit;
        self.count += 1;
        Before::Missing
    }

    /// Adds all numbers of another set.
    pub fn unite(&mut self, other: &Numbers) {
        for (place, words) in &other.chunks {
            let chunk = self.chunks.entry(*place).or_insert_with(|| Box::new([0; CHUNK_WORDS]));
            for (into, from) in chunk.iter_mut().zip(words.iter()) {
                self.count += u64::from((from & !*into).count_ones());
                *into |= from;
            }
        }
    }

    /// Whether it holds a number.
    pub fn contains(&self, number: u64) -> bool {
        let word = (number % CHUNK_BITS / 64) as usize;
        self.chunks
            .get(&(number / CHUNK_BITS))
            .is_some_and(|chunk| chunk[word] & (1 << (number % 64)) != 0)
    }

    /// How many numbers it holds.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The numbers in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.chunks.iter().flat_map(|(chunk, words)| {
            let base = chunk * CHUNK_BITS;
            (0..CHUNK_BITS)
                .filter(|bit| words[(bit / 64) as usize] & (1 << (bit % 64)) != 0)
                .map(move |bit| base + bit)
        })
    }

    fn largest(&self) -> Option<u64> {
        let (chunk, words) = self.chunks.last_key_value()?;
        let at = words.iter().rposition(|word| *word != 0)?;
        let top = 63 - u64::from(words[at].leading_zeros());
        Some(chunk * CHUNK_BITS + at as u64 * 64 + top)
    }
}

/// Whether a number was in a set before it was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It was.
    There,
    /// It was not.
    Missing,
}

impl Ledger {
    /// Marks an acknowledged record.
    pub fn acked(&mut self, id: RecordId) {
        self.acked.entry(id.producer()).or_default().insert(id.sequence());
    }

    /// Marks a record that was surely not written.
    pub fn not_written(&mut self, id: RecordId) {
        self.not_written.entry(id.producer()).or_default().insert(id.sequence());
    }

    /// Takes over what another ledger knows.
    pub fn merge(&mut self, other: &Ledger) {
        let take = |into: &mut HashMap<u32, Numbers>, from: &HashMap<u32, Numbers>| {
            for (producer, numbers) in from {
                into.entry(*producer).or_default().unite(numbers);
            }
        };
        take(&mut self.acked, &other.acked);
        take(&mut self.not_written, &other.not_written);
    }

    /// How many records were acknowledged.
    pub fn acked_count(&self) -> u64 {
        self.acked.values().map(Numbers::count).sum()
    }
}

impl Verifier {
    /// Takes note of a record in the order in which it arrived.
    pub fn saw(&mut self, partition: u32, offset: u64, id: RecordId) {
        self.saw_offset(partition, offset);
        self.verdict.received += 1;
        let (producer, sequence) = (id.producer(), id.sequence());
        let before = self.seen.entry(producer).or_default().insert(sequence);
        let place = self.partitions.entry(partition).or_default();
        let highest = place.highest.entry(producer).or_insert(sequence);
        let overtaken_by = (*highest > sequence).then_some(*highest);
        *highest = sequence.max(*highest);
        if before == Before::There {
            self.verdict.duplicated += 1;
            self.example(|| format!("{} came twice, now at {partition}@{offset}", name(id)));
        } else if let Some(later) = overtaken_by {
            self.verdict.reordered += 1;
            self.example(|| {
                format!("{} came after number {later}, at {partition}@{offset}", name(id))
            });
        }
    }

    /// Takes note of a record that is not ours; its offset counts all the same.
    pub fn saw_foreign(&mut self, partition: u32, offset: u64) {
        self.saw_offset(partition, offset);
        self.verdict.foreign += 1;
    }

    /// How many different records of ours have arrived.
    pub fn distinct(&self) -> u64 {
        self.seen.values().map(Numbers::count).sum()
    }

    /// Compares with what the producers know.
    pub fn finish(mut self, ledger: &Ledger) -> Verdict {
        let missing = |numbers: &Numbers, seen: Option<&Numbers>| -> Vec<u64> {
            let is_seen = |number: &u64| seen.is_some_and(|seen| seen.contains(*number));
            numbers.iter().filter(|number| !is_seen(number)).collect()
        };
        for (producer, acked) in &ledger.acked {
            let lost = missing(acked, self.seen.get(producer));
            self.verdict.lost += lost.len() as u64;
            for number in lost.iter().take(EXAMPLES_MAX) {
                self.example(|| {
                    format!(
                        "{} was acknowledged and is lost",
                        name(RecordId::new(*producer, *number))
                    )
                });
            }
        }
        for (producer, refused) in &ledger.not_written {
            let absent = missing(refused, self.seen.get(producer)).len() as u64;
            let phantoms = refused.count() - absent;
            self.verdict.phantom += phantoms;
            if phantoms > 0 {
                self.example(|| {
                    format!("producer {producer}: {phantoms} refused records are there")
                });
            }
        }
        self.verdict
    }

    /// Judges what arrived by itself: whole runs have no holes.
    pub fn finish_alone(mut self) -> Verdict {
        let mut holes: Vec<(u32, u64)> = Vec::new();
        for (producer, seen) in &self.seen {
            let span = seen.largest().map_or(0, |largest| largest + 1);
            holes.push((*producer, span - seen.count()));
        }
        for (producer, count) in holes.into_iter().filter(|(_, count)| *count > 0) {
            self.verdict.holes += count;
            self.example(|| format!("producer {producer}: {count} numbers are missing in between"));
        }
        self.verdict
    }

    fn saw_offset(&mut self, partition: u32, offset: u64) {
        let place = self.partitions.entry(partition).or_default();
        let expected = place.next_offset.replace(offset + 1);
        if let Some(expected) = expected.filter(|expected| *expected != offset) {
            self.verdict.offset_jumps += 1;
            self.example(|| {
                format!("partition {partition}: offset {offset} follows {expected} - 1")
            });
        }
    }

    fn example(&mut self, words: impl FnOnce() -> String) {
        if self.verdict.examples.len() < EXAMPLES_MAX {
            self.verdict.examples.push(words());
        }
    }
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        let wrong = [
            self.lost,
            self.holes,
            self.duplicated,
            self.reordered,
            self.phantom,
            self.offset_jumps,
        ];
        wrong.iter().all(|count| *count == 0)
    }
}

fn name(id: RecordId) -> String {
    format!("record {} of producer {}", id.sequence(), id.producer())
}

const CHUNK_WORDS: usize = 1024;
const CHUNK_BITS: u64 = CHUNK_WORDS as u64 * 64;
const EXAMPLES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCER: u32 = 7;

    fn id(sequence: u64) -> RecordId {
        RecordId::new(PRODUCER, sequence)
    }

    fn ledger(acked: impl IntoIterator<Item = u64>) -> Ledger {
        let mut ledger = Ledger::default();
        acked.into_iter().for_each(|sequence| ledger.acked(id(sequence)));
        ledger
    }

    /// What is found when `history` (partition, offset, sequence) arrives after 0..=9 were acked.
    fn judge(history: &[(u32, u64, u64)]) -> Verdict {
        let mut verifier = Verifier::default();
        for (partition, offset, sequence) in history {
            verifier.saw(*partition, *offset, id(*sequence));
        }
        verifier.finish(&ledger(history.iter().map(|(_, _, sequence)| *sequence)))
    }

    #[test]
    fn a_good_history_over_two_partitions_is_clean() {
        let verdict = judge(&[(0, 5, 0), (1, 0, 1), (0, 6, 2), (1, 1, 4), (0, 7, 3)]);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(verdict.received, 5);
    }

    #[test]
    fn a_lost_record_is_found() {
        let mut verifier = Verifier::default();
        verifier.saw(0, 0, id(0));
        verifier.saw(0, 1, id(2));
        let verdict = verifier.finish(&ledger(0..4));
        assert_eq!(verdict.lost, 2);
        assert!(!verdict.is_clean());
        assert!(verdict.examples[0].contains("record 1 of producer 7"), "{verdict:?}");
    }

    #[test]
    fn a_record_nobody_acknowledged_may_be_missing_or_not() {
        let mut verifier = Verifier::default();
        verifier.saw(0, 0, id(0));
        verifier.saw(0, 1, id(1));
        assert!(verifier.finish(&ledger([0])).is_clean());
    }

    #[test]
    fn a_duplicate_is_found_even_in_another_partition() {
        let verdict = judge(&[(0, 0, 0), (0, 1, 1), (1, 0, 1)]);
        assert_eq!((verdict.duplicated, verdict.reordered), (1, 0));
        let verdict = judge(&[(0, 0, 0), (0, 1, 1), (0, 2, 0), (0, 3, 1)]);
        assert_eq!((verdict.duplicated, verdict.reordered), (2, 0));
    }

    #[test]
    fn a_swap_within_a_partition_is_found_and_counted_once() {
        let verdict = judge(&[(0, 0, 0), (0, 1, 2), (0, 2, 1), (0, 3, 3)]);
        assert_eq!((verdict.reordered, verdict.duplicated), (1, 0));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn two_late_records_are_both_out_of_order() {
        assert_eq!(judge(&[(0, 0, 5), (0, 1, 1), (0, 2, 2)]).reordered, 2);
    }

    #[test]
    fn an_offset_that_jumps_or_repeats_is_found() {
        assert_eq!(judge(&[(0, 0, 0), (0, 2, 1)]).offset_jumps, 1);
        assert_eq!(judge(&[(0, 0, 0), (0, 0, 1)]).offset_jumps, 1);
    }

    #[test]
    fn a_record_that_was_refused_and_is_there_is_a_phantom() {
        let mut ledger = ledger([0]);
        ledger.not_written(id(1));
        ledger.not_written(id(2));
        let mut verifier = Verifier::default();
        verifier.saw(0, 0, id(0));
        verifier.saw(0, 1, id(2));
        assert_eq!(verifier.finish(&ledger).phantom, 1);
    }

    #[test]
    fn holes_show_without_a_ledger() {
        let mut verifier = Verifier::default();
        for sequence in [0, 1, 3, 70_000] {
            verifier.saw(0, sequence, id(sequence));
        }
        assert_eq!(verifier.finish_alone().holes, 70_001 - 4);
    }

    #[test]
    fn ledgers_of_several_lanes_add_up() {
        let mut all = ledger([0, 2]);
        all.merge(&ledger([1, 2, 100_000]));
        assert_eq!(all.acked_count(), 4);
        assert_eq!(all.acked[&PRODUCER].iter().collect::<Vec<_>>(), [0, 1, 2, 100_000]);
    }
}
