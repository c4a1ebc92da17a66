//! Which group of a partition a shard's replica belongs to: a recovery ends one and begins another.
//!
//! What must hold: a replica goes over into the new group only as its founder, once, and with the
//! vote of nobody else; every other replica of the old group is discarded before one of the new group
//! is opened in its place, and that one has everything still to learn. Which group a replica belongs
//! to is in the journal, beside its term and vote, so an older image brings no old group back.

use std::io;
use std::path::Path;

use super::event::{AfterClose, Effect, Identity, OpenReplica};
use super::journal::Memory;
use super::{Shard, Suspicion};
use crate::mutant::{self, Mutant};
use crate::raft::{Counts, HardState};
use crate::replica::{LastLife, Logged, Remembered, epoch_of};

/// Whether a replica to open is one of a group that is new here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BegunAnew {
    /// It is not.
    No,
    /// It is, and this replica's log is what it begins with.
    Here,
    /// It is, and another replica founds it.
    Elsewhere,
}

impl Shard {
    /// Settles which group a replica to open belongs to, and closes and gives up what is left of an
    /// older one, unless the new one begins with it.
    pub(super) fn enter_group(
        &mut self,
        open: &mut OpenReplica,
        out: &mut Vec<Effect>,
    ) -> BegunAnew {
        let partition = open.partition;
        let known = self.journal.get(partition);
        let hosted = self.replicas.get(&partition);
        let recovery = match hosted {
            Some(hosted) => hosted.replica.recovery(),
            None => known.and_then(|known| known.recovery),
        };
        let failed = hosted.is_some_and(|hosted| hosted.replica.is_failed());
        if failed && open.identity == Identity::Founds {
            // What its failed files hold is known only after a restart.
            return BegunAnew::No;
        }
        if epoch_of(open.recovery) <= epoch_of(recovery) {
            if epoch_of(open.recovery) < epoch_of(recovery) {
                // The image is older: who was in the group that it knows says nothing of this one.
                open.voters.clear();
            }
            open.recovery = recovery;
            if open.identity == Identity::Founds {
                open.identity = Identity::Same;
            }
            return BegunAnew::No;
        }
        // A journal that was lost may have known that it has founded this very group, and that others
        // vote in it by now.
        let may_found =
            known.is_some() || hosted.is_some() || self.journal.memory() == Memory::Whole;
        let founds = open.identity == Identity::Founds
            && may_found
            && !mutant::active(Mutant::FounderDiscarded);
        if founds {
            self.close_replica(partition, AfterClose::Keep, out);
            return BegunAnew::Here;
        }
        let hard = known.map_or(HardState::default(), |known| known.hard);
        let (suspicion, last_life) = (Suspicion::LostIdentity, LastLife::Clean);
        let (vouches, logged) = (Counts::Flushed, Logged::Nothing);
        let told_to_found = open.identity == Identity::Founds;
        open.identity = Identity::Joins;
        if told_to_found && !may_found {
            // Its files stay, for they may be all there is; a further recovery can begin with them.
            let recovery = open.recovery;
            let known = Remembered { hard, suspicion, last_life, vouches, recovery, logged };
            self.journal.remember(partition, known);
            return BegunAnew::No;
        }
        self.close_replica(partition, AfterClose::Delete, out);
        let recovery = known.and_then(|known| known.recovery);
        let lost = Remembered { hard, suspicion, last_life, vouches, recovery, logged };
        if !self.doomed.contains_key(&partition) && self.is_there(&open.dir) {
            self.journal.remember(partition, lost);
            self.doomed.insert(partition, open.dir.clone());
        }
        BegunAnew::Elsewhere
    }

    /// Makes it durable that a directory holds nothing: a power cut must not bring files of the old
    /// group back beside those of the new one.
    pub(super) fn forget_names(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)?;
        self.disk.flush_dir(dir)?;
        match dir.parent() {
            Some(parent) => self.disk.flush_dir(parent),
            None => Ok(()),
        }
    }
}
