//! Real brokers that come and go while records flow: joining, draining, retiring, restarting one
//! after the other, coming back with an empty disk. Nothing that was promised is lost meanwhile.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::load::{Load, check_all_there, create};
use common::{Cluster, PATIENCE, Place, read_all};
use highwater_client::{
    AckMode, BrokerDuty, BrokerStatus, Client, DryRun, MoveWish, NewTopic, NodeId, ProducerConfig,
    ReaderConfig, Record, StartAt, Unretired, Vote,
};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_joins_gets_replicas_and_is_retired_and_removed_while_records_flow() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 6).await;
    let load = Load::start(&client, "orders", AckMode::SemiSync);
    load.wait_for(100).await;
    let joined = cluster.join();
    let fourth = NodeId(joined as u32);
    status(&cluster, &client, fourth, "the fourth broker is there", |it| it.replicas == 0).await;

    let admin = client.admin();
    admin
        .reassign(Vec::new(), MoveWish::Drain(NodeId(3)), DryRun::No)
        .await
        .expect("there is room");
    status(&cluster, &client, fourth, "it has what broker 3 had", |it| it.replicas == 6).await;
    status(&cluster, &client, fourth, "and leads some", |it| it.leads > 0).await;
    load.wait_for(load.acked() + 100).await;

    admin.set_duty(fourth, BrokerDuty::Draining, DryRun::No).await.expect("it is registered");
    status(&cluster, &client, fourth, "drained", |it| (it.leads, it.replicas) == (0, 6)).await;
    load.wait_for(load.acked() + 100).await;

    let refused = admin.remove_broker(fourth, Unretired::IfDead, DryRun::No).await;
    assert!(refused.expect_err("it is not empty").to_string().contains("orders/"));
    let retired = admin.set_duty(fourth, BrokerDuty::Leaving, DryRun::No).await;
    assert_eq!(retired.expect("broker 3 takes them").moves.len(), 6);
    status(&cluster, &client, fourth, "it is empty", |it| it.replicas + it.coming == 0).await;
    load.wait_for(load.acked() + 100).await;
    admin.remove_broker(fourth, Unretired::Refuse, DryRun::No).await.expect("it is retired");
    cluster.eventually_ended(joined).await;
    cluster
        .eventually("three brokers are left", async || {
            (admin.brokers().await.ok()?.len() == 3).then_some(())
        })
        .await;
    let log = std::fs::read_to_string(cluster.log(joined)).expect("it was written");
    assert!(log.contains("was taken out of the cluster"), "it says why it ended");

    let acked = load.stop().await;
    check_all_there(&acked, &read_all(&client, "orders").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_broker_is_retired_after_another_took_its_vote_on_the_metadata() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 4).await;
    let load = Load::start(&client, "orders", AckMode::SemiSync);
    load.wait_for(100).await;
    let fourth = NodeId(cluster.join() as u32);
    status(&cluster, &client, fourth, "the fourth broker is there", |it| !it.controller).await;

    let admin = client.admin();
    let change = async |node, vote| {
        let voters = admin.change_controller(NodeId(node), vote, DryRun::No).await;
        voters.expect("a majority stays").iter().map(|voter| voter.0).collect::<Vec<_>>()
    };
    assert_eq!(change(4, Vote::Add).await, [1, 2, 3, 4]);
    assert_eq!(change(1, Vote::Remove).await, [2, 3, 4]);
    status(&cluster, &client, fourth, "it votes", |it| it.controller).await;
    let first = NodeId(1);
    let moves = admin.set_duty(first, BrokerDuty::Leaving, DryRun::No).await;
    assert_eq!(moves.expect("it votes no more").moves.len(), 4);
    status(&cluster, &client, first, "it is empty", |it| it.replicas + it.coming == 0).await;
    admin.remove_broker(first, Unretired::Refuse, DryRun::No).await.expect("it is retired");
    cluster.eventually_ended(1).await;

    // Neither the one that came later nor those whose configuration names the old voters forget.
    for node in 2..=4 {
        assert!(cluster.stop(node), "it ends well\n{}", cluster.logs());
        cluster.start(node);
        all_in_sync(&cluster, &client, "orders").await;
    }
    cluster.kill(2);
    let topic = NewTopic::new("made-by-two-of-three", 1).replication(2);
    admin.create_topic(topic).await.expect("a majority decides");
    cluster.start(2);
    let acked = load.stop().await;
    all_in_sync(&cluster, &client, "orders").await;
    check_all_there(&acked, &read_all(&client, "orders").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_joins_when_none_of_those_that_it_was_told_of_votes_on_the_metadata() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    let fourth = NodeId(cluster.join() as u32);
    status(&cluster, &client, fourth, "the fourth broker is there", |it| !it.controller).await;
    let admin = client.admin();
    let voters = [(4, Vote::Add), (1, Vote::Remove), (2, Vote::Remove), (3, Vote::Remove)];
    for (node, vote) in voters {
        admin.change_controller(NodeId(node), vote, DryRun::No).await.expect("a majority stays");
    }
    let fifth = NodeId(cluster.join() as u32);
    status(&cluster, &client, fifth, "the fifth broker is there", |it| !it.controller).await;
    create(&client, "orders", 5).await;
    all_in_sync(&cluster, &client, "orders").await;
}

/// Waits until a broker is as it should be.
async fn status(
    cluster: &Cluster,
    client: &Client,
    node: NodeId,
    what: &str,
    holds: impl Fn(&BrokerStatus) -> bool,
) {
    cluster
        .eventually(what, async || {
            let brokers = client.admin().brokers().await.ok()?;
            brokers.iter().find(|status| status.node == node && holds(status)).map(|_| ())
        })
        .await;
}

/// Waits until every replica of every partition keeps up.
async fn all_in_sync(cluster: &Cluster, client: &Client, topic: &str) {
    cluster
        .eventually("every replica keeps up", async || {
            let detail = client.admin().describe_topic(topic).await.ok()?;
            let whole = |info: &highwater_client::PartitionInfo| {
                info.leader.is_some() && info.in_sync.len() == info.replicas.len()
            };
            detail.partitions.iter().all(whole).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_brokers_fails_no_produce_and_no_fetch() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 6).await;
    let progress = Arc::new(Progress::default());
    let producer = tokio::spawn(produce(client.clone(), Arc::clone(&progress)));
    let reader = tokio::spawn(read(client.clone(), Arc::clone(&progress)));
    progress.both_go_on(&cluster).await;
    for node in 1..=3 {
        assert!(cluster.stop(node), "it ends well\n{}", cluster.logs());
        progress.both_go_on(&cluster).await;
        cluster.start(node);
        all_in_sync(&cluster, &client, "orders").await;
        progress.both_go_on(&cluster).await;
    }
    progress.ended.store(true, Ordering::Relaxed);
    let sent = timeout(PATIENCE, producer).await.expect("it ends").expect("no produce failed");
    let seen = timeout(PATIENCE, reader).await.expect("it ends").expect("no fetch failed");
    let all = read_all(&client, "orders").await;
    assert_eq!(sent, all, "each is where its receipt says, and there is nothing else");
    assert!(seen.iter().all(|(place, value)| all.get(place) == Some(value)));
}

/// How far a producer and a reader beside it have come, and whether they are to end.
#[derive(Default)]
struct Progress {
    sent: AtomicUsize,
    seen: AtomicUsize,
    ended: AtomicBool,
}

impl Progress {
    /// Waits until a few more records were sent and every one of them was read.
    async fn both_go_on(&self, cluster: &Cluster) {
        let wanted = self.sent.load(Ordering::Relaxed) + 20;
        cluster
            .eventually("the producer and the reader go on", async || {
                (self.seen.load(Ordering::Relaxed) >= wanted).then_some(())
            })
            .await;
    }
}

/// Sends one record after the other, none of which may fail; where each lies.
async fn produce(client: Client, progress: Arc<Progress>) -> BTreeMap<Place, String> {
    let config = ProducerConfig::default().acks(AckMode::Sync).linger(Duration::ZERO);
    let producer = client.producer(config);
    let mut places = BTreeMap::new();
    while !progress.ended.load(Ordering::Relaxed) {
        let value = places.len().to_string();
        let record = Record::to("orders").key(format!("k{value}")).value(value.clone());
        let done = producer.send_and_wait(record).await.expect("no produce fails");
        assert_eq!(places.insert((done.partition, done.offset), value), None);
        progress.sent.store(places.len(), Ordering::Relaxed);
    }
    places
}

/// Reads along, and no read may fail; what lay where.
async fn read(client: Client, progress: Arc<Progress>) -> BTreeMap<Place, String> {
    let config = ReaderConfig::new("orders", StartAt::Start);
    let mut reader = client.reader(config).await.expect("a reader");
    let mut seen = BTreeMap::new();
    while !progress.ended.load(Ordering::Relaxed) {
        let Ok(next) = timeout(Duration::from_millis(200), reader.next_batch()).await else {
            continue;
        };
        let batch = next.expect("no fetch fails").expect("it has no end");
        for record in &batch {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            let before = seen.insert((batch.partition, record.offset), value);
            assert_eq!(before, None, "{} was read twice", record.offset);
        }
        progress.seen.store(seen.len(), Ordering::Relaxed);
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_disk_is_replaced_in_turn_and_then_all_brokers_restart_and_nothing_is_lost() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 4).await;
    let load = Load::start(&client, "orders", AckMode::SemiSync);
    for node in 1..=3 {
        load.wait_for(load.acked() + 100).await;
        cluster.kill(node);
        replace_disk(&cluster, node);
        cluster.start(node);
        let id = NodeId(node as u32);
        status(&cluster, &client, id, "it is known to have lost all", |it| it.lost == 4).await;
        status(&cluster, &client, id, "it is filled again", |it| it.lost == 0).await;
        all_in_sync(&cluster, &client, "orders").await;
    }
    let acked = load.stop().await;
    cluster.kill_all();
    for node in 1..=3 {
        cluster.start(node);
    }
    let client = cluster.client().await;
    all_in_sync(&cluster, &client, "orders").await;
    check_all_there(&acked, &read_all(&client, "orders").await);
}

/// Gives a broker an empty disk, as its operator would.
fn replace_disk(cluster: &Cluster, node: usize) {
    let data = cluster.dir.path().join(format!("node-{node}/data"));
    std::fs::remove_dir_all(data).expect("nobody uses it");
    let mut format = std::process::Command::new(env!("CARGO_BIN_EXE_highwater"));
    let formatted = format.arg("format").arg("-c").arg(&cluster.created.configs[node - 1]).output();
    let formatted = formatted.expect("the broker's program is there");
    assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
}
