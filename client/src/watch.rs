//! Where all that a client does is counted, told to hooks, and said to `tracing`.
//!
//! Counters are relaxed atomics that somebody adds to once for each request, batch or change, never for each record.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use highwater_protocol::ids::{NodeId, Offset};
use highwater_protocol::native::frame::ApiKey;
use tracing::Span;
use tracing::field::Empty;

use crate::error::{Error, ErrorKind};
use crate::hooks::{BatchRead, BatchWritten, Hooks, Rebalance, RequestDone};
use crate::reader::RecordBatch;

/// What a client and all that was made from it tell.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    hooks: Option<Arc<dyn Hooks>>,
    counters: Counters,
}

/// A request that was sent and not answered.
#[derive(Debug)]
pub(crate) struct UnderWay {
    api: ApiKey,
    bytes: usize,
    sent: Instant,
    span: Span,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a client has done since it connected, and what it has under way; of all producers, readers and consumers
        /// made from it together.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        struct Counters {
            $($name: AtomicU64,)*
        }

        impl Counters {
            fn now(&self) -> Metrics {
                Metrics { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

metrics! {
    /// Connections there are now.
    connections,
    /// Connections made.
    connects,
    /// Attempts to connect that failed.
    connects_failed,
    /// Requests sent.
    requests,
    /// Requests that a broker refused.
    requests_refused,
    /// Requests whose connection ended before an answer came.
    requests_lost,
    /// Requests under way now.
    requests_in_flight,
    /// Bytes of requests under way now.
    bytes_in_flight,
    /// Bytes of requests.
    bytes_sent,
    /// Bytes of answers.
    bytes_received,
    /// Batches acknowledged.
    batches_written,
    /// Records acknowledged.
    records_written,
    /// Batches given up.
    batches_failed,
    /// Records given up.
    records_failed,
    /// How often batches were sent again.
    retries,
    /// Milliseconds of pauses that brokers have asked for.
    throttled_ms,
    /// Batches given to the program.
    batches_read,
    /// Records given to the program, counted by their offsets.
    records_read,
    /// Bytes given to the program, unpacked.
    bytes_read,
    /// How often partitions of consumers came or went.
    rebalances,
    /// How often a consumer's program was taken for stuck.
    stalls,
}

impl Watch {
    pub fn new(hooks: Option<Arc<dyn Hooks>>) -> Watch {
        Watch { hooks, counters: Counters::default() }
    }

    /// A hook that panics costs its program that one call, and no request or reader its task.
    fn tell(&self, call: impl FnOnce(&dyn Hooks)) {
        let Some(hooks) = &self.hooks else { return };
        if catch_unwind(AssertUnwindSafe(|| call(&**hooks))).is_err() {
            tracing::error!("a hook of this client panicked; it was to do no such thing");
        }
    }

    /// What was counted so far.
    pub fn metrics(&self) -> Metrics {
        self.counters.now()
    }

    pub fn connected(&self, node: NodeId) {
        add(&self.counters.connects, 1);
        add(&self.counters.connections, 1);
        tracing::debug!(target: CONNECTION, node = node.0, "connected");
        self.tell(|hooks| hooks.connected(node));
    }

    pub fn disconnected(&self, node: NodeId, why: &Error) {
        take(&self.counters.connections, 1);
        tracing::debug!(target: CONNECTION, node = node.0, %why, "disconnected");
        self.tell(|hooks| hooks.disconnected(node, why));
    }

    pub fn dial_failed(&self, address: &str, why: &Error) {
        add(&self.counters.connects_failed, 1);
        tracing::debug!(target: CONNECTION, address, %why, "cannot connect");
        self.tell(|hooks| hooks.dial_failed(address, why));
    }

    /// A request is about to leave; its hook is called by `sent`, where nothing is locked.
    pub fn begin(&self, broker: &str, api: ApiKey, request: u32, bytes: usize) -> UnderWay {
        let Counters { requests, requests_in_flight, bytes_in_flight, bytes_sent, .. } =
            &self.counters;
        add(requests, 1);
        add(requests_in_flight, 1);
        add(bytes_in_flight, bytes as u64);
        add(bytes_sent, bytes as u64);
        let span = tracing::debug_span!(
            target: REQUEST, "request", ?api, broker, request, bytes, answer_bytes = Empty, failed = Empty
        );
        UnderWay { api, bytes, sent: Instant::now(), span }
    }

    pub fn sent(&self, node: NodeId, api: ApiKey, bytes: usize) {
        self.tell(|hooks| hooks.sent(node, api, bytes));
    }

    /// An answer of so many bytes has come, or none will.
    pub fn answered(
        &self,
        node: NodeId,
        request: UnderWay,
        bytes: usize,
        result: Result<(), ErrorKind>,
    ) {
        let counters = &self.counters;
        take(&counters.requests_in_flight, 1);
        take(&counters.bytes_in_flight, request.bytes as u64);
        add(&counters.bytes_received, bytes as u64);
        match result {
            Ok(()) => {}
            Err(ErrorKind::Refused(_)) => add(&counters.requests_refused, 1),
            Err(_) => add(&counters.requests_lost, 1),
        }
        request.span.record("answer_bytes", bytes);
        if let Err(kind) = result {
            request.span.record("failed", tracing::field::debug(kind));
        }
        self.tell(|hooks| {
            hooks.answered(&RequestDone {
                node,
                api: request.api,
                bytes_sent: request.bytes,
                bytes_received: bytes,
                took: request.sent.elapsed(),
                result,
            })
        });
    }

    pub fn produced(&self, batch: &BatchWritten<'_>) {
        let counters = &self.counters;
        let (batches, records) = match batch.result {
            Ok(_) => (&counters.batches_written, &counters.records_written),
            Err(_) => (&counters.batches_failed, &counters.records_failed),
        };
        add(batches, 1);
        add(records, batch.records);
        add(&counters.retries, batch.attempts.saturating_sub(1).into());
        tracing::debug!(
            target: BATCH,
            topic = batch.topic.as_str(),
            partition = batch.partition.0,
            records = batch.records,
            bytes = batch.bytes,
            attempts = batch.attempts,
            took_us = batch.took.as_micros() as u64,
            offset = batch.result.ok().map(|offset| offset.0),
            failed = batch.result.err().map(tracing::field::display),
            "produced"
        );
        self.tell(|hooks| hooks.produced(batch));
    }

    pub fn fetched(&self, batch: &RecordBatch) {
        let (first, records) = (batch.first_offset(), offsets(batch));
        let (topic, partition, bytes) = (&batch.topic, batch.partition, batch.bytes());
        add(&self.counters.batches_read, 1);
        add(&self.counters.records_read, records);
        add(&self.counters.bytes_read, bytes as u64);
        tracing::debug!(
            target: BATCH, topic = topic.as_str(), partition = partition.0, first = first.0, records, bytes, "fetched"
        );
        self.tell(|hooks| hooks.fetched(&BatchRead { topic, partition, first, records, bytes }));
    }

    pub fn throttled(&self, node: NodeId, pause: Duration) {
        add(&self.counters.throttled_ms, pause.as_millis() as u64);
        tracing::debug!(target: BATCH, node = node.0, ?pause, "throttled");
        self.tell(|hooks| hooks.throttled(node, pause));
    }

    pub fn rebalanced(&self, group: &str, what: &Rebalance<'_>) {
        match what {
            Rebalance::Stalled(_) => add(&self.counters.stalls, 1),
            Rebalance::Assigned(_) | Rebalance::Revoked(_) | Rebalance::Lost(_) => {
                add(&self.counters.rebalances, 1);
            }
        }
        tracing::debug!(target: GROUP, group, ?what, "rebalance");
        self.tell(|hooks| hooks.rebalanced(group, what));
    }
}

fn offsets(batch: &RecordBatch) -> u64 {
    let (Offset(first), Offset(next)) = (batch.first_offset(), batch.next_offset());
    next - first
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn take(counter: &AtomicU64, by: u64) {
    counter.fetch_sub(by, Ordering::Relaxed);
}

const CONNECTION: &str = "highwater_client::connection";
const REQUEST: &str = "highwater_client::request";
const BATCH: &str = "highwater_client::batch";
const GROUP: &str = "highwater_client::group";

#[cfg(test)]
mod tests {
    use highwater_protocol::error::ErrorCode;

    use super::*;

    #[test]
    fn what_is_under_way_is_what_was_sent_and_neither_answered_nor_lost() {
        let watch = Watch::default();
        let under_way = [10, 20, 30, 40]
            .map(|bytes| watch.begin("node 1", ApiKey::Fetch, bytes, bytes as usize));
        let [done, refused, lost, _still] = under_way;
        watch.answered(NodeId(1), done, 5, Ok(()));
        let code = ErrorCode::UnknownTopicOrPartition;
        watch.answered(NodeId(1), refused, 7, Err(ErrorKind::Refused(code)));
        watch.answered(NodeId(1), lost, 0, Err(ErrorKind::ConnectionLost));
        let now = watch.metrics();
        assert_eq!((now.requests, now.requests_refused, now.requests_lost), (4, 1, 1));
        assert_eq!((now.requests_in_flight, now.bytes_in_flight), (1, 40));
        assert_eq!((now.bytes_sent, now.bytes_received), (100, 12));
    }
}
