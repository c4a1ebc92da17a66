//! Real brokers and the real client: what a running producer and reader notice of leaders that move
//! and of partitions that are added, which is nothing but the records.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::load::create;
use common::{Cluster, PATIENCE, read_all};
use highwater_client::{
    AckMode, Client, DryRun, PartitionInfo, ProducerConfig, Profiles, ReaderConfig, Record, StartAt,
};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_spread_again_after_a_restart_and_no_produce_fails() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 6).await;
    let (running, producer) = (Arc::new(AtomicBool::new(true)), client.clone());
    let go_on = Arc::clone(&running);
    let load = tokio::spawn(async move {
        let config = ProducerConfig::default().acks(AckMode::Sync).linger(Duration::ZERO);
        let producer = producer.producer(config);
        let mut sent = 0;
        while go_on.load(Ordering::Relaxed) {
            let record = Record::to("orders").key(format!("k{sent}")).value(format!("{sent}"));
            producer.send_and_wait(record).await.expect("no produce fails");
            sent += 1;
        }
        sent
    });
    assert!(cluster.stop(2), "it ends well\n{}", cluster.logs());
    let none_on_2 = |info: &PartitionInfo| info.leader.is_some_and(|leader| leader.0 != 2);
    leaders(&cluster, &client, "the others lead", none_on_2).await;
    cluster.start(2);
    let preferred = |info: &PartitionInfo| info.leader == info.replicas.first().copied();
    leaders(&cluster, &client, "each preferred replica leads again", preferred).await;
    running.store(false, Ordering::Relaxed);
    let sent: usize = timeout(PATIENCE, load).await.expect("it ends").expect("no produce failed");
    assert_eq!(read_all(&client, "orders").await.len(), sent);
}

async fn leaders(
    cluster: &Cluster,
    client: &Client,
    what: &str,
    holds: impl Fn(&PartitionInfo) -> bool,
) {
    cluster
        .eventually(what, async || {
            let detail = client.admin().describe_topic("orders").await.ok()?;
            detail.partitions.iter().all(&holds).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_producer_and_reader_take_up_partitions_that_are_added() {
    let cluster = Cluster::started(1);
    drop(cluster.client().await);
    let profiles = Profiles::load_from(&cluster.created.profile).expect("init wrote it");
    let mut config = profiles.get(None).expect("one profile").config();
    config.metadata_age_max = Duration::from_secs(1);
    let client = Client::connect(config).await.expect("it is healthy");
    let topic = highwater_client::NewTopic::new("orders", 1).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    let producer = client.producer(ProducerConfig::default().acks(AckMode::Sync));
    let config = ReaderConfig::new("orders", StartAt::End);
    let mut reader = client.reader(config).await.expect("a reader");
    let send = async |number: usize| {
        let record = Record::to("orders").key(format!("k{number}")).value(format!("{number}"));
        producer.send_and_wait(record).await.expect("acknowledged").partition.0
    };
    assert_eq!(send(0).await, 0);
    let added = client.admin().create_partitions("orders", 4, DryRun::No).await.expect("added");
    assert_eq!((added.first.0, added.replicas.len()), (1, 3));

    let (mut sent, mut used) = (1, BTreeSet::new());
    let written = async {
        while used.len() < 4 {
            used.insert(send(sent).await);
            sent += 1;
        }
    };
    timeout(PATIENCE, written).await.expect("the producer uses all four in time");
    let mut read = BTreeSet::new();
    while read.len() < sent {
        let next = timeout(PATIENCE, reader.next_batch()).await;
        let batch = next.expect("the reader follows in time").expect("readable").expect("no end");
        for record in &batch {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            assert!(read.insert(value), "a record was read twice");
        }
    }
}
