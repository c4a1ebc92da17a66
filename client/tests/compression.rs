//! Packed batches from a producer to a reader, against a cluster that stores them as they came.

mod fake;

use std::time::Duration;

use fake::Cluster;
use highwater_client::{Client, Compression, ProducerConfig, ReaderConfig, Record, StartAt};

fn value(number: usize) -> String {
    format!("{number:04}-{}", "the same again ".repeat(20))
}

/// Writes records to partition 0 in batches of some KiB.
async fn write(client: &Client, config: ProducerConfig, numbers: std::ops::Range<usize>) {
    let producer = client.producer(config.batch_bytes_max(4000));
    for number in numbers {
        let record = Record::to("t").partition(0).value(value(number));
        drop(producer.send(record).await.expect("taken"));
    }
    let report = producer.close(Duration::from_secs(10)).await.expect("settled");
    assert_eq!((report.failed, report.first_error.map(|error| error.to_string())), (0, None));
}

async fn read(client: &Client) -> Vec<String> {
    let config = ReaderConfig::new("t", StartAt::Start).until_end();
    let mut reader = client.reader(config).await.expect("placed");
    let mut values = Vec::new();
    while let Some(batch) = reader.next_batch().await.expect("readable") {
        for record in &batch {
            assert_eq!(record.offset.0, values.len() as u64);
            values.push(String::from_utf8_lossy(record.value.expect("a value")).into_owned());
        }
    }
    values
}

fn values(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(value).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_no_difference_between_the_codecs() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    for (at, codec) in Compression::ALL.into_iter().enumerate() {
        let before = cluster.codecs(0).len();
        let config = ProducerConfig::default().compression(codec);
        write(&client, config, at * 100..(at + 1) * 100).await;
        let codecs = &cluster.codecs(0)[before..];
        assert!(codecs.iter().all(|used| *used == codec), "{codec}: {codecs:?}");
    }
    assert_eq!(read(&client).await, values(0..500));
}

#[tokio::test(flavor = "multi_thread")]
async fn lz4_is_what_a_producer_uses_unless_its_profile_or_its_config_says_otherwise() {
    let cluster = Cluster::start(1, 1).await;
    write(&cluster.client().await, ProducerConfig::default(), 0..20).await;
    assert!(cluster.codecs(0).iter().all(|codec| *codec == Compression::Lz4));
    let mut config = cluster.config();
    config.compression = Some(Compression::Gzip);
    let client = Client::connect(config).await.expect("the fake cluster is up");
    write(&client, ProducerConfig::default(), 20..40).await;
    assert_eq!(cluster.codecs(0).last(), Some(&Compression::Gzip));
    assert_eq!(read(&client).await, values(0..40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topics_own_codec_has_the_last_word() {
    let cluster = Cluster::start(1, 1).await;
    cluster.want_codec(Some(Compression::Zstd), Some(Compression::Zstd));
    let client = cluster.client().await;
    let config = ProducerConfig::default().compression(Compression::Snappy);
    write(&client, config, 0..100).await;
    assert!(cluster.codecs(0).iter().all(|codec| *codec == Compression::Zstd));
    assert_eq!(read(&client).await, values(0..100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codec_changed_under_a_producer_costs_no_record_and_no_error() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    // Metadata go on saying that the producer may choose.
    cluster.want_codec(None, Some(Compression::Zstd));
    write(&client, ProducerConfig::default(), 0..100).await;
    assert!(cluster.codecs(0).iter().all(|codec| *codec == Compression::None));
    assert_eq!(read(&client).await, values(0..100));
}
