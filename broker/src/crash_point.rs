//! Named points at which a broker can be made to end as if it were killed there, to prove that it comes
//! back from each with all that it had promised: one line in the code, `crash_point::reached(CrashPoint::Name)`.
//!
//! Without the feature `crash-points` the line is gone. With it, `highwater start --crash-at NAME` chooses one
//! point of the process, and `--help` lists them. A point lies between two acts of which a crash may undo
//! the first or keep the second from happening; where nothing is at stake there is none.

/// Where a broker can be made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum CrashPoint {
    /// Frames are in a segment and not flushed
    FramesWritten,
    /// Files were handed to those who flush them
    FlushBegun,
    /// Files are flushed, and their replicas have not heard of it
    FlushDone,
    /// Terms and votes of a pass are durable, and nothing of it has left
    PassEnded,
    /// A new segment is durable, its name is not
    SegmentMade,
    /// A new segment and its name are durable, what it overrules is still there
    SegmentNamed,
    /// A segment's seal is written and not flushed
    SegmentSealed,
    /// Where a log starts is written aside
    StartWritten,
    /// Where a log starts is renamed, the name is not durable
    StartRenamed,
    /// Where a log starts is durable, what lies before it is still there
    StartMoved,
    /// A mended segment is written aside
    MendWritten,
    /// A mended segment is renamed, the name is not durable
    MendRenamed,
    /// One copy of the journal has a change, the other has not
    JournalHalf,
    /// A new copy of the journal is written aside
    JournalWritten,
    /// A new copy of the journal is renamed, the name is not durable
    JournalRenamed,
    /// The cluster's image is written aside
    ImageWritten,
    /// The cluster's image is renamed, the name is not durable
    ImageRenamed,
    /// The journal says that a replica is deleted, its files are all there
    RemovalBegun,
    /// A deleted replica's files are gone, the journal still knows it
    RemovalDone,
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use clap::ValueEnum;
    use rustix::process::{Signal, getpid, kill_process};

    use super::CrashPoint;

    static CHOSEN: OnceLock<(CrashPoint, u64)> = OnceLock::new();
    static TIMES: AtomicU64 = AtomicU64::new(0);

    /// Ends the process when it reaches a point for the `time`th time, counted from one.
    pub fn arm(point: CrashPoint, time: u64) {
        CHOSEN.set((point, time)).expect("a process is armed once, before it does anything");
    }

    /// Ends the process here if it was told so.
    pub fn reached(point: CrashPoint) {
        let Some((chosen, time)) = CHOSEN.get() else { return };
        if *chosen != point || TIMES.fetch_add(1, Ordering::Relaxed) + 1 != *time {
            return;
        }
        let value = point.to_possible_value().expect("no point is skipped");
        eprintln!("highwater: ends at the crash point {}", value.get_name());
        kill_process(getpid(), Signal::KILL).expect("a process may end itself");
        // The signal takes its moment; nothing behind this point may happen.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(feature = "crash-points")]
pub use armed::{arm, reached};

/// Goes on: in this build there is no such point.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub const fn reached(_point: CrashPoint) {}
