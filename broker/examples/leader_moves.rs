//! What a leader that is moved on purpose costs a producer.
//!
//! Three brokers on this machine, a topic of three replicas, records at a steady rate to all of its partitions.
//! One partition after another is led by another broker, and next by its preferred one again, each as
//! `hw partition transfer` has it. The cost of a move is the longest gap of its partition until the next move: a
//! time in which a record waited, from the moment at which it should have been sent, and none was acknowledged.
//! Beside it stands the longest gap of a partition that was left alone, over the same times: what the machine costs.
//! Ends with 1 if a record or a move failed, or the 99th percentile of the costs is above the limit.
//!
//! `cargo build --release && cargo run --release -p highwater-broker --features sim --example leader_moves`

#[path = "../tests/common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use common::Cluster;
use highwater_bench::workload::{Payload, RecordId, Stamp};
use highwater_client::{
    AckMode, Client, Delivery, NewTopic, NodeId, PartitionId, ProducerConfig, Record,
};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What a leader that is moved on purpose costs a producer.
#[derive(Parser)]
struct Args {
    /// Moves for each mode.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(50..))]
    moves: u32,
    /// Milliseconds from one move to the next one.
    #[arg(long, default_value_t = 700)]
    every_ms: u64,
    /// Records a second.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    /// Partitions that share them.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..))]
    partitions: u32,
    /// Bytes of a record.
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Milliseconds that 99 of 100 moves may cost at most.
    #[arg(long, default_value_t = 50.0)]
    limit_ms: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    let topic = NewTopic::new(TOPIC, args.partitions).replication(3).config("flush", "ack");
    client.admin().create_topic(topic).await.expect("a new cluster takes a topic");
    let mut fine = true;
    for (name, acks) in [("semi-sync", AckMode::SemiSync), ("sync", AckMode::Sync)] {
        let load = Load::start(&client, &args, acks);
        sleep(WARMUP).await;
        let mut moves = Vec::new();
        for number in 0..args.moves {
            moves.push(one_move(&client, &args, number).await);
        }
        let (records, gaps) = load.stop().await;
        fine &= judge(name, &args, records, &moves, &gaps);
    }
    match fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A move of a leader, and the time for which it is watched.
struct Moved {
    partition: usize,
    begun: Instant,
    over: Instant,
    /// Whether the broker that was meant leads in the end.
    done: bool,
}

/// Every other move of a partition takes the leadership away from the preferred replica, and the next one gives it
/// back before the brokers do that by themselves.
async fn one_move(client: &Client, args: &Args, number: u32) -> Moved {
    let partition = number / 2 % args.partitions;
    let admin = client.admin();
    let id = PartitionId(partition);
    let detail = admin.describe_topic(TOPIC).await.expect("it is there");
    let found = &detail.partitions[partition as usize];
    let preferred = found.replicas[0];
    let other = |node: &&NodeId| **node != preferred && found.in_sync.contains(node);
    let to = match found.leader == Some(preferred) {
        true => *found.replicas.iter().find(other).expect("another replica is in sync"),
        false => preferred,
    };
    let begun = Instant::now();
    let told = admin.transfer_leader(TOPIC, id, Some(to)).await;
    sleep(Duration::from_millis(args.every_ms).saturating_sub(begun.elapsed())).await;
    let over = Instant::now();
    let leader = admin.describe_partition(TOPIC, id).await.ok().and_then(|it| it.leader);
    let done = told.is_ok() && leader == Some(to);
    if !done {
        println!("partition {partition} to broker {to}: {told:?}, led by {leader:?}");
    }
    Moved { partition: partition as usize, begun, over, done }
}

/// Prints what moves cost; says whether that is well.
fn judge(name: &str, args: &Args, records: u64, moves: &[Moved], gaps: &[Vec<Gap>]) -> bool {
    let longest = |of: usize, within: &Moved| {
        let touches = |gap: &&Gap| gap.from < within.over && gap.to > within.begun;
        let longest = gaps[of].iter().filter(touches).map(|gap| gap.to - gap.from).max();
        longest.unwrap_or_default().as_secs_f64() * 1_000.0
    };
    let alone = |moved: &Moved| (moved.partition + gaps.len() / 2) % gaps.len();
    let mut costs: Vec<f64> = moves.iter().map(|it| longest(it.partition, it)).collect();
    let mut beside: Vec<f64> = moves.iter().map(|it| longest(alone(it), it)).collect();
    costs.sort_unstable_by(f64::total_cmp);
    beside.sort_unstable_by(f64::total_cmp);
    let (done, p99) = (moves.iter().filter(|it| it.done).count(), percentile(&costs, 99));
    println!(
        "{name}, {} records/s: {done} of {} moves done, {records} records acknowledged; a move costs {:.1} ms \
         (median), {p99:.1} ms (p99), {:.1} ms at most; left alone {:.1}, {:.1} and {:.1} ms; the limit of p99 is {} ms",
        args.rate,
        moves.len(),
        percentile(&costs, 50),
        percentile(&costs, 100),
        percentile(&beside, 50),
        percentile(&beside, 99),
        percentile(&beside, 100),
        args.limit_ms
    );
    done == moves.len() && p99 <= args.limit_ms
}

/// The smallest value that so many of 100 do not exceed.
fn percentile(sorted: &[f64], of_100: usize) -> f64 {
    sorted[(sorted.len() * of_100).div_ceil(100) - 1]
}

/// A time in which a record waited and none of its partition was acknowledged.
struct Gap {
    from: Instant,
    to: Instant,
}

/// Records at a steady rate, until it is stopped.
struct Load {
    running: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    lanes: Vec<JoinHandle<(u64, Vec<Gap>)>>,
}

/// A record under way, and when it should have been sent.
type Sent = (Instant, Delivery);

impl Load {
    fn start(client: &Client, args: &Args, acks: AckMode) -> Load {
        let running = Arc::new(AtomicBool::new(true));
        let (mut ends, mut lanes) = (Vec::new(), Vec::new());
        for _ in 0..args.partitions {
            let (end, lane) = channel(UNDER_WAY_MAX);
            ends.push(end);
            lanes.push(tokio::spawn(watch(lane)));
        }
        let pace = Pace { rate: args.rate, record_bytes: args.record_bytes };
        let producing = produce(client.clone(), acks, pace, ends, Arc::clone(&running));
        Load { running, sender: tokio::spawn(producing), lanes }
    }

    /// How many records were acknowledged, and the gaps of each partition.
    async fn stop(self) -> (u64, Vec<Vec<Gap>>) {
        self.running.store(false, Ordering::Relaxed);
        self.sender.await.expect("every record is taken");
        let (mut records, mut gaps) = (0, Vec::new());
        for lane in self.lanes {
            let (acked, found) = lane.await.expect("every record is acknowledged");
            records += acked;
            gaps.push(found);
        }
        (records, gaps)
    }
}

struct Pace {
    rate: u64,
    record_bytes: usize,
}

/// Sends what is due, to one partition after another; being late moves no later record's time.
async fn produce(
    client: Client,
    acks: AckMode,
    pace: Pace,
    lanes: Vec<Sender<Sent>>,
    running: Arc<AtomicBool>,
) {
    let config = ProducerConfig { compression: None, ..ProducerConfig::default() };
    let producer = client.producer(config.acks(acks));
    let mut payload = Payload::new(pace.record_bytes, 1);
    let (start, mut number) = (Instant::now(), 0_u64);
    while running.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * pace.rate as f64) as u64;
        while number < due {
            let intended = start + Duration::from_secs_f64(number as f64 / pace.rate as f64);
            let lane = (number % lanes.len() as u64) as usize;
            let stamp = Stamp { id: RecordId::new(1, number), intended_unix: 0 };
            let record = Record::to(TOPIC).partition(lane as u32);
            let record = record.value(payload.next(stamp));
            let delivery = producer.send(record).await.expect("the producer has room");
            lanes[lane].send((intended, delivery)).await.expect("somebody waits for it");
            number += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// Awaits the acknowledgements of one partition, in order; none may fail.
async fn watch(mut lane: Receiver<Sent>) -> (u64, Vec<Gap>) {
    let (mut acked, mut gaps, mut last) = (0, Vec::new(), None::<Instant>);
    while let Some((intended, delivery)) = lane.recv().await {
        delivery.await.expect("no produce fails");
        let to = Instant::now();
        let from = last.map_or(intended, |last| last.max(intended));
        if to.saturating_duration_since(from) >= GAP_MIN {
            gaps.push(Gap { from, to });
        }
        (acked, last) = (acked + 1, Some(to));
    }
    (acked, gaps)
}

const TOPIC: &str = "moved";
const WARMUP: Duration = Duration::from_secs(5);
/// Shorter ones are not remembered.
const GAP_MIN: Duration = Duration::from_millis(1);
/// More than the producer has room for; a lane that is full holds the sender back.
const UNDER_WAY_MAX: usize = 65_536;
