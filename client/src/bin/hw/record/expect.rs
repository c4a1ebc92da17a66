//! `hw produce --expect-end`: all lines as one batch, if the partition ends where it should.
//!
//! Where it ends then goes to the standard output, written or not, for the next `--expect-end` of a script.

use std::io::{self, Read};

use anstream::{eprintln, println};
use bytes::Bytes;
use highwater_client::{
    Appended, Client, Error, Offset, PartitionId, ProducerConfig, Record, partition_for_key,
};

use super::args::{Codec, ProduceArgs};
use super::lines::Lines;
use super::produce::{Input, Maker};
use crate::connect::{Settings, exit_for};
use crate::exit::{Exit, Failure};
use crate::human;

/// Writes all lines or none.
pub async fn run(args: &ProduceArgs, end: u64, settings: &Settings) -> Result<Exit, Failure> {
    let input = Input::open(args.file.as_deref())?;
    let reading = tokio::task::spawn_blocking(move || all_lines(input.source));
    let lines = reading.await.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let lines = lines.map_err(|error| Failure::from(error).during("cannot read all lines"))?;
    if lines.is_empty() {
        return Err(Failure::usage("there is no line to write: `--expect-end` writes all or none"));
    }
    let maker = Maker::new(args);
    let records: Vec<Record> = lines.iter().map(|line| maker.record(line)).collect();
    let client = settings.connect().await?;
    let mut config = ProducerConfig::default().acks(args.acks.mode());
    config.compression = args.compression.map(Codec::codec);
    let appended = client.producer(config).send_if(Offset(end), &records).await;
    let conflicts = appended.as_ref().is_err_and(|error| error.actual_end().is_some());
    let partition = if conflicts { partition_of(&client, &records[0]).await } else { None };
    client.close().await;
    match appended {
        Ok(Appended { topic, partition, offsets, .. }) => {
            println!("{}", offsets.end);
            if !args.quiet {
                let (count, acks) = (human::count(records.len() as u64), args.acks.name());
                let first = offsets.start;
                eprintln!(
                    "{count} records written to {topic}/{partition} from {first} on, acks {acks}"
                );
            }
            Ok(Exit::Fine)
        }
        Err(error) => Err(failure(args, partition, end, &error)),
    }
}

/// The one partition that a batch with this record belongs to, if that can be found out.
async fn partition_of(client: &Client, record: &Record) -> Option<PartitionId> {
    if record.partition.is_some() {
        return record.partition;
    }
    let topic = client.admin().describe_topic(record.topic.as_str()).await.ok()?;
    let partitions = u32::try_from(topic.partitions.len()).ok()?;
    match &record.key {
        Some(key) => Some(partition_for_key(key, partitions)),
        None => Some(PartitionId(0)).filter(|_| partitions == 1),
    }
}

fn failure(
    args: &ProduceArgs,
    partition: Option<PartitionId>,
    expected: u64,
    error: &Error,
) -> Failure {
    let Some(actual) = error.actual_end() else {
        return Failure::new(exit_for(error.kind()), error.to_string());
    };
    println!("{actual}");
    let failure = Failure::new(exit_for(error.kind()), format!("nothing was written: {error}"));
    match (actual.0 > expected, partition) {
        (true, Some(PartitionId(partition))) => failure.way_out(format!(
            "`hw consume {} -p {partition} --from {expected}:{actual}` shows what came in between; then `--expect-end {actual}`",
            args.topic
        )),
        (true, None) => failure.way_out(format!(
            "read what came in between, from {expected} to {actual}; then `--expect-end {actual}`"
        )),
        (false, _) => failure.way_out(format!("`--expect-end {actual}`, if that is the end that was meant")),
    }
}

/// What fits one batch is bounded, so what is read for one is, too; an empty line is a record, and takes room.
fn all_lines(input: impl Read) -> io::Result<Vec<Bytes>> {
    let mut lines = Lines::new(input);
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(chunk) = lines.next_chunk()? {
        bytes += chunk.lines.iter().map(|line| line.len() + RECORD_BYTES_LEAST).sum::<usize>();
        all.extend(chunk.lines);
        if bytes > BATCH_BYTES_MAX {
            let lines = human::count(all.len() as u64);
            let text = format!(
                "{lines} lines, and perhaps more, do not fit one batch of {BATCH_BYTES_MAX} bytes, {RECORD_BYTES_LEAST} of them for each record"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    Ok(all)
}

/// What one request can carry.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// What the producer reckons for a record beside its key, value and headers.
const RECORD_BYTES_LEAST: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_a_byte_in_them_are_bounded_too() {
        let newlines = io::repeat(b'\n').take(64 << 20);
        let error = all_lines(newlines).expect_err("no batch has so many records");
        assert!(error.to_string().contains("do not fit one batch"), "{error}");
    }

    #[test]
    fn what_fits_is_read_whole() {
        let lines = all_lines(&b"opened\n\npaid in"[..]).expect("it fits");
        assert_eq!(lines, ["opened", "", "paid in"]);
    }
}
