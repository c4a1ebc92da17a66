//! Telling the driver when the program was last here: one that stays away for too long is taken for stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::Consumer;
use super::driver::Word;

/// The program is here: it is not stuck.
pub(super) struct Polling {
    polled: Arc<AtomicU64>,
    begun: Instant,
}

impl Polling {
    pub fn begin(consumer: &Consumer) -> Polling {
        let (polled, begun) = (consumer.polled.clone(), consumer.begun);
        let away_since = polled.swap(WAITING, Ordering::Relaxed);
        let patience = consumer.config.rebalance_timeout.as_millis();
        if begun.elapsed().as_millis().saturating_sub(away_since.into()) >= patience {
            // The driver may have taken it for stuck.
            let _ = consumer.words.send(Word::Polled);
        }
        Polling { polled, begun }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        let now = self.begun.elapsed().as_millis();
        self.polled.store(u64::try_from(now).unwrap_or(WAITING), Ordering::Relaxed);
    }
}

/// The program waits for records.
pub(super) const WAITING: u64 = u64::MAX;
