//! Opening replicas, also those that could not be opened at once for want of descriptors or of room, or because what had
//! failed of them could not be moved away.
//!
//! That changes nothing: whoever was to be opened is opened later, and nothing is concluded about its files meanwhile.

use std::io;
use std::path::Path;
use std::sync::Arc;

use highwater_protocol::ids::TopicPartition;

use super::Shard;
use super::event::{AfterClose, Effect, Millis, OpenReplica};
use super::groups::BegunAnew;
use super::hosted::Hosted;
use crate::mutant::{self, Mutant};
use crate::replica::Replica;

impl Shard {
    /// Opens a replica, or changes how an open one is kept.
    pub(super) fn open_replica(&mut self, now: Millis, open: OpenReplica, out: &mut Vec<Effect>) {
        let (partition, wanted) = (open.partition, open.clone());
        let before = self.unopened.remove(&partition);
        match self.try_open(now, open, out) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                if before.is_none() {
                    tracing::warn!(%partition, %error, "the replica is opened later");
                }
                self.unopened.insert(partition, wanted);
            }
            Err(error) => {
                let again = self.is_half_set_aside(partition);
                if again {
                    self.unopened.insert(partition, wanted);
                }
                if !again || before.is_none() {
                    out.push(Effect::Failed(partition, error.to_string()));
                }
            }
        }
    }

    /// Opens what could not be opened before.
    pub(super) fn open_again(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let waiting: Vec<OpenReplica> = self.unopened.values().cloned().collect();
        for open in waiting {
            let partition = open.partition;
            self.open_replica(now, open, out);
            if self.unopened.contains_key(&partition) && !self.is_half_set_aside(partition) {
                // What this one lacks the next would lack as well.
                return;
            }
        }
    }

    /// What waits to be opened is not wanted any more.
    pub(super) fn close_unopened(
        &mut self,
        open: OpenReplica,
        after: AfterClose,
        out: &mut Vec<Effect>,
    ) {
        match after {
            AfterClose::Keep => {}
            AfterClose::Delete => {
                self.to_set_aside.remove(&open.partition);
                self.doom(open.partition, open.dir);
                out.push(Effect::Closed(open.partition, after));
            }
        }
    }

    /// Whether a directory is there, or may be.
    pub(super) fn is_there(&self, dir: &Path) -> bool {
        !self.disk.list(dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    fn try_open(
        &mut self,
        now: Millis,
        mut open: OpenReplica,
        out: &mut Vec<Effect>,
    ) -> io::Result<()> {
        let partition = open.partition;
        let begun_anew = self.enter_group(&mut open, out);
        if let Some(hosted) = self.replicas.get_mut(&partition) {
            hosted.replica.reconfigure(&open);
            hosted.open = open;
            self.dirty.insert(partition);
            return Ok(());
        }
        if self.doomed.contains_key(&partition) {
            self.delete_doomed(out)?;
        }
        if let Some(dir) = self.doomed.get(&partition) {
            let why = format!("{} is not deleted yet", dir.display());
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        if begun_anew == BegunAnew::Elsewhere {
            if self.is_there(&open.dir) && !self.disk.list(&open.dir)?.is_empty() {
                // The failure was told: nothing of the old group is opened in the new one.
                return Ok(());
            }
            self.forget_names(&open.dir)?;
        }
        self.set_files_aside(partition, &open.dir)?;
        open.identity = self.identity(self.journal.get(partition), &open)?;
        self.remember_loss(&open)?;
        let known = self.journal.get(partition);
        // The controller's log may use what is kept free: it brings the deletions that make room.
        if partition != TopicPartition::CLUSTER {
            open.options.log.keep_free_bytes = self.keep_free_bytes;
        }
        let mut replica =
            Replica::open(Arc::clone(&self.disk), known, open.clone(), self.boot, now)?;
        if let Some(said) = self.rebuilt.get(&partition)
            && !mutant::active(Mutant::RebuiltForgetsItsWord)
        {
            replica.has_said(*said);
        }
        self.take_left_aside(partition, &open.dir);
        out.push(Effect::Opened(partition, replica.reader()));
        self.replicas.insert(partition, Hosted { replica, open, known, heard: None });
        self.dirty.insert(partition);
        Ok(())
    }
}
