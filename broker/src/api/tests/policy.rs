//! What topics say of batches, on one broker: codecs and clocks, changed while in use.

use highwater_protocol::batch::{
    BatchBuilder, BatchView, BuilderOptions, Compression, ProducerStamp, frames,
};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{
    Offset, ProducerEpoch, ProducerId, Timestamp, TopicId, TopicPartition,
};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::alter::AlterTopicRequest;
use highwater_protocol::native::fetch::{ListOffsetsRequest, OffsetAt};
use highwater_protocol::native::produce::{AckMode, Receipt};

use super::rig::{Rig, eventually, fetch_of, led_topic, partition, produce, topic, within};
use crate::api::{Api, policy};

/// A batch of records of these times, as producer 7 sends it from a sequence on.
fn batch(times: &[i64], compression: Compression, base_sequence: u32) -> bytes::Bytes {
    let (id, epoch) = (ProducerId(7), ProducerEpoch(0));
    let producer = Some(ProducerStamp { id, epoch, base_sequence });
    let options = BuilderOptions { producer, compression, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for time in times {
        builder.push(Timestamp(*time), None, Some(&[7; 400]), &[]);
    }
    builder.finish()
}

async fn sent(api: &Api, to: TopicPartition, batch: bytes::Bytes) -> Result<Receipt, WireError> {
    produce(api, to, AckMode::Sync, batch).await
}

async fn alter(api: &Api, id: TopicId, name: &str, value: &str) {
    let set = vec![(name.to_string(), value.to_string())];
    let (unset, dry_run) = (Vec::new(), DryRun::No);
    let request = AlterTopicRequest { name: "orders".into(), set, unset, dry_run };
    within(api.alter_topic(request)).await.expect("a setting of topics");
    eventually(async || {
        let image = api.node().image();
        let configs = &image.topic(id).expect("made before").configs;
        configs.iter().any(|(known, held)| known == name && held == value).then_some(())
    })
    .await;
}

async fn stored(api: &Api, from: TopicPartition) -> Vec<(Compression, Vec<Timestamp>)> {
    let response = within(api.fetch(fetch_of(from, 1))).await;
    let fetched = response.partitions.into_iter().next().expect("one was asked for");
    let mut found = Vec::new();
    for slice in fetched.result.expect("this broker leads the partition").records {
        for frame in frames(&slice) {
            let (header, bytes) = frame.expect("whole batches");
            let view = BatchView::parse(bytes).expect("a data batch");
            view.verify_checksum().expect("whoever wrote it last sealed it");
            let plain = view.unpacked(1 << 20).expect("it unpacks");
            let view = plain.as_ref().map_or(view, |it| BatchView::parse(it).expect("a batch"));
            let records = view.records().expect("plain now");
            let times = records.map(|record| record.expect("sound").timestamp).collect();
            found.push((header.compression().expect("one that there is"), times));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_stored_as_they_came_or_refused_by_the_topics_codec() {
    let mut rig = Rig::start(1).await;
    let api = rig.api(1);
    let id = within(api.create_topic(topic("orders", 1, 1))).await.expect("made").id;
    led_topic(api, "orders").await;
    let (orders, mut sequence) = (partition(id, 0), 0);
    for codec in Compression::ALL {
        sent(api, orders, batch(&[5, 6], codec, sequence)).await.expect("producers choose");
        sequence += 2;
    }
    let codecs: Vec<_> = stored(api, orders).await.into_iter().map(|(codec, _)| codec).collect();
    assert_eq!(codecs, Compression::ALL);

    alter(api, id, "compression.type", "zstd").await;
    assert_eq!(led_topic(api, "orders").await.codec, Some(Compression::Zstd), "clients learn it");
    let packed = batch(&[7, 8], Compression::Lz4, sequence);
    let error = sent(api, orders, packed).await.expect_err("another codec");
    assert_eq!(error.code, ErrorCode::UnsupportedCompression);
    for words in ["orders-0", "lz4", "zstd", "nothing was written"] {
        assert!(error.detail.contains(words), "{error}");
    }
    for codec in [Compression::Zstd, Compression::None] {
        sent(api, orders, batch(&[7, 8], codec, sequence)).await.expect("its own codec, or none");
        sequence += 2;
    }
    // Written as LZ4 before the topic changed, its answer lost, sent again without: a repeat.
    let again = sent(api, orders, batch(&[5, 6], Compression::None, 6)).await.expect("known");
    assert_eq!(again.base_offset, Offset(6));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_is_found_to_the_record_in_packed_batches_too() {
    let mut rig = Rig::start(1).await;
    let api = rig.api(1);
    let id = within(api.create_topic(topic("orders", 1, 1))).await.expect("made").id;
    led_topic(api, "orders").await;
    let orders = partition(id, 0);
    for (number, codec) in (0..).zip(Compression::ALL) {
        let times = [number * 100, number * 100 + 10, number * 100 + 20];
        sent(api, orders, batch(&times, codec, number as u32 * 3)).await.expect("kept");
    }
    for (time, offset) in [(0, 0), (10, 1), (105, 4), (220, 8), (301, 10), (411, 14)] {
        let request = ListOffsetsRequest { partition: orders, at: OffsetAt::Time(Timestamp(time)) };
        let found = within(api.list_offsets(request)).await.expect("led here");
        assert_eq!(found.offset, Offset(offset), "{time}");
    }
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_goes_by_its_leaders_clock_from_the_moment_that_it_is_told_to() {
    let mut rig = Rig::start(1).await;
    let api = rig.api(1);
    let id = within(api.create_topic(topic("orders", 1, 1))).await.expect("made").id;
    led_topic(api, "orders").await;
    let orders = partition(id, 0);
    let wild = policy::wall_clock().0 + 2 * 3_600_000;
    let error = sent(api, orders, batch(&[5, wild], Compression::None, 0)).await;
    let error = error.expect_err("two hours ahead");
    assert_eq!(error.code, ErrorCode::InvalidTimestamp);
    assert!(
        error.detail.contains(&wild.to_string()) && error.detail.contains("3600000"),
        "{error}"
    );
    let created = sent(api, orders, batch(&[5, 6], Compression::None, 0)).await.expect("kept");
    assert_eq!(created.log_append_time, None);

    alter(api, id, "message.timestamp.type", "LogAppendTime").await;
    let before = policy::wall_clock();
    let first = batch(&[5, wild], Compression::Zstd, 2);
    let receipt = sent(api, orders, first.clone()).await.expect("whatever its times");
    let stamped = receipt.log_append_time.expect("the receipt says when");
    assert!(before <= stamped && stamped <= policy::wall_clock());
    let again = sent(api, orders, first).await.expect("a repeat");
    assert_eq!((again.base_offset, again.log_append_time), (Offset(2), Some(stamped)));
    let times: Vec<_> = stored(api, orders).await.into_iter().map(|(_, times)| times).collect();
    assert_eq!(times, [vec![Timestamp(5), Timestamp(6)], vec![stamped, stamped]]);
    let request = ListOffsetsRequest { partition: orders, at: OffsetAt::Time(before) };
    assert_eq!(within(api.list_offsets(request)).await.expect("led here").offset, Offset(2));

    alter(api, id, "message.timestamp.type", "CreateTime").await;
    alter(api, id, "message.timestamp.before.max.ms", "60000").await;
    let error = sent(api, orders, batch(&[5], Compression::None, 4)).await.expect_err("1970");
    assert!(error.detail.contains("`message.timestamp.before.max.ms` is 60000"), "{error}");
    rig.stop().await;
}
