//! What brokers carry, and plans that even it out.
//!
//! Every broker answers for its own replicas only; who wants the whole asks each. A plan is made by
//! any broker from its image and the sizes that the asker gathered; nothing is changed by it.

use crate::ids::{NodeId, Offset, PartitionId, TopicPartition};
use crate::native::coding;
use crate::native::moves::PlannedMove;
use crate::wire::{DecodeError, Reader, Writer};

/// A question for all replicas that the answering broker hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListReplicasRequest;

/// The replicas of one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListReplicasResponse {
    /// Which broker.
    pub node: NodeId,
    /// Its clock, which never goes back: what two answers differ in, over the time between them, is a
    /// rate. It and all counts begin anew with the broker's life.
    pub clock_ms: u64,
    /// By topic and partition.
    pub replicas: Vec<ReplicaReport>,
}

/// A replica as its broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Which partition.
    pub partition: TopicPartition,
    /// Whether it serves.
    pub state: ReplicaState,
    /// Whether it leads, and so takes and gives what clients write and read.
    pub leads: bool,
    /// The oldest readable offset.
    pub log_start: Offset,
    /// The end of what consumers can read, as far as this replica knows.
    pub high_watermark: Offset,
    /// The end of its log.
    pub log_end: Offset,
    /// Bytes of its log on disk.
    pub bytes: u64,
    /// What clients wrote to it and read from it.
    pub traffic: Traffic,
}

/// Whether a replica serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaState {
    /// It does.
    Open,
    /// It is being opened.
    Opening,
    /// It is out of service until its broker restarts, for this reason.
    Failed(String),
}

/// What clients wrote to a replica and read from it in this life of its broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Records written.
    pub records_in: u64,
    /// Bytes of their batches.
    pub bytes_in: u64,
    /// Records read.
    pub records_out: u64,
    /// Bytes of their batches.
    pub bytes_out: u64,
}

/// What clients do to a partition in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes that they write.
    pub bytes_in_per_s: u64,
    /// Bytes that they read.
    pub bytes_out_per_s: u64,
}

/// A wish for a plan that spreads replicas and leaders over racks and brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanBalanceRequest {
    /// How many bytes a replica of each partition has; those not named count as empty.
    pub sizes: Vec<(TopicPartition, u64)>,
    /// What clients do to each partition; those not named count as idle.
    pub loads: Vec<(TopicPartition, Load)>,
}

/// A plan, and what it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanBalanceResponse {
    /// The partitions that change. Where `to` has the brokers of `from` in another order, only the
    /// preferred leader changes.
    pub moves: Vec<PlannedMove>,
    /// What each broker that takes replicas carries now.
    pub before: Vec<BrokerShare>,
    /// And would carry.
    pub after: Vec<BrokerShare>,
}

/// What a broker carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerShare {
    /// Which broker.
    pub node: NodeId,
    /// Its replicas.
    pub replicas: u32,
    /// Those of them that are preferred leaders.
    pub leaders: u32,
    /// The bytes of all of them.
    pub bytes: u64,
    /// Bytes a second that are written to them.
    pub write_load: u64,
    /// Bytes a second that those that lead send to followers and to readers.
    pub leader_load: u64,
}

impl ListReplicasRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListReplicasRequest, DecodeError> {
        coding::open_request(reader, "a question for replicas")?;
        reader.tagged_fields()?;
        Ok(ListReplicasRequest)
    }
}

impl ListReplicasResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.node.0);
        writer.u64(self.clock_ms);
        writer.list(&self.replicas, |writer, replica| replica.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListReplicasResponse, DecodeError> {
        reader.within("a list of replicas");
        let response = ListReplicasResponse {
            node: coding::node(reader)?,
            clock_ms: reader.u64()?,
            replicas: reader.list("replicas", REPLICA_BYTES_MIN, ReplicaReport::decode)?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl ReplicaReport {
    fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        match &self.state {
            ReplicaState::Open => writer.u8(0),
            ReplicaState::Opening => writer.u8(1),
            ReplicaState::Failed(why) => {
                writer.u8(2);
                writer.text(why);
            }
        }
        coding::put_flag(writer, self.leads);
        for offset in [self.log_start, self.high_watermark, self.log_end] {
            writer.u64(offset.0);
        }
        let Traffic { records_in, bytes_in, records_out, bytes_out } = self.traffic;
        for count in [self.bytes, records_in, bytes_in, records_out, bytes_out] {
            writer.uvarint(count);
        }
        writer.no_tagged_fields();
    }

    fn decode(reader: &mut Reader<'_>) -> Result<ReplicaReport, DecodeError> {
        let report = ReplicaReport {
            partition: coding::partition(reader)?,
            state: match reader.u8()? {
                0 => ReplicaState::Open,
                1 => ReplicaState::Opening,
                2 => ReplicaState::Failed(reader.text("a reason")?),
                found => {
                    return Err(DecodeError::Invalid { what: "a state", found: found.into() });
                }
            },
            leads: coding::flag(reader, "a leader's flag")?,
            log_start: coding::offset(reader)?,
            high_watermark: coding::offset(reader)?,
            log_end: coding::offset(reader)?,
            bytes: reader.uvarint()?,
            traffic: Traffic {
                records_in: reader.uvarint()?,
                bytes_in: reader.uvarint()?,
                records_out: reader.uvarint()?,
                bytes_out: reader.uvarint()?,
            },
        };
        reader.tagged_fields()?;
        Ok(report)
    }
}

impl PlanBalanceRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        put_by_topic(writer, &self.sizes, |writer, bytes| writer.uvarint(*bytes));
        if self.loads.is_empty() {
            return writer.no_tagged_fields();
        }
        writer.uvarint(1);
        writer.uvarint(TAG_LOADS);
        let mut loads = Writer::new();
        put_by_topic(&mut loads, &self.loads, |writer, load| {
            writer.uvarint(load.bytes_in_per_s);
            writer.uvarint(load.bytes_out_per_s);
        });
        writer.blob(&loads.finish());
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<PlanBalanceRequest, DecodeError> {
        coding::open_request(reader, "a wish for balance")?;
        let sizes = by_topic(reader, 5, |reader| reader.uvarint())?;
        let mut loads = Vec::new();
        reader.tagged_fields_with(|tag, field| {
            if tag == TAG_LOADS {
                loads = by_topic(&mut Reader::new(field), 6, |reader| {
                    let (bytes_in_per_s, bytes_out_per_s) = (reader.uvarint()?, reader.uvarint()?);
                    Ok(Load { bytes_in_per_s, bytes_out_per_s })
                })?;
            }
            Ok(())
        })?;
        Ok(PlanBalanceRequest { sizes, loads })
    }
}

/// Partitions and something of each; those of a topic one after another, so that its id is written
/// once.
fn put_by_topic<T>(
    writer: &mut Writer,
    all: &[(TopicPartition, T)],
    put: impl Fn(&mut Writer, &T),
) {
    let runs: Vec<&[(TopicPartition, T)]> =
        all.chunk_by(|(a, _), (b, _)| a.topic == b.topic).collect();
    writer.list(&runs, |writer, run| {
        writer.u128(run[0].0.topic.0.as_u128());
        writer.list(run, |writer, (partition, of_it)| {
            writer.u32(partition.partition.0);
            put(writer, of_it);
        });
    });
}

/// Reads what `put_by_topic` wrote, of which each has at least so many bytes.
fn by_topic<T>(
    reader: &mut Reader<'_>,
    bytes_min: usize,
    mut take: impl FnMut(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<(TopicPartition, T)>, DecodeError> {
    let runs = reader.list("topics", 17, |reader| {
        let topic = coding::topic_id(reader)?;
        reader.list("partitions", bytes_min, |reader| {
            let partition = PartitionId(reader.u32()?);
            Ok((TopicPartition::new(topic, partition), take(reader)?))
        })
    })?;
    Ok(runs.into_iter().flatten().collect())
}

impl PlanBalanceResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.moves, |writer, planned| planned.encode(writer));
        for shares in [&self.before, &self.after] {
            writer.list(shares, |writer, share| share.encode(writer));
        }
        writer.uvarint(1);
        writer.uvarint(TAG_SHARES);
        let mut loads = Writer::new();
        for share in self.before.iter().chain(&self.after) {
            loads.u64(share.write_load);
            loads.u64(share.leader_load);
        }
        writer.blob(&loads.finish());
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<PlanBalanceResponse, DecodeError> {
        reader.within("a plan of balance");
        let mut response = PlanBalanceResponse {
            moves: reader.list("moves", 22, PlannedMove::decode)?,
            before: reader.list("shares", SHARE_BYTES, BrokerShare::decode)?,
            after: reader.list("shares", SHARE_BYTES, BrokerShare::decode)?,
        };
        let PlanBalanceResponse { before, after, .. } = &mut response;
        // A broker that goes by no loads says none.
        reader.tagged_fields_with(|tag, field| {
            if tag == TAG_SHARES {
                let mut loads = Reader::new(field);
                for share in before.iter_mut().chain(after.iter_mut()) {
                    (share.write_load, share.leader_load) = (loads.u64()?, loads.u64()?);
                }
            }
            Ok(())
        })?;
        Ok(response)
    }
}

impl BrokerShare {
    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.node.0);
        writer.u32(self.replicas);
        writer.u32(self.leaders);
        writer.u64(self.bytes);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<BrokerShare, DecodeError> {
        Ok(BrokerShare {
            node: coding::node(reader)?,
            replicas: reader.u32()?,
            leaders: reader.u32()?,
            bytes: reader.u64()?,
            write_load: 0,
            leader_load: 0,
        })
    }
}

/// The tagged field of a wish for a plan that holds the loads.
const TAG_LOADS: u64 = 0;
/// The tagged field of a plan that holds the loads of all shares, those before first.
const TAG_SHARES: u64 = 0;
/// A partition, a state, a flag, three offsets, five counts of a byte, and no tags.
const REPLICA_BYTES_MIN: usize = 20 + 2 + 24 + 5 + 1;
const SHARE_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::ids::TopicId;

    fn comes_back<T: PartialEq + std::fmt::Debug>(
        message: T,
        encode: impl Fn(&T, &mut Writer),
        decode: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
    ) {
        let mut writer = Writer::new();
        encode(&message, &mut writer);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(decode(&mut reader), Ok(message));
        assert_eq!(reader.end(), Ok(()));
        for end in 0..bytes.len() {
            assert!(decode(&mut Reader::new(&bytes[..end])).is_err());
        }
    }

    fn partition(topic: u128, number: u32) -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::from_u128(topic)), PartitionId(number))
    }

    #[test]
    fn reports_of_replicas_are_read_as_they_were_written() {
        let failed = ReplicaState::Failed("the disk is gone".to_owned());
        let replicas = [ReplicaState::Open, ReplicaState::Opening, failed].into_iter();
        let report = |state| ReplicaReport {
            partition: partition(7, 1),
            state,
            leads: true,
            log_start: Offset(1),
            high_watermark: Offset(2),
            log_end: Offset(3),
            bytes: 1 << 40,
            traffic: Traffic { records_in: 1, bytes_in: 200, records_out: 3, bytes_out: 40_000 },
        };
        let replicas = replicas.map(report).collect();
        let response = ListReplicasResponse { node: NodeId(3), clock_ms: 99, replicas };
        comes_back(response, ListReplicasResponse::encode, ListReplicasResponse::decode);
        comes_back(ListReplicasRequest, ListReplicasRequest::encode, ListReplicasRequest::decode);
    }

    #[test]
    fn plans_are_read_as_they_were_written() {
        let sizes = vec![(partition(7, 0), 0), (partition(7, 2), 1 << 40), (partition(8, 1), 5)];
        let load = |bytes_in_per_s, bytes_out_per_s| Load { bytes_in_per_s, bytes_out_per_s };
        let loads = vec![(partition(7, 2), load(1 << 30, 0)), (partition(8, 1), load(0, 1))];
        let request = PlanBalanceRequest { sizes: sizes.clone(), loads };
        comes_back(request, PlanBalanceRequest::encode, PlanBalanceRequest::decode);
        let request = PlanBalanceRequest { sizes, loads: Vec::new() };
        comes_back(request, PlanBalanceRequest::encode, PlanBalanceRequest::decode);
        let (write_load, leader_load) = (7, u64::MAX);
        let share = BrokerShare {
            node: NodeId(1),
            replicas: 2,
            leaders: 1,
            bytes: 9,
            write_load,
            leader_load,
        };
        let nodes = |nodes: &[u32]| nodes.iter().copied().map(NodeId).collect();
        let (from, to) = (nodes(&[1, 2]), nodes(&[2, 3]));
        let moves = vec![PlannedMove { partition: partition(7, 3), from, to }];
        let response = PlanBalanceResponse { moves, before: vec![share], after: vec![share; 2] };
        comes_back(response, PlanBalanceResponse::encode, PlanBalanceResponse::decode);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = ListReplicasRequest::decode(&mut Reader::new(&bytes));
            let _ = ListReplicasResponse::decode(&mut Reader::new(&bytes));
            let _ = PlanBalanceRequest::decode(&mut Reader::new(&bytes));
            let _ = PlanBalanceResponse::decode(&mut Reader::new(&bytes));
        }
    }
}
