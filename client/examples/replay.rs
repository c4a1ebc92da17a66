//! Replays what happened in a span of time, partition by partition, and leaves no trace: no group is asked or moved.
//!
//! `cargo run -p highwater-client --example replay -- TOPIC SINCE [UNTIL]`, both in milliseconds since 1970, as
//! `date -d '1 hour ago' +%s000` says them.

use highwater_client::{Client, Error, ReaderConfig, StartAt, Timestamp};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "orders".into());
    let mut time = || arguments.next().and_then(|text| text.parse().ok()).map(Timestamp);
    let since = time().unwrap_or(Timestamp(0));
    let until = time().unwrap_or(Timestamp(i64::MAX));
    let client = Client::from_profile(None).await?;

    // In each partition from the first record that is as young on, to where it ends now.
    let config = ReaderConfig::new(topic, StartAt::Time(since)).until_end();
    let mut reader = client.reader(config).await?;
    let mut replayed = 0;
    while let Some(batch) = reader.next_batch().await? {
        // Times are the producers', and need not rise: behind the first one there may be older ones.
        let in_time = |time: Timestamp| since <= time && time < until;
        for record in batch.iter().filter(|record| in_time(record.timestamp)) {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default());
            println!("{} {}/{} {value}", record.timestamp.0, batch.partition, record.offset);
            replayed += 1;
        }
    }

    eprintln!("{replayed} records");
    client.close().await;
    Ok(())
}
