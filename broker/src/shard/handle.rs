//! How other threads speak to the shards: bounded inboxes going in, replies, notices and outboxes
//! coming out.
//!
//! A handle never blocks its caller and never decides anything: it queues an event, or says that
//! the queue is full. Two inboxes keep clients from pushing out the cluster's own traffic: what
//! peers and the flusher say is never behind a wall of produces. Everything submitted through one
//! handle by one thread arrives in the order in which it was submitted, per inbox.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use crossbeam::sync::{Parker, Unparker};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Offset, Term, TopicPartition};
use highwater_protocol::native::produce::{AckMode, Receipt};
use tokio::sync::oneshot;

use crate::log::LogReader;
use crate::raft::Millis;
use crate::shard::event::{AdminReply, Event, Leadership, ProduceEvent, ReplicaCommand, RequestId};

pub use crate::shard::outbox::{PeerOutbox, PeerQueue};

/// The shards of this broker; a partition always belongs to the same one.
#[derive(Clone)]
pub struct Shards {
    handles: Arc<[ShardHandle]>,
}

/// The way into one shard, from any thread.
#[derive(Clone)]
pub struct ShardHandle {
    clients: Sender<Inbound>,
    cluster: Sender<Inbound>,
    shared: Arc<Shared>,
}

/// The clock that all shards of a process and whoever gives them deadlines share.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

/// The shard's queue is full or the shard has stopped; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker's queue for this partition is full; send again after a moment")]
pub struct Overloaded;

/// What a shard tells the rest of the broker without being asked.
#[derive(Debug)]
pub enum Notice {
    /// A replica is open: readers may use it.
    Opened(TopicPartition, LogReader),
    /// A replica is closed: readers must let go.
    Closed(TopicPartition),
    /// The high watermark of a replica rose.
    Committed(TopicPartition),
    /// What this broker knows of a partition's leadership changed.
    Leadership(Leadership),
    /// A replica failed and is out of service until it is made anew from the others, or the broker restarts.
    Failed(TopicPartition, String),
}

/// Where a shard's notices go; called on the shard's thread, so it must be quick and never block.
pub type NoticeSink = Box<dyn FnMut(Notice) + Send>;

/// The answer to a produce, when it comes.
pub type ProduceReply = oneshot::Receiver<Result<Receipt, WireError>>;

/// The answer to an admin request, when it comes.
pub type CommandReply = oneshot::Receiver<Result<AdminReply, WireError>>;

impl Clock {
    /// A clock that starts at zero now.
    pub fn start() -> Clock {
        Clock { started: Instant::now() }
    }

    /// The time since the start.
    pub fn now(self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).expect("no clock runs so long"))
    }

    /// The time `after` from now.
    pub fn deadline(self, after: Duration) -> Millis {
        let ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Millis(self.now().0.saturating_add(ms))
    }

    /// When, on the machine's own clock, this moment is.
    pub fn instant(self, at: Millis) -> Instant {
        self.started + Duration::from_millis(at.0)
    }
}

impl From<Overloaded> for WireError {
    fn from(overloaded: Overloaded) -> WireError {
        WireError::new(ErrorCode::Overloaded, overloaded.to_string())
    }
}

impl Shards {
    /// All shards of a broker, at least one.
    pub fn new(handles: Vec<ShardHandle>) -> Shards {
        assert!(!handles.is_empty(), "a broker has at least one shard");
        Shards { handles: handles.into() }
    }

    /// The shard that owns a partition.
    pub fn of(&self, partition: TopicPartition) -> &ShardHandle {
        &self.handles[self.index_of(partition)]
    }

    /// The number of the shard that owns a partition.
    pub fn index_of(&self, partition: TopicPartition) -> usize {
        let topic = partition.topic.0.as_u128();
        // Neighbouring partitions of a topic lie on different shards: their leaders are the load.
        let spread = (topic as u64 ^ (topic >> 64) as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .wrapping_add(u64::from(partition.partition.0));
        (spread % self.handles.len() as u64) as usize
    }

    /// Every shard.
    pub fn all(&self) -> &[ShardHandle] {
        &self.handles
    }
}

impl ShardHandle {
    /// Queues a batch; the receiver gets the receipt or the error once the promise is kept or broken.
    pub fn produce(
        &self,
        partition: TopicPartition,
        batch: Bytes,
        acks: AckMode,
        leader_term: Option<Term>,
        deadline: Millis,
        expected_end: Option<Offset>,
    ) -> Result<ProduceReply, Overloaded> {
        let id = self.next_id();
        let bytes = batch.len();
        if self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed) > INBOX_BYTES_MAX {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Overloaded);
        }
        let (reply, receiver) = oneshot::channel();
        let event =
            ProduceEvent { id, partition, batch, acks, leader_term, deadline, expected_end };
        let inbound = Inbound { event: Event::Produce(event), reply: Reply::Produced(id, reply) };
        if self.put(&self.clients, inbound).is_err() {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Overloaded);
        }
        Ok(receiver)
    }

    /// Queues a request about one replica.
    pub fn admin(
        &self,
        partition: TopicPartition,
        command: ReplicaCommand,
    ) -> Result<CommandReply, Overloaded> {
        let id = self.next_id();
        let (reply, receiver) = oneshot::channel();
        let event = Event::Admin(id, partition, command);
        let inbound = Inbound { event, reply: Reply::Answered(id, reply) };
        self.put(&self.cluster, inbound).map_err(|_| Overloaded)?;
        Ok(receiver)
    }

    /// Has what is left of a replica that was taken from this broker deleted; answered once nothing is.
    pub fn give_up(
        &self,
        partition: TopicPartition,
        dir: PathBuf,
    ) -> Result<CommandReply, Overloaded> {
        let id = self.next_id();
        let (reply, receiver) = oneshot::channel();
        let event = Event::GiveUp(id, partition, dir);
        let inbound = Inbound { event, reply: Reply::Answered(id, reply) };
        self.put(&self.cluster, inbound).map_err(|_| Overloaded)?;
        Ok(receiver)
    }

    /// Queues what nobody waits for: frames of peers, which Raft can afford to lose.
    pub fn submit(&self, event: Event) -> Result<(), Overloaded> {
        let inbound = Inbound { event, reply: Reply::None };
        self.put(&self.cluster, inbound).map_err(|_| Overloaded)
    }

    /// Queues what must not be lost, `Open` and `Close`: waits for room. A stopped shard takes nothing.
    pub async fn control(&self, event: Event) {
        let mut inbound = Inbound { event, reply: Reply::None };
        loop {
            match self.put(&self.cluster, inbound) {
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(back)) => inbound = back,
            }
            tokio::time::sleep(FULL_RETRY).await;
        }
    }

    /// The clock by which deadlines are given.
    pub fn clock(&self) -> Clock {
        self.shared.clock
    }

    #[expect(clippy::result_large_err, reason = "the queue gives back what it does not take")]
    fn put(&self, queue: &Sender<Inbound>, inbound: Inbound) -> Result<(), TrySendError<Inbound>> {
        queue.try_send(inbound)?;
        self.shared.wake.unpark();
        Ok(())
    }

    fn next_id(&self) -> RequestId {
        RequestId(self.shared.next_request.fetch_add(1, Ordering::Relaxed))
    }
}

/// An event and who waits for its outcome.
pub(super) struct Inbound {
    pub(super) event: Event,
    pub(super) reply: Reply,
}

/// Who waits.
pub(super) enum Reply {
    None,
    Produced(RequestId, oneshot::Sender<Result<Receipt, WireError>>),
    Answered(RequestId, oneshot::Sender<Result<AdminReply, WireError>>),
}

/// The receiving ends of a handle, for the shard's thread.
pub(super) struct Inbox {
    pub(super) clients: Receiver<Inbound>,
    pub(super) cluster: Receiver<Inbound>,
    pub(super) parker: Parker,
    pub(super) shared: Arc<Shared>,
}

/// What a handle and its shard's thread both touch.
pub(super) struct Shared {
    pub(super) clock: Clock,
    /// Whoever put something where the thread looks wakes it. It sleeps on this and not on its queues: who
    /// waits for a choice of channels spins first, and a light load is all waiting.
    pub(super) wake: Unparker,
    pub(super) queued_bytes: AtomicUsize,
    next_request: AtomicU64,
}

/// A handle and the inbox that it fills.
pub(super) fn inbox(clock: Clock) -> (ShardHandle, Inbox) {
    let (clients, clients_out) = bounded(CLIENT_EVENTS_MAX);
    let (cluster, cluster_out) = bounded(CLUSTER_EVENTS_MAX);
    let parker = Parker::new();
    let shared = Arc::new(Shared {
        clock,
        wake: parker.unparker().clone(),
        queued_bytes: AtomicUsize::new(0),
        next_request: AtomicU64::new(1),
    });
    let inbox =
        Inbox { clients: clients_out, cluster: cluster_out, parker, shared: shared.clone() };
    (ShardHandle { clients, cluster, shared }, inbox)
}

/// Produces waiting for a shard; more are refused as overloaded.
const CLIENT_EVENTS_MAX: usize = 16 * 1024;
/// Bytes of produces waiting for a shard; more are refused as overloaded.
const INBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Peer frames and admin requests waiting for a shard; more are dropped or refused.
const CLUSTER_EVENTS_MAX: usize = 4 * 1024;
const FULL_RETRY: Duration = Duration::from_millis(1);
