//! Moving replicas between brokers: asking for moves, cancelling them, looking at them.
//!
//! A wish says what is wanted; the controller makes a target of it for every partition. Any broker
//! takes these and passes them on.

use crate::ids::{NodeId, PartitionId, TopicPartition};
use crate::native::admin::DryRun;
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// What is wanted of the partitions named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveWish {
    /// Exactly these brokers.
    To(Vec<NodeId>),
    /// Not this broker: another one takes its place wherever it has a replica.
    Drain(NodeId),
    /// As many replicas.
    Replicas(u8),
    /// Exactly these brokers for each of the partitions named, in their order: a plan.
    Each(Vec<Vec<NodeId>>),
}

/// A wish to move replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReassignRequest {
    /// Which partitions; none named means all of the cluster.
    pub partitions: Vec<TopicPartition>,
    /// What is wanted of them.
    pub wish: MoveWish,
    /// Check everything and change nothing.
    pub dry_run: DryRun,
}

/// Where the replicas of one partition are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMove {
    /// Which partition.
    pub partition: TopicPartition,
    /// Its replicas now, the preferred leader first.
    pub from: Vec<NodeId>,
    /// Its replicas at the end.
    pub to: Vec<NodeId>,
}

/// The moves that were begun, or would be; partitions that are as wished already are not named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReassignResponse {
    /// One for each partition that changes.
    pub moves: Vec<PlannedMove>,
}

/// A wish to have partitions stay where they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelMovesRequest {
    /// Which partitions; none named means all that are moving.
    pub partitions: Vec<TopicPartition>,
}

/// The moves that are cancelled: `to` is where they go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelMovesResponse {
    /// One for each.
    pub moves: Vec<PlannedMove>,
}

/// A question for the moves that are not over; the answering broker's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListMovesRequest;

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MoveStage {
    /// Others come first: only so many are under way at once.
    Waiting,
    /// New replicas learn and get votes, old ones lose theirs.
    Running,
    /// It was cancelled; the voters go back to what they were.
    GoingBack,
}

/// A move that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveInfo {
    /// The topic's name.
    pub topic: String,
    /// What moves.
    pub planned: PlannedMove,
    /// How far it is.
    pub stage: MoveStage,
    /// The brokers that have to give up a former replica before it begins.
    pub awaits: Vec<NodeId>,
}

/// The moves that are not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListMovesResponse {
    /// By topic and partition.
    pub moves: Vec<MoveInfo>,
}

impl MoveWish {
    fn encode(&self, writer: &mut Writer) {
        match self {
            MoveWish::To(nodes) => {
                writer.u8(0);
                coding::put_nodes(writer, nodes);
            }
            MoveWish::Drain(node) => {
                writer.u8(1);
                writer.u32(node.0);
            }
            MoveWish::Replicas(count) => {
                writer.u8(2);
                writer.u8(*count);
            }
            MoveWish::Each(sets) => {
                writer.u8(3);
                writer.list(sets, |writer, nodes| coding::put_nodes(writer, nodes));
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<MoveWish, DecodeError> {
        Ok(match reader.u8()? {
            0 => MoveWish::To(coding::nodes(reader)?),
            1 => MoveWish::Drain(coding::node(reader)?),
            2 => MoveWish::Replicas(reader.u8()?),
            3 => MoveWish::Each(reader.list("sets of brokers", 1, coding::nodes)?),
            found => return Err(DecodeError::Invalid { what: "a wish", found: found.into() }),
        })
    }
}

impl ReassignRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        put_partitions(writer, &self.partitions);
        self.wish.encode(writer);
        coding::put_flag(writer, self.dry_run == DryRun::Yes);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ReassignRequest, DecodeError> {
        coding::open_request(reader, "a request to move replicas")?;
        let request = ReassignRequest {
            partitions: partitions(reader)?,
            wish: MoveWish::decode(reader)?,
            dry_run: if coding::flag(reader, "a dry-run flag")? { DryRun::Yes } else { DryRun::No },
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl PlannedMove {
    /// Writes it as a part of something larger.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        coding::put_nodes(writer, &self.from);
        coding::put_nodes(writer, &self.to);
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<PlannedMove, DecodeError> {
        Ok(PlannedMove {
            partition: coding::partition(reader)?,
            from: coding::nodes(reader)?,
            to: coding::nodes(reader)?,
        })
    }
}

impl ReassignResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.moves, |writer, planned| planned.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ReassignResponse, DecodeError> {
        reader.within("the plan of a move");
        let response = ReassignResponse { moves: planned_moves(reader)? };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl CancelMovesRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        put_partitions(writer, &self.partitions);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<CancelMovesRequest, DecodeError> {
        coding::open_request(reader, "a request to cancel moves")?;
        let request = CancelMovesRequest { partitions: partitions(reader)? };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl CancelMovesResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.moves, |writer, planned| planned.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<CancelMovesResponse, DecodeError> {
        reader.within("the answer to a cancelled move");
        let response = CancelMovesResponse { moves: planned_moves(reader)? };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl ListMovesRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListMovesRequest, DecodeError> {
        coding::open_request(reader, "a question for moves")?;
        reader.tagged_fields()?;
        Ok(ListMovesRequest)
    }
}

impl ListMovesResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.moves, |writer, info| {
            writer.text(&info.topic);
            info.planned.encode(writer);
            info.stage.encode(writer);
        });
        let awaits: Vec<(u32, &MoveInfo)> = (0..).zip(&self.moves).collect();
        let awaits: Vec<_> = awaits.into_iter().filter(|(_, it)| !it.awaits.is_empty()).collect();
        if awaits.is_empty() {
            writer.no_tagged_fields();
            return;
        }
        let mut field = Writer::new();
        field.list(&awaits, |field, (place, info)| {
            field.u32(*place);
            coding::put_nodes(field, &info.awaits);
        });
        writer.uvarint(1);
        writer.uvarint(TAG_AWAITS);
        writer.blob(&field.finish());
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListMovesResponse, DecodeError> {
        reader.within("a list of moves");
        let info = |reader: &mut Reader<'_>| {
            Ok(MoveInfo {
                topic: reader.text("a topic name")?,
                planned: PlannedMove::decode(reader)?,
                stage: MoveStage::decode(reader)?,
                awaits: Vec::new(),
            })
        };
        let mut moves = reader.list("moves", PLANNED_BYTES_MIN, info)?;
        reader.tagged_fields_with(|tag, field| {
            if tag == TAG_AWAITS {
                let one = |field: &mut Reader<'_>| Ok((field.u32()?, coding::nodes(field)?));
                for (place, awaits) in Reader::new(field).list("awaited brokers", 5, one)? {
                    let invalid =
                        DecodeError::Invalid { what: "a move's place", found: place.into() };
                    moves.get_mut(place as usize).ok_or(invalid)?.awaits = awaits;
                }
            }
            Ok(())
        })?;
        Ok(ListMovesResponse { moves })
    }
}

impl MoveStage {
    /// Writes it as a part of something larger.
    pub fn encode(self, writer: &mut Writer) {
        writer.u8(match self {
            MoveStage::Waiting => 0,
            MoveStage::Running => 1,
            MoveStage::GoingBack => 2,
        });
    }

    /// Reads what `encode` wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<MoveStage, DecodeError> {
        Ok(match reader.u8()? {
            0 => MoveStage::Waiting,
            1 => MoveStage::Running,
            2 => MoveStage::GoingBack,
            found => {
                return Err(DecodeError::Invalid { what: "a move's stage", found: found.into() });
            }
        })
    }
}

/// Partitions by topic, so that ten thousand of them fit into a request.
fn put_partitions(writer: &mut Writer, partitions: &[TopicPartition]) {
    let runs: Vec<&[TopicPartition]> = partitions.chunk_by(|a, b| a.topic == b.topic).collect();
    writer.list(&runs, |writer, run| {
        writer.u128(run[0].topic.0.as_u128());
        writer.list(run, |writer, partition| writer.u32(partition.partition.0));
    });
}

fn partitions(reader: &mut Reader<'_>) -> Result<Vec<TopicPartition>, DecodeError> {
    let runs = reader.list("topics", 17, |reader| {
        let topic = coding::topic_id(reader)?;
        let number = |reader: &mut Reader<'_>| reader.u32().map(PartitionId);
        let numbers = reader.list("partitions", 4, number)?;
        Ok(numbers.into_iter().map(move |number| TopicPartition::new(topic, number)))
    })?;
    Ok(runs.into_iter().flatten().collect())
}

fn planned_moves(reader: &mut Reader<'_>) -> Result<Vec<PlannedMove>, DecodeError> {
    reader.list("moves", PLANNED_BYTES_MIN, PlannedMove::decode)
}

/// Of the moves with these places in the list: whom they wait for.
const TAG_AWAITS: u64 = 0;
/// A partition and two empty lists.
const PLANNED_BYTES_MIN: usize = 22;

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::TopicId;

    fn partition(topic: u128, number: u32) -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::from_u128(topic)), PartitionId(number))
    }

    fn planned() -> PlannedMove {
        let nodes = |nodes: &[u32]| nodes.iter().copied().map(NodeId).collect();
        PlannedMove { partition: partition(7, 3), from: nodes(&[1, 2]), to: nodes(&[2, 3]) }
    }

    #[test]
    fn requests_are_read_as_they_were_written() {
        let wishes = [
            MoveWish::To(vec![NodeId(4)]),
            MoveWish::Drain(NodeId(2)),
            MoveWish::Replicas(3),
            MoveWish::Each(vec![vec![NodeId(4)], vec![NodeId(1), NodeId(2)], Vec::new()]),
        ];
        for (wish, dry_run) in wishes.into_iter().zip([DryRun::Yes, DryRun::No].repeat(2)) {
            let partitions = vec![partition(7, 0), partition(7, 2), partition(8, 1)];
            let request = ReassignRequest { partitions, wish, dry_run };
            let mut writer = Writer::new();
            request.encode(&mut writer);
            let bytes = writer.finish();
            assert_eq!(ReassignRequest::decode(&mut Reader::new(&bytes)), Ok(request));
        }
        let request = CancelMovesRequest { partitions: Vec::new() };
        let mut writer = Writer::new();
        request.encode(&mut writer);
        assert_eq!(CancelMovesRequest::decode(&mut Reader::new(&writer.finish())), Ok(request));
    }

    #[test]
    fn answers_are_read_as_they_were_written() {
        let mut writer = Writer::new();
        let response = ReassignResponse { moves: vec![planned()] };
        response.encode(&mut writer);
        assert_eq!(ReassignResponse::decode(&mut Reader::new(&writer.finish())), Ok(response));
        for stage in [MoveStage::Waiting, MoveStage::Running, MoveStage::GoingBack] {
            let info = |awaits| {
                let (topic, planned) = ("orders".into(), planned());
                MoveInfo { topic, planned, stage, awaits }
            };
            let moves = vec![info(vec![]), info(vec![NodeId(2), NodeId(3)])];
            let response = ListMovesResponse { moves };
            let mut writer = Writer::new();
            response.encode(&mut writer);
            assert_eq!(ListMovesResponse::decode(&mut Reader::new(&writer.finish())), Ok(response));
        }
    }
}
