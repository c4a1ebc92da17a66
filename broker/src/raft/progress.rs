//! What a leader knows of one peer, and what is under way to it.
//!
//! A peer is fed in one of two ways. *Probing*: it is not known where its log and ours join, so one
//! small message at a time. *Streaming*: they join, so messages follow each other without waiting,
//! bounded in bytes and number. A refusal or a silence leads back to probing.

use std::collections::VecDeque;

use crate::mutant::{self, Mutant};
use highwater_protocol::ids::{LogIndex, Position};

use super::options::{Counts, Options};
use super::throttle::Throttle;
use super::{Legible, Millis};

/// What a leader knows of one peer.
#[derive(Debug)]
pub(super) struct Progress {
    /// Its log agrees with ours up to here.
    pub appended: LogIndex,
    /// And that much of it is on its disk.
    pub flushed: LogIndex,
    /// Whether it said last that it can read all of that.
    pub legible: Legible,
    /// What it vouches for: if it loses any of that, it will know that it may have.
    pub vouched: LogIndex,
    /// The end of what it was told to be committed.
    pub commit_told: LogIndex,
    /// When it last spoke in this term.
    pub heard_at: Option<Millis>,
    /// Whether an append left since the last heartbeats were made.
    fed: Fed,
    /// What it may be sent while it is a learner.
    pub throttle: Throttle,
    next: LogIndex,
    pace: Pace,
    /// As what it was fed last.
    lag: Lag,
    /// It had, at `caught_up_at`, all that the log held then.
    caught_up_at: Option<Millis>,
    /// The end to reach for the next such moment, and when it was the log's end.
    goal: (LogIndex, Millis),
}

/// What a peer says it holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub appended: LogIndex,
    pub flushed: LogIndex,
    pub vouched: LogIndex,
}

/// Whether a peer needs a heartbeat of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// An append left in this interval.
    Yes,
    /// None did.
    No,
}

/// Whether a peer keeps up, or is sent what others have had for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// It keeps up: a commit may wait for it.
    Near,
    /// It has to catch up.
    Far,
}

#[derive(Debug)]
enum Pace {
    Probing { asked: Option<(LogIndex, Millis)> },
    Streaming { inflight: VecDeque<(LogIndex, usize)>, bytes: usize, moved_at: Millis },
}

impl Progress {
    /// A peer of which nothing is known but that its log should join on at `next`.
    pub(super) fn new(next: LogIndex, now: Millis) -> Progress {
        Progress {
            appended: LogIndex::ZERO,
            flushed: LogIndex::ZERO,
            legible: Legible::All,
            vouched: LogIndex::ZERO,
            commit_told: LogIndex::ZERO,
            heard_at: None,
            fed: Fed::No,
            throttle: Throttle::default(),
            next,
            pace: Pace::Probing { asked: None },
            lag: Lag::Near,
            caught_up_at: None,
            goal: (next, now),
        }
    }

    /// What counts of it.
    pub(super) fn counted(&self, counts: Counts) -> LogIndex {
        match counts {
            Counts::Flushed => self.flushed.min(self.vouched),
            Counts::Appended => self.vouched,
        }
    }

    /// It spoke. `log_end` is ours.
    pub(super) fn heard(&mut self, now: Millis, log_end: LogIndex, counts: Counts) {
        self.heard_at = Some(now);
        let counted = self.counted(counts);
        if counted >= log_end {
            self.caught_up_at = Some(now);
        } else if counted >= self.goal.0 {
            // It need not reach an end that moves on: having all of a while ago is keeping up.
            self.caught_up_at = Some(self.goal.1);
        } else {
            return;
        }
        self.goal = (log_end, now);
    }

    /// Whether it had, `lag_ms_max` ago or later, all that the log held then.
    pub(super) fn keeps_up(&self, now: Millis, lag_ms_max: u64) -> bool {
        self.caught_up_at.is_some_and(|at| now.0.saturating_sub(at.0) <= lag_ms_max)
    }

    /// Whether an append left and it spoke lately, so that a heartbeat would say nothing new. An
    /// append alone will not do: it may be stuck behind a slow link.
    pub(super) fn take_fed(&mut self, now: Millis, options: &Options) -> Fed {
        let heard =
            self.heard_at.is_some_and(|at| now.0.saturating_sub(at.0) < options.heartbeat_ms);
        match (std::mem::replace(&mut self.fed, Fed::No), heard) {
            (Fed::Yes, true) => Fed::Yes,
            (Fed::Yes, false) | (Fed::No, _) => Fed::No,
        }
    }

    /// It holds what was sent up to `appended`.
    pub(super) fn accepted(&mut self, now: Millis, held: Held) {
        let Held { appended, flushed, vouched } = held;
        self.appended = self.appended.max(appended);
        self.flushed = self.flushed.max(flushed.min(appended));
        self.vouched = self.vouched.max(vouched.min(appended));
        match &mut self.pace {
            Pace::Probing { asked } => {
                // What it holds need not be asked for, however low a late word of it made us begin: that
                // may lie before the log's start by now.
                self.next = self.next.max(self.appended);
                if asked.is_some_and(|(at, _)| appended >= at) {
                    self.next = self.appended;
                    let inflight = VecDeque::new();
                    self.pace = Pace::Streaming { inflight, bytes: 0, moved_at: now };
                }
            }
            Pace::Streaming { inflight, bytes, moved_at } => {
                self.next = self.next.max(self.appended);
                while let Some((_, sent)) = inflight.pop_front_if(|(end, _)| *end <= appended) {
                    *bytes -= sent;
                    *moved_at = now;
                }
            }
        }
    }

    /// It has nothing that ends at `at`; `joint` is where its hint and our log may join.
    pub(super) fn rejected(&mut self, at: LogIndex, joint: LogIndex) {
        match self.pace {
            Pace::Probing { asked: Some((asked, _)) } if asked == at => {
                // Also below what it once acknowledged: then it lost that, and we know less.
                self.lower(joint);
                self.next = joint;
                self.pace = Pace::Probing { asked: None };
            }
            // An answer to another question, late or repeated.
            Pace::Probing { .. } => {}
            Pace::Streaming { .. } if at < self.appended => {}
            Pace::Streaming { .. } => {
                self.next = joint.max(self.appended);
                self.pace = Pace::Probing { asked: None };
            }
        }
    }

    /// It may hold no more than `end`: believe it, which is always safe, and ask again.
    pub(super) fn came_back_with(&mut self, end: LogIndex) {
        if mutant::active(Mutant::TrustOldLife) {
            return;
        }
        self.lower(end);
        self.pace = Pace::Probing { asked: None };
    }

    /// It wants an append now, whether it lacks something or not.
    pub(super) fn ask_again(&mut self) {
        if let Pace::Streaming { .. } = self.pace {
            self.next = self.appended;
        }
        self.pace = Pace::Probing { asked: None };
    }

    fn lower(&mut self, end: LogIndex) {
        self.appended = self.appended.min(end);
        self.flushed = self.flushed.min(end);
        self.vouched = self.vouched.min(end);
        self.commit_told = self.commit_told.min(end);
    }

    /// From where and how much may be sent to it now. A silence makes it probe again.
    pub(super) fn allowance(
        &mut self,
        now: Millis,
        log_end: LogIndex,
        options: &Options,
    ) -> Option<(LogIndex, usize)> {
        let silent = |since: Millis| now.0.saturating_sub(since.0) >= options.resend_ms;
        let lost = match &self.pace {
            Pace::Probing { .. } => false,
            Pace::Streaming { inflight, moved_at, .. } => !inflight.is_empty() && silent(*moved_at),
        };
        if lost {
            self.next = self.appended;
            self.pace = Pace::Probing { asked: None };
        }
        match &self.pace {
            Pace::Probing { asked } => {
                let due = asked.is_none_or(|(_, asked_at)| silent(asked_at));
                due.then_some((self.next, options.probe_bytes_max))
            }
            Pace::Streaming { inflight, bytes, .. } => {
                let room = options.inflight_bytes_max.saturating_sub(*bytes);
                let may = self.next < log_end
                    && room > 0
                    && inflight.len() < options.inflight_messages_max;
                may.then_some((self.next, options.append_bytes_max.min(room)))
            }
        }
    }

    /// As what it is fed with the next append: as far behind once it has not had all for this long, in
    /// this term, which begins with everybody's good name. `None` while it keeps up again and has yet to answer
    /// what it was sent before, for that goes another way and would be overtaken.
    pub(super) fn lag(&mut self, now: Millis, behind_ms_max: u64) -> Option<Lag> {
        let under_way = match &self.pace {
            Pace::Probing { .. } => false,
            Pace::Streaming { inflight, .. } => !inflight.is_empty(),
        };
        let complete_at = self.caught_up_at.unwrap_or(self.goal.1);
        let near = now.0.saturating_sub(complete_at.0) <= behind_ms_max;
        match (self.lag, near) {
            (Lag::Far, true) if under_way => return None,
            (Lag::Near | Lag::Far, true) => self.lag = Lag::Near,
            (Lag::Near | Lag::Far, false) => self.lag = Lag::Far,
        }
        Some(self.lag)
    }

    /// An append left for it.
    pub(super) fn sent(&mut self, now: Millis, prev: LogIndex, end: LogIndex, bytes_sent: usize) {
        self.fed = Fed::Yes;
        self.throttle.took(bytes_sent);
        match &mut self.pace {
            Pace::Probing { asked } => {
                self.next = prev;
                *asked = Some((prev, now));
            }
            Pace::Streaming { inflight, bytes, moved_at } => {
                if inflight.is_empty() {
                    *moved_at = now;
                }
                inflight.push_back((end, bytes_sent));
                *bytes += bytes_sent;
                self.next = end;
            }
        }
    }

    /// Nothing behind `prev` can be sent just now: to be tried again as after a silence.
    pub(super) fn hold(&mut self, now: Millis, prev: LogIndex) {
        self.next = prev;
        self.pace = Pace::Probing { asked: Some((prev, now)) };
    }

    /// When silence is to be taken for loss, or the throttle lets more through.
    pub(super) fn deadline(&self, options: &Options) -> Option<Millis> {
        let since = match &self.pace {
            Pace::Probing { asked } => asked.map(|(_, asked_at)| asked_at),
            Pace::Streaming { inflight, moved_at, .. } => {
                (!inflight.is_empty()).then_some(*moved_at)
            }
        };
        let lost_at = since.map(|since| Millis(since.0 + options.resend_ms));
        lost_at.into_iter().chain(self.throttle.waits_until()).min()
    }
}

/// Where a follower's hint and our own log may join: our last entry at or before the hint whose
/// term is not above it, and in any case before what was refused.
pub(super) fn joint(terms: &super::TermStarts, at: LogIndex, hint: Position) -> LogIndex {
    let below = LogIndex(at.0.saturating_sub(1));
    terms.last_not_above(hint.index.min(below), hint.term).index
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: LogIndex = LogIndex(100);

    /// By a peer that vouches for what it has on disk.
    fn held(appended: u64, flushed: u64) -> Held {
        let (appended, flushed) = (LogIndex(appended), LogIndex(flushed));
        Held { appended, flushed, vouched: flushed }
    }

    fn streaming_at(appended: u64) -> Progress {
        let mut peer = Progress::new(LogIndex(appended), Millis(0));
        peer.sent(Millis(0), LogIndex(appended), LogIndex(appended), 0);
        peer.accepted(Millis(0), held(appended, appended));
        peer
    }

    fn allowed_from(peer: &mut Progress, now: u64) -> Option<u64> {
        peer.allowance(Millis(now), END, &Options::default()).map(|(from, _)| from.0)
    }

    #[test]
    fn a_probe_waits_for_its_answer_and_is_repeated_after_a_silence() {
        let mut peer = Progress::new(LogIndex(10), Millis(0));
        assert_eq!(allowed_from(&mut peer, 0), Some(10));
        peer.sent(Millis(0), LogIndex(10), LogIndex(12), 5);
        assert_eq!(allowed_from(&mut peer, 249), None);
        assert_eq!(allowed_from(&mut peer, 250), Some(10));
    }

    #[test]
    fn a_stream_does_not_wait_but_is_bounded_in_bytes() {
        let mut peer = streaming_at(10);
        let options =
            Options { inflight_bytes_max: 100, append_bytes_max: 60, ..Options::default() };
        let allowance = |peer: &mut Progress| peer.allowance(Millis(1), END, &options);
        assert_eq!(allowance(&mut peer), Some((LogIndex(10), 60)));
        peer.sent(Millis(1), LogIndex(10), LogIndex(20), 60);
        assert_eq!(allowance(&mut peer), Some((LogIndex(20), 40)));
        peer.sent(Millis(1), LogIndex(20), LogIndex(30), 50);
        assert_eq!(allowance(&mut peer), None);
        peer.accepted(Millis(2), held(20, 0));
        assert_eq!(allowance(&mut peer), Some((LogIndex(30), 50)));
    }

    #[test]
    fn a_lost_message_is_sent_again_from_what_was_acknowledged() {
        let mut peer = streaming_at(10);
        peer.sent(Millis(1), LogIndex(10), LogIndex(20), 5);
        peer.sent(Millis(1), LogIndex(20), LogIndex(30), 5);
        assert_eq!(allowed_from(&mut peer, 251), Some(10));
    }

    #[test]
    fn a_gap_in_the_stream_leads_back_to_probing_once() {
        let mut peer = streaming_at(10);
        peer.sent(Millis(1), LogIndex(10), LogIndex(20), 5);
        peer.sent(Millis(1), LogIndex(20), LogIndex(30), 5);
        peer.rejected(LogIndex(20), LogIndex(10));
        assert_eq!(allowed_from(&mut peer, 2), Some(10));
        peer.sent(Millis(2), LogIndex(10), LogIndex(11), 5);
        peer.rejected(LogIndex(30), LogIndex(10));
        assert_eq!(allowed_from(&mut peer, 3), None, "the late refusal answers no question");
    }

    #[test]
    fn a_late_refusal_never_moves_a_stream_below_what_matched() {
        // raft-rs #557: next must stay above matched after reordered refusals.
        let mut peer = streaming_at(50);
        peer.rejected(LogIndex(20), LogIndex(5));
        assert_eq!(allowed_from(&mut peer, 1), Some(50));
        peer.rejected(LogIndex(60), LogIndex(5));
        assert_eq!(allowed_from(&mut peer, 1), Some(50));
    }

    #[test]
    fn a_peer_that_came_back_with_less_is_believed() {
        let mut peer = streaming_at(50);
        peer.came_back_with(LogIndex(20));
        assert_eq!((peer.appended, peer.flushed), (LogIndex(20), LogIndex(20)));
        peer.sent(Millis(0), LogIndex(50), LogIndex(50), 0);
        peer.rejected(LogIndex(50), LogIndex(15));
        assert_eq!((peer.appended, peer.flushed), (LogIndex(15), LogIndex(15)));
    }

    #[test]
    fn who_has_caught_up_is_fed_as_such_once_all_that_was_sent_before_is_answered() {
        let (learner, voter) = (0, 10_000);
        let mut peer = streaming_at(10);
        assert_eq!(peer.lag(Millis(1), voter), Some(Lag::Near), "nothing is known of it yet");
        assert_eq!(peer.lag(Millis(1), learner), Some(Lag::Far));
        peer.sent(Millis(1), LogIndex(10), LogIndex(90), 5);
        peer.sent(Millis(1), LogIndex(90), END, 5);
        peer.accepted(Millis(2), held(90, 90));
        peer.heard(Millis(2), LogIndex(90), Counts::Flushed);
        assert_eq!(peer.lag(Millis(2), voter), None, "the last of it would be overtaken");
        peer.accepted(Millis(3), held(END.0, END.0));
        assert_eq!(peer.lag(Millis(3), voter), Some(Lag::Near));
    }

    #[test]
    fn a_peer_under_constant_load_keeps_up_without_ever_reaching_the_end() {
        let mut peer = Progress::new(LogIndex(0), Millis(0));
        for step in 1..100 {
            let end = LogIndex(step * 10);
            peer.accepted(Millis(step), held(step * 10 - 3, step * 10 - 3));
            peer.heard(Millis(step), end, Counts::Flushed);
        }
        assert!(peer.keeps_up(Millis(100), 5));
        assert!(!peer.keeps_up(Millis(200), 5));
    }
}
