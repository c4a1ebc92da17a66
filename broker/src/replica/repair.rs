//! Frames that this replica knows and cannot read any more: fetched from another replica, one exact range
//! after the other, and put in their place.
//!
//! Their entries in the index say which they were, so nothing that this replica ever counted is in
//! doubt: it goes on voting by all that it has. But it does not stand for elections, and a leader
//! that stays faulty hands over: a leader has to be able to send what it has. Nothing is cut. What the only
//! replica cannot read is given up when a person says so (`log::gap`).

use std::io;
use std::ops::Range;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{NodeId, Offset, Position};
use highwater_protocol::native::repair::{RepairReplicaResponse, UnreadableRange};
use highwater_protocol::peer::{FramesFound, FramesWanted, RaftMessage};

use super::event::{AdminReply, Lane, RequestId};
use super::output::{Outgoing, Output};
use super::{Failure, Replica};
use crate::log::{self, Left, Listed, Mended, Unreadable};
use crate::mutant::{self, Mutant};
use crate::raft::{Legible, Millis, Suspicion};

/// How far the repair of a replica has come.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Since when there is something that cannot be read.
    since: Option<Millis>,
    /// When somebody was asked last, unless the answer came.
    asked_at: Option<Millis>,
    /// Which of the others is asked.
    peer: usize,
    /// For what, and how many did not give it.
    asked_for: Option<Position>,
    tried: usize,
    /// When leadership was last tried to be handed over.
    handed_over_at: Option<Millis>,
    /// The only replica was opened like this: nobody is served until it is whole.
    serves_nobody: bool,
    giving_up: Option<GivingUp>,
}

/// What a person gives up, until it is.
#[derive(Debug)]
struct GivingUp {
    id: RequestId,
    loss: log::GivingUp,
    /// When there is more to do, unless that waits for something.
    due: Option<Millis>,
}

impl Repair {
    /// Of a replica that was opened just now.
    pub(super) fn opened(serves_nobody: bool) -> Repair {
        Repair { serves_nobody, ..Repair::default() }
    }
}

impl Replica {
    /// Asks for what is missing, if anything is.
    pub(super) fn repair(&mut self, now: Millis, out: &mut Output) {
        self.give_up_accepted(now, out);
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
        // An only voter has nobody to make way for: reads of what is lost say so, and the rest is served.
        let alone = self.raft.voter_set().voters.iter().all(|voter| *voter == self.me);
        if !alone || self.repair.serves_nobody {
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
        if self.repair.asked_at.is_some() {
            // Whoever was asked has it no more than we have, or is away.
            self.repair.peer += 1;
            self.repair.tried += 1;
        }
        if self.repair.tried >= others.len() {
            // Something else may be had, and is not to wait for this.
            self.log.deny_missing();
        }
        let mut missing = self.log.missing()?;
        while missing.is_some() && others.is_empty() {
            self.log.deny_missing();
            missing = self.log.missing()?;
        }
        out.mends.extend(self.log.take_mend()?);
        self.repair.asked_at = Some(now);
        if missing.map(|missing| missing.behind) != self.repair.asked_for {
            self.repair.asked_for = missing.map(|missing| missing.behind);
            self.repair.tried = 0;
        }
        let Some(missing) = missing else { return Ok(()) };
        let to = others[self.repair.peer % others.len()];
        let bytes_max = u32::try_from(missing.bytes).unwrap_or(u32::MAX).min(ASK_BYTES_MAX);
        let message = RaftMessage::Wanted(FramesWanted { behind: missing.behind, bytes_max });
        out.messages.push(Outgoing { to, lane: Lane::Append, message });
        Ok(())
    }

    /// What cannot be read, and from whom it may come back.
    fn unreadable(
        &self,
        now: Millis,
        start: Offset,
        given_up: u64,
    ) -> io::Result<RepairReplicaResponse> {
        let shown = |found: Unreadable| UnreadableRange {
            from: found.range.from,
            until: found.range.until,
            batches: found.batches,
            file: found.range.file.display().to_string(),
        };
        let Listed { runs, next } = self.log.unreadable(start, SHOWN_MAX)?;
        let unreadable = runs.into_iter().map(shown).collect();
        let since_ms = self.repair.since.map(|since| now.0.saturating_sub(since.0));
        Ok(RepairReplicaResponse { unreadable, since_ms, others: self.others(), given_up, next })
    }

    /// An operator asks what cannot be read, or gives it up.
    pub(super) fn start_giving_up(
        &mut self,
        now: Millis,
        id: RequestId,
        (start, offsets): (Offset, Vec<Range<Offset>>),
        out: &mut Output,
    ) {
        let refused = (!offsets.is_empty()).then(|| self.check_alone().err()).flatten();
        let answer = match refused {
            Some(error) => Err(error),
            None if offsets.is_empty() => {
                let seen = self.unreadable(now, start, 0).map(AdminReply::Unreadable);
                seen.map_err(|error| WireError::new(ErrorCode::StorageFailed, error.to_string()))
            }
            None => {
                let loss = log::GivingUp::new(offsets);
                self.repair.giving_up = Some(GivingUp { id, loss, due: None });
                return;
            }
        };
        out.answered.push((id, answer));
    }

    /// Only the last replica may: another one may have the range, and would differ from this one for ever.
    fn check_alone(&self) -> Result<(), WireError> {
        let (others, partition) = (self.others(), self.partition);
        if self.repair.giving_up.is_some() {
            let why = format!("another request gives up what cannot be read of {partition}");
            return Err(WireError::new(ErrorCode::Conflict, why));
        }
        // Changes of voters are flushed before they count, so a tail that was lost had none.
        if matches!(self.raft.suspicion(), Suspicion::Damage | Suspicion::LostIdentity) {
            let why = format!(
                "the replica of {partition} may have forgotten who else has one, and gives nothing up"
            );
            return Err(WireError::new(ErrorCode::Conflict, why));
        }
        if others.is_empty() || mutant::active(Mutant::GivesUpForOthers) {
            return Ok(());
        }
        let why = format!(
            "{partition} has other replicas, on brokers {:?}, which are asked for what is missing; nothing is given up \
             while there are any",
            others.iter().map(|node| node.0).collect::<Vec<_>>()
        );
        Err(WireError::new(ErrorCode::Conflict, why))
    }

    fn give_up_accepted(&mut self, now: Millis, out: &mut Output) {
        let Some(mut giving_up) = self.repair.giving_up.take() else { return };
        // A change of voters may have come between.
        let left = match self.check_alone() {
            Ok(()) => self.log.give_up(&mut giving_up.loss),
            Err(error) => return out.answered.push((giving_up.id, Err(error))),
        };
        let answer = match left {
            Ok(left @ (Left::Work | Left::Waits)) => {
                giving_up.due = (left == Left::Work).then_some(Millis(now.0 + 1));
                self.repair.giving_up = Some(giving_up);
                return;
            }
            Ok(Left::Nothing) => {
                let (partition, records) = (self.partition, giving_up.loss.records());
                tracing::warn!(%partition, records, "what cannot be read was given up by request");
                self.unreadable(now, Offset::ZERO, records)
            }
            Err(error) => Err(error),
        };
        // The gaps are made at once.
        self.repair.asked_at = None;
        let explained = |error: &io::Error| {
            let code = match error.kind() {
                io::ErrorKind::StorageFull => ErrorCode::DiskFull,
                _any_other => ErrorCode::StorageFailed,
            };
            WireError::new(code, format!("{} gave up nothing more: {error}", self.partition))
        };
        let told = answer.as_ref().map_err(explained).cloned().map(AdminReply::Unreadable);
        out.answered.push((giving_up.id, told));
        match answer {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            // The seal itself is damaged: nothing was changed.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(error) => self.fail(&error, out),
        }
    }

    /// When a pass has to go on giving something up.
    pub(super) fn giving_up_due(&self) -> Option<Millis> {
        self.repair.giving_up.as_ref()?.due
    }

    /// The request that waits for something to be given up will not see it.
    pub(super) fn drop_giving_up(&mut self) -> Option<RequestId> {
        self.repair.giving_up.take().map(|giving_up| giving_up.id)
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
/// So many runs of batches are named in an answer, which says from where to ask for more.
const SHOWN_MAX: usize = 1_000;
/// How long a leader that cannot read all that it has tries to mend it before it hands over.
const LEADS_FAULTY_MS: u64 = 2_000;
