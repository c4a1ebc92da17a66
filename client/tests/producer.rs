//! The producer against a cluster that fails on command: order, exactly once, bounds, ends.

mod fake;

use std::time::{Duration, Instant};

use fake::{Cluster, Fault};
use highwater_client::{
    AckMode, Delivery, ErrorKind, Outcome, Producer, ProducerConfig, Record, partition_for_key,
};
use highwater_protocol::error::ErrorCode;

/// Small batches, so that few records make many of them.
fn small_batches() -> ProducerConfig {
    ProducerConfig::default().batch_bytes_max(200).linger(Duration::from_millis(1))
}

fn value(number: usize) -> String {
    format!("value-{number:05}")
}

async fn send_many(producer: &Producer, records: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in 0..records {
        let record = Record::to("t").partition(0).value(value(number));
        deliveries.push(producer.send(record).await.expect("taken"));
    }
    deliveries
}

/// Sends records to partition 0 while `script` decides, and expects each once and in order.
async fn check_exactly_once(script: impl FnMut(usize) -> Fault + Send + 'static) {
    let cluster = Cluster::start(2, 1).await;
    let (mut script, mut count) = (script, 0);
    cluster.script(move |_| {
        count += 1;
        script(count)
    });
    let client = cluster.client().await;
    let producer = client.producer(small_batches());
    let deliveries = send_many(&producer, 300).await;
    for (number, delivery) in deliveries.into_iter().enumerate() {
        let done = delivery.await.expect("written in the end");
        assert_eq!(done.offset.0, number as u64, "the receipt names the true place");
    }
    let expected: Vec<String> = (0..300).map(value).collect();
    assert_eq!(cluster.values(0), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_faults_every_record_is_written_once_and_in_order() {
    check_exactly_once(|_| Fault::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_neither_repeat_nor_reorder() {
    check_exactly_once(|count| match count % 11 {
        5 => Fault::WriteAndCut,
        9 => Fault::Cut,
        _ => Fault::None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_that_pass_neither_repeat_nor_reorder() {
    check_exactly_once(|count| match count % 7 {
        2 => Fault::Refuse(ErrorCode::Overloaded),
        4 => Fault::Refuse(ErrorCode::NotEnoughReplicas),
        _ => Fault::None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_never_come_are_asked_for_again_after_a_move_of_the_leader() {
    let cluster = Cluster::start(2, 1).await;
    let mut count = 0;
    cluster.script(move |_| {
        count += 1;
        if count == 3 { Fault::DropAnswer } else { Fault::None }
    });
    let client = cluster.client().await;
    let producer = client.producer(small_batches());
    let deliveries = send_many(&producer, 100).await;
    cluster.move_leader(0, 2);
    for delivery in deliveries {
        delivery.await.expect("written in the end");
    }
    assert_eq!(cluster.values(0), (0..100).map(value).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_left_for_the_new_one_in_well_under_a_second() {
    let cluster = Cluster::start(3, 1).await;
    let client = cluster.client().await;
    let producer = client.producer(small_batches());
    let record = |number| Record::to("t").value(value(number));
    producer.send_and_wait(record(0)).await.expect("written");
    cluster.silence(1);
    cluster.move_leader(0, 2);
    let begun = Instant::now();
    producer.send_and_wait(record(1)).await.expect("written by the new leader");
    let gap = begun.elapsed();
    assert!(gap < Duration::from_millis(1500), "the client clung to a dead leader for {gap:?}");
    assert_eq!(cluster.values(0), [value(0), value(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_leaders_under_load_lose_and_repeat_nothing() {
    let cluster = Cluster::start(3, 1).await;
    let client = cluster.client().await;
    let producer = client.producer(small_batches());
    let mut deliveries = Vec::new();
    for round in 0..10 {
        for number in 0..50 {
            let record = Record::to("t").partition(0).value(value(round * 50 + number));
            deliveries.push(producer.send(record).await.expect("taken"));
        }
        cluster.move_leader(0, 1 + (round as u32 + 1) % 3);
    }
    for delivery in deliveries {
        delivery.await.expect("written in the end");
    }
    assert_eq!(cluster.values(0), (0..500).map(value).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_acknowledged_tail_was_lost_the_producer_goes_on_in_a_new_epoch() {
    let cluster = Cluster::start(2, 1).await;
    let client = cluster.client().await;
    let producer = client.producer(small_batches().acks(AckMode::Async));
    for number in 0..3 {
        let record = Record::to("t").value(value(number));
        producer.send_and_wait(record).await.expect("acknowledged");
    }
    cluster.shared.lock().partition("t", 0).log.lose_tail(1);
    cluster.move_leader(0, 2);
    producer.send_and_wait(Record::to("t").value(value(3))).await.expect("written");
    assert_eq!(cluster.values(0), [value(0), value(1), value(3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_refusal_fails_its_own_batch_only() {
    let cluster = Cluster::start(1, 1).await;
    let mut count = 0;
    cluster.script(move |_| {
        count += 1;
        if count == 2 { Fault::Refuse(ErrorCode::BatchTooLarge) } else { Fault::None }
    });
    let client = cluster.client().await;
    // One record per batch.
    let producer = client.producer(ProducerConfig::default().batch_bytes_max(1));
    let deliveries = send_many(&producer, 20).await;
    let mut failed = Vec::new();
    for (number, delivery) in deliveries.into_iter().enumerate() {
        if let Err(error) = delivery.await {
            assert_eq!(error.code(), Some(ErrorCode::BatchTooLarge));
            assert_eq!(error.outcome(), Outcome::NotWritten);
            failed.push(number);
        }
    }
    assert_eq!(failed.len(), 1);
    let expected: Vec<String> = (0..20).filter(|n| !failed.contains(n)).map(value).collect();
    assert_eq!(cluster.values(0), expected);
    let report = producer.flush().await;
    assert_eq!((report.acked, report.failed), (19, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_delivery_timeout_the_outcome_tells_unsent_from_unsure() {
    let cluster = Cluster::start(1, 2).await;
    cluster.script(|request| match request.partition.partition.0 {
        0 => Fault::Refuse(ErrorCode::Overloaded),
        _ => Fault::Swallow,
    });
    let client = cluster.client().await;
    let config = small_batches().delivery_timeout(Duration::from_millis(600));
    let producer = client.producer(config);
    let send = |partition| Record::to("t").partition(partition).value("x");
    let refused = producer.send(send(0)).await.expect("taken");
    let swallowed = producer.send(send(1)).await.expect("taken");
    let refused = refused.await.expect_err("never accepted");
    assert_eq!((refused.kind(), refused.outcome()), (ErrorKind::TimedOut, Outcome::NotWritten));
    assert!(refused.to_string().contains("OVERLOADED"), "{refused}");
    let swallowed = swallowed.await.expect_err("never answered");
    assert_eq!(swallowed.outcome(), Outcome::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_makes_send_wait_and_try_send_refuse() {
    let cluster = Cluster::start(1, 1).await;
    cluster.script(|_| Fault::Refuse(ErrorCode::Overloaded));
    let client = cluster.client().await;
    let producer = client.producer(small_batches().buffer_bytes_max(2_000));
    let record = || Record::to("t").partition(0).value(vec![b'x'; 500]);
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        deliveries.push(producer.send(record()).await.expect("there is space"));
    }
    let full = producer.try_send(record()).expect_err("there is none");
    assert_eq!(full.error.kind(), ErrorKind::BufferFull);
    assert!(full.error.retriable());
    let waiting = producer.send(*full.record);
    tokio::pin!(waiting);
    let moment = Duration::from_millis(50);
    tokio::time::timeout(moment, &mut waiting).await.expect_err("no space until one is through");
    cluster.script(|_| Fault::None);
    deliveries.push(waiting.await.expect("space came free"));
    for delivery in deliveries {
        delivery.await.expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_sends_at_once_what_would_linger_and_counts_it() {
    let cluster = Cluster::start(2, 4).await;
    let client = cluster.client().await;
    let producer = client.producer(ProducerConfig::default().linger(Duration::from_secs(60)));
    for number in 0..40 {
        // Nobody looks at the deliveries: the report must.
        drop(producer.send(Record::to("t").key(value(number)).value("v")).await.expect("taken"));
    }
    let report = producer.flush().await;
    assert_eq!((report.acked, report.failed), (40, 0));
    let again = producer.flush().await;
    assert_eq!(again.acked, 0, "each record is reported once");
}

#[tokio::test(flavor = "multi_thread")]
async fn close_flushes_refuses_what_comes_later_and_gives_up_in_time() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let producer = client.producer(ProducerConfig::default().linger(Duration::from_secs(60)));
    let delivery = producer.send(Record::to("t").value("v")).await.expect("taken");
    let report = producer.close(Duration::from_secs(10)).await.expect("through");
    assert_eq!(report.acked, 1);
    delivery.await.expect("written");
    let refused = producer.send(Record::to("t").value("w")).await.expect_err("closed");
    assert_eq!(refused.kind(), ErrorKind::Closed);

    cluster.script(|_| Fault::Swallow);
    let stuck = client.producer(ProducerConfig::default());
    let delivery = stuck.send(Record::to("t").value("v")).await.expect("taken");
    let error = stuck.close(Duration::from_millis(300)).await.expect_err("nobody answers");
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::TimedOut, Outcome::Unknown));
    assert_eq!(delivery.await.expect_err("given up").outcome(), Outcome::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_producer_still_sends_what_it_took() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let producer = client.producer(ProducerConfig::default().linger(Duration::from_secs(60)));
    let delivery = producer.send(Record::to("t").value("last words")).await.expect("taken");
    drop(producer);
    delivery.await.expect("written");
    assert_eq!(cluster.values(0), ["last words"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_where_murmur2_says_and_keyless_records_fill_batches() {
    let cluster = Cluster::start(1, 6).await;
    let client = cluster.client().await;
    let producer = client.producer(ProducerConfig::default());
    let done = producer.send_and_wait(Record::to("t").key("foobar").value("v")).await;
    assert_eq!(done.expect("written").partition, partition_for_key(b"foobar", 6));

    let before = cluster.shared.lock().produced;
    let producer = client.producer(ProducerConfig::default().batch_bytes_max(10_000));
    for _ in 0..300 {
        drop(producer.send(Record::to("t").value(vec![b'x'; 76])).await.expect("taken"));
    }
    producer.flush().await;
    let batches = cluster.shared.lock().produced - before;
    assert!((3..=5).contains(&batches), "30 kB in batches of 10 kB made {batches}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_with_another_ack_mode_travels_in_its_own_batch_and_keeps_its_place() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let producer = client.producer(ProducerConfig::default().linger(Duration::from_secs(60)));
    let modes = [None, None, Some(AckMode::Sync), None];
    for (number, acks) in modes.into_iter().enumerate() {
        let mut record = Record::to("t").value(value(number));
        record.acks = acks;
        drop(producer.send(record).await.expect("taken"));
    }
    producer.flush().await;
    assert_eq!(cluster.values(0), (0..4).map(value).collect::<Vec<_>>());
    assert_eq!(cluster.shared.lock().partition("t", 0).log.batches(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_topics_and_partitions_and_huge_records_are_named() {
    let cluster = Cluster::start(1, 2).await;
    let client = cluster.client().await;
    let producer = client.producer(ProducerConfig::default());
    let error = producer.send(Record::to("nowhere").value("v")).await.expect_err("no topic");
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    assert!(error.to_string().contains("nowhere"), "{error}");
    let error = producer.send(Record::to("t").partition(2).value("v")).await.expect_err("two");
    assert!(error.to_string().contains("partitions 0 to 1"), "{error}");
    let huge = Record::to("t").value(vec![0; 20 << 20]);
    let error = producer.send(huge).await.expect_err("too large");
    assert_eq!((error.kind(), error.retriable()), (ErrorKind::RecordTooLarge, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_another_cluster_or_with_another_id_is_not_talked_to() {
    let cluster = Cluster::start(1, 1).await;
    let stranger = fake::Pki::new("another-cluster");
    let mut config = cluster.config();
    config.tls = stranger.client("tester");
    let error = highwater_client::Client::connect(config).await.err().expect("not ours");
    assert_eq!(error.kind(), ErrorKind::Identity, "{error}");

    // Metadata claims that node 7 listens where node 1 does.
    let client = cluster.client().await;
    cluster.claim(7, 1);
    cluster.move_leader(0, 7);
    let config = ProducerConfig::default().delivery_timeout(Duration::from_millis(400));
    let producer = client.producer(config);
    let error = producer.send_and_wait(Record::to("t").value("v")).await.expect_err("not node 7");
    assert!(error.to_string().contains("expected node 7"), "{error}");
    assert_eq!(error.outcome(), Outcome::NotWritten);
}
