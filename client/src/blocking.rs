//! The client for programs without `async`: the same handles, and each call waits.
//!
//! Behind it is the asynchronous client on a small runtime of its own, with one thread beside those that call. All handles work
//! from any thread; those of one client share its runtime, which ends with the last of them.
//!
//! ```no_run
//! use std::time::Duration;
//! use highwater_client::blocking::Client;
//! use highwater_client::{ConsumerConfig, Error, NewTopic, ProducerConfig, Record};
//!
//! # fn main() -> Result<(), Error> {
//! let client = Client::from_profile(None)?;
//! client.block_on(client.admin().create_topic(NewTopic::new("orders", 3)))?;
//!
//! let producer = client.producer(ProducerConfig::default());
//! let delivery = producer.send(Record::to("orders").value("hello"))?;
//! println!("offset {}", delivery.wait()?.offset);
//! producer.close(Duration::from_secs(30))?;
//!
//! let mut consumer = client.consumer(ConsumerConfig::new("billing", ["orders"]))?;
//! while let Some(batch) = consumer.poll(Duration::from_secs(5))? {
//!     for record in &batch {
//!         println!("{:?}", record.value);
//!     }
//!     consumer.mark(&batch);
//! }
//! consumer.close(Duration::from_secs(10))
//! # }
//! ```
//!
//! # Not within async code
//!
//! Every call that waits panics on a thread that drives an async runtime, which it would stop: there is [`crate::Client`] for
//! that. Under `tokio::task::spawn_blocking` all calls work.
//!
//! # Ends
//!
//! No `Drop` waits. What a producer still has is lost when the last handle goes: [`Producer::close`] or [`Producer::flush`] it. A
//! consumer that is dropped, not closed, makes the others of its group wait for its session if it was the last handle.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout as within;

use crate::{
    Admin, ClientConfig, ConsumerConfig, Error, ErrorKind, FlushReport, Offset, OwnedPartition,
    PartitionId, ProducerConfig, Profile, ReaderConfig, Record, RecordBatch, RecordMetadata,
};

/// A connected client; clones share its connections and its runtime.
#[derive(Clone)]
pub struct Client {
    client: crate::Client,
    background: Background,
}

/// Sends records; clones are the same producer.
#[derive(Clone)]
pub struct Producer {
    producer: crate::Producer,
    background: Background,
}

/// What becomes of a record. Dropping it does not cancel the sending; a failure that nobody looked at shows in the next
/// [`Producer::flush`] or [`Producer::close`].
#[must_use = "wait for it, or drop it on purpose: failures then show in the next flush or close"]
pub struct Delivery {
    delivery: crate::Delivery,
    background: Background,
}

/// Reads partitions, without a group; an iterator over their batches.
pub struct Reader {
    reader: crate::Reader,
    background: Background,
}

/// A member of a consumer group.
pub struct Consumer {
    consumer: crate::Consumer,
    background: Background,
}

/// The batches of a consumer, each marked as done with when the next one is asked for: see [`Consumer::batches`].
pub struct Batches<'a> {
    consumer: &'a mut Consumer,
    handed_out: Option<RecordBatch>,
    over: bool,
}

/// The runtime on which the connections of a client live.
#[derive(Clone)]
struct Background(Arc<Ending>);

struct Ending(Option<Runtime>);

impl Client {
    /// Connects to the first bootstrap broker that answers and learns the cluster from it.
    ///
    /// # Errors
    /// As for [`crate::Client::connect`], and `Config` where the system has no thread for it.
    ///
    /// # Panics
    /// On a thread that drives an async runtime, as all calls here that wait.
    #[track_caller]
    pub fn connect(config: ClientConfig) -> Result<Client, Error> {
        let background = Background::start()?;
        let client = background.block_on(crate::Client::connect(config))?;
        Ok(Client { client, background })
    }

    /// Connects with the profile called `name`, or the current one.
    ///
    /// # Errors
    /// `Config` where there is no such profile; otherwise as [`Client::connect`].
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn from_profile(name: Option<&str>) -> Result<Client, Error> {
        Client::connect(Profile::load(name)?.config())
    }

    /// A new producer, ready to send.
    pub fn producer(&self, config: ProducerConfig) -> Producer {
        let _context = self.background.runtime().enter();
        Producer { producer: self.client.producer(config), background: self.background.clone() }
    }

    /// A reader of partitions of one topic, positioned and ready.
    ///
    /// # Errors
    /// As for [`crate::Client::reader`].
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn reader(&self, config: ReaderConfig) -> Result<Reader, Error> {
        let reader = self.block_on(self.client.reader(config))?;
        Ok(Reader { reader, background: self.background.clone() })
    }

    /// A member of a consumer group, which begins to take part at once.
    ///
    /// # Errors
    /// As for [`crate::Client::consumer`].
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, Error> {
        let consumer = self.block_on(self.client.consumer(config))?;
        Ok(Consumer { consumer, background: self.background.clone() })
    }

    /// Topics, partitions and brokers; its calls are waited for with [`Client::block_on`].
    pub fn admin(&self) -> Admin {
        self.client.admin()
    }

    /// The asynchronous client behind this one, for what has no call of its own here.
    pub fn as_async(&self) -> &crate::Client {
        &self.client
    }

    /// Waits for anything asynchronous of this client, on its runtime.
    ///
    /// ```no_run
    /// # use highwater_client::{Error, blocking::Client};
    /// # fn run(client: Client) -> Result<(), Error> {
    /// let lag = client.block_on(client.admin().group_lag("billing"))?;
    /// println!("{} partitions", lag.len());
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.background.block_on(future)
    }

    /// Closes all connections and waits until the brokers have been told; close producers and consumers first.
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn close(&self) {
        self.block_on(self.client.close());
    }
}

impl Producer {
    /// Puts a record into its batch, waiting only for buffer space (and once per topic for metadata).
    ///
    /// # Errors
    /// As for [`crate::Producer::send`]; all mean: not written.
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn send(&self, record: Record) -> Result<Delivery, Error> {
        let delivery = self.background.block_on(self.producer.send(record))?;
        Ok(Delivery { delivery, background: self.background.clone() })
    }

    /// Sends a record and waits until it is acknowledged; for many records, [`Producer::send_all`] is much quicker.
    ///
    /// # Errors
    /// As for [`crate::Producer::send_and_wait`].
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn send_and_wait(&self, record: Record) -> Result<RecordMetadata, Error> {
        self.background.block_on(self.producer.send_and_wait(record))
    }

    /// Sends records and waits until each is acknowledged or failed: what became of them, in their order.
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn send_all(
        &self,
        records: impl IntoIterator<Item = Record>,
    ) -> Vec<Result<RecordMetadata, Error>> {
        // The caller's iterator may itself wait, and so must not run on the runtime.
        let sent: Vec<_> = records.into_iter().map(|record| self.send(record)).collect();
        sent.into_iter().map(|delivery| delivery?.wait()).collect()
    }

    /// Sends everything at once and waits until each record sent before is acknowledged or failed.
    ///
    /// # Errors
    /// `TimedOut` where that took longer than `timeout`; the records are sent all the same.
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn flush(&self, timeout: Duration) -> Result<FlushReport, Error> {
        let flushed =
            self.background.block_on(async { within(timeout, self.producer.flush()).await });
        flushed.map_err(|_| {
            let text = format!(
                "records were still on their way after {timeout:?}; they are sent all the same"
            );
            Error::with_outcome(ErrorKind::TimedOut, crate::Outcome::Unknown, text)
        })
    }

    /// Refuses new records, flushes, and stops. Records that are not acknowledged within `timeout` fail.
    ///
    /// # Errors
    /// `TimedOut` where records were given up; the deliveries say which.
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn close(&self, timeout: Duration) -> Result<FlushReport, Error> {
        self.background.block_on(self.producer.close(timeout))
    }
}

impl Delivery {
    /// Waits until the record is acknowledged or failed, at most for the producer's `delivery_timeout`.
    ///
    /// # Errors
    /// Why it failed, and whether it may be written nevertheless: [`Error::outcome`].
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn wait(self) -> Result<RecordMetadata, Error> {
        self.background.block_on(self.delivery)
    }

    /// The partition whose batch the record lies in; known at once, and final.
    pub fn partition(&self) -> PartitionId {
        self.delivery.partition()
    }
}

impl Reader {
    /// The next records of any of the partitions, waiting for them without end; `None` when all of them have ended.
    ///
    /// # Errors
    /// As for [`crate::Reader::next_batch`].
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn next_batch(&mut self) -> Result<Option<RecordBatch>, Error> {
        self.background.block_on(self.reader.next_batch())
    }

    /// The offset that comes next in each partition: what to start from to go on later.
    pub fn positions(&self) -> Vec<(PartitionId, Offset)> {
        self.reader.positions()
    }
}

impl Iterator for Reader {
    type Item = Result<RecordBatch, Error>;

    #[track_caller]
    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

impl Consumer {
    /// The next records of any of its partitions; `None` where none came within `timeout`. Partitions that must be given up
    /// are, in these calls: see [`crate::Consumer::next_batch`].
    ///
    /// # Errors
    /// As for [`crate::Consumer::next_batch`].
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<RecordBatch>, Error> {
        let next = self.consumer.next_batch();
        // Nothing is lost with the future: it is cancel safe.
        let came = self.background.block_on(async { within(timeout, next).await });
        came.ok().transpose()
    }

    /// All batches, without end. One is marked as done with when the next one is asked for, and not where the loop is left
    /// amid it: it comes again then.
    ///
    /// ```no_run
    /// # use highwater_client::{Error, blocking::Consumer};
    /// # fn run(mut consumer: Consumer) -> Result<(), Error> {
    /// for batch in consumer.batches() {
    ///     for record in &batch? {
    ///         println!("{:?}", record.value);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn batches(&mut self) -> Batches<'_> {
        Batches { consumer: self, handed_out: None, over: false }
    }

    /// A batch is done with: with the next commit the group has come to its end.
    pub fn mark(&mut self, batch: &RecordBatch) {
        self.consumer.mark(batch);
    }

    /// Of a batch, all records before an offset are done with.
    ///
    /// # Panics
    /// If the offset lies behind the batch, or before it.
    #[track_caller]
    pub fn mark_before(&mut self, batch: &RecordBatch, offset: Offset) {
        self.consumer.mark_before(batch, offset);
    }

    /// Commits all that is marked, and waits until that is done.
    ///
    /// # Errors
    /// As for [`crate::Consumer::commit`].
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn commit(&mut self) -> Result<(), Error> {
        self.background.block_on(self.consumer.commit())
    }

    /// The partitions that it owns now.
    pub fn owned(&self) -> Vec<OwnedPartition> {
        self.consumer.owned()
    }

    /// Commits what is marked, unless commits are up to the program, and leaves the group, so that others go on at once.
    ///
    /// # Errors
    /// As for [`crate::Consumer::close`].
    ///
    /// # Panics
    /// On a thread that drives an async runtime.
    #[track_caller]
    pub fn close(self, timeout: Duration) -> Result<(), Error> {
        self.background.block_on(self.consumer.close(timeout))
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<RecordBatch, Error>;

    #[track_caller]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(done) = self.handed_out.take() {
            self.consumer.mark(&done);
        }
        if self.over {
            return None;
        }
        let consumer = &mut *self.consumer;
        let next = consumer.background.block_on(consumer.consumer.next_batch());
        self.over = next.as_ref().is_err_and(Error::fatal);
        self.handed_out = next.as_ref().ok().cloned();
        Some(next)
    }
}

impl Background {
    fn start() -> Result<Background, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("highwater-client")
            .enable_all()
            .build();
        let refused = |error| Error::new(ErrorKind::Config, format!("start a thread: {error}"));
        Ok(Background(Arc::new(Ending(Some(runtime.map_err(refused)?)))))
    }

    fn runtime(&self) -> &Runtime {
        self.0.0.as_ref().expect("only drop takes the runtime")
    }

    #[track_caller]
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime().block_on(future)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting would be a deadlock on its own thread, and a panic on that of another runtime.
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("cluster", &self.client.cluster_id()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.consumer.fmt(f)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.delivery.fmt(f)
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reader.fmt(f)
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Batches<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
