//! What brokers tell each other over ALPN `highwater-peer/1`: Raft messages bundled per pair of
//! brokers and shard, leader news, and commands for the controller.
//!
//! Messages may be lost, repeated and reordered; nothing here relies on order. Every frame carries
//! the sender's incarnation and, once known, the receiver's, so that what was sent before a restart
//! is recognised and dropped.

mod coding;
mod heartbeats;

use bytes::Bytes;

use crate::error::WireError;
use crate::ids::{Incarnation, LogIndex, NodeId, Position, RecoveryEpoch, Term, TopicPartition};

/// The ALPN name of the protocol between brokers.
pub const ALPN: &[u8] = b"highwater-peer/1";

/// One write from one broker to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFrame {
    /// The sender's life.
    pub from: Incarnation,
    /// The receiver's life as the sender knows it.
    pub to: Option<Incarnation>,
    /// What it says.
    pub body: PeerBody,
}

/// What a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerBody {
    /// Raft messages of several groups, for the shards that own them.
    Raft(Vec<GroupMessage>),
    /// News of partitions that the sender leads.
    Leaders(Vec<LeaderNews>),
    /// A command for the controller, passed on by a broker that does not lead it.
    Command {
        /// Pairs the answer with the question.
        id: u64,
        /// A controller command in the controller's own coding.
        command: Bytes,
    },
    /// The controller's answer.
    CommandAnswer {
        /// The question's id.
        id: u64,
        /// The answer in the controller's own coding, or why there is none.
        result: Result<Bytes, WireError>,
    },
}

/// A Raft message and the group it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMessage {
    /// The group: one per partition.
    pub group: TopicPartition,
    /// Which group of that partition: a recovery begins another.
    pub epoch: RecoveryEpoch,
    /// The message.
    pub message: RaftMessage,
}

/// A partition that the sender leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderNews {
    /// Which one.
    pub partition: TopicPartition,
    /// In which term.
    pub term: Term,
    /// The voters that keep up.
    pub in_sync: Vec<NodeId>,
}

/// The messages of Raft, for a log whose entries are record batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RaftMessage {
    /// "I would stand, or I stand."
    Vote(VoteRequest),
    /// The answer to `Vote`.
    VoteAnswer(VoteAnswer),
    /// Entries, and where they join on.
    Append(AppendRequest),
    /// The answer to `Append`, and unasked, when more of it has reached the disk.
    AppendAnswer(AppendAnswer),
    /// "I still lead." Coalesced over groups on the wire.
    Heartbeat(Heartbeat),
    /// The answer to `Heartbeat`.
    HeartbeatAnswer(HeartbeatAnswer),
    /// "Stand now, without waiting for a time-out" (Raft thesis, section 3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// "I can no longer read what I have behind this place."
    Wanted(FramesWanted),
    /// The answer to `Wanted`, from any replica that has it.
    Found(FramesFound),
}

/// A request for entries that the sender holds by their index and can no longer read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramesWanted {
    /// The boundary behind which they lie: two logs that agree there are the same before it.
    pub behind: Position,
    /// How many bytes of them to send; one frame at least comes.
    pub bytes_max: u32,
}

/// The entries of another replica behind a boundary, for one that compares each with its own index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramesFound {
    /// The boundary that was asked about.
    pub behind: Position,
    /// Batches and marks as they lie in the sender's log.
    pub entries: Vec<Bytes>,
}

/// Which election a vote is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ballot {
    /// Asked before the term is raised (Raft thesis, section 9.6).
    Pre,
    /// The election itself.
    Real,
    /// The election itself, on the old leader's own wish: answered even while a leader is alive.
    Transfer,
}

/// A request for a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteRequest {
    /// The term stood for.
    pub term: Term,
    /// Which election.
    pub ballot: Ballot,
    /// Where the candidate's log ends.
    pub last: Position,
}

/// The answer to a request for a vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteAnswer {
    /// The voter's term, or for a granted pre-vote the term asked for.
    pub term: Term,
    /// Which election it answers.
    pub ballot: Ballot,
    /// Whether the vote is given.
    pub granted: bool,
}

/// Entries for a follower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendRequest {
    /// The leader's term.
    pub term: Term,
    /// Where the entries join on: a batch boundary of the leader's log.
    pub prev: Position,
    /// Everything before this is committed.
    pub commit: LogIndex,
    /// Where the leader's log starts, as its file `start` says it, if that is `prev`: whoever has
    /// less can start there, too, for everything before is committed and given up.
    pub start: Option<Bytes>,
    /// Batches and marks as they lie in the leader's log; empty to probe.
    pub entries: Vec<Bytes>,
}

/// How a follower took an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendAnswer {
    /// The follower's term.
    pub term: Term,
    /// Whether the entries joined on.
    pub outcome: AppendOutcome,
}

/// Whether a replica can read all entries of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legible {
    /// It can.
    All,
    /// It knows which they are, and cannot send some of them.
    Gaps,
}

/// Whether entries joined on to the follower's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The follower's log agrees with the leader's up to `appended`, and up to `flushed` on disk.
    Accepted {
        /// Exclusive end of what agrees.
        appended: LogIndex,
        /// Exclusive end of what agrees and is on disk.
        flushed: LogIndex,
        /// Exclusive end of what the follower vouches for: what is on disk, or what agrees, where its
        /// journal says that it may lose some of that. Nothing, while it is Suspect and has no vote.
        vouched: LogIndex,
        /// Whether the follower can still read all of its log.
        legible: Legible,
    },
    /// The follower has no entry of `prev.term` ending at `prev.index`.
    Rejected {
        /// The `prev.index` refused, so that a late answer is recognised.
        at: LogIndex,
        /// The follower's last entry at or before it whose term is not above `prev.term`.
        hint: Position,
    },
}

/// A leader's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The leader's term.
    pub term: Term,
    /// What the receiver may take as committed: never above what it has acknowledged.
    pub commit: LogIndex,
}

/// A follower's sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// The follower's term.
    pub term: Term,
    /// Where its log ends, so that a leader notices one that came back with less.
    pub log_end: LogIndex,
}
