//! The history of a run and what is wrong with it.
//!
//! A history is a list of operations, each with the times at which it was called and at which it
//! ended. `op` is the operations, `file` their form on disk (`HISTORY.md` has it byte by byte),
//! `check` what is gathered while going through them once, `judge` what is concluded in the end,
//! `anomaly` the names of what can be wrong and the report. `sparse` is the table under it.
//! `online` is the same for a bench at full speed: the checks that need a bit per record and keep no operations.

pub mod anomaly;
pub mod check;
pub mod file;
mod judge;
pub mod online;
pub mod op;
mod sparse;

#[cfg(test)]
mod tests;

pub use anomaly::{Anomaly, Example, Finding, Report};
pub use check::Checker;
pub use judge::Ending;
pub use op::{Drained, Op, Outcome, Poll, PollKind, Process, Seen, Send};
