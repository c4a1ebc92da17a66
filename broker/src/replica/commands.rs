//! Wishes of the operator and the controller: describe, hand over, change voters, trim.

use std::collections::VecDeque;

use highwater_protocol::batch::VoterSet;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{LogIndex, NodeId};

use super::event::{AdminReply, ReplicaCommand, RequestId};
use crate::mutant::{self, Mutant};
use crate::raft::{Millis, TransferRefused, check_target};

use super::output::Output;
use super::{Failure, Replica};

/// Wishes that take more than one pass.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    transfer: Option<(RequestId, NodeId)>,
    voters: Option<VotersWish>,
    /// Who waits for the log to start there, or later.
    pub(super) trims: VecDeque<(RequestId, LogIndex)>,
}

/// A wish that certain brokers vote.
#[derive(Debug)]
struct VotersWish {
    id: RequestId,
    target: VoterSet,
    /// Where the log ended then. A leader that others have passed by may believe that its wish is true
    /// already; only what it commits behind this place proves that it led when it was asked.
    since: LogIndex,
}

impl Replica {
    /// A request of the operator or the controller.
    pub fn command(
        &mut self,
        now: Millis,
        id: RequestId,
        command: ReplicaCommand,
        out: &mut Output,
    ) {
        self.now = now;
        if let Failure::Final(reason) = &self.failure {
            let error = WireError::new(ErrorCode::StorageFailed, reason.clone());
            out.answered.push((id, Err(error)));
            return;
        }
        match command {
            ReplicaCommand::Describe => {
                let description = AdminReply::Description(self.describe(now));
                out.answered.push((id, Ok(description)));
            }
            ReplicaCommand::Inspect => {
                let seen = AdminReply::Inspection(self.inspect(now));
                out.answered.push((id, Ok(seen)));
            }
            ReplicaCommand::TransferLeader(to) => self.start_transfer(now, id, to, out),
            ReplicaCommand::ChangeVoters { voters, learners } => {
                self.start_change(id, VoterSet { voters, learners }, out);
            }
            ReplicaCommand::MoveVoters { voters, term } => {
                match term == self.raft.term() || mutant::active(Mutant::MoveOutlivesItsTerm) {
                    true => self.start_change(id, VoterSet { voters, learners: Vec::new() }, out),
                    false => out.answered.push((id, Err(self.not_leader()))),
                }
            }
            ReplicaCommand::TrimBefore(offset) => self.start_trim(now, id, offset, out),
            ReplicaCommand::Repair { give_up, start } => {
                self.start_giving_up(now, id, (start, give_up), out);
            }
        }
    }

    /// The voters wished for, while this replica leads.
    pub(super) fn voters_wished(&self) -> Option<&VoterSet> {
        self.wishes.voters.as_ref().map(|wish| &wish.target)
    }

    /// What the next mark of voters has to name: one step towards those wished for; or, where they vote
    /// already and nothing was written since, the same once more.
    pub(super) fn next_voters(&self, now: Millis) -> Option<VoterSet> {
        let VotersWish { target, since, .. } = self.wishes.voters.as_ref()?;
        let step = self.raft.next_voter_set(now, target);
        let unproven = is_same(self.raft.voter_set(), target)
            && self.log.end() <= *since
            && self.raft.may_name_voters()
            && !mutant::active(Mutant::MoveOverUnproven);
        step.or_else(|| unproven.then(|| self.raft.voter_set().clone()))
    }

    /// Answers the wishes that came true or never will.
    pub(super) fn answer_wishes(&mut self, out: &mut Output) {
        let (leads, done) = (self.raft.is_leader(), AdminReply::Done(self.raft.last()));
        if let Some((id, heir)) = self.wishes.transfer {
            let result = match (leads, self.raft.transferring_to()) {
                (false, _) => Some(Ok(done.clone())),
                (true, Some(_)) => None,
                (true, None) => Some(Err(WireError::new(
                    ErrorCode::RequestTimedOut,
                    format!("broker {heir} did not take over {} in time", self.partition),
                ))),
            };
            if let Some(result) = result {
                self.wishes.transfer = None;
                out.answered.push((id, result));
            }
        }
        while let Some((id, start)) = self.wishes.trims.front().copied() {
            let result = match (self.log.start().0 >= start, leads) {
                (true, true) => Ok(AdminReply::Trimmed(self.log.reader().log_start())),
                (false, true) => break,
                (_, false) => Err(self.not_leader()),
            };
            self.wishes.trims.pop_front();
            out.answered.push((id, result));
        }
        let Some(VotersWish { id, target, since }) = &self.wishes.voters else { return };
        let committed =
            self.raft.voter_set_is_committed() || mutant::active(Mutant::MoveOverAtAppend);
        let proven = self.raft.commit() > *since
            || mutant::active(Mutant::MoveOverAtAppend)
            || mutant::active(Mutant::MoveOverUnproven);
        let reached = is_same(self.raft.voter_set(), target) && committed && proven;
        let result = match (reached, leads) {
            (true, _) => Some(Ok(done)),
            (false, true) => None,
            (false, false) => Some(Err(self.not_leader())),
        };
        if let Some(result) = result {
            out.answered.push((*id, result));
            self.wishes.voters = None;
        }
    }

    /// Answers every open wish with an error.
    pub(super) fn drop_wishes(&mut self, error: &WireError, out: &mut Output) {
        let transfer = self.wishes.transfer.take().map(|(id, _)| id);
        let voters = self.wishes.voters.take().map(|wish| wish.id);
        let given_up = self.drop_giving_up();
        let trims = self.wishes.trims.drain(..).map(|(id, _)| id);
        let dropped = transfer.into_iter().chain(voters).chain(trims).chain(given_up);
        out.answered.extend(dropped.map(|id| (id, Err(error.clone()))));
    }

    fn start_transfer(&mut self, now: Millis, id: RequestId, to: Option<NodeId>, out: &mut Output) {
        let partition = self.partition;
        let (code, detail) = match self.raft.transfer(now, to) {
            Ok(heir) => {
                self.wishes.transfer = Some((id, heir));
                return;
            }
            Err(TransferRefused::NotLeader) => {
                out.answered.push((id, Err(self.not_leader())));
                return;
            }
            Err(TransferRefused::NotAnHeir(node)) if node == self.me => {
                out.answered.push((id, Ok(AdminReply::Done(self.raft.last()))));
                return;
            }
            Err(TransferRefused::NotAnHeir(node)) => {
                (ErrorCode::Conflict, format!("broker {node} is no voter of {partition}"))
            }
            Err(TransferRefused::NobodyElse) => (
                ErrorCode::NotEnoughReplicas,
                format!("no other voter of {partition} was heard of lately"),
            ),
            Err(TransferRefused::UnderWay) => (
                ErrorCode::Conflict,
                format!("leadership of {partition} is being handed over already"),
            ),
        };
        out.answered.push((id, Err(WireError::new(code, detail))));
    }

    fn start_change(&mut self, id: RequestId, target: VoterSet, out: &mut Output) {
        if let Err(why) = check_target(&target) {
            let error = WireError::new(ErrorCode::InvalidRequest, why);
            out.answered.push((id, Err(error)));
            return;
        }
        if !self.raft.is_leader() {
            out.answered.push((id, Err(self.not_leader())));
            return;
        }
        let wish = VotersWish { id, target, since: self.log.end() };
        if let Some(older) = self.wishes.voters.replace(wish) {
            let detail = format!("another change of the voters of {} came after", self.partition);
            out.answered.push((older.id, Err(WireError::new(ErrorCode::Superseded, detail))));
        }
    }
}

fn is_same(a: &VoterSet, b: &VoterSet) -> bool {
    let same = |a: &[NodeId], b: &[NodeId]| a.len() == b.len() && a.iter().all(|n| b.contains(n));
    same(&a.voters, &b.voters) && same(&a.learners, &b.learners)
}
