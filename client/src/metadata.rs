//! What the client knows of the cluster: brokers, topics, and who leads each partition.
//!
//! Any broker answers, and some know less than others: one that has just started reads the cluster's
//! log from its beginning. So what is learned is merged: a leader of an older term never replaces one
//! of a newer term, a broker of an older life never one of a newer life, and a topic is unknown only
//! when two brokers say so. Readers look at a snapshot without waiting;
//! refreshing is single flight, and asks the next broker when one takes long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use highwater_protocol::batch::Compression;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Incarnation, NodeId, PartitionId, Term, TopicId, TopicPartition};
use highwater_protocol::native::metadata::{
    BrokerInfo, MetadataRequest, MetadataResponse, TopicDetail,
};
use tokio::sync::watch;

use crate::error::{Error, ErrorKind};
use crate::record::TopicName;

/// The cache: the latest snapshot, and whose topics it must have.
pub(crate) struct Metadata {
    snapshot: watch::Sender<Arc<Snapshot>>,
    interest: Mutex<BTreeSet<TopicName>>,
    /// Held by whoever refreshes.
    pub(crate) refreshing: tokio::sync::Mutex<()>,
    /// Spreads the asking over the brokers.
    turn: AtomicUsize,
}

/// The cluster at one moment, as far as it is known.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Larger in every later snapshot.
    pub(crate) generation: u64,
    pub(crate) taken: Instant,
    brokers: BTreeMap<NodeId, Broker>,
    topics: HashMap<TopicName, Topic>,
    leaders: HashMap<TopicId, Vec<Leadership>>,
}

#[derive(Debug, Clone)]
struct Broker {
    address: Arc<str>,
    rack: Option<Arc<str>>,
    fenced: bool,
    incarnation: Incarnation,
}

#[derive(Debug, Clone)]
struct Topic {
    /// The last good word on it.
    shape: Option<TopicShape>,
    /// The last refusal, and who has refused since the last good word.
    refusal: Option<WireError>,
    refused_by: BTreeSet<NodeId>,
}

/// What a producer or reader must know of a topic before it can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicShape {
    pub(crate) id: TopicId,
    pub(crate) partitions: u32,
    /// What batches are packed with, if packed; `None` where producers choose.
    pub(crate) codec: Option<Compression>,
}

#[derive(Debug, Clone)]
struct Leadership {
    leader: Option<NodeId>,
    term: Term,
    /// The voters that keep up, as the leader last said.
    in_sync: Arc<[NodeId]>,
}

/// Where a partition is led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: NodeId,
    pub(crate) term: Term,
    pub(crate) address: Arc<str>,
}

impl Metadata {
    pub(crate) fn new() -> Metadata {
        let nothing = Snapshot {
            generation: 0,
            taken: Instant::now(),
            brokers: BTreeMap::new(),
            topics: HashMap::new(),
            leaders: HashMap::new(),
        };
        Metadata {
            snapshot: watch::Sender::new(Arc::new(nothing)),
            interest: Mutex::new(BTreeSet::new()),
            refreshing: tokio::sync::Mutex::new(()),
            turn: AtomicUsize::new(0),
        }
    }

    /// The latest snapshot.
    pub(crate) fn now(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Snapshots as they change.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// From now on every refresh asks for this topic too.
    pub(crate) fn follow(&self, topic: &TopicName) {
        let mut interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        if !interest.contains(topic) {
            interest.insert(topic.clone());
        }
    }

    /// The question that a refresh asks.
    pub(crate) fn question(&self) -> MetadataRequest {
        let interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        MetadataRequest::Topics(interest.iter().map(|name| name.as_str().to_owned()).collect())
    }

    /// Merges an answer into a new snapshot.
    pub(crate) fn learn(&self, answer: &MetadataResponse) -> Arc<Snapshot> {
        let mut next = Snapshot::clone(&self.now());
        next.generation += 1;
        next.taken = Instant::now();
        next.merge(answer);
        let next = Arc::new(next);
        self.snapshot.send_replace(next.clone());
        next
    }

    /// Brokers to ask, best first: begins elsewhere each time, and ends with the fenced and with
    /// the one to `avoid`.
    pub(crate) fn candidates(&self, avoid: Option<NodeId>) -> Vec<(NodeId, Arc<str>)> {
        let snapshot = self.now();
        let mut brokers: Vec<_> = snapshot.brokers.iter().collect();
        if !brokers.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % brokers.len();
            brokers.rotate_left(turn);
        }
        brokers.sort_by_key(|(node, broker)| (Some(**node) == avoid, broker.fenced));
        brokers.into_iter().map(|(node, broker)| (*node, broker.address.clone())).collect()
    }
}

impl Snapshot {
    /// Where a partition is led, if that is known.
    pub(crate) fn place(&self, partition: TopicPartition) -> Option<Place> {
        let leaders = self.leaders.get(&partition.topic)?;
        let Leadership { leader, term, .. } = leaders.get(partition.partition.0 as usize)?;
        let node = (*leader)?;
        Some(Place { node, term: *term, address: self.address(node)? })
    }

    /// A replica in a rack that keeps up: the leader if it is there, else one by the partition's number, so that
    /// several share the reading.
    pub(crate) fn place_in(&self, partition: TopicPartition, rack: &str) -> Option<Place> {
        let leaders = self.leaders.get(&partition.topic)?;
        let Leadership { leader, term, in_sync } = leaders.get(partition.partition.0 as usize)?;
        let is_there = |node: &&NodeId| {
            let broker = self.brokers.get(node);
            broker.is_some_and(|it| it.rack.as_deref() == Some(rack) && !it.fenced)
        };
        let there: Vec<NodeId> = in_sync.iter().filter(is_there).copied().collect();
        let led = there.iter().find(|node| Some(**node) == *leader);
        let number = partition.partition.0 as usize;
        let node = *led.or_else(|| there.get(number % there.len().max(1)))?;
        Some(Place { node, term: *term, address: self.address(node)? })
    }

    /// Where a broker listens.
    pub(crate) fn address(&self, node: NodeId) -> Option<Arc<str>> {
        self.brokers.get(&node).map(|broker| broker.address.clone())
    }

    /// A topic's shape, why it has none, or `None` where that is not known yet.
    pub(crate) fn topic(&self, name: &TopicName) -> Option<Result<TopicShape, &WireError>> {
        let topic = self.topics.get(name)?;
        match (&topic.shape, &topic.refusal) {
            (_, Some(refusal)) if self.is_certain(topic, refusal) => Some(Err(refusal)),
            (Some(shape), _) => Some(Ok(*shape)),
            (None, _) => None,
        }
    }

    /// The last refusal, though it may come from a broker that has just started.
    pub(crate) fn refusal(&self, name: &TopicName) -> Option<&WireError> {
        self.topics.get(name)?.refusal.as_ref()
    }

    /// Whether the topic of this id is no more, or not under this name.
    pub(crate) fn is_gone(&self, name: &TopicName, id: TopicId) -> bool {
        match self.topic(name) {
            Some(Ok(shape)) => shape.id != id,
            Some(Err(error)) => error.code == ErrorCode::UnknownTopicOrPartition,
            None => false,
        }
    }

    fn is_certain(&self, topic: &Topic, refusal: &WireError) -> bool {
        let witnesses = self.brokers.len().clamp(1, 2);
        if refusal.code == ErrorCode::UnknownTopicOrPartition {
            return topic.refused_by.len() >= witnesses;
        }
        // What passes is only that broker's trouble, its start for example.
        !refusal.code.retriable()
    }

    fn merge(&mut self, answer: &MetadataResponse) {
        for BrokerInfo { node, address, rack, fenced, incarnation, .. } in &answer.brokers {
            let (rack, fenced, incarnation) = (rack.as_deref(), *fenced, *incarnation);
            let known = self.brokers.get(node);
            if known.is_none_or(|known| known.incarnation <= incarnation) {
                let address = Arc::from(address.as_str());
                let rack = rack.map(Arc::from);
                self.brokers.insert(*node, Broker { address, rack, fenced, incarnation });
            }
        }
        for info in &answer.topics {
            let name = TopicName::from(info.name.as_str());
            let shape = info.result.as_ref().map(|detail| self.merge_topic(detail));
            let nothing = || Topic { shape: None, refusal: None, refused_by: BTreeSet::new() };
            let topic = self.topics.entry(name).or_insert_with(nothing);
            match shape {
                Ok(shape) => *topic = Topic { shape: Some(shape), ..nothing() },
                Err(refusal) => {
                    topic.refusal = Some(refusal.clone());
                    if refusal.code == ErrorCode::UnknownTopicOrPartition {
                        topic.refused_by.insert(answer.node);
                    }
                }
            }
        }
    }

    fn merge_topic(&mut self, detail: &TopicDetail) -> TopicShape {
        let leaders = self.leaders.entry(detail.id).or_default();
        for info in &detail.partitions {
            let in_sync = info.in_sync.as_slice().into();
            let news = Leadership { leader: info.leader, term: info.term, in_sync };
            let index = info.partition.0 as usize;
            if index == leaders.len() {
                leaders.push(news);
            } else if let Some(known) = leaders.get_mut(index) {
                known.update(news);
            } else {
                // Partitions are dense and in order; an answer that skips some is not believed.
                break;
            }
        }
        TopicShape { id: detail.id, partitions: leaders.len() as u32, codec: detail.codec }
    }
}

impl Leadership {
    /// A broker that lags behind must not lead us back to an old leader.
    fn update(&mut self, news: Leadership) {
        if news.term > self.term || (news.term == self.term && news.leader.is_some()) {
            *self = news;
        }
    }
}

impl TopicShape {
    /// The partition of that number, if the topic has one.
    pub(crate) fn checked_partition(
        &self,
        topic: &TopicName,
        number: PartitionId,
    ) -> Result<TopicPartition, Error> {
        if number.0 < self.partitions {
            return Ok(self.partition(number));
        }
        let has = match self.partitions {
            1 => "only partition 0".to_owned(),
            count => format!("partitions 0 to {}", count - 1),
        };
        let text = format!("topic {topic} has {has}, and no partition {number}");
        Err(Error::new(ErrorKind::UnknownTopic, text))
    }

    /// What to pack batches with where the producer would choose `own`: not at all where the topic
    /// wants what this program was built without, for plain batches are taken everywhere.
    pub(crate) fn codec(&self, own: Compression) -> Compression {
        let wanted = self.codec.unwrap_or(own);
        if wanted.is_built() { wanted } else { Compression::None }
    }

    /// The partition of that number.
    pub(crate) fn partition(&self, number: PartitionId) -> TopicPartition {
        TopicPartition::new(self.id, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::ids::DirectoryId;
    use highwater_protocol::native::metadata::{PartitionInfo, TopicInfo};

    fn answer(leader: Option<u32>, term: u32) -> MetadataResponse {
        let id = TopicId(uuid::Uuid::from_u128(9));
        let partition = PartitionInfo {
            partition: PartitionId(0),
            leader: leader.map(NodeId),
            term: Term(term),
            replicas: vec![NodeId(1), NodeId(2)],
            in_sync: vec![],
        };
        let detail = TopicDetail { id, configs: vec![], partitions: vec![partition], codec: None };
        let broker = |node| BrokerInfo {
            node: NodeId(node),
            address: format!("host{node}:1"),
            rack: None,
            incarnation: Incarnation(1),
            directory: DirectoryId(uuid::Uuid::from_u128(u128::from(node))),
            fenced: node == 1,
        };
        MetadataResponse {
            cluster_id: "c".into(),
            node: NodeId(1),
            controller: None,
            brokers: vec![broker(1), broker(2), broker(3)],
            topics: vec![TopicInfo { name: "t".into(), result: Ok(detail) }],
        }
    }

    fn leader_after(answers: &[MetadataResponse]) -> Option<(u32, u32)> {
        let metadata = Metadata::new();
        let last = answers.iter().map(|answer| metadata.learn(answer)).last().expect("one answer");
        let id = TopicId(uuid::Uuid::from_u128(9));
        let place = last.place(TopicPartition::new(id, PartitionId(0)));
        place.map(|place| (place.node.0, place.term.0))
    }

    #[test]
    fn a_broker_that_lags_does_not_bring_back_an_old_leader() {
        assert_eq!(leader_after(&[answer(Some(1), 4), answer(Some(2), 5)]), Some((2, 5)));
        assert_eq!(leader_after(&[answer(Some(2), 5), answer(Some(1), 4)]), Some((2, 5)));
        assert_eq!(leader_after(&[answer(Some(2), 5), answer(None, 5)]), Some((2, 5)));
        assert_eq!(leader_after(&[answer(Some(2), 5), answer(None, 6)]), None);
    }

    #[test]
    fn the_broker_to_avoid_and_the_fenced_are_asked_last() {
        let metadata = Metadata::new();
        metadata.learn(&answer(Some(1), 1));
        for _ in 0..3 {
            let order = metadata.candidates(Some(NodeId(2)));
            let order: Vec<u32> = order.iter().map(|(node, _)| node.0).collect();
            assert_eq!(order, [3, 1, 2]);
        }
    }

    #[test]
    fn a_topic_made_anew_under_the_same_name_is_another_topic() {
        let metadata = Metadata::new();
        let snapshot = metadata.learn(&answer(Some(1), 1));
        let name = TopicName::from("t");
        assert!(!snapshot.is_gone(&name, TopicId(uuid::Uuid::from_u128(9))));
        assert!(snapshot.is_gone(&name, TopicId(uuid::Uuid::from_u128(8))));
        assert!(!snapshot.is_gone(&TopicName::from("never asked"), TopicId::CLUSTER));
    }

    fn knows_nothing(node: u32) -> MetadataResponse {
        let error = WireError::new(ErrorCode::UnknownTopicOrPartition, "not heard of it");
        MetadataResponse {
            node: NodeId(node),
            brokers: vec![],
            topics: vec![TopicInfo { name: "t".into(), result: Err(error) }],
            ..answer(None, 0)
        }
    }

    #[test]
    fn a_broker_that_has_just_started_makes_nothing_unknown() {
        let metadata = Metadata::new();
        let name = TopicName::from("t");
        let known = metadata.learn(&answer(Some(1), 4));
        let shape = known.topic(&name).expect("asked").expect("known");
        let partition = shape.partition(PartitionId(0));
        for _ in 0..2 {
            let snapshot = metadata.learn(&knows_nothing(3));
            assert_eq!(snapshot.topic(&name), Some(Ok(shape)));
            assert!(snapshot.place(partition).is_some(), "its leader and brokers are kept");
        }
        let snapshot = metadata.learn(&knows_nothing(2));
        assert!(snapshot.is_gone(&name, shape.id), "two brokers say so");
    }
}
