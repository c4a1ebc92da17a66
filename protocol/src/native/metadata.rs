//! Metadata: which brokers there are, which topics, and who leads each partition.

use uuid::Uuid;

use crate::batch::Compression;
use crate::error::WireError;
use crate::ids::{DirectoryId, Incarnation, NodeId, PartitionId, Term, TopicId};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// Which topics a client wants to know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataRequest {
    /// All that the client may see.
    All,
    /// These, by name; a name that does not exist gets an error of its own.
    Topics(Vec<String>),
}

/// The cluster as the answering broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataResponse {
    /// The cluster's id, for people and for guarding against a wrong bootstrap address.
    pub cluster_id: String,
    /// The broker that answers.
    pub node: NodeId,
    /// The controller's leader, if one is known.
    pub controller: Option<NodeId>,
    /// Every registered broker.
    pub brokers: Vec<BrokerInfo>,
    /// The topics asked for.
    pub topics: Vec<TopicInfo>,
}

/// A broker's registration and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its id.
    pub node: NodeId,
    /// Where clients reach it, `host:port`.
    pub address: String,
    /// Its failure domain.
    pub rack: Option<String>,
    /// Its current life.
    pub incarnation: Incarnation,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Whether the controller has lost touch with it.
    pub fenced: bool,
}

/// One topic, or why it cannot be described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// The name asked for.
    pub name: String,
    /// The topic, or for example `UnknownTopicOrPartition`.
    pub result: Result<TopicDetail, WireError>,
}

/// A topic's id, settings and partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDetail {
    /// Its id.
    pub id: TopicId,
    /// The settings that differ from the defaults, by name.
    pub configs: Vec<(String, String)>,
    /// Its partitions in order.
    pub partitions: Vec<PartitionInfo>,
    /// The codec that its batches must be packed with, if they are packed; `None` where producers
    /// choose.
    pub codec: Option<Compression>,
}

/// Who has a partition and who leads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number.
    pub partition: PartitionId,
    /// The leader, where the answering broker knows one.
    pub leader: Option<NodeId>,
    /// The leader's term.
    pub term: Term,
    /// Every replica, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// The voters that keep up, as the leader last said.
    pub in_sync: Vec<NodeId>,
}

impl MetadataRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            MetadataRequest::All => writer.u8(0),
            MetadataRequest::Topics(names) => {
                writer.u8(1);
                writer.list(names, |writer, name| writer.text(name));
            }
        }
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<MetadataRequest, DecodeError> {
        coding::open_request(reader, "a metadata request")?;
        let topics = reader.optional("a choice of topics", |reader| {
            reader.list("topic names", 1, |reader| reader.text("a topic name"))
        })?;
        reader.tagged_fields()?;
        Ok(topics.map_or(MetadataRequest::All, MetadataRequest::Topics))
    }
}

impl MetadataResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.text(&self.cluster_id);
        writer.u32(self.node.0);
        writer.optional(self.controller, |writer, node| writer.u32(node.0));
        writer.list(&self.brokers, |writer, broker| broker.encode(writer));
        writer.list(&self.topics, |writer, topic| {
            writer.text(&topic.name);
            coding::put_result(writer, &topic.result, |writer, detail| detail.encode(writer));
        });
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<MetadataResponse, DecodeError> {
        reader.within("a metadata answer");
        let response = MetadataResponse {
            cluster_id: reader.text("a cluster id")?,
            node: coding::node(reader)?,
            controller: reader.optional("a controller", coding::node)?,
            brokers: reader.list("brokers", 32, BrokerInfo::decode)?,
            topics: reader.list("topics", 4, |reader| {
                let name = reader.text("a topic name")?;
                Ok(TopicInfo { name, result: coding::result(reader, TopicDetail::decode)? })
            })?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl BrokerInfo {
    fn encode(&self, writer: &mut Writer) {
        writer.u32(self.node.0);
        writer.text(&self.address);
        writer.optional(self.rack.as_deref(), |writer, rack| writer.text(rack));
        writer.u64(self.incarnation.0);
        writer.u128(self.directory.0.as_u128());
        coding::put_flag(writer, self.fenced);
        writer.no_tagged_fields();
    }

    fn decode(reader: &mut Reader<'_>) -> Result<BrokerInfo, DecodeError> {
        let broker = BrokerInfo {
            node: coding::node(reader)?,
            address: reader.text("an address")?,
            rack: reader.optional("a rack", |reader| reader.text("a rack"))?,
            incarnation: Incarnation(reader.u64()?),
            directory: DirectoryId(Uuid::from_u128(reader.u128()?)),
            fenced: coding::flag(reader, "a fenced flag")?,
        };
        reader.tagged_fields()?;
        Ok(broker)
    }
}

impl TopicDetail {
    fn encode(&self, writer: &mut Writer) {
        writer.u128(self.id.0.as_u128());
        coding::put_pairs(writer, &self.configs);
        writer.list(&self.partitions, |writer, partition| {
            writer.u32(partition.partition.0);
            writer.optional(partition.leader, |writer, node| writer.u32(node.0));
            writer.u32(partition.term.0);
            coding::put_nodes(writer, &partition.replicas);
            coding::put_nodes(writer, &partition.in_sync);
        });
        let Some(codec) = self.codec else { return writer.no_tagged_fields() };
        writer.uvarint(1);
        writer.uvarint(TAG_CODEC);
        writer.blob(&[codec.number() as u8]);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<TopicDetail, DecodeError> {
        let mut detail = TopicDetail {
            id: coding::topic_id(reader)?,
            configs: coding::pairs(reader)?,
            partitions: reader.list("partitions", 11, |reader| {
                Ok(PartitionInfo {
                    partition: PartitionId(reader.u32()?),
                    leader: reader.optional("a leader", coding::node)?,
                    term: Term(reader.u32()?),
                    replicas: coding::nodes(reader)?,
                    in_sync: coding::nodes(reader)?,
                })
            })?,
            codec: None,
        };
        reader.tagged_fields_with(|tag, field| {
            if tag == TAG_CODEC {
                // A codec of the future is none that we could pack with: then we don't pack.
                let number = field.first().map(|number| u16::from(*number));
                let codec = number.and_then(Compression::from_number);
                detail.codec = Some(codec.unwrap_or(Compression::None));
            }
            Ok(())
        })?;
        Ok(detail)
    }
}

/// The tagged field of a topic whose producers must use one codec, or none.
const TAG_CODEC: u64 = 0;
