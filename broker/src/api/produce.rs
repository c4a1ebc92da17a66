//! The road of a batch from the edge to its shard.
//!
//! Everything up to the shard's queue happens when the method is called, so that a connection which
//! calls in order is served in order; only the wait for the ack is asynchronous. The checksum is
//! verified here, on the caller's thread, and never again on the way to the log; and so is it that the
//! records are what the header says, because what is once in the log is every consumer's.

use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::batch::{BatchError, BatchView, FrameHeader};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::produce::{ProduceRequest, Receipt};

use super::admission::Admitted;
use super::{Api, errors, policy};
use crate::controller::config::TopicConfig;
use crate::node::Route;
use crate::shard::handle::ProduceReply;

impl Api {
    /// Checks and queues a batch at once, so that calls in order keep their order; the future
    /// waits for the promise that the request asked for.
    pub fn produce(
        &self,
        request: ProduceRequest,
    ) -> impl Future<Output = Result<Receipt, WireError>> + Send + 'static {
        let queued = self.queue(request);
        async move {
            let Queued { reply, route, records, bytes, _admitted } = queued?;
            let result = reply.await.unwrap_or_else(|_| Err(errors::stopping()));
            if result.is_ok() {
                route.traffic().records_in.add(records);
                route.traffic().bytes_in.add(bytes);
            }
            result
        }
    }

    fn queue(&self, request: ProduceRequest) -> Result<Queued, WireError> {
        let ProduceRequest { partition, acks, leader_term, timeout_ms, expected_end, batch } =
            request;
        let route = self.route(partition)?;
        if route.is_internal() {
            let why =
                format!("{} is the cluster's own and takes no records from clients", route.title());
            return Err(WireError::new(ErrorCode::Unauthorized, why));
        }
        if let Some(reason) = route.failed() {
            return Err(errors::failed(&route, &reason));
        }
        // The shard has the last word; this spares the checksum and says where to go.
        let view = route.leader();
        let me = self.node.options().me;
        if view.leader != Some(me) {
            return Err(errors::not_leader(&route, &view, me));
        }
        let topic = self.topic_config(partition)?;
        check_size(&topic, &route, batch.len())?;
        let header = check_batch(&route, &batch)?;
        let (records, bytes) = (u64::from(header.records()), batch.len() as u64);
        let _admitted = self.admission.admit(batch.len())?;
        let now = policy::wall_clock();
        let batch = policy::admit(&topic, &|| route.title(), &header, batch, now)?;
        let shard = self.node.shards().of(partition);
        let wait = Duration::from_millis(u64::from(timeout_ms.min(TIMEOUT_MS_MAX)));
        let deadline = shard.clock().deadline(wait);
        let reply = shard.produce(partition, batch, acks, leader_term, deadline, expected_end)?;
        Ok(Queued { reply, route, records, bytes, _admitted })
    }

    fn topic_config(&self, partition: TopicPartition) -> Result<TopicConfig, WireError> {
        let image = self.node.image();
        let topic = image.topic(partition.topic);
        topic.map(|topic| topic.config).ok_or_else(|| errors::unknown_partition(partition))
    }
}

/// What counts is the batch as it came: packed, where it is.
fn check_size(topic: &TopicConfig, route: &Route, bytes: usize) -> Result<(), WireError> {
    let bytes_max = topic.message_bytes_max;
    if bytes <= bytes_max as usize {
        return Ok(());
    }
    let why = format!(
        "{}: the batch has {bytes} bytes, and the topic's `max.message.bytes` is {bytes_max}; send smaller \
         batches or raise the setting",
        route.title()
    );
    Err(WireError::new(ErrorCode::BatchTooLarge, why))
}

/// A batch on its way through a shard.
struct Queued {
    reply: ProduceReply,
    route: Arc<Route>,
    records: u64,
    bytes: u64,
    _admitted: Admitted,
}

/// The batch's header, if it can be taken.
fn check_batch(route: &Route, batch: &[u8]) -> Result<FrameHeader, WireError> {
    let bad = |error| errors::bad_batch(route, &error);
    let view = BatchView::parse(batch).map_err(bad)?;
    view.verify_checksum().map_err(bad)?;
    view.verify_records().map_err(bad)?;
    let header = view.header();
    if header.compression().is_none() {
        return Err(bad(BatchError::Codec(header.attributes() & 7)));
    }
    let refused = if header.is_control() {
        "a control batch, which only brokers write"
    } else if header.is_transactional() {
        "part of a transaction, which this broker does not know yet"
    } else if header.records() == 0 {
        "empty"
    } else {
        return Ok(*header);
    };
    let why = format!("{}: the batch is {refused}; nothing was written", route.title());
    Err(WireError::new(ErrorCode::InvalidRecord, why))
}

/// Nobody waits longer for replicas, whatever the request says.
const TIMEOUT_MS_MAX: u32 = 5 * 60 * 1000;
