//! Consumer groups: who reads what, and how far they have come.
//!
//! The rules are those of KIP-848: the coordinator keeps the members and decides who gets which
//! partitions; a member tells it at every heartbeat what it owns, is told what it may own, and gives up
//! what it may not before anybody else gets it. The coordinator of a group is the leader of one
//! partition of the topic `__groups`, which any broker names (`FindCoordinator`).

mod describe;
mod heartbeat;
mod offsets;

use std::fmt;

use uuid::Uuid;

use crate::ids::{PartitionId, TopicId, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

pub use describe::{
    DeleteGroupRequest, DeleteGroupResponse, DescribeGroupRequest, GroupDescription, GroupListing,
    GroupState, ListGroupsRequest, ListGroupsResponse, MemberDescription,
};
pub use heartbeat::{
    Assignor, GroupHeartbeatRequest, GroupHeartbeatResponse, Heard, MemberProfile, MemberStep,
    Returns,
};
pub use offsets::{
    CommitOffsetsRequest, CommitOffsetsResponse, CommittedOffset, Committer, DeleteOffsetsRequest,
    DeleteOffsetsResponse, FetchOffsetsRequest, FetchOffsetsResponse, OffsetToCommit,
};

/// A consumer group's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub String);

/// A member of a group for one life of the program, chosen by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub Uuid);

/// Which target assignment a member has come to; 0 before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MemberEpoch(pub u32);

/// Counts a member's requests, so that one that was held up on its way is told from its successors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Beat(pub u64);

impl GroupId {
    /// Checks a name that somebody wants to give; the error says what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let name = &self.0;
        if name.is_empty() {
            return Err("a group needs a name".to_string());
        }
        if name.len() > GROUP_ID_BYTES_MAX {
            let bytes = name.len();
            return Err(format!(
                "a group's name of {bytes} bytes is too long: {GROUP_ID_BYTES_MAX} are allowed"
            ));
        }
        match name.chars().find(|letter| letter.is_control()) {
            None => Ok(()),
            Some(found) => Err(format!(
                "`{}` cannot name a group because of `{}`: control characters are not allowed",
                name.escape_debug(),
                found.escape_debug()
            )),
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        writer.text(&self.0);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<GroupId, DecodeError> {
        reader.text("a group's name").map(GroupId)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MemberEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl MemberId {
    pub(crate) fn encode(self, writer: &mut Writer) {
        writer.u128(self.0.as_u128());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<MemberId, DecodeError> {
        reader.u128().map(|number| MemberId(Uuid::from_u128(number)))
    }
}

/// Writes partitions, which must be sorted: each topic once, with the numbers of its partitions.
pub fn put_partitions<'a>(
    writer: &mut Writer,
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) {
    let mut topics: Vec<(TopicId, Vec<PartitionId>)> = Vec::new();
    for TopicPartition { topic, partition } in partitions {
        match topics.last_mut() {
            Some((last, numbers)) if last == topic => numbers.push(*partition),
            Some(_) | None => topics.push((*topic, vec![*partition])),
        }
    }
    writer.list(&topics, |writer, (topic, numbers)| {
        writer.u128(topic.0.as_u128());
        writer.list(numbers, |writer, number| writer.uvarint(number.0.into()));
    });
}

/// Reads what `put_partitions` wrote.
pub fn partitions(reader: &mut Reader<'_>) -> Result<Vec<TopicPartition>, DecodeError> {
    let mut all = Vec::new();
    for _ in 0..reader.count("topics", 17)? {
        let topic = coding::topic_id(reader)?;
        for _ in 0..reader.count("partitions", 1)? {
            let found = reader.uvarint()?;
            let number = u32::try_from(found)
                .map_err(|_| DecodeError::Invalid { what: "a partition's number", found })?;
            all.push(TopicPartition::new(topic, PartitionId(number)));
        }
    }
    Ok(all)
}

/// Which of so many partitions of `__groups` keeps a group.
pub fn coordinator_partition(group: &GroupId, partitions: u32) -> PartitionId {
    assert!(partitions > 0, "the topic of the groups has partitions");
    // FNV-1a of 64 bits; each half would do, and both together spread short names better.
    let hash = group.0.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    PartitionId(((hash ^ (hash >> 32)) as u32) % partitions)
}

/// The topic that keeps the groups.
pub const GROUPS_TOPIC: &str = "__groups";
/// How many bytes a group's name may have, as a topic's.
pub const GROUP_ID_BYTES_MAX: usize = 249;
/// How many bytes the note beside a committed offset may have, as in Kafka.
pub const NOTE_BYTES_MAX: usize = 4096;

/// Which broker keeps a group?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindCoordinatorRequest {
    /// The group.
    pub group: GroupId,
}

/// The leader of this partition keeps the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FindCoordinatorResponse {
    /// A partition of `__groups`.
    pub partition: TopicPartition,
}

impl FindCoordinatorRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.group.encode(writer);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<FindCoordinatorRequest, DecodeError> {
        coding::open_request(reader, "a question for a coordinator")?;
        let group = GroupId::decode(reader)?;
        reader.tagged_fields()?;
        Ok(FindCoordinatorRequest { group })
    }
}

impl FindCoordinatorResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<FindCoordinatorResponse, DecodeError> {
        let partition = coding::partition(reader)?;
        reader.tagged_fields()?;
        Ok(FindCoordinatorResponse { partition })
    }
}
