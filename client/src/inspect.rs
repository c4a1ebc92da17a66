//! Looking at single replicas from inside.

use std::time::Duration;

use highwater_protocol::ids::{NodeId, Offset, TopicPartition};
use highwater_protocol::native::inspect::{InspectReplicaRequest, InspectReplicaResponse};

use crate::admin::Admin;
use crate::error::{Error, ErrorKind};

impl Admin {
    /// One broker's own replica of a partition as it sees itself, whoever leads, and the batch that
    /// it holds at `offset`, committed or not.
    ///
    /// # Errors
    /// `Refused` with `NotLeader` where that broker has no replica of it and with `StorageFailed`
    /// where its files failed; `Unreachable` or `TimedOut` where it does not answer within `patience`.
    pub async fn inspect_replica(
        &self,
        node: NodeId,
        partition: TopicPartition,
        offset: Option<Offset>,
        patience: Duration,
    ) -> Result<InspectReplicaResponse, Error> {
        let asking = async {
            let connection = self.core.connection(node).await?;
            connection.call(&InspectReplicaRequest { partition, offset }, patience).await
        };
        tokio::time::timeout(patience, asking).await.map_err(|_| {
            let text = format!("node {node} did not answer in {patience:?}");
            Error::new(ErrorKind::TimedOut, text)
        })?
    }
}
