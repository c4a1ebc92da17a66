//! Who leads, on brokers in one process: leadership is handed over by request and given back by itself.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::NodeId;
use highwater_protocol::native::alter::TransferLeaderRequest;
use highwater_protocol::native::metadata::PartitionInfo;

use super::rig::{Rig, eventually, led_topic, partition, topic, within};

/// Waits until every partition of "orders" is led by its preferred replica, as broker 1 sees it.
async fn all_preferred(rig: &Rig) {
    eventually(async || {
        let detail = led_topic(rig.api(1), "orders").await;
        let preferred = |info: &PartitionInfo| info.leader == info.replicas.first().copied();
        detail.partitions.iter().all(preferred).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_spread_again_after_a_restart_and_after_a_transfer() {
    let mut rig = Rig::start(3).await;
    let id = within(rig.api(1).create_topic(topic("orders", 6, 3))).await.expect("made").id;
    led_topic(rig.api(1), "orders").await;
    rig.stop().await;
    rig.leaders_return_after_ms = Some(300);
    rig.boot(2).await;
    rig.all_serve().await;
    all_preferred(&rig).await;

    let first = led_topic(rig.api(1), "orders").await.partitions[0].clone();
    let (from, heir) = (first.replicas[0].0, first.replicas[1]);
    let request = TransferLeaderRequest { partition: partition(id, 0), to: Some(heir) };
    // The heir is in sync as soon as its new leader has heard of it.
    eventually(async || rig.api(from).transfer_leader(request).await.ok()).await;
    eventually(async || {
        let now = led_topic(rig.api(1), "orders").await.partitions[0].clone();
        (now.leader == Some(NodeId(from)) && now.term.0 >= first.term.0 + 2).then_some(())
    })
    .await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_nobody_who_has_no_replica() {
    let mut rig = Rig::start(3).await;
    let id = within(rig.api(1).create_topic(topic("orders", 1, 1))).await.expect("made").id;
    let leader = led_topic(rig.api(1), "orders").await.partitions[0].leader.expect("led").0;
    let request =
        TransferLeaderRequest { partition: partition(id, 0), to: Some(NodeId(leader % 3 + 1)) };
    let error = within(rig.api(leader).transfer_leader(request)).await.expect_err("no replica");
    assert_eq!(error.code, ErrorCode::Conflict);
    assert!(error.detail.contains("not one of its in-sync replicas"), "{error}");
    rig.stop().await;
}
