//! `hw produce`: every line a record, none lost in silence.
//!
//! A thread reads lines ahead (a few chunks), this task hands them to the producer in order, and
//! the settler (`receipts`) watches what becomes of each, in order too. All three are joined by
//! bounded queues, so that a slow cluster slows the reading and memory stays flat. After the first
//! line that fails nothing more is sent, and the report says which line it was and whether it was
//! written, so that the rest can be sent again without loss or repetition.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anstream::eprintln;
use bytes::Bytes;
use highwater_client::{Client, Outcome, Producer, ProducerConfig, Record, TopicName};
use tokio::sync::mpsc;

use super::args::{Codec, ProduceArgs};
use super::expect;
use super::lines::{Chunk, Lines, split_key};
use super::progress::Progress;
use super::receipts::{self, FailedLine, Sent, Tally};
use crate::connect::{Settings, exit_for};
use crate::exit::{Exit, Failure};
use crate::human;

/// Writes all lines and reports.
pub async fn run(args: ProduceArgs, settings: &Settings) -> Result<Exit, Failure> {
    if let Some(end) = args.expect_end {
        return expect::run(&args, end, settings).await;
    }
    let input = Input::open(args.file.as_deref())?;
    let client = settings.connect().await?;
    // Without this a mistyped name shows only after the first line was typed.
    client.admin().describe_topic(&args.topic).await?;
    let progress = Progress::start(input.bytes, input.is_terminal, args.quiet);
    let (settler, sent_to_settler) = mpsc::channel(SENT_MAX);
    let failed = Arc::new(AtomicBool::new(false));
    let settling =
        tokio::spawn(receipts::settle(sent_to_settler, args.receipts, Arc::clone(&failed)));
    let mut config = ProducerConfig::default().acks(args.acks.mode());
    config.compression = args.compression.map(Codec::codec);
    let producer = client.producer(config);
    let mut feed = Feed::new(&args, producer.clone(), settler, progress, failed);
    let started = Instant::now();
    let stopped = tokio::select! {
        end = feed.run(input.read_ahead()) => end,
        Ok(()) = tokio::signal::ctrl_c() => Stop::Interrupted,
    };
    feed.hand_over().await;
    let Feed { settler, progress, .. } = feed;
    drop(settler);
    let tally = finish(&client, &producer, settling).await?;
    progress.finish();
    let took = started.elapsed();
    report(&args, stopped, &tally, took)
}

/// Waits for everything under way; a second Ctrl-C stops waiting.
async fn finish(
    client: &Client,
    producer: &Producer,
    settling: tokio::task::JoinHandle<io::Result<Tally>>,
) -> Result<Tally, Failure> {
    let settled = async {
        // What the producer gives up shows in the tally, line by line.
        let _report = producer.close(CLOSE_TIMEOUT).await;
        let tally = settling.await;
        client.close().await;
        tally
    };
    tokio::select! {
        tally = settled => Ok(tally
            .map_err(|error| Failure::new(Exit::Failed, format!("the settler broke: {error}")))?
            .map_err(|error| Failure::from(error).during("cannot print receipts"))?),
        () = second_ctrl_c() => Err(Failure::new(
            Exit::Interrupted,
            "interrupted twice: lines under way may or may not have been written",
        )),
    }
}

/// `timeout` and the like signal a process and its group: that is one Ctrl-C, not two.
async fn second_ctrl_c() {
    tokio::time::sleep(ONE_CTRL_C).await;
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Why no more lines are sent.
enum Stop {
    /// There are none.
    EndOfInput,
    /// The input broke before this line.
    Input { line: u64, error: io::Error },
    /// A line failed; the tally or this says which.
    Failed(Option<FailedLine>),
    /// Ctrl-C.
    Interrupted,
}

/// Makes records of lines.
pub(super) struct Maker {
    template: Record,
    separator: Option<Vec<u8>>,
    empty_is_null: bool,
}

impl Maker {
    pub(super) fn new(args: &ProduceArgs) -> Maker {
        let mut template = Record::to(TopicName::from(args.topic.as_str()));
        if let Some(partition) = args.partition {
            template = template.partition(partition);
        }
        let headers = args.headers.iter().map(|it| (it.name.clone(), it.value.clone()));
        template.headers.extend(headers);
        let separator = args.key_sep.as_ref().map(|separator| separator.0.clone());
        Maker { template, separator, empty_is_null: args.tombstone }
    }

    pub(super) fn record(&self, line: &Bytes) -> Record {
        let (key, value) = match &self.separator {
            Some(separator) => split_key(line, separator),
            None => (None, line.clone()),
        };
        let mut record = self.template.clone();
        let value = Some(value).filter(|value| !(self.empty_is_null && value.is_empty()));
        (record.key, record.value) = (key, value);
        record
    }
}

/// Hands lines to the producer.
struct Feed {
    producer: Producer,
    maker: Maker,
    pace: Option<Pace>,
    settler: mpsc::Sender<Vec<Sent>>,
    pending: Vec<Sent>,
    progress: Progress,
    failed: Arc<AtomicBool>,
}

impl Feed {
    fn new(
        args: &ProduceArgs,
        producer: Producer,
        settler: mpsc::Sender<Vec<Sent>>,
        progress: Progress,
        failed: Arc<AtomicBool>,
    ) -> Feed {
        Feed {
            producer,
            maker: Maker::new(args),
            pace: args.rate.map(Pace::new),
            settler,
            pending: Vec::with_capacity(HAND_OVER_RECORDS),
            progress,
            failed,
        }
    }

    async fn run(&mut self, mut chunks: mpsc::Receiver<io::Result<Chunk>>) -> Stop {
        let mut next_line = 1;
        while let Some(chunk) = chunks.recv().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => return Stop::Input { line: next_line, error },
            };
            next_line = chunk.first_line + chunk.lines.len() as u64;
            for (line, bytes) in (chunk.first_line..).zip(&chunk.lines) {
                // Lines after a failed one must not overtake it when it is sent again.
                if self.failed.load(Ordering::Relaxed) {
                    return Stop::Failed(None);
                }
                if let Err(failed) = self.send(line, bytes).await {
                    return Stop::Failed(Some(failed));
                }
            }
            self.hand_over().await;
        }
        Stop::EndOfInput
    }

    async fn send(&mut self, line: u64, bytes: &Bytes) -> Result<(), FailedLine> {
        if let Some(pause) = self.pace.as_mut().and_then(Pace::pause) {
            self.hand_over().await;
            tokio::time::sleep(pause).await;
        }
        let sent = self.producer.send(self.maker.record(bytes)).await;
        let delivery = sent.map_err(|error| FailedLine { line, error })?;
        self.progress.sent(bytes.len() + 1);
        self.pending.push(Sent { line, bytes: bytes.len(), delivery });
        if self.pending.len() == HAND_OVER_RECORDS {
            self.hand_over().await;
        }
        Ok(())
    }

    async fn hand_over(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        // Reserved first: if Ctrl-C drops this future while it waits, nothing has left `pending`.
        // A settler that is gone has failed, and `finish` reports how.
        if let Ok(permit) = self.settler.reserve().await {
            permit
                .send(std::mem::replace(&mut self.pending, Vec::with_capacity(HAND_OVER_RECORDS)));
        }
    }
}

/// Spreads records evenly in time; when late it catches up.
struct Pace {
    started: Instant,
    per_second: u64,
    sent: u64,
}

impl Pace {
    fn new(per_second: u64) -> Pace {
        Pace { started: Instant::now(), per_second, sent: 0 }
    }

    /// How long to wait before the next record, if that is worth a sleep.
    fn pause(&mut self) -> Option<Duration> {
        let due = Duration::from_secs_f64(self.sent as f64 / self.per_second as f64);
        self.sent += 1;
        due.checked_sub(self.started.elapsed()).filter(|pause| *pause >= TIMER_STEP)
    }
}

pub(super) struct Input {
    pub(super) source: Box<dyn Read + Send>,
    bytes: Option<u64>,
    is_terminal: bool,
}

impl Input {
    pub(super) fn open(path: Option<&Path>) -> Result<Input, Failure> {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
            let is_terminal = io::stdin().is_terminal();
            return Ok(Input { source: Box::new(io::stdin()), bytes: None, is_terminal });
        };
        let attempt = || format!("cannot read {}", path.display());
        let failure = |error| Failure::from(error).during(&attempt());
        let file = File::open(path).map_err(failure)?;
        let meta = file.metadata().map_err(failure)?;
        if meta.is_dir() {
            return Err(Failure::usage(format!("{}: it is a directory", attempt())));
        }
        let bytes = meta.is_file().then_some(meta.len());
        Ok(Input { source: Box::new(file), bytes, is_terminal: false })
    }

    /// Reads in a thread of its own, which dies with the process when the input never ends.
    fn read_ahead(self) -> mpsc::Receiver<io::Result<Chunk>> {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD_MAX);
        std::thread::spawn(move || {
            let mut lines = Lines::new(self.source);
            loop {
                let item = match lines.next_chunk() {
                    Ok(Some(chunk)) => Ok(chunk),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let broken = item.is_err();
                if sender.blocking_send(item).is_err() || broken {
                    return;
                }
            }
        });
        receiver
    }
}

fn report(
    args: &ProduceArgs,
    stopped: Stop,
    tally: &Tally,
    took: Duration,
) -> Result<Exit, Failure> {
    if !args.quiet {
        summary(args, tally, took);
    }
    let (refused, broken, interrupted) = match stopped {
        Stop::EndOfInput => (None, None, false),
        Stop::Failed(refused) => (refused, None, false),
        Stop::Input { line, error } => (None, Some((line, error)), false),
        Stop::Interrupted => (None, None, true),
    };
    let first = match (&tally.first_failed, refused.as_ref()) {
        (Some(settled), Some(refused)) if refused.line < settled.line => Some(refused),
        (Some(settled), _) => Some(settled),
        (None, refused) => refused,
    };
    if let Some(first) = first {
        return Err(failure_of(args, first, tally));
    }
    if let Some((line, error)) = broken {
        let text = format!("cannot read line {line}: {error}; all lines before it are written");
        return Err(Failure::new(Exit::Failed, text));
    }
    if interrupted {
        eprintln!("interrupted; lines 1 to {} are written, nothing after them", tally.written);
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Fine)
}

fn summary(args: &ProduceArgs, tally: &Tally, took: Duration) {
    let seconds = took.as_secs_f64().max(1e-9);
    eprintln!(
        "{} records written to {} in {seconds:.2} s: {} records/s, {}/s, acks {}",
        human::count(tally.written),
        args.topic,
        human::count((tally.written as f64 / seconds) as u64),
        human::bytes((tally.bytes as f64 / seconds) as u64),
        args.acks.name(),
    );
}

fn failure_of(args: &ProduceArgs, first: &FailedLine, tally: &Tally) -> Failure {
    let FailedLine { line, error } = first;
    let fate = match error.outcome() {
        Outcome::NotWritten => "was not written",
        Outcome::Unknown => "may or may not have been written",
        Outcome::Written => "was written, but with less than what was asked for",
    };
    let what = format!(
        "line {line} {fate}: {error}\n       in all {} lines were written, {} not, {} perhaps; none \
         after line {} was sent",
        human::count(tally.written),
        human::count(tally.not_written),
        human::count(tally.unknown),
        tally.last_sent.max(*line),
    );
    let exit = if tally.written > 0 { Exit::Partial } else { exit_for(error.kind()) };
    let file = args.file.as_deref().map_or("INPUT".into(), Path::to_string_lossy);
    let failure = Failure::new(exit, what);
    // Only what was written without a gap, and surely not beyond, can be gone on from.
    let resumable =
        error.outcome() == Outcome::NotWritten && tally.unknown == 0 && tally.last_written < *line;
    let topic = &args.topic;
    if resumable && !error.retriable() {
        let next = line + 1;
        return failure.way_out(format!(
            "correct line {line} or leave it out: `tail -n +{next} {file} | hw produce {topic}` goes on behind it"
        ));
    }
    if resumable {
        return failure
            .way_out(format!("`tail -n +{line} {file} | hw produce {topic}` goes on there"));
    }
    failure.way_out("`-o jsonl`, which says for each line whether it was written")
}

/// So many lists of sent records may wait for their receipts.
const SENT_MAX: usize = 64;
/// Records in one such list: waking the settler for each record would cost more than sending it.
const HAND_OVER_RECORDS: usize = 512;
/// Chunks of lines read ahead.
const CHUNKS_AHEAD_MAX: usize = 8;
/// The producer gives up by itself before this, by its delivery timeout.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);
const ONE_CTRL_C: Duration = Duration::from_millis(300);
/// Tokio's timers have steps of a millisecond.
const TIMER_STEP: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_spreads_records_and_never_sleeps_when_late() {
        let mut pace = Pace::new(10);
        assert_eq!(pace.pause(), None, "the first record goes at once");
        let pause = pace.pause().expect("the second is due in a tenth of a second");
        assert!(pause > Duration::from_millis(50) && pause <= Duration::from_millis(100));
        pace.started -= Duration::from_secs(10);
        assert_eq!(pace.pause(), None);
    }
}
