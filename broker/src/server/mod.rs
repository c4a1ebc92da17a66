//! A broker from its parts: `start` from the ports inwards, `stop` read backwards.
//!
//! Ports come first, because a taken port is the likeliest mistake and must leave no trace in the
//! data directory. The doors open last, when there is something behind them.

mod descriptors;
pub mod process;
mod scrub;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use highwater_protocol::error::WireError;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::api::{Api, ApiOptions};
use crate::config::Config;
use crate::disk::Disk;
use crate::disk::flusher::Flusher;
use crate::disk::mmap::MmapDisk;
use crate::http;
use crate::init::data_dir::DataDir;
use crate::metrics::Metrics;
use crate::net::{Bound, Net, Rooms};
use crate::node::reconcile::strays_dir;
use crate::node::{Hosting, Node, NodeOptions, NodeState, Routes};
use crate::shard::ShardOptions;
use crate::shard::event::{AdminReply, ReplicaCommand};
use crate::shard::handle::{Clock, PeerOutbox, Shards};
use crate::shard::thread::{self, ShardThread, Surroundings};

/// A running broker.
pub struct Server {
    data_dir: DataDir,
    shards: Shards,
    shard_threads: Vec<ShardThread>,
    node: Node,
    scrub: Option<scrub::Scrub>,
    net: Net,
    http: Option<(CancellationToken, JoinHandle<io::Result<()>>)>,
}

impl Server {
    /// Starts everything; what was started is stopped again where a later part fails.
    pub async fn start(config: &Config) -> io::Result<Server> {
        Server::start_on(Bound::bind(config)?, config).await
    }

    /// The same on a port that was taken before.
    pub async fn start_on(bound: Bound, config: &Config) -> io::Result<Server> {
        let http = match config.http_listen {
            Some(listen) => Some(http::Bound::bind(listen).await?),
            None => None,
        };
        descriptors::reserve(&config.data_dir)?;
        let mut data_dir = DataDir::open(&config.data_dir, &config.cluster.id, config.node.id)?;
        let inside = Inside::start(config, bound, &mut data_dir).await;
        let Inside { core, scrub, net, listen, metrics } = match inside {
            Ok(inside) => inside,
            Err(error) => {
                say_end(&mut data_dir);
                return Err(error);
            }
        };
        let http = http.map(|http| {
            let until = CancellationToken::new();
            let served = http.serve(metrics, core.node.state(), until.clone());
            (until, tokio::spawn(served))
        });
        info!(
            node = %config.node.id, cluster = %config.cluster.id, %listen,
            incarnation = %data_dir.incarnation, directory = %data_dir.directory,
            data = %data_dir.path.display(), shards = core.shards.all().len(),
            "broker started"
        );
        Ok(Server {
            data_dir,
            shards: core.shards,
            shard_threads: core.threads,
            node: core.node,
            scrub,
            net,
            http,
        })
    }

    /// This broker in its cluster.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// How far the broker is in taking part in its cluster.
    pub fn state(&self) -> watch::Receiver<NodeState> {
        self.node.state()
    }

    /// Stops everything, the doors first, and closes the logs cleanly.
    pub async fn stop(mut self) -> io::Result<()> {
        say_end(&mut self.data_dir);
        self.hand_over().await;
        self.close().await
    }

    /// The same for a broker whose cluster ends with it: nobody is left to hand over to.
    pub async fn close(mut self) -> io::Result<()> {
        say_end(&mut self.data_dir);
        if let Some((until, task)) = self.http {
            until.cancel();
            if tokio::time::timeout(PART_DEADLINE, task).await.is_err() {
                warn!("an HTTP request was still open at the deadline");
            }
        }
        self.net.stop(PART_DEADLINE).await;
        if tokio::time::timeout(PART_DEADLINE, self.node.stop()).await.is_err() {
            warn!("the node had not stopped at the deadline");
        }
        let (threads, scrub) = (self.shard_threads, self.scrub);
        // No deadline here: a log that is not closed cleanly costs more at the next start.
        let stopped = tokio::task::spawn_blocking(|| {
            scrub.into_iter().for_each(scrub::Scrub::stop);
            threads.into_iter().for_each(ShardThread::stop);
        });
        stopped.await.map_err(io::Error::other)?;
        self.data_dir.close()?;
        info!("broker stopped");
        Ok(())
    }

    /// Hands leadership over while the others can still be reached: a planned stop then costs nobody
    /// an election. Whoever does not take it in time will be elected without us.
    async fn hand_over(&self) {
        let led = self.node.routes().led_here();
        let asked = led.iter().filter_map(|news| {
            let shard = self.shards.of(news.partition);
            shard.admin(news.partition, ReplicaCommand::TransferLeader(None)).ok()
        });
        let answers = tokio::time::timeout(HAND_OVER_DEADLINE, join_all(asked)).await;
        let taken = |answer: &Result<Result<AdminReply, WireError>, _>| matches!(answer, Ok(Ok(_)));
        let taken = answers.map_or(0, |answers| answers.iter().filter(|it| taken(it)).count());
        info!(led = led.len(), taken, "leadership handed over");
    }
}

/// What runs on a data directory, the doors included.
struct Inside {
    core: Core,
    scrub: Option<scrub::Scrub>,
    net: Net,
    listen: SocketAddr,
    metrics: Arc<Metrics>,
}

impl Inside {
    async fn start(config: &Config, bound: Bound, data_dir: &mut DataDir) -> io::Result<Inside> {
        let hosting = hosting(config, data_dir)?;
        let metrics = Arc::new(Metrics::default());
        let core = Core::start(config, data_dir, hosting, &metrics).await?;
        // The shards' journals are open, and say which replicas an unclean end may have cost a tail.
        data_dir.settle()?;
        let routes = core.node.routes().clone();
        let scrub = scrub::Scrub::start(routes, Arc::clone(&metrics), config.scrub_bytes_per_s)?;
        let listen = bound.local;
        let rooms = Rooms {
            api: core.api.clone(),
            node: core.node.clone(),
            shards: core.shards.clone(),
            outbox: core.outbox.clone(),
            metrics: Arc::clone(&metrics),
            incarnation: data_dir.incarnation,
        };
        let net = bound.serve(config, rooms)?;
        Ok(Inside { core, scrub, net, listen, metrics })
    }
}

/// Everything behind the doors.
struct Core {
    shards: Shards,
    threads: Vec<ShardThread>,
    outbox: PeerOutbox,
    node: Node,
    api: Api,
}

impl Core {
    async fn start(
        config: &Config,
        data_dir: &DataDir,
        hosting: Hosting,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Core> {
        let disk: Arc<dyn Disk> = Arc::new(MmapDisk::default());
        // Kept back before anybody else takes them.
        disk.spare_files(0)?;
        let flusher = Arc::new(Flusher::new(FLUSH_THREADS)?);
        let routes = Routes::new(config.node.id);
        let clock = Clock::start();
        let others = config.others().map(|peer| peer.id);
        let outbox = PeerOutbox::new(data_dir.incarnation, others, config.limits.shards);
        let mut handles = Vec::new();
        let mut threads = Vec::new();
        for number in 0..config.limits.shards {
            let options = shard_options(config, data_dir, number);
            let surroundings = Surroundings {
                number,
                disk: Arc::clone(&disk),
                flusher: Arc::clone(&flusher),
                outbox: outbox.clone(),
                notices: routes.sink(),
                clock,
                metrics: Arc::clone(metrics),
            };
            let (handle, thread) = thread::start(options, surroundings)?;
            handles.push(handle);
            threads.push(thread);
        }
        let shards = Shards::new(handles);
        let options = node_options(config, data_dir, hosting);
        let (handles, peers) = (shards.clone(), outbox.clone());
        let counted = Arc::clone(metrics);
        let node = Node::start(options, disk, handles, peers, routes, counted).await?;
        let api = Api::new(
            node.clone(),
            ApiOptions {
                produce_bytes_max: PRODUCE_BYTES_MAX,
                disk_reserve_bytes: config.disk_reserve_bytes,
                file: config.written.clone(),
            },
        );
        Ok(Core { shards, threads, outbox, node, api })
    }
}

/// Who is told to stop, or cannot start and says so, has not crashed, even if it is killed on the way.
fn say_end(data_dir: &mut DataDir) {
    if let Err(error) = data_dir.ends() {
        warn!(%error, "this end cannot be noted and may count as a crash");
    }
}

/// A broker that crashes again and again is kept from doing so with data in its hands: it answers for itself,
/// and hosts nothing, until somebody has looked.
fn hosting(config: &Config, data_dir: &mut DataDir) -> io::Result<Hosting> {
    let (max, crashes) = (config.limits.crashes_an_hour_max, data_dir.crashes);
    if max == 0 {
        data_dir.forget_crashes()?;
    }
    if max == 0 || crashes < max {
        return Ok(Hosting::All);
    }
    let me = config.node.id;
    let why = format!(
        "broker {me} crashed {crashes} times within an hour and runs for administration only: its log says why; \
         then start it with `highwater start --after-crashes` (or as always, an hour after the last crash), \
         and take it back with `hw cluster undrain {me}`"
    );
    error!("{why}");
    Ok(Hosting::Nothing(why))
}

fn shard_options(config: &Config, data_dir: &DataDir, number: usize) -> ShardOptions {
    ShardOptions {
        me: config.node.id,
        incarnation: data_dir.incarnation,
        // Two brokers must not draw the same time-outs, nor one broker the same twice.
        seed: (u64::from(config.node.id.0) << 32) ^ (data_dir.incarnation.0 << 8) ^ number as u64,
        heartbeat_ms: config.defaults.heartbeat_ms,
        dir: data_dir.path.join(format!("shard-{number}")),
        stray_dir: strays_dir(&data_dir.path),
        last_life: data_dir.last_life,
        directory: data_dir.used,
        keep_free_bytes: config.disk_reserve_bytes / HARD_RESERVE_PART,
    }
}

fn node_options(config: &Config, data_dir: &DataDir, hosting: Hosting) -> NodeOptions {
    NodeOptions {
        me: config.node.id,
        cluster_id: config.cluster.id.clone(),
        data_dir: data_dir.path.clone(),
        incarnation: data_dir.incarnation,
        directory: data_dir.directory,
        made: data_dir.made,
        controllers: config.cluster.controllers.clone(),
        rack: config.node.rack.clone(),
        client_address: config.advertise.clone(),
        peer_address: config.advertise.clone(),
        session_ms: SESSION_MS,
        log_records_max: LOG_RECORDS_MAX,
        hosting,
        leaders_return_after_ms: Some(LEADERS_RETURN_AFTER_MS),
    }
}

const FLUSH_THREADS: usize = 4;
/// Bytes of produce that wait for their acks at once.
const PRODUCE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Of what is to stay free, this part is out of reach for records even where they come from a leader
/// whose disk has room.
const HARD_RESERVE_PART: u64 = 4;
/// About ten megabytes of the controller's log, read in a fraction of a second.
const LOG_RECORDS_MAX: u64 = 50_000;
/// Longer than a broker takes to find its feet, and than to be fenced.
const LEADERS_RETURN_AFTER_MS: u64 = 10_000;
const SESSION_MS: u64 = 3_000;
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(1);
const PART_DEADLINE: Duration = Duration::from_secs(5);
