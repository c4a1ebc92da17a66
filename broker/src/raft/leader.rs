//! A leader: what each peer has, what to send next, what is committed, and whether it still leads.
//!
//! An entry is committed when a majority of the voters in force counts it *and* the leader's own
//! term wrote something at or behind it (Raft paper, figure 8). The leader counts itself like any
//! other voter, by what it has flushed or appended, so its flush runs beside its followers'.

use std::collections::{BTreeMap, BTreeSet};

use crate::mutant::{self, Mutant};
use highwater_protocol::ids::{LogIndex, NodeId, Position, Term};
use highwater_protocol::native::admin::ReplicaRole;
use highwater_protocol::peer::{
    AppendAnswer, AppendOutcome, Heartbeat, HeartbeatAnswer, RaftMessage,
};

use super::options::{CommitNews, Counts, Options};
use super::progress::{Fed, Held, Lag, Progress, joint};
use super::quorum::{is_majority, majority_end};
use super::transfer::Transfer;
use super::{Legible, Message, Millis, Raft, Role, Trust};

/// A leader's view of its term.
#[derive(Debug)]
pub(super) struct Leader {
    /// Silence is counted from here on.
    patient_from: Millis,
    quorum_checked_at: Millis,
    /// The end of the mark that starts the term, once it was appended.
    pub(super) started: Option<LogIndex>,
    /// Everyone in the voter set in force but this replica.
    pub(super) peers: BTreeMap<NodeId, Progress>,
    pub(super) transfer: Option<Transfer>,
    /// Who was a peer in this term and is none any more.
    pub(super) left: BTreeSet<NodeId>,
}

/// An append that may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendPlan {
    /// To whom.
    pub to: NodeId,
    /// From where, or from the frame boundary before.
    pub from: LogIndex,
    /// How many bytes, but one frame in any case.
    pub bytes_max: usize,
    /// Whether others wait for it.
    pub lag: Lag,
}

/// One replica as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerStatus {
    /// On which broker.
    pub node: NodeId,
    /// What it is to the group.
    pub role: ReplicaRole,
    /// The end of what it has appended.
    pub appended: LogIndex,
    /// The end of what it has on disk.
    pub flushed: LogIndex,
    /// When it was heard of in this term; `None` for the leader, and for one that never was.
    pub heard_at: Option<Millis>,
    /// Whether it keeps up.
    pub in_sync: InSync,
}

/// How many replicas hold an entry, as their leader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holders {
    /// In their logs.
    pub appended: u8,
    /// On their disks.
    pub flushed: u8,
}

/// Whether a replica keeps up with its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InSync {
    /// It is a voter, was heard of lately and lacks nothing old.
    Yes,
    /// It lags, is silent, or has no vote.
    No,
}

impl Leader {
    pub(super) fn next_deadline(&self, options: &Options, log_end: LogIndex) -> Millis {
        let check = Millis(self.quorum_checked_at.0 + options.heartbeat_ms);
        let transfer = self.transfer.as_ref().map(|transfer| transfer.gives_up_at);
        let lagging = self.peers.values().filter(|peer| peer.appended < log_end);
        let sends = lagging.filter_map(|peer| peer.deadline(options));
        sends.chain(transfer).fold(check, Millis::min)
    }

    pub(super) fn forgive(&mut self, now: Millis) {
        self.patient_from = now;
    }

    /// The voter heard of within `window` that has most.
    pub(super) fn furthest(&self, now: Millis, window: u64, voters: &[NodeId]) -> Option<NodeId> {
        let lately =
            |peer: &Progress| peer.heard_at.is_some_and(|at| now.0.saturating_sub(at.0) < window);
        self.peers
            .iter()
            .filter(|(node, peer)| voters.contains(node) && lately(peer))
            .max_by_key(|(node, peer)| (peer.appended, std::cmp::Reverse(**node)))
            .map(|(node, _)| *node)
    }
}

impl Raft {
    /// Whether the host must append the mark that starts this leader's term, before anything else.
    pub fn term_mark_due(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.started.is_none())
    }

    /// The mark that starts the term was appended.
    pub fn appended_term_mark(&mut self, now: Millis, end: LogIndex) {
        let Role::Leader(leader) = &mut self.role else { panic!("only a leader starts a term") };
        assert!(leader.started.is_none(), "a term starts once");
        leader.started = Some(end);
        self.appended(now, end);
    }

    /// Whether the mark of this leader's term is committed: from then on it knows the true commit.
    pub fn leads_committed(&self) -> bool {
        matches!(&self.role, Role::Leader(leader)
            if leader.started.is_some_and(|started| started <= self.commit))
    }

    /// The next append that may be sent; ask again after `sent`.
    pub fn next_send(&mut self, now: Millis) -> Option<SendPlan> {
        let (base, end) = (self.terms.base().index, self.terms.last().index);
        let Role::Leader(leader) = &mut self.role else { return None };
        leader.started?;
        let learners = &self.membership.current().learners;
        let rate = self.options.learner_bytes_per_s;
        leader.peers.iter_mut().find_map(|(to, peer)| {
            let (from, bytes_max) = peer.allowance(now, end, &self.options)?;
            let learns = learners.contains(to);
            let lag = peer.lag(now, if learns { 0 } else { self.options.lag_ms_max })?;
            // Who votes is never held back.
            let unthrottled = mutant::active(Mutant::LearnersUnthrottled);
            let rate = rate.filter(|_| learns && !unthrottled);
            let bytes_max = bytes_max.min(peer.throttle.room(now, rate)?);
            // What was given up cannot be sent: such a peer starts where this log does.
            Some(SendPlan { to: *to, from: from.max(base), bytes_max, lag })
        })
    }

    /// The position before an append that starts at `prev`, a frame boundary.
    pub fn prev(&self, prev: LogIndex) -> Position {
        let term = self.terms.term_at(prev).expect("a leader sends what its log holds");
        Position { term, index: prev }
    }

    /// The append planned for `to` was read: it holds the entries from `prev` to `end`.
    pub fn sent(&mut self, now: Millis, to: NodeId, prev: LogIndex, end: LogIndex, bytes: usize) {
        let commit = self.commit.min(end);
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(peer) = leader.peers.get_mut(&to) {
            peer.sent(now, prev, end, bytes);
            peer.commit_told = peer.commit_told.max(commit);
        }
    }

    /// The host cannot read what should be sent to `to` behind `prev`.
    pub fn hold(&mut self, now: Millis, to: NodeId, prev: LogIndex) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(peer) = leader.peers.get_mut(&to) {
            peer.hold(now, prev);
        }
    }

    /// Gives leadership up without an heir.
    pub fn resign(&mut self, now: Millis) {
        if self.is_leader() {
            self.step_down(now);
        }
    }

    /// A follower answered an append, or has flushed more of it.
    pub fn receive_append_answer(&mut self, now: Millis, from: NodeId, answer: AppendAnswer) {
        let Some(peer) = self.peer_in_term(now, from, answer.term) else { return };
        match answer.outcome {
            AppendOutcome::Accepted { appended, flushed, vouched, legible } => {
                let end = self.terms.last().index;
                if appended > end {
                    // No follower of this term can hold more than its leader.
                    return;
                }
                let counts = self.options.counts;
                let peer = self.peer(peer);
                peer.accepted(now, Held { appended, flushed, vouched });
                peer.legible = legible;
                peer.heard(now, end, counts);
                self.advance_commit(now);
                self.pump_transfer(now);
            }
            AppendOutcome::Rejected { at, hint } => {
                let joint = joint(&self.terms, at, hint);
                let peer = self.peer(peer);
                peer.heard_at = Some(now);
                peer.rejected(at, joint);
            }
        }
    }

    /// A follower answered a heartbeat.
    pub fn receive_heartbeat_answer(&mut self, now: Millis, from: NodeId, answer: HeartbeatAnswer) {
        let Some(peer) = self.peer_in_term(now, from, answer.term) else { return };
        let (end, counts) = (self.terms.last().index, self.options.counts);
        let peer = self.peer(peer);
        if answer.log_end < peer.appended {
            peer.came_back_with(answer.log_end);
        }
        peer.heard(now, end, counts);
    }

    /// A peer came back in a new life: what it acknowledged in the old one proves nothing.
    pub fn peer_restarted(&mut self, node: NodeId) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(peer) = leader.peers.get_mut(&node) {
            peer.came_back_with(LogIndex::ZERO);
        }
    }

    /// Makes heartbeats for the peers to which no append left since the last call.
    pub fn heartbeats(&mut self, now: Millis) {
        let (term, commit, end) = (self.hard.term, self.commit, self.terms.last().index);
        let counts = self.options.counts;
        let Role::Leader(leader) = &mut self.role else { return };
        for (to, peer) in &mut leader.peers {
            let unsure = peer.counted(counts) < commit || peer.legible == Legible::Gaps;
            if peer.appended == end && unsure {
                // Its word that all is on disk, or can be read again, is said once and may be lost;
                // somebody may wait for it.
                peer.ask_again();
            }
            match peer.take_fed(now, &self.options) {
                Fed::Yes => {}
                Fed::No => self.outbox.push(heartbeat(*to, peer, term, commit)),
            }
        }
    }

    /// Tells peers that have everything of a higher commit, where the options want that at once.
    pub(super) fn tell_commit(&mut self) {
        let (term, commit, end) = (self.hard.term, self.commit, self.terms.last().index);
        let Role::Leader(leader) = &mut self.role else { return };
        match self.options.commit_news {
            CommitNews::Lazy => return,
            CommitNews::Prompt => {}
        }
        for (to, peer) in &mut leader.peers {
            if peer.appended == end && peer.commit_told < commit {
                self.outbox.push(heartbeat(*to, peer, term, commit));
            }
        }
    }

    /// The voters that were heard of within the election time-out and lack nothing that is older than
    /// the lag allowed; the leader is one of them.
    pub fn in_sync(&self, now: Millis) -> impl Iterator<Item = NodeId> + '_ {
        let voters = self.membership.current().voters.iter().copied();
        voters.filter(move |voter| self.is_in_sync(now, *voter))
    }

    /// The end up to which every in-sync voter counts.
    pub fn in_sync_end(&self, now: Millis) -> LogIndex {
        let ends = self.in_sync(now).map(|voter| self.counted(voter));
        ends.min().unwrap_or(LogIndex::ZERO)
    }

    /// How many replicas, this one included, are known to hold everything before `end`, and how
    /// many of them on disk. One that does not lead knows of the others only what a commit proves.
    pub fn holders(&self, end: LogIndex) -> Holders {
        let own = Holders {
            appended: u8::from(self.terms.last().index >= end),
            flushed: u8::from(self.flushed >= end),
        };
        let majority = (self.membership.current().voters.len() / 2 + 1) as u8;
        match &self.role {
            Role::Leader(leader) => leader.peers.values().fold(own, |sum, peer| Holders {
                appended: sum.appended.saturating_add(u8::from(peer.appended >= end)),
                flushed: sum.flushed.saturating_add(u8::from(peer.flushed >= end)),
            }),
            Role::Follower { .. } | Role::Candidate(_) if end > self.commit => own,
            // What the leader counted, flushed or not, is for it to say.
            Role::Follower { .. } | Role::Candidate(_) => Holders { appended: majority, ..own },
        }
    }

    /// Whether the voter set in force is committed.
    pub fn voter_set_is_committed(&self) -> bool {
        self.membership.current_end() <= self.commit
    }

    /// Every replica as this leader sees it; itself alone where it does not lead.
    pub fn peers(&self, now: Millis) -> Vec<PeerStatus> {
        let set = self.membership.current();
        let status = |node: NodeId| {
            let (appended, flushed, heard_at) = match self.progress(node) {
                Some(peer) => (peer.appended, peer.flushed, peer.heard_at),
                None => (self.terms.last().index, self.flushed, None),
            };
            let role = match (node == self.me && self.is_leader(), set.voters.contains(&node)) {
                (true, _) => ReplicaRole::Leader,
                (false, true) => ReplicaRole::Follower,
                (false, false) => ReplicaRole::Learner,
            };
            let in_sync = match self.is_leader() && self.is_in_sync(now, node) {
                true => InSync::Yes,
                false => InSync::No,
            };
            PeerStatus { node, role, appended, flushed, heard_at, in_sync }
        };
        let known = |node: &NodeId| *node == self.me || self.progress(*node).is_some();
        set.voters.iter().chain(&set.learners).copied().filter(known).map(status).collect()
    }

    /// A leader's time: check-quorum (Raft thesis, section 6.2), and the end of a transfer.
    pub(super) fn tick_leader(&mut self, now: Millis) {
        self.pump_transfer(now);
        let (me, options) = (self.me, self.options);
        let Role::Leader(leader) = &mut self.role else { return };
        let since_check = now.0.saturating_sub(leader.quorum_checked_at.0);
        if since_check < options.heartbeat_ms {
            return;
        }
        leader.quorum_checked_at = now;
        if since_check > options.heartbeat_ms + options.late_ms {
            // This host slept, and the answers lie in its queues.
            leader.forgive(now);
        }
        let lately = |at: Millis| now.0.saturating_sub(at.0) < options.election_ms_max;
        let heard = |voter: NodeId| {
            let heard_at = leader.peers.get(&voter).and_then(|peer| peer.heard_at);
            voter == me || heard_at.is_some_and(lately)
        };
        let voters = &self.membership.current().voters;
        if !lately(leader.patient_from) && !is_majority(voters, heard) {
            self.step_down(now);
        }
    }

    /// The election is won.
    pub(super) fn become_leader(&mut self, now: Millis) {
        assert!(self.hard.vote == Some(self.me), "a leader has voted for itself");
        (self.trust, self.whole_at) = (Trust::Full, None);
        self.role = Role::Leader(Box::new(Leader {
            patient_from: now,
            quorum_checked_at: now,
            started: None,
            peers: BTreeMap::new(),
            transfer: None,
            left: BTreeSet::new(),
        }));
        self.meet_peers(now);
    }

    /// Raises the commit to what a majority counts, if this term wrote any of it.
    pub(super) fn advance_commit(&mut self, now: Millis) {
        let Role::Leader(leader) = &self.role else { return };
        let Some(started) = leader.started else { return };
        let voters = &self.membership.current().voters;
        let counted = majority_end(voters, |voter| self.counted(voter));
        let counted = counted.max(self.miscounted());
        // An older term's entry on a majority can still be overwritten (Raft paper, figure 8).
        let old_term = counted < started && !mutant::active(Mutant::CommitOldTerm);
        if old_term || counted <= self.commit {
            return;
        }
        assert_eq!(self.terms.term_at(counted), Some(self.hard.term), "this term wrote it");
        self.raise_commit(counted);
        if !self.membership.is_voter(self.me) && self.membership.current_end() <= self.commit {
            self.leave(now);
        }
    }

    pub(super) fn is_in_sync(&self, now: Millis, node: NodeId) -> bool {
        if !self.membership.is_voter(node) {
            return false;
        }
        let Some(peer) = self.progress(node) else { return node == self.me };
        let window = self.options.election_ms_max;
        let heard = peer.heard_at.is_some_and(|at| now.0.saturating_sub(at.0) < window);
        heard && peer.keeps_up(now, self.options.lag_ms_max)
    }

    pub(super) fn counted(&self, node: NodeId) -> LogIndex {
        // Others may still go by another policy than this leader: what counts of them is what they
        // vouch for, and never more.
        let counts = self.options.counts;
        match self.progress(node) {
            Some(peer)
                if counts == Counts::Appended && mutant::active(Mutant::LeaderCountsUnvouched) =>
            {
                peer.appended
            }
            Some(peer) => peer.counted(counts),
            None if node != self.me => LogIndex::ZERO,
            None if mutant::active(Mutant::LeaderCountsUnflushed) => self.terms.last().index,
            None => self.kept(self.terms.last().index),
        }
    }

    fn progress(&self, node: NodeId) -> Option<&Progress> {
        match &self.role {
            Role::Leader(leader) => leader.peers.get(&node),
            Role::Follower { .. } | Role::Candidate(_) => None,
        }
    }

    /// The sender, if this replica leads the very term that its answer is about.
    fn peer_in_term(&mut self, now: Millis, from: NodeId, term: Term) -> Option<NodeId> {
        self.adopt(now, term);
        (term == self.hard.term && self.progress(from).is_some()).then_some(from)
    }

    fn peer(&mut self, node: NodeId) -> &mut Progress {
        let Role::Leader(leader) = &mut self.role else { panic!("only a leader has peers") };
        leader.peers.get_mut(&node).expect("peer_in_term found it")
    }
}

fn heartbeat(to: NodeId, peer: &mut Progress, term: Term, commit: LogIndex) -> Message {
    // Not above what it acknowledged: what lies behind may be another leader's.
    let commit = commit.min(peer.appended);
    peer.commit_told = peer.commit_told.max(commit);
    Message { to, message: RaftMessage::Heartbeat(Heartbeat { term, commit }) }
}
