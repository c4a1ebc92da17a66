//! The one error of this crate, and the three questions that it answers.
//!
//! Every error names the thing, the reason and the way out. It is one pointer wide and cheap to
//! clone, because all records of a failed batch share it. Programs decide by [`ErrorKind`] and the
//! three questions, never by the text.

use std::fmt;
use std::sync::Arc;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::Offset;

/// Why something was not done.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    message: String,
    end: Option<Offset>,
}

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, a profile or TLS material is missing or makes no sense.
    Config,
    /// No broker could be reached, or the one that was asked could not.
    Unreachable,
    /// The other side is not who it should be, or does not accept who we are.
    Identity,
    /// The connection broke while a request was under way.
    ConnectionLost,
    /// The time allowed for it has passed.
    TimedOut,
    /// A broker answered with an error.
    Refused(ErrorCode),
    /// The topic or partition does not exist.
    UnknownTopic,
    /// The record is larger than a batch may be.
    RecordTooLarge,
    /// The producer's buffer has no space for the record now.
    BufferFull,
    /// The handle was closed.
    Closed,
    /// A broker sent something that cannot be understood.
    Malformed,
    /// The arguments of the call contradict each other.
    InvalidCall,
}

/// What became of the record, or of the change asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was surely not written: sending it again cannot repeat it.
    NotWritten,
    /// It may or may not have been written: sending it again may repeat it.
    Unknown,
    /// It was written, but with less than what was asked for.
    Written,
}

impl Outcome {
    /// What a broker's refusal with this code says about the batch that it refused.
    pub fn after(code: ErrorCode) -> Outcome {
        outcome_of(code)
    }
}

impl Error {
    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The broker's error code, where a broker answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self.0.kind {
            ErrorKind::Refused(code) => Some(code),
            ErrorKind::UnknownTopic => Some(ErrorCode::UnknownTopicOrPartition),
            ErrorKind::Config
            | ErrorKind::Unreachable
            | ErrorKind::Identity
            | ErrorKind::ConnectionLost
            | ErrorKind::TimedOut
            | ErrorKind::RecordTooLarge
            | ErrorKind::BufferFull
            | ErrorKind::Closed
            | ErrorKind::Malformed
            | ErrorKind::InvalidCall => None,
        }
    }

    /// Whether the same call may succeed later without anyone changing it.
    pub fn retriable(&self) -> bool {
        match self.0.kind {
            ErrorKind::Unreachable
            | ErrorKind::ConnectionLost
            | ErrorKind::TimedOut
            | ErrorKind::BufferFull => true,
            ErrorKind::Refused(code) => code.retriable(),
            ErrorKind::UnknownTopic
            | ErrorKind::Config
            | ErrorKind::Identity
            | ErrorKind::RecordTooLarge
            | ErrorKind::Closed
            | ErrorKind::Malformed
            | ErrorKind::InvalidCall => false,
        }
    }

    /// Whether the handle it came from can do nothing any more.
    pub fn fatal(&self) -> bool {
        match self.0.kind {
            ErrorKind::Config | ErrorKind::Identity | ErrorKind::Closed => true,
            ErrorKind::Unreachable
            | ErrorKind::ConnectionLost
            | ErrorKind::TimedOut
            | ErrorKind::Refused(_)
            | ErrorKind::UnknownTopic
            | ErrorKind::RecordTooLarge
            | ErrorKind::BufferFull
            | ErrorKind::Malformed
            | ErrorKind::InvalidCall => false,
        }
    }

    /// What became of the record, or of the change asked for.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// Where the partition ends, if a conditional append was refused because it ends elsewhere than
    /// expected: see [`Producer::send_if`](crate::Producer::send_if).
    pub fn actual_end(&self) -> Option<Offset> {
        self.0.end
    }

    /// An error before anything was sent.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::with_outcome(kind, Outcome::NotWritten, message)
    }

    /// An error that says what became of the request.
    pub(crate) fn with_outcome(
        kind: ErrorKind,
        outcome: Outcome,
        message: impl Into<String>,
    ) -> Error {
        Error(Arc::new(Inner { kind, outcome, message: message.into(), end: None }))
    }

    /// A broker's refusal of `act`, for example "create topic orders".
    pub(crate) fn refused(act: &str, error: &WireError) -> Error {
        let kind = match error.code {
            ErrorCode::UnknownTopicOrPartition => ErrorKind::UnknownTopic,
            code => ErrorKind::Refused(code),
        };
        let message = format!("cannot {act}: {} ({})", error.detail, error.code);
        let outcome = outcome_of(error.code);
        Error(Arc::new(Inner { kind, outcome, message, end: error.end }))
    }

    /// The same error, with what became of it changed.
    pub(crate) fn but(&self, outcome: Outcome) -> Error {
        self.with(outcome, self.0.message.clone())
    }

    /// The same error, after what was attempted.
    pub(crate) fn during(&self, act: &str) -> Error {
        self.with(self.0.outcome, format!("{act}: {}", self.0.message))
    }

    fn with(&self, outcome: Outcome, message: String) -> Error {
        Error(Arc::new(Inner { kind: self.0.kind, outcome, message, end: self.0.end }))
    }
}

/// What a broker's refusal says about the batch that it refused.
pub(crate) fn outcome_of(code: ErrorCode) -> Outcome {
    match code {
        // These can come after the append: at the deadline, at a stop, at a failed flush. A leader
        // that steps down says `Superseded` once the batch is cut away, and so never `NotLeader`.
        ErrorCode::Internal
        | ErrorCode::RequestTimedOut
        | ErrorCode::BrokerNotAvailable
        | ErrorCode::StorageFailed => Outcome::Unknown,
        ErrorCode::NotEnoughReplicasAfterAppend => Outcome::Written,
        ErrorCode::OffsetOutOfRange
        | ErrorCode::CorruptBatch
        | ErrorCode::UnknownTopicOrPartition
        | ErrorCode::LeaderNotAvailable
        | ErrorCode::NotLeader
        | ErrorCode::BatchTooLarge
        | ErrorCode::InvalidTopic
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::Unauthorized
        | ErrorCode::InvalidTimestamp
        | ErrorCode::UnsupportedVersion
        | ErrorCode::TopicExists
        | ErrorCode::InvalidPartitions
        | ErrorCode::InvalidReplicationFactor
        | ErrorCode::InvalidConfig
        | ErrorCode::NotController
        | ErrorCode::InvalidRequest
        | ErrorCode::UnknownBroker
        | ErrorCode::Conflict
        | ErrorCode::OutOfOrderSequence
        | ErrorCode::ProducerFenced
        | ErrorCode::UnknownProducer
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::UnknownLeaderEpoch
        | ErrorCode::UnsupportedCompression
        | ErrorCode::OffsetNotAvailable
        | ErrorCode::InvalidRecord
        | ErrorCode::Overloaded
        | ErrorCode::DiskFull
        | ErrorCode::Superseded
        | ErrorCode::BrokerRemoved
        | ErrorCode::MajorityAlive
        | ErrorCode::TopicProtected
        | ErrorCode::WrongEnd
        | ErrorCode::OffsetMetadataTooLarge
        | ErrorCode::InvalidGroup
        | ErrorCode::UnknownMember
        | ErrorCode::GroupNotEmpty
        | ErrorCode::GroupNotFound
        | ErrorCode::GroupFull
        | ErrorCode::FencedMemberEpoch
        | ErrorCode::UnreleasedInstance
        | ErrorCode::StaleMemberEpoch => Outcome::NotWritten,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?}): {}", self.0.kind, self.0.outcome, self.0.message)
    }
}

impl std::error::Error for Error {}
