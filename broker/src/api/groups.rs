//! Consumer groups: from a request to the coordinator that keeps the group.

use highwater_protocol::error::WireError;
use highwater_protocol::ids::{PartitionId, TopicId, TopicPartition};
use highwater_protocol::native::groups::{
    CommitOffsetsRequest, CommitOffsetsResponse, DeleteGroupRequest, DeleteGroupResponse,
    DeleteOffsetsRequest, DeleteOffsetsResponse, DescribeGroupRequest, FetchOffsetsRequest,
    FetchOffsetsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GROUPS_TOPIC,
    GroupDescription, GroupHeartbeatRequest, GroupHeartbeatResponse, GroupId, ListGroupsRequest,
    ListGroupsResponse,
};
use uuid::Uuid;

use super::admin::{COMMAND_MAX, not_the_answer};
use super::{Api, errors};
use crate::controller::{Command, CommandReply};
use crate::groups::{GroupAnswer, GroupRequest};

/// Asks the coordinator of the request's group, and takes the one answer that fits.
macro_rules! ask {
    ($api:expr, $request:expr, $kind:ident) => {{
        let partition = $api.keeps(&$request.group)?;
        match $api.node.ask_coordinator(partition, GroupRequest::$kind($request)).await? {
            GroupAnswer::$kind(answer) => Ok(answer),
            other => unreachable!("a coordinator answers what it was asked: {other:?}"),
        }
    }};
}

impl Api {
    /// Says which partition's leader keeps a group; the first such question makes the topic.
    pub async fn find_coordinator(
        &self,
        request: FindCoordinatorRequest,
    ) -> Result<FindCoordinatorResponse, WireError> {
        let group = request.group;
        group.check().map_err(errors::bad_group)?;
        if let Some(partition) = self.node.coordinator_of(&group) {
            return Ok(FindCoordinatorResponse { partition });
        }
        let id = TopicId(Uuid::new_v4());
        let reply = self.node.command(Command::CreateGroupsTopic { id }, COMMAND_MAX).await?;
        let CommandReply::TopicCreated(_) = reply else { return Err(not_the_answer(&reply)) };
        self.seen_here(|image| image.topic_named(GROUPS_TOPIC).is_some()).await;
        self.node
            .coordinator_of(&group)
            .map(|partition| FindCoordinatorResponse { partition })
            .ok_or_else(|| errors::starting(self.node.options().me))
    }

    /// A member joins, stays, or leaves.
    pub async fn group_heartbeat(
        &self,
        request: GroupHeartbeatRequest,
    ) -> Result<GroupHeartbeatResponse, WireError> {
        ask!(self, request, Heartbeat)
    }

    /// Notes how far a group has come.
    pub async fn commit_offsets(
        &self,
        request: CommitOffsetsRequest,
    ) -> Result<CommitOffsetsResponse, WireError> {
        ask!(self, request, CommitOffsets)
    }

    /// How far a group has come.
    pub async fn fetch_offsets(
        &self,
        request: FetchOffsetsRequest,
    ) -> Result<FetchOffsetsResponse, WireError> {
        ask!(self, request, FetchOffsets)
    }

    /// Forgets how far a group has come in some partitions.
    pub async fn delete_offsets(
        &self,
        request: DeleteOffsetsRequest,
    ) -> Result<DeleteOffsetsResponse, WireError> {
        ask!(self, request, DeleteOffsets)
    }

    /// How a group is.
    pub async fn describe_group(
        &self,
        request: DescribeGroupRequest,
    ) -> Result<GroupDescription, WireError> {
        ask!(self, request, Describe)
    }

    /// Deletes a group without members.
    pub async fn delete_group(
        &self,
        request: DeleteGroupRequest,
    ) -> Result<DeleteGroupResponse, WireError> {
        ask!(self, request, Delete)
    }

    /// The groups that this broker keeps.
    pub async fn list_groups(
        &self,
        request: ListGroupsRequest,
    ) -> Result<ListGroupsResponse, WireError> {
        let ListGroupsRequest {} = request;
        let image = self.node.image();
        let mut groups = Vec::new();
        let Some(topic) = image.topic_named(GROUPS_TOPIC) else {
            return Ok(ListGroupsResponse { groups });
        };
        for number in 0..topic.partitions.len() as u32 {
            let partition = TopicPartition::new(topic.id, PartitionId(number));
            if self.led_here(partition, None).is_err() {
                continue;
            }
            match self.node.ask_coordinator(partition, GroupRequest::List).await? {
                GroupAnswer::List(kept) => groups.extend(kept.groups),
                other => unreachable!("a coordinator answers what it was asked: {other:?}"),
            }
        }
        groups.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(ListGroupsResponse { groups })
    }

    /// The partition that keeps a group, if this broker leads it.
    fn keeps(&self, group: &GroupId) -> Result<TopicPartition, WireError> {
        group.check().map_err(errors::bad_group)?;
        let partition = self.node.coordinator_of(group).ok_or_else(|| errors::no_groups(group))?;
        self.led_here(partition, None)?;
        Ok(partition)
    }
}
