//! Fan-out: several services read the same topic, each as a group of its own, and each sees every record.
//!
//! `cargo run -p highwater-client --example fan_out -- TOPIC SERVICE...` runs them in one program; they could as well be
//! programs on different machines. Ctrl-C ends it.

use std::time::Duration;

use highwater_client::{Client, ConsumerConfig, Error};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "orders".into());
    let mut services: Vec<String> = arguments.collect();
    if services.is_empty() {
        services = ["billing", "mail", "audit"].map(String::from).into();
    }
    // One client for all: it has one connection to each broker.
    let client = Client::from_profile(None).await?;

    let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
    for service in services {
        tasks.spawn(serve(client.clone(), topic.clone(), service, stop.clone()));
    }
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    while let Some(ended) = tasks.join_next().await {
        ended.expect("services do not panic")?;
    }
    client.close().await;
    Ok(())
}

/// One that is slow, or away for a day, holds up no other: the log waits for each.
async fn serve(
    client: Client,
    topic: String,
    service: String,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut consumer = client.consumer(ConsumerConfig::new(&service, [topic])).await?;
    while let Some(batch) = stop.run_until_cancelled(consumer.next_batch()).await {
        let batch = batch?;
        for record in &batch {
            println!("{service}: {}", String::from_utf8_lossy(record.value.unwrap_or_default()));
        }
        consumer.mark(&batch);
    }
    consumer.close(Duration::from_secs(10)).await
}
