//! Deciding about brokers that come and go: who may be drained, retired, taken out.
//!
//! What must hold: a broker leaves the image only when no partition has, or is about to get, a
//! replica on it; and every refusal names the partition that stands against it and what to do.
//! Retiring is a duty and moves like any others, so it can be watched, cancelled and asked for again.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{DirectoryId, NodeId, PartitionId, TopicPartition};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::brokers::{
    BrokerDuty, RemoveBrokerRequest, SetDutyRequest, SetDutyResponse, Unretired,
};
use highwater_protocol::native::moves::{MoveStage, MoveWish, PlannedMove, ReassignRequest};

use crate::controller::brokers::{BrokerCommand, BrokerRecord, BrokerReply};
use crate::controller::command::CommandReply;
use crate::controller::decide::Decision;
use crate::controller::image::{Broker, ClusterImage, Topic};
use crate::controller::moves::{Move, MoveCommand, MoveId, nodes};
use crate::controller::record::{MetadataRecord, PlacedReplica};
use crate::controller::{reassign, voters};
use crate::mutant::{self, Mutant};

/// What a command about brokers comes to; `voters` vote on the cluster's metadata.
pub(super) fn decide(
    image: &ClusterImage,
    voters: &[NodeId],
    command: &BrokerCommand,
) -> Result<Decision, WireError> {
    match command {
        BrokerCommand::SetDuty(id, request) => set_duty(image, voters, *id, *request),
        BrokerCommand::Remove(request) => remove(image, voters, *request),
        BrokerCommand::Refilled { node, directory, partitions } => {
            refilled(image, *node, *directory, partitions)
        }
        BrokerCommand::ChangeController(request) => voters::change(image, voters, *request),
    }
}

fn set_duty(
    image: &ClusterImage,
    voters: &[NodeId],
    id: MoveId,
    request: SetDutyRequest,
) -> Result<Decision, WireError> {
    let SetDutyRequest { node, duty, dry_run } = request;
    let before = registered(image, node)?.duty;
    let (mut records, mut moves) = (Vec::new(), Vec::new());
    if before != duty && dry_run == DryRun::No {
        records.push(MetadataRecord::Broker(BrokerRecord::SetDuty(node, duty)));
    }
    match duty {
        BrokerDuty::Active | BrokerDuty::Draining => {}
        BrokerDuty::Leaving => {
            refuse_voter(voters, node, "be retired")?;
            let (begun, planned) = move_all_off(image, id, node, dry_run)?;
            records.extend(begun);
            moves = planned;
        }
    }
    let reply = BrokerReply::DutySet(SetDutyResponse { before, moves });
    Ok((records, CommandReply::Broker(reply)))
}

/// Moves for everything that is on the broker and does not leave it already.
fn move_all_off(
    image: &ClusterImage,
    id: MoveId,
    node: NodeId,
    dry_run: DryRun,
) -> Result<(Vec<MetadataRecord>, Vec<PlannedMove>), WireError> {
    let (mut partitions, mut moves) = (Vec::new(), Vec::new());
    for topic in image.topics() {
        for number in (0u32..).map(PartitionId).take(topic.partitions.len()) {
            let from = nodes(&topic.partitions[number.0 as usize]);
            let partition = TopicPartition::new(topic.id, number);
            match topic.move_of(number) {
                None if from.contains(&node) => partitions.push(partition),
                None => {}
                Some(found)
                    if arrives_or_returns(found, &from, node)
                        && !mutant::active(Mutant::RetiredOverMove) =>
                {
                    return Err(moves_to(topic, number, node));
                }
                // The command came twice: the same answer.
                Some(found) if found.id == id => {
                    moves.push(PlannedMove { partition, from, to: nodes(&found.target) });
                }
                Some(_) => {}
            }
        }
    }
    // No partition named would mean all of them.
    if partitions.is_empty() {
        return Ok((Vec::new(), moves));
    }
    let request = ReassignRequest { partitions, wish: MoveWish::Drain(node), dry_run };
    let (records, reply) = reassign::decide(image, &MoveCommand::Reassign(id, request))?;
    if let CommandReply::Moves(planned) = reply {
        moves.extend(planned);
    }
    Ok((records, moves))
}

/// Whether the broker will have a replica when this move is over.
fn arrives_or_returns(found: &Move, from: &[NodeId], node: NodeId) -> bool {
    match found.stage {
        MoveStage::Waiting | MoveStage::Running => nodes(&found.target).contains(&node),
        MoveStage::GoingBack => from.contains(&node),
    }
}

fn remove(
    image: &ClusterImage,
    voters: &[NodeId],
    request: RemoveBrokerRequest,
) -> Result<Decision, WireError> {
    let RemoveBrokerRequest { node, unretired, dry_run } = request;
    let done = CommandReply::Broker(BrokerReply::Removed);
    if image.broker(node).is_none() && image.was_removed(node) {
        return Ok((Vec::new(), done));
    }
    let broker = registered(image, node)?;
    refuse_voter(voters, node, "be taken out")?;
    if !mutant::active(Mutant::HostRemoved) {
        refuse_host(image, node)?;
    }
    match (broker.duty, unretired, broker.fenced) {
        (BrokerDuty::Leaving, _, _) | (_, Unretired::IfDead, true) => {}
        (BrokerDuty::Active | BrokerDuty::Draining, Unretired::IfDead, false) => {
            let why = format!(
                "broker {node} is alive and nobody retired it; `hw cluster decommission {node}` does that first"
            );
            return Err(WireError::new(ErrorCode::Conflict, why));
        }
        (BrokerDuty::Active | BrokerDuty::Draining, Unretired::Refuse, _) => {
            let why = format!(
                "broker {node} hosts nothing, but nobody retired it; `hw cluster decommission {node}` first, or \
                 `hw cluster remove {node} --force` if it is dead for good"
            );
            return Err(WireError::new(ErrorCode::Conflict, why));
        }
    }
    let directory = broker.registration.directory;
    let record = MetadataRecord::Broker(BrokerRecord::Remove { node, directory });
    let records = match dry_run {
        DryRun::Yes => Vec::new(),
        DryRun::No => vec![record],
    };
    Ok((records, done))
}

fn refilled(
    image: &ClusterImage,
    node: NodeId,
    directory: DirectoryId,
    partitions: &[TopicPartition],
) -> Result<Decision, WireError> {
    if registered(image, node)?.registration.directory != directory {
        let why =
            format!("broker {node} is registered with another data directory than {directory}");
        return Err(WireError::new(ErrorCode::Conflict, why));
    }
    let was_elsewhere = |partition: &&TopicPartition| {
        let topic = image.topic(partition.topic);
        let set = topic.and_then(|topic| topic.partitions.get(partition.partition.0 as usize));
        let elsewhere =
            |replica: &PlacedReplica| replica.node == node && replica.directory != directory;
        set.is_some_and(|set| set.iter().any(elsewhere))
    };
    let record = |partition: &TopicPartition| {
        MetadataRecord::Broker(BrokerRecord::Refilled { partition: *partition, node, directory })
    };
    let records = partitions.iter().filter(was_elsewhere).map(record).collect();
    Ok((records, CommandReply::Broker(BrokerReply::Refilled)))
}

fn registered(image: &ClusterImage, node: NodeId) -> Result<&Broker, WireError> {
    image.broker(node).ok_or_else(|| {
        let why = format!(
            "broker {node} is not part of the cluster; `hw cluster brokers` shows those that are"
        );
        WireError::new(ErrorCode::UnknownBroker, why)
    })
}

fn refuse_voter(voters: &[NodeId], node: NodeId, act: &str) -> Result<(), WireError> {
    if !voters.contains(&node) {
        return Ok(());
    }
    let voters: Vec<u32> = voters.iter().map(|voter| voter.0).collect();
    let why = format!(
        "broker {node} votes on the cluster's metadata, as {voters:?} do, so it cannot {act}: give another broker the \
         vote (`hw cluster controller add N`), then take it from this one (`hw cluster controller remove {node}`)"
    );
    Err(WireError::new(ErrorCode::Conflict, why))
}

fn refuse_host(image: &ClusterImage, node: NodeId) -> Result<(), WireError> {
    let (mut first, mut count) = (None, 0);
    for topic in image.topics() {
        for number in (0u32..).map(PartitionId).take(topic.partitions.len()) {
            let coming = topic
                .move_of(number)
                .is_some_and(|found| found.target.iter().any(|replica| replica.node == node));
            if coming || topic.hosts(number).any(|replica| replica.node == node) {
                first.get_or_insert_with(|| format!("{}/{number}", topic.name));
                count += 1;
            }
        }
    }
    let Some(first) = first else { return Ok(()) };
    let more = match count {
        1 => String::new(),
        count => format!(" and {} others", count - 1),
    };
    let why = format!(
        "broker {node} has, or is about to get, a replica of {first}{more}; `hw cluster decommission {node}` moves \
         them off, `hw partition moves` shows how far that is"
    );
    Err(WireError::new(ErrorCode::Conflict, why))
}

fn moves_to(topic: &Topic, number: PartitionId, node: NodeId) -> WireError {
    let name = &topic.name;
    let why = format!(
        "{name}/{number} is being moved to broker {node} or back to it; wait for it (`hw partition moves -w`) or \
         cancel it first (`hw partition cancel {name}/{number}`)"
    );
    WireError::new(ErrorCode::Conflict, why)
}

#[cfg(test)]
mod tests;
