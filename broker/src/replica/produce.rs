//! The way in: whether this replica may take a batch, and the append.
//!
//! Everything that can refuse a batch comes before the append, so that a refusal means "not
//! written". The batch's body is not touched here: the log stamps a copy of the header.

use std::io;

use highwater_protocol::batch::FrameHeader;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::native::produce::AckMode;

use super::event::ProduceEvent;
use crate::mutant::{self, Mutant};
use crate::raft::Millis;

use super::acks::{Waiter, receipt};
use super::condition::Conflict;
use super::output::Output;
use super::producers::{Placed, Verdict};
use super::{Failure, Replica};

/// What became of a batch that was let in.
enum Entered {
    Appended(Placed),
    Repeated(Placed),
    /// Not appended: the log ends elsewhere than its producer expects.
    WrongEnd(Conflict),
}

impl Replica {
    /// A client's batch.
    pub fn produce(&mut self, now: Millis, event: ProduceEvent, out: &mut Output) {
        let ProduceEvent { id, acks, deadline, .. } = event;
        self.settle(now, out);
        let header = FrameHeader::parse(&event.batch).expect("the batch was parsed at the edge");
        let entered = match self.may_produce(now, &event) {
            Ok(()) => self.enter(now, &header, &event, out),
            Err(refusal) => Err(refusal),
        };
        let placed = match entered {
            Ok(Entered::Appended(placed)) => {
                if let Some(stamp) = header.producer() {
                    self.producers.appended(stamp, header.records(), placed);
                }
                self.raft.appended(now, placed.end);
                placed
            }
            Ok(Entered::Repeated(placed)) if mutant::active(Mutant::DuplicateAckedEarly) => {
                out.produced.push((id, Ok(receipt(&self.raft, placed))));
                return;
            }
            Ok(Entered::Repeated(placed)) => placed,
            Ok(Entered::WrongEnd(conflict)) if mutant::active(Mutant::ConflictBeforeCommitted) => {
                out.produced.push((id, Err(conflict.refusal())));
                return;
            }
            Ok(Entered::WrongEnd(conflict)) => return self.waiters.push_conflict(conflict),
            Err(refusal) => {
                out.produced.push((id, Err(refusal)));
                return;
            }
        };
        match acks {
            AckMode::Async => out.produced.push((id, Ok(receipt(&self.raft, placed)))),
            AckMode::SemiSync | AckMode::Sync => {
                self.waiters.push(acks, Waiter { id, placed, deadline });
            }
        }
    }

    fn may_produce(&self, now: Millis, event: &ProduceEvent) -> Result<(), WireError> {
        let ProduceEvent { acks, leader_term, expected_end, .. } = *event;
        if let Failure::Final(reason) = &self.failure {
            return Err(WireError::new(ErrorCode::StorageFailed, reason.clone()));
        }
        let (partition, term) = (self.partition, self.raft.term());
        if !self.raft.is_leader() {
            return Err(self.not_leader());
        }
        if self.raft.term_mark_due() {
            let detail = format!("the disk has no room for {partition}'s first entry of its term");
            return Err(WireError::new(ErrorCode::DiskFull, detail));
        }
        if self.shortage.producers_due() {
            let detail =
                format!("broker {} has no descriptors left for files of {partition}", self.me);
            return Err(WireError::new(ErrorCode::DiskFull, detail));
        }
        if let Some(heir) = self.raft.transferring_to() {
            let detail = format!("leadership of {partition} is being handed to broker {heir}");
            return Err(WireError::new(ErrorCode::NotLeader, detail));
        }
        if let Some(known) = leader_term.filter(|known| *known != term) {
            let code = match known < term {
                true => ErrorCode::FencedLeaderEpoch,
                false => ErrorCode::UnknownLeaderEpoch,
            };
            let detail = format!("the leader of {partition} is in term {term}, not {known}");
            return Err(WireError::new(code, detail));
        }
        let (needed, in_sync) = (self.options.insync_replicas_min, self.raft.in_sync(now).count());
        if acks == AckMode::Sync && in_sync < usize::from(needed) {
            let detail = format!("{in_sync} replicas of {partition} are in sync, {needed} needed");
            return Err(WireError::new(ErrorCode::NotEnoughReplicas, detail));
        }
        let may_wait = acks != AckMode::Async || expected_end.is_some();
        if may_wait && self.waiters.are_full() {
            let detail = format!("too many produces wait for the replicas of {partition}");
            return Err(WireError::new(ErrorCode::Overloaded, detail));
        }
        Ok(())
    }

    fn enter(
        &mut self,
        now: Millis,
        header: &FrameHeader,
        event: &ProduceEvent,
        out: &mut Output,
    ) -> Result<Entered, WireError> {
        let (term, batch) = (self.raft.term(), &event.batch);
        let conflict = self.conflict(event);
        if let Some(conflict) = conflict.filter(|_| mutant::active(Mutant::ConditionBeforeRepeat)) {
            return Ok(Entered::WrongEnd(conflict));
        }
        if let Some(stamp) = header.producer() {
            match self.producers.check(stamp, header.records()) {
                Verdict::Fresh => {}
                Verdict::Duplicate(placed) => return Ok(Entered::Repeated(placed)),
                Verdict::Unknown | Verdict::OutOfOrder { .. } | Verdict::Fenced { .. } => {
                    return Err(self.out_of_sequence(header));
                }
            }
        }
        // Behind the look for repeats: one that was written moved the end itself.
        if let Some(conflict) = conflict {
            return Ok(Entered::WrongEnd(conflict));
        }
        let room = self.log.room_for(self.log.end(), batch.len() as u64, 1);
        match room.and_then(|()| self.log.append(term, batch)) {
            Ok(appended) => {
                self.noted_append(now);
                let (base_offset, end) = (appended.base_offset, appended.end);
                let stamped = header.is_log_append_time().then_some(header.max_timestamp);
                Ok(Entered::Appended(Placed { base_offset, end, term, stamped }))
            }
            // A full disk changed nothing, and others may still make room.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let detail = format!("{}: {error}", self.partition);
                Err(WireError::new(ErrorCode::DiskFull, detail))
            }
            Err(error) => {
                let refusal = WireError::new(ErrorCode::StorageFailed, error.to_string());
                self.fail(&error, out);
                Err(refusal)
            }
        }
    }

    /// What a batch's condition comes to if the log does not end where it says.
    fn conflict(&self, event: &ProduceEvent) -> Option<Conflict> {
        let expected = event.expected_end.filter(|_| !mutant::active(Mutant::ConditionIgnored))?;
        let (compared, end) = match mutant::active(Mutant::ConditionOnCommitted) {
            true => self.log.boundary_until(self.raft.commit()).ok()?,
            false => (self.log.end(), self.log.end_offset()),
        };
        let (id, partition, deadline) = (event.id, self.partition, event.deadline);
        let conflict = Conflict { id, partition, expected, end, compared, deadline };
        (end != expected).then_some(conflict)
    }

    fn out_of_sequence(&self, header: &FrameHeader) -> WireError {
        let stamp = header.producer().expect("only a producer's batch has a sequence");
        let (id, epoch, sequence) = (stamp.id, stamp.epoch, stamp.base_sequence);
        let (code, detail) = match self.producers.check(stamp, header.records()) {
            Verdict::OutOfOrder { expected } => (
                ErrorCode::OutOfOrderSequence,
                format!("producer {id} sent sequence {sequence} where {expected} comes next"),
            ),
            Verdict::Fenced { newer } => (
                ErrorCode::ProducerFenced,
                format!("producer {id} wrote with epoch {newer}; epoch {epoch} is over"),
            ),
            Verdict::Fresh | Verdict::Duplicate(_) | Verdict::Unknown => (
                ErrorCode::UnknownProducer,
                format!("producer {id} is not known here: start a new epoch at sequence 0"),
            ),
        };
        WireError::new(code, detail)
    }

    pub(super) fn not_leader(&self) -> WireError {
        let (partition, term) = (self.partition, self.raft.term());
        let detail = match self.raft.leader() {
            Some(leader) => format!("broker {leader} leads {partition} in term {term}"),
            None => format!("{partition} has no leader that this broker knows of"),
        };
        WireError::new(ErrorCode::NotLeader, detail)
    }
}
