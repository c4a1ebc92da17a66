//! Three real broker processes and the real client: what was promised must hold through kills.

mod common;

use std::collections::BTreeMap;

use common::load::{Load, check_all_there, create, leader_of};
use common::{Cluster, PATIENCE, read_all};
use highwater_client::{AckMode, Client, NewTopic, Offset, PartitionId, ProducerConfig, Record};

const MODES: [AckMode; 3] = [AckMode::Async, AckMode::SemiSync, AckMode::Sync];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_back_in_order_in_every_ack_mode() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "words", 3).await;
    for mode in MODES {
        let producer = client.producer(ProducerConfig::default().acks(mode));
        for number in 0..500 {
            let value = format!("{mode:?} {number}");
            let record = Record::to("words").key(format!("k{}", number % 20)).value(value);
            drop(producer.send(record).await.expect("taken"));
        }
        let report = producer.close(PATIENCE).await.expect("all is settled in time");
        assert_eq!((report.acked, report.failed), (500, 0), "{mode:?}: {:?}", report.first_error);
    }
    let read = read_all(&client, "words").await;
    assert_eq!(read.len(), 1500);
    for mode in MODES {
        let prefix = format!("{mode:?} ");
        for partition in 0..3 {
            let of_partition = read.iter().filter(|((p, _), _)| p.0 == partition);
            let numbers: Vec<u32> = of_partition
                .filter_map(|(_, value)| value.strip_prefix(&prefix)?.parse().ok())
                .collect();
            assert!(numbers.is_sorted(), "{mode:?} in partition {partition}: {numbers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_leaders_are_killed_while_producing() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 1).await;
    for mode in [AckMode::SemiSync, AckMode::Sync] {
        let load = Load::start(&client, "orders", mode);
        load.wait_for(200).await;
        let leader = leader_of(&cluster, &client, "orders").await;
        cluster.kill(leader);
        let before = load.acked();
        load.wait_for(before + 200).await;
        cluster.start(leader);
        let acked = load.stop().await;
        check_all_there(&acked, &read_all(&client, "orders").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_promised_survives_a_kill_of_all_brokers_at_once_under_load() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    for (mode, topic) in MODES.into_iter().zip(["async", "semi-sync", "sync"]) {
        create(&client, topic, 4).await;
        let load = Load::start(&client, topic, mode);
        load.wait_for(500).await;
        let committed = high_watermarks(&client, topic).await;
        load.wait_for(load.acked() + 100).await;
        cluster.kill_all();
        for node in 1..=3 {
            cluster.start(node);
        }
        load.wait_for(load.acked() + 200).await;
        let mut promised = load.stop().await;
        // The leader alone has promised the rest, and another may lead now.
        if mode == AckMode::Async {
            promised.retain(|(partition, offset), _| *offset < committed[partition]);
        }
        check_all_there(&promised, &read_all(&client, topic).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_stops_cleanly_and_comes_back_with_its_records() {
    let mut cluster = Cluster::started(1);
    let client = cluster.client().await;
    let topic = NewTopic::new("alone", 1).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    let producer = client.producer(ProducerConfig::default().acks(AckMode::Sync));
    producer.send_and_wait(Record::to("alone").value("one")).await.expect("acknowledged");
    client.close().await;
    assert!(cluster.stop(1), "it ends with exit code 0\n{}", cluster.logs());
    cluster.start(1);
    let client = cluster.client().await;
    let read = read_all(&client, "alone").await;
    assert_eq!(read.values().collect::<Vec<_>>(), ["one"]);
}

async fn high_watermarks(client: &Client, topic: &str) -> BTreeMap<PartitionId, Offset> {
    let mut ends = BTreeMap::new();
    for partition in (0..4).map(PartitionId) {
        let described = client.admin().describe_partition(topic, partition).await;
        ends.insert(partition, described.expect("it is led").high_watermark);
    }
    ends
}
