//! Chance from a seed: one independent stream per consumer, so that a change in one part of the
//! simulation does not shift the luck of all others.
//!
//! SplitMix64. Weaker generators seeded from each other gave all nodes the same stream, shifted, and
//! with it elections that never ended.

use std::ops::RangeInclusive;

/// A stream of chance.
#[derive(Debug, Clone)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The stream that `consumer` draws from under a seed.
    pub fn new(seed: u64, consumer: &str) -> Rng {
        let name = consumer.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut rng = Rng { state: seed ^ name };
        rng.state = rng.draw() ^ seed.rotate_left(32);
        rng
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "nothing lies below zero");
        self.draw() % end
    }

    /// A number of a range.
    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True so many times in a thousand.
    pub fn per_mille(&mut self, chances: u64) -> bool {
        self.below(1000) < chances
    }

    /// One of several.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Mostly below the mean, sometimes many times it.
    pub fn long_tailed(&mut self, mean: u64) -> u64 {
        let doublings = u64::from(self.draw().leading_zeros());
        (mean * doublings + self.below(mean + 1)) * 2 / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_are_independent_and_repeat() {
        let draw = |consumer| {
            let mut rng = Rng::new(7, consumer);
            (0..4).map(|_| rng.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draw("network"), draw("network"));
        assert_ne!(draw("network"), draw("disk"));
    }

    #[test]
    fn the_long_tail_keeps_its_mean_roughly() {
        let mut rng = Rng::new(1, "tail");
        let sum: u64 = (0..10_000).map(|_| rng.long_tailed(1000)).sum();
        assert!((800..1200).contains(&(sum / 10_000)), "{}", sum / 10_000);
    }
}
