//! Records out and back through the real client, in every ack mode, checked one by one.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use highwater_client::{
    AckMode, Client, Delivery, Error, ErrorKind, NewTopic, PartitionId, ProducerConfig, Reader,
    ReaderConfig, Record, RecordMetadata, StartAt, TopicName,
};
use tokio::time::{Instant, timeout};

/// The topic that the records go to.
pub(super) const TOPIC: &str = "hello";

/// What became of the records of one mode.
#[derive(Debug)]
pub(super) struct Trip {
    pub(super) mode: AckMode,
    pub(super) sent: u32,
    pub(super) acked: u32,
    pub(super) received: u32,
    /// Records that came twice, out of order, or with another content.
    pub(super) wrong: u32,
    pub(super) producing: Duration,
    pub(super) acks: Vec<Duration>,
}

impl Trip {
    /// Whether everything came back exactly once and in order.
    pub(super) fn is_whole(&self) -> bool {
        self.acked == self.sent && self.received == self.sent && self.wrong == 0
    }

    /// How long an ack took at this quantile.
    pub(super) fn ack(&self, quantile: f64) -> Duration {
        let last = self.acks.len().saturating_sub(1);
        self.acks.get((last as f64 * quantile) as usize).copied().unwrap_or_default()
    }
}

/// Makes the topic if it is not there and sends records in each mode, one mode after the other.
pub(super) async fn in_every_mode(client: &Client, records: u32) -> anyhow::Result<Vec<Trip>> {
    let topic = NewTopic::new(TOPIC, PARTITIONS).replication(3);
    match client.admin().create_topic(topic).await {
        Ok(_) => println!("topic {TOPIC}: {PARTITIONS} partitions, 3 replicas each"),
        Err(error)
            if error.kind()
                == ErrorKind::Refused(highwater_protocol::error::ErrorCode::TopicExists) =>
        {
            println!("topic {TOPIC} is there already");
        }
        Err(error) => return Err(error).context("create the topic"),
    }
    let mut trips = Vec::new();
    for mode in [AckMode::Async, AckMode::SemiSync, AckMode::Sync] {
        let config = ReaderConfig::new(TOPIC, StartAt::End);
        let reader = client.reader(config).await.context("read from the end")?;
        trips.push(one_mode(client, reader, mode, records).await?);
    }
    Ok(trips)
}

async fn one_mode(
    client: &Client,
    reader: Reader,
    mode: AckMode,
    records: u32,
) -> anyhow::Result<Trip> {
    let receiving = tokio::spawn(receive(reader, mode, records));
    let producer = client.producer(ProducerConfig::default().acks(mode));
    let topic = TopicName::from(TOPIC);
    let (settle, settling) = tokio::sync::mpsc::channel(1);
    let settling = tokio::spawn(settle_all(settling));
    let since = Instant::now();
    for number in 0..records {
        let record = Record::to(&topic).key(key(number)).value(value(mode, number));
        let delivery = producer.send(record).await.context("send a record")?;
        settle.send((Instant::now(), delivery)).await.context("the settling task ended")?;
    }
    drop(settle);
    let mut acks = settling.await??;
    let producing = since.elapsed();
    producer.close(Duration::from_secs(10)).await.context("close the producer")?;
    acks.sort_unstable();
    let (received, wrong) = receiving.await??;
    let acked = u32::try_from(acks.len()).expect("no more than were sent");
    Ok(Trip { mode, sent: records, acked, received, wrong, producing, acks })
}

async fn settle_all(
    mut deliveries: tokio::sync::mpsc::Receiver<(Instant, Delivery)>,
) -> anyhow::Result<Vec<Duration>> {
    let mut acks = Vec::new();
    let mut pending = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = deliveries.recv(), if pending.len() < IN_FLIGHT => match next {
                Some((since, delivery)) => pending.push(delivery.map(move |done| (since, done))),
                None => break,
            },
            Some((since, done)) = pending.next() => acks.push(elapsed(since, done)?),
        }
    }
    while let Some((since, done)) = pending.next().await {
        acks.push(elapsed(since, done)?);
    }
    Ok(acks)
}

fn elapsed(since: Instant, done: Result<RecordMetadata, Error>) -> anyhow::Result<Duration> {
    done.context("a record was not acknowledged")?;
    Ok(since.elapsed())
}

/// Reads until all have come, and counts what is not as it was sent.
async fn receive(mut reader: Reader, mode: AckMode, records: u32) -> anyhow::Result<(u32, u32)> {
    let mut received = 0;
    let mut wrong = 0;
    let mut next: HashMap<PartitionId, u32> = HashMap::new();
    while received < records {
        let Ok(batch) = timeout(RECEIVE_PATIENCE, reader.next_batch()).await else { break };
        let Some(batch) = batch.context("read records")? else {
            bail!("the reader ended before all records had come");
        };
        for record in &batch {
            received += 1;
            let number = record.value.and_then(number_of);
            let expected_from = next.entry(batch.partition).or_default();
            match number {
                // Numbers of one partition only grow: that they grow is their order, and that
                // each is counted once, that none came twice.
                Some(number) if number >= *expected_from => {
                    wrong += u32::from(record.value != Some(&*value(mode, number)));
                    *expected_from = number + 1;
                }
                Some(_) | None => wrong += 1,
            }
        }
    }
    Ok((received, wrong))
}

fn key(number: u32) -> Bytes {
    Bytes::from(format!("key-{}", number % KEYS))
}

fn value(mode: AckMode, number: u32) -> Bytes {
    let mut value = format!("{number} {mode:?} ").into_bytes();
    value.resize(VALUE_BYTES, b'.');
    Bytes::from(value)
}

fn number_of(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.split(' ').next()?.parse().ok()
}

const PARTITIONS: u32 = 12;
const KEYS: u32 = 1000;
const VALUE_BYTES: usize = 1024;
/// Deliveries that wait to be looked at.
const IN_FLIGHT: usize = 4096;
const RECEIVE_PATIENCE: Duration = Duration::from_secs(20);
