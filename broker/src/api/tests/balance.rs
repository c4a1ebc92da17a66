//! What brokers carry is told, planned and evened out.

use std::collections::BTreeMap;

use highwater_protocol::ids::NodeId;
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::balance::{PlanBalanceRequest, ReplicaState};
use highwater_protocol::native::moves::{MoveWish, ReassignRequest};
use highwater_protocol::native::produce::AckMode;

use super::rig::{Rig, batch, eventually, fetch_of, led_topic, partition, produce, topic, within};

fn to(wish: MoveWish) -> ReassignRequest {
    ReassignRequest { partitions: Vec::new(), wish, dry_run: DryRun::No }
}

async fn quiet(rig: &Rig) {
    let none = |node| rig.api(node).list_moves().moves.is_empty();
    eventually(async || (1..=4).all(none).then_some(())).await;
}

fn carried(rig: &Rig) -> Vec<usize> {
    (1..=4).map(|node| rig.api(node).list_replicas().replicas.len()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_broker_gets_its_share_and_nothing_else_moves() {
    let mut rig = Rig::start(4).await;
    within(rig.api(1).create_topic(topic("orders", 8, 3))).await.expect("made");
    eventually(async || (carried(&rig) == [6, 6, 6, 6]).then_some(())).await;
    within(rig.api(1).reassign(to(MoveWish::Drain(NodeId(4))))).await.expect("three are enough");
    eventually(async || (carried(&rig) == [8, 8, 8, 0]).then_some(())).await;
    quiet(&rig).await;

    let mut sizes = BTreeMap::new();
    for node in 1..=4 {
        let replicas = rig.api(node).list_replicas().replicas;
        assert!(replicas.iter().all(|replica| replica.state == ReplicaState::Open));
        sizes.extend(replicas.into_iter().map(|replica| (replica.partition, replica.bytes)));
    }
    let request = PlanBalanceRequest { sizes: sizes.into_iter().collect(), loads: Vec::new() };
    let plan = within(rig.api(2).plan_balance(request)).await.expect("a plan");
    let before: Vec<u32> = plan.before.iter().map(|share| share.replicas).collect();
    let after: Vec<u32> = plan.after.iter().map(|share| share.replicas).collect();
    assert_eq!((before, after), (vec![8, 8, 8, 0], vec![6, 6, 6, 6]));
    for planned in plan.moves {
        let came: Vec<&NodeId> =
            planned.to.iter().filter(|node| !planned.from.contains(node)).collect();
        assert!(came.is_empty() || came == [&NodeId(4)], "{planned:?}");
        let wish = ReassignRequest {
            partitions: vec![planned.partition],
            wish: MoveWish::To(planned.to),
            dry_run: DryRun::No,
        };
        within(rig.api(3).reassign(wish)).await.expect("as planned");
    }
    eventually(async || (carried(&rig) == [6, 6, 6, 6]).then_some(())).await;
    quiet(&rig).await;
    let request = PlanBalanceRequest { sizes: Vec::new(), loads: Vec::new() };
    let plan = within(rig.api(1).plan_balance(request)).await.expect("a plan");
    assert_eq!(plan.moves, [], "it is even now");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_write_and_read_is_counted_where_it_is_led() {
    let mut rig = Rig::start(3).await;
    let id = within(rig.api(1).create_topic(topic("orders", 1, 3))).await.expect("made").id;
    let first = partition(id, 0);
    let leader = led_topic(rig.api(1), "orders").await.partitions[0].leader.expect("led").0;
    let sent = batch(&["a", "b", "c"]);
    let bytes = sent.len() as u64;
    // The leader may be the last to call itself one.
    let api = rig.api(leader);
    eventually(async || produce(api, first, AckMode::Sync, sent.clone()).await.ok()).await;
    within(rig.api(leader).fetch(fetch_of(first, 1))).await;
    for node in 1..=3 {
        let replica = rig.api(node).list_replicas().replicas.remove(0);
        let traffic = replica.traffic;
        let seen = (traffic.records_in, traffic.bytes_in, traffic.records_out, traffic.bytes_out);
        let expected = if node == leader { (3, bytes, 3, bytes) } else { (0, 0, 0, 0) };
        assert_eq!((replica.leads, seen), (node == leader, expected));
    }
    rig.stop().await;
}
