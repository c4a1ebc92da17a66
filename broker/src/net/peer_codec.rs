//! Frames between brokers: cut to size before they are encoded, checked before they are believed.

use bytes::Bytes;
use highwater_protocol::batch;
use highwater_protocol::peer::{GroupMessage, PeerBody, PeerFrame, RaftMessage};

use super::frames::Gather;

/// The largest frame taken from a peer: one message may carry the largest batch there is.
pub(super) const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Encodes a frame behind what has gathered, as several frames where it is large: the receiver
/// begins with the first while the last is still on its way. A frame without messages goes, too: it says in
/// which life its sender is.
pub(super) fn encode_into(frame: PeerFrame, gather: &mut Gather) {
    let PeerFrame { from, to, body } = frame;
    let PeerBody::Raft(messages) = body else {
        return encode_one(&PeerFrame { from, to, body }, gather);
    };
    let mut part = Vec::with_capacity(messages.len());
    let greets = messages.is_empty();
    let mut bytes = 0;
    for message in messages {
        bytes += entry_bytes(&message);
        part.push(message);
        if bytes >= PART_BYTES {
            bytes = 0;
            let body = PeerBody::Raft(std::mem::take(&mut part));
            encode_one(&PeerFrame { from, to, body }, gather);
        }
    }
    if greets || !part.is_empty() {
        encode_one(&PeerFrame { from, to, body: PeerBody::Raft(part) }, gather);
    }
}

fn encode_one(frame: &PeerFrame, gather: &mut Gather) {
    let chunks = frame.encode_chunks();
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    let length = u32::try_from(bytes).expect("a frame is cut long before four gigabytes");
    gather.push(Bytes::copy_from_slice(&length.to_be_bytes()));
    chunks.into_iter().for_each(|chunk| gather.push(chunk));
}

/// Whether the checksum of every batch in an append fits.
pub(super) fn is_intact(message: &RaftMessage) -> bool {
    match message {
        RaftMessage::Append(append) => append.entries.iter().all(|entries| {
            batch::frames(entries).all(|frame| {
                frame.is_ok_and(|(header, bytes)| header.verify_checksum(bytes).is_ok())
            })
        }),
        RaftMessage::Vote(_)
        | RaftMessage::VoteAnswer(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::Heartbeat(_)
        | RaftMessage::HeartbeatAnswer(_)
        // What it carries is compared with the index of whoever asked.
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_)
        | RaftMessage::Found(_) => true,
    }
}

fn entry_bytes(message: &GroupMessage) -> usize {
    match &message.message {
        RaftMessage::Append(append) => append.entries.iter().map(Bytes::len).sum(),
        RaftMessage::Found(found) => found.entries.iter().map(Bytes::len).sum(),
        RaftMessage::Vote(_)
        | RaftMessage::VoteAnswer(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::Heartbeat(_)
        | RaftMessage::HeartbeatAnswer(_)
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_) => 0,
    }
}

/// A frame that has grown to this is sent, and the rest goes into the next.
const PART_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{Incarnation, LogIndex, RecoveryEpoch, Term, TopicPartition};
    use highwater_protocol::peer::Heartbeat;

    use super::*;

    /// The numbers of messages in the frames that one of `count` messages becomes.
    fn frames_of(count: usize) -> Vec<usize> {
        let heartbeat = Heartbeat { term: Term(1), commit: LogIndex(0) };
        let message = || GroupMessage {
            group: TopicPartition::CLUSTER,
            epoch: RecoveryEpoch(0),
            message: RaftMessage::Heartbeat(heartbeat),
        };
        let body = PeerBody::Raft((0..count).map(|_| message()).collect());
        let mut gather = Gather::default();
        encode_into(PeerFrame { from: Incarnation(2), to: None, body }, &mut gather);
        let mut bytes = gather.written();
        let mut counts = Vec::new();
        while !bytes.is_empty() {
            let length = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
            let frame = bytes.split_to(4 + length as usize).slice(4..);
            match PeerFrame::decode(frame).expect("it was encoded").body {
                PeerBody::Raft(messages) => counts.push(messages.len()),
                other => panic!("{other:?}"),
            }
        }
        counts
    }

    #[test]
    fn a_frame_without_messages_is_sent_for_it_names_the_senders_life() {
        assert_eq!(frames_of(0), [0]);
        assert_eq!(frames_of(3), [3]);
    }
}
