//! Appends on condition that did not meet it, and when they are told so.
//!
//! A condition is compared with the leader's log end in records, committed or not: who appends next is
//! behind all of that. An append that meets it needs nothing more, for when it is committed so is all
//! before it, and it begins where its producer expected. One that does not is told only once the end it was
//! compared with is committed. Until then that end may be lost with its leader, and its producer would
//! look for records that never were.

use std::collections::VecDeque;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{LogIndex, Offset, TopicPartition};

use super::event::RequestId;
use crate::raft::Millis;

use super::output::Output;

/// An append that was not made, because the log ends elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conflict {
    pub id: RequestId,
    pub partition: TopicPartition,
    pub expected: Offset,
    /// Where the log ended.
    pub end: Offset,
    /// The same place as an index.
    pub compared: LogIndex,
    pub deadline: Millis,
}

/// The conflicts of one replica that are not told yet.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    waiting: VecDeque<Conflict>,
}

impl Conflicts {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes one in. A log is compared where it ends, so they come in the order of the log.
    pub(super) fn push(&mut self, conflict: Conflict) {
        self.waiting.push_back(conflict);
    }

    /// Tells those whose end is committed.
    pub(super) fn complete(&mut self, commit: LogIndex, out: &mut Output) {
        while let Some(conflict) = self.waiting.pop_front_if(|next| next.compared <= commit) {
            out.produced.push((conflict.id, Err(conflict.refusal())));
        }
    }

    /// The log was cut at `to`: an end behind that was none.
    pub(super) fn truncated(&mut self, to: LogIndex, out: &mut Output) {
        self.fail_where(out, |conflict| conflict.compared > to, |conflict| {
            let Conflict { partition, end, .. } = conflict;
            let detail = format!(
                "a newer leader of {partition} replaced what ended at {end} here: nothing was written, send it again"
            );
            WireError::new(ErrorCode::Superseded, detail)
        });
    }

    /// Answers those whose time is over.
    pub(super) fn expire(&mut self, now: Millis, out: &mut Output) {
        self.fail_where(out, |conflict| conflict.deadline <= now, |conflict| {
            let Conflict { partition, end, .. } = conflict;
            let detail = format!(
                "nothing was written to {partition}: it ends at {end} here, but whether that stays so was not known in time"
            );
            WireError::new(ErrorCode::RequestTimedOut, detail)
        });
    }

    /// Answers everyone with the same error.
    pub(super) fn fail_all(&mut self, error: &WireError, out: &mut Output) {
        self.fail_where(out, |_| true, |_| error.clone());
    }

    /// When the first deadline passes.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.waiting.iter().map(|conflict| conflict.deadline).min()
    }

    fn fail_where(
        &mut self,
        out: &mut Output,
        fails: impl Fn(&Conflict) -> bool,
        error: impl Fn(&Conflict) -> WireError,
    ) {
        self.waiting.retain(|conflict| {
            let failed = fails(conflict);
            if failed {
                out.produced.push((conflict.id, Err(error(conflict))));
            }
            !failed
        });
    }
}

impl Conflict {
    pub(super) fn refusal(&self) -> WireError {
        let Conflict { partition, expected, end, .. } = self;
        let why = match end > expected {
            true => "others have written since",
            false => "what was expected is not here",
        };
        let detail = format!("{partition} ends at {end}, not at {expected}: {why}");
        WireError::wrong_end(*end, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(compared: &[u64]) -> Conflicts {
        let mut conflicts = Conflicts::default();
        for (at, compared) in compared.iter().enumerate() {
            conflicts.push(Conflict {
                id: RequestId(at as u64),
                partition: TopicPartition::CLUSTER,
                expected: Offset(3),
                end: Offset(compared - 1),
                compared: LogIndex(*compared),
                deadline: Millis(100 + at as u64),
            });
        }
        conflicts
    }

    fn answers(out: Output) -> Vec<(u64, ErrorCode, Option<u64>)> {
        let told = out.produced.into_iter().map(|(id, result)| {
            let error = result.expect_err("nothing is written");
            (id.0, error.code, error.end.map(|end| end.0))
        });
        told.collect()
    }

    #[test]
    fn a_conflict_is_told_with_its_end_once_that_is_committed() {
        let (mut conflicts, mut out) = (waiting(&[5, 8]), Output::default());
        conflicts.complete(LogIndex(4), &mut out);
        assert!(out.is_empty());
        conflicts.complete(LogIndex(7), &mut out);
        assert_eq!(answers(out), [(0, ErrorCode::WrongEnd, Some(4))]);
    }

    #[test]
    fn an_end_that_was_cut_away_is_not_told() {
        let (mut conflicts, mut out) = (waiting(&[5, 8]), Output::default());
        conflicts.truncated(LogIndex(5), &mut out);
        assert_eq!(answers(out), [(1, ErrorCode::Superseded, None)]);
        assert_eq!(conflicts.len(), 1);
    }

    #[test]
    fn a_conflict_that_waited_too_long_is_open() {
        let (mut conflicts, mut out) = (waiting(&[5, 8]), Output::default());
        conflicts.expire(Millis(100), &mut out);
        assert_eq!(answers(out), [(0, ErrorCode::RequestTimedOut, None)]);
        assert_eq!(conflicts.next_deadline(), Some(Millis(101)));
    }
}
