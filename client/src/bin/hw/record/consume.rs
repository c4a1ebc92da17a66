//! `hw consume`: records to the standard output, fast, and gone quietly when nobody reads them.
//!
//! Output is buffered and flushed whenever there is nothing more to read at the moment: so a pipe
//! gets large writes, and a person at a terminal sees each record at once.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::pin::pin;
use std::time::{Duration, Instant};

use anstream::eprintln;
use futures_util::{FutureExt, StreamExt, stream};
use highwater_client::{
    Admin, Client, ConsumerConfig, Error, Offset, OffsetAt, PartitionId, Partitions, ReaderConfig,
    RecordBatch, StartAt, Timestamp,
};

use super::args::ConsumeArgs;
use super::format::Shown;
use super::position::{Bounds, Position};
use super::print::Printer;
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
        stops: None,
        records: 0,
        bytes: 0,
        errors: Vec::new(),
    };
    let started = Instant::now();
    let ended = match &args.group {
        Some(group) => in_group(&client, &args, group, &mut copy).await?,
        None => {
            let (batches, stops) = open(&client, &args).await?;
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
    let config = ConsumerConfig::new(group, [args.topic.as_str()]).when_no_offset(start);
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

type Batches = stream::BoxStream<'static, Result<RecordBatch, Error>>;
/// Where to stop in each partition, exclusive; a partition without an entry goes on.
type Stops = BTreeMap<u32, u64>;

/// One reader for all partitions where they start alike; else one for each.
async fn open(client: &Client, args: &ConsumeArgs) -> Result<(Batches, Option<Stops>), Failure> {
    let range = args.from;
    let alike = match range.from {
        Position::Start => Some(StartAt::Start),
        Position::End => Some(StartAt::End),
        Position::Offset(offset) => Some(StartAt::Offset(Offset(offset))),
        Position::Time(ms) => Some(StartAt::Time(Timestamp(ms))),
        Position::AfterStart(_) | Position::BeforeEnd(_) => None,
    };
    let until_end = args.until_end || range.until == Some(Position::End);
    if let (Some(start), true) = (alike, until_end || range.until.is_none()) {
        let mut config = ReaderConfig::new(args.topic.as_str(), start);
        config.until_end = until_end;
        if !args.partition.is_empty() {
            let chosen = args.partition.iter().copied().map(PartitionId).collect();
            config.partitions = Partitions::Only(chosen);
        }
        return Ok((client.reader(config).await?.into_stream().boxed(), None));
    }
    open_each(client, args, until_end).await
}

async fn open_each(
    client: &Client,
    args: &ConsumeArgs,
    until_end: bool,
) -> Result<(Batches, Option<Stops>), Failure> {
    let admin = client.admin();
    let mut stops = Stops::new();
    let mut streams = Vec::new();
    for partition in chosen_partitions(&admin, args).await? {
        let place = Place { admin: &admin, topic: &args.topic, partition };
        let bounds = place.bounds().await?;
        let from = place.resolve(args.from.from, bounds).await?;
        let mut stop = match args.from.until {
            Some(until) => Some(place.resolve(until, bounds).await?),
            None => None,
        };
        if until_end {
            stop = Some(stop.map_or(bounds.end, |stop| stop.min(bounds.end)));
        }
        if stop.is_some_and(|stop| stop <= from) {
            continue;
        }
        if let Some(stop) = stop {
            stops.insert(partition.0, stop);
        }
        let start = StartAt::Offset(Offset(from));
        let config = ReaderConfig::new(args.topic.as_str(), start).partitions([partition.0]);
        streams.push(client.reader(config).await?.into_stream());
    }
    let bounded = until_end || args.from.until.is_some();
    Ok((stream::select_all(streams).boxed(), bounded.then_some(stops)))
}

async fn chosen_partitions(admin: &Admin, args: &ConsumeArgs) -> Result<Vec<PartitionId>, Failure> {
    if !args.partition.is_empty() {
        return Ok(args.partition.iter().copied().map(PartitionId).collect());
    }
    let detail = admin.describe_topic(&args.topic).await?;
    Ok(detail.partitions.iter().map(|info| info.partition).collect())
}

/// A partition to look up offsets in.
struct Place<'a> {
    admin: &'a Admin,
    topic: &'a str,
    partition: PartitionId,
}

impl Place<'_> {
    async fn offset(&self, at: OffsetAt) -> Result<u64, Failure> {
        Ok(self.admin.list_offsets(self.topic, self.partition, at).await?.offset.0)
    }

    async fn bounds(&self) -> Result<Bounds, Failure> {
        let start = self.offset(OffsetAt::Start).await?;
        let end = self.offset(OffsetAt::End).await?;
        Ok(Bounds { start, end })
    }

    async fn resolve(&self, position: Position, bounds: Bounds) -> Result<u64, Failure> {
        match position {
            Position::Time(ms) => self.offset(OffsetAt::Time(Timestamp(ms))).await,
            Position::Start
            | Position::End
            | Position::Offset(_)
            | Position::AfterStart(_)
            | Position::BeforeEnd(_) => {
                Ok(position.resolve(bounds).expect("only times need a question"))
            }
        }
    }
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
    stops: Option<Stops>,
    records: u64,
    bytes: u64,
    errors: Vec<Error>,
}

impl Copy {
    async fn run(&mut self, batches: Batches) -> io::Result<Ended> {
        let mut batches = pin!(batches);
        loop {
            if self.left == 0 || self.stops.as_ref().is_some_and(Stops::is_empty) {
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
        let stop = match &self.stops {
            Some(stops) => match stops.get(&partition) {
                Some(stop) => Some(*stop),
                None => return Ok(()),
            },
            None => None,
        };
        for record in batch {
            if self.left == 0 || stop.is_some_and(|stop| record.offset.0 >= stop) {
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
        if let Some(stops) = &mut self.stops
            && stop.is_some_and(|stop| batch.next_offset().0 >= stop)
        {
            stops.remove(&partition);
        }
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
