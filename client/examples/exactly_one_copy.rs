//! Exactly one copy under retries: uploads the lines of a file to a partition, each once and in order, however often it
//! is killed and started again, and whatever becomes of brokers meanwhile.
//!
//! `cargo run -p highwater-client --example exactly_one_copy -- TOPIC FILE`. Within a run the producer's sequence
//! numbers keep retries from repeating anything. Between runs the topic itself says how far we came: each record carries
//! the number of its line, and the next are appended only behind the last one that was read. So the topic keeps all
//! (`retention.ms=-1`): one that has had lines and has none any more tells nothing, and is refused.

use std::io::{BufRead, BufReader};

use highwater_client::{Client, Offset, ProducerConfig, ReaderConfig, Record, StartAt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "lines".into());
    let file = arguments.next().unwrap_or_else(|| "Cargo.toml".into());
    let client = Client::from_profile(None).await?;
    let producer = client.producer(ProducerConfig::default());

    let (mut end, done) = uploaded(&client, &topic).await?;
    let lines = BufReader::new(std::fs::File::open(file)?).lines();
    let mut records = lines.enumerate().skip(done).map(|(number, line)| {
        let record = Record::to(&*topic).partition(0).header("line", number.to_string());
        line.map(|line| record.value(line))
    });
    loop {
        let some: Vec<Record> = records.by_ref().take(100).collect::<Result<_, _>>()?;
        if some.is_empty() {
            break;
        }
        // All of them or none, and only behind what we know: where a second upload runs, one of the two ends here.
        end = producer.send_if(end, &some).await?.offsets.end;
        println!("up to {end}");
    }
    client.close().await;
    Ok(())
}

/// Where the partition ends, and how many lines are there.
async fn uploaded(
    client: &Client,
    topic: &str,
) -> Result<(Offset, usize), Box<dyn std::error::Error>> {
    let config = ReaderConfig::new(topic, StartAt::Last).partitions([0]).until_end();
    let mut reader = client.reader(config).await?;
    let mut done = 0;
    while let Some(batch) = reader.next_batch().await? {
        let last = batch.iter().last().expect("a batch is never empty");
        let number = std::str::from_utf8(last.header("line").unwrap_or_default())?;
        done = number.parse::<usize>()? + 1;
    }
    let end = reader.positions()[0].1;
    match (done, end) {
        (0, end) if end > Offset::ZERO => Err("the lines that were there are gone".into()),
        (done, end) => Ok((end, done)),
    }
}
