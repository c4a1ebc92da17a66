//! Brokers that come and go: how their duties and removals lie in records and commands.
//!
//! A duty is a wish of the operator, so it outlives restarts of the broker and of the controller. A
//! removal is remembered with the data directory that the broker had: that directory may still turn
//! up, and must not register again as if nothing had happened.
//!
//! Decisions are in `duty`.

use highwater_protocol::ids::{DirectoryId, NodeId};
use highwater_protocol::native::brokers::{
    BrokerDuty, RemoveBrokerRequest, SetDutyRequest, SetDutyResponse,
};
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use uuid::Uuid;

use crate::controller::image::Broker;
use crate::controller::moves::MoveId;

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
}

/// What the controller can be asked about brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerCommand {
    /// Give a broker a duty; moves that this begins have this id.
    SetDuty(MoveId, SetDutyRequest),
    /// Take a broker out.
    Remove(RemoveBrokerRequest),
}

impl Broker {
    /// Whether it may get replicas and leadership: it lives, and nobody wants it empty.
    pub fn takes_work(&self) -> bool {
        let wanted = match self.duty {
            BrokerDuty::Active => true,
            BrokerDuty::Draining | BrokerDuty::Leaving => false,
        };
        wanted && !self.fenced
    }
}

impl BrokerRecord {
    /// The first of the types that these records have.
    pub const KIND_MIN: u16 = SET_DUTY;
    /// The last of them.
    pub const KIND_MAX: u16 = REMOVE;

    /// Its type.
    pub fn kind(&self) -> u16 {
        match self {
            BrokerRecord::SetDuty(..) => SET_DUTY,
            BrokerRecord::Remove { .. } => REMOVE,
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
        }
    }

    /// Reads what `encode` wrote, by its type.
    pub fn decode(kind: u16, input: &mut Reader<'_>) -> Result<BrokerRecord, DecodeError> {
        let node = NodeId(input.u32()?);
        Ok(match kind {
            SET_DUTY => BrokerRecord::SetDuty(node, BrokerDuty::decode(input)?),
            _ => {
                let directory = DirectoryId(Uuid::from_u128(input.u128()?));
                BrokerRecord::Remove { node, directory }
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
}

impl BrokerReply {
    /// Its kind as it travels.
    pub fn kind(&self) -> u16 {
        match self {
            BrokerReply::DutySet(_) => SET_DUTY,
            BrokerReply::Removed => REMOVE,
        }
    }

    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            BrokerReply::DutySet(response) => response.encode(out),
            BrokerReply::Removed => {}
        }
    }

    /// Reads what `encode` wrote, by its kind; `None` if it is no reply about brokers.
    pub fn decode(kind: u16, input: &mut Reader<'_>) -> Result<Option<BrokerReply>, DecodeError> {
        Ok(Some(match kind {
            SET_DUTY => BrokerReply::DutySet(SetDutyResponse::decode(input)?),
            REMOVE => BrokerReply::Removed,
            _ => return Ok(None),
        }))
    }
}

const SET_DUTY: u16 = 40;
const REMOVE: u16 = 41;
