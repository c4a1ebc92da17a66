//! What OPERATIONS.md has beyond the walk of the README, task by task, on brokers 2 to 5.

use std::collections::BTreeSet;

use serde_json::json;

use crate::walk::{Walk, interrupt};

pub fn of_a_hot_partition(walk: &mut Walk) {
    walk.hw("hw partition top", "--over 200ms");
    walk.hw("hw partition top --brokers", "--over 200ms");
    walk.hw("hw partition reassign orders/3 --to 2,4,5", "-y");
    assert_eq!(walk.replicas()[3], BTreeSet::from([2, 4, 5]));
    let led = walk.hw("hw partition transfer orders/3 --to 2", "");
    assert_eq!(led["leader"], 2, "{led}");
    walk.hw("hw topic create logs --partitions 1 --replication 3", "");
    walk.hw("hw topic alter logs flush=100", "");
}

/// All of broker 2 is to move, held back so that one partition can be turned back; then all of it goes back.
pub async fn of_a_plan(walk: &mut Walk) {
    let before = walk.replicas();
    let plan = walk.read("hw partition reassign --drain 2 --dry-run -o kafka");
    std::fs::write(walk.cluster.dir.path().join("plan.json"), plan).expect("the directory is ours");
    for node in [3, 4, 5] {
        walk.hw(&format!("hw partition throttle 1KiB --broker {node}"), "");
    }
    let line = "hw partition reassign --plan plan.json --throttle 50MiB --rollback back.json";
    walk.hw(line, "-y --detach");
    let back = walk.hw("hw partition cancel orders/3", "");
    assert_eq!(back["moves"].as_array().map(Vec::len), Some(1), "{back}");
    for node in [3, 4, 5] {
        walk.hw(&format!("hw partition throttle none --broker {node}"), "");
    }
    nothing_moves(walk).await;
    let on_2 = |walk: &mut Walk| {
        let sets = walk.replicas().into_iter().enumerate();
        sets.filter(|(_, set)| set.contains(&2)).map(|(number, _)| number).collect::<Vec<_>>()
    };
    assert_eq!(on_2(walk), [3], "all others are moved");
    walk.hw("hw partition reassign --plan back.json", "-y");
    nothing_moves(walk).await;
    assert_eq!(walk.replicas(), before);
    walk.hw("hw partition throttle none", "");
}

async fn nothing_moves(walk: &mut Walk) {
    walk.until("nothing moves", |walk| walk.hw("hw partition moves", "")["moves"] == json!([]))
        .await;
}

/// Nothing is as old as what is deleted here.
pub fn of_a_disk_that_fills_up(walk: &mut Walk) {
    assert!(walk.read("hw topic list -o wide").contains("orders"));
    walk.hw("hw topic trim orders --before @-3d --dry-run", "");
    walk.hw("hw topic trim orders --before @-3d", "-y");
    walk.hw("hw topic alter orders retention.ms=86400000", "-y");
    walk.hw("hw cluster config set retention.ms=259200000", "-y");
}

pub fn of_looking_closer(walk: &mut Walk) {
    assert!(walk.watch("hw cluster brokers -w", interrupt, 130)["schema"].is_string());
    let event = walk.watch("hw cluster events -w", interrupt, 130);
    assert!(event["kind"].is_string(), "a line for each event: {event}");
    let none = walk.hw("hw partition list --problem leaderless", "");
    assert_eq!(none["partitions"], json!([]));
    walk.hw("hw partition explain orders/3", "");
    assert!(!walk.read("hw partition repair orders/3").is_empty());
    // What is given up where something is lost, another test sees.
    for line in [
        "hw partition repair orders/3 --accept-loss --dry-run",
        "hw partition repair orders/3 --accept-loss",
    ] {
        walk.refused(line, 4, "nobody has found anything");
    }
    walk.hw("hw cluster undrain 3", "");
    walk.hw("hw explain under-replicated", "");
    walk.hw("hw cluster config list --broker 2", "");
    let set = "hw cluster config set log.filter=info,highwater_broker::raft=debug --broker 2";
    walk.hw(set, "");
    walk.hw("hw cluster config reset log.filter --broker 2", "");
}

pub fn of_certificates(walk: &mut Walk) {
    walk.files("highwater issue --dir cluster --into me alice");
    walk.files(
        "hw profile add prod --bootstrap a:9400,b:9400,c:9400 --ca cluster/ca.pem --cert me/client.pem \
         --key me/client.key --use",
    );
    let shown = walk.files("hw profile show --sources");
    assert!(shown.contains("prod") && shown.contains("me/client.pem"), "{shown}");
}

/// Broker 2, which votes on the metadata, is lost with its directory; another machine takes its place.
pub async fn of_a_machine_that_is_lost(walk: &mut Walk) {
    walk.cluster.kill(2);
    assert_eq!(walk.cluster.join(), 6);
    walk.ran("highwater invite --dir cluster --address e:9400");
    walk.until("the new machine is there", |walk| walk.brokers().contains(&6)).await;
    walk.unhealthy("hw cluster health", "fenced").await;
    walk.hw("hw cluster controller add 5", "");
    let voters = walk.hw("hw cluster controller remove 2", "");
    assert_eq!(voters["voters"], json!([3, 4, 5]));
    walk.hw("hw cluster decommission 2 -y", "");
    walk.hw("hw cluster remove 2 -y", "");
    assert_eq!(walk.brokers(), [3, 4, 5, 6]);
    walk.healthy();
    assert!(walk.replicas().iter().all(|set| set.len() == 3));
}

/// Keys change their partition, so nobody may look at their order any more.
pub fn that_end_the_order_of_keys(walk: &mut Walk) {
    walk.hw("hw topic alter orders --partitions 24", "-y");
    assert_eq!(walk.replicas().len(), 24);
    let lines: String = (0..1300).map(|number| format!("{number}\n")).collect();
    walk.feed("hw produce orders --partition 3 --acks sync", lines.as_bytes());
    let safe = walk.hw("hw partition explain orders/3@1200", "");
    assert_eq!(safe["offset"], 1200, "{safe}");
}
