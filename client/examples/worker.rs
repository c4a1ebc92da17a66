//! An at-least-once worker: every record of a topic is handled, and after a crash those again that were not marked.
//!
//! `cargo run -p highwater-client --example worker -- TOPIC GROUP`, in as many terminals as you like: they share the
//! partitions. Ctrl-C ends one of them, and the others take over at once; one that is killed, after ten seconds.

use std::pin::pin;
use std::time::Duration;

use highwater_client::{Client, ConsumerConfig, Error, ReceivedRecord};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "orders".into());
    let group = arguments.next().unwrap_or_else(|| "billing".into());
    let client = Client::from_profile(None).await?;
    let config = ConsumerConfig::new(group, [topic]).session_timeout(Duration::from_secs(10));
    let mut consumer = client.consumer(config).await?;

    let mut stop = pin!(tokio::signal::ctrl_c());
    loop {
        let batch = tokio::select! {
            batch = consumer.next_batch() => batch?,
            _ = &mut stop => break,
        };
        for record in &batch {
            handle(&record);
        }
        // Not before the work is done. What is marked is committed every five seconds, before partitions move
        // to another worker, and at the close.
        consumer.mark(&batch);
    }

    consumer.close(Duration::from_secs(10)).await?;
    client.close().await;
    Ok(())
}

/// It may see a record twice, so what it does should be the same the second time.
fn handle(record: &ReceivedRecord) {
    println!("{}", String::from_utf8_lossy(record.value.unwrap_or_default()));
}
