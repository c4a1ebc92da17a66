//! What stands in a log in place of a batch that is lost for good.
//!
//! It takes the batch's place, offsets, term and length, and says by whom the batch was, so that a batch sent again
//! is known as a repeat still. It is a function of these alone: whoever makes it makes the same bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::batch::header::{GAP_ATTRIBUTES, MAGIC, seal};
use crate::batch::{HEADER_BYTES, ProducerStamp};
use crate::ids::{Offset, Term, Timestamp};

/// A batch of which nothing is left but what an index says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The term in which a leader appended it.
    pub term: Term,
    /// How many records it had; at least one.
    pub records: u32,
    /// How long it was, its header included.
    pub frame_bytes: usize,
    /// None of its records was younger.
    pub max_timestamp: Timestamp,
    /// The idempotent producer that wrote it, if one did.
    pub producer: Option<ProducerStamp>,
}

impl Gap {
    /// The frame in its place.
    ///
    /// # Panics
    /// If the batch had no records, or was shorter than a header.
    pub fn encode(&self) -> Bytes {
        assert!(self.records > 0 && self.frame_bytes >= HEADER_BYTES, "no batch is like that");
        let mut frame = BytesMut::with_capacity(self.frame_bytes);
        frame.put_u64(self.base_offset.0);
        frame.put_u32(0);
        frame.put_u32(self.term.0);
        frame.put_u8(MAGIC);
        frame.put_u32(0);
        frame.put_u16(GAP_ATTRIBUTES);
        frame.put_u32(self.records - 1);
        frame.put_i64(self.max_timestamp.0);
        frame.put_i64(self.max_timestamp.0);
        frame.put_i64(self.producer.map_or(-1, |stamp| stamp.id.0 as i64));
        frame.put_i16(self.producer.map_or(-1, |stamp| stamp.epoch.0 as i16));
        frame.put_i32(self.producer.map_or(-1, |stamp| stamp.base_sequence as i32));
        frame.put_u32(0);
        frame.resize(self.frame_bytes, 0);
        seal(&mut frame, GAP_ATTRIBUTES);
        frame.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchView, FrameHeader, frames};
    use crate::ids::{ProducerEpoch, ProducerId};

    #[test]
    fn a_gap_is_a_batch_of_the_same_place_and_length_without_records() {
        let (id, epoch) = (ProducerId(9), ProducerEpoch(2));
        let producer = Some(ProducerStamp { id, epoch, base_sequence: 70 });
        let gap = Gap {
            base_offset: Offset(41),
            term: Term(3),
            records: 1_000,
            frame_bytes: 300,
            max_timestamp: Timestamp(77),
            producer,
        };
        let frame = gap.encode();
        let header = FrameHeader::parse(&frame).expect("a frame");
        assert!(header.is_gap() && header.verify_checksum(&frame).is_ok());
        assert_eq!((header.base_offset, header.term), (Offset(41), Term(3)));
        assert_eq!(
            (header.records(), header.frame_bytes(), header.producer()),
            (1_000, 300, producer)
        );
        let view = BatchView::parse(&frame).expect("a batch");
        assert_eq!(view.records().expect("none").count(), 0);
        assert_eq!(view.unpacked(1 << 20), Ok(None));
        assert_eq!(frames(&[&frame[..], &frame[..]].concat()).filter_map(Result::ok).count(), 2);
        assert_eq!(frame, gap.encode());
    }
}
