//! Producers and readers whose every operation goes into a history.
//!
//! This is load for finding what is wrong, not for measuring: a task per record under way, readers
//! that begin anew now and then, and a final reading of everything by a client that saw nothing
//! before. `produce` and `read` are the two sides, here is what they write into.

mod produce;
mod read;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use highwater_client::{AckMode, Offset, PartitionId, TopicName};

use crate::history::file::{Reader, Writer};
use crate::history::{Checker, Op, Outcome, Process, Report, Send};
use crate::workload::{Clock, Nanos};
pub use produce::produce;
pub use read::{read_all_in_the_end, tail};

/// What producers and readers do.
#[derive(Debug, Clone)]
pub struct Load {
    /// The topic.
    pub topic: TopicName,
    /// Tells the records of this run from those of others on the topic.
    pub run: u16,
    /// Records a second of each producer.
    pub rate: u64,
    /// How many keys there are.
    pub keys: u32,
    /// Bytes of each value.
    pub record_bytes: usize,
    /// When a record is given up.
    pub delivery_timeout: Duration,
    /// How long a reader lives before another one begins at the start.
    pub reader_lives: Duration,
}

/// The history of a run that goes on.
#[derive(Debug)]
pub struct Recording {
    clock: Clock,
    to: Mutex<Sink>,
    readers: AtomicU32,
    stopped: AtomicBool,
    acked: AtomicU64,
    /// Readers that began anew because of an error.
    pub reopened: AtomicU64,
}

#[derive(Debug)]
struct Sink {
    writer: Writer<BufWriter<File>>,
    /// One behind the highest offset that was acknowledged for good.
    ends: BTreeMap<PartitionId, Offset>,
    /// The first failure to write; the run is worth nothing then.
    failure: Option<io::Error>,
}

impl Recording {
    /// Begins a history in a new file.
    pub fn create(path: &Path) -> io::Result<Recording> {
        let writer = Writer::new(BufWriter::new(File::create(path)?))?;
        Ok(Recording {
            clock: Clock::start(),
            to: Mutex::new(Sink { writer, ends: BTreeMap::new(), failure: None }),
            readers: AtomicU32::new(1),
            stopped: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            reopened: AtomicU64::new(0),
        })
    }

    /// Tells producers and readers to come to their end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// How many records were acknowledged by now.
    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// A reader's number.
    pub fn new_reader(&self) -> Process {
        Process(self.readers.fetch_add(1, Ordering::Relaxed))
    }

    /// The time on the history's clock.
    pub fn now(&self) -> Nanos {
        self.clock.now()
    }

    /// Adds an operation that has ended.
    pub fn add(&self, op: &Op) {
        let mut sink = self.to.lock().expect("nobody panics with it");
        if let Op::Send(Send { outcome: Outcome::Ok(offset), partition, acks, .. }) = op {
            self.acked.fetch_add(1, Ordering::Relaxed);
            if *acks != AckMode::Async {
                let end = sink.ends.entry(*partition).or_default();
                *end = (*end).max(offset.advance(1));
            }
        }
        if let Err(error) = sink.writer.add(op) {
            sink.failure.get_or_insert(error);
        }
    }

    /// Closes the file.
    pub fn finish(self) -> io::Result<()> {
        let sink = self.to.into_inner().expect("nobody panics with it");
        match sink.failure {
            Some(error) => Err(error),
            None => sink.writer.finish().map(drop),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// How far a final reading must come.
    fn ends(&self) -> BTreeMap<PartitionId, Offset> {
        self.to.lock().expect("nobody panics with it").ends.clone()
    }
}

/// Judges a history in a file: goes through it once, and once more for what proves its anomalies.
pub fn check(path: &Path) -> io::Result<Report> {
    let mut checker = Checker::default();
    let ending = each_op(path, |_, op| checker.take(&op))?;
    let mut report = checker.finish(ending);
    let wanted = report.wanted();
    if !wanted.is_empty() {
        let mut proof = BTreeMap::new();
        each_op(path, |number, op| {
            if wanted.contains(&number) {
                proof.insert(number, op);
            }
        })?;
        report.prove(&proof);
    }
    Ok(report)
}

fn each_op(path: &Path, mut take: impl FnMut(u32, Op)) -> io::Result<crate::history::Ending> {
    let attempt = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot read the history {}: {error}", path.display()))
    };
    let file = File::open(path).map_err(attempt)?;
    let mut reader = Reader::new(io::BufReader::with_capacity(1 << 18, file)).map_err(attempt)?;
    let mut number = 0;
    while let Some(op) = reader.next_op().map_err(attempt)? {
        take(number, op);
        number += 1;
    }
    Ok(reader.ending())
}
