//! Who is away: whether the program, or one of its workers, asks for records and news, and since when not.
//!
//! The driver looks here. Whether something waits does not count: only who asks hears which partitions come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Consumer;
use super::driver::Word;
use super::membership::Ms;
use crate::reader::Budget;

/// What the program's side tells the driver without a word.
#[derive(Debug)]
pub(super) struct Presence {
    pub begun: Instant,
    /// When the program was last here, in milliseconds since `begun`; `HERE` while it is.
    polled: AtomicU64,
    /// Since when the worker that is away the longest is; `HERE` where none is.
    workers_away: AtomicU64,
    /// What was fetched and not taken is held there.
    pub budget: Arc<Budget>,
}

impl Presence {
    /// The program is here last when it begins.
    pub fn new(prefetch_bytes_max: usize) -> Presence {
        Presence {
            begun: Instant::now(),
            polled: AtomicU64::new(0),
            workers_away: AtomicU64::new(HERE),
            budget: Arc::new(Budget::new(prefetch_bytes_max)),
        }
    }

    pub fn now(&self) -> Ms {
        ms(self.begun.elapsed())
    }

    /// Since when somebody is away.
    pub fn away_since(&self) -> Option<Ms> {
        let (program, workers) = (&self.polled, &self.workers_away);
        let since = program.load(Ordering::Relaxed).min(workers.load(Ordering::Relaxed));
        Some(since).filter(|since| *since != HERE)
    }

    /// Since when the worker that is away the longest is.
    pub fn set_workers_away(&self, since: Option<Instant>) {
        let since = since.map_or(HERE, |since| ms(since.saturating_duration_since(self.begun)));
        self.workers_away.store(since, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub fn has_workers_away(&self) -> bool {
        self.workers_away.load(Ordering::Relaxed) != HERE
    }

    #[cfg(test)]
    pub fn set_polled(&self, at: Ms) {
        self.polled.store(at, Ordering::Relaxed);
    }
}

/// The program is here: it is not stuck.
pub(super) struct Polling {
    presence: Arc<Presence>,
}

impl Polling {
    pub fn begin(consumer: &Consumer) -> Polling {
        let presence = consumer.presence.clone();
        let away_since = presence.polled.swap(HERE, Ordering::Relaxed);
        if presence.now().saturating_sub(away_since) >= patience(consumer.config.poll_interval_max)
        {
            // The driver may have taken it for stuck, and need not find out by itself that it is not.
            let _ = consumer.words.send(Word::Polled);
        }
        Polling { presence }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.presence.polled.store(self.presence.now(), Ordering::Relaxed);
    }
}

/// For how long somebody may be away.
pub(super) fn patience(poll_interval_max: Duration) -> Ms {
    ms(poll_interval_max).min(Ms::MAX / 2)
}

fn ms(time: Duration) -> Ms {
    Ms::try_from(time.as_millis()).unwrap_or(Ms::MAX / 2)
}

/// Nobody is away.
const HERE: Ms = Ms::MAX;
