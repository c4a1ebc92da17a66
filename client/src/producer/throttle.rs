//! Brokers that asked for a pause: nothing is sent to them until it is over, and their silence meanwhile says nothing.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater_protocol::ids::NodeId;
use highwater_protocol::native::produce::{ProduceResponse, Receipt};

/// Until when each broker wants nothing more.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    until: Mutex<HashMap<NodeId, Instant>>,
}

impl Throttles {
    /// Takes the receipt out of an answer, and heeds it if it asks for a pause.
    pub(super) fn heed(&self, node: NodeId, answer: &ProduceResponse) -> Receipt {
        let ProduceResponse { receipt, throttle_ms } = *answer;
        if throttle_ms > 0 {
            let until = Instant::now() + Duration::from_millis(throttle_ms.into()).min(PAUSE_MAX);
            self.until.lock().unwrap_or_else(PoisonError::into_inner).insert(node, until);
        }
        receipt
    }

    /// When that is over, if it is not.
    pub(super) fn until(&self, node: NodeId, now: Instant) -> Option<Instant> {
        self.over(node).filter(|until| *until > now)
    }

    /// When the last pause of a broker is over, or was.
    pub(super) fn over(&self, node: NodeId) -> Option<Instant> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }
}

/// A broker is not believed that asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(10);
