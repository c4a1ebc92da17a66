//! Which voters the operator and the controller aim at, though no log names them yet.
//!
//! A leader makes a group smaller if a majority of those that stay was heard of within the election time-out. One of them may
//! have lost its files since then: if the leader ends before the others have the change, that group waits for an operator,
//! rightly. So nobody aims at voters of whom a majority lacks what it counted, and no majority of those aimed at comes to.

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::moves::MoveStage;

use super::cluster::Cluster;
use super::node::node_number;
use crate::controller::ClusterImage;
use crate::controller::record::MetadataRecord;

impl Cluster {
    /// The voters that may be those of a partition before long.
    pub(super) fn aims(&self, partition: TopicPartition) -> Vec<Vec<NodeId>> {
        let asked = self.operator.voters_asked.get(&partition).cloned();
        let moving = self.mover.as_ref().and_then(|mover| aim(mover.image(), partition));
        asked.into_iter().chain(moving).collect()
    }

    /// Whether the operator has ever asked for other voters of a partition.
    pub(super) fn was_asked_for_voters(&self, number: usize) -> bool {
        self.operator.voters_asked.contains_key(&self.partitions[number])
    }

    /// Whether a majority of these has all that it counted, also without the replica of a broker that is to be struck.
    /// Who does not vote yet has counted nothing, and gets no vote before it has caught up.
    pub(super) fn would_stand(
        &self,
        voters: &[NodeId],
        partition: TopicPartition,
        struck: Option<usize>,
    ) -> bool {
        let mut votes = self.checker.voters(partition).to_vec();
        votes.extend(self.checker.voters_to_come(partition).concat());
        let short = |node: &&NodeId| {
            let member = node_number(**node);
            struck == Some(member)
                || votes.contains(node) && self.is_short(&self.nodes[member], partition)
        };
        voters.iter().filter(short).count() * 2 < voters.len()
    }

    /// Whether all voters that these records aim at would stand.
    pub(super) fn may_aim(&self, records: &[MetadataRecord]) -> bool {
        let mover = self.mover.as_ref().expect("who asks has one");
        let mut image = mover.image().clone();
        for record in records {
            image.apply(record).expect("a decision fits the image that it was made on");
        }
        self.partitions.iter().all(|partition| {
            let aim = aim(&image, *partition);
            aim == self::aim(mover.image(), *partition)
                || aim.is_none_or(|voters| self.would_come_to_stand(&voters, *partition))
        })
    }

    /// Whether these would stand, also with one that is to go and is the last to.
    fn would_come_to_stand(&self, voters: &[NodeId], partition: TopicPartition) -> bool {
        let going = self.checker.voters(partition).iter().filter(|voter| !voters.contains(voter));
        let mut on_the_way = going.map(|last| [voters, &[*last]].concat());
        self.would_stand(voters, partition, None)
            && on_the_way.all(|voters| self.would_stand(&voters, partition, None))
    }
}

/// Where the move of a partition leads, also one that waits still.
fn aim(image: &ClusterImage, partition: TopicPartition) -> Option<Vec<NodeId>> {
    let topic = image.topic(partition.topic)?;
    let change = topic.move_of(partition.partition)?;
    let placed = match change.stage {
        MoveStage::Waiting | MoveStage::Running => change.target.as_slice(),
        MoveStage::GoingBack => topic.partitions.get(partition.partition.0 as usize)?,
    };
    Some(placed.iter().map(|replica| replica.node).collect())
}
