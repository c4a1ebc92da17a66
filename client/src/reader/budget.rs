//! The bound on bytes that were fetched and not yet read, or are being fetched, and each leader's share of it.
//!
//! One budget may be that of several fetchers: of a consumer that reads several topics each has one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Bytes that a reader may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: Mutex<Used>,
    freed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Used {
    /// Fetched and not read.
    held: usize,
    /// What fetches under way may bring.
    reserved: usize,
    /// Leaders that are asked, by whichever fetcher.
    leaders: usize,
}

/// A fetcher's part in a budget.
#[derive(Debug)]
pub(super) struct Part {
    budget: Arc<Budget>,
    freed: watch::Receiver<()>,
    leaders: usize,
}

/// Bytes that a fetch under way may bring; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    budget: Arc<Budget>,
    pub(super) bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Budget {
        Budget { bytes_max, used: Mutex::default(), freed: watch::Sender::new(()) }
    }

    /// The reader has taken this many bytes.
    pub(crate) fn release(&self, bytes: usize) {
        self.lock().held -= bytes;
        self.freed.send_replace(());
    }

    /// So many bytes were fetched.
    pub(crate) fn hold(&self, bytes: usize) {
        self.lock().held += bytes;
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    pub(super) fn of(budget: Arc<Budget>) -> Part {
        let freed = budget.freed.subscribe();
        Part { budget, freed, leaders: 0 }
    }

    /// How much of what has come may be unpacked; something, where nothing waits to be read.
    pub(super) fn room(&self) -> usize {
        match self.budget.lock().held {
            0 => self.budget.bytes_max.max(1),
            held => self.budget.bytes_max.saturating_sub(held),
        }
    }

    pub(super) fn hold(&self, bytes: usize) {
        self.budget.hold(bytes);
    }

    /// Waits until some was released or given back.
    pub(super) async fn freed(&mut self) {
        self.freed.changed().await.expect("the budget, which we hold, has the other end");
    }

    /// How many leaders this fetcher asks from now on.
    pub(super) fn asks(&mut self, leaders: usize) {
        let mut used = self.budget.lock();
        used.leaders = used.leaders - self.leaders + leaders;
        self.leaders = leaders;
    }

    /// How much the next fetch may bring, if it is worth fetching at all. A fetch that waits for
    /// records keeps its share reserved, so the shares of all leaders, of all fetchers, must fit in together, or the
    /// last leader would never be asked.
    pub(super) fn reserve(&self, whole: usize) -> Option<Reserved> {
        let Budget { bytes_max, .. } = *self.budget;
        let mut used = self.budget.lock();
        let whole = whole.min(bytes_max / used.leaders.max(1)).max(1);
        let taken = used.held + used.reserved;
        let left = bytes_max.saturating_sub(taken);
        // Small leftovers make small fetches; rather wait until half a fetch fits.
        let worth = left >= whole.div_ceil(2) || taken == 0;
        worth.then(|| {
            let bytes = left.clamp(1, whole);
            used.reserved += bytes;
            Reserved { budget: self.budget.clone(), bytes }
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.asks(0);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.lock().reserved -= self.bytes;
        self.budget.freed.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(bytes_max: usize, leaders: usize) -> Part {
        let mut part = Part::of(Arc::new(Budget::new(bytes_max)));
        part.asks(leaders);
        part
    }

    #[test]
    fn the_shares_of_all_leaders_fit_in_together() {
        for leaders in [1, 4, 5, 7, 32] {
            let part = part(32, leaders);
            let share = || part.reserve(8).expect("a share for each");
            let shares: Vec<Reserved> = (0..leaders).map(|_| share()).collect();
            let reserved: usize = shares.iter().map(|share| share.bytes).sum();
            assert!(reserved <= 32, "{leaders} leaders reserved {reserved}");
        }
    }

    #[test]
    fn the_shares_of_all_topics_fit_in_together() {
        let one = part(32, 3);
        let mut other = Part::of(one.budget.clone());
        other.asks(5);
        let shares: Vec<Reserved> = [&one; 3]
            .into_iter()
            .chain([&other; 5])
            .map(|part| part.reserve(32).expect("a share for each"))
            .collect();
        assert_eq!(shares.iter().map(|share| share.bytes).sum::<usize>(), 32);
        assert!(one.reserve(32).is_none(), "that is all there is, for both");
        drop(other);
        drop(shares);
        assert_eq!(one.reserve(32).expect("all is free").bytes, 10, "a third, without the other");
    }

    #[test]
    fn a_reader_that_does_not_read_is_not_fetched_for() {
        let part = part(32, 1);
        part.hold(29);
        assert!(part.reserve(8).is_none());
        part.budget.release(2);
        assert_eq!(part.reserve(8).expect("half a fetch fits").bytes, 5);
    }

    #[tokio::test]
    async fn every_fetcher_hears_that_there_is_room_again() {
        let mut one = part(32, 1);
        let mut other = Part::of(one.budget.clone());
        drop(one.reserve(8));
        one.freed().await;
        other.freed().await;
    }
}
