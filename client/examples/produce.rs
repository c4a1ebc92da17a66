//! Sends a thousand records without waiting for each, then looks at what became of them.
//!
//! `cargo run -p highwater-client --example produce -- TOPIC`, with a profile written by
//! `highwater dev` or named by `HIGHWATER_PROFILE`.

use std::time::Duration;

use highwater_client::{Client, Error, Outcome, ProducerConfig, Record, TopicName};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let topic = TopicName::from(std::env::args().nth(1).unwrap_or_else(|| "demo".into()));
    let client = Client::from_profile(None).await?;
    let producer = client.producer(ProducerConfig::default());

    let mut deliveries = Vec::new();
    for number in 0..1000 {
        let record = Record::to(&topic).key(format!("key-{}", number % 10));
        // Waits only when the buffer is full; the delivery is a future of its own.
        deliveries.push(producer.send(record.value(format!("value {number}"))).await?);
    }

    for delivery in deliveries {
        match delivery.await {
            Ok(done) if done.offset.0.is_multiple_of(100) => {
                println!("partition {} offset {}", done.partition, done.offset);
            }
            Ok(_) => {}
            Err(error) if error.outcome() == Outcome::NotWritten => println!("send again: {error}"),
            Err(error) => println!("read back before sending again: {error}"),
        }
    }

    let report = producer.close(Duration::from_secs(30)).await?;
    println!("{} acknowledged, {} failed", report.acked, report.failed);
    client.close().await;
    Ok(())
}
