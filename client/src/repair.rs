//! What single replicas cannot read, and giving it up.

use std::ops::Range;
use std::time::Duration;

use highwater_protocol::ids::{NodeId, Offset, TopicPartition};
use highwater_protocol::native::repair::{RepairReplicaRequest, RepairReplicaResponse};

use crate::admin::Admin;
use crate::error::{Error, ErrorKind};

impl Admin {
    /// All that one broker's own replica of a partition cannot read, told within `patience` for each thousand runs of
    /// batches. Where there are more than a million, `next` says from where on the rest lies.
    ///
    /// # Errors
    /// Those of [`Admin::repair_replica`].
    pub async fn unreadable(
        &self,
        node: NodeId,
        partition: TopicPartition,
        patience: Duration,
    ) -> Result<RepairReplicaResponse, Error> {
        let mut all = self.repair_replica(node, partition, Vec::new(), patience).await?;
        for _ in 1..PAGES_MAX {
            let Some(start) = all.next else { break };
            let ask = RepairReplicaRequest { partition, give_up: Vec::new(), start };
            let RepairReplicaResponse { unreadable, next, .. } =
                self.ask_repair(node, ask, patience).await?;
            all.unreadable.extend(unreadable);
            all.next = next;
        }
        Ok(all)
    }

    /// The first thousand runs of batches that one broker's own replica of a partition cannot read. `give_up` names
    /// offsets whose records are given up for good where they cannot be read, which only the last replica of a partition does: they become gaps, which
    /// readers pass over. Without any this changes nothing.
    ///
    /// # Errors
    /// `Refused` with `Conflict` where there are other replicas, which may have what is missing, with `NotLeader`
    /// where that broker has no replica of it and with `StorageFailed` where its files failed; `Unreachable` or
    /// `TimedOut` where it does not answer within `patience`: ask again to see what came of it.
    pub async fn repair_replica(
        &self,
        node: NodeId,
        partition: TopicPartition,
        give_up: Vec<Range<Offset>>,
        patience: Duration,
    ) -> Result<RepairReplicaResponse, Error> {
        let ask = RepairReplicaRequest { partition, give_up, start: Offset::ZERO };
        self.ask_repair(node, ask, patience).await
    }

    async fn ask_repair(
        &self,
        node: NodeId,
        ask: RepairReplicaRequest,
        patience: Duration,
    ) -> Result<RepairReplicaResponse, Error> {
        let asking = async {
            let connection = self.core.connection(node).await?;
            connection.call(&ask, patience).await
        };
        tokio::time::timeout(patience, asking).await.map_err(|_| {
            let text = format!("node {node} did not answer in {patience:?}");
            Error::new(ErrorKind::TimedOut, text)
        })?
    }
}

/// So many answers are asked for where there is more and more.
const PAGES_MAX: usize = 1_000;
