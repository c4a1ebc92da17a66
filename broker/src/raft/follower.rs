//! A follower: what joins on to its log, and what it can honestly say about it.
//!
//! It acknowledges only what provably agrees with the leader of the term: what lies before a
//! position that both have, and the entries that came behind it. Never its whole log: a tail that
//! an older leader left may look longer than it is worth.

use crate::mutant::{self, Mutant};
use highwater_protocol::batch::VoterSet;
use highwater_protocol::ids::{LogIndex, NodeId, Position, Term};
use highwater_protocol::peer::{
    AppendAnswer, AppendOutcome, Heartbeat, HeartbeatAnswer, RaftMessage,
};

use super::answer::Answer;
use super::{Counts, Legible, Millis, Raft, Role, TermStarts, Trust};

/// A frame of an append, as far as Raft cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSpan {
    /// Which term wrote it.
    pub term: Term,
    /// Where it ends; it begins where the one before ends.
    pub end: LogIndex,
}

/// An append that arrived, its frames parsed and checked by the host.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The leader's term.
    pub term: Term,
    /// Where the frames join on.
    pub prev: Position,
    /// The leader's commit.
    pub commit: LogIndex,
    /// The frames: ends and terms rise, terms from `prev.term` to `term`.
    pub frames: &'a [FrameSpan],
    /// The voter sets that marks among the frames name, with the marks' ends.
    pub voter_sets: Vec<(LogIndex, VoterSet)>,
}

/// What the host does to the log before it calls anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// Nothing.
    Nothing,
    /// Cut the log back where `cut` says, then append all frames but the first `skip`.
    Store {
        /// What the leader never had begins here.
        cut: Option<LogIndex>,
        /// How many frames the log has already.
        skip: usize,
    },
}

impl Raft {
    /// A leader's append. Raft takes the result for done: what `Intake` names must be carried out.
    pub fn receive_append(&mut self, now: Millis, from: NodeId, arrival: Arrival<'_>) -> Intake {
        let Arrival { term, prev, commit, frames, voter_sets } = arrival;
        if term < self.hard.term {
            // Say so, or a leader that a newer term has passed by would go on for ever.
            self.refuse(from, prev);
            return Intake::Nothing;
        }
        self.follow(now, from, term);
        if !self.joins_on(prev) {
            self.refuse(from, prev);
            return Intake::Nothing;
        }
        let intake = self.take_in(prev.index, frames, voter_sets);
        let end = frames.last().map_or(prev.index, |frame| frame.end);
        self.agreed = (term, self.agreed_end().max(end).min(self.terms.last().index));
        self.owe_answer(now, frames.len());
        let matched = match mutant::active(Mutant::CommitUnmatched) {
            true => self.terms.last().index,
            false => self.agreed.1,
        };
        self.raise_commit(commit.min(matched));
        self.clear_suspicion(commit);
        intake
    }

    /// Whether entries behind `prev` would join on to this log; the committed part is every leader's.
    pub fn joins_on(&self, prev: Position) -> bool {
        prev.index <= self.commit
            || self.terms.term_at(prev.index) == Some(prev.term)
            || mutant::active(Mutant::JoinAnywhere) && self.terms.term_at(prev.index).is_some()
    }

    /// Whether an append that joins on where the leader's log starts finds nothing to join here: then
    /// this log is given up and starts there, too (Raft paper, section 7). What it holds beyond is
    /// no committed entry, for all of those come behind that place, in every log that has them.
    pub fn must_start_anew(&self, term: Term, prev: Position) -> bool {
        term >= self.hard.term && !self.joins_on(prev)
    }

    /// The log was given up and starts at `at`, where these voters hold. What lies before is committed.
    pub fn started_anew(
        &mut self,
        now: Millis,
        from: NodeId,
        term: Term,
        at: Position,
        voters: Option<(LogIndex, VoterSet)>,
    ) {
        self.follow(now, from, term);
        assert!(self.commit < at.index, "a committed record would be lost");
        self.terms = TermStarts::new(at, Vec::new(), at.index);
        self.membership.start_anew(voters);
        self.flushed = at.index;
        self.agreed = (term, at.index);
        self.raise_commit(at.index);
    }

    /// A leader's sign of life.
    pub fn receive_heartbeat(&mut self, now: Millis, from: NodeId, heartbeat: Heartbeat) {
        if heartbeat.term >= self.hard.term {
            self.follow(now, from, heartbeat.term);
            // Not above what agrees in this life: the leader may speak to the one before.
            self.raise_commit(heartbeat.commit.min(self.agreed_end()));
            // The word that it vouches for all is said once and may be lost; an idle leader would wait for ever.
            self.answer.now_if(heartbeat.commit < self.vouched_end());
            // Nor is the word that something cannot be read said once only.
            self.answer.now_if(self.legible == Legible::Gaps);
            // Who was closed and opened again agrees with less than the leader remembers of it.
            let forgot = heartbeat.commit > self.agreed_end();
            if self.may_bar_its_leader() {
                self.wish_for_a_new_term(from);
            }
            let unsure = self.trust != Trust::Full && self.whole_at.is_none();
            if unsure || forgot && !mutant::active(Mutant::ReopenedUnheard) {
                // Only an append states the leader's true commit, and an idle leader sends none. Not to be
                // asked for while a flush is under way: each begins the leader's stream anew.
                self.say_end_to(from);
            }
        }
        let log_end = self.terms.last().index;
        let answer = HeartbeatAnswer { term: self.hard.term, log_end };
        self.send(from, RaftMessage::HeartbeatAnswer(answer));
    }

    /// An append came: its answer may wait for the flush of what it brought.
    fn owe_answer(&mut self, now: Millis, frames: usize) {
        let flush_comes = match self.options.counts {
            Counts::Flushed => frames > 0 && self.flushed < self.agreed_end(),
            Counts::Appended => false,
        };
        match flush_comes {
            true => self.answer.once_flushed(Millis(now.0 + self.options.answer_ms_max)),
            false => self.answer = Answer::Now,
        }
    }

    /// Tells the leader, once in a pass, what agrees with it and what of that is on disk.
    pub(super) fn answer_leader(&mut self) {
        let due = self.answer.take();
        let Role::Follower { leader: Some(leader) } = self.role else { return };
        if due {
            if self.may_bar_its_leader() {
                self.wish_for_a_new_term(leader);
            }
            let appended = self.agreed_end();
            let flushed = match mutant::active(Mutant::FollowerReportsUnflushed) {
                true => appended,
                false => self.flushed.min(appended),
            };
            let (vouched, legible) = (self.vouched_end(), self.legible);
            let outcome = AppendOutcome::Accepted { appended, flushed, vouched, legible };
            let answer = AppendAnswer { term: self.hard.term, outcome };
            self.send(leader, RaftMessage::AppendAnswer(answer));
        }
    }

    /// Said with every sign of life: it may be lost, or come when the leader could not win.
    fn wish_for_a_new_term(&mut self, leader: NodeId) {
        self.send(leader, RaftMessage::TimeoutNow { term: self.hard.term });
    }

    /// What others may count of it. A newcomer that is Suspect vouches for nothing: it would get a vote that
    /// it may not use, and if its leader ended then, nobody could ever trust it again.
    fn vouched_end(&self) -> LogIndex {
        let counts = self.trust == Trust::Full || self.membership.is_voter(self.me);
        match counts && !self.may_bar_its_leader() {
            true => self.kept(self.agreed_end()),
            false => LogIndex::ZERO,
        }
    }

    /// Whether it is a voter that may have forgotten a later term than its leader's. Not one that was trusted
    /// as a learner: it got its vote since.
    fn may_bar_its_leader(&self) -> bool {
        let Role::Follower { leader: Some(leader) } = self.role else { return false };
        self.trust != Trust::Full
            && self.membership.is_voter(self.me)
            && self.membership.current().voters.len() > 2
            && self.votes.may_bar(self.hard.term, leader)
            && !mutant::active(Mutant::ForgottenVotesIgnored)
    }

    fn follow(&mut self, now: Millis, leader: NodeId, term: Term) {
        let newer = term > self.hard.term;
        self.adopt(now, term);
        match &self.role {
            Role::Follower { leader: known } => {
                assert!(
                    known.is_none_or(|known| known == leader),
                    "{known:?} and {leader} both lead term {term}"
                );
            }
            // Nobody had overtaken the leader: the alarm was false. Unless this replica has only
            // just started, and its leader did not know that yet.
            Role::Candidate(_) if !newer && self.timer.knew_a_leader() => {
                self.timer.stretch(now, &self.options);
            }
            Role::Candidate(_) => {}
            Role::Leader(_) => panic!("{leader} leads term {term} as this replica does"),
        }
        self.role = Role::Follower { leader: Some(leader) };
        if self.hard.vote.is_none() {
            // A term has one leader, so this replica has no other use for its vote.
            self.hard.vote = Some(leader);
            self.hard_dirty = true;
        }
        self.timer.heard_leader(now, &self.options);
        self.trust.leader_came();
    }

    fn refuse(&mut self, to: NodeId, prev: Position) {
        let hint = self.terms.last_not_above(prev.index, prev.term);
        let outcome = AppendOutcome::Rejected { at: prev.index, hint };
        self.send(to, RaftMessage::AppendAnswer(AppendAnswer { term: self.hard.term, outcome }));
    }

    /// Skips what the log has, finds where it parts from the leader's, and takes the rest for stored.
    fn take_in(
        &mut self,
        prev: LogIndex,
        frames: &[FrameSpan],
        voter_sets: Vec<(LogIndex, VoterSet)>,
    ) -> Intake {
        let agreed = self.agreed_end();
        let held = |frame: &&FrameSpan| {
            frame.end <= agreed || self.terms.term_at(frame.end) == Some(frame.term)
        };
        let mut skip = frames.iter().take_while(held).count();
        if mutant::active(Mutant::CutOnLateAppend) && skip == frames.len() {
            skip = skip.saturating_sub(1);
        }
        if skip == frames.len() {
            // Entries behind these may be the leader's too, or not: a cut needs a conflict (5.3).
            return Intake::Nothing;
        }
        let joint = skip.checked_sub(1).map_or(prev, |at| frames[at].end);
        let cut = (joint < self.terms.last().index).then_some(joint);
        if cut.is_some() {
            assert!(self.commit <= joint, "a committed record would be lost");
            self.terms.truncate(joint);
            self.membership.truncate(joint);
            self.flushed = self.flushed.min(joint);
        }
        assert_eq!(joint, self.terms.last().index, "frames of one log have the same ends");
        for frame in &frames[skip..] {
            self.terms.extend(frame.term, frame.end);
        }
        for (end, set) in voter_sets.into_iter().filter(|(end, _)| *end > joint) {
            self.membership.appended(end, set);
        }
        Intake::Store { cut, skip }
    }

    /// A leader that has committed in its own term knows all that was ever committed. Its commit
    /// counts only as an append states it: heartbeats lower it to what they know of us.
    fn clear_suspicion(&mut self, leader_commit: LogIndex) {
        if self.trust == Trust::Full || self.may_bar_its_leader() {
            return;
        }
        let caught_up = leader_commit <= self.agreed.1
            && self.terms.term_at(leader_commit) == Some(self.hard.term);
        if caught_up {
            // The first such place will do, and is not cut any more: it is committed.
            self.whole_at.get_or_insert(leader_commit);
        }
        if mutant::active(Mutant::SuspectClearedEarly) {
            self.trust = Trust::Full;
        }
        self.trust_what_counts();
    }

    /// Trust comes when what the leader had committed counts here, too. Trusted before that, a second
    /// power cut would find a replica that lost it again and whose journal says that nothing is lost.
    pub(super) fn trust_what_counts(&mut self) {
        let counted = match mutant::active(Mutant::TrustedAtAppend) {
            true => self.terms.last().index,
            false => self.kept(self.agreed_end()),
        };
        // A leader that hears late of what this replica had before would commit by it; in its term it has all of that.
        let owed = self.said.term == self.hard.term && counted < self.said.index;
        if !owed && self.whole_at.is_some_and(|end| end <= counted) {
            (self.trust, self.whole_at) = (Trust::Full, None);
            // A newcomer vouches for it from now on.
            self.answer = Answer::Now;
        }
    }
}
