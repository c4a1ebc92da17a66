//! The reader against a cluster that fails on command: no gap, no repeat, whatever happens.

mod fake;

use std::time::Duration;

use fake::Cluster;
use futures_util::StreamExt;
use highwater_client::{
    Client, ErrorKind, Offset, OutOfRange, PartitionId, ProducerConfig, Reader, ReaderConfig,
    Record, StartAt,
};

async fn fill(client: &Client, partition: u32, values: std::ops::Range<usize>) {
    let config = ProducerConfig::default().batch_bytes_max(300);
    let producer = client.producer(config);
    for number in values {
        let record = Record::to("t").partition(partition).value(number.to_string());
        drop(producer.send(record).await.expect("taken"));
    }
    let report = producer.close(Duration::from_secs(10)).await.expect("written");
    assert_eq!(report.failed, 0);
}

/// Reads until `records` have come, and checks that offsets neither skip nor go back.
async fn read(reader: &mut Reader, records: usize) -> Vec<String> {
    let mut values = Vec::new();
    let mut next: Vec<(PartitionId, Offset)> = reader.positions();
    while values.len() < records {
        let batch = reader.next_batch().await.expect("no error").expect("more to come");
        let place = next.iter_mut().find(|(number, _)| *number == batch.partition);
        let (_, expected) = place.expect("an assigned partition");
        for record in &batch {
            assert_eq!(record.offset, *expected);
            *expected = expected.advance(1);
            let value = record.value.expect("tests send values");
            values.push(String::from_utf8(value.to_vec()).expect("text"));
        }
    }
    values
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn until_end_reads_every_partition_to_its_end_and_stops() {
    let cluster = Cluster::start(2, 3).await;
    let client = cluster.client().await;
    for partition in 0..2 {
        fill(&client, partition, 0..200).await;
    }
    let config = ReaderConfig::new("t", StartAt::Start).until_end();
    let mut reader = client.reader(config).await.expect("placed");
    let values = read(&mut reader, 400).await;
    assert_eq!(values.len(), 400);
    assert!(reader.next_batch().await.expect("no error").is_none());
    let ends: Vec<u64> = reader.positions().iter().map(|(_, offset)| offset.0).collect();
    assert_eq!(ends, [200, 200, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_within_a_batch_is_exact() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    fill(&client, 0, 0..100).await;
    let config = ReaderConfig::new("t", StartAt::Offset(Offset(37))).until_end();
    let mut reader = client.reader(config).await.expect("placed");
    assert_eq!(read(&mut reader, 63).await, numbers(37..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_where_new_records_come() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    fill(&client, 0, 0..10).await;
    let mut reader = client.reader(ReaderConfig::new("t", StartAt::End)).await.expect("placed");
    fill(&client, 0, 10..20).await;
    assert_eq!(read(&mut reader, 10).await, numbers(10..20));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_record_is_one_or_none() {
    let cluster = Cluster::start(1, 2).await;
    let client = cluster.client().await;
    fill(&client, 1, 0..10).await;
    let config = ReaderConfig::new("t", StartAt::Last).until_end();
    let mut reader = client.reader(config).await.expect("placed");
    let batch = reader.next_batch().await.expect("no error").expect("there is one");
    assert_eq!(
        (batch.partition, batch.first_offset(), batch.len()),
        (PartitionId(1), Offset(9), 1)
    );
    assert!(reader.next_batch().await.expect("no error").is_none());
    let ends: Vec<u64> = reader.positions().iter().map(|(_, offset)| offset.0).collect();
    assert_eq!(ends, [0, 10], "where to append");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_over_moves_and_dead_leaders_without_gap_or_repeat() {
    let cluster = Cluster::start(3, 1).await;
    let client = cluster.client().await;
    let mut reader = client.reader(ReaderConfig::new("t", StartAt::Start)).await.expect("placed");
    fill(&client, 0, 0..100).await;
    assert_eq!(read(&mut reader, 100).await, numbers(0..100));
    cluster.move_leader(0, 2);
    fill(&client, 0, 100..200).await;
    assert_eq!(read(&mut reader, 100).await, numbers(100..200));
    cluster.silence(2);
    cluster.move_leader(0, 3);
    fill(&client, 0, 200..300).await;
    assert_eq!(read(&mut reader, 100).await, numbers(200..300));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_leader_is_left_out_where_the_others_have_nothing_to_read() {
    let cluster = Cluster::start(6, 6).await;
    let client = cluster.client().await;
    let mut reader = client.reader(ReaderConfig::new("t", StartAt::End)).await.expect("placed");
    for partition in (0..6).rev() {
        fill(&client, partition, 0..10).await;
        let read = read(&mut reader, 10);
        let values = tokio::time::timeout(Duration::from_secs(10), read).await;
        assert_eq!(values.expect("its leader is asked"), numbers(0..10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prefetch_is_bounded_and_nothing_is_lost_by_it() {
    let cluster = Cluster::start(1, 2).await;
    let client = cluster.client().await;
    for partition in 0..2 {
        fill(&client, partition, 0..500).await;
    }
    let mut config = ReaderConfig::new("t", StartAt::Start).until_end();
    config.prefetch_bytes_max = 1_000;
    config.fetch_bytes_max = 600;
    let mut reader = client.reader(config).await.expect("placed");
    assert_eq!(read(&mut reader, 1000).await.len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_before_the_log_is_an_error_or_goes_on_as_told() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    fill(&client, 0, 0..100).await;
    cluster.shared.lock().partition("t", 0).log.start = Offset(40);
    let config = ReaderConfig::new("t", StartAt::Offset(Offset(10))).until_end();
    let mut reader = client.reader(config.clone()).await.expect("placed");
    let error = reader.next_batch().await.expect_err("gone");
    assert!(matches!(error.kind(), ErrorKind::Refused(_)), "{error}");
    assert!(error.to_string().contains("t/0 at offset 10"), "{error}");
    assert!(reader.next_batch().await.expect("no more").is_none(), "the partition has ended");

    let config = config.out_of_range(OutOfRange::Start);
    let mut reader = client.reader(config).await.expect("placed");
    let batch = reader.next_batch().await.expect("no error").expect("records");
    assert_eq!(batch.first_offset(), Offset(40));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_next_batch_loses_nothing() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let mut reader = client.reader(ReaderConfig::new("t", StartAt::Start)).await.expect("placed");
    let moment = Duration::from_millis(20);
    tokio::time::timeout(moment, reader.next_batch()).await.expect_err("there is nothing yet");
    fill(&client, 0, 0..50).await;
    assert_eq!(read(&mut reader, 50).await, numbers(0..50));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_ends_after_the_last_batch() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    fill(&client, 0, 0..60).await;
    let config = ReaderConfig::new("t", StartAt::Start).until_end();
    let stream = client.reader(config).await.expect("placed").into_stream();
    let lens: Vec<usize> = stream.map(|batch| batch.expect("no error").len()).collect().await;
    assert_eq!(lens.iter().sum::<usize>(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_is_named_soon() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let reading = client.reader(ReaderConfig::new("nowhere", StartAt::Start));
    let error = reading.await.expect_err("no such topic");
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
}
