//! The bound on bytes that were fetched and not yet read, and each leader's share of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes that a reader may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    held: AtomicUsize,
    freed: Notify,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, held: AtomicUsize::new(0), freed: Notify::new() }
    }

    /// The reader has taken this many bytes.
    pub(crate) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        self.freed.notify_one();
    }

    /// How much of what has come may be unpacked; something, where nothing waits to be read.
    pub(super) fn room(&self) -> usize {
        match self.held.load(Ordering::Acquire) {
            0 => self.bytes_max.max(1),
            held => self.bytes_max.saturating_sub(held),
        }
    }

    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Waits until some was released.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    /// How much the next fetch may bring, if it is worth fetching at all, beside what others have
    /// reserved. A fetch that waits for records keeps its share reserved, so the shares of all
    /// leaders must fit in together, or the last leader would never be asked.
    pub(super) fn share(&self, leaders: usize, whole: usize, reserved: usize) -> Option<usize> {
        let whole = whole.min(self.bytes_max / leaders.max(1)).max(1);
        let taken = self.held.load(Ordering::Acquire) + reserved;
        let left = self.bytes_max.saturating_sub(taken);
        // Small leftovers make small fetches; rather wait until half a fetch fits.
        let worth = left >= whole.div_ceil(2) || taken == 0;
        worth.then_some(left.clamp(1, whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_leaders_fit_in_together() {
        let budget = Budget::new(32);
        for leaders in [1, 4, 5, 7, 32] {
            let mut reserved = 0;
            for _ in 0..leaders {
                reserved += budget.share(leaders, 8, reserved).expect("a share for each");
            }
            assert!(reserved <= 32, "{leaders} leaders reserved {reserved}");
        }
    }

    #[test]
    fn a_reader_that_does_not_read_is_not_fetched_for() {
        let budget = Budget::new(32);
        budget.hold(29);
        assert_eq!(budget.share(1, 8, 0), None);
        budget.release(2);
        assert_eq!(budget.share(1, 8, 0), Some(5));
    }
}
