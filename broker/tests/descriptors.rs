//! Real brokers under a small limit of open files: they take as much as they may have, refuse to start where their
//! replicas do not fit, and let visitors of HTTP take nothing that storage needs.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::limits::limit_descriptors;
use common::load::leader_of;
use common::{Cluster, PATIENCE, broker, edit, free_port};
use highwater_client::{
    Client, Compression, NewTopic, NodeId, PartitionId, ProducerConfig, Record,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_takes_what_it_may_have_and_refuses_to_start_with_less_than_its_replicas_need() {
    let mut cluster = Cluster::started(1);
    let client = cluster.client().await;
    client.admin().create_topic(NewTopic::new("orders", 8).replication(1)).await.expect("created");
    drop(client);
    let limits = fs::read_to_string(format!("/proc/{}/limits", cluster.pid(1))).expect("it runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("named");
    let words: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(words[3], words[4], "the soft limit is the hard one: {files}");
    assert!(cluster.stop(1));

    let output = limited(140, &cluster.created.configs[0]).output().expect("it ends by itself");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    for part in ["may open 140 files", "its 8 replicas", "need 144 at least", "LimitNOFILE="] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    cluster.start(1);
    drop(cluster.client().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_of_http_are_turned_away_before_storage_runs_out_of_descriptors() {
    let mut cluster = Cluster::made(1);
    let http = free_port();
    edit(
        &cluster.created.configs[0],
        "[[peers]]",
        &format!("[http]\nlisten = \"{http}\"\n\n[[peers]]"),
    );
    cluster.start(1);
    let client = cluster.client().await;
    let visitors: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(http).expect("the kernel takes it")).collect();
    let turned_away = |mut visitor: &TcpStream| {
        visitor.set_read_timeout(Some(Duration::from_millis(1))).expect("it is open");
        !matches!(visitor.read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    };
    cluster
        .eventually("all but 64 are turned away", async || {
            let away = visitors.iter().filter(|visitor| turned_away(visitor)).count();
            (away == 200 - 64).then_some(())
        })
        .await;
    client.admin().create_topic(NewTopic::new("orders", 8).replication(1)).await.expect("created");

    drop(visitors);
    cluster
        .eventually("there is room again", async || {
            let mut visitor = TcpStream::connect(http).ok()?;
            visitor.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
            let request = "GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            visitor.write_all(request.as_bytes()).ok()?;
            let mut answer = String::new();
            visitor.read_to_string(&mut answer).ok()?;
            answer.contains("ready").then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_can_open_no_more_files_refuses_for_a_while_and_loses_no_replica() {
    let mut cluster = Cluster::started(1);
    let client = cluster.client().await;
    client.admin().create_topic(small_segments(1)).await.expect("created");
    // A new segment takes two files, and its directory is opened once more.
    for more in 0..4 {
        limit_descriptors(cluster.pid(1), Some(more));
        // It may refuse, or go on with what it kept back.
        let _ = more_than_a_segment(&client, Duration::from_secs(2)).await;
        limit_descriptors(cluster.pid(1), None);
        more_than_a_segment(&client, PATIENCE).await.expect("there is room again");
    }
    check_none_failed(&mut cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_can_open_no_more_files_sends_what_lies_in_closed_ones_once_it_can() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    client.admin().create_topic(small_segments(3)).await.expect("created");
    let topic = client.admin().describe_topic("orders").await.expect("made").id;
    let leader = leader_of(&cluster, &client, "orders").await;
    let behind = leader % 3 + 1;
    // More segments than are kept open.
    cluster.kill(behind);
    for _ in 0..8 {
        more_than_a_segment(&client, PATIENCE).await.expect("two are enough");
    }
    limit_descriptors(cluster.pid(leader), Some(0));
    cluster.start(behind);
    cluster
        .eventually("the leader is short of files", async || {
            let said = fs::read_to_string(cluster.log(leader)).ok()?;
            said.contains("Too many open files").then_some(())
        })
        .await;
    limit_descriptors(cluster.pid(leader), None);
    cluster
        .eventually("all replicas end alike", async || {
            let mut ends = Vec::new();
            for node in 1..=3 {
                let of = client.admin().describe_partition_on(NodeId(node), topic, FIRST).await;
                ends.push(of.ok()?.log_end);
            }
            ends.dedup();
            (ends.len() == 1 && ends[0].0 == 8 * 20).then_some(())
        })
        .await;
    check_none_failed(&mut cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_can_open_no_more_files_is_whole_again_once_it_can() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    client.admin().create_topic(small_segments(3)).await.expect("created");
    let leader = leader_of(&cluster, &client, "orders").await;
    let followers = [leader % 3 + 1, (leader + 1) % 3 + 1];
    for follower in followers {
        limit_descriptors(cluster.pid(follower), Some(0));
    }
    for _ in 0..4 {
        let _ = more_than_a_segment(&client, Duration::from_secs(2)).await;
    }
    for follower in followers {
        limit_descriptors(cluster.pid(follower), None);
    }
    more_than_a_segment(&client, PATIENCE).await.expect("there is room again");
    cluster
        .eventually("all are in sync", async || {
            let detail = client.admin().describe_topic("orders").await.ok()?;
            (detail.partitions[0].in_sync.len() == 3).then_some(())
        })
        .await;
    check_none_failed(&mut cluster);
}

fn small_segments(replicas: u8) -> NewTopic {
    NewTopic::new("orders", 1)
        .replication(replicas)
        .config("max.message.bytes", "262144")
        .config("segment.bytes", "1048576")
}

fn check_none_failed(cluster: &mut Cluster) {
    for node in 1..=cluster.addresses.len() {
        let said = fs::read_to_string(cluster.log(node)).expect("it has a log");
        assert!(!said.contains("out of service"), "broker {node}: {said}");
        assert!(cluster.runs(node), "broker {node}: {said}");
    }
}

async fn more_than_a_segment(client: &Client, within: Duration) -> Result<(), String> {
    let config = ProducerConfig::default().compression(Compression::None);
    let producer = client.producer(config.delivery_timeout(within));
    for _ in 0..20 {
        let record = Record::to("orders").value(vec![7; 64 * 1024]);
        producer.send_and_wait(record).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

const FIRST: PartitionId = PartitionId(0);

/// The broker with so many descriptors, and no right to more.
fn limited(files: u32, config: &Path) -> Command {
    let inner = broker(config);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.stdin(Stdio::null());
    command
}
