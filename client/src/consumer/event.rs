//! What comes to a program that is a member of a group.

use std::fmt;
use std::time::Duration;

use highwater_protocol::ids::{PartitionId, TopicPartition};
use tokio::sync::mpsc;

use super::driver::Word;
use crate::reader::RecordBatch;
use crate::record::TopicName;

/// Records, or what becomes of partitions.
#[derive(Debug)]
pub enum Event {
    /// Records of one partition.
    Batch(RecordBatch),
    /// These are its own from now on.
    Assigned(Vec<OwnedPartition>),
    /// These must be given up: they are once this is dropped. Commit before that what was done.
    Revoking(Revocation),
    /// These are somebody else's, perhaps since a while: nothing can be committed for them any more.
    Lost(Vec<OwnedPartition>),
    /// The program, or a worker of it, did not ask for this long, more than `poll_interval_max`: the member has
    /// left the group, and joins again now that the program is back. If it owned anything, `Lost` with that comes next.
    Stalled(Duration),
}

/// A partition of one's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnedPartition {
    /// Its topic.
    pub topic: TopicName,
    /// Its number.
    pub partition: PartitionId,
}

/// Partitions that must be given up. Nobody else gets them before this is dropped, or the group's patience is over
/// (`rebalance_timeout`).
#[must_use = "dropping it gives the partitions up"]
pub struct Revocation {
    /// Which ones.
    pub partitions: Vec<OwnedPartition>,
    number: u64,
    ids: Vec<TopicPartition>,
    words: mpsc::UnboundedSender<Word>,
}

impl Revocation {
    pub(super) fn new(
        partitions: Vec<OwnedPartition>,
        (number, ids): (u64, Vec<TopicPartition>),
        words: mpsc::UnboundedSender<Word>,
    ) -> Revocation {
        Revocation { partitions, number, ids, words }
    }
}

impl Drop for Revocation {
    fn drop(&mut self) {
        // Without a driver there is no membership to speak of.
        let _ = self.words.send(Word::GaveUp(self.number, std::mem::take(&mut self.ids)));
    }
}

impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Revocation").field(&self.partitions).finish()
    }
}

impl fmt::Display for OwnedPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}
