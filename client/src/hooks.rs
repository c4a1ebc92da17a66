//! What a client tells a program that watches it.
//!
//! Hooks see each event by itself, for metrics and alarms of one's own; [`Metrics`](crate::Metrics) counts the same
//! events without any. Spans and events of `tracing` are beside both, in `watch`.

use std::fmt;
use std::time::Duration;

use highwater_protocol::ids::{NodeId, Offset, PartitionId};
use highwater_protocol::native::frame::ApiKey;

use crate::consumer::OwnedPartition;
use crate::error::{Error, ErrorKind};
use crate::record::TopicName;

/// Calls that a client makes while it works; each does nothing unless you say what. Given to it with
/// [`ClientConfig::hooks`](crate::ClientConfig::hooks).
///
/// They come from the client's own tasks or from your own calls, several at a time, and hold those up: be quick, and don't
/// block. Count, or send on a channel. One that panics is logged, and nothing else comes of it. Without hooks a branch is all that they cost.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use highwater_client::{Hooks, NodeId, Rebalance, RequestDone};
///
/// #[derive(Debug, Default)]
/// struct Slow {
///     requests: AtomicU64,
/// }
///
/// impl Hooks for Slow {
///     fn answered(&self, request: &RequestDone) {
///         if request.took.as_millis() > 500 {
///             self.requests.fetch_add(1, Ordering::Relaxed);
///         }
///     }
///
///     fn rebalanced(&self, group: &str, what: &Rebalance<'_>) {
///         if let Rebalance::Stalled(away) = what {
///             eprintln!("this program has not looked after group {group} for {away:?}");
///         }
///     }
/// }
/// ```
pub trait Hooks: fmt::Debug + Send + Sync {
    /// A connection to a broker was made, and proved.
    fn connected(&self, node: NodeId) {
        let _ = node;
    }

    /// A connection has ended: it was lost, or nobody needs it any more.
    fn disconnected(&self, node: NodeId, why: &Error) {
        let _ = (node, why);
    }

    /// Nobody could be reached at an address.
    fn dial_failed(&self, address: &str, why: &Error) {
        let _ = (address, why);
    }

    /// A request of so many bytes has left for a broker.
    fn sent(&self, node: NodeId, api: ApiKey, bytes: usize) {
        let _ = (node, api, bytes);
    }

    /// A request was answered, or never will be; once for each that was sent.
    fn answered(&self, request: &RequestDone) {
        let _ = request;
    }

    /// A batch that was to be written was acknowledged, or given up.
    fn produced(&self, batch: &BatchWritten<'_>) {
        let _ = batch;
    }

    /// A reader or a consumer has handed records to the program.
    fn fetched(&self, batch: &BatchRead<'_>) {
        let _ = batch;
    }

    /// A broker has a producer pause for so long, because it writes more than its quota.
    fn throttled(&self, node: NodeId, pause: Duration) {
        let _ = (node, pause);
    }

    /// Partitions of a consumer come or go.
    fn rebalanced(&self, group: &str, what: &Rebalance<'_>) {
        let _ = (group, what);
    }
}

/// A request and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestDone {
    /// Who was asked.
    pub node: NodeId,
    /// What for.
    pub api: ApiKey,
    /// Length of the request.
    pub bytes_sent: usize,
    /// Length of the answer; 0 where none came.
    pub bytes_received: usize,
    /// From its leaving to its answer, also where who asked did not wait so long.
    pub took: Duration,
    /// Whether the broker did it, refused it (`Refused`), or did not answer.
    pub result: Result<(), ErrorKind>,
}

/// A batch and what became of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BatchWritten<'a> {
    /// Its topic.
    pub topic: &'a TopicName,
    /// Its partition.
    pub partition: PartitionId,
    /// How many records.
    pub records: u64,
    /// Its length, packed as it was sent.
    pub bytes: usize,
    /// How often it was sent; 0 where it never was.
    pub attempts: u32,
    /// From its first record on.
    pub took: Duration,
    /// The offset of its first record, or why it was given up.
    pub result: Result<Offset, &'a Error>,
}

/// Records that a program was given.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BatchRead<'a> {
    /// Their topic.
    pub topic: &'a TopicName,
    /// Their partition.
    pub partition: PartitionId,
    /// The offset of the first one.
    pub first: Offset,
    /// How many offsets; fewer records where some were given up in the log.
    pub records: u64,
    /// Bytes of them, unpacked.
    pub bytes: usize,
}

/// What becomes of a consumer's partitions.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Rebalance<'a> {
    /// These are its own from now on.
    Assigned(&'a [OwnedPartition]),
    /// These must be given up.
    Revoked(&'a [OwnedPartition]),
    /// These are its own no more.
    Lost(&'a [OwnedPartition]),
    /// The program has been away for so long, and all is given up. This comes when it happens, the others when the
    /// program hears of them.
    Stalled(Duration),
}
