//! How one replica keeps its promises: what a topic's settings come down to.

use crate::log;

/// How one replica keeps its promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// How its log is kept.
    pub log: log::Options,
    /// When an entry counts.
    pub flush: FlushPolicy,
    /// The fewest in-sync voters that let a `sync` produce in.
    pub insync_replicas_min: u8,
    /// A voter that has not caught up for this long is no longer in sync.
    pub lag_ms_max: u64,
    /// What is given up without anybody asking.
    pub retention: Retention,
    /// How many bytes a second each learner is sent; `None` for as many as it takes.
    pub learner_bytes_per_s: Option<u64>,
}

/// How long records are kept, in whole segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Segments whose newest record is older than this are given up; `None` keeps them.
    pub ms: Option<u64>,
    /// The oldest segments are given up while the others are at least this large; `None` keeps them.
    pub bytes: Option<u64>,
    /// A segment whose oldest record is older than this is ended, full or not.
    pub segment_ms: u64,
}

impl Retention {
    /// Everything is kept.
    pub const FOREVER: Retention = Retention { ms: None, bytes: None, segment_ms: u64::MAX };
}

/// When a replica counts an entry as held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushPolicy {
    /// After `fdatasync`.
    Ack,
    /// After the append to the page cache, flushed within this many milliseconds.
    Interval {
        /// The longest time that an appended entry stays unflushed.
        ms: u64,
    },
}
