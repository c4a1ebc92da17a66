//! What goes into a shard and what comes out: the whole face of the core.
//!
//! Events and effects are plain values. Whoever drives a shard (a thread, or the simulator) carries
//! out the effects of a pass in order before it starts the next pass.

use std::path::PathBuf;
use std::sync::Arc;

use highwater_protocol::error::WireError;
use highwater_protocol::ids::{Incarnation, NodeId, Timestamp, TopicPartition};
use highwater_protocol::native::produce::Receipt;
use highwater_protocol::peer::GroupMessage;

use crate::disk::{File, FlushFailure};
use crate::log::{LogReader, Mend, Mended};

/// Milliseconds of a clock that never goes back; only differences mean anything.
pub use crate::raft::Millis;
pub use crate::replica::{
    AdminReply, Identity, Lane, Leadership, Moving, OpenReplica, ProduceEvent, ReplicaCommand,
    RequestId,
};

/// Pairs a finished flush with the pass that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlushTicket(pub u64);

/// Something that happened to a shard.
#[derive(Debug)]
pub enum Event {
    /// Host this replica from now on, or change the options of one that is hosted.
    Open(Box<OpenReplica>),
    /// Stop hosting a replica.
    Close(TopicPartition, AfterClose),
    /// Delete what is left in this directory of a replica that was taken from this broker; answered once
    /// nothing is.
    GiveUp(RequestId, TopicPartition, PathBuf),
    /// A client's batch, its checksum already verified.
    Produce(ProduceEvent),
    /// Raft messages from another broker.
    Peer {
        /// Who sent them.
        from: NodeId,
        /// In which of its lives.
        incarnation: Incarnation,
        /// Which of our lives it believes it speaks to.
        to: Option<Incarnation>,
        /// What it says, group by group.
        messages: Vec<GroupMessage>,
    },
    /// The flush of an earlier pass is over, but for the files that failed.
    Flushed(FlushTicket, Vec<FlushFailure>),
    /// The copying for a damaged segment is over.
    Mended(TopicPartition, Mended),
    /// A request of the operator or the controller about one replica.
    Admin(RequestId, TopicPartition, ReplicaCommand),
    /// What the wall clock shows, once a second or so: time to look for what need not be kept.
    Retain(Timestamp),
    /// Time has passed.
    Tick,
}

/// What becomes of the files of a closed replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterClose {
    /// They stay.
    Keep,
    /// They are deleted: a committed tombstone names the partition, or the end of a move this broker.
    Delete,
}

/// Something that the driver must do.
pub enum Effect {
    /// Send messages to a broker's replicas; losing them is allowed.
    Send {
        /// To whom.
        to: NodeId,
        /// By which road.
        lane: Lane,
        /// Which life of the receiver they are meant for, once known.
        incarnation: Option<Incarnation>,
        /// The messages.
        messages: Vec<GroupMessage>,
    },
    /// Flush all of these files, then report `Event::Flushed` once, with the places of those that failed.
    Flush(FlushTicket, Vec<Arc<dyn File>>),
    /// Run this where it may take its time, then report `Event::Mended`.
    Mend(TopicPartition, Mend),
    /// Batches of a replica that were damaged are whole again.
    Repaired(TopicPartition, u64),
    /// Answer a produce.
    Produced(RequestId, Result<Receipt, WireError>),
    /// Answer an admin request.
    Answered(RequestId, Result<AdminReply, WireError>),
    /// A replica is open: readers may use it.
    Opened(TopicPartition, LogReader),
    /// A replica is closed: readers must let go.
    Closed(TopicPartition, AfterClose),
    /// The high watermark of a replica rose: waiting fetches may have something to read.
    Committed(TopicPartition),
    /// What this broker knows of a partition's leadership changed.
    Leadership(Leadership),
    /// A replica that failed is closed and opened again without what it had, in this very pass.
    Rebuilding(TopicPartition),
    /// A replica failed and is out of service until it is made anew from the others, or the broker restarts.
    Failed(TopicPartition, String),
}
