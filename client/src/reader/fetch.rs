//! A fetch under way.

use std::time::{Duration, Instant};

use super::budget::Reserved;

/// What it holds, and when others are asked about its leader.
pub(super) struct Fetch {
    _reserved: Reserved,
    /// Without an answer by then, others are asked who leads.
    probe_at: Instant,
    /// And again after this.
    probe_pause: Duration,
}

impl Fetch {
    /// A fetch that holds a part of the budget, and should be answered by then.
    pub(super) fn new(reserved: Reserved, due: Instant) -> Fetch {
        let probe_at = due + PROBE_AFTER;
        Fetch { _reserved: reserved, probe_at, probe_pause: PROBE_PAUSE }
    }

    pub(super) fn probe_at(&self) -> Instant {
        self.probe_at
    }

    /// Whether others are to be asked now: ever more rarely, for a leader may be silent because there is a quota for
    /// reading and what was read before is paid for in time.
    pub(super) fn is_silent(&mut self, now: Instant) -> bool {
        let silent = self.probe_at <= now;
        if silent {
            self.probe_at = now + self.probe_pause;
            self.probe_pause = (2 * self.probe_pause).min(PROBE_PAUSE_MAX);
        }
        silent
    }
}

/// How much longer than its `wait_max` a fetch may take before others are asked who leads.
const PROBE_AFTER: Duration = Duration::from_millis(200);
const PROBE_PAUSE: Duration = Duration::from_millis(100);
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::reader::budget::{Budget, Part};

    #[test]
    fn others_are_not_asked_all_the_time_about_a_leader_that_makes_a_reader_wait_for_its_quota() {
        let part = Part::of(Arc::new(Budget::new(1)));
        let reserved = part.reserve(1).expect("it is all there");
        let begun = Instant::now();
        let mut fetch = Fetch::new(reserved, begun);
        let every_10_ms = (0..500).map(|step| begun + step * Duration::from_millis(10));
        let asked = every_10_ms.filter(|now| fetch.is_silent(*now)).count();
        assert!((5..=8).contains(&asked), "{asked} times in five seconds, and soon at first");
    }
}
