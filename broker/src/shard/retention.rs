//! Looking through the replicas for what their topics no longer keep, a few at a time, and whether
//! the wall clock is to be trusted with it.
//!
//! Deleting means flushing and unlinking on the shard's thread, so a look takes a sixtieth of
//! the replicas. A wall clock that jumps by more than an hour against the steady one makes wary for a
//! day: then `retention.ms` gives up no more than a tenth of a partition within an hour, so that
//! somebody has the time to notice. A clock that jumped while no broker ran goes unseen.

use std::collections::BTreeMap;
use std::ops::Bound;

use highwater_protocol::ids::{Timestamp, TopicPartition};

use super::event::Millis;
use crate::replica::ByAge;

/// Where the rounds stand.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The replica looked at last.
    last: Option<TopicPartition>,
    clock: WallClock,
}

/// What is known of the wall clock.
#[derive(Debug, Default)]
struct WallClock {
    seen: Option<(Millis, Timestamp)>,
    wary_until: Millis,
    /// When, while wary, a round began in which a tenth may go.
    tenth_from: Option<Millis>,
}

impl Rounds {
    /// The replicas whose turn it is, and how far `retention.ms` may go with them.
    pub(super) fn next<T>(
        &mut self,
        now: Millis,
        wall: Timestamp,
        replicas: &BTreeMap<TopicPartition, T>,
    ) -> (Vec<TopicPartition>, ByAge) {
        let by_age = self.clock.look(now, wall);
        let count = replicas.len().div_ceil(LOOKS_PER_ROUND);
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let due: Vec<TopicPartition> =
            replicas.range((from, Bound::Unbounded)).take(count).map(|(key, _)| *key).collect();
        // Past the end, the next look begins at the first again.
        self.last = due.last().copied().filter(|_| due.len() == count);
        (due, by_age)
    }
}

impl WallClock {
    fn look(&mut self, now: Millis, wall: Timestamp) -> ByAge {
        if let Some((seen_at, seen)) = self.seen {
            let passed = i64::try_from(now.0.saturating_sub(seen_at.0)).unwrap_or(i64::MAX);
            let expected = seen.0.saturating_add(passed);
            if wall.0.abs_diff(expected) > JUMP_MS {
                let by_ms = wall.0.saturating_sub(expected);
                tracing::warn!(
                    by_ms,
                    "the wall clock jumped: retention.ms is carried out slowly for a day"
                );
                self.wary_until = Millis(now.0.saturating_add(WARY_MS));
                self.tenth_from = None;
            }
        }
        self.seen = Some((now, wall));
        if now >= self.wary_until {
            return ByAge::All;
        }
        let since = now.0.saturating_sub(self.tenth_from.get_or_insert(now).0);
        match since {
            0..ROUND_MS => ByAge::ATenth,
            ROUND_MS..TENTH_EVERY_MS => ByAge::Nothing,
            TENTH_EVERY_MS.. => {
                self.tenth_from = Some(now);
                ByAge::ATenth
            }
        }
    }
}

/// With a look a second, every replica's turn comes once a minute.
const LOOKS_PER_ROUND: usize = 60;
const ROUND_MS: u64 = 60_000;
const JUMP_MS: u64 = 3_600_000;
const WARY_MS: u64 = 24 * 3_600_000;
const TENTH_EVERY_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::ids::{PartitionId, TopicId};
    use uuid::Uuid;

    #[test]
    fn every_replica_has_its_turn_once_a_round() {
        let key = |n| TopicPartition::new(TopicId(Uuid::from_u128(1)), PartitionId(n));
        for count in [1, 59, 61, 300] {
            let replicas: BTreeMap<_, _> = (0..count).map(|n| (key(n), ())).collect();
            let mut rounds = Rounds::default();
            let mut seen = BTreeMap::new();
            for look in 0..60 {
                let (due, _) = rounds.next(Millis(look), Timestamp(look as i64), &replicas);
                assert!(due.len() <= replicas.len().div_ceil(60));
                for partition in due {
                    *seen.entry(partition).or_insert(0) += 1;
                }
            }
            assert_eq!(seen.len(), replicas.len());
        }
    }

    #[test]
    fn after_a_jump_of_the_clock_only_a_tenth_goes_within_an_hour() {
        const HOUR: u64 = 3_600_000;
        let mut clock = WallClock::default();
        let mut look = |now: u64, wall: i64| clock.look(Millis(now), Timestamp(wall));
        assert_eq!(look(0, 1_000_000), ByAge::All);
        assert_eq!(look(1_000, 1_001_000 + 3_599_000), ByAge::All);
        let jumped = 1_000_000 + 100 * HOUR as i64;
        assert_eq!(look(2_000, jumped), ByAge::ATenth);
        assert_eq!(look(63_000, jumped + 61_000), ByAge::Nothing);
        assert_eq!(look(2_000 + HOUR, jumped + HOUR as i64), ByAge::ATenth);
        assert_eq!(look(2_000 + 24 * HOUR, jumped + 24 * HOUR as i64), ByAge::All);
        // Back again is a jump as well.
        assert_eq!(look(3_000 + 24 * HOUR, jumped), ByAge::ATenth);
    }
}
