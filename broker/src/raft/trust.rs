//! Whether this replica's log can be believed: a replica that may have lost what it once counted is
//! Suspect, and neither votes nor stands.
//!
//! A majority once counted each committed entry, so a voter that lost such an entry could help elect
//! a leader without it. Suspicion ends in one of two ways. Either the replica accepts, in this life,
//! and counts all that a leader which committed in its own term has committed. Or every voter, this one
//! included, has said in this life of ours where its log ends: then nothing better than the highest
//! of them exists, and the replica helps only a candidate that is at least as high. What was said to
//! no life in particular does not count: it may be older than this life, and than what this replica
//! counted last in the one before (`model/Suspect.tla`). The second way
//! accepts a loss that every voter suffered; it is closed to a replica whose files were lost, for it
//! has forgotten its votes, and to one whose files are damaged, for they may still be repaired.
//!
//! A voter that forgot its votes may also have promised to follow the leader that it hears no more. So it
//! lets that one count nothing of it, and asks it to win once more. Whoever wins after asking this very
//! life for its vote has a majority without it, and one of these knows of whatever a majority with it
//! took part in. Of two voters the leader is in every majority, and nothing can have passed it by.

use std::collections::BTreeMap;

use crate::mutant::{self, Mutant};
use highwater_protocol::ids::{NodeId, Position, Term};

use super::quorum::VOTERS_MAX;

/// Why a replica starts Suspect, if it does; the graver the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suspicion {
    /// It has all that it ever counted.
    None,
    /// The tail of its log may be lost.
    LostTail,
    /// Entries that were on disk cannot be read.
    Damage,
    /// Log and votes may be lost.
    LostIdentity,
}

/// Whether it knows in which terms it voted, and which leaders it follows no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Votes {
    /// It does.
    Known,
    /// They are lost; and who asked this life last for its vote, in which term.
    Forgotten { asked: Option<(Term, NodeId)> },
}

impl Votes {
    pub(super) fn new(why: Suspicion) -> Votes {
        match why {
            Suspicion::None | Suspicion::LostTail | Suspicion::Damage => Votes::Known,
            Suspicion::LostIdentity => Votes::Forgotten { asked: None },
        }
    }

    /// Somebody stands in a term, and asked this life.
    pub(super) fn asked(&mut self, term: Term, from: NodeId) {
        if let Votes::Forgotten { asked } = self {
            *asked = Some((term, from));
        }
    }

    /// Whether it may have promised to follow the leader of `term` no more.
    pub(super) fn may_bar(self, term: Term, leader: NodeId) -> bool {
        match self {
            Votes::Known => false,
            Votes::Forgotten { asked } => asked != Some((term, leader)),
        }
    }
}

/// How far this replica trusts its own log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It has all that it ever counted.
    Full,
    /// It may have lost something; where the voters said that their logs end.
    Suspect { reports: BTreeMap<NodeId, Position>, why: Suspicion },
    /// No voter has more than this.
    NotBelow(Position),
}

impl Trust {
    pub(super) fn new(why: Suspicion) -> Trust {
        match why {
            Suspicion::None => Trust::Full,
            Suspicion::LostTail | Suspicion::Damage | Suspicion::LostIdentity => {
                Trust::Suspect { reports: BTreeMap::new(), why }
            }
        }
    }

    /// What it may have lost; a floor is only as good as the voters' word, so the doubt stays.
    pub(super) fn suspicion(&self) -> Suspicion {
        match self {
            Trust::Full => Suspicion::None,
            Trust::Suspect { why, .. } => *why,
            Trust::NotBelow(_) => Suspicion::LostTail,
        }
    }

    /// Whether it may vote for, or stand with, a log that ends at `last`.
    pub(super) fn allows(&self, last: Position) -> bool {
        match self {
            Trust::Full => true,
            Trust::Suspect { .. } => mutant::active(Mutant::SuspectVotes),
            Trust::NotBelow(floor) => last >= *floor,
        }
    }

    /// A replica said where its log ends.
    pub(super) fn reported(&mut self, from: NodeId, last: Position) {
        match self {
            Trust::Full | Trust::NotBelow(_) => {}
            Trust::Suspect { reports, .. } => {
                // More than the voters and a few that were voters lately never ask for votes.
                if reports.len() < 2 * VOTERS_MAX || reports.contains_key(&from) {
                    reports.insert(from, last);
                }
            }
        }
    }

    /// Draws the conclusion once all voters have spoken; `own` is where our own log ends.
    pub(super) fn settle(&mut self, me: NodeId, own: Position, voters: &[NodeId]) {
        let Trust::Suspect { reports, why: Suspicion::LostTail } = self else { return };
        if voters.iter().all(|voter| *voter == me || reports.contains_key(voter)) {
            let highest = voters.iter().filter_map(|voter| reports.get(voter)).max();
            *self = Trust::NotBelow(highest.copied().unwrap_or(own).max(own));
        }
    }

    /// There is a leader: what was said before it came may soon not be the whole truth. A floor
    /// stays: it bounds what this replica counted in an earlier life, and that changes no more.
    pub(super) fn leader_came(&mut self) {
        match self {
            Trust::Full | Trust::NotBelow(_) => {}
            Trust::Suspect { reports, .. } => reports.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::ids::LogIndex;

    fn at(term: u32, index: u64) -> Position {
        Position { term: Term(term), index: LogIndex(index) }
    }

    const VOTERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

    fn after_reports(why: Suspicion, reports: &[(u32, Position)]) -> Trust {
        let mut trust = Trust::new(why);
        for (from, last) in reports {
            trust.reported(NodeId(*from), *last);
            trust.settle(NodeId(1), at(1, 5), &VOTERS);
        }
        trust
    }

    #[test]
    fn a_suspect_trusts_only_the_highest_once_all_voters_have_spoken() {
        let trust = after_reports(Suspicion::LostTail, &[(2, at(1, 7)), (9, at(9, 9))]);
        assert!(!trust.allows(at(9, 9)));
        let trust = after_reports(Suspicion::LostTail, &[(2, at(1, 7)), (3, at(2, 6))]);
        assert!(trust.allows(at(2, 6)));
        assert!(!trust.allows(at(1, 7)));
    }

    #[test]
    fn a_replica_that_lost_its_files_is_not_cleared_by_reports() {
        for why in [Suspicion::LostIdentity, Suspicion::Damage] {
            let trust = after_reports(why, &[(2, at(1, 7)), (3, at(1, 7))]);
            assert!(!trust.allows(at(1, 7)));
        }
    }
}
