//! What is refused before it costs anything: produces beyond the budget, and produces onto a disk
//! that is nearly full.
//!
//! Reads, deletes and everything of the cluster's own go on. The disk alarm clears higher than it
//! sets, so that a disk at its mark does not flap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use highwater_protocol::error::{ErrorCode, WireError};
use tokio::time::sleep;

use super::ApiOptions;
use crate::node::Node;

/// What produces may take of this broker.
pub(super) struct Admission {
    bytes_max: u64,
    bytes: AtomicU64,
    reserve: u64,
    disk_full: AtomicBool,
}

/// Bytes of the budget, given back when dropped.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    bytes: u64,
}

impl Admission {
    /// An empty broker on a disk with room.
    pub fn new(options: &ApiOptions) -> Admission {
        Admission {
            bytes_max: options.produce_bytes_max,
            bytes: AtomicU64::new(0),
            reserve: options.disk_reserve_bytes,
            disk_full: AtomicBool::new(false),
        }
    }

    /// Takes a batch's bytes out of the budget. A batch that finds nothing else under way is let in
    /// whatever its size.
    pub fn admit(self: &Arc<Admission>, bytes: usize) -> Result<Admitted, WireError> {
        if self.disk_full() {
            let why = format!(
                "the broker's disk has less than {} MiB free; nothing was written. Free some space, lower \
                 `retention.ms` or `retention.bytes`, or delete topics; reading goes on",
                self.reserve / MIB
            );
            return Err(WireError::new(ErrorCode::DiskFull, why));
        }
        let bytes = bytes as u64;
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let admitted = Admitted { admission: self.clone(), bytes };
        if before > 0 && before + bytes > self.bytes_max {
            let why = format!(
                "{} MiB of produce wait on this broker, and no more than {} MiB may; nothing was written, send \
                 again after a moment",
                before / MIB,
                self.bytes_max / MIB
            );
            return Err(WireError::new(ErrorCode::Overloaded, why));
        }
        Ok(admitted)
    }

    /// Bytes of produce that wait for their acks.
    pub fn bytes_in_flight(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the disk has reached its mark.
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    fn look_at(&self, free: u64) {
        let was_full = self.disk_full();
        let clears_at = self.reserve + self.reserve / 5;
        let full = free < if was_full { clears_at } else { self.reserve };
        if full != was_full {
            self.disk_full.store(full, Ordering::Relaxed);
            let (free_mib, reserve_mib) = (free / MIB, self.reserve / MIB);
            if full {
                tracing::error!(
                    free_mib,
                    reserve_mib,
                    "the disk is nearly full: produces are refused"
                );
            } else {
                tracing::warn!(
                    free_mib,
                    reserve_mib,
                    "the disk has room again: produces are taken"
                );
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Looks at the disk again and again until the node stops.
pub(super) async fn watch_disk(node: Node, admission: Arc<Admission>) {
    loop {
        let disk = node.disk().clone();
        let dir = node.options().data_dir.clone();
        match tokio::task::spawn_blocking(move || disk.free_bytes(&dir)).await {
            Ok(Ok(free)) => admission.look_at(free),
            Ok(Err(error)) => tracing::warn!(%error, "the disk's free space is not known"),
            Err(error) => tracing::warn!(%error, "looking at the disk was cut short"),
        }
        tokio::select! {
            () = node.stopping().cancelled() => return,
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// What can be written in this time must be well below what is kept free.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const MIB: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn admission() -> Arc<Admission> {
        let options = ApiOptions {
            produce_bytes_max: 100,
            disk_reserve_bytes: 1000,
            file: Default::default(),
        };
        Arc::new(Admission::new(&options))
    }

    fn refusal(admission: &Arc<Admission>, bytes: usize) -> Option<ErrorCode> {
        admission.admit(bytes).err().map(|error| error.code)
    }

    #[test]
    fn the_budget_is_given_back_also_by_those_refused() {
        let admission = admission();
        let first = admission.admit(60).expect("room for 100");
        assert_eq!(refusal(&admission, 50), Some(ErrorCode::Overloaded));
        assert_eq!(refusal(&admission, 40), None);
        drop(first);
        assert_eq!(admission.bytes_in_flight(), 0);
    }

    #[test]
    fn a_batch_larger_than_the_budget_gets_in_alone() {
        let admission = admission();
        let large = admission.admit(500).expect("nothing else is under way");
        assert_eq!(refusal(&admission, 1), Some(ErrorCode::Overloaded));
        drop(large);
        assert_eq!(refusal(&admission, 1), None);
    }

    #[test]
    fn the_disk_alarm_clears_higher_than_it_sets() {
        let admission = admission();
        for (free, full) in [(1000, false), (999, true), (1100, true), (1200, false), (1100, false)]
        {
            admission.look_at(free);
            assert_eq!(refusal(&admission, 1) == Some(ErrorCode::DiskFull), full, "{free} free");
        }
    }
}
