//! A partition whose majority is gone goes on with one replica.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Term, TopicPartition};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::metadata::{MetadataRequest, PartitionInfo};
use highwater_protocol::native::moves::{MoveWish, ReassignRequest};
use highwater_protocol::native::produce::AckMode;
use highwater_protocol::native::recover::RecoverPartitionRequest;

use super::rig::{Rig, batch, eventually, fetch_of, partition, produce, topic, within};
use super::values;

fn wish(partition: TopicPartition, survivor: u32, given_up: &[u32]) -> RecoverPartitionRequest {
    let given_up = given_up.iter().copied().map(NodeId).collect();
    RecoverPartitionRequest { partition, survivor: NodeId(survivor), given_up, term: Term(0) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovered_partition_has_the_survivors_records_and_takes_replicas_again() {
    let mut rig = Rig::start(3).await;
    let id = within(rig.api(1).create_topic(topic("orders", 1, 3))).await.expect("made").id;
    let at = partition(id, 0);
    let old = eventually(async || leads_all(&rig).await).await;
    produce(rig.api(old), at, AckMode::Sync, batch(&["a", "b"])).await.expect("acknowledged");

    let refused = within(rig.api(1).recover_partition(wish(at, 2, &[]))).await;
    assert_eq!(refused.expect_err("all are alive").code, ErrorCode::MajorityAlive);
    let own = within(rig.api(1).recover_partition(wish(TopicPartition::CLUSTER, 2, &[1, 3]))).await;
    assert_eq!(own.expect_err("who should decide it").code, ErrorCode::InvalidRequest);

    // As if the others' disks were gone for good: the controller is told not to count on them.
    let before = within(rig.api(1).recover_partition(wish(at, 2, &[1, 3]))).await.expect("decided");
    assert_eq!(before.replicas_before.len(), 3);
    eventually(async || (leader_now(&rig, 1).await? == (2, true)).then_some(())).await;
    for node in [1, 3] {
        eventually(async || rig.topic_dirs(node).is_empty().then_some(())).await;
    }
    eventually(async || produce(rig.api(2), at, AckMode::Sync, batch(&["c"])).await.ok()).await;

    let wish = MoveWish::Replicas(3);
    let again = ReassignRequest { partitions: vec![at], wish, dry_run: DryRun::No };
    within(rig.api(3).reassign(again)).await.expect("all are alive");
    eventually(async || {
        let image = rig.api(1).node().image();
        let set = &image.topic(id)?.partitions[0];
        (set.len() == 3 && rig.api(1).list_moves().moves.is_empty()).then_some(())
    })
    .await;
    rig.stop_one(NodeId(2)).await;
    let heir = eventually(async || leader(&rig, 1).await.filter(|leader| *leader != 2)).await;
    assert_eq!(values(rig.api(heir), fetch_of(at, 1)).await, ["a", "b", "c"]);
    rig.stop().await;
}

async fn leader(rig: &Rig, ask: u32) -> Option<u32> {
    leader_now(rig, ask).await.map(|(leader, _)| leader)
}

/// Who leads by its own word, with all three in sync: what is acknowledged then all have.
async fn leads_all(rig: &Rig) -> Option<u32> {
    for node in [1, 2, 3] {
        if let Some(found) = first_partition(rig, node).await
            && found.leader == Some(NodeId(node))
            && found.in_sync.len() == 3
        {
            return Some(node);
        }
    }
    None
}

/// Who leads, and whether that is the only replica.
async fn leader_now(rig: &Rig, ask: u32) -> Option<(u32, bool)> {
    let found = first_partition(rig, ask).await?;
    Some((found.leader?.0, found.replicas.len() == 1))
}

async fn first_partition(rig: &Rig, ask: u32) -> Option<PartitionInfo> {
    let metadata = rig.api(ask).metadata(MetadataRequest::All).await.ok()?;
    let topic = metadata.topics.into_iter().find(|topic| topic.name == "orders")?;
    topic.result.ok()?.partitions.into_iter().next()
}
