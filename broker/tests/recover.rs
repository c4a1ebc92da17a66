//! Real brokers: a partition loses its majority for good, goes on with what one replica has, and the
//! old ones come back with their old disks and disturb nobody.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use common::terminal::Terminal;
use common::{Cluster, read_all};
use highwater_client::{
    AckMode, Client, DryRun, MoveWish, NewTopic, NodeId, Offset, PartitionId, ProducerConfig,
    Record, TopicPartition,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_goes_on_with_what_the_survivor_has_and_old_disks_disturb_nobody() {
    let mut cluster = Cluster::started(4);
    let client = cluster.client().await;
    client.admin().create_topic(NewTopic::new("orders", 2).replication(3)).await.expect("created");
    move_to(&cluster, &client, &[1, 3, 4]).await;
    produce(&client, 0..50).await;
    let id = client.admin().describe_topic("orders").await.expect("it exists").id;
    cluster
        .eventually("broker 1 has what a majority acknowledged", async || {
            let (broker, partition) = (NodeId(1), PartitionId(0));
            let on = client.admin().describe_partition_on(broker, id, partition).await.ok()?;
            (on.log_end == Offset(50)).then_some(())
        })
        .await;

    // Broker 1 misses what the other two acknowledge; then their machines are gone.
    cluster.kill(1);
    produce(&client, 50..60).await;
    cluster.kill(3);
    cluster.kill(4);
    cluster.start(1);
    let refused = hw(&cluster, &[RECOVER, &["orders/0"]].concat());
    assert!(!refused.status.success(), "it asks for the name, and there is no terminal");
    fenced(&cluster, &client, &[3, 4]).await;

    a_wrong_name_changes_nothing(&cluster);
    let said = recover_by_typing_the_name(&cluster);
    // Brokers 1 and 2 are alive, so two replicas are what it gets for now.
    assert!(said.contains("orders/0 gets 2 replicas"), "{said}");
    let done = hw(&cluster, &[RECOVER, &["orders/1", "--yes-i-lose", "orders/1"]].concat());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}\n{}", cluster.logs());
    assert!(said.contains("orders/1: broker 1 leads, and takes writes again"), "{said}");

    produce(&client, 100..130).await;
    assert_eq!(values(&client).await, numbers(0..50).chain(numbers(100..130)).collect::<Vec<_>>());

    come_back(&mut cluster, &client).await;
    let healthy = hw(&cluster, &[RECOVER, &["orders/0", "--yes-i-lose", "orders/0"]].concat());
    let said = String::from_utf8_lossy(&healthy.stderr).into_owned();
    assert_eq!(healthy.status.code(), Some(4), "{said}");
    assert!(said.contains("has not lost its majority"), "{said}");
}

/// What is lost is shown and the name asked for; who types another one, and be it that of the partition
/// beside it, has said no.
fn a_wrong_name_changes_nothing(cluster: &Cluster) {
    let look = || {
        let dry = hw(cluster, &[RECOVER, &["orders/0", "--dry-run"]].concat());
        let said = String::from_utf8_lossy(&dry.stderr).into_owned();
        assert!(dry.status.success(), "{said}");
        said
    };
    let before = look();
    has(&before, &WHAT_IS_LOST);
    for wrong in ["orders/1", ""] {
        let (ended, shown) = typed(cluster, wrong);
        assert_eq!(ended.code(), Some(1), "{wrong:?}\n{shown}");
        has(&shown, &WHAT_IS_LOST);
        has(&shown, &["what was typed is not orders/0; nothing was changed"]);
        assert!(!shown.contains("decided"), "{shown}");
    }
    assert_eq!(look(), before, "nothing was changed");
}

/// Gives back what was shown.
fn recover_by_typing_the_name(cluster: &Cluster) -> String {
    let (ended, shown) = typed(cluster, "orders/0");
    assert!(ended.success(), "{shown}\n{}", cluster.logs());
    has(&shown, &WHAT_IS_LOST);
    has(&shown, &["orders/0: broker 1 leads, and takes writes again"]);
    shown
}

/// Recovers at a terminal, and types this when asked for the name.
fn typed(cluster: &Cluster, name: &str) -> (ExitStatus, String) {
    let mut terminal = Terminal::run(command(cluster, &[RECOVER, &["orders/0"]].concat()));
    terminal.answer("It cannot be undone.\r\nType orders/0 to go on: ", name);
    terminal.end()
}

fn has(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part}\nis not in\n{said}");
    }
}

/// The old majority comes back with what it had acknowledged, is copied anew, and then stands in.
async fn come_back(cluster: &mut Cluster, client: &Client) {
    cluster.start(3);
    cluster.start(4);
    produce(client, 130..160).await;
    for broker in [3, 4] {
        cluster
            .eventually("what the old majority has is discarded", async || {
                replica_dirs(cluster, broker).is_empty().then_some(())
            })
            .await;
    }
    move_to(cluster, client, &[1, 3, 4]).await;
    produce(client, 160..170).await;
    let all = numbers(0..50).chain(numbers(100..170)).collect::<Vec<_>>();
    assert_eq!(values(client).await, all);
    // Copied anew, they are replicas like any others: one of them leads what is there.
    cluster.kill(1);
    produce(client, 170..180).await;
    assert_eq!(values(client).await.len(), all.len() + 10);
}

fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = String> {
    range.map(|number| format!("v{number}"))
}

async fn produce(client: &Client, range: std::ops::Range<u32>) {
    let producer = client.producer(ProducerConfig::default().acks(AckMode::Sync));
    for value in numbers(range) {
        let record = Record::to("orders").partition(0).value(value);
        let sent = producer.send(record).await.expect("taken");
        sent.await.expect("acknowledged");
    }
}

async fn values(client: &Client) -> Vec<String> {
    let all = read_all(client, "orders").await.into_iter();
    all.filter(|((partition, _), _)| *partition == PartitionId(0)).map(|(_, it)| it).collect()
}

async fn move_to(cluster: &Cluster, client: &Client, brokers: &[u32]) {
    let admin = client.admin();
    let wanted: Vec<NodeId> = brokers.iter().copied().map(NodeId).collect();
    let id = admin.describe_topic("orders").await.expect("it exists").id;
    let at = [0, 1].map(|number| TopicPartition::new(id, PartitionId(number))).to_vec();
    cluster
        .eventually("the move is begun", async || {
            admin.reassign(at.clone(), MoveWish::To(wanted.clone()), DryRun::No).await.ok()
        })
        .await;
    cluster
        .eventually("the replicas are there", async || {
            let detail = admin.describe_topic("orders").await.ok()?;
            // Each partition prefers another one of them.
            let are = |set: &[NodeId]| {
                let mut set = set.to_vec();
                set.sort_unstable();
                set == wanted
            };
            let there = detail.partitions.iter().all(|it| are(&it.replicas) && are(&it.in_sync));
            there.then_some(())
        })
        .await;
}

async fn fenced(cluster: &Cluster, client: &Client, brokers: &[u32]) {
    cluster
        .eventually("the controller has lost touch with them", async || {
            let seen = client.admin().cluster().await.ok()?;
            let is_fenced =
                |node: u32| seen.brokers.iter().any(|it| it.node.0 == node && it.fenced);
            let alive = seen.brokers.iter().any(|it| it.node.0 == 1 && !it.fenced);
            (alive && brokers.iter().all(|node| is_fenced(*node))).then_some(())
        })
        .await;
}

fn replica_dirs(cluster: &Cluster, broker: usize) -> Vec<PathBuf> {
    let dir = cluster.data_dir(broker).join("topics");
    let Ok(names) = std::fs::read_dir(dir) else { return Vec::new() };
    let orders = |path: &Path| path.to_string_lossy().contains("orders-");
    names.flatten().map(|entry| entry.path()).filter(|path| orders(path)).collect()
}

/// Runs the command line as an operator's script would: without a terminal.
fn hw(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = command(cluster, arguments);
    command.stdin(Stdio::null());
    command.output().expect("hw is built beside the broker")
}

fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let hw = Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name("hw");
    let mut command = Command::new(hw);
    command.args(arguments).env("HIGHWATER_PROFILE", &cluster.created.profile);
    command
}

const RECOVER: &[&str] = &["partition", "unsafe-recover"];
const WHAT_IS_LOST: [&str; 4] = [
    "orders/0 has lost its majority: 1 of 3 replicas can vote, 2 are needed",
    "broker 3: its broker is down, fenced since",
    "kept: offsets 0 up to 50 (exclusive)",
    "lost: every record from offset 50 on",
];
