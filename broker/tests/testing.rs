//! The helper for users' tests: brokers in this very process, side by side, stopped and started, and nothing left of them.

mod common;

use std::net::UdpSocket;
use std::time::Instant;

use common::read_all;
use highwater_broker::testing::TestCluster;
use highwater_client::{Client, NewTopic, ProducerConfig, Record};

#[tokio::test]
async fn a_broker_takes_records_as_soon_as_it_is_ready() {
    let begun = Instant::now();
    let cluster = TestCluster::start().await.expect("a broker");
    let ready = begun.elapsed();
    let client = cluster.client().await.expect("connected");
    let connected = begun.elapsed();
    client.admin().create_topic(NewTopic::new("orders", 1)).await.expect("created");
    let created = begun.elapsed();
    write(&client, &["one"]).await;
    println!(
        "ready {ready:?}, connected {connected:?}, created {created:?}, acknowledged {:?}",
        begun.elapsed()
    );
    assert_eq!(values(&client).await, ["one"]);
    let begun = Instant::now();
    drop(cluster);
    println!("gone {:?}", begun.elapsed());
}

#[tokio::test]
async fn clusters_in_one_process_know_nothing_of_each_other() {
    let (one, other) = tokio::join!(TestCluster::start(), TestCluster::start());
    let (one, other) = (one.expect("a broker"), other.expect("a broker"));
    let (first, second) = (one.client().await.expect("in"), other.client().await.expect("in"));
    assert_ne!(first.cluster_id(), second.cluster_id());
    for (client, value) in [(&first, "here"), (&second, "there")] {
        client.admin().create_topic(NewTopic::new("orders", 1)).await.expect("created");
        write(client, &[value]).await;
    }
    assert_eq!(values(&first).await, ["here"]);
    assert_eq!(values(&second).await, ["there"]);
}

#[tokio::test]
async fn a_broker_that_stops_is_missed_by_nobody_and_comes_back_with_what_it_had() {
    let begun = Instant::now();
    let mut cluster = TestCluster::builder().brokers(3).start().await.expect("three brokers");
    println!("three ready {:?}", begun.elapsed());
    let client = cluster.client().await.expect("connected");
    client.admin().create_topic(NewTopic::new("orders", 1)).await.expect("created");
    for (broker, value) in [(1, "one"), (2, "two"), (3, "three")] {
        cluster.stop_broker(broker).await.expect("it ends well");
        write(&client, &[value]).await;
        cluster.start_broker(broker).await.expect("its port is its own");
        cluster.ready().await.expect("it takes part again");
    }
    assert_eq!(values(&client).await, ["one", "two", "three"]);
    for broker in 1..=3 {
        cluster.stop_broker(broker).await.expect("it ends well");
    }
    for broker in 1..=3 {
        cluster.start_broker(broker).await.expect("its port is its own");
    }
    cluster.ready().await.expect("all have come back");
    assert_eq!(values(&client).await, ["one", "two", "three"]);
    let begun = Instant::now();
    drop(cluster);
    println!("three gone {:?}", begun.elapsed());
}

#[tokio::test]
async fn nothing_is_left_of_a_cluster_that_was_dropped() {
    let cluster = TestCluster::builder().brokers(2).start().await.expect("two brokers");
    let client = cluster.client().await.expect("connected");
    let addresses = cluster.client_config().bootstrap;
    let dir = cluster.dir().to_owned();
    drop(cluster);
    drop(client);
    assert!(!dir.exists(), "{} is still there", dir.display());
    for address in addresses {
        UdpSocket::bind(&address).expect("nobody holds the port any more");
    }
    let open = std::fs::read_dir("/proc/self/fd").expect("this is Linux");
    let of_ours = open.flatten().filter_map(|it| std::fs::read_link(it.path()).ok());
    let held: Vec<_> = of_ours.filter(|file| file.starts_with(&dir)).collect();
    assert!(held.is_empty(), "{held:?}");
}

#[tokio::test]
async fn settings_are_those_of_the_configuration_file_and_mistakes_are_told() {
    let rack = TestCluster::builder().config("node.rack", "b 7").config("limits.shards", "2");
    let cluster = rack.start().await.expect("a broker");
    let client = cluster.client().await.expect("connected");
    let brokers = client.admin().cluster().await.expect("it answers").brokers;
    assert_eq!(brokers[0].rack.as_deref(), Some("b 7"));
    let wrong = TestCluster::builder().config("limits.shard", "2").start().await;
    let error = wrong.err().expect("there is no such key").to_string();
    assert!(error.contains("did you mean limits.shards?"), "{error}");
}

async fn write(client: &Client, values: &[&'static str]) {
    let producer = client.producer(ProducerConfig::default());
    for value in values {
        producer.send_and_wait(Record::to("orders").value(*value)).await.expect("written");
    }
}

async fn values(client: &Client) -> Vec<String> {
    read_all(client, "orders").await.into_values().collect()
}
