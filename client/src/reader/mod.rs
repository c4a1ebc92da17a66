//! Reading committed records of assigned partitions, in order, without gaps.

//!
//! `fetcher` is the task that reads ahead, `batch` what it brings. Nothing is copied after the
//! fetched bytes lie together, or are unpacked: records borrow from them.

mod batch;
mod budget;
mod fetch;
mod fetcher;
mod position;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use highwater_protocol::batch::UNPACKED_BYTES_MAX;
use highwater_protocol::ids::{Offset, PartitionId, Timestamp, TopicPartition};
use highwater_protocol::native::fetch::{ListOffsetsRequest, OffsetAt};
use tokio::sync::mpsc;

use crate::client::Core;
use crate::error::Error;
use crate::record::TopicName;
use crate::watch::Watch;
pub use batch::{ReceivedHeader, ReceivedRecord, RecordBatch, RecordIter};
pub(crate) use budget::Budget;
pub(crate) use fetcher::{Fetched, Fetcher, Steer};
pub(crate) use position::{Assignment, Stint};

/// What to read, from where, and how far ahead.
#[derive(Debug, Clone)]
pub struct ReaderConfig {
    /// The topic.
    pub topic: TopicName,
    /// Which of its partitions.
    pub partitions: Partitions,
    /// Where to start in each of them.
    pub start: StartAt,
    /// Whether to stop at the ends that the partitions had when the reader was made.
    pub until_end: bool,
    /// What to do when the position is no longer in the log.
    pub out_of_range: OutOfRange,
    /// The failure domain of the program: partitions are read from a replica there that keeps up, and from their
    /// leaders where there is none or it fails. Such a replica may know of a record some milliseconds later than the
    /// leader, and a second or two where links fail. Default none: all is read from leaders.
    pub rack: Option<String>,
    /// How long a broker may hold a fetch when there is nothing to read. Default 500 ms.
    pub wait_max: Duration,
    /// About how many bytes one fetch may bring. Default 8 MiB.
    pub fetch_bytes_max: u32,
    /// About how many bytes one fetch may bring of one partition. Default 1 MiB.
    pub partition_bytes_max: u32,
    /// About how many bytes may lie fetched and unread. Default 32 MiB.
    pub prefetch_bytes_max: usize,
    /// What a packed batch may unpack to; one that is larger ends its partition with an error.
    /// Default and most 64 MiB. One such batch may lie in memory beyond `prefetch_bytes_max`.
    pub unpacked_bytes_max: usize,
}

/// Which partitions of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partitions {
    /// All that the topic has when the reader is made.
    All,
    /// These.
    Only(Vec<PartitionId>),
}

/// Where in a partition to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// The oldest record.
    Start,
    /// What comes after now.
    End,
    /// The newest record that is there now; what comes after now where there is none.
    Last,
    /// This offset.
    Offset(Offset),
    /// The first record whose timestamp is this or later.
    Time(Timestamp),
}

/// What to do when the next offset is no longer, or not yet, in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// Say so; reading that partition ends.
    #[default]
    Error,
    /// Go on at the oldest record.
    Start,
    /// Go on at the end.
    End,
}

impl ReaderConfig {
    /// All partitions of `topic`, from `start`, without end.
    pub fn new(topic: impl Into<TopicName>, start: StartAt) -> ReaderConfig {
        ReaderConfig {
            topic: topic.into(),
            partitions: Partitions::All,
            start,
            until_end: false,
            out_of_range: OutOfRange::Error,
            rack: None,
            wait_max: Duration::from_millis(500),
            fetch_bytes_max: 8 * 1024 * 1024,
            partition_bytes_max: 1024 * 1024,
            prefetch_bytes_max: 32 * 1024 * 1024,
            unpacked_bytes_max: UNPACKED_BYTES_MAX,
        }
    }

    /// Reads these partitions only.
    pub fn partitions(mut self, partitions: impl IntoIterator<Item = u32>) -> ReaderConfig {
        self.partitions = Partitions::Only(partitions.into_iter().map(PartitionId).collect());
        self
    }

    /// Stops at the ends that the partitions have when the reader is made.
    pub fn until_end(mut self) -> ReaderConfig {
        self.until_end = true;
        self
    }

    /// Says in which failure domain the program runs, and has replicas there be read (KIP-392).
    pub fn rack(mut self, rack: impl Into<String>) -> ReaderConfig {
        self.rack = Some(rack.into());
        self
    }

    /// Chooses what happens when the position is no longer in the log.
    pub fn out_of_range(mut self, policy: OutOfRange) -> ReaderConfig {
        self.out_of_range = policy;
        self
    }
}

/// Reads partitions; fetches ahead in the background until dropped, which does not block.
#[derive(Debug)]
pub struct Reader {
    batches: mpsc::UnboundedReceiver<Fetched>,
    budget: Arc<Budget>,
    positions: BTreeMap<PartitionId, Offset>,
    watch: Arc<Watch>,
}

impl Reader {
    /// Finds out where each partition starts, and begins to fetch.
    pub(crate) async fn open(core: Arc<Core>, config: ReaderConfig) -> Result<Reader, Error> {
        let shape = core.topic(&config.topic, core.config.request_timeout).await?;
        let numbers = match &config.partitions {
            Partitions::All => (0..shape.partitions).map(PartitionId).collect(),
            Partitions::Only(numbers) => numbers.clone(),
        };
        let mut wanted = Vec::with_capacity(numbers.len());
        for number in numbers.into_iter().collect::<BTreeSet<_>>() {
            wanted.push(shape.checked_partition(&config.topic, number)?);
        }
        let place = |partition| place(&core, &config, partition);
        let assignments: Vec<Assignment> =
            stream::iter(wanted).map(place).buffered(PLACING_AT_ONCE).try_collect().await?;
        let start = |each: &Assignment| (each.partition.partition, each.start);
        let positions = assignments.iter().map(start).collect();
        let budget = Arc::new(Budget::new(config.prefetch_bytes_max));
        // Unbounded in number, bounded in bytes: the fetcher asks for no more than the budget has.
        let (output, batches) = mpsc::unbounded_channel();
        let fetcher = Fetcher::new(core.clone(), config, assignments, budget.clone(), output);
        tokio::spawn(fetcher.run());
        Ok(Reader { batches, budget, positions, watch: core.watch.clone() })
    }

    /// The next records of any of the partitions; `None` when all of them have ended.
    ///
    /// Records of a partition come in order, without gaps or repeats. What can be retried is
    /// retried inside, without end: bound the wait with a time-out of your own if you need one.
    ///
    /// # Errors
    /// `Refused(OffsetOutOfRange)`, `UnknownTopic` and the like end one partition, which the
    /// message names; the others go on with the next call.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next_batch(&mut self) -> Result<Option<RecordBatch>, Error> {
        let Some(next) = self.batches.recv().await else { return Ok(None) };
        let batch = next.result?;
        self.budget.release(batch.bytes());
        self.positions.insert(batch.partition, batch.next_offset());
        self.watch.fetched(&batch);
        Ok(Some(batch))
    }

    /// The offset that comes next in each partition: what to start from to go on later.
    pub fn positions(&self) -> Vec<(PartitionId, Offset)> {
        self.positions.iter().map(|(partition, offset)| (*partition, *offset)).collect()
    }

    /// The batches as a stream, which ends after the last.
    pub fn into_stream(self) -> impl Stream<Item = Result<RecordBatch, Error>> + Send + Unpin {
        Box::pin(stream::unfold(self, |mut reader| async move {
            reader.next_batch().await.transpose().map(|item| (item, reader))
        }))
    }
}

/// Where one partition starts and, for `until_end`, ends.
async fn place(
    core: &Core,
    config: &ReaderConfig,
    partition: TopicPartition,
) -> Result<Assignment, Error> {
    let start = find(core, partition, config.start).await?;
    let end = match config.until_end {
        true => Some(find(core, partition, StartAt::End).await?),
        false => None,
    };
    Ok(Assignment { partition, start, end, stint: Stint::default() })
}

/// The offset that a place means.
pub(crate) async fn find(
    core: &Core,
    partition: TopicPartition,
    start: StartAt,
) -> Result<Offset, Error> {
    let ask = async |at| {
        let found = core.on_leader(partition, &ListOffsetsRequest { partition, at }).await?;
        Ok::<Offset, Error>(found.offset)
    };
    match start {
        StartAt::Start => ask(OffsetAt::Start).await,
        StartAt::End => ask(OffsetAt::End).await,
        StartAt::Offset(offset) => Ok(offset),
        StartAt::Time(time) => ask(OffsetAt::Time(time)).await,
        StartAt::Last => {
            let end = ask(OffsetAt::End).await?;
            let last = Offset(end.0.saturating_sub(1));
            Ok(last.max(ask(OffsetAt::Start).await?))
        }
    }
}

const PLACING_AT_ONCE: usize = 64;
