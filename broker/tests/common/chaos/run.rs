//! One run: a cluster is made, loaded, tormented by the plan, healed, and judged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use highwater_bench::history::Report;
use highwater_bench::recorded::{self, Load, Recording};
use highwater_client::{
    AckMode, Client, DigestRange, NewTopic, NodeId, PartitionId, ProducerConfig, Record, TopicId,
    TopicName, TopicPartition,
};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::LogIndex;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::links::Links;
use super::super::weather::Weather;
use super::super::{Cluster, PATIENCE};
use super::plan::{self, Fault, Script, Step, Victim};
use super::replicas;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    pub seed: u64,
    pub script: Script,
    pub nodes: usize,
    pub seconds: u64,
    pub menu: Vec<Fault>,
    /// Where the history stays; it goes with the cluster without one.
    pub history: Option<PathBuf>,
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
    pub datagrams_touched: u64,
    /// Terms that began, over all partitions.
    pub elections: u64,
    pub acked: u64,
    /// After healing, how long until every partition took a record and until all replicas were alike.
    pub accepts_after_ms: Option<u64>,
    pub converged_after_ms: Option<u64>,
    /// And until every replica could read all that it has.
    pub whole_after_ms: Option<u64>,
    /// Records in the logs of all replicas together, each read by itself.
    pub replica_records: u64,
    pub history: Report,
    /// Everything that must not be.
    pub failures: Vec<String>,
}

/// Plays a plan to its end.
pub async fn run(options: &Options) -> Outcome {
    let (cluster, links, client, id) = start(options.nodes).await;
    let path = options.history.clone().unwrap_or_else(|| cluster.dir.path().join("history"));
    let recording = Arc::new(Recording::create(&path).expect("the history can be written"));
    let load = Arc::new(load(options.seed));
    let tasks = start_load(&cluster, &client, &recording, &load).await;
    let steps =
        plan::steps(options.script, options.seed, options.nodes, options.seconds, &options.menu);
    let terms_before = terms(&client, options.nodes, id).await;
    let mut stage = Stage::new(cluster, links, client, options);
    stage.play(&steps).await;
    stage.heal();
    let healed = Instant::now();
    let accepts_after_ms = stage.until_all_accept(healed).await;
    recording.stop();
    if timeout(Duration::from_secs(60), tasks.join_all()).await.is_err() {
        stage.failures.push("producers and readers do not end".to_owned());
    }
    let converged_after_ms = stage.until_alike(healed, id).await;
    let whole_after_ms = stage.until_whole(healed, id).await;
    let elections = terms(&stage.client, options.nodes, id).await.saturating_sub(terms_before);
    stage.drain(&recording, &load).await;
    let (acked, datagrams_touched) = (recording.acked(), stage.links.touched());
    let replica_records = stage.read_replicas(&recording, id, load.run);
    let Stage { cluster, fired, notes, mut failures, .. } = stage;
    let history = match Arc::into_inner(recording) {
        Some(recording) => {
            recording.finish().expect("the history was written");
            recorded::check(&path).expect("the history can be read")
        }
        None => Report::default(),
    };
    failures.extend(history.anomalies.keys().map(|anomaly| anomaly.name().to_owned()));
    if !failures.is_empty() {
        eprintln!("{}", cluster.logs());
    }
    Outcome {
        seed: options.seed,
        script: options.script,
        nodes: options.nodes,
        seconds: options.seconds,
        steps,
        fired,
        notes,
        datagrams_touched,
        elections,
        acked,
        accepts_after_ms,
        converged_after_ms,
        whole_after_ms,
        replica_records,
        history,
        failures,
    }
}

/// A cluster behind its relays, with the topic.
async fn start(nodes: usize) -> (Cluster, Links, Client, TopicId) {
    let mut cluster = Cluster::made(nodes);
    let links = Links::between(&cluster).and_clients(&cluster);
    (1..=nodes).for_each(|node| cluster.start(node));
    let client = cluster.client().await;
    let topic = NewTopic::new(TOPIC, PARTITIONS)
        .replication(3)
        .config("segment.bytes", "1048576")
        .config("max.message.bytes", "65536");
    client.admin().create_topic(topic).await.expect("a healthy cluster makes a topic");
    let id = cluster
        .eventually("every partition is led", async || {
            let detail = client.admin().describe_topic(TOPIC).await.ok()?;
            detail.partitions.iter().all(|it| it.leader.is_some()).then_some(detail.id)
        })
        .await;
    (cluster, links, client, id)
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

/// The sum of the highest terms of all partitions.
async fn terms(client: &Client, nodes: usize, id: TopicId) -> u64 {
    let mut sum = 0;
    for partition in (0..PARTITIONS).map(PartitionId) {
        let mut highest = 0;
        for node in (1..=nodes).map(|node| NodeId(node as u32)) {
            let described = client.admin().describe_partition_on(node, id, partition).await;
            highest = described.map_or(highest, |it| highest.max(u64::from(it.term.0)));
        }
        sum += highest;
    }
    sum
}

/// Everything that the plan acts upon.
struct Stage {
    cluster: Cluster,
    links: Links,
    client: Client,
    nodes: usize,
    seed: u64,
    /// Whom a step has hit, until it ends.
    hit: BTreeMap<usize, usize>,
    down: Vec<usize>,
    fired: BTreeMap<&'static str, u64>,
    notes: Vec<String>,
    failures: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cue {
    Ends,
    Begins,
}

impl Stage {
    fn new(cluster: Cluster, links: Links, client: Client, options: &Options) -> Stage {
        Stage {
            cluster,
            links,
            client,
            nodes: options.nodes,
            seed: options.seed,
            hit: BTreeMap::new(),
            down: Vec::new(),
            fired: BTreeMap::new(),
            notes: Vec::new(),
            failures: Vec::new(),
        }
    }

    async fn play(&mut self, steps: &[Step]) {
        let began = Instant::now();
        let mut cues: Vec<(u64, Cue, usize)> = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            cues.push((step.at_ms, Cue::Begins, number));
            cues.push((step.at_ms + step.for_ms, Cue::Ends, number));
        }
        cues.sort_unstable();
        for (at_ms, cue, number) in cues {
            sleep_until(began + Duration::from_millis(at_ms)).await;
            match cue {
                Cue::Begins => self.begin(number, steps[number]).await,
                Cue::Ends => self.end(number, steps[number].fault),
            }
            self.look_for_the_dead();
        }
    }

    async fn begin(&mut self, number: usize, step: Step) {
        let Some(node) = self.node(step.victim).await else {
            self.notes.push(format!("nobody leads at {} ms", step.at_ms));
            return;
        };
        if self.down.contains(&node) {
            self.notes.push(format!("broker {node} is down already at {} ms", step.at_ms));
            return;
        }
        self.hit.insert(number, node);
        match step.fault {
            Fault::Kill => self.kill(node),
            Fault::Stop => {
                if !self.cluster.stop(node) {
                    self.failures.push(format!("broker {node} does not stop well"));
                }
                self.down.push(node);
            }
            Fault::Pause => self.signal(node, Signal::STOP),
            Fault::FewDescriptors => self.limit_descriptors(node, Some(3)),
            Fault::File(file) => {
                self.kill(node);
                let data = self.cluster.dir.path().join(format!("node-{node}/data"));
                let Some(done) = file.inflict(&data, self.seed ^ number as u64) else {
                    self.notes.push(format!("{}: nothing to do it to", file.name()));
                    return;
                };
                self.notes.push(format!("{} on broker {node}: {done}", file.name()));
            }
            Fault::Deaf => {
                for other in (1..=self.nodes).filter(|other| *other != node) {
                    self.links.cut_one_way(other, node);
                }
            }
            Fault::Isolate => self.links.isolate(node),
            Fault::BlackHole | Fault::SlowReader => {
                self.links.at_door(node, weather(step.fault));
            }
            Fault::Loss
            | Fault::Delay
            | Fault::Repeat
            | Fault::Reorder
            | Fault::Throttle
            | Fault::CorruptByte => {
                self.links.around(node, weather(step.fault));
                self.links.at_door(node, weather(step.fault));
            }
        }
        *self.fired.entry(step.fault.name()).or_default() += 1;
    }

    fn end(&mut self, number: usize, fault: Fault) {
        let Some(node) = self.hit.remove(&number) else { return };
        match fault {
            Fault::Kill | Fault::Stop | Fault::File(_) => self.start(node),
            Fault::Pause => self.signal(node, Signal::CONT),
            Fault::FewDescriptors => self.limit_descriptors(node, None),
            Fault::Isolate
            | Fault::Deaf
            | Fault::BlackHole
            | Fault::Loss
            | Fault::Delay
            | Fault::Repeat
            | Fault::Reorder
            | Fault::Throttle
            | Fault::CorruptByte
            | Fault::SlowReader => {
                self.links.around(node, CLEAR);
                self.links.at_door(node, CLEAR);
            }
        }
    }

    async fn node(&self, victim: Victim) -> Option<usize> {
        match victim {
            Victim::Node(node) => Some(node),
            Victim::Leader => {
                let admin = self.client.admin();
                let detail = timeout(Duration::from_secs(1), admin.describe_topic(TOPIC)).await;
                detail.ok()?.ok()?.partitions.first()?.leader.map(|leader| leader.0 as usize)
            }
        }
    }

    fn kill(&mut self, node: usize) {
        self.cluster.kill(node);
        self.down.push(node);
    }

    fn start(&mut self, node: usize) {
        self.down.retain(|down| *down != node);
        self.cluster.start(node);
    }

    fn signal(&self, node: usize, signal: Signal) {
        let pid = Pid::from_raw(self.cluster.pid(node) as i32).expect("a process has a number");
        kill_process(pid, signal).expect("it is ours");
    }

    /// Lets a broker open so many more files and sockets than it has open, or as many as we may.
    fn limit_descriptors(&self, node: usize, more: Option<u64>) {
        let raw = self.cluster.pid(node);
        let pid = Pid::from_raw(raw as i32).expect("a process has a number");
        let ours = getrlimit(Resource::Nofile);
        let open = std::fs::read_dir(format!("/proc/{raw}/fd")).map_or(0, Iterator::count) as u64;
        let current = more.map_or(ours.current, |more| Some(open + more));
        // It may have ended by itself, which is looked for after each step.
        let _ = prlimit(Some(pid), Resource::Nofile, Rlimit { current, maximum: ours.maximum });
    }

    /// A broker that ends by itself is a finding, whatever was done to it.
    fn look_for_the_dead(&mut self) {
        for node in (1..=self.nodes).filter(|node| !self.down.contains(node)) {
            if !self.cluster.runs(node) {
                self.failures.push(format!("broker {node} ended by itself"));
                self.cluster.start(node);
            }
        }
    }

    fn heal(&mut self) {
        self.links.heal();
        for node in std::mem::take(&mut self.down) {
            self.cluster.start(node);
        }
        self.look_for_the_dead();
        for node in 1..=self.nodes {
            self.signal(node, Signal::CONT);
            self.limit_descriptors(node, None);
        }
    }

    async fn until_all_accept(&mut self, healed: Instant) -> Option<u64> {
        let config = ProducerConfig::default().delivery_timeout(ACCEPT_WITHIN);
        let producer = self.client.producer(config);
        for partition in 0..PARTITIONS {
            let record = Record::to(TOPIC).partition(partition).value("are you there?");
            if let Err(error) = producer.send_and_wait(record).await {
                self.failures.push(format!("partition {partition} accepts nothing: {error}"));
                return None;
            }
        }
        let took = healed.elapsed();
        if took > ACCEPT_WITHIN {
            self.failures.push(format!("all partitions accept only after {took:?}"));
        }
        Some(took.as_millis() as u64)
    }

    async fn until_alike(&mut self, healed: Instant, id: TopicId) -> Option<u64> {
        let deadline = healed + CONVERGE_WITHIN;
        let mut last = String::new();
        while Instant::now() < deadline {
            match self.difference(id).await {
                None => return Some(healed.elapsed().as_millis() as u64),
                Some(difference) => last = difference,
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.failures.push(format!("replicas differ after {CONVERGE_WITHIN:?}: {last}"));
        None
    }

    /// What is not alike on the replicas of the topic.
    async fn difference(&self, id: TopicId) -> Option<String> {
        let Ok(Ok(detail)) = timeout(PATIENCE, self.client.admin().describe_topic(TOPIC)).await
        else {
            return Some("nobody describes the topic".to_owned());
        };
        for partition in detail.partitions {
            let mut ends = Vec::new();
            for node in &partition.replicas {
                let admin = self.client.admin();
                let described = admin.describe_partition_on(*node, id, partition.partition).await;
                let Ok(it) = described else {
                    return Some(format!("broker {node} describes nothing"));
                };
                ends.push((it.term, it.log_end, it.high_watermark));
            }
            let alike = ends.windows(2).all(|two| two[0] == two[1]);
            if !alike || ends.iter().any(|(_, end, committed)| end != committed) {
                return Some(format!("partition {}: {ends:?}", partition.partition));
            }
        }
        None
    }

    /// What rotted while brokers were down is mended from the others.
    async fn until_whole(&mut self, healed: Instant, id: TopicId) -> Option<u64> {
        let mut last = String::new();
        while healed.elapsed() < CONVERGE_WITHIN {
            match self.rotten(id).await {
                None => return Some(healed.elapsed().as_millis() as u64),
                Some(rotten) => last = rotten,
            }
            sleep(Duration::from_millis(500)).await;
        }
        self.failures.push(format!("not whole after {CONVERGE_WITHIN:?}: {last}"));
        None
    }

    /// What some replica cannot read, if each can be asked.
    async fn rotten(&self, id: TopicId) -> Option<String> {
        let admin = self.client.admin();
        let ours = (0..PARTITIONS).map(|number| TopicPartition::new(id, PartitionId(number)));
        for partition in ours.chain([TopicPartition::CLUSTER]) {
            for node in (1..=self.nodes).map(|node| NodeId(node as u32)) {
                let (mut from, mut seed) = (LogIndex::ZERO, 0);
                loop {
                    let until = LogIndex(u64::MAX >> 1);
                    let range = DigestRange { from, until, seed, bytes_max: 4 << 20 };
                    let asked = admin.digest_replica(node, partition, Some(range), PATIENCE).await;
                    let digest = match asked {
                        // It has no replica of it: there are more brokers than replicas.
                        Err(error) if error.code() == Some(ErrorCode::NotLeader) => break,
                        Err(error) => return Some(format!("broker {node}: {error}")),
                        Ok(answer) => answer.digest,
                    };
                    let Some(digest) = digest else { break };
                    if let Some(unreadable) = digest.unreadable {
                        return Some(format!("broker {node}: {unreadable:?}"));
                    }
                    if digest.end <= from {
                        break;
                    }
                    (from, seed) = (digest.end, digest.hash);
                }
            }
        }
        None
    }

    async fn drain(&mut self, recording: &Arc<Recording>, load: &Load) {
        let fresh = self.cluster.client().await;
        let drained =
            recorded::read_all_in_the_end(&fresh, recording, load, Duration::from_secs(20));
        match timeout(Duration::from_secs(90), drained).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failures.push(format!("not readable to the end: {error}")),
            Err(_) => self.failures.push("the final reading does not end".to_owned()),
        }
    }

    /// Stops all brokers and reads every replica by itself.
    fn read_replicas(&mut self, recording: &Recording, id: TopicId, run: u16) -> u64 {
        let mut records = 0;
        for node in 1..=self.nodes {
            if !self.cluster.stop(node) {
                self.failures.push(format!("broker {node} does not stop well"));
            }
        }
        for node in 1..=self.nodes {
            let data = self.cluster.dir.path().join(format!("node-{node}/data"));
            let found = replicas::read(recording, &data, node, (TOPIC, id), run);
            records += found.records;
            self.failures.extend(found.damaged);
        }
        records
    }
}

fn weather(fault: Fault) -> Weather {
    match fault {
        Fault::Loss => Weather { lost_permille: 150, ..CLEAR },
        Fault::Delay => Weather { delay_ms: 60, jitter_ms: 60, ..CLEAR },
        Fault::Repeat => Weather { repeated_permille: 300, ..CLEAR },
        Fault::Reorder => Weather { reordered_permille: 200, ..CLEAR },
        Fault::Throttle => Weather { bytes_per_second: Some(100_000), ..CLEAR },
        Fault::CorruptByte => Weather { corrupted_permille: 50, ..CLEAR },
        Fault::SlowReader => Weather { bytes_per_second: Some(20_000), ..CLEAR },
        Fault::BlackHole | Fault::Isolate | Fault::Deaf => Weather { cut: true, ..CLEAR },
        Fault::Kill | Fault::Pause | Fault::Stop | Fault::FewDescriptors | Fault::File(_) => CLEAR,
    }
}

impl Outcome {
    /// What a run that proves something must have reached.
    pub fn check_not_vacuous(&mut self) {
        let wanted = self.seconds * 100;
        if self.acked < wanted {
            self.failures
                .push(format!("vacuous: {} records acknowledged, not {wanted}", self.acked));
        }
        if self.replica_records < self.acked {
            let records = self.replica_records;
            self.failures.push(format!("vacuous: only {records} records in all replicas"));
        }
    }
}

const TOPIC: &str = "chaos";
const PARTITIONS: u32 = 4;
const ACCEPT_WITHIN: Duration = Duration::from_secs(10);
const CONVERGE_WITHIN: Duration = Duration::from_secs(60);
const CLEAR: Weather = Weather {
    cut: false,
    lost_permille: 0,
    repeated_permille: 0,
    corrupted_permille: 0,
    reordered_permille: 0,
    delay_ms: 0,
    jitter_ms: 0,
    bytes_per_second: None,
};
