//! Every replica's log read by itself, from the files of brokers that were stopped, for a client is only ever
//! given what the leader has.

use std::path::Path;
use std::sync::Arc;

use highwater_bench::history::{Drained, Op, Poll, PollKind, Process, Seen};
use highwater_bench::recorded::Recording;
use highwater_bench::workload::Stamp;
use highwater_broker::disk::Disk;
use highwater_broker::disk::mmap::MmapDisk;
use highwater_broker::log::{Log, Options};
use highwater_client::{NodeId, PartitionId, TopicId, TopicPartition};
use highwater_protocol::batch::{BatchError, BatchView, FrameKind, frames};

/// What was read of one broker's replicas.
#[derive(Debug, Default)]
pub struct Found {
    pub records: u64,
    /// What cannot be read, and where.
    pub damaged: Vec<String>,
}

/// Adds to a history what a stopped broker has of a topic.
pub fn read(
    recording: &Recording,
    data: &Path,
    node: usize,
    topic: (&str, TopicId),
    run: u16,
) -> Found {
    let mut found = Found::default();
    let dirs = std::fs::read_dir(data.join("topics")).into_iter().flatten().flatten();
    for dir in dirs {
        let name = dir.file_name().to_string_lossy().into_owned();
        let number = name.split('.').next().and_then(|name| {
            name.strip_prefix(topic.0)?.strip_prefix('-')?.parse().ok().map(PartitionId)
        });
        let Some(number) = number else { continue };
        let partition = TopicPartition::new(topic.1, number);
        match read_log(recording, &dir.path(), node, partition, run) {
            Ok(records) => found.records += records,
            Err(what) => found.damaged.push(format!("broker {node}, {name}: {what}")),
        }
    }
    found
}

fn read_log(
    recording: &Recording,
    dir: &Path,
    node: usize,
    partition: TopicPartition,
    run: u16,
) -> Result<u64, String> {
    let disk: Arc<dyn Disk> = Arc::new(MmapDisk::default());
    let options = Options { segment_bytes_max: 1 << 30, keep_free_bytes: 0 };
    let (log, _) = Log::open(disk, dir, partition, options).map_err(|error| error.to_string())?;
    log.publish(log.end_offset());
    let reader = log.reader();
    let process = Process(u32::MAX - node as u32);
    let kind = PollKind::Replica(NodeId(node as u32));
    let (mut next, mut count) = (reader.log_start(), 0);
    while next < log.end_offset() {
        let slices = reader.read(next, 1 << 20).map_err(|error| format!("at {next}: {error}"))?;
        let mut records = Vec::new();
        for slice in &slices {
            let seen = seen(slice, run).map_err(|error| format!("behind {next}: {error}"))?;
            records.extend(seen.into_iter().filter(|seen| seen.offset >= next));
        }
        let last = records.last().ok_or_else(|| format!("nothing at {next}"))?;
        next = last.offset.advance(1);
        count += records.len() as u64;
        let (invoke, complete) = (recording.now(), recording.now());
        let partition = partition.partition;
        recording.add(&Op::Poll(Poll { process, partition, kind, invoke, complete, records }));
    }
    let (at, end) = (recording.now(), log.end_offset());
    let partition = partition.partition;
    recording.add(&Op::Drained(Drained { process, partition, kind, end, at }));
    Ok(count)
}

fn seen(slice: &[u8], run: u16) -> Result<Vec<Seen>, BatchError> {
    let mut found = Vec::new();
    for frame in frames(slice) {
        let (header, bytes) = frame?;
        if header.kind() != FrameKind::Data {
            continue;
        }
        let batch = BatchView::parse(bytes)?;
        batch.verify_checksum()?;
        let unpacked = batch.unpacked(UNPACKED_BYTES_MAX)?;
        let batch = match &unpacked {
            Some(bytes) => BatchView::parse(bytes)?,
            None => batch,
        };
        for record in batch.records()? {
            let record = record?;
            let stamp = record.value.and_then(Stamp::parse);
            let ours = stamp.filter(|stamp| stamp.id.producer() >> 8 == u32::from(run));
            found.push(Seen { offset: record.offset, id: ours.map(|stamp| stamp.id) });
        }
    }
    Ok(found)
}

/// As much as any batch of ours unpacks to.
const UNPACKED_BYTES_MAX: usize = 64 << 20;
