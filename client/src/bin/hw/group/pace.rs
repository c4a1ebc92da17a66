//! How fast a group catches up: two looks at where it was, and the time between them.

use std::fmt;
use std::time::Duration;

use highwater_client::{Offset, PartitionLag};

use crate::human;

/// What came and what was handled, in records a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Written to the partition.
    pub new: f64,
    /// Handled by the group, or trimmed before it was.
    pub handled: f64,
}

/// What happened between two looks.
pub fn between(before: &PartitionLag, now: &PartitionLag, time: Duration) -> Pace {
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
    use highwater_client::PartitionId;

    fn lag(committed: u64, end: u64) -> PartitionLag {
        PartitionLag {
            topic: "orders".into(),
            partition: PartitionId(0),
            committed: Some(Offset(committed)),
            start: Offset(0),
            end: Offset(end),
            owner: None,
        }
    }

    #[test]
    fn it_has_caught_up_when_it_handles_more_than_comes() {
        let ten = Duration::from_secs(10);
        let gains = between(&lag(0, 1_000), &lag(500, 1_200), ten);
        assert_eq!(gains, Pace { new: 20.0, handled: 50.0 });
        assert_eq!(drains(700, Some(gains)), Drains::In(24));
        let falls = between(&lag(0, 1_000), &lag(100, 1_200), ten);
        assert_eq!(drains(1_100, Some(falls)), Drains::Never);
        assert_eq!(drains(0, Some(falls)), Drains::Now);
        assert_eq!(drains(5, None), Drains::Never);
    }
}
