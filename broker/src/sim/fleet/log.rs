//! The controller's log as the fleet has it: committed batches of records, and where they start.
//!
//! What is not committed is nowhere: Raft has its own part of the simulator.

use std::collections::VecDeque;

use bytes::Bytes;

/// Committed records, in batches.
#[derive(Debug, Default)]
pub struct Log {
    batches: VecDeque<Batch>,
    end: u64,
}

#[derive(Debug)]
struct Batch {
    base: u64,
    records: Vec<Bytes>,
}

impl Log {
    /// Appends a batch; says where it begins.
    pub fn push(&mut self, records: Vec<Bytes>) -> u64 {
        let base = self.end;
        self.end += records.len() as u64;
        self.batches.push_back(Batch { base, records });
        base
    }

    /// Gives up the batches before the one that begins here.
    pub fn trim_before(&mut self, base: u64) {
        while self.batches.front().is_some_and(|batch| batch.base < base) {
            self.batches.pop_front();
        }
    }

    /// Where it starts.
    pub fn start(&self) -> u64 {
        self.batches.front().map_or(self.end, |batch| batch.base)
    }

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Where the batch that holds this offset, or the end, begins.
    pub fn batch_at(&self, offset: u64) -> u64 {
        let after = self.batches.partition_point(|batch| batch.base <= offset);
        after.checked_sub(1).map_or(self.end, |at| self.batches[at].base)
    }

    /// The records from an offset on.
    pub fn read(&self, from: u64) -> impl Iterator<Item = &Bytes> {
        let first =
            self.batches.partition_point(|batch| batch.base + batch.records.len() as u64 <= from);
        let skip = self.batches.get(first).map_or(0, |batch| from.saturating_sub(batch.base));
        self.batches.range(first..).flat_map(|batch| &batch.records).skip(skip as usize)
    }
}
