//! Drives producers and watches what becomes of every record.
//!
//! Each producer has a thread that keeps the schedule and nothing else: it sleeps until a record
//! is due, hands it to the client, and never waits for an answer unless the client's buffer is
//! full. Answers are awaited by one task per producer and partition, in order: batches of a
//! partition are acknowledged in order, so that the moment seen is the true one, at the price of
//! one wake-up per batch instead of one per record.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use highwater_client::{Client, Delivery, Error, ErrorKind, Outcome, Producer, Record, TopicName};
use tokio::sync::mpsc;

use crate::recorder::{Gaps, Series, Window};
use crate::settings::{Load, Loop};
use crate::verify::Ledger;
use crate::workload::{Clock, Keys, Nanos, Payload, RecordId, Schedule, Stamp, producer_id};

/// Whether the fate of every single record is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bookkeeping {
    /// It is: a consumer will be compared with it.
    EachRecord,
    /// Counts are enough.
    CountsOnly,
}

/// A run's load, and where it goes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The load.
    pub load: Load,
    /// The topic.
    pub topic: TopicName,
    /// How many partitions it has.
    pub partitions: u32,
    /// The run's number in its producers' ids.
    pub run: u16,
    /// The clock of the run.
    pub clock: Clock,
    /// When the first record is due.
    pub start: Nanos,
    /// What is remembered.
    pub bookkeeping: Bookkeeping,
}

/// Counters that grow while the run goes on.
#[derive(Debug, Default)]
pub struct Live {
    /// Records handed to the client.
    pub sent: AtomicU64,
    /// Records acknowledged.
    pub acked: AtomicU64,
    /// Records that failed, whatever their outcome.
    pub failed: AtomicU64,
    /// Set to end the run early.
    pub stop: AtomicBool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Produced {
    /// From the intended moment to the acknowledgement.
    pub latency: Series,
    /// From the moment of sending to the acknowledgement.
    pub service: Series,
    /// From the intended moment to that of sending.
    pub delay: Series,
    /// Every record's fate, if it was kept.
    pub ledger: Ledger,
    /// Records that fell due and were never handed to the client.
    pub unsent: u64,
    /// Failures by outcome.
    pub not_written: u64,
    /// See above.
    pub unknown: u64,
    /// See above.
    pub written_with_less: u64,
    /// The first failure in words.
    pub first_error: Option<String>,
}

impl Plan {
    /// The part of the run that is measured.
    pub fn window(&self) -> Window {
        let start = self.start.plus_seconds(self.load.warmup);
        Window { start, end: start.plus_seconds(self.load.duration) }
    }
}

impl Produced {
    fn new(window: Window) -> Produced {
        Produced {
            latency: Series::new(window),
            service: Series::new(window),
            delay: Series::new(window),
            ledger: Ledger::default(),
            unsent: 0,
            not_written: 0,
            unknown: 0,
            written_with_less: 0,
            first_error: None,
        }
    }

    fn merge(&mut self, other: Produced) {
        self.latency.merge(&other.latency);
        self.service.merge(&other.service);
        self.delay.merge(&other.delay);
        self.ledger.merge(&other.ledger);
        self.unsent += other.unsent;
        self.not_written += other.not_written;
        self.unknown += other.unknown;
        self.written_with_less += other.written_with_less;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn count(&mut self, id: RecordId, error: &Error, bookkeeping: Bookkeeping) {
        match error.outcome() {
            Outcome::NotWritten => {
                self.not_written += 1;
                if bookkeeping == Bookkeeping::EachRecord {
                    self.ledger.not_written(id);
                }
            }
            Outcome::Unknown => self.unknown += 1,
            Outcome::Written => self.written_with_less += 1,
        }
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

/// Runs all producers to their end; `live` and `gaps` can be watched meanwhile.
pub async fn run(
    client: &Client,
    plan: &Plan,
    live: &Arc<Live>,
    gaps: &Arc<Gaps>,
) -> Result<Produced> {
    let mut drivers = Vec::new();
    let mut results = Vec::new();
    let mut producers = Vec::new();
    for number in 0..plan.load.producers {
        let producer = client.producer(plan.load.producer_config());
        let shared = Arc::new(Mutex::new(Produced::new(plan.window())));
        let settled = Arc::new(AtomicU64::new(0));
        let lanes = spawn_lanes(plan, &shared, live, gaps, &settled);
        let driver = Driver {
            producer: producer.clone(),
            plan: plan.clone(),
            number,
            lanes,
            live: Arc::clone(live),
            settled,
            runtime: tokio::runtime::Handle::current(),
            result: Produced::new(plan.window()),
        };
        drivers.push(tokio::task::spawn_blocking(move || driver.run()));
        producers.push(producer);
        results.push(shared);
    }
    let mut all = Produced::new(plan.window());
    let mut lanes = Vec::new();
    for driver in drivers {
        let driven = driver.await.context("a producer's thread broke")??;
        all.merge(driven.result);
        lanes.extend(driven.lanes);
    }
    // A timeout here shows in the deliveries, which the lanes count.
    let drain = Duration::from_secs_f64(plan.load.drain);
    for producer in producers {
        let _report = producer.close(drain).await;
    }
    for lane in lanes {
        lane.await.context("a lane broke")?;
    }
    for shared in results {
        let shared = Arc::into_inner(shared).expect("all lanes have ended");
        all.merge(shared.into_inner().expect("no lane panicked"));
    }
    Ok(all)
}

/// A record under way.
struct InFlight {
    id: RecordId,
    intended: Nanos,
    sent: Nanos,
    delivery: Delivery,
}

struct Lane {
    sender: mpsc::UnboundedSender<InFlight>,
    task: tokio::task::JoinHandle<()>,
}

fn spawn_lanes(
    plan: &Plan,
    shared: &Arc<Mutex<Produced>>,
    live: &Arc<Live>,
    gaps: &Arc<Gaps>,
    settled: &Arc<AtomicU64>,
) -> Vec<Lane> {
    let lanes = (0..plan.partitions).map(|partition| {
        // Bounded by the client's buffer, or by the window of a closed loop: what is in here is
        // under way.
        let (sender, receiver) = mpsc::unbounded_channel();
        let watcher = Watcher {
            partition,
            clock: plan.clock,
            record_bytes: plan.load.record_bytes,
            bookkeeping: plan.bookkeeping,
            shared: Arc::clone(shared),
            live: Arc::clone(live),
            gaps: Arc::clone(gaps),
            settled: Arc::clone(settled),
        };
        Lane { sender, task: tokio::spawn(watcher.run(receiver)) }
    });
    lanes.collect()
}

/// Awaits the deliveries of one producer in one partition.
struct Watcher {
    partition: u32,
    clock: Clock,
    record_bytes: usize,
    bookkeeping: Bookkeeping,
    shared: Arc<Mutex<Produced>>,
    live: Arc<Live>,
    gaps: Arc<Gaps>,
    settled: Arc<AtomicU64>,
}

impl Watcher {
    async fn run(self, mut lane: mpsc::UnboundedReceiver<InFlight>) {
        while let Some(mut sent) = lane.recv().await {
            let result = (&mut sent.delivery).await;
            let now = self.clock.now();
            let mut shared = self.shared.lock().expect("no lane panics");
            match result {
                Ok(_) => {
                    shared.latency.record(sent.intended, now, self.record_bytes);
                    shared.service.record(sent.sent, now, self.record_bytes);
                    if self.bookkeeping == Bookkeeping::EachRecord {
                        shared.ledger.acked(sent.id);
                    }
                    self.gaps.acked(self.partition, sent.sent, now);
                    self.live.acked.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    shared.count(sent.id, &error, self.bookkeeping);
                    self.gaps.failed(self.partition, sent.sent);
                    self.live.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            drop(shared);
            self.settled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Keeps one producer's schedule, in a thread of its own: tokio's timers have steps of a
/// millisecond, a thread's sleep is good to some 60 microseconds.
struct Driver {
    producer: Producer,
    plan: Plan,
    number: u8,
    lanes: Vec<Lane>,
    live: Arc<Live>,
    settled: Arc<AtomicU64>,
    runtime: tokio::runtime::Handle,
    result: Produced,
}

struct Driven {
    result: Produced,
    lanes: Vec<tokio::task::JoinHandle<()>>,
}

impl Driver {
    fn run(mut self) -> Result<Driven> {
        let seed = u64::from(producer_id(self.plan.run, self.number)) + 1;
        let mut maker = Maker {
            payload: Payload::new(self.plan.load.record_bytes, seed),
            keys: Keys::new(self.plan.load.keys, seed),
            producer: producer_id(self.plan.run, self.number),
            topic: self.plan.topic.clone(),
        };
        match self.plan.load.driven() {
            Loop::Open { rate } => self.open(rate, &mut maker)?,
            Loop::Closed => self.closed(&mut maker)?,
        }
        // Dropping the senders ends the lanes, once everything in them is settled.
        let lanes = self.lanes.into_iter().map(|lane| lane.task).collect();
        Ok(Driven { result: self.result, lanes })
    }

    /// Sends every record that falls due before the end, however late.
    fn open(&mut self, rate: u64, maker: &mut Maker) -> Result<()> {
        let producers = u64::from(self.plan.load.producers);
        let producer = u64::from(self.number);
        let schedule = Schedule { start: self.plan.start, rate, producers, producer };
        let end = self.plan.window().end;
        let give_up = end.plus_seconds(self.plan.load.drain);
        let records = self.share_of_records();
        let mut sequence = 0;
        while sequence < records && !self.live.stop.load(Ordering::Relaxed) {
            let intended = schedule.intended(sequence);
            if intended >= end {
                break;
            }
            let now = self.plan.clock.now();
            if now < intended {
                std::thread::sleep(Duration::from_nanos(intended.since(now)).max(PACE));
                continue;
            }
            if now > give_up {
                self.result.unsent = self.count_unsent(schedule, sequence, records);
                return Ok(());
            }
            self.send(maker, sequence, intended, now)?;
            sequence += 1;
        }
        Ok(())
    }

    fn count_unsent(&self, schedule: Schedule, sequence: u64, records: u64) -> u64 {
        let end = self.plan.window().end;
        let mut last = sequence;
        while last < records && schedule.intended(last) < end {
            last += 1;
        }
        last - sequence
    }

    /// Sends whenever fewer than the window's records are under way.
    fn closed(&mut self, maker: &mut Maker) -> Result<()> {
        let end = self.plan.window().end;
        let records = self.share_of_records();
        let mut sequence = 0;
        while sequence < records && !self.live.stop.load(Ordering::Relaxed) {
            let now = self.plan.clock.now();
            if now >= end {
                break;
            }
            if now < self.plan.start {
                std::thread::sleep(Duration::from_nanos(self.plan.start.since(now)));
                continue;
            }
            if sequence - self.settled.load(Ordering::Relaxed) >= self.plan.load.window {
                std::thread::sleep(PACE);
                continue;
            }
            self.send(maker, sequence, now, now)?;
            sequence += 1;
        }
        Ok(())
    }

    fn share_of_records(&self) -> u64 {
        match self.plan.load.records {
            Some(records) => {
                let producers = u64::from(self.plan.load.producers);
                let one_more = u64::from(self.number) < records % producers;
                records / producers + u64::from(one_more)
            }
            None => u64::MAX,
        }
    }

    fn send(
        &mut self,
        maker: &mut Maker,
        sequence: u64,
        intended: Nanos,
        now: Nanos,
    ) -> Result<()> {
        let id = RecordId::new(maker.producer, sequence);
        let record = maker.record(Stamp { id, intended_unix: self.plan.clock.to_unix(intended) });
        let mut sent = now;
        let taken = match self.producer.try_send(record) {
            Err(refused) if refused.error.kind() == ErrorKind::BufferFull => {
                let taken = self.runtime.block_on(self.producer.send(*refused.record));
                sent = self.plan.clock.now();
                taken
            }
            taken => taken.map_err(|refused| refused.error),
        };
        match taken {
            Ok(delivery) => {
                self.result.delay.record(intended, sent, self.plan.load.record_bytes);
                self.live.sent.fetch_add(1, Ordering::Relaxed);
                let lane = &self.lanes[delivery.partition().0 as usize];
                let watched = lane.sender.send(InFlight { id, intended, sent, delivery });
                watched.map_err(|_| anyhow::anyhow!("a lane broke"))
            }
            Err(error) => self.refused(id, error),
        }
    }

    /// A record that the client did not take ends the run if it can take no more; else it counts.
    fn refused(&mut self, id: RecordId, error: Error) -> Result<()> {
        if error.fatal() || !error.retriable() {
            self.live.stop.store(true, Ordering::Relaxed);
            return Err(error).context("the client takes no more records");
        }
        self.result.count(id, &error, self.plan.bookkeeping);
        self.live.failed.fetch_add(1, Ordering::Relaxed);
        self.settled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Makes records.
struct Maker {
    payload: Payload,
    keys: Keys,
    producer: u32,
    topic: TopicName,
}

impl Maker {
    fn record(&mut self, stamp: Stamp) -> Record {
        let value: Bytes = self.payload.next(stamp);
        let mut record = Record::to(self.topic.clone()).value(value);
        record.key = self.keys.choose();
        record
    }
}

/// The shortest sleep: below this the cost of waking up exceeds what is gained.
const PACE: Duration = Duration::from_micros(100);
