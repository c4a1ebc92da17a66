//! Reads a topic from its start to the end that it has now, and prints every record.
//!
//! `cargo run -p highwater-client --example consume -- TOPIC`, with a profile written by
//! `highwater dev` or named by `HIGHWATER_PROFILE`.

use highwater_client::{Client, Error, ReaderConfig, StartAt};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "demo".into());
    let client = Client::from_profile(None).await?;

    let config = ReaderConfig::new(topic, StartAt::Start).until_end();
    let mut reader = client.reader(config).await?;
    let mut records = 0;
    while let Some(batch) = reader.next_batch().await? {
        for record in &batch {
            // Keys and values are slices of what was fetched: nothing is copied.
            let value = String::from_utf8_lossy(record.value.unwrap_or_default());
            println!("{}/{} {value}", batch.partition, record.offset);
        }
        records += batch.len();
    }

    println!("{records} records; to go on later, start at {:?}", reader.positions());
    client.close().await;
    Ok(())
}
