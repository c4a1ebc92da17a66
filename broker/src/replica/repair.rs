//! Frames that this replica knows and cannot read any more: fetched from another replica, one exact range
//! after the other, and put in their place.
//!
//! Their entries in the index say which they were, so nothing that this replica ever counted is in
//! doubt: it goes on voting by all that it has. But it does not stand for elections, and a leader
//! that stays faulty hands over: a leader has to be able to send what it has. Nothing is cut.

use std::io;

use highwater_protocol::ids::NodeId;
use highwater_protocol::peer::{FramesFound, FramesWanted, RaftMessage};

use super::event::Lane;
use super::output::{Outgoing, Output};
use super::{Failure, Replica};
use crate::log::Mended;
use crate::raft::{Legible, Millis};

/// How far the repair of a replica has come.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Since when there is something that cannot be read.
    since: Option<Millis>,
    /// When somebody was asked last, unless the answer came.
    asked_at: Option<Millis>,
    /// Which of the others is asked.
    peer: usize,
    /// When leadership was last tried to be handed over.
    handed_over_at: Option<Millis>,
}

impl Replica {
    /// Asks for what is missing, if anything is.
    pub(super) fn repair(&mut self, now: Millis, out: &mut Output) {
        if !self.log.is_faulty() {
            if self.repair.since.take().is_some() {
                self.repair = Repair::default();
                self.raft.set_legible(Legible::All);
                tracing::info!(partition = %self.partition, "all of the log can be read again");
            }
            return;
        }
        let others = self.others();
        self.repair.since.get_or_insert(now);
        if others.is_empty() {
            // Nobody has it: reads of it say so, and the rest is served.
            return;
        }
        // An only voter has nobody to make way for.
        if self.raft.voter_set().voters.iter().any(|voter| *voter != self.me) {
            self.raft.set_legible(Legible::Gaps);
            self.give_way(now);
        }
        let waits = self.repair.asked_at.is_some_and(|at| now.0 - at.0.min(now.0) < ASK_AGAIN_MS);
        if waits {
            return;
        }
        match self.ask(now, &others, out) {
            Ok(()) => {}
            // A full disk changed nothing: what is missing stays missing, and others may make room.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.repair.asked_at = Some(now);
            }
            Err(error) => self.fail(&error, out),
        }
    }

    fn ask(&mut self, now: Millis, others: &[NodeId], out: &mut Output) -> io::Result<()> {
        let missing = self.log.missing()?;
        out.mends.extend(self.log.take_mend()?);
        let Some(missing) = missing else { return Ok(()) };
        if self.repair.asked_at.is_some() {
            // Whoever was asked has it no more than we have, or is away.
            self.repair.peer += 1;
        }
        let to = others[self.repair.peer % others.len()];
        let bytes_max = u32::try_from(missing.bytes).unwrap_or(u32::MAX).min(ASK_BYTES_MAX);
        let message = RaftMessage::Wanted(FramesWanted { behind: missing.behind, bytes_max });
        out.messages.push(Outgoing { to, lane: Lane::Append, message });
        self.repair.asked_at = Some(now);
        Ok(())
    }

    /// Another replica cannot read what it has behind a place.
    pub(super) fn frames_wanted(&self, from: NodeId, wanted: FramesWanted, out: &mut Output) {
        let behind = wanted.behind;
        let agrees = behind.index == self.log.start().0
            || self.log.term_at(behind.index) == Some(behind.term);
        if !agrees || behind.index >= self.log.end() {
            return;
        }
        let bytes_max = wanted.bytes_max.min(ASK_BYTES_MAX) as usize;
        match self.log.read_frames(behind.index, bytes_max) {
            Ok(read) if read.frames.is_empty() => {}
            Ok(read) => {
                let found = FramesFound { behind, entries: read.frames };
                let message = RaftMessage::Found(found);
                out.messages.push(Outgoing { to: from, lane: Lane::Append, message });
            }
            Err(error) => {
                let partition = self.partition;
                tracing::warn!(%partition, %from, %error, "cannot give another replica what it lost");
            }
        }
    }

    /// The answer of another replica; the log compares it with what its own index says.
    pub(super) fn frames_found(&mut self, now: Millis, found: &FramesFound, out: &mut Output) {
        match self.log.mend(found.behind.index, &found.entries) {
            // The next range at once; a useless answer waits for its time and the next peer's turn.
            Ok(0) => {}
            Ok(_) => self.repair.asked_at = None,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            Err(error) => return self.fail(&error, out),
        }
        self.repair(now, out);
    }

    /// The copying that a mend asked for is over.
    pub fn mended(&mut self, now: Millis, mended: Mended, out: &mut Output) {
        self.now = now;
        if let Failure::Final(_) = self.failure {
            return;
        }
        match self.log.mended(mended) {
            // It failed, or more was found to be faulty: not again at once.
            Ok(0) => self.repair.asked_at = Some(now),
            Ok(frames) => {
                out.repaired += frames;
                tracing::info!(partition = %self.partition, frames, "batches were mended");
            }
            Err(error) => self.fail(&error, out),
        }
    }

    /// A leader that cannot read what it should send makes room for one that can.
    fn give_way(&mut self, now: Millis) {
        let since = *self.repair.since.get_or_insert(now);
        let lasted_ms = now.0.saturating_sub(since.0);
        if !self.raft.is_leader() || lasted_ms < LEADS_FAULTY_MS {
            return;
        }
        if lasted_ms >= 2 * LEADS_FAULTY_MS {
            tracing::warn!(partition = %self.partition, "gives up leading what it cannot read");
            self.raft.resign(now);
            self.repair.since = Some(now);
        } else if self.repair.handed_over_at.is_none_or(|at| now.0.saturating_sub(at.0) >= 1_000) {
            self.repair.handed_over_at = Some(now);
            // Who refuses is asked again; nobody else is as good as this one then.
            let _ = self.raft.transfer(now, None);
        }
    }

    /// The other replicas, voters first.
    fn others(&self) -> Vec<NodeId> {
        let set = self.raft.voter_set();
        let all = set.voters.iter().chain(&set.learners).copied();
        all.filter(|node| *node != self.me).collect()
    }
}

/// How long an answer may take before the next one is asked.
const ASK_AGAIN_MS: u64 = 500;
const ASK_BYTES_MAX: u32 = 1 << 20;
/// How long a leader that cannot read all that it has tries to mend it before it hands over.
const LEADS_FAULTY_MS: u64 = 2_000;
