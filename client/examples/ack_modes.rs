//! Sends one record with each ack mode through one producer, and prints what the broker vouches for.
//!
//! `cargo run -p highwater-client --example ack_modes -- TOPIC`, with a profile written by
//! `highwater dev` or named by `HIGHWATER_PROFILE`.

use std::time::{Duration, Instant};

use highwater_client::{AckMode, Client, Error, ProducerConfig, Record, TopicName};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let topic = TopicName::from(std::env::args().nth(1).unwrap_or_else(|| "demo".into()));
    let client = Client::from_profile(None).await?;
    let producer = client.producer(ProducerConfig::default());

    for acks in [AckMode::Async, AckMode::SemiSync, AckMode::Sync] {
        let begun = Instant::now();
        let record = Record::to(&topic).partition(0).value("how safe?").acks(acks);
        let done = producer.send_and_wait(record).await?;
        println!(
            "{acks:?}: offset {} in {:?}, known to be on {} replicas and {} disks",
            done.offset,
            begun.elapsed(),
            done.receipt.replicas,
            done.receipt.flushed,
        );
    }

    producer.close(Duration::from_secs(30)).await?;
    client.close().await;
    Ok(())
}
