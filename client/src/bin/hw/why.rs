//! Why a partition has no leader, or fewer replicas in sync than it has: which replica is missing,
//! since when, and what is known of it.
//!
//! Asked are the brokers themselves: what each hosts and whether that serves, and for the first few
//! partitions the leader, which knows when it last heard of whom.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_client::{
    Admin, ClusterInfo, NodeId, PartitionInfo, ReplicaReport, ReplicaState, TopicId, TopicInfo,
    TopicPartition,
};
use serde_json::{Value, json};

use crate::human;
use crate::topic::is_under_replicated;

/// What the brokers say of their replicas.
#[derive(Debug, Default)]
pub struct Known {
    brokers: BTreeMap<NodeId, Broker>,
    /// How long ago a partition's leader heard of a replica.
    heard_ms: BTreeMap<(TopicPartition, NodeId), u64>,
}

#[derive(Debug)]
enum Broker {
    Fenced,
    Silent,
    Answers(BTreeMap<TopicPartition, ReplicaReport>),
}

/// A replica that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    broker: NodeId,
    why: String,
    heard_ms: Option<u64>,
}

impl Known {
    /// Asks every broker, if any of these topics has a partition in trouble; otherwise nobody.
    pub async fn of(admin: &Admin, info: &ClusterInfo, topics: &[TopicInfo]) -> Known {
        let mut known = Known::default();
        let in_trouble: Vec<_> = topics.iter().flat_map(in_trouble).collect();
        if in_trouble.is_empty() {
            return known;
        }
        let brokers = info.brokers.iter().map(|broker| async move {
            if broker.fenced {
                return (broker.node, Broker::Fenced);
            }
            let answer = tokio::time::timeout(PATIENCE, admin.replicas_on(broker.node)).await;
            let Ok(Ok(answer)) = answer else { return (broker.node, Broker::Silent) };
            let replicas = answer.replicas.into_iter();
            let replicas = replicas.map(|replica| (replica.partition, replica)).collect();
            (broker.node, Broker::Answers(replicas))
        });
        known.brokers = futures_util::future::join_all(brokers).await.into_iter().collect();
        let led = in_trouble.iter().filter(|(_, _, partition)| partition.leader.is_some());
        let described = led.take(DESCRIBED_MAX).map(|(name, topic, partition)| async move {
            let at = TopicPartition::new(*topic, partition.partition);
            let asked = admin.describe_partition(name, partition.partition);
            let described = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
            let heard = described.replicas.into_iter();
            Some(heard.filter_map(move |replica| Some(((at, replica.node), replica.heard_ms?))))
        });
        let described = futures_util::future::join_all(described).await;
        known.heard_ms = described.into_iter().flatten().flatten().collect();
        known
    }

    /// The replicas that a partition lacks, each with the reason.
    pub fn missing(&self, topic: TopicId, partition: &PartitionInfo) -> Vec<Missing> {
        let at = TopicPartition::new(topic, partition.partition);
        let end = partition.leader.and_then(|leader| Some(self.report(leader, at)?.log_end));
        let lacks = partition.replicas.iter().filter(|node| !partition.in_sync.contains(node));
        let missing = |node: &NodeId| Missing {
            broker: *node,
            why: self.why(*node, at, end.map(|end| end.0)),
            heard_ms: self.heard_ms.get(&(at, *node)).copied(),
        };
        lacks.map(missing).collect()
    }

    /// How many replicas of a partition run and serve, of all.
    pub fn serving(&self, topic: TopicId, partition: &PartitionInfo) -> usize {
        let at = TopicPartition::new(topic, partition.partition);
        let serves = |node: &&NodeId| {
            self.report(**node, at).is_some_and(|report| report.state == ReplicaState::Open)
        };
        partition.replicas.iter().filter(serves).count()
    }

    fn report(&self, node: NodeId, at: TopicPartition) -> Option<&ReplicaReport> {
        match self.brokers.get(&node)? {
            Broker::Answers(replicas) => replicas.get(&at),
            Broker::Fenced | Broker::Silent => None,
        }
    }

    fn why(&self, node: NodeId, at: TopicPartition, end: Option<u64>) -> String {
        let replicas = match self.brokers.get(&node) {
            None => return "its broker is not part of the cluster".to_owned(),
            Some(Broker::Fenced) => return "its broker is down (fenced)".to_owned(),
            Some(Broker::Silent) => return "its broker does not answer".to_owned(),
            Some(Broker::Answers(replicas)) => replicas,
        };
        let Some(report) = replicas.get(&at) else {
            return "its broker does not know of it yet".to_owned();
        };
        match (&report.state, end) {
            (ReplicaState::Failed(why), _) => format!("out of service: {why}"),
            (ReplicaState::Opening, _) => "being opened".to_owned(),
            (ReplicaState::Open, None) => {
                format!("serves, its log ends at {}", report.log_end)
            }
            (ReplicaState::Open, Some(end)) => match end.saturating_sub(report.log_end.0) {
                0 => "has all records, and is not in sync yet".to_owned(),
                behind => format!("{} behind", human::counted(behind as usize, "record")),
            },
        }
    }
}

/// The missing replicas as a sentence.
pub fn sentence(missing: &[Missing]) -> String {
    let one = |Missing { broker, why, heard_ms }: &Missing| match heard_ms {
        Some(ms) => {
            let ago = Duration::from_millis(*ms).as_secs_f64();
            format!("broker {broker}: {why}, last heard {ago:.1} s ago")
        }
        None => format!("broker {broker}: {why}"),
    };
    missing.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The same for programs.
pub fn values(missing: &[Missing]) -> Value {
    let one = |Missing { broker, why, heard_ms }: &Missing| json!({"broker": broker.0, "why": why, "heard_ms": heard_ms});
    missing.iter().map(one).collect()
}

fn in_trouble(topic: &TopicInfo) -> Vec<(&str, TopicId, &PartitionInfo)> {
    let Ok(detail) = &topic.result else { return Vec::new() };
    let partitions = detail.partitions.iter();
    let troubled = partitions.filter(|at| at.leader.is_none() || is_under_replicated(at));
    troubled.map(|partition| (topic.name.as_str(), detail.id, partition)).collect()
}

const PATIENCE: Duration = Duration::from_secs(2);
/// A page of partitions; for the others it is not asked since when.
const DESCRIBED_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_client::{Offset, PartitionId, Term, Traffic};

    const TOPIC: TopicId = TopicId::CLUSTER;

    fn at() -> TopicPartition {
        TopicPartition::new(TOPIC, PartitionId(0))
    }

    fn answers(state: ReplicaState, log_end: u64) -> Broker {
        let report = ReplicaReport {
            partition: at(),
            state,
            leads: false,
            log_start: Offset(0),
            high_watermark: Offset(0),
            log_end: Offset(log_end),
            bytes: 0,
            traffic: Traffic::default(),
        };
        Broker::Answers(BTreeMap::from([(at(), report)]))
    }

    fn partition(leader: Option<u32>, in_sync: &[u32]) -> PartitionInfo {
        let nodes = |nodes: &[u32]| nodes.iter().copied().map(NodeId).collect();
        PartitionInfo {
            partition: PartitionId(0),
            leader: leader.map(NodeId),
            term: Term(4),
            replicas: nodes(&[1, 2, 3, 4, 5]),
            in_sync: nodes(in_sync),
        }
    }

    #[test]
    fn every_missing_replica_is_named_with_its_reason() {
        let failed = ReplicaState::Failed("the disk is gone".to_owned());
        let brokers = [
            (1, answers(ReplicaState::Open, 2_000)),
            (2, Broker::Fenced),
            (3, answers(ReplicaState::Open, 500)),
            (4, answers(failed, 0)),
            (5, Broker::Silent),
        ];
        let brokers = brokers.into_iter().map(|(node, broker)| (NodeId(node), broker));
        let heard_ms = BTreeMap::from([((at(), NodeId(2)), 12_340)]);
        let known = Known { brokers: brokers.collect(), heard_ms };
        let missing = known.missing(TOPIC, &partition(Some(1), &[1]));
        assert_eq!(
            sentence(&missing),
            "broker 2: its broker is down (fenced), last heard 12.3 s ago; broker 3: 1,500 records behind; \
             broker 4: out of service: the disk is gone; broker 5: its broker does not answer"
        );
        assert_eq!(values(&missing)[0]["heard_ms"], 12_340);
        assert_eq!(known.serving(TOPIC, &partition(None, &[])), 2);
    }
}
