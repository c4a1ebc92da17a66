//! The Rust client of Highwater: a replicated, partitioned event log.
//!
//! # Quick start
//!
//! ```no_run
//! use std::time::Duration;
//! use highwater_client::{AckMode, Client, ProducerConfig, ReaderConfig, Record, StartAt};
//!
//! # async fn run() -> Result<(), highwater_client::Error> {
//! let client = Client::from_profile(None).await?; // what `highwater dev` wrote
//!
//! let producer = client.producer(ProducerConfig::default());
//! let done = producer.send_and_wait(Record::to("orders").key("k1").value("hello")).await?;
//! println!("offset {} on {} replicas", done.offset, done.receipt.replicas);
//!
//! // `send` waits for buffer space only; the delivery is a future of its own.
//! let delivery = producer.send(Record::to("orders").value("fast").acks(AckMode::Async)).await?;
//! delivery.await?;
//! producer.close(Duration::from_secs(30)).await?;
//!
//! let mut reader = client.reader(ReaderConfig::new("orders", StartAt::Start).until_end()).await?;
//! while let Some(batch) = reader.next_batch().await? {
//!     for record in &batch {
//!         println!("{}: {:?}", record.offset, record.value);
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! Whole programs for what people build on an event log, from a worker to an exactly-once pipeline: [`guide`].
//!
//! Programs without `async` have the same handles in [`blocking`], where each call waits.
//!
//! # What holds
//!
//! * Every handle is cheap to clone (but for [`Reader`], which has one position) and works from any
//!   task. No `Drop` blocks; [`Producer::close`] does the work.
//! * Producers are always idempotent: retries neither repeat nor reorder records of a partition.
//! * [`Producer::send_if`] appends only where the partition ends as expected, for event sourcing.
//! * [`Consumer::for_each_partition`] gives each partition a worker: order within a key, and no waiting across them.
//! * Everything that waits says under "Cancel safety" what dropping its future does.
//! * Every queue is bounded, and every error answers [`Error::retriable`], [`Error::fatal`] and
//!   [`Error::outcome`].
//! * What it does can be watched: [`Client::metrics`], [`Hooks`], and `tracing` at debug level, with a span for each request
//!   (target `highwater_client::request`) and an event for each batch (`highwater_client::batch`), connection
//!   (`highwater_client::connection`) and rebalance (`highwater_client::group`).
//!
//! Inside, read in this order: `error` and `record` (the words), `connection` (one QUIC connection
//! per broker), `metadata` (who leads what), `producer`, `reader`, `consumer`, `admin`; beside them `hooks` and
//! `watch` (what is told of all that), and `blocking`.

#![deny(missing_docs)]

mod admin;
mod alter;
mod brokers;
mod balance;
#[cfg(feature = "blocking")]
pub mod blocking;
mod client;
mod connection;
mod consumer;
mod digest;
mod error;
mod events;
mod groups;
#[cfg(doc)]
pub mod guide;
mod hooks;
mod inspect;
mod lag;
mod metadata;
mod moves;
mod partitioner;
mod producer;
mod profile;
mod race;
mod reader;
mod record;
mod recover;
mod repair;
mod retry;
mod settings;
mod watch;

pub use highwater_protocol::batch::Compression;
pub use highwater_protocol::ids::{
    NodeId, Offset, PartitionId, Term, Timestamp, TopicId, TopicPartition,
};
pub use highwater_protocol::native::admin::{
    CreateTopicResponse, DescribePartitionResponse, DryRun, ReplicaRole, ReplicaStatus,
};
pub use highwater_protocol::native::alter::{
    AlterTopicResponse, CreatePartitionsResponse, SettingChange,
};
pub use highwater_protocol::native::balance::{
    BrokerShare, ListReplicasResponse, Load, PlanBalanceResponse, ReplicaReport, ReplicaState,
    Traffic,
};
pub use highwater_protocol::native::brokers::{
    BrokerDuty, BrokerStatus, SetDutyResponse, Unretired, Vote,
};
pub use highwater_protocol::native::digest::{
    Digest, DigestRange, DigestReplicaResponse, Unreadable,
};
pub use highwater_protocol::native::events::ClusterEvent;
pub use highwater_protocol::native::fetch::{ListOffsetsResponse, OffsetAt};
pub use highwater_protocol::native::frame::ApiKey;
pub use highwater_protocol::native::groups::{
    Assignor, CommittedOffset, GroupDescription, GroupListing, GroupState, MemberDescription,
    OffsetToCommit,
};
pub use highwater_protocol::native::inspect::{HeldBatch, InspectReplicaResponse, ReplicaIndexes};
pub use highwater_protocol::native::metadata::{BrokerInfo, PartitionInfo, TopicDetail, TopicInfo};
pub use highwater_protocol::native::moves::{MoveInfo, MoveStage, MoveWish, PlannedMove};
pub use highwater_protocol::native::produce::{AckMode, Receipt};
pub use highwater_protocol::native::repair::{RepairReplicaResponse, UnreadableRange};
pub use highwater_protocol::native::settings::{
    ClientSettings, SettingScope, SettingSource, SettingValue,
};
pub use highwater_protocol::native::throttle::ThrottleMovesResponse;
pub use highwater_protocol::settings::{ConfigKey, topic::KEYS as TOPIC_SETTINGS};

pub use admin::{Admin, ClusterInfo, NewTopic};
pub use alter::TopicChange;
pub use client::{Client, ClientConfig, Pem, TlsConfig};
pub use consumer::{
    Commit, Consumer, ConsumerConfig, Event, OwnedPartition, PartitionConsumer, Revocation,
    membership,
};
pub use error::{Error, ErrorKind, Outcome};
pub use hooks::{BatchRead, BatchWritten, Hooks, Rebalance, RequestDone};
pub use lag::PartitionLag;
pub use partitioner::{murmur2, partition_for_key};
pub use producer::{Appended, Delivery, FlushReport, Producer, ProducerConfig, TrySendError};
pub use profile::{Profile, Profiles};
pub use reader::{
    OutOfRange, Partitions, Reader, ReaderConfig, ReceivedHeader, ReceivedRecord, RecordBatch,
    RecordIter, StartAt,
};
pub use record::{Header, Record, RecordMetadata, TopicName};
pub use settings::SettingsChange;
pub use watch::Metrics;
