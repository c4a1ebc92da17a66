//! `hw produce --expect-end`: all lines as one batch, if the partition ends where it should.
//!
//! Where it ends then goes to the standard output, written or not, for the next `--expect-end` of a script.

use std::io;

use anstream::{eprintln, println};
use bytes::Bytes;
use highwater_client::{Appended, Error, Offset, ProducerConfig, Record};

use super::args::{Codec, ProduceArgs};
use super::lines::Lines;
use super::produce::{Input, Maker};
use crate::connect::{Settings, exit_for};
use crate::exit::{Exit, Failure};
use crate::human;

/// Writes all lines or none.
pub async fn run(args: &ProduceArgs, end: u64, settings: &Settings) -> Result<Exit, Failure> {
    let input = Input::open(args.file.as_deref())?;
    let reading = tokio::task::spawn_blocking(move || all_lines(input));
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
        Err(error) => Err(failure(args, end, &error)),
    }
}

fn failure(args: &ProduceArgs, expected: u64, error: &Error) -> Failure {
    let Some(actual) = error.actual_end() else {
        return Failure::new(exit_for(error.kind()), error.to_string());
    };
    println!("{actual}");
    let failure = Failure::new(exit_for(error.kind()), format!("nothing was written: {error}"));
    let (topic, partition) = (&args.topic, args.partition.unwrap_or(0));
    match actual.0 > expected {
        true => failure.way_out(format!(
            "`hw consume {topic} -p {partition} --from {expected}:{actual}` shows what came in between; then `--expect-end {actual}`"
        )),
        false => failure.way_out(format!("`--expect-end {actual}`, if that is the end that was meant")),
    }
}

/// What fits one batch is bounded, so what is read for one is, too.
fn all_lines(input: Input) -> io::Result<Vec<Bytes>> {
    let mut lines = Lines::new(input.source);
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(chunk) = lines.next_chunk()? {
        bytes += chunk.lines.iter().map(Bytes::len).sum::<usize>();
        all.extend(chunk.lines);
        if bytes > BATCH_BYTES_MAX {
            let text = format!("more than {BATCH_BYTES_MAX} bytes do not fit one batch");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    Ok(all)
}

/// What one request can carry.
const BATCH_BYTES_MAX: usize = 8 << 20;
