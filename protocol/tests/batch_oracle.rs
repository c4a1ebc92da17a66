//! Our batches against those of the `kafka-protocol` crate: each reads what the other wrote.

use bytes::{Bytes, BytesMut};
use highwater_protocol::batch::{BatchBuilder, BatchView, BuilderOptions, Header, ProducerStamp};
use highwater_protocol::ids::{ProducerEpoch, ProducerId, Timestamp};
use indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Plain {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Nulls, nothing, a few bytes, and enough that lengths take two and three bytes on the wire.
fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(prop_oneof![
        8 => vec(any::<u8>(), 0..200),
        1 => (any::<u8>(), 8_000..20_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ])
}

/// Today, before 1970, and as far apart as two deltas can say without overflow.
fn timestamp() -> impl Strategy<Value = i64> {
    prop_oneof![0..4_000_000_000_000_i64, -5_000..5_000_i64, i64::MIN / 2..i64::MAX / 2]
}

fn plain() -> impl Strategy<Value = Plain> {
    (timestamp(), bytes(), bytes(), vec(("[a-c]{0,3}", bytes()), 0..4))
        .prop_map(|(timestamp, key, value, headers)| Plain { timestamp, key, value, headers })
}

fn ours(records: &[Plain], producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new(BuilderOptions { producer, ..BuilderOptions::default() });
    for record in records {
        let headers: Vec<Header<'_>> = record
            .headers
            .iter()
            .map(|(name, value)| Header { name: name.as_bytes(), value: value.as_deref() })
            .collect();
        let before = builder.bytes();
        let bound =
            BatchBuilder::bytes_for(record.key.as_deref(), record.value.as_deref(), &headers);
        let after = builder.push(
            Timestamp(record.timestamp),
            record.key.as_deref(),
            record.value.as_deref(),
            &headers,
        );
        assert!(after - before <= bound, "a record takes no more than announced");
    }
    builder.finish()
}

fn read_back(batch: &[u8]) -> Vec<Plain> {
    let view = BatchView::parse(batch).expect("a whole batch");
    view.verify_checksum().expect("the right checksum");
    let records = view.records().expect("unpacked records");
    records
        .map(|record| {
            let record = record.expect("a sound record");
            Plain {
                timestamp: record.timestamp.0,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers()
                    .map(|header| {
                        let name = String::from_utf8(header.name.to_vec()).expect("a name we made");
                        (name, header.value.map(<[u8]>::to_vec))
                    })
                    .collect(),
            }
        })
        .collect()
}

/// The oracle keeps headers in a map, so only the last of a repeated name survives there.
fn without_repeated_headers(record: &Plain) -> Plain {
    let mut headers: IndexMap<String, Option<Vec<u8>>> = IndexMap::new();
    for (name, value) in &record.headers {
        headers.insert(name.clone(), value.clone());
    }
    Plain { headers: headers.into_iter().collect(), ..record.clone() }
}

proptest! {
    #[test]
    fn we_read_back_what_we_wrote(records in vec(plain(), 1..20)) {
        prop_assert_eq!(read_back(&ours(&records, None)), records);
    }

    #[test]
    fn any_timestamps_come_back(times in vec(any::<i64>(), 1..10)) {
        let records: Vec<Plain> = times.iter().map(|time| bare(*time)).collect();
        let batch = ours(&records, None);
        let view = BatchView::parse(&batch).expect("a whole batch");
        prop_assert_eq!(Some(view.header().max_timestamp.0), times.into_iter().max());
        prop_assert_eq!(read_back(&batch), records);
    }

    #[test]
    fn the_oracle_reads_what_we_wrote(records in vec(plain(), 1..20), id in 0..i64::MAX, epoch in 0..i16::MAX) {
        let producer = ProducerStamp {
            id: ProducerId(id as u64), epoch: ProducerEpoch(epoch as u16), base_sequence: 7,
        };
        let mut batch = ours(&records, Some(producer));
        let set = RecordBatchDecoder::decode(&mut batch).expect("the oracle accepts our batch");
        prop_assert_eq!(set.records.len(), records.len());
        for (at, (read, wrote)) in set.records.iter().zip(&records).enumerate() {
            prop_assert_eq!(read.offset, at as i64);
            prop_assert_eq!(read.timestamp, wrote.timestamp);
            prop_assert_eq!((read.producer_id, read.producer_epoch), (id, epoch));
            prop_assert_eq!(read.key.as_deref(), wrote.key.as_deref());
            prop_assert_eq!(read.value.as_deref(), wrote.value.as_deref());
            let expected = without_repeated_headers(wrote).headers;
            let headers: Vec<_> = read.headers.iter()
                .map(|(name, value)| (name.to_string(), value.as_ref().map(|value| value.to_vec())))
                .collect();
            prop_assert_eq!(headers, expected);
        }
    }

    #[test]
    fn we_read_what_the_oracle_wrote(records in vec(plain(), 1..20)) {
        let records: Vec<Plain> = records.iter().map(without_repeated_headers).collect();
        let theirs: Vec<Record> = records.iter().enumerate().map(|(at, record)| Record {
            transactional: false, control: false, delete_horizon: false, partition_leader_epoch: -1,
            producer_id: -1, producer_epoch: -1, timestamp_type: TimestampType::Creation,
            offset: at as i64, sequence: at as i32 - 1, timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from), value: record.value.clone().map(Bytes::from),
            headers: record.headers.iter().map(|(name, value)| {
                (StrBytes::from_string(name.clone()), value.clone().map(Bytes::from))
            }).collect(),
        }).collect();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        let mut buffer = BytesMut::new();
        RecordBatchEncoder::encode(&mut buffer, &theirs, &options).expect("the oracle writes a batch");
        prop_assert_eq!(read_back(&buffer), records);
    }

    #[test]
    fn a_flipped_bit_behind_the_header_is_noticed(records in vec(plain(), 1..5), at: prop::sample::Index, bit in 0..8) {
        let mut batch = ours(&records, None).to_vec();
        let at = 21 + at.index(batch.len() - 21);
        batch[at] ^= 1_u8 << bit;
        let noticed = match BatchView::parse(&batch) {
            Ok(view) => view.verify_checksum().is_err(),
            Err(_) => true,
        };
        prop_assert!(noticed);
    }
}

#[test]
fn repeated_header_names_are_kept_in_order() {
    let headers = vec![
        ("a".to_string(), Some(vec![1])),
        ("a".to_string(), None),
        ("a".to_string(), Some(vec![])),
    ];
    let record = Plain { timestamp: 5, key: None, value: None, headers };
    assert_eq!(read_back(&ours(std::slice::from_ref(&record), None)), vec![record]);
}

#[test]
fn thousands_of_records_fit_one_batch_for_us_and_for_the_oracle() {
    let records: Vec<Plain> = (0..20_000).map(bare).collect();
    let mut batch = ours(&records, None);
    assert_eq!(read_back(&batch), records);
    let set = RecordBatchDecoder::decode(&mut batch).expect("the oracle accepts our batch");
    let offsets: Vec<i64> = set.records.iter().map(|record| record.offset).collect();
    assert!(offsets.into_iter().eq(0..20_000));
}

/// A record of the fewest bytes there can be.
fn bare(timestamp: i64) -> Plain {
    Plain { timestamp, key: None, value: None, headers: Vec::new() }
}
