//! Moves of replicas: how they lie in records and commands, and what the image makes of them.
//!
//! A move is begun by a record that names the target, and ended by one that names the set in force
//! and the brokers whose replicas go. In between the leader of the partition leads the voters from
//! one set to the other, whoever leads the controller. A cancelled move goes back the same way. What
//! must hold: only the record that ends a move gives up files, and it is decided only on the word of
//! a leader that the voters are the ones aimed at, about this very move and not an earlier one; and no
//! broker gets a replica back before it has carried out that the last one was taken from it (`dropped`).
//!
//! Decisions are in `reassign`.

mod coding;
pub mod dropped;

use std::collections::BTreeMap;

use highwater_protocol::ids::{NodeId, PartitionId, TopicPartition};
use highwater_protocol::native::moves::{CancelMovesRequest, MoveStage, ReassignRequest};
use highwater_protocol::native::recover::RecoverPartitionRequest;

use crate::controller::image::Topic;
use crate::controller::record::PlacedReplica;
use crate::controller::throttle::ThrottleRecord;
use crate::mutant::{self, Mutant};

use dropped::{Drops, GivenUp};

pub(super) use coding::{MOVES_REPLY, get_reply, put_reply};

/// Tells moves apart, also those of the same partition; drawn by the broker that took the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MoveId(pub u64);

/// A move that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which one; cancelling gives it a new id, for it has another aim from then on.
    pub id: MoveId,
    /// How far it is.
    pub stage: MoveStage,
    /// The replicas wished for, the preferred leader first.
    pub target: Vec<PlacedReplica>,
}

/// Why the controller began a move by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It evens the cluster out, by this.
    Evens(Evened),
    /// This broker has been away for long, and another one gets its replica.
    Replaces(NodeId),
}

/// What a move of the controller's own evens out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evened {
    /// How many replicas and leaders brokers and racks have.
    Counts,
    /// How many bytes brokers hold.
    Bytes,
    /// What is written to them.
    Writes,
    /// What they send as leaders.
    Leading,
}

impl Evened {
    const ALL: [Evened; 4] = [Evened::Counts, Evened::Bytes, Evened::Writes, Evened::Leading];

    /// As it is written; 1 is another reason.
    fn number(self) -> u8 {
        match self {
            Evened::Counts => 0,
            Evened::Bytes => 2,
            Evened::Writes => 3,
            Evened::Leading => 4,
        }
    }
}

/// What records say of moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveRecord {
    /// A move is begun, started after a wait, or turned back.
    Set(TopicPartition, Move),
    /// A move is over.
    End {
        /// Of which partition.
        partition: TopicPartition,
        /// Its replicas from here on.
        replicas: Vec<PlacedReplica>,
        /// Whose replicas are deleted.
        dropped: Vec<NodeId>,
    },
    /// Whose replicas were taken by which moves that are over, for an image made anew.
    Dropped(TopicPartition, Vec<(NodeId, MoveId)>),
    /// A broker has nothing left of what was taken from it.
    GivenUp(TopicPartition, NodeId),
    /// Nobody asked for the move under way: the controller began it by itself.
    Because(TopicPartition, Why),
}

/// What the controller can be asked about moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveCommand {
    /// Begin moves under this id.
    Reassign(MoveId, ReassignRequest),
    /// Cancel moves; they go back under this id.
    Cancel(MoveId, CancelMovesRequest),
    /// Change how fast moves may copy, in the cluster or to one broker.
    Throttle(ThrottleRecord),
    /// Begin a partition anew from one replica, under this id.
    Recover(MoveId, RecoverPartitionRequest),
    /// The partition's leader asks or tells about a move.
    Step(TopicPartition, MoveId, Step),
    /// A broker has nothing left of what was taken from it.
    GivenUp(GivenUp),
}

/// What a leader has to say about a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Is it still wanted?
    Begins,
    /// The voters are the ones aimed at.
    Reached,
}

/// The moves of a topic, and what earlier ones left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicMoves {
    under_way: BTreeMap<PartitionId, Move>,
    /// Those of them that nobody asked for.
    because: BTreeMap<PartitionId, Why>,
    dropped: Drops,
}

impl Topic {
    /// The move of a partition, if it is not over.
    pub fn move_of(&self, partition: PartitionId) -> Option<&Move> {
        self.moves.under_way.get(&partition)
    }

    /// Every partition with a move that is not over.
    pub fn moving(&self) -> impl Iterator<Item = (PartitionId, &Move)> {
        self.moves.under_way.iter().map(|(partition, found)| (*partition, found))
    }

    /// Why the controller moves a partition by itself; `None` if somebody asked, or nothing moves.
    pub fn why_moved(&self, partition: PartitionId) -> Option<Why> {
        self.moves.because.get(&partition).copied()
    }

    /// Where a partition has replicas: the set in force, and what comes.
    pub fn hosts(&self, partition: PartitionId) -> impl Iterator<Item = PlacedReplica> + '_ {
        let in_force = self.partitions.get(partition.0 as usize);
        let in_force = in_force.into_iter().flat_map(|set| set.iter());
        let coming = self.move_of(partition).filter(|found| found.opens_replicas());
        let coming = coming.into_iter().flat_map(|found| &found.target);
        let is_new = move |new: &&PlacedReplica| {
            let set = self.partitions.get(partition.0 as usize);
            !set.is_some_and(|set| set.iter().any(|replica| replica.node == new.node))
        };
        in_force.chain(coming.filter(is_new)).copied()
    }

    /// Where a partition has its replicas once its move is over, also one that still waits; nothing
    /// for a partition that does not exist.
    pub fn settles_on(&self, partition: PartitionId) -> &[PlacedReplica] {
        let in_force = self.partitions.get(partition.0 as usize).map_or(&[][..], |set| &set[..]);
        match self.move_of(partition).map(|found| (found.stage, &found.target)) {
            Some((MoveStage::Waiting | MoveStage::Running, target)) => target,
            Some((MoveStage::GoingBack, _)) | None => in_force,
        }
    }

    /// The set that the voters of a moving partition are led to.
    pub fn aim(&self, partition: PartitionId) -> Option<&[PlacedReplica]> {
        let set = self.partitions.get(partition.0 as usize)?;
        match self.move_of(partition)?.stage {
            MoveStage::Waiting => None,
            MoveStage::Running => Some(&self.move_of(partition)?.target),
            MoveStage::GoingBack if mutant::active(Mutant::CancelGoesOn) => {
                Some(&self.move_of(partition)?.target)
            }
            MoveStage::GoingBack => Some(set),
        }
    }

    /// Takes in a record about one of this topic's partitions; an error says what does not fit.
    pub(super) fn take_move(&mut self, record: &MoveRecord) -> Result<(), String> {
        let partition = record.partition().partition;
        let name = self.name.clone();
        let Some(set) = self.partitions.get_mut(partition.0 as usize) else {
            return Err(format!("{name}/{partition} is moved, but does not exist"));
        };
        match record {
            MoveRecord::Set(_, change) => {
                if change.target.is_empty() {
                    return Err(format!("{name}/{partition} is moved to nowhere"));
                }
                if change.opens_replicas() {
                    self.return_replicas(partition, &change.target);
                }
                self.moves.under_way.insert(partition, change.clone());
            }
            MoveRecord::End { replicas, dropped, .. } => {
                let ended = self.moves.under_way.remove(&partition);
                let Some(ended) = ended.filter(|_| !replicas.is_empty()) else {
                    return Err(format!("a move of {name}/{partition} ends that never began"));
                };
                self.moves.because.remove(&partition);
                *set = replicas.as_slice().into();
                let by = |node: &NodeId| (*node, ended.id);
                self.drop_replicas(partition, &dropped.iter().map(by).collect::<Vec<_>>());
            }
            MoveRecord::Dropped(_, dropped) => self.drop_replicas(partition, dropped),
            MoveRecord::GivenUp(_, node) => self.moves.dropped.remove(partition, |of| of == *node),
            MoveRecord::Because(_, why) => {
                if !self.moves.under_way.contains_key(&partition) {
                    return Err(format!("a move of {name}/{partition} has a reason, but is none"));
                }
                self.moves.because.insert(partition, *why);
            }
        }
        Ok(())
    }

    /// The replicas that a move aims at change where they lie; otherwise its end would bring back the
    /// old places of those that stay.
    pub(super) fn change_target(
        &mut self,
        partition: PartitionId,
        change: impl Fn(&PlacedReplica) -> PlacedReplica,
    ) {
        if let Some(found) = self.moves.under_way.get_mut(&partition) {
            found.target = found.target.iter().map(change).collect();
        }
    }

    /// A move is over without an end of its own: a recovery has taken the partition from these brokers.
    pub(super) fn forget_move(&mut self, partition: PartitionId, by: MoveId, dropped: &[NodeId]) {
        self.moves.under_way.remove(&partition);
        self.moves.because.remove(&partition);
        let dropped: Vec<_> = dropped.iter().map(|node| (*node, by)).collect();
        self.drop_replicas(partition, &dropped);
    }

    /// Records that make this topic's moves out of none.
    pub(super) fn move_records(&self) -> impl Iterator<Item = MoveRecord> + '_ {
        let of = |partition: &PartitionId| TopicPartition::new(self.id, *partition);
        let dropped = self.moves.dropped.all();
        let dropped = dropped.map(move |(at, nodes)| MoveRecord::Dropped(of(&at), nodes));
        let under_way = self.moves.under_way.iter();
        let under_way = under_way.map(move |(at, found)| MoveRecord::Set(of(at), found.clone()));
        let because = self.moves.because.iter();
        let because = because.map(move |(at, why)| MoveRecord::Because(of(at), *why));
        dropped.chain(under_way).chain(because)
    }
}

impl Move {
    /// Whether the brokers of its target have replicas to open.
    pub fn opens_replicas(&self) -> bool {
        match self.stage {
            MoveStage::Waiting => false,
            MoveStage::Running | MoveStage::GoingBack => true,
        }
    }
}

/// The brokers of a set.
pub fn nodes(set: &[PlacedReplica]) -> Vec<NodeId> {
    set.iter().map(|replica| replica.node).collect()
}
