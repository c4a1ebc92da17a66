//! Real brokers under chaos, for about a minute: the short form of `examples/chaos.rs`.
//!
//! The seed is the same each time unless `HIGHWATER_CHAOS_SEED` says another; how the processes and the network
//! take their turns is not, so that a seed gives the same plan and not the same run.

mod common;

use std::collections::BTreeSet;

use common::chaos::plan::{self, Fault, Script, Step, Victim};
use common::chaos::run::{Options, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_a_minority_is_tormented() {
    let seed = std::env::var("HIGHWATER_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(1);
    let menu = Fault::all();
    let options = Options {
        seed,
        script: Script::Random,
        nodes: 3,
        seconds: 50,
        menu,
        other: None,
        keep: None,
    };
    eprintln!("seed {seed}");
    let outcome = run(&options).await;
    let told = serde_json::to_string_pretty(&outcome).expect("plain data");
    assert!(outcome.failures.is_empty(), "seed {seed}\n{told}\n{}", outcome.history.page());
    assert!(outcome.healing.elections > 0, "leaders were killed\n{told}");
    assert!(outcome.datagrams_touched > 0, "{told}");
    assert!(outcome.fired.len() * 5 >= options.menu.len() * 3, "too little was fired\n{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_ends_by_itself_is_what_its_run_finds() {
    let kept = tempfile::tempdir().expect("a temporary directory");
    let menu = vec![Fault::Unasked];
    let keep = Some(kept.path().to_owned());
    let options =
        Options { seed: 5, script: Script::Random, nodes: 3, seconds: 8, menu, other: None, keep };
    let outcome = run(&options).await;
    let told = serde_json::to_string_pretty(&outcome).expect("plain data");
    assert_eq!(outcome.deaths.len() as u64, outcome.fired["unasked"], "{told}");
    assert!(outcome.deaths.iter().all(|death| death.exit.contains("signal: 9")), "{told}");
    let of_deaths = |failure: &&String| failure.contains("ended by itself");
    assert_eq!(outcome.failures.iter().filter(of_deaths).count(), outcome.deaths.len(), "{told}");
    assert!(outcome.history.is_clean() && outcome.acked > 0, "{told}");
    assert!(outcome.kept.is_some_and(|dir| dir.join("history").is_file()), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_go_from_one_program_to_another_and_back_under_load() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // A second build is not at hand here; under another name it is another program, too.
    let other = dir.path().join("other");
    std::os::unix::fs::symlink(common::program(), &other).expect("the directory is ours");
    let (script, menu, other) = (Script::RollingBack, Vec::new(), Some(other));
    let options = Options { seed: 3, script, nodes: 3, seconds: 16, menu, other, keep: None };
    let outcome = run(&options).await;
    let told = serde_json::to_string_pretty(&outcome).expect("plain data");
    assert!(outcome.failures.is_empty(), "{told}\n{}", outcome.history.page());
    assert_eq!(outcome.fired["other-build"], outcome.steps.len() as u64, "{told}");
    assert!(outcome.healing.read_again > 0, "{told}");
}

#[test]
fn a_rolling_plan_ends_with_every_broker_in_the_new_build() {
    for seed in 0..200 {
        for (script, goes_back) in [(Script::Rolling, false), (Script::RollingBack, true)] {
            let steps = plan::steps(script, seed, 3, 60, &[]);
            assert!(steps.windows(2).all(|two| two[0].at_ms + two[0].for_ms < two[1].at_ms));
            for node in 1..=3 {
                let changes = steps.iter().filter(|step| step.victim == Victim::Node(node)).count();
                assert!(changes == 1 || goes_back && changes == 3, "seed {seed}, broker {node}");
            }
            assert_eq!(steps.len() > 3, goes_back, "seed {seed}");
        }
        let menu = [Fault::OtherBuild, Fault::Kill];
        let steps = plan::steps(Script::Random, seed, 3, 60, &menu).into_iter();
        let changes = steps.filter(|step| step.fault == Fault::OtherBuild);
        let changed: BTreeSet<String> = changes.map(|step| format!("{:?}", step.victim)).collect();
        assert_eq!(changed.len(), 3, "seed {seed}");
    }
}

#[test]
fn a_seed_gives_the_same_plan_and_another_seed_another_one() {
    let plan = |seed| plan::steps(Script::Random, seed, 3, 60, &Fault::all());
    assert_eq!(plan(7), plan(7));
    assert_ne!(plan(7), plan(8));
}

#[test]
fn only_a_minority_is_ever_hit_at_once_by_the_random_plan() {
    for seed in 0..200 {
        let steps = plan::steps(Script::Random, seed, 3, 120, &Fault::all());
        assert!(steps.windows(2).all(|two| two[0].at_ms + two[0].for_ms < two[1].at_ms));
        let damaged = |step: &&Step| matches!(step.fault, Fault::File(_));
        let victims: Vec<Victim> = steps.iter().filter(damaged).map(|step| step.victim).collect();
        assert!(victims.windows(2).all(|two| two[0] == two[1]), "seed {seed} damages two brokers");
    }
}

#[test]
fn every_fault_has_a_name_of_its_own() {
    for fault in Fault::with_other_build() {
        assert_eq!(Fault::named(fault.name()), Some(fault));
    }
}
