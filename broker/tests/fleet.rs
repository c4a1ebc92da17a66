//! The controller of a hundred brokers in one thread, from seeds: failovers, a mass restart, drains
//! amid a storm. The whole size: `cargo run --release -p highwater-broker --features sim --example fleet`.

use std::time::Duration;

use highwater_broker::sim::fleet::story::{self, Size};
use highwater_broker::sim::fleet::{Seen, busy};

fn play(seed: u64, size: Size) -> story::Story {
    story::play(seed, size, || Duration::ZERO)
}

#[test]
fn a_hundred_brokers_come_through_failovers_restarts_and_drains() {
    let size = Size { brokers: 100, topics: 20, partitions_each: 20, storm_rounds: 300 };
    let told = play(1, size);
    let quiet = told.chapters.iter().find(|chapter| chapter.title.starts_with("nothing happens"));
    assert_eq!(quiet.map(|chapter| chapter.records), Some(0), "an idle cluster writes nothing");
    assert!(told.seen.drained >= 10, "{:?}", told.seen);
}

#[test]
fn a_load_that_stays_is_spread_and_what_passes_moves_nothing() {
    for seed in 0..3 {
        let seen = busy::play(seed);
        println!("{seed}: {seen:?}");
        assert!(seen.followed_by > 0, "a load that follows a broker is worth a move: {seen:?}");
    }
}

#[test]
fn no_seed_deletes_a_voter_or_leaves_a_move_behind() {
    let size = Size { brokers: 12, topics: 6, partitions_each: 12, storm_rounds: 600 };
    let mut total = Seen::default();
    for seed in 0..20 {
        let seen = play(seed, size).seen;
        total.lost_decisions += seen.lost_decisions;
        total.lost_answers += seen.lost_answers;
        total.cancelled += seen.cancelled;
        total.images_written += seen.images_written;
        total.began_behind += seen.began_behind;
    }
    assert!(total.lost_decisions > 20 && total.lost_answers > 20, "{total:?}");
    assert!(total.cancelled > 20, "{total:?}");
    assert!(total.images_written > 5 && total.began_behind > 0, "{total:?}");
}
