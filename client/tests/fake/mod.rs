//! A cluster that is only as real as a client's tests need: brokers that speak QUIC and the native
//! protocol, share one perfect log in memory, know producers as Kafka does, and fail on command.
//!
//! It has no replication and no disks: what it proves is how the client behaves, not the brokers.

#![allow(dead_code, reason = "each test file uses another part of it")]

mod log;
mod pki;
mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use highwater_client::{Client, ClientConfig, Compression, NodeId, PartitionId, Term, TopicId};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{DirectoryId, Incarnation};
use highwater_protocol::native::metadata::{
    BrokerInfo, MetadataRequest, MetadataResponse, PartitionInfo, TopicDetail, TopicInfo,
};
use highwater_protocol::native::produce::ProduceRequest;
use tokio::sync::Notify;

pub use log::Log;
pub use pki::Pki;

/// What a fake broker does with a produce request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Writes and answers.
    None,
    /// Answers with this and writes nothing.
    Refuse(ErrorCode),
    /// Writes and never answers.
    DropAnswer,
    /// Writes and closes the connection.
    WriteAndCut,
    /// Closes the connection and writes nothing.
    Cut,
    /// Neither writes nor answers.
    Swallow,
}

/// Decides about each produce request, in the order of arrival.
pub type Script = Box<dyn FnMut(&ProduceRequest) -> Fault + Send>;

/// The fake cluster; its brokers run until it is dropped.
pub struct Cluster {
    pub shared: Arc<Shared>,
    pub pki: Pki,
    endpoints: Vec<quinn::Endpoint>,
}

/// What all fake brokers share.
pub struct Shared {
    state: Mutex<State>,
    /// Something was written, or a leader moved.
    pub news: Notify,
}

pub struct State {
    pub brokers: BTreeMap<NodeId, String>,
    pub topics: BTreeMap<String, Topic>,
    pub script: Script,
    /// Produce requests seen so far.
    pub produced: usize,
    /// Brokers that take everything and answer nothing.
    pub silent: Vec<NodeId>,
}

pub struct Topic {
    pub id: TopicId,
    pub partitions: Vec<Partition>,
    /// Its `compression.type`, if that is a codec, as metadata say it.
    pub codec: Option<Compression>,
    /// The same, as its leaders go by it.
    pub codec_enforced: Option<Compression>,
}

pub struct Partition {
    pub leader: Option<NodeId>,
    pub term: Term,
    pub log: Log,
}

pub const CLUSTER: &str = "fake-cluster";

impl Cluster {
    /// So many brokers, and a topic `t` with so many partitions, led by the brokers in turn.
    pub async fn start(brokers: u32, partitions: u32) -> Cluster {
        let pki = Pki::new(CLUSTER);
        let state = State {
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            script: Box::new(|_| Fault::None),
            produced: 0,
            silent: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), news: Notify::new() });
        let mut endpoints = Vec::new();
        for node in (1..=brokers).map(NodeId) {
            let endpoint = server::start(&pki, node, shared.clone());
            let address = endpoint.local_addr().expect("bound").to_string();
            shared.lock().brokers.insert(node, address);
            endpoints.push(endpoint);
        }
        let cluster = Cluster { shared, pki, endpoints };
        cluster.add_topic("t", partitions);
        cluster
    }

    pub fn add_topic(&self, name: &str, partitions: u32) {
        let mut state = self.shared.lock();
        let brokers = state.brokers.len() as u32;
        let id = TopicId(uuid::Uuid::new_v4());
        let partition = |number| Partition {
            leader: Some(NodeId(1 + number % brokers)),
            term: Term(1),
            log: Log::default(),
        };
        let partitions = (0..partitions).map(partition).collect();
        let topic = Topic { id, partitions, codec: None, codec_enforced: None };
        state.topics.insert(name.into(), topic);
    }

    pub fn config(&self) -> ClientConfig {
        let bootstrap: Vec<String> = self.shared.lock().brokers.values().cloned().collect();
        let mut config = ClientConfig::new(bootstrap, self.pki.client("tester"));
        config.request_timeout = Duration::from_secs(5);
        config
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.config()).await.expect("the fake cluster is up")
    }

    /// From now on this decides about produce requests.
    pub fn script(&self, script: impl FnMut(&ProduceRequest) -> Fault + Send + 'static) {
        self.shared.lock().script = Box::new(script);
    }

    /// Another broker leads the partition, in the next term.
    pub fn move_leader(&self, partition: u32, node: u32) {
        let mut state = self.shared.lock();
        let partition = state.partition("t", partition);
        partition.leader = Some(NodeId(node));
        partition.term = partition.term.next();
        drop(state);
        self.shared.news.notify_waiters();
    }

    /// From now on `t` takes batches packed so, or plain ones; metadata say this.
    pub fn want_codec(&self, known: Option<Compression>, enforced: Option<Compression>) {
        let mut state = self.shared.lock();
        let topic = state.topics.get_mut("t").expect("made at the start");
        (topic.codec, topic.codec_enforced) = (known, enforced);
    }

    /// The codecs of a partition's batches, in order.
    pub fn codecs(&self, partition: u32) -> Vec<Compression> {
        self.shared.lock().partition("t", partition).log.codecs()
    }

    /// The broker stops answering, as if its machine had lost power.
    pub fn silence(&self, node: u32) {
        self.shared.lock().silent.push(NodeId(node));
    }

    /// Metadata says that `node` listens where `other` does.
    pub fn claim(&self, node: u32, other: u32) {
        let mut state = self.shared.lock();
        let address = state.brokers[&NodeId(other)].clone();
        state.brokers.insert(NodeId(node), address);
    }

    /// The values of all records of a partition of `t`.
    pub fn values(&self, partition: u32) -> Vec<String> {
        self.shared.lock().partition("t", partition).log.values()
    }

    /// The values of all partitions of `t`.
    pub fn all_values(&self) -> Vec<Vec<String>> {
        let state = self.shared.lock();
        state.topics["t"].partitions.iter().map(|partition| partition.log.values()).collect()
    }
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    pub fn metadata(&self, node: NodeId, request: &MetadataRequest) -> MetadataResponse {
        let state = self.lock();
        let names: Vec<String> = match request {
            MetadataRequest::All => state.topics.keys().cloned().collect(),
            MetadataRequest::Topics(names) => names.clone(),
        };
        let brokers = state.brokers.iter().map(|(node, address)| BrokerInfo {
            node: *node,
            address: address.clone(),
            rack: None,
            incarnation: Incarnation(1),
            directory: DirectoryId(uuid::Uuid::from_u128(u128::from(node.0))),
            fenced: false,
        });
        MetadataResponse {
            cluster_id: CLUSTER.into(),
            node,
            controller: None,
            brokers: brokers.collect(),
            topics: names.iter().map(|name| state.describe(name)).collect(),
        }
    }
}

impl State {
    pub fn partition(&mut self, topic: &str, partition: u32) -> &mut Partition {
        let topic = self.topics.get_mut(topic).expect("a topic of the test");
        &mut topic.partitions[partition as usize]
    }

    pub fn by_id(&mut self, id: TopicId, partition: PartitionId) -> Option<&mut Partition> {
        let topic = self.topics.values_mut().find(|topic| topic.id == id)?;
        topic.partitions.get_mut(partition.0 as usize)
    }

    /// Whether a topic takes batches packed so.
    pub fn takes(&self, id: TopicId, codec: Compression) -> bool {
        let topic = self.topics.values().find(|topic| topic.id == id);
        let wanted = topic.and_then(|topic| topic.codec_enforced);
        codec == Compression::None || wanted.is_none_or(|wanted| wanted == codec)
    }

    fn describe(&self, name: &str) -> TopicInfo {
        let Some(topic) = self.topics.get(name) else {
            let detail = format!("there is no topic {name}");
            let error = WireError::new(ErrorCode::UnknownTopicOrPartition, detail);
            return TopicInfo { name: name.into(), result: Err(error) };
        };
        let partitions =
            topic.partitions.iter().zip(0..).map(|(partition, number)| PartitionInfo {
                partition: PartitionId(number),
                leader: partition.leader,
                term: partition.term,
                replicas: self.brokers.keys().copied().collect(),
                in_sync: self.brokers.keys().copied().collect(),
            });
        let detail = TopicDetail {
            id: topic.id,
            configs: Vec::new(),
            partitions: partitions.collect(),
            codec: topic.codec,
        };
        TopicInfo { name: name.into(), result: Ok(detail) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for endpoint in &self.endpoints {
            endpoint.close(quinn::VarInt::from_u32(0), b"the test is over");
        }
    }
}
