//! A cluster that is operated while it is used: what a producer and a following reader see of it.
//!
//! Five brokers on this machine, one topic of many partitions with three replicas each, keyed records at a
//! steady rate and a reader that checks loss, repeats and order (`highwater-bench e2e`). Three runs of the
//! bench on one cluster: nothing happens; replicas move all the time; moves while the brokers that matter are killed.
//!
//! `cargo build --release && cargo run --release -p highwater-broker --features sim --example operate -- --rate 1000`

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Parser;
use common::{Cluster, program};
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
    let quiet = site.bench(&args, "before", args.before).end(End::ByItself);
    site.hw(&["partition", "throttle", &args.throttle]);

    let bench = site.bench(&args, "moving", FOR_EVER);
    sleep(WARMUP);
    site.move_all_the_time();
    let moving = bench.end(End::Now);

    let bench = site.bench(&args, "killed", FOR_EVER);
    sleep(WARMUP);
    site.kill_amid_moves();
    let killed = bench.end(End::Now);

    let slower = moving.p99_ms / quiet.p99_ms;
    println!("p99 while moving is {slower:.2} times that before");
    match quiet.clean && moving.clean && killed.clean && slower <= args.slower_max {
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
    clean: bool,
}

impl Site {
    fn begin(args: &Args) -> Site {
        let mut site = Site { cluster: Cluster::started(NODES), begun: Instant::now() };
        site.healthy();
        // Three vote on the metadata, so that any of the others may leave.
        site.hw(&["cluster", "controller", "remove", "4"]);
        site.hw(&["cluster", "controller", "remove", "5"]);
        let partitions = args.partitions.to_string();
        site.hw(&["topic", "create", TOPIC, "--partitions", &partitions, "--replication", "3"]);
        site.healthy();
        let records = (args.preload_mib * 1024).to_string();
        let fill =
            ["produce", "--topic", TOPIC, "--max", "--records", &records, "--warmup", "0", "-q"];
        site.run("highwater-bench", &fill);
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
        self.healthy();
        self.step("evened out with a sixth broker", &["cluster", "balance", "-y"]);
        self.step("broker 5 decommissioned", &["cluster", "decommission", "5", "-y"]);
        self.step("and removed", &["cluster", "remove", "5", "-y"]);
        self.hw(&["partition", "reassign", "--drain", "4", "-y", "--detach"]);
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
        self.hw(&["partition", "reassign", "--drain", "1", "-y", "--detach"]);
        for (role, node) in [("controller", None), ("source", Some(1)), ("target", Some(6))] {
            sleep(Duration::from_secs(2));
            let node = node.unwrap_or_else(|| self.controller());
            let left = self.moves();
            self.cluster.kill(node);
            self.note(&format!("killed broker {node}, the {role}, with {left} moves left"));
            sleep(Duration::from_secs(2));
            self.cluster.start(node);
            self.healthy();
        }
        self.settle();
    }

    fn step(&self, what: &str, command: &[&str]) {
        let begun = Instant::now();
        self.hw(command);
        self.settle();
        self.note(&format!("{what}: {:.1} s", begun.elapsed().as_secs_f64()));
    }

    /// Waits until nothing moves.
    fn settle(&self) {
        while self.moves() > 0 {
            sleep(Duration::from_millis(200));
        }
    }

    /// Who leads the controller, however the cluster is amid its moves.
    fn controller(&self) -> usize {
        let begun = Instant::now();
        while begun.elapsed() < ELECTION_MAX {
            let listed = self.json(&["cluster", "controller", "list"]);
            let voters = listed["brokers"].as_array().expect("a list");
            let leads = voters.iter().find(|voter| voter["controller_leads"] == true);
            if let Some(leader) = leads.and_then(|voter| voter["broker"].as_u64()) {
                return leader as usize;
            }
            sleep(Duration::from_millis(200));
        }
        panic!("nobody leads the controller for {ELECTION_MAX:?}");
    }

    fn moves(&self) -> usize {
        self.json(&["partition", "moves"])["moves"].as_array().expect("a list").len()
    }

    fn healthy(&mut self) {
        let nodes = self.cluster.addresses.len();
        let up = (1..=nodes).filter(|node| self.cluster.is_up(*node)).count().to_string();
        self.hw(&["cluster", "health", "--wait", "--brokers-min", &up]);
    }

    fn bench(&mut self, args: &Args, name: &'static str, seconds: u32) -> Bench {
        let report = self.cluster.dir.path().join(format!("{name}.json"));
        let (rate, seconds) = (args.rate.to_string(), seconds.to_string());
        let mut command = self.command("highwater-bench");
        command.args(["e2e", "--topic", TOPIC, "--rate", &rate, "--acks", &args.acks]);
        command.args(["--keys", "10000", "--warmup", "5", "--duration", &seconds]);
        command.args(["--report-gaps", "--gap-ms", "50", "-q", "--json"]).arg(&report);
        let process = command.stdout(Stdio::null()).spawn().expect("the bench is built");
        Bench { name, report, process }
    }

    fn hw(&self, args: &[&str]) -> Vec<u8> {
        self.run("hw", args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let printed = self.hw(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&printed).expect("hw prints JSON")
    }

    fn run(&self, program: &str, args: &[&str]) -> Vec<u8> {
        let done = self.command(program).args(args).output();
        let done = done.unwrap_or_else(|error| panic!("{program}: {error}: build it first"));
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{program} {args:?}: {}\n{errors}", done.status);
        done.stdout
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program().with_file_name(name));
        command.env("HIGHWATER_PROFILE", &self.cluster.created.profile);
        command
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
            println!("{}", report["verdict"]);
        }
        Seen { p99_ms: ms("p99"), clean }
    }
}

impl Drop for Bench {
    /// What goes wrong in the site must leave no process behind; one that has ended takes no harm.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// So long nobody may lead the controller.
const ELECTION_MAX: Duration = Duration::from_secs(20);
/// Seconds: until it is told to end.
const FOR_EVER: u32 = 100_000;
