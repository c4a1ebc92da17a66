//! Admin: the hash of what one replica holds between two indexes, so that whoever asks all replicas of a
//! partition for the same range sees whether they hold the same.
//!
//! A range is hashed in steps. Each goes on from the hash of the one before, so that the last hash stands
//! for the whole range, however it was cut into steps.

use crate::ids::{LogIndex, Offset, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// A question for the answering broker's own replica, whether it leads or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestReplicaRequest {
    /// Which partition.
    pub partition: TopicPartition,
    /// What to hash; without it only the bounds are asked for.
    pub range: Option<DigestRange>,
}

/// What to hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestRange {
    /// Behind which index to begin.
    pub from: LogIndex,
    /// Up to which index, at most; never beyond what the replica knows to be committed.
    pub until: LogIndex,
    /// The hash of what came before.
    pub seed: u128,
    /// About how much to read at once; one frame at least.
    pub bytes_max: u32,
}

/// What a replica holds, and the hash of some of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestReplicaResponse {
    /// Where its log starts, at this moment at least.
    pub start: LogIndex,
    /// The oldest readable offset.
    pub log_start: Offset,
    /// The end of what it knows to be committed.
    pub committed: LogIndex,
    /// The same as an offset.
    pub high_watermark: Offset,
    /// What was asked for.
    pub digest: Option<Digest>,
}

/// The hash of some frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Behind the last frame that was hashed: where to go on.
    pub end: LogIndex,
    /// The offsets of the records in them, the end exclusive.
    pub offsets: (Offset, Offset),
    /// How many bytes they are.
    pub bytes: u64,
    /// Their hash, and that of all before.
    pub hash: u128,
    /// What ended it early: a batch that is not what the index names.
    pub unreadable: Option<Unreadable>,
}

/// Records that a replica has and cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Their offsets, the end exclusive.
    pub offsets: (Offset, Offset),
    /// The file that holds them.
    pub file: String,
}

impl DigestReplicaRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.optional(self.range, |writer, range| {
            writer.u64(range.from.0);
            writer.u64(range.until.0);
            writer.u128(range.seed);
            writer.u32(range.bytes_max);
        });
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DigestReplicaRequest, DecodeError> {
        coding::open_request(reader, "a question for a replica's hash")?;
        let partition = coding::partition(reader)?;
        let range = reader.optional("a range", |reader| {
            Ok(DigestRange {
                from: coding::log_index(reader)?,
                until: coding::log_index(reader)?,
                seed: reader.u128()?,
                bytes_max: reader.u32()?,
            })
        })?;
        reader.tagged_fields()?;
        Ok(DigestReplicaRequest { partition, range })
    }
}

impl DigestReplicaResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.start.0);
        writer.u64(self.log_start.0);
        writer.u64(self.committed.0);
        writer.u64(self.high_watermark.0);
        writer.optional(self.digest.as_ref(), |writer, digest| digest.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DigestReplicaResponse, DecodeError> {
        reader.within("a replica's hash");
        let response = DigestReplicaResponse {
            start: coding::log_index(reader)?,
            log_start: coding::offset(reader)?,
            committed: coding::log_index(reader)?,
            high_watermark: coding::offset(reader)?,
            digest: reader.optional("a hash", Digest::decode)?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl Digest {
    fn encode(&self, writer: &mut Writer) {
        writer.u64(self.end.0);
        put_offsets(writer, self.offsets);
        writer.u64(self.bytes);
        writer.u128(self.hash);
        writer.optional(self.unreadable.as_ref(), |writer, unreadable| {
            put_offsets(writer, unreadable.offsets);
            writer.text(&unreadable.file);
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Digest, DecodeError> {
        Ok(Digest {
            end: coding::log_index(reader)?,
            offsets: offsets(reader)?,
            bytes: reader.u64()?,
            hash: reader.u128()?,
            unreadable: reader.optional("what cannot be read", |reader| {
                Ok(Unreadable { offsets: offsets(reader)?, file: reader.text("a file's name")? })
            })?,
        })
    }
}

fn put_offsets(writer: &mut Writer, (from, until): (Offset, Offset)) {
    writer.u64(from.0);
    writer.u64(until.0);
}

fn offsets(reader: &mut Reader<'_>) -> Result<(Offset, Offset), DecodeError> {
    Ok((coding::offset(reader)?, coding::offset(reader)?))
}
