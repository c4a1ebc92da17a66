//! The records of a coordinator's log, and how they lie in bytes.
//!
//! A record is a type and a version, the fields of that version, and a section of tagged fields (none
//! today) that older builds skip. Each says how something is from then on, not how it changes; so
//! records that repeat what is known change nothing, and a log may be begun anew with all of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use highwater_protocol::ids::{Offset, PartitionId, Term, Timestamp, TopicId, TopicPartition};
use highwater_protocol::native::groups::{
    Assignor, Beat, GroupId, MemberEpoch, MemberId, MemberProfile, partitions, put_partitions,
};
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use uuid::Uuid;

/// Partitions in order.
pub type Partitions = BTreeSet<TopicPartition>;

/// How one thing of one group is from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// Which group.
    pub group: GroupId,
    /// What.
    pub change: GroupChange,
}

/// What is so from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupChange {
    /// A member has joined, or says something new of itself.
    Member {
        /// Which one.
        member: MemberId,
        /// With which of its requests it joined.
        joined: Beat,
        /// The member whose place it takes, because it bears the same instance's name.
        replaces: Option<MemberId>,
        /// What it is.
        profile: MemberProfile,
    },
    /// A member is none any more.
    MemberGone(MemberId),
    /// Who is to have what in the end.
    Target(Target),
    /// What a member has come to.
    Current {
        /// Which one.
        member: MemberId,
        /// What it has.
        current: Current,
    },
    /// The group has had no members since then.
    Emptied(Timestamp),
    /// How far the group has come in a partition.
    Offset {
        /// Which partition.
        partition: TopicPartition,
        /// How far.
        committed: Committed,
    },
    /// How far the group has come in a partition is forgotten.
    OffsetGone(TopicPartition),
    /// Nothing is left of the group.
    Gone,
}

/// A target assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its number.
    pub epoch: MemberEpoch,
    /// How it was made.
    pub assignor: Assignor,
    /// The topics that somebody reads, as they were then: name, id, number of partitions.
    pub topics: Vec<(String, TopicId, u32)>,
    /// For whom it is, sorted; all others get nothing.
    pub members: Vec<(MemberId, Partitions)>,
}

/// What a member has, and what it knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Current {
    /// Which target it has come to; 0 while it is away and only its place is kept.
    pub epoch: MemberEpoch,
    /// The one before, which it may still believe to be in.
    pub previous: MemberEpoch,
    /// What it may own.
    pub assigned: Partitions,
    /// What it was told to give up and may own still.
    pub revoking: Partitions,
}

/// What was committed for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The record that comes next.
    pub offset: Offset,
    /// The term of the last record that was read, if it was told.
    pub term: Option<Term>,
    /// What the program wants to find again.
    pub note: String,
    /// When, by the coordinator's clock.
    pub at: Timestamp,
}

/// Why bytes are no record that this build understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer build.
    #[error(
        "group record of type {kind} version {version} is not known to this build: a newer broker wrote it; start a \
         build that is at least as new"
    )]
    Unknown {
        /// Its type.
        kind: u16,
        /// Its version.
        version: u8,
    },
    /// Not as its type says.
    #[error("group record: {0}")]
    Malformed(#[from] DecodeError),
}

impl GroupRecord {
    /// The record as a record's value.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.u16(self.change.kind());
        out.u8(VERSION);
        out.text(&self.group.0);
        self.change.encode(&mut out);
        out.no_tagged_fields();
        out.finish()
    }

    /// Reads a record's value, whatever it is.
    pub fn decode(bytes: &[u8]) -> Result<GroupRecord, RecordError> {
        let mut input = Reader::new(bytes);
        input.within("group record");
        let (kind, version) = (input.u16()?, input.u8()?);
        if version != VERSION || !(KIND_MIN..=KIND_MAX).contains(&kind) {
            return Err(RecordError::Unknown { kind, version });
        }
        let group = GroupId(input.text("a group's name")?);
        let change = GroupChange::decode(kind, &mut input)?;
        input.tagged_fields()?;
        input.end()?;
        Ok(GroupRecord { group, change })
    }
}

impl GroupChange {
    fn kind(&self) -> u16 {
        match self {
            GroupChange::Member { .. } => 1,
            GroupChange::MemberGone(_) => 2,
            GroupChange::Target(_) => 3,
            GroupChange::Current { .. } => 4,
            GroupChange::Emptied(_) => 5,
            GroupChange::Offset { .. } => 6,
            GroupChange::OffsetGone(_) => 7,
            GroupChange::Gone => 8,
        }
    }

    fn encode(&self, out: &mut Writer) {
        match self {
            GroupChange::Member { member, joined, replaces, profile } => {
                out.u128(member.0.as_u128());
                out.uvarint(joined.0);
                out.optional(*replaces, |out, old| out.u128(old.0.as_u128()));
                profile.encode(out);
            }
            GroupChange::MemberGone(member) => out.u128(member.0.as_u128()),
            GroupChange::Target(target) => target.encode(out),
            GroupChange::Current { member, current } => {
                out.u128(member.0.as_u128());
                out.u32(current.epoch.0);
                out.u32(current.previous.0);
                put_partitions(out, &current.assigned);
                put_partitions(out, &current.revoking);
            }
            GroupChange::Emptied(since) => out.i64(since.0),
            GroupChange::Offset { partition, committed } => {
                put_partition(out, *partition);
                out.u64(committed.offset.0);
                out.optional(committed.term, |out, term| out.u32(term.0));
                out.text(&committed.note);
                out.i64(committed.at.0);
            }
            GroupChange::OffsetGone(partition) => put_partition(out, *partition),
            GroupChange::Gone => {}
        }
    }

    fn decode(kind: u16, input: &mut Reader<'_>) -> Result<GroupChange, DecodeError> {
        Ok(match kind {
            1 => GroupChange::Member {
                member: member(input)?,
                joined: Beat(input.uvarint()?),
                replaces: input.optional("a member", member)?,
                profile: MemberProfile::decode(input)?,
            },
            2 => GroupChange::MemberGone(member(input)?),
            3 => GroupChange::Target(Target::decode(input)?),
            4 => GroupChange::Current {
                member: member(input)?,
                current: Current {
                    epoch: MemberEpoch(input.u32()?),
                    previous: MemberEpoch(input.u32()?),
                    assigned: partitions(input)?.into_iter().collect(),
                    revoking: partitions(input)?.into_iter().collect(),
                },
            },
            5 => GroupChange::Emptied(Timestamp(input.i64()?)),
            6 => GroupChange::Offset {
                partition: partition(input)?,
                committed: Committed {
                    offset: Offset(input.u64()?),
                    term: input.optional("a term", Reader::u32)?.map(Term),
                    note: input.text("a note")?,
                    at: Timestamp(input.i64()?),
                },
            },
            7 => GroupChange::OffsetGone(partition(input)?),
            8 => GroupChange::Gone,
            found => {
                return Err(DecodeError::Invalid { what: "a record's type", found: found.into() });
            }
        })
    }
}

impl Target {
    fn encode(&self, out: &mut Writer) {
        out.u32(self.epoch.0);
        self.assignor.encode(out);
        out.list(&self.topics, |out, (name, id, partitions)| {
            out.text(name);
            out.u128(id.0.as_u128());
            out.u32(*partitions);
        });
        out.list(&self.members, |out, (member, partitions)| {
            out.u128(member.0.as_u128());
            put_partitions(out, partitions);
        });
    }

    fn decode(input: &mut Reader<'_>) -> Result<Target, DecodeError> {
        Ok(Target {
            epoch: MemberEpoch(input.u32()?),
            assignor: Assignor::decode(input)?,
            topics: input.list("topics", 21, |input| {
                let name = input.text("a topic's name")?;
                Ok((name, TopicId(Uuid::from_u128(input.u128()?)), input.u32()?))
            })?,
            members: input.list("members", 17, |input| {
                Ok((member(input)?, partitions(input)?.into_iter().collect()))
            })?,
        })
    }
}

fn member(input: &mut Reader<'_>) -> Result<MemberId, DecodeError> {
    input.u128().map(|number| MemberId(Uuid::from_u128(number)))
}

fn put_partition(out: &mut Writer, partition: TopicPartition) {
    out.u128(partition.topic.0.as_u128());
    out.u32(partition.partition.0);
}

fn partition(input: &mut Reader<'_>) -> Result<TopicPartition, DecodeError> {
    let topic = TopicId(Uuid::from_u128(input.u128()?));
    Ok(TopicPartition::new(topic, PartitionId(input.u32()?)))
}

const VERSION: u8 = 0;
const KIND_MIN: u16 = 1;
const KIND_MAX: u16 = 8;
