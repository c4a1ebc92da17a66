//! What the simulator's checker sees of a replica, whatever the replica would say of itself.

use highwater_protocol::ids::{LogIndex, NodeId, RecoveryEpoch, Term};

use super::{Replica, epoch_of};
use crate::log::Log;
use crate::raft::{Counts, Suspicion};

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Its term.
    pub term: Term,
    /// Whether it leads in that term.
    pub leads: bool,
    /// Whether it may have forgotten what it counted.
    pub suspect: bool,
    /// Whether nothing that it once counted can be missing.
    pub trusted: bool,
    /// What it takes for committed.
    pub commit: LogIndex,
    /// Where its log begins.
    pub log_start: LogIndex,
    /// Where its log ends.
    pub log_end: LogIndex,
    /// What it takes to be on disk.
    pub flushed: LogIndex,
    /// Whether there is something in it that it knows it cannot read.
    pub faulty: bool,
    /// What others may count of it, also by what it said before.
    pub vouched: LogIndex,
    /// How it lets them count just now.
    pub counts: Counts,
    /// What they may count of it as its journal says.
    pub noted: Counts,
    /// The voters in force.
    pub voters: Vec<NodeId>,
    /// The learners in force.
    pub learners: Vec<NodeId>,
    /// The epoch of its group.
    pub epoch: RecoveryEpoch,
}

impl Replica {
    /// Where it stands.
    pub fn view(&self) -> View {
        let log = self.log();
        View {
            term: self.raft.term(),
            leads: self.raft.is_leader(),
            suspect: self.raft.is_suspect(),
            trusted: self.raft.suspicion() == Suspicion::None,
            commit: self.raft.commit(),
            log_start: log.start().0,
            log_end: log.end(),
            flushed: self.raft.flushed_end(),
            faulty: log.is_faulty(),
            vouched: self.vouched_end(),
            counts: self.raft.counts(),
            noted: self.vouch.noted(),
            voters: self.raft.voter_set().voters.clone(),
            learners: self.raft.voter_set().learners.clone(),
            epoch: epoch_of(self.recovery),
        }
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }
}
