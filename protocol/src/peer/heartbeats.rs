//! Heartbeats and their answers of one frame, coalesced: a few bytes for each group.
//!
//! Groups are sorted by topic, a topic's id stands once before its groups, and numbers are
//! variable-length: what a thousand idle groups cost is this file.

use crate::ids::{LogIndex, PartitionId, RecoveryEpoch, Term, TopicId, TopicPartition};
use crate::native::coding;
use crate::peer::{GroupMessage, Heartbeat, HeartbeatAnswer, RaftMessage};
use crate::wire::{DecodeError, Reader, Writer};

/// What is to be coalesced.
#[derive(Default)]
pub(crate) struct Beats {
    beats: Vec<Beat>,
    answers: Vec<Beat>,
}

/// Both kinds say a term and an index.
#[derive(Clone, Copy)]
struct Beat {
    group: TopicPartition,
    term: Term,
    index: LogIndex,
}

/// The fewest bytes of a topic: its id and an empty list.
const TOPIC_BYTES_MIN: usize = 17;
/// The fewest bytes of a group: partition, term and index.
const GROUP_BYTES_MIN: usize = 3;

impl Beats {
    pub(crate) fn add(&mut self, group: TopicPartition, beat: Heartbeat) {
        self.beats.push(Beat { group, term: beat.term, index: beat.commit });
    }

    pub(crate) fn add_answer(&mut self, group: TopicPartition, answer: HeartbeatAnswer) {
        self.answers.push(Beat { group, term: answer.term, index: answer.log_end });
    }

    pub(crate) fn encode(mut self, writer: &mut Writer) {
        for beats in [&mut self.beats, &mut self.answers] {
            beats.sort_by_key(|beat| beat.group);
            let topics: Vec<&[Beat]> =
                beats.chunk_by(|one, next| one.group.topic == next.group.topic).collect();
            writer.list(&topics, |writer, groups| {
                writer.u128(groups[0].group.topic.0.as_u128());
                writer.list(groups, |writer, beat| {
                    writer.uvarint(beat.group.partition.0.into());
                    writer.uvarint(beat.term.0.into());
                    writer.uvarint(beat.index.0);
                });
            });
        }
    }
}

/// Reads both kinds back as messages.
pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Vec<GroupMessage>, DecodeError> {
    let mut messages = Vec::new();
    decode_kind(reader, &mut messages, |beat| {
        RaftMessage::Heartbeat(Heartbeat { term: beat.term, commit: beat.index })
    })?;
    decode_kind(reader, &mut messages, |beat| {
        RaftMessage::HeartbeatAnswer(HeartbeatAnswer { term: beat.term, log_end: beat.index })
    })?;
    Ok(messages)
}

fn decode_kind(
    reader: &mut Reader<'_>,
    messages: &mut Vec<GroupMessage>,
    message: impl Fn(Beat) -> RaftMessage,
) -> Result<(), DecodeError> {
    for _ in 0..reader.count("topics with heartbeats", TOPIC_BYTES_MIN)? {
        let topic = coding::topic_id(reader)?;
        for _ in 0..reader.count("groups with heartbeats", GROUP_BYTES_MIN)? {
            let beat = decode_beat(reader, topic)?;
            messages.push(GroupMessage {
                group: beat.group,
                epoch: RecoveryEpoch::default(),
                message: message(beat),
            });
        }
    }
    Ok(())
}

fn decode_beat(reader: &mut Reader<'_>, topic: TopicId) -> Result<Beat, DecodeError> {
    let narrow = |value: u64, what| {
        u32::try_from(value).map_err(|_| DecodeError::Invalid { what, found: value })
    };
    let partition = PartitionId(narrow(reader.uvarint()?, "a partition")?);
    let term = Term(narrow(reader.uvarint()?, "a term")?);
    let index = coding::short_log_index(reader)?;
    Ok(Beat { group: TopicPartition { topic, partition }, term, index })
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_heartbeat_costs_a_few_bytes_however_many_groups_there_are() {
        let mut beats = Beats::default();
        for partition in (0..1000).rev() {
            let group = group(7, partition);
            beats.add(group, Heartbeat { term: Term(12), commit: LogIndex(1_000_000) });
        }
        let bytes = coalesced(beats);
        assert!(bytes.len() < 1000 * 6 + 32, "{} bytes for a thousand groups", bytes.len());
        let messages = decode(&mut Reader::new(&bytes)).expect("our own bytes");
        assert_eq!(messages.len(), 1000);
        assert!(messages.is_sorted_by_key(|one| one.group));
    }

    #[test]
    fn topics_and_kinds_keep_apart() {
        let mut beats = Beats::default();
        for topic in [9, 3] {
            let beat = Heartbeat { term: Term(1), commit: LogIndex(topic as u64) };
            beats.add(group(topic, 0), beat);
        }
        beats.add_answer(group(3, 0), HeartbeatAnswer { term: Term(2), log_end: LogIndex(5) });
        let beat = |topic, commit| GroupMessage {
            group: group(topic, 0),
            epoch: RecoveryEpoch::default(),
            message: RaftMessage::Heartbeat(Heartbeat { term: Term(1), commit: LogIndex(commit) }),
        };
        let answer = HeartbeatAnswer { term: Term(2), log_end: LogIndex(5) };
        let answer = GroupMessage {
            group: group(3, 0),
            epoch: RecoveryEpoch::default(),
            message: RaftMessage::HeartbeatAnswer(answer),
        };
        let messages = decode(&mut Reader::new(&coalesced(beats)));
        assert_eq!(messages, Ok(vec![beat(3, 3), beat(9, 9), answer]));
    }

    #[test]
    fn a_partition_or_term_above_32_bits_is_refused() {
        let mut writer = Writer::new();
        writer.uvarint(1);
        writer.u128(7);
        writer.uvarint(1);
        writer.uvarint(1 << 32);
        writer.raw(&[0; 8]);
        let read = decode(&mut Reader::new(&writer.finish()));
        assert_eq!(read, Err(DecodeError::Invalid { what: "a partition", found: 1 << 32 }));
    }

    fn coalesced(beats: Beats) -> bytes::Bytes {
        let mut writer = Writer::new();
        beats.encode(&mut writer);
        writer.finish()
    }

    fn group(topic: u128, partition: u32) -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::from_u128(topic)), PartitionId(partition))
    }
}
