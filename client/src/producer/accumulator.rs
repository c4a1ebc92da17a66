//! Records on their way into batches: one queue per partition, one bound on memory.
//!
//! `append` runs on the caller's task and copies the record once, into the open batch of its
//! partition. A batch is closed when it is full or when a record with another ack mode follows; the
//! sender takes closed batches, and open ones whose time has come. Order within a partition is the
//! order of `append`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use highwater_protocol::batch::{
    BatchBuilder, BatchView, BuilderOptions, Compression, HEADER_BYTES, Header, ProducerStamp,
    UNPACKED_BYTES_MAX, crc32c,
};
use highwater_protocol::ids::{Offset, Timestamp, TopicPartition};
use highwater_protocol::native::produce::{AckMode, Receipt};
use tokio::sync::Notify;

use super::delivery::{Completion, Delivery};
use crate::error::{Error, ErrorKind};
use crate::hooks::BatchWritten;
use crate::record::{Record, TopicName};

/// One partition's open batch and the closed ones that wait for the sender.
pub(crate) struct Queue {
    pub(crate) topic: TopicName,
    pub(crate) partition: TopicPartition,
    /// Its place among all queues of the producer.
    pub(crate) index: usize,
    state: Mutex<QueueState>,
}

struct QueueState {
    open: Option<Batch>,
    full: VecDeque<Batch>,
    /// How much room the next batch is given at first: what the last one took.
    bytes_expected: usize,
    /// The sender has been told to look here and has not looked yet.
    announced: bool,
    /// Why nothing is taken any more.
    refused: Option<Error>,
}

/// Records of one partition with one ack mode, from the first `append` to the final answer.
#[derive(Debug)]
pub(crate) struct Batch {
    body: Body,
    pub(crate) acks: AckMode,
    pub(crate) completion: Arc<Completion>,
    /// When its first record was taken.
    pub(crate) created: Instant,
    /// When it fails if it is not written.
    pub(crate) deadline: Instant,
    /// Bytes of the memory bound that come free when it is settled.
    pub(crate) charged: usize,
    /// Written only if the partition ends here.
    pub(crate) expected_end: Option<Offset>,
    haste: Haste,
    /// How often it was sent.
    attempts: u32,
}

/// How long an open batch waits for more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Haste {
    /// For the linger time.
    Linger,
    /// Not at all if nothing else of the partition is under way.
    WhenIdle,
    /// Not at all.
    Now,
}

#[derive(Debug)]
enum Body {
    Open(BatchBuilder),
    Stamped {
        stamp: ProducerStamp,
        records: u32,
        bytes: Bytes,
    },
    /// Only while `stamped` turns one into the other.
    Moving,
}

/// The queues that the sender should look at.
#[derive(Default)]
pub(crate) struct Announcements {
    queues: Mutex<Vec<usize>>,
    /// Wakes the sender; also used to tell it that the producer was dropped.
    pub(crate) wake: Notify,
    /// No handle of the producer is left: send what there is and end.
    pub(crate) dropped: AtomicBool,
}

/// What a queue has for the sender now.
pub(crate) enum Taken {
    Batch(Box<Batch>),
    /// An open batch that may wait until then.
    Later(Instant),
    Nothing,
}

/// What `append` needs to know beside the record.
#[derive(Clone, Copy)]
pub(crate) struct Append {
    pub(crate) acks: AckMode,
    pub(crate) charged: usize,
    pub(crate) haste: Haste,
    pub(crate) timestamp: Timestamp,
    pub(crate) now: Instant,
    pub(crate) batch_bytes_max: usize,
    pub(crate) delivery_timeout: Duration,
}

impl Queue {
    pub(crate) fn new(topic: TopicName, partition: TopicPartition, index: usize) -> Queue {
        let state = QueueState {
            open: None,
            full: VecDeque::new(),
            bytes_expected: 0,
            announced: false,
            refused: None,
        };
        Queue { topic, partition, index, state: Mutex::new(state) }
    }

    /// Puts a record into the open batch, and tells the sender where that matters to it.
    pub(crate) fn append(
        &self,
        record: &Record,
        how: Append,
        announcements: &Announcements,
    ) -> Result<Delivery, Error> {
        let mut state = self.lock();
        if let Some(refused) = &state.refused {
            return Err(refused.clone());
        }
        let bytes = record.payload_bytes() + RECORD_BYTES_ABOUT;
        let fits = |open: &Batch| {
            open.acks == how.acks && open.bytes() + bytes <= how.batch_bytes_max.max(bytes)
        };
        if state.open.as_ref().is_some_and(|open| !fits(open)) {
            state.close();
        }
        let mut news = state.open.is_none();
        let (partition, bytes_expected) = (self.partition.partition, state.bytes_expected);
        let open = state.open.get_or_insert_with(|| {
            let completion = Completion::new(self.topic.clone(), partition);
            Batch::new(completion, how, bytes_expected.max(HEADER_BYTES + bytes))
        });
        let index = open.push(record, how);
        news |= open.hurry(how.haste);
        let delivery = open.completion.delivery(index);
        if open.bytes() >= how.batch_bytes_max {
            state.close();
            news = true;
        }
        let announce = news && !std::mem::replace(&mut state.announced, true);
        drop(state);
        if announce {
            announcements.announce(self.index);
        }
        Ok(delivery)
    }

    /// Puts records into a batch of their own, which is written only if the partition ends at `end`.
    pub(crate) fn append_if(
        &self,
        end: Offset,
        records: &[(&Record, Append)],
        announcements: &Announcements,
    ) -> Result<Delivery, Error> {
        let mut state = self.lock();
        if let Some(refused) = &state.refused {
            return Err(refused.clone());
        }
        state.close();
        let completion = Completion::new(self.topic.clone(), self.partition.partition);
        let delivery = completion.delivery(0);
        let (_, how) = *records.first().expect("a batch has a record");
        let bytes: usize = records.iter().map(|(_, how)| how.charged).sum();
        let mut batch = Batch::new(completion, how, HEADER_BYTES + bytes);
        batch.expected_end = Some(end);
        for (record, how) in records {
            batch.push(record, *how);
        }
        state.full.push_back(batch);
        let announce = !std::mem::replace(&mut state.announced, true);
        drop(state);
        if announce {
            announcements.announce(self.index);
        }
        Ok(delivery)
    }

    /// The next batch for the sender, in order; `idle` means that nothing of this partition is
    /// under way.
    pub(crate) fn take(&self, now: Instant, linger: Duration, idle: bool) -> Taken {
        let mut state = self.lock();
        state.announced = false;
        if let Some(batch) = state.full.pop_front() {
            return Taken::Batch(Box::new(batch));
        }
        let Some(open) = &state.open else { return Taken::Nothing };
        let due = open.created + linger;
        let at_once = match open.haste {
            Haste::Linger => false,
            Haste::WhenIdle => idle,
            Haste::Now => true,
        };
        if !at_once && now < due {
            return Taken::Later(due);
        }
        state.close();
        let batch = state.full.pop_front().expect("closed just now");
        Taken::Batch(Box::new(batch))
    }

    /// Takes out what has passed its deadline while no leader could be reached.
    pub(crate) fn expired(&self, now: Instant) -> Vec<Batch> {
        let mut state = self.lock();
        let mut expired = Vec::new();
        while state.full.front().is_some_and(|batch| batch.deadline <= now) {
            expired.extend(state.full.pop_front());
        }
        if state.full.is_empty() && state.open.as_ref().is_some_and(|open| open.deadline <= now) {
            expired.extend(state.open.take());
        }
        expired
    }

    /// When the oldest batch here fails.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = self.lock();
        state.full.front().or(state.open.as_ref()).map(|batch| batch.deadline)
    }

    /// Whether no record waits here.
    pub(crate) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.full.is_empty() && state.open.is_none()
    }

    /// Lets the open batch go without waiting for more.
    pub(crate) fn hurry(&self, announcements: &Announcements) {
        let mut state = self.lock();
        let news = state.open.as_mut().is_some_and(|open| open.hurry(Haste::Now));
        let announce = news && !std::mem::replace(&mut state.announced, true);
        drop(state);
        if announce {
            announcements.announce(self.index);
        }
    }

    /// Refuses records from now on.
    pub(crate) fn refuse(&self, error: &Error) {
        self.lock().refused.get_or_insert_with(|| error.clone());
    }

    /// Takes out everything that waits.
    pub(crate) fn drain(&self) -> Vec<Batch> {
        let mut state = self.lock();
        let open = state.open.take();
        state.full.drain(..).chain(open).collect()
    }

    /// The batches that wait.
    pub(crate) fn completions(&self) -> Vec<Arc<Completion>> {
        let state = self.lock();
        state.full.iter().chain(&state.open).map(|batch| batch.completion.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.bytes_expected = open.bytes() + HEADER_BYTES;
            self.full.push_back(open);
        }
    }
}

impl Batch {
    pub(crate) fn new(completion: Arc<Completion>, how: Append, bytes_expected: usize) -> Batch {
        let options = BuilderOptions { bytes_expected, ..BuilderOptions::default() };
        Batch {
            body: Body::Open(BatchBuilder::new(options)),
            acks: how.acks,
            completion,
            created: how.now,
            deadline: how.now + how.delivery_timeout,
            charged: 0,
            expected_end: None,
            haste: Haste::Linger,
            attempts: 0,
        }
    }

    /// How many records it has.
    pub(crate) fn records(&self) -> u32 {
        match &self.body {
            Body::Open(builder) => builder.records(),
            Body::Stamped { records, .. } => *records,
            Body::Moving => unreachable_body(),
        }
    }

    /// What became of it, for those who watch.
    pub(crate) fn written<'a>(&'a self, result: &'a Result<Receipt, Error>) -> BatchWritten<'a> {
        let (topic, partition) = self.completion.place();
        BatchWritten {
            topic,
            partition,
            records: self.records().into(),
            bytes: self.bytes(),
            attempts: self.attempts,
            took: self.created.elapsed(),
            result: result.as_ref().map(|receipt| receipt.base_offset),
        }
    }

    /// The finished bytes with this producer stamp for one more attempt, packed with `codec` if they were not finished
    /// before.
    pub(crate) fn stamped(&mut self, stamp: ProducerStamp, codec: Compression) -> Bytes {
        self.attempts += 1;
        let records = self.records();
        let bytes = match std::mem::replace(&mut self.body, Body::Moving) {
            Body::Open(mut builder) => {
                builder.set_producer(Some(stamp));
                builder.set_compression(codec);
                builder.finish()
            }
            Body::Stamped { stamp: same, bytes, .. } if same == stamp => bytes,
            Body::Stamped { bytes, .. } => restamp(&bytes, stamp),
            Body::Moving => unreachable_body(),
        };
        self.body = Body::Stamped { stamp, records, bytes: bytes.clone() };
        bytes
    }

    /// Makes a packed batch a plain one, with the same stamp; false if there is nothing to unpack.
    pub(crate) fn unpack(&mut self) -> bool {
        let Body::Stamped { bytes, .. } = &mut self.body else { return false };
        let view = BatchView::parse(bytes).expect("we made it");
        let plain = view.unpacked(UNPACKED_BYTES_MAX).expect("we packed it");
        let was_packed = plain.is_some();
        *bytes = plain.unwrap_or_else(|| bytes.clone());
        was_packed
    }

    /// Adds a record and gives its index.
    pub(crate) fn push(&mut self, record: &Record, how: Append) -> u32 {
        let Body::Open(builder) = &mut self.body else {
            panic!("records are added to open batches only");
        };
        let index = builder.records();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let headers: Vec<Header<'_>> = record
            .headers
            .iter()
            .map(|(name, value)| Header { name, value: value.as_deref() })
            .collect();
        builder.push(how.timestamp, key, value, &headers);
        self.charged += how.charged;
        index
    }

    fn bytes(&self) -> usize {
        match &self.body {
            Body::Open(builder) => builder.bytes(),
            Body::Stamped { bytes, .. } => bytes.len(),
            Body::Moving => unreachable_body(),
        }
    }

    /// Raises the haste; says whether that changed anything.
    fn hurry(&mut self, haste: Haste) -> bool {
        let raised = haste > self.haste;
        self.haste = self.haste.max(haste);
        raised
    }
}

impl Announcements {
    fn announce(&self, queue: usize) {
        self.lock().push(queue);
        self.wake.notify_one();
    }

    /// The queues announced since the last call.
    pub(crate) fn take(&self) -> Vec<usize> {
        std::mem::take(&mut *self.lock())
    }

    /// Tells the sender that nobody will add records any more.
    pub(crate) fn producer_dropped(&self) {
        self.dropped.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The error of a closed producer.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the producer is closed; make a new one with Client::producer")
}

/// Rewrites the producer fields of a finished batch, which its checksum covers.
fn restamp(bytes: &[u8], stamp: ProducerStamp) -> Bytes {
    let mut copy = BytesMut::from(bytes);
    copy[PRODUCER_AT..PRODUCER_AT + 8].copy_from_slice(&stamp.id.0.to_be_bytes());
    copy[PRODUCER_AT + 8..PRODUCER_AT + 10].copy_from_slice(&stamp.epoch.0.to_be_bytes());
    copy[PRODUCER_AT + 10..PRODUCER_AT + 14].copy_from_slice(&stamp.base_sequence.to_be_bytes());
    let checksum = crc32c(&copy[CHECKSUMMED_FROM..]);
    copy[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_be_bytes());
    copy.freeze()
}

fn unreachable_body() -> ! {
    panic!("a batch's body is away only within `stamped`")
}

/// A record's own fields, generously: lengths, deltas and header counts are varints.
pub(crate) const RECORD_BYTES_ABOUT: usize = 24;
const CHECKSUM_AT: usize = 17;
const CHECKSUMMED_FROM: usize = 21;
const PRODUCER_AT: usize = 43;
