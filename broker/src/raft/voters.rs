//! A leader changes who votes: one step at a time on the way to a set that is wished for.
//!
//! What must hold: no change before the one before is committed and this leader has committed in its own
//! term; nobody loses a vote without whom the others would stand still; and a broker that left in this
//! term comes back only in a later one. Which step is next is said in `membership`.

use highwater_protocol::batch::VoterSet;
use highwater_protocol::ids::{LogIndex, NodeId};
use highwater_protocol::peer::{Ballot, RaftMessage};

use crate::mutant::{self, Mutant};

use super::membership::next_step;
use super::progress::Progress;
use super::quorum::{is_majority, majority_end};
use super::{Legible, Millis, Raft, Role};

impl Raft {
    /// The next voter set on the way to `target`, if the leader may append a mark with it now. Nobody
    /// loses a vote unless a majority of those that stay keeps up: the group would stand still.
    pub fn next_voter_set(&self, now: Millis, target: &VoterSet) -> Option<VoterSet> {
        let Role::Leader(leader) = &self.role else { return None };
        if !self.may_name_voters() || self.must_renew(target) {
            return None;
        }
        // Who has not got it on disk, where that counts, is not trusted either, and does not vote yet.
        // And with a gap it would take the place of one that has what is missing.
        let has_all = |peer: &Progress| {
            let held = match mutant::active(Mutant::VoteBeforeFlushed) {
                true => peer.appended,
                false => peer.vouched,
            };
            let whole = peer.legible == Legible::All || mutant::active(Mutant::VoteWithGaps);
            held >= self.commit && whole
        };
        let caught_up = |node| {
            leader.peers.get(&node).is_some_and(has_all)
                || mutant::active(Mutant::VoteBeforeCaughtUp)
        };
        let current = self.membership.current();
        let next = next_step(current, target, self.me, caught_up)?;
        let shrinks = next.voters.len() < current.voters.len();
        let can_go_on = is_majority(&next.voters, |voter| self.is_in_sync(now, voter))
            || mutant::active(Mutant::ShrinksBlindly);
        (!shrinks || can_go_on).then_some(next)
    }

    /// Whether it leads, and may append a mark that names voters.
    pub fn may_name_voters(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        // Before that, an older leader's change may still be alive (Raft-dev list, July 2015).
        let started = leader.started.is_some_and(|started| started <= self.commit)
            || mutant::active(Mutant::ChangeVotersEarly);
        let settled = self.membership.current_end() <= self.commit
            || mutant::active(Mutant::ChangeBeforeCommitted);
        started && settled && leader.transfer.is_none()
    }

    /// Whether the way to `target` begins with a new term: a broker that left in this term may have been
    /// given the partition anew since, and what its deleted replica said of this term may still be
    /// under way. In a later term nobody listens to it.
    pub fn must_renew(&self, target: &VoterSet) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let comes_back = |node: &NodeId| leader.left.contains(node);
        self.leads_committed()
            && self.voter_set_is_committed()
            && target.voters.iter().chain(&target.learners).any(comes_back)
            && !mutant::active(Mutant::BackInTheSameTerm)
    }

    /// Gives the term up and stands for the next one at once.
    pub fn renew(&mut self, now: Millis) {
        assert!(self.is_leader(), "only a leader has a term to give up");
        self.step_down(now);
        self.stand(now, Ballot::Transfer);
    }

    /// The mark with a new voter set was appended: it is in force.
    pub fn appended_voters(&mut self, now: Millis, end: LogIndex, set: VoterSet) {
        assert!(
            self.membership.current_end() <= self.commit
                || mutant::active(Mutant::ChangeBeforeCommitted),
            "one change at a time"
        );
        self.membership.appended(end, set);
        self.meet_peers(now);
        self.appended(now, end);
    }

    /// What two planted bugs count beside the voters in force; nothing, in a sound build.
    pub(super) fn miscounted(&self) -> LogIndex {
        let set = self.membership.current();
        let mut voters = set.voters.clone();
        if mutant::active(Mutant::LearnerCounts) {
            voters.extend(&set.learners);
        } else if mutant::active(Mutant::RemovedVoterCounts) {
            voters.clone_from(self.membership.before());
        } else {
            return LogIndex::ZERO;
        }
        majority_end(&voters, |voter| self.counted(voter))
    }

    /// A leader that is no voter any more has led its own removal to the end (Raft thesis, 4.2.2).
    pub(super) fn leave(&mut self, now: Millis) {
        let (term, window) = (self.hard.term, self.options.election_ms_max);
        let Role::Leader(leader) = &self.role else { return };
        let heir = leader.furthest(now, window, &self.membership.current().voters);
        self.step_down(now);
        if let Some(heir) = heir {
            self.send(heir, RaftMessage::TimeoutNow { term });
        }
    }

    /// Peers are those of the voter set in force.
    pub(super) fn meet_peers(&mut self, now: Millis) {
        let (me, next) = (self.me, self.terms.last().index);
        let set = self.membership.current();
        let Role::Leader(leader) = &mut self.role else { return };
        let in_force = |node: &NodeId| set.voters.contains(node) || set.learners.contains(node);
        leader.left.extend(leader.peers.keys().filter(|node| !in_force(node)));
        leader.peers.retain(|node, _| in_force(node));
        for node in set.voters.iter().chain(&set.learners).filter(|node| **node != me) {
            leader.peers.entry(*node).or_insert_with(|| Progress::new(next, now));
        }
    }
}
