//! Reads a topic, checks every record, and measures how fast it went or how late records were.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use highwater_client::{Client, Reader, ReaderConfig, RecordBatch, StartAt};
use tokio::sync::watch;

use crate::recorder::{Series, Window};
use crate::settings::{From, Read};
use crate::verify::Verifier;
use crate::workload::{Clock, Nanos, RecordId, Stamp};

/// Counters that grow while the consumer goes on.
#[derive(Debug, Default)]
pub struct Live {
    /// Records received.
    pub received: AtomicU64,
    /// Set to end the reading early.
    pub stop: AtomicBool,
}

/// What a consumer saw.
#[derive(Debug)]
pub struct Consumed {
    /// From the intended moment of sending to the moment of reading.
    pub latency: Series,
    /// What was checked on the way.
    pub verifier: Verifier,
    /// Bytes of values.
    pub bytes: u64,
    /// When the first and the last record arrived.
    pub first_and_last: Option<(Nanos, Nanos)>,
    /// Failures of partitions, in words.
    pub errors: Vec<String>,
}

/// Which records count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ours {
    /// Those of any bench.
    AnyRun,
    /// Those of this run.
    Run(u16),
}

/// When to stop.
#[derive(Debug, Clone)]
pub enum Until {
    /// At the reader's own end, or at this time.
    EndOr(Nanos),
    /// When as many different records have arrived as this says, once it says anything, or when
    /// nothing more arrives for a while.
    Count(watch::Receiver<Option<u64>>),
}

/// Reads until `until`.
pub async fn run(
    mut reader: Reader,
    clock: Clock,
    window: Window,
    ours: Ours,
    until: Until,
    live: Arc<Live>,
) -> Result<Consumed> {
    let mut consumed = Consumed {
        latency: Series::new(window),
        verifier: Verifier::default(),
        bytes: 0,
        first_and_last: None,
        errors: Vec::new(),
    };
    let mut idle_since = clock.now();
    while !live.stop.load(Ordering::Relaxed) {
        match tokio::time::timeout(LOOK_EVERY, reader.next_batch()).await {
            Ok(Ok(Some(batch))) => {
                idle_since = clock.now();
                consumed.take(&batch, idle_since, clock, ours);
                live.received.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
            Ok(Ok(None)) => break,
            Ok(Err(error)) => {
                consumed.errors.push(error.to_string());
                if error.fatal() || consumed.errors.len() >= ERRORS_MAX {
                    break;
                }
            }
            Err(_nothing_yet) => {}
        }
        if until.is_reached(&consumed.verifier, clock.now(), idle_since) {
            break;
        }
    }
    Ok(consumed)
}

/// A reader of all partitions.
pub async fn open(client: &Client, topic: &str, read: &Read) -> Result<Reader> {
    let start = match read.from {
        From::Start => StartAt::Start,
        From::End => StartAt::End,
    };
    let mut config = ReaderConfig::new(topic, start);
    config.until_end = read.until_end;
    client.reader(config).await.context("cannot read the topic")
}

impl Until {
    fn is_reached(&self, verifier: &Verifier, now: Nanos, idle_since: Nanos) -> bool {
        match self {
            Until::EndOr(end) => now >= *end,
            Until::Count(count) => match *count.borrow() {
                None => false,
                // A moment longer than needed, so that a duplicate behind the last is seen too.
                Some(count) if verifier.distinct() >= count => {
                    now.since(idle_since) >= LINGER.as_nanos() as u64
                }
                Some(_) => now.since(idle_since) >= GIVE_UP_AFTER.as_nanos() as u64,
            },
        }
    }
}

impl Consumed {
    fn take(&mut self, batch: &RecordBatch, now: Nanos, clock: Clock, ours: Ours) {
        let partition = batch.partition.0;
        for record in batch {
            let stamp = record.value.and_then(Stamp::parse).filter(|stamp| ours.has(stamp.id));
            let Some(stamp) = stamp else {
                self.verifier.saw_foreign(partition, record.offset.0);
                continue;
            };
            let bytes = record.value.map_or(0, <[u8]>::len);
            self.verifier.saw(partition, record.offset.0, stamp.id);
            self.latency.record(clock.of_unix(stamp.intended_unix), now, bytes);
            self.bytes += bytes as u64;
        }
        let first = self.first_and_last.map_or(now, |(first, _)| first);
        self.first_and_last = Some((first, now));
    }
}

impl Ours {
    fn has(self, id: RecordId) -> bool {
        match self {
            Ours::AnyRun => true,
            Ours::Run(run) => id.producer() >> 8 == u32::from(run),
        }
    }
}

/// How often the end is looked for while nothing arrives.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LINGER: Duration = Duration::from_millis(500);
/// A failover with a large backlog takes seconds; a record that takes longer is lost.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);
const ERRORS_MAX: usize = 100;
