//! Three real broker processes and the real client: what was promised must hold through kills.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::{Cluster, PATIENCE, Place, read_all};
use highwater_client::{AckMode, Client, NewTopic, ProducerConfig, Record};
use tokio::time::timeout;

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
async fn everything_acknowledged_survives_a_kill_of_all_brokers() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 4).await;
    let load = Load::start(&client, "orders", AckMode::SemiSync);
    load.wait_for(500).await;
    for node in 1..=3 {
        cluster.kill(node);
    }
    let acked = load.abandon().await;
    client.close().await;
    for node in 1..=3 {
        cluster.start(node);
    }
    let client = cluster.client().await;
    let read = read_all(&client, "orders").await;
    check_all_there(&acked, &read);
    // And it goes on.
    let producer = client.producer(ProducerConfig::default().acks(AckMode::Sync));
    producer.send_and_wait(Record::to("orders").value("after")).await.expect("acknowledged");
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

/// A producer that sends numbered records until it is stopped, and remembers what was acknowledged.
struct Load {
    running: Arc<AtomicBool>,
    acked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<BTreeMap<Place, String>>,
}

impl Load {
    fn start(client: &Client, topic: &'static str, mode: AckMode) -> Load {
        let running = Arc::new(AtomicBool::new(true));
        let acked = Arc::new(AtomicUsize::new(0));
        let config = ProducerConfig::default()
            .acks(mode)
            .linger(Duration::from_millis(1))
            .delivery_timeout(Duration::from_secs(10));
        let producer = client.producer(config);
        let (go_on, count) = (Arc::clone(&running), Arc::clone(&acked));
        let task = tokio::spawn(async move {
            let mut places = BTreeMap::new();
            let mut number = 0;
            while go_on.load(Ordering::Relaxed) {
                let mut sent = Vec::new();
                for _ in 0..10 {
                    let value = format!("{mode:?} {number}");
                    number += 1;
                    let record = Record::to(topic).value(value.clone());
                    match producer.send(record).await {
                        Ok(delivery) => sent.push((value, delivery)),
                        Err(error) => panic!("not taken: {error}"),
                    }
                }
                for (value, delivery) in sent {
                    if let Ok(done) = delivery.await {
                        let before = places.insert((done.partition, done.offset), value);
                        assert_eq!(before, None, "one offset was given to two records");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            places
        });
        Load { running, acked, task }
    }

    fn acked(&self) -> usize {
        self.acked.load(Ordering::Relaxed)
    }

    async fn wait_for(&self, count: usize) {
        let reached = async {
            while self.acked() < count {
                assert!(!self.task.is_finished(), "the producer gave up");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let acked = || self.acked();
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{} of {count}", acked()));
    }

    async fn stop(self) -> BTreeMap<Place, String> {
        self.running.store(false, Ordering::Relaxed);
        timeout(PATIENCE, self.task).await.expect("it ends").expect("it does not panic")
    }

    /// As `stop`, when no broker is left to settle what is under way.
    async fn abandon(self) -> BTreeMap<Place, String> {
        self.running.store(false, Ordering::Relaxed);
        timeout(PATIENCE * 2, self.task).await.expect("it gives up").expect("it does not panic")
    }
}

async fn create(client: &Client, topic: &str, partitions: u32) {
    let topic = NewTopic::new(topic, partitions).replication(3);
    client.admin().create_topic(topic).await.expect("created");
}

async fn leader_of(cluster: &Cluster, client: &Client, topic: &str) -> usize {
    cluster
        .eventually("the partition has a leader", async || {
            let detail = client.admin().describe_topic(topic).await.ok()?;
            detail.partitions[0].leader.map(|node| node.0 as usize)
        })
        .await
}

/// Every acknowledged record lies where its receipt says, and no record lies in two places.
fn check_all_there(acked: &BTreeMap<Place, String>, read: &BTreeMap<Place, String>) {
    assert!(!acked.is_empty(), "a test without acks proves nothing");
    for (place, value) in acked {
        assert_eq!(read.get(place), Some(value), "lost at {place:?}");
    }
    let mut values: Vec<&String> = read.values().collect();
    values.sort_unstable();
    let count = values.len();
    values.dedup();
    assert_eq!(values.len(), count, "a record was written twice");
}
