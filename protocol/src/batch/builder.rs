//! Building a batch record by record into one buffer.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::header::{MAGIC, seal};
use crate::batch::{Compression, HEADER_BYTES, Header, ProducerStamp, codec};
use crate::ids::Timestamp;
use crate::wire::{put_varint, put_varlong, varint_bytes, varlong_bytes};

/// What is the same for all records of a batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuilderOptions {
    /// The idempotent producer and its sequence number for the first record.
    pub producer: Option<ProducerStamp>,
    /// How to pack the records, where that saves a byte.
    pub compression: Compression,
    /// How much room to make at first.
    pub bytes_expected: usize,
}

/// A batch under construction.
#[derive(Debug)]
pub struct BatchBuilder {
    buffer: BytesMut,
    options: BuilderOptions,
    records: u32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(options: BuilderOptions) -> BatchBuilder {
        let mut buffer = BytesMut::with_capacity(options.bytes_expected.max(2 * HEADER_BYTES));
        buffer.put_bytes(0, HEADER_BYTES);
        BatchBuilder {
            buffer,
            options,
            records: 0,
            base_timestamp: Timestamp::default(),
            max_timestamp: Timestamp::default(),
        }
    }

    /// Adds a record; returns the bytes of the batch so far.
    pub fn push(
        &mut self,
        timestamp: Timestamp,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> usize {
        if self.records == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let timestamp_delta = timestamp.0.wrapping_sub(self.base_timestamp.0);
        let offset_delta = self.records as i32;
        let body = 1
            + varlong_bytes(timestamp_delta)
            + varint_bytes(offset_delta)
            + nullable_bytes(key)
            + nullable_bytes(value)
            + varint_bytes(count(headers.len()))
            + headers.iter().map(header_bytes).sum::<usize>();
        put_varint(&mut self.buffer, count(body));
        self.buffer.put_u8(0);
        put_varlong(&mut self.buffer, timestamp_delta);
        put_varint(&mut self.buffer, offset_delta);
        put_nullable(&mut self.buffer, key);
        put_nullable(&mut self.buffer, value);
        put_varint(&mut self.buffer, count(headers.len()));
        for header in headers {
            put_varint(&mut self.buffer, count(header.name.len()));
            self.buffer.put_slice(header.name);
            put_nullable(&mut self.buffer, header.value);
        }
        self.records += 1;
        self.buffer.len()
    }

    /// An upper bound for what one more record adds to the batch.
    pub fn bytes_for(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> usize {
        let heads = 5 + 1 + 10 + 5 + 5;
        heads
            + nullable_bytes(key)
            + nullable_bytes(value)
            + headers.iter().map(header_bytes).sum::<usize>()
    }

    /// Bytes of the batch so far, its header included.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Records so far.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Gives the batch another place in another sequence, as after a new producer epoch.
    pub fn set_producer(&mut self, producer: Option<ProducerStamp>) {
        self.options.producer = producer;
    }

    /// Packs the records with another codec than was meant at first.
    pub fn set_compression(&mut self, compression: Compression) {
        self.options.compression = compression;
    }

    /// Packs the records, if that makes them smaller, and writes header and checksum. The batch must
    /// have a record, and the codec be one that this program was built with.
    pub fn finish(mut self) -> Bytes {
        assert!(self.records > 0, "a batch without records cannot be sent");
        let (producer, epoch, sequence) = match self.options.producer {
            Some(stamp) => (stamp.id.0 as i64, stamp.epoch.0 as i16, stamp.base_sequence as i32),
            None => (-1, -1, -1),
        };
        assert!(
            self.options.producer.is_none() || (producer >= 0 && epoch >= 0 && sequence >= 0),
            "a producer's id, epoch and sequence leave the sign bit to those who have none"
        );
        let mut header = &mut self.buffer[..HEADER_BYTES];
        header.put_u64(0);
        header.put_u32(0);
        header.put_i32(-1);
        header.put_u8(MAGIC);
        header.put_u32(0);
        header.put_u16(0);
        header.put_i32(self.records as i32 - 1);
        header.put_i64(self.base_timestamp.0);
        header.put_i64(self.max_timestamp.0);
        header.put_i64(producer);
        header.put_i16(epoch);
        header.put_i32(sequence);
        header.put_u32(self.records);
        let compression = self.options.compression;
        let records = &self.buffer[HEADER_BYTES..];
        if let Some(mut packed) = codec::pack(compression, records, HEADER_BYTES) {
            packed[..HEADER_BYTES].copy_from_slice(&self.buffer[..HEADER_BYTES]);
            seal(&mut packed, compression.number());
            return packed.into();
        }
        seal(&mut self.buffer, Compression::None.number());
        self.buffer.freeze()
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).expect("records are bounded far below 2 GiB")
}

fn nullable_bytes(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| varint_bytes(count(value.len())) + value.len())
}

fn header_bytes(header: &Header<'_>) -> usize {
    varint_bytes(count(header.name.len())) + header.name.len() + nullable_bytes(header.value)
}

fn put_nullable(buffer: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => put_varint(buffer, -1),
        Some(value) => {
            put_varint(buffer, count(value.len()));
            buffer.put_slice(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchView;
    use crate::ids::{ProducerEpoch, ProducerId};

    #[test]
    fn the_latest_timestamp_is_named_even_before_1970() {
        for times in [[-9, -5, -7], [3, 1, 2], [i64::MIN, i64::MAX, 0]] {
            let mut builder = BatchBuilder::new(BuilderOptions::default());
            for time in times {
                builder.push(Timestamp(time), None, Some(b"v"), &[]);
            }
            let batch = builder.finish();
            let view = BatchView::parse(&batch).expect("our own batch");
            assert_eq!(view.header().base_timestamp, Timestamp(times[0]));
            assert_eq!(Some(view.header().max_timestamp.0), times.into_iter().max());
        }
    }

    #[test]
    fn records_that_fit_the_room_made_do_not_move_the_buffer() {
        let bytes_expected = 4096;
        let mut builder =
            BatchBuilder::new(BuilderOptions { bytes_expected, ..BuilderOptions::default() });
        let at = builder.buffer.as_ptr();
        while builder.bytes() + BatchBuilder::bytes_for(Some(b"k"), None, &[]) <= bytes_expected {
            builder.push(Timestamp(1), Some(b"k"), None, &[]);
        }
        assert!(builder.records() > 100);
        assert_eq!(builder.buffer.as_ptr(), at);
    }

    #[test]
    fn a_batch_may_change_its_producer_until_it_is_finished() {
        let stamp = |epoch, base_sequence| {
            let epoch = ProducerEpoch(epoch);
            Some(ProducerStamp { id: ProducerId(77), epoch, base_sequence })
        };
        let options = BuilderOptions { producer: stamp(0, 12), ..BuilderOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.push(Timestamp(1), None, None, &[]);
        builder.set_producer(stamp(1, 0));
        let batch = builder.finish();
        let view = BatchView::parse(&batch).expect("our own batch");
        assert_eq!(view.header().producer(), stamp(1, 0));
        assert_eq!(view.verify_checksum(), Ok(()));
    }
}
