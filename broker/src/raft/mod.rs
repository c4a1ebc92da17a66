//! Raft for a log that it never sees: who leads, what joins on, what is committed.
//!
//! Events come in as method calls with the time; what is to be done comes out in two ways: small
//! messages wait in an outbox (`take_messages`), and appends are planned (`next_send`), because
//! only the host can read the log. The host owes three things. It carries out what an `Intake`
//! says before it calls anything else; it makes a dirty `HardState` durable before any message of
//! the pass leaves; and it reports honestly what is appended and what is flushed. Messages may be
//! lost, repeated and reordered, but those meant for an older life of either side are dropped by
//! the host.
//!
//! Indexes are exclusive ends that count records and marks. All entries of a frame come and go
//! together, so every end named here is the end of a frame in every log that has it.
//!
//! Read in this order: `term_starts` (the log's shape), `quorum`, `election` with `timer` and
//! `trust` (who may lead), `follower` with `answer`, `leader` with `progress`, `throttle` and `transfer`, `membership`
//! with `voters`.

mod answer;
mod election;
mod follower;
mod leader;
mod membership;
mod options;
mod progress;
mod quorum;
mod term_starts;
mod throttle;
mod timer;
mod transfer;
mod trust;
mod voters;

#[cfg(test)]
mod tests;

use crate::mutant::{self, Mutant};
use highwater_protocol::batch::VoterSet;
use highwater_protocol::ids::{LogIndex, NodeId, Position, Term};
use highwater_protocol::peer::RaftMessage;

use answer::Answer;
use election::Candidate;
use leader::Leader;
use membership::Membership;
use timer::{Eagerness, ElectionTimer};
use trust::{Trust, Votes};

pub use highwater_protocol::peer::Legible;

pub use follower::{Arrival, FrameSpan, Intake};
pub use leader::{Holders, InSync, PeerStatus, SendPlan};
pub use membership::{check_target, next_step};
pub use options::{CommitNews, Counts, Options};
pub use progress::Lag;
pub use term_starts::{TermStart, TermStarts};
pub use transfer::TransferRefused;
pub use trust::Suspicion;

/// Milliseconds of a clock that never goes back; only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

/// What a replica must never forget: flushed before any message of the pass that changed it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term it knows.
    pub term: Term,
    /// Whom it voted for in that term; never changes within a term.
    pub vote: Option<NodeId>,
}

/// What a group is made from, at its first start or after a restart.
#[derive(Debug)]
pub struct Start {
    /// This broker.
    pub me: NodeId,
    /// What the journal holds; the default for a new replica.
    pub hard: HardState,
    /// No term before this one is known to the group: it was begun anew from a log that has them.
    pub term_min: Term,
    /// The shape of the log that was recovered.
    pub terms: TermStarts,
    /// Up to where the recovered log is known to be on disk.
    pub flushed: LogIndex,
    /// The set that the group was made with.
    pub made_with: VoterSet,
    /// The sets that marks in the log name, with the marks' ends, oldest first.
    pub changes: Vec<(LogIndex, VoterSet)>,
    /// Whether the log can be believed.
    pub suspicion: Suspicion,
    /// Seeds the election time-outs; must differ between groups and nodes.
    pub seed: u64,
}

/// A message for a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// To whom.
    pub to: NodeId,
    /// What.
    pub message: RaftMessage,
}

/// One replica's part in its group.
#[derive(Debug)]
pub struct Raft {
    me: NodeId,
    options: Options,
    hard: HardState,
    hard_dirty: bool,
    terms: TermStarts,
    flushed: LogIndex,
    commit: LogIndex,
    /// How much of our log provably agrees with the leader of a term; grows only within that term.
    agreed: (Term, LogIndex),
    answer: Answer,
    membership: Membership,
    trust: Trust,
    votes: Votes,
    /// Once a Suspect counts all up to here, it has what any majority ever counted.
    whole_at: Option<LogIndex>,
    /// What a replica in whose place this one is told the leader of a term: that may still be counted.
    said: Position,
    legible: Legible,
    timer: ElectionTimer,
    role: Role,
    outbox: Vec<Message>,
}

/// What a replica is to its group just now, for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// It knows no leader.
    #[default]
    Alone,
    /// It follows the leader of its term.
    Follows(NodeId),
    /// It asks whether it could win an election.
    Sounds,
    /// It asks for votes.
    Stands,
    /// It leads its term.
    Leads,
}

#[derive(Debug)]
enum Role {
    Follower { leader: Option<NodeId> },
    Candidate(Candidate),
    Leader(Box<Leader>),
}

impl Raft {
    /// Starts as a follower that believes nothing committed but what was trimmed.
    pub fn new(start: Start, options: Options, now: Millis) -> Raft {
        let mut membership = Membership::new(start.made_with);
        for (end, set) in start.changes {
            membership.appended(end, set);
        }
        let last = start.terms.last();
        assert!(start.flushed <= last.index, "more is flushed than appended");
        // A log is flushed before the term in the journal only if the journal was lost.
        let least = last.term.max(start.term_min);
        let hard = match start.hard.term < least {
            true => HardState { term: least, vote: None },
            false => start.hard,
        };
        let never_led = hard == HardState::default();
        let first = membership.current().voters.first() == Some(&start.me);
        let eagerness = match first && (never_led || membership.current().voters.len() == 1) {
            true => Eagerness::AtOnce,
            false => Eagerness::Patient,
        };
        Raft {
            me: start.me,
            options,
            hard,
            hard_dirty: hard != start.hard,
            flushed: start.flushed,
            commit: start.terms.base().index,
            agreed: (hard.term, start.terms.base().index),
            terms: start.terms,
            answer: Answer::None,
            membership,
            trust: Trust::new(start.suspicion),
            votes: Votes::new(start.suspicion),
            whole_at: None,
            said: Position::default(),
            legible: Legible::All,
            timer: ElectionTimer::new(start.seed, now, eagerness, &options),
            role: Role::Follower { leader: None },
            outbox: Vec::new(),
        }
    }

    /// Time has passed: a follower may stand, a leader checks that it still has a majority.
    pub fn tick(&mut self, now: Millis) {
        match &self.role {
            Role::Follower { .. } | Role::Candidate(_) => {
                self.answer.tick(now);
                self.tick_election(now);
            }
            Role::Leader(_) => self.tick_leader(now),
        }
    }

    /// When `tick` has something to do if nothing else happens.
    pub fn next_deadline(&self) -> Millis {
        match &self.role {
            Role::Follower { .. } | Role::Candidate(_) => {
                let answer = self.answer.deadline();
                answer.map_or(self.timer.deadline(), |by| by.min(self.timer.deadline()))
            }
            Role::Leader(leader) => leader.next_deadline(&self.options, self.terms.last().index),
        }
    }

    /// This host did nothing for `late_ms`: what the others said meanwhile may still be in a queue.
    pub fn starved(&mut self, now: Millis, late_ms: u64) {
        // A nap is forgiven and no more: patience that doubled at each would cost a failover half a
        // second on every busy machine, and after every restart, which opens many logs at once.
        self.timer.forgive(now, late_ms, &self.options);
        if let Role::Leader(leader) = &mut self.role {
            leader.forgive(now);
        }
    }

    /// The log grew by frames of this leader's own term, up to `end`.
    pub fn appended(&mut self, now: Millis, end: LogIndex) {
        assert!(matches!(self.role, Role::Leader(_)), "only a leader appends of its own accord");
        self.terms.extend(self.hard.term, end);
        self.advance_commit(now);
    }

    /// The log is on disk up to `end`.
    pub fn flushed(&mut self, now: Millis, end: LogIndex) {
        let end = end.min(self.terms.last().index);
        if end <= self.flushed {
            return;
        }
        let told = self.flushed.min(self.agreed_end());
        self.flushed = end;
        self.answer.now_if(self.flushed.min(self.agreed_end()) > told);
        self.trust_what_counts();
        self.advance_commit(now);
    }

    /// The log's start moved up to `base`; only what is committed may go.
    pub fn trimmed(&mut self, base: LogIndex) {
        assert!(base <= self.commit, "what is not committed was trimmed");
        self.terms.trim(base);
    }

    /// With gaps a replica votes, for it knows what it has; but it does not stand, and who has no vote yet
    /// gets none.
    pub fn set_legible(&mut self, legible: Legible) {
        if !mutant::active(Mutant::FaultyStands) {
            self.answer.now_if(self.legible != legible);
            self.legible = legible;
        }
    }

    /// Changed options, in force at once.
    pub fn reconfigure(&mut self, now: Millis, options: Options) {
        // Who vouches for more, or less, from now on says so.
        self.answer.now_if(options.counts != self.options.counts);
        self.options = options;
        self.trust_what_counts();
        self.advance_commit(now);
    }

    /// The messages that wait, in the order in which they should leave. Call it last in a pass.
    pub fn take_messages(&mut self) -> Vec<Message> {
        self.answer_leader();
        self.tell_commit();
        std::mem::take(&mut self.outbox)
    }

    /// Term and vote, if they changed since the last call.
    pub fn take_dirty_hard_state(&mut self) -> Option<HardState> {
        std::mem::take(&mut self.hard_dirty).then_some(self.hard)
    }

    /// The newest term it knows.
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// Term and vote.
    pub fn hard_state(&self) -> HardState {
        self.hard
    }

    /// Everything before this is committed.
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// Where the log ends.
    pub fn last(&self) -> Position {
        self.terms.last()
    }

    /// The log's shape.
    pub fn terms(&self) -> &TermStarts {
        &self.terms
    }

    /// The set in force: the newest in the log, committed or not.
    pub fn voter_set(&self) -> &VoterSet {
        self.membership.current()
    }

    /// Whether this replica neither votes nor stands because it may have lost entries.
    pub fn is_suspect(&self) -> bool {
        matches!(self.trust, Trust::Suspect { .. })
    }

    /// How far it may have told the leader of its term that their logs agree.
    pub fn said(&self) -> Position {
        Position { term: self.hard.term, index: self.agreed_end() }
    }

    /// Another replica was in its place in this very life, and said so much. What it voted is known still.
    pub fn has_said(&mut self, said: Position) {
        self.said = said;
        self.votes = Votes::Known;
    }

    /// What it may have forgotten: to be remembered by the host until it is over.
    pub fn suspicion(&self) -> Suspicion {
        self.trust.suspicion()
    }

    /// What it counts, of itself and of others.
    pub fn counts(&self) -> Counts {
        self.options.counts
    }

    /// Up to where its log is known to be on disk.
    pub fn flushed_end(&self) -> LogIndex {
        self.flushed
    }

    /// Whether the mark of the set in force is on disk. With an interval the host hurries that flush, for `kept`
    /// waits for it.
    pub fn voter_set_is_flushed(&self) -> bool {
        self.flushed >= self.membership.current_end()
    }

    /// What others may count of it while its log is theirs up to `end`: what it is sure to have after any end
    /// of its life, or to be Suspect without. A Suspect waits for the word of all voters that its log names.
    /// One that lost a change of them with its tail, and had counted what lies behind, would take the word of
    /// voters of long ago for everyone's: so nothing counts that lies behind a change which is not on disk.
    pub fn kept(&self, end: LogIndex) -> LogIndex {
        match self.options.counts {
            Counts::Flushed => self.flushed.min(end),
            Counts::Appended if mutant::active(Mutant::UnflushedVotersForgotten) => end,
            Counts::Appended => self.membership.unchanged_from(self.flushed).min(end),
        }
    }

    /// Whether this replica leads its term.
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// The leader of the current term, if known.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower { leader } => *leader,
            Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.me),
        }
    }

    /// What it is to its group just now.
    pub fn standing(&self) -> Standing {
        match &self.role {
            Role::Follower { leader: None } => Standing::Alone,
            Role::Follower { leader: Some(leader) } => Standing::Follows(*leader),
            Role::Candidate(candidate) => candidate.standing(),
            Role::Leader(_) => Standing::Leads,
        }
    }

    fn send(&mut self, to: NodeId, message: RaftMessage) {
        self.outbox.push(Message { to, message });
    }

    /// A message bears a newer term: whatever this replica was, it follows in that term.
    fn adopt(&mut self, now: Millis, term: Term) {
        if term > self.hard.term {
            self.hard = HardState { term, vote: None };
            self.hard_dirty = true;
            self.agreed = (term, self.commit);
            self.step_down(now);
        }
    }

    /// Follows nobody in the current term.
    fn step_down(&mut self, now: Millis) {
        self.answer = Answer::None;
        if self.is_leader() {
            // It had no patience of its own while it led.
            self.timer.restart(now, &self.options);
        }
        self.role = Role::Follower { leader: None };
    }

    /// What provably agrees with the leader of the current term; the committed part always does.
    fn agreed_end(&self) -> LogIndex {
        match self.agreed.0 == self.hard.term {
            true => self.agreed.1.max(self.commit),
            false => self.commit,
        }
    }

    fn raise_commit(&mut self, commit: LogIndex) {
        assert!(commit <= self.terms.last().index, "what is not in the log cannot be committed");
        if commit > self.commit || mutant::active(Mutant::CommitGoesBack) {
            self.commit = commit;
            self.membership.committed(commit);
        }
    }
}
