//! What a majority of voters has reached: the arithmetic that all safety rests on.
//!
//! Pure functions over a list of voters. A set without voters has no majority of anything.

use crate::mutant::{self, Mutant};
use highwater_protocol::ids::{LogIndex, NodeId};

/// The most voters a group may have: bounds what an election and a commit look at.
pub const VOTERS_MAX: usize = 15;

/// Whether more than half of `voters` satisfy `holds`.
pub fn is_majority(voters: &[NodeId], holds: impl Fn(NodeId) -> bool) -> bool {
    let count = voters.iter().filter(|voter| holds(**voter)).count();
    count * 2 > voters.len()
}

/// The highest end that more than half of `voters` have reached.
pub fn majority_end(voters: &[NodeId], reached: impl Fn(NodeId) -> LogIndex) -> LogIndex {
    assert!(voters.len() <= VOTERS_MAX, "{} voters are more than {VOTERS_MAX}", voters.len());
    let mut ends = [LogIndex::ZERO; VOTERS_MAX];
    for (end, voter) in ends.iter_mut().zip(voters) {
        *end = reached(*voter);
    }
    let ends = &mut ends[..voters.len()];
    ends.sort_unstable();
    // Ascending: the entry at (n - 1) / 2 is reached by itself and the n / 2 behind it.
    match ends.len() {
        0 => LogIndex::ZERO,
        count if mutant::active(Mutant::CommitByMinority) => ends[(count / 2 + 1).min(count - 1)],
        count => ends[(count - 1) / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ends: &[u64], expected: u64) {
        let voters: Vec<NodeId> = (0..ends.len() as u32).map(NodeId).collect();
        let got = majority_end(&voters, |voter| LogIndex(ends[voter.0 as usize]));
        assert_eq!(got, LogIndex(expected), "of {ends:?}");
    }

    #[test]
    fn the_majority_end_is_held_by_more_than_half_and_by_no_fewer() {
        check(&[], 0);
        check(&[7], 7);
        check(&[7, 3], 3);
        check(&[7, 3, 5], 5);
        check(&[7, 3, 5, 9], 5);
        check(&[7, 3, 5, 9, 1], 5);
        check(&[0, 0, 9, 9], 0);
        check(&[4, 4, 4, 4, 4], 4);
    }

    #[test]
    fn half_is_not_a_majority() {
        let voters: Vec<NodeId> = (0..4).map(NodeId).collect();
        assert!(!is_majority(&voters, |voter| voter.0 < 2));
        assert!(is_majority(&voters, |voter| voter.0 < 3));
        assert!(!is_majority(&[], |_| true));
    }

    #[test]
    fn any_two_majorities_of_neighbouring_voter_sets_share_a_voter() {
        // What allows one voter change at a time (Raft thesis, section 4.1), for up to 6 voters.
        for before in 1u32..6 {
            let (old, new): (Vec<_>, Vec<_>) =
                ((0..before).map(NodeId).collect(), (0..=before).map(NodeId).collect());
            for a in 0u32..1 << before {
                for b in 0u32..1 << (before + 1) {
                    let (a_has, b_has) = (
                        is_majority(&old, |voter| a >> voter.0 & 1 == 1),
                        is_majority(&new, |voter| b >> voter.0 & 1 == 1),
                    );
                    assert!(!(a_has && b_has) || a & b != 0, "{a:b} and {b:b} are disjoint");
                }
            }
        }
    }
}
