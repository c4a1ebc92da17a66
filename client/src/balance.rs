//! What brokers carry, and plans that even it out.

use std::cmp::Reverse;

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::balance::{
    ListReplicasRequest, ListReplicasResponse, Load, PlanBalanceRequest, PlanBalanceResponse,
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

    /// A plan that spreads replicas and leaders over racks and brokers: by count, by the bytes of a
    /// replica of each partition, and by what clients do to each, of which the ten thousand busiest are
    /// sent. It changes nothing: `reassign` carries out each of its moves.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where no broker answered.
    pub async fn plan_balance(
        &self,
        mut sizes: Vec<(TopicPartition, u64)>,
        mut loads: Vec<(TopicPartition, Load)>,
    ) -> Result<PlanBalanceResponse, Error> {
        loads.retain(|(_, load)| *load != Load::default());
        let total = |load: Load| load.bytes_in_per_s.saturating_add(load.bytes_out_per_s);
        loads.sort_unstable_by_key(|(partition, load)| (Reverse(total(*load)), *partition));
        loads.truncate(LOADS_MAX);
        // Those of a topic together, so that its id is sent once.
        sizes.sort_unstable();
        loads.sort_unstable_by_key(|(partition, _)| *partition);
        self.change(&PlanBalanceRequest { sizes, loads }).await
    }
}

/// A request has at most a mebibyte, which the sizes of a large cluster fill nearly.
const LOADS_MAX: usize = 10_000;
