//! Moving replicas between brokers.

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::moves::{
    CancelMovesRequest, ListMovesRequest, MoveInfo, MoveWish, PlannedMove, ReassignRequest,
};
use highwater_protocol::native::throttle::{
    ThrottleChange, ThrottleMovesRequest, ThrottleMovesResponse,
};

use crate::admin::Admin;
use crate::error::Error;

impl Admin {
    /// Begins to move replicas, or says which would move; the moves go on by themselves. Without
    /// partitions all of the cluster are meant; those that are as wished already are not named.
    ///
    /// # Errors
    /// `Refused` with `Conflict` where one is moving already, `InvalidReplicationFactor`,
    /// `UnknownBroker`, `BrokerNotAvailable` or `UnknownTopicOrPartition`; otherwise with outcome unknown where the
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
    /// `Refused` with `Conflict` where one that is named is not moving; otherwise with outcome
    /// unknown where the answer was lost.
    pub async fn cancel_moves(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<PlannedMove>, Error> {
        Ok(self.change(&CancelMovesRequest { partitions }).await?.moves)
    }

    /// Changes how fast moves may copy, to one broker or in the whole cluster, also for those under way;
    /// `None` lifts the limit. Replicas in sync are never held back.
    ///
    /// # Errors
    /// `Refused` with `UnknownBroker`, or `InvalidRequest` for a rate below 1 KiB/s; otherwise with
    /// outcome unknown where the answer was lost.
    pub async fn throttle_moves(
        &self,
        broker: Option<NodeId>,
        bytes_per_s: Option<u64>,
    ) -> Result<(), Error> {
        let change = Some(ThrottleChange { broker, bytes_per_s });
        self.change(&ThrottleMovesRequest { change }).await.map(|_| ())
    }

    /// How fast moves may copy, as one broker knows: it may be a moment late.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where no broker answered.
    pub async fn move_throttle(&self) -> Result<ThrottleMovesResponse, Error> {
        self.change(&ThrottleMovesRequest { change: None }).await
    }

    /// The moves that are not over, as one broker knows: it may be a moment late.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where no broker answered.
    pub async fn list_moves(&self) -> Result<Vec<MoveInfo>, Error> {
        Ok(self.change(&ListMovesRequest).await?.moves)
    }
}
