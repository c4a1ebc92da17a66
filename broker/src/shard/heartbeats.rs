//! The heartbeat round of a shard: one instant for all groups, so that all heartbeats to a peer
//! leave in one message.
//!
//! Shards are staggered against each other by their seeds, groups within a shard are not. A round
//! that comes late (the process was paused) is not made up for.

use crate::raft::Millis;

/// When leaders next show that they live.
#[derive(Debug)]
pub struct HeartbeatRound {
    every_ms: u64,
    next: Millis,
}

impl HeartbeatRound {
    /// The first round lies within one interval from now.
    pub fn new(now: Millis, every_ms: u64, seed: u64) -> HeartbeatRound {
        assert!(every_ms > 0, "heartbeats without pause would be a storm");
        HeartbeatRound { every_ms, next: Millis(now.0 + seed % every_ms) }
    }

    /// Whether the round is due; if so, the next one is scheduled.
    pub fn is_due(&mut self, now: Millis) -> bool {
        if now < self.next {
            return false;
        }
        let missed = (now.0 - self.next.0) / self.every_ms;
        self.next = Millis(self.next.0 + (missed + 1) * self.every_ms);
        true
    }

    /// How much time lies between two rounds.
    pub fn every_ms(&self) -> u64 {
        self.every_ms
    }

    /// When the next round is.
    pub fn next(&self) -> Millis {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_keep_their_beat_and_missed_ones_are_not_made_up_for() {
        let mut round = HeartbeatRound::new(Millis(1000), 100, 30);
        assert!(!round.is_due(Millis(1029)));
        assert!(round.is_due(Millis(1035)));
        assert_eq!(round.next(), Millis(1130));
        assert!(round.is_due(Millis(9000)));
        assert_eq!(round.next(), Millis(9030));
        assert!(!round.is_due(Millis(9000)));
    }
}
