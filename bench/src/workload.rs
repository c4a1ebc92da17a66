//! What is sent and when: the schedule of intended times, the bytes of a record, the keys.
//!
//! An open loop has a time for every record before the run begins; lateness never moves the times
//! that follow, so a stall of the cluster shows in the latency of all records that fell due
//! meanwhile (no coordinated omission). A record carries who sent it, its number, and its intended
//! time; the rest is filler that no one compresses. Making one costs a copy and no allocation.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};

/// Nanoseconds since the clock's start: all times within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Nanos(pub u64);

/// A monotonic clock tied once to the wall clock, so that records can carry times that another
/// process on the same host understands.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    origin_unix: u64,
}

/// Which record: producer << 40 | sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordId(pub u64);

/// What a record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which record it is.
    pub id: RecordId,
    /// When it should have been sent, in nanoseconds since the Unix epoch.
    pub intended_unix: u64,
}

/// The intended times of one producer of several that share a rate.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// The first record's time.
    pub start: Nanos,
    /// Records a second of all producers together.
    pub rate: u64,
    /// How many producers share it.
    pub producers: u64,
    /// Which of them this is, from 0.
    pub producer: u64,
}

/// Makes record values of one size.
#[derive(Debug)]
pub struct Payload {
    filler: Vec<u8>,
    filler_at: usize,
    slab: BytesMut,
    record_bytes: usize,
}

/// Chooses keys.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Bytes>,
    random: u64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { origin: Instant::now(), origin_unix: since_epoch.as_nanos() as u64 }
    }

    /// The time now.
    pub fn now(&self) -> Nanos {
        Nanos(self.origin.elapsed().as_nanos() as u64)
    }

    /// The time of this clock for nanoseconds since the Unix epoch; its start for earlier ones.
    pub fn of_unix(&self, unix: u64) -> Nanos {
        Nanos(unix.saturating_sub(self.origin_unix))
    }

    /// A time of this clock as nanoseconds since the Unix epoch.
    pub fn to_unix(self, time: Nanos) -> u64 {
        self.origin_unix + time.0
    }
}

impl Nanos {
    /// The time `seconds` later.
    pub fn plus_seconds(self, seconds: f64) -> Nanos {
        Nanos(self.0 + (seconds * 1e9) as u64)
    }

    /// How long after `earlier` this is, 0 if it is before.
    pub fn since(self, earlier: Nanos) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl RecordId {
    /// The record `sequence` of `producer`.
    pub fn new(producer: u32, sequence: u64) -> RecordId {
        assert!(sequence < 1 << SEQUENCE_BITS, "no run sends a trillion records");
        RecordId((u64::from(producer) << SEQUENCE_BITS) | sequence)
    }

    /// Who sent it.
    pub fn producer(self) -> u32 {
        (self.0 >> SEQUENCE_BITS) as u32
    }

    /// Its number among that producer's, from 0.
    pub fn sequence(self) -> u64 {
        self.0 & ((1 << SEQUENCE_BITS) - 1)
    }
}

/// A producer's id for a run: ids of different runs on one topic don't meet.
pub fn producer_id(run: u16, producer: u8) -> u32 {
    (u32::from(run) << 8) | u32::from(producer)
}

impl Stamp {
    /// Reads a record's value; `None` for records that no bench wrote.
    pub fn parse(value: &[u8]) -> Option<Stamp> {
        let word = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
        if word(0)? != MAGIC {
            return None;
        }
        Some(Stamp { id: RecordId(word(8)?), intended_unix: word(16)? })
    }
}

impl Schedule {
    /// When record `sequence` of this producer should be sent.
    pub fn intended(&self, sequence: u64) -> Nanos {
        let nth = u128::from(sequence) * u128::from(self.producers) + u128::from(self.producer);
        Nanos(self.start.0 + (nth * 1_000_000_000 / u128::from(self.rate)) as u64)
    }
}

impl Payload {
    /// Values of `record_bytes`, which must hold a stamp; `seed` makes producers differ.
    pub fn new(record_bytes: usize, seed: u64) -> Payload {
        assert!(record_bytes >= STAMP_BYTES, "a record must hold its stamp");
        let mut random = seed | 1;
        let words = (record_bytes + FILLER_SPREAD_BYTES) / 8 + 1;
        let filler = (0..words).flat_map(|_| next_random(&mut random).to_le_bytes()).collect();
        Payload { filler, filler_at: 0, slab: BytesMut::new(), record_bytes }
    }

    /// The value of a record.
    pub fn next(&mut self, stamp: Stamp) -> Bytes {
        if self.slab.capacity() < self.record_bytes {
            // One allocation for many records; it is freed when the last of them is.
            self.slab = BytesMut::with_capacity(SLAB_BYTES.max(self.record_bytes));
        }
        self.slab.extend_from_slice(&MAGIC.to_le_bytes());
        self.slab.extend_from_slice(&stamp.id.0.to_le_bytes());
        self.slab.extend_from_slice(&stamp.intended_unix.to_le_bytes());
        let rest = self.record_bytes - STAMP_BYTES;
        self.slab.extend_from_slice(&self.filler[self.filler_at..self.filler_at + rest]);
        self.filler_at = (self.filler_at + 61) % FILLER_SPREAD_BYTES;
        self.slab.split().freeze()
    }
}

impl Keys {
    /// `count` different keys, chosen evenly at random.
    pub fn new(count: u32, seed: u64) -> Keys {
        let keys = (0..count).map(|key| Bytes::from(format!("key-{key:08}"))).collect();
        Keys { keys, random: seed | 1 }
    }

    /// A key, or `None` if there are none.
    pub fn choose(&mut self) -> Option<Bytes> {
        if self.keys.is_empty() {
            return None;
        }
        let at = next_random(&mut self.random) % self.keys.len() as u64;
        Some(self.keys[at as usize].clone())
    }
}

/// The next of a SplitMix64 sequence.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The smallest record: magic, id, intended time.
pub const STAMP_BYTES: usize = 24;
const MAGIC: u64 = u64::from_le_bytes(*b"HWBENCH1");
const SEQUENCE_BITS: u32 = 40;
const SLAB_BYTES: usize = 1 << 20;
const FILLER_SPREAD_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_who_sent_it_and_when_it_should_have_been_sent() {
        let mut payload = Payload::new(100, 7);
        let id = RecordId::new(producer_id(0xabcd, 3), 123_456);
        let stamp = Stamp { id, intended_unix: 42 };
        let value = payload.next(stamp);
        assert_eq!(value.len(), 100);
        assert_eq!(Stamp::parse(&value), Some(stamp));
        assert_eq!((id.producer(), id.sequence()), (0xab_cd03, 123_456));
    }

    #[test]
    fn what_no_bench_wrote_has_no_stamp() {
        assert_eq!(Stamp::parse(b""), None);
        assert_eq!(Stamp::parse(&[0; 24]), None);
        assert_eq!(Stamp::parse(b"HWBENCH1short"), None);
    }

    #[test]
    fn records_of_any_size_down_to_the_stamp_can_be_made() {
        for record_bytes in [STAMP_BYTES, 25, 1024, 3 << 20] {
            let mut payload = Payload::new(record_bytes, 1);
            for sequence in 0..3 {
                let stamp = Stamp { id: RecordId::new(1, sequence), intended_unix: sequence };
                assert_eq!(payload.next(stamp).len(), record_bytes);
            }
        }
    }

    #[test]
    fn producers_share_a_rate_and_take_turns() {
        let schedule =
            |producer| Schedule { start: Nanos(1_000), rate: 1_000, producers: 4, producer };
        assert_eq!(schedule(0).intended(0), Nanos(1_000));
        assert_eq!(schedule(1).intended(0), Nanos(1_001_000));
        assert_eq!(schedule(0).intended(1), Nanos(4_001_000));
        // No drift: a million records of each take exactly 4,000 seconds.
        assert_eq!(schedule(0).intended(1_000_000), Nanos(4_000_000_001_000));
    }

    #[test]
    fn keys_repeat_and_all_of_them_occur() {
        let mut keys = Keys::new(8, 5);
        let seen: std::collections::HashSet<_> = (0..200).filter_map(|_| keys.choose()).collect();
        assert_eq!(seen.len(), 8);
        assert_eq!(Keys::new(0, 5).choose(), None);
    }
}
