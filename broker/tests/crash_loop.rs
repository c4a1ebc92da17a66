//! A real broker that crashes again and again: it comes back for administration only, says why, gets nothing
//! new, and hosts its replicas again once somebody has looked.

mod common;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Cluster, PATIENCE, broker};
use highwater_client::{
    AckMode, BrokerDuty, Client, DryRun, NewTopic, NodeId, ProducerConfig, Record,
};
use rustix::process::{Pid, Signal, kill_process};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_crashed_five_times_hosts_nothing_until_somebody_looked() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    client.admin().create_topic(NewTopic::new("orders", 4).replication(3)).await.expect("created");
    produce(&client).await;
    cluster.kill(3);
    for crashes in 1..5 {
        let mut third = plainly_started(&cluster, crashes).await;
        third.kill().expect("it is ours");
        third.wait().expect("it was killed");
    }
    let mut third = plainly_started(&cluster, 5).await;
    cluster
        .eventually("its replicas are out of service, with the reason", async || {
            let said = health(&cluster);
            said.contains("crashed 5 times within an hour and runs for administration only")
                .then_some(())
        })
        .await;
    let said = health(&cluster);
    assert!(said.contains("highwater start --after-crashes"), "{said}");
    produce(&client).await;
    // It answers for itself, leads none of them, and gets no new ones.
    let on_third = client.admin().replicas_on(THIRD).await.expect("it answers");
    assert!(on_third.replicas.iter().all(|it| !it.leads), "{on_third:?}");
    cluster.eventually("it is drained", async || drained(&client).await.then_some(())).await;
    let later = NewTopic::new("later", 4).replication(2);
    client.admin().create_topic(later).await.expect("there are two others");
    let later = client.admin().describe_topic("later").await.expect("just made");
    assert!(later.partitions.iter().all(|it| !it.replicas.contains(&THIRD)), "{later:?}");
    // Stopped and started as always it is as before: nobody has looked.
    end(&third);
    assert!(third.wait().expect("it was told to end").success());
    let mut third = plainly_started(&cluster, 6).await;
    end(&third);
    assert!(third.wait().expect("it was told to end").success());
    let log = fs::read_to_string(cluster.dir.path().join("third.log")).expect("it is ours");
    let again = log.split("broker stopped").nth(1).expect("it has stopped before");
    assert!(again.contains("crashed 5 times within an hour"), "a clean end is no crash: {again}");

    cluster.start(3);
    cluster
        .eventually("all is well again", async || {
            health(&cluster).contains("healthy: true").then_some(())
        })
        .await;
    assert!(drained(&client).await, "only people take that back");
    let back = client.admin().set_duty(THIRD, BrokerDuty::Active, DryRun::No).await;
    back.expect("the controller is up");
}

async fn drained(client: &Client) -> bool {
    let brokers = client.admin().brokers().await.expect("a broker answers");
    brokers.iter().any(|it| it.node == THIRD && it.duty == BrokerDuty::Draining)
}

/// As a service manager ends it.
fn end(child: &Child) {
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::TERM).expect("it runs");
}

/// The third broker, as a service manager starts it, once it is up.
async fn plainly_started(cluster: &Cluster, time: usize) -> Child {
    let log = cluster.dir.path().join("third.log");
    let to = OpenOptions::new().create(true).append(true).open(&log).expect("it is ours");
    let mut command = broker(&cluster.created.configs[2]);
    command.arg("--with-parent").arg(std::process::id().to_string());
    let child = command.stdout(Stdio::null()).stderr(to).spawn().expect("the program is there");
    cluster
        .eventually("it has started", async || {
            let said = fs::read_to_string(&log).ok()?;
            (said.matches("broker started").count() == time).then_some(())
        })
        .await;
    child
}

async fn produce(client: &Client) {
    let producer = client.producer(ProducerConfig::default().acks(AckMode::SemiSync));
    for number in 0..20 {
        let record = Record::to("orders").value(format!("v{number}"));
        producer.send(record).await.expect("taken").await.expect("acknowledged");
    }
    producer.close(PATIENCE).await.expect("all is settled in time");
}

fn health(cluster: &Cluster) -> String {
    let hw = Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name("hw");
    let mut command = Command::new(hw);
    command.args(["cluster", "health", "-o", "yaml"]);
    command.env("HIGHWATER_PROFILE", &cluster.created.profile).stdin(Stdio::null());
    let output = command.output().expect("hw is built beside the broker");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const THIRD: NodeId = NodeId(3);
