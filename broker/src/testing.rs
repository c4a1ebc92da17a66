//! Brokers for the tests of programs: real ones, within the test's own process.
//!
//! A dev-dependency on `highwater-broker` with `features = ["testing"]`, and a test is:
//!
//! ```
//! use highwater_broker::testing::TestCluster;
//! use highwater_client::{NewTopic, ProducerConfig, Record};
//!
//! # /*
//! #[tokio::test]
//! # */
//! # #[tokio::main]
//! async fn an_order_is_kept() -> Result<(), Box<dyn std::error::Error>> {
//!     let cluster = TestCluster::start().await?;
//!     let client = cluster.client().await?;
//!     client.admin().create_topic(NewTopic::new("orders", 3)).await?;
//!     let producer = client.producer(ProducerConfig::default());
//!     let done = producer.send_and_wait(Record::to("orders").value("one")).await?;
//!     assert_eq!(done.offset.0, 0);
//!     Ok(())
//! }
//! # an_order_is_kept().unwrap();
//! ```
//!
//! What is real: the code of the broker from its socket to its files, QUIC with certificates that were made for this cluster,
//! elections, `fdatasync`. What differs from a cluster of processes: brokers stop, but nobody can kill them (for that, start
//! the program `highwater`); one that finds an invariant broken or its disk failing ends the whole test process. What it does to
//! the process: the soft limit of open files is raised to the hard one, and SIGBUS gets a handler that passes on what is not ours.
//! What brokers log goes to the `tracing` subscriber of the test, if there is one.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use highwater_client::{Client, ClientConfig, Error, Profiles};
use tempfile::TempDir;
use tokio::sync::oneshot;
use toml::{Table, Value};

use crate::config::Config;
use crate::init::files::attempt;
use crate::init::{Plan, PlannedNode};
use crate::net::{Bound, take_port};
use crate::node::{Node, NodeState};
use crate::server::Server;

/// Brokers that run in this process on ports that the system chose. Dropping it stops them, waits until they have
/// stopped, and removes their directory.
pub struct TestCluster {
    brokers: Vec<Broker>,
    client: ClientConfig,
    profile: PathBuf,
    dir: Arc<TempDir>,
}

/// What a [`TestCluster`] is to be like.
#[derive(Debug, Clone)]
pub struct TestClusterBuilder {
    brokers: usize,
    beneath: PathBuf,
    settings: Vec<(String, String)>,
}

/// A broker, running or not.
struct Broker {
    config: PathBuf,
    /// Goes with the last who uses it, also where nobody waits any more for a broker to stop.
    dir: Arc<TempDir>,
    /// Held while the broker is stopped too, so that nobody else gets the port.
    socket: UdpSocket,
    running: Option<Running>,
}

/// How a broker is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The others go on.
    Alone,
    /// With all others.
    Together,
}

/// A running broker: a thread that has the runtime on which all of it lives.
struct Running {
    node: Node,
    stop: oneshot::Sender<Ending>,
    thread: JoinHandle<io::Result<()>>,
}

impl TestCluster {
    /// One broker, ready.
    ///
    /// # Errors
    /// As for [`TestClusterBuilder::start`].
    pub async fn start() -> io::Result<TestCluster> {
        TestCluster::builder().start().await
    }

    /// To say more about the cluster before it starts.
    pub fn builder() -> TestClusterBuilder {
        // Next to nothing is written in tests: it need not be read again, nor much room be kept.
        let settings =
            [("data.reserve_mib", "8"), ("data.scrub_mib_per_s", "0"), ("limits.shards", "1")];
        TestClusterBuilder {
            brokers: 1,
            beneath: std::env::temp_dir(),
            settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }

    /// A connected client that may do everything.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub async fn client(&self) -> Result<Client, Error> {
        Client::connect(self.client_config()).await
    }

    /// How to connect, for programs that do so themselves.
    pub fn client_config(&self) -> ClientConfig {
        self.client.clone()
    }

    /// A profile for programs that are started by the test: what `HIGHWATER_PROFILE` names.
    pub fn profile(&self) -> &Path {
        &self.profile
    }

    /// Where everything of this cluster lies, in `node-1` and so on.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until all brokers that run take part in the cluster and know of each other. It does not come to that
    /// where fewer run than a majority of the controllers, which are the first one, three or five brokers.
    ///
    /// # Errors
    /// Where a broker cannot go on, or half a minute was not enough.
    pub async fn ready(&self) -> io::Result<()> {
        let running = || self.brokers.iter().filter_map(|broker| broker.running.as_ref());
        let all = async {
            for broker in running() {
                serving(&broker.node).await?;
            }
            for broker in running() {
                let mut changes = broker.node.image_changes();
                let knows = |it: &Running| {
                    let me = it.node.options().me;
                    broker.node.image().broker(me).is_some_and(|known| !known.fenced)
                };
                while !running().all(knows) {
                    changes.changed().await.map_err(io::Error::other)?;
                }
            }
            Ok(())
        };
        let late = |_| {
            io::Error::other(format!("the brokers did not find each other within {PATIENCE:?}"))
        };
        tokio::time::timeout(PATIENCE, all).await.map_err(late)?
    }

    /// Stops a broker as its operator would, and waits until it has: it hands over what it leads, and closes its logs.
    /// They are numbered from 1.
    ///
    /// # Errors
    /// Where it had failed before, or its end did not go well.
    ///
    /// # Panics
    /// If there is no such broker, or it does not run.
    pub async fn stop_broker(&mut self, number: usize) -> io::Result<()> {
        let running = self.broker(number).running.take();
        let running = running.unwrap_or_else(|| panic!("broker {number} is stopped already"));
        let thread = running.told_to_stop(Ending::Alone);
        let joined =
            tokio::task::spawn_blocking(|| thread.join()).await.map_err(io::Error::other)?;
        joined.map_err(|_| io::Error::other(format!("broker {number} panicked")))?
    }

    /// Starts a broker that was stopped, on the same port and with all that it has; [`TestCluster::ready`] waits until
    /// it takes part.
    ///
    /// # Errors
    /// Where it cannot start.
    ///
    /// # Panics
    /// If there is no such broker, or it runs.
    pub async fn start_broker(&mut self, number: usize) -> io::Result<()> {
        let broker = self.broker(number);
        assert!(broker.running.is_none(), "broker {number} runs already");
        broker.running = Some(broker.begin().await?);
        Ok(())
    }

    fn broker(&mut self, number: usize) -> &mut Broker {
        let brokers = self.brokers.len();
        let broker = number.checked_sub(1).and_then(|at| self.brokers.get_mut(at));
        broker.unwrap_or_else(|| panic!("there is no broker {number}: they are 1 to {brokers}"))
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let running = self.brokers.iter_mut().filter_map(|broker| broker.running.take());
        let threads: Vec<_> = running.map(|it| it.told_to_stop(Ending::Together)).collect();
        for thread in threads {
            // Whoever wants to know how it ended stops it before.
            let _ = thread.join();
        }
    }
}

impl TestClusterBuilder {
    /// How many brokers; 1 if nothing is said.
    pub fn brokers(mut self, brokers: usize) -> TestClusterBuilder {
        self.brokers = brokers;
        self
    }

    /// Sets a key of every broker's configuration file, such as `limits.shards`, to a value as it stands there; quotes
    /// around text may be left out where it does not read as a number or another value. What `hw cluster config` and topics set is set through [`Client::admin`].
    pub fn config(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> TestClusterBuilder {
        self.settings.push((key.into(), value.into()));
        self
    }

    /// The directory in which that of the cluster is made; that for temporary files if nothing is said. Where
    /// it lies in memory, as `/dev/shm` does, a flush costs nothing, and what is measured holds for no disk.
    pub fn beneath(mut self, dir: impl Into<PathBuf>) -> TestClusterBuilder {
        self.beneath = dir.into();
        self
    }

    /// Makes the cluster, starts all brokers, and waits until they are ready.
    ///
    /// # Errors
    /// Where the configuration is wrong, or the directory or a port cannot be had.
    pub async fn start(self) -> io::Result<TestCluster> {
        let mut cluster = self.make()?;
        for broker in &mut cluster.brokers {
            broker.running = Some(broker.begin().await?);
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    fn make(&self) -> io::Result<TestCluster> {
        let made = tempfile::Builder::new().prefix("highwater-test-").tempdir_in(&self.beneath);
        let dir = made.map_err(|error| attempt("make a directory in", &self.beneath, &error))?;
        let dir = Arc::new(dir);
        let any = || take_port((Ipv4Addr::LOCALHOST, 0).into());
        let sockets = (0..self.brokers).map(|_| any()).collect::<io::Result<Vec<_>>>()?;
        let node = |socket: &UdpSocket| {
            let address = socket.local_addr()?.to_string();
            Ok(PlannedNode { address, http: None })
        };
        let nodes = sockets.iter().map(node).collect::<io::Result<Vec<_>>>()?;
        let created = Plan { dir: dir.path().to_owned(), nodes }.create()?;
        let mut brokers = Vec::new();
        for (config, socket) in created.configs.into_iter().zip(sockets) {
            self.settle(&config)?;
            brokers.push(Broker { config, dir: dir.clone(), socket, running: None });
        }
        let profiles = Profiles::load_from(&created.profile).map_err(io::Error::other)?;
        let client = profiles.get(None).map_err(io::Error::other)?.config();
        Ok(TestCluster { brokers, client, profile: created.profile, dir })
    }

    /// Writes the settings into the configuration of a broker.
    fn settle(&self, file: &Path) -> io::Result<()> {
        let text = std::fs::read_to_string(file).map_err(|error| attempt("read", file, &error))?;
        let mut whole: Table = text.parse().map_err(io::Error::other)?;
        for (key, value) in &self.settings {
            let mut names: Vec<&str> = key.split('.').collect();
            let last = names.pop().expect("splitting gives one part at least");
            let mut table = &mut whole;
            for name in names {
                let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
                let no_table = || io::Error::other(format!("{key}: {name} holds no other keys"));
                table = inner.as_table_mut().ok_or_else(no_table)?;
            }
            table.insert(last.to_owned(), literal(value));
        }
        let written = std::fs::write(file, whole.to_string());
        written.map_err(|error| attempt("write", file, &error))
    }
}

impl Broker {
    async fn begin(&self) -> io::Result<Running> {
        let config = Config::load(&self.config).map_err(io::Error::other)?;
        let socket = self.socket.try_clone()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("edge")
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let (started, node) = oneshot::channel();
        let dir = self.dir.clone();
        let live = move || {
            let outcome = runtime.block_on(live(&config, socket, (started, stopped)));
            // With the runtime go the sockets, whatever still waits.
            runtime.shutdown_timeout(LAST_TASKS);
            drop(dir);
            outcome
        };
        let thread = std::thread::Builder::new().name("broker".to_owned()).spawn(live)?;
        let node = node.await.map_err(|_| io::Error::other("a broker panicked at its start"))??;
        Ok(Running { node, stop, thread })
    }
}

impl Running {
    /// The thread, which ends soon.
    fn told_to_stop(self, how: Ending) -> JoinHandle<io::Result<()>> {
        // It may have ended by itself.
        let _ = self.stop.send(how);
        self.thread
    }
}

/// The life of a broker, told of when it runs.
async fn live(
    config: &Config,
    socket: UdpSocket,
    (started, stopped): (oneshot::Sender<io::Result<Node>>, oneshot::Receiver<Ending>),
) -> io::Result<()> {
    let start = async { Server::start_on(Bound::on(socket, config)?, config).await };
    let server = match start.await {
        Ok(server) => server,
        Err(error) => {
            let _ = started.send(Err(error));
            return Ok(());
        }
    };
    let mut state = server.state();
    // Nobody may wait for it any more; then nobody holds the other end either, and it stops at once.
    let _ = started.send(Ok(server.node().clone()));
    let failed = async move {
        match state.wait_for(|state| matches!(state, NodeState::Failed(_))).await.as_deref() {
            Ok(NodeState::Failed(reason)) => reason.clone(),
            Ok(NodeState::Starting | NodeState::Serving) | Err(_) => "the node has gone".to_owned(),
        }
    };
    let outcome = tokio::select! {
        // Where nobody can tell it any more, its cluster was given up while it started.
        how = stopped => Ok(how.unwrap_or(Ending::Together)),
        reason = failed => Err(io::Error::other(reason)),
    };
    match outcome {
        Ok(Ending::Alone) => server.stop().await,
        Ok(Ending::Together) => server.close().await,
        Err(reason) => server.close().await.and(Err(reason)),
    }
}

/// Waits until a broker takes part.
async fn serving(node: &Node) -> io::Result<()> {
    let mut state = node.state();
    let gone = |_| io::Error::other("a broker has gone while it was waited for");
    let settled = state.wait_for(|state| *state != NodeState::Starting).await.map_err(gone)?;
    match &*settled {
        NodeState::Failed(reason) => Err(io::Error::other(reason.clone())),
        NodeState::Starting | NodeState::Serving => Ok(()),
    }
}

/// A value as it would stand in the file, or as text.
fn literal(value: &str) -> Value {
    let parsed = format!("value = {value}").parse::<Table>().ok();
    let literal = parsed.and_then(|mut table| table.remove("value"));
    literal.unwrap_or_else(|| Value::String(value.to_owned()))
}

/// Starts take a fraction of a second; on a machine with too much to do, a few.
const PATIENCE: Duration = Duration::from_secs(30);
const LAST_TASKS: Duration = Duration::from_secs(5);
