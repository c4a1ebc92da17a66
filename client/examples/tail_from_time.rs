//! Follows a topic, beginning with the records of the last minute, as a stream.
//!
//! `cargo run -p highwater-client --example tail_from_time -- TOPIC [BATCHES]`, with a profile written
//! by `highwater dev` or named by `HIGHWATER_PROFILE`. Ends after so many batches, else never.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use highwater_client::{Client, Error, ReaderConfig, StartAt, Timestamp};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let topic = std::env::args().nth(1).unwrap_or_else(|| "demo".into());
    let batches = std::env::args().nth(2).and_then(|count| count.parse().ok());
    let client = Client::from_profile(None).await?;

    let minute_ago = SystemTime::now() - Duration::from_secs(60);
    let since = minute_ago.duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = StartAt::Time(Timestamp(since.as_millis() as i64));

    let reader = client.reader(ReaderConfig::new(topic, start)).await?;
    let mut stream = reader.into_stream().take(batches.unwrap_or(usize::MAX));
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let lag = batch.high_watermark.since(batch.next_offset());
        println!("partition {}: {} records, {lag} behind", batch.partition, batch.len());
    }
    Ok(())
}
