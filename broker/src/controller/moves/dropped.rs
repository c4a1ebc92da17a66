//! Replicas that were taken from brokers, until those brokers say that nothing is left of them.
//!
//! A broker may lag on the controller's log for as long as it likes. Meanwhile it runs what was taken from
//! it, trusted by itself and by others, and it will delete that once it reads so. What must hold: nobody
//! gets a replica back before it has carried out the last taking of it; else it may be the only voter by
//! the time at which it deletes.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{DirectoryId, NodeId, PartitionId, TopicPartition};
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use uuid::Uuid;

use super::coding::{get_partition, put_partition};
use super::{Move, MoveId, MoveRecord, nodes};
use crate::controller::command::CommandReply;
use crate::controller::decide::Decision;
use crate::controller::image::{ClusterImage, Topic};
use crate::controller::reassign;
use crate::controller::record::{MetadataRecord, PlacedReplica};
use crate::mutant::{self, Mutant};

/// Of each partition: whose replicas were taken, and by which move or recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Drops(BTreeMap<PartitionId, BTreeMap<NodeId, MoveId>>);

/// A broker says that nothing is left on it of replicas that were taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Which broker.
    pub node: NodeId,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Of which partitions, and which move or recovery took them; a bounded number.
    pub drops: Vec<(TopicPartition, MoveId)>,
}

impl Drops {
    pub(super) fn add(&mut self, partition: PartitionId, dropped: &[(NodeId, MoveId)]) {
        if !dropped.is_empty() {
            self.0.entry(partition).or_default().extend(dropped.iter().copied());
        }
    }

    pub(super) fn remove(&mut self, partition: PartitionId, gone: impl Fn(NodeId) -> bool) {
        if let Some(nodes) = self.0.get_mut(&partition) {
            nodes.retain(|node, _| !gone(*node));
        }
        self.0.retain(|_, nodes| !nodes.is_empty());
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (PartitionId, Vec<(NodeId, MoveId)>)> + '_ {
        let of = |nodes: &BTreeMap<NodeId, MoveId>| nodes.iter().map(|(a, b)| (*a, *b)).collect();
        self.0.iter().map(move |(partition, nodes)| (*partition, of(nodes)))
    }
}

impl Topic {
    /// Which move or recovery has taken the partition from a broker, if that has not said yet that nothing is
    /// left of it: it is to delete what it still has.
    pub fn dropped_by(&self, partition: PartitionId, node: NodeId) -> Option<MoveId> {
        self.moves.dropped.0.get(&partition)?.get(&node).copied()
    }

    /// Whether a partition was taken from a broker that has not said yet that nothing is left of it.
    pub fn is_dropped(&self, partition: PartitionId, node: NodeId) -> bool {
        self.dropped_by(partition, node).is_some()
    }

    /// What was taken from a broker and may be left there.
    pub fn dropped_from(&self, node: NodeId) -> impl Iterator<Item = (PartitionId, MoveId)> + '_ {
        let all = self.moves.dropped.0.iter();
        all.filter_map(move |(partition, nodes)| Some((*partition, *nodes.get(&node)?)))
    }

    /// The brokers that are to get a partition and may still have what was taken from them: no move
    /// begins before they said that they have not.
    pub fn waits_for(&self, partition: PartitionId, target: &[NodeId]) -> Vec<NodeId> {
        if mutant::active(Mutant::ReturnsBeforeGivenUp) {
            return Vec::new();
        }
        let owes = |node: &&NodeId| self.is_dropped(partition, **node);
        target.iter().filter(owes).copied().collect()
    }

    /// The same of a move that waits; nobody of one that has begun.
    pub fn move_waits_for(&self, partition: PartitionId, found: &Move) -> Vec<NodeId> {
        match found.opens_replicas() {
            true => Vec::new(),
            false => self.waits_for(partition, &nodes(&found.target)),
        }
    }

    /// A broker is no part of the cluster any more, and owes nothing.
    pub(in crate::controller) fn forget_dropped_from(&mut self, node: NodeId) {
        let partitions: Vec<PartitionId> = self.dropped_from(node).map(|(at, _)| at).collect();
        for partition in partitions {
            self.moves.dropped.remove(partition, |of| of == node);
        }
    }

    pub(super) fn drop_replicas(&mut self, partition: PartitionId, dropped: &[(NodeId, MoveId)]) {
        let set = &self.partitions[partition.0 as usize];
        let in_force = |node: NodeId| set.iter().any(|replica| replica.node == node);
        let gone: Vec<_> = dropped.iter().filter(|(node, _)| !in_force(*node)).copied().collect();
        self.moves.dropped.add(partition, &gone);
    }

    /// Brokers open replicas. Builds from before brokers gave word began moves back at once.
    pub(super) fn return_replicas(&mut self, partition: PartitionId, target: &[PlacedReplica]) {
        let back = |node| target.iter().any(|replica| replica.node == node);
        self.moves.dropped.remove(partition, back);
    }
}

/// What the word of a broker comes to. Word about an earlier taking than the last is late and says nothing.
pub(in crate::controller) fn decide(
    image: &ClusterImage,
    word: &GivenUp,
) -> Result<Decision, WireError> {
    let GivenUp { node, directory, drops } = word;
    if image.directory_of(*node) != Some(*directory) {
        let why = format!("broker {node} is not registered with data directory {directory}");
        return Err(WireError::new(ErrorCode::Conflict, why));
    }
    let owed = |(partition, id): &&(TopicPartition, MoveId)| {
        let topic = image.topic(partition.topic);
        let by = topic.and_then(|topic| topic.dropped_by(partition.partition, *node));
        by.is_some_and(|by| by == *id || mutant::active(Mutant::LateWordCounts))
    };
    let given_up: BTreeSet<TopicPartition> = drops.iter().filter(owed).map(|it| it.0).collect();
    let mut after = image.clone();
    let mut records = Vec::new();
    for partition in given_up {
        let record = MetadataRecord::Move(MoveRecord::GivenUp(partition, *node));
        after.apply(&record).expect("a decision fits the image that it was made on");
        records.push(record);
    }
    if !records.is_empty() {
        records.extend(reassign::start_waiting(&after));
    }
    Ok((records, CommandReply::Moves(Vec::new())))
}

impl GivenUp {
    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        out.u32(self.node.0);
        out.u128(self.directory.0.as_u128());
        out.list(&self.drops, |out, (partition, id)| {
            put_partition(*partition, out);
            out.u64(id.0);
        });
    }

    /// Reads what `encode` wrote.
    pub fn decode(input: &mut Reader<'_>) -> Result<GivenUp, DecodeError> {
        Ok(GivenUp {
            node: NodeId(input.u32()?),
            directory: DirectoryId(Uuid::from_u128(input.u128()?)),
            drops: input.list("replicas given up", 28, |input| {
                Ok((get_partition(input)?, MoveId(input.u64()?)))
            })?,
        })
    }
}

/// Writes who lost replicas by which moves.
pub(super) fn put_dropped(dropped: &[(NodeId, MoveId)], out: &mut Writer) {
    out.list(dropped, |out, (node, id)| {
        out.u32(node.0);
        out.u64(id.0);
    });
}

/// Reads what `put_dropped` wrote.
pub(super) fn get_dropped(input: &mut Reader<'_>) -> Result<Vec<(NodeId, MoveId)>, DecodeError> {
    input.list("brokers", 12, |input| Ok((NodeId(input.u32()?), MoveId(input.u64()?))))
}
