//! Which group of its partition a replica belongs to, after a majority was lost for good.
//!
//! A recovery makes a new group out of one replica's log. In it the founder alone votes at first, and
//! voters that marks of earlier terms name are void: they are those of the group that was given up,
//! and two of them may still have a majority of it. All terms of the new group come after `since`,
//! which the record of the recovery sets far above any term that was known; so the rule needs
//! nothing but the record, and every replica of the group goes by it, however little of the log it
//! has. From there on it is a Raft group like any other.

use highwater_protocol::batch::{Mark, VoterSet};
use highwater_protocol::ids::{LogIndex, NodeId, RecoveryEpoch, Term};

use crate::log::PlacedMark;
use crate::mutant::{self, Mutant};

/// The recovery that began a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Counts the recoveries of the partition.
    pub epoch: RecoveryEpoch,
    /// Whose replica's log it began with.
    pub founder: NodeId,
    /// The first term that is the group's own.
    pub since: Term,
}

/// The epoch of a group; the first one was begun by no recovery.
pub fn epoch_of(recovery: Option<Recovery>) -> RecoveryEpoch {
    recovery.map_or(RecoveryEpoch::default(), |recovery| recovery.epoch)
}

/// The first term whose voter marks hold in a group.
pub(super) fn since(recovery: Option<Recovery>) -> Term {
    match mutant::active(Mutant::OldVotersCount) {
        true => Term(0),
        false => recovery.map_or(Term(0), |recovery| recovery.since),
    }
}

/// The term that a replica of a group knows at least.
pub(super) fn term_min(recovery: Option<Recovery>) -> Term {
    match mutant::active(Mutant::RecoveredInOldTerm) {
        true => Term(0),
        false => recovery.map_or(Term(0), |recovery| Term(recovery.since.0.saturating_sub(1))),
    }
}

/// Who votes before any mark of the group itself says otherwise.
pub(super) fn made_with(
    recovery: Option<Recovery>,
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
) -> VoterSet {
    match recovery {
        None => VoterSet { voters, learners },
        Some(Recovery { founder, .. }) => {
            // The founder may come back to its own group, which made it a learner there.
            let learners = learners.into_iter().filter(|learner| *learner != founder).collect();
            VoterSet { voters: vec![founder], learners }
        }
    }
}

/// The change of voters that a mark is, with its end, if it is one of this group.
pub(super) fn voter_set(since: Term, placed: PlacedMark) -> Option<(LogIndex, VoterSet)> {
    match placed.mark {
        Mark::TermStart | Mark::LogStart(_) => None,
        Mark::Voters(set) => (placed.term >= since).then_some((placed.end, set)),
    }
}
