//! What clients can ask this broker, independent of any wire.
//!
//! Every door (the native protocol, later Kafka's) decodes its requests into these calls. Requests
//! are checked here once, and errors name the thing, the reason and the way out. Nothing here knows
//! connections, and `quota` alone principals; nothing here decides what a shard or the controller decides.
//!
//! Read `produce` and `fetch` for the hot roads, `admission` for what is refused under load, then
//! `metadata`, `partitions`, `inspect`, `digest`, `admin`, `settings`, `moves`, `events`, `brokers`, `balance`, `groups`;
//! `errors` has the words.

mod admin;
mod admission;
mod alter;
mod brokers;
mod balance;
mod digest;
mod errors;
mod events;
mod fetch;
mod groups;
mod inspect;
mod metadata;
mod moves;
mod partitions;
mod policy;
mod produce;
pub mod quota;
mod recover;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Term, TopicPartition};
use tokio::sync::Semaphore;

use crate::log::LogReader;
use crate::node::{LeaderView, Node, Route};

use admission::Admission;
use quota::Purses;

/// How much of this broker clients may use.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Bytes of produce that may wait for their acks at once, over all partitions.
    pub produce_bytes_max: u64,
    /// Produce is refused while the data disk has less than this free.
    pub disk_reserve_bytes: u64,
    /// What the broker's file says, by key.
    pub file: BTreeMap<String, String>,
}

/// The broker as its clients see it; clones are the same one.
#[derive(Clone)]
pub struct Api {
    node: Node,
    admission: Arc<Admission>,
    file: Arc<BTreeMap<String, String>>,
    purses: Arc<Purses>,
    /// One replica is hashed at a time.
    digests: Arc<Semaphore>,
}

impl Api {
    /// The face of a started node; watches the disk for as long as the node runs, so it must be
    /// called within the runtime.
    pub fn new(node: Node, options: ApiOptions) -> Api {
        let admission = Arc::new(Admission::new(&options));
        tokio::spawn(admission::watch_disk(node.clone(), admission.clone()));
        let digests = Arc::new(Semaphore::new(1));
        let (file, purses) = (Arc::new(options.file), Arc::default());
        Api { node, admission, file, purses, digests }
    }

    /// The node behind it.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Bytes of produce that wait for their acks, for the metrics.
    pub fn produce_bytes_in_flight(&self) -> u64 {
        self.admission.bytes_in_flight()
    }

    /// Whether produces are refused because the disk is nearly full.
    pub fn disk_full(&self) -> bool {
        self.admission.disk_full()
    }

    /// The route of a partition that some topic has.
    fn route(&self, partition: TopicPartition) -> Result<Arc<Route>, WireError> {
        self.node.routes().get(partition).ok_or_else(|| errors::unknown_partition(partition))
    }

    /// A partition that this broker leads, in the term that the client knows if it knows one.
    fn led_here(
        &self,
        partition: TopicPartition,
        client_term: Option<Term>,
    ) -> Result<Led, WireError> {
        let route = self.route(partition)?;
        if let Some(reason) = route.failed() {
            return Err(errors::failed(&route, &reason));
        }
        let view = route.leader();
        if view.leader != Some(self.node.options().me) {
            return Err(errors::not_leader(&route, &view, self.node.options().me));
        }
        if let Some(term) = client_term.filter(|term| *term != view.term) {
            return Err(errors::other_term(&route, term, view.term));
        }
        let reader = route.reader().ok_or_else(|| {
            let why = format!("{} is being opened on this broker; try again", route.title());
            WireError::new(ErrorCode::LeaderNotAvailable, why)
        })?;
        Ok(Led { route, view, reader })
    }
}

/// A partition led here.
struct Led {
    route: Arc<Route>,
    view: Arc<LeaderView>,
    reader: Arc<LogReader>,
}

#[cfg(test)]
mod tests;
