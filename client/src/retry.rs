//! How long to wait before trying again: exponential from 20 ms to a second, with jitter.
//!
//! Retries are bounded by time, never by count; the deadline belongs to the caller.

use std::time::Duration;

/// The pauses between attempts at one thing.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next_ms: u64,
    random: u64,
}

impl Backoff {
    /// Starts at the shortest pause; `seed` makes neighbours differ.
    pub(crate) fn new(seed: u64) -> Backoff {
        Backoff { next_ms: FIRST_MS, random: seed | 1 }
    }

    /// The pause before the next attempt: between a half and the whole of the current step.
    pub(crate) fn pause(&mut self) -> Duration {
        let step = self.next_ms;
        self.next_ms = (step * 3 / 2).min(LONGEST_MS);
        // Xorshift: neighbours must differ, nothing more.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Duration::from_millis(step / 2 + self.random % (step / 2 + 1))
    }

    /// After a success the next failure starts from the shortest pause again.
    pub(crate) fn reset(&mut self) {
        self.next_ms = FIRST_MS;
    }
}

/// Bits that differ from process to process and from call to call.
pub(crate) fn seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 ^ uuid::Uuid::new_v4().as_u64_pair().1
}

const FIRST_MS: u64 = 20;
const LONGEST_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_20_ms_to_a_second_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(9);
        let first = backoff.pause();
        assert!((10..=20).contains(&first.as_millis()), "{first:?}");
        let last = (0..30).map(|_| backoff.pause()).last().expect("thirty pauses");
        assert!((500..=1000).contains(&last.as_millis()), "{last:?}");
        backoff.reset();
        assert!(backoff.pause().as_millis() <= 20);
    }
}
