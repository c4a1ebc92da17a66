//! Which partition a record goes to: Kafka's murmur2 for keys, sticky without one.
//!
//! Keyed records must land where every Java producer would put them, so the hash and the rule are
//! Kafka's to the bit. The number of partitions counts all of them, led or not.

use highwater_protocol::ids::PartitionId;

/// The partition of `key` among `partitions`, as Kafka's default partitioner chooses it.
pub fn partition_for_key(key: &[u8], partitions: u32) -> PartitionId {
    assert!(partitions > 0, "a topic has at least one partition");
    PartitionId((murmur2(key) & 0x7fff_ffff) % partitions)
}

/// MurmurHash2 with Kafka's seed.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let mixed = word.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (mixed ^ (mixed >> 24)).wrapping_mul(M);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        let rest = tail.iter().rev().fold(0u32, |rest, byte| (rest << 8) | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Stays on one partition until a batch's worth has gone there, then moves to a random other one.
///
/// Filling one batch after another beats spreading single records: fewer and larger batches at the
/// same rate (KIP-480 and KIP-794).
#[derive(Debug)]
pub(crate) struct Sticky {
    partition: u32,
    bytes: usize,
    random: u64,
}

impl Sticky {
    pub(crate) fn new(partitions: u32, seed: u64) -> Sticky {
        let mut sticky = Sticky { partition: 0, bytes: 0, random: seed };
        sticky.partition = (sticky.draw() % u64::from(partitions)) as u32;
        sticky
    }

    /// The partition for a record of `record_bytes`, where a batch holds `batch_bytes`.
    pub(crate) fn choose(
        &mut self,
        record_bytes: usize,
        batch_bytes: usize,
        partitions: u32,
    ) -> PartitionId {
        if self.bytes > 0 && self.bytes + record_bytes > batch_bytes {
            self.bytes = 0;
            let others = u64::from(partitions.max(2) - 1);
            let step = 1 + (self.draw() % others) as u32;
            self.partition = (self.partition + step) % partitions;
        }
        self.bytes += record_bytes;
        PartitionId(self.partition)
    }

    /// The next of a SplitMix64 sequence: spreading load needs no better.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn murmur2_agrees_with_kafkas_test_vectors() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in vectors {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn a_key_lands_where_kafka_puts_it() {
        assert_eq!(partition_for_key(b"foobar", 6), PartitionId(0));
    }

    #[test]
    fn sticky_stays_until_a_batch_is_full_and_then_moves() {
        let mut sticky = Sticky::new(4, 7);
        let first = sticky.choose(100, 250, 4);
        assert_eq!(sticky.choose(100, 250, 4), first);
        assert_ne!(sticky.choose(100, 250, 4), first);
    }

    #[test]
    fn sticky_reaches_every_partition() {
        let mut sticky = Sticky::new(5, 1);
        let seen: HashSet<_> = (0..200).map(|_| sticky.choose(10, 10, 5)).collect();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn sticky_with_one_partition_stays_there() {
        let mut sticky = Sticky::new(1, 3);
        assert!((0..10).all(|_| sticky.choose(10, 10, 1) == PartitionId(0)));
    }
}
