//! One connection with every other broker: who dials, what travels on which stream, where it goes.
//!
//! Of two brokers the one with the lower id dials, and the other only after a while without
//! a connection: one that joins is known to nobody yet. Who is dialled, is in `dialer`. Each side opens one
//! stream of high priority for everything small, one per shard for appends, and one of low priority for
//! appends to who is far behind, and reads the other
//! side's. Nothing here waits for a shard: a frame that finds an inbox full is dropped, because Raft
//! sends again what matters, while a stream that is not read would hold up the heartbeats behind it.
//! Checksums of appended batches are verified here, before the core sees them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Incarnation, NodeId};
use highwater_protocol::peer::{GroupMessage, PeerBody, PeerFrame};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::CloseCode;
use super::frames::{FrameError, FrameReader, Gather};
use super::peer_codec::{FRAME_BYTES_MAX, encode_into, is_intact};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::net::Rooms;
use crate::node::Node;
use crate::shard::event::Event;
use crate::shard::handle::{PeerOutbox, PeerQueue, Shards};

/// The connections with all peers; clones are the same ones.
#[derive(Clone)]
pub(super) struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: String,
    /// One for each peer that ever connected, at most as many as the outbox has queues for.
    slots: Mutex<BTreeMap<NodeId, Arc<Slot>>>,
    outbox: PeerOutbox,
    shards: Shards,
    node: Node,
    metrics: Arc<Metrics>,
}

/// Where the one connection with a peer is kept.
#[derive(Default)]
struct Slot {
    newest: Mutex<Option<Connection>>,
    // Held by the task that serves the connection, so that two never drain one queue.
    serving: tokio::sync::Mutex<()>,
}

impl Peers {
    pub(super) fn new(config: &Config, rooms: &Rooms) -> Peers {
        Peers {
            inner: Arc::new(Inner {
                cluster: config.cluster.id.clone(),
                slots: Mutex::default(),
                outbox: rooms.outbox.clone(),
                shards: rooms.shards.clone(),
                node: rooms.node.clone(),
                metrics: Arc::clone(&rooms.metrics),
            }),
        }
    }

    /// Makes room for a broker whose certificate says that it is one of this cluster; false where
    /// there is none.
    pub(super) fn welcome(&self, node: NodeId) -> bool {
        self.inner.outbox.add(node)
    }

    /// The name of the cluster.
    pub(super) fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    /// This broker in its cluster.
    pub(super) fn node(&self) -> &Node {
        &self.inner.node
    }

    /// The open connection with a peer.
    pub(super) fn connection(&self, peer: NodeId) -> Option<Connection> {
        let slot = self.slot(peer);
        let newest = slot.newest.lock().expect("no one panics while holding a connection");
        newest.clone().filter(|connection| connection.close_reason().is_none())
    }

    fn slot(&self, peer: NodeId) -> Arc<Slot> {
        let mut slots = self.inner.slots.lock().expect("no one panics while holding the slots");
        Arc::clone(slots.entry(peer).or_default())
    }

    /// Serves a connection with a peer until it is lost or a newer one takes its place.
    pub(super) async fn run(&self, peer: NodeId, connection: Connection) {
        let slot = self.slot(peer);
        let older = slot
            .newest
            .lock()
            .expect("no one panics while holding a connection")
            .replace(connection.clone());
        if let Some(older) = older {
            older.close(CloseCode::Replaced.into(), b"a newer connection took its place");
        }
        let _serving = slot.serving.lock().await;
        if connection.close_reason().is_some() {
            return;
        }
        let queues = self.inner.outbox.queues(peer).expect("the outbox knows every peer");
        queues.connect();
        self.inner.metrics.peers_connected.up();
        info!(%peer, address = %connection.remote_address(), "peer connected");

        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().write(connection.clone(), Arc::clone(queues.control()), URGENT));
        for queue in queues.appends() {
            tasks.spawn(self.clone().write(connection.clone(), Arc::clone(queue), PROMPT));
        }
        tasks.spawn(self.clone().write(connection.clone(), Arc::clone(queues.bulk()), BULK));
        tasks.spawn(self.clone().read_all(peer, connection.clone()));
        let reason = connection.closed().await;
        tasks.shutdown().await;

        queues.disconnect();
        self.inner.metrics.peers_connected.down();
        info!(%peer, %reason, "peer disconnected");
    }

    /// Sends what one queue holds, on a stream of its own.
    async fn write(self, connection: Connection, queue: Arc<PeerQueue>, priority: i32) {
        let Ok(mut stream) = connection.open_uni().await else { return };
        // Fails only on a stream that is gone, and then so does the first write.
        let _ = stream.set_priority(priority);
        let mut gather = Gather::default();
        loop {
            for frame in queue.take().await {
                encode_into(frame, &mut gather);
                if gather.bytes() >= WRITE_BYTES && !self.flush(&mut gather, &mut stream).await {
                    return;
                }
            }
            if !self.flush(&mut gather, &mut stream).await {
                return;
            }
        }
    }

    async fn flush(&self, gather: &mut Gather, stream: &mut SendStream) -> bool {
        match gather.write_to(stream).await {
            Ok(bytes) => {
                self.inner.metrics.peer_bytes_out.add(bytes as u64);
                true
            }
            Err(error) => {
                debug!(%error, "a stream to a peer ended");
                false
            }
        }
    }

    async fn read_all(self, peer: NodeId, connection: Connection) {
        let commands = Arc::new(Semaphore::new(COMMANDS_MAX));
        let mut readers = JoinSet::new();
        while let Ok(stream) = connection.accept_uni().await {
            let reader = Reader { peers: self.clone(), peer, commands: Arc::clone(&commands) };
            let connection = connection.clone();
            readers.spawn(async move {
                if let Err(error) = reader.read(stream).await {
                    debug!(%peer, %error, "a stream from a peer ended");
                    // A peer's stream ends only with its connection, or because it went wrong.
                    let reason = error.to_string();
                    connection.close(CloseCode::Protocol.into(), reason.as_bytes());
                }
            });
        }
        readers.shutdown().await;
    }
}

/// Reads the frames of one peer and brings them where they belong.
struct Reader {
    peers: Peers,
    peer: NodeId,
    commands: Arc<Semaphore>,
}

#[derive(Debug, thiserror::Error)]
enum ReadFailed {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("a frame that is not of this protocol: {0}")]
    Decode(String),
}

impl Reader {
    async fn read(self, stream: RecvStream) -> Result<(), ReadFailed> {
        let metrics = Arc::clone(&self.peers.inner.metrics);
        let mut frames = FrameReader::new(stream, FRAME_BYTES_MAX);
        while let Some(bytes) = frames.next().await? {
            metrics.peer_bytes_in.add(bytes.len() as u64);
            let frame =
                PeerFrame::decode(bytes).map_err(|error| ReadFailed::Decode(error.to_string()))?;
            self.dispatch(frame);
        }
        Ok(())
    }

    fn dispatch(&self, PeerFrame { from, to, body }: PeerFrame) {
        match body {
            PeerBody::Raft(messages) => self.submit(from, to, messages),
            PeerBody::Leaders(news) => self.peers.inner.node.leader_news(self.peer, news),
            PeerBody::Command { id, command } => self.answer_command(id, command),
            PeerBody::CommandAnswer { id, result } => {
                self.peers.inner.node.command_answered(id, result);
            }
        }
    }

    /// Brings Raft messages to the shards that own their groups. A frame without any says in which life
    /// the sender is, which every shard is to know.
    fn submit(
        &self,
        incarnation: Incarnation,
        to: Option<Incarnation>,
        messages: Vec<GroupMessage>,
    ) {
        let Inner { shards, metrics, .. } = &*self.peers.inner;
        let greets = messages.is_empty();
        let mut by_shard: Vec<Vec<GroupMessage>> = Vec::new();
        by_shard.resize_with(shards.all().len(), Vec::new);
        for message in messages {
            if !is_intact(&message.message) {
                metrics.peer_frames_corrupt.bump();
                warn!(peer = %self.peer, partition = %message.group, "append dropped: bad checksum");
                continue;
            }
            by_shard[shards.index_of(message.group)].push(message);
        }
        for (shard, messages) in shards.all().iter().zip(by_shard) {
            if messages.is_empty() && !greets {
                continue;
            }
            let event = Event::Peer { from: self.peer, incarnation, to, messages };
            if shard.submit(event).is_err() {
                metrics.peer_frames_dropped.bump();
            }
        }
    }

    fn answer_command(&self, id: u64, command: bytes::Bytes) {
        let outbox = self.peers.inner.outbox.clone();
        let peer = self.peer;
        let Ok(permit) = Arc::clone(&self.commands).try_acquire_owned() else {
            let result = Err(WireError::new(
                ErrorCode::Overloaded,
                "too many commands wait at the controller; send again after a moment",
            ));
            outbox.send(peer, PeerBody::CommandAnswer { id, result });
            return;
        };
        let node = self.peers.inner.node.clone();
        tokio::spawn(async move {
            let result = node.command_from_peer(peer, command).await;
            outbox.send(peer, PeerBody::CommandAnswer { id, result });
            drop(permit);
        });
    }
}

/// Commands of one peer under way at once; more are refused.
const COMMANDS_MAX: usize = 256;
/// Encoded frames are handed to the stream when so many bytes have gathered.
const WRITE_BYTES: usize = 1024 * 1024;
const URGENT: i32 = 10;
const PROMPT: i32 = 5;
const BULK: i32 = 0;
