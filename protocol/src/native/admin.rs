//! Admin: creating and deleting topics, looking closely at partitions, and trimming them.
//!
//! Any broker takes these and passes them on to the controller where that is needed.

use crate::ids::{LogIndex, NodeId, Offset, Term, TopicId, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// A new topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopicRequest {
    /// Its name: 1 to 249 of `A-Z a-z 0-9 . _ -`, and neither `.` nor `..`.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas of each; `None` for the cluster's default.
    pub replication: Option<u8>,
    /// Settings by name; an unknown name refuses the request.
    pub configs: Vec<(String, String)>,
    /// Check everything and change nothing.
    pub dry_run: DryRun,
}

/// Whether a change is carried out or only checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DryRun {
    /// Check only.
    Yes,
    /// Carry it out.
    No,
}

/// The topic that was made, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopicResponse {
    /// Its id.
    pub id: TopicId,
    /// The replicas of each partition in order, the preferred leader first.
    pub replicas: Vec<Vec<NodeId>>,
}

/// A topic to delete, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTopicRequest {
    /// Its name.
    pub name: String,
}

/// A wish to give up the oldest records of a partition; its leader carries it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimPartitionRequest {
    /// Which partition.
    pub partition: TopicPartition,
    /// Everything before the batch that holds this offset goes; at most the high watermark.
    pub before: Offset,
}

/// The records are given up, whatever happens to the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrimPartitionResponse {
    /// The oldest readable offset now: that of a batch, so it may lie before the one asked for.
    pub log_start: Offset,
}

/// A question for the leader's view of a partition's replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescribePartitionRequest {
    /// Which partition.
    pub partition: TopicPartition,
}

/// A partition as the answering broker's replica sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribePartitionResponse {
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: Term,
    /// The oldest readable offset.
    pub log_start: Offset,
    /// The end of what consumers can read.
    pub high_watermark: Offset,
    /// The end of this replica's log.
    pub log_end: Offset,
    /// Bytes on this broker's disk.
    pub bytes: u64,
    /// Every replica; only the leader knows all of them.
    pub replicas: Vec<ReplicaStatus>,
}

/// One replica of a partition, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// On which broker.
    pub node: NodeId,
    /// What it is to the Raft group.
    pub role: ReplicaRole,
    /// The end of what it has appended.
    pub appended: LogIndex,
    /// The end of what it has on disk.
    pub flushed: LogIndex,
    /// How long ago the leader heard of it; `None` for the leader itself.
    pub heard_ms: Option<u64>,
    /// Whether it keeps up.
    pub in_sync: bool,
    /// How many bytes of the leader's log it lacks; `None` where the broker does not say.
    pub behind_bytes: Option<u64>,
}

/// What a replica is to its Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaRole {
    /// It leads.
    Leader,
    /// It votes and follows.
    Follower,
    /// It follows without a vote.
    Learner,
}

impl CreateTopicRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.text(&self.name);
        writer.u32(self.partitions);
        writer.optional(self.replication, Writer::u8);
        coding::put_pairs(writer, &self.configs);
        coding::put_flag(writer, self.dry_run == DryRun::Yes);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<CreateTopicRequest, DecodeError> {
        coding::open_request(reader, "a request for a topic")?;
        let request = CreateTopicRequest {
            name: reader.text("a topic name")?,
            partitions: reader.u32()?,
            replication: reader.optional("a replication factor", Reader::u8)?,
            configs: coding::pairs(reader)?,
            dry_run: if coding::flag(reader, "a dry-run flag")? { DryRun::Yes } else { DryRun::No },
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl CreateTopicResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u128(self.id.0.as_u128());
        writer.list(&self.replicas, |writer, nodes| coding::put_nodes(writer, nodes));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<CreateTopicResponse, DecodeError> {
        reader.within("a new topic's answer");
        let response = CreateTopicResponse {
            id: coding::topic_id(reader)?,
            replicas: reader.list("partitions", 1, coding::nodes)?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl DeleteTopicRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.text(&self.name);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DeleteTopicRequest, DecodeError> {
        coding::open_request(reader, "a request to delete a topic")?;
        let request = DeleteTopicRequest { name: reader.text("a topic name")? };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl TrimPartitionRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.u64(self.before.0);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<TrimPartitionRequest, DecodeError> {
        coding::open_request(reader, "a request to trim a partition")?;
        let request = TrimPartitionRequest {
            partition: coding::partition(reader)?,
            before: coding::offset(reader)?,
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl TrimPartitionResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.log_start.0);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<TrimPartitionResponse, DecodeError> {
        reader.within("a trim's answer");
        let response = TrimPartitionResponse { log_start: coding::offset(reader)? };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl DescribePartitionRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DescribePartitionRequest, DecodeError> {
        coding::open_request(reader, "a question for a partition")?;
        let request = DescribePartitionRequest { partition: coding::partition(reader)? };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl DescribePartitionResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.optional(self.leader, |writer, node| writer.u32(node.0));
        writer.u32(self.term.0);
        writer.u64(self.log_start.0);
        writer.u64(self.high_watermark.0);
        writer.u64(self.log_end.0);
        writer.u64(self.bytes);
        writer.list(&self.replicas, |writer, replica| replica.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DescribePartitionResponse, DecodeError> {
        reader.within("a partition's description");
        let response = DescribePartitionResponse {
            leader: reader.optional("a leader", coding::node)?,
            term: Term(reader.u32()?),
            log_start: coding::offset(reader)?,
            high_watermark: coding::offset(reader)?,
            log_end: coding::offset(reader)?,
            bytes: reader.u64()?,
            replicas: reader.list("replicas", 24, ReplicaStatus::decode)?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

/// The tag of what a replica lacks, in its status.
const BEHIND_BYTES: u64 = 0;

impl ReplicaRole {
    pub(super) fn encode(self, writer: &mut Writer) {
        writer.u8(match self {
            ReplicaRole::Leader => 0,
            ReplicaRole::Follower => 1,
            ReplicaRole::Learner => 2,
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<ReplicaRole, DecodeError> {
        Ok(match reader.u8()? {
            0 => ReplicaRole::Leader,
            1 => ReplicaRole::Follower,
            2 => ReplicaRole::Learner,
            found => {
                return Err(DecodeError::Invalid { what: "a replica's role", found: found.into() });
            }
        })
    }
}

impl ReplicaStatus {
    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.u32(self.node.0);
        self.role.encode(writer);
        writer.u64(self.appended.0);
        writer.u64(self.flushed.0);
        writer.optional(self.heard_ms, Writer::u64);
        coding::put_flag(writer, self.in_sync);
        match self.behind_bytes {
            None => writer.no_tagged_fields(),
            Some(bytes) => {
                writer.uvarint(1);
                writer.uvarint(BEHIND_BYTES);
                writer.blob(&bytes.to_be_bytes());
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<ReplicaStatus, DecodeError> {
        let mut status = ReplicaStatus {
            node: coding::node(reader)?,
            role: ReplicaRole::decode(reader)?,
            appended: coding::log_index(reader)?,
            flushed: coding::log_index(reader)?,
            heard_ms: reader.optional("an age", Reader::u64)?,
            in_sync: coding::flag(reader, "an in-sync flag")?,
            behind_bytes: None,
        };
        reader.tagged_fields_with(|tag, field| {
            if tag == BEHIND_BYTES {
                status.behind_bytes = Some(Reader::new(field).u64()?);
            }
            Ok(())
        })?;
        Ok(status)
    }
}
