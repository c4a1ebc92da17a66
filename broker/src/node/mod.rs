//! This broker in its cluster: it follows the controller's log, hosts the replicas that the log
//! gives it, registers itself, and decides for the cluster while it leads the controller's partition.
//!
//! What must hold: replicas are opened and closed only as committed records say, and files are
//! deleted only because a committed record deleted their topic, or took the replica from this broker. Nothing here serves clients: `api`
//! does, through `Routes` and the image.
//!
//! Read in this order: `routes` (what is known of each partition), `reconcile` (what an image means
//! for us), `follow` (from the log to the image), `ask` (how commands reach the controller),
//! `controller_task` (deciding), `coordinators` (consumer groups), then `moves`, `register`, `refill`, `give_up`, `leaders`, `loads`, `balance`, `retention`,
//! `snapshot`, `strays`.

mod ask;
mod balance;
mod controller_task;
mod coordinators;
mod follow;
mod give_up;
mod leaders;
mod loads;
mod moves;
mod own_log;
pub mod reconcile;
mod refill;
mod register;
mod retention;
pub mod routes;
pub mod snapshot;
mod strays;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{DirectoryId, Incarnation, NodeId, Offset, TopicPartition};
use highwater_protocol::native::groups::GroupId;
use highwater_protocol::peer::LeaderNews;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::controller::record::BrokerRegistration;
use crate::controller::{ClusterImage, Command, CommandReply};
use crate::disk::Disk;
use crate::groups::{GroupAnswer, GroupRequest};
use crate::log;
use crate::metrics::Metrics;
use crate::replica::{FlushPolicy, ReplicaOptions, Retention};
use crate::shard::event::{Event, Identity, Moving, OpenReplica};
use crate::shard::handle::{PeerOutbox, Shards};

use ask::Line;
use coordinators::Coordinators;
use follow::Follower;

pub use routes::{LeaderView, Route, Routes};

/// What a broker must know of itself and of its cluster to take part.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// This broker.
    pub me: NodeId,
    /// The cluster that it belongs to.
    pub cluster_id: String,
    /// Where its data lies.
    pub data_dir: PathBuf,
    /// Its life.
    pub incarnation: Incarnation,
    /// The identity of its data directory.
    pub directory: DirectoryId,
    /// Whether that was made for one that was lost.
    pub made: Made,
    /// The voters of the controller's partition.
    pub controllers: Vec<NodeId>,
    /// Its failure domain.
    pub rack: Option<String>,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
    /// Where other brokers reach it, `host:port`.
    pub peer_address: String,
    /// A broker that the controller has not heard of for this long is fenced.
    pub session_ms: u64,
    /// The controller's log is begun anew with a whole image once it has this many records more than
    /// the image has.
    pub log_records_max: u64,
    /// Whether it hosts what the cluster places on it.
    pub hosting: Hosting,
    /// Leadership goes back to the preferred replica once that was in sync for this long; `None`
    /// leaves it where it is.
    pub leaders_return_after_ms: Option<u64>,
}

/// What a data directory was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// For a new broker, which has never voted on anything.
    New,
    /// For a broker whose directory was lost: what it voted for is forgotten.
    Anew,
}

/// Whether a broker hosts replicas of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosting {
    /// All that are placed on it.
    All,
    /// None, for this reason: it only follows the controller's log and answers questions.
    Nothing(String),
}

/// How far this broker is in taking part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// It has not caught up with the controller's log, or is not registered yet.
    Starting,
    /// It is registered in this life and follows the controller's log.
    Serving,
    /// It cannot go on; the process should stop with this message.
    Failed(String),
}

/// This broker in its cluster; clones are the same one.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
    line: Arc<Line>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

/// What all tasks of a node share.
struct Inner {
    options: NodeOptions,
    disk: Arc<dyn Disk>,
    shards: Shards,
    outbox: PeerOutbox,
    routes: Routes,
    metrics: Arc<Metrics>,
    image: ArcSwap<ClusterImage>,
    /// Up to where the controller's log is in `image`.
    applied: watch::Sender<Offset>,
    state: watch::Sender<NodeState>,
    coordinators: Coordinators,
    stop: CancellationToken,
}

impl Node {
    /// Opens the replicas that the last known image gives this broker and starts to take part.
    /// `routes` is the one whose sinks the shards were given. Fails if the image cannot be read.
    pub async fn start(
        options: NodeOptions,
        disk: Arc<dyn Disk>,
        shards: Shards,
        outbox: PeerOutbox,
        routes: Routes,
        metrics: Arc<Metrics>,
    ) -> io::Result<Node> {
        let saved = snapshot::load(&*disk, &options.data_dir)?;
        let applied = saved.as_ref().map_or(Offset(0), |saved| saved.applied);
        let inner = Arc::new(Inner {
            options,
            disk,
            shards,
            outbox,
            routes,
            metrics,
            image: ArcSwap::default(),
            applied: watch::Sender::new(applied),
            state: watch::Sender::new(NodeState::Starting),
            coordinators: Coordinators::default(),
            stop: CancellationToken::new(),
        });
        let (line, asked) = Line::new(inner.clone());
        let line = Arc::new(line);

        inner.shards.of(TopicPartition::CLUSTER).control(Event::Open(inner.open_cluster())).await;
        let mut follower = Follower::new(inner.clone(), line.clone(), saved.as_ref());
        follower.publish(saved.map_or(ClusterImage::default(), |saved| saved.image)).await;

        let mut tasks = JoinSet::new();
        inner.spawn(&mut tasks, "follows the controller's log", follower.run());
        let controller = controller_task::run(inner.clone(), asked);
        inner.spawn(&mut tasks, "decides for the cluster", controller);
        let moves = moves::run(inner.clone(), line.clone());
        inner.spawn(&mut tasks, "leads moves of replicas", moves);
        let register = register::run(inner.clone(), line.clone());
        inner.spawn(&mut tasks, "registers this broker", register);
        let refill = refill::run(inner.clone(), line.clone());
        inner.spawn(&mut tasks, "tells of replicas that are whole again", refill);
        inner.spawn(&mut tasks, "keeps coordinators", coordinators::run(inner.clone()));
        inner.spawn(&mut tasks, "looks for what need not be kept", retention::run(inner.clone()));
        inner.spawn(&mut tasks, "tells who leads", leaders::run(inner.clone()));
        inner.spawn(&mut tasks, "gives leadership back", balance::run(inner.clone()));
        let loads = loads::run(inner.clone(), line.clone());
        inner.spawn(&mut tasks, "tells what is written and read", loads);
        Ok(Node { inner, line, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// Stops taking part and saves the image; the shards are to be stopped after this.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        let mut tasks = {
            let mut held = self.tasks.lock().expect("nobody panics while holding the tasks");
            std::mem::take(&mut *held)
        };
        // A task that panicked has said so by itself.
        while tasks.join_next().await.is_some() {}
    }

    /// A controller command passed on by another broker (`PeerBody::Command`): the answer belongs
    /// into `PeerBody::CommandAnswer`. Who joins knows the brokers of its invitation alone, of whom none may vote any
    /// more: for such a one the command goes on to the leader. Others find it by themselves, so no command goes round.
    pub async fn command_from_peer(
        &self,
        from: NodeId,
        command: Bytes,
    ) -> Result<Bytes, WireError> {
        let command = Command::decode(&command)?;
        let reply = match self.line.ask_here(command.clone()).await {
            Err(error)
                if error.code == ErrorCode::NotController
                    && self.image().broker(from).is_none() =>
            {
                self.line.command(command, RELAYED_MAX).await
            }
            reply => reply,
        };
        reply.map(|reply| reply.encode())
    }

    /// The answer to a command that this broker passed on (`PeerBody::CommandAnswer`).
    pub fn command_answered(&self, id: u64, result: Result<Bytes, WireError>) {
        self.line.answered(id, result);
    }

    /// What another broker says that it leads (`PeerBody::Leaders`).
    pub fn leader_news(&self, from: NodeId, news: Vec<LeaderNews>) {
        self.inner.routes.hear(from, news);
    }

    /// Has the controller's leader, wherever it is, carry out a command.
    pub async fn command(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<CommandReply, WireError> {
        self.line.command(command, timeout).await
    }

    /// The partition whose leader keeps a group, once there is the topic.
    pub fn coordinator_of(&self, group: &GroupId) -> Option<TopicPartition> {
        coordinators::partition_of(&self.inner.image.load(), group)
    }

    /// Has the coordinator of a partition of `__groups` answer, if it is here.
    pub async fn ask_coordinator(
        &self,
        partition: TopicPartition,
        request: GroupRequest,
    ) -> Result<GroupAnswer, WireError> {
        self.inner.coordinators.ask(partition, request).await
    }

    /// Every partition that this broker knows of.
    pub fn routes(&self) -> &Routes {
        &self.inner.routes
    }

    /// The cluster as this broker knows it now.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.inner.image.load_full()
    }

    /// Changes whenever `image` does.
    pub fn image_changes(&self) -> watch::Receiver<Offset> {
        self.inner.applied.subscribe()
    }

    /// How far this broker is in taking part; watch it for `Failed`.
    pub fn state(&self) -> watch::Receiver<NodeState> {
        self.inner.state.subscribe()
    }

    /// What the node was started with.
    pub fn options(&self) -> &NodeOptions {
        &self.inner.options
    }

    /// The shards that host this broker's replicas.
    pub fn shards(&self) -> &Shards {
        &self.inner.shards
    }

    /// The disk that holds this broker's data.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.inner.disk
    }

    /// Cancelled when the node is stopped.
    pub fn stopping(&self) -> &CancellationToken {
        &self.inner.stop
    }
}

impl Inner {
    fn me(&self) -> reconcile::Me<'_> {
        let NodeOptions { me, directory, data_dir, .. } = &self.options;
        reconcile::Me { node: *me, directory: *directory, data_dir: data_dir.as_path() }
    }

    fn registration(&self) -> BrokerRegistration {
        let options = &self.options;
        BrokerRegistration {
            node: options.me,
            incarnation: options.incarnation,
            directory: options.directory,
            rack: options.rack.clone(),
            client_address: options.client_address.clone(),
            peer_address: options.peer_address.clone(),
        }
    }

    /// Our replica of the controller's partition: a voter where the configuration says so,
    /// otherwise a learner, so that every broker has the image. On a directory that was made anew it
    /// is Suspect, unless the journal there remembers it already.
    fn open_cluster(&self) -> Box<OpenReplica> {
        let NodeOptions { me, controllers, data_dir, made, .. } = &self.options;
        let learner = (!controllers.contains(me)).then_some(*me);
        Box::new(OpenReplica {
            partition: TopicPartition::CLUSTER,
            dir: cluster_dir(data_dir),
            voters: controllers.clone(),
            learners: learner.into_iter().collect(),
            moving: Moving::No,
            identity: match made {
                Made::New => Identity::Same,
                Made::Anew => Identity::Joins,
            },
            recovery: None,
            options: ReplicaOptions {
                log: log::Options { segment_bytes_max: CLUSTER_SEGMENT_BYTES, keep_free_bytes: 0 },
                flush: FlushPolicy::Ack,
                insync_replicas_min: 1,
                lag_ms_max: CLUSTER_LAG_MS_MAX,
                retention: Retention::FOREVER,
                learner_bytes_per_s: None,
            },
        })
    }

    /// Starts a task without which the node is not whole.
    fn spawn(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        work: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let guard = FailOnPanic { node: self.clone(), work };
        tasks.spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// Gives up: the cluster's state cannot be followed any further, and acting on an old image
    /// would be guessing.
    fn fail(&self, why: String) {
        tracing::error!(why, "this broker cannot go on");
        self.state.send_replace(NodeState::Failed(why));
    }
}

/// Ends the broker with a task that panics: one that is half alive is worse than one that is gone.
struct FailOnPanic {
    node: Arc<Inner>,
    work: &'static str,
}

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.node.fail(format!("the task that {} has panicked", self.work));
        }
    }
}

fn cluster_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("cluster")
}

/// Small, because the controller's log is trimmed in whole segments; a whole image fits in.
const CLUSTER_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
const CLUSTER_LAG_MS_MAX: u64 = 10_000;
/// How long the command of a broker that joins is passed on: that one waits for three seconds.
const RELAYED_MAX: Duration = Duration::from_secs(2);
