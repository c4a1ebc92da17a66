//! Records of moves that the controller begins by itself, and of their end where nobody wants them any
//! more; `auto` says when.

use std::collections::BTreeSet;

use highwater_protocol::ids::{NodeId, PartitionId, TopicPartition};
use highwater_protocol::native::moves::{MoveStage, MoveWish};
use xxhash_rust::xxh3::xxh3_64;

use super::{MOVES_AT_ONCE_MAX, Planner, first_stage, placed, set, under_way};
use crate::controller::image::{Broker, ClusterImage, Topic};
use crate::controller::moves::{Move, MoveId, MoveRecord, Why, nodes};
use crate::controller::record::MetadataRecord;
use crate::mutant::{self, Mutant};
use crate::raft::Millis;

/// A partition, where it is to lie, and why.
pub type Wanted = (TopicPartition, Vec<NodeId>, Why);

/// Gives moves their ids: who decides, in which life and when is never the same twice.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    me: NodeId,
    life: u64,
    now: Millis,
}

impl Draw {
    /// For what this broker decides now.
    pub fn new(image: &ClusterImage, me: NodeId, now: Millis) -> Draw {
        let life = image.broker(me).map_or(0, |broker| broker.registration.incarnation.0);
        Draw { me, life, now }
    }

    fn id(&self, partition: TopicPartition) -> MoveId {
        let mut drawn_from = [0; 40];
        drawn_from[..16].copy_from_slice(partition.topic.0.as_bytes());
        drawn_from[16..20].copy_from_slice(&partition.partition.0.to_le_bytes());
        drawn_from[20..24].copy_from_slice(&self.me.0.to_le_bytes());
        drawn_from[24..32].copy_from_slice(&self.life.to_le_bytes());
        drawn_from[32..].copy_from_slice(&self.now.0.to_le_bytes());
        MoveId(xxh3_64(&drawn_from))
    }
}

/// How many of the controller's own moves are not over.
pub fn count(image: &ClusterImage) -> usize {
    of_ours(image).count()
}

fn of_ours(image: &ClusterImage) -> impl Iterator<Item = (&Topic, PartitionId, &Move, Why)> {
    image.topics().flat_map(|topic| {
        let ours = |(number, found)| Some((&**topic, number, found, topic.why_moved(number)?));
        topic.moving().filter_map(ours)
    })
}

/// Begins moves, each with its reason.
pub fn begin(image: &ClusterImage, wanted: &[Wanted], draw: Draw) -> Vec<MetadataRecord> {
    let mut room = MOVES_AT_ONCE_MAX.saturating_sub(under_way(image));
    let mut records = Vec::new();
    for (partition, to, why) in wanted {
        let topic = image.topic(partition.topic).map(|topic| &**topic);
        let stage = first_stage(topic, partition.partition, to, &mut room);
        let target = placed(image, to);
        records.push(set(*partition, Move { id: draw.id(*partition), stage, target }));
        records.push(MetadataRecord::Move(MoveRecord::Because(*partition, *why)));
    }
    records
}

/// For up to `room` partitions with a replica on a broker that is gone: who has it instead. One that
/// moves is left alone, and so is one without a majority, for its voters cannot change.
pub fn replacements(image: &ClusterImage, gone: &BTreeSet<NodeId>, room: usize) -> Vec<Wanted> {
    let mut planner = Planner::new(image);
    let lives = |node: &NodeId| image.broker(*node).is_some_and(|broker| !broker.fenced);
    let mut wanted = Vec::new();
    for (topic, number) in image.every_partition() {
        if wanted.len() >= room {
            break;
        }
        let from = nodes(&topic.partitions[number.0 as usize]);
        let lost = from.iter().copied().find(|node| gone.contains(node));
        let Some(lost) = lost.filter(|_| topic.move_of(number).is_none()) else { continue };
        if from.iter().filter(|node| lives(node)).count() * 2 <= from.len() {
            continue;
        }
        // Without another broker there is nothing to do but to wait.
        let Ok(to) = planner.target(topic, number, &from, &MoveWish::Drain(lost)) else { continue };
        planner.placed(&from, &to);
        wanted.push((TopicPartition::new(topic.id, number), to, Why::Replaces(lost)));
    }
    wanted
}

/// Ends moves that wait and that nobody wants any more: the broker is back, the setting is off, or
/// who was to get a replica takes none now.
pub fn drop_unwanted(image: &ClusterImage) -> Vec<MetadataRecord> {
    let settings = image.settings();
    let takes = |node: &NodeId| image.broker(*node).is_some_and(Broker::takes_work);
    let wanted = |why: Why| match why {
        Why::Evens(_) => settings.balances_itself(),
        Why::Replaces(_) if mutant::active(Mutant::ReturnedStillReplaced) => true,
        Why::Replaces(node) => {
            let away = image.broker(node).is_none_or(|broker| broker.fenced);
            away && settings.replaces_after_ms().is_some()
        }
    };
    let waits = of_ours(image).filter(|(_, _, found, _)| found.stage == MoveStage::Waiting);
    let unwanted = waits.filter_map(|(topic, number, found, why)| {
        let partition = TopicPartition::new(topic.id, number);
        if wanted(why) && newcomers(topic, number, found).iter().all(takes) {
            return None;
        }
        let replicas = topic.partitions[number.0 as usize].to_vec();
        let dropped = Vec::new();
        Some(MetadataRecord::Move(MoveRecord::End { partition, replicas, dropped }))
    });
    unwanted.collect()
}

/// Turns back moves that are under way to a broker that is gone.
pub fn turn_back(image: &ClusterImage, gone: &BTreeSet<NodeId>, draw: Draw) -> Vec<MetadataRecord> {
    let runs = of_ours(image).filter(|(_, _, found, _)| found.stage == MoveStage::Running);
    let back = runs.filter_map(|(topic, number, found, _)| {
        let partition = TopicPartition::new(topic.id, number);
        let new = newcomers(topic, number, found);
        let in_vain = new.iter().any(|node| gone.contains(node));
        let (id, stage) = (draw.id(partition), MoveStage::GoingBack);
        in_vain.then(|| set(partition, Move { id, stage, target: found.target.clone() }))
    });
    back.collect()
}

/// Who gets a replica by a move.
fn newcomers(topic: &Topic, number: PartitionId, found: &Move) -> Vec<NodeId> {
    let set = &topic.partitions[number.0 as usize];
    let new = |node: &NodeId| set.iter().all(|replica| replica.node != *node);
    nodes(&found.target).into_iter().filter(new).collect()
}
