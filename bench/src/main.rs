//! `highwater-bench`: load, latency and loss, measured from the client's side.
//!
//! How it measures and what the figures mean stands in `METHOD.md`. Read `workload` (what is sent
//! and when), `produce`, `consume`, `e2e`, `history` (what must hold), `recorder`, `report`; `verifying`
//! is the other half: histories instead of figures.

mod consume;
mod e2e;
mod machine;
mod produce;
mod progress;
mod recorder;
mod report;
mod settings;
mod verifying;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use clap::Parser;
use highwater_bench::history::online as verify;
use highwater_bench::workload;
use highwater_client::{Client, TopicDetail, TopicName};
use serde_json::json;

use consume::{Ours, Until};
use machine::{Environment, Sample};
use produce::{Bookkeeping, Plan, Produced};
use progress::Probe;
use recorder::{Gaps, Window};
use report::{Latencies, Outcome, Report, Totals};
use settings::{Cli, Common, Load, Loop, Mode, Read};
use verify::Verdict;
use workload::Clock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(run(cli));
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(outcome) => ExitCode::from(outcome.exit_code()),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<Outcome> {
    match cli.mode {
        Mode::Produce { common, load } => produce_run(&common, &load).await,
        Mode::E2e { common, load } => e2e_run(&common, &load).await,
        Mode::Consume { common, read } => consume_run(&common, &read).await,
        Mode::Verify { verify } => verifying::run(verify).await,
    }
}

async fn produce_run(common: &Common, load: &Load) -> Result<Outcome> {
    load.check()?;
    let client = common.connect().await?;
    let detail = common.topic(&client).await?;
    let plan = plan(common, load, &detail, Bookkeeping::CountsOnly);
    let gaps = Arc::new(Gaps::new(plan.partitions, load.gap_ms));
    let live = Arc::new(produce::Live::default());
    let probe = Probe::start(&plan, common, Arc::clone(&live), None);
    let produced = produce::run(&client, &plan, &live, &gaps).await?;
    let report = produce_report("produce", common, load, &detail);
    let report = finish_produce(report, &plan, &produced, probe, &live, &gaps).await;
    publish(report, common, load)?.then_clean_up(common, &client).await
}

async fn e2e_run(common: &Common, load: &Load) -> Result<Outcome> {
    load.check()?;
    let client = common.connect().await?;
    let detail = common.topic(&client).await?;
    let consuming = common.connect().await?;
    let plan = plan(common, load, &detail, Bookkeeping::EachRecord);
    let gaps = Arc::new(Gaps::new(plan.partitions, load.gap_ms));
    let live = Arc::new(produce::Live::default());
    let live_consumer = Arc::new(consume::Live::default());
    let probe = Probe::start(&plan, common, Arc::clone(&live), Some(Arc::clone(&live_consumer)));
    let run = e2e::run(&client, &consuming, &plan, &live, &live_consumer, &gaps).await?;
    let report = produce_report("e2e", common, load, &detail);
    let mut report = finish_produce(report, &plan, &run.produced, probe, &live, &gaps).await;
    report.totals.received = run.verdict.received;
    report.latency.intended_to_read = run.consumed.latency.quantiles();
    report.warnings.extend(run.consumed.errors.iter().map(|error| format!("reading: {error}")));
    report.outcome = Outcome::judge(&report.totals, Some(&run.verdict));
    report.verdict = Some(run.verdict);
    publish(report, common, load)?.then_clean_up(common, &client).await
}

async fn consume_run(common: &Common, read: &Read) -> Result<Outcome> {
    let client = common.connect().await?;
    let detail = common.topic(&client).await?;
    let clock = Clock::start();
    let start = clock.now();
    let window = Window { start, end: start.plus_seconds(read.duration) };
    let live = Arc::new(consume::Live::default());
    let before = Sample::read(&common.broker_pids);
    let reader = consume::open(&client, &common.topic, read).await?;
    let until = Until::EndOr(window.end);
    let consumed =
        consume::run(reader, clock, window, Ours::AnyRun, until, Arc::clone(&live)).await?;
    let seconds = consumed
        .first_and_last
        .map_or(0.0, |(first, last)| (last.since(first) as f64 / 1e9).max(1e-9));
    let verdict: Verdict = consumed.verifier.finish_alone();
    let settings = json!({"common": common, "read": read});
    let mut report = blank_report("consume", common, settings, &detail);
    report.window_seconds = seconds;
    report.totals.received = verdict.received;
    if seconds > 0.0 {
        report.totals.records_per_second = verdict.received as f64 / seconds;
        report.totals.bytes_per_second = consumed.bytes as f64 / seconds;
    }
    // Reading a backlog says nothing of how long its records took.
    let read_only =
        |moment: recorder::Moment| recorder::Moment { p50: None, p99: None, max: None, ..moment };
    report.timeline = consumed.latency.timeline().into_iter().map(read_only).collect();
    report.usage = Sample::read(&common.broker_pids).since(&before, seconds, verdict.received);
    report.warnings.extend(consumed.errors.iter().map(|error| format!("reading: {error}")));
    report.outcome = Outcome::judge(&report.totals, Some(&verdict));
    report.verdict = Some(verdict);
    let outcome = report.outcome;
    report.publish(common.json.as_deref(), report::Gaps::Longest)?;
    outcome.then_clean_up(common, &client).await
}

fn plan(common: &Common, load: &Load, detail: &TopicDetail, bookkeeping: Bookkeeping) -> Plan {
    let clock = Clock::start();
    Plan {
        load: load.clone(),
        topic: TopicName::from(common.topic.as_str()),
        partitions: detail.partitions.len() as u32,
        // Runs on one topic must differ; the time and the process make that likely enough.
        run: ((clock.to_unix(clock.now()) / 1_000_000) ^ u64::from(std::process::id())) as u16,
        start: clock.now().plus_seconds(START_AFTER_SECONDS),
        clock,
        bookkeeping,
    }
}

fn blank_report(
    mode: &'static str,
    common: &Common,
    settings: serde_json::Value,
    detail: &TopicDetail,
) -> Report {
    let replication = detail.partitions.first().map_or(0, |partition| partition.replicas.len());
    let now = Sample::read(&[]);
    Report {
        schema: report::SCHEMA,
        mode,
        label: common.label.clone(),
        started: jiff::Timestamp::now().to_string(),
        settings,
        topic: json!({
            "name": common.topic,
            "partitions": detail.partitions.len(),
            "replication": replication,
            "configs": detail.configs.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        }),
        environment: Environment::read(),
        window_seconds: 0.0,
        totals: Totals::default(),
        latency: Latencies::default(),
        timeline: Vec::new(),
        gaps: Vec::new(),
        usage: now.since(&now, 1.0, 1),
        verdict: None,
        warnings: Vec::new(),
        outcome: Outcome::Clean,
    }
}

fn produce_report(
    mode: &'static str,
    common: &Common,
    load: &Load,
    detail: &TopicDetail,
) -> Report {
    let settings = json!({"common": common, "load": load, "loop": load.driven()});
    blank_report(mode, common, settings, detail)
}

async fn finish_produce(
    mut report: Report,
    plan: &Plan,
    produced: &Produced,
    probe: Probe,
    live: &produce::Live,
    gaps: &Gaps,
) -> Report {
    let (records, bytes) = produced.latency.completed();
    let window = plan.window();
    let last = plan.clock.now().min(window.end);
    let seconds = (last.since(window.start) as f64 / 1e9).max(1e-9);
    report.window_seconds = seconds;
    report.totals = Totals {
        sent: live.sent.load(Ordering::Relaxed),
        acked: live.acked.load(Ordering::Relaxed),
        not_written: produced.not_written,
        unknown: produced.unknown,
        written_with_less: produced.written_with_less,
        unsent: produced.unsent,
        received: 0,
        records_per_second: records as f64 / seconds,
        bytes_per_second: bytes as f64 / seconds,
        first_error: produced.first_error.clone(),
    };
    report.latency = Latencies {
        intended_to_ack: produced.latency.quantiles(),
        sent_to_ack: produced.service.quantiles(),
        schedule_delay: produced.delay.quantiles(),
        intended_to_read: None,
    };
    report.timeline = produced.latency.timeline();
    report.gaps = gaps.finish(last);
    report.usage = probe.finish(records).await;
    report.warnings = warnings(plan, &report);
    report.outcome = Outcome::judge(&report.totals, None);
    report
}

/// What makes the figures of a run doubtful.
fn warnings(plan: &Plan, report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    match plan.load.driven() {
        Loop::Open { rate } if report.totals.records_per_second < 0.99 * rate as f64 => {
            warnings.push(format!(
                "{rate} records/s were asked for and {:.0} reached: the latencies are those of an \
                 overloaded system",
                report.totals.records_per_second
            ));
        }
        Loop::Open { .. } => {}
        Loop::Closed => warnings.push(
            "closed loop: a slow answer slows the load, so the latencies hide stalls; use --rate \
             to measure latency"
                .to_owned(),
        ),
    }
    let bench = report.usage.processes.iter().find(|process| process.role == "bench");
    if bench.is_some_and(|bench| bench.cores_busy > 0.8 * report.environment.cores as f64) {
        warnings.push("the bench itself used more than 80 % of the machine".to_owned());
    }
    if report.usage.host_steal > 0.02 {
        warnings.push("the hypervisor took more than 2 % of the machine away".to_owned());
    }
    warnings
}

fn publish(report: Report, common: &Common, load: &Load) -> Result<Outcome> {
    let gaps = if load.report_gaps { report::Gaps::Listed } else { report::Gaps::Longest };
    report.publish(common.json.as_deref(), gaps)?;
    Ok(report.outcome)
}

impl Outcome {
    /// Cleans up after the report is out, and passes the outcome on.
    async fn then_clean_up(self, common: &Common, client: &Client) -> Result<Outcome> {
        common.clean_up(client).await?;
        client.close().await;
        Ok(self)
    }
}

/// Producers need a moment to start their threads before the first record is due.
const START_AFTER_SECONDS: f64 = 0.2;
