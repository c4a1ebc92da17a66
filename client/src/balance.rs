//! What brokers carry, and plans that even it out.

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::balance::{
    ListReplicasRequest, ListReplicasResponse, PlanBalanceRequest, PlanBalanceResponse,
};

use crate::admin::Admin;
use crate::error::Error;

impl Admin {
    /// Every replica that one broker hosts: how large it is, whether it serves, and what clients wrote
    /// to it and read from it since the broker started.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where that broker does not answer.
    pub async fn replicas_on(&self, node: NodeId) -> Result<ListReplicasResponse, Error> {
        let connection = self.core.connection(node).await?;
        connection.call(&ListReplicasRequest, self.core.config.request_timeout).await
    }

    /// A plan that spreads replicas and leaders over racks and brokers, by count and by the bytes of a
    /// replica of each partition. It changes nothing: `reassign` carries out each of its moves.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where no broker answered.
    pub async fn plan_balance(
        &self,
        mut sizes: Vec<(TopicPartition, u64)>,
    ) -> Result<PlanBalanceResponse, Error> {
        // Those of a topic together, so that its id is sent once.
        sizes.sort_unstable();
        self.change(&PlanBalanceRequest { sizes }).await
    }
}
