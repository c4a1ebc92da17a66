//! Real brokers whose replicas' files fail, or are cut under them, while they run: nobody ends, nothing that was
//! acknowledged is lost, and every replica has all of it again by itself.

mod common;

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::load::{Load, check_all_there, leader_of};
use common::{Cluster, PATIENCE, read_all};
use highwater_broker::disk::mmap::MmapDisk;
use highwater_broker::log::{Log, Options};
use highwater_client::{
    AckMode, Client, Compression, NewTopic, NodeId, PartitionId, ProducerConfig, Record, TopicId,
    TopicPartition,
};
use highwater_protocol::batch::{self, FrameKind};
use highwater_protocol::ids::LogIndex;
use highwater_protocol::native::digest::DigestRange;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_files_fail_is_made_anew_while_its_broker_runs() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    let id = create(&client).await;
    fill(&client, 4).await;
    // A majority is enough for a record: the third may not even have its directory yet.
    eventually_alike(&cluster, &client, id).await;
    let victim = leader_of(&cluster, &client, TOPIC).await % 3 + 1;
    // Somebody has taken the names of the segments to come, which no disk can make then.
    let newest = segments(&dir_of(&cluster, victim)).pop().expect("there are records");
    let (sequence, _) = newest.split_once('-').expect("a segment's name");
    let next = sequence.parse::<u64>().expect("a number") + 1;
    for base in 0..100 {
        let name = format!("{next:010}-{base:020}.log");
        File::create(dir_of(&cluster, victim).join(name)).expect("it is ours");
    }
    fill(&client, 30).await;
    eventually_said(&cluster, victim, "the replica is out of service").await;
    eventually_said(&cluster, victim, "the replica is made anew from the others").await;
    eventually_alike(&cluster, &client, id).await;
    cluster
        .eventually("what had failed is deleted", async || {
            let strays = cluster.dir.path().join(format!("node-{victim}/data/stray"));
            let mut left = fs::read_dir(strays).ok()?.flatten();
            (!left.any(|it| it.file_name().to_string_lossy().starts_with("failed-"))).then_some(())
        })
        .await;
    assert_eq!(read_all(&client, TOPIC).await.len(), 34);
    kill_and_compare(cluster, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_in_use_that_somebody_cuts_short_costs_no_broker_and_no_record() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    let id = create(&client).await;
    let load = Load::start(&client, TOPIC, AckMode::Sync);
    load.wait_for(500).await;
    eventually_in_sync(&cluster, &client).await;
    let leader = leader_of(&cluster, &client, TOPIC).await;
    for victim in [leader % 3 + 1, leader] {
        let dir = dir_of(&cluster, victim);
        let newest = segments(&dir).pop().expect("there are records");
        let file = OpenOptions::new().write(true).open(dir.join(newest)).expect("it is ours");
        file.set_len(8_192).expect("it is ours");
        load.wait_for(load.acked() + 300).await;
        assert!(cluster.runs(victim), "{}", cluster.logs());
    }
    let acked = load.stop().await;
    cluster
        .eventually("all replicas can read all, and hold the same", async || {
            let mut held = Vec::new();
            for node in 1..=3 {
                held.push(hash_of(&client, node, id).await?);
            }
            held.dedup();
            (held.len() == 1).then_some(())
        })
        .await;
    check_all_there(&acked, &read_all(&client, TOPIC).await);
    eventually_alike(&cluster, &client, id).await;
    for node in 1..=3 {
        assert!(cluster.runs(node), "{}", cluster.logs());
    }
    for victim in [leader % 3 + 1, leader] {
        let said = fs::read_to_string(cluster.log(victim)).expect("it has a log");
        let whole = ["damaged batches are whole again", "the replica is made anew"];
        assert!(whole.iter().any(|what| said.contains(what)), "broker {victim}: {said}");
    }
    kill_and_compare(cluster, id);
}

async fn create(client: &Client) -> TopicId {
    let topic = NewTopic::new(TOPIC, 1)
        .replication(3)
        .config("max.message.bytes", "262144")
        .config("segment.bytes", "1048576");
    client.admin().create_topic(topic).await.expect("created");
    client.admin().describe_topic(TOPIC).await.expect("made").id
}

async fn fill(client: &Client, records: usize) {
    let config = ProducerConfig::default().compression(Compression::None);
    let producer = client.producer(config.delivery_timeout(PATIENCE));
    for _ in 0..records {
        let record = Record::to(TOPIC).value(vec![7; 64 * 1024]);
        producer.send_and_wait(record).await.expect("a majority takes it");
    }
}

/// The directory of a broker's replica.
fn dir_of(cluster: &Cluster, node: usize) -> PathBuf {
    let topics = cluster.dir.path().join(format!("node-{node}/data/topics"));
    let mut dirs = fs::read_dir(&topics).expect("it is there").flatten();
    let ours = dirs.find(|dir| dir.file_name().to_string_lossy().starts_with(TOPIC));
    ours.expect("it hosts the partition").path()
}

/// The names of its segments' files, oldest first.
fn segments(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("it is there").flatten();
    let names = names.map(|name| name.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = names.filter(|name| name.ends_with(".log")).collect();
    found.sort_unstable();
    found
}

async fn eventually_said(cluster: &Cluster, node: usize, what: &str) {
    cluster
        .eventually(what, async || {
            fs::read_to_string(cluster.log(node)).ok()?.contains(what).then_some(())
        })
        .await;
}

async fn eventually_in_sync(cluster: &Cluster, client: &Client) {
    cluster
        .eventually("all replicas are in sync", async || {
            let detail = client.admin().describe_topic(TOPIC).await.ok()?;
            (detail.partitions[0].in_sync.len() == 3).then_some(())
        })
        .await;
}

/// All are in sync, and end alike.
async fn eventually_alike(cluster: &Cluster, client: &Client, id: TopicId) {
    cluster
        .eventually("all replicas are in sync and end alike", async || {
            let detail = client.admin().describe_topic(TOPIC).await.ok()?;
            let mut ends = Vec::new();
            for node in 1..=3 {
                let seen = client.admin().describe_partition_on(NodeId(node), id, FIRST).await;
                ends.push(seen.ok()?.log_end);
            }
            ends.dedup();
            (ends.len() == 1 && detail.partitions[0].in_sync.len() == 3).then_some(())
        })
        .await;
}

/// The logs of all brokers hold the same records, read by themselves. Marks may be on their way still.
fn kill_and_compare(mut cluster: Cluster, id: TopicId) {
    cluster.kill_all();
    let held: Vec<Vec<Bytes>> = (1..=3).map(|node| records(&dir_of(&cluster, node), id)).collect();
    assert!(!held[0].is_empty() && held[0].concat() == held[1].concat(), "1 and 2 differ");
    assert!(held[1].concat() == held[2].concat(), "2 and 3 differ");
}

fn records(dir: &Path, id: TopicId) -> Vec<Bytes> {
    let options = Options { segment_bytes_max: 1 << 30, keep_free_bytes: 0 };
    let partition = TopicPartition::new(id, FIRST);
    let (log, _) = Log::open(Arc::new(MmapDisk::default()), dir, partition, options).expect("open");
    let mut read = Vec::new();
    let mut from = log.start().0;
    while from < log.end() {
        let some = log.read_frames(from, 1 << 20).expect("it can be read");
        assert!(some.end > from, "nothing can be read behind {from}");
        let frames = some
            .frames
            .iter()
            .flat_map(|slice| batch::frames(slice))
            .map(|frame| frame.expect("whole"));
        let data = frames.filter(|(header, _)| header.kind() == FrameKind::Data);
        read.extend(data.map(|(_, bytes)| Bytes::copy_from_slice(bytes)));
        from = some.end;
    }
    read
}

/// The hash of all that a broker's replica knows to be committed, if it can read that.
async fn hash_of(client: &Client, node: u32, id: TopicId) -> Option<(LogIndex, u128)> {
    let (mut from, mut seed) = (LogIndex::ZERO, 0);
    loop {
        let until = LogIndex(u64::MAX >> 1);
        let range = DigestRange { from, until, seed, bytes_max: 4 << 20 };
        let (admin, partition) = (client.admin(), TopicPartition::new(id, FIRST));
        let asked = admin.digest_replica(NodeId(node), partition, Some(range), PATIENCE).await;
        let digest = asked.ok()?.digest?;
        if digest.unreadable.is_some() || digest.end <= from {
            return digest.unreadable.is_none().then_some((from, seed));
        }
        (from, seed) = (digest.end, digest.hash);
    }
}

const TOPIC: &str = "orders";
const FIRST: PartitionId = PartitionId(0);
