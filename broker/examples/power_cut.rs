//! Power cuts of real brokers: each has a file system of its own that is cut off in an instant, so that
//! what was not flushed is gone. Needs root on Linux; everything is mounted in a namespace that vanishes with this process.
//!
//! `cargo build --release -p highwater-broker --bin highwater && cargo run --release -p highwater-broker --features sim --example power_cut -- --seed 1 --cuts 10`

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use common::disks::{Disks, Trouble};
use common::weather::next_random;
use common::{Cluster, edit};
use futures_util::FutureExt;
use highwater_bench::history::Report;
use highwater_bench::recorded::{self, Load, Recording};
use highwater_client::{AckMode, Client, NewTopic, TopicName};
use serde::Serialize;

/// Power cuts of real brokers.
#[derive(Parser)]
struct Args {
    /// The seed of pauses, victims and write-back.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many cuts.
    #[arg(long, default_value_t = 5)]
    cuts: u64,
    /// Whom they hit.
    #[arg(long, default_value = "mixed")]
    victims: Victims,
    /// Before each cut, what one broker's disk suffers, drawn from these; several with commas.
    #[arg(long, value_delimiter = ',')]
    between: Vec<Trouble>,
    /// How large each disk is.
    #[arg(long, default_value_t = 192)]
    disk_mib: u32,
    /// The topic's `flush`: `ack`, or an interval in milliseconds.
    #[arg(long, default_value = "ack")]
    flush: String,
    /// One line of JSON for the run is added to this file.
    #[arg(long, default_value = "power_cut.jsonl")]
    report: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Victims {
    All,
    One,
    Mixed,
}

const NODES: usize = 3;
const TOPIC: &str = "power";
const RESERVE_MIB: u32 = 16;
const INSIDE: &str = "HIGHWATER_POWER_CUT_INSIDE";

fn main() -> ExitCode {
    let args = Args::parse();
    if !rustix::process::geteuid().is_root() {
        eprintln!(
            "power_cut mounts file systems and cuts them off, which only root may do; run it as root"
        );
        return ExitCode::from(2);
    }
    if std::env::var_os(INSIDE).is_none() {
        let own = std::env::current_exe().expect("this program is a file");
        let error = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .arg(own)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        eprintln!("cannot enter a namespace of our own: {error}");
        return ExitCode::from(2);
    }
    if let Some(trouble) = args.between.iter().find(|trouble| !Disks::can(**trouble)) {
        eprintln!("this machine's kernel cannot do {trouble:?} to one process; leave it out");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(run(&args))
}

async fn run(args: &Args) -> ExitCode {
    println!("seed {}", args.seed);
    let mut cluster = Cluster::made(NODES);
    for config in &cluster.created.configs {
        edit(config, "[data]\n", &format!("[data]\nreserve_mib = {RESERVE_MIB}\n"));
    }
    let disks = Disks::make(cluster.dir.path(), NODES, args.disk_mib);
    disks.boot_anew(0);
    (1..=NODES).for_each(|node| cluster.start(node));
    let client = cluster.client().await;
    let topic = NewTopic::new(TOPIC, 4).replication(3).config("flush", args.flush.as_str());
    client.admin().create_topic(topic).await.expect("a healthy cluster makes a topic");
    let history = cluster.dir.path().join("history");
    let recording = Arc::new(Recording::create(&history).expect("the history can be written"));
    let load = Arc::new(load(args.seed));
    let tasks = start_load(&cluster, &client, &recording, &load).await;
    let mut outcome = Outcome::of(args);
    let played = play(args, &mut cluster, &disks, &recording, &mut outcome);
    if AssertUnwindSafe(played).catch_unwind().await.is_err() {
        outcome.failures.push("the run broke off; what it said stands above".to_owned());
    }
    recording.stop();
    tasks.join_all().await;
    let fresh = cluster.client().await;
    let patience = Duration::from_secs(60);
    if let Err(error) = recorded::read_all_in_the_end(&fresh, &recording, &load, patience).await {
        outcome.failures.push(format!("not readable to the end: {error}"));
    }
    Arc::into_inner(recording)
        .expect("all tasks have ended")
        .finish()
        .expect("the history was written");
    outcome.judge(recorded::check(&history).expect("the history can be read"), args);
    outcome.tell(&args.report);
    if outcome.failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("seed {} FAILED: {:?}\n{}", args.seed, outcome.failures, cluster.logs());
    ExitCode::FAILURE
}

/// One cut after another, each once records are acknowledged again after the one before.
async fn play(
    args: &Args,
    cluster: &mut Cluster,
    disks: &Disks,
    recording: &Recording,
    outcome: &mut Outcome,
) {
    let mut random = args.seed;
    let mut one_of = |count: usize| (next_random(&mut random) % count.max(1) as u64) as usize;
    for cut in 1..=args.cuts {
        let acked = recording.acked();
        tokio::time::sleep(Duration::from_millis(1_500 + one_of(2_000) as u64)).await;
        let (sufferer, one) = (one_of(NODES) + 1, one_of(NODES) + 1);
        let all = args.victims == Victims::All || (args.victims == Victims::Mixed && cut % 2 == 1);
        let mut starved = false;
        let mut victims = if all { (1..=NODES).collect() } else { vec![one] };
        if let Some(trouble) = args.between.get(one_of(args.between.len())).copied() {
            suffer(cluster, disks, sufferer, trouble, outcome).await;
            if trouble == Trouble::Starve {
                // It failed for good, and another that loses power with it would be a majority's loss.
                disks.feed(sufferer, args.disk_mib);
                victims = vec![sufferer];
                starved = true;
            }
        }
        let mut random = args.seed ^ cut;
        // What starved has cut itself off.
        for node in victims.iter().filter(|_| !starved) {
            disks.write_some_back(*node, &mut random);
        }
        victims.iter().filter(|_| !starved).for_each(|node| disks.cut(*node));
        victims.iter().for_each(|node| cluster.end(*node));
        victims.iter().for_each(|node| disks.mount_again(*node));
        disks.boot_anew(cut);
        victims.iter().for_each(|node| cluster.start(*node));
        let began = Instant::now();
        let _healthy = cluster.client().await;
        let before = recording.acked();
        cluster
            .eventually("records are acknowledged again", async || {
                (recording.acked() > before + 50).then_some(())
            })
            .await;
        let (before, after_ms) = (before - acked, began.elapsed().as_millis() as u64);
        println!("cut {cut} of {victims:?}: {before} acked before, goes on after {after_ms} ms");
        outcome.cuts.push(Cut { victims, acked_before: before, goes_on_after_ms: after_ms });
    }
}

/// Lets one broker's disk suffer; the others acknowledge records meanwhile or soon after.
async fn suffer(
    cluster: &mut Cluster,
    disks: &Disks,
    node: usize,
    trouble: Trouble,
    outcome: &mut Outcome,
) {
    let suffering = disks.trouble(node, cluster.pid(node), trouble);
    println!("{trouble:?} on the disk of broker {node}");
    *outcome.troubles.entry(format!("{trouble:?}")).or_default() += 1;
    tokio::time::sleep(Duration::from_secs(4)).await;
    // Nothing is unmounted while it is frozen or being emptied.
    suffering.wait();
    // A disk that fails may take its broker with it.
    if trouble != Trouble::Starve && !cluster.runs(node) {
        let last = cluster.last_lines(node, 5).join("\n");
        outcome.failures.push(format!("broker {node} ended of {trouble:?}: {last}"));
    }
}

/// What came of a run. The names of the fields are a promise.
#[derive(Debug, Serialize)]
struct Outcome {
    seed: u64,
    flush: String,
    cuts: Vec<Cut>,
    troubles: BTreeMap<String, u64>,
    history: Report,
    /// Everything that must not be.
    failures: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Cut {
    victims: Vec<usize>,
    acked_before: u64,
    goes_on_after_ms: u64,
}

impl Outcome {
    fn of(args: &Args) -> Outcome {
        Outcome {
            seed: args.seed,
            flush: args.flush.clone(),
            cuts: Vec::new(),
            troubles: BTreeMap::new(),
            history: Report::default(),
            failures: Vec::new(),
        }
    }

    fn judge(&mut self, history: Report, args: &Args) {
        println!("{}", history.page());
        self.failures.extend(history.anomalies.keys().map(|anomaly| anomaly.name().to_owned()));
        let acked = history.acked.values().sum::<u64>();
        if acked <= args.cuts * 300 {
            self.failures.push(format!("vacuous: {acked} records acknowledged"));
        }
        self.history = history;
    }

    fn tell(&self, report: &Path) {
        let line = serde_json::to_string(self).expect("plain data");
        let file = OpenOptions::new().create(true).append(true).open(report);
        let mut file =
            file.unwrap_or_else(|error| panic!("cannot write {}: {error}", report.display()));
        writeln!(file, "{line}").expect("the report can be written");
    }
}

fn load(seed: u64) -> Load {
    Load {
        topic: TopicName::from(TOPIC),
        run: seed as u16,
        rate: 300,
        keys: 100,
        record_bytes: 200,
        delivery_timeout: Duration::from_secs(10),
        reader_lives: Duration::from_secs(7),
    }
}

async fn start_load(
    cluster: &Cluster,
    client: &Client,
    recording: &Arc<Recording>,
    load: &Arc<Load>,
) -> tokio::task::JoinSet<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for (number, acks) in (0..).zip([AckMode::SemiSync, AckMode::Sync]) {
        let (client, recording, load) = (client.clone(), Arc::clone(recording), Arc::clone(load));
        tasks.spawn(async move {
            recorded::produce(&client, &recording, &load, number, acks).await;
        });
    }
    let client = cluster.client().await;
    let (recording, load) = (Arc::clone(recording), Arc::clone(load));
    tasks.spawn(async move { recorded::tail(&client, &recording, &load).await });
    tasks
}
