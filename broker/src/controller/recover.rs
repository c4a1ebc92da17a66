//! Beginning a partition anew from one replica, after a majority of its voters was lost for good.
//!
//! The operator says which replica, and whose word is given up; the controller refuses while the others
//! could elect a leader. One record makes the founder the only replica in force, ends a move that was
//! under way, and names everyone else's replica as dropped; the shard of each broker does the rest
//! (`shard::groups`), and ordinary moves give the partition its other replicas back. What must hold:
//! the terms of the new group come after all that any replica of the old one can have known.

use std::collections::BTreeMap;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{
    DirectoryId, NodeId, PartitionId, RecoveryEpoch, Term, TopicId, TopicPartition,
};
use highwater_protocol::native::moves::PlannedMove;
use highwater_protocol::native::recover::RecoverPartitionRequest;
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use uuid::Uuid;

use crate::controller::command::CommandReply;
use crate::controller::decide::Decision;
use crate::controller::image::{ClusterImage, Topic};
use crate::controller::moves::{MoveId, nodes};
use crate::controller::record::{MetadataRecord, PlacedReplica};

/// How a partition was begun anew the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Counts the recoveries of the partition.
    pub epoch: RecoveryEpoch,
    /// The request that did it, so that it is recognised when it comes twice.
    pub id: MoveId,
    /// The replica whose log the partition began anew with.
    pub founder: PlacedReplica,
    /// The first term after it.
    pub since: Term,
}

/// What records say of recoveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoverRecord {
    /// A partition begins anew.
    Begin {
        /// Which partition.
        partition: TopicPartition,
        /// How.
        recovered: Recovered,
        /// Whose replicas are discarded.
        dropped: Vec<NodeId>,
    },
    /// A partition was begun anew at some time, for an image made anew.
    Standing(TopicPartition, Recovered),
}

/// The recoveries of a topic's partitions.
pub type TopicRecoveries = BTreeMap<PartitionId, Recovered>;

impl Topic {
    /// How a partition was begun anew the last time, if it ever was.
    pub fn recovered(&self, partition: PartitionId) -> Option<&Recovered> {
        self.recoveries.get(&partition)
    }

    /// Takes in a record about one of this topic's partitions; an error says what does not fit.
    pub(super) fn take_recovery(&mut self, record: &RecoverRecord) -> Result<(), String> {
        let (RecoverRecord::Begin { partition, recovered, .. }
        | RecoverRecord::Standing(partition, recovered)) = record;
        let number = partition.partition;
        let Some(set) = self.partitions.get_mut(number.0 as usize) else {
            return Err(format!("{}/{number} is recovered, but does not exist", self.name));
        };
        if self.recoveries.get(&number).is_some_and(|before| before.epoch >= recovered.epoch) {
            let epoch = recovered.epoch;
            return Err(format!("{}/{number} is recovered a second time as {epoch}", self.name));
        }
        self.recoveries.insert(number, *recovered);
        match record {
            RecoverRecord::Begin { dropped, .. } => {
                *set = [recovered.founder].into();
                self.forget_move(number, recovered.id, dropped);
            }
            RecoverRecord::Standing(..) => {}
        }
        Ok(())
    }

    /// Records that make this topic's recoveries out of none.
    pub(super) fn recovery_records(&self) -> impl Iterator<Item = RecoverRecord> + '_ {
        let of = |partition: &PartitionId| TopicPartition::new(self.id, *partition);
        let all = self.recoveries.iter();
        all.map(move |(at, recovered)| RecoverRecord::Standing(of(at), *recovered))
    }
}

/// What a request to recover comes to.
pub(super) fn decide(
    image: &ClusterImage,
    id: MoveId,
    request: &RecoverPartitionRequest,
) -> Result<Decision, WireError> {
    let (partition, survivor) = (request.partition, request.survivor);
    let number = partition.partition;
    let topic = image.topic(partition.topic);
    let topic = topic.filter(|topic| (number.0 as usize) < topic.partitions.len());
    let topic = topic.ok_or_else(|| {
        let why = format!("{partition} does not exist; `hw topic list` shows the topics");
        WireError::new(ErrorCode::UnknownTopicOrPartition, why)
    })?;
    let set = &topic.partitions[number.0 as usize];
    let before = topic.recovered(number);
    let reply =
        |from| CommandReply::Moves(vec![PlannedMove { partition, from, to: vec![survivor] }]);
    if before.is_some_and(|before| before.id == id) {
        return Ok((Vec::new(), reply(nodes(set))));
    }
    check_loss(image, topic, number, request)?;
    let directory = check_survivor(image, topic, number, survivor)?;
    let known = before.map_or(Term(0), |before| before.since).max(request.term);
    let since = known.0.checked_add(TERMS_SKIPPED).map(Term).ok_or_else(|| {
        let why = format!("{partition} has no terms left after {known}; make the topic anew");
        WireError::new(ErrorCode::InvalidRequest, why)
    })?;
    let epoch = RecoveryEpoch(before.map_or(0, |before| before.epoch.0) + 1);
    let founder = PlacedReplica { node: survivor, directory };
    let hosts = topic.hosts(number).map(|replica| replica.node);
    let dropped = hosts.filter(|node| *node != survivor).collect();
    let recovered = Recovered { epoch, id, founder, since };
    let record = RecoverRecord::Begin { partition, recovered, dropped };
    Ok((vec![MetadataRecord::Recover(record)], reply(nodes(set))))
}

/// Those that are not given up must not be able to elect a leader. How far a move has brought the votes
/// is not known here, so neither its old set nor its new one may be.
fn check_loss(
    image: &ClusterImage,
    topic: &Topic,
    number: PartitionId,
    request: &RecoverPartitionRequest,
) -> Result<(), WireError> {
    let coming = topic.move_of(number).filter(|found| found.opens_replicas());
    let able = |replica: &&PlacedReplica| {
        let broker = image.broker(replica.node);
        let there =
            broker.is_some_and(|it| !it.fenced && it.registration.directory == replica.directory);
        there && !request.given_up.contains(&replica.node)
    };
    let sets = [&topic.partitions[number.0 as usize][..]];
    let sets = sets.into_iter().chain(coming.map(|found| &found.target[..]));
    let able_of = |set: &[PlacedReplica]| -> Vec<NodeId> {
        set.iter().filter(able).map(|replica| replica.node).collect()
    };
    let electing =
        sets.map(|set| (set, able_of(set))).find(|(set, able)| able.len() * 2 > set.len());
    let Some((set, able)) = electing else { return Ok(()) };
    let why = format!(
        "{}/{number} has not lost its majority: brokers {able:?} of {:?} are alive and not given up, and elect a leader \
         by themselves; wait, or see why they do not (`hw partition explain {}/{number}`)",
        topic.name,
        nodes(set),
        topic.name
    );
    Err(WireError::new(ErrorCode::MajorityAlive, why))
}

/// The survivor's data directory as it is now.
fn check_survivor(
    image: &ClusterImage,
    topic: &Topic,
    number: PartitionId,
    survivor: NodeId,
) -> Result<DirectoryId, WireError> {
    let hosts: Vec<NodeId> = topic.hosts(number).map(|replica| replica.node).collect();
    if !hosts.contains(&survivor) {
        let why = format!(
            "broker {survivor} has no replica of {}/{number}; those with one are {hosts:?}",
            topic.name
        );
        return Err(WireError::new(ErrorCode::InvalidRequest, why));
    }
    let broker = image.broker(survivor).filter(|broker| !broker.fenced);
    broker.map(|broker| broker.registration.directory).ok_or_else(|| {
        let why = format!(
            "broker {survivor} is not alive, so {}/{number} cannot go on there; start it, or take another replica",
            topic.name
        );
        WireError::new(ErrorCode::BrokerNotAvailable, why)
    })
}

impl RecoverRecord {
    /// The first of the types that these records have.
    pub const KIND_MIN: u16 = RECOVER;
    /// The last of them.
    pub const KIND_MAX: u16 = RECOVERED;

    /// Which topic it is about.
    pub fn topic(&self) -> TopicId {
        match self {
            RecoverRecord::Begin { partition, .. } | RecoverRecord::Standing(partition, _) => {
                partition.topic
            }
        }
    }

    /// Its type.
    pub fn kind(&self) -> u16 {
        match self {
            RecoverRecord::Begin { .. } => RECOVER,
            RecoverRecord::Standing(..) => RECOVERED,
        }
    }

    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        let (RecoverRecord::Begin { partition, recovered, .. }
        | RecoverRecord::Standing(partition, recovered)) = self;
        out.u128(partition.topic.0.as_u128());
        out.u32(partition.partition.0);
        out.u32(recovered.epoch.0);
        out.u64(recovered.id.0);
        out.u32(recovered.founder.node.0);
        out.u128(recovered.founder.directory.0.as_u128());
        out.u32(recovered.since.0);
        match self {
            RecoverRecord::Begin { dropped, .. } => out.list(dropped, |out, node| out.u32(node.0)),
            RecoverRecord::Standing(..) => {}
        }
    }

    /// Reads what `encode` wrote, by its type.
    pub fn decode(kind: u16, input: &mut Reader<'_>) -> Result<RecoverRecord, DecodeError> {
        let topic = TopicId(Uuid::from_u128(input.u128()?));
        let partition = TopicPartition::new(topic, PartitionId(input.u32()?));
        let epoch = RecoveryEpoch(input.u32()?);
        let id = MoveId(input.u64()?);
        let founder = PlacedReplica {
            node: NodeId(input.u32()?),
            directory: DirectoryId(Uuid::from_u128(input.u128()?)),
        };
        let recovered = Recovered { epoch, id, founder, since: Term(input.u32()?) };
        Ok(match kind {
            RECOVER => {
                let dropped = input.list("brokers", 4, |input| Ok(NodeId(input.u32()?)))?;
                RecoverRecord::Begin { partition, recovered, dropped }
            }
            _ => RecoverRecord::Standing(partition, recovered),
        })
    }
}

const RECOVER: u16 = 50;
const RECOVERED: u16 = 51;
/// The old group may hold elections that nobody here has heard of; so many it does not reach before it
/// hears of its end.
const TERMS_SKIPPED: u32 = 1_000;

#[cfg(test)]
mod tests;
