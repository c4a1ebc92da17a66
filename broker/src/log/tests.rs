//! The log as its owner and its readers see it. Crashes at every operation: `tests/crash.rs`.

mod opening;
mod reading;
mod room;
mod segments;

use super::*;
use crate::sim::disk::{Fate, SimDisk};
use highwater_protocol::batch::{BatchBuilder, BuilderOptions, VoterSet, frames};
use highwater_protocol::ids::{NodeId, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId};
use std::io::ErrorKind;
use uuid::Uuid;

pub(super) const DIR: &str = "/data/t-0";

pub(super) struct Bench {
    pub disk: Arc<SimDisk>,
    pub log: Log,
}

impl Bench {
    pub fn new() -> Bench {
        let disk = SimDisk::new(7);
        let log = open(&disk).expect("a new log").0;
        Bench { disk, log }
    }

    /// Batches of two records, three to a segment, behind the start of a term; the last segment is not sealed.
    pub fn filled(batches: u64) -> Bench {
        let mut bench = Bench::new();
        bench.log.append_mark(Term(1), &Mark::TermStart).expect("append");
        bench.fill(batches);
        bench.flush();
        bench
    }

    /// Drops the log as a killed process does and opens it again.
    pub fn kill(self) -> (Bench, Recovered) {
        let Bench { disk, log } = self;
        drop(log);
        let (log, recovered) = open(&disk).expect("recovery");
        (Bench { disk, log }, recovered)
    }

    pub fn lose_power(self, fate: Fate) -> (Bench, Recovered) {
        self.disk.lose_power_by(&mut |_| fate);
        self.kill()
    }

    pub fn flush(&mut self) {
        let Some((files, upto)) = self.log.take_unflushed() else { return };
        files.iter().try_for_each(|file| file.flush()).expect("flush");
        self.log.flushed(upto).expect("flushed");
    }

    /// Batches of two records with 4,000 bytes each: three to a segment.
    pub fn fill(&mut self, batches: u64) {
        for number in 0..batches {
            self.log.append(Term(1), &batch(2, 4_000, number as i64)).expect("append");
        }
    }

    pub fn files(&self) -> Vec<String> {
        self.disk.list(Path::new(DIR)).expect("list")
    }

    /// The path of the oldest file with this ending.
    pub fn oldest(&self, ending: &str) -> PathBuf {
        let name = self.files().into_iter().find(|name| name.ends_with(ending));
        Path::new(DIR).join(name.expect("there is one"))
    }

    pub fn everything(&self) -> Vec<u8> {
        let read = self.log.read_frames(self.log.start().0, usize::MAX).expect("read");
        assert_eq!(read.end, self.log.end());
        read.frames.concat()
    }
}

fn open(disk: &Arc<SimDisk>) -> io::Result<(Log, Recovered)> {
    let options = Options { segment_bytes_max: 28 << 10, keep_free_bytes: 0 };
    Log::open(disk.clone(), Path::new(DIR), partition(0), options)
}

pub(super) fn partition(number: u32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(1)), PartitionId(number))
}

pub(super) fn batch(records: u32, bytes: usize, timestamp: i64) -> Bytes {
    produced(records, bytes, timestamp, None)
}

fn produced(records: u32, bytes: usize, timestamp: i64, producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new(BuilderOptions { producer, ..BuilderOptions::default() });
    for record in 0..records {
        let value = vec![timestamp as u8 | 1; bytes];
        builder.push(Timestamp(timestamp + i64::from(record)), None, Some(&value), &[]);
    }
    builder.finish()
}

pub(super) fn offsets(slices: &[Bytes]) -> Vec<u64> {
    let all = slices.iter().flat_map(|slice| frames(slice));
    all.map(|frame| frame.expect("whole").0.base_offset.0).collect()
}

pub(super) fn split(bytes: &[u8]) -> Vec<Bytes> {
    frames(bytes).map(|frame| Bytes::copy_from_slice(frame.expect("whole").1)).collect()
}
