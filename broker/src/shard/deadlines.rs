//! When each replica next wants a tick, ordered so that idle replicas cost nothing.
//!
//! Followers put their election off with every heartbeat. Moving an entry each time would be most
//! of the work, so a deadline that moves back stays where it is and is looked at again when it
//! comes due; a deadline that moves forward is entered anew.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::TopicPartition;

use crate::raft::Millis;

/// The deadlines of all replicas of a shard.
#[derive(Debug, Default)]
pub struct Deadlines {
    queue: BTreeSet<(Millis, TopicPartition)>,
    wanted: BTreeMap<TopicPartition, Wanted>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    at: Millis,
    queued_at: Millis,
}

impl Deadlines {
    /// Notes when a replica wants its next tick.
    pub fn set(&mut self, partition: TopicPartition, at: Millis) {
        let wanted = self.wanted.get_mut(&partition);
        match wanted {
            Some(wanted) if wanted.queued_at <= at => wanted.at = at,
            Some(wanted) => {
                self.queue.remove(&(wanted.queued_at, partition));
                self.queue.insert((at, partition));
                *wanted = Wanted { at, queued_at: at };
            }
            None => {
                self.queue.insert((at, partition));
                self.wanted.insert(partition, Wanted { at, queued_at: at });
            }
        }
    }

    /// Drops a replica.
    pub fn forget(&mut self, partition: TopicPartition) {
        if let Some(wanted) = self.wanted.remove(&partition) {
            self.queue.remove(&(wanted.queued_at, partition));
        }
    }

    /// A replica whose deadline has passed; it is silent until `set` again.
    pub fn pop_due(&mut self, now: Millis) -> Option<TopicPartition> {
        loop {
            let (queued_at, partition) = *self.queue.first()?;
            if queued_at > now {
                return None;
            }
            self.queue.pop_first();
            let wanted = self.wanted.get_mut(&partition).expect("what is queued is wanted");
            if wanted.at <= now {
                self.wanted.remove(&partition);
                return Some(partition);
            }
            wanted.queued_at = wanted.at;
            self.queue.insert((wanted.at, partition));
        }
    }

    /// No replica wants a tick before this.
    pub fn next(&self) -> Millis {
        self.queue.first().map_or(Millis(u64::MAX), |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::ids::{PartitionId, TopicId};

    fn partition(number: u32) -> TopicPartition {
        TopicPartition::new(TopicId::CLUSTER, PartitionId(number))
    }

    #[test]
    fn replicas_come_due_in_the_order_of_their_deadlines() {
        let mut deadlines = Deadlines::default();
        deadlines.set(partition(1), Millis(20));
        deadlines.set(partition(2), Millis(10));
        assert_eq!(deadlines.pop_due(Millis(9)), None);
        assert_eq!(deadlines.pop_due(Millis(30)), Some(partition(2)));
        assert_eq!(deadlines.pop_due(Millis(30)), Some(partition(1)));
        assert_eq!(deadlines.pop_due(Millis(30)), None);
    }

    #[test]
    fn a_deadline_put_off_does_not_come_due_early_and_one_brought_forward_does_not_come_late() {
        let mut deadlines = Deadlines::default();
        deadlines.set(partition(1), Millis(10));
        deadlines.set(partition(1), Millis(50));
        assert_eq!(deadlines.pop_due(Millis(49)), None);
        deadlines.set(partition(1), Millis(30));
        assert_eq!(deadlines.pop_due(Millis(30)), Some(partition(1)));
        assert_eq!(deadlines.pop_due(Millis(100)), None, "it comes due once");
    }

    #[test]
    fn a_replica_that_is_gone_does_not_come_due() {
        let mut deadlines = Deadlines::default();
        deadlines.set(partition(1), Millis(10));
        deadlines.forget(partition(1));
        assert_eq!(deadlines.pop_due(Millis(10)), None);
        assert_eq!(deadlines.next(), Millis(u64::MAX));
    }
}
