//! Looking through the replicas for what their topics no longer keep, a few at a time, and whether
//! the wall clock is to be trusted with it.
//!
//! Deleting means flushing and unlinking on the shard's thread, so a look takes a sixtieth of
//! the replicas. A wall clock that jumps by more than an hour against the steady one makes wary for a
//! day: then `retention.ms` gives up no more than a tenth of a partition within an hour, so that
//! somebody has the time to notice. A clock that jumped while no broker ran goes unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use highwater_protocol::ids::{Timestamp, TopicPartition};

use super::event::Millis;
use crate::mutant::{self, Mutant};
use crate::replica::ByAge;

/// Where the rounds stand.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The replica looked at last.
    last: Option<TopicPartition>,
    clock: WallClock,
    /// Who had a tenth given up in this hour, while wary. Where there are few replicas, each has its turn
    /// every other second.
    had_tenth: BTreeSet<TopicPartition>,
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
    /// The replicas whose turn it is, and how far `retention.ms` may go with each.
    pub(super) fn next<T>(
        &mut self,
        now: Millis,
        wall: Timestamp,
        replicas: &BTreeMap<TopicPartition, T>,
    ) -> Vec<(TopicPartition, ByAge)> {
        let hour = self.clock.tenth_from;
        let by_age = self.clock.look(now, wall);
        if self.clock.tenth_from != hour {
            self.had_tenth.clear();
        }
        let count = replicas.len().div_ceil(LOOKS_PER_ROUND);
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let due: Vec<TopicPartition> =
            replicas.range((from, Bound::Unbounded)).take(count).map(|(key, _)| *key).collect();
        // Past the end, the next look begins at the first again.
        self.last = due.last().copied().filter(|_| due.len() == count);
        due.into_iter().map(|partition| (partition, self.allowed(partition, by_age))).collect()
    }

    fn allowed(&mut self, partition: TopicPartition, by_age: ByAge) -> ByAge {
        match by_age {
            ByAge::ATenth if mutant::active(Mutant::TenthEachLook) => ByAge::ATenth,
            ByAge::ATenth if !self.had_tenth.insert(partition) => ByAge::Nothing,
            ByAge::All | ByAge::ATenth | ByAge::Nothing => by_age,
        }
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
                // A clock that goes back and forth begins no new hour each time.
                self.wary_until = Millis(now.0.saturating_add(WARY_MS));
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
                let due = rounds.next(Millis(look), Timestamp(look as i64), &replicas);
                assert!(due.len() <= replicas.len().div_ceil(60));
                for (partition, _) in due {
                    *seen.entry(partition).or_insert(0) += 1;
                }
            }
            assert_eq!(seen.len(), replicas.len());
        }
    }

    /// The most tenths that one of so many replicas gives up in the two hours after a jump by a day, with a look
    /// each second; from the tenth minute on the clock jumps back and forth.
    fn tenths_after_a_jump(replicas: u32) -> usize {
        let key = |n| TopicPartition::new(TopicId(Uuid::from_u128(1)), PartitionId(n));
        let replicas: BTreeMap<_, _> = (0..replicas).map(|n| (key(n), ())).collect();
        let mut rounds = Rounds::default();
        let mut tenths = BTreeMap::new();
        let day = 24 * 3_600_000;
        rounds.next(Millis(0), Timestamp(day), &replicas);
        for look in 1..7_200_i64 {
            let jumped = if look > 600 && look % 2 == 0 { 0 } else { day };
            let wall = Timestamp(day + jumped + look * 1_000);
            for (partition, by_age) in rounds.next(Millis(look as u64 * 1_000), wall, &replicas) {
                assert_ne!(by_age, ByAge::All, "wary for a day");
                *tenths.entry(partition).or_insert(0) += usize::from(by_age == ByAge::ATenth);
            }
        }
        tenths.into_values().max().expect("there are replicas")
    }

    #[test]
    fn a_tenth_goes_once_an_hour_however_few_replicas_there_are_and_however_often_the_clock_jumps()
    {
        for replicas in [1, 2, 59, 61, 300] {
            assert_eq!(tenths_after_a_jump(replicas), 2, "{replicas} replicas");
        }
    }

    #[cfg(feature = "mutants")]
    #[test]
    fn a_tenth_at_each_look_is_found_by_a_script() {
        mutant::choose(Some(Mutant::TenthEachLook));
        let tenths = tenths_after_a_jump(1);
        mutant::choose(None);
        assert!(tenths > 2, "{tenths}");
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
