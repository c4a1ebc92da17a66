//! Admin: a single replica as it sees itself, and the batch that it holds at an offset.
//!
//! Whoever explains a partition asks every broker that should have a replica of it, and compares.

use crate::ids::{LogIndex, NodeId, Offset, RecoveryEpoch, Term, Timestamp, TopicPartition};
use crate::native::admin::{ReplicaRole, ReplicaStatus};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// A question for the answering broker's own replica, whether it leads or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InspectReplicaRequest {
    /// Which partition.
    pub partition: TopicPartition,
    /// The offset to look up, if any.
    pub offset: Option<Offset>,
}

/// A replica as it sees itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectReplicaResponse {
    /// Its term.
    pub term: Term,
    /// The leader of that term, if it knows one.
    pub leader: Option<NodeId>,
    /// What it is to the group by its own log.
    pub role: ReplicaRole,
    /// Whether it may have forgotten what it once acknowledged: it neither votes nor stands then.
    pub suspect: bool,
    /// `None` where it counts a batch after the flush; otherwise after the append, to be flushed
    /// within so many milliseconds.
    pub flush_interval_ms: Option<u64>,
    /// Those with a vote, by its own log.
    pub voters: Vec<NodeId>,
    /// Those without, by its own log.
    pub learners: Vec<NodeId>,
    /// The oldest readable offset.
    pub log_start: Offset,
    /// The end of what it knows to be committed.
    pub high_watermark: Offset,
    /// The end of what it has on disk.
    pub flushed: Offset,
    /// The end of what it has appended.
    pub log_end: Offset,
    /// The same three as Raft counts them.
    pub indexes: ReplicaIndexes,
    /// The term of its last entry, be it a batch or a mark: what makes one log better than another.
    pub last_term: Term,
    /// Which group of its partition it belongs to: counts the recoveries.
    pub epoch: RecoveryEpoch,
    /// All replicas as it knows them; only a leader knows the others.
    pub peers: Vec<ReplicaStatus>,
    /// The batch that holds the offset asked for, if this replica has one.
    pub batch: Option<HeldBatch>,
}

/// How far a replica is, as Raft counts: records and marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaIndexes {
    /// The end of what it knows to be committed.
    pub committed: LogIndex,
    /// The end of what it has on disk.
    pub flushed: LogIndex,
    /// The end of what it has appended.
    pub appended: LogIndex,
}

/// A batch in a replica's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBatch {
    /// The offset of its first record.
    pub base: Offset,
    /// The offset behind its last record.
    pub end: Offset,
    /// The index behind its last record.
    pub end_index: LogIndex,
    /// The term in which a leader appended it.
    pub term: Term,
    /// The oldest and the newest of its timestamps, as the producer or the broker set them.
    pub timestamps: (Timestamp, Timestamp),
    /// Its checksum: two replicas with the same one hold the same records.
    pub checksum: u32,
}

impl InspectReplicaRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.optional(self.offset, |writer, offset| writer.u64(offset.0));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<InspectReplicaRequest, DecodeError> {
        coding::open_request(reader, "a question for a replica")?;
        let partition = coding::partition(reader)?;
        let offset = reader.optional("an offset", coding::offset)?;
        reader.tagged_fields()?;
        Ok(InspectReplicaRequest { partition, offset })
    }
}

impl InspectReplicaResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.term.0);
        writer.optional(self.leader, |writer, node| writer.u32(node.0));
        self.role.encode(writer);
        coding::put_flag(writer, self.suspect);
        writer.optional(self.flush_interval_ms, Writer::u64);
        coding::put_nodes(writer, &self.voters);
        coding::put_nodes(writer, &self.learners);
        for offset in [self.log_start, self.high_watermark, self.flushed, self.log_end] {
            writer.u64(offset.0);
        }
        let ReplicaIndexes { committed, flushed, appended } = self.indexes;
        for index in [committed, flushed, appended] {
            writer.u64(index.0);
        }
        writer.u32(self.last_term.0);
        writer.u32(self.epoch.0);
        writer.list(&self.peers, |writer, peer| peer.encode(writer));
        writer.optional(self.batch.as_ref(), |writer, batch| batch.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<InspectReplicaResponse, DecodeError> {
        reader.within("a replica's own description");
        let response = InspectReplicaResponse {
            term: Term(reader.u32()?),
            leader: reader.optional("a leader", coding::node)?,
            role: ReplicaRole::decode(reader)?,
            suspect: coding::flag(reader, "a suspect flag")?,
            flush_interval_ms: reader.optional("an interval", Reader::u64)?,
            voters: coding::nodes(reader)?,
            learners: coding::nodes(reader)?,
            log_start: coding::offset(reader)?,
            high_watermark: coding::offset(reader)?,
            flushed: coding::offset(reader)?,
            log_end: coding::offset(reader)?,
            indexes: ReplicaIndexes {
                committed: coding::log_index(reader)?,
                flushed: coding::log_index(reader)?,
                appended: coding::log_index(reader)?,
            },
            last_term: Term(reader.u32()?),
            epoch: RecoveryEpoch(reader.u32()?),
            peers: reader.list("replicas", 24, ReplicaStatus::decode)?,
            batch: reader.optional("a batch", HeldBatch::decode)?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl HeldBatch {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.base.0);
        writer.u64(self.end.0);
        writer.u64(self.end_index.0);
        writer.u32(self.term.0);
        writer.i64(self.timestamps.0.0);
        writer.i64(self.timestamps.1.0);
        writer.u32(self.checksum);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<HeldBatch, DecodeError> {
        Ok(HeldBatch {
            base: coding::offset(reader)?,
            end: coding::offset(reader)?,
            end_index: coding::log_index(reader)?,
            term: Term(reader.u32()?),
            timestamps: (Timestamp(reader.i64()?), Timestamp(reader.i64()?)),
            checksum: reader.u32()?,
        })
    }
}
