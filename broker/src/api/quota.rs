//! What a principal may write and read in a second, on this broker.
//!
//! Nothing is refused: what was taken has to be paid for in time before more is taken. Each principal has one
//! account for writing and one for reading, shared by its connections; a debt outlives them. The rates are settings
//! of the cluster and the same for all, and change while accounts are open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Api;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Records that are produced.
    Produce,
    /// Records that are fetched.
    Fetch,
}

/// When all that was taken so far is paid for. Pure: time is an argument.
#[derive(Debug, Default)]
struct Account {
    paid: Duration,
}

impl Account {
    /// Takes bytes, whatever is owed, and says how long the taker has to wait now.
    fn take(&mut self, now: Duration, bytes: u64, bytes_per_s: u64) -> Duration {
        // Who was silent may be ahead of the rate for a moment, and no longer.
        let from = self.paid.max(now.saturating_sub(SAVED_UP));
        let costs = Duration::from_secs_f64(bytes as f64 / bytes_per_s.max(1) as f64);
        // However many take at once: a debt that grew on would outlast the load that made it.
        self.paid = (from + costs.min(DEBT_MAX)).min(now + DEBT_MAX);
        self.owes(now)
    }

    fn owes(&self, now: Duration) -> Duration {
        self.paid.saturating_sub(now).min(DEBT_MAX)
    }
}

/// The accounts of one principal.
#[derive(Debug)]
pub struct Purse {
    opened: Instant,
    produce: Mutex<Account>,
    fetch: Mutex<Account>,
}

impl Purse {
    fn new() -> Purse {
        Purse { opened: Instant::now(), produce: Mutex::default(), fetch: Mutex::default() }
    }

    fn account(&self, way: Way) -> std::sync::MutexGuard<'_, Account> {
        let account = match way {
            Way::Produce => &self.produce,
            Way::Fetch => &self.fetch,
        };
        account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes, and says how long it is until they are paid for.
    pub fn take(&self, way: Way, bytes: u64, bytes_per_s: Option<u64>) -> Duration {
        let Some(bytes_per_s) = bytes_per_s else { return Duration::ZERO };
        self.account(way).take(self.opened.elapsed(), bytes, bytes_per_s)
    }

    /// How long it is until all is paid for.
    pub fn owes(&self, way: Way) -> Duration {
        self.account(way).owes(self.opened.elapsed())
    }
}

/// The purses of all principals that are connected, or owe something.
#[derive(Debug, Default)]
pub(super) struct Purses {
    by_principal: Mutex<BTreeMap<String, Arc<Purse>>>,
}

impl Purses {
    fn of(&self, principal: &str) -> Arc<Purse> {
        let mut all = self.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        let owes = |purse: &Purse| {
            [Way::Produce, Way::Fetch].iter().any(|way| !purse.owes(*way).is_zero())
        };
        all.retain(|_, purse| Arc::strong_count(purse) > 1 || owes(purse));
        all.entry(principal.to_owned()).or_insert_with(|| Arc::new(Purse::new())).clone()
    }
}

impl Api {
    /// The purse of a principal that is connecting.
    pub fn purse(&self, principal: &str) -> Arc<Purse> {
        self.purses.of(principal)
    }

    /// How many bytes a second a principal may move that way; `None` for any number.
    pub fn quota(&self, way: Way) -> Option<u64> {
        self.node.image().settings().quota(match way {
            Way::Produce => "quota.produce.rate",
            Way::Fetch => "quota.fetch.rate",
        })
    }
}

/// How much of the rate is saved up by silence.
const SAVED_UP: Duration = Duration::from_millis(500);
/// Nobody waits longer for a single request, and then pays no more for it: the client would give up.
const DEBT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1_000;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_is_taken_is_paid_for_at_the_rate() {
        let mut account = Account::default();
        assert_eq!(account.take(ms(10_000), 500, RATE), ms(0), "silence has saved that up");
        assert_eq!(account.take(ms(10_000), 100, RATE), ms(100));
        assert_eq!(account.owes(ms(10_060)), ms(40));
        assert_eq!(account.take(ms(10_100), 200, 2 * RATE), ms(100), "a new rate holds at once");
    }

    #[test]
    fn over_any_time_no_more_is_taken_than_the_rate_and_what_was_saved_up() {
        let (mut account, mut now, mut taken) = (Account::default(), ms(0), 0);
        while now < ms(60_000) {
            now += account.take(now, 70, RATE);
            taken += 70;
        }
        assert!((60_000..=60_700).contains(&taken), "{taken}");
    }

    #[test]
    fn one_request_is_never_waited_for_longer_than_a_client_would() {
        let mut account = Account::default();
        assert_eq!(account.take(ms(0), 1 << 40, RATE), DEBT_MAX);
        assert_eq!(account.owes(DEBT_MAX), ms(0));
    }

    #[tokio::test]
    async fn a_debt_outlives_its_connection_and_a_purse_without_one_does_not() {
        let purses = Purses::default();
        let rate = Some(RATE);
        purses.of("a").take(Way::Produce, 100_000, rate);
        drop(purses.of("b"));
        assert!(purses.of("a").owes(Way::Produce) > ms(0));
        assert_eq!(purses.of("c").owes(Way::Produce), ms(0));
        assert!(!purses.by_principal.lock().expect("nobody panics").contains_key("b"));
    }
}
