//! Reading from the replica in one's own rack, on real brokers: it serves what its leader has committed, and when it is
//! gone the leader does, without a gap or a repeat.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::load::{Load, check_all_there, create};
use common::{Cluster, PATIENCE, edit, read_all};
use highwater_client::{
    AckMode, Client, NodeId, Offset, PartitionId, Profiles, Reader, ReaderConfig, StartAt,
};
use highwater_protocol::error::ErrorCode;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_served_in_its_rack_and_by_the_leader_when_nobody_is_there() {
    let mut cluster = Cluster::made(3);
    for node in 1..=3 {
        let rack = format!("rack = \"rack-{node}\"");
        edit(&cluster.created.configs[node - 1], "# rack = \"a\"", &rack);
        cluster.start(node);
    }
    let client = client(&cluster).await;
    create(&client, TOPIC, 3).await;
    let load = Load::start(&client, TOPIC, AckMode::SemiSync);
    load.wait_for(200).await;

    let config = ReaderConfig::new(TOPIC, StartAt::Start).rack("rack-2");
    cluster
        .eventually("broker 2 serves all that is read in its rack", async || {
            let before = served(&client).await?;
            let mut reader = client.reader(config.clone().until_end()).await.ok()?;
            let mut count = 0;
            while let Some(batch) = reader.next_batch().await.expect("nothing is wrong") {
                count += batch.iter().count() as u64;
            }
            let after = served(&client).await?;
            let by = |node: u32| after[&NodeId(node)] - before[&NodeId(node)];
            ((by(1), by(3)) == (0, 0) && by(2) >= count && count > 0).then_some(())
        })
        .await;

    let beyond = StartAt::Offset(Offset(1 << 40));
    let config_beyond = ReaderConfig { start: beyond, ..config.clone() };
    let mut lost = client.reader(config_beyond).await.expect("it is there");
    let error =
        timeout(PATIENCE, lost.next_batch()).await.expect("in time").expect_err("beyond all");
    assert_eq!(error.code(), Some(ErrorCode::OffsetOutOfRange), "{error}");

    let mut follower = Follower::new(client.reader(config).await.expect("it is there"));
    follower.goes_on(200).await;
    cluster.kill(2);
    follower.goes_on(2_000).await;
    cluster.start(2);
    cluster
        .eventually("broker 2 serves again", async || {
            follower.goes_on(100).await;
            (served(&client).await?[&NodeId(2)] > 0).then_some(())
        })
        .await;
    let acked = load.stop().await;
    let all = read_all(&client, TOPIC).await;
    while follower.read < all.len() {
        follower.goes_on(1).await;
    }
    check_all_there(&acked, &all);
}

/// Reads on, and sees to it that no offset is left out or comes twice.
struct Follower {
    reader: Reader,
    next: BTreeMap<PartitionId, Offset>,
    read: usize,
}

impl Follower {
    fn new(reader: Reader) -> Follower {
        Follower { reader, next: BTreeMap::new(), read: 0 }
    }

    async fn goes_on(&mut self, records: usize) {
        let until = self.read + records;
        while self.read < until {
            let batch = timeout(PATIENCE, self.reader.next_batch()).await.expect("in time");
            let batch = batch.expect("it reads on wherever it can").expect("without end");
            let next = self.next.entry(batch.partition).or_insert(Offset(0));
            for record in batch.iter() {
                assert_eq!(record.offset, *next, "of partition {}", batch.partition);
                *next = next.advance(1);
                self.read += 1;
            }
        }
    }
}

/// How many records each broker has given to readers since it was started; nothing if one is away.
async fn served(client: &Client) -> Option<BTreeMap<NodeId, u64>> {
    let mut served = BTreeMap::new();
    for node in [1, 2, 3].map(NodeId) {
        let replicas = client.admin().replicas_on(node).await.ok()?.replicas;
        served.insert(node, replicas.iter().map(|replica| replica.traffic.records_out).sum());
    }
    Some(served)
}

/// One that asks once a second where everything is.
async fn client(cluster: &Cluster) -> Client {
    drop(cluster.client().await);
    let profiles = Profiles::load_from(&cluster.created.profile).expect("init wrote it");
    let mut config = profiles.get(None).expect("one profile").config();
    config.metadata_age_max = Duration::from_secs(1);
    Client::connect(config).await.expect("it is healthy")
}

const TOPIC: &str = "orders";
