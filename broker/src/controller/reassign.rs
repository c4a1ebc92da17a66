//! Deciding about moves: which partitions go where, how many at once, and when one is over.
//!
//! A request is refused whole, before anything is begun, and the refusal names the partition. Who
//! asks again under the same id gets the same answer and no second move.

pub mod own;
mod planner;

use std::collections::BTreeSet;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{NodeId, PartitionId, TopicPartition};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::moves::{
    CancelMovesRequest, MoveStage, MoveWish, PlannedMove, ReassignRequest,
};

use crate::controller::command::CommandReply;
use crate::controller::decide::{Decision, REPLICATION_MAX};
use crate::controller::image::{Broker, ClusterImage, Topic};
use crate::controller::moves::{Move, MoveCommand, MoveId, MoveRecord, Step, dropped, nodes};
use crate::controller::record::{MetadataRecord, PlacedReplica};
use crate::controller::recover;
use crate::controller::throttle;
use crate::mutant::{self, Mutant};

use planner::Planner;

/// What a command about moves comes to.
pub(super) fn decide(image: &ClusterImage, command: &MoveCommand) -> Result<Decision, WireError> {
    match command {
        MoveCommand::Reassign(id, request) => reassign(image, *id, request),
        MoveCommand::Cancel(id, request) => cancel(image, *id, request),
        MoveCommand::Throttle(wish) => throttle::decide(image, *wish),
        MoveCommand::Recover(id, request) => recover::decide(image, *id, request),
        MoveCommand::Step(partition, id, step) => take_step(image, *partition, *id, *step),
        MoveCommand::GivenUp(word) => dropped::decide(image, word),
    }
}

/// Starts moves that wait, as long as not too many are under way.
pub(super) fn start_waiting(image: &ClusterImage) -> Vec<MetadataRecord> {
    let mut room = MOVES_AT_ONCE_MAX.saturating_sub(under_way(image));
    let mut records = Vec::new();
    for topic in image.topics() {
        for (partition, found) in topic.moving() {
            let waits = found.stage == MoveStage::Waiting;
            let ready = waits && topic.move_waits_for(partition, found).is_empty();
            if room > 0 && ready && can_progress(image, topic, partition, found) {
                room -= 1;
                let started = Move { stage: MoveStage::Running, ..found.clone() };
                records.push(set(TopicPartition::new(topic.id, partition), started));
            }
        }
    }
    records
}

/// Whether a move begins at once: there is room, and nobody who is to get a replica may still have one that
/// was taken from it.
fn first_stage(
    topic: Option<&Topic>,
    partition: PartitionId,
    to: &[NodeId],
    room: &mut usize,
) -> MoveStage {
    let awaits = topic.is_some_and(|topic| !topic.waits_for(partition, to).is_empty());
    if *room == 0 || awaits {
        return MoveStage::Waiting;
    }
    *room -= 1;
    MoveStage::Running
}

/// The moves that take a place among those under way. One that waits for a dead broker takes none:
/// nothing is copied, and the others would wait for it for ever.
fn under_way(image: &ClusterImage) -> usize {
    let of = |topic: &Topic| {
        let moves = topic.moving().filter(|(_, found)| found.opens_replicas());
        moves.filter(|(partition, found)| can_progress(image, topic, *partition, found)).count()
    };
    let room_is_boundless = mutant::active(Mutant::MovesUnbounded);
    image.topics().filter(|_| !room_is_boundless).map(|topic| of(topic)).sum()
}

/// Whether every broker that a move has to fill is alive, and still to get work if it has not begun.
fn can_progress(image: &ClusterImage, topic: &Topic, partition: PartitionId, found: &Move) -> bool {
    let set = &topic.partitions[partition.0 as usize];
    let alive = |replica: &PlacedReplica| image.broker(replica.node).is_some_and(|b| !b.fenced);
    let takes =
        |replica: &PlacedReplica| image.broker(replica.node).is_some_and(Broker::takes_work);
    let stays = |new: &&PlacedReplica| set.iter().any(|old| old.node == new.node);
    match found.stage {
        MoveStage::Waiting => found.target.iter().filter(|new| !stays(new)).all(takes),
        MoveStage::Running => found.target.iter().filter(|new| !stays(new)).all(alive),
        MoveStage::GoingBack => set.iter().all(alive),
    }
}

fn reassign(
    image: &ClusterImage,
    id: MoveId,
    request: &ReassignRequest,
) -> Result<Decision, WireError> {
    check_wish(image, request)?;
    let partitions = named(image, &request.partitions)?;
    let mut planner = Planner::new(image);
    let mut room = MOVES_AT_ONCE_MAX.saturating_sub(under_way(image));
    let (mut records, mut moves) = (Vec::new(), Vec::new());
    for (at, (topic, partition)) in partitions.iter().enumerate() {
        let from = nodes(&topic.partitions[partition.0 as usize]);
        let of = TopicPartition::new(topic.id, *partition);
        if let Some(found) = topic.move_of(*partition) {
            if found.id == id {
                moves.push(PlannedMove { partition: of, from, to: nodes(&found.target) });
                continue;
            }
            if !planner.touches(&request.wish, &from) && request.partitions.is_empty() {
                continue;
            }
            return Err(moving_already(topic, *partition));
        }
        let mut to = match &request.wish {
            MoveWish::Each(sets) => sets[at].clone(),
            wish @ (MoveWish::To(_) | MoveWish::Drain(_) | MoveWish::Replicas(_)) => {
                planner.target(topic, *partition, &from, wish)?
            }
        };
        if let (MoveWish::To(_), true) = (&request.wish, partitions.len() > 1) {
            // Otherwise the first broker named would be every partition's preferred leader.
            let places = to.len();
            to.rotate_left(at % places);
        }
        // The order may be meant: who is named first is preferred to lead.
        let exactly = match &request.wish {
            MoveWish::Each(_) => true,
            MoveWish::To(_) => partitions.len() == 1,
            MoveWish::Drain(_) | MoveWish::Replicas(_) => false,
        };
        if from == to || same(&from, &to) && !exactly {
            continue;
        }
        check_insync(topic, *partition, to.len())?;
        planner.placed(&from, &to);
        let stage = first_stage(Some(topic), *partition, &to, &mut room);
        records.push(set(of, Move { id, stage, target: placed(image, &to) }));
        moves.push(PlannedMove { partition: of, from, to });
    }
    let records = match request.dry_run {
        DryRun::Yes => Vec::new(),
        DryRun::No => records,
    };
    Ok((records, CommandReply::Moves(moves)))
}

fn cancel(
    image: &ClusterImage,
    id: MoveId,
    request: &CancelMovesRequest,
) -> Result<Decision, WireError> {
    let (mut records, mut moves) = (Vec::new(), Vec::new());
    for (topic, partition) in named(image, &request.partitions)? {
        let Some(found) = topic.move_of(partition) else {
            if request.partitions.is_empty() {
                continue;
            }
            let why = format!(
                "{}/{partition} is not being moved, so there is nothing to cancel; `hw partition moves` shows \
                 what is under way",
                topic.name
            );
            return Err(WireError::new(ErrorCode::Conflict, why));
        };
        let replicas = &topic.partitions[partition.0 as usize];
        let of = TopicPartition::new(topic.id, partition);
        moves.push(PlannedMove { partition: of, from: nodes(&found.target), to: nodes(replicas) });
        match found.stage {
            // Nothing was opened anywhere.
            MoveStage::Waiting => records.push(MetadataRecord::Move(MoveRecord::End {
                partition: of,
                replicas: replicas.to_vec(),
                dropped: Vec::new(),
            })),
            MoveStage::Running => {
                let id = if mutant::active(Mutant::CancelKeepsTheId) { found.id } else { id };
                let back = Move { id, stage: MoveStage::GoingBack, target: found.target.clone() };
                records.push(set(of, back));
            }
            MoveStage::GoingBack => {}
        }
    }
    Ok((records, CommandReply::Moves(moves)))
}

fn is_about(topic: &Topic, partition: PartitionId, id: MoveId) -> bool {
    mutant::active(Mutant::AnyMoveEnds)
        || topic.move_of(partition).is_some_and(|found| found.id == id)
}

fn take_step(
    image: &ClusterImage,
    partition: TopicPartition,
    id: MoveId,
    step: Step,
) -> Result<Decision, WireError> {
    let number = partition.partition;
    let found = image.topic(partition.topic).and_then(|topic| Some((topic, topic.aim(number)?)));
    let current = found.filter(|(topic, _)| is_about(topic, number, id));
    let done = CommandReply::Moves(Vec::new());
    let Some((topic, aim)) = current else {
        return match step {
            Step::Begins if mutant::active(Mutant::MoveBeginsUnasked) => Ok((Vec::new(), done)),
            Step::Begins => {
                let why = format!("the move of {partition} is over or was turned back");
                Err(WireError::new(ErrorCode::Superseded, why))
            }
            // An answer that was lost, or word of an earlier aim: nothing is done on it.
            Step::Reached => Ok((Vec::new(), done)),
        };
    };
    match step {
        Step::Begins => Ok((Vec::new(), done)),
        Step::Reached => {
            let replicas = aim.to_vec();
            let hosts = topic.hosts(number).map(|replica| replica.node);
            let stays = |node: &NodeId| replicas.iter().any(|replica| replica.node == *node);
            let keeps_all = mutant::active(Mutant::EndDropsNobody);
            let dropped = hosts.filter(|node| !stays(node) && !keeps_all).collect();
            let end = MetadataRecord::Move(MoveRecord::End { partition, replicas, dropped });
            let mut after = image.clone();
            after.apply(&end).expect("a decision fits the image that it was made on");
            let records = std::iter::once(end).chain(start_waiting(&after)).collect();
            Ok((records, done))
        }
    }
}

/// The partitions named, or all.
fn named<'a>(
    image: &'a ClusterImage,
    partitions: &[TopicPartition],
) -> Result<Vec<(&'a Topic, PartitionId)>, WireError> {
    if partitions.is_empty() {
        return Ok(image.every_partition().collect());
    }
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for partition in partitions {
        let topic = image.topic(partition.topic);
        let known = |topic: &&std::sync::Arc<Topic>| {
            (partition.partition.0 as usize) < topic.partitions.len()
        };
        let Some(topic) = topic.filter(known) else {
            let why = format!(
                "{partition} does not exist: its topic was deleted meanwhile, or never had so many partitions; \
                 `hw topic list` shows the topics"
            );
            return Err(WireError::new(ErrorCode::UnknownTopicOrPartition, why));
        };
        if seen.insert(*partition) {
            found.push((&**topic, partition.partition));
        }
    }
    Ok(found)
}

fn check_wish(image: &ClusterImage, request: &ReassignRequest) -> Result<(), WireError> {
    let invalid = |why: String| Err(WireError::new(ErrorCode::InvalidReplicationFactor, why));
    match &request.wish {
        MoveWish::To(to) => {
            for (topic, number) in named(image, &request.partitions)? {
                check_set(image, to, &nodes(&topic.partitions[number.0 as usize]))?;
            }
            Ok(())
        }
        MoveWish::Each(sets) => check_plan(image, &request.partitions, sets),
        MoveWish::Drain(node) => registered(image, *node).map(|_| ()),
        MoveWish::Replicas(wanted) => {
            let alive = image.brokers().filter(|broker| broker.takes_work()).count();
            let most = alive.min(REPLICATION_MAX);
            match (1..=most).contains(&usize::from(*wanted)) {
                true => Ok(()),
                false => invalid(format!(
                    "a partition cannot have {wanted} replicas: {alive} brokers are alive and take replicas, and \
                     {REPLICATION_MAX} replicas are the most; ask for 1 to {most}"
                )),
            }
        }
    }
}

/// A plan names each partition once, and a set that can be for each.
fn check_plan(
    image: &ClusterImage,
    partitions: &[TopicPartition],
    sets: &[Vec<NodeId>],
) -> Result<(), WireError> {
    let invalid = |why: String| Err(WireError::new(ErrorCode::InvalidRequest, why));
    if sets.len() != partitions.len() || sets.is_empty() {
        let (sets, all) = (sets.len(), partitions.len());
        return invalid(format!("a plan with {sets} sets of brokers for {all} partitions"));
    }
    let mut seen = BTreeSet::new();
    for (partition, set) in partitions.iter().zip(sets) {
        if !seen.insert(*partition) {
            return invalid(format!("the plan names {partition} twice; name it once"));
        }
        let topic = image.topic(partition.topic);
        let now = topic.and_then(|topic| topic.partitions.get(partition.partition.0 as usize));
        check_set(image, set, &now.map_or(Vec::new(), |set| nodes(set)))?;
    }
    Ok(())
}

/// Whether a partition that lies on `now` can lie on `set`: who stays need not be alive.
fn check_set(image: &ClusterImage, set: &[NodeId], now: &[NodeId]) -> Result<(), WireError> {
    let invalid = |why: String| Err(WireError::new(ErrorCode::InvalidReplicationFactor, why));
    if set.is_empty() || set.len() > REPLICATION_MAX {
        let count = set.len();
        return invalid(format!(
            "a partition cannot have {count} replicas; name 1 to {REPLICATION_MAX} brokers"
        ));
    }
    for (at, node) in set.iter().enumerate() {
        if set[..at].contains(node) {
            return invalid(format!("broker {node} is named twice; name it once"));
        }
        let broker = registered(image, *node)?;
        if broker.fenced && !now.contains(node) {
            let why = format!(
                "broker {node} is not alive, so no replica can be moved to it; start it, or name another"
            );
            return Err(WireError::new(ErrorCode::BrokerNotAvailable, why));
        }
        if !broker.fenced && !broker.takes_work() && !now.contains(node) {
            return Err(drained(*node));
        }
    }
    Ok(())
}

fn drained(node: NodeId) -> WireError {
    let why = format!(
        "broker {node} is drained, so no replica can be moved to it; name another, or take it back \
         (`hw cluster undrain {node}`)"
    );
    WireError::new(ErrorCode::Conflict, why)
}

fn registered(image: &ClusterImage, node: NodeId) -> Result<&Broker, WireError> {
    image.broker(node).ok_or_else(|| {
        let why = format!(
            "broker {node} is not part of the cluster; `hw cluster brokers` shows those that are"
        );
        WireError::new(ErrorCode::UnknownBroker, why)
    })
}

fn check_insync(topic: &Topic, partition: PartitionId, replicas: usize) -> Result<(), WireError> {
    let wanted = topic.config.insync_replicas_min(replicas);
    if usize::from(wanted) <= replicas {
        return Ok(());
    }
    let why = format!(
        "{}/{partition} would have {replicas} replicas, but `min.insync.replicas` of the topic is {wanted}: no `sync` \
         produce could succeed; keep {wanted} replicas or lower the setting first",
        topic.name
    );
    Err(WireError::new(ErrorCode::InvalidReplicationFactor, why))
}

fn moving_already(topic: &Topic, partition: PartitionId) -> WireError {
    let why = format!(
        "{}/{partition} is being moved already; wait for it (`hw partition moves -w`) or cancel it first \
         (`hw partition cancel {}/{partition}`)",
        topic.name, topic.name
    );
    WireError::new(ErrorCode::Conflict, why)
}

fn set(partition: TopicPartition, change: Move) -> MetadataRecord {
    MetadataRecord::Move(MoveRecord::Set(partition, change))
}

fn same(a: &[NodeId], b: &[NodeId]) -> bool {
    a.len() == b.len() && a.iter().all(|node| b.contains(node))
}

fn placed(image: &ClusterImage, set: &[NodeId]) -> Vec<PlacedReplica> {
    let place = |node: &NodeId| {
        let directory = image.directory_of(*node).expect("targets are checked to be registered");
        PlacedReplica { node: *node, directory }
    };
    set.iter().map(place).collect()
}

/// Moves under way at once in the whole cluster; the others wait for their turn.
pub const MOVES_AT_ONCE_MAX: usize = 8;

#[cfg(test)]
mod tests;
