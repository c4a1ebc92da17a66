//! A producer of numbered records with keys, at an even pace.

use std::sync::Arc;
use std::time::Duration;

use highwater_client::{AckMode, Client, Error, PartitionId, ProducerConfig, Record};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Load, Recording};
use crate::history::{Op, Outcome, Process, Send};
use crate::workload::{Keys, Nanos, Payload, RecordId, Stamp, producer_id};

/// Sends as producer `number` until the recording is stopped, and waits for what is under way.
pub async fn produce(
    client: &Client,
    recording: &Arc<Recording>,
    load: &Load,
    number: u8,
    acks: AckMode,
) {
    let config = ProducerConfig::default()
        .acks(acks)
        .linger(Duration::from_millis(2))
        .delivery_timeout(load.delivery_timeout);
    let producer = client.producer(config);
    let id = producer_id(load.run, number);
    let mut payload = Payload::new(load.record_bytes, u64::from(id));
    let mut keys = Keys::new(load.keys, u64::from(id));
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut tasks = JoinSet::new();
    let mut tick = interval(Duration::from_nanos(1_000_000_000 / load.rate.max(1)));
    // Records that fell due while the cluster stood still are sent when it goes on.
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sequence = 0;
    while !recording.is_stopped() {
        tick.tick().await;
        let permit = Arc::clone(&under_way).acquire_owned();
        // Looks up now and then whether all is over, where nothing is answered for long.
        let Ok(Ok(permit)) = timeout(LOOK_UP_EVERY, permit).await else { continue };
        let record_id = RecordId::new(id, sequence);
        sequence += 1;
        let invoke = recording.now();
        let mut record = Record::to(load.topic.clone())
            .value(payload.next(Stamp { id: record_id, intended_unix: invoke.0 }));
        record.key = keys.choose();
        let sent = Sent { process: Process(id), id: record_id, acks, invoke };
        match producer.send(record).await {
            Err(error) => {
                // It has no partition; the checker asks for none of what was not written.
                recording.add(&sent.ended(PartitionId(0), outcome_of(&error), recording.now()));
            }
            Ok(delivery) => {
                let (recording, patience) = (Arc::clone(recording), load.delivery_timeout * 2);
                tasks.spawn(async move {
                    let partition = delivery.partition();
                    let outcome = match timeout(patience, delivery).await {
                        Ok(Ok(done)) => Outcome::Ok(done.offset),
                        Ok(Err(error)) => outcome_of(&error),
                        Err(_never_answered) => Outcome::Info,
                    };
                    recording.add(&sent.ended(partition, outcome, recording.now()));
                    drop(permit);
                });
            }
        }
        while tasks.try_join_next().is_some() {}
    }
    // What is not settled then shows in the deliveries.
    let _report = producer.close(load.delivery_timeout).await;
    while tasks.join_next().await.is_some() {}
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    process: Process,
    id: RecordId,
    acks: AckMode,
    invoke: Nanos,
}

impl Sent {
    fn ended(self, partition: PartitionId, outcome: Outcome, complete: Nanos) -> Op {
        let Sent { process, id, acks, invoke } = self;
        Op::Send(Send { process, partition, id, acks, invoke, complete, outcome })
    }
}

fn outcome_of(error: &Error) -> Outcome {
    match error.outcome() {
        highwater_client::Outcome::NotWritten => Outcome::Fail,
        // Written with less than asked for: nothing was promised.
        highwater_client::Outcome::Unknown | highwater_client::Outcome::Written => Outcome::Info,
    }
}

/// More than a second of records; then the pace waits for answers.
const UNDER_WAY_MAX: usize = 20_000;
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);
