//! Brokers that asked for a pause: nothing is sent to them until it is over, and their silence meanwhile says nothing.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use highwater_protocol::ids::NodeId;
use highwater_protocol::native::produce::{ProduceResponse, Receipt};

/// What pauses each broker has asked for.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    pauses: Mutex<HashMap<NodeId, Pauses>>,
}

/// Pauses of one broker with hardly anything between them.
#[derive(Debug, Clone, Copy)]
struct Pauses {
    since: Instant,
    until: Instant,
    /// How much of the time from `since` to `until`.
    total: Duration,
}

impl Throttles {
    /// Takes the receipt out of an answer, and heeds it if it asks for a pause.
    pub(super) fn heed(&self, node: NodeId, answer: &ProduceResponse, now: Instant) -> Receipt {
        let ProduceResponse { receipt, throttle_ms } = *answer;
        let pause = Duration::from_millis(throttle_ms.into()).min(PAUSE_MAX);
        if !pause.is_zero() {
            let fresh = Pauses { since: now, until: now, total: Duration::ZERO };
            let mut all = self.lock();
            let pauses = all.entry(node).or_insert(fresh);
            if now > pauses.until + BETWEEN_MAX {
                *pauses = fresh;
            }
            let until = pauses.until.max(now + pause);
            pauses.total += until - pauses.until.max(now);
            pauses.until = until;
        }
        receipt
    }

    /// When that is over, if it is not.
    pub(super) fn until(&self, node: NodeId, now: Instant) -> Option<Instant> {
        self.over(node).filter(|until| *until > now)
    }

    /// When the last pause of a broker is over, or was.
    pub(super) fn over(&self, node: NodeId) -> Option<Instant> {
        self.lock().get(&node).map(|pauses| pauses.until)
    }

    /// Why what was begun at `since` has not gone through, in words, if it was mostly for pauses of this broker, or of
    /// any.
    pub(super) fn blame(
        &self,
        node: Option<NodeId>,
        since: Instant,
        now: Instant,
    ) -> Option<String> {
        let all = self.lock();
        let about = |(id, pauses): &(&NodeId, &Pauses)| {
            node.is_none_or(|node| node == **id) && pauses.until > since
        };
        let (node, pauses) = all.iter().filter(about).max_by_key(|(_, pauses)| pauses.total)?;
        // The last pause may not be over.
        let paused = pauses.total.saturating_sub(pauses.until.saturating_duration_since(now));
        let (paused, of) = (paused.as_secs_f64(), now.duration_since(pauses.since).as_secs_f64());
        let mostly = 2.0 * paused >= of;
        mostly.then(|| format!(
            "node {node} had this producer pause for {paused:.1} s of the last {of:.1} s, because its principal writes more than \
             its quota: send less, or raise it with `hw quota set NAME --produce SIZE`"
        ))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Pauses>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A broker is not believed that asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// After this long without a pause, a new one has another cause.
const BETWEEN_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{Offset, Term};

    use super::*;

    fn asks(throttle_ms: u32) -> ProduceResponse {
        let (base_offset, term) = (Offset(0), Term(1));
        let receipt = Receipt { base_offset, term, replicas: 1, flushed: 1, log_append_time: None };
        ProduceResponse { receipt, throttle_ms }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_that_overlap_count_once_and_the_quota_is_named_with_the_way_out() {
        let (throttles, begun) = (Throttles::default(), Instant::now());
        throttles.heed(NodeId(2), &asks(5_000), begun);
        throttles.heed(NodeId(2), &asks(5_000), begun + SECOND);
        throttles.heed(NodeId(2), &asks(2_000), begun + 7 * SECOND);
        let why = throttles.blame(Some(NodeId(2)), begun, begun + 10 * SECOND);
        let why = why.expect("it was throttled");
        assert!(
            why.contains("node 2 had this producer pause for 8.0 s of the last 10.0 s"),
            "{why}"
        );
        assert!(why.contains("hw quota set NAME --produce SIZE"), "{why}");
    }

    #[test]
    fn who_was_not_throttled_meanwhile_is_not_told_of_quotas() {
        let (throttles, begun) = (Throttles::default(), Instant::now());
        throttles.heed(NodeId(1), &asks(0), begun);
        throttles.heed(NodeId(2), &asks(1_000), begun);
        let later = begun + 2 * SECOND;
        assert_eq!(throttles.blame(Some(NodeId(1)), begun, later), None);
        assert_eq!(throttles.blame(Some(NodeId(2)), later, later), None, "it is over");
        assert!(throttles.blame(None, begun, later).is_some());
        throttles.heed(NodeId(3), &asks(20), begun);
        let much_later = begun + 30 * SECOND;
        assert_eq!(throttles.blame(Some(NodeId(3)), begun, much_later), None, "it was hardly that");
    }
}
