//! Brokers that come and go: how their duties and removals lie in records and commands.
//!
//! A duty is a wish of the operator, so it outlives restarts of the broker and of the controller. A
//! removal is remembered with the data directory that the broker had, and so is a directory that
//! another one has replaced: it may still turn up, and must not register again as if nothing had happened.
//!
//! Decisions are in `duty` and `voters`.

use highwater_protocol::ids::{DirectoryId, NodeId, PartitionId, TopicId, TopicPartition};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::brokers::{
    BrokerDuty, ChangeControllerRequest, RemoveBrokerRequest, SetDutyRequest, SetDutyResponse,
};
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use uuid::Uuid;

use crate::controller::image::Broker;
use crate::controller::moves::MoveId;
use crate::mutant::{self, Mutant};

/// What records say of brokers beyond their registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerRecord {
    /// A broker has this duty from here on.
    SetDuty(NodeId, BrokerDuty),
    /// A broker is no part of the cluster any more.
    Remove {
        /// Which broker.
        node: NodeId,
        /// The data directory that it had.
        directory: DirectoryId,
    },
    /// A replica that a broker lost with its disk is whole again on the one that it has now.
    Refilled {
        /// Of which partition.
        partition: TopicPartition,
        /// Whose replica.
        node: NodeId,
        /// Where it is now.
        directory: DirectoryId,
    },
    /// These brokers vote on the controller's log, as its leader saw; sorted.
    Voters(Vec<NodeId>),
}

/// What the controller can be asked about brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerCommand {
    /// Give a broker a duty; moves that this begins have this id.
    SetDuty(MoveId, SetDutyRequest),
    /// Take a broker out.
    Remove(RemoveBrokerRequest),
    /// Note that a broker's replicas are whole again after its disk was replaced.
    Refilled {
        /// Which broker.
        node: NodeId,
        /// Its data directory.
        directory: DirectoryId,
        /// Of which partitions, a bounded number.
        partitions: Vec<TopicPartition>,
    },
    /// Have one broker more vote on the metadata, or one fewer.
    ChangeController(ChangeControllerRequest),
}

impl Broker {
    /// Whether it may get replicas and leadership: it lives, and nobody wants it empty.
    pub fn takes_work(&self) -> bool {
        let wanted = match self.duty {
            BrokerDuty::Active => true,
            BrokerDuty::Draining | BrokerDuty::Leaving => mutant::active(Mutant::DrainedTakesWork),
        };
        wanted && !self.fenced
    }
}

impl BrokerRecord {
    /// The first of the types that these records have.
    pub const KIND_MIN: u16 = SET_DUTY;
    /// The last of them.
    pub const KIND_MAX: u16 = VOTERS;

    /// Its type.
    pub fn kind(&self) -> u16 {
        match self {
            BrokerRecord::SetDuty(..) => SET_DUTY,
            BrokerRecord::Remove { .. } => REMOVE,
            BrokerRecord::Refilled { .. } => REFILLED,
            BrokerRecord::Voters(_) => VOTERS,
        }
    }

    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            BrokerRecord::SetDuty(node, duty) => {
                out.u32(node.0);
                duty.encode(out);
            }
            BrokerRecord::Remove { node, directory } => {
                out.u32(node.0);
                out.u128(directory.0.as_u128());
            }
            BrokerRecord::Refilled { partition, node, directory } => {
                out.u32(node.0);
                out.u128(directory.0.as_u128());
                put_partition(*partition, out);
            }
            BrokerRecord::Voters(voters) => out.list(voters, |out, node| out.u32(node.0)),
        }
    }

    /// Reads what `encode` wrote, by its type.
    pub fn decode(kind: u16, input: &mut Reader<'_>) -> Result<BrokerRecord, DecodeError> {
        if kind == VOTERS {
            let voters = input.list("voters", 4, |input| Ok(NodeId(input.u32()?)))?;
            return Ok(BrokerRecord::Voters(voters));
        }
        let node = NodeId(input.u32()?);
        Ok(match kind {
            SET_DUTY => BrokerRecord::SetDuty(node, BrokerDuty::decode(input)?),
            REMOVE => BrokerRecord::Remove { node, directory: get_directory(input)? },
            _ => {
                let directory = get_directory(input)?;
                BrokerRecord::Refilled { partition: get_partition(input)?, node, directory }
            }
        })
    }
}

impl BrokerCommand {
    /// Its kind as it travels.
    pub fn kind(&self) -> u16 {
        match self {
            BrokerCommand::SetDuty(..) => SET_DUTY,
            BrokerCommand::Remove(_) => REMOVE,
            BrokerCommand::Refilled { .. } => REFILLED,
            BrokerCommand::ChangeController(_) => VOTERS,
        }
    }

    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            BrokerCommand::SetDuty(id, request) => {
                out.u64(id.0);
                request.encode(out);
            }
            BrokerCommand::Remove(request) => request.encode(out),
            BrokerCommand::Refilled { node, directory, partitions } => {
                out.u32(node.0);
                out.u128(directory.0.as_u128());
                out.list(partitions, |out, partition| put_partition(*partition, out));
            }
            BrokerCommand::ChangeController(request) => request.encode(out),
        }
    }

    /// Reads what `encode` wrote, by its kind; `None` if it is no command about brokers.
    pub fn decode(kind: u16, input: &mut Reader<'_>) -> Result<Option<BrokerCommand>, DecodeError> {
        Ok(Some(match kind {
            SET_DUTY => {
                let id = MoveId(input.u64()?);
                BrokerCommand::SetDuty(id, SetDutyRequest::decode(input)?)
            }
            REMOVE => BrokerCommand::Remove(RemoveBrokerRequest::decode(input)?),
            REFILLED => BrokerCommand::Refilled {
                node: NodeId(input.u32()?),
                directory: get_directory(input)?,
                partitions: input.list("partitions", 20, get_partition)?,
            },
            VOTERS => BrokerCommand::ChangeController(ChangeControllerRequest::decode(input)?),
            _ => return Ok(None),
        }))
    }
}

/// What became of a command about brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerReply {
    /// The broker has the duty, or would.
    DutySet(SetDutyResponse),
    /// The broker is removed, or would be.
    Removed,
    /// The replicas are known to be whole.
    Refilled,
    /// The voters on the metadata, which the controller's leader leads there before it answers.
    Voters {
        /// Who they are then, sorted.
        target: Vec<NodeId>,
        /// Whether nothing is to be changed.
        dry_run: DryRun,
    },
}

impl BrokerReply {
    /// Its kind as it travels.
    pub fn kind(&self) -> u16 {
        match self {
            BrokerReply::DutySet(_) => SET_DUTY,
            BrokerReply::Removed => REMOVE,
            BrokerReply::Refilled => REFILLED,
            BrokerReply::Voters { .. } => VOTERS,
        }
    }

    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            BrokerReply::DutySet(response) => response.encode(out),
            BrokerReply::Removed | BrokerReply::Refilled => {}
            BrokerReply::Voters { target, dry_run } => {
                out.list(target, |out, node| out.u32(node.0));
                out.u8(u8::from(*dry_run == DryRun::Yes));
            }
        }
    }

    /// Reads what `encode` wrote, by its kind; `None` if it is no reply about brokers.
    pub fn decode(kind: u16, input: &mut Reader<'_>) -> Result<Option<BrokerReply>, DecodeError> {
        Ok(Some(match kind {
            SET_DUTY => BrokerReply::DutySet(SetDutyResponse::decode(input)?),
            REMOVE => BrokerReply::Removed,
            REFILLED => BrokerReply::Refilled,
            VOTERS => BrokerReply::Voters {
                target: input.list("voters", 4, |input| Ok(NodeId(input.u32()?)))?,
                dry_run: match input.u8()? {
                    0 => DryRun::No,
                    1 => DryRun::Yes,
                    found => {
                        return Err(DecodeError::Invalid { what: "dry run", found: found.into() });
                    }
                },
            },
            _ => return Ok(None),
        }))
    }
}

fn put_partition(partition: TopicPartition, out: &mut Writer) {
    out.u128(partition.topic.0.as_u128());
    out.u32(partition.partition.0);
}

fn get_partition(input: &mut Reader<'_>) -> Result<TopicPartition, DecodeError> {
    let topic = TopicId(Uuid::from_u128(input.u128()?));
    Ok(TopicPartition::new(topic, PartitionId(input.u32()?)))
}

fn get_directory(input: &mut Reader<'_>) -> Result<DirectoryId, DecodeError> {
    Ok(DirectoryId(Uuid::from_u128(input.u128()?)))
}

const SET_DUTY: u16 = 40;
const REMOVE: u16 = 41;
const REFILLED: u16 = 42;
const VOTERS: u16 = 43;
