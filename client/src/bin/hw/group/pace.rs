//! How fast a group catches up: two looks at where it was, and the time between them.

use std::fmt;
use std::time::Duration;

use highwater_client::Offset;

use crate::human;

/// Where a group is in one partition.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// What it committed last.
    pub committed: Option<Offset>,
    /// Where the partition starts.
    pub start: Offset,
    /// Where it ends.
    pub end: Offset,
}

impl Place {
    /// What it handles next. What was never committed counts from the oldest record.
    pub fn next(self) -> Offset {
        self.committed.map_or(self.start, |committed| committed.max(self.start))
    }

    /// How many records it has not handled.
    pub fn lag(self) -> u64 {
        self.end.0.saturating_sub(self.next().0)
    }
}

/// What came and what was handled, in records a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Written to the partition.
    pub new: f64,
    /// Handled by the group, or trimmed before it was.
    pub handled: f64,
}

/// What happened between two looks.
pub fn between(before: Place, now: Place, time: Duration) -> Pace {
    let seconds = time.as_secs_f64().max(1e-3);
    let rate = |from: Offset, to: Offset| to.0.saturating_sub(from.0) as f64 / seconds;
    Pace { new: rate(before.end, now.end), handled: rate(before.next(), now.next()) }
}

/// When a group will have caught up, if all goes on like this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drains {
    /// It has.
    Now,
    /// In so many seconds.
    In(u64),
    /// It falls behind, or does not move.
    Never,
}

/// When a partition has no lag any more at this pace.
pub fn drains(lag: u64, pace: Option<Pace>) -> Drains {
    let gains = pace.map_or(0.0, |pace| pace.handled - pace.new);
    match lag {
        0 => Drains::Now,
        _ if gains <= 0.0 => Drains::Never,
        _ => Drains::In((lag as f64 / gains).ceil() as u64),
    }
}

impl Drains {
    /// For programs: null for never.
    pub fn seconds(self) -> Option<u64> {
        match self {
            Drains::Now => Some(0),
            Drains::In(seconds) => Some(seconds),
            Drains::Never => None,
        }
    }
}

impl fmt::Display for Drains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drains::Now => f.write_str("0s"),
            Drains::In(seconds) => f.write_str(&human::seconds(*seconds)),
            Drains::Never => f.write_str("never, at this pace"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(committed: Option<u64>, start: u64, end: u64) -> Place {
        Place { committed: committed.map(Offset), start: Offset(start), end: Offset(end) }
    }

    #[test]
    fn what_was_never_committed_or_is_trimmed_counts_from_the_start() {
        assert_eq!(place(None, 40, 100).lag(), 60);
        assert_eq!(place(Some(10), 40, 100).lag(), 60);
        assert_eq!(place(Some(90), 40, 100).lag(), 10);
    }

    #[test]
    fn it_has_caught_up_when_it_handles_more_than_comes() {
        let ten = Duration::from_secs(10);
        let gains = between(place(Some(0), 0, 1_000), place(Some(500), 0, 1_200), ten);
        assert_eq!(gains, Pace { new: 20.0, handled: 50.0 });
        assert_eq!(drains(700, Some(gains)), Drains::In(24));
        let falls = between(place(Some(0), 0, 1_000), place(Some(100), 0, 1_200), ten);
        assert_eq!(drains(1_100, Some(falls)), Drains::Never);
        assert_eq!(drains(0, Some(falls)), Drains::Now);
        assert_eq!(drains(5, None), Drains::Never);
    }
}
