//! How far a group has come in each partition: committing, asking, forgetting.

use super::{Beat, GroupId, MemberEpoch, MemberId, partitions, put_partitions};
use crate::error::WireError;
use crate::ids::{Offset, Term, Timestamp, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// Notes how far a group has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffsetsRequest {
    /// The group.
    pub group: GroupId,
    /// Who says so.
    pub by: Committer,
    /// How far, partition by partition.
    pub offsets: Vec<OffsetToCommit>,
}

/// Who commits offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committer {
    /// A member, for partitions that it owns.
    Member {
        /// Which one.
        member: MemberId,
        /// The epoch that it was told last.
        epoch: MemberEpoch,
        /// More than in its last request of any kind.
        beat: Beat,
        /// The term of the coordinator that answered its last heartbeat.
        heard: Term,
    },
    /// Somebody else, while the group has no members.
    Outsider,
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// Which partition.
    pub partition: TopicPartition,
    /// The record that comes next.
    pub offset: Offset,
    /// The term of the last record that was read, if known.
    pub term: Option<Term>,
    /// Whatever the program wants to find again; `NOTE_BYTES_MAX` bytes at most.
    pub note: String,
}

/// What became of each, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOffsetsResponse {
    /// Committed, or why not.
    pub results: Vec<Result<(), WireError>>,
}

/// How far has a group come?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOffsetsRequest {
    /// The group.
    pub group: GroupId,
    /// Only in these; in all that it has committed for otherwise.
    pub partitions: Option<Vec<TopicPartition>>,
    /// For a member, the term of the coordinator that gave it these: an older one knows of less.
    pub heard: Option<Term>,
}

/// How far a group has come; partitions that it never committed for are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchOffsetsResponse {
    /// Partition by partition, sorted.
    pub offsets: Vec<CommittedOffset>,
}

/// What was committed last for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Which partition.
    pub partition: TopicPartition,
    /// The record that comes next.
    pub offset: Offset,
    /// The term of the last record that was read, if it was told.
    pub term: Option<Term>,
    /// What the program wanted to find again.
    pub note: String,
    /// When, by the coordinator's clock.
    pub committed_at: Timestamp,
}

/// Forgets how far a group has come in some partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteOffsetsRequest {
    /// The group.
    pub group: GroupId,
    /// Where, sorted.
    pub partitions: Vec<TopicPartition>,
}

/// They are forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteOffsetsResponse {
    /// In how many of them anything had been committed.
    pub deleted: u32,
}

impl Committer {
    fn encode(self, writer: &mut Writer) {
        match self {
            Committer::Outsider => writer.u8(0),
            Committer::Member { member, epoch, beat, heard } => {
                writer.u8(1);
                member.encode(writer);
                writer.u32(epoch.0);
                writer.uvarint(beat.0);
                writer.u32(heard.0);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Committer, DecodeError> {
        match reader.u8()? {
            0 => Ok(Committer::Outsider),
            1 => Ok(Committer::Member {
                member: MemberId::decode(reader)?,
                epoch: MemberEpoch(reader.u32()?),
                beat: Beat(reader.uvarint()?),
                heard: Term(reader.u32()?),
            }),
            found => Err(DecodeError::Invalid { what: "who commits", found: found.into() }),
        }
    }
}

impl OffsetToCommit {
    fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.u64(self.offset.0);
        coding::put_term(writer, self.term);
        writer.text(&self.note);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<OffsetToCommit, DecodeError> {
        Ok(OffsetToCommit {
            partition: coding::partition(reader)?,
            offset: coding::offset(reader)?,
            term: coding::term(reader)?,
            note: reader.text("a note")?,
        })
    }
}

impl CommitOffsetsRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.group.encode(writer);
        self.by.encode(writer);
        writer.list(&self.offsets, |writer, offset| offset.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<CommitOffsetsRequest, DecodeError> {
        coding::open_request(reader, "a commit of offsets")?;
        let group = GroupId::decode(reader)?;
        let by = Committer::decode(reader)?;
        let offsets = reader.list("offsets", 30, OffsetToCommit::decode)?;
        reader.tagged_fields()?;
        Ok(CommitOffsetsRequest { group, by, offsets })
    }
}

impl CommitOffsetsResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.results, |writer, result| coding::put_result(writer, result, |_, ()| {}));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<CommitOffsetsResponse, DecodeError> {
        reader.within("an answer to a commit");
        let results = reader.list("results", 2, |reader| coding::result(reader, |_| Ok(())))?;
        reader.tagged_fields()?;
        Ok(CommitOffsetsResponse { results })
    }
}

impl FetchOffsetsRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.group.encode(writer);
        writer.optional(self.partitions.as_ref(), put_partitions);
        coding::put_term(writer, self.heard);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<FetchOffsetsRequest, DecodeError> {
        coding::open_request(reader, "a question for offsets")?;
        let group = GroupId::decode(reader)?;
        let partitions = reader.optional("partitions", partitions)?;
        let heard = coding::term(reader)?;
        reader.tagged_fields()?;
        Ok(FetchOffsetsRequest { group, partitions, heard })
    }
}

impl FetchOffsetsResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.offsets, |writer, committed| {
            coding::put_partition(writer, committed.partition);
            writer.u64(committed.offset.0);
            coding::put_term(writer, committed.term);
            writer.text(&committed.note);
            writer.i64(committed.committed_at.0);
        });
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<FetchOffsetsResponse, DecodeError> {
        reader.within("committed offsets");
        let offsets = reader.list("offsets", 38, |reader| {
            Ok(CommittedOffset {
                partition: coding::partition(reader)?,
                offset: coding::offset(reader)?,
                term: coding::term(reader)?,
                note: reader.text("a note")?,
                committed_at: Timestamp(reader.i64()?),
            })
        })?;
        reader.tagged_fields()?;
        Ok(FetchOffsetsResponse { offsets })
    }
}

impl DeleteOffsetsRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.group.encode(writer);
        put_partitions(writer, &self.partitions);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DeleteOffsetsRequest, DecodeError> {
        coding::open_request(reader, "a wish to forget offsets")?;
        let group = GroupId::decode(reader)?;
        let partitions = partitions(reader)?;
        reader.tagged_fields()?;
        Ok(DeleteOffsetsRequest { group, partitions })
    }
}

impl DeleteOffsetsResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.deleted);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DeleteOffsetsResponse, DecodeError> {
        let deleted = reader.u32()?;
        reader.tagged_fields()?;
        Ok(DeleteOffsetsResponse { deleted })
    }
}
