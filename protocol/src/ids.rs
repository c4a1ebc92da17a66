//! The words of the cluster as types: ids, terms, offsets, positions.
//!
//! A naked integer never travels past a codec. Only arithmetic that makes sense exists: an offset
//! can be advanced, and the distance between two offsets taken, but two offsets cannot be added.

use std::fmt;

use uuid::Uuid;

/// A broker's place in its cluster, chosen by the operator and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// A topic for its whole life; a topic of the same name made later has another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

/// A partition's number within its topic, dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub u32);

/// One partition of one topic: the unit that has a leader, a log and a Raft group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic it belongs to.
    pub topic: TopicId,
    /// Its number within the topic.
    pub partition: PartitionId,
}

/// An election number; on the wire and in record batches, the leader epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u32);

/// How often a partition was begun anew from one replica's log, because a majority was lost for good.
/// Replicas of different epochs do not hear each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RecoveryEpoch(pub u32);

/// The place of a record in its partition, dense from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

/// A count of Raft entries, records and marks alike: as a bound it is an exclusive end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

/// Where a log stands: the term of its last entry and the exclusive end of its entries.
///
/// The derived order is Raft's "at least as up to date" (Raft paper, section 5.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Term of the entry just before `index`; 0 for an empty log.
    pub term: Term,
    /// Number of entries before this position.
    pub index: LogIndex,
}

/// How often a broker has booted on its data directory; a later life has a larger number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

/// A data directory's identity (as in KIP-853): a wiped and remade directory has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId(pub Uuid);

/// An idempotent producer, unique within the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub u64);

/// A producer's life; a newer epoch fences the older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ProducerEpoch(pub u16);

/// Wall-clock time in milliseconds since the Unix epoch, as producers and logs stamp it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl TopicId {
    /// The internal topic whose one partition is the controller's log.
    pub const CLUSTER: TopicId = TopicId(Uuid::from_u128(1));
}

impl TopicPartition {
    /// The controller's own partition, `__cluster`.
    pub const CLUSTER: TopicPartition =
        TopicPartition { topic: TopicId::CLUSTER, partition: PartitionId(0) };

    /// The partition `partition` of `topic`.
    pub fn new(topic: TopicId, partition: PartitionId) -> TopicPartition {
        TopicPartition { topic, partition }
    }
}

impl Term {
    /// The election after this one.
    pub fn next(self) -> Term {
        Term(self.0.checked_add(1).expect("a cluster does not live for four billion elections"))
    }
}

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// The offset `records` further on.
    pub fn advance(self, records: u64) -> Offset {
        Offset(self.0 + records)
    }

    /// How many records lie between `start` and this end; `start` must not be behind it.
    pub fn since(self, start: Offset) -> u64 {
        assert!(start <= self, "offset {start} lies behind the end {self}");
        self.0 - start.0
    }
}

impl LogIndex {
    /// The end of an empty log.
    pub const ZERO: LogIndex = LogIndex(0);

    /// The index `entries` further on.
    pub fn advance(self, entries: u64) -> LogIndex {
        LogIndex(self.0 + entries)
    }

    /// How many entries lie between `start` and this end; `start` must not be behind it.
    pub fn since(self, start: LogIndex) -> u64 {
        assert!(start <= self, "index {start} lies behind the end {self}");
        self.0 - start.0
    }
}

macro_rules! shown_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

shown_as_number!(
    NodeId,
    TopicId,
    PartitionId,
    Term,
    RecoveryEpoch,
    Offset,
    LogIndex,
    Incarnation,
    DirectoryId,
    ProducerId,
    ProducerEpoch,
    Timestamp
);

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {} index {}", self.term, self.index)
    }
}
