//! A producer under way while things happen, and what must be true of its records afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use highwater_client::{AckMode, Client, NewTopic, ProducerConfig, Record};
use tokio::time::timeout;

use super::{Cluster, PATIENCE, Place};

/// A producer that sends numbered records until it is stopped, and remembers what was acknowledged.
pub struct Load {
    running: Arc<AtomicBool>,
    acked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<BTreeMap<Place, String>>,
}

impl Load {
    /// Begins at once.
    pub fn start(client: &Client, topic: &'static str, mode: AckMode) -> Load {
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
                        let place = (done.partition, done.offset);
                        let first = places.entry(place).or_insert_with(|| value.clone());
                        // An offset that only the leader had may be given again by the next one.
                        assert!(
                            *first == value || mode == AckMode::Async,
                            "{place:?} was given to {first} and {value}"
                        );
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            places
        });
        Load { running, acked, task }
    }

    /// How many were acknowledged by now.
    pub fn acked(&self) -> usize {
        self.acked.load(Ordering::Relaxed)
    }

    /// Waits until so many are acknowledged.
    pub async fn wait_for(&self, count: usize) {
        let reached = async {
            while self.acked() < count {
                assert!(!self.task.is_finished(), "the producer gave up");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let acked = || self.acked();
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{} of {count}", acked()));
    }

    /// Ends the load; where each acknowledged record lies.
    pub async fn stop(self) -> BTreeMap<Place, String> {
        self.running.store(false, Ordering::Relaxed);
        timeout(PATIENCE, self.task).await.expect("it ends").expect("it does not panic")
    }
}

/// A topic with three replicas of each partition.
pub async fn create(client: &Client, topic: &str, partitions: u32) {
    let topic = NewTopic::new(topic, partitions).replication(3);
    client.admin().create_topic(topic).await.expect("created");
}

/// The broker that leads the first partition.
pub async fn leader_of(cluster: &Cluster, client: &Client, topic: &str) -> usize {
    cluster
        .eventually("the partition has a leader", async || {
            let detail = client.admin().describe_topic(topic).await.ok()?;
            detail.partitions[0].leader.map(|node| node.0 as usize)
        })
        .await
}

/// Every acknowledged record lies where its receipt says, and no record lies in two places.
pub fn check_all_there(acked: &BTreeMap<Place, String>, read: &BTreeMap<Place, String>) {
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
