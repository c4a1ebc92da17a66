//! Changing topics that are in use.

use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::alter::{
    AlterTopicRequest, AlterTopicResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    TransferLeaderRequest,
};

use highwater_protocol::ids::{NodeId, PartitionId};

use crate::admin::Admin;
use crate::connection::HandedOver;
use crate::error::Error;

/// New values for settings of a topic: all of them take effect, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicChange {
    /// The topic's name.
    pub name: String,
    /// Settings to set, by name.
    pub set: Vec<(String, String)>,
    /// Settings that go back to their defaults.
    pub unset: Vec<String>,
    /// Whether to check only.
    pub dry_run: DryRun,
}

impl TopicChange {
    /// A change of nothing yet.
    pub fn new(name: impl Into<String>) -> TopicChange {
        TopicChange { name: name.into(), set: Vec::new(), unset: Vec::new(), dry_run: DryRun::No }
    }

    /// Sets a setting, for example `retention.ms`.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> TopicChange {
        self.set.push((name.into(), value.into()));
        self
    }

    /// Takes a setting back to its default.
    pub fn unset(mut self, name: impl Into<String>) -> TopicChange {
        self.unset.push(name.into());
        self
    }

    /// Checks everything and changes nothing.
    pub fn dry_run(mut self) -> TopicChange {
        self.dry_run = DryRun::Yes;
        self
    }
}

impl Admin {
    /// Changes settings of a topic in use, or only checks that they could be changed; says what
    /// differs afterwards.
    ///
    /// # Errors
    /// `Refused` with `InvalidConfig` and all mistakes; `UnknownTopic`; otherwise with outcome
    /// unknown where the answer was lost.
    pub async fn alter_topic(&self, change: TopicChange) -> Result<AlterTopicResponse, Error> {
        let TopicChange { name, set, unset, dry_run } = change;
        self.change(&AlterTopicRequest { name, set, unset, dry_run }).await
    }

    /// Adds partitions until the topic has `partitions` in all, or only checks that it could be
    /// done. Keys go to other partitions than before from then on: producers and readers that
    /// run learn of the new ones with their next metadata (`metadata_age_max`).
    ///
    /// # Errors
    /// `Refused` with `InvalidPartitions` where the topic has more, or `InvalidReplicationFactor`
    /// where too few brokers are alive; `UnknownTopic`; otherwise with outcome unknown where the
    /// answer was lost.
    pub async fn create_partitions(
        &self,
        topic: &str,
        partitions: u32,
        dry_run: DryRun,
    ) -> Result<CreatePartitionsResponse, Error> {
        let name = topic.to_owned();
        self.change(&CreatePartitionsRequest { name, partitions, dry_run }).await
    }

    /// Hands the leadership of a partition to `to`, or to the replica that is furthest on. Later the
    /// preferred replica may get it back by itself.
    ///
    /// # Errors
    /// `Refused` with `UnknownBroker`, or `Conflict` where `to` has no replica in sync; `UnknownTopic`;
    /// `TimedOut`, and then it may still happen.
    pub async fn transfer_leader(
        &self,
        topic: &str,
        partition: PartitionId,
        to: Option<NodeId>,
    ) -> Result<(), Error> {
        let partition = self.partition(topic, partition).await?;
        let request = TransferLeaderRequest { partition, to };
        self.core.on_leader(partition, &request).await.map(|HandedOver| ())
    }
}
