//! A replica that a shard hosts, and what its journal says of it.
//!
//! What must hold: a replica goes by what it vouches for only from the pass on that follows the one whose
//! journal says so, for others act on what it answers by then.

use highwater_protocol::ids::TopicPartition;

use super::Shard;
use super::event::{Millis, OpenReplica};
use super::journal::Journal;
use super::rebuild::Heard;
use crate::mutant::{self, Mutant};
use crate::raft::{Counts, Suspicion};
use crate::replica::{LastLife, Logged, Remembered, Replica};

/// A replica and what it was opened with.
pub(super) struct Hosted {
    pub(super) replica: Replica,
    /// Its directory, and what it is opened with once more should its files fail.
    pub(super) open: OpenReplica,
    pub(super) known: Option<Remembered>,
    /// What it hears of a leader while it is out of service.
    pub(super) heard: Option<Heard>,
}

/// Whether a pass notes another vouch of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    Vouch,
    NoVouch,
}

impl Hosted {
    /// Notes in the journal what changed of that which must not be forgotten.
    pub(super) fn write_down(&mut self, partition: TopicPartition, journal: &mut Journal) -> Noted {
        let vouched = self.known.map_or(Counts::Flushed, |known| known.vouches);
        let before = self.known.map(|known| known.hard).unwrap_or_default();
        let hard = self.replica.hard_state_if_dirty().unwrap_or(before);
        let recovery = match mutant::active(Mutant::EpochNotJournaled) {
            true => None,
            false => self.replica.recovery(),
        };
        let last_life = LastLife::Clean;
        let (suspicion, vouches, logged) = self.concludes();
        let mut known = Remembered { hard, suspicion, last_life, vouches, recovery, logged };
        if mutant::active(Mutant::VoteNotJournaled) {
            known.hard.vote = None;
        }
        if self.known != Some(known) {
            self.known = Some(known);
            journal.remember(partition, known);
        }
        if known.vouches == vouched { Noted::NoVouch } else { Noted::Vouch }
    }

    /// What it may have lost, what it vouches for and whether it has anything on disk. Once its files failed, what it
    /// concluded may rest on what never reached them, and nobody hears of that; and what others counted of it before a
    /// flush may be in the page cache for a while, and gone later.
    fn concludes(&self) -> (Suspicion, Counts, Logged) {
        let replica = &self.replica;
        let Some(known) = self.known else {
            return (replica.suspicion(), replica.vouches(), replica.logged());
        };
        if !replica.is_failed() {
            return (replica.suspicion(), replica.vouches(), replica.logged().max(known.logged));
        }
        let doubt = match known.vouches {
            Counts::Appended => known.suspicion.max(Suspicion::LostTail),
            Counts::Flushed => known.suspicion,
        };
        (doubt, known.vouches, known.logged)
    }
}

impl Shard {
    /// The journal says durably what these replicas vouch for: they go by it from the next pass on,
    /// which is due at once.
    pub(super) fn vouch(&mut self, now: Millis, partitions: Vec<TopicPartition>) {
        for partition in partitions {
            let Some(hosted) = self.replicas.get_mut(&partition) else { continue };
            let known = hosted.known.expect("it was noted in this pass");
            hosted.replica.vouches_durably(now, known.vouches);
            self.dirty.insert(partition);
            self.deadlines.set(partition, now);
        }
    }
}
