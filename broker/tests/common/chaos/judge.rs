//! What must hold once everything is healed.

use std::sync::Arc;
use std::time::Duration;

use highwater_bench::recorded::{self, Load, Recording};
use highwater_client::{
    Client, DigestRange, NewTopic, NodeId, PartitionId, ProducerConfig, Record, TopicId,
    TopicPartition,
};
use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::LogIndex;
use tokio::time::{Instant, sleep, timeout};

use super::super::{Cluster, PATIENCE};
use super::replicas;
use super::stage::Stage;

/// The topic under load, and a client that asks about it.
pub struct Topic {
    pub client: Client,
    id: TopicId,
}

impl Topic {
    /// Makes it in a cluster that was started; every partition is led then.
    pub async fn create(cluster: &Cluster) -> Topic {
        let client = cluster.client().await;
        let topic = NewTopic::new(TOPIC, PARTITIONS)
            .replication(3)
            .config("segment.bytes", "1048576")
            .config("max.message.bytes", "65536");
        client.admin().create_topic(topic).await.expect("a healthy cluster makes a topic");
        let id = cluster
            .eventually("every partition is led", async || {
                let detail = client.admin().describe_topic(TOPIC).await.ok()?;
                detail.partitions.iter().all(|it| it.leader.is_some()).then_some(detail.id)
            })
            .await;
        Topic { client, id }
    }

    /// Who leads the first partition.
    pub async fn leader(&self) -> Option<usize> {
        let detail = self.client.admin().describe_topic(TOPIC).await.ok()?;
        detail.partitions.first()?.leader.map(|leader| leader.0 as usize)
    }

    /// The sum of the highest terms of all partitions.
    pub async fn terms(&self, nodes: usize) -> u64 {
        let mut sum = 0;
        for partition in (0..PARTITIONS).map(PartitionId) {
            let mut highest = 0;
            for node in (1..=nodes).map(|node| NodeId(node as u32)) {
                let admin = self.client.admin();
                let described = admin.describe_partition_on(node, self.id, partition).await;
                highest = described.map_or(highest, |it| highest.max(u64::from(it.term.0)));
            }
            sum += highest;
        }
        sum
    }

    /// What is not alike on the replicas of the topic.
    async fn difference(&self) -> Option<String> {
        let Ok(Ok(detail)) = timeout(PATIENCE, self.client.admin().describe_topic(TOPIC)).await
        else {
            return Some("nobody describes the topic".to_owned());
        };
        for partition in detail.partitions {
            let mut ends = Vec::new();
            for node in &partition.replicas {
                let admin = self.client.admin();
                let described =
                    admin.describe_partition_on(*node, self.id, partition.partition).await;
                let Ok(it) = described else {
                    return Some(format!("broker {node} describes nothing"));
                };
                ends.push((it.term, it.log_end, it.high_watermark));
            }
            let alike = ends.windows(2).all(|two| two[0] == two[1]);
            if !alike || ends.iter().any(|(_, end, committed)| end != committed) {
                return Some(format!("partition {}: {ends:?}", partition.partition));
            }
        }
        None
    }

    /// What some replica cannot read, if each can be asked.
    async fn rotten(&self, nodes: usize) -> Option<String> {
        let admin = self.client.admin();
        let ours = (0..PARTITIONS).map(|number| TopicPartition::new(self.id, PartitionId(number)));
        for partition in ours.chain([TopicPartition::CLUSTER]) {
            for node in (1..=nodes).map(|node| NodeId(node as u32)) {
                let (mut from, mut seed) = (LogIndex::ZERO, 0);
                loop {
                    let until = LogIndex(u64::MAX >> 1);
                    let range = DigestRange { from, until, seed, bytes_max: 4 << 20 };
                    let asked = admin.digest_replica(node, partition, Some(range), PATIENCE).await;
                    let digest = match asked {
                        // It has no replica of it: there are more brokers than replicas.
                        Err(error) if error.code() == Some(ErrorCode::NotLeader) => break,
                        Err(error) => return Some(format!("broker {node}: {error}")),
                        Ok(answer) => answer.digest,
                    };
                    let Some(digest) = digest else { break };
                    if let Some(unreadable) = digest.unreadable {
                        return Some(format!("broker {node}: {unreadable:?}"));
                    }
                    if digest.end <= from {
                        break;
                    }
                    (from, seed) = (digest.end, digest.hash);
                }
            }
        }
        None
    }
}

impl Stage {
    /// Every partition takes a record, within time.
    pub async fn until_all_accept(&mut self, topic: &Topic, healed: Instant) -> Option<u64> {
        let config = ProducerConfig::default().delivery_timeout(ACCEPT_WITHIN);
        let producer = topic.client.producer(config);
        for partition in 0..PARTITIONS {
            let record = Record::to(TOPIC).partition(partition).value("are you there?");
            if let Err(error) = producer.send_and_wait(record).await {
                self.failures.push(format!("partition {partition} accepts nothing: {error}"));
                return None;
            }
        }
        let took = healed.elapsed();
        if took > ACCEPT_WITHIN {
            self.failures.push(format!("all partitions accept only after {took:?}"));
        }
        Some(took.as_millis() as u64)
    }

    /// All replicas have the same, within time.
    pub async fn until_alike(&mut self, topic: &Topic, healed: Instant) -> Option<u64> {
        let deadline = healed + CONVERGE_WITHIN;
        let mut last = String::new();
        while Instant::now() < deadline {
            self.look_for_the_dead();
            match topic.difference().await {
                None => return Some(healed.elapsed().as_millis() as u64),
                Some(difference) => last = difference,
            }
            sleep(Duration::from_millis(200)).await;
        }
        self.failures.push(format!("replicas differ after {CONVERGE_WITHIN:?}: {last}"));
        None
    }

    /// What rotted while brokers were down is mended from the others.
    pub async fn until_whole(&mut self, topic: &Topic, healed: Instant) -> Option<u64> {
        let mut last = String::new();
        while healed.elapsed() < CONVERGE_WITHIN {
            self.look_for_the_dead();
            match topic.rotten(self.nodes).await {
                None => return Some(healed.elapsed().as_millis() as u64),
                Some(rotten) => last = rotten,
            }
            sleep(Duration::from_millis(500)).await;
        }
        self.failures.push(format!("not whole after {CONVERGE_WITHIN:?}: {last}"));
        None
    }

    /// A client that saw nothing before reads everything.
    pub async fn drain(&mut self, recording: &Arc<Recording>, load: &Load) {
        self.look_for_the_dead();
        let fresh = self.cluster.client().await;
        let drained =
            recorded::read_all_in_the_end(&fresh, recording, load, Duration::from_secs(20));
        match timeout(Duration::from_secs(90), drained).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.failures.push(format!("not readable to the end: {error}")),
            Err(_) => self.failures.push("the final reading does not end".to_owned()),
        }
    }

    /// Stops all brokers and reads every replica by itself.
    pub fn read_replicas(&mut self, recording: &Recording, topic: &Topic, run: u16) -> u64 {
        let mut records = 0;
        self.look_for_the_dead();
        for node in 1..=self.nodes {
            if self.cluster.is_up(node) && !self.cluster.stop(node) {
                self.failures.push(format!("broker {node} does not stop well"));
            }
        }
        for node in 1..=self.nodes {
            let data = self.cluster.dir.path().join(format!("node-{node}/data"));
            let found = replicas::read(recording, &data, node, (TOPIC, topic.id), run);
            records += found.records;
            self.failures.extend(found.damaged);
        }
        records
    }
}

pub const TOPIC: &str = "chaos";
const PARTITIONS: u32 = 4;
const ACCEPT_WITHIN: Duration = Duration::from_secs(10);
const CONVERGE_WITHIN: Duration = Duration::from_secs(60);
