//! What a client tells those who watch it, beside what it did with real brokers.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::{Cluster, PATIENCE};
use highwater_client::{
    ApiKey, BatchRead, BatchWritten, Client, ConsumerConfig, Error, Hooks, Metrics, NewTopic,
    NodeId, ProducerConfig, Profiles, Rebalance, Record, RequestDone,
};
use tokio::time::timeout;

const RECORDS: u64 = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_and_metrics_tell_all_that_was_written_and_read_and_every_request() {
    let mut cluster = Cluster::started(1);
    // Until the broker is well, so that it answers at once.
    drop(cluster.client().await);
    let seen = Arc::new(Seen::default());
    let profiles = Profiles::load_from(&cluster.created.profile).expect("init wrote it");
    let config = profiles.get(None).expect("one profile").config().hooks(seen.clone());
    let client = Client::connect(config).await.expect("the broker answers");
    client.admin().create_topic(NewTopic::new("orders", 2).replication(1)).await.expect("made");
    write(&client).await;
    read(&client).await;

    let known = seen.known().clone();
    assert_eq!((known.written, known.read), (RECORDS, RECORDS));
    assert_eq!((known.failed, known.assigned), (0, 2));
    let metrics = client.metrics();
    assert_eq!((metrics.records_written, metrics.records_read), (RECORDS, RECORDS));
    assert_eq!((metrics.batches_written, metrics.batches_failed), (known.batches, 0));
    assert!(metrics.bytes_sent > known.bytes && metrics.bytes_read >= RECORDS, "{metrics:?}");
    assert!(metrics.connections >= 1 && metrics.rebalances >= 1, "{metrics:?}");

    // A broker that dies: whatever was sent is told to be answered or lost, each once.
    cluster.kill(1);
    cluster
        .eventually("all connections have ended, and all requests", async || {
            let (known, metrics) = (seen.known().clone(), client.metrics());
            let Metrics { connections, requests_in_flight, bytes_in_flight, .. } = metrics;
            let none = connections + requests_in_flight + bytes_in_flight == 0;
            let sent = known.sent.values().sum::<u64>();
            let all = (known.connected, known.disconnected, sent)
                == (metrics.connects, metrics.connects, metrics.requests);
            (none && all && known.sent == known.answered).then_some(())
        })
        .await;
    client.close().await;
    let (known, metrics) = (seen.known().clone(), client.metrics());
    let produce = *known.sent.get("Produce").expect("batches were sent");
    assert_eq!(produce, known.batches + metrics.retries);
}

async fn write(client: &Client) {
    let producer = client.producer(ProducerConfig::default());
    for number in 0..RECORDS {
        let record = Record::to("orders").partition(number as u32 % 2).value(format!("{number}"));
        // What becomes of it the report says.
        drop(producer.send(record).await.expect("there is room"));
    }
    let report = producer.close(PATIENCE).await.expect("all are acknowledged");
    assert_eq!((report.acked, report.failed), (RECORDS, 0));
}

async fn read(client: &Client) {
    let mut consumer = client.consumer(ConsumerConfig::new("billing", ["orders"])).await;
    let consumer = consumer.as_mut().expect("it begins");
    let mut read = 0;
    while read < RECORDS {
        let batch = timeout(PATIENCE, consumer.next_batch()).await.expect("in time");
        read += batch.expect("readable").len() as u64;
    }
}

/// What hooks were called with.
#[derive(Debug, Default)]
struct Seen {
    known: Mutex<Known>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    connected: u64,
    disconnected: u64,
    sent: BTreeMap<String, u64>,
    answered: BTreeMap<String, u64>,
    batches: u64,
    bytes: u64,
    written: u64,
    failed: u64,
    read: u64,
    assigned: usize,
}

impl Seen {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nobody panics with it")
    }
}

impl Hooks for Seen {
    fn connected(&self, node: NodeId) {
        assert_eq!(node, NodeId(1));
        self.known().connected += 1;
    }

    fn disconnected(&self, _: NodeId, why: &Error) {
        assert!(!why.to_string().is_empty());
        self.known().disconnected += 1;
    }

    fn sent(&self, _: NodeId, api: ApiKey, bytes: usize) {
        assert!(bytes > 0);
        *self.known().sent.entry(format!("{api:?}")).or_default() += 1;
    }

    fn answered(&self, request: &RequestDone) {
        assert!(request.result.is_err() || request.bytes_received > 0, "{request:?}");
        assert!(request.took < Duration::from_secs(60), "{request:?}");
        *self.known().answered.entry(format!("{:?}", request.api)).or_default() += 1;
    }

    fn produced(&self, batch: &BatchWritten<'_>) {
        let mut known = self.known();
        known.batches += 1;
        known.bytes += batch.bytes as u64;
        match batch.result {
            Ok(_) => known.written += batch.records,
            Err(_) => known.failed += batch.records,
        }
    }

    fn fetched(&self, batch: &BatchRead<'_>) {
        assert_eq!(batch.topic.as_str(), "orders");
        self.known().read += batch.records;
    }

    fn rebalanced(&self, group: &str, what: &Rebalance<'_>) {
        assert_eq!(group, "billing");
        if let Rebalance::Assigned(partitions) = what {
            self.known().assigned += partitions.len();
        }
    }
}
