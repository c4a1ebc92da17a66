//! Admin: what one replica cannot read, and giving it up.
//!
//! A replica that is not the only one of its partition gives nothing up.

use std::ops::Range;

use crate::ids::{NodeId, Offset, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// A question for the answering broker's own replica, or a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReplicaRequest {
    /// Which partition.
    pub partition: TopicPartition,
    /// Offsets that are given up where they cannot be read; without any, this only asks.
    pub give_up: Vec<Range<Offset>>,
    /// A question asks for what lies from here on.
    pub start: Offset,
}

/// What a replica cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReplicaResponse {
    /// In the order of the log; a thousand at most.
    pub unreadable: Vec<UnreadableRange>,
    /// For how long there has been something in this life of the broker.
    pub since_ms: Option<u64>,
    /// The other replicas, which are asked for it.
    pub others: Vec<NodeId>,
    /// How many records this request has given up.
    pub given_up: u64,
    /// Where there is more: what to ask for next.
    pub next: Option<Offset>,
}

/// Batches that lie one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableRange {
    /// The offset of the first record.
    pub from: Offset,
    /// The offset behind the last one.
    pub until: Offset,
    /// How many batches they are.
    pub batches: u32,
    /// Where they should be.
    pub file: String,
}

impl RepairReplicaRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.list(&self.give_up, |writer, range| {
            writer.u64(range.start.0);
            writer.u64(range.end.0);
        });
        coding::put_offset_tagged(
            writer,
            TAG_START,
            Some(self.start).filter(|start| *start > Offset::ZERO),
        );
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<RepairReplicaRequest, DecodeError> {
        coding::open_request(reader, "a repair")?;
        let partition = coding::partition(reader)?;
        let give_up = reader
            .list("offsets", 16, |reader| Ok(coding::offset(reader)?..coding::offset(reader)?))?;
        let start = coding::offset_tagged(reader, TAG_START)?.unwrap_or_default();
        Ok(RepairReplicaRequest { partition, give_up, start })
    }
}

impl RepairReplicaResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.unreadable, |writer, range| {
            writer.u64(range.from.0);
            writer.u64(range.until.0);
            writer.u32(range.batches);
            writer.text(&range.file);
        });
        writer.optional(self.since_ms, Writer::u64);
        coding::put_nodes(writer, &self.others);
        writer.u64(self.given_up);
        coding::put_offset_tagged(writer, TAG_NEXT, self.next);
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<RepairReplicaResponse, DecodeError> {
        reader.within("what a replica cannot read");
        let unreadable = reader.list("ranges", 21, |reader| {
            Ok(UnreadableRange {
                from: coding::offset(reader)?,
                until: coding::offset(reader)?,
                batches: reader.u32()?,
                file: reader.text("a file")?,
            })
        })?;
        let since_ms = reader.optional("a time", Reader::u64)?;
        let others = coding::nodes(reader)?;
        let given_up = reader.u64()?;
        let next = coding::offset_tagged(reader, TAG_NEXT)?;
        Ok(RepairReplicaResponse { unreadable, since_ms, others, given_up, next })
    }
}

/// The tagged field of a request that does not ask from the begin.
const TAG_START: u64 = 0;
/// The tagged field of an answer that is not the whole one.
const TAG_NEXT: u64 = 0;
