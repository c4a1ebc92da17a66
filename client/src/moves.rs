//! Moving replicas between brokers.

use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::moves::{
    CancelMovesRequest, ListMovesRequest, MoveInfo, MoveWish, PlannedMove, ReassignRequest,
};

use crate::admin::Admin;
use crate::error::Error;

impl Admin {
    /// Begins to move replicas, or says which would move; the moves go on by themselves. Without
    /// partitions all of the cluster are meant; those that are as wished already are not named.
    ///
    /// # Errors
    /// `Refused` with `InvalidRequest` where one is moving already, `InvalidReplicationFactor`,
    /// `BrokerNotAvailable` or `UnknownTopicOrPartition`; otherwise with outcome unknown where the
    /// answer was lost.
    pub async fn reassign(
        &self,
        partitions: Vec<TopicPartition>,
        wish: MoveWish,
        dry_run: DryRun,
    ) -> Result<Vec<PlannedMove>, Error> {
        Ok(self.change(&ReassignRequest { partitions, wish, dry_run }).await?.moves)
    }

    /// Has moves go back to where they began; without partitions all of them.
    ///
    /// # Errors
    /// `Refused` with `InvalidRequest` where one that is named is not moving; otherwise with outcome
    /// unknown where the answer was lost.
    pub async fn cancel_moves(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<PlannedMove>, Error> {
        Ok(self.change(&CancelMovesRequest { partitions }).await?.moves)
    }

    /// The moves that are not over, as one broker knows: it may be a moment late.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where no broker answered.
    pub async fn list_moves(&self) -> Result<Vec<MoveInfo>, Error> {
        Ok(self.change(&ListMovesRequest).await?.moves)
    }
}
