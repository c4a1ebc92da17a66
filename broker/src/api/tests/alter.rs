//! Topics that change while they are in use, on brokers in one process.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::alter::{AlterTopicRequest, CreatePartitionsRequest};
use highwater_protocol::native::produce::AckMode;

use super::rig::{Rig, batch, eventually, led_topic, partition, produce, topic, within};

fn set(name: &str, configs: &[(&str, &str)]) -> AlterTopicRequest {
    let set = configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    AlterTopicRequest { name: name.into(), set, unset: Vec::new(), dry_run: DryRun::No }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_change_on_every_broker_at_once_and_outlive_a_restart() {
    let mut rig = Rig::start(3).await;
    let mut request = topic("orders", 1, 3);
    request.configs = vec![("max.message.bytes".into(), "2000".into())];
    let id = within(rig.api(1).create_topic(request)).await.expect("made").id;
    let orders = partition(id, 0);
    let leader = led_topic(rig.api(1), "orders").await.partitions[0].leader.expect("led").0;
    let large = || batch(&["x".repeat(3_000).as_str()]);
    let refusal = async || {
        let error = produce(rig.api(leader), orders, AckMode::Sync, large()).await.err()?;
        (!error.code.retriable()).then_some(error.code)
    };
    assert_eq!(eventually(refusal).await, ErrorCode::BatchTooLarge);

    let dry = AlterTopicRequest {
        dry_run: DryRun::Yes,
        ..set("orders", &[("max.message.bytes", "9000")])
    };
    let planned = within(rig.api(2).alter_topic(dry)).await.expect("fine");
    assert_eq!(planned.changes[0].after.as_deref(), Some("9000"));
    assert_eq!(eventually(refusal).await, ErrorCode::BatchTooLarge, "nothing changed");

    let wish = set("orders", &[("max.message.bytes", "9000"), ("segment.bytes", "1048576")]);
    within(rig.api(2).alter_topic(wish)).await.expect("fine");
    eventually(async || produce(rig.api(leader), orders, AckMode::Sync, large()).await.ok()).await;

    let wrong = set("orders", &[("min.insync.replicas", "4"), ("retention.byte", "1")]);
    let error = within(rig.api(3).alter_topic(wrong)).await.expect_err("two mistakes");
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    assert!(error.detail.contains("did you mean `retention.bytes`?"), "{error}");

    rig.stop().await;
    rig.boot(2).await;
    rig.all_serve().await;
    for node in 1..=3 {
        let image = rig.api(node).node().image();
        let config = image.topic(id).expect("kept").config;
        assert_eq!((config.message_bytes_max, config.segment_bytes), (9_000, 1 << 20));
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_added_led_and_written_while_the_others_go_on() {
    let mut rig = Rig::start(3).await;
    let id = within(rig.api(1).create_topic(topic("orders", 2, 3))).await.expect("made").id;
    led_topic(rig.api(1), "orders").await;
    let name = "orders".to_string();
    let request = CreatePartitionsRequest { name, partitions: 6, dry_run: DryRun::No };
    let added = within(rig.api(2).create_partitions(request.clone())).await.expect("fine");
    assert_eq!((added.first.0, added.replicas.len()), (2, 4));
    let detail = led_topic(rig.api(2), "orders").await;
    assert_eq!(detail.partitions.len(), 6);
    for info in detail.partitions {
        let leader = info.leader.expect("led").0;
        let number = info.partition.0;
        let orders = partition(id, number);
        eventually(async || {
            produce(rig.api(leader), orders, AckMode::Sync, batch(&["a"])).await.ok()
        })
        .await;
    }
    let again = within(rig.api(3).create_partitions(request)).await.expect("has as many");
    assert!(again.replicas.is_empty());
    rig.stop().await;
}
