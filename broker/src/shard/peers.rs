//! What a shard knows of the lives of its peers, and what it has to say to them in this pass.
//!
//! A message of an earlier life of its sender, or meant for an earlier life of ours, is dropped: it
//! may vouch for what a crash has taken away. To a peer whose life is unknown only votes and
//! heartbeats may go, because neither vouches for anything that a restart could lose. Whoever speaks
//! to a life of ours that is over gets an empty message with the present one: nothing else might ever
//! tell a leader that a replica which does not know it has restarted.

use std::collections::BTreeMap;

use highwater_protocol::ids::{Incarnation, NodeId, RecoveryEpoch, TopicPartition};
use highwater_protocol::peer::{GroupMessage, RaftMessage};

use crate::mutant::{self, Mutant};
use crate::replica::Outgoing;
use crate::shard::event::{Effect, Lane};

/// The newest life seen of each peer.
#[derive(Debug)]
pub struct Peers {
    mine: Incarnation,
    lives: BTreeMap<NodeId, Incarnation>,
}

/// What to make of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// It belongs to an earlier life of the sender.
    OlderSender,
    /// The sender means an earlier life of ours.
    OlderReceiver,
    /// The sender is in the life that we know, or we never met.
    Known,
    /// The sender has restarted since we last met.
    Reborn,
}

impl Peers {
    /// Nobody is known yet.
    pub fn new(mine: Incarnation) -> Peers {
        Peers { mine, lives: BTreeMap::new() }
    }

    /// Compares the lives that a frame names with those that are known.
    pub fn meet(
        &mut self,
        from: NodeId,
        incarnation: Incarnation,
        to: Option<Incarnation>,
    ) -> Meeting {
        let known = self.lives.get(&from).copied();
        if known.is_some_and(|known| known > incarnation) {
            return Meeting::OlderSender;
        }
        if mutant::active(Mutant::NoIncarnationFence) {
            return Meeting::Known;
        }
        if to.is_some_and(|to| to != self.mine) {
            return Meeting::OlderReceiver;
        }
        self.lives.insert(from, incarnation);
        match known {
            Some(known) if known < incarnation => Meeting::Reborn,
            Some(_) | None => Meeting::Known,
        }
    }

    /// The newest life seen of a peer.
    pub fn life(&self, peer: NodeId) -> Option<Incarnation> {
        self.lives.get(&peer).copied()
    }
}

/// Whether a message vouches for nothing that a restart of the receiver could make wrong.
pub fn may_go_to_a_stranger(message: &RaftMessage) -> bool {
    match message {
        RaftMessage::Vote(_) | RaftMessage::Heartbeat(_) => true,
        RaftMessage::VoteAnswer(_)
        | RaftMessage::Append(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::HeartbeatAnswer(_)
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_)
        | RaftMessage::Found(_) => false,
    }
}

/// The messages of a pass, bundled by peer and lane.
#[derive(Debug, Default)]
pub struct Outbox {
    bundles: BTreeMap<(NodeId, Lane), Vec<GroupMessage>>,
    greetings: BTreeMap<NodeId, Incarnation>,
}

impl Outbox {
    /// Adds a message of one group.
    pub fn push(&mut self, group: TopicPartition, epoch: RecoveryEpoch, outgoing: Outgoing) {
        let Outgoing { to, lane, message } = outgoing;
        self.bundles.entry((to, lane)).or_default().push(GroupMessage { group, epoch, message });
    }

    /// Drops what a group wanted to say in this pass.
    pub fn forget(&mut self, group: TopicPartition) {
        for bundle in self.bundles.values_mut() {
            bundle.retain(|message| message.group != group);
        }
    }

    /// Tells a broker, in the life in which it spoke, which life of ours is the present one.
    pub fn greet(&mut self, to: NodeId, life: Incarnation) {
        self.greetings.insert(to, life);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bundles.clear();
        self.greetings.clear();
    }

    /// One `Effect::Send` for each peer and lane, or several where entries are many.
    pub fn drain_into(&mut self, peers: &Peers, out: &mut Vec<Effect>) {
        for (to, life) in std::mem::take(&mut self.greetings) {
            let (lane, incarnation, messages) = (Lane::Control, Some(life), Vec::new());
            out.push(Effect::Send { to, lane, incarnation, messages });
        }
        for ((to, lane), mut messages) in std::mem::take(&mut self.bundles) {
            let incarnation = peers.life(to);
            if incarnation.is_none() {
                messages.retain(|message| may_go_to_a_stranger(&message.message));
            }
            let mut bundle = Vec::with_capacity(messages.len());
            let mut bytes = 0;
            for message in messages {
                let size = entry_bytes(&message.message);
                if bytes + size > SEND_BYTES_MAX && !bundle.is_empty() {
                    let messages = std::mem::take(&mut bundle);
                    out.push(Effect::Send { to, lane, incarnation, messages });
                    bytes = 0;
                }
                bytes += size;
                bundle.push(message);
            }
            if !bundle.is_empty() {
                out.push(Effect::Send { to, lane, incarnation, messages: bundle });
            }
        }
    }
}

fn entry_bytes(message: &RaftMessage) -> usize {
    match message {
        RaftMessage::Append(append) => append.entries.iter().map(|entries| entries.len()).sum(),
        RaftMessage::Found(found) => found.entries.iter().map(|entries| entries.len()).sum(),
        RaftMessage::Vote(_)
        | RaftMessage::VoteAnswer(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::Heartbeat(_)
        | RaftMessage::HeartbeatAnswer(_)
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_) => 0,
    }
}

/// Entries of one `Effect::Send`, unless a single message has more; well below a frame's limit.
const SEND_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use highwater_protocol::ids::{LogIndex, Position, Term};
    use highwater_protocol::peer::{AppendRequest, Heartbeat};

    const PEER: NodeId = NodeId(2);

    fn append(bytes: usize) -> Outgoing {
        let entries = vec![Bytes::from(vec![0; bytes])];
        let append = AppendRequest {
            term: Term(1),
            prev: Position::default(),
            commit: LogIndex(0),
            start: None,
            entries,
        };
        Outgoing { to: PEER, lane: Lane::Append, message: RaftMessage::Append(append) }
    }

    fn sends(outbox: &mut Outbox, peers: &Peers) -> usize {
        let mut out = Vec::new();
        outbox.drain_into(peers, &mut out);
        out.len()
    }

    #[test]
    fn frames_of_an_earlier_life_are_dropped_on_both_sides() {
        let mut peers = Peers::new(Incarnation(5));
        assert_eq!(peers.meet(PEER, Incarnation(3), None), Meeting::Known);
        assert_eq!(peers.meet(PEER, Incarnation(3), Some(Incarnation(4))), Meeting::OlderReceiver);
        assert_eq!(peers.meet(PEER, Incarnation(2), Some(Incarnation(5))), Meeting::OlderSender);
        assert_eq!(peers.meet(PEER, Incarnation(4), Some(Incarnation(5))), Meeting::Reborn);
        assert_eq!(peers.meet(PEER, Incarnation(3), Some(Incarnation(5))), Meeting::OlderSender);
        assert_eq!(peers.life(PEER), Some(Incarnation(4)));
    }

    #[test]
    fn only_votes_and_heartbeats_go_to_a_peer_never_met() {
        let mut peers = Peers::new(Incarnation(1));
        let mut outbox = Outbox::default();
        let heartbeat = Heartbeat { term: Term(1), commit: LogIndex(0) };
        let message = RaftMessage::Heartbeat(heartbeat);
        outbox.push(TopicPartition::CLUSTER, RecoveryEpoch(0), append(10));
        outbox.push(
            TopicPartition::CLUSTER,
            RecoveryEpoch(0),
            Outgoing { to: PEER, lane: Lane::Control, message },
        );
        assert_eq!(sends(&mut outbox, &peers), 1);
        peers.meet(PEER, Incarnation(1), None);
        outbox.push(TopicPartition::CLUSTER, RecoveryEpoch(0), append(10));
        assert_eq!(sends(&mut outbox, &peers), 1);
    }

    #[test]
    fn a_bundle_is_split_before_it_grows_too_large() {
        let mut peers = Peers::new(Incarnation(1));
        peers.meet(PEER, Incarnation(1), None);
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.push(TopicPartition::CLUSTER, RecoveryEpoch(0), append(SEND_BYTES_MAX / 2 + 1));
        }
        assert_eq!(sends(&mut outbox, &peers), 3);
    }
}
