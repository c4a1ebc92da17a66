//! What happened in a run: a running hash of everything, and the last events in words.
//!
//! The hash is the proof that a seed replays; it takes in every delivery, pass and fault. Notes are
//! kept as text only while they are among the last few, for the report of a failure.

use std::collections::VecDeque;
use std::fmt;

/// The record of a run.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    steps: u64,
    last: VecDeque<String>,
    verbose: bool,
}

impl Trace {
    /// A trace that also prints every note, for looking at one seed closely.
    pub fn printing() -> Trace {
        Trace { verbose: true, ..Trace::default() }
    }

    /// Takes numbers into the hash.
    pub fn mix(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.hash = (self.hash.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        self.steps += 1;
    }

    /// Remembers an event worth telling.
    pub fn note(&mut self, at_us: u64, what: fmt::Arguments<'_>) {
        let note = format!("{:>10.3} ms  {what}", at_us as f64 / 1000.0);
        for byte in note.bytes() {
            self.hash =
                (self.hash.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        if self.verbose {
            println!("{note}");
        }
        if self.last.len() == LAST_MAX {
            self.last.pop_front();
        }
        self.last.push_back(note);
    }

    /// Whether printing was asked for.
    pub fn prints(&self) -> bool {
        self.verbose
    }

    /// Prints what is too much to remember, if printing was asked for.
    pub fn print(&self, at_us: u64, what: fmt::Arguments<'_>) {
        if self.verbose {
            println!("{:>10.3} ms  {what}", at_us as f64 / 1000.0);
        }
    }

    /// The hash of all so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many steps were taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The last events, oldest first.
    pub fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}

const LAST_MAX: usize = 40;
