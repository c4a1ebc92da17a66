//! Writing to a log of the cluster's own, as the leader of its partition in one term.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use highwater_protocol::batch::{BatchBuilder, BuilderOptions};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Offset, Term, Timestamp, TopicPartition};
use highwater_protocol::native::frame::FRAME_BYTES_MAX;
use highwater_protocol::native::produce::AckMode;
use tokio::time::timeout;

use super::Inner;
use crate::shard::event::{AdminReply, ReplicaCommand};

/// A partition that this broker leads in some term.
pub(super) struct OwnLog {
    node: Arc<Inner>,
    partition: TopicPartition,
    term: Term,
}

/// Why records are not known to be committed.
pub(super) enum AppendError {
    /// They surely are not, and never will be.
    NotWritten(WireError),
    /// They may be committed, now or later.
    InDoubt(String),
}

impl OwnLog {
    pub fn new(node: Arc<Inner>, partition: TopicPartition, term: Term) -> OwnLog {
        OwnLog { node, partition, term }
    }

    /// Which partition.
    pub fn partition(&self) -> TopicPartition {
        self.partition
    }

    /// Whether this broker still leads the partition in that term, as far as it knows.
    pub fn is_led(&self) -> bool {
        led_in(&self.node, self.partition) == Some(self.term)
    }

    /// Appends records as one batch and waits until they are committed; says at which offset they begin.
    pub async fn append(&self, records: &[Bytes]) -> Result<Offset, AppendError> {
        let bytes = bytes_of(records);
        if bytes > APPEND_BYTES_MAX {
            let why = format!(
                "{bytes} bytes do not fit one batch of the cluster's own log, which holds {APPEND_BYTES_MAX}; ask for less at a time"
            );
            return Err(AppendError::NotWritten(WireError::new(ErrorCode::BatchTooLarge, why)));
        }
        let shard = self.node.shards.of(self.partition);
        let deadline = shard.clock().deadline(COMMIT_MAX);
        let (batch, acks, term) = (batch(records), AckMode::SemiSync, Some(self.term));
        let reply = shard.produce(self.partition, batch, acks, term, deadline, None);
        match reply.map_err(|full| AppendError::NotWritten(full.into()))?.await {
            Ok(Ok(receipt)) => Ok(receipt.base_offset),
            Ok(Err(error)) if was_not_written(error.code) => Err(AppendError::NotWritten(error)),
            Ok(Err(error)) => Err(AppendError::InDoubt(error.to_string())),
            Err(_) => Err(AppendError::InDoubt("the broker is stopping".to_owned())),
        }
    }

    /// Has the replica carry out a command.
    pub async fn command(&self, command: ReplicaCommand) -> Result<AdminReply, WireError> {
        let reply = self.node.shards.of(self.partition).admin(self.partition, command)?;
        match timeout(COMMIT_MAX, reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(in_doubt("the partition's replica did not answer")),
        }
    }
}

/// The term in which this broker leads a partition, if it does.
pub(super) fn led_in(node: &Inner, partition: TopicPartition) -> Option<Term> {
    let view = node.routes.get(partition)?.leader();
    (view.leader == Some(node.options.me)).then_some(view.term)
}

/// The answer to a change of which nobody knows whether it is made.
pub(super) fn in_doubt(why: &str) -> WireError {
    let why = format!("{why}; the change may or may not be made: look before asking again");
    WireError::new(ErrorCode::RequestTimedOut, why)
}

/// The wall clock.
pub(super) fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

fn batch(records: &[Bytes]) -> Bytes {
    let bytes_expected = bytes_of(records);
    let mut builder = BatchBuilder::new(BuilderOptions { bytes_expected, ..Default::default() });
    let now = wall_clock();
    for record in records {
        builder.push(now, None, Some(record), &[]);
    }
    builder.finish()
}

/// What records take in a batch, at most.
fn bytes_of(records: &[Bytes]) -> usize {
    records.iter().map(|record| record.len() + 32).sum()
}

/// Errors of a produce after which the batch is certainly nowhere.
fn was_not_written(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NotLeader
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::DiskFull
            | ErrorCode::Superseded
    )
}

/// A frame's limit, less a header.
const APPEND_BYTES_MAX: usize = FRAME_BYTES_MAX - 1024;
/// How long records may take to be committed.
pub(super) const COMMIT_MAX: Duration = Duration::from_secs(10);
