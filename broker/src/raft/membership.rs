//! Who votes and who only listens: voter sets as they stand in the log.
//!
//! A change takes effect when its mark is appended, not when it is committed, and is undone when
//! the mark is truncated (Raft thesis, section 4.1). Sets differ by one voter at most, so that
//! any two majorities overlap; and a leader changes nothing before it has committed in its own term
//! and the change before is committed (the fix of 2015 to single-server changes).

use highwater_protocol::batch::VoterSet;
use highwater_protocol::ids::{LogIndex, NodeId};

use super::quorum::VOTERS_MAX;

/// The sets that the log names, oldest first, on top of the one the group was made with.
#[derive(Debug)]
pub(super) struct Membership {
    made_with: VoterSet,
    changes: Vec<(LogIndex, VoterSet)>,
    /// The end of the last mark that was of no use any more.
    forgotten: LogIndex,
}

impl Membership {
    pub(super) fn new(made_with: VoterSet) -> Membership {
        Membership { made_with, changes: Vec::new(), forgotten: LogIndex::ZERO }
    }

    /// The set in force.
    pub(super) fn current(&self) -> &VoterSet {
        self.changes.last().map_or(&self.made_with, |(_, set)| set)
    }

    /// The end of the mark that put the current set in force.
    pub(super) fn current_end(&self) -> LogIndex {
        self.changes.last().map_or(LogIndex::ZERO, |(end, _)| *end)
    }

    /// How far behind `from` the voters surely stay those who are in force there.
    pub(super) fn unchanged_from(&self, from: LogIndex) -> LogIndex {
        if from < self.forgotten {
            return from;
        }
        let next = self.changes.iter().find(|(end, _)| *end > from);
        next.map_or(LogIndex(u64::MAX), |(end, _)| LogIndex(end.0 - 1))
    }

    /// A mark with a new set was appended.
    pub(super) fn appended(&mut self, end: LogIndex, set: VoterSet) {
        assert!(end > self.current_end() || self.changes.is_empty(), "marks come in order");
        self.changes.push((end, set));
    }

    /// The log starts anew at a place where this set holds, or the one that the group was made with.
    pub(super) fn start_anew(&mut self, set: Option<(LogIndex, VoterSet)>) {
        self.changes = set.into_iter().collect();
    }

    /// The log was cut: sets behind the cut never were.
    pub(super) fn truncate(&mut self, to: LogIndex) {
        self.changes.retain(|(end, _)| *end <= to);
    }

    /// Sets before the last committed one are of no use any more.
    pub(super) fn committed(&mut self, commit: LogIndex) {
        let behind = self.changes.partition_point(|(end, _)| *end <= commit);
        if let Some((end, _)) = self.changes.drain(..behind.saturating_sub(1)).next_back() {
            self.forgotten = end;
        }
    }

    /// Whether `node` may be needed as a leader. A replica that is no voter in its newest set may be
    /// the only one with the entries to win, until that set is known to be committed (Raft thesis,
    /// section 4.2.2).
    pub(super) fn may_stand(&self, node: NodeId, commit: LogIndex) -> bool {
        let in_flight = self.current_end() > commit;
        self.is_voter(node) || in_flight && self.before().contains(&node)
    }

    /// The voters before the last change that is remembered.
    pub(super) fn before(&self) -> &Vec<NodeId> {
        let before = self.changes.len().checked_sub(2);
        &before.map_or(&self.made_with, |at| &self.changes[at].1).voters
    }

    pub(super) fn is_voter(&self, node: NodeId) -> bool {
        self.current().voters.contains(&node)
    }
}

/// The next change on the way from `current` to `target`, or `None` when it is reached or has to
/// wait. Newcomers learn first; a learner becomes a voter when `caught_up`; the leader goes last.
pub fn next_step(
    current: &VoterSet,
    target: &VoterSet,
    leader: NodeId,
    caught_up: impl Fn(NodeId) -> bool,
) -> Option<VoterSet> {
    let mut next = current.clone();
    let known = |node: &NodeId| current.voters.contains(node) || current.learners.contains(node);
    let newcomers = target.voters.iter().chain(&target.learners).filter(|node| !known(node));
    next.learners.extend(newcomers);
    if next != *current {
        return Some(next);
    }
    let added = target.voters.iter().find(|node| !current.voters.contains(node));
    if let Some(added) = added {
        if !caught_up(*added) {
            return None;
        }
        next.voters.push(*added);
        next.learners.retain(|node| node != added);
        return Some(next);
    }
    let leaves = |node: &&NodeId| !target.voters.contains(node);
    let removed = current.voters.iter().filter(leaves).min_by_key(|node| **node == leader);
    if let Some(removed) = removed {
        next.voters.retain(|node| node != removed);
        if target.learners.contains(removed) {
            next.learners.push(*removed);
        }
        return Some(next);
    }
    next.learners.retain(|node| target.learners.contains(node));
    (next != *current).then_some(next)
}

/// Why a set of voters cannot be aimed at.
pub fn check_target(target: &VoterSet) -> Result<(), &'static str> {
    let twice = |list: &[NodeId]| (1..list.len()).any(|at| list[..at].contains(&list[at]));
    if target.voters.is_empty() {
        return Err("a group needs a voter");
    }
    if target.voters.len() > VOTERS_MAX {
        return Err("a group has 15 voters at most");
    }
    if twice(&target.voters) || twice(&target.learners) {
        return Err("a broker is named twice");
    }
    if target.voters.iter().any(|node| target.learners.contains(node)) {
        return Err("a broker cannot be voter and learner at once");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(voters: &[u32], learners: &[u32]) -> VoterSet {
        let nodes = |list: &[u32]| list.iter().copied().map(NodeId).collect();
        VoterSet { voters: nodes(voters), learners: nodes(learners) }
    }

    fn sorted(set: &VoterSet) -> VoterSet {
        let mut set = set.clone();
        set.voters.sort_unstable();
        set.learners.sort_unstable();
        set
    }

    #[test]
    fn every_step_changes_one_voter_at_most_and_the_leader_goes_last() {
        let (start, target) = (set(&[1, 2, 3], &[]), set(&[4, 5, 6], &[2]));
        let (mut current, mut steps) = (start, 0);
        while let Some(next) = next_step(&current, &target, NodeId(1), |_| true) {
            let changed = |a: &VoterSet, b: &VoterSet| {
                a.voters.iter().filter(|node| !b.voters.contains(node)).count()
            };
            assert!(changed(&current, &next) + changed(&next, &current) <= 1, "{next:?}");
            let others_leave = next.voters.iter().any(|node| [2, 3].contains(&node.0));
            assert!(next.voters.contains(&NodeId(1)) || !others_leave, "{next:?}");
            (current, steps) = (next, steps + 1);
            assert!(steps < 20, "the target is never reached");
        }
        assert_eq!(sorted(&current), sorted(&target));
    }

    #[test]
    fn a_learner_is_not_promoted_before_it_caught_up() {
        let (current, target) = (set(&[1], &[2]), set(&[1, 2], &[]));
        assert_eq!(next_step(&current, &target, NodeId(1), |_| false), None);
        assert_eq!(next_step(&current, &target, NodeId(1), |_| true), Some(set(&[1, 2], &[])));
    }

    #[test]
    fn a_set_takes_effect_on_append_and_is_undone_by_truncation() {
        let mut membership = Membership::new(set(&[1, 2, 3], &[]));
        membership.appended(LogIndex(5), set(&[1, 2, 3, 4], &[]));
        membership.appended(LogIndex(9), set(&[1, 2, 3], &[]));
        membership.committed(LogIndex(6));
        membership.truncate(LogIndex(8));
        assert_eq!(membership.current(), &set(&[1, 2, 3, 4], &[]));
        assert!(membership.is_voter(NodeId(4)));
    }

    #[test]
    fn voters_stay_up_to_the_next_change_that_is_remembered_unless_one_before_it_is_forgotten() {
        let mut membership = Membership::new(set(&[1, 2, 3], &[]));
        assert_eq!(membership.unchanged_from(LogIndex(3)), LogIndex(u64::MAX));
        membership.appended(LogIndex(5), set(&[1, 2, 3, 4], &[]));
        membership.appended(LogIndex(9), set(&[1, 2, 3], &[]));
        assert_eq!(membership.unchanged_from(LogIndex(3)), LogIndex(4));
        assert_eq!(membership.unchanged_from(LogIndex(5)), LogIndex(8));
        membership.committed(LogIndex(9));
        assert_eq!(membership.unchanged_from(LogIndex(3)), LogIndex(3));
        assert_eq!(membership.unchanged_from(LogIndex(9)), LogIndex(u64::MAX));
    }

    #[test]
    fn impossible_targets_are_named() {
        assert!(check_target(&set(&[], &[1])).is_err());
        assert!(check_target(&set(&[1, 1], &[])).is_err());
        assert!(check_target(&set(&[1], &[1])).is_err());
        assert!(check_target(&set(&[1], &[2])).is_ok());
    }
}
