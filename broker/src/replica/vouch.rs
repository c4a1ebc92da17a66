//! What a replica vouches for: what others may count of it, and will go on counting after it died.
//!
//! With `flush=ack` that is what it has on disk; with an interval, what it has appended. What must hold
//! when the topic goes from one to the other while it is in use: the journal says that unflushed entries
//! may be counted before the first one is, and goes on saying so until the last one that was is on disk.
//! An unclean end is judged by the journal alone. Other replicas may hear of the change earlier or
//! later; nobody counts more of a replica than it vouched for.

use highwater_protocol::ids::LogIndex;

use super::{FlushPolicy, Logged, Replica, open};
use crate::mutant::{self, Mutant};
use crate::raft::{Counts, Millis};

/// What is vouched for, and what the journal says of it.
#[derive(Debug)]
pub(super) struct Vouch {
    /// What the journal says, durably.
    noted: Counts,
    /// Up to here entries may have been counted before they were flushed.
    unflushed_until: LogIndex,
}

impl Vouch {
    /// What the journal said before this life of a log that ends at `end`.
    pub(super) fn new(noted: Counts, end: LogIndex) -> Vouch {
        Vouch { noted, unflushed_until: end }
    }

    /// What the journal says.
    #[cfg(feature = "sim")]
    pub(super) fn noted(&self) -> Counts {
        self.noted
    }

    /// What may be counted now under this policy.
    pub(super) fn counts(&self, flush: FlushPolicy) -> Counts {
        match (flush, self.noted) {
            (FlushPolicy::Interval { .. }, Counts::Appended) => Counts::Appended,
            (FlushPolicy::Interval { .. }, Counts::Flushed)
                if mutant::active(Mutant::CountsBeforeNoted) =>
            {
                Counts::Appended
            }
            (FlushPolicy::Interval { .. }, Counts::Flushed) | (FlushPolicy::Ack, _) => {
                Counts::Flushed
            }
        }
    }
}

impl Replica {
    /// Whether it has anything on disk.
    pub fn logged(&self) -> Logged {
        match self.log.durable() > LogIndex::ZERO {
            true => Logged::Something,
            false => Logged::Nothing,
        }
    }

    /// What the journal must say of it from this pass on.
    pub fn vouches(&self) -> Counts {
        let log_end = self.log.end();
        let all_flushed = self.raft.flushed_end() >= self.vouch.unflushed_until.min(log_end);
        match (self.options.flush, self.vouch.noted) {
            (FlushPolicy::Interval { .. }, _) if mutant::active(Mutant::CountsBeforeNoted) => {
                Counts::Flushed
            }
            (FlushPolicy::Interval { .. }, _) => Counts::Appended,
            (FlushPolicy::Ack, Counts::Appended) if mutant::active(Mutant::VouchTakenBackEarly) => {
                Counts::Flushed
            }
            (FlushPolicy::Ack, Counts::Appended) if !all_flushed => Counts::Appended,
            (FlushPolicy::Ack, Counts::Appended | Counts::Flushed) => Counts::Flushed,
        }
    }

    /// Up to where others may count what it has, or counted it before it went by another policy.
    #[cfg(feature = "sim")]
    pub(super) fn vouched_end(&self) -> LogIndex {
        let (log_end, flushed) = (self.log.end(), self.raft.flushed_end());
        match (self.raft.counts(), self.vouch.noted) {
            (Counts::Appended, _) => self.raft.kept(log_end),
            (Counts::Flushed, Counts::Appended) => {
                self.vouch.unflushed_until.min(log_end).max(flushed)
            }
            (Counts::Flushed, Counts::Flushed) => flushed,
        }
    }

    /// The journal says this now, durably.
    pub fn vouches_durably(&mut self, now: Millis, noted: Counts) {
        self.now = now;
        self.vouch.noted = noted;
        self.reconfigure_raft();
    }

    /// Tells Raft what its options come down to.
    pub(super) fn reconfigure_raft(&mut self) {
        let counts = self.vouch.counts(self.options.flush);
        let before = self.raft.counts();
        if before == Counts::Appended && counts == Counts::Flushed {
            self.vouch.unflushed_until = self.vouch.unflushed_until.max(self.log.end());
        }
        let options = open::raft_options(self.partition, &self.options, counts);
        self.raft.reconfigure(self.now, options);
    }
}
