//! One person operates a cluster with nothing but `hw` and `highwater`: the walk of the README's
//! "Operating a cluster", in its order and with every command of it, while a producer writes with `sync`
//! and a reader follows. On the way every command of OPERATIONS.md is run as well (`tasks`).
//!
//! What the commands print is read as JSON, and the same thing must have the same name and type in all of
//! it. `hw` belongs to another package: `cargo test --workspace` builds it beside the broker.

#[path = "../common/mod.rs"]
mod common;
mod tasks;
mod walk;

use std::collections::BTreeSet;

use common::tail::Tail;
use serde_json::{Value, json};
use walk::{Walk, highwater, stop_reading};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_person_operates_a_cluster_while_records_flow() {
    let mut walk = Walk::begin();
    let client = walk.cluster.client().await;
    walk.ran("export HIGHWATER_PROFILE=cluster/admin/profile.toml");
    walk.hw("hw cluster health --wait", "");
    walk.hw("hw cluster health --wait --brokers-min 3", "");
    assert_eq!(walk.brokers(), [1, 2, 3]);
    walk.hw("hw topic create orders --partitions 6 --replication 3", "");
    let tail = Tail::start(&client, "orders");
    tail.goes_on(200).await;

    grow(&mut walk).await;
    tail.goes_on(200).await;
    look(&mut walk);
    drain_and_take_back(&mut walk).await;
    tail.goes_on(200).await;
    hand_the_vote_on_and_retire(&mut walk).await;
    tail.goes_on(200).await;
    turn_a_move_back_halfway(&mut walk).await;
    other_numbers_of_replicas(&mut walk);
    tasks::of_a_hot_partition(&mut walk);
    tasks::of_a_plan(&mut walk).await;
    tasks::of_a_disk_that_fills_up(&mut walk);
    tasks::of_looking_closer(&mut walk);
    tasks::of_certificates(&mut walk);
    tail.goes_on(200).await;
    restart_one_by_one(&mut walk);
    tail.goes_on(200).await;
    replace_a_disk(&mut walk).await;
    tail.goes_on(200).await;
    tasks::of_a_machine_that_is_lost(&mut walk).await;
    tail.goes_on(200).await;

    let sent = tail.stop().await;
    walk.healthy();
    tasks::that_end_the_order_of_keys(&mut walk);
    println!("{sent} records came through; {:?} in all", walk.begun.elapsed());
    walk.everything_of_the_readme_was_run();
    walk.everything_of_the_page_was_run();
}

/// From three brokers to five, with work for the new ones.
async fn grow(walk: &mut Walk) {
    assert_eq!(walk.join(), 4);
    walk.hw("hw cluster health --wait --brokers-min 4", "");
    let moved = walk.hw("hw partition reassign orders --to 2,3,4", "-y");
    let moves = moved["moves"].as_array().expect("a list");
    assert!(!moves.is_empty() && moves.iter().all(|it| it["topic"] == "orders"), "{moved}");
    assert!(walk.replicas().iter().all(|set| *set == BTreeSet::from([2, 3, 4])));

    assert_eq!(walk.join(), 5);
    walk.hw("hw cluster health --wait", "--brokers-min 5");
    let plan = walk.hw("hw cluster balance --dry-run", "--measure 1s");
    assert_eq!(plan["changed"], false, "{plan}");
    let done = walk.hw("hw cluster balance", "-y --measure 0s");
    assert_eq!(done["changed"], true, "{done}");
    for newcomer in [4, 5] {
        let share = walk.replicas().iter().filter(|set| set.contains(&newcomer)).count();
        assert!((3..=4).contains(&share), "18 replicas on 5 brokers: {share} on {newcomer}");
    }
}

/// What there is to look at, on the way.
fn look(walk: &mut Walk) {
    assert_eq!(walk.hw("hw partition moves", "")["moves"], json!([]));
    assert!(walk.watch("hw partition moves -w", stop_reading, 0)["schema"].is_string());
    let told = walk.hw("hw cluster events --since 1h", "");
    let kinds = told["events"].as_array().expect("a list").iter().map(|event| &event["kind"]);
    let kinds: BTreeSet<&str> = kinds.filter_map(Value::as_str).collect();
    for kind in ["broker-registered", "topic-created", "move-begun", "move-ended"] {
        assert!(kinds.contains(kind), "{kind} is not told: {kinds:?}");
    }
    for line in [
        "hw topic list",
        "hw topic describe orders",
        "hw topic alter orders",
        "hw partition list",
        "hw partition describe orders/0",
        "hw partition explain orders/0",
        "hw partition explain orders/0@0",
        "hw partition top --over 200ms",
        "hw partition top --brokers --over 200ms",
        "hw partition throttle",
        "hw cluster config list",
        "hw cluster controller list",
    ] {
        walk.hw(line, "");
    }
}

async fn drain_and_take_back(walk: &mut Walk) {
    let drained = walk.hw("hw cluster drain 2", "");
    assert_eq!((&drained["duty"], &drained["leaders_total"]), (&json!("drained"), &json!(0)));
    assert_ne!(drained["replicas_total"], 0, "its replicas stay");
    assert_eq!(walk.hw("hw cluster undrain 2", "")["duty"], "active");
}

/// Broker 4 gets the vote of broker 1, which then leaves for good.
async fn hand_the_vote_on_and_retire(walk: &mut Walk) {
    let added = walk.hw("hw cluster controller add 4", "");
    assert_eq!(added["voters"], json!([1, 2, 3, 4]));
    let taken = walk.hw("hw cluster controller remove 1", "");
    assert_eq!(taken["voters"], json!([2, 3, 4]));
    let plan = walk.hw("hw cluster decommission 1 --dry-run", "");
    assert_eq!(plan["changed"], false, "{plan}");
    walk.hw("hw cluster decommission 1", "-y");
    walk.hw("hw cluster remove 1", "-y");
    walk.cluster.eventually_ended(1).await;
    assert_eq!(walk.brokers(), [2, 3, 4, 5]);
    walk.healthy();
}

/// A plan in a file, throttled so that there is a half of the way, and cancelled there.
async fn turn_a_move_back_halfway(walk: &mut Walk) {
    walk.hw("hw topic create bulk --partitions 2 --replication 1", "");
    let line = |key: u32| format!("{key}:{}\n", "x".repeat(8000));
    let lines: String = (0..600).map(line).collect();
    walk.feed("hw produce bulk --acks sync --compression none --key-sep :", lines.as_bytes());
    let homes = walk.sets_of("bulk");
    let other = [2, 3, 4, 5].into_iter().find(|it| !homes.iter().flatten().any(|at| at == it));
    let other = other.expect("two partitions of one replica leave brokers free");
    let plan = walk.text(&format!("hw partition reassign bulk --to {other} --dry-run -o kafka"));
    let file = walk.cluster.dir.path().join("plan.json");
    std::fs::write(&file, plan).expect("the directory is ours");
    let file = file.display().to_string();
    walk.hw(&format!("hw partition reassign --plan {file} --throttle 200KiB --detach"), "-y");
    let moving = walk.hw("hw partition moves", "");
    assert_eq!(moving["moves"].as_array().map(Vec::len), Some(2), "they take a while: {moving}");
    let back = walk.hw("hw partition cancel bulk", "");
    assert_eq!(back["moves"].as_array().map(Vec::len), Some(2), "{back}");
    walk.hw("hw partition throttle none", "");
    walk.until("nothing moves", |walk| walk.hw("hw partition moves", "")["moves"] == json!([]))
        .await;
    assert_eq!(walk.sets_of("bulk"), homes, "it is where it was");
    walk.hw("hw topic delete bulk", "-y");
}

fn other_numbers_of_replicas(walk: &mut Walk) {
    for count in [4, 3] {
        walk.hw(&format!("hw partition reassign orders --replicas {count}"), "-y");
        assert!(walk.replicas().iter().all(|set| set.len() == count), "{count}");
    }
}

fn restart_one_by_one(walk: &mut Walk) {
    for node in 2..=5 {
        assert!(walk.cluster.stop(node), "it ends well\n{}", walk.cluster.logs());
        walk.cluster.start(node);
        walk.ran("systemctl restart highwater");
        walk.ran("systemctl stop highwater");
        // Brokers of tests are always started so.
        walk.ran("highwater start --after-crashes -c config.toml");
        walk.healthy();
    }
}

/// An old machine gets a new, empty disk.
async fn replace_a_disk(walk: &mut Walk) {
    walk.cluster.kill(2);
    let data = walk.cluster.dir.path().join("node-2/data");
    std::fs::remove_dir_all(data).expect("nobody uses it");
    let config = walk.cluster.created.configs[1].clone();
    let formatted = highwater(&["format", "-c"]).arg(config).output().expect("it is built");
    assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
    walk.ran("highwater format -c config.toml");
    walk.cluster.start(2);
    walk.ran("systemctl start highwater");
    walk.until("its disk is known to be new", |walk| {
        walk.count(2, "replicas_refilling").is_some_and(|count| count > 0)
            || walk.told("replica-refilled")
            // Where it is placed on what was made since, it may have nothing to fill.
            || walk.count(2, "replicas_total") == Some(0)
    })
    .await;
    walk.healthy();
}
