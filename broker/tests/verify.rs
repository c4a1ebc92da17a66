//! Three real brokers, and one of them comes back with other records than it had: `hw cluster verify` says
//! which one, and where.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use common::{Cluster, PATIENCE};
use highwater_broker::disk::Disk;
use highwater_broker::disk::mmap::MmapDisk;
use highwater_broker::log::{Log, Options};
use highwater_client::{
    AckMode, Client, NewTopic, PartitionId, ProducerConfig, Record, Timestamp, TopicPartition,
};
use highwater_protocol::batch::{FrameKind, frames, stamp_append_time};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_holds_another_record_is_named_with_the_place() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    let topic = NewTopic::new("orders", 2).replication(3);
    let id = client.admin().create_topic(topic).await.expect("created").id;
    fill(&client).await;
    cluster
        .eventually("all three have the same", async || {
            let (found, code) = compared(&cluster, &[]);
            let orders = |partition: &Value| {
                let whole = partition["until_offset"].as_u64() == Some(30);
                whole && partition["topic"] == "orders" && partition["agree"] == json!([1, 2, 3])
            };
            let all = found["partitions"].as_array().expect("a list");
            let whole = all.iter().filter(|partition| orders(partition)).count() == 2;
            (whole && found["partitions_agree"] == 3 && code == Some(0)).then_some(())
        })
        .await;

    cluster.kill(3);
    let found = verified(&cluster, &["orders/1"], 7);
    let [partition] = &found["partitions"].as_array().expect("a list")[..] else {
        panic!("{found}")
    };
    assert_eq!(partition["verdict"], "incomplete");
    assert_eq!(partition["replica_states"][0]["kind"], "away");

    let partition = TopicPartition::new(id, PartitionId(1));
    let offset = with_another_record(&replica_dir(&cluster, 3, "orders-1."), partition);
    cluster.start(3);
    drop(cluster.client().await);
    cluster
        .eventually("the difference is found", async || {
            let (found, code) = compared(&cluster, &["orders*"]);
            let partition = &found["partitions"][1];
            let other = &partition["replica_states"][0];
            let all = other["kind"] == "differs" && partition["agree"] == json!([1, 2]);
            let named = other["broker"] == 3 && other["from_offset"] == offset;
            (all && named && code == Some(10)).then_some(())
        })
        .await;
    let shown = hw(&cluster, &["cluster", "verify", "orders/1"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("broker 3 differs first in the batch of offsets"), "{shown}");
    assert_eq!(verified(&cluster, &["orders/0"], 0)["partitions_agree"], 1);
}

async fn fill(client: &Client) {
    let producer = client.producer(ProducerConfig::default().acks(AckMode::Sync));
    for number in 0..60 {
        let record = Record::to("orders").partition(number % 2).value("v".repeat(900));
        producer.send(record).await.expect("taken").await.expect("acknowledged");
    }
    producer.close(PATIENCE).await.expect("all is settled in time");
}

/// Rewrites a replica's log with one batch in the middle changed, and its checksum with it: all is sound, and
/// only the others know that it is not what was written. Says at which offset.
fn with_another_record(dir: &Path, partition: TopicPartition) -> u64 {
    let disk: Arc<dyn Disk> = Arc::new(MmapDisk::default());
    let options = Options { segment_bytes_max: 1 << 30, keep_free_bytes: 0 };
    let open = |dir: &Path| Log::open(disk.clone(), dir, partition, options).expect("it opens").0;
    let log = open(dir);
    let read = log.read_frames(log.start().0, usize::MAX).expect("it reads");
    let mut bytes = read.frames.concat();
    let data: Vec<_> = frames(&bytes.clone())
        .map(|frame| frame.expect("whole"))
        .scan(0, |at, (header, frame)| {
            *at += frame.len();
            Some((header, *at - frame.len()..*at))
        })
        .filter(|(header, _)| header.kind() == FrameKind::Data)
        .collect();
    let (header, place) = &data[data.len() / 2];
    stamp_append_time(&mut bytes[place.clone()], Timestamp(77));
    let other = dir.with_extension("other");
    let mut written = open(&other);
    written.append_frames(&[Bytes::from(bytes)]).expect("a new log takes it");
    written.close().expect("it is ours");
    assert_eq!(written.end(), log.end());
    drop((written, log));
    fs::remove_dir_all(dir).expect("it is ours");
    fs::rename(other, dir).expect("it is ours");
    header.base_offset.0
}

fn replica_dir(cluster: &Cluster, node: usize, prefix: &str) -> PathBuf {
    let topics = cluster.dir.path().join(format!("node-{node}/data/topics"));
    let dirs = fs::read_dir(&topics).expect("it has topics");
    let mut dirs = dirs.map(|entry| entry.expect("readable").path());
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
    };
    dirs.find(named).expect("it has the partition")
}

/// What is found, and that it ends with this code.
fn verified(cluster: &Cluster, targets: &[&str], code: i32) -> Value {
    let (found, ended) = compared(cluster, targets);
    assert_eq!(ended, Some(code), "{found}\n{}", cluster.logs());
    found
}

/// What is found, and the code that it ends with.
fn compared(cluster: &Cluster, targets: &[&str]) -> (Value, Option<i32>) {
    let output = hw(cluster, &[&["cluster", "verify", "-o", "json"], targets].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    (found, output.status.code())
}

fn hw(cluster: &Cluster, arguments: &[&str]) -> Output {
    let hw = Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name("hw");
    let mut command = Command::new(hw);
    command.args(arguments).env("HIGHWATER_PROFILE", &cluster.created.profile);
    command.stdin(Stdio::null()).output().expect("hw is built beside the broker")
}
