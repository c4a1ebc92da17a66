//! What a principal may write and read in a second, on this broker.
//!
//! Nothing is refused: what was taken has to be paid for in time before more is taken. It is charged when it comes, so
//! that whatever comes behind waits; a batch that is then refused was not taken, and gets its price back. Each principal has one
//! account for writing and one for reading, shared by its connections; a debt outlives them. The rates are settings
//! of the cluster, or of a single client, and change while accounts are open.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_protocol::error::ErrorCode;
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

/// What was asked for something that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// How long it is until all that was taken is paid for.
    pub pause: Duration,
    /// By how much that became longer.
    price: Duration,
}

impl Charge {
    /// Where there is no quota.
    const NONE: Charge = Charge { pause: Duration::ZERO, price: Duration::ZERO };
}

/// When all that was taken so far is paid for. Pure: time is an argument.
#[derive(Debug, Default)]
struct Account {
    paid: Duration,
}

impl Account {
    /// Takes bytes, whatever is owed.
    fn take(&mut self, now: Duration, bytes: u64, bytes_per_s: u64) -> Charge {
        // Who was silent may be ahead of the rate for a moment, and no longer.
        let from = self.paid.max(now.saturating_sub(SAVED_UP));
        let costs = Duration::from_secs_f64(bytes as f64 / bytes_per_s.max(1) as f64);
        // However many take at once: a debt that grew on would outlast the load that made it.
        self.paid = (from + costs.min(DEBT_MAX)).min(now + DEBT_MAX);
        Charge { pause: self.owes(now), price: self.paid.saturating_sub(from) }
    }

    /// What was asked for something that was not taken after all.
    fn give_back(&mut self, charge: Charge) {
        self.paid = self.paid.saturating_sub(charge.price);
    }

    fn owes(&self, now: Duration) -> Duration {
        self.paid.saturating_sub(now).min(DEBT_MAX)
    }
}

/// The accounts of one principal.
#[derive(Debug)]
pub struct Purse {
    /// Its name, if it is a client.
    client: Option<String>,
    opened: Instant,
    produce: Mutex<Account>,
    fetch: Mutex<Account>,
}

impl Purse {
    fn new(client: Option<&str>) -> Purse {
        Purse {
            client: client.map(str::to_owned),
            opened: Instant::now(),
            produce: Mutex::default(),
            fetch: Mutex::default(),
        }
    }

    fn account(&self, way: Way) -> std::sync::MutexGuard<'_, Account> {
        let account = match way {
            Way::Produce => &self.produce,
            Way::Fetch => &self.fetch,
        };
        account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes, and says what is asked for them.
    pub fn take(&self, way: Way, bytes: u64, bytes_per_s: Option<u64>) -> Charge {
        let Some(bytes_per_s) = bytes_per_s else { return Charge::NONE };
        self.account(way).take(self.opened.elapsed(), bytes, bytes_per_s)
    }

    /// What was produced was refused with this: unless it may have been appended first, it costs nothing.
    pub fn refused(&self, charge: Charge, code: ErrorCode) {
        let taken = matches!(
            code,
            ErrorCode::Internal
                | ErrorCode::RequestTimedOut
                | ErrorCode::BrokerNotAvailable
                | ErrorCode::StorageFailed
                | ErrorCode::NotEnoughReplicasAfterAppend
                | ErrorCode::Superseded
        );
        if !taken {
            self.account(Way::Produce).give_back(charge);
        }
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
    fn of(&self, principal: &str, client: Option<&str>) -> Arc<Purse> {
        let mut all = self.by_principal.lock().unwrap_or_else(PoisonError::into_inner);
        let owes = |purse: &Purse| {
            [Way::Produce, Way::Fetch].iter().any(|way| !purse.owes(*way).is_zero())
        };
        all.retain(|_, purse| Arc::strong_count(purse) > 1 || owes(purse));
        all.entry(principal.to_owned()).or_insert_with(|| Arc::new(Purse::new(client))).clone()
    }
}

impl Api {
    /// The purse of a principal that is connecting, and which client it is, if it is one.
    pub fn purse(&self, principal: &str, client: Option<&str>) -> Arc<Purse> {
        self.purses.of(principal, client)
    }

    /// How many bytes a second a principal may move that way; `None` for any number.
    pub fn quota(&self, purse: &Purse, way: Way) -> Option<u64> {
        let name = match way {
            Way::Produce => "quota.produce.rate",
            Way::Fetch => "quota.fetch.rate",
        };
        self.node.image().settings().quota(purse.client.as_deref(), name)
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
        assert_eq!(account.take(ms(10_000), 500, RATE).pause, ms(0), "silence has saved that up");
        assert_eq!(account.take(ms(10_000), 100, RATE).pause, ms(100));
        assert_eq!(account.owes(ms(10_060)), ms(40));
        assert_eq!(
            account.take(ms(10_100), 200, 2 * RATE).pause,
            ms(100),
            "a new rate holds at once"
        );
    }

    #[test]
    fn over_any_time_no_more_is_taken_than_the_rate_and_what_was_saved_up() {
        let (mut account, mut now, mut taken) = (Account::default(), ms(0), 0);
        while now < ms(60_000) {
            now += account.take(now, 70, RATE).pause;
            taken += 70;
        }
        assert!((60_000..=60_700).contains(&taken), "{taken}");
    }

    #[test]
    fn one_request_is_never_waited_for_longer_than_a_client_would() {
        let mut account = Account::default();
        assert_eq!(account.take(ms(0), 1 << 40, RATE).pause, DEBT_MAX);
        assert_eq!(account.owes(DEBT_MAX), ms(0));
    }

    #[test]
    fn what_was_given_back_was_never_owed() {
        let mut account = Account::default();
        account.take(ms(10_000), 900, RATE);
        let refused = account.take(ms(10_000), 300, RATE);
        account.take(ms(10_100), 100, RATE);
        account.give_back(refused);
        assert_eq!(
            account.owes(ms(10_100)),
            ms(400),
            "900 and 100, less 500 saved up and 100 paid"
        );
        let most = account.take(ms(10_100), 1 << 40, RATE);
        let more = account.take(ms(10_100), 1 << 40, RATE);
        account.give_back(more);
        assert_eq!(account.owes(ms(10_100)), DEBT_MAX, "beyond the most it was free");
        account.give_back(most);
        assert_eq!(account.owes(ms(10_100)), ms(400));
    }

    #[tokio::test]
    async fn a_batch_that_is_refused_costs_nothing_unless_it_may_have_been_appended() {
        let purse = Purse::new(None);
        let charge = purse.take(Way::Produce, 100_000, Some(RATE));
        purse.refused(charge, ErrorCode::RequestTimedOut);
        assert!(purse.owes(Way::Produce) > ms(0));
        purse.refused(charge, ErrorCode::NotLeader);
        assert_eq!(purse.owes(Way::Produce), ms(0));
    }

    #[tokio::test]
    async fn a_debt_outlives_its_connection_and_a_purse_without_one_does_not() {
        let purses = Purses::default();
        let rate = Some(RATE);
        purses.of("a", None).take(Way::Produce, 100_000, rate);
        drop(purses.of("b", None));
        assert!(purses.of("a", None).owes(Way::Produce) > ms(0));
        assert_eq!(purses.of("c", None).owes(Way::Produce), ms(0));
        assert!(!purses.by_principal.lock().expect("nobody panics").contains_key("b"));
    }
}
