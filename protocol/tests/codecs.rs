//! Packed batches: against the `kafka-protocol` crate, whose LZ4 and Zstandard are the C libraries
//! that Java's clients call too, and against whatever bytes a stranger may send.

use bytes::{Bytes, BytesMut};
use highwater_protocol::batch::{
    BatchBuilder, BatchError, BatchView, BuilderOptions, Compression, HEADER_BYTES,
    UNPACKED_BYTES_MAX, crc32c,
};
use highwater_protocol::ids::Timestamp;
use indexmap::IndexMap;
use kafka_protocol::records::{
    Compression as Theirs, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use proptest::collection::vec;
use proptest::prelude::*;

const CODECS: [(Compression, Theirs); 4] = [
    (Compression::Gzip, Theirs::Gzip),
    (Compression::Snappy, Theirs::Snappy),
    (Compression::Lz4, Theirs::Lz4),
    (Compression::Zstd, Theirs::Zstd),
];

type Plain = (i64, Vec<u8>);

/// Values that pack well, and some that do not; together up to several blocks of every codec.
fn plain() -> impl Strategy<Value = Plain> {
    let value = prop_oneof![
        4 => (any::<u8>(), 0..2_000_usize).prop_map(|(byte, length)| vec![byte; length]),
        1 => (any::<u8>(), 30_000..70_000_usize).prop_map(|(byte, length)| vec![byte; length]),
        2 => vec(any::<u8>(), 0..300),
    ];
    (0..4_000_000_000_000_i64, value)
}

fn packed(records: &[Plain], compression: Compression) -> Bytes {
    let options = BuilderOptions { compression, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for (time, value) in records {
        builder.push(Timestamp(*time), Some(b"key"), Some(value), &[]);
    }
    builder.finish()
}

fn unpacked(batch: &[u8], bytes_max: usize) -> Result<Vec<Plain>, BatchError> {
    let view = BatchView::parse(batch)?;
    view.verify_checksum()?;
    view.verify_records()?;
    let plain = view.unpacked(bytes_max)?.unwrap_or_else(|| Bytes::copy_from_slice(batch));
    let view = BatchView::parse(&plain)?;
    view.verify_checksum().expect("what was unpacked has a checksum of its own");
    view.verify_records()?;
    let records = view.records().expect("not packed any more");
    records
        .map(|record| record.map(|it| (it.timestamp.0, it.value.expect("a value").to_vec())))
        .collect()
}

/// One record of so many zeros, packed.
fn zeros(bytes: usize, codec: Compression) -> Vec<u8> {
    packed(&[(5, vec![0; bytes])], codec).to_vec()
}

fn resealed(mut batch: Vec<u8>) -> Vec<u8> {
    let length = (batch.len() - 12) as u32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let checksum = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_packed_comes_back(records in vec(plain(), 1..12)) {
        for codec in Compression::ALL {
            let batch = packed(&records, codec);
            prop_assert!(batch.len() <= packed(&records, Compression::None).len());
            prop_assert_eq!(unpacked(&batch, UNPACKED_BYTES_MAX), Ok(records.clone()));
        }
    }

    #[test]
    fn the_oracle_unpacks_what_we_packed(records in vec(plain(), 1..12)) {
        for (codec, _) in CODECS {
            let mut batch = packed(&records, codec);
            let set = RecordBatchDecoder::decode(&mut batch).expect("the oracle reads our batch");
            let read: Vec<Plain> = set.records.iter()
                .map(|record| (record.timestamp, record.value.clone().expect("a value").to_vec()))
                .collect();
            prop_assert_eq!(&read, &records);
        }
    }

    #[test]
    fn we_unpack_what_the_oracle_packed(records in vec(plain(), 1..12)) {
        for (codec, compression) in CODECS {
            let theirs: Vec<Record> = records.iter().enumerate().map(|(at, record)| Record {
                transactional: false, control: false, delete_horizon: false,
                partition_leader_epoch: -1, producer_id: -1, producer_epoch: -1,
                timestamp_type: TimestampType::Creation, offset: at as i64, sequence: at as i32 - 1,
                timestamp: record.0, key: None, value: Some(record.1.clone().into()),
                headers: IndexMap::new(),
            }).collect();
            let mut buffer = BytesMut::new();
            let options = RecordEncodeOptions { version: 2, compression };
            RecordBatchEncoder::encode(&mut buffer, &theirs, &options).expect("the oracle packs");
            let view = BatchView::parse(&buffer).expect("a batch");
            prop_assert_eq!(view.header().compression(), Some(codec));
            prop_assert_eq!(unpacked(&buffer, UNPACKED_BYTES_MAX), Ok(records.clone()));
        }
    }

    #[test]
    fn damage_is_an_error_and_nothing_else(
        records in vec(plain(), 1..6),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for (codec, _) in CODECS {
            let mut batch = zeros(20_000, codec);
            if records.len() > 1 {
                batch = packed(&records, codec).to_vec();
            }
            let body = batch.len() - HEADER_BYTES;
            for (at, byte) in &damage {
                batch[HEADER_BYTES + at.index(body)] = *byte;
            }
            batch.truncate(HEADER_BYTES + 1 + cut.index(body));
            let batch = resealed(batch);
            let bytes_max = 30_000;
            // What did not get smaller was sent plain, and its end may be missed at once.
            let Ok(view) = BatchView::parse(&batch) else { continue };
            if let Ok(Some(plain)) = view.unpacked(bytes_max) {
                prop_assert!(plain.len() <= HEADER_BYTES + bytes_max);
            }
            // Whatever came out of it is walked like any other batch.
            let _ = unpacked(&batch, bytes_max);
        }
    }

    #[test]
    fn no_bytes_make_a_codec_panic(number in 1..5_u8, body in vec(any::<u8>(), 0..200), magic: bool) {
        let mut batch = zeros(1, Compression::None);
        batch.truncate(HEADER_BYTES);
        batch[22] = number;
        let magics: [&[u8]; 4] =
            [&[0x1f, 0x8b, 8], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01", &[4, 0x22, 0x4d, 0x18], &[0x28, 0xb5, 0x2f, 0xfd]];
        if magic {
            batch.extend_from_slice(magics[usize::from(number) - 1]);
        }
        batch.extend_from_slice(&body);
        let _ = unpacked(&resealed(batch), 30_000);
    }
}

#[test]
fn a_few_kib_that_would_become_many_mib_stop_at_the_bound() {
    for (codec, _) in CODECS {
        let bomb = zeros(20 << 20, codec);
        assert!(bomb.len() < 1 << 20, "{codec}: {} bytes", bomb.len());
        let refused = unpacked(&bomb, 1 << 20).expect_err("twenty times the bound");
        assert_eq!(refused, BatchError::TooLarge { codec, bytes_max: 1 << 20 });
        let said = refused.to_string();
        assert!(said.contains(codec.name()) && said.contains("1048576 bytes"), "{said}");
        assert_eq!(unpacked(&bomb, UNPACKED_BYTES_MAX).expect("within the bound").len(), 1);
    }
}

#[test]
fn the_bound_is_exact() {
    for (codec, _) in CODECS {
        let batch = zeros(100_000, codec);
        let records = zeros(100_000, Compression::None).len() - HEADER_BYTES;
        assert!(unpacked(&batch, records).is_ok(), "{codec}");
        assert!(
            matches!(unpacked(&batch, records - 1), Err(BatchError::TooLarge { .. })),
            "{codec}"
        );
    }
}

#[test]
fn no_caller_can_raise_the_bound_beyond_what_brokers_count_on() {
    let body = vec![0; UNPACKED_BYTES_MAX + 1];
    let bomb = zeros(body.len(), Compression::Zstd);
    assert!(matches!(unpacked(&bomb, usize::MAX), Err(BatchError::TooLarge { .. })));
}

#[test]
fn packed_records_cannot_be_more_than_anybody_would_unpack() {
    let mut batch = zeros(1000, Compression::Lz4);
    batch[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    let batch = resealed(batch);
    let view = BatchView::parse(&batch).expect("the header agrees with itself");
    assert!(matches!(view.verify_records(), Err(BatchError::Record { .. })));
}

#[test]
fn a_batch_that_would_not_get_smaller_is_sent_as_it_is() {
    for (codec, _) in CODECS {
        let batch = packed(&[(5, b"x".to_vec())], codec);
        let view = BatchView::parse(&batch).expect("a batch");
        assert_eq!(view.header().compression(), Some(Compression::None), "{codec}");
    }
}

/// The bytes are those that Kafka's own tools wrote.
#[test]
fn snappy_of_java_is_read_framed_or_raw() {
    let framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x0f\x0d\x30\x18\0\0\0\x01\x0csdfdsf\0";
    for body in [&framed[..], &framed[20..]] {
        let mut batch = zeros(1, Compression::None);
        batch.truncate(HEADER_BYTES);
        batch[22] = 2;
        batch.extend_from_slice(body);
        let read = unpacked(&resealed(batch), 100).expect("one record");
        assert_eq!(read, [(5, b"sdfdsf".to_vec())]);
    }
}

#[test]
fn lz4_frames_are_those_that_java_reads() {
    let batch = zeros(200_000, Compression::Lz4);
    let frame = &batch[HEADER_BYTES..];
    assert_eq!(frame[..4], [0x04, 0x22, 0x4d, 0x18]);
    assert_eq!(frame[4] & 0b1110_0000, 0b0110_0000, "version 1, independent blocks");
    assert_eq!(frame[5], 0x40, "blocks of 64 KiB");
}
