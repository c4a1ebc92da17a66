//! The keys that occur most, in bounded memory.
//!
//! All keys are counted exactly until there are too many; from then on whoever is seen rarely is forgotten, and what
//! that may have taken of any count is known (Misra and Gries, "Finding repeated elements", 1982, with half of the
//! counters freed at once).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Counts keys.
#[derive(Debug)]
pub struct HotKeys {
    room: usize,
    hasher: RandomState,
    counted: HashMap<u64, HotKey>,
    /// How much any count may lack.
    lacks_max: u64,
}

/// A key, and how often it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKey {
    /// Its first bytes.
    pub key: Vec<u8>,
    /// Its length in bytes.
    pub len: usize,
    /// The partition where it was seen first.
    pub partition: u32,
    /// How often it was seen at least.
    pub records: u64,
}

/// How many different keys there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distinct {
    /// As many.
    Exactly(usize),
    /// More than as many.
    MoreThan(usize),
}

impl HotKeys {
    /// Tells up to `room` keys apart.
    pub fn new(room: usize) -> HotKeys {
        HotKeys { room, hasher: RandomState::new(), counted: HashMap::new(), lacks_max: 0 }
    }

    /// A record has this key.
    pub fn saw(&mut self, key: &[u8], partition: u32) {
        let hash = self.hasher.hash_one(key);
        if let Some(known) = self.counted.get_mut(&hash) {
            known.records += 1;
            return;
        }
        if self.counted.len() == self.room {
            self.make_room();
        }
        let shown = key[..key.len().min(KEY_BYTES_KEPT)].to_vec();
        let seen = HotKey { key: shown, len: key.len(), partition, records: 1 };
        self.counted.insert(hash, seen);
    }

    fn make_room(&mut self) {
        let mut counts: Vec<u64> = self.counted.values().map(|it| it.records).collect();
        let middle = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(middle);
        let taken = *median;
        self.lacks_max += taken;
        self.counted.retain(|_, it| {
            it.records -= taken.min(it.records);
            it.records > 0
        });
    }

    /// How many different keys were seen.
    pub fn distinct(&self) -> Distinct {
        match self.lacks_max {
            0 => Distinct::Exactly(self.counted.len()),
            _ => Distinct::MoreThan(self.room),
        }
    }

    /// By how many records a count may be too low.
    pub fn lacks_max(&self) -> u64 {
        self.lacks_max
    }

    /// The keys seen most, most first.
    pub fn most(&self, count: usize) -> Vec<&HotKey> {
        let mut all: Vec<&HotKey> = self.counted.values().collect();
        all.sort_unstable_by(|one, other| {
            other.records.cmp(&one.records).then_with(|| one.key.cmp(&other.key))
        });
        all.truncate(count);
        all
    }
}

const KEY_BYTES_KEPT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn most(keys: &HotKeys) -> Vec<(&[u8], u64)> {
        keys.most(2).into_iter().map(|it| (&it.key[..], it.records)).collect()
    }

    #[test]
    fn few_keys_are_counted_exactly() {
        let mut keys = HotKeys::new(10);
        for key in ["a", "b", "a", "c", "a", "b"] {
            keys.saw(key.as_bytes(), 0);
        }
        assert_eq!(most(&keys), [(&b"a"[..], 3), (&b"b"[..], 2)]);
        assert_eq!((keys.distinct(), keys.lacks_max()), (Distinct::Exactly(3), 0));
    }

    #[test]
    fn a_hot_key_is_found_among_more_keys_than_there_is_room_for() {
        let mut keys = HotKeys::new(100);
        for number in 0..10_000_u32 {
            keys.saw(&number.to_le_bytes(), 0);
            if number % 4 == 0 {
                keys.saw(b"hot", 0);
            }
        }
        let (key, records) = most(&keys)[0];
        assert_eq!(key, b"hot");
        assert!(records <= 2_500 && records + keys.lacks_max() >= 2_500, "{records}");
        assert_eq!(keys.distinct(), Distinct::MoreThan(100));
    }
}
