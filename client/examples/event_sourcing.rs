//! Event sourcing: an account is the sum of its events, and takes another only if nobody wrote since we looked.
//!
//! `cargo run -p highwater-client --example event_sourcing -- TOPIC ACCOUNT AMOUNT`: a positive amount pays in, a
//! negative one takes out, unless the account has less. Run many at once: it is never overdrawn.

use std::process::ExitCode;

use highwater_client::{
    Client, Error, Offset, ProducerConfig, Reader, ReaderConfig, Record, StartAt, partition_for_key,
};

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().unwrap_or_else(|| "accounts".into());
    let name = arguments.next().unwrap_or_else(|| "ann".into());
    let amount: i64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(100);
    let client = Client::from_profile(None).await?;
    let producer = client.producer(ProducerConfig::default());
    let partitions = client.admin().describe_topic(&topic).await?.partitions.len();
    let partition = partition_for_key(name.as_bytes(), partitions as u32);

    let (mut end, mut balance) = (Offset::ZERO, 0);
    loop {
        let rest = ReaderConfig::new(&*topic, StartAt::Offset(end)).partitions([partition.0]);
        let rest = client.reader(rest.until_end()).await?;
        (end, balance) = read_on(rest, &name, balance).await?;
        if balance + amount < 0 {
            println!("refused: {name} has {balance}");
            return Ok(ExitCode::FAILURE);
        }
        let event = Record::to(&*topic).key(name.clone()).value(amount.to_string());
        match producer.send_if(end, &[event]).await {
            Ok(written) => {
                println!("{name} has {}, event {}", balance + amount, written.offsets.start);
                return Ok(ExitCode::SUCCESS);
            }
            // Somebody was quicker: read what they wrote, and decide anew.
            Err(error) if error.actual_end().is_some() => {}
            Err(error) => return Err(error),
        }
    }
}

/// The end of a partition, and what an account has there.
async fn read_on(mut reader: Reader, name: &str, mut balance: i64) -> Result<(Offset, i64), Error> {
    while let Some(batch) = reader.next_batch().await? {
        for event in batch.iter().filter(|it| it.key == Some(name.as_bytes())) {
            let amount = String::from_utf8_lossy(event.value.unwrap_or_default());
            balance += amount.parse::<i64>().expect("only amounts are written there");
        }
    }
    Ok((reader.positions()[0].1, balance))
}
