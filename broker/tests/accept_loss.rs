//! Real brokers: a range that no replica can read any more is named, given up when an operator says so, and passed
//! over by readers; everything else stays, on all replicas alike.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{Cluster, read_all};
use highwater_client::{
    AckMode, Client, Compression, NewTopic, Offset, PartitionId, ProducerConfig, Record,
};

const TOPIC: &str = "orders";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_serves_nobody_until_its_loss_is_accepted_and_keeps_the_rest() {
    let mut cluster = Cluster::started(1);
    let client = cluster.client().await;
    client.admin().create_topic(NewTopic::new(TOPIC, 1).replication(1)).await.expect("created");
    produce(&client, 0..40).await;
    cluster.kill(1);
    spoil(&cluster, 1, 10);
    spoil(&cluster, 1, 11);
    cluster.start(1);
    let client = cluster.client().await;

    let said = cluster
        .eventually("the damage is named", async || {
            let looked = hw(&cluster, &["partition", "repair", "orders/0", "-o", "json"]);
            let said = told(&looked);
            (looked.status.success() && said.contains("\"outlook\": \"lost\"")).then_some(said)
        })
        .await;
    for part in ["\"from_offset\": 10", "\"before_offset\": 12", "\"batches\": 2", ".log"] {
        assert!(said.contains(part), "{part}\nis not in\n{said}");
    }
    let seen = client.admin().describe_partition(TOPIC, PartitionId(0)).await;
    assert!(seen.is_err() || seen.is_ok_and(|seen| seen.leader.is_none()), "it serves nobody");

    let unasked = hw(&cluster, &["partition", "repair", "orders/0", "--accept-loss"]);
    assert!(!unasked.status.success(), "it asks for the name, and there is no terminal");
    let dry = hw(&cluster, &["partition", "repair", "orders/0", "--accept-loss", "--dry-run"]);
    let said = told(&dry);
    assert!(dry.status.success(), "{said}");
    assert!(said.contains("orders/0 loses 2 records for good"), "{said}");
    assert!(said.contains("offsets 10 to 12 (exclusive), 2 records"), "{said}");

    accept_loss(&cluster);
    check_all_but(&client, 40, &[10, 11]).await;
    // It is as before after a restart, too.
    cluster.kill(1);
    cluster.start(1);
    let client = cluster.client().await;
    check_all_but(&client, 60, &[10, 11]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_rots_on_all_replicas_is_given_up_on_all_of_them_alike() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    client.admin().create_topic(NewTopic::new(TOPIC, 1).replication(3)).await.expect("created");
    produce(&client, 0..40).await;
    drop(client);
    // A majority acknowledges: the third replica may be behind still.
    cluster
        .eventually("all replicas hold all records", async || {
            (1..=3).all(|node| places(&cluster, node, 39).len() == 1).then_some(())
        })
        .await;
    (1..=3).for_each(|node| cluster.kill(node));
    (1..=3).for_each(|node| spoil(&cluster, node, 10));
    // This one can be had from the others.
    spoil(&cluster, 2, 5);
    (1..=3).for_each(|node| cluster.start(node));
    let client = cluster.client().await;
    cluster
        .eventually("what somebody has is mended, and the rest is lost", async || {
            let looked =
                hw(&cluster, &["partition", "repair", "orders/0", "--accept-loss", "--dry-run"]);
            let said = told(&looked);
            let named = said.contains("offsets 10 to 11 (exclusive), 1 records");
            (looked.status.success() && named && said.matches("can be read nowhere").count() == 3)
                .then_some(())
        })
        .await;
    accept_loss(&cluster);
    check_all_but(&client, 40, &[10]).await;
    let detail = client.admin().describe_topic(TOPIC).await.expect("described");
    assert_eq!(detail.partitions[0].replicas.len(), 3, "the others were copied anew");
    cluster
        .eventually("all replicas hold the same", async || {
            let verified = hw(&cluster, &["cluster", "verify", TOPIC]);
            verified.status.success().then_some(())
        })
        .await;
    let healthy = hw(&cluster, &["partition", "repair", "orders/0", "--accept-loss", "--dry-run"]);
    assert!(told(&healthy).contains("nobody has found anything"), "{}", told(&healthy));
}

fn accept_loss(cluster: &Cluster) {
    let wish = ["partition", "repair", "orders/0", "--accept-loss", "--yes-i-lose", "orders/0"];
    let done = hw(cluster, &wish);
    assert!(done.status.success(), "{}\n{}", told(&done), cluster.logs());
    assert!(told(&done).contains("records were given up"), "{}", told(&done));
}

/// So many records are there, but for some offsets, and more are taken: twenty.
async fn check_all_but(client: &Client, records: u64, lost: &[u64]) {
    produce(client, records..records + 20).await;
    let read = read_all(client, TOPIC).await;
    let wanted = (0..records + 20).filter(|offset| !lost.contains(offset));
    let wanted = wanted.map(|offset| ((PartitionId(0), Offset(offset)), value(offset)));
    assert_eq!(read, wanted.collect());
}

/// One batch for each record, so that the record's number is its offset.
async fn produce(client: &Client, numbers: std::ops::Range<u64>) {
    let config = ProducerConfig::default().acks(AckMode::Sync).compression(Compression::None);
    let producer = client.producer(config);
    for number in numbers {
        let sent = producer.send(Record::to(TOPIC).value(value(number))).await.expect("taken");
        sent.await.expect("acknowledged");
    }
}

fn value(number: u64) -> String {
    format!("the value of record {number:08}")
}

/// Turns a bit of a record in the files of a broker that is down.
fn spoil(cluster: &Cluster, node: usize, number: u64) {
    let places = places(cluster, node, number);
    assert_eq!(places.len(), 1, "record {number} of broker {node}");
    for (path, at) in places {
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("it is ours");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it was read before");
        file.write_all_at(&[byte[0] ^ 4], at).expect("it is ours");
    }
}

/// Where a broker's segments hold the value of a record: file and byte.
fn places(cluster: &Cluster, node: usize, number: u64) -> Vec<(PathBuf, u64)> {
    let wanted = value(number).into_bytes();
    let topics = cluster.dir.path().join(format!("node-{node}/data/topics"));
    let segments = common::chaos::files::walk(&topics).into_iter().filter(|path| is_segment(path));
    let place = |path: PathBuf| {
        let bytes = fs::read(&path).expect("it can be read");
        let at = bytes.windows(wanted.len()).position(|bytes| bytes == wanted)?;
        Some((path, at as u64))
    };
    segments.filter_map(place).collect()
}

fn is_segment(path: &Path) -> bool {
    let topic = path.parent().and_then(Path::file_name);
    let ours = topic.is_some_and(|name| name.to_string_lossy().starts_with(TOPIC));
    ours && path.extension().is_some_and(|ending| ending == "log")
}

fn told(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}\n{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// Runs the command line as an operator's script would: without a terminal.
fn hw(cluster: &Cluster, arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name("hw");
    let mut command = Command::new::<PathBuf>(program);
    command.args(arguments).env("HIGHWATER_PROFILE", &cluster.created.profile);
    command.stdin(Stdio::null());
    command.output().expect("hw is built beside the broker")
}
