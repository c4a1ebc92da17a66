//! Real broker processes for tests: free ports, a directory of their own, killed by process id.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod chaos;
pub mod disks;

pub mod limits;
pub mod links;
pub mod load;
pub mod operator;
pub mod tail;
pub mod terminal;
pub mod weather;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use highwater_broker::init::{Created, Plan, PlannedNode};
use highwater_client::{Client, Offset, PartitionId, Profiles, ReaderConfig, StartAt};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

/// A cluster of broker processes; dropping it kills them.
pub struct Cluster {
    pub dir: TempDir,
    pub created: Created,
    pub addresses: Vec<SocketAddr>,
    children: Vec<Option<Child>>,
    /// Brokers whose data lies on a file system of its own, of so many MiB.
    small_disks_mib: BTreeMap<usize, u32>,
    /// What brokers run instead of the program of these tests.
    programs: BTreeMap<usize, PathBuf>,
}

impl Cluster {
    /// A cluster that is made but not started.
    pub fn made(nodes: usize) -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let addresses: Vec<SocketAddr> = (0..nodes).map(|_| free_port()).collect();
        let node = |at: &SocketAddr| PlannedNode { address: at.to_string(), http: None };
        let plan = Plan { dir: dir.path().to_owned(), nodes: addresses.iter().map(node).collect() };
        let created = plan.create().expect("an empty directory takes a cluster");
        Cluster::of(dir, addresses, created)
    }

    /// A cluster that another build has made, and whose brokers run it until they are told otherwise.
    pub fn made_by(other: &Path, nodes: usize) -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let addresses: Vec<SocketAddr> = (0..nodes).map(|_| free_port()).collect();
        let mut init = Command::new(other);
        init.arg("init").arg("--dir").arg(dir.path());
        for at in &addresses {
            init.args(["--address", &at.to_string()]);
        }
        let made = init.output().expect("the other program is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let config = |node: usize| dir.path().join(format!("node-{node}/config.toml"));
        let created = Created {
            cluster: "only the other build knows it".to_owned(),
            configs: (1..=nodes).map(config).collect(),
            profile: dir.path().join("admin/profile.toml"),
        };
        let mut cluster = Cluster::of(dir, addresses, created);
        (1..=nodes).for_each(|node| cluster.use_program(node, Some(other)));
        cluster
    }

    fn of(dir: TempDir, addresses: Vec<SocketAddr>, created: Created) -> Cluster {
        let children = addresses.iter().map(|_| None).collect();
        let (small_disks_mib, programs) = (BTreeMap::new(), BTreeMap::new());
        Cluster { dir, created, addresses, children, small_disks_mib, programs }
    }

    /// What a broker runs, from its next start on; `None` is the program of these tests.
    pub fn use_program(&mut self, node: usize, other: Option<&Path>) {
        self.programs.remove(&node);
        self.programs.extend(other.map(|other| (node, other.to_owned())));
    }

    /// What a broker runs, if that is another build than the program of these tests.
    pub fn other_program(&self, node: usize) -> Option<&Path> {
        self.programs.get(&node).map(PathBuf::as_path)
    }

    /// When this broker is started, it finds its data on a small file system that only it sees and
    /// that vanishes with it. Whatever becomes of the test, nothing stays mounted.
    pub fn use_small_disk(&mut self, node: usize, mib: u32) {
        self.small_disks_mib.insert(node, mib);
    }

    /// The data directory of a running broker as that broker sees it.
    pub fn data_dir(&self, node: usize) -> PathBuf {
        let seen = self.dir.path().join(format!("node-{node}/data"));
        let within = seen.strip_prefix("/").expect("temporary directories are absolute");
        PathBuf::from(format!("/proc/{}/root", self.pid(node))).join(within)
    }

    /// The process of a broker.
    pub fn pid(&self, node: usize) -> u32 {
        self.children[node - 1].as_ref().expect("it was started").id()
    }

    /// Whether a broker's process runs.
    pub fn runs(&mut self, node: usize) -> bool {
        let child = self.children[node - 1].as_mut().expect("it was started");
        child.try_wait().expect("it is ours").is_none()
    }

    /// How a broker's process ended, if it did so by itself; it can be started again then.
    pub fn bury(&mut self, node: usize) -> Option<ExitStatus> {
        let exit = self.children[node - 1].as_mut()?.try_wait().expect("it is ours")?;
        self.children[node - 1] = None;
        Some(exit)
    }

    /// Whether a broker is started and was neither stopped nor killed, nor ended by itself.
    pub fn is_up(&mut self, node: usize) -> bool {
        self.children[node - 1].is_some() && self.runs(node)
    }

    /// A cluster with every broker started.
    pub fn started(nodes: usize) -> Cluster {
        let mut cluster = Cluster::made(nodes);
        for node in 1..=nodes {
            cluster.start(node);
        }
        cluster
    }

    /// Invites one more broker and starts it by the invitation, as its operator would; gives its
    /// number.
    pub fn join(&mut self) -> usize {
        let (node, address) = (self.addresses.len() + 1, free_port());
        let invitation = self.dir.path().join(format!("node-{node}.invitation"));
        let mut invite = Command::new(program());
        invite.arg("invite").arg("--dir").arg(self.dir.path());
        let invited = invite.args(["--address", &address.to_string()]).output();
        let invited = invited.expect("the broker's program is there");
        assert!(invited.status.success(), "{}", String::from_utf8_lossy(&invited.stderr));
        let dir = self.dir.path().join(format!("joined-{node}"));
        self.addresses.push(address);
        self.created.configs.push(dir.join("config.toml"));
        self.children.push(None);
        let mut command = Command::new(program());
        command.arg("start").arg("--join").arg(invitation).arg("--dir").arg(dir);
        self.spawn(node, command);
        node
    }

    /// Starts one broker, numbered from 1.
    pub fn start(&mut self, node: usize) {
        self.start_with(node, &[]);
    }

    /// Starts one broker with some more arguments.
    pub fn start_with(&mut self, node: usize, arguments: &[&str]) {
        let config = &self.created.configs[node - 1];
        let program = self.programs.get(&node).cloned().unwrap_or_else(program);
        let broker = start_of(&program, config);
        let mut command = match self.small_disks_mib.get(&node) {
            None => broker,
            Some(mib) => {
                on_small_disk(&self.dir.path().join(format!("node-{node}/data")), *mib, broker)
            }
        };
        command.args(arguments);
        self.spawn(node, command);
    }

    fn spawn(&mut self, node: usize, mut command: Command) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log(node))
            .expect("the log can be written");
        // Tests kill brokers on purpose, and often.
        let child = command
            .arg("--after-crashes")
            .arg("--with-parent")
            .arg(std::process::id().to_string())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the broker's program is there");
        self.children[node - 1] = Some(child);
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.children[node - 1].take().expect("it was started");
        child.kill().expect("it is ours");
        child.wait().expect("it was killed");
    }

    /// SIGKILL, unless it has ended by itself.
    pub fn end(&mut self, node: usize) {
        if self.bury(node).is_none() && self.children[node - 1].is_some() {
            self.kill(node);
        }
    }

    /// SIGKILL to all brokers before any of them is waited for.
    pub fn kill_all(&mut self) {
        for child in self.children.iter_mut().flatten() {
            child.kill().expect("it is ours");
        }
        for mut child in self.children.iter_mut().filter_map(Option::take) {
            child.wait().expect("it was killed");
        }
    }

    /// SIGTERM, and waits until the process has ended; says whether it ended well. One that does not
    /// end is killed.
    pub fn stop(&mut self, node: usize) -> bool {
        let mut child = self.children[node - 1].take().expect("it was started");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is ours");
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if let Some(exit) = child.try_wait().expect("it is ours") {
                return exit.success();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("it is ours");
        child.wait().expect("it was killed");
        false
    }

    /// A connected client of a cluster in which every broker is registered.
    pub async fn client(&self) -> Client {
        let profiles = Profiles::load_from(&self.created.profile).expect("init wrote it");
        let config = profiles.get(None).expect("one profile").config();
        let wanted = self.children.iter().flatten().count();
        self.eventually("the cluster is healthy", async || {
            let client = Client::connect(config.clone()).await.ok()?;
            let cluster = client.admin().cluster().await.ok()?;
            let alive = cluster.brokers.iter().filter(|broker| !broker.fenced).count();
            (alive >= wanted && cluster.controller.is_some()).then_some(client)
        })
        .await
    }

    /// Waits until a broker's process has ended by itself.
    pub async fn eventually_ended(&mut self, node: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.runs(node) {
            assert!(Instant::now() < deadline, "broker {node} goes on\n{}", self.logs());
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until something holds; shows the brokers' logs if it never does.
    pub async fn eventually<T>(&self, what: &str, mut holds: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Ok(Some(found)) = timeout(PATIENCE, holds()).await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("not within {PATIENCE:?}: {what}\n{}", self.logs());
    }

    /// The last lines of every broker's log.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for node in 1..=self.children.len() {
            let last = self.last_lines(node, 30).join("\n");
            text.push_str(&format!("--- broker {node}\n{last}\n"));
        }
        text
    }

    /// The last lines of a broker's log.
    pub fn last_lines(&self, node: usize, count: usize) -> Vec<String> {
        let log = std::fs::read(self.log(node)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].iter().map(|line| line.to_string()).collect()
    }

    /// Where a broker's log is.
    pub fn log(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("broker-{node}.log"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for mut child in self.children.iter_mut().filter_map(Option::take) {
            // It may have ended by itself; either way it is gone afterwards.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The same command in a mount namespace of its own, where `dir` is a small file system with what
/// was in it.
fn on_small_disk(dir: &Path, mib: u32, command: Command) -> Command {
    let script = format!(
        r#"set -e
        mkdir -p "$1.small"
        mount -t tmpfs -o size={mib}m,mode=0755 small "$1.small"
        cp -a "$1/." "$1.small/"
        mount --move "$1.small" "$1"
        shift
        exec "$@""#
    );
    let mut wrapped = private_mounts();
    wrapped.args(["sh", "-c", &script, "sh"]).arg(dir).arg(command.get_program());
    wrapped.args(command.get_args());
    wrapped
}

/// Runs what follows as the root of a user and mount namespace of its own.
fn private_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]);
    command
}

/// Whether this machine lets us mount in private: containers often don't.
pub fn can_mount_in_private() -> bool {
    let tried = private_mounts().args(["mount", "-t", "tmpfs", "small", "/mnt"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// The broker's program. Cargo builds it for tests and says where it is; an example looks beside
/// itself.
pub fn program() -> PathBuf {
    let told = option_env!("CARGO_BIN_EXE_highwater").map(PathBuf::from);
    told.unwrap_or_else(|| {
        let example = std::env::current_exe().expect("this program is a file");
        let dir = example.parent().and_then(Path::parent).expect("it lies in target/*/examples");
        let program = dir.join("highwater");
        assert!(program.is_file(), "{} is missing: build the broker first", program.display());
        program
    })
}

/// Whether the program was built with crash points.
pub fn has_crash_points(program: &Path) -> bool {
    let help = Command::new(program).args(["start", "--help"]).output();
    let help = help.expect("the broker's program is there");
    String::from_utf8_lossy(&help.stdout).contains("--crash-at")
}

/// The command that starts a broker.
pub fn broker(config: &Path) -> Command {
    start_of(&program(), config)
}

fn start_of(program: &Path, config: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("start").arg("--config").arg(config);
    command
}

/// A port of the loopback that nobody has at the moment.
pub fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("the loopback has free ports");
    socket.local_addr().expect("it was bound")
}

/// Where a record lies.
pub type Place = (PartitionId, Offset);

/// Every record of a topic, each at one place.
pub async fn read_all(client: &Client, topic: &str) -> BTreeMap<Place, String> {
    let config = ReaderConfig::new(topic, StartAt::Start).until_end();
    let mut reader = client.reader(config).await.expect("a reader");
    let mut read = BTreeMap::new();
    while let Some(batch) =
        timeout(PATIENCE, reader.next_batch()).await.expect("in time").expect("readable")
    {
        for record in &batch {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            let before = read.insert((batch.partition, record.offset), value);
            assert_eq!(before, None, "{} was read twice", record.offset);
        }
    }
    read
}

/// Changes a file that must hold what is to be changed.
pub fn edit(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).expect("it is there");
    assert!(text.contains(from), "{from:?} is not in {text}");
    std::fs::write(file, text.replace(from, to)).expect("it is ours");
}

pub const PATIENCE: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(60);
