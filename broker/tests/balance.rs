//! Real brokers of which one leads all that is hot: `hw cluster balance` spreads it while records flow.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::Cluster;
use highwater_client::{AckMode, Client, NewTopic, NodeId, PartitionInfo, ProducerConfig, Record};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_hot_on_one_broker_is_spread_by_its_load() {
    let cluster = Cluster::started(4);
    let client = cluster.client().await;
    let topic = NewTopic::new("orders", 12).replication(2);
    client.admin().create_topic(topic).await.expect("created");
    led_as_preferred(&cluster, &client).await;

    // Three are led by each broker: two of the first one's are hot.
    let led = |info: &&PartitionInfo| info.replicas[0] == NodeId(1);
    let hot: Vec<u32> = partitions(&client).await.iter().filter(led).map(number).take(2).collect();
    assert_eq!(hot.len(), 2, "leaders are spread by count");
    let writer = Writer::start(&client, hot.clone());
    let done = hw(&cluster, "cluster balance -y --measure 4s -o json").await;
    assert_eq!(done["changed"], true, "{done}");
    for load in ["write_load_bytes_per_s", "leader_load_bytes_per_s"] {
        let (before, after) = (most(&done, load), most(&done, &format!("{load}_after")));
        assert!(after * 3 <= before * 2, "{load}: the busiest goes from {before} to {after}");
    }
    led_as_preferred(&cluster, &client).await;
    let sets: Vec<Vec<NodeId>> = partitions(&client)
        .await
        .into_iter()
        .filter(|info| hot.contains(&info.partition.0))
        .map(|info| info.replicas)
        .collect();
    assert_ne!(sets[0][0], sets[1][0], "another broker leads one of them: {sets:?}");
    assert!(sets[0].iter().all(|node| !sets[1].contains(node)), "none has both: {sets:?}");
    writer.stop().await;
}

/// The busiest broker's number of this name.
fn most(plan: &Value, name: &str) -> u64 {
    let brokers = plan["brokers"].as_array().expect("a list");
    brokers.iter().map(|broker| broker[name].as_u64().expect("a number")).max().expect("four")
}

fn number(info: &PartitionInfo) -> u32 {
    info.partition.0
}

async fn partitions(client: &Client) -> Vec<PartitionInfo> {
    client.admin().describe_topic("orders").await.expect("it is there").partitions
}

/// Waits until every partition is led by the first of its set.
async fn led_as_preferred(cluster: &Cluster, client: &Client) {
    cluster
        .eventually("the preferred replicas lead", async || {
            let detail = client.admin().describe_topic("orders").await.ok()?;
            let preferred = |info: &PartitionInfo| info.leader == Some(info.replicas[0]);
            detail.partitions.iter().all(preferred).then_some(())
        })
        .await;
}

async fn hw(cluster: &Cluster, line: &str) -> Value {
    let program = Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name("hw");
    let mut command = Command::new(program);
    command.args(line.split(' ')).env("HIGHWATER_PROFILE", &cluster.created.profile);
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("the whole workspace is built");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "hw {line}: {errors}\n{}", cluster.logs());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

/// Writes to a few partitions, as much to each, until it is stopped.
struct Writer {
    running: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Writer {
    fn start(client: &Client, partitions: Vec<u32>) -> Writer {
        let running = Arc::new(AtomicBool::new(true));
        let config = ProducerConfig::default().acks(AckMode::SemiSync);
        let (producer, go_on) = (client.producer(config), Arc::clone(&running));
        let task = tokio::spawn(async move {
            while go_on.load(Ordering::Relaxed) {
                for partition in &partitions {
                    let record = Record::to("orders").partition(*partition).value(vec![7; 20_000]);
                    // Whether it arrives is another test's business.
                    let _ = producer.send(record).await;
                }
                // Some megabytes a second, so that the disk has time for the rest.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Writer { running, task }
    }

    async fn stop(self) {
        self.running.store(false, Ordering::Relaxed);
        self.task.await.expect("it does not panic");
    }
}
