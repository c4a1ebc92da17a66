//! The scrub: reads all that this broker holds, slowly and again and again, so that what has rotted is
//! found while other replicas still have it.
//!
//! A thread of its own, because it waits for the disk; no more than so many bytes a second, so that
//! nobody else waits for it. What it finds it leaves to the replicas, which mend it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use highwater_protocol::ids::TopicPartition;
use tracing::{info, warn};

use crate::log::ScrubPlace;
use crate::metrics::Metrics;
use crate::node::Routes;

/// A running scrub.
pub(super) struct Scrub {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// What the thread needs.
struct Scrubber {
    routes: Routes,
    metrics: Arc<Metrics>,
    bytes_per_s: u64,
    stopping: Receiver<()>,
}

/// Told to stop.
struct Stopped;

impl Scrub {
    /// Starts it, unless nothing is to be read.
    pub(super) fn start(
        routes: Routes,
        metrics: Arc<Metrics>,
        bytes_per_s: u64,
    ) -> io::Result<Option<Scrub>> {
        if bytes_per_s == 0 {
            return Ok(None);
        }
        let (stop, stopping) = bounded(1);
        let scrubber = Scrubber { routes, metrics, bytes_per_s, stopping };
        let thread = thread::Builder::new()
            .name("scrub".to_owned())
            .spawn(move || while let Ok(()) = scrubber.pass() {})?;
        Ok(Some(Scrub { stop, thread }))
    }

    /// Ends it within a step. Blocks.
    pub(super) fn stop(self) {
        let _ = self.stop.try_send(());
        if self.thread.join().is_err() {
            warn!("the scrub had ended before");
        }
    }
}

impl Scrubber {
    /// Reads everything once; returns when the next pass is due.
    fn pass(&self) -> Result<(), Stopped> {
        let began = Instant::now();
        let (mut bytes, mut faulty) = (0, 0);
        for partition in self.routes.open_replicas() {
            let (read, found) = self.read(partition)?;
            (bytes, faulty) = (bytes + read, faulty + found);
        }
        self.metrics.scrub_passes.bump();
        let took_s = began.elapsed().as_secs();
        if faulty > 0 || took_s > LONG_S {
            info!(bytes, faulty, took_s, "read all that lies on the disk");
        }
        self.wait(PASS_EVERY.saturating_sub(began.elapsed()))
    }

    fn read(&self, partition: TopicPartition) -> Result<(u64, u64), Stopped> {
        let (mut bytes, mut faulty) = (0, 0);
        let mut place = Some(ScrubPlace::default());
        while let Some(from) = place {
            // Held for a step only: a partition that is deleted meanwhile has its files freed.
            let reader = self.routes.get(partition).and_then(|route| route.reader());
            let Some(reader) = reader else { break };
            match reader.scrub(from, STEP_BYTES) {
                Ok(step) => {
                    self.metrics.scrub_bytes.add(step.bytes);
                    self.metrics.scrub_faulty.add(step.faulty);
                    (bytes, faulty, place) = (bytes + step.bytes, faulty + step.faulty, step.next);
                    self.wait(Duration::from_secs_f64(
                        step.bytes as f64 / self.bytes_per_s as f64,
                    ))?;
                }
                // Deleted meanwhile, most of the time.
                Err(error) => {
                    if error.kind() != io::ErrorKind::NotFound {
                        warn!(%partition, %error, "the scrub cannot read on in it");
                    }
                    break;
                }
            }
        }
        Ok((bytes, faulty))
    }

    fn wait(&self, time: Duration) -> Result<(), Stopped> {
        match self.stopping.recv_timeout(time) {
            Err(crossbeam::channel::RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(crossbeam::channel::RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }
}

/// What is read at a time.
const STEP_BYTES: u64 = 256 << 10;
/// Where there is little to read, it is read no more often than this.
const PASS_EVERY: Duration = Duration::from_secs(15);
/// A pass that took longer is told of.
const LONG_S: u64 = 3_600;
