//! Brokers in one process: real shards on real files, joined by queues instead of a network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::batch::{BatchBuilder, BuilderOptions};
use highwater_protocol::error::WireError;
use highwater_protocol::ids::{
    DirectoryId, Incarnation, NodeId, PartitionId, Timestamp, TopicId, TopicPartition,
};
use highwater_protocol::native::admin::{CreateTopicRequest, DryRun};
use highwater_protocol::native::fetch::{FetchFrom, FetchPartition, FetchRequest};
use highwater_protocol::native::metadata::{MetadataRequest, TopicDetail};
use highwater_protocol::native::produce::{AckMode, ProduceRequest, Receipt};
use highwater_protocol::peer::{PeerBody, PeerFrame};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::api::{Api, ApiOptions};
use crate::disk::Disk;
use crate::disk::flusher::Flusher;
use crate::disk::mmap::MmapDisk;
use crate::metrics::Metrics;
use crate::node::{Hosting, Made, Node, NodeOptions, NodeState, Routes};
use crate::replica::LastLife;
use crate::shard::event::Event;
use crate::shard::handle::{Clock, PeerOutbox, Shards};
use crate::shard::thread::{self, ShardThread, Surroundings};
use crate::shard::{Directory, ShardOptions};

/// One broker.
pub struct Broker {
    pub api: Api,
    me: NodeId,
    incarnation: Incarnation,
    outbox: PeerOutbox,
    shards: Shards,
    thread: ShardThread,
}

/// Brokers that share a cluster, each on a directory of its own.
pub struct Rig {
    controllers: Vec<NodeId>,
    dirs: BTreeMap<NodeId, TempDir>,
    pub brokers: BTreeMap<NodeId, Broker>,
    links: Vec<JoinHandle<()>>,
    /// For brokers that are booted from now on.
    pub leaders_return_after_ms: Option<u64>,
}

impl Rig {
    /// Brokers 1 to `count`, the first three of which are controllers, all serving.
    pub async fn start(count: u32) -> Rig {
        let all = 1..=count;
        let dir = |id| (NodeId(id), tempfile::tempdir().expect("a temporary directory"));
        let mut rig = Rig {
            controllers: all.clone().take(3).map(NodeId).collect(),
            dirs: all.map(dir).collect(),
            brokers: BTreeMap::new(),
            links: Vec::new(),
            leaders_return_after_ms: None,
        };
        rig.boot(1).await;
        rig.all_serve().await;
        rig
    }

    /// Starts a new life of every broker.
    pub async fn boot(&mut self, life: u64) {
        for (me, dir) in &self.dirs {
            let broker = self.boot_one(*me, dir, Incarnation(life)).await;
            self.brokers.insert(*me, broker);
        }
        for from in self.brokers.values() {
            for to in self.brokers.values().filter(|to| to.me != from.me) {
                self.links.push(tokio::spawn(link(from.clone_ends(), to.clone_ends())));
            }
        }
    }

    /// Starts a new life of one broker; the others stay down.
    pub async fn boot_only(&mut self, node: u32, life: u64) {
        let me = NodeId(node);
        let broker = self.boot_one(me, &self.dirs[&me], Incarnation(life)).await;
        self.brokers.insert(me, broker);
    }

    async fn boot_one(&self, me: NodeId, dir: &TempDir, incarnation: Incarnation) -> Broker {
        let disk: Arc<dyn Disk> = Arc::new(MmapDisk::default());
        let routes = Routes::new(me);
        let peers = self.dirs.keys().copied().filter(|peer| *peer != me);
        let outbox = PeerOutbox::new(incarnation, peers, 1);
        let options = ShardOptions {
            me,
            incarnation,
            seed: u64::from(me.0),
            heartbeat_ms: 50,
            dir: dir.path().join("shard-0"),
            stray_dir: dir.path().join("stray"),
            last_life: LastLife::Clean,
            directory: if incarnation == Incarnation(1) { Directory::New } else { Directory::Used },
            keep_free_bytes: 0,
        };
        let surroundings = Surroundings {
            number: 0,
            disk: disk.clone(),
            flusher: Arc::new(Flusher::new(1).expect("a thread")),
            outbox: outbox.clone(),
            notices: routes.sink(),
            clock: Clock::start(),
            metrics: Arc::new(Metrics::default()),
        };
        let (handle, thread) = thread::start(options, surroundings).expect("the journal opens");
        let shards = Shards::new(vec![handle]);
        let options = self.node_options(me, dir, incarnation);
        let metrics = Arc::new(Metrics::default());
        let node = Node::start(options, disk, shards.clone(), outbox.clone(), routes, metrics)
            .await
            .expect("the image can be read");
        let file = BTreeMap::from([("limits.connections".to_string(), "5".to_string())]);
        let limits = ApiOptions { produce_bytes_max: 64 << 20, disk_reserve_bytes: 0, file };
        let api = Api::new(node, limits);
        Broker { api, me, incarnation, outbox, shards, thread }
    }

    fn node_options(&self, me: NodeId, dir: &TempDir, incarnation: Incarnation) -> NodeOptions {
        NodeOptions {
            me,
            cluster_id: "test".into(),
            data_dir: dir.path().into(),
            incarnation,
            directory: DirectoryId(Uuid::from_u128(u128::from(me.0))),
            made: Made::New,
            controllers: self.controllers.clone(),
            rack: None,
            client_address: format!("broker-{me}:1"),
            peer_address: format!("broker-{me}:1"),
            session_ms: 3_000,
            log_records_max: 40,
            hosting: Hosting::All,
            leaders_return_after_ms: self.leaders_return_after_ms,
        }
    }

    /// Waits until every broker is registered.
    pub async fn all_serve(&self) {
        for broker in self.brokers.values() {
            let mut state = broker.api.node().state();
            let served = state.wait_for(|state| *state == NodeState::Serving);
            let _serving = within(served).await.expect("the node runs");
        }
    }

    /// Stops every broker; their directories stay.
    pub async fn stop(&mut self) {
        let all: Vec<NodeId> = self.brokers.keys().copied().collect();
        for node in all {
            self.stop_one(node).await;
        }
        self.links.drain(..).for_each(|link| link.abort());
    }

    /// Stops a broker; the others are not told.
    pub async fn stop_one(&mut self, node: NodeId) {
        let broker = self.brokers.remove(&node).expect("it runs");
        broker.api.node().stop().await;
        let thread = broker.thread;
        tokio::task::spawn_blocking(move || thread.stop()).await.expect("it does not panic");
    }

    /// The face of a broker.
    pub fn api(&self, node: u32) -> &Api {
        &self.brokers[&NodeId(node)].api
    }

    /// Removes a stopped broker's saved image.
    pub fn forget_image(&self, node: u32) {
        let path = self.dirs[&NodeId(node)].path().join("cluster.image");
        std::fs::remove_file(path).expect("it was saved when the broker stopped");
    }

    /// The names below a broker's directory of topics.
    pub fn topic_dirs(&self, node: u32) -> Vec<String> {
        let dir = self.dirs[&NodeId(node)].path().join("topics");
        MmapDisk::default().list(&dir).unwrap_or_default()
    }
}

struct Ends {
    node: Node,
    me: NodeId,
    incarnation: Incarnation,
    outbox: PeerOutbox,
    shards: Shards,
}

impl Broker {
    fn clone_ends(&self) -> Ends {
        Ends {
            node: self.api.node().clone(),
            me: self.me,
            incarnation: self.incarnation,
            outbox: self.outbox.clone(),
            shards: self.shards.clone(),
        }
    }
}

/// Carries what one broker has for another, as the network would.
async fn link(from: Ends, to: Ends) {
    let queues = from.outbox.queues(to.me).expect("everyone is everyone's peer");
    queues.connect();
    loop {
        let frames = tokio::select! {
            frames = queues.control().take() => frames,
            frames = queues.appends()[0].take() => frames,
            frames = queues.bulk().take() => frames,
        };
        for PeerFrame { to: meant_for, body, .. } in frames {
            match body {
                PeerBody::Raft(messages) => {
                    let (from, incarnation) = (from.me, from.incarnation);
                    let event = Event::Peer { from, incarnation, to: meant_for, messages };
                    // Raft sends again what did not fit.
                    let _ = to.shards.all()[0].submit(event);
                }
                PeerBody::Leaders(news) => to.node.leader_news(from.me, news),
                PeerBody::Command { id, command } => {
                    let (node, outbox, asker) = (to.node.clone(), to.outbox.clone(), from.me);
                    tokio::spawn(async move {
                        let result = node.command_from_peer(asker, command).await;
                        outbox.send(asker, PeerBody::CommandAnswer { id, result });
                    });
                }
                PeerBody::CommandAnswer { id, result } => to.node.command_answered(id, result),
            }
        }
    }
}

/// What a future gives, which must come within a time that nothing here ever needs.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it does not hang")
}

/// Asks until there is an answer.
pub async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// A request for a topic with all settings at their defaults.
pub fn topic(name: &str, partitions: u32, replication: u8) -> CreateTopicRequest {
    CreateTopicRequest {
        name: name.into(),
        partitions,
        replication: Some(replication),
        configs: Vec::new(),
        dry_run: DryRun::No,
    }
}

/// A topic as a broker sees it once it knows a leader of every partition.
pub async fn led_topic(api: &Api, name: &str) -> TopicDetail {
    eventually(async || {
        let request = MetadataRequest::Topics(vec![name.into()]);
        let metadata = api.metadata(request).await.expect("metadata always come");
        let detail = metadata.topics.into_iter().next()?.result.ok()?;
        detail.partitions.iter().all(|partition| partition.leader.is_some()).then_some(detail)
    })
    .await
}

pub fn partition(topic: TopicId, number: u32) -> TopicPartition {
    TopicPartition::new(topic, PartitionId(number))
}

/// A batch with these values.
pub fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BuilderOptions::default());
    for value in values {
        builder.push(Timestamp(1_000), None, Some(value.as_bytes()), &[]);
    }
    builder.finish()
}

/// Produces and waits for the promise.
pub async fn produce(
    api: &Api,
    partition: TopicPartition,
    acks: AckMode,
    batch: Bytes,
) -> Result<Receipt, WireError> {
    let request = ProduceRequest {
        partition,
        acks,
        leader_term: None,
        timeout_ms: 10_000,
        expected_end: None,
        batch,
    };
    within(api.produce(request)).await
}

/// A fetch of one partition from its start, which waits for as many bytes.
pub fn fetch_of(partition: TopicPartition, bytes_min: u32) -> FetchRequest {
    let wanted = FetchPartition {
        partition,
        offset: highwater_protocol::ids::Offset(0),
        bytes_max: 1 << 20,
        leader_term: None,
    };
    FetchRequest {
        wait_max_ms: 10_000,
        bytes_min,
        bytes_max: 1 << 20,
        partitions: vec![wanted],
        from: FetchFrom::Leader,
    }
}
