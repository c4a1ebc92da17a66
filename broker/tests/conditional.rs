//! Conditional appends against real brokers: writers that race for the same end, and `hw`.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::load::create;
use common::{Cluster, PATIENCE, read_all};
use highwater_client::{
    Client, Offset, Outcome, PartitionId, ProducerConfig, Record, partition_for_key,
};
use tokio::time::timeout;

/// What a writer was told of each of its records.
#[derive(Default)]
struct Told {
    written: BTreeMap<Offset, String>,
    refused: Vec<String>,
    open: Vec<String>,
}

/// Expects the end that it was told last; what is refused is never sent again.
async fn write(
    name: usize,
    client: Client,
    running: Arc<AtomicBool>,
    won: Arc<AtomicUsize>,
) -> Told {
    let producer = client.producer(ProducerConfig::default());
    let (mut told, mut end, mut number) = (Told::default(), Offset::ZERO, 0);
    while running.load(Ordering::Relaxed) {
        let value = format!("writer {name}, {number}");
        number += 1;
        let record = Record::to("race").partition(0).value(value.clone());
        match producer.send_if(end, &[record]).await {
            Ok(appended) => {
                assert_eq!(appended.offsets, end..end.advance(1), "it begins where it expected");
                end = appended.offsets.end;
                told.written.insert(appended.offsets.start, value);
                won.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                match error.outcome() {
                    Outcome::NotWritten => told.refused.push(value),
                    Outcome::Unknown | Outcome::Written => told.open.push(value),
                }
                end = error.actual_end().unwrap_or(end);
            }
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_exactly_one_gets_each_offset_though_their_leaders_are_killed() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "race", 1).await;
    let running = Arc::new(AtomicBool::new(true));
    let mut writers = Vec::new();
    for name in 0..2 {
        let won = Arc::new(AtomicUsize::new(0));
        let task = write(name, cluster.client().await, Arc::clone(&running), Arc::clone(&won));
        writers.push((won, tokio::spawn(task)));
    }
    let all = |writers: &[(Arc<AtomicUsize>, _)]| {
        writers.iter().map(|(won, _)| won.load(Ordering::Relaxed)).sum::<usize>()
    };
    for _ in 0..3 {
        let before = all(&writers);
        let more = async || (all(&writers) >= before + 20).then_some(());
        cluster.eventually("twenty appends more", more).await;
        let leader = leader(&cluster, &client).await;
        cluster.kill(leader);
        let before = all(&writers);
        let more = async || (all(&writers) >= before + 5).then_some(());
        cluster.eventually("the next leader takes appends", more).await;
        cluster.start(leader);
        cluster.eventually("it is in sync again", async || in_sync(&client, leader).await).await;
    }
    running.store(false, Ordering::Relaxed);
    let mut told = Vec::new();
    for (won, task) in writers {
        assert!(won.load(Ordering::Relaxed) > 0, "each writer wins at times");
        told.push(timeout(PATIENCE, task).await.expect("it ends").expect("it does not panic"));
    }
    let read = read_all(&client, "race").await;
    let written: BTreeMap<_, _> = told.iter().flat_map(|told| &told.written).collect();
    assert_eq!(written.len(), told.iter().map(|told| told.written.len()).sum::<usize>());
    for (offset, value) in written {
        assert_eq!(read.get(&(PartitionId(0), *offset)), Some(value), "at {offset}");
    }
    for value in read.values() {
        let refused = told.iter().any(|told| told.refused.contains(value));
        assert!(!refused, "{value} is there, and its writer was told that it is not");
        let known =
            |told: &Told| told.open.contains(value) || told.written.values().any(|v| v == value);
        assert!(told.iter().any(known), "nobody wrote {value}");
    }
    assert!(told.iter().any(|told| !told.refused.is_empty()), "they did race");
}

async fn leader(cluster: &Cluster, client: &Client) -> usize {
    let known = async || {
        let detail = client.admin().describe_topic("race").await.ok()?;
        detail.partitions[0].leader.map(|leader| leader.0 as usize)
    };
    cluster.eventually("somebody leads", known).await
}

async fn in_sync(client: &Client, node: usize) -> Option<()> {
    let detail = client.admin().describe_topic("race").await.ok()?;
    detail.partitions[0].in_sync.iter().any(|it| it.0 as usize == node).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn hw_writes_all_lines_or_none_and_says_where_the_partition_ends() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    let topic = highwater_client::NewTopic::new("account", 1).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    let first = hw(&cluster, "produce account --expect-end 0", "opened\npaid in\n");
    assert_eq!((first.status.code(), &first.stdout[..]), (Some(0), &b"2\n"[..]), "{first:?}");
    let late = hw(&cluster, "produce account --expect-end 0", "opened again\n");
    assert_eq!((late.status.code(), &late.stdout[..]), (Some(4), &b"2\n"[..]), "{late:?}");
    let said = String::from_utf8_lossy(&late.stderr);
    assert!(said.contains("nothing was written") && said.contains("--from 0:2"), "{said}");
    let ahead = hw(&cluster, "produce account --expect-end 9", "too early\n");
    assert_eq!((ahead.status.code(), &ahead.stdout[..]), (Some(4), &b"2\n"[..]), "{ahead:?}");
    let values: Vec<String> = read_all(&client, "account").await.into_values().collect();
    assert_eq!(values, ["opened", "paid in"]);

    let topic = highwater_client::NewTopic::new("books", 3).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    let partition_of = |key: &String| partition_for_key(key.as_bytes(), 3).0;
    let mut keys = (0..100).map(|number: u32| number.to_string());
    let key = keys.find(|key| partition_of(key) > 0).expect("not all keys lead to partition 0");
    for code in [0, 4] {
        let written = hw(&cluster, "produce books -k : --expect-end 0", &format!("{key}:paid\n"));
        assert_eq!(written.status.code(), Some(code), "{written:?}");
        let said = String::from_utf8_lossy(&written.stderr);
        let way_out = format!("consume books -p {} --from 0:1", partition_of(&key));
        assert_eq!(said.contains(&way_out), code == 4, "{said}");
    }
}

fn hw(cluster: &Cluster, line: &str, input: &str) -> Output {
    let mut child = Command::new(Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name("hw"))
        .args(line.split(' '))
        .env("HIGHWATER_PROFILE", &cluster.created.profile)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("build the whole workspace");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it was started")
}
