//! Latencies, counts per second, and gaps between acknowledgements.
//!
//! Percentiles come from one histogram over all records of the measured window; they are never
//! averaged. The window holds the records whose *intended* time lies in it, whenever they were
//! acknowledged. A second of the time line holds what was *completed* in it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::workload::Nanos;

/// The part of a run that is measured: warm-up excluded.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Its first moment.
    pub start: Nanos,
    /// Its end, exclusive.
    pub end: Nanos,
}

/// One series of latencies with its time line.
#[derive(Debug)]
pub struct Series {
    window: Window,
    all: Histogram<u64>,
    seconds: Vec<Second>,
    /// Completed within the window.
    completed: u64,
    completed_bytes: u64,
}

#[derive(Debug)]
struct Second {
    records: u64,
    bytes: u64,
    latencies: Histogram<u32>,
}

/// A distribution, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many values.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// The smallest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// 75 of 100 are at most this.
    pub p75: f64,
    /// 90 of 100.
    pub p90: f64,
    /// 95 of 100.
    pub p95: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p99_9: f64,
    /// 9,999 of 10,000; nothing below 100,000 values, where it would be noise.
    pub p99_99: Option<f64>,
    /// The largest.
    pub max: f64,
    /// Points (quantile, microseconds) for plots with a logarithmic tail.
    pub curve: Vec<(f64, f64)>,
}

/// One second of the time line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moment {
    /// Which second of the measured window, from 0; negative in the warm-up.
    pub second: i64,
    /// Records completed in it.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Latencies of those records, in microseconds; nothing where none were measured.
    pub p50: Option<f64>,
    /// See above.
    pub p99: Option<f64>,
    /// See above.
    pub max: Option<f64>,
}

impl Series {
    /// An empty series; `run_start` is where its time line begins.
    pub fn new(window: Window) -> Series {
        let all = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3)
            .expect("the bounds are constants and fit");
        Series { window, all, seconds: Vec::new(), completed: 0, completed_bytes: 0 }
    }

    /// A record that should have begun at `intended` and was done at `done`.
    pub fn record(&mut self, intended: Nanos, done: Nanos, bytes: usize) {
        let latency = done.since(intended).max(1);
        if self.window.contains(intended) {
            self.all.saturating_record(latency);
        }
        if self.window.contains(done) {
            self.completed += 1;
            self.completed_bytes += bytes as u64;
        }
        let second = (done.0 / 1_000_000_000) as usize;
        if second >= self.seconds.len() {
            self.seconds.resize_with((second + 1).min(SECONDS_MAX), Second::new);
        }
        if let Some(second) = self.seconds.get_mut(second) {
            second.records += 1;
            second.bytes += bytes as u64;
            second.latencies.saturating_record(latency);
        }
    }

    /// Takes over another series of the same run.
    pub fn merge(&mut self, other: &Series) {
        self.all.add(&other.all).expect("all series have the same bounds");
        self.completed += other.completed;
        self.completed_bytes += other.completed_bytes;
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize_with(other.seconds.len(), Second::new);
        }
        for (into, from) in self.seconds.iter_mut().zip(&other.seconds) {
            into.records += from.records;
            into.bytes += from.bytes;
            into.latencies.add(&from.latencies).expect("all seconds have the same bounds");
        }
    }

    /// Records completed within the window, and their bytes.
    pub fn completed(&self) -> (u64, u64) {
        (self.completed, self.completed_bytes)
    }

    /// The distribution; `None` where nothing was recorded.
    pub fn quantiles(&self) -> Option<Quantiles> {
        if self.all.is_empty() {
            return None;
        }
        let at = |quantile| self.all.value_at_quantile(quantile) as f64 / 1e3;
        let curve = self
            .all
            .iter_quantiles(2)
            .map(|step| (step.quantile_iterated_to(), step.value_iterated_to() as f64 / 1e3));
        Some(Quantiles {
            count: self.all.len(),
            mean: self.all.mean() / 1e3,
            min: self.all.min() as f64 / 1e3,
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: (self.all.len() >= P9999_COUNT_MIN).then(|| at(0.9999)),
            max: self.all.max() as f64 / 1e3,
            curve: curve.collect(),
        })
    }

    /// The time line, from the first second in which anything was done.
    pub fn timeline(&self) -> Vec<Moment> {
        let window_second = (self.window.start.0 / 1_000_000_000) as i64;
        let moments = self.seconds.iter().enumerate().skip_while(|(_, second)| second.records == 0);
        let moments = moments.map(|(at, second)| Moment {
            second: at as i64 - window_second,
            records: second.records,
            bytes: second.bytes,
            p50: Some(second.latencies.value_at_quantile(0.5) as f64 / 1e3),
            p99: Some(second.latencies.value_at_quantile(0.99) as f64 / 1e3),
            max: Some(second.latencies.max() as f64 / 1e3),
        });
        moments.collect()
    }
}

impl Second {
    fn new() -> Second {
        let latencies = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 2)
            .expect("the bounds are constants and fit");
        Second { records: 0, bytes: 0, latencies }
    }
}

impl Window {
    /// Whether a moment lies in it.
    pub fn contains(&self, time: Nanos) -> bool {
        self.start <= time && time < self.end
    }
}

/// Watches for stalls: times in which something waited and nothing was acknowledged, per
/// partition and over all. Where nothing is sent nothing is missed.
#[derive(Debug)]
pub struct Gaps {
    shortest_ns: u64,
    /// A slot for each partition, and one for all of them at the end.
    slots: Vec<Slot>,
    found: Mutex<Vec<Gap>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// The last acknowledgement; 0 for none yet.
    last: AtomicU64,
    /// The first sending that failed since then; 0 for none.
    failed: AtomicU64,
}

/// A time without an acknowledgement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gap {
    /// In which partition; `None` where no partition acknowledged anything.
    pub partition: Option<u32>,
    /// When it began, in seconds since the start of the run.
    pub start_seconds: f64,
    /// How long it was, in milliseconds.
    pub milliseconds: f64,
}

impl Gaps {
    /// Remembers gaps of at least `shortest_ms`.
    pub fn new(partitions: u32, shortest_ms: u64) -> Gaps {
        let slots = (0..=partitions).map(|_| Slot::default()).collect();
        Gaps { shortest_ns: shortest_ms * 1_000_000, slots, found: Mutex::new(Vec::new()) }
    }

    /// A record that was sent at `sent` is acknowledged now.
    pub fn acked(&self, partition: u32, sent: Nanos, now: Nanos) {
        for (slot, partition) in self.slots_of(partition) {
            let failed = slot.failed.swap(0, Ordering::Relaxed);
            let waited_from = if failed == 0 { sent.0 } else { failed.min(sent.0) };
            self.note(slot, partition, waited_from, now);
        }
    }

    /// A record that was sent at `sent` has failed: what was missed from then on counts.
    pub fn failed(&self, partition: u32, sent: Nanos) {
        for (slot, _) in self.slots_of(partition) {
            // An earlier failure stands.
            let _ = slot.failed.compare_exchange(0, sent.0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn slots_of(&self, partition: u32) -> impl Iterator<Item = (&Slot, Option<u32>)> {
        let own = self.slots.get(partition as usize).map(|slot| (slot, Some(partition)));
        own.into_iter().chain(self.slots.last().map(|slot| (slot, None)))
    }

    fn note(&self, slot: &Slot, partition: Option<u32>, waited_from: u64, now: Nanos) {
        // Two lanes may note moments in the wrong order; the difference is far below a gap.
        let last = slot.last.fetch_max(now.0, Ordering::Relaxed);
        let start = Nanos(last.max(waited_from));
        if now.since(start) >= self.shortest_ns {
            self.push(Gap {
                partition,
                start_seconds: start.0 as f64 / 1e9,
                milliseconds: now.since(start) as f64 / 1e6,
            });
        }
    }

    fn push(&self, gap: Gap) {
        let mut found = self.found.lock().expect("no holder of this lock panics");
        if found.len() < GAPS_MAX {
            found.push(gap);
        }
    }

    /// All gaps, with those that failures left open at `end`.
    pub fn finish(&self, end: Nanos) -> Vec<Gap> {
        for (at, slot) in self.slots.iter().enumerate() {
            let partition = (at + 1 < self.slots.len()).then_some(at as u32);
            let failed = slot.failed.load(Ordering::Relaxed);
            if failed != 0 {
                self.note(slot, partition, failed, end);
            }
        }
        let mut found = self.found.lock().expect("no holder of this lock panics").clone();
        found.sort_by(|a, b| a.start_seconds.total_cmp(&b.start_seconds));
        found
    }
}

const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 120_000_000_000;
const P9999_COUNT_MIN: u64 = 100_000;
/// A day.
const SECONDS_MAX: usize = 86_400;
const GAPS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const WINDOW: Window = Window { start: Nanos(1_000 * MS), end: Nanos(3_000 * MS) };

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= expected * 0.01, "{value} is not about {expected}");
    }

    #[test]
    fn a_stall_is_charged_to_every_record_that_fell_due_in_it() {
        // A record a millisecond for two seconds; the cluster stands still in the first half.
        let mut series = Series::new(WINDOW);
        for ms in 1_000..3_000_u64 {
            let done = if ms < 2_000 { 2_000 } else { ms + 1 };
            series.record(Nanos(ms * MS), Nanos(done * MS), 10);
        }
        let quantiles = series.quantiles().expect("2,000 values");
        assert_eq!(quantiles.count, 2_000);
        near(quantiles.p90, 800_000.0);
        near(quantiles.max, 1_000_000.0);
        assert_eq!(quantiles.p99_99, None, "2,000 values say nothing of one in 10,000");
    }

    #[test]
    fn warm_up_counts_in_neither_latency_nor_rate() {
        let mut series = Series::new(WINDOW);
        series.record(Nanos(999 * MS), Nanos(1_500 * MS), 10);
        series.record(Nanos(1_500 * MS), Nanos(1_501 * MS), 10);
        series.record(Nanos(2_999 * MS), Nanos(3_500 * MS), 10);
        assert_eq!(series.quantiles().expect("two values").count, 2);
        assert_eq!(series.completed(), (2, 20), "completed within the window, whenever intended");
    }

    #[test]
    fn the_time_line_counts_what_each_second_completed() {
        let mut series = Series::new(WINDOW);
        for ms in [500, 1_200, 1_900, 2_100] {
            series.record(Nanos(ms * MS - 5 * MS), Nanos(ms * MS), 7);
        }
        let timeline = series.timeline();
        let counts: Vec<_> =
            timeline.iter().map(|moment| (moment.second, moment.records)).collect();
        assert_eq!(counts, [(-1, 1), (0, 2), (1, 1)]);
        near(timeline[1].p99.expect("two values"), 5_000.0);
    }

    #[test]
    fn series_of_several_producers_add_up() {
        let mut all = Series::new(WINDOW);
        let mut other = Series::new(WINDOW);
        all.record(Nanos(1_000 * MS), Nanos(1_001 * MS), 1);
        other.record(Nanos(2_500 * MS), Nanos(2_502 * MS), 1);
        all.merge(&other);
        assert_eq!(all.completed(), (2, 2));
        assert_eq!(all.timeline().len(), 2);
        assert_eq!(all.quantiles().expect("two values").count, 2);
    }

    fn ack(gaps: &Gaps, partition: u32, sent_ms: u64, now_ms: u64) {
        gaps.acked(partition, Nanos(sent_ms * MS), Nanos(now_ms * MS));
    }

    #[test]
    fn a_stall_is_seen_in_its_partition_and_over_all() {
        let gaps = Gaps::new(2, 100);
        ack(&gaps, 0, 5, 10);
        ack(&gaps, 1, 12, 15);
        ack(&gaps, 0, 20, 500);
        ack(&gaps, 0, 21, 500);
        ack(&gaps, 1, 490, 505);
        let found = gaps.finish(Nanos(520 * MS));
        let of = |partition| found.iter().find(|gap| gap.partition == partition);
        assert_eq!(of(Some(0)).map(|gap| gap.milliseconds), Some(480.0));
        assert_eq!(of(Some(1)), None, "nothing of it waited");
        assert_eq!(of(None).map(|gap| gap.milliseconds), Some(480.0));
    }

    #[test]
    fn a_partition_to_which_nothing_is_sent_does_not_stall() {
        let gaps = Gaps::new(3, 100);
        ack(&gaps, 0, 0, 10);
        ack(&gaps, 0, 9_990, 10_000);
        assert_eq!(gaps.finish(Nanos(20_000 * MS)), []);
    }

    #[test]
    fn a_stall_that_never_ends_is_reported_too() {
        let gaps = Gaps::new(1, 100);
        ack(&gaps, 0, 5, 10);
        gaps.failed(0, Nanos(10 * MS));
        gaps.failed(0, Nanos(900 * MS));
        let found = gaps.finish(Nanos(5_010 * MS));
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|gap| gap.milliseconds == 5_000.0), "{found:?}");
    }

    #[test]
    fn a_failure_in_between_does_not_hide_a_stall() {
        let gaps = Gaps::new(1, 100);
        ack(&gaps, 0, 5, 10);
        gaps.failed(0, Nanos(20 * MS));
        ack(&gaps, 0, 900, 910);
        let found = gaps.finish(Nanos(1_000 * MS));
        assert_eq!(found[0].milliseconds, 890.0);
    }
}
