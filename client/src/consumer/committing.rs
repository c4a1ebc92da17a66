//! What of a consumer's partitions is to be committed, and commits under way.

use std::time::{Duration, Instant};

use highwater_protocol::ids::Offset;
use highwater_protocol::native::groups::OffsetToCommit;
use tokio::sync::oneshot;

use super::driver::{Word, to_commit};
use super::{Commit, Consumer, ConsumerConfig, Owned};
use crate::error::{Error, ErrorKind};

/// A commit that nobody waits for.
#[derive(Debug)]
pub(super) struct Committing {
    pub(super) offsets: Vec<OffsetToCommit>,
    pub(super) reply: oneshot::Receiver<Result<(), Error>>,
}

impl Consumer {
    pub(super) fn commits_by_itself(&self) -> bool {
        let by_itself = matches!(self.config.commit, Commit::AutoMarked(_));
        by_itself && self.committing.is_none() && self.owned.values().any(Owned::is_behind)
    }

    pub(super) fn begin_commit(&mut self) {
        let offsets = self.uncommitted();
        let reply = self.send_commit(offsets.clone());
        self.committing = Some(Committing { offsets, reply });
        self.commit_due = commit_due(Instant::now(), &self.config);
    }

    pub(super) fn settle(&mut self, (offsets, result): (Vec<OffsetToCommit>, Result<(), Error>)) {
        match result {
            Ok(()) => self.note_committed(&offsets),
            // What was marked is committed with the next one, or was lost.
            Err(error) => tracing::warn!(%error, "a commit failed"),
        }
    }

    /// Commits what is marked of partitions that are about to be given up, where that is done by itself.
    pub(super) async fn commit_before_giving_up(&mut self) {
        if let Commit::AutoMarked(_) = self.config.commit
            && let Err(error) = self.commit().await
        {
            tracing::warn!(%error, "partitions are given up without a commit: their next owner may see some records again");
        }
    }

    pub(super) fn uncommitted(&self) -> Vec<OffsetToCommit> {
        let behind = self.owned.iter().filter(|(_, owned)| owned.is_behind());
        let offset = |owned: &Owned| owned.marked.expect("only what is marked is behind");
        behind.map(|(partition, owned)| to_commit(*partition, offset(owned))).collect()
    }

    pub(super) fn send_commit(
        &self,
        offsets: Vec<OffsetToCommit>,
    ) -> oneshot::Receiver<Result<(), Error>> {
        let (reply, result) = oneshot::channel();
        // If the driver has ended, the receiver says so.
        let _ = self.words.send(Word::Commit(offsets, reply));
        result
    }

    pub(super) fn note_committed(&mut self, offsets: &[OffsetToCommit]) {
        for OffsetToCommit { partition, offset, .. } in offsets {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.committed = Some(*offset);
            }
        }
    }
}

impl Owned {
    /// All before an offset is done with.
    pub(super) fn mark(&mut self, offset: Offset) {
        self.marked = self.marked.max(Some(offset));
    }

    fn is_behind(&self) -> bool {
        self.marked.is_some() && self.marked != self.committed
    }
}

pub(super) async fn committed(
    committing: &mut Option<Committing>,
) -> (Vec<OffsetToCommit>, Result<(), Error>) {
    let Some(Committing { reply, .. }) = committing else { return std::future::pending().await };
    let result = reply.await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Closed, "the consumer ended before it was committed"))
    });
    let Committing { offsets, .. } = committing.take().expect("just looked at");
    (offsets, result)
}

/// When the next commit is made by itself.
pub(super) fn commit_due(now: Instant, config: &ConsumerConfig) -> Instant {
    let pause = match config.commit {
        Commit::AutoMarked(pause) => pause,
        Commit::Manual => NEVER,
    };
    now.checked_add(pause).unwrap_or(now + NEVER)
}

/// Longer than any program runs.
pub(super) const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
