//! The api on real shards and real files: one broker, and several.

mod alter;
mod balance;
mod inspect;
mod leaders;
mod moves;
mod policy;
mod recover;
mod rig;
mod settings;

use std::time::{Duration, Instant};

use highwater_protocol::batch::{BatchView, frames};
use highwater_protocol::batch::{HEADER_BYTES, crc32c};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset, Term, Timestamp, TopicPartition};
use highwater_protocol::native::admin::{DeleteTopicRequest, DescribePartitionRequest};
use highwater_protocol::native::fetch::{FetchRequest, ListOffsetsRequest, OffsetAt};
use highwater_protocol::native::metadata::MetadataRequest;
use highwater_protocol::native::produce::AckMode;

use super::Api;
use rig::{Rig, batch, eventually, fetch_of, led_topic, partition, produce, topic, within};

async fn values(api: &Api, request: FetchRequest) -> Vec<String> {
    let response = within(api.fetch(request)).await;
    let mut values = Vec::new();
    for fetched in response.partitions {
        for slice in fetched.result.expect("this broker leads the partition").records {
            for frame in frames(&slice) {
                let (_, bytes) = frame.expect("whole batches");
                let view = BatchView::parse(bytes).expect("whole batches");
                for record in view.records().expect("not packed") {
                    let value = record.expect("as it was sent").value.expect("all have one");
                    values.push(String::from_utf8_lossy(value).into_owned());
                }
            }
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_back_in_order_under_every_promise() {
    let mut rig = Rig::start(1).await;
    let api = rig.api(1);
    let id = within(api.create_topic(topic("orders", 1, 1))).await.expect("made").id;
    led_topic(api, "orders").await;
    let orders = partition(id, 0);
    for (at, acks) in [AckMode::Async, AckMode::SemiSync, AckMode::Sync].into_iter().enumerate() {
        let sent = batch(&[&format!("a{at}"), &format!("b{at}")]);
        let receipt = produce(api, orders, acks, sent).await.expect("kept");
        assert_eq!(receipt.base_offset, Offset(2 * at as u64));
    }
    let all = ["a0", "b0", "a1", "b1", "a2", "b2"];
    let whole = produce(api, orders, AckMode::Sync, batch(&["end"])).await.expect("kept");
    assert_eq!(whole.flushed, 1);
    assert_eq!(values(api, fetch_of(orders, 1)).await[..6], all);

    let list = async |at| {
        let request = ListOffsetsRequest { partition: orders, at };
        within(api.list_offsets(request)).await.expect("led here").offset
    };
    assert_eq!(list(OffsetAt::Start).await, Offset(0));
    assert_eq!(list(OffsetAt::End).await, Offset(7));
    assert_eq!(list(OffsetAt::Time(Timestamp(1_000))).await, Offset(0));
    assert_eq!(list(OffsetAt::Time(Timestamp(1_001))).await, Offset(7));
    let request = DescribePartitionRequest { partition: orders };
    let described = within(api.describe_partition(request)).await.expect("hosted here");
    assert_eq!((described.leader, described.high_watermark), (Some(NodeId(1)), Offset(7)));
    rig.stop().await;
}

/// A batch that a broken client sealed: the checksum is right, and the second record's length is not.
fn lying() -> bytes::Bytes {
    let mut lying = batch(&["a", "b"]).to_vec();
    let second = HEADER_BYTES + (lying.len() - HEADER_BYTES) / 2;
    lying[second] = 0x7e;
    let checksum = crc32c(&lying[21..]);
    lying[17..21].copy_from_slice(&checksum.to_be_bytes());
    lying.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_produces_are_refused_with_the_reason_and_nothing_is_written() {
    let mut rig = Rig::start(1).await;
    let api = rig.api(1);
    let mut request = topic("orders", 1, 1);
    request.configs.push(("max.message.bytes".into(), "2000".into()));
    let id = within(api.create_topic(request)).await.expect("made").id;
    led_topic(api, "orders").await;
    let orders = partition(id, 0);

    let mut corrupt = batch(&["a"]).to_vec();
    *corrupt.last_mut().expect("not empty") ^= 1;
    let two = [batch(&["a"]), batch(&["b"])].concat();
    let large = batch(&["x".repeat(3_000).as_str()]);
    let cases = [
        (orders, corrupt.into(), ErrorCode::CorruptBatch, "orders-0"),
        (orders, two.into(), ErrorCode::InvalidRecord, "exactly one"),
        (orders, lying(), ErrorCode::InvalidRecord, "record 1: ends behind its batch"),
        (orders, large, ErrorCode::BatchTooLarge, "`max.message.bytes` is 2000"),
        (orders, bytes::Bytes::new(), ErrorCode::InvalidRecord, "orders-0"),
        (partition(id, 1), batch(&["a"]), ErrorCode::UnknownTopicOrPartition, "partition 1"),
        (TopicPartition::CLUSTER, batch(&["a"]), ErrorCode::Unauthorized, "cluster's own"),
    ];
    for (partition, batch, code, words) in cases {
        let error = produce(api, partition, AckMode::Async, batch).await.expect_err("refused");
        assert_eq!(error.code, code, "{error}");
        assert!(error.detail.contains(words), "{error}");
    }
    let receipt = produce(api, orders, AckMode::Sync, batch(&["a"])).await.expect("kept");
    assert_eq!(receipt.base_offset, Offset(0));
    assert_eq!(api.produce_bytes_in_flight(), 0);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_waits_for_records_and_gets_them_when_they_are_committed() {
    let mut rig = Rig::start(1).await;
    let api = rig.api(1).clone();
    let id = within(api.create_topic(topic("orders", 1, 1))).await.expect("made").id;
    led_topic(&api, "orders").await;
    let orders = partition(id, 0);
    let waiting = tokio::spawn({
        let api = api.clone();
        async move { values(&api, fetch_of(orders, 1)).await }
    });
    produce(&api, orders, AckMode::Async, batch(&["a"])).await.expect("kept");
    assert_eq!(within(waiting).await.expect("no panic"), ["a"]);

    let mut impatient = fetch_of(orders, 1 << 20);
    impatient.wait_max_ms = 1;
    assert_eq!(values(&api, impatient).await, ["a"], "less than asked for when the time is up");
    let mut beyond = fetch_of(orders, 1);
    beyond.partitions[0].offset = Offset(2);
    let error = within(api.fetch(beyond)).await.partitions[0].result.clone().expect_err("no such");
    assert_eq!(error.code, ErrorCode::OffsetOutOfRange);
    assert!(error.detail.contains("orders-0 holds offsets 0 to 1"), "{error}");
    let mut stale = fetch_of(orders, 1);
    stale.partitions[0].leader_term = Some(Term(0));
    let error = within(api.fetch(stale)).await.partitions[0].result.clone().expect_err("stale");
    assert_eq!(error.code, ErrorCode::FencedLeaderEpoch);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_broker_knows_its_topics_before_it_hears_from_anyone() {
    let mut rig = Rig::start(1).await;
    let id = within(rig.api(1).create_topic(topic("orders", 2, 1))).await.expect("made").id;
    led_topic(rig.api(1), "orders").await;
    produce(rig.api(1), partition(id, 1), AckMode::Sync, batch(&["a"])).await.expect("kept");
    rig.stop().await;
    rig.boot(2).await;
    assert!(rig.api(1).node().image().topic_named("orders").is_some(), "from the saved image");
    rig.all_serve().await;
    led_topic(rig.api(1), "orders").await;
    assert_eq!(values(rig.api(1), fetch_of(partition(id, 1), 1)).await, ["a"]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_has_not_caught_up_calls_no_topic_unknown() {
    let mut rig = Rig::start(3).await;
    within(rig.api(1).create_topic(topic("orders", 1, 3))).await.expect("made");
    led_topic(rig.api(1), "orders").await;
    rig.stop().await;
    // Alone it finds no leader of the controller, so it cannot catch up.
    rig.boot_only(1, 2).await;
    let named = ["orders", "nowhere"].map(str::to_owned).to_vec();
    let answer = rig.api(1).metadata(MetadataRequest::Topics(named)).await.expect("always");
    assert!(answer.topics[0].result.is_ok(), "from the saved image");
    let error = answer.topics[1].result.clone().expect_err("it cannot know");
    assert_eq!(error.code, ErrorCode::BrokerNotAvailable, "{error}");
    let error = rig.api(1).metadata(MetadataRequest::All).await.expect_err("it cannot know all");
    assert!(error.code.retriable() && error.detail.contains("just started"), "{error}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_knows_of_no_broker_yet_sends_whoever_asks_to_another_one() {
    let mut rig = Rig::start(3).await;
    rig.stop().await;
    rig.forget_image(1);
    rig.boot_only(1, 2).await;
    let asked = rig.api(1).metadata(MetadataRequest::Topics(Vec::new())).await;
    let error = asked.expect_err("no brokers are no answer");
    assert!(error.code.retriable() && error.detail.contains("ask another"), "{error}");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_led_and_deleted_through_any_broker() {
    let mut rig = Rig::start(3).await;
    let made = within(rig.api(3).create_topic(topic("orders", 6, 3))).await.expect("made");
    for node in 1..=3 {
        led_topic(rig.api(node), "orders").await;
    }
    let leader = led_topic(rig.api(1), "orders").await.partitions[0].leader.expect("led").0;
    let first = partition(made.id, 0);
    let receipt = produce(rig.api(leader), first, AckMode::Sync, batch(&["a"])).await;
    assert_eq!(receipt.expect("kept").replicas, 3);
    let other = leader % 3 + 1;
    let error = produce(rig.api(other), first, AckMode::Sync, batch(&["a"])).await;
    let error = error.expect_err("led elsewhere");
    assert_eq!(error.code, ErrorCode::NotLeader);
    assert!(error.detail.contains(&format!("orders-0 is led by broker {leader}")), "{error}");

    // Two brokers are enough for a leader; the third may open its replicas later.
    eventually(async || (rig.topic_dirs(2).len() == 6).then_some(())).await;
    let delete = DeleteTopicRequest { name: "orders".into() };
    within(rig.api(2).delete_topic(delete)).await.expect("it exists");
    for node in 1..=3 {
        eventually(async || rig.topic_dirs(node).is_empty().then_some(())).await;
    }
    let error = produce(rig.api(leader), first, AckMode::Async, batch(&["a"])).await;
    assert_eq!(error.expect_err("deleted").code, ErrorCode::UnknownTopicOrPartition);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_a_vote_learns_the_image_and_hosts_replicas() {
    let mut rig = Rig::start(4).await;
    let made = within(rig.api(4).create_topic(topic("orders", 4, 4))).await.expect("made");
    for node in 1..=4 {
        let detail = led_topic(rig.api(node), "orders").await;
        assert_eq!(detail.id, made.id);
    }
    let metadata = rig.api(4).metadata(MetadataRequest::All).await.expect("always");
    assert_eq!(metadata.brokers.len(), 4);
    assert!(metadata.controller.is_some_and(|controller| controller.0 <= 3));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_goes_on_without_the_broker_that_led_its_controller() {
    let mut rig = Rig::start(3).await;
    let id = within(rig.api(1).create_topic(topic("before", 6, 3))).await.expect("made").id;
    led_topic(rig.api(1), "before").await;
    let metadata = rig.api(1).metadata(MetadataRequest::All).await.expect("always");
    let lost = metadata.controller.expect("it made a topic");
    let left: Vec<u32> = (1..=3).filter(|node| *node != lost.0).collect();
    rig.stop_one(lost).await;

    let begun = Instant::now();
    within(rig.api(left[0]).create_topic(topic("after", 6, 3))).await.expect("two are left");
    let took = begun.elapsed();
    assert!(
        took < Duration::from_millis(2_500),
        "the dead one's answer is not waited for: {took:?}"
    );
    for name in ["before", "after"] {
        eventually(async || {
            let detail = led_topic(rig.api(left[1]), name).await;
            detail.partitions.iter().all(|p| p.leader != Some(lost)).then_some(())
        })
        .await;
    }
    eventually(async || {
        let metadata = rig.api(left[1]).metadata(MetadataRequest::All).await.expect("always");
        metadata.brokers.iter().any(|broker| broker.node == lost && broker.fenced).then_some(())
    })
    .await;
    let error = within(rig.api(left[0]).create_topic(topic("wide", 1, 3))).await;
    assert!(error.expect_err("one is fenced").detail.contains("2 brokers are alive"));
    assert!(rig.api(left[0]).node().image().topic(id).is_some());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controllers_log_stays_short_and_who_comes_late_begins_with_its_image() {
    let mut rig = Rig::start(4).await;
    within(rig.api(1).create_topic(topic("kept", 2, 3))).await.expect("made");
    rig.stop_one(NodeId(4)).await;
    let start_on = |rig: &Rig, node| {
        let reader = rig.api(node).node().routes().cluster().reader();
        reader.map_or(Offset(0), |reader| reader.log_start())
    };
    // Each makes three records; the rig's controller bears 40 more than the image needs.
    for number in 0..60 {
        let name = format!("passing-{number}");
        within(rig.api(1).create_topic(topic(&name, 1, 1))).await.expect("made");
        within(rig.api(1).delete_topic(DeleteTopicRequest { name })).await.expect("deleted");
    }
    for node in 1..=3 {
        eventually(async || (start_on(&rig, node) > Offset(60)).then_some(())).await;
    }
    rig.stop().await;
    rig.forget_image(2);
    rig.boot(2).await;
    rig.all_serve().await;
    for node in 1..=4 {
        let api = rig.api(node);
        let names: Vec<String> = eventually(async || {
            let image = api.node().image();
            let same = *image == *rig.api(1).node().image();
            same.then(|| image.topics().map(|topic| topic.name.to_string()).collect())
        })
        .await;
        assert_eq!(names, ["kept"], "on broker {node}");
        assert!(start_on(&rig, node) > Offset(60), "on broker {node}");
    }
    rig.stop().await;
}
