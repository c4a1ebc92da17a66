//! How soon the metadata can be written again after the leader of the controller died.
//!
//! Three brokers on this machine, a topic of so many partitions of one replica each. Again and again the broker
//! that leads the controller is killed by SIGKILL, and at once a topic is made by way of the others; time runs
//! from the kill to the end of `hw`, its start included. Ends with 1 if one of them took longer than the limit.
//!
//! `cargo build --release && cargo run --release -p highwater-broker --features sim --example controller_failover`

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use common::Cluster;

/// How soon the metadata can be written again after the leader of the controller died.
#[derive(Parser)]
struct Args {
    /// What the controller has to know.
    #[arg(long, default_value_t = 10_000)]
    partitions: u32,
    /// How often its leader is killed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Milliseconds that it may take.
    #[arg(long, default_value_t = 1_000.0)]
    limit_ms: f64,
}

const NODES: usize = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut cluster = Cluster::started(NODES);
    cluster.healthy();
    let begun = Instant::now();
    let partitions = args.partitions.to_string();
    cluster.hw(&["topic", "create", "all", "--partitions", &partitions, "--replication", "1"]);
    let made = begun.elapsed();
    cluster.healthy();
    println!(
        "{partitions} partitions made in {made:.1?}, all led {:.1?} later",
        begun.elapsed() - made
    );

    let mut first = Vec::new();
    for round in 1..=args.kills {
        let leader = cluster.controller_leader();
        let others: Vec<String> = (1..=NODES)
            .filter(|node| *node != leader)
            .map(|node| cluster.addresses[node - 1].to_string())
            .collect();
        let others = others.join(",");
        let killed = Instant::now();
        cluster.kill(leader);
        let took = make_topic(&cluster, &others, &format!("first-{round}"), killed);
        let next = make_topic(&cluster, &others, &format!("next-{round}"), Instant::now());
        println!(
            "broker {leader} killed: a topic is made after {took:.0} ms, the next one takes {next:.0} ms"
        );
        first.push(took);
        cluster.start(leader);
        cluster.healthy();
    }
    first.sort_unstable_by(f64::total_cmp);
    let (median, longest) = (first[first.len() / 2], first[first.len() - 1]);
    println!(
        "metadata are writable again after {median:.0} ms (median of {}), {longest:.0} ms at most; the limit is {:.0} ms",
        args.kills, args.limit_ms
    );
    match longest <= args.limit_ms {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Makes a topic; gives the milliseconds from `since` to its end.
fn make_topic(cluster: &Cluster, bootstrap: &str, name: &str, since: Instant) -> f64 {
    let create = ["topic", "create", name, "--partitions", "1", "--replication", "1"];
    cluster.hw(&[&["--bootstrap", bootstrap], &create[..]].concat());
    since.elapsed().as_secs_f64() * 1_000.0
}
