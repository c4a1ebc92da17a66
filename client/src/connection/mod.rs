//! One QUIC connection per broker, with a few long-lived lanes on it.
//!
//! A connection that has died stays dead: requests on it fail with outcome unknown, and the pool
//! dials anew, not sooner than a backoff allows. Nothing here retries; that is for those who know
//! what they asked.

mod frames;
mod lane;
mod pool;
mod tls;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::ids::{NodeId, TopicPartition};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind, Outcome};
use crate::watch::Watch;
pub(crate) use lane::{Answer, Reply};
use lane::{Lane, Peer};
pub(crate) use pool::Pool;
pub(crate) use tls::Identity;
pub(crate) use wire::{Call, Deleted, HandedOver, Request, decode};

/// A live connection to one broker, or one that was live.
pub(crate) struct Connection {
    node: NodeId,
    broker: String,
    quinn: quinn::Connection,
    control: Lane,
    fetch: Lane,
    produce: Vec<Lane>,
}

impl Connection {
    /// Opens the lanes of a connection that has just been made to `node`.
    async fn open(
        quinn: quinn::Connection,
        node: NodeId,
        watch: &Arc<Watch>,
    ) -> Result<Connection, Error> {
        let broker = format!("node {node} at {}", quinn.remote_address());
        let peer = Peer { node, broker: broker.clone(), watch: watch.clone() };
        let lost = |error| pool::connection_error(&error, &broker);
        let control = Lane::open(&quinn, &peer, CONTROL_PRIORITY).await.map_err(lost)?;
        let fetch = Lane::open(&quinn, &peer, 0).await.map_err(lost)?;
        let mut produce = Vec::with_capacity(PRODUCE_LANES);
        for _ in 0..PRODUCE_LANES {
            produce.push(Lane::open(&quinn, &peer, 0).await.map_err(lost)?);
        }
        Ok(Connection { node, broker, quinn, control, fetch, produce })
    }

    /// Says that it is there, and when it has ended.
    fn watch_over(&self, watch: &Arc<Watch>) {
        watch.connected(self.node);
        let (quinn, node, broker) = (self.quinn.clone(), self.node, self.broker.clone());
        let watch = watch.clone();
        tokio::spawn(async move {
            let why = pool::connection_error(&quinn.closed().await, &broker);
            watch.disconnected(node, &why);
        });
    }

    /// Which broker this is.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// The broker for error messages: node and address.
    pub(crate) fn broker(&self) -> &str {
        &self.broker
    }

    /// Whether the connection has ended.
    pub(crate) fn is_dead(&self) -> bool {
        self.quinn.close_reason().is_some()
    }

    /// Why it ended, in words for people.
    fn close_error(&self) -> Option<Error> {
        self.quinn.close_reason().map(|reason| pool::connection_error(&reason, &self.broker))
    }

    /// Sends a batch on the lane of its partition, behind all that were sent there before.
    pub(crate) fn produce(&self, partition: TopicPartition, request: Request, reply: Reply) {
        let lane = lane_of(partition);
        self.produce[lane].submit(request, reply);
    }

    /// Asks on the fetch lane, which may take as long as the broker is allowed to wait.
    pub(crate) async fn fetch<C: Call>(
        &self,
        request: &C,
        patience: Duration,
    ) -> Result<C::Response, Error> {
        self.call_on(&self.fetch, request, patience).await
    }

    /// Asks on the control lane.
    pub(crate) async fn call<C: Call>(
        &self,
        request: &C,
        patience: Duration,
    ) -> Result<C::Response, Error> {
        self.call_on(&self.control, request, patience).await
    }

    /// Cancel safe: the answer to a request whose future was dropped is thrown away.
    async fn call_on<C: Call>(
        &self,
        lane: &Lane,
        request: &C,
        patience: Duration,
    ) -> Result<C::Response, Error> {
        let act = request.act();
        let (sender, receiver) = oneshot::channel();
        let reply: Reply = Box::new(move |answer| {
            // Nobody waits any more: the caller gave up.
            let _ = sender.send(answer);
        });
        lane.submit(Request::of(request), reply);
        let answer = tokio::time::timeout(patience, receiver).await.map_err(|_| {
            let text = format!("cannot {act}: no answer from {} in {patience:?}", self.broker);
            Error::with_outcome(ErrorKind::TimedOut, Outcome::Unknown, text)
        })?;
        let answer = answer.expect("a lane answers every request, with an error at the least");
        let body = match answer {
            Ok(Ok(body)) => body,
            Ok(Err(refusal)) => return Err(Error::refused(&act, &refusal)),
            Err(lost) => {
                let lost = self.close_error().map_or(lost.clone(), |why| why.but(lost.outcome()));
                return Err(lost.during(&format!("cannot {act}")));
            }
        };
        decode::<C::Response>(body, &act, &self.broker)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.quinn.close(quinn::VarInt::from_u32(0), b"done");
    }
}

/// All batches of one partition share a lane, and partitions spread over the lanes.
fn lane_of(partition: TopicPartition) -> usize {
    let topic = partition.topic.0.as_u128();
    let mixed = (topic ^ (topic >> 64)) as u64 ^ u64::from(partition.partition.0);
    (mixed % PRODUCE_LANES as u64) as usize
}

/// Streams for batches: several, so that one lost datagram does not hold up every partition.
const PRODUCE_LANES: usize = 4;
/// Metadata must not wait behind megabytes of batches, least of all in a failover.
const CONTROL_PRIORITY: i32 = 1;
