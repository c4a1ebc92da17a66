//! Elections: pre-votes, votes, and the right to refuse them.
//!
//! A follower asks first whether it could win (Raft thesis, section 9.6), so that one that was cut
//! off does not depose a leader with its high term when it returns. Whoever heard a leader lately
//! refuses (section 4.2.3), unless the leader itself wished for the election (3.10).

use std::collections::BTreeSet;

use crate::mutant::{self, Mutant};
use highwater_protocol::ids::{NodeId, Position, Term};
use highwater_protocol::peer::{Ballot, RaftMessage, VoteAnswer, VoteRequest};

use super::progress::Progress;
use super::quorum::is_majority;
use super::trust::Trust;
use super::{HardState, Legible, Message, Millis, Raft, Role, Standing};

/// A replica that asks for votes.
#[derive(Debug)]
pub(super) struct Candidate {
    ballot: Ballot,
    granted: BTreeSet<NodeId>,
}

impl Candidate {
    pub(super) fn standing(&self) -> Standing {
        match self.ballot {
            Ballot::Pre => Standing::Sounds,
            Ballot::Real | Ballot::Transfer => Standing::Stands,
        }
    }
}

impl Raft {
    /// A follower's or candidate's time: stand when patience is over.
    pub(super) fn tick_election(&mut self, now: Millis) {
        let deadline = self.timer.deadline();
        if now < deadline {
            return;
        }
        let late_ms = now.0 - deadline.0;
        if late_ms > self.options.late_ms {
            // The clock jumped over the deadline: it was this host that slept, so listen first.
            self.timer.forgive(now, late_ms, &self.options);
            return;
        }
        self.trust.settle(self.me, self.terms.last(), &self.membership.current().voters);
        match self.membership.may_stand(self.me, self.commit) && self.legible == Legible::All {
            true => {
                self.timer.next_round(now, &self.options);
                self.stand(now, Ballot::Pre);
            }
            false => {
                self.timer.restart(now, &self.options);
                self.report_end();
            }
        }
    }

    /// A replica that asks for votes says by that where its log ends, and says it to this life of ours.
    pub fn end_reported(&mut self, from: NodeId, request: VoteRequest) {
        match request.ballot {
            Ballot::Pre => {}
            Ballot::Real | Ballot::Transfer => self.votes.asked(request.term, from),
        }
        self.trust.reported(from, request.last);
        self.trust.settle(self.me, self.terms.last(), &self.membership.current().voters);
    }

    /// Somebody asks for a vote.
    pub fn receive_vote(&mut self, now: Millis, from: NodeId, request: VoteRequest) {
        if let (Role::Leader(leader), Ballot::Pre) = (&mut self.role, request.ballot) {
            // Whoever asks has not heard this leader, or needs its word that all is well.
            leader.peers.entry(from).and_modify(Progress::ask_again);
        }
        let leader_is_alive = self.is_leader() || self.timer.leader_is_alive(now, &self.options);
        let refused_unheard = match request.ballot {
            // The term is not adopted either: a leader is served, and the asker may be cut off.
            Ballot::Pre | Ballot::Real => leader_is_alive,
            Ballot::Transfer => false,
        };
        let granted = !refused_unheard
            && match request.ballot {
                Ballot::Pre => self.would_vote(from, request),
                Ballot::Real | Ballot::Transfer => {
                    self.adopt(now, request.term);
                    self.vote(now, from, request)
                }
            };
        let term = match (request.ballot, granted) {
            (Ballot::Pre, true) => request.term,
            (Ballot::Pre, false) | (Ballot::Real | Ballot::Transfer, _) => self.hard.term,
        };
        let answer = VoteAnswer { term, ballot: request.ballot, granted };
        self.send(from, RaftMessage::VoteAnswer(answer));
    }

    /// Somebody answered a request for a vote.
    pub fn receive_vote_answer(&mut self, now: Millis, from: NodeId, answer: VoteAnswer) {
        let asked = match answer.ballot {
            Ballot::Pre => self.hard.term.next(),
            Ballot::Real | Ballot::Transfer => self.hard.term,
        };
        if !answer.granted {
            if answer.term > self.hard.term {
                self.adopt(now, answer.term);
            }
            return;
        }
        let Role::Candidate(candidate) = &mut self.role else { return };
        if candidate.ballot != answer.ballot || answer.term != asked {
            return;
        }
        candidate.granted.insert(from);
        self.count_votes(now);
    }

    /// The leader wishes this replica to stand at once (Raft thesis, section 3.10). Or a voter that forgot
    /// its votes wishes its leader to: not worth the term while it could not be won without that voter.
    pub fn receive_timeout_now(&mut self, now: Millis, from: NodeId, term: Term) {
        if self.is_leader() {
            let voters = &self.membership.current().voters;
            let others = |voter| voter != from && self.is_in_sync(now, voter);
            if term == self.hard.term && voters.contains(&from) && is_majority(voters, others) {
                self.renew(now);
            }
            return;
        }
        let follows = matches!(self.role, Role::Follower { leader } if leader == Some(from));
        let may = self.membership.is_voter(self.me) && self.legible == Legible::All;
        if term == self.hard.term && follows && may {
            self.timer.restart(now, &self.options);
            self.stand(now, Ballot::Transfer);
        }
    }

    pub(super) fn stand(&mut self, now: Millis, ballot: Ballot) {
        let last = self.terms.last();
        if !self.trust.allows(last) || !self.may_win_trust(last) {
            self.report_end();
            return;
        }
        let term = match ballot {
            Ballot::Pre => self.hard.term.next(),
            Ballot::Real | Ballot::Transfer => {
                self.adopt(now, self.hard.term.next());
                self.hard.vote = Some(self.me);
                self.hard.term
            }
        };
        let granted = BTreeSet::from([self.me]);
        self.role = Role::Candidate(Candidate { ballot, granted });
        self.ask_voters(VoteRequest { term, ballot, last });
        self.count_votes(now);
    }

    /// Whoever wins trusts its log, and that is noted: so a Suspect must count all of it, as when a leader's word
    /// ends its doubt. With a tail that is not on disk it would forget what it once counted a second time.
    fn may_win_trust(&self, last: Position) -> bool {
        self.trust == Trust::Full
            || self.kept(last.index) == last.index
            || mutant::active(Mutant::SuspectWinsUnflushed)
    }

    /// Says where the log ends and counts no answers: Suspect voters wait for everyone's word, also
    /// for that of replicas which lost their vote in a change that the Suspect has lost.
    fn report_end(&mut self) {
        let (term, last) = (self.hard.term.next(), self.terms.last());
        self.ask_voters(VoteRequest { term, ballot: Ballot::Pre, last });
    }

    /// Says the same to a leader, which answers with an append.
    pub(super) fn say_end_to(&mut self, leader: NodeId) {
        let (term, last) = (self.hard.term.next(), self.terms.last());
        self.send(leader, RaftMessage::Vote(VoteRequest { term, ballot: Ballot::Pre, last }));
    }

    fn ask_voters(&mut self, request: VoteRequest) {
        for voter in &self.membership.current().voters {
            if *voter != self.me {
                let message = RaftMessage::Vote(request);
                self.outbox.push(Message { to: *voter, message });
            }
        }
    }

    fn count_votes(&mut self, now: Millis) {
        let Role::Candidate(candidate) = &self.role else { return };
        let voters = &self.membership.current().voters;
        if !is_majority(voters, |voter| candidate.granted.contains(&voter)) {
            return;
        }
        match candidate.ballot {
            Ballot::Pre => self.stand(now, Ballot::Real),
            Ballot::Real | Ballot::Transfer => self.become_leader(now),
        }
    }

    /// Whether a real request like this would be granted.
    fn would_vote(&self, from: NodeId, request: VoteRequest) -> bool {
        let HardState { term, vote } = self.hard;
        let free = request.term > term
            || request.term == term
                && vote
                    .is_none_or(|voted_for| voted_for == from || mutant::active(Mutant::VoteTwice));
        let own = self.terms.last();
        let complete = request.last >= own
            || mutant::active(Mutant::VoteForStaleLog)
            || mutant::active(Mutant::VoteByTermOnly) && request.last.term >= own.term;
        free && complete && self.trust.allows(request.last)
    }

    fn vote(&mut self, now: Millis, from: NodeId, request: VoteRequest) -> bool {
        if !self.would_vote(from, request) {
            return false;
        }
        if self.hard.vote.is_none() {
            self.hard.vote = Some(from);
            self.hard_dirty = true;
        }
        // Only a vote given delays our own candidacy: a hopeless candidate must not (Raft paper, section 5.2).
        self.timer.restart(now, &self.options);
        true
    }
}
