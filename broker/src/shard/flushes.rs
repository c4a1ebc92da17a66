//! The flushes that a shard has asked for and that are not over: who waits for which files.
//!
//! One flush covers the files of many replicas, and what becomes of a file concerns its owner alone. What
//! must hold: nobody hears of a flush that it did not ask for, so a replica that is closed leaves every
//! flush; another may be opened in its place before the flush is over.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use highwater_protocol::ids::TopicPartition;

use super::event::FlushTicket;
use crate::disk::FlushFailure;
use crate::mutant::{self, Mutant};

/// Flushes under way, at most one part per replica.
#[derive(Debug, Default)]
pub struct Flushes {
    under_way: BTreeMap<FlushTicket, Vec<Part>>,
    next_ticket: u64,
}

/// A replica's part in a flush.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose files they are.
    pub partition: TopicPartition,
    /// Their places among the files of the flush.
    pub files: Range<usize>,
}

impl Flushes {
    /// A flush of these parts was asked for.
    pub fn begin(&mut self, parts: Vec<Part>) -> FlushTicket {
        let ticket = FlushTicket(self.next_ticket);
        self.next_ticket += 1;
        self.under_way.insert(ticket, parts);
        ticket
    }

    /// A flush is over: those that still wait for it.
    pub fn end(&mut self, ticket: FlushTicket) -> Vec<Part> {
        self.under_way.remove(&ticket).expect("the driver reports each flush once")
    }

    /// A replica is closed: whatever becomes of its files is no news for the next one.
    pub fn leave(&mut self, partition: TopicPartition) {
        if mutant::active(Mutant::LateFlushCounts) {
            return;
        }
        for parts in self.under_way.values_mut() {
            parts.retain(|part| part.partition != partition);
        }
    }
}

impl Part {
    /// What became of this part, given the files that failed.
    pub fn result<'a>(&self, failures: &'a [FlushFailure]) -> Result<(), &'a io::Error> {
        let own = |failure: &&FlushFailure| {
            self.files.contains(&failure.file) || mutant::active(Mutant::FlushErrorSpreads)
        };
        failures.iter().find(own).map_or(Ok(()), |failure| Err(&failure.error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::ids::{PartitionId, TopicId};

    fn part(number: u32, files: Range<usize>) -> Part {
        Part { partition: TopicPartition::new(TopicId::CLUSTER, PartitionId(number)), files }
    }

    #[test]
    fn a_failed_file_concerns_its_owner_alone() {
        let mut flushes = Flushes::default();
        let ticket = flushes.begin(vec![part(1, 0..2), part(2, 2..3), part(3, 3..5)]);
        let failures = [FlushFailure { file: 2, error: io::Error::other("the device failed") }];
        let parts = flushes.end(ticket);
        let failed = parts.iter().map(|part| part.result(&failures).is_err()).collect::<Vec<_>>();
        assert_eq!(failed, [false, true, false]);
    }

    #[test]
    fn a_replica_that_was_closed_hears_of_no_flush_and_the_others_keep_their_files() {
        let mut flushes = Flushes::default();
        let ticket = flushes.begin(vec![part(1, 0..2), part(2, 2..3)]);
        flushes.leave(part(1, 0..0).partition);
        assert_eq!(flushes.end(ticket), [part(2, 2..3)]);
    }
}
