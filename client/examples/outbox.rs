//! Applies the events of another service's outbox to a database, each once: what an event does and how far we have come
//! are stored in one transaction, so that no crash comes in between.
//!
//! `cargo run -p highwater-client --example outbox -- TOPIC FILE`. The database is a file of JSON, its transaction a
//! rename, which is none between processes: run one on a file. With SQL, lock the partition's row, and write both
//! tables between BEGIN and COMMIT.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::pin::pin;
use std::time::Duration;

use highwater_client::{Client, Commit, ConsumerConfig, Event, Offset, StartAt};

#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Database {
    /// How much each customer (the key of an event) has ordered.
    totals: BTreeMap<String, u64>,
    /// Of each partition, the first event that is not in the totals.
    next: BTreeMap<u32, u64>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "orders".into());
    let file = std::env::args().nth(2).unwrap_or_else(|| "totals.json".into());
    let client = Client::from_profile(None).await?;
    let config = ConsumerConfig::new("totals", [topic]).commit(Commit::Manual);
    let mut consumer = client.consumer(config.session_timeout(Duration::from_secs(10))).await?;
    let load = || fs::read(&file).map_or(Ok(Database::default()), |it| serde_json::from_slice(&it));

    let mut stop = pin!(tokio::signal::ctrl_c());
    loop {
        let event = tokio::select! {
            event = consumer.next_event() => event?,
            _ = &mut stop => break,
        };
        match event {
            Event::Assigned(partitions) => {
                for partition in partitions {
                    let next = load()?.next.get(&partition.partition.0).copied().unwrap_or(0);
                    // The database knows how far it is; the group need not.
                    consumer.seek(&partition, StartAt::Offset(Offset(next))).await?;
                }
            }
            Event::Batch(batch) => {
                let mut database = load()?;
                let next = database.next.entry(batch.partition.0).or_default();
                let done = *next; // Somebody who came after us may have some of it, or all.
                *next = done.max(batch.next_offset().0);
                for record in batch.iter().filter(|record| record.offset.0 >= done) {
                    let customer = String::from_utf8_lossy(record.key.unwrap_or_default());
                    let amount = std::str::from_utf8(record.value.unwrap_or_default())?;
                    let total = database.totals.entry(customer.into()).or_default();
                    *total += amount.parse::<u64>()?;
                }
                fs::write(format!("{file}.new"), serde_json::to_vec(&database)?)?;
                fs::rename(format!("{file}.new"), &file)?;
            }
            Event::Revoking(_) | Event::Lost(_) | Event::Stalled(_) => {} // All that was done is in the database.
        }
    }
    Ok(consumer.close(Duration::from_secs(10)).await?)
}
