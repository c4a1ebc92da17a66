//! Watches that learners are sent no more than the throttle lets through, whoever leads them and
//! however often their leader looks.
//!
//! A level that falls by the rate and rises by what is sent: the throttle saves up a quarter of a
//! second, and its last frame may go into debt. So nothing is sent at a level above that quarter; a
//! leader's bucket begins empty, this level at its best, and so it is never the stricter one.

use std::collections::BTreeMap;

use highwater_protocol::ids::{NodeId, Term, TopicPartition};

use crate::raft::Millis;
use crate::sim::checker::{Broken, Checked};

/// One stint of leading a learner: who, in which life and term, whom.
pub type Stint = (NodeId, u64, TopicPartition, Term, NodeId);

/// The levels of all stints.
#[derive(Debug, Default)]
pub struct Throttled {
    /// Thousandths of bytes, and when they stood so.
    levels: BTreeMap<Stint, (i64, Millis)>,
}

impl Throttled {
    /// So many bytes are sent to a learner, now by its leader's clock, while the rate is this one.
    pub fn sent(&mut self, stint: Stint, now: Millis, rate: u64, bytes: usize) -> Checked {
        let rate = rate as i64;
        let (level, at) = self.levels.entry(stint).or_insert((0, now));
        let passed_ms = now.0.saturating_sub(at.0) as i64;
        *level = (*level - rate.saturating_mul(passed_ms)).max(0);
        *at = now;
        if *level > rate * SAVED_MS {
            let above = *level / 1_000;
            let (_, _, partition, _, to) = stint;
            return Err(Broken {
                invariant: "T1: learners are sent no more than the throttle lets through",
                detail: format!(
                    "{partition}: broker {to} is sent {bytes} bytes at {rate} B/s, {above} above"
                ),
            });
        }
        *level += bytes as i64 * 1_000;
        Ok(())
    }

    /// Who votes, or is no member any more, is not held back.
    pub fn free(&mut self, stint: Stint) {
        self.levels.remove(&stint);
    }
}

/// What the throttle saves up.
const SAVED_MS: i64 = 250;
