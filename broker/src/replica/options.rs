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
