//! `verify run` and `verify check`: a load that is written down, and the judgement of what was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use highwater_bench::history::Report;
use highwater_bench::recorded::{self, Recording};
use highwater_bench::workload::STAMP_BYTES;
use highwater_client::{AckMode, Client, TopicName};
use serde_json::json;
use tokio::task::JoinSet;

use crate::report::Outcome;
use crate::settings::{Acks, Common};

/// What to do with a history.
#[derive(Debug, Subcommand)]
pub enum Verify {
    /// Write and read while things happen to the cluster, record every operation, and judge the history
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<Run>),
    /// Judge a history that was recorded
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
}

/// A run to be recorded.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    common: Common,
    /// The ack modes, several with commas; each has its own producers
    #[arg(long, value_delimiter = ',', default_values = ["async", "semi-sync", "sync"])]
    acks: Vec<Acks>,
    /// Producers of each mode
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    producers: u8,
    /// Records a second of each producer
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Readers of all partitions, besides the final one
    #[arg(long, default_value_t = 2)]
    readers: u8,
    /// Begin anew with a reader after so many seconds
    #[arg(long, default_value_t = 10.0)]
    reader_lives: f64,
    /// Give records one of N keys, evenly at random
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Bytes of each record's value
    #[arg(long, default_value_t = 100)]
    record_bytes: usize,
    /// Seconds of writing
    #[arg(long, default_value_t = 60.0)]
    duration: f64,
    /// Seconds after which a record is given up
    #[arg(long, default_value_t = 15.0)]
    delivery_timeout: f64,
    /// Seconds to wait in the end until everything acknowledged is readable
    #[arg(long, default_value_t = 60.0)]
    drain: f64,
    /// The file to write the history to
    #[arg(long, value_name = "FILE", default_value = "highwater.history")]
    history: PathBuf,
}

/// A history to be judged.
#[derive(Debug, Args)]
pub struct Check {
    /// The history
    #[arg(value_name = "FILE")]
    history: PathBuf,
    /// Write the report as JSON into this file; `-` for the standard output instead of the page
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Does what was asked for.
pub async fn run(verify: Verify) -> Result<Outcome> {
    match verify {
        Verify::Run(run) => record(&run).await,
        Verify::Check(check) => judge(&check.history, check.json.as_deref()),
    }
}

async fn record(run: &Run) -> Result<Outcome> {
    let bytes = run.record_bytes;
    ensure!(bytes >= STAMP_BYTES, "--record-bytes must be at least {STAMP_BYTES}");
    ensure!(run.duration > 0.0 && run.drain >= 0.0, "--duration must be more than 0");
    ensure!(run.delivery_timeout > 0.0, "--delivery-timeout must be more than 0");
    let producers = run.acks.len() * usize::from(run.producers);
    ensure!(producers <= usize::from(u8::MAX), "{producers} producers are more than 255");
    let client = run.common.connect().await?;
    run.common.topic(&client).await?;
    let attempt = || format!("cannot write the history {}", run.history.display());
    let recording = Arc::new(Recording::create(&run.history).with_context(attempt)?);
    let load = Arc::new(recorded::Load {
        topic: TopicName::from(run.common.topic.as_str()),
        run: (std::process::id() ^ jiff::Timestamp::now().as_millisecond() as u32) as u16,
        rate: run.rate,
        keys: run.keys,
        record_bytes: run.record_bytes,
        delivery_timeout: Duration::from_secs_f64(run.delivery_timeout),
        reader_lives: Duration::from_secs_f64(run.reader_lives),
    });
    let tasks = start(run, &client, &recording, &load).await?;
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < run.duration {
        tokio::time::sleep(Duration::from_secs(1).min(Duration::from_secs_f64(run.duration))).await;
        if !run.common.quiet {
            eprintln!("{:>4.0} s  {} acked", began.elapsed().as_secs_f64(), recording.acked());
        }
    }
    recording.stop();
    tasks.join_all().await;
    let fresh = run.common.connect().await?;
    let patience = Duration::from_secs_f64(run.drain);
    let read = recorded::read_all_in_the_end(&fresh, &recording, &load, patience).await;
    let recording = Arc::into_inner(recording).expect("all tasks have ended");
    recording.finish().with_context(attempt)?;
    read.context("the topic cannot be read to its end")?;
    let outcome = judge(&run.history, run.common.json.as_deref())?;
    run.common.clean_up(&client).await?;
    Ok(outcome)
}

/// Starts producers and readers; readers have connections of their own.
async fn start(
    run: &Run,
    client: &Client,
    recording: &Arc<Recording>,
    load: &Arc<recorded::Load>,
) -> Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let modes = run.acks.iter().flat_map(|acks| (0..run.producers).map(|_| AckMode::from(*acks)));
    for (number, acks) in (0..).zip(modes) {
        let (client, recording, load) = (client.clone(), Arc::clone(recording), Arc::clone(load));
        tasks.spawn(async move {
            recorded::produce(&client, &recording, &load, number, acks).await;
        });
    }
    for _ in 0..run.readers {
        let client = run.common.connect().await?;
        let (recording, load) = (Arc::clone(recording), Arc::clone(load));
        tasks.spawn(async move { recorded::tail(&client, &recording, &load).await });
    }
    Ok(tasks)
}

fn judge(history: &Path, json: Option<&Path>) -> Result<Outcome> {
    let began = Instant::now();
    let report: Report = recorded::check(history)?;
    let took = began.elapsed().as_secs_f64();
    let document =
        json!({"schema": SCHEMA, "history": history, "seconds": took, "report": &report});
    let document = serde_json::to_string_pretty(&document).context("the report is plain data")?;
    match json {
        Some(path) if path.as_os_str() == "-" => println!("{document}"),
        Some(path) => {
            let attempt = || format!("cannot write the report to {}", path.display());
            std::fs::write(path, document + "\n").with_context(attempt)?;
            print!("{}", report.page());
        }
        None => print!("{}", report.page()),
    }
    eprintln!("{} operations judged in {took:.2} s", report.operations);
    Ok(if report.is_clean() { Outcome::Clean } else { Outcome::Anomaly })
}

const SCHEMA: &str = "highwater.history/1";

const RUN_EXAMPLES: &str = "\
Examples:
  highwater-bench verify run --create --replication 3 --duration 60
  highwater-bench verify run -t audit --acks sync --config flush=ack --history audit.history --json -

Kill, cut off or upgrade brokers meanwhile. Records that were acknowledged with async and lost in a failover are
counted, not held against the cluster. Nothing may be trimmed from the topic meanwhile.

Exit codes: 0 nothing wrong; 1 could not run; 2 wrong usage; 3 anomalies";

const CHECK_EXAMPLES: &str = "\
Examples:
  highwater-bench verify check highwater.history
  highwater-bench verify check highwater.history --json - | jq .report.anomalies";
