//! Sending records: batched per partition, idempotent, bounded in memory and time.
//!
//! `Producer` runs on the callers' tasks: it finds the partition, waits for space and appends to an
//! open batch. `accumulator` holds the batches, `sender` is the one task that sends them,
//! `partition` decides what is sent again and in what order, and `delivery` tells the callers.

mod accumulator;
mod conditional;
mod config;
mod delivery;
mod partition;
mod sender;
mod throttle;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use highwater_protocol::ids::{PartitionId, Timestamp};
use highwater_protocol::native::frame::FRAME_BYTES_MAX;
use highwater_protocol::native::produce::Receipt;
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError, mpsc, oneshot};

use crate::client::Core;
use crate::error::{Error, ErrorKind, Outcome};
use crate::metadata::{Snapshot, TopicShape};
use crate::partitioner::{Sticky, partition_for_key};
use crate::record::{Record, RecordMetadata, TopicName};
use crate::retry;
use accumulator::{Announcements, Append, Batch, Haste, Queue, RECORD_BYTES_ABOUT, closed};
pub use conditional::Appended;
pub use config::ProducerConfig;
use delivery::Completion;
pub use delivery::Delivery;
use sender::{Event, Sender};
use throttle::Throttles;

/// Sends records; clones share buffers, batches and the producer's identity.
///
/// Dropping the last clone does not block: what is still unsent goes on in the background for as
/// long as the runtime lives. Use [`Producer::close`] to know what became of it.
#[derive(Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

/// Dropped with the last clone of the producer.
struct Handle {
    core: Arc<Core>,
    config: ProducerConfig,
    shared: Arc<Shared>,
    events: mpsc::UnboundedSender<Event>,
    /// New records are refused.
    closing: AtomicBool,
}

/// What the callers' tasks and the sender share.
struct Shared {
    announcements: Announcements,
    /// One permit per byte of the memory bound.
    memory: Semaphore,
    topics: RwLock<HashMap<TopicName, Arc<TopicQueues>>>,
    queues: Mutex<Vec<Arc<Queue>>>,
    /// Topics that are looked up because `try_send` does not know them.
    looked_up: Mutex<BTreeSet<TopicName>>,
    report: Mutex<FlushReport>,
    throttles: Arc<Throttles>,
}

/// A topic as a producer sees it.
struct TopicQueues {
    shape: TopicShape,
    queues: Vec<Arc<Queue>>,
    sticky: Mutex<Sticky>,
}

/// What has become of the records since the last report.
#[derive(Debug, Clone, Default)]
pub struct FlushReport {
    /// Records that were acknowledged.
    pub acked: u64,
    /// Records that failed.
    pub failed: u64,
    /// The first failure.
    pub first_error: Option<Error>,
}

/// A record that was not taken, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct TrySendError {
    /// The record, unchanged.
    pub record: Box<Record>,
    /// Why: `BufferFull` where waiting would help.
    #[source]
    pub error: Error,
}

impl Producer {
    pub(crate) fn new(core: Arc<Core>, config: ProducerConfig) -> Producer {
        let config = config.within_bounds(core.config.compression);
        let shared = Arc::new(Shared {
            announcements: Announcements::default(),
            memory: Semaphore::new(config.buffer_bytes_max),
            topics: RwLock::new(HashMap::new()),
            queues: Mutex::new(Vec::new()),
            looked_up: Mutex::new(BTreeSet::new()),
            report: Mutex::new(FlushReport::default()),
            throttles: Arc::default(),
        });
        // Unbounded, but never longer than batches under way plus a few calls of flush and close.
        let (events, received) = mpsc::unbounded_channel();
        let channel = (events.clone(), received);
        let sender = Sender::new(core.clone(), shared.clone(), config.clone(), channel);
        tokio::spawn(sender.run());
        let closing = AtomicBool::new(false);
        Producer { handle: Arc::new(Handle { core, config, shared, events, closing }) }
    }

    /// Puts a record into its batch, waiting only for buffer space (and once per topic for
    /// metadata), and gives a future of what becomes of it.
    ///
    /// # Errors
    /// `UnknownTopic`, `RecordTooLarge`, `Closed`; `TimedOut` where the buffer stayed full, or the
    /// topic's metadata out of reach, for `delivery_timeout`. All mean: not written.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, the record was not taken.
    pub async fn send(&self, record: Record) -> Result<Delivery, Error> {
        self.send_with(&record, Haste::Linger).await
    }

    /// Sends a record and waits until it is acknowledged.
    ///
    /// If nothing else of its partition is under way, the batch is not kept for `linger`.
    ///
    /// # Errors
    /// Those of [`Producer::send`], and those of its delivery: see [`Error::outcome`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the record may or may not be sent.
    pub async fn send_and_wait(&self, record: Record) -> Result<RecordMetadata, Error> {
        self.send_with(&record, Haste::WhenIdle).await?.await
    }

    /// Puts a record into its batch if that is possible without waiting.
    ///
    /// # Errors
    /// `BufferFull` where the buffer has no space or the topic is not known yet: use
    /// [`Producer::send`] or try later. The error gives the record back.
    pub fn try_send(&self, record: Record) -> Result<Delivery, TrySendError> {
        self.append_now(&record).map_err(|error| TrySendError { record: Box::new(record), error })
    }

    /// Sends everything at once and waits until each record sent before is acknowledged or failed,
    /// which takes at most `delivery_timeout`.
    ///
    /// # Cancel safety
    /// If the future is dropped, the records are sent all the same.
    pub async fn flush(&self) -> FlushReport {
        self.settle_everything().await;
        self.handle.shared.take_report()
    }

    /// Refuses new records, flushes, and stops. Records that are not acknowledged within `timeout`
    /// fail.
    ///
    /// # Errors
    /// `TimedOut` where records were given up; the deliveries say which.
    ///
    /// # Cancel safety
    /// If the future is dropped, the producer stays closed for new records and goes on sending.
    pub async fn close(&self, timeout: Duration) -> Result<FlushReport, Error> {
        self.handle.closing.store(true, Ordering::Release);
        self.handle.shared.refuse_all();
        let in_time = tokio::time::timeout(timeout, self.settle_everything()).await.is_ok();
        let error = Error::with_outcome(
            ErrorKind::TimedOut,
            Outcome::NotWritten,
            format!("the producer was closed, and its records did not go through in {timeout:?}"),
        );
        let (done, finished) = oneshot::channel();
        let abort = Event::Abort { error: error.clone(), done };
        if self.handle.events.send(abort).is_ok() {
            // An error means that the sender has ended already, as after an earlier close.
            let _ = finished.await;
        }
        let report = self.handle.shared.take_report();
        if in_time { Ok(report) } else { Err(lost_at_close(&error, &report)) }
    }

    async fn send_with(&self, record: &Record, haste: Haste) -> Result<Delivery, Error> {
        let topic = self.topic(&record.topic).await?;
        let charged = self.charge(record)?;
        let permit = self.room(charged).await?;
        self.append(&topic, record, charged, haste).inspect(|_| permit.forget())
    }

    async fn topic(&self, name: &TopicName) -> Result<Arc<TopicQueues>, Error> {
        match self.handle.shared.topic(name) {
            Some(topic) => Ok(topic),
            None => self.resolve(name).await,
        }
    }

    /// Waits for so much of the memory bound.
    async fn room(&self, charged: u32) -> Result<SemaphorePermit<'_>, Error> {
        let memory = &self.handle.shared.memory;
        match memory.try_acquire_many(charged) {
            Ok(permit) => Ok(permit),
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                // What lies in open batches may be all that there is: don't let it linger.
                self.handle.shared.hurry_all();
                let patience = self.handle.config.delivery_timeout;
                let since = Instant::now();
                let acquired = tokio::time::timeout(patience, memory.acquire_many(charged)).await;
                let full = |_| self.buffer_full(ErrorKind::TimedOut, since);
                acquired.map_err(full)?.map_err(|_| closed())
            }
        }
    }

    fn append_now(&self, record: &Record) -> Result<Delivery, Error> {
        let Some(topic) = self.handle.shared.topic(&record.topic) else {
            self.look_up(&record.topic);
            let text = format!("topic {} is not known yet: use send, or try later", record.topic);
            return Err(Error::new(ErrorKind::BufferFull, text));
        };
        let charged = self.charge(record)?;
        let permit = self.handle.shared.memory.try_acquire_many(charged);
        let permit = permit.map_err(|_| self.buffer_full(ErrorKind::BufferFull, Instant::now()))?;
        self.append(&topic, record, charged, Haste::Linger).inspect(|_| permit.forget())
    }

    fn append(
        &self,
        topic: &TopicQueues,
        record: &Record,
        charged: u32,
        haste: Haste,
    ) -> Result<Delivery, Error> {
        let queue = topic.queue(record, self.handle.config.batch_bytes_max)?;
        let how = self.how(record, charged, haste);
        queue.append(record, how, &self.handle.shared.announcements)
    }

    fn how(&self, record: &Record, charged: u32, haste: Haste) -> Append {
        let config = &self.handle.config;
        Append {
            acks: record.acks.unwrap_or(config.acks),
            charged: charged as usize,
            haste,
            timestamp: record.timestamp.unwrap_or_else(wall_clock),
            now: Instant::now(),
            batch_bytes_max: config.batch_bytes_max,
            delivery_timeout: config.delivery_timeout,
        }
    }

    /// What a record takes of the memory bound.
    fn charge(&self, record: &Record) -> Result<u32, Error> {
        if self.handle.closing.load(Ordering::Acquire) {
            return Err(closed());
        }
        let bytes = record.payload_bytes() + RECORD_BYTES_ABOUT;
        let most = (FRAME_BYTES_MAX / 2).min(self.handle.config.buffer_bytes_max);
        if bytes > most {
            return Err(Error::new(
                ErrorKind::RecordTooLarge,
                format!(
                    "a record of {bytes} bytes for topic {} is over the limit of {most}; store \
                     large payloads elsewhere and send where they are",
                    record.topic
                ),
            ));
        }
        Ok(bytes as u32)
    }

    /// There has been no room since then.
    fn buffer_full(&self, kind: ErrorKind, since: Instant) -> Error {
        let bytes = self.handle.config.buffer_bytes_max;
        let throttles = &self.handle.shared.throttles;
        let why = throttles.blame(None, since, Instant::now()).unwrap_or_else(|| {
            "brokers take less than is sent; slow down, or raise buffer_bytes_max".to_owned()
        });
        Error::new(kind, format!("the producer's buffer of {bytes} bytes is full: {why}"))
    }

    /// Learns a topic's partitions and makes their queues.
    async fn resolve(&self, name: &TopicName) -> Result<Arc<TopicQueues>, Error> {
        let patience = self.handle.config.delivery_timeout;
        let shape = self.handle.core.topic(name, patience).await?;
        Ok(self.handle.shared.add_topic(name, shape))
    }

    /// Resolves a topic in the background, once at a time, so that a later `try_send` knows it.
    fn look_up(&self, name: &TopicName) {
        let shared = self.handle.shared.clone();
        if !shared.looked_up().insert(name.clone()) {
            return;
        }
        let (producer, name) = (self.clone(), name.clone());
        tokio::spawn(async move {
            // Why it failed, `send` says.
            let _ = producer.resolve(&name).await;
            shared.looked_up().remove(&name);
        });
    }

    async fn settle_everything(&self) {
        self.handle.shared.hurry_all();
        let (reply, unsettled) = oneshot::channel();
        if self.handle.events.send(Event::Unsettled(reply)).is_err() {
            return; // The sender has ended, and everything was settled.
        }
        let unsettled: Vec<Arc<Completion>> = unsettled.await.unwrap_or_default();
        for completion in unsettled {
            completion.settled().await;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.announcements.producer_dropped();
    }
}

impl Shared {
    fn topic(&self, name: &TopicName) -> Option<Arc<TopicQueues>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The queues of a topic, made now unless another caller was quicker.
    fn add_topic(&self, name: &TopicName, shape: TopicShape) -> Arc<TopicQueues> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return topic.clone();
        }
        let mut all = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let mut queues = Vec::with_capacity(shape.partitions as usize);
        for number in 0..shape.partitions {
            let partition = shape.partition(PartitionId(number));
            let queue = Arc::new(Queue::new(name.clone(), partition, all.len()));
            all.push(queue.clone());
            queues.push(queue);
        }
        let sticky = Mutex::new(Sticky::new(shape.partitions, retry::seed()));
        let topic = Arc::new(TopicQueues { shape, queues, sticky });
        topics.insert(name.clone(), topic.clone());
        topic
    }

    /// Gives topics that have got more partitions the queues for them.
    fn grow_topics(&self, snapshot: &Snapshot) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        for (name, topic) in topics.iter_mut() {
            let Some(Ok(shape)) = snapshot.topic(name) else { continue };
            let have = topic.shape.partitions;
            if shape.id != topic.shape.id || shape.partitions <= have {
                continue;
            }
            let mut all = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            let mut queues = topic.queues.clone();
            for number in have..shape.partitions {
                let partition = shape.partition(PartitionId(number));
                let queue = Arc::new(Queue::new(name.clone(), partition, all.len()));
                all.push(queue.clone());
                queues.push(queue);
            }
            let sticky = Mutex::new(Sticky::new(shape.partitions, retry::seed()));
            *topic = Arc::new(TopicQueues { shape, queues, sticky });
        }
    }

    /// The next send looks the topic up anew.
    fn forget_topic(&self, name: &TopicName) {
        self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    fn queues_from(&self, first: usize) -> Vec<Arc<Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)[first..].to_vec()
    }

    fn hurry_all(&self) {
        for queue in self.queues_from(0) {
            queue.hurry(&self.announcements);
        }
    }

    fn refuse_all(&self) {
        for queue in self.queues_from(0) {
            queue.refuse(&closed());
        }
    }

    /// Counts a settled batch and gives back its memory.
    fn settled(&self, batch: &Batch, result: &Result<Receipt, Error>) {
        self.memory.add_permits(batch.charged);
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) => report.acked += u64::from(batch.records()),
            Err(error) => {
                report.failed += u64::from(batch.records());
                report.first_error.get_or_insert_with(|| error.clone());
            }
        }
    }

    fn looked_up(&self) -> MutexGuard<'_, BTreeSet<TopicName>> {
        self.looked_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_report(&self) -> FlushReport {
        std::mem::take(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TopicQueues {
    fn queue(&self, record: &Record, batch_bytes_max: usize) -> Result<&Arc<Queue>, Error> {
        let partitions = self.queues.len() as u32;
        let partition = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, partitions),
            (None, None) => {
                let bytes = record.payload_bytes() + RECORD_BYTES_ABOUT;
                let mut sticky = self.sticky.lock().unwrap_or_else(PoisonError::into_inner);
                sticky.choose(bytes, batch_bytes_max, partitions)
            }
        };
        self.shape.checked_partition(&record.topic, partition)?;
        Ok(&self.queues[partition.0 as usize])
    }
}

fn lost_at_close(error: &Error, report: &FlushReport) -> Error {
    let outcome = report.first_error.as_ref().map_or(Outcome::Unknown, Error::outcome);
    let (failed, acked) = (report.failed, report.acked);
    error.but(outcome).during(&format!("{failed} records failed, {acked} were acknowledged"))
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is wrong anyway; brokers judge by the bounds of the topic.
    Timestamp(since.map_or(0, |since| since.as_millis() as i64))
}
