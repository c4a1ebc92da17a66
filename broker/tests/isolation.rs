//! Brokers that run and cannot hear each other: who was cut off must not promise anything.

mod common;

use std::time::{Duration, Instant};

use common::links::Links;
use common::load::{Load, check_all_there, create, leader_of};
use common::{Cluster, read_all};
use highwater_client::{AckMode, Client, NodeId, PartitionId, TopicId};
use highwater_protocol::native::admin::DescribePartitionResponse;

const FIRST: PartitionId = PartitionId(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_gives_up_its_tail() {
    let (cluster, links) = started_with_links();
    let client = cluster.client().await;
    create(&client, "orders", 1).await;
    let id = client.admin().describe_topic("orders").await.expect("made").id;
    let load = Load::start(&client, "orders", AckMode::SemiSync);
    load.wait_for(500).await;
    let old = leader_of(&cluster, &client, "orders").await;

    let before = load.acked();
    links.isolate(old);
    let cut_at = Instant::now();
    // More than can have been under way when the leader was cut off.
    load.wait_for(before + 100).await;
    let gap = cut_at.elapsed();
    eprintln!("the majority went on after {gap:?}");
    assert!(gap < GAP_MAX, "{gap:?}\n{}", cluster.logs());
    let stuck = described(&client, old, id).await.expect("clients still reach it");
    assert!(stuck.high_watermark < stuck.log_end, "it took records that it could not commit");
    load.wait_for(before + 500).await;
    let later = described(&client, old, id).await.expect("clients still reach it");
    assert_eq!(later.high_watermark, stuck.high_watermark, "it acknowledges nothing");

    links.heal();
    load.wait_for(load.acked() + 200).await;
    let acked = load.stop().await;
    all_alike(&cluster, &client, id).await;
    check_all_there(&acked, &read_all(&client, "orders").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_is_cut_off_disturbs_nobody_when_it_returns() {
    let (cluster, links) = started_with_links();
    let client = cluster.client().await;
    create(&client, "orders", 1).await;
    let id = client.admin().describe_topic("orders").await.expect("made").id;
    let load = Load::start(&client, "orders", AckMode::SemiSync);
    load.wait_for(100).await;
    let leader = leader_of(&cluster, &client, "orders").await;
    let term = described(&client, leader, id).await.expect("it leads").term;
    links.isolate(leader % 3 + 1);
    load.wait_for(load.acked() + 1_000).await;
    links.heal();
    let acked = load.stop().await;
    all_alike(&cluster, &client, id).await;
    check_all_there(&acked, &read_all(&client, "orders").await);
    let after = described(&client, leader, id).await.expect("it leads");
    let leads = (after.leader, after.term);
    assert_eq!(leads, (Some(NodeId(leader as u32)), term), "the leader kept its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_heard_but_hears_nobody_makes_way() {
    let (cluster, links) = started_with_links();
    let client = cluster.client().await;
    create(&client, "orders", 1).await;
    let load = Load::start(&client, "orders", AckMode::SemiSync);
    load.wait_for(100).await;
    let old = leader_of(&cluster, &client, "orders").await;
    for other in (1..=3).filter(|node| *node != old) {
        links.cut_one_way(other, old);
    }
    load.wait_for(load.acked() + 200).await;
    links.heal();
    let acked = load.stop().await;
    check_all_there(&acked, &read_all(&client, "orders").await);
}

fn started_with_links() -> (Cluster, Links) {
    let mut cluster = Cluster::made(3);
    let links = Links::between(&cluster);
    for node in 1..=3 {
        cluster.start(node);
    }
    (cluster, links)
}

async fn described(client: &Client, node: usize, id: TopicId) -> Option<DescribePartitionResponse> {
    client.admin().describe_partition_on(NodeId(node as u32), id, FIRST).await.ok()
}

/// Waits until all replicas end alike, in the same term.
async fn all_alike(cluster: &Cluster, client: &Client, id: TopicId) {
    cluster
        .eventually("all replicas are alike", async || {
            let mut ends = Vec::new();
            for node in 1..=3 {
                let replica = described(client, node, id).await?;
                ends.push((replica.term, replica.log_end));
            }
            ends.dedup();
            (ends.len() == 1).then_some(())
        })
        .await;
}

/// Well under a second where the machine has time; tests run side by side on it.
const GAP_MAX: Duration = Duration::from_secs(4);
