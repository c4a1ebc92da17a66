//! Produces that wait for their promise: one queue per ack mode, completed by watermarks.
//!
//! What must hold: every waiter is answered once, and honestly. Committed under its mode: a receipt.
//! Cut from the log: `Superseded`, it was not written. Deadline passed: `RequestTimedOut`, the outcome
//! is open. Losing leadership decides nothing: the batch may well be committed by the next leader, so
//! a waiter stays until this replica knows.

use std::collections::VecDeque;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{LogIndex, Offset};
use highwater_protocol::native::produce::{AckMode, Receipt};

use super::event::RequestId;
use crate::mutant::{self, Mutant};
use crate::raft::{Millis, Raft};

use super::condition::{Conflict, Conflicts};
use super::output::Output;
use super::producers::Placed;

/// A produce that is appended and not answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub id: RequestId,
    pub placed: Placed,
    pub deadline: Millis,
}

/// How far each mode's promise holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    pub commit: LogIndex,
    pub sync: SyncReach,
}

/// How far the in-sync voters agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SyncReach {
    /// Every in-sync voter counts what lies before this.
    End(LogIndex),
    /// Too few voters are in sync for the promise.
    TooFew { in_sync: usize, needed: u8 },
    /// Only a leader knows who is in sync, and this replica leads no more.
    NotLeading,
}

/// The waiters of one replica.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    semi_sync: VecDeque<Waiter>,
    sync: VecDeque<Waiter>,
    conflicts: Conflicts,
    /// No waiter's deadline is before this.
    earliest_deadline: Option<Millis>,
}

impl Waiters {
    /// Whether no more produces may wait.
    pub(super) fn are_full(&self) -> bool {
        self.semi_sync.len() + self.sync.len() + self.conflicts.len() >= WAITERS_MAX
    }

    /// Takes one in. Batches come in the order of the log, but for repeats of older ones.
    pub(super) fn push(&mut self, acks: AckMode, waiter: Waiter) {
        self.earliest_deadline =
            Some(self.earliest_deadline.map_or(waiter.deadline, |at| at.min(waiter.deadline)));
        match acks {
            AckMode::Async => panic!("an async produce does not wait"),
            AckMode::SemiSync => self.semi_sync.push_back(waiter),
            AckMode::Sync => self.sync.push_back(waiter),
        }
    }

    /// Takes in an append that is not made, whose condition is not known for sure to be unmet.
    pub(super) fn push_conflict(&mut self, conflict: Conflict) {
        self.conflicts.push(conflict);
    }

    /// Answers all whose promise holds now, and `sync` waiters whose promise cannot hold any more.
    pub(super) fn complete(&mut self, reached: Reached, raft: &Raft, out: &mut Output) {
        let Reached { mut commit, sync } = reached;
        self.conflicts.complete(commit, out);
        if mutant::active(Mutant::AckAtAppend) {
            commit = LogIndex(u64::MAX);
        }
        while let Some(waiter) = self.semi_sync.pop_front_if(|waiter| waiter.placed.end <= commit) {
            out.produced.push((waiter.id, Ok(receipt(raft, waiter.placed))));
        }
        let in_sync_end = match sync {
            SyncReach::End(_) if mutant::active(Mutant::SyncAckAtCommit) => commit,
            SyncReach::End(end) => end.min(commit),
            SyncReach::NotLeading => commit,
            SyncReach::TooFew { .. } => LogIndex(u64::MAX),
        };
        while let Some(waiter) = self.sync.pop_front_if(|waiter| waiter.placed.end <= in_sync_end) {
            let offset = waiter.placed.base_offset;
            let result = match sync {
                SyncReach::End(_) => Ok(receipt(raft, waiter.placed)),
                SyncReach::TooFew { in_sync, needed } => {
                    Err(too_few_after(offset, in_sync, needed))
                }
                SyncReach::NotLeading => Err(moved_before_all_had_it(offset)),
            };
            out.produced.push((waiter.id, result));
        }
    }

    /// The log was cut at `to`: what lay behind is not written.
    pub(super) fn truncated(&mut self, to: LogIndex, out: &mut Output) {
        self.conflicts.truncated(to, out);
        self.fail_where(
            out,
            |waiter| waiter.placed.end > to,
            |waiter| {
                let offset = waiter.placed.base_offset;
                WireError::new(
                    ErrorCode::Superseded,
                    format!(
                        "a newer leader's replaced the batch at offset {offset}: send it again"
                    ),
                )
            },
        );
    }

    /// Answers those whose time is over.
    pub(super) fn expire(&mut self, now: Millis, out: &mut Output) {
        self.conflicts.expire(now, out);
        if self.earliest_deadline.is_none_or(|earliest| now < earliest) {
            return;
        }
        self.fail_where(out, |waiter| waiter.deadline <= now, |waiter| {
            let offset = waiter.placed.base_offset;
            WireError::new(
                match mutant::active(Mutant::RefusedAfterAppend) {
                    true => ErrorCode::NotLeader,
                    false => ErrorCode::RequestTimedOut,
                },
                format!(
                    "the batch at offset {offset} was appended, but not acknowledged in time: it \
                     may still be committed"
                ),
            )
        });
    }

    /// Answers everyone with the same error.
    pub(super) fn fail_all(&mut self, error: &WireError, out: &mut Output) {
        self.conflicts.fail_all(error, out);
        self.fail_where(out, |_| true, |_| error.clone());
    }

    /// When the first deadline may pass.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.earliest_deadline.into_iter().chain(self.conflicts.next_deadline()).min()
    }

    fn fail_where(
        &mut self,
        out: &mut Output,
        fails: impl Fn(&Waiter) -> bool,
        error: impl Fn(&Waiter) -> WireError,
    ) {
        for queue in [&mut self.semi_sync, &mut self.sync] {
            queue.retain(|waiter| {
                let failed = fails(waiter);
                if failed {
                    out.produced.push((waiter.id, Err(error(waiter))));
                }
                !failed
            });
        }
        let waiting = self.semi_sync.iter().chain(&self.sync);
        self.earliest_deadline = waiting.map(|waiter| waiter.deadline).min();
    }
}

/// What this replica can vouch for.
pub(super) fn receipt(raft: &Raft, placed: Placed) -> Receipt {
    let holders = raft.holders(placed.end);
    Receipt {
        base_offset: placed.base_offset,
        term: placed.term,
        replicas: holders.appended + u8::from(mutant::active(Mutant::ReceiptOverclaims)),
        flushed: holders.flushed,
        log_append_time: placed.stamped,
    }
}

fn too_few_after(offset: Offset, in_sync: usize, needed: u8) -> WireError {
    WireError::new(
        ErrorCode::NotEnoughReplicasAfterAppend,
        format!(
            "the batch at offset {offset} was appended, but only {in_sync} of the {needed} replicas \
             needed are in sync now: it may still be committed"
        ),
    )
}

fn moved_before_all_had_it(offset: Offset) -> WireError {
    WireError::new(
        ErrorCode::NotEnoughReplicasAfterAppend,
        format!(
            "the batch at offset {offset} is committed, but leadership moved before every in-sync \
             replica was known to have it"
        ),
    )
}

/// Produces that may wait at one replica; more are refused before the append.
const WAITERS_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::batch::VoterSet;
    use highwater_protocol::ids::{NodeId, Position, Term};

    use crate::raft::{HardState, Options, Suspicion, TermStarts};

    fn waiter(id: u64, end: u64, deadline: u64) -> Waiter {
        let base_offset = Offset(end - 1);
        let placed = Placed { base_offset, end: LogIndex(end), term: Term(1), stamped: None };
        Waiter { id: RequestId(id), placed, deadline: Millis(deadline) }
    }

    fn waiting(modes: &[(AckMode, u64)]) -> Waiters {
        let mut waiters = Waiters::default();
        for (at, (acks, end)) in modes.iter().enumerate() {
            waiters.push(*acks, waiter(at as u64, *end, 100 + at as u64));
        }
        waiters
    }

    fn completed(
        waiters: &mut Waiters,
        commit: u64,
        sync: SyncReach,
    ) -> Vec<(u64, Option<ErrorCode>)> {
        let mut out = Output::default();
        waiters.complete(Reached { commit: LogIndex(commit), sync }, &alone(), &mut out);
        answers(out)
    }

    fn answers(out: Output) -> Vec<(u64, Option<ErrorCode>)> {
        let code = |result: Result<Receipt, WireError>| result.err().map(|error| error.code);
        out.produced.into_iter().map(|(id, result)| (id.0, code(result))).collect()
    }

    /// Receipts come from a Raft; what it says is not looked at here.
    fn alone() -> Raft {
        let start = crate::raft::Start {
            me: NodeId(1),
            hard: HardState::default(),
            term_min: Term(0),
            terms: TermStarts::new(Position::default(), Vec::new(), LogIndex::ZERO),
            flushed: LogIndex::ZERO,
            made_with: VoterSet::default(),
            changes: Vec::new(),
            suspicion: Suspicion::None,
            seed: 1,
        };
        Raft::new(start, Options::default(), Millis(0))
    }

    const END: fn(u64) -> SyncReach = |end| SyncReach::End(LogIndex(end));

    #[test]
    fn semi_sync_waits_for_the_commit_and_sync_for_every_in_sync_voter_too() {
        let mut waiters =
            waiting(&[(AckMode::SemiSync, 5), (AckMode::Sync, 6), (AckMode::SemiSync, 7)]);
        assert_eq!(completed(&mut waiters, 4, END(9)), []);
        assert_eq!(completed(&mut waiters, 6, END(5)), [(0, None)]);
        assert_eq!(completed(&mut waiters, 6, END(6)), [(1, None)]);
        assert_eq!(completed(&mut waiters, 7, END(6)), [(2, None)]);
    }

    #[test]
    fn sync_waiters_do_not_hang_when_too_few_voters_are_left() {
        let mut waiters = waiting(&[(AckMode::SemiSync, 5), (AckMode::Sync, 6)]);
        let too_few = SyncReach::TooFew { in_sync: 1, needed: 2 };
        let failed = [(1, Some(ErrorCode::NotEnoughReplicasAfterAppend))];
        assert_eq!(completed(&mut waiters, 4, too_few), failed);
    }

    #[test]
    fn after_losing_leadership_a_commit_still_answers_semi_sync() {
        let mut waiters = waiting(&[(AckMode::SemiSync, 5), (AckMode::Sync, 6)]);
        assert_eq!(completed(&mut waiters, 4, SyncReach::NotLeading), []);
        let sync = (1, Some(ErrorCode::NotEnoughReplicasAfterAppend));
        assert_eq!(completed(&mut waiters, 6, SyncReach::NotLeading), [(0, None), sync]);
    }

    #[test]
    fn a_cut_answers_exactly_what_lay_behind_it() {
        let mut waiters = waiting(&[(AckMode::SemiSync, 5), (AckMode::Sync, 6)]);
        let mut out = Output::default();
        waiters.truncated(LogIndex(5), &mut out);
        assert_eq!(answers(out), [(1, Some(ErrorCode::Superseded))]);
    }

    #[test]
    fn a_deadline_answers_that_the_outcome_is_open() {
        let mut waiters = waiting(&[(AckMode::SemiSync, 5), (AckMode::Sync, 6)]);
        let mut out = Output::default();
        waiters.expire(Millis(99), &mut out);
        assert!(out.is_empty());
        waiters.expire(Millis(100), &mut out);
        assert_eq!(answers(out), [(0, Some(ErrorCode::RequestTimedOut))]);
        assert_eq!(waiters.next_deadline(), Some(Millis(101)));
    }
}
