//! What became of each line, in the order of the lines.
//!
//! Deliveries are awaited one after another: that keeps receipts in order and costs nothing,
//! because nobody needs a receipt before the one in front of it.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use highwater_client::{Delivery, Error, Outcome, RecordMetadata};
use serde_json::json;
use tokio::sync::mpsc;

use super::args::ReceiptFormat;
use crate::output::{Reader, quiet_if_closed};

/// A line under way.
pub struct Sent {
    /// Its number.
    pub line: u64,
    /// Its bytes.
    pub bytes: usize,
    /// What will have become of it.
    pub delivery: Delivery,
}

/// A line that failed, and why.
#[derive(Debug, Clone)]
pub struct FailedLine {
    /// Its number.
    pub line: u64,
    /// The reason, and whether it was written.
    pub error: Error,
}

/// What became of all lines.
#[derive(Debug, Default)]
pub struct Tally {
    /// Lines acknowledged, and lines written with less than what was asked for.
    pub written: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last of them.
    pub last_written: u64,
    /// The last line that was sent at all.
    pub last_sent: u64,
    /// Lines surely not written.
    pub not_written: u64,
    /// Lines of which nobody knows.
    pub unknown: u64,
    /// The first that failed.
    pub first_failed: Option<FailedLine>,
}

/// Waits for every delivery, prints receipts, and raises `failed` at the first failure.
///
/// A reader of the receipts that goes away ends the printing, not the writing of records.
pub async fn settle(
    mut sent: mpsc::Receiver<Vec<Sent>>,
    format: Option<ReceiptFormat>,
    failed: Arc<AtomicBool>,
) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut printer = format.map(|ReceiptFormat::Jsonl| Printer(BufWriter::new(io::stdout())));
    while let Some(list) = sent.recv().await {
        for Sent { line, bytes, mut delivery } in list {
            let result = match (&mut delivery).now_or_never() {
                Some(result) => result,
                None => {
                    flush(&mut printer)?;
                    delivery.await
                }
            };
            if let Some(open) = &mut printer
                && quiet_if_closed(open.print(line, &result))? == Reader::Gone
            {
                printer = None;
            }
            tally.count(line, bytes, result);
            if tally.first_failed.is_some() {
                failed.store(true, Ordering::Relaxed);
            }
        }
        if sent.is_empty() {
            flush(&mut printer)?;
        }
    }
    flush(&mut printer)?;
    Ok(tally)
}

impl Tally {
    fn count(&mut self, line: u64, bytes: usize, result: Result<RecordMetadata, Error>) {
        self.last_sent = line;
        let outcome = match result {
            Ok(_) => Outcome::Written,
            Err(error) => {
                let outcome = error.outcome();
                self.first_failed.get_or_insert(FailedLine { line, error });
                outcome
            }
        };
        match outcome {
            Outcome::Written => {
                self.written += 1;
                self.bytes += bytes as u64;
                self.last_written = line;
            }
            Outcome::NotWritten => self.not_written += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }
}

struct Printer(BufWriter<io::Stdout>);

impl Printer {
    fn print(&mut self, line: u64, result: &Result<RecordMetadata, Error>) -> io::Result<()> {
        let receipt = match result {
            Ok(done) => json!({
                "line": line,
                "topic": done.topic.as_str(),
                "partition": done.partition.0,
                "offset": done.offset.0,
                "term": done.receipt.term.0,
                "replicas": done.receipt.replicas,
                "flushed": done.receipt.flushed,
            }),
            Err(error) => json!({
                "line": line,
                "outcome": match error.outcome() {
                    Outcome::NotWritten => "not-written",
                    Outcome::Unknown => "unknown",
                    Outcome::Written => "written",
                },
                "error": error.to_string(),
            }),
        };
        writeln!(self.0, "{receipt}")
    }
}

fn flush(printer: &mut Option<Printer>) -> io::Result<()> {
    if let Some(open) = printer
        && quiet_if_closed(open.0.flush())? == Reader::Gone
    {
        *printer = None;
    }
    Ok(())
}
