//! Ordered processing by key, in parallel: equal keys lie in one partition, each partition has a worker of its own, and
//! so one key's records are handled one after the other while others go on beside it.
//!
//! `cargo run -p highwater-client --example by_key -- TOPIC GROUP`; Ctrl-C ends it. Start and end several: partitions
//! move when their worker has ended, so that no two work on one key, unless one was taken for dead and is not.

use std::time::Duration;

use highwater_client::{Client, ConsumerConfig, Error, PartitionConsumer};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "orders".into());
    let group = arguments.next().unwrap_or_else(|| "shipping".into());
    let client = Client::from_profile(None).await?;
    let consumer = client.consumer(ConsumerConfig::new(group, [topic])).await?;

    let stop = async { tokio::signal::ctrl_c().await.expect("signals can be heard") };
    // One that takes its time holds up its own partition, and nothing else.
    consumer.for_each_partition(stop, ship).await?;
    client.close().await;
    Ok(())
}

async fn ship(mut partition: PartitionConsumer) -> Result<(), Error> {
    while let Some(batch) = partition.next_batch().await {
        for record in &batch {
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
            };
            // Stands for a call that takes a while.
            tokio::time::sleep(Duration::from_millis(1)).await;
            println!("{} {} {}", partition.partition(), text(record.key), text(record.value));
        }
        partition.mark(&batch);
    }
    Ok(())
}
