//! One partition of a consumer's own, in the hands of its worker.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use highwater_protocol::ids::Offset;
use tokio::sync::{Notify, mpsc};

use super::OwnedPartition;
use crate::reader::{RecordBatch, Stint};

/// What a worker of [`Consumer::for_each_partition`](crate::Consumer::for_each_partition) reads and marks: one
/// partition, in order.
#[derive(Debug)]
pub struct PartitionConsumer {
    name: OwnedPartition,
    /// Batches that were fetched before this are none of its own.
    since: Stint,
    queue: mpsc::UnboundedReceiver<RecordBatch>,
    shared: Arc<Shared>,
}

/// The near end of a partition that a worker has.
#[derive(Debug)]
pub(super) struct Lane {
    /// None once it is over. Unbounded in number, bounded in bytes: when it has too many the partition is paused.
    queue: Option<mpsc::UnboundedSender<RecordBatch>>,
    shared: Arc<Shared>,
    /// Where its worker began.
    pub first: Offset,
    /// Its partition is paused because too much of it lies here.
    pub full: bool,
    pub lost: bool,
    /// Its partition has come back while it still ended.
    pub is_back: bool,
}

#[derive(Debug)]
struct Shared {
    progress: Mutex<Progress>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Progress {
    over: bool,
    queued_bytes: usize,
    /// What was marked and is not taken over by the consumer yet.
    marked: Option<Offset>,
    /// When its worker last asked; none while it does.
    asked: Option<Instant>,
}

/// The worker asks.
struct Asking<'a>(&'a Shared);

impl PartitionConsumer {
    /// Which partition it is.
    pub fn partition(&self) -> &OwnedPartition {
        &self.name
    }

    /// The next records of the partition; `None` once it is to be given up, was lost, or the program ends: the worker
    /// should end, too, and soon, for others wait for the partition.
    ///
    /// Call it again only when the last batch is done with, or marks would lag behind what was done.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next_batch(&mut self) -> Option<RecordBatch> {
        let _asking = Asking::begin(&self.shared);
        let batch = self.queue.recv().await?;
        let mut progress = self.shared.lock();
        if progress.over {
            return None;
        }
        progress.queued_bytes -= batch.bytes();
        drop(progress);
        Some(batch)
    }

    /// A batch is done with: with the next commit the group has come to its end.
    pub fn mark(&self, batch: &RecordBatch) {
        self.mark_before(batch, batch.next_offset());
    }

    /// Of a batch, all records before an offset are done with.
    ///
    /// # Panics
    /// If the offset lies behind the batch, or before it.
    pub fn mark_before(&self, batch: &RecordBatch, offset: Offset) {
        batch.must_reach(offset);
        let OwnedPartition { topic, partition } = &self.name;
        if (topic, partition) == (&batch.topic, &batch.partition) && batch.stint() >= self.since {
            let mut progress = self.shared.lock();
            progress.marked = progress.marked.max(Some(offset));
            drop(progress);
            self.shared.changed.notify_one();
        }
    }
}

impl Lane {
    /// A lane that begins with a batch, and the far end of it.
    pub fn new(
        name: OwnedPartition,
        first: &RecordBatch,
        changed: Arc<Notify>,
    ) -> (Lane, PartitionConsumer) {
        let (batches, queue) = mpsc::unbounded_channel();
        let progress = Progress { asked: Some(Instant::now()), ..Progress::default() };
        let shared = Arc::new(Shared { progress: Mutex::new(progress), changed });
        let lane = Lane {
            queue: Some(batches),
            shared: shared.clone(),
            first: first.first_offset(),
            full: false,
            lost: false,
            is_back: false,
        };
        (lane, PartitionConsumer { name, since: first.stint(), queue, shared })
    }

    /// Puts a batch before the worker; one whose worker has ended is read again.
    pub fn put(&self, batch: RecordBatch) {
        self.shared.lock().queued_bytes += batch.bytes();
        if let Some(queue) = &self.queue {
            let _ = queue.send(batch);
        }
    }

    /// Bytes that lie before the worker.
    pub fn queued_bytes(&self) -> usize {
        self.shared.lock().queued_bytes
    }

    /// Nothing more comes to the worker.
    pub fn end(&mut self) {
        self.shared.lock().over = true;
        self.queue = None;
    }

    /// Since when its worker does not ask.
    pub fn away_since(&self) -> Option<Instant> {
        self.shared.lock().asked
    }

    pub fn is_over(&self) -> bool {
        self.queue.is_none()
    }

    /// What was marked since the last call.
    pub fn take_marked(&self) -> Option<Offset> {
        self.shared.lock().marked.take()
    }
}

impl Asking<'_> {
    fn begin(shared: &Shared) -> Asking<'_> {
        shared.lock().asked = None;
        shared.changed.notify_one();
        Asking(shared)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.lock().asked = Some(Instant::now());
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
