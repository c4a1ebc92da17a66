//! Whole clusters under faults, from seeds: a bounded campaign, the proof that seeds replay, and the
//! scenarios that are worth having by name.
//!
//! Long campaigns: `cargo run --release -p highwater-broker --features sim --example simulate`.

use std::collections::BTreeSet;
use std::path::Path;

use highwater_broker::replica::FlushPolicy;
use highwater_broker::shard::event::ReplicaCommand;
use highwater_broker::sim::checker::{Checked, Death};
use highwater_broker::sim::cluster::Cluster;
use highwater_broker::sim::coverage::Coverage;
use highwater_broker::sim::network::Cut;
use highwater_broker::sim::swarm::Swarm;
use highwater_broker::sim::{self, RunOptions, Verbose};
use highwater_protocol::ids::LogIndex;

const QUICK: RunOptions = RunOptions { fault_ms: 20_000, verbose: Verbose::No };

/// Seeds that once found a bug.
const REGRESSIONS: &[u64] = &[
    1060, 1186, 1225, 1420, 1448, 1865, 2154, 2257, 2459, 3061, 3184, 4643, 20635, 32523, 35318,
    43285, 52465,
];

#[test]
fn no_seed_breaks_an_invariant() {
    let mut reached = Coverage::default();
    for seed in (0..CAMPAIGN_SEEDS).chain(REGRESSIONS.iter().copied()) {
        let outcome = sim::run(seed, QUICK);
        if let Some(failure) = outcome.failure {
            panic!("{failure}");
        }
        reached += &outcome.coverage;
    }
    // A campaign in which nothing happened would pass as well.
    let least = CAMPAIGN_SEEDS;
    assert!(reached.acked_by_mode.iter().all(|acked| *acked > 20 * least), "{reached:#?}");
    assert!(reached.conditions_met > 5 * least, "{reached:#?}");
    assert!(reached.conditions_unmet > least, "{reached:#?}");
    assert!(reached.elections > 3 * least, "{reached:#?}");
    assert!(reached.kills + reached.power_cuts > 2 * least, "{reached:#?}");
    assert!(reached.pauses > least / 2 && reached.cuts > least / 2, "{reached:#?}");
    assert!(reached.truncations > least / 8, "{reached:#?}");
    assert!(reached.trims > least && reached.starts_anew > least / 20, "{reached:#?}");
    assert!(reached.commands > least / 4, "{reached:#?}");
    assert!(reached.moves_begun > least && reached.moves_ended > least / 2, "{reached:#?}");
    assert!(reached.replicas_dropped > least / 5, "{reached:#?}");
    assert!(reached.images_spoilt > 0, "{reached:#?}");
    assert!(reached.full_disks > least / 2 && reached.stuck_passes > least / 10, "{reached:#?}");
    assert!(reached.files_taken > least / 10 && reached.files_refused > least, "{reached:#?}");
    assert!(reached.journals_rotted > least / 5 && reached.journals_lost > 0, "{reached:#?}");
    assert!(reached.suspects > 0 && reached.failed_replicas > 0, "{reached:#?}");
    assert!(reached.rebuilt_replicas > 0, "{reached:#?}");
    assert!(
        reached.spared_replicas > 0 && reached.reopened > least / 2 && reached.rotted > least / 200,
        "{reached:#?}"
    );
    assert!(reached.rotted_amid_trims > 0, "{reached:#?}");
    assert!(reached.pages_spoilt > 0 && reached.replicas_emptied > 0, "{reached:#?}");
    assert!(reached.died_booting > least / 100, "{reached:#?}");
    assert!(reached.repaired > 0, "{reached:#?}");
    assert!(
        reached.lost_for_good > least / 20
            && reached.gaps > least / 20
            && reached.losses_refused > 0,
        "{reached:#?}"
    );
    assert!(reached.from_the_past > 0 && reached.frozen_disks > least / 50, "{reached:#?}");
    assert!(reached.flush_changes > least / 3, "{reached:#?}");
    assert!(reached.clock_jumps > least / 20, "{reached:#?}");
    assert!(reached.reads > 100 * least, "{reached:#?}");
}

#[test]
fn decisions_about_moves_keep_their_rules_under_commands_at_random() {
    for seed in 0..300 {
        if let Err(broken) = sim::wishes::run(seed) {
            panic!("seed {seed}: {}: {}", broken.invariant, broken.detail);
        }
    }
}

#[test]
fn the_same_seed_takes_the_same_steps() {
    for seed in 0..5 {
        let (once, again) = (sim::run(seed, QUICK), sim::run(seed, QUICK));
        assert_eq!((once.hash, once.steps), (again.hash, again.steps), "seed {seed}");
    }
}

#[test]
fn an_isolated_leader_acks_nothing_and_the_others_go_on() {
    scenario(3, FlushPolicy::Ack, |cluster| {
        let partition = cluster.partitions[0];
        let (old, _) = cluster.leader_view(partition).expect("a quiet cluster has a leader");
        cluster.network.cut(Cut::Between(BTreeSet::from([old])));
        cluster.run_for_ms(2_500)?;
        let before = cluster.checker.committed(partition).end();
        let (new, view) = cluster.leader_view(partition).expect("the majority elects a leader");
        assert_ne!(new, old);
        assert!(view.commit > highwater_protocol::ids::LogIndex::ZERO);
        cluster.run_for_ms(1_000)?;
        assert!(cluster.checker.committed(partition).end() > before, "the majority goes on");
        cluster.network.heal();
        Ok(())
    });
}

/// Jepsen's pause-kill: one crash suffices to lose data where flushing is lazy and nothing fences it.
#[test]
fn pausing_a_minority_and_cutting_the_power_of_the_next_loses_nothing() {
    for policy in [FlushPolicy::Ack, FlushPolicy::Interval { ms: 1_000 }] {
        scenario(5, policy, |cluster| {
            for round in 0..4 {
                let (away, victim, other) = (round % 5, (round + 2) % 5, (round + 3) % 5);
                cluster.pause_for(away, 6_000);
                cluster.pause_for((away + 1) % 5, 6_000);
                cluster.run_for_ms(5_000)?;
                cluster.power_off(victim, Death::PowerLost)?;
                cluster.pause_for(other, 6_000);
                cluster.pause_for((other + 1) % 5, 6_000);
                cluster.run_for_ms(500)?;
                cluster.start(victim)?;
                cluster.run_for_ms(8_000)?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_leader_killed_beside_a_lagging_follower_takes_nothing_acknowledged_with_it() {
    scenario(3, FlushPolicy::Ack, |cluster| {
        let partition = cluster.partitions[0];
        for _ in 0..5 {
            let (leader, _) = cluster.leader_view(partition).expect("there is a leader");
            let lagging = (leader + 1) % 3;
            cluster.network.cut(Cut::Into(BTreeSet::from([lagging])));
            cluster.run_for_ms(1_500)?;
            let (leader, _) = cluster.leader_view(partition).expect("there is a leader");
            cluster.network.heal();
            cluster.kill(leader)?;
            cluster.run_for_ms(3_000)?;
            cluster.start(leader)?;
            cluster.run_for_ms(1_000)?;
        }
        Ok(())
    });
}

#[test]
fn nothing_flushed_is_lost_when_the_power_of_all_fails_at_once() {
    scenario(3, FlushPolicy::Ack, |cluster| {
        for _ in 0..4 {
            cluster.run_for_ms(2_000)?;
            for node in 0..3 {
                cluster.power_off(node, Death::PowerLost)?;
            }
            cluster.run_for_ms(500)?;
            for node in 0..3 {
                cluster.start(node)?;
            }
            cluster.run_for_ms(2_000)?;
        }
        Ok(())
    });
}

#[test]
fn a_replica_that_may_have_forgotten_what_it_counted_is_suspect_until_it_caught_up() {
    scenario(3, FlushPolicy::Interval { ms: 60_000 }, |cluster| {
        let partition = cluster.partitions[0];
        let (leader, _) = cluster.leader_view(partition).expect("there is a leader");
        let follower = (leader + 1) % 3;
        cluster.power_off(follower, Death::PowerLost)?;
        cluster.network.cut(Cut::Between(BTreeSet::from([follower])));
        cluster.start(follower)?;
        cluster.run_for_ms(1_000)?;
        assert!(cluster.view(follower, partition).expect("it is up").suspect);
        cluster.network.heal();
        cluster.run_for_ms(1_000)?;
        assert!(!cluster.view(follower, partition).expect("it is up").suspect);
        Ok(())
    });
}

#[test]
fn a_file_that_cannot_be_flushed_takes_its_own_replica_out_of_service_and_no_other() {
    let swarm = Swarm::quiet(3, vec![FlushPolicy::Ack; 4]);
    for seed in 0..5 {
        let mut cluster = Cluster::new(seed, swarm.clone());
        let verdict = sim::judge(&mut cluster, |cluster| {
            cluster.run_for_ms(2_000)?;
            cluster.nodes[0].disk.fail_next_flush_of(Path::new("/data/topic/2"));
            // Nor is it for long: a leader of the others has it made anew.
            let mut out_of_service = BTreeSet::new();
            for _ in 0..80 {
                cluster.run_for_ms(100)?;
                out_of_service.extend(cluster.nodes[0].failed.iter().copied());
            }
            assert_eq!(out_of_service, BTreeSet::from([cluster.partitions[2]]));
            assert!(cluster.nodes[0].failed.is_empty(), "it is made anew");
            let shown = |number: usize| {
                let end = cluster.checker.committed(cluster.partitions[number]).end();
                let view = cluster.view(0, cluster.partitions[number]).expect("it is up");
                // It may have flushed what is not committed yet.
                end.max(view.flushed).since(view.flushed)
            };
            assert!([0, 1, 3].into_iter().all(|number| shown(number) < 20));
            cluster.heal_and_check()
        });
        let outcome = sim::conclude(seed, cluster, verdict);
        assert!(outcome.failure.is_none(), "{}", outcome.failure.expect("checked"));
    }
}

#[test]
fn a_follower_that_was_away_while_the_log_moved_on_starts_where_its_leader_does() {
    for policy in [FlushPolicy::Ack, FlushPolicy::Interval { ms: 200 }] {
        scenario(3, policy, |cluster| {
            let partition = cluster.partitions[0];
            for death in [Death::Killed, Death::PowerLost] {
                let (leader, _) = cluster.leader_view(partition).expect("there is a leader");
                let away = (leader + 1) % 3;
                match death {
                    Death::Killed => cluster.kill(away)?,
                    Death::PowerLost | Death::AmidPass => cluster.power_off(away, death)?,
                }
                cluster.run_for_ms(2_000)?;
                let end = cluster.checker.committed(partition).end_offset();
                cluster.command(leader, partition, ReplicaCommand::TrimBefore(end));
                cluster.run_for_ms(1_000)?;
                cluster.start(away)?;
                cluster.run_for_ms(2_000)?;
                let start = |node| cluster.view(node, partition).expect("it is up").log_start;
                assert!(start(leader) > LogIndex::ZERO, "the trim is carried out");
                assert_eq!(start(away), start(leader));
            }
            assert_eq!(cluster.checker.starts_anew, 2, "both times");
            Ok(())
        });
    }
}

/// Where entries count before they are flushed, a power cut of all may take what the interval held back;
/// the cluster must still come to one mind, without an operator, once all have said what they have.
#[test]
fn a_cluster_of_suspects_agrees_on_the_highest_log_left() {
    let swarm = Swarm::quiet(3, vec![FlushPolicy::Interval { ms: 50 }]);
    for seed in 0..10 {
        let mut cluster = Cluster::new(seed, swarm.clone());
        let verdict = sim::judge(&mut cluster, |cluster| {
            cluster.run_for_ms(3_000)?;
            cluster.workload.stop();
            cluster.run_for_ms(3_000)?;
            for node in 0..3 {
                cluster.power_off(node, Death::PowerLost)?;
            }
            for node in 0..3 {
                cluster.start(node)?;
            }
            cluster.heal_and_check()
        });
        let outcome = sim::conclude(seed, cluster, verdict);
        assert!(outcome.failure.is_none(), "{}", outcome.failure.expect("checked"));
    }
}

#[test]
fn a_replica_that_comes_back_is_never_deleted_as_the_one_that_went() {
    let scripts = [
        sim::dropped::comes_back_unheard,
        sim::dropped::comes_back_unsaved,
        sim::dropped::is_back_with_an_old_image,
        sim::dropped::is_back_without_an_image,
        sim::dropped::is_back_after_a_life_without_an_image,
    ];
    for (script, seed) in scripts.iter().flat_map(|script| (0..10).map(move |seed| (script, seed)))
    {
        let outcome = script(seed);
        assert!(outcome.failure.is_none(), "{}", outcome.failure.expect("checked"));
        assert_eq!(outcome.coverage.moves_ended, 2);
    }
}

/// Runs a script on a quiet cluster of one partition under a few seeds, then mends everything and
/// demands all that must hold at the end.
fn scenario(nodes: usize, policy: FlushPolicy, script: impl Fn(&mut Cluster) -> Checked) {
    for seed in 0..5 {
        let mut cluster = Cluster::new(seed, Swarm::quiet(nodes, vec![policy]));
        let verdict = sim::judge(&mut cluster, |cluster| {
            cluster.run_for_ms(2_000)?;
            script(cluster)?;
            cluster.heal_and_check()
        });
        let outcome = sim::conclude(seed, cluster, verdict);
        if let Some(failure) = outcome.failure {
            panic!("{failure}");
        }
        assert!(outcome.coverage.committed > 20, "{:?}", outcome.coverage);
    }
}

const CAMPAIGN_SEEDS: u64 = 1_000;
