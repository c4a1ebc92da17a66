//! A service that answers requests, and ends well when it is told to: it finishes what it has begun, waits until its
//! answers are acknowledged, commits, and leaves the group, so that nothing is done twice and nobody waits.
//!
//! `cargo run -p highwater-client --example graceful_shutdown -- REQUESTS ANSWERS`; end it with Ctrl-C, or with SIGTERM
//! as systemd and Kubernetes do.

use std::time::Duration;

use highwater_client::{Client, ConsumerConfig, Error, ProducerConfig, Record, TopicName};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let requests = arguments.next().unwrap_or_else(|| "requests".into());
    let answers = TopicName::from(arguments.next().unwrap_or_else(|| "answers".into()));
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be heard");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be heard");
    let client = Client::from_profile(None).await?;
    let producer = client.producer(ProducerConfig::default());
    let mut consumer = client.consumer(ConsumerConfig::new("answering", [requests])).await?;

    loop {
        // Signals are heard between batches; dropping `next_batch` loses nothing.
        let batch = tokio::select! {
            batch = consumer.next_batch() => batch?,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let mut answered = Vec::with_capacity(batch.len());
        for request in &batch {
            let value = String::from_utf8_lossy(request.value.unwrap_or_default());
            let answer = Record::to(&answers).value(format!("answer to {value}"));
            answered.push(producer.send(answer).await?);
        }
        for delivery in answered {
            delivery.await?;
        }
        consumer.mark(&batch);
        println!("{} answered", batch.len());
    }

    // In the order in which things depend on each other, each within its time: kill comes after thirty seconds.
    producer.close(Duration::from_secs(10)).await?;
    consumer.close(Duration::from_secs(10)).await?;
    client.close().await;
    println!("ended well");
    Ok(())
}
