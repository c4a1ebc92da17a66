//! Handing leadership over (Raft thesis, section 3.10): the leader takes no more produces, waits until
//! the heir has all it has, and tells it to stand at once.

use highwater_protocol::ids::NodeId;
use highwater_protocol::peer::RaftMessage;

use super::{Millis, Raft, Role};

/// A transfer under way.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    pub(super) gives_up_at: Millis,
    told_at: Option<Millis>,
}

/// Why leadership is not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferRefused {
    /// This replica does not lead.
    NotLeader,
    /// The wished heir is no voter, or leads already.
    NotAnHeir(NodeId),
    /// No other voter was heard of lately.
    NobodyElse,
    /// A transfer is under way already.
    UnderWay,
}

impl Raft {
    /// Starts to hand leadership to `to`, or to the voter that is furthest on.
    pub fn transfer(&mut self, now: Millis, to: Option<NodeId>) -> Result<NodeId, TransferRefused> {
        let window = self.options.election_ms_max;
        let Role::Leader(leader) = &mut self.role else { return Err(TransferRefused::NotLeader) };
        if leader.transfer.is_some() {
            return Err(TransferRefused::UnderWay);
        }
        let voters = &self.membership.current().voters;
        let heir = match to {
            Some(to) if to == self.me || !voters.contains(&to) => {
                return Err(TransferRefused::NotAnHeir(to));
            }
            Some(to) => to,
            None => leader.furthest(now, window, voters).ok_or(TransferRefused::NobodyElse)?,
        };
        let gives_up_at = Millis(now.0 + window);
        leader.transfer = Some(Transfer { to: heir, gives_up_at, told_at: None });
        self.pump_transfer(now);
        Ok(heir)
    }

    /// To whom leadership is being handed.
    pub fn transferring_to(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer.as_ref().map(|transfer| transfer.to),
            Role::Follower { .. } | Role::Candidate(_) => None,
        }
    }

    /// Moves a transfer on: tells an heir that has everything, and gives up in time.
    pub(super) fn pump_transfer(&mut self, now: Millis) {
        let end = self.terms.last().index;
        let term = self.hard.term;
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let heir = leader.peers.get(&transfer.to);
        if now >= transfer.gives_up_at || heir.is_none() {
            leader.transfer = None;
            return;
        }
        let has_all = heir.is_some_and(|heir| heir.appended == end);
        let silent = |at: Millis| now.0.saturating_sub(at.0) >= self.options.resend_ms;
        if has_all && transfer.told_at.is_none_or(silent) {
            transfer.told_at = Some(now);
            let to = transfer.to;
            self.send(to, RaftMessage::TimeoutNow { term });
        }
    }
}
