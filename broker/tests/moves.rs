//! Real brokers and the real client: replicas move under load while brokers die, at the speed that is
//! allowed, and nothing is lost, repeated or reordered.

mod common;

use std::collections::BTreeMap;
use std::time::Instant;

use common::load::{Load, check_all_there, create};
use common::{Cluster, Place, read_all};
use highwater_client::{
    AckMode, Client, Compression, DryRun, MoveWish, NewTopic, NodeId, PartitionId, ProducerConfig,
    Record, TopicDetail, TopicPartition,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_copies_as_fast_as_allowed_also_when_its_target_may_take_less_from_now_on() {
    let cluster = Cluster::started(2);
    let client = cluster.client().await;
    let topic = NewTopic::new("bulk", 1).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    preload(&client, "bulk", 40).await;
    let detail = client.admin().describe_topic("bulk").await.expect("it exists");
    let other = NodeId(3 - detail.partitions[0].replicas[0].0);
    // First all moves together, then one broker besides.
    for (of, rate) in [(None, 8 << 20), (Some(other), 4 << 20)] {
        client.admin().throttle_moves(of, Some(rate)).await.expect("changed");
        if of.is_none() {
            reassign(&client, &detail, &[0], &[other.0]).await;
        }
        let begun = behind(&cluster, &client, other, |bytes| bytes > 0).await;
        // Who leads the partition hears of a change in a moment.
        let (from, at) = behind_after(&cluster, &client, other, begun - (4 << 20)).await;
        let (until, then) = behind_after(&cluster, &client, other, from - (10 << 20)).await;
        let seen = (from - until) as f64 / (then - at).as_secs_f64();
        let off = (seen - rate as f64).abs() / rate as f64;
        println!("{seen:.0} B/s seen where {rate} are allowed: {:.1} % off", off * 100.0);
        assert!(off < 0.1, "{seen} B/s where {rate} are allowed");
    }
    for of in [None, Some(other)] {
        client.admin().throttle_moves(of, None).await.expect("lifted");
    }
    settled(&cluster, &client, "bulk", &[&[other.0]]).await;
    assert_eq!(read_all(&client, "bulk").await.len(), 40 * 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_under_load_outlive_the_source_the_target_and_the_controller() {
    let mut cluster = Cluster::started(5);
    let client = cluster.client().await;
    create(&client, "orders", 4).await;
    let detail = client.admin().describe_topic("orders").await.expect("it exists");
    reassign(&client, &detail, &[0, 1, 2, 3], &[1, 2, 3]).await;
    settled(&cluster, &client, "orders", &[&[1, 2, 3][..]; 4]).await;
    preload(&client, "orders", 12).await;
    client.admin().throttle_moves(None, Some(2 << 20)).await.expect("changed");
    let load = Load::start(&client, "orders", AckMode::Sync);
    load.wait_for(100).await;

    reassign(&client, &detail, &[0, 1, 2, 3], &[3, 4, 5]).await;
    behind_any(&cluster, &client).await;
    // The target, the source, and whoever leads the controller, each back before the next one goes.
    for victim in [4, 1, 0] {
        let victim = match victim {
            0 => controller(&cluster, &client).await,
            broker => broker,
        };
        cluster.kill(victim);
        load.wait_for(load.acked() + 100).await;
        cluster.start(victim);
        load.wait_for(load.acked() + 100).await;
    }
    let cancelled = vec![TopicPartition::new(detail.id, PartitionId(0))];
    let moving = client.admin().list_moves().await.expect("listed");
    assert_eq!(moving.len(), 4, "they are still under way: {moving:?}");
    client.admin().cancel_moves(cancelled).await.expect("it is moving");
    client.admin().throttle_moves(None, None).await.expect("lifted");
    let sets: [&[u32]; 4] = [&[1, 2, 3], &[3, 4, 5], &[3, 4, 5], &[3, 4, 5]];
    settled(&cluster, &client, "orders", &sets).await;

    let acked = load.stop().await;
    let read = read_all(&client, "orders").await;
    check_all_there(&acked, &read);
    check_order(&read);
    for broker in [1, 2, 4, 5] {
        let wanted = if broker < 3 { 1 } else { 3 };
        let dir = cluster.data_dir(broker).join("topics");
        cluster
            .eventually("what moved away is deleted", async || {
                let names = std::fs::read_dir(&dir).ok()?.flatten();
                let orders = |name: &std::fs::DirEntry| {
                    name.file_name().to_string_lossy().starts_with("orders-")
                };
                (names.filter(orders).count() == wanted).then_some(())
            })
            .await;
    }
}

/// One producer's records lie in each partition in the order in which they were sent.
fn check_order(read: &BTreeMap<Place, String>) {
    let mut last: BTreeMap<PartitionId, u64> = BTreeMap::new();
    for ((partition, offset), value) in read {
        let Some(number) = value.strip_prefix("Sync ") else { continue };
        let number = number.parse().expect("the load numbers its records");
        let before = last.insert(*partition, number);
        assert!(before.is_none_or(|before| before < number), "{partition}@{offset}: {before:?}");
    }
}

/// Writes so many MiB in records of 64 KiB.
async fn preload(client: &Client, topic: &str, mib: usize) {
    let producer = client
        .producer(ProducerConfig::default().acks(AckMode::SemiSync).compression(Compression::None));
    for number in 0..mib * 16 {
        let value = format!("{number:0>65000}");
        let record = Record::to(topic).key(format!("k{number}")).value(value);
        drop(producer.send(record).await.expect("taken"));
    }
    producer.flush().await;
}

async fn reassign(client: &Client, detail: &TopicDetail, partitions: &[u32], to: &[u32]) {
    let at = |number: &u32| TopicPartition::new(detail.id, PartitionId(*number));
    let wish = MoveWish::To(to.iter().copied().map(NodeId).collect());
    let partitions = partitions.iter().map(at).collect();
    client.admin().reassign(partitions, wish, DryRun::No).await.expect("all are alive");
}

/// Waits until nothing moves and every partition has its set.
async fn settled(cluster: &Cluster, client: &Client, topic: &str, sets: &[&[u32]]) {
    cluster
        .eventually("every move is over", async || {
            let moving = client.admin().list_moves().await.ok()?;
            let detail = client.admin().describe_topic(topic).await.ok()?;
            let there = detail.partitions.iter().zip(sets).all(|(info, set)| {
                let has = |node: &u32| info.replicas.contains(&NodeId(*node));
                info.replicas.len() == set.len() && set.iter().all(has)
            });
            (moving.is_empty() && there).then_some(())
        })
        .await;
}

async fn controller(cluster: &Cluster, client: &Client) -> usize {
    cluster
        .eventually("somebody leads the controller", async || {
            client.admin().cluster().await.ok()?.controller.map(|node| node.0 as usize)
        })
        .await
}

/// What the new replica of `bulk` lacks, once that is as wished.
async fn behind(
    cluster: &Cluster,
    client: &Client,
    node: NodeId,
    wished: impl Fn(u64) -> bool,
) -> u64 {
    cluster
        .eventually("the new replica is fed", async || {
            let described = client.admin().describe_partition("bulk", PartitionId(0)).await.ok()?;
            let replica = described.replicas.iter().find(|replica| replica.node == node)?;
            replica.behind_bytes.filter(|bytes| wished(*bytes))
        })
        .await
}

/// What it lacks once that is no more than `most`, and when that was.
async fn behind_after(
    cluster: &Cluster,
    client: &Client,
    node: NodeId,
    most: u64,
) -> (u64, Instant) {
    let bytes = behind(cluster, client, node, |bytes| bytes <= most).await;
    (bytes, Instant::now())
}

async fn behind_any(cluster: &Cluster, client: &Client) {
    cluster
        .eventually("a copy is under way", async || {
            let described =
                client.admin().describe_partition("orders", PartitionId(1)).await.ok()?;
            let learns = |node: u32| {
                let found = described.replicas.iter().find(|replica| replica.node == NodeId(node));
                found.and_then(|replica| replica.behind_bytes).is_some_and(|bytes| bytes > 0)
            };
            (learns(4) || learns(5)).then_some(())
        })
        .await;
}
