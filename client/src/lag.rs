//! How far consumer groups are behind.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};
use highwater_protocol::ids::{Offset, PartitionId, TopicId, TopicPartition};
use highwater_protocol::native::fetch::OffsetAt;
use highwater_protocol::native::groups::GroupDescription;

use crate::admin::Admin;
use crate::error::Error;
use crate::record::TopicName;

/// How far a group is behind in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition's topic.
    pub topic: TopicName,
    /// Its number.
    pub partition: PartitionId,
    /// What comes next to the group; `None` where it has committed nothing.
    pub committed: Option<Offset>,
    /// The oldest record that is still there.
    pub start: Offset,
    /// What comes after the last committed record.
    pub end: Offset,
    /// The member that owns it: the name of its instance, or else its id.
    pub owner: Option<String>,
}

impl PartitionLag {
    /// What the group handles next. What was never committed counts from the oldest record.
    pub fn next(&self) -> Offset {
        self.committed.map_or(self.start, |committed| committed.max(self.start))
    }

    /// How many records the group has not handled yet.
    pub fn records(&self) -> u64 {
        self.end.0.saturating_sub(self.next().0)
    }
}

impl Admin {
    /// How far a group is behind, in all partitions that it has committed for or has members for, by topic and number.
    ///
    /// ```no_run
    /// # use highwater_client::{Client, Error};
    /// # async fn run(client: Client) -> Result<(), Error> {
    /// let lag = client.admin().group_lag("billing").await?;
    /// println!("{} records behind", lag.iter().map(|it| it.records()).sum::<u64>());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Refused(GroupNotFound)` where the group has neither members nor offsets; and where a partition has no leader
    /// that says in time where it ends.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn group_lag(&self, group: &str) -> Result<Vec<PartitionLag>, Error> {
        let described = self.describe_group(group).await?;
        let mut wanted: BTreeMap<TopicPartition, Option<Offset>> = BTreeMap::new();
        for committed in self.group_offsets(group).await? {
            wanted.insert(committed.partition, Some(committed.offset));
        }
        for at in described.members.iter().flat_map(|member| &member.target) {
            wanted.entry(*at).or_insert(None);
        }
        let topics = self.topics().await?;
        let named = topics.iter().filter_map(|it| Some((it.result.as_ref().ok()?.id, &*it.name)));
        let names: BTreeMap<TopicId, &str> = named.collect();
        // Topics that are gone are forgotten by the group in a moment.
        let known = wanted
            .into_iter()
            .filter_map(|(at, committed)| names.get(&at.topic).map(|name| (at, *name, committed)));
        let look = |(at, name, committed): (TopicPartition, &str, Option<Offset>)| {
            let (owner, topic) = (owner(&described, at), TopicName::from(name));
            let partition = at.partition;
            async move {
                let found = |place| self.list_offsets(topic.as_str(), partition, place);
                let (start, end) =
                    (found(OffsetAt::Start).await?.offset, found(OffsetAt::End).await?.offset);
                Ok(PartitionLag { topic: topic.clone(), partition, committed, start, end, owner })
            }
        };
        let mut lag: Vec<PartitionLag> =
            stream::iter(known).map(look).buffer_unordered(AT_ONCE).try_collect().await?;
        lag.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        Ok(lag)
    }
}

fn owner(described: &GroupDescription, at: TopicPartition) -> Option<String> {
    let owns = described.members.iter().find(|member| member.assigned.contains(&at))?;
    Some(owns.instance.clone().unwrap_or_else(|| owns.member.to_string()))
}

const AT_ONCE: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(committed: Option<u64>, start: u64, end: u64, expected: u64) {
        let (topic, partition) = ("t".into(), PartitionId(0));
        let (committed, start, end) = (committed.map(Offset), Offset(start), Offset(end));
        let lag = PartitionLag { topic, partition, committed, start, end, owner: None };
        assert_eq!(lag.records(), expected, "{lag:?}");
    }

    #[test]
    fn what_is_gone_or_was_never_there_is_no_lag() {
        check(Some(7), 0, 10, 3);
        check(None, 4, 10, 6);
        check(Some(2), 4, 10, 6);
        check(Some(12), 0, 10, 0);
    }
}
