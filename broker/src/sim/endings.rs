//! How lives end, and files with them: what the checker demands of a replica that comes back.

use highwater_protocol::ids::{LogIndex, NodeId, Term, TopicPartition};

use crate::sim::checker::{Checker, Death};
use crate::sim::shadow::Ended;

impl Checker {
    /// A broker died.
    pub fn crashed(&mut self, node: NodeId, death: Death) {
        for ((of, partition), shadow) in &mut self.shadows {
            if *of == node {
                let survives = match death {
                    Death::Killed => shadow.end(),
                    Death::PowerLost => shadow.flushed,
                    // A cut that nobody saw may already be on disk, but never a cut of the committed.
                    Death::AmidPass => {
                        shadow.agreed(&self.committed[partition]).min(shadow.flushed)
                    }
                };
                let how = match death {
                    Death::Killed => Ended::Whole,
                    Death::PowerLost | Death::AmidPass => Ended::Losing,
                };
                shadow.ended(survives, how);
            }
        }
    }

    /// A broker that is down has lost what it had flushed of a partition from `from` on.
    pub fn rotted(&mut self, node: NodeId, partition: TopicPartition, from: LogIndex) {
        let shadow = self.shadows.get_mut(&(node, partition)).expect("what rots was seen before");
        shadow.ended(from, Ended::Losing);
    }

    /// A broker that is down has lost its journal: of its terms nothing is left.
    pub fn forgot(&mut self, node: NodeId) {
        let here = self.shadows.iter_mut().filter(|((of, _), _)| *of == node);
        here.for_each(|(_, shadow)| shadow.term = Term::default());
    }

    /// A broker that is down has lost all files of a partition.
    pub fn emptied(&mut self, node: NodeId, partition: TopicPartition) {
        let shadow =
            self.shadows.get_mut(&(node, partition)).expect("what is lost was seen before");
        shadow.emptied(&self.committed[&partition]);
    }

    /// A replica whose files failed was closed in this pass, and begins anew without them.
    pub fn rebuilt(&mut self, node: NodeId, partition: TopicPartition) {
        if let Some(shadow) = self.shadows.get_mut(&(node, partition)) {
            shadow.emptied(&self.committed[&partition]);
        }
    }

    /// A replica was closed in this pass, which may have cut what was not committed.
    pub fn closed(&mut self, node: NodeId, partition: TopicPartition) {
        if let Some(shadow) = self.shadows.get_mut(&(node, partition)) {
            let survives = shadow.agreed(&self.committed[&partition]);
            shadow.ended(survives, Ended::Whole);
        }
    }

    /// A replica was deleted, as the end of a move says: what it was is nobody's any more. Its votes may
    /// be given again: who could still win with an old one lacks the change that removed it.
    pub fn deleted(&mut self, node: NodeId, partition: TopicPartition) {
        if let Some(shadow) = self.shadows.remove(&(node, partition)) {
            self.taken.entry(partition).or_default().push((node, shadow));
        }
        self.votes.retain(|(of, voter, _), _| (*of, *voter) != (partition, node));
    }
}
