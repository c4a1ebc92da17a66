//! Where everyone stands, for people and for the controller.

use highwater_protocol::native::admin::{DescribePartitionResponse, ReplicaStatus};

use crate::raft::{InSync, Millis};

use super::Replica;

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
}
