//! Watches a run from beside it: a line per second, the counters at both ends of the window, and
//! Ctrl-C, which ends the run early with a report of what was measured until then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::consume;
use crate::machine::{Sample, Use};
use crate::produce::{Live, Plan};
use crate::settings::Common;

/// A watch over a run of producers.
#[derive(Debug)]
pub struct Probe {
    task: JoinHandle<Watched>,
    finish: Arc<tokio::sync::Notify>,
    broker_pids: Vec<u32>,
}

impl Probe {
    /// Begins to watch.
    pub fn start(
        plan: &Plan,
        common: &Common,
        live: Arc<Live>,
        consumer: Option<Arc<consume::Live>>,
    ) -> Probe {
        let finish = Arc::new(tokio::sync::Notify::new());
        let watcher = Watcher {
            plan: plan.clone(),
            broker_pids: common.broker_pids.clone(),
            quiet: common.quiet,
            live,
            consumer,
        };
        let task = tokio::spawn(watcher.run(Arc::clone(&finish)));
        Probe { task, finish, broker_pids: common.broker_pids.clone() }
    }

    /// What was used within the window, in which `records` were acknowledged.
    pub async fn finish(self, records: u64) -> Use {
        self.finish.notify_one();
        let now = || Reading::now(&self.broker_pids);
        let Watched { before, after } =
            self.task.await.unwrap_or_else(|_broken| Watched { before: now(), after: None });
        let after = after.unwrap_or_else(now);
        after.sample.since(&before.sample, (after.at - before.at).as_secs_f64(), records)
    }
}

/// The counters at both ends of the window; the run may be over before its end.
#[derive(Debug)]
struct Watched {
    before: Reading,
    after: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    sample: Sample,
    at: Instant,
}

impl Reading {
    fn now(broker_pids: &[u32]) -> Reading {
        Reading { sample: Sample::read(broker_pids), at: Instant::now() }
    }
}

struct Watcher {
    plan: Plan,
    broker_pids: Vec<u32>,
    quiet: bool,
    live: Arc<Live>,
    consumer: Option<Arc<consume::Live>>,
}

impl Watcher {
    async fn run(self, finish: Arc<tokio::sync::Notify>) -> Watched {
        let read = || Reading::now(&self.broker_pids);
        let mut before = read();
        let mut after = None;
        let window = self.plan.window();
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        let mut began = false;
        let mut shown = (Instant::now(), 0, 0);
        loop {
            tokio::select! {
                () = finish.notified() => return Watched { before, after },
                Ok(()) = tokio::signal::ctrl_c() => {
                    eprintln!("stopping; what is under way is waited for");
                    self.live.stop.store(true, Ordering::Relaxed);
                }
                _ = tick.tick() => {}
            }
            let now = self.plan.clock.now();
            if !began && now >= window.start {
                before = read();
                began = true;
            }
            if after.is_none() && now >= window.end {
                after = Some(read());
            }
            if !self.quiet && shown.0.elapsed() >= Duration::from_secs(1) {
                shown = self.show(shown);
            }
        }
    }

    fn show(&self, (since, acked, received): (Instant, u64, u64)) -> (Instant, u64, u64) {
        let seconds = since.elapsed().as_secs_f64();
        let acked_now = self.live.acked.load(Ordering::Relaxed);
        let sent = self.live.sent.load(Ordering::Relaxed);
        let failed = self.live.failed.load(Ordering::Relaxed);
        let read = self.consumer.as_ref().map(|live| live.received.load(Ordering::Relaxed));
        let mut words = format!(
            "{:6.1} s  {:8.0} acks/s  {:7} under way",
            self.plan.clock.now().since(self.plan.start) as f64 / 1e9,
            (acked_now - acked) as f64 / seconds,
            sent.saturating_sub(acked_now)
        );
        if let Some(read) = read {
            words += &format!("  {:8.0} reads/s", (read - received) as f64 / seconds);
        }
        if failed > 0 {
            words += &format!("  {failed} failed");
        }
        eprintln!("{words}");
        (Instant::now(), acked_now, read.unwrap_or(0))
    }
}
