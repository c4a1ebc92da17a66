//! What the rest of the broker learns: the high watermark, and who leads.
//!
//! The high watermark is the offset at the commit: marks move the one and not the other. A leader
//! names itself only once the mark of its term is committed, so that whoever is sent there finds a
//! high watermark at least as high as any leader's before.

use highwater_protocol::ids::{LogIndex, NodeId, Offset, Term};

use super::event::Leadership;
use crate::raft::{Millis, Standing};

use super::Replica;
use super::acks::{Reached, SyncReach};
use super::output::Output;

/// What was said last, so that only news is said.
#[derive(Debug, Default)]
pub(super) struct Told {
    commit: LogIndex,
    high_watermark: Offset,
    term: Term,
    leader: Option<NodeId>,
    in_sync: Vec<NodeId>,
    standing: Standing,
}

impl Replica {
    /// Lets readers see what is newly committed, and answers who waited for it.
    pub(super) fn publish(&mut self, now: Millis, out: &mut Output) {
        let commit = self.raft.commit();
        if commit > self.told.commit {
            let high_watermark = match self.log.boundary_until(commit) {
                Ok((_, offset)) => offset,
                // Nobody is answered before readers see what was.
                Err(error) => return self.wait_for_files(now, &error),
            };
            self.told.commit = commit;
            if high_watermark > self.told.high_watermark {
                self.told.high_watermark = high_watermark;
                self.log.publish(high_watermark);
                out.committed = Some(high_watermark);
            }
        }
        let sync = self.sync_reach(now);
        self.waiters.complete(Reached { commit, sync }, &self.raft, out);
        self.tell_leadership(now, out);
        self.log_standing();
    }

    /// Whether readers have been shown all before this offset; it waits for files that cannot be opened.
    pub(super) fn is_published(&self, offset: Offset) -> bool {
        offset <= self.told.high_watermark
    }

    /// Elections in the log: who stood, who led, in which term.
    fn log_standing(&mut self) {
        let standing = self.raft.standing();
        if standing == self.told.standing {
            return;
        }
        let before = std::mem::replace(&mut self.told.standing, standing);
        let (partition, term) = (self.partition, self.raft.term());
        match (standing, before) {
            (Standing::Leads, _) | (_, Standing::Leads) => {
                tracing::info!(%partition, %term, ?before, ?standing, "leadership");
            }
            (Standing::Alone | Standing::Follows(_) | Standing::Sounds | Standing::Stands, _) => {
                tracing::debug!(%partition, %term, ?before, ?standing, "election");
            }
        }
    }

    fn sync_reach(&self, now: Millis) -> SyncReach {
        if !self.raft.is_leader() {
            return SyncReach::NotLeading;
        }
        let (in_sync, needed) = (self.raft.in_sync(now).count(), self.options.insync_replicas_min);
        match in_sync < usize::from(needed) {
            true => SyncReach::TooFew { in_sync, needed },
            false => SyncReach::End(self.raft.in_sync_end(now)),
        }
    }

    fn tell_leadership(&mut self, now: Millis, out: &mut Output) {
        let term = self.raft.term();
        let leads = self.raft.leads_committed();
        let leader = self.raft.leader().filter(|leader| *leader != self.me || leads);
        let told = &self.told;
        let known = (told.term, told.leader) == (term, leader)
            && match leads {
                true => told.in_sync.iter().copied().eq(self.raft.in_sync(now)),
                false => true,
            };
        if known {
            return;
        }
        let in_sync: Vec<NodeId> = match leads {
            true => self.raft.in_sync(now).collect(),
            false => Vec::new(),
        };
        (self.told.term, self.told.leader) = (term, leader);
        self.told.in_sync.clone_from(&in_sync);
        out.leadership = Some(Leadership { partition: self.partition, term, leader, in_sync });
    }
}
