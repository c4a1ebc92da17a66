//! `highwater dev`: a cluster of three real brokers on this machine, for trying things out.
//!
//! The brokers are processes like any other, with certificates, flushes and all: nothing is made
//! easier or faster for them. This process starts them, sends records through the real client and
//! checks that they come back, and then waits; when it ends, however that comes about, they end too.

mod brokers;
mod control;
mod report;
mod round_trip;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use highwater_client::{Client, Profile, Profiles};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Config;
use crate::init::{Plan, PlannedNode};
use brokers::Brokers;
use control::{Asked, Listener, Request};

/// What `highwater dev` is told.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// Where the cluster lives; a folder of the user's where none is given
    #[arg(long, value_name = "DIR", global = true)]
    dir: Option<PathBuf>,
    /// The first of the ports (three UDP, then three TCP for metrics); free ones where none is given
    #[arg(long, value_name = "BASE")]
    ports: Option<u16>,
    /// End after the round trip: 0 where every record came back, 1 where not
    #[arg(long)]
    once: bool,
    /// Records to send in each ack mode
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    records: u32,
    /// Keep the data of a run with --once
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Kill a broker of the running cluster, as a power cut would
    Kill {
        /// Which one
        node: u32,
    },
    /// Start a broker of the running cluster again, killing it first if it runs
    Restart {
        /// Which one
        node: u32,
    },
    /// Show the brokers of the running cluster
    Status,
}

/// Runs it.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // The brokers are tied to the thread that starts them, and `block_on` stays on this one.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let request = match arguments.command {
        None => return runtime.block_on(supervise(arguments)),
        Some(Command::Kill { node }) => Request::Kill(node),
        Some(Command::Restart { node }) => Request::Restart(node),
        Some(Command::Status) => Request::Status,
    };
    let dir = arguments.dir.map_or_else(default_dir, Ok)?;
    runtime.block_on(async {
        print!("{}", control::ask(&dir, request).await?);
        Ok(ExitCode::SUCCESS)
    })
}

async fn supervise(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (dir, passing) = match (&arguments.dir, arguments.once) {
        (Some(dir), _) => (dir.clone(), false),
        (None, false) => (default_dir()?, false),
        // A passing check leaves the user's own cluster alone.
        (None, true) => (passing_dir(), !arguments.keep),
    };
    let code = run_cluster(&dir, passing, &arguments).await;
    if passing && code.as_ref().is_ok_and(|code| *code == ExitCode::SUCCESS) {
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    } else if passing {
        eprintln!("what there is to look at lies in {}", dir.display());
    }
    code
}

async fn run_cluster(dir: &Path, passing: bool, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let configs = init_if_needed(dir, arguments.ports)?;
    let listener = Listener::bind(dir).await?;
    println!("starting three brokers in {}", dir.display());
    let mut brokers = Brokers::start(&configs)?;
    let outcome = async {
        let mut ended = Ended::listen()?;
        let checked = tokio::select! {
            checked = check(dir, &mut brokers, arguments.records) => checked?,
            () = ended.wait() => return Ok(ExitCode::FAILURE),
        };
        if arguments.once || checked == Checked::RecordsLost {
            return Ok(checked.into());
        }
        if !passing {
            use_profile(dir)?;
        }
        report::invite(&brokers, dir);
        serve(&listener, &mut brokers, &mut ended).await;
        Ok(ExitCode::SUCCESS)
    }
    .await;
    brokers.stop().await;
    outcome
}

/// Whether every record came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    AllCameBack,
    RecordsLost,
}

impl From<Checked> for ExitCode {
    fn from(checked: Checked) -> ExitCode {
        match checked {
            Checked::AllCameBack => ExitCode::SUCCESS,
            Checked::RecordsLost => ExitCode::FAILURE,
        }
    }
}

/// Waits until the cluster is healthy and sends records through it in every ack mode.
async fn check(dir: &Path, brokers: &mut Brokers, records: u32) -> anyhow::Result<Checked> {
    let since = Instant::now();
    let client = connect(dir, brokers).await?;
    println!("healthy after {} ms\n", since.elapsed().as_millis());
    let trips = round_trip::in_every_mode(&client, records).await?;
    client.close().await;
    report::table(&trips);
    if trips.iter().all(round_trip::Trip::is_whole) {
        println!("every record came back, in order\n");
        Ok(Checked::AllCameBack)
    } else {
        println!("RECORDS WERE LOST, REPEATED OR OUT OF ORDER\n");
        Ok(Checked::RecordsLost)
    }
}

async fn connect(dir: &Path, brokers: &mut Brokers) -> anyhow::Result<Client> {
    let profile = profile(dir)?;
    let deadline = Instant::now() + HEALTHY_WITHIN;
    let mut reason = "no broker answered".to_owned();
    while Instant::now() < deadline {
        brokers.check_running()?;
        match timeout(Duration::from_secs(5), healthy(&profile, brokers.len())).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => reason = format!("{error:#}"),
            Err(_) => {}
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!(
        "the cluster was not healthy within {HEALTHY_WITHIN:?}: {reason}\n{}",
        brokers.last_words()
    )
}

async fn healthy(profile: &Profile, wanted: usize) -> anyhow::Result<Client> {
    let client = Client::connect(profile.config().client_id("highwater-dev")).await?;
    let cluster = client.admin().cluster().await?;
    let alive = cluster.brokers.iter().filter(|broker| !broker.fenced).count();
    if cluster.controller.is_none() {
        bail!("no controller is elected yet");
    }
    if alive < wanted {
        bail!("{alive} of {wanted} brokers are registered");
    }
    Ok(client)
}

/// Carries out what other `highwater dev` commands ask for, until the user has had enough.
async fn serve(listener: &Listener, brokers: &mut Brokers, ended: &mut Ended) {
    loop {
        tokio::select! {
            stream = listener.accept() => {
                let Some(asked) = Asked::read(stream).await else { continue };
                let answer = match asked.request {
                    Request::Kill(node) => brokers.kill(node).await,
                    Request::Restart(node) => brokers.restart(node).await,
                    Request::Status => Ok(report::status(brokers)),
                };
                match answer {
                    Ok(text) => {
                        print!("{text}");
                        asked.answer(Ok(&text)).await;
                    }
                    Err(error) => asked.answer(Err(&format!("{error:#}"))).await,
                }
            }
            () = sleep(Duration::from_millis(500)) => {
                for news in brokers.deaths() {
                    println!("{news}");
                }
            }
            () = ended.wait() => {
                println!("\nstopping the brokers; start them again with the same data by the same command");
                return;
            }
        }
    }
}

/// The signals that end us.
struct Ended {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Ended {
    fn listen() -> anyhow::Result<Ended> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Ended { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn init_if_needed(dir: &Path, ports: Option<u16>) -> anyhow::Result<Vec<PathBuf>> {
    let configs: Vec<PathBuf> =
        (1..=NODES).map(|node| dir.join(format!("node-{node}/config.toml"))).collect();
    if !dir.join("ca.pem").exists() {
        let nodes = (0..NODES).map(|node| plan_node(node, ports)).collect::<Result<_, _>>()?;
        let plan = Plan { dir: dir.to_owned(), nodes };
        plan.create().with_context(|| format!("make a cluster in {}", dir.display()))?;
    } else if let Some(base) = ports {
        let config = Config::load(&configs[0])?;
        if config.listen.port() != base {
            bail!(
                "the cluster in {} was made with ports from {}; leave --ports out, or give \
                 another --dir",
                dir.display(),
                config.listen.port()
            );
        }
    }
    Ok(configs)
}

fn plan_node(node: u16, ports: Option<u16>) -> anyhow::Result<PlannedNode> {
    let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let (quic, http) = match ports {
        Some(base) => (local(base + node), local(base + NODES + node)),
        None => (
            UdpSocket::bind(local(0)).and_then(|socket| socket.local_addr())?,
            TcpListener::bind(local(0)).and_then(|socket| socket.local_addr())?,
        ),
    };
    Ok(PlannedNode { address: quic.to_string(), http: Some(http) })
}

fn profile(dir: &Path) -> anyhow::Result<Profile> {
    let file = dir.join("admin/profile.toml");
    Ok(Profiles::load_from(&file)?.get(None)?.clone())
}

/// Makes this cluster the one that `hw` speaks to.
fn use_profile(dir: &Path) -> anyhow::Result<()> {
    let mut profiles = Profiles::load()?;
    let dir = std::path::absolute(dir)?;
    profiles.profiles.insert("dev".to_owned(), profile(&dir)?);
    profiles.current = Some("dev".to_owned());
    let path = profiles.save()?;
    println!("profile `dev` is current in {}", path.display());
    Ok(())
}

fn default_dir() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let state = variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state")))
        .context("no place for the cluster: give --dir, or set HOME")?;
    Ok(state.join("highwater-dev"))
}

fn passing_dir() -> PathBuf {
    std::env::temp_dir().join(format!("highwater-dev-{}", std::process::id()))
}

const NODES: u16 = 3;
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);
