//! What waits to be sent to each peer: bounded queues between the shards and the network.
//!
//! One queue per peer and lane, and for appends one per shard, so that neither bulk nor another
//! shard delays a heartbeat, nor who catches up the appends that a commit waits for. Nothing waits
//! here for a peer that is not connected: Raft sends again what still matters when it is back. A full
//! control lane drops its oldest frame (the newer one says more), a full append or bulk lane refuses
//! the newest (what lies before it is needed first). Peers are added while the broker runs; none ever
//! goes, for its queues are empty once it is gone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwap;
use highwater_protocol::ids::{Incarnation, NodeId};
use highwater_protocol::peer::{GroupMessage, PeerBody, PeerFrame, RaftMessage};
use tokio::sync::Notify;

use crate::shard::event::Lane;

/// The outgoing queues of this broker, one set per peer.
#[derive(Clone)]
pub struct PeerOutbox {
    me: Incarnation,
    shards: usize,
    peers: Arc<ArcSwap<BTreeMap<NodeId, Arc<PeerQueues>>>>,
}

/// The queues to one peer.
pub struct PeerQueues {
    connected: AtomicBool,
    dropped: AtomicU64,
    control: Arc<PeerQueue>,
    appends: Vec<Arc<PeerQueue>>,
    bulk: Arc<PeerQueue>,
}

/// One bounded queue of frames; the network drains it.
pub struct PeerQueue {
    lane: Lane,
    frames: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<PeerFrame>,
    bytes: usize,
}

impl PeerOutbox {
    /// Empty queues for these peers; `shards` of them send appends.
    pub fn new(me: Incarnation, peers: impl IntoIterator<Item = NodeId>, shards: usize) -> Self {
        let outbox = PeerOutbox { me, shards, peers: Arc::default() };
        for peer in peers {
            assert!(outbox.add(peer), "a configuration names fewer peers than there may be");
        }
        outbox
    }

    /// Makes queues for one more peer; false where there are too many.
    pub fn add(&self, peer: NodeId) -> bool {
        let mut fits = true;
        self.peers.rcu(|known| {
            fits = known.contains_key(&peer) || known.len() < PEERS_MAX;
            if !fits || known.contains_key(&peer) {
                return Arc::clone(known);
            }
            let mut more = BTreeMap::clone(known);
            more.insert(peer, PeerQueues::new(self.shards));
            Arc::new(more)
        });
        fits
    }

    /// Queues something that is not Raft's on the control lane; false where it was dropped at once.
    pub fn send(&self, to: NodeId, body: PeerBody) -> bool {
        let peers = self.peers.load();
        let Some(peer) = peers.get(&to) else { return false };
        peer.push(&peer.control, PeerFrame { from: self.me, to: None, body })
    }

    /// Queues one pass's Raft messages of a shard; false where they were dropped at once.
    pub fn send_raft(
        &self,
        to: NodeId,
        lane: Lane,
        shard: usize,
        incarnation: Option<Incarnation>,
        messages: Vec<GroupMessage>,
    ) -> bool {
        let peers = self.peers.load();
        let Some(peer) = peers.get(&to) else { return false };
        let queue = match lane {
            Lane::Control => &peer.control,
            Lane::Append => &peer.appends[shard],
            Lane::Bulk => &peer.bulk,
        };
        let body = PeerBody::Raft(messages);
        peer.push(queue, PeerFrame { from: self.me, to: incarnation, body })
    }

    /// The peers that are connected now.
    pub fn connected(&self) -> Vec<NodeId> {
        let up = |queues: &PeerQueues| queues.connected.load(Ordering::Acquire);
        let peers = self.peers.load();
        peers.iter().filter(|(_, queues)| up(queues)).map(|(peer, _)| *peer).collect()
    }

    /// The queues to a peer, for the network.
    pub fn queues(&self, peer: NodeId) -> Option<Arc<PeerQueues>> {
        self.peers.load().get(&peer).cloned()
    }
}

impl PeerQueues {
    fn new(shards: usize) -> Arc<PeerQueues> {
        Arc::new(PeerQueues {
            connected: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            control: PeerQueue::new(Lane::Control),
            appends: (0..shards).map(|_| PeerQueue::new(Lane::Append)).collect(),
            bulk: PeerQueue::new(Lane::Bulk),
        })
    }

    /// From now on frames are kept for sending.
    pub fn connect(&self) {
        self.clear();
        self.connected.store(true, Ordering::Release);
    }

    /// From now on frames are dropped, and what waited is gone.
    pub fn disconnect(&self) {
        self.connected.store(false, Ordering::Release);
        self.clear();
    }

    fn clear(&self) {
        for queue in [&self.control, &self.bulk].into_iter().chain(&self.appends) {
            let mut waiting = queue.lock();
            waiting.frames.clear();
            waiting.bytes = 0;
        }
    }

    /// The queue of votes, heartbeats, news and commands.
    pub fn control(&self) -> &Arc<PeerQueue> {
        &self.control
    }

    /// The queues of appends, one per shard.
    pub fn appends(&self) -> &[Arc<PeerQueue>] {
        &self.appends
    }

    /// The queue of appends to who is far behind.
    pub fn bulk(&self) -> &Arc<PeerQueue> {
        &self.bulk
    }

    /// How many frames were dropped because a queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn push(&self, queue: &PeerQueue, frame: PeerFrame) -> bool {
        if !self.connected.load(Ordering::Acquire) {
            return false;
        }
        let taken = queue.push(frame);
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}

impl PeerQueue {
    fn new(lane: Lane) -> Arc<PeerQueue> {
        Arc::new(PeerQueue { lane, frames: Mutex::default(), filled: Notify::new() })
    }

    /// Waits until there is something and takes all of it.
    pub async fn take(&self) -> VecDeque<PeerFrame> {
        loop {
            {
                let mut waiting = self.lock();
                if !waiting.frames.is_empty() {
                    waiting.bytes = 0;
                    return std::mem::take(&mut waiting.frames);
                }
            }
            self.filled.notified().await;
        }
    }

    fn push(&self, frame: PeerFrame) -> bool {
        let bytes = payload_bytes(&frame);
        let mut waiting = self.lock();
        let full = waiting.frames.len() >= FRAMES_MAX
            || (waiting.bytes > 0 && waiting.bytes + bytes > BYTES_MAX);
        let taken = match (full, self.lane) {
            (false, Lane::Control | Lane::Append | Lane::Bulk) => true,
            (true, Lane::Append | Lane::Bulk) => return false,
            (true, Lane::Control) => {
                let oldest = waiting.frames.pop_front();
                waiting.bytes -= oldest.map_or(0, |frame| payload_bytes(&frame));
                false
            }
        };
        waiting.bytes += bytes;
        waiting.frames.push_back(frame);
        drop(waiting);
        self.filled.notify_one();
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.frames.lock().expect("no one panics while holding a queue")
    }
}

fn payload_bytes(frame: &PeerFrame) -> usize {
    match &frame.body {
        PeerBody::Raft(messages) => messages.iter().map(message_bytes).sum(),
        PeerBody::Leaders(news) => news.len() * NEWS_BYTES,
        PeerBody::Command { command, .. } => command.len(),
        PeerBody::CommandAnswer { result, .. } => result.as_ref().map_or(0, |bytes| bytes.len()),
    }
}

fn message_bytes(message: &GroupMessage) -> usize {
    match &message.message {
        RaftMessage::Append(append) => append.entries.iter().map(|entry| entry.len()).sum(),
        RaftMessage::Found(found) => found.entries.iter().map(|entry| entry.len()).sum(),
        RaftMessage::Vote(_)
        | RaftMessage::VoteAnswer(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::Heartbeat(_)
        | RaftMessage::HeartbeatAnswer(_)
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_) => 0,
    }
}

/// Peers that there are queues for.
const PEERS_MAX: usize = 1_000;
/// Frames that may wait in one queue.
const FRAMES_MAX: usize = 4096;
/// Payload bytes that may wait in one queue; a single frame may be larger.
const BYTES_MAX: usize = 64 * 1024 * 1024;
const NEWS_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn command(id: u64) -> PeerBody {
        PeerBody::Command { id, command: Bytes::new() }
    }

    #[test]
    fn nothing_waits_for_a_peer_that_is_not_connected() {
        let outbox = PeerOutbox::new(Incarnation(1), [NodeId(2)], 1);
        assert!(!outbox.send(NodeId(2), command(1)));
        assert!(!outbox.send(NodeId(9), command(1)), "nobody of that name");
        outbox.queues(NodeId(2)).expect("made above").connect();
        assert!(outbox.send(NodeId(2), command(1)));
    }

    #[test]
    fn peers_are_added_while_others_are_spoken_to_and_only_so_many() {
        let outbox = PeerOutbox::new(Incarnation(1), [NodeId(2)], 1);
        outbox.queues(NodeId(2)).expect("made above").connect();
        let clone = outbox.clone();
        assert!((3..3 + PEERS_MAX as u32 - 1).all(|node| clone.add(NodeId(node))));
        assert!(!clone.add(NodeId(9_999)) && clone.add(NodeId(2)));
        assert!(outbox.queues(NodeId(7)).is_some(), "clones are the same one");
        assert_eq!(outbox.connected(), [NodeId(2)], "and nobody is forgotten");
    }

    #[tokio::test]
    async fn a_full_control_lane_drops_its_oldest_frame() {
        let outbox = PeerOutbox::new(Incarnation(1), [NodeId(2)], 1);
        let queues = outbox.queues(NodeId(2)).expect("made above");
        queues.connect();
        for id in 0..=FRAMES_MAX as u64 {
            outbox.send(NodeId(2), command(id));
        }
        let frames = queues.control().take().await;
        assert_eq!(frames.len(), FRAMES_MAX);
        assert_eq!(frames[0].body, command(1));
        assert_eq!(queues.dropped(), 1);
    }
}
