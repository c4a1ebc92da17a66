//! How far a long run is: a bar on a terminal, a line now and then elsewhere.
//!
//! It goes to the standard error and costs the hot path one addition per record.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anstream::eprintln;
use indicatif::{ProgressBar, ProgressStyle};

use crate::human;

/// Counts what was sent and shows it from time to time.
pub struct Progress {
    view: View,
    records: u64,
    bytes: u64,
    looked: u64,
    shown: Instant,
    started: Instant,
}

enum View {
    Nothing,
    Bar(ProgressBar),
    Lines,
}

impl Progress {
    /// Shows progress towards `bytes`, where that is known; nothing while a person types.
    pub fn start(bytes: Option<u64>, typed: bool, quiet: bool) -> Progress {
        let view = if quiet || typed {
            View::Nothing
        } else if io::stderr().is_terminal() {
            View::Bar(bar(bytes))
        } else {
            View::Lines
        };
        let now = Instant::now();
        Progress { view, records: 0, bytes: 0, looked: 0, shown: now, started: now }
    }

    /// One more record, with its newline.
    pub fn sent(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
        if self.records - self.looked >= LOOK_EVERY_RECORDS {
            self.looked = self.records;
            self.show();
        }
    }

    fn show(&mut self) {
        let since = self.shown.elapsed();
        match &self.view {
            View::Nothing => {}
            View::Bar(bar) if since >= BAR_EVERY => {
                bar.set_position(self.bytes);
                bar.set_message(human::count(self.records));
                self.shown = Instant::now();
            }
            View::Lines if since >= LINE_EVERY => {
                eprintln!(
                    "{} records, {} sent in {:.0} s",
                    human::count(self.records),
                    human::bytes(self.bytes),
                    self.started.elapsed().as_secs_f64()
                );
                self.shown = Instant::now();
            }
            View::Bar(_) | View::Lines => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let View::Bar(bar) = self.view {
            bar.finish_and_clear();
        }
    }
}

fn bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(length) => (
            ProgressBar::new(length),
            "{bar:30.cyan} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {msg} \
             records  {eta} left",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {msg} records",
        ),
    };
    let style =
        ProgressStyle::with_template(template).expect("the templates above are well formed");
    bar.set_style(style);
    bar
}

const LOOK_EVERY_RECORDS: u64 = 64;
const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(10);
