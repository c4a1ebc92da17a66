//! A job without `async`: copies what has come into a topic since the last run to another one, each record at least once.
//!
//! `cargo run -p highwater-client --example blocking -- FROM TO GROUP`, every night; it ends when nothing came for five
//! seconds. What it copied stands in the group's offsets, which `hw group lag GROUP` shows.

use std::time::Duration;

use highwater_client::blocking::Client;
use highwater_client::{ConsumerConfig, Error, ProducerConfig};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let from = arguments.next().unwrap_or_else(|| "orders".into());
    let to = arguments.next().unwrap_or_else(|| "archive".into());
    let group = arguments.next().unwrap_or_else(|| "nightly".into());
    let client = Client::from_profile(None)?;
    let producer = client.producer(ProducerConfig::default());
    let mut consumer = client.consumer(ConsumerConfig::new(group, [from]))?;

    let mut copied = 0;
    while let Some(batch) = consumer.poll(Duration::from_secs(5))? {
        // All of them are on their way before the first answer is waited for.
        let copies = batch.iter().map(|record| batch.forward(&record, to.as_str()));
        for done in producer.send_all(copies) {
            done?;
            copied += 1;
        }
        // Not before all copies are acknowledged.
        consumer.mark(&batch);
    }

    println!("{copied}");
    consumer.close(Duration::from_secs(10))?;
    producer.close(Duration::from_secs(30))?;
    client.close();
    Ok(())
}
