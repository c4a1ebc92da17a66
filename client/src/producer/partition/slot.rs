//! A batch's place in the pipeline of its partition, from the first attempt to the final answer.

use std::time::Instant;

use highwater_protocol::ids::Offset;

use super::{Attempt, Leader};
use crate::error::{Error, ErrorKind, Outcome};
use crate::producer::accumulator::Batch;

/// A batch that is not settled, or waits for older ones that are not.
pub(super) struct Slot {
    pub(super) sequence: u32,
    pub(super) progress: Progress,
    /// Some attempt may have been written.
    pub(super) in_doubt: bool,
    /// A batch before it in this epoch was surely not written, so neither was this one.
    pub(super) barred: bool,
    pub(super) last_error: Option<Error>,
    /// `None` once settled; the slot stays while older ones are unsettled.
    pub(super) batch: Option<Batch>,
}

/// Whether it is under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    /// It waits for an answer since it was sent, or since a pause was over that its broker asked for.
    InFlight {
        attempt: Attempt,
        waits_since: Instant,
        to: Leader,
    },
}

impl Slot {
    pub(super) fn is_waiting(&self) -> bool {
        self.batch.is_some() && self.progress == Progress::Waiting
    }

    pub(super) fn expected_end(&self) -> Option<Offset> {
        self.batch.as_ref().and_then(|batch| batch.expected_end)
    }

    pub(super) fn is_attempt(&self, wanted: Attempt) -> bool {
        matches!(self.progress, Progress::InFlight { attempt, .. } if attempt == wanted)
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.waits_since().is_some()
    }

    pub(super) fn waits_since(&self) -> Option<Instant> {
        match self.progress {
            Progress::InFlight { waits_since, .. } => Some(waits_since),
            Progress::Waiting => None,
        }
    }

    pub(super) fn outcome(&self) -> Outcome {
        let unsure = (self.in_doubt || self.is_in_flight()) && !self.barred;
        if unsure { Outcome::Unknown } else { Outcome::NotWritten }
    }

    pub(super) fn retry(&mut self, error: Error, outcome: Outcome) {
        self.progress = Progress::Waiting;
        self.in_doubt |= outcome != Outcome::NotWritten;
        self.last_error = Some(error);
    }

    pub(super) fn give_up(&mut self, error: Error) {
        let outcome = error.outcome();
        self.retry(error, outcome);
    }

    pub(super) fn timed_out(&self, name: &str, blame: Option<String>) -> Error {
        let last = self.last_error.as_ref().map(|error| format!("last: {error}"));
        let why = match (blame, last) {
            (Some(blame), Some(last)) => format!("{blame}; {last}"),
            (Some(why), None) | (None, Some(why)) => why,
            (None, None) => "last: no broker has answered".to_owned(),
        };
        let text = format!("cannot write to {name} within delivery_timeout; {why}");
        Error::with_outcome(ErrorKind::TimedOut, self.outcome(), text)
    }

    pub(super) fn lost_track(&self, name: &str) -> Error {
        let last = self.last_error.as_ref().map_or(String::new(), ToString::to_string);
        let text = format!(
            "cannot tell whether a batch was written to {name}: its answer was lost, and the \
             leader no longer knows this producer's place ({last}); read back before sending again"
        );
        Error::with_outcome(ErrorKind::ConnectionLost, Outcome::Unknown, text)
    }
}
