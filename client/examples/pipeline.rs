//! From topic to topic, by key and exactly once: of each record of one topic exactly one copy comes to the other, in the
//! same order, whichever of the pipelines, brokers or connections die.
//!
//! `cargo run -p highwater-client --example pipeline -- FROM TO`, several times if you like; Ctrl-C ends one. The topics
//! need as many partitions; nobody else writes to the second, which has `retention.ms=-1`: it says how far we are.

use std::time::Duration;

use highwater_client::{
    Client, ConsumerConfig, Error, Offset, PartitionConsumer as Part, ProducerConfig, Reader,
    ReaderConfig, ReceivedRecord, StartAt, TopicName,
};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let from = std::env::args().nth(1).unwrap_or_else(|| "orders".into());
    let to = TopicName::from(std::env::args().nth(2).unwrap_or_else(|| "invoices".into()));
    let client = Client::from_profile(None).await?;
    let config = ConsumerConfig::new(format!("{from}-to-{to}"), [from]);
    let consumer = client.consumer(config.session_timeout(Duration::from_secs(10))).await?;
    let stop = async { tokio::signal::ctrl_c().await.expect("signals can be heard") };
    consumer.for_each_partition(stop, |part| copy(part, client.clone(), to.clone())).await?;
    client.close().await;
    Ok(())
}

async fn copy(mut part: Part, client: Client, to: TopicName) -> Result<(), Error> {
    let producer = client.producer(ProducerConfig::default());
    let tail = ReaderConfig::new(&to, StartAt::Last).partitions([part.partition().partition.0]);
    let (mut end, next) = copied(client.reader(tail.until_end()).await?).await?;
    while let Some(batch) = part.next_batch().await {
        let copy = |record: ReceivedRecord| {
            let copy = batch.forward(&record, &to).partition(batch.partition.0);
            copy.header("copied", record.offset.to_string())
        };
        let copies: Vec<_> = batch.iter().filter(|it| it.offset >= next).map(copy).collect();
        for some in copies.chunks(100) {
            match producer.send_if(end, some).await {
                Ok(appended) => end = appended.offsets.end,
                // Whoever had the partition before was still at it: begin anew behind what is there.
                Err(error) if error.actual_end().is_some() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        part.mark(&batch);
    }
    Ok(())
}

/// Where the copies end, and the first record that has none.
async fn copied(mut tail: Reader) -> Result<(Offset, Offset), Error> {
    let mut next = Offset::ZERO;
    while let Some(batch) = tail.next_batch().await? {
        let last = batch.iter().last().expect("a batch is never empty").header("copied");
        let copied = last.and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
        next = Offset(copied.expect("nobody else writes there")).advance(1);
    }
    Ok((tail.positions()[0].1, next))
}
