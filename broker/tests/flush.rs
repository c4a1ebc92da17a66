//! A topic's `flush` is changed by `hw` while records flow with `sync`, and brokers are killed in between: what
//! was acknowledged stays, and receipts say how many replicas had it on disk.
//!
//! Kills leave the page cache alone; what a power cut amid a change may take is for the simulator.
//! `hw` belongs to another package: `cargo test --workspace` builds it beside the broker.

mod common;

use std::path::Path;
use std::process::Command;

use common::load::{Load, check_all_there, create, leader_of};
use common::{Cluster, read_all};
use highwater_client::{AckMode, Client, ProducerConfig, Record};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_changes_both_ways_under_load_through_kills() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 2).await;
    let load = Load::start(&client, "orders", AckMode::Sync);
    load.wait_for(200).await;
    for round in 0..2 {
        // Only a flush that nobody waits for can be an hour late.
        alter(&cluster, "flush=3600000");
        probe_until(&cluster, &client, "it is acknowledged unflushed", |flushed| flushed == 0)
            .await;
        let leader = leader_of(&cluster, &client, "orders").await;
        cluster.kill(leader);
        load.wait_for(load.acked() + 200).await;
        // The one that is away hears of it when it starts.
        alter(&cluster, "flush=ack");
        load.wait_for(load.acked() + 200).await;
        cluster.start(leader);
        probe_until(&cluster, &client, "all three have it on disk", |flushed| flushed == 3).await;
        if round == 1 {
            cluster.kill_all();
            (1..=3).for_each(|node| cluster.start(node));
        }
        load.wait_for(load.acked() + 200).await;
    }
    let acked = load.stop().await;
    let mut read = read_all(&client, "orders").await;
    read.retain(|_, value| value != PROBE);
    check_all_there(&acked, &read);
}

/// As its operator would.
fn alter(cluster: &Cluster, setting: &str) {
    let hw = Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name("hw");
    let mut command = Command::new(&hw);
    command.args(["topic", "alter", "orders", setting]);
    let ran = command.env("HIGHWATER_PROFILE", &cluster.created.profile).output();
    let ran = ran.unwrap_or_else(|error| panic!("{error}; build the whole workspace"));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{setting}: {said}\n{}", cluster.logs());
}

/// Sends records with `sync`, one after the other, until so many replicas have one on disk when it is
/// acknowledged by all three.
async fn probe_until(
    cluster: &Cluster,
    client: &Client,
    what: &str,
    flushed_suffice: impl Fn(u8) -> bool,
) {
    let producer = client.producer(ProducerConfig::default().acks(AckMode::Sync));
    cluster
        .eventually(what, async || {
            let sent = producer.send_and_wait(Record::to("orders").value(PROBE)).await.ok()?;
            let receipt = sent.receipt;
            (receipt.replicas == 3 && flushed_suffice(receipt.flushed)).then_some(())
        })
        .await;
}

const PROBE: &str = "probe";
