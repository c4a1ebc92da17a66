//! One run: a cluster is made, loaded, tormented by the plan, healed, and judged.
//!
//! Whatever becomes of it, and be it a panic in here, it ends as an `Outcome`, and nothing of it runs on.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use highwater_bench::history::Report;
use highwater_bench::recorded::{self, Load, Recording};
use highwater_client::{AckMode, Client, TopicName};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::Cluster;
use super::builds::Keepsake;
use super::judge::{TOPIC, Topic};
use super::plan::{self, Fault, Script, Step};
use super::stage::{Death, Stage};

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub script: Script,
    pub nodes: usize,
    pub seconds: u64,
    pub menu: Vec<Fault>,
    /// The program of another build: all brokers begin with it.
    pub other: Option<PathBuf>,
    /// Where what a failed run leaves is kept, in a directory of its own: the history, and the brokers' logs and files.
    pub keep: Option<PathBuf>,
}

/// What came of it. The names of the fields are a promise.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub seed: u64,
    pub script: Script,
    pub nodes: usize,
    pub seconds: u64,
    pub steps: Vec<Step>,
    /// How often each fault was fired.
    pub fired: BTreeMap<&'static str, u64>,
    /// What exactly was done to files, and what could not be done.
    pub notes: Vec<String>,
    /// Brokers that ended by themselves.
    pub deaths: Vec<Death>,
    pub datagrams_touched: u64,
    pub acked: u64,
    #[serde(flatten)]
    pub healing: Healing,
    pub history: Report,
    /// Everything that must not be.
    pub failures: Vec<String>,
    /// Where the evidence of a failed run lies.
    pub kept: Option<PathBuf>,
}

/// What was seen once the faults were over.
#[derive(Debug, Default, Serialize)]
pub struct Healing {
    /// Terms that began, over all partitions.
    pub elections: u64,
    /// How long until every partition took a record, and until all replicas were alike.
    pub accepts_after_ms: Option<u64>,
    pub converged_after_ms: Option<u64>,
    /// And until every replica could read all that it has.
    pub whole_after_ms: Option<u64>,
    /// Records in the logs of all replicas together, each read by itself.
    pub replica_records: u64,
    /// Records written before any broker left the other build that were read again in the end.
    pub read_again: u64,
}

/// Plays a plan to its end.
pub async fn run(options: &Options) -> Outcome {
    let steps =
        plan::steps(options.script, options.seed, options.nodes, options.seconds, &options.menu);
    let mut stage = Stage::new(options.nodes, options.seed, options.other.as_deref());
    let path = stage.cluster.dir.path().join("history");
    let recording = Arc::new(Recording::create(&path).expect("the history can be written"));
    let mut healing = Healing::default();
    let played = play(options, &steps, &mut stage, &recording, &mut healing);
    let limit = Duration::from_secs(options.seconds) + AFTERWARDS_MAX;
    // What breaks off here belongs to this run alone, and what was recorded until then is judged all the same.
    match AssertUnwindSafe(timeout(limit, played)).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => stage.failures.push(format!("the run does not end within {limit:?}")),
        Err(panic) => stage.failures.push(format!("the run broke off: {}", words(&*panic))),
    }
    stage.look_for_the_dead();
    stage.cluster.kill_all();
    let acked = recording.acked();
    let history = judged(recording, &path).await.unwrap_or_else(|what| {
        stage.failures.push(what);
        Report::default()
    });
    stage.failures.extend(history.anomalies.keys().map(|anomaly| anomaly.name().to_owned()));
    let mut outcome = Outcome {
        seed: options.seed,
        script: options.script,
        nodes: options.nodes,
        seconds: options.seconds,
        steps,
        fired: stage.fired,
        notes: stage.notes,
        deaths: stage.deaths,
        datagrams_touched: stage.links.touched(),
        acked,
        healing,
        history,
        failures: stage.failures,
        kept: None,
    };
    outcome.check_not_vacuous();
    if !outcome.failures.is_empty() {
        eprintln!("{}", stage.cluster.logs());
        let kept = options.keep.as_ref().map(|dir| dir.join(format!("chaos-{}", options.seed)));
        outcome.kept = kept.filter(|dir| keep(stage.cluster.dir.path(), dir));
    }
    outcome
}

async fn play(
    options: &Options,
    steps: &[Step],
    stage: &mut Stage,
    recording: &Arc<Recording>,
    healing: &mut Healing,
) {
    (1..=options.nodes).for_each(|node| stage.cluster.start(node));
    let topic = Topic::create(&stage.cluster).await;
    let keepsake = match options.other {
        None => None,
        Some(_) => Some(Keepsake::leave(&topic.client).await),
    };
    let load = Arc::new(load(options.seed));
    let tasks = start_load(&stage.cluster, &topic.client, recording, &load).await;
    let terms_before = topic.terms(options.nodes).await;
    stage.play(steps, &topic).await;
    stage.heal();
    let healed = Instant::now();
    healing.accepts_after_ms = stage.until_all_accept(&topic, healed).await;
    recording.stop();
    if timeout(Duration::from_secs(60), tasks.join_all()).await.is_err() {
        stage.failures.push("producers and readers do not end".to_owned());
    }
    healing.converged_after_ms = stage.until_alike(&topic, healed).await;
    healing.whole_after_ms = stage.until_whole(&topic, healed).await;
    healing.elections = topic.terms(options.nodes).await.saturating_sub(terms_before);
    stage.drain(recording, &load).await;
    if let Some(keepsake) = keepsake {
        healing.read_again = stage.look_for(&keepsake).await;
    }
    healing.replica_records = stage.read_replicas(recording, &topic, load.run);
}

fn load(seed: u64) -> Load {
    Load {
        topic: TopicName::from(TOPIC),
        run: seed as u16,
        rate: 150,
        keys: 100,
        record_bytes: 200,
        delivery_timeout: Duration::from_secs(8),
        reader_lives: Duration::from_secs(7),
    }
}

/// A producer for each ack mode and two readers, each side with connections of its own.
async fn start_load(
    cluster: &Cluster,
    client: &Client,
    recording: &Arc<Recording>,
    load: &Arc<Load>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (number, acks) in (0..).zip([AckMode::Async, AckMode::SemiSync, AckMode::Sync]) {
        let (client, recording, load) = (client.clone(), Arc::clone(recording), Arc::clone(load));
        tasks.spawn(async move {
            recorded::produce(&client, &recording, &load, number, acks).await;
        });
    }
    for _ in 0..2 {
        let client = cluster.client().await;
        let (recording, load) = (Arc::clone(recording), Arc::clone(load));
        tasks.spawn(async move { recorded::tail(&client, &recording, &load).await });
    }
    tasks
}

/// Closes the history and judges it. Tasks that were broken off may hold on to it for a moment.
async fn judged(mut recording: Arc<Recording>, path: &Path) -> Result<Report, String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let recording = loop {
        match Arc::try_unwrap(recording) {
            Ok(alone) => break alone,
            Err(_) if Instant::now() > deadline => {
                return Err("somebody still writes the history".to_owned());
            }
            Err(shared) => recording = shared,
        }
        sleep(Duration::from_millis(20)).await;
    };
    recording.finish().map_err(|error| format!("the history was not written: {error}"))?;
    recorded::check(path).map_err(|error| error.to_string())
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

/// Copies a run's directory; holes in its files stay holes.
fn keep(dir: &Path, to: &Path) -> bool {
    let _ = std::fs::remove_dir_all(to);
    let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(dir).arg(to).status();
    copied.is_ok_and(|status| status.success())
}

impl Outcome {
    /// A run that proves something has reached so much.
    fn check_not_vacuous(&mut self) {
        let wanted = self.seconds * 100;
        if self.acked < wanted {
            self.failures
                .push(format!("vacuous: {} records acknowledged, not {wanted}", self.acked));
        }
        let planned = self.steps.iter().filter(|step| step.fault == Fault::OtherBuild).count();
        let changed = self.fired.get(Fault::OtherBuild.name()).copied().unwrap_or_default();
        if changed < planned as u64 {
            self.failures.push(format!("vacuous: {changed} of {planned} changes of builds"));
        }
        let records = self.healing.replica_records;
        if records < self.acked {
            self.failures.push(format!("vacuous: only {records} records in all replicas"));
        }
    }
}

/// From the end of the plan to the report: the longest of everything in it, and room.
const AFTERWARDS_MAX: Duration = Duration::from_secs(480);
