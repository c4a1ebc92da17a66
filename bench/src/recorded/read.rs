//! Readers while things happen, and the reading of everything in the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use highwater_client::{
    Client, Error, Offset, PartitionId, Reader, ReaderConfig, RecordBatch, StartAt,
};
use tokio::time::timeout;

use super::{Load, Recording};
use crate::history::{Drained, Op, Poll, PollKind, Process, Seen};
use crate::workload::{Nanos, Stamp};

/// Reads all partitions until the recording is stopped, with a new reader now and then.
pub async fn tail(client: &Client, recording: &Arc<Recording>, load: &Load) {
    while !recording.is_stopped() {
        let Ok(reader) = open(client, load, Until::Told).await else {
            tokio::time::sleep(LOOK_UP_EVERY).await;
            continue;
        };
        let mut session = Session {
            reader,
            process: recording.new_reader(),
            recording,
            load,
            kind: PollKind::Tail,
        };
        let born = Instant::now();
        while !recording.is_stopped() && born.elapsed() < load.reader_lives {
            let Err(_error) = session.next().await else { continue };
            recording.reopened.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
}

/// Reads everything once nobody writes: first until what was acknowledged for good is readable or
/// `patience` is over, then once more, and that reading counts.
///
/// # Errors
/// The last one, where the topic could not be read to its end within twice that time.
pub async fn read_all_in_the_end(
    client: &Client,
    recording: &Arc<Recording>,
    load: &Load,
    patience: Duration,
) -> Result<(), Error> {
    let wanted = recording.ends();
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        match read_all(client, recording, load, PollKind::Tail).await {
            Ok(ends) if wanted.iter().all(|(partition, end)| ends.get(partition) >= Some(end)) => {
                break;
            }
            Ok(_) | Err(_) => tokio::time::sleep(LOOK_UP_EVERY).await,
        }
    }
    let ends = read_all(client, recording, load, PollKind::Final).await?;
    for (partition, end) in ends {
        let process = Process(0);
        let at = recording.now();
        recording.add(&Op::Drained(Drained { process, partition, kind: PollKind::Final, end, at }));
    }
    Ok(())
}

async fn read_all(
    client: &Client,
    recording: &Arc<Recording>,
    load: &Load,
    kind: PollKind,
) -> Result<BTreeMap<PartitionId, Offset>, Error> {
    let reader = open(client, load, Until::End).await?;
    let mut session = Session { reader, process: recording.new_reader(), recording, load, kind };
    while session.next().await? == Went::On {}
    Ok(session.reader.positions().into_iter().collect())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Told,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    On,
    ToTheEnd,
}

async fn open(client: &Client, load: &Load, until: Until) -> Result<Reader, Error> {
    let mut config = ReaderConfig::new(load.topic.clone(), StartAt::Start);
    config.until_end = until == Until::End;
    client.reader(config).await
}

struct Session<'a> {
    reader: Reader,
    process: Process,
    recording: &'a Recording,
    load: &'a Load,
    kind: PollKind,
}

impl Session<'_> {
    async fn next(&mut self) -> Result<Went, Error> {
        let invoke = self.recording.now();
        match timeout(LOOK_UP_EVERY, self.reader.next_batch()).await {
            Err(_nothing_yet) => Ok(Went::On),
            Ok(Ok(None)) => Ok(Went::ToTheEnd),
            Ok(Err(error)) => Err(error),
            Ok(Ok(Some(batch))) => {
                self.recording.add(&self.polled(&batch, invoke));
                Ok(Went::On)
            }
        }
    }

    fn polled(&self, batch: &RecordBatch, invoke: Nanos) -> Op {
        let run = u32::from(self.load.run);
        let records = batch.iter().map(|record| {
            let stamp = record.value.and_then(Stamp::parse);
            let ours = stamp.filter(|stamp| stamp.id.producer() >> 8 == run);
            Seen { offset: record.offset, id: ours.map(|stamp| stamp.id) }
        });
        Op::Poll(Poll {
            process: self.process,
            partition: batch.partition,
            kind: self.kind,
            invoke,
            complete: self.recording.now(),
            records: records.collect(),
        })
    }
}

const LOOK_UP_EVERY: Duration = Duration::from_millis(100);
