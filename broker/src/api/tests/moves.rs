//! Replicas move between brokers while records come in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use highwater_protocol::ids::{NodeId, Offset, TopicId, TopicPartition};
use highwater_protocol::native::admin::{DescribePartitionRequest, DryRun};
use highwater_protocol::native::metadata::MetadataRequest;
use highwater_protocol::native::moves::{CancelMovesRequest, MoveStage, MoveWish, ReassignRequest};
use highwater_protocol::native::produce::{AckMode, ProduceRequest, Receipt};
use tokio::task::JoinHandle;

use super::Api;
use super::rig::{Rig, batch, eventually, fetch_of, led_topic, partition, topic, within};
use super::values;

fn to(brokers: &[u32]) -> ReassignRequest {
    let wish = MoveWish::To(brokers.iter().copied().map(NodeId).collect());
    ReassignRequest { partitions: Vec::new(), wish, dry_run: DryRun::No }
}

fn sets(api: &Api, id: TopicId) -> Vec<Vec<u32>> {
    let image = api.node().image();
    let sorted = |set: &crate::controller::image::ReplicaSet| {
        let mut nodes: Vec<u32> = set.iter().map(|replica| replica.node.0).collect();
        nodes.sort_unstable();
        nodes
    };
    // A broker that has not heard of it yet knows of no partitions.
    let topic = image.topic(id);
    topic.map_or(Vec::new(), |topic| topic.partitions.iter().map(sorted).collect())
}

async fn moves_end(api: &Api) {
    eventually(async || api.list_moves().moves.is_empty().then_some(())).await;
}

/// Every broker's face, to go on with whichever leads.
fn faces(rig: &Rig) -> BTreeMap<NodeId, Api> {
    rig.brokers.iter().map(|(node, broker)| (*node, broker.api.clone())).collect()
}

/// Writes numbers to a partition one after another, each until it is acknowledged; gives the offsets.
fn load(rig: &Rig, id: TopicId, number: u32, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Offset>> {
    let faces = faces(rig);
    let partition = partition(id, number);
    tokio::spawn(async move {
        let mut acked = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let value = format!("{}", acked.len());
            let receipt = loop {
                if let Some(receipt) = produce_anywhere(&faces, partition, &value).await {
                    break receipt;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            acked.push(receipt.base_offset);
        }
        acked
    })
}

/// A produce to whichever broker takes it.
async fn produce_anywhere(
    faces: &BTreeMap<NodeId, Api>,
    partition: TopicPartition,
    value: &str,
) -> Option<Receipt> {
    for api in faces.values() {
        let (acks, batch) = (AckMode::Sync, batch(&[value]));
        let request = ProduceRequest {
            partition,
            acks,
            leader_term: None,
            timeout_ms: 5_000,
            expected_end: None,
            batch,
        };
        if let Ok(receipt) = api.produce(request).await {
            return Some(receipt);
        }
    }
    None
}

/// All values from the start to at least this offset.
async fn read_to(api: &Api, partition: TopicPartition, last: usize) -> Vec<String> {
    let mut found = Vec::new();
    within(async {
        while found.len() <= last {
            let mut request = fetch_of(partition, 1);
            request.partitions[0].offset = Offset(found.len() as u64);
            found.extend(values(api, request).await);
        }
    })
    .await;
    found
}

async fn leader_of(api: &Api, number: usize) -> u32 {
    led_topic(api, "orders").await.partitions[number].leader.expect("led").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loaded_topic_moves_and_nothing_acknowledged_is_lost() {
    let mut rig = Rig::start(4).await;
    let id = within(rig.api(1).create_topic(topic("orders", 3, 3))).await.expect("made").id;
    within(rig.api(1).reassign(to(&[1, 2, 3]))).await.expect("all are alive");
    eventually(async || sets(rig.api(1), id).iter().all(|set| set == &[1, 2, 3]).then_some(()))
        .await;
    moves_end(rig.api(1)).await;

    let stop = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = (0..3).map(|number| load(&rig, id, number, stop.clone())).collect();
    let mut plan = to(&[2, 3, 4]);
    plan.dry_run = DryRun::Yes;
    let planned = within(rig.api(3).reassign(plan)).await.expect("all are alive").moves;
    assert_eq!(planned.len(), 3);
    assert!(rig.api(3).list_moves().moves.is_empty(), "a dry run begins nothing");
    within(rig.api(3).reassign(to(&[2, 3, 4]))).await.expect("all are alive");
    eventually(async || sets(rig.api(2), id).iter().all(|set| set == &[2, 3, 4]).then_some(()))
        .await;
    moves_end(rig.api(2)).await;
    eventually(async || rig.topic_dirs(1).is_empty().then_some(())).await;
    stop.store(true, Ordering::Relaxed);

    for (number, load) in loads.into_iter().enumerate() {
        let acked = within(load).await.expect("it does not panic");
        assert!(acked.is_sorted(), "what came later lies behind");
        let leader = leader_of(rig.api(2), number).await;
        assert_ne!(leader, 1);
        let last = acked.last().expect("it wrote all the time").0 as usize;
        let found = read_to(rig.api(leader), partition(id, number as u32), last).await;
        for (value, offset) in acked.iter().enumerate() {
            assert_eq!(found[offset.0 as usize], value.to_string(), "at {offset}");
        }
    }
    assert_eq!(rig.topic_dirs(4).len(), 3);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_to_a_broker_that_died_goes_back_when_it_is_cancelled() {
    let mut rig = Rig::start(4).await;
    let id = within(rig.api(1).create_topic(topic("orders", 1, 3))).await.expect("made").id;
    within(rig.api(1).reassign(to(&[1, 2, 3]))).await.expect("all are alive");
    eventually(async || (sets(rig.api(1), id)[0] == [1, 2, 3]).then_some(())).await;
    moves_end(rig.api(1)).await;
    // It is not known to be dead for as long as its session lasts.
    rig.stop_one(NodeId(4)).await;
    within(rig.api(1).reassign(to(&[2, 3, 4]))).await.expect("it was alive a moment ago");
    let all = CancelMovesRequest { partitions: Vec::new() };
    let cancelled = within(rig.api(2).cancel_moves(all)).await.expect("at any time").moves;
    assert_eq!(cancelled.len(), 1);
    eventually(async || {
        let moves = rig.api(2).list_moves().moves;
        moves.iter().all(|info| info.stage == MoveStage::GoingBack).then_some(())
    })
    .await;
    moves_end(rig.api(1)).await;
    assert_eq!(sets(rig.api(1), id), [[1, 2, 3]]);
    let described = eventually(async || {
        let leader = leader_of(rig.api(1), 0).await;
        let request = DescribePartitionRequest { partition: partition(id, 0) };
        let described = rig.api(leader).describe_partition(request).await.ok()?;
        (described.leader == Some(NodeId(leader))).then_some(described)
    })
    .await;
    let mut replicas: Vec<u32> = described.replicas.iter().map(|replica| replica.node.0).collect();
    replicas.sort_unstable();
    assert_eq!(replicas, [1, 2, 3], "and so are the voters");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_goes_on_without_the_broker_that_led_the_controller() {
    let mut rig = Rig::start(4).await;
    let id = within(rig.api(1).create_topic(topic("orders", 4, 2))).await.expect("made").id;
    let metadata = rig.api(1).metadata(MetadataRequest::All).await.expect("always");
    let lost = metadata.controller.expect("it made a topic").0;
    let left: Vec<u32> = (1..=3).filter(|node| *node != lost).collect();
    within(rig.api(4).reassign(to(&left))).await.expect("all are alive");
    eventually(async || (sets(rig.api(4), id) == vec![left.clone(); 4]).then_some(())).await;
    moves_end(rig.api(4)).await;
    within(rig.api(lost).reassign(to(&[left[1], 4]))).await.expect("all are alive");
    rig.stop_one(NodeId(lost)).await;
    let aim = [left[1], 4];
    eventually(async || (sets(rig.api(4), id) == vec![aim.to_vec(); 4]).then_some(())).await;
    moves_end(rig.api(4)).await;
    eventually(async || rig.topic_dirs(left[0]).is_empty().then_some(())).await;
    rig.stop().await;
}
