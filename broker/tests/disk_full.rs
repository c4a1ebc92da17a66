//! Real brokers on small disks: a full one refuses records and nothing else, and nobody dies of it.

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use common::{Cluster, Place, can_mount_in_private, edit, read_all};
use highwater_client::{
    AckMode, Client, Compression, Error, NewTopic, NodeId, PartitionId, PartitionInfo, Producer,
    ProducerConfig, Record,
};

const TOPICS: [&str; 2] = ["kept", "filler"];

type Acked = BTreeMap<Place, String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_refuse_records_only_and_take_them_again_after_a_deletion() {
    if !can_mount_in_private() {
        eprintln!("not tested: this machine does not allow private mounts");
        return;
    }
    let mut cluster = on_disks_of([64; 3]);
    let client = cluster.client().await;
    for topic in TOPICS {
        create(&client, topic).await;
    }
    let mut kept = Acked::new();
    for number in 0..20 {
        kept.extend([write(&client, "kept", number).await.expect("there is room")]);
    }
    let (filler, refusal) = fill(&client).await;
    assert!(filler.len() > 500, "{} were taken before {refusal}", filler.len());
    assert!(refusal.retriable(), "{refusal}");
    assert!(refusal.to_string().contains("less than 16 MiB free"), "{refusal}");
    let terms = terms(&client).await;

    // Even the last byte goes, to somebody else: nothing can be written any more.
    let ballast: Vec<_> = (1..=3).map(|node| take_all(&cluster, node)).collect();
    assert!(write(&client, "kept", 20).await.is_err(), "no room");
    assert_eq!(read_all(&client, "kept").await, kept);
    check_contains(&read_all(&client, "filler").await, &filler);
    assert!((1..=3).all(|node| cluster.runs(node)), "a full disk kills nobody\n{}", cluster.logs());
    ballast.iter().for_each(|file| std::fs::remove_file(file).expect("it is ours"));

    // What is kept free for the broker's own needs is enough to get out of it.
    create(&client, "small").await;
    assert_eq!(self::terms(&client).await, terms, "nobody lost its place");
    client.admin().delete_topic("filler").await.expect("deletions go on");
    let room = cluster
        .eventually("records are taken again", async || write(&client, "kept", 21).await.ok());
    kept.extend([room.await]);
    check_contains(&read_all(&client, "kept").await, &kept);
    assert!((1..=3).all(|node| cluster.runs(node)), "{}", cluster.logs());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_on_a_full_disk_holds_nobody_up_and_comes_back_when_there_is_room() {
    if !can_mount_in_private() {
        eprintln!("not tested: this machine does not allow private mounts");
        return;
    }
    let small = NodeId(3);
    let mut cluster = on_disks_of([128, 128, 32]);
    let client = cluster.client().await;
    let topic = NewTopic::new("wide", 3).replication(3);
    client.admin().create_topic(topic).await.expect("created");
    let (id, partition) = cluster
        .eventually("a partition is led by one with a large disk", async || {
            let detail = client.admin().describe_topic("wide").await.ok()?;
            let large = |it: &&PartitionInfo| it.leader.is_some_and(|node| node != small);
            Some((detail.id, detail.partitions.iter().find(large)?.partition))
        })
        .await;

    let acks = ProducerConfig::default()
        .acks(AckMode::SemiSync)
        .batch_bytes_max(1 << 18)
        .compression(Compression::None);
    let producer = client.producer(acks);
    let mut acked = Acked::new();
    for number in 0..3_000 {
        let value = format!("wide {number} {}", "x".repeat(16_000));
        let record = Record::to("wide").partition(partition.0).value(value.clone());
        let done = producer.send_and_wait(record).await.expect("a majority has room");
        acked.insert((done.partition, done.offset), value);
    }
    assert!(cluster.logs().contains("no room for what the leader sends"), "{}", cluster.logs());
    check_contains(&read_all(&client, "wide").await, &acked);

    // Nobody deletes from a part of a topic, so the room comes from somewhere else.
    let remount = std::process::Command::new("nsenter")
        .args(["--user", "--mount", "--target"])
        .arg(cluster.pid(3).to_string())
        .args(["mount", "-o", "remount,size=128m"])
        .arg(cluster.dir.path().join("node-3/data"))
        .output()
        .expect("util-linux has nsenter as well as unshare");
    assert!(remount.status.success(), "{remount:?}");
    cluster
        .eventually("the follower has caught up", async || {
            let admin = client.admin();
            let there = admin.describe_partition_on(small, id, partition).await.ok()?;
            let leader = admin.describe_partition("wide", partition).await.ok()?;
            (there.log_end == leader.log_end).then_some(())
        })
        .await;
    assert!((1..=3).all(|node| cluster.runs(node)), "{}", cluster.logs());
}

fn on_disks_of(mib: [u32; 3]) -> Cluster {
    let mut cluster = Cluster::made(3);
    for (node, mib) in (1..).zip(mib) {
        cluster.use_small_disk(node, mib);
        edit(&cluster.created.configs[node - 1], "[data]\n", "[data]\nreserve_mib = 16\n");
        cluster.start(node);
    }
    cluster
}

async fn create(client: &Client, topic: &str) {
    let topic = NewTopic::new(topic, 1).replication(3);
    client.admin().create_topic(topic).await.expect("created");
}

fn producer(client: &Client) -> Producer {
    let config = ProducerConfig::default().acks(AckMode::Sync).compression(Compression::None);
    client.producer(config.delivery_timeout(Duration::from_secs(2)))
}

async fn write(client: &Client, topic: &str, number: u32) -> Result<(Place, String), Error> {
    let value = format!("{topic} {number}");
    let done = producer(client).send_and_wait(Record::to(topic).value(value.clone())).await?;
    Ok(((done.partition, done.offset), value))
}

/// Writes until it is refused; what was taken, and the refusal.
async fn fill(client: &Client) -> (Acked, Error) {
    let (producer, mut acked) = (producer(client), Acked::new());
    for round in 0.. {
        let mut sent = Vec::new();
        for number in 0..50 {
            let value = format!("filler {round} {number} {}", "x".repeat(16_000));
            let record = Record::to("filler").value(value.clone());
            sent.push((value, producer.send(record).await.expect("taken by the producer")));
        }
        for (value, delivery) in sent {
            match delivery.await {
                Ok(done) => drop(acked.insert((done.partition, done.offset), value)),
                Err(error) => return (acked, error),
            }
        }
    }
    unreachable!("a small disk is full at some time")
}

async fn terms(client: &Client) -> Vec<u32> {
    let mut terms = Vec::new();
    for topic in TOPICS {
        let detail = client.admin().describe_partition(topic, PartitionId(0)).await;
        terms.push(detail.expect("metadata goes on").term.0);
    }
    terms
}

/// Takes every last byte of a broker's disk.
fn take_all(cluster: &Cluster, node: usize) -> std::path::PathBuf {
    let path = cluster.data_dir(node).join("ballast");
    let mut file = File::create(&path).expect("its disk can be reached");
    for bytes in [1 << 20, 4096, 1] {
        let piece = vec![1; bytes];
        let refused = loop {
            if let Err(error) = file.write_all(&piece) {
                break error;
            }
        };
        assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
    }
    path
}

fn check_contains(read: &Acked, acked: &Acked) {
    for (place, value) in acked {
        assert_eq!(read.get(place), Some(value), "lost at {place:?}");
    }
}
