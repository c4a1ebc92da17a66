//! How records and commands about moves are written and read.

use bytes::Bytes;
use highwater_protocol::ids::{DirectoryId, NodeId, PartitionId, TopicId, TopicPartition};
use highwater_protocol::native::moves::{
    CancelMovesRequest, MoveStage, PlannedMove, ReassignRequest,
};
use highwater_protocol::native::recover::RecoverPartitionRequest;
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use uuid::Uuid;

use super::dropped::{self, GivenUp};
use super::{Evened, Move, MoveCommand, MoveId, MoveRecord, Step, Why};
use crate::controller::record::PlacedReplica;
use crate::controller::throttle::{THROTTLE, ThrottleRecord};

impl MoveRecord {
    /// The first of the types that these records have.
    pub const KIND_MIN: u16 = SET_MOVE;
    /// The last of them, but for the later ones.
    pub const KIND_MAX: u16 = DROPPED_UNNAMED;
    /// The first of those that came later: the one that says why.
    pub const LATER_MIN: u16 = BECAUSE;
    /// The last of those.
    pub const LATER_MAX: u16 = GIVEN_UP;

    /// Which partition it is about.
    pub fn partition(&self) -> TopicPartition {
        match self {
            MoveRecord::Set(partition, _)
            | MoveRecord::End { partition, .. }
            | MoveRecord::Dropped(partition, _)
            | MoveRecord::GivenUp(partition, _)
            | MoveRecord::Because(partition, _) => *partition,
        }
    }

    /// Its type.
    pub fn kind(&self) -> u16 {
        match self {
            MoveRecord::Set(..) => SET_MOVE,
            MoveRecord::End { .. } => END_MOVE,
            MoveRecord::Dropped(..) => DROPPED,
            MoveRecord::GivenUp(..) => GIVEN_UP,
            MoveRecord::Because(..) => BECAUSE,
        }
    }

    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        put_partition(self.partition(), out);
        match self {
            MoveRecord::Set(_, change) => {
                out.u64(change.id.0);
                change.stage.encode(out);
                put_replicas(&change.target, out);
            }
            MoveRecord::End { replicas, dropped, .. } => {
                put_replicas(replicas, out);
                out.list(dropped, |out, node| out.u32(node.0));
            }
            MoveRecord::Dropped(_, dropped) => dropped::put_dropped(dropped, out),
            MoveRecord::GivenUp(_, node) => out.u32(node.0),
            MoveRecord::Because(_, Why::Evens(evened)) => out.u8(evened.number()),
            MoveRecord::Because(_, Why::Replaces(node)) => {
                out.u8(1);
                out.u32(node.0);
            }
        }
    }

    /// Reads what `encode` wrote, by its type.
    pub fn decode(kind: u16, input: &mut Reader<'_>) -> Result<MoveRecord, DecodeError> {
        let partition = get_partition(input)?;
        Ok(match kind {
            SET_MOVE => {
                let id = MoveId(input.u64()?);
                let stage = MoveStage::decode(input)?;
                MoveRecord::Set(partition, Move { id, stage, target: get_replicas(input)? })
            }
            END_MOVE => MoveRecord::End {
                partition,
                replicas: get_replicas(input)?,
                dropped: get_nodes(input)?,
            },
            BECAUSE => MoveRecord::Because(partition, get_why(input)?),
            DROPPED => MoveRecord::Dropped(partition, dropped::get_dropped(input)?),
            GIVEN_UP => MoveRecord::GivenUp(partition, NodeId(input.u32()?)),
            // Of a build that did not note by which move.
            _ => {
                let by_some = |node| (node, MoveId(0));
                let dropped = get_nodes(input)?.into_iter().map(by_some).collect();
                MoveRecord::Dropped(partition, dropped)
            }
        })
    }
}

fn get_why(input: &mut Reader<'_>) -> Result<Why, DecodeError> {
    let number = input.u8()?;
    if number == 1 {
        return Ok(Why::Replaces(NodeId(input.u32()?)));
    }
    let evened = Evened::ALL.into_iter().find(|evened| evened.number() == number);
    evened
        .map(Why::Evens)
        .ok_or(DecodeError::Invalid { what: "a reason for a move", found: number.into() })
}

impl MoveCommand {
    /// Its kind as it travels.
    pub fn kind(&self) -> u16 {
        match self {
            MoveCommand::Reassign(..) => REASSIGN,
            MoveCommand::Cancel(..) => CANCEL_MOVES,
            MoveCommand::Throttle(_) => THROTTLE,
            MoveCommand::Recover(..) => RECOVER_PARTITION,
            MoveCommand::Step(..) => MOVE_STEP,
            MoveCommand::GivenUp(_) => REPLICAS_GIVEN_UP,
        }
    }

    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            MoveCommand::Reassign(id, request) => {
                out.u64(id.0);
                out.blob(&nested(|out| request.encode(out)));
            }
            MoveCommand::Cancel(id, request) => {
                out.u64(id.0);
                out.blob(&nested(|out| request.encode(out)));
            }
            MoveCommand::Throttle(wish) => wish.encode(out),
            MoveCommand::Recover(id, request) => {
                out.u64(id.0);
                out.blob(&nested(|out| request.encode(out)));
            }
            MoveCommand::Step(partition, id, step) => {
                put_partition(*partition, out);
                out.u64(id.0);
                out.u8(match step {
                    Step::Begins => 0,
                    Step::Reached => 1,
                });
            }
            MoveCommand::GivenUp(word) => word.encode(out),
        }
    }

    /// Reads what `encode` wrote, by its kind; `None` if it is no command about moves.
    pub fn decode(kind: u16, input: &mut Reader<'_>) -> Result<Option<MoveCommand>, DecodeError> {
        Ok(Some(match kind {
            REASSIGN => {
                let id = MoveId(input.u64()?);
                let mut body = Reader::new(input.blob("a request to move replicas")?);
                MoveCommand::Reassign(id, ReassignRequest::decode(&mut body)?)
            }
            CANCEL_MOVES => {
                let id = MoveId(input.u64()?);
                let mut body = Reader::new(input.blob("a request to cancel moves")?);
                MoveCommand::Cancel(id, CancelMovesRequest::decode(&mut body)?)
            }
            THROTTLE => MoveCommand::Throttle(ThrottleRecord::decode(input)?),
            RECOVER_PARTITION => {
                let id = MoveId(input.u64()?);
                let mut body = Reader::new(input.blob("a request to recover a partition")?);
                MoveCommand::Recover(id, RecoverPartitionRequest::decode(&mut body)?)
            }
            MOVE_STEP => {
                let (partition, id) = (get_partition(input)?, MoveId(input.u64()?));
                let step = match input.u8()? {
                    0 => Step::Begins,
                    1 => Step::Reached,
                    found => {
                        return Err(DecodeError::Invalid { what: "a step", found: found.into() });
                    }
                };
                MoveCommand::Step(partition, id, step)
            }
            REPLICAS_GIVEN_UP => MoveCommand::GivenUp(GivenUp::decode(input)?),
            _ => return Ok(None),
        }))
    }
}

/// The kind of the one reply to commands about moves.
pub(in crate::controller) const MOVES_REPLY: u16 = REASSIGN;

/// Writes the reply to commands about moves.
pub(in crate::controller) fn put_reply(moves: &[PlannedMove], out: &mut Writer) {
    out.list(moves, |out, planned| planned.encode(out));
}

/// Reads what `put_reply` wrote.
pub(in crate::controller) fn get_reply(
    input: &mut Reader<'_>,
) -> Result<Vec<PlannedMove>, DecodeError> {
    input.list("moves", 22, PlannedMove::decode)
}

fn nested(body: impl FnOnce(&mut Writer)) -> Bytes {
    let mut out = Writer::new();
    body(&mut out);
    out.finish()
}

pub(super) fn put_partition(partition: TopicPartition, out: &mut Writer) {
    out.u128(partition.topic.0.as_u128());
    out.u32(partition.partition.0);
}

pub(super) fn get_partition(input: &mut Reader<'_>) -> Result<TopicPartition, DecodeError> {
    let topic = TopicId(Uuid::from_u128(input.u128()?));
    Ok(TopicPartition::new(topic, PartitionId(input.u32()?)))
}

fn put_replicas(set: &[PlacedReplica], out: &mut Writer) {
    out.list(set, |out, replica| {
        out.u32(replica.node.0);
        out.u128(replica.directory.0.as_u128());
    });
}

fn get_replicas(input: &mut Reader<'_>) -> Result<Vec<PlacedReplica>, DecodeError> {
    input.list("replicas", 20, |input| {
        let node = NodeId(input.u32()?);
        Ok(PlacedReplica { node, directory: DirectoryId(Uuid::from_u128(input.u128()?)) })
    })
}

fn get_nodes(input: &mut Reader<'_>) -> Result<Vec<NodeId>, DecodeError> {
    input.list("brokers", 4, |input| Ok(NodeId(input.u32()?)))
}

const SET_MOVE: u16 = 16;
const END_MOVE: u16 = 17;
const DROPPED_UNNAMED: u16 = 18;
const BECAUSE: u16 = 60;
const DROPPED: u16 = 61;
const GIVEN_UP: u16 = 62;

const REASSIGN: u16 = 16;
const CANCEL_MOVES: u16 = 17;
const MOVE_STEP: u16 = 18;
const RECOVER_PARTITION: u16 = 50;
const REPLICAS_GIVEN_UP: u16 = 60;
