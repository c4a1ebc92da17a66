//! The index: one entry of 48 bytes per frame, in memory and in the `.idx` file.
//!
//! All places in an entry are exclusive ends, relative to the segment's base: a frame begins where
//! the one before it ends, so its length and its number of records are differences. An entry goes
//! to the file only after the frame it names was flushed, which makes an entry found there a
//! *witness*: that frame was durable, and everything before it. The timestamp is the largest so
//! far in the segment, so that it can be searched by halving.
//!
//! The checksum of an entry covers the segment's number and the entry's slot: an entry that turns
//! up in another place witnesses nothing.

use highwater_protocol::batch::{FrameHeader, FrameKind, ProducerStamp, crc32c};
use highwater_protocol::ids::{ProducerEpoch, ProducerId, Term};

use super::Place;
use super::header::{put_u32, put_u64, u32_at, u64_at};

/// What the index says of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where the frame ends: entries since the segment's base.
    index: u32,
    /// Where the frame ends: records since the segment's base.
    offset: u32,
    /// Where the frame ends in the `.log` file.
    position: u32,
    term: u32,
    checksum: u32,
    attributes: u16,
    producer_epoch: u16,
    base_sequence: u32,
    producer: u64,
    max_timestamp: i64,
}

/// What becomes of an entry's slot in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Blank,
    Damaged,
    Entry(Entry),
}

impl Entry {
    /// The entry of a frame that follows `before`, or `None` if the segment is too full to name it.
    pub(super) fn after(before: &Entry, header: &FrameHeader) -> Option<Entry> {
        let stamp = header.producer();
        let seen = match header.kind() {
            FrameKind::Data => before.max_timestamp.max(header.max_timestamp.0),
            FrameKind::Mark => before.max_timestamp,
        };
        Some(Entry {
            index: before.index.checked_add(u32::try_from(header.entries()).ok()?)?,
            offset: before.offset.checked_add(header.records())?,
            position: before.position.checked_add(u32::try_from(header.frame_bytes()).ok()?)?,
            term: header.term.0,
            checksum: header.checksum,
            attributes: header.attributes(),
            producer_epoch: stamp.map_or(u16::MAX, |stamp| stamp.epoch.0),
            base_sequence: stamp.map_or(u32::MAX, |stamp| stamp.base_sequence),
            producer: stamp.map_or(u64::MAX, |stamp| stamp.id.0),
            max_timestamp: seen,
        })
    }

    /// What lies before the first frame of a segment.
    pub(super) fn before_first(term: Term) -> Entry {
        Entry {
            index: 0,
            offset: 0,
            position: super::header::HEADER_PAGE_BYTES as u32,
            term: term.0,
            checksum: 0,
            attributes: 0,
            producer_epoch: u16::MAX,
            base_sequence: u32::MAX,
            producer: u64::MAX,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    pub(super) fn encode(&self, sequence: u64, slot: usize) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        put_u32(&mut bytes, 0, self.index);
        put_u32(&mut bytes, 4, self.offset);
        put_u32(&mut bytes, 8, self.position);
        put_u32(&mut bytes, 12, self.term);
        put_u32(&mut bytes, 16, self.checksum);
        bytes[20..22].copy_from_slice(&self.attributes.to_le_bytes());
        bytes[22..24].copy_from_slice(&self.producer_epoch.to_le_bytes());
        put_u32(&mut bytes, 24, self.base_sequence);
        put_u64(&mut bytes, 28, self.producer);
        put_u64(&mut bytes, 36, self.max_timestamp as u64);
        let checksum = own_checksum(&bytes, sequence, slot);
        put_u32(&mut bytes, 44, checksum);
        bytes
    }

    /// The place where the frame ends.
    pub(super) fn end(&self, base: &Place) -> Place {
        Place {
            index: base.index.advance(u64::from(self.index)),
            offset: base.offset.advance(u64::from(self.offset)),
            term: Term(self.term),
        }
    }

    /// Where the frame ends in the `.log` file.
    pub(super) fn position(&self) -> u64 {
        u64::from(self.position)
    }

    /// The largest timestamp from the segment's begin up to here.
    pub(super) fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    pub(super) fn is_mark(&self) -> bool {
        self.attributes & MARK_ATTRIBUTES == MARK_ATTRIBUTES
    }

    /// Whether the batch was given up, and nothing but its place is left.
    pub(super) fn is_gap(&self) -> bool {
        self.attributes == GAP_ATTRIBUTES
    }

    pub(super) fn producer(&self) -> Option<ProducerStamp> {
        (self.producer != u64::MAX).then_some(ProducerStamp {
            id: ProducerId(self.producer),
            epoch: ProducerEpoch(self.producer_epoch),
            base_sequence: self.base_sequence,
        })
    }
}

impl Slot {
    pub(super) fn decode(bytes: &[u8], sequence: u64, slot: usize) -> Slot {
        if bytes.iter().all(|byte| *byte == 0) {
            return Slot::Blank;
        }
        if u32_at(bytes, 44) != own_checksum(bytes, sequence, slot) {
            return Slot::Damaged;
        }
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Slot::Entry(Entry {
            index: u32_at(bytes, 0),
            offset: u32_at(bytes, 4),
            position: u32_at(bytes, 8),
            term: u32_at(bytes, 12),
            checksum: u32_at(bytes, 16),
            attributes: u16_at(20),
            producer_epoch: u16_at(22),
            base_sequence: u32_at(bytes, 24),
            producer: u64_at(bytes, 28),
            max_timestamp: u64_at(bytes, 36) as i64,
        })
    }
}

fn own_checksum(bytes: &[u8], sequence: u64, slot: usize) -> u32 {
    let mut covered = [0; 60];
    covered[..44].copy_from_slice(&bytes[..44]);
    put_u64(&mut covered, 44, sequence);
    put_u64(&mut covered, 52, slot as u64);
    crc32c(&covered)
}

/// Where a slot lies in the `.idx` file.
pub(super) fn slot_at(slot: usize) -> u64 {
    super::header::HEADER_PAGE_BYTES + (slot * ENTRY_BYTES) as u64
}

/// The bytes of an entry, on disk.
pub(super) const ENTRY_BYTES: usize = 48;
/// What `max_timestamp` is while a segment has no record.
pub(super) const NO_TIMESTAMP: i64 = i64::MIN;
/// Bit 5 is Kafka's "control", bit 15 is ours.
const MARK_ATTRIBUTES: u16 = 0x8020;
/// The same, and bit 14.
const GAP_ATTRIBUTES: u16 = 0x4020;
