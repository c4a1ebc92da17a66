//! A real broker that finds replicas on its disk which the controller does not give it: they are set aside,
//! come back when they are wanted, and go only when they were deleted and a day has passed.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Cluster, PATIENCE, read_all};
use highwater_client::{Client, NewTopic, ProducerConfig, Record};

const DAY_S: u64 = 24 * 3_600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stray_replica_is_set_aside_taken_back_and_removed_only_after_its_tombstone_and_a_day() {
    let mut cluster = Cluster::started(1);
    let client = cluster.client().await;
    client.admin().create_topic(NewTopic::new("orders", 1).replication(1)).await.expect("created");
    fill(&client).await;
    assert!(cluster.stop(1));
    let (topics, strays) = (data(&cluster).join("topics"), data(&cluster).join("stray"));
    let orders = names(&topics).pop().expect("the topic's one replica");
    let unknown = format!("ghost-0.{}", "ab".repeat(16));
    copy(&topics.join(&orders), &topics.join(&unknown));

    cluster.start(1);
    let client = cluster.client().await;
    cluster
        .eventually("what nobody knows is set aside", async || {
            let aside = names(&strays).iter().any(|name| name.ends_with(&unknown));
            (aside && names(&topics) == [orders.as_str()]).then_some(())
        })
        .await;
    let said = fs::read_to_string(cluster.log(1)).expect("it has a log");
    assert!(said.contains("the controller does not know of this replica"), "{said}");

    // As if the controller had been put back, and forth again: it is where a stray is put.
    drop(client);
    assert!(cluster.stop(1));
    let saved = data(&cluster).join("saved");
    copy(&topics.join(&orders), &saved);
    fs::rename(topics.join(&orders), strays.join(format!("{}-{orders}", now_s()))).expect("ours");
    cluster.start(1);
    let client = cluster.client().await;
    assert_eq!(read_all(&client, "orders").await.len(), 10);

    client.admin().delete_topic("orders").await.expect("deleted");
    drop(client);
    assert!(cluster.stop(1));
    let (old, young) = (now_s() - DAY_S - 60, now_s() - DAY_S + 3_600);
    copy(&saved, &strays.join(format!("{old}-{orders}")));
    copy(&saved, &strays.join(format!("{young}-{orders}")));
    cluster.start(1);
    cluster
        .eventually("the one that is old enough is removed", async || {
            let left = names(&strays);
            let young = left.contains(&format!("{young}-{orders}"));
            let unknown = left.iter().any(|name| name.ends_with(&unknown));
            (left.len() == 2 && young && unknown).then_some(())
        })
        .await;
}

async fn fill(client: &Client) {
    let producer = client.producer(ProducerConfig::default());
    for number in 0..10 {
        let record = Record::to("orders").value(format!("v{number}"));
        producer.send(record).await.expect("taken").await.expect("acknowledged");
    }
    producer.close(PATIENCE).await.expect("all is settled in time");
}

fn data(cluster: &Cluster) -> PathBuf {
    cluster.dir.path().join("node-1/data")
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.map(|it| it.expect("readable").file_name().to_string_lossy().into_owned()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it is ours");
    for name in names(from) {
        fs::copy(from.join(&name), to.join(&name)).expect("it is ours");
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}
