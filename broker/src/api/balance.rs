//! What this broker carries, and plans that even a cluster out.

use highwater_protocol::error::WireError;
use highwater_protocol::ids::{NodeId, Offset, PartitionId, TopicPartition};
use highwater_protocol::native::balance::{
    BrokerShare, ListReplicasResponse, PlanBalanceRequest, PlanBalanceResponse, ReplicaReport,
    ReplicaState, Traffic,
};

use super::{Api, errors};
use crate::controller::balance::{self, Placed, Share};
use crate::node::Route;

impl Api {
    /// Every replica that the image gives this broker, as its reader knows it: no shard is asked.
    pub fn list_replicas(&self) -> ListReplicasResponse {
        let (image, me) = (self.node.image(), self.node.options().me);
        let mut replicas = Vec::new();
        for topic in image.topics() {
            for number in (0u32..).map(PartitionId).take(topic.partitions.len()) {
                let partition = TopicPartition::new(topic.id, number);
                if topic.hosts(number).any(|replica| replica.node == me)
                    && let Some(route) = self.node.routes().get(partition)
                {
                    replicas.push(report(&route, me));
                }
            }
        }
        let clock = self.node.shards().of(TopicPartition::CLUSTER).clock().now();
        ListReplicasResponse { node: me, clock_ms: clock.0, replicas }
    }

    /// What would even the cluster out; nothing is changed.
    pub async fn plan_balance(
        &self,
        request: PlanBalanceRequest,
    ) -> Result<PlanBalanceResponse, WireError> {
        let image = self.node.image();
        // Ten thousand partitions take a moment, which is not the runtime's.
        let planned = tokio::task::spawn_blocking(move || {
            let (hosts, placed) = balance::inputs(&image, &request.sizes, &request.loads);
            let moves = balance::plan(&hosts, &placed);
            let after = balance::carried_out(&placed, &moves);
            let shares = |placed: &[Placed]| {
                balance::shares(&hosts, placed).into_iter().map(share).collect()
            };
            let (before, after) = (shares(&placed), shares(&after));
            PlanBalanceResponse { moves, before, after }
        });
        planned.await.map_err(|_| errors::stopping())
    }
}

fn report(route: &Route, me: NodeId) -> ReplicaReport {
    let reader = route.reader();
    let state = match (route.failed(), &reader) {
        (Some(why), _) => ReplicaState::Failed(why.to_string()),
        (None, Some(_)) => ReplicaState::Open,
        (None, None) => ReplicaState::Opening,
    };
    let offset = |of: fn(&crate::log::LogReader) -> Offset| reader.as_deref().map_or(Offset(0), of);
    let traffic = route.traffic();
    ReplicaReport {
        partition: route.partition(),
        state,
        leads: route.leader().leader == Some(me),
        log_start: offset(crate::log::LogReader::log_start),
        high_watermark: offset(crate::log::LogReader::high_watermark),
        log_end: offset(crate::log::LogReader::log_end),
        bytes: reader.as_deref().map_or(0, crate::log::LogReader::bytes),
        traffic: Traffic {
            records_in: traffic.records_in.get(),
            bytes_in: traffic.bytes_in.get(),
            records_out: traffic.records_out.get(),
            bytes_out: traffic.bytes_out.get(),
        },
    }
}

fn share(share: Share) -> BrokerShare {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    BrokerShare {
        node: share.node,
        replicas: count(share.replicas),
        leaders: count(share.leaders),
        bytes: share.bytes,
        write_load: share.write_load,
        leader_load: share.leader_load,
    }
}
