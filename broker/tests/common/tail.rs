//! A keyed producer and a reader at the end of the log, side by side for as long as things happen: each
//! key's records are read once each, in the order in which they were sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater_client::{AckMode, Client, ProducerConfig, ReaderConfig, Record, StartAt};
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;

/// A producer and a reader of one topic.
pub struct Tail {
    running: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    producer: tokio::task::JoinHandle<u64>,
    reader: tokio::task::JoinHandle<()>,
}

impl Tail {
    /// Begins at once; the topic must be empty.
    pub fn start(client: &Client, topic: &'static str) -> Tail {
        let (running, read) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let producer = tokio::spawn(produce(client.clone(), topic, Arc::clone(&running)));
        let reader = tokio::spawn(follow(client.clone(), topic, Arc::clone(&read)));
        Tail { running, read, producer, reader }
    }

    /// Waits until so many more records have come through, from the producer to the reader.
    pub async fn goes_on(&self, more: u64) {
        let wanted = self.read.load(Ordering::Relaxed) + more;
        self.reaches(wanted).await;
    }

    async fn reaches(&self, wanted: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.read.load(Ordering::Relaxed) < wanted {
            assert!(!self.reader.is_finished(), "the reader gave up");
            assert!(Instant::now() < deadline, "{} of {wanted}", self.read.load(Ordering::Relaxed));
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends both, once the reader has seen every record that was sent; says how many.
    pub async fn stop(mut self) -> u64 {
        self.running.store(false, Ordering::Relaxed);
        let sent = timeout(PATIENCE, &mut self.producer).await.expect("it ends");
        let sent = sent.expect("no produce fails");
        self.reaches(sent).await;
        self.reader.abort();
        assert_eq!(self.read.load(Ordering::Relaxed), sent, "no more is read than was sent");
        sent
    }
}

/// Sends rounds of one record to each key, none of which may fail; says how many there were.
async fn produce(client: Client, topic: &'static str, running: Arc<AtomicBool>) -> u64 {
    let config = ProducerConfig::default().acks(AckMode::Sync).linger(Duration::from_millis(1));
    let producer = client.producer(config.delivery_timeout(PATIENCE));
    let mut round = 0_u64;
    while running.load(Ordering::Relaxed) {
        let mut sent = Vec::new();
        for key in 0..KEYS {
            let record = Record::to(topic).key(format!("key-{key}")).value(round.to_string());
            sent.push(producer.send(record).await.expect("there is room for it"));
        }
        for delivery in sent {
            delivery.await.expect("no produce fails");
        }
        round += 1;
    }
    round * KEYS
}

/// Reads from the start and on; each key's numbers come one after the other.
async fn follow(client: Client, topic: &'static str, read: Arc<AtomicU64>) {
    let config = ReaderConfig::new(topic, StartAt::Start);
    let mut reader = client.reader(config).await.expect("a reader");
    let mut next: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    loop {
        let batch = reader.next_batch().await.expect("no fetch fails").expect("it has no end");
        for record in &batch {
            let text = String::from_utf8_lossy(record.value.expect("each has a value"));
            let number: u64 = text.parse().expect("values are numbers");
            let key = record.key.expect("each has a key").to_vec();
            let wanted = next.entry(key).or_default();
            let at = (batch.partition, record.offset);
            assert_eq!(number, *wanted, "at {at:?}: lost, repeated or out of order");
            *wanted += 1;
            read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

const KEYS: u64 = 24;
