//! What brokers take and give in a second.
//!
//! Brokers count what clients write and read; two looks at the counts, over the time between them
//! by each broker's own clock, are rates. A broker that began anew in between counts from nothing.

use std::collections::BTreeMap;

use highwater_client::{
    Admin, Error, ListReplicasResponse, NodeId, ReplicaReport, TopicPartition, Traffic,
};
use serde_json::json;

use crate::exit::Failure;
use crate::human;

/// Asks every broker that is alive for its replicas, all at once.
pub async fn ask_each(
    admin: &Admin,
) -> Result<Vec<(NodeId, Result<ListReplicasResponse, Error>)>, Failure> {
    let alive = admin.cluster().await?.brokers.into_iter().filter(|broker| !broker.fenced);
    let nodes: Vec<NodeId> = alive.map(|broker| broker.node).collect();
    let asked = nodes.into_iter().map(|node| async move { (node, admin.replicas_on(node).await) });
    Ok(futures_util::future::join_all(asked).await)
}

/// What one replica took and gave in a second, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// On which broker.
    pub node: NodeId,
    /// Of which partition.
    pub partition: TopicPartition,
    /// Whether it leads.
    pub leads: bool,
    /// What clients did to it.
    pub traffic: PerSecond,
}

/// What clients write and read in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PerSecond {
    /// Records written.
    pub records_in: f64,
    /// Bytes of their batches.
    pub bytes_in: f64,
    /// Records read.
    pub records_out: f64,
    /// Bytes of their batches.
    pub bytes_out: f64,
}

impl PerSecond {
    /// Both together.
    pub fn plus(self, other: PerSecond) -> PerSecond {
        PerSecond {
            records_in: self.records_in + other.records_in,
            bytes_in: self.bytes_in + other.bytes_in,
            records_out: self.records_out + other.records_out,
            bytes_out: self.bytes_out + other.bytes_out,
        }
    }

    /// All bytes.
    pub fn bytes(self) -> f64 {
        self.bytes_in + self.bytes_out
    }

    /// As the cells of a table.
    pub fn cells(self) -> [String; 4] {
        let count = |rate: f64| human::count(rate.round() as u64);
        let bytes = |rate: f64| human::bytes(rate.round() as u64);
        [
            count(self.records_in),
            bytes(self.bytes_in),
            count(self.records_out),
            bytes(self.bytes_out),
        ]
    }

    /// For programs.
    pub fn value(self) -> serde_json::Value {
        json!({
            "records_in_per_s": self.records_in,
            "bytes_in_per_s": self.bytes_in,
            "records_out_per_s": self.records_out,
            "bytes_out_per_s": self.bytes_out,
        })
    }
}

/// The difference of two looks over the time between them.
pub fn rates(before: &[ListReplicasResponse], after: &[ListReplicasResponse]) -> Vec<Rate> {
    let mut rates = Vec::new();
    for now in after {
        let then = before.iter().find(|then| then.node == now.node);
        // A clock that went back is another life's.
        let then = then.filter(|then| then.clock_ms < now.clock_ms);
        let seconds = (now.clock_ms - then.map_or(0, |then| then.clock_ms)) as f64 / 1_000.0;
        let counted: BTreeMap<TopicPartition, Traffic> = then
            .into_iter()
            .flat_map(|then| &then.replicas)
            .map(|replica| (replica.partition, replica.traffic))
            .collect();
        for ReplicaReport { partition, leads, traffic, .. } in &now.replicas {
            let was = counted.get(partition).copied().unwrap_or_default();
            let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let traffic = PerSecond {
                records_in: per_second(traffic.records_in, was.records_in),
                bytes_in: per_second(traffic.bytes_in, was.bytes_in),
                records_out: per_second(traffic.records_out, was.records_out),
                bytes_out: per_second(traffic.bytes_out, was.bytes_out),
            };
            rates.push(Rate { node: now.node, partition: *partition, leads: *leads, traffic });
        }
    }
    rates
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use highwater_client::{Offset, PartitionId, ReplicaState, TopicId};

    pub(crate) fn answer(node: u32, clock_ms: u64, counts: &[(u32, u64)]) -> ListReplicasResponse {
        let report = |(number, bytes): &(u32, u64)| ReplicaReport {
            partition: TopicPartition::new(TopicId::CLUSTER, PartitionId(*number)),
            state: ReplicaState::Open,
            leads: true,
            log_start: Offset(0),
            high_watermark: Offset(0),
            log_end: Offset(0),
            bytes: 0,
            traffic: Traffic { bytes_in: *bytes, ..Traffic::default() },
        };
        let replicas = counts.iter().map(report).collect();
        ListReplicasResponse { node: NodeId(node), clock_ms, replicas }
    }

    #[test]
    fn rates_are_the_difference_of_counts_over_the_brokers_own_time() {
        let before = [answer(1, 1_000, &[(0, 100), (1, 5)])];
        let after = [answer(1, 3_000, &[(0, 1_100), (1, 5), (2, 40)])];
        let rates = rates(&before, &after);
        let bytes: Vec<f64> = rates.iter().map(|rate| rate.traffic.bytes_in).collect();
        assert_eq!(bytes, [500.0, 0.0, 20.0]);
    }

    #[test]
    fn a_broker_that_began_anew_counts_from_nothing() {
        let before = [answer(1, 90_000, &[(0, 5_000)])];
        let after = [answer(1, 2_000, &[(0, 400)])];
        assert_eq!(rates(&before, &after)[0].traffic.bytes_in, 200.0);
    }
}
