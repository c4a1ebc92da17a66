//! What goes into a replica and comes out of it as plain values; the shard adds what concerns many
//! replicas at once.

use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use highwater_protocol::ids::{NodeId, Offset, Position, Term, TopicPartition};
use highwater_protocol::native::admin::DescribePartitionResponse;
use highwater_protocol::native::inspect::InspectReplicaResponse;
use highwater_protocol::native::produce::AckMode;
use highwater_protocol::native::repair::RepairReplicaResponse;

use crate::raft::Millis;

use super::{Recovery, ReplicaOptions};

/// Pairs a reply with its request; the driver makes them and the shard only hands them back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A replica to host.
#[derive(Debug, Clone)]
pub struct OpenReplica {
    /// Which partition.
    pub partition: TopicPartition,
    /// The directory of its files.
    pub dir: PathBuf,
    /// The voters the partition was made with; marks in the log overrule them.
    pub voters: Vec<NodeId>,
    /// The learners it was made with; marks in the log overrule them.
    pub learners: Vec<NodeId>,
    /// Whether others may vote by now whom neither names.
    pub moving: Moving,
    /// Set when the controller knows this replica under another data directory: ours was wiped,
    /// so an empty log proves nothing and the replica starts Suspect.
    pub identity: Identity,
    /// The recovery that began the group which the image knows; the shard may know a later one.
    pub recovery: Option<Recovery>,
    /// How to keep the log and when an entry counts.
    pub options: ReplicaOptions,
}

/// Whether a move may have changed the voters since the record that names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moving {
    /// None has begun, or its end is in that record.
    No,
    /// One is under way, to other replicas or back from them.
    UnderWay,
}

/// Whether a replica's files can be believed when they say "I never had anything".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The data directory is the one that the partition was placed on.
    Same,
    /// The data directory was made anew since.
    Lost,
    /// A move brings it here. It may have been here before and have voted, and then been deleted: a
    /// blank log proves nothing, so it starts Suspect unless the journal remembers it.
    Joins,
    /// The group begins anew from its log: the operator takes that for all there is.
    Founds,
}

/// A client's batch on its way to the log.
#[derive(Debug)]
pub struct ProduceEvent {
    /// Where the receipt goes.
    pub id: RequestId,
    /// Which partition.
    pub partition: TopicPartition,
    /// Exactly one RecordBatch v2 that passed `BatchView::parse` and its checksum.
    pub batch: Bytes,
    /// When the reply is due.
    pub acks: AckMode,
    /// The leader's term as the client knows it.
    pub leader_term: Option<Term>,
    /// When the client stops waiting.
    pub deadline: Millis,
    /// Append only if the log ends here, committed or not.
    pub expected_end: Option<Offset>,
}

/// What can be asked of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaCommand {
    /// Say where everyone stands.
    Describe,
    /// Say where this replica stands, as it sees itself.
    Inspect,
    /// Hand leadership to this voter, or to the best one.
    TransferLeader(Option<NodeId>),
    /// Change the voters and learners, one voter at a time.
    ChangeVoters {
        /// The voters wanted.
        voters: Vec<NodeId>,
        /// The learners wanted.
        learners: Vec<NodeId>,
    },
    /// Change the voters as a move wants it, but only while this replica leads that very term: whoever
    /// asks has made sure since it began that the move is wanted.
    MoveVoters {
        /// The voters wanted; nobody learns in the end.
        voters: Vec<NodeId>,
        /// The term.
        term: Term,
    },
    /// Give up everything before the batch that holds this offset, or before the end of what is
    /// committed. Only a leader can; the answer comes when the decision is committed.
    TrimBefore(Offset),
    /// Say what cannot be read, and give up for good what of it lies in these offsets, if this is the only
    /// replica.
    Repair {
        /// Nothing is given up without any.
        give_up: Vec<Range<Offset>>,
        /// Without any, what lies from here on is asked for.
        start: Offset,
    },
}

/// The answer to an admin request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminReply {
    /// To `Describe`.
    Description(DescribePartitionResponse),
    /// To `Inspect`; offsets that only the log's readers know are left at the high watermark.
    Inspection(InspectReplicaResponse),
    /// Done, and the log stood here.
    Done(Position),
    /// To `TrimBefore`: where the log starts now.
    Trimmed(Offset),
    /// To `Repair`: what cannot be read now.
    Unreadable(RepairReplicaResponse),
}

/// Who leads a partition, as one of its replicas knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// Which partition.
    pub partition: TopicPartition,
    /// The replica's term.
    pub term: Term,
    /// The leader of that term, if known. A leader names itself only once its term's mark is committed.
    pub leader: Option<NodeId>,
    /// The voters that keep up; filled by the leader only.
    pub in_sync: Vec<NodeId>,
}

/// Which stream between two brokers a message takes, so that bulk never delays a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Votes and heartbeats.
    Control,
    /// Appends and their answers.
    Append,
    /// Appends to who is far behind: whatever else there is goes first.
    Bulk,
}
