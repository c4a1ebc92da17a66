//! Where everyone stands, for people and for the controller.

use highwater_protocol::native::admin::{DescribePartitionResponse, ReplicaRole, ReplicaStatus};
use highwater_protocol::native::inspect::{InspectReplicaResponse, ReplicaIndexes};

use crate::raft::{InSync, Millis};

use super::{FlushPolicy, Replica, epoch_of};

impl Replica {
    /// This replica's view; only a leader's names all replicas.
    pub(super) fn describe(&self, now: Millis) -> DescribePartitionResponse {
        let reader = self.log.reader();
        let status = |peer: crate::raft::PeerStatus| ReplicaStatus {
            node: peer.node,
            role: peer.role,
            appended: peer.appended,
            flushed: peer.flushed,
            heard_ms: peer.heard_at.map(|at| now.0.saturating_sub(at.0)),
            in_sync: peer.in_sync == InSync::Yes,
            behind_bytes: self.log.bytes_behind(peer.appended).ok(),
        };
        DescribePartitionResponse {
            leader: self.raft.leader(),
            term: self.raft.term(),
            log_start: reader.log_start(),
            high_watermark: reader.high_watermark(),
            log_end: reader.log_end(),
            bytes: self.log.bytes(),
            replicas: self.raft.peers(now).into_iter().map(status).collect(),
        }
    }

    /// This replica as it sees itself; whoever reads logs adds what lies at single offsets.
    pub(super) fn inspect(&self, now: Millis) -> InspectReplicaResponse {
        let seen = self.describe(now);
        let set = self.raft.voter_set();
        let role = match (self.raft.is_leader(), set.voters.contains(&self.me)) {
            (true, _) => ReplicaRole::Leader,
            (false, true) => ReplicaRole::Follower,
            (false, false) => ReplicaRole::Learner,
        };
        InspectReplicaResponse {
            term: seen.term,
            leader: seen.leader,
            role,
            suspect: self.raft.is_suspect(),
            flush_interval_ms: match self.options.flush {
                FlushPolicy::Ack => None,
                FlushPolicy::Interval { ms } => Some(ms),
            },
            voters: set.voters.clone(),
            learners: set.learners.clone(),
            log_start: seen.log_start,
            high_watermark: seen.high_watermark,
            flushed: seen.high_watermark,
            log_end: seen.log_end,
            indexes: ReplicaIndexes {
                committed: self.raft.commit(),
                flushed: self.raft.flushed_end(),
                appended: self.raft.last().index,
            },
            last_term: self.raft.last().term,
            epoch: epoch_of(self.recovery),
            peers: seen.replicas,
            batch: None,
        }
    }
}
