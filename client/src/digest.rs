//! Hashing what single replicas hold, to compare them.

use std::time::Duration;

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::digest::{
    DigestRange, DigestReplicaRequest, DigestReplicaResponse,
};

use crate::admin::Admin;
use crate::error::{Error, ErrorKind};

impl Admin {
    /// Where one broker's own replica of a partition starts and up to where it knows it to be committed,
    /// and the hash of some of what lies between, a few MiB at a time: ask again from its end, with its
    /// hash as the seed. Replicas that hold the same have the same hash of the same range.
    ///
    /// Brokers hash for one at a time and rest as long as they read, so that nobody else waits for it.
    ///
    /// # Errors
    /// `Refused` with `NotLeader` where that broker has no replica of it and with `StorageFailed`
    /// where its files failed; `Unreachable` or `TimedOut` where it does not answer within `patience`.
    pub async fn digest_replica(
        &self,
        node: NodeId,
        partition: TopicPartition,
        range: Option<DigestRange>,
        patience: Duration,
    ) -> Result<DigestReplicaResponse, Error> {
        let asking = async {
            let connection = self.core.connection(node).await?;
            connection.call(&DigestReplicaRequest { partition, range }, patience).await
        };
        tokio::time::timeout(patience, asking).await.map_err(|_| {
            let text = format!("node {node} did not answer in {patience:?}");
            Error::new(ErrorKind::TimedOut, text)
        })?
    }
}
