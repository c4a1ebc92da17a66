//! Files that cannot be opened because the process has no descriptor left: a shortage that passes, and no failure.
//!
//! Nothing was changed by what could not be opened, so it is tried again a little later. What must hold meanwhile: nobody
//! is answered who would have to be told something else afterwards.

use std::io;

use super::Replica;
use crate::mutant::{self, Mutant};
use crate::raft::Millis;

/// What waits for descriptors.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// When it is tried again.
    retry_at: Option<Millis>,
    /// What is known of producers is not what the log has: nothing may be appended by it.
    producers_due: bool,
    /// When something could not be opened the last time; people know.
    told: Option<Millis>,
}

impl Shortage {
    /// When there is something to try again.
    pub(super) fn retry_at(&self) -> Option<Millis> {
        self.retry_at
    }

    /// Whether what is known of producers waits to be read again.
    pub(super) fn producers_due(&self) -> bool {
        self.producers_due
    }
}

impl Replica {
    /// Something could not be opened, and is to be tried again.
    pub(super) fn wait_for_files(&mut self, now: Millis, error: &io::Error) {
        self.shortage.retry_at = Some(Millis(now.0 + RETRY_MS));
        if self.shortage.told.replace(now).is_none() {
            tracing::warn!(partition = %self.partition, %error, "waits until files can be opened again");
        }
    }

    /// Begins a pass: whatever cannot be opened still will say so.
    pub(super) fn try_files_again(&mut self) -> io::Result<()> {
        self.shortage.retry_at = None;
        match self.shortage.producers_due {
            true => self.refold_producers(),
            false => Ok(()),
        }
    }

    /// Ends a pass.
    pub(super) fn tell_end_of_shortage(&mut self, now: Millis) {
        let over = |last: &mut Millis| now.0.saturating_sub(last.0) >= OVER_MS;
        if self.shortage.told.take_if(over).is_some() {
            tracing::info!(partition = %self.partition, "files can be opened again");
        }
    }

    /// Reads from the log what is known of producers, as after a cut: at once, or once its files can be opened.
    pub(super) fn refold_producers(&mut self) -> io::Result<()> {
        if mutant::active(Mutant::ProducersKeptAfterCut) {
            return Ok(());
        }
        self.producers.clear();
        let found = self.log.recent_producers();
        self.shortage.producers_due = found.as_ref().is_err_and(is_shortage);
        match found {
            Ok(found) => self.fold_producers(found),
            Err(error) if is_shortage(&error) => self.wait_for_files(self.now, &error),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether this was for want of descriptors, or of room on a disk: nothing was changed.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull && !mutant::active(Mutant::ShortageFails)
}

const RETRY_MS: u64 = 100;
/// Followers are sent nothing again before some time has passed.
const OVER_MS: u64 = 2_000;
