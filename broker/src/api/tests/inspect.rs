//! Replicas from inside, on brokers in one process: every broker answers for its own replica.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset};
use highwater_protocol::native::admin::ReplicaRole;
use highwater_protocol::native::inspect::{InspectReplicaRequest, InspectReplicaResponse};
use highwater_protocol::native::produce::AckMode;

use super::rig::{Rig, batch, eventually, led_topic, partition, produce, topic, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_says_which_term_wrote_a_record_and_whether_it_is_on_disk() {
    let mut rig = Rig::start(3).await;
    let id = within(rig.api(1).create_topic(topic("orders", 1, 3))).await.expect("made").id;
    let at = partition(id, 0);
    // On a busy machine the lead may change before the batch is there.
    let (info, sent) = eventually(async || {
        let info = led_topic(rig.api(1), "orders").await.partitions[0].clone();
        let leader = info.leader.expect("it is led").0;
        let sent = produce(rig.api(leader), at, AckMode::Sync, batch(&["a", "b"])).await;
        Some((info, sent.ok()?))
    })
    .await;
    assert_eq!(sent.base_offset, Offset(0), "all three took it");
    let leader = info.leader.expect("it is led").0;
    for node in 1..=3 {
        let request = InspectReplicaRequest { partition: at, offset: Some(Offset(1)) };
        let complete = |seen: &InspectReplicaResponse| seen.high_watermark == Offset(2);
        let seen =
            eventually(async || rig.api(node).inspect_replica(request).await.ok().filter(complete))
                .await;
        let held = seen.batch.expect("it has the batch");
        assert_eq!((held.base, held.end, held.term), (Offset(0), Offset(2), info.term));
        assert!(held.end_index <= seen.indexes.flushed, "a sync ack is on every disk");
        assert_eq!((seen.flushed, seen.log_end), (Offset(2), Offset(2)));
        assert_eq!((seen.leader, seen.suspect), (Some(NodeId(leader)), false));
        let role = if node == leader { ReplicaRole::Leader } else { ReplicaRole::Follower };
        assert_eq!(seen.role, role);
        assert_eq!((seen.voters.len(), seen.flush_interval_ms), (3, None));
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_a_replica_says_so_and_an_offset_that_is_not_there_has_no_batch() {
    let mut rig = Rig::start(3).await;
    let id = within(rig.api(1).create_topic(topic("orders", 1, 1))).await.expect("made").id;
    let leader = led_topic(rig.api(1), "orders").await.partitions[0].leader.expect("led").0;
    let request = InspectReplicaRequest { partition: partition(id, 0), offset: Some(Offset(7)) };
    let other = leader % 3 + 1;
    // It hears of the leader in its own time.
    led_topic(rig.api(other), "orders").await;
    let error = within(rig.api(other).inspect_replica(request)).await.expect_err("none");
    assert_eq!(error.code, ErrorCode::NotLeader);
    let seen = within(rig.api(leader).inspect_replica(request)).await.expect("it has one");
    assert_eq!((seen.batch, seen.log_end), (None, Offset(0)));
    rig.stop().await;
}
