//! Every named crash point, fired in a real broker: it ends there as if killed, comes back with what it
//! had, and nothing that was acknowledged is lost or comes twice.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use common::chaos::files::walk;
use common::tail::Tail;
use common::{Cluster, PATIENCE};
use highwater_broker::crash_point::CrashPoint;
use highwater_client::{
    AckMode, Client, Compression, DigestRange, NewTopic, NodeId, OffsetAt, PartitionId,
    ProducerConfig, Record, TopicId, TopicPartition,
};
use highwater_protocol::ids::LogIndex;
use tokio::time::{Instant, sleep};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_comes_back_from_every_crash_point_and_nothing_is_lost_or_repeated() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    let admin = client.admin();
    let small = |name| {
        let topic = NewTopic::new(name, 1).replication(3).config("max.message.bytes", "262144");
        topic.config("segment.bytes", "1048576").config("retention.ms", "-1")
    };
    let tail_id = admin.create_topic(NewTopic::new("tail", 4).replication(3)).await.expect("made");
    let filled_id = admin.create_topic(small(FILLED)).await.expect("made").id;
    let tail = Tail::start(&client, "tail");
    tail.goes_on(100).await;
    for point in CrashPoint::value_variants() {
        let value = point.to_possible_value().expect("no point is skipped");
        let name = value.get_name();
        cluster.kill(VICTIM);
        cluster.start_with(VICTIM, &["--crash-at", name]);
        let mut provoker =
            Provoker { client: &client, filled: filled_id, point: *point, rounds: 0 };
        // It starts, catches up, and comes by the point.
        let deadline = Instant::now() + 3 * PATIENCE;
        let exit = loop {
            if let Some(exit) = cluster.bury(VICTIM) {
                break exit;
            }
            assert!(Instant::now() < deadline, "{name} was never reached\n{}", cluster.logs());
            provoker.provoke(&cluster).await;
            sleep(Duration::from_millis(50)).await;
        };
        // Other threads may get a word in before the end.
        let (last, told) =
            (cluster.last_lines(VICTIM, 20), format!("highwater: ends at the crash point {name}"));
        assert!(last.contains(&told), "{exit}: {last:#?}");
        tail.goes_on(100).await;
        cluster.start(VICTIM);
        for (id, partitions) in [(tail_id.id, 4), (filled_id, 1)] {
            until_caught_up(&cluster, &client, id, partitions).await;
        }
    }
    assert!(tail.stop().await > 0);
}

/// Does what leads a broker to a point.
struct Provoker<'a> {
    client: &'a Client,
    filled: TopicId,
    point: CrashPoint,
    rounds: u32,
}

impl Provoker<'_> {
    /// Once; what fails because the broker ends over it is tried again, if it has not ended.
    async fn provoke(&mut self, cluster: &Cluster) {
        self.rounds += 1;
        match self.point {
            // The load does it, or the start itself.
            CrashPoint::FramesWritten
            | CrashPoint::FlushBegun
            | CrashPoint::FlushDone
            | CrashPoint::PassEnded
            | CrashPoint::JournalWritten
            | CrashPoint::JournalRenamed => {}
            CrashPoint::SegmentMade | CrashPoint::SegmentNamed | CrashPoint::SegmentSealed => {
                fill(self.client).await;
            }
            CrashPoint::StartWritten | CrashPoint::StartRenamed | CrashPoint::StartMoved => {
                fill(self.client).await;
                let admin = self.client.admin();
                if let Ok(end) = admin.list_offsets(FILLED, FIRST, OffsetAt::End).await {
                    // Where a batch ends is not known here: the log starts with the one that has this.
                    drop(admin.trim_partition(FILLED, FIRST, end.offset).await);
                }
            }
            CrashPoint::MendWritten | CrashPoint::MendRenamed => {
                if self.rounds == 1 {
                    fill(self.client).await;
                    fill(self.client).await;
                    until_caught_up(cluster, self.client, self.filled, 1).await;
                    // Another place each time: the same bit turned twice would be whole again.
                    flip_a_bit(
                        &sealed_segment(cluster),
                        300_000 + 50_000 * (self.point as u64 % 8),
                    );
                }
                self.have_all_read().await;
            }
            CrashPoint::JournalHalf | CrashPoint::ImageWritten | CrashPoint::ImageRenamed => {
                self.make_topic().await;
            }
            CrashPoint::RemovalBegun | CrashPoint::RemovalDone => {
                let name = self.make_topic().await;
                drop(self.client.admin().delete_topic(&name).await);
            }
        }
    }

    /// The scrub would do it, too, but takes its time. The broker may end over it.
    async fn have_all_read(&self) {
        let (from, until) = (LogIndex::ZERO, LogIndex(u64::MAX >> 1));
        let range = DigestRange { from, until, seed: 0, bytes_max: 64 << 20 };
        let (node, filled) = (NodeId(VICTIM as u32), TopicPartition::new(self.filled, FIRST));
        let asked = self.client.admin().digest_replica(node, filled, Some(range), PATIENCE).await;
        drop(asked);
    }

    async fn make_topic(&self) -> String {
        let name = format!("{:?}-{}", self.point, self.rounds);
        let topic = NewTopic::new(name.as_str(), 1).replication(3);
        drop(self.client.admin().create_topic(topic).await);
        name
    }
}

/// More than a segment.
async fn fill(client: &Client) {
    let config = ProducerConfig::default().acks(AckMode::SemiSync).compression(Compression::None);
    let producer = client.producer(config);
    for _ in 0..70 {
        let record = Record::to(FILLED).value(vec![7; 16 * 1024]);
        drop(producer.send(record).await.expect("taken"));
    }
    let report = producer.close(PATIENCE).await.expect("all is settled in time");
    assert_eq!(report.failed, 0, "{:?}", report.first_error);
}

/// One that is full, with another behind it.
fn sealed_segment(cluster: &Cluster) -> PathBuf {
    let files = walk(&cluster.data_dir(VICTIM).join("topics"));
    let is_segment = |file: &PathBuf| {
        let of_topic = file.parent().and_then(|dir| dir.file_name());
        of_topic.is_some_and(|name| name.to_string_lossy().starts_with(FILLED))
            && file.extension().is_some_and(|ending| ending == "log")
    };
    let mut segments: Vec<PathBuf> = files.into_iter().filter(is_segment).collect();
    segments.pop();
    let is_full = |file: &PathBuf| file.metadata().is_ok_and(|about| about.len() > 900_000);
    segments.into_iter().find(is_full).expect("more than one was filled")
}

/// As the medium does it: under the broker's map, without a word.
fn flip_a_bit(file: &PathBuf, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).expect("it can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is long enough");
    file.write_all_at(&[byte[0] ^ 4], at).expect("it can be written");
}

/// Waits until the broker that was away has all that was committed by now.
async fn until_caught_up(cluster: &Cluster, client: &Client, id: TopicId, partitions: u32) {
    let victim = NodeId(VICTIM as u32);
    for partition in (0..partitions).map(PartitionId) {
        let admin = client.admin();
        let committed = async |node: NodeId| {
            let described = admin.describe_partition_on(node, id, partition).await.ok()?;
            Some(described.high_watermark)
        };
        let wanted = cluster
            .eventually("somebody knows what is committed", async || {
                committed(NodeId(1)).await.max(committed(NodeId(2)).await)
            })
            .await;
        cluster
            .eventually("the broker has caught up", async || {
                committed(victim).await.filter(|has| *has >= wanted)
            })
            .await;
    }
}

const VICTIM: usize = 3;
const FILLED: &str = "filled";
const FIRST: PartitionId = PartitionId(0);
