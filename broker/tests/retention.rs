//! Three real brokers and a topic that keeps little: it stays small everywhere, readers are told what
//! is gone, and a broker that slept through it comes back with the same log.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::{Cluster, PATIENCE};
use highwater_broker::disk::mmap::MmapDisk;
use highwater_broker::log::{Log, Options};
use highwater_broker::node::reconcile::parse_dir_name;
use highwater_client::{
    AckMode, Client, Compression, DescribePartitionResponse, ErrorKind, NewTopic, NodeId, Offset,
    OffsetAt, OutOfRange, PartitionId, ProducerConfig, ReaderConfig, Record, StartAt, TopicId,
};
use highwater_protocol::ids::LogIndex;
use tokio::time::timeout;

const MIB: u64 = 1024 * 1024;
const FIRST: PartitionId = PartitionId(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_a_limit_stays_small_and_a_broker_that_slept_comes_back_alike() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    let topic = small_topic(&client).await;
    produce(&client, 10 * MIB).await;
    for node in 1..=3 {
        let seen = bounded(&cluster, &client, topic, node).await;
        assert!(seen.log_start > Offset(0), "{seen:?}");
    }
    assert!(cluster.stop(3), "it ends well\n{}", cluster.logs());
    let asleep_at =
        client.admin().list_offsets("small", FIRST, OffsetAt::End).await.expect("asked");
    produce(&client, 10 * MIB).await;
    cluster
        .eventually("the log starts behind what the sleeper has", async || {
            let start = client.admin().list_offsets("small", FIRST, OffsetAt::Start).await.ok()?;
            (start.offset > asleep_at.offset).then_some(())
        })
        .await;
    cluster.start(3);
    let leader = cluster
        .eventually("the sleeper is like its leader", async || {
            let leader = client.admin().describe_partition("small", FIRST).await.ok()?;
            let third = client.admin().describe_partition_on(NodeId(3), topic, FIRST).await.ok()?;
            let alike = third.log_start == leader.log_start && third.log_end == leader.log_end;
            (alike && third.high_watermark == leader.high_watermark).then_some(leader)
        })
        .await;
    bounded(&cluster, &client, topic, 3).await;
    readers_are_told(&client, leader.log_start).await;
    client.close().await;
    for node in 1..=3 {
        assert!(cluster.stop(node), "broker {node} ends well\n{}", cluster.logs());
    }
    // The ones that stopped later may have elected a leader, whose marks lie behind.
    let (start, first) = contents(&cluster, 1);
    assert!(!first.is_empty());
    for node in 2..=3 {
        let (other_start, other) = contents(&cluster, node);
        assert_eq!(other_start, start, "broker {node} starts elsewhere than broker 1");
        assert!(other.starts_with(&first), "broker {node} has another log than broker 1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trim_by_request_is_the_same_on_every_replica_and_survives_them_all() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    let topic = small_topic(&client).await;
    let producer = client
        .producer(ProducerConfig::default().acks(AckMode::Sync).compression(Compression::None));
    for number in 0..20 {
        let record = Record::to("small").value(format!("{number}"));
        producer.send_and_wait(record).await.expect("acknowledged");
    }
    let admin = client.admin();
    let start = admin.trim_partition("small", FIRST, Offset(12)).await.expect("trimmed");
    assert_eq!(start, Offset(12), "one record a batch");
    let error = admin.trim_partition("small", FIRST, Offset(21)).await.expect_err("above the end");
    assert!(error.to_string().contains("OFFSET_OUT_OF_RANGE"), "{error}");
    client.close().await;
    for node in 1..=3 {
        cluster.kill(node);
    }
    for node in 1..=3 {
        cluster.start(node);
    }
    let client = cluster.client().await;
    for node in 1..=3 {
        cluster
            .eventually("every replica starts where the trim said", async || {
                let on = client.admin().describe_partition_on(NodeId(node), topic, FIRST).await;
                (on.ok()?.log_start == Offset(12)).then_some(())
            })
            .await;
    }
}

/// One partition that keeps about two MiB, in segments of one.
async fn small_topic(client: &Client) -> TopicId {
    let topic = NewTopic::new("small", 1)
        .replication(3)
        .config("max.message.bytes", "262144")
        .config("segment.bytes", "1048576")
        .config("retention.bytes", "2097152")
        .config("retention.ms", "-1");
    client.admin().create_topic(topic).await.expect("created").id
}

async fn produce(client: &Client, bytes: u64) {
    let config = ProducerConfig::default().acks(AckMode::SemiSync).compression(Compression::None);
    let producer = client.producer(config);
    let value = Bytes::from(vec![7; 16 * 1024]);
    for _ in 0..bytes / value.len() as u64 {
        let record = Record::to("small").value(value.clone());
        drop(producer.send(record).await.expect("taken"));
    }
    let report = producer.close(PATIENCE).await.expect("all is settled in time");
    assert_eq!(report.failed, 0, "{:?}", report.first_error);
}

/// Waits until a replica holds what the limit allows and the segments that it cannot part with:
/// the active one, and on a follower the one in which the log starts.
async fn bounded(
    cluster: &Cluster,
    client: &Client,
    topic: TopicId,
    node: u32,
) -> DescribePartitionResponse {
    cluster
        .eventually("a replica is small", async || {
            let on = client.admin().describe_partition_on(NodeId(node), topic, FIRST).await.ok()?;
            (on.bytes <= 5 * MIB && on.high_watermark == on.log_end).then_some(on)
        })
        .await
}

async fn readers_are_told(client: &Client, start: Offset) {
    let from = StartAt::Offset(Offset(0));
    let mut reader =
        client.reader(ReaderConfig::new("small", from).until_end()).await.expect("a reader");
    let error =
        timeout(PATIENCE, reader.next_batch()).await.expect("in time").expect_err("it is gone");
    assert!(matches!(error.kind(), ErrorKind::Refused(_)), "{error}");
    assert!(error.to_string().contains(&start.to_string()), "it names the start: {error}");
    let config = ReaderConfig::new("small", from).until_end().out_of_range(OutOfRange::Start);
    let mut reader = client.reader(config).await.expect("a reader");
    let batch = timeout(PATIENCE, reader.next_batch()).await.expect("in time").expect("readable");
    let first = batch.as_ref().and_then(|batch| batch.into_iter().next().map(|first| first.offset));
    assert_eq!(first, Some(start));
}

/// Where a stopped broker's log of the topic starts, and everything in it.
fn contents(cluster: &Cluster, node: usize) -> (LogIndex, Vec<u8>) {
    let topics = cluster.dir.path().join(format!("node-{node}/data/topics"));
    let dir: PathBuf = std::fs::read_dir(&topics)
        .expect("it has topics")
        .map(|entry| entry.expect("readable").path())
        .find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("small"))
        })
        .expect("it has the topic");
    let name = dir.file_name().expect("found by its name").to_string_lossy().into_owned();
    let partition = parse_dir_name(&name).expect("a directory of ours");
    let options = Options { segment_bytes_max: MIB, keep_free_bytes: 0 };
    let (log, recovered) =
        Log::open(Arc::new(MmapDisk::default()), Path::new(&dir), partition, options)
            .expect("it opens");
    assert_eq!(recovered.damage, None);
    let read = log.read_frames(log.start().0, usize::MAX >> 1).expect("it reads");
    (log.start().0, read.frames.concat())
}
