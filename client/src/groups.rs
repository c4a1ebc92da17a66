//! Looking at consumer groups from outside, and changing how far they have come.

use futures_util::{StreamExt, TryStreamExt, stream};
use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::groups::{
    CommitOffsetsRequest, CommittedOffset, Committer, DeleteGroupRequest, DeleteOffsetsRequest,
    DescribeGroupRequest, FetchOffsetsRequest, GroupDescription, GroupId, GroupListing,
    ListGroupsRequest, OffsetToCommit,
};

use crate::admin::Admin;
use crate::connection::Call;
use crate::consumer::Coordinator;
use crate::error::Error;

impl Admin {
    /// All groups of the cluster, by name.
    ///
    /// # Errors
    /// If a broker that is taken for alive cannot be asked: a list without its groups would look whole. Groups that move
    /// from one broker to another at that moment, as after a crash, may be missing still.
    pub async fn groups(&self) -> Result<Vec<GroupListing>, Error> {
        let brokers = self.cluster().await?.brokers;
        let alive = brokers.into_iter().filter(|broker| !broker.fenced).map(|broker| broker.node);
        let ask = |node: NodeId| async move { self.on(node, &ListGroupsRequest {}).await };
        let lists: Vec<_> =
            stream::iter(alive).map(ask).buffer_unordered(BROKERS_AT_ONCE).try_collect().await?;
        let mut groups: Vec<GroupListing> =
            lists.into_iter().flat_map(|list| list.groups).collect();
        groups.sort_by(|one, other| one.group.cmp(&other.group));
        Ok(groups)
    }

    /// How a group is: its members, and what each has.
    ///
    /// # Errors
    /// `Refused(GroupNotFound)` where it has neither members nor offsets.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        let group = GroupId(group.to_owned());
        self.in_group(&DescribeGroupRequest { group: group.clone() }, &group).await
    }

    /// How far a group has come, in all partitions that it ever committed for.
    pub async fn group_offsets(&self, group: &str) -> Result<Vec<CommittedOffset>, Error> {
        let group = GroupId(group.to_owned());
        let request = FetchOffsetsRequest { group: group.clone(), partitions: None, heard: None };
        Ok(self.in_group(&request, &group).await?.offsets)
    }

    /// Sets how far a group without members has come.
    ///
    /// # Errors
    /// `Refused(GroupNotEmpty)` while it has members; otherwise the first partition that was refused. Those before
    /// it are set.
    pub async fn set_group_offsets(
        &self,
        group: &str,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<(), Error> {
        let group = GroupId(group.to_owned());
        let request =
            CommitOffsetsRequest { group: group.clone(), by: Committer::Outsider, offsets };
        let answer = self.in_group(&request, &group).await?;
        let refused = answer.results.into_iter().find_map(Result::err);
        refused.map_or(Ok(()), |why| Err(Error::refused(&request.act(), &why)))
    }

    /// Forgets how far a group has come in some partitions, and says in how many of them it had committed anything.
    ///
    /// # Errors
    /// `Refused(GroupNotEmpty)` where members read the topic.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        mut partitions: Vec<TopicPartition>,
    ) -> Result<u32, Error> {
        partitions.sort_unstable();
        let group = GroupId(group.to_owned());
        let request = DeleteOffsetsRequest { group: group.clone(), partitions };
        Ok(self.in_group(&request, &group).await?.deleted)
    }

    /// Deletes a group without members; says for how many partitions it had offsets.
    ///
    /// # Errors
    /// `Refused(GroupNotEmpty)` while it has members, `Refused(GroupNotFound)` where there is none.
    pub async fn delete_group(&self, group: &str) -> Result<u32, Error> {
        let group = GroupId(group.to_owned());
        Ok(self.in_group(&DeleteGroupRequest { group: group.clone() }, &group).await?.offsets)
    }

    async fn in_group<C: Call>(&self, request: &C, group: &GroupId) -> Result<C::Response, Error> {
        Coordinator::find(self.core().clone(), group).await?.ask(request).await
    }
}

const BROKERS_AT_ONCE: usize = 16;
