//! Looking at groups, and deleting them.

use super::{Assignor, GroupId, MemberEpoch, MemberId, partitions, put_partitions};
use crate::ids::{Timestamp, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// Which groups does this broker keep?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListGroupsRequest {}

/// The groups that one broker keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListGroupsResponse {
    /// By name.
    pub groups: Vec<GroupListing>,
}

/// A group at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Its name.
    pub group: GroupId,
    /// How it is.
    pub state: GroupState,
    /// How many members it has.
    pub members: u32,
    /// In how many partitions it has committed offsets.
    pub offsets: u32,
}

/// How a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    /// It has no members, only offsets.
    Empty,
    /// Partitions are on their way from some members to others.
    Reconciling,
    /// Every member owns what it should.
    Stable,
}

/// How is a group?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeGroupRequest {
    /// The group.
    pub group: GroupId,
}

/// A group as its coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// How it is.
    pub state: GroupState,
    /// The number of its newest target assignment.
    pub epoch: MemberEpoch,
    /// How partitions are given out.
    pub assignor: Assignor,
    /// Since when it has no members.
    pub empty_since: Option<Timestamp>,
    /// Its members, sorted.
    pub members: Vec<MemberDescription>,
}

/// A member as the coordinator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    /// Its id.
    pub member: MemberId,
    /// What the program calls itself.
    pub client_id: String,
    /// A name that stays the same when the program is started again.
    pub instance: Option<String>,
    /// Its failure domain.
    pub rack: Option<String>,
    /// The topics that it reads.
    pub topics: Vec<String>,
    /// Which target assignment it has come to.
    pub epoch: MemberEpoch,
    /// How long ago it was heard, or the coordinator began; in milliseconds.
    pub heard_ms: u64,
    /// What it owns or may own.
    pub assigned: Vec<TopicPartition>,
    /// What it was told to give up and has not yet.
    pub revoking: Vec<TopicPartition>,
    /// What it is to own in the end.
    pub target: Vec<TopicPartition>,
}

/// Deletes a group without members, with all its offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteGroupRequest {
    /// The group.
    pub group: GroupId,
}

/// It is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteGroupResponse {
    /// For how many partitions it had committed offsets.
    pub offsets: u32,
}

impl GroupState {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "empty",
            GroupState::Reconciling => "reconciling",
            GroupState::Stable => "stable",
        }
    }

    fn encode(self, writer: &mut Writer) {
        writer.u8(match self {
            GroupState::Empty => 0,
            GroupState::Reconciling => 1,
            GroupState::Stable => 2,
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<GroupState, DecodeError> {
        match reader.u8()? {
            0 => Ok(GroupState::Empty),
            1 => Ok(GroupState::Reconciling),
            2 => Ok(GroupState::Stable),
            found => Err(DecodeError::Invalid { what: "a group's state", found: found.into() }),
        }
    }
}

impl ListGroupsRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListGroupsRequest, DecodeError> {
        coding::open_request(reader, "a question for groups")?;
        reader.tagged_fields()?;
        Ok(ListGroupsRequest {})
    }
}

impl ListGroupsResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.groups, |writer, listing| {
            listing.group.encode(writer);
            listing.state.encode(writer);
            writer.u32(listing.members);
            writer.u32(listing.offsets);
        });
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListGroupsResponse, DecodeError> {
        reader.within("groups");
        let groups = reader.list("groups", 10, |reader| {
            Ok(GroupListing {
                group: GroupId::decode(reader)?,
                state: GroupState::decode(reader)?,
                members: reader.u32()?,
                offsets: reader.u32()?,
            })
        })?;
        reader.tagged_fields()?;
        Ok(ListGroupsResponse { groups })
    }
}

impl DescribeGroupRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.group.encode(writer);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DescribeGroupRequest, DecodeError> {
        coding::open_request(reader, "a question for a group")?;
        let group = GroupId::decode(reader)?;
        reader.tagged_fields()?;
        Ok(DescribeGroupRequest { group })
    }
}

impl GroupDescription {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.state.encode(writer);
        writer.u32(self.epoch.0);
        self.assignor.encode(writer);
        writer.optional(self.empty_since, |writer, since| writer.i64(since.0));
        writer.list(&self.members, |writer, member| member.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<GroupDescription, DecodeError> {
        reader.within("a group");
        let description = GroupDescription {
            state: GroupState::decode(reader)?,
            epoch: MemberEpoch(reader.u32()?),
            assignor: Assignor::decode(reader)?,
            empty_since: reader.optional("a time", Reader::i64)?.map(Timestamp),
            members: reader.list("members", 35, MemberDescription::decode)?,
        };
        reader.tagged_fields()?;
        Ok(description)
    }
}

impl MemberDescription {
    fn encode(&self, writer: &mut Writer) {
        self.member.encode(writer);
        writer.text(&self.client_id);
        writer.optional(self.instance.as_deref(), Writer::text);
        writer.optional(self.rack.as_deref(), Writer::text);
        writer.list(&self.topics, |writer, topic| writer.text(topic));
        writer.u32(self.epoch.0);
        writer.u64(self.heard_ms);
        put_partitions(writer, &self.assigned);
        put_partitions(writer, &self.revoking);
        put_partitions(writer, &self.target);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<MemberDescription, DecodeError> {
        Ok(MemberDescription {
            member: MemberId::decode(reader)?,
            client_id: reader.text("a client's name")?,
            instance: reader.optional("an instance's name", |it| it.text("an instance's name"))?,
            rack: reader.optional("a rack", |it| it.text("a rack"))?,
            topics: reader.list("topics", 1, |reader| reader.text("a topic's name"))?,
            epoch: MemberEpoch(reader.u32()?),
            heard_ms: reader.u64()?,
            assigned: partitions(reader)?,
            revoking: partitions(reader)?,
            target: partitions(reader)?,
        })
    }
}

impl DeleteGroupRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.group.encode(writer);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DeleteGroupRequest, DecodeError> {
        coding::open_request(reader, "a wish to delete a group")?;
        let group = GroupId::decode(reader)?;
        reader.tagged_fields()?;
        Ok(DeleteGroupRequest { group })
    }
}

impl DeleteGroupResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.offsets);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DeleteGroupResponse, DecodeError> {
        let offsets = reader.u32()?;
        reader.tagged_fields()?;
        Ok(DeleteGroupResponse { offsets })
    }
}
