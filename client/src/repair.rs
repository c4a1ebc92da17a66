//! What single replicas cannot read, and giving it up.

use std::ops::Range;
use std::time::Duration;

use highwater_protocol::ids::{NodeId, Offset, TopicPartition};
use highwater_protocol::native::repair::{RepairReplicaRequest, RepairReplicaResponse};

use crate::admin::Admin;
use crate::error::{Error, ErrorKind};

impl Admin {
    /// What one broker's own replica of a partition cannot read. `give_up` names offsets whose records are given
    /// up for good where they cannot be read, which only the last replica of a partition does: they become gaps, which
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
        let asking = async {
            let connection = self.core.connection(node).await?;
            connection.call(&RepairReplicaRequest { partition, give_up }, patience).await
        };
        tokio::time::timeout(patience, asking).await.map_err(|_| {
            let text = format!("node {node} did not answer in {patience:?}");
            Error::new(ErrorKind::TimedOut, text)
        })?
    }
}
