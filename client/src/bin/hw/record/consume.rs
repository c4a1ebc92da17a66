//! `hw consume`: records to the standard output, fast, and gone quietly when nobody reads them.
//!
//! Output is buffered and flushed whenever there is nothing more to read at the moment: so a pipe
//! gets large writes, and a person at a terminal sees each record at once.

use std::io::{self, BufWriter, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use anstream::eprintln;
use futures_util::{FutureExt, StreamExt};
use highwater_client::{Client, ConsumerConfig, Error, Offset, RecordBatch, StartAt, Timestamp};

use super::args::ConsumeArgs;
use super::format::Shown;
use super::position::Position;
use super::print::Printer;
use super::scope::{Batches, Scope, Stops};
use crate::connect::{Settings, exit_for};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Reader, quiet_if_closed};

/// Reads and prints until the end that was asked for, Ctrl-C, or a closed pipe.
pub async fn run(args: ConsumeArgs, settings: &Settings) -> Result<Exit, Failure> {
    let client = settings.connect().await?;
    let out = BufWriter::with_capacity(OUT_BYTES, io::stdout());
    let mut copy = Copy {
        printer: Printer::new(&args),
        out,
        left: args.number.unwrap_or(u64::MAX),
        stops: Stops::default(),
        records: 0,
        bytes: 0,
        errors: Vec::new(),
    };
    let started = Instant::now();
    let ended = match &args.group {
        Some(group) => in_group(&client, &args, group, &mut copy).await?,
        None => {
            let scope = Scope {
                topic: &args.topic,
                partitions: &args.partition,
                range: args.from,
                until_end: args.until_end,
                rack: args.rack.as_deref(),
            };
            let (batches, stops) = scope.open(&client).await?;
            copy.stops = stops;
            tokio::select! {
                ended = copy.run(batches) => ended?,
                Ok(()) = tokio::signal::ctrl_c() => Ended::Interrupted,
            }
        }
    };
    copy.end(ended)?;
    if args.stats {
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        eprintln!(
            "{} records, {} read from {} in {seconds:.2} s: {} records/s, {}/s",
            human::count(copy.records),
            human::bytes(copy.bytes),
            args.topic,
            human::count((copy.records as f64 / seconds) as u64),
            human::bytes((copy.bytes as f64 / seconds) as u64),
        );
    }
    Ok(match (ended, copy.errors.first()) {
        (Ended::Interrupted, _) => Exit::Interrupted,
        (Ended::Gone, _) | (Ended::Done, None) => Exit::Fine,
        (Ended::Done, Some(_)) if copy.records > 0 => Exit::Partial,
        (Ended::Done, Some(error)) => exit_for(error.kind()),
    })
}

/// Reads as a member of a group, which has come as far as was printed.
async fn in_group(
    client: &Client,
    args: &ConsumeArgs,
    group: &str,
    copy: &mut Copy,
) -> Result<Ended, Failure> {
    let start = match (args.from.from, args.from.until) {
        (Position::Start, None) => StartAt::Start,
        (Position::End, None) => StartAt::End,
        (Position::Offset(offset), None) => StartAt::Offset(Offset(offset)),
        (Position::Time(ms), None) => StartAt::Time(Timestamp(ms)),
        (Position::AfterStart(_) | Position::BeforeEnd(_), _) | (_, Some(_)) => {
            return Err(Failure::usage(
                "a group begins in new partitions at a place and has no end",
            )
            .way_out("start, end, an offset or @TIME; `hw group seek` takes the others"));
        }
    };
    let mut config = ConsumerConfig::new(group, [args.topic.as_str()]).when_no_offset(start);
    config.rack.clone_from(&args.rack);
    let mut consumer = client.consumer(config).await?;
    let ended = loop {
        if copy.left == 0 {
            break Ended::Done;
        }
        let batch = tokio::select! {
            batch = consumer.next_batch() => batch?,
            Ok(()) = tokio::signal::ctrl_c() => break Ended::Interrupted,
        };
        let before = copy.records;
        let printed = copy.copy(&batch).and_then(|()| copy.out.flush());
        if quiet_if_closed(printed)? == Reader::Gone {
            break Ended::Gone;
        }
        let count = usize::try_from(copy.records - before).expect("a batch fits into memory");
        if let Some(last) = batch.iter().take(count).last() {
            consumer.mark_before(&batch, last.offset.advance(1));
        }
    };
    consumer.close(CLOSE_MAX).await?;
    Ok(ended)
}

/// How the reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Where it should.
    Done,
    /// The reader of our output went away.
    Gone,
    /// Ctrl-C.
    Interrupted,
}

/// Copies records from batches to the output.
struct Copy {
    printer: Printer,
    out: BufWriter<io::Stdout>,
    left: u64,
    stops: Stops,
    records: u64,
    bytes: u64,
    errors: Vec<Error>,
}

impl Copy {
    async fn run(&mut self, batches: Batches) -> io::Result<Ended> {
        let mut batches = pin!(batches);
        loop {
            if self.left == 0 || self.stops.all_passed() {
                return Ok(Ended::Done);
            }
            let next = match batches.next().now_or_never() {
                Some(next) => next,
                None => {
                    if quiet_if_closed(self.out.flush())? == Reader::Gone {
                        return Ok(Ended::Gone);
                    }
                    batches.next().await
                }
            };
            match next {
                Some(Ok(batch)) => {
                    if quiet_if_closed(self.copy(&batch))? == Reader::Gone {
                        return Ok(Ended::Gone);
                    }
                }
                // It ends one partition; the others go on.
                Some(Err(error)) => {
                    Failure::from(error.clone()).report();
                    self.errors.push(error);
                    if self.errors.len() >= ERRORS_MAX {
                        return Ok(Ended::Done);
                    }
                }
                None => return Ok(Ended::Done),
            }
        }
    }

    fn copy(&mut self, batch: &RecordBatch) -> io::Result<()> {
        let partition = batch.partition.0;
        for record in batch {
            if self.left == 0 || !self.stops.want(partition, record.offset.0) {
                break;
            }
            let headers: Vec<_> = match self.printer.wants_headers() {
                true => record.headers().map(|header| (header.name, header.value)).collect(),
                false => Vec::new(),
            };
            let shown = Shown {
                topic: batch.topic.as_str(),
                partition,
                offset: record.offset.0,
                timestamp: record.timestamp.0,
                key: record.key,
                value: record.value,
                headers: &headers,
            };
            self.printer.print(shown, &mut self.out)?;
            self.left -= 1;
            self.records += 1;
            self.bytes += record.value.map_or(0, <[u8]>::len) as u64;
        }
        self.stops.pass(partition, batch.next_offset().0);
        Ok(())
    }

    fn end(&mut self, ended: Ended) -> io::Result<()> {
        if ended == Ended::Gone {
            return Ok(());
        }
        let end = self.printer.end(&mut self.out).and_then(|()| self.out.flush());
        quiet_if_closed(end).map(|_| ())
    }
}

/// With a reader per partition a stop may lie in a partition that failed; so failures count too.
const ERRORS_MAX: usize = 1_000;
const OUT_BYTES: usize = 256 << 10;
/// How long the last commit may take.
const CLOSE_MAX: Duration = Duration::from_secs(10);
