//! Consumer groups from seeds: no partition with two owners, no commit taken back, and rest in the end; and planted
//! bugs that the same rules find.

use highwater_broker::mutant::{self, Mutant};
use highwater_broker::sim::groups::{self, DEPLOY_SESSION_MS, PARTITIONS, Restarts, Seen};

#[test]
fn no_seed_gives_a_partition_to_two_or_takes_a_commit_back() {
    let mut total = Seen::default();
    for seed in 0..SEEDS {
        let seen = groups::play(seed).unwrap_or_else(|broken| panic!("seed {seed}:\n{broken}"));
        total.commits += seen.commits;
        total.revoked += seen.revoked;
        total.failovers += seen.failovers;
        total.crashes += seen.crashes;
        total.returned += seen.returned;
    }
    assert!(total.commits > 20 * SEEDS && total.revoked > 3 * SEEDS, "{total:?}");
    assert!(total.failovers > SEEDS && total.crashes > SEEDS / 2, "{total:?}");
    assert!(total.returned > SEEDS / 20, "{total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 2, 3] {
        assert_eq!(groups::play(seed), groups::play(seed));
    }
}

#[test]
fn a_rolling_deploy_stops_only_what_moves_and_what_a_lost_member_had_is_handled_within_its_session()
{
    for seed in 0..DEPLOYS {
        for restarts in [Restarts::Named, Restarts::Nameless] {
            let deployed = groups::deploy(seed, restarts)
                .unwrap_or_else(|broken| panic!("seed {seed}, {restarts:?}:\n{broken}"));
            println!("{seed}, {restarts:?}: {deployed:?}");
            assert!(deployed.moved <= moves_needed(restarts), "{deployed:?}");
            assert!(deployed.stopped_ms_max <= STOPPED_MS, "{deployed:?}");
            assert!(deployed.orphaned > 0, "{deployed:?}");
            assert!(deployed.orphaned_ms_max <= DEPLOY_SESSION_MS, "{deployed:?}");
        }
    }
}

/// With a name each partition goes from one life of its member to the next; without one, to somebody who stays and
/// back to somebody new.
fn moves_needed(restarts: Restarts) -> u64 {
    match restarts {
        Restarts::Named => u64::from(PARTITIONS),
        Restarts::Nameless => 2 * u64::from(PARTITIONS),
    }
}

#[test]
fn planted_bugs_are_found_by_seeds() {
    let mut survivors = Vec::new();
    for bug in [
        Mutant::OldBeatCounts,
        Mutant::RevokedAtOnce,
        Mutant::GivenBeforeTaken,
        Mutant::TargetGivenAtOnce,
        Mutant::OldCommitCounts,
        Mutant::OldTermCommits,
        Mutant::SessionsEndEarly,
        Mutant::SilentStay,
        Mutant::PlaceTaken,
        Mutant::OffsetsGoWithMembers,
        Mutant::LeaverNotMissed,
        Mutant::GrowthUnseen,
        Mutant::NotEvened,
    ] {
        let found = first_that(bug, is_found);
        println!("{bug:?}: {found:?}");
        if found.is_none() {
            survivors.push(bug);
        }
    }
    assert!(survivors.is_empty(), "not found within {SEEDS_MAX} seeds: {survivors:?}");
}

#[test]
fn moves_that_were_not_needed_are_found_by_a_deploy() {
    for bug in [Mutant::NotSticky, Mutant::PlaceNotKept] {
        let found = first_that(bug, |seed| {
            let deployed = groups::deploy(seed, Restarts::Named);
            !deployed.is_ok_and(|it| it.moved <= moves_needed(Restarts::Named))
        });
        assert_eq!(found, Some(0), "{bug:?} ({}) is not found", bug.breaks());
    }
}

fn first_that(bug: Mutant, fails: impl Fn(u64) -> bool) -> Option<u64> {
    mutant::choose(Some(bug));
    let found = (0..SEEDS_MAX).find(|seed| fails(*seed));
    mutant::choose(None);
    found
}

/// A rule is broken, or a decision or a record makes no sense any more.
fn is_found(seed: u64) -> bool {
    let played = std::panic::catch_unwind(|| groups::play(seed));
    !matches!(played, Ok(Ok(_)))
}

const SEEDS: u64 = 200;
const DEPLOYS: u64 = 2;
/// A member takes up to two seconds to give a partition up, and the next one hears of it within one.
const STOPPED_MS: u64 = 5_000;
const SEEDS_MAX: u64 = 2_000;
