//! The words for what goes wrong with a partition: which one, why, and what to do.

use highwater_protocol::batch::BatchError;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{NodeId, Offset, Term, TopicPartition};

use highwater_protocol::native::groups::GroupId;

use crate::log::ReadError;
use crate::node::{LeaderView, Route};

pub(super) fn unknown_partition(partition: TopicPartition) -> WireError {
    let why = format!(
        "partition {} of topic id {} is not known to this broker: it was deleted, or is so new that the \
         broker has not heard of it; refresh the metadata",
        partition.partition, partition.topic
    );
    WireError::new(ErrorCode::UnknownTopicOrPartition, why)
}

pub(super) fn unknown_topic(name: &str) -> WireError {
    let why = format!("topic {name} does not exist; `hw topic list` shows those that do");
    WireError::new(ErrorCode::UnknownTopicOrPartition, why)
}

pub(super) fn bad_group(why: String) -> WireError {
    WireError::new(ErrorCode::InvalidGroup, why)
}

pub(super) fn no_groups(group: &GroupId) -> WireError {
    let why = format!(
        "group {group} is not known to this broker: the cluster has no groups yet, or the broker has not heard of them; \
         ask who its coordinator is first"
    );
    WireError::new(ErrorCode::LeaderNotAvailable, why)
}

pub(super) fn starting(me: NodeId) -> WireError {
    let why = format!(
        "broker {me} has just started and has not caught up with the controller yet; ask another \
         broker, or again after a moment"
    );
    WireError::new(ErrorCode::BrokerNotAvailable, why)
}

pub(super) fn not_leader(route: &Route, view: &LeaderView, me: NodeId) -> WireError {
    let (title, term) = (route.title(), view.term);
    match view.leader {
        Some(leader) => {
            let why = format!(
                "{title} is led by broker {leader} in term {term}, not by broker {me}; ask there"
            );
            WireError::new(ErrorCode::NotLeader, why)
        }
        None => {
            let why = format!(
                "{title} has no leader that broker {me} knows of; one is being elected, try again"
            );
            WireError::new(ErrorCode::LeaderNotAvailable, why)
        }
    }
}

pub(super) fn other_term(route: &Route, theirs: Term, ours: Term) -> WireError {
    let title = route.title();
    let why = format!("{title} is in term {ours}, the request says {theirs}; refresh the metadata");
    let code =
        if theirs < ours { ErrorCode::FencedLeaderEpoch } else { ErrorCode::UnknownLeaderEpoch };
    WireError::new(code, why)
}

pub(super) fn failed(route: &Route, reason: &str) -> WireError {
    let why = format!(
        "{}: the replica on this broker is out of service: {reason}; another replica takes over",
        route.title()
    );
    WireError::new(ErrorCode::StorageFailed, why)
}

pub(super) fn unreadable(route: &Route, from: Offset, error: &ReadError) -> WireError {
    match error {
        ReadError::OutOfRange { start, end } => {
            let why = format!(
                "{} holds offsets {start} to {end} (exclusive), not {from}; start from one of these",
                route.title()
            );
            WireError::new(ErrorCode::OffsetOutOfRange, why)
        }
        ReadError::Faulty(_) => {
            let why = format!("{}: {error}; try again", route.title());
            WireError::new(ErrorCode::StorageFailed, why)
        }
        ReadError::Io(error) => {
            let why = format!("{} cannot be read at offset {from}: {error}", route.title());
            WireError::new(ErrorCode::StorageFailed, why)
        }
    }
}

pub(super) fn bad_batch(route: &Route, error: &BatchError) -> WireError {
    let code = match error {
        BatchError::Checksum { .. } => ErrorCode::CorruptBatch,
        BatchError::Codec(_) | BatchError::NotBuilt(_) => ErrorCode::UnsupportedCompression,
        BatchError::Short { .. }
        | BatchError::Trailing(_)
        | BatchError::Magic(_)
        | BatchError::Length(_)
        | BatchError::Counts { .. }
        | BatchError::Producer { .. }
        | BatchError::Kind(_)
        | BatchError::StillPacked(_)
        | BatchError::Packed { .. }
        | BatchError::TooLarge { .. }
        | BatchError::Record { .. }
        | BatchError::Mark(_) => ErrorCode::InvalidRecord,
    };
    WireError::new(code, format!("{}: {error}; nothing was written", route.title()))
}

pub(super) fn stopping() -> WireError {
    let why =
        "this broker is stopping; what was sent may or may not be written, ask the next leader";
    WireError::new(ErrorCode::RequestTimedOut, why)
}
