//! The report of a run: one JSON schema for programs, one page for people.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::machine::{Environment, Use};
use crate::recorder::{Gap, Moment, Quantiles};
use crate::verify::Verdict;

/// All that is known of a run. The names of the fields are a promise.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name and version of this shape.
    pub schema: &'static str,
    /// `produce`, `consume` or `e2e`.
    pub mode: &'static str,
    /// The word given for the run.
    pub label: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// The settings in effect, defaults included.
    pub settings: serde_json::Value,
    /// The topic's settings as the cluster has them.
    pub topic: serde_json::Value,
    /// Where the bench ran.
    pub environment: Environment,
    /// Seconds of the measured window.
    pub window_seconds: f64,
    /// What was done.
    pub totals: Totals,
    /// Latencies in microseconds, by series.
    pub latency: Latencies,
    /// Second by second: acknowledgements, or records read where nothing is produced.
    pub timeline: Vec<Moment>,
    /// Times in which something waited and nothing was acknowledged.
    pub gaps: Vec<Gap>,
    /// Processor time and memory.
    pub usage: Use,
    /// What was lost, duplicated or out of order; nothing where nothing was read.
    pub verdict: Option<Verdict>,
    /// What makes the figures doubtful.
    pub warnings: Vec<String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Counts of records; of the whole run where nothing else is said.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Totals {
    /// Handed to the client.
    pub sent: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Failed and surely not written.
    pub not_written: u64,
    /// Failed, nobody knows.
    pub unknown: u64,
    /// Written with less than what was asked for.
    pub written_with_less: u64,
    /// Fallen due and never sent.
    pub unsent: u64,
    /// Read.
    pub received: u64,
    /// Acknowledged (or read) within the window, per second.
    pub records_per_second: f64,
    /// The same in bytes of values.
    pub bytes_per_second: f64,
    /// The first failure.
    pub first_error: Option<String>,
}

/// Series of latencies; those that a mode does not measure are missing.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Latencies {
    /// From the intended moment to the acknowledgement: the headline.
    pub intended_to_ack: Option<Quantiles>,
    /// From the moment of sending to the acknowledgement.
    pub sent_to_ack: Option<Quantiles>,
    /// From the intended moment to that of sending.
    pub schedule_delay: Option<Quantiles>,
    /// From the intended moment to that of reading.
    pub intended_to_read: Option<Quantiles>,
}

/// How a run ended, and its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it should.
    Clean,
    /// The data are wrong.
    Anomaly,
    /// The data are right, but not every record was acknowledged.
    Failures,
}

impl Outcome {
    /// What the numbers of a run amount to.
    pub fn judge(totals: &Totals, verdict: Option<&Verdict>) -> Outcome {
        let failed = totals.not_written + totals.unknown + totals.written_with_less + totals.unsent;
        if verdict.is_some_and(|verdict| !verdict.is_clean()) {
            Outcome::Anomaly
        } else if failed > 0 {
            Outcome::Failures
        } else {
            Outcome::Clean
        }
    }

    /// The number that the shell sees.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Clean => 0,
            Outcome::Anomaly => 3,
            Outcome::Failures => 4,
        }
    }
}

impl Report {
    /// Writes the report where it is wanted: as JSON to a file or the standard output, and as a
    /// page unless the JSON went there.
    pub fn publish(&self, json: Option<&Path>, gaps: Gaps) -> Result<()> {
        let document = || serde_json::to_string_pretty(self).context("the report is plain data");
        match json {
            Some(path) if path.as_os_str() == "-" => println!("{}", document()?),
            Some(path) => {
                let attempt = || format!("cannot write the report to {}", path.display());
                std::fs::write(path, document()? + "\n").with_context(attempt)?;
                print!("{}", self.page(gaps));
            }
            None => print!("{}", self.page(gaps)),
        }
        Ok(())
    }

    /// The report for people.
    pub fn page(&self, gaps: Gaps) -> String {
        let mut page = String::new();
        self.write_head(&mut page);
        self.write_latencies(&mut page);
        self.write_usage(&mut page);
        self.write_gaps(gaps, &mut page);
        self.write_verdict(&mut page);
        for warning in &self.warnings {
            line(&mut page, format_args!("WARNING: {warning}"));
        }
        page
    }

    fn write_head(&self, page: &mut String) {
        let totals = &self.totals;
        line(page, format_args!("{} {}", self.mode, self.label));
        line(
            page,
            format_args!(
                "  {:.0} records/s, {:.1} MiB/s over {:.1} s",
                totals.records_per_second,
                totals.bytes_per_second / f64::from(1 << 20),
                self.window_seconds
            ),
        );
        if totals.sent == 0 {
            return;
        }
        line(
            page,
            format_args!(
                "  sent {}, acknowledged {}, not written {}, unknown {}, unsent {}, read {}",
                totals.sent,
                totals.acked,
                totals.not_written,
                totals.unknown,
                totals.unsent,
                totals.received
            ),
        );
        if let Some(error) = &totals.first_error {
            line(page, format_args!("  first failure: {error}"));
        }
    }

    fn write_latencies(&self, page: &mut String) {
        let series = [
            ("intended -> ack", &self.latency.intended_to_ack),
            ("sent -> ack", &self.latency.sent_to_ack),
            ("schedule delay", &self.latency.schedule_delay),
            ("intended -> read", &self.latency.intended_to_read),
        ];
        if series.iter().all(|(_, quantiles)| quantiles.is_none()) {
            return;
        }
        line(
            page,
            format_args!(
                "  {:<17}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
                "latency, ms", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"
            ),
        );
        for (name, quantiles) in series {
            let Some(found) = quantiles else { continue };
            let fifth = found.p99_99.map_or_else(|| "-".to_owned(), milliseconds);
            line(
                page,
                format_args!(
                    "  {name:<17}{:>10}{:>10}{:>10}{:>10}{:>10}{fifth:>10}{:>10}",
                    milliseconds(found.mean),
                    milliseconds(found.p50),
                    milliseconds(found.p90),
                    milliseconds(found.p99),
                    milliseconds(found.p99_9),
                    milliseconds(found.max)
                ),
            );
        }
    }

    fn write_usage(&self, page: &mut String) {
        for process in &self.usage.processes {
            line(
                page,
                format_args!(
                    "  {} {}: {:.2} CPU-s, {:.2} per million records, {:.2} cores, {} MiB own, {} \
                     MiB mapped",
                    process.role,
                    process.pid,
                    process.cpu_seconds,
                    process.cpu_seconds_per_million_records,
                    process.cores_busy,
                    process.resident_own_bytes >> 20,
                    process.resident_mapped_bytes >> 20
                ),
            );
        }
        line(
            page,
            format_args!(
                "  host: {:.0} % busy, {:.1} % stolen, {} cores",
                self.usage.host_busy * 100.0,
                self.usage.host_steal * 100.0,
                self.environment.cores
            ),
        );
    }

    fn write_gaps(&self, gaps: Gaps, page: &mut String) {
        let longest = self.gaps.iter().max_by(|a, b| a.milliseconds.total_cmp(&b.milliseconds));
        if let Some(longest) = longest {
            line(
                page,
                format_args!(
                    "  longest stall: {:.0} ms ({})",
                    longest.milliseconds,
                    place(longest)
                ),
            );
        }
        if gaps == Gaps::Listed {
            for gap in &self.gaps {
                let Gap { start_seconds, milliseconds, .. } = gap;
                let place = place(gap);
                line(
                    page,
                    format_args!("    at {start_seconds:.3} s: {milliseconds:.0} ms ({place})"),
                );
            }
        }
    }

    fn write_verdict(&self, page: &mut String) {
        let Some(verdict) = &self.verdict else { return };
        let word = if verdict.is_clean() { "clean" } else { "WRONG" };
        line(
            page,
            format_args!(
                "  data {word}: received {}, lost {}, missing {}, duplicated {}, out of order {}, \
                 phantom {}, offset jumps {}, foreign {}",
                verdict.received,
                verdict.lost,
                verdict.holes,
                verdict.duplicated,
                verdict.reordered,
                verdict.phantom,
                verdict.offset_jumps,
                verdict.foreign
            ),
        );
        for example in &verdict.examples {
            line(page, format_args!("    {example}"));
        }
    }
}

/// Whether the page lists every gap or names the longest only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gaps {
    /// Every one.
    Listed,
    /// The longest.
    Longest,
}

fn place(gap: &Gap) -> String {
    match gap.partition {
        Some(partition) => format!("partition {partition}"),
        None => "all partitions".to_owned(),
    }
}

fn line(page: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(page, "{words}").expect("a string takes everything");
}

fn milliseconds(microseconds: f64) -> String {
    let value = microseconds / 1e3;
    match value {
        small if small < 10.0 => format!("{small:.3}"),
        middle if middle < 1_000.0 => format!("{middle:.1}"),
        large => format!("{large:.0}"),
    }
}

/// The shape's name and version.
pub const SCHEMA: &str = "highwater.bench/1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_data_weigh_more_than_failed_records() {
        let good = Totals { acked: 5, ..Totals::default() };
        let failed = Totals { unknown: 1, ..good.clone() };
        let wrong = Verdict { lost: 1, ..Verdict::default() };
        let clean = Verdict::default();
        let check = |totals, verdict, code| {
            assert_eq!(Outcome::judge(totals, verdict).exit_code(), code);
        };
        check(&good, None, 0);
        check(&good, Some(&clean), 0);
        check(&failed, Some(&clean), 4);
        check(&failed, Some(&wrong), 3);
        check(&good, Some(&wrong), 3);
    }

    #[test]
    fn latencies_are_printed_with_the_digits_that_matter() {
        assert_eq!(milliseconds(123.4), "0.123");
        assert_eq!(milliseconds(12_345.0), "12.3");
        assert_eq!(milliseconds(1_234_567.0), "1235");
    }
}
