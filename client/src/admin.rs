//! Topics, partitions and brokers: looking at them and changing them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset, PartitionId, TopicId, TopicPartition};
use highwater_protocol::native::admin::{
    CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest, DescribePartitionRequest,
    DescribePartitionResponse, DryRun, TrimPartitionRequest,
};
use highwater_protocol::native::fetch::{ListOffsetsRequest, ListOffsetsResponse, OffsetAt};
use highwater_protocol::native::metadata::{
    BrokerInfo, MetadataRequest, MetadataResponse, TopicDetail, TopicInfo,
};

use crate::client::{Core, UNKNOWN_TOPIC_PATIENCE};
use crate::connection::{Call, Deleted};
use crate::error::{Error, ErrorKind, Outcome};
use crate::record::TopicName;
use crate::retry::{self, Backoff};

/// Administers a cluster; clones share the client's connections.
#[derive(Clone)]
pub struct Admin {
    pub(crate) core: Arc<Core>,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas of each; `None` for the cluster's default.
    pub replication: Option<u8>,
    /// Settings by name.
    pub configs: Vec<(String, String)>,
    /// Whether to check only.
    pub dry_run: DryRun,
}

/// The cluster as the answering broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker that answered.
    pub node: NodeId,
    /// The controller's leader, if one is known.
    pub controller: Option<NodeId>,
    /// Every registered broker.
    pub brokers: Vec<BrokerInfo>,
}

impl NewTopic {
    /// A topic with the cluster's default replication and settings.
    pub fn new(name: impl Into<String>, partitions: u32) -> NewTopic {
        NewTopic {
            name: name.into(),
            partitions,
            replication: None,
            configs: Vec::new(),
            dry_run: DryRun::No,
        }
    }

    /// Sets how many replicas each partition has.
    pub fn replication(mut self, replicas: u8) -> NewTopic {
        self.replication = Some(replicas);
        self
    }

    /// Adds a setting, for example `min.insync.replicas`.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> NewTopic {
        self.configs.push((name.into(), value.into()));
        self
    }

    /// Checks everything and changes nothing.
    pub fn dry_run(mut self) -> NewTopic {
        self.dry_run = DryRun::Yes;
        self
    }
}

/// All methods retry what is retriable until the client's `request_timeout` has passed, and all
/// are safe to drop; a change whose future was dropped may still happen.
impl Admin {
    pub(crate) fn new(core: Arc<Core>) -> Admin {
        Admin { core }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Has one broker answer.
    pub(crate) async fn on<C: Call>(
        &self,
        node: NodeId,
        request: &C,
    ) -> Result<C::Response, Error> {
        let connection = self.core.connection(node).await?;
        connection.call(request, self.core.config.request_timeout).await
    }

    /// Creates a topic, or only checks that it could be created.
    ///
    /// # Errors
    /// `Refused` with `TopicExists`, `InvalidTopic`, `InvalidPartitions`, `InvalidReplicationFactor`
    /// or `InvalidConfig`; otherwise with outcome unknown where the answer was lost.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<CreateTopicResponse, Error> {
        let request = CreateTopicRequest {
            name: topic.name,
            partitions: topic.partitions,
            replication: topic.replication,
            configs: topic.configs,
            dry_run: topic.dry_run,
        };
        self.change(&request).await
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// `UnknownTopic`; otherwise with outcome unknown where the answer was lost.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let request = DeleteTopicRequest { name: name.to_owned() };
        self.change(&request).await.map(|Deleted| ())
    }

    /// Every topic.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where no broker answered.
    pub async fn topics(&self) -> Result<Vec<TopicInfo>, Error> {
        Ok(self.ask_any(&MetadataRequest::All, None).await?.topics)
    }

    /// One topic's id, settings, partitions, leaders and replicas.
    ///
    /// # Errors
    /// `UnknownTopic`; `Unreachable` or `TimedOut` where no broker answered.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDetail, Error> {
        let (begun, mut backoff) = (Instant::now(), Backoff::new(retry::seed()));
        let question = MetadataRequest::Topics(vec![name.to_owned()]);
        let mut last = None;
        loop {
            let answer = self.ask_any(&question, last).await?;
            last = Some(answer.node);
            let act = format!("describe topic {name}");
            let topic = answer.topics.into_iter().find(|topic| topic.name == name);
            let topic = topic.ok_or_else(|| {
                Error::new(ErrorKind::Malformed, format!("cannot {act}: the broker left it out"))
            })?;
            let error = match topic.result {
                Ok(detail) => return Ok(detail),
                Err(error) => error,
            };
            // Whoever says that there is none may only be late; the next one asked is another broker.
            let patience = if error.code == ErrorCode::UnknownTopicOrPartition {
                UNKNOWN_TOPIC_PATIENCE
            } else {
                self.core.config.request_timeout
            };
            if !error.code.retriable() || begun.elapsed() >= patience {
                return Err(Error::refused(&act, &error));
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// A partition as its leader sees it: watermarks, and every replica's place.
    ///
    /// # Errors
    /// `UnknownTopic`; `TimedOut` where the partition has no leader for too long.
    pub async fn describe_partition(
        &self,
        topic: &str,
        partition: PartitionId,
    ) -> Result<DescribePartitionResponse, Error> {
        let partition = self.partition(topic, partition).await?;
        self.core.on_leader(partition, &DescribePartitionRequest { partition }).await
    }

    /// Gives up everything before the batch that holds `before`; returns where the partition starts
    /// now. It cannot be undone, and nothing happens where the partition starts later already.
    ///
    /// # Errors
    /// `Refused` with `OffsetOutOfRange` above the end; `UnknownTopic`; `TimedOut`, and then it may
    /// still happen.
    pub async fn trim_partition(
        &self,
        topic: &str,
        partition: PartitionId,
        before: Offset,
    ) -> Result<Offset, Error> {
        let partition = self.partition(topic, partition).await?;
        let request = TrimPartitionRequest { partition, before };
        Ok(self.core.on_leader(partition, &request).await?.log_start)
    }

    /// A partition as one broker's own replica sees it, whoever leads.
    ///
    /// # Errors
    /// `UnknownTopic` where that broker has no replica of it; `Unreachable` where it does not answer.
    pub async fn describe_partition_on(
        &self,
        node: NodeId,
        topic: TopicId,
        partition: PartitionId,
    ) -> Result<DescribePartitionResponse, Error> {
        let request = DescribePartitionRequest { partition: TopicPartition::new(topic, partition) };
        let connection = self.core.connection(node).await?;
        connection.call(&request, self.core.config.request_timeout).await
    }

    /// The cluster's id, controller and brokers.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where no broker answered.
    pub async fn cluster(&self) -> Result<ClusterInfo, Error> {
        let answer = self.ask_any(&MetadataRequest::Topics(Vec::new()), None).await?;
        self.core.metadata.learn(&answer);
        Ok(ClusterInfo::of(answer))
    }

    /// The cluster as one broker knows it: whether that broker answers, and what it believes.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where it does not answer within `patience`.
    pub async fn cluster_seen_by(
        &self,
        node: NodeId,
        patience: Duration,
    ) -> Result<ClusterInfo, Error> {
        let asking = async {
            let connection = self.core.connection(node).await?;
            connection.call(&MetadataRequest::Topics(Vec::new()), patience).await
        };
        let answer = tokio::time::timeout(patience, asking).await.map_err(|_| {
            let text = format!("node {node} did not answer in {patience:?}");
            Error::new(ErrorKind::TimedOut, text)
        })?;
        answer.map(ClusterInfo::of)
    }

    /// An offset of a partition: its start, its end, or by time.
    ///
    /// # Errors
    /// `UnknownTopic`; `TimedOut` where the partition has no leader for too long.
    pub async fn list_offsets(
        &self,
        topic: &str,
        partition: PartitionId,
        at: OffsetAt,
    ) -> Result<ListOffsetsResponse, Error> {
        let partition = self.partition(topic, partition).await?;
        self.core.on_leader(partition, &ListOffsetsRequest { partition, at }).await
    }

    pub(crate) async fn partition(
        &self,
        name: &str,
        number: PartitionId,
    ) -> Result<TopicPartition, Error> {
        let name = TopicName::from(name);
        let shape = self.core.topic(&name, self.core.config.request_timeout).await?;
        shape.checked_partition(&name, number)
    }

    /// Asks any broker, the one to `avoid` last, again and again while what fails may pass.
    async fn ask_any(
        &self,
        question: &MetadataRequest,
        avoid: Option<NodeId>,
    ) -> Result<MetadataResponse, Error> {
        let (begun, mut backoff) = (Instant::now(), Backoff::new(retry::seed()));
        loop {
            match self.core.ask_any(question, avoid).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.retriable() => return Err(error),
                Err(error) if begun.elapsed() >= self.core.config.request_timeout => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(backoff.pause()).await,
            }
        }
    }

    /// Has any broker make a change. It goes to one that has answered a question just now: a change
    /// cannot be asked of several at once, and one that has died would be waited for in vain.
    pub(crate) async fn change<C: Call>(&self, request: &C) -> Result<C::Response, Error> {
        let (begun, mut backoff) = (Instant::now(), Backoff::new(retry::seed()));
        let patience = self.core.config.request_timeout;
        let mut last = None;
        loop {
            let alive = self.ask_any(&MetadataRequest::Topics(Vec::new()), last).await?;
            self.core.metadata.learn(&alive);
            let left = patience.saturating_sub(begun.elapsed());
            let error = match self.core.pool.live(alive.node) {
                Some(connection) => match connection.call(request, left).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                },
                None => {
                    let text = format!("lost the connection to node {}", alive.node);
                    Error::new(ErrorKind::ConnectionLost, text)
                }
            };
            // A change that may have happened is not asked for twice: the second answer would be
            // about the first, "exists already" for example.
            let unsure = error.outcome() != Outcome::NotWritten;
            if unsure || !error.retriable() || begun.elapsed() >= patience {
                return Err(error);
            }
            last = Some(alive.node);
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

impl ClusterInfo {
    fn of(answer: MetadataResponse) -> ClusterInfo {
        let MetadataResponse { cluster_id, node, controller, brokers, topics: _ } = answer;
        ClusterInfo { cluster_id, node, controller, brokers }
    }
}
