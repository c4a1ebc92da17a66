//! Showing the checker what brokers have done.

use highwater_protocol::ids::TopicPartition;

use crate::sim::checker::Checked;
use crate::sim::cluster::{Cluster, dir_of};

impl Cluster {
    /// Shows the checker every replica of a broker.
    pub(super) fn observe(&mut self, node: usize) -> Checked {
        // The checker opens what it likes.
        let lacked = self.nodes[node].disk.give_files();
        let observed = self.observe_all(node);
        if let Some(spares) = lacked {
            self.nodes[node].disk.take_files(spares);
        }
        observed
    }

    fn observe_all(&mut self, node: usize) -> Checked {
        let broker = &mut self.nodes[node];
        let shard = broker.shard.as_ref().expect("only a broker that is up is looked at");
        for (number, partition) in self.partitions.iter().enumerate() {
            if broker.failed.contains(partition) {
                continue;
            }
            if let Some(replica) = shard.replica(*partition) {
                let view = replica.view();
                if view.trusted && !view.faulty && !broker.rotten.contains(partition) {
                    broker.short.remove(partition);
                }
                self.trace.mix(&[view.commit.0, view.log_end.0, u64::from(view.term.0)]);
                let observed = self.checker.observe(broker.id, *partition, &view, replica.log());
                // What a replica shows whose files have failed is nobody's promise.
                if observed.is_err() && !broker.disk.has_failed_in(&dir_of(number)) {
                    return observed;
                }
            }
        }
        Ok(())
    }

    /// Shows the checker a replica that is closed within this pass.
    pub(super) fn look_before_closing(
        &mut self,
        node: usize,
        partition: TopicPartition,
    ) -> Checked {
        let broker = &self.nodes[node];
        let shard = broker.shard.as_ref().expect("it is up");
        let Some(replica) = shard.replica(partition).filter(|_| !broker.disk.is_dead()) else {
            return Ok(());
        };
        if broker.failed.contains(&partition) {
            return Ok(());
        }
        let lacked = broker.disk.give_files();
        let seen = self.checker.last_seen(broker.id, partition, &replica.view(), replica.log());
        if let Some(spares) = lacked {
            broker.disk.take_files(spares);
        }
        // Opened again in this pass, it starts from what it has on disk.
        self.checker.closed(broker.id, partition);
        let number = partition.partition.0 as usize;
        if broker.disk.has_failed_in(&dir_of(number)) { Ok(()) } else { seen }
    }
}
