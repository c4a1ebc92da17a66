//! Dead letters: records that cannot be handled are put aside, with where they come from and why, and hold up nothing.
//!
//! `cargo run -p highwater-client --example dead_letters -- TOPIC GROUP` puts them into `TOPIC.dead`; Ctrl-C ends it.
//! `hw consume TOPIC.dead -o jsonl` shows them.

use std::pin::pin;
use std::time::Duration;

use highwater_client::{Client, ConsumerConfig, Error, ProducerConfig, ReceivedRecord};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "orders".into());
    let group = arguments.next().unwrap_or_else(|| "billing".into());
    let dead = format!("{topic}.dead");
    let client = Client::from_profile(None).await?;
    let producer = client.producer(ProducerConfig::default());
    let mut consumer = client.consumer(ConsumerConfig::new(group, [topic])).await?;

    let mut stop = pin!(tokio::signal::ctrl_c());
    loop {
        let batch = tokio::select! {
            batch = consumer.next_batch() => batch?,
            _ = &mut stop => break,
        };
        for record in &batch {
            let Err(why) = handle(&record) else { continue };
            let from = format!("{}/{}@{}", batch.topic, batch.partition, record.offset);
            let letter = batch.forward(&record, &*dead).header("from", from).header("error", why);
            // Acknowledged before its batch is marked, so that no crash loses it.
            producer.send_and_wait(letter).await?;
        }
        consumer.mark(&batch);
    }

    producer.close(Duration::from_secs(10)).await?;
    consumer.close(Duration::from_secs(10)).await?;
    client.close().await;
    Ok(())
}

fn handle(record: &ReceivedRecord) -> Result<(), String> {
    let value = String::from_utf8_lossy(record.value.unwrap_or_default());
    let cents: u64 = value.parse().map_err(|error| format!("{value:?} is no amount: {error}"))?;
    println!("{cents} cents");
    Ok(())
}
