//! What a replica wants done: the shard folds it into its effects.

use highwater_protocol::error::WireError;
use highwater_protocol::ids::{NodeId, Offset};
use highwater_protocol::native::produce::Receipt;
use highwater_protocol::peer::RaftMessage;

use crate::log::Mend;

use super::event::{AdminReply, Lane, Leadership, RequestId};

/// Everything that one replica asked for since its output was last taken.
#[derive(Debug, Default)]
pub struct Output {
    /// Messages in the order in which they should leave.
    pub messages: Vec<Outgoing>,
    /// Answers to produces.
    pub produced: Vec<(RequestId, Result<Receipt, WireError>)>,
    /// Answers to commands.
    pub answered: Vec<(RequestId, Result<AdminReply, WireError>)>,
    /// The high watermark, if it rose.
    pub committed: Option<Offset>,
    /// What is known of the leadership, if that changed.
    pub leadership: Option<Leadership>,
    /// Copying to be done for damaged segments.
    pub mends: Vec<Mend>,
    /// How many damaged batches are whole again.
    pub repaired: u64,
    /// Why the replica is out of service, said once.
    pub failed: Option<String>,
}

/// A message and its road.
#[derive(Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub to: NodeId,
    /// By which road.
    pub lane: Lane,
    /// The message.
    pub message: RaftMessage,
}

impl Output {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.produced.is_empty()
            && self.answered.is_empty()
            && self.committed.is_none()
            && self.leadership.is_none()
            && self.mends.is_empty()
            && self.repaired == 0
            && self.failed.is_none()
    }
}
