//! A cluster that is operated while it is used: what a producer and a following reader see of it.
//!
//! Five brokers on this machine, one topic of many partitions with three replicas each, keyed records at a
//! steady rate and a reader that checks loss, repeats and order (`highwater-bench e2e`). Four runs of the
//! bench on one cluster: nothing happens; replicas move all the time, and what they receive is held against the throttle;
//! every broker is restarted, one after the other; moves while the brokers that matter are killed.
//!
//! `cargo build --release && cargo run --release -p highwater-broker --features sim --example operate -- --rate 1000`

#[path = "../../tests/common/mod.rs"]
mod common;
mod received;

use std::path::PathBuf;
use std::process::{Child, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use common::Cluster;
use highwater_client::{Client, Profiles};
use received::{Flow, OVER, Received};
use serde_json::Value;

/// A cluster that is operated while it is used.
#[derive(Parser)]
struct Args {
    /// Records a second, all keyed.
    #[arg(long, default_value_t = 1000)]
    rate: u32,
    /// How much higher p99 may be while replicas move for the run to succeed.
    #[arg(long, default_value_t = 2.0)]
    slower_max: f64,
    /// `async`, `semi-sync` or `sync`.
    #[arg(long, default_value = "sync")]
    acks: String,
    #[arg(long, default_value_t = 300)]
    partitions: u32,
    /// What lies in the topic before, so that there is something to move.
    #[arg(long, default_value_t = 300)]
    preload_mib: u32,
    /// Bytes a second of moves.
    #[arg(long, default_value = "20MiB")]
    throttle: String,
    /// How many times the throttle moving replicas may receive for the run to succeed.
    #[arg(long, default_value_t = 1.1)]
    over_throttle_max: f64,
    /// Seconds of the run in which nothing happens.
    #[arg(long, default_value_t = 30)]
    before: u32,
}

const NODES: usize = 5;
const TOPIC: &str = "operate";
/// The bench warms up for as long; steps begin afterwards.
const WARMUP: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    let args = Args::parse();
    let mut site = Site::begin(&args);
    // Looks on before as well, so that what looking costs is in both figures.
    let received = site.received();
    let quiet = site.bench(&args, "before", args.before).end(End::ByItself);
    site.cluster.hw(&["partition", "throttle", &args.throttle]);

    let bench = site.bench(&args, "moving", FOR_EVER);
    sleep(WARMUP);
    site.move_all_the_time();
    let throttled = site.judge_throttle(&args, &received.end());
    let moving = bench.end(End::Now);

    let bench = site.bench(&args, "restart", FOR_EVER);
    sleep(WARMUP);
    site.restart_one_by_one();
    let restarted = bench.end(End::Now);

    let bench = site.bench(&args, "killed", FOR_EVER);
    sleep(WARMUP);
    site.kill_amid_moves();
    let killed = bench.end(End::Now);

    let slower = moving.p99_ms / quiet.p99_ms;
    println!("p99 while moving is {slower:.2} times that before");
    let clean = [&quiet, &moving, &restarted, &killed].iter().all(|seen| seen.clean);
    // A kill may cost a reader an answer; a restart that somebody asked for may not.
    let unnoticed = restarted.failed_fetches == 0;
    match clean && unnoticed && throttled && slower <= args.slower_max {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A cluster, and who operates it.
struct Site {
    cluster: Cluster,
    begun: Instant,
}

/// The bench beside whatever else is done.
struct Bench {
    name: &'static str,
    report: PathBuf,
    process: Child,
}

/// How a run of the bench comes to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    ByItself,
    Now,
}

/// What came of a run.
struct Seen {
    p99_ms: f64,
    /// Every record was acknowledged, and arrived, once and in order.
    clean: bool,
    /// Errors that the reader was given.
    failed_fetches: usize,
}

impl Site {
    fn begin(args: &Args) -> Site {
        let mut site = Site { cluster: Cluster::started(NODES), begun: Instant::now() };
        site.cluster.healthy();
        // Three vote on the metadata, so that any of the others may leave.
        site.cluster.hw(&["cluster", "controller", "remove", "4"]);
        site.cluster.hw(&["cluster", "controller", "remove", "5"]);
        let partitions = args.partitions.to_string();
        site.cluster.hw(&[
            "topic",
            "create",
            TOPIC,
            "--partitions",
            &partitions,
            "--replication",
            "3",
        ]);
        site.cluster.healthy();
        let records = (args.preload_mib * 1024).to_string();
        let fill =
            ["produce", "--topic", TOPIC, "--max", "--records", &records, "--warmup", "0", "-q"];
        site.cluster.run("highwater-bench", &fill);
        site.note(&format!("{} MiB in {partitions} partitions", args.preload_mib));
        site
    }

    /// What an operator does in a busy week.
    fn move_all_the_time(&mut self) {
        self.step("everything off broker 2", &["partition", "reassign", "--drain", "2", "-y"]);
        self.step("evened out", &["cluster", "balance", "-y"]);
        self.step("broker 3 drained", &["cluster", "drain", "3"]);
        self.step("and taken back", &["cluster", "undrain", "3"]);
        self.cluster.join();
        self.cluster.healthy();
        self.step("evened out with a sixth broker", &["cluster", "balance", "-y"]);
        self.step("broker 5 decommissioned", &["cluster", "decommission", "5", "-y"]);
        self.step("and removed", &["cluster", "remove", "5", "-y"]);
        self.cluster.hw(&["partition", "reassign", "--drain", "4", "-y", "--detach"]);
        sleep(Duration::from_secs(6));
        let left = self.moves();
        self.step(
            "everything off broker 4, cancelled half-way",
            &["partition", "cancel", "--all", "-y"],
        );
        self.note(&format!("{left} moves were left by then"));
    }

    /// The leader of the controller, the source and a target are killed, one after another.
    fn kill_amid_moves(&mut self) {
        self.cluster.hw(&["partition", "reassign", "--drain", "1", "-y", "--detach"]);
        for (role, node) in [("controller", None), ("source", Some(1)), ("target", Some(6))] {
            sleep(Duration::from_secs(2));
            let node = node.unwrap_or_else(|| self.cluster.controller_leader());
            let left = self.moves();
            self.cluster.kill(node);
            self.note(&format!("killed broker {node}, the {role}, with {left} moves left"));
            sleep(Duration::from_secs(2));
            self.cluster.start(node);
            self.cluster.healthy();
        }
        self.settle();
    }

    /// Every broker that is left, with the next one only when all is well again.
    fn restart_one_by_one(&mut self) {
        for node in 1..=self.cluster.addresses.len() {
            if self.cluster.is_up(node) {
                let begun = Instant::now();
                assert!(self.cluster.stop(node), "it ends well\n{}", self.cluster.logs());
                self.cluster.start(node);
                self.cluster.healthy();
                let seconds = begun.elapsed().as_secs_f64();
                self.note(&format!("broker {node} restarted: {seconds:.1} s"));
            }
        }
    }

    /// Looks at what moving replicas receive, by a client of its own.
    fn received(&self) -> Received {
        let profiles = Profiles::load_from(&self.cluster.created.profile).expect("init wrote it");
        let config = profiles.get(None).expect("one profile").config();
        let client =
            async move || Client::connect(config).await.expect("the cluster is well").admin();
        Received::watch(client)
    }

    /// Whether moving replicas received no more than the throttle says, or little.
    fn judge_throttle(&self, args: &Args, flow: &Flow) -> bool {
        let holds = self.cluster.hw_json(&["partition", "throttle"]);
        let set = holds["throttles"][0]["bytes_per_s"].as_f64().expect("it was set");
        let mib = |bytes: f64| bytes / f64::from(1 << 20);
        let copying = flow.copying().as_secs_f64();
        println!(
            "moving replicas received {:.0} MiB in {copying:.1} s: {:.1} MiB/s, {:.1} MiB/s at most over {} s, where {:.1} \
             are allowed",
            mib(flow.bytes() as f64),
            mib(flow.bytes() as f64 / copying),
            mib(flow.highest()),
            OVER.as_secs(),
            mib(set)
        );
        flow.bytes() > 0 && flow.highest() <= set * args.over_throttle_max
    }

    fn step(&self, what: &str, command: &[&str]) {
        let begun = Instant::now();
        self.cluster.hw(command);
        self.settle();
        self.note(&format!("{what}: {:.1} s", begun.elapsed().as_secs_f64()));
    }

    /// Waits until nothing moves.
    fn settle(&self) {
        while self.moves() > 0 {
            sleep(Duration::from_millis(200));
        }
    }

    fn moves(&self) -> usize {
        self.cluster.hw_json(&["partition", "moves"])["moves"].as_array().expect("a list").len()
    }

    fn bench(&mut self, args: &Args, name: &'static str, seconds: u32) -> Bench {
        let report = self.cluster.dir.path().join(format!("{name}.json"));
        let (rate, seconds) = (args.rate.to_string(), seconds.to_string());
        let mut command = self.cluster.command("highwater-bench");
        command.args(["e2e", "--topic", TOPIC, "--rate", &rate, "--acks", &args.acks]);
        command.args(["--keys", "10000", "--warmup", "5", "--duration", &seconds]);
        command.args(["--report-gaps", "--gap-ms", "50", "-q", "--json"]).arg(&report);
        let process = command.stdout(Stdio::null()).spawn().expect("the bench is built");
        Bench { name, report, process }
    }

    fn note(&self, what: &str) {
        println!("{:>8.1?}  {what}", self.begun.elapsed());
    }
}

impl Bench {
    fn end(mut self, end: End) -> Seen {
        if end == End::Now {
            let pid = rustix::process::Pid::from_child(&self.process);
            let told = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            told.expect("it is ours");
        }
        self.process.wait().expect("it was started");
        let report = std::fs::read(&self.report).expect("the bench writes its report");
        let report: Value = serde_json::from_slice(&report).expect("and writes JSON");
        let ms = |what: &str| {
            let us = report["latency"]["intended_to_ack"][what].as_f64();
            us.expect("a time") / 1000.0
        };
        let clean = report["outcome"] == "clean";
        println!(
            "{:>8}: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, longest {:.1} ms; {} of {} acknowledged, {} read; \
             processors {:.0} % busy; {}",
            self.name,
            ms("p50"),
            ms("p99"),
            ms("p99_9"),
            ms("max"),
            report["totals"]["acked"],
            report["totals"]["sent"],
            report["verdict"]["received"],
            100.0 * report["usage"]["host_busy"].as_f64().unwrap_or_default(),
            report["outcome"],
        );
        if !clean {
            println!("{} {}", report["verdict"], report["totals"]);
        }
        let warnings = report["warnings"].as_array().expect("a list").iter();
        let failed = warnings.filter_map(Value::as_str).filter(|it| it.starts_with("reading: "));
        let failed: Vec<&str> = failed.collect();
        failed.iter().for_each(|failed| println!("          {failed}"));
        Seen { p99_ms: ms("p99"), clean, failed_fetches: failed.len() }
    }
}

impl Drop for Bench {
    /// What goes wrong in the site must leave no process behind; one that has ended takes no harm.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Seconds: until it is told to end.
const FOR_EVER: u32 = 100_000;
