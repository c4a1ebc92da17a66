//! Three real brokers, and a disk that turns bits and loses pages under one of them while it runs: the scrub finds
//! what nobody reads, another replica has it, and nobody stops for it.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use common::load::{Load, check_all_there};
use common::{Cluster, PATIENCE, read_all};
use highwater_client::{
    AckMode, Client, Compression, NewTopic, NodeId, PartitionId, ProducerConfig, Record,
};

const TOPIC: &str = "kept";
const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_that_turns_and_pages_that_go_are_mended_on_a_follower_and_the_leader_while_all_goes_on()
 {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    let topic = NewTopic::new(TOPIC, 1)
        .replication(3)
        .config("max.message.bytes", "262144")
        .config("segment.bytes", "1048576");
    client.admin().create_topic(topic).await.expect("created");
    fill(&client, 3 * MIB).await;
    let load = Load::start(&client, TOPIC, AckMode::SemiSync);

    let leader = leader(&client).await;
    let follower = if leader == 1 { 2 } else { 1 };
    for node in [follower, leader] {
        let files = cluster
            .eventually("it has sealed two segments", async || sealed_segments(&cluster, node))
            .await;
        let whole = files.iter().map(|file| fs::read(file).expect("it can be read"));
        let whole: Vec<Vec<u8>> = whole.collect();
        flip_a_bit(&files[0], 300_000);
        cut_short(&files[1]);
        assert!(fs::read(&files[0]).expect("it can be read") != whole[0]);
        cluster
            .eventually("the segments are whole again", async || {
                let is_whole = |(file, whole): (&PathBuf, &Vec<u8>)| {
                    let now = fs::read(file).unwrap_or_default();
                    // A file that was made anew ends with its last batch, without spare room.
                    now.len() > 600_000 && now[..] == whole[..now.len()]
                };
                files.iter().zip(&whole).all(is_whole).then_some(())
            })
            .await;
    }
    let acked = load.stop().await;
    assert!(acked.len() > 100, "{} were taken meanwhile", acked.len());
    let read = read_all(&client, TOPIC).await;
    check_all_there(&acked, &read);
    assert!((1..=3).all(|node| cluster.runs(node)), "{}", cluster.logs());
    let said = fs::read_to_string(cluster.log(follower)).expect("it has a log");
    assert!(said.contains("a batch cannot be read any more"), "{said}");
    assert!(said.contains("damaged batches are whole again"), "{said}");
}

async fn fill(client: &Client, bytes: usize) {
    let producer = client
        .producer(ProducerConfig::default().acks(AckMode::Sync).compression(Compression::None));
    for number in 0..bytes / VALUE_BYTES {
        let value = format!("{number:0>VALUE_BYTES$}");
        drop(producer.send(Record::to(TOPIC).value(value)).await.expect("taken"));
    }
    let report = producer.close(PATIENCE).await.expect("all is settled in time");
    assert_eq!(report.failed, 0, "{:?}", report.first_error);
}

async fn leader(client: &Client) -> usize {
    let described = client.admin().describe_partition(TOPIC, PartitionId(0)).await;
    let NodeId(leader) = described.expect("described").leader.expect("it takes records");
    leader as usize
}

/// The two oldest segments of the topic on a broker, once a third one takes the appends.
fn sealed_segments(cluster: &Cluster, node: usize) -> Option<Vec<PathBuf>> {
    let topics = fs::read_dir(cluster.data_dir(node).join("topics")).ok()?;
    let mut dirs = topics.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(TOPIC))
    };
    let files = fs::read_dir(dirs.find(named)?).ok()?.flatten().map(|entry| entry.path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "log");
    let mut segments: Vec<PathBuf> = files.filter(is_segment).collect();
    segments.sort();
    (segments.len() > 2).then(|| segments[..2].to_vec())
}

/// As the medium does it: under the broker's map, without a word.
fn flip_a_bit(file: &PathBuf, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(file).expect("it can be opened");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it is long enough");
    file.write_all_at(&[byte[0] ^ 4], at).expect("it can be written");
}

/// Pages that are mapped are gone: whoever touches one gets a signal from the kernel, as from a medium that fails.
fn cut_short(file: &PathBuf) {
    let file = OpenOptions::new().write(true).open(file).expect("it can be opened");
    file.set_len(300_000).expect("it can be cut");
}

const VALUE_BYTES: usize = 16 * 1024;
