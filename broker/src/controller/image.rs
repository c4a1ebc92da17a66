//! The cluster as the committed records have made it: brokers, topics, partitions.
//!
//! Every broker builds the same image from the same records. Cloning is cheap (topics and brokers
//! are shared), so whoever reads gets a picture that stands still. A record that does not fit what
//! came before is never guessed around: the log would contradict itself, and the caller must stop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use highwater_protocol::ids::{DirectoryId, NodeId, PartitionId, TopicId};
use highwater_protocol::native::brokers::BrokerDuty;
use highwater_protocol::native::settings::SettingScope;

use crate::controller::brokers::BrokerRecord;
use crate::controller::config::TopicConfig;
use crate::controller::moves::{MoveRecord, TopicMoves};
use crate::controller::record::{BrokerRegistration, MetadataRecord, PlacedReplica};
use crate::controller::recover::{RecoverRecord, TopicRecoveries};
use crate::controller::settings::{Given, Settings};
use crate::controller::throttle::{Throttle, ThrottleRecord};
use crate::mutant::{self, Mutant};

/// The cluster at one offset of the controller's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterImage {
    brokers: BTreeMap<NodeId, Arc<Broker>>,
    topics: BTreeMap<TopicId, Arc<Topic>>,
    names: BTreeMap<Arc<str>, TopicId>,
    deleted: VecDeque<TopicId>,
    partitions: usize,
    /// Data directories whose brokers were taken out, or have another one now.
    removed: VecDeque<(NodeId, DirectoryId)>,
    /// Who votes on the controller's log, as its leader saw last.
    voters: Vec<NodeId>,
    throttle: Throttle,
    settings: Settings,
}

/// A registered broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// What it said of itself when it registered last.
    pub registration: BrokerRegistration,
    /// Whether the controller has lost touch with it.
    pub fenced: bool,
    /// What its operator wants it to be.
    pub duty: BrokerDuty,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// The settings that were given, by name.
    pub configs: Vec<(String, String)>,
    /// All settings.
    pub config: TopicConfig,
    /// The replicas of each partition, the preferred leader first.
    pub partitions: Vec<ReplicaSet>,
    /// Which of them move.
    pub(super) moves: TopicMoves,
    /// Which of them were begun anew.
    pub(super) recoveries: TopicRecoveries,
}

/// The replicas of a partition, the preferred leader first. Shared, for a topic is copied whenever one
/// of its partitions changes, and may have ten thousand of them.
pub type ReplicaSet = Arc<[PlacedReplica]>;

/// A record that does not fit the records before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the controller's log contradicts itself: {0}")]
pub struct Contradiction(String);

impl ClusterImage {
    /// Takes in a committed record.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), Contradiction> {
        match record {
            MetadataRecord::RegisterBroker(registration) => {
                self.register(registration);
                Ok(())
            }
            MetadataRecord::FenceBroker { node, fenced } => {
                let Some(broker) = self.brokers.get_mut(node) else {
                    return Err(contradiction(format!(
                        "broker {node} is fenced but not registered"
                    )));
                };
                Arc::make_mut(broker).fenced = *fenced;
                Ok(())
            }
            MetadataRecord::CreateTopic { id, name, configs } => {
                self.create_topic(*id, name, configs)
            }
            MetadataRecord::CreatePartitions { topic, first, partitions } => {
                self.create_partitions(*topic, *first, partitions)
            }
            MetadataRecord::DeleteTopic { id } => {
                self.delete_topic(*id);
                Ok(())
            }
            MetadataRecord::BeginImage => {
                *self = ClusterImage::default();
                Ok(())
            }
            MetadataRecord::AlterTopic { id, configs } => self.alter_topic(*id, configs),
            MetadataRecord::Move(change) => self.move_replicas(change),
            MetadataRecord::Recover(change) => self.recover(change),
            MetadataRecord::Throttle(record) => {
                self.throttle.take(record);
                Ok(())
            }
            MetadataRecord::AlterSettings { scope, configs } => {
                self.settings.replace(scope, configs);
                self.topics_go_by_settings()
            }
            MetadataRecord::Broker(change) => self.change_broker(change),
        }
    }

    fn register(&mut self, registration: &BrokerRegistration) {
        let node = registration.node;
        let mut duty = BrokerDuty::Active;
        if let Some(before) = self.brokers.get(&node) {
            if !mutant::active(Mutant::DutyForgotten) {
                duty = before.duty;
            }
            let directory = before.registration.directory;
            if directory != registration.directory && !mutant::active(Mutant::ReplacedReturns) {
                self.note_removed(node, directory);
            }
        }
        let broker = Broker { registration: registration.clone(), fenced: false, duty };
        self.brokers.insert(node, Arc::new(broker));
    }

    fn note_removed(&mut self, node: NodeId, directory: DirectoryId) {
        self.removed.push_back((node, directory));
        if self.removed.len() > REMOVED_MAX {
            self.removed.pop_front();
        }
    }

    fn create_topic(
        &mut self,
        id: TopicId,
        name: &str,
        configs: &Given,
    ) -> Result<(), Contradiction> {
        if self.names.contains_key(name) || self.topics.contains_key(&id) {
            return Err(contradiction(format!("topic {name} ({id}) is made twice")));
        }
        let config = parse(name, &self.settings.for_topics(), configs)?;
        let name: Arc<str> = name.into();
        self.names.insert(name.clone(), id);
        let configs = configs.to_vec();
        let topic = Topic {
            id,
            name,
            configs,
            config,
            partitions: Vec::new(),
            moves: TopicMoves::default(),
            recoveries: TopicRecoveries::default(),
        };
        self.topics.insert(id, Arc::new(topic));
        Ok(())
    }

    fn create_partitions(
        &mut self,
        id: TopicId,
        first: PartitionId,
        partitions: &[Vec<PlacedReplica>],
    ) -> Result<(), Contradiction> {
        let Some(topic) = self.topics.get_mut(&id) else {
            return Err(contradiction(format!(
                "partitions are added to topic {id}, which does not exist"
            )));
        };
        if first.0 as usize != topic.partitions.len() {
            let (name, have) = (&topic.name, topic.partitions.len());
            return Err(contradiction(format!(
                "topic {name} gets partition {first} after {have} others"
            )));
        }
        if partitions.iter().any(Vec::is_empty) {
            return Err(contradiction(format!(
                "topic {} gets a partition without replicas",
                topic.name
            )));
        }
        let sets = partitions.iter().map(|set| ReplicaSet::from(set.as_slice()));
        Arc::make_mut(topic).partitions.extend(sets);
        self.partitions += partitions.len();
        Ok(())
    }

    fn alter_topic(&mut self, id: TopicId, configs: &Given) -> Result<(), Contradiction> {
        let Some(topic) = self.topics.get_mut(&id) else {
            return Err(contradiction(format!("topic {id}, which does not exist, gets settings")));
        };
        let config = parse(&topic.name, &self.settings.for_topics(), configs)?;
        let topic = Arc::make_mut(topic);
        (topic.configs, topic.config) = (configs.to_vec(), config);
        Ok(())
    }

    /// Settings of the cluster have changed: topics that do not say otherwise go by them.
    fn topics_go_by_settings(&mut self) -> Result<(), Contradiction> {
        let defaults = self.settings.for_topics();
        for topic in self.topics.values_mut() {
            let config = parse(&topic.name, &defaults, &topic.configs)?;
            if config != topic.config {
                Arc::make_mut(topic).config = config;
            }
        }
        Ok(())
    }

    fn move_replicas(&mut self, change: &MoveRecord) -> Result<(), Contradiction> {
        let id = change.partition().topic;
        let Some(topic) = self.topics.get_mut(&id) else {
            return Err(contradiction(format!("topic {id} is moved, but does not exist")));
        };
        Arc::make_mut(topic).take_move(change).map_err(contradiction)
    }

    fn recover(&mut self, change: &RecoverRecord) -> Result<(), Contradiction> {
        let id = change.topic();
        let Some(topic) = self.topics.get_mut(&id) else {
            return Err(contradiction(format!("topic {id} is recovered, but does not exist")));
        };
        Arc::make_mut(topic).take_recovery(change).map_err(contradiction)
    }

    fn change_broker(&mut self, change: &BrokerRecord) -> Result<(), Contradiction> {
        match change {
            BrokerRecord::SetDuty(node, duty) => {
                let Some(broker) = self.brokers.get_mut(node) else {
                    return Err(contradiction(format!(
                        "broker {node} gets a duty but is not registered"
                    )));
                };
                Arc::make_mut(broker).duty = *duty;
            }
            BrokerRecord::Remove { node, directory } => {
                if self.directory_of(*node) == Some(*directory) {
                    self.brokers.remove(node);
                    for topic in self.topics.values_mut() {
                        if topic.dropped_from(*node).next().is_some() {
                            Arc::make_mut(topic).forget_dropped_from(*node);
                        }
                    }
                    // Whoever gets the id next begins without them.
                    self.settings.replace(&SettingScope::Broker(*node), &Vec::new());
                    self.throttle.take(&ThrottleRecord { broker: Some(*node), bytes_per_s: None });
                }
                self.note_removed(*node, *directory);
            }
            BrokerRecord::Voters(voters) => self.voters.clone_from(voters),
            BrokerRecord::Refilled { partition, node, directory } => {
                let number = partition.partition.0 as usize;
                let topic = self.topics.get_mut(&partition.topic).map(Arc::make_mut);
                let topic = topic.filter(|topic| number < topic.partitions.len());
                let Some(topic) = topic else {
                    return Err(contradiction(format!(
                        "broker {node} has filled {partition} again, which does not exist"
                    )));
                };
                let refilled = |replica: &PlacedReplica| PlacedReplica {
                    directory: if replica.node == *node { *directory } else { replica.directory },
                    ..*replica
                };
                let set = &mut topic.partitions[number];
                *set = set.iter().map(refilled).collect();
                topic.change_target(partition.partition, refilled);
            }
        }
        Ok(())
    }

    fn delete_topic(&mut self, id: TopicId) {
        if let Some(topic) = self.topics.remove(&id) {
            self.names.remove(&topic.name);
            self.partitions -= topic.partitions.len();
        }
        if self.deleted.contains(&id) {
            return;
        }
        self.deleted.push_back(id);
        if self.deleted.len() > DELETED_MAX {
            self.deleted.pop_front();
        }
    }

    /// Records that make this image out of an empty one.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for (node, directory) in self.removed.iter().copied() {
            records.push(MetadataRecord::Broker(BrokerRecord::Remove { node, directory }));
        }
        if !self.voters.is_empty() {
            let voters = BrokerRecord::Voters(self.voters.clone());
            records.push(MetadataRecord::Broker(voters));
        }
        // First, because topics are read by what the cluster says for them.
        for (scope, configs) in self.settings.scopes() {
            records.push(MetadataRecord::AlterSettings { scope, configs: configs.clone() });
        }
        for (node, broker) in &self.brokers {
            records.push(MetadataRecord::RegisterBroker(broker.registration.clone()));
            if broker.fenced && !mutant::active(Mutant::ImageForgetsFenced) {
                records.push(MetadataRecord::FenceBroker { node: *node, fenced: true });
            }
            if broker.duty != BrokerDuty::Active {
                let duty = BrokerRecord::SetDuty(*node, broker.duty);
                records.push(MetadataRecord::Broker(duty));
            }
        }
        for topic in self.topics.values() {
            records.push(MetadataRecord::CreateTopic {
                id: topic.id,
                name: topic.name.to_string(),
                configs: topic.configs.clone(),
            });
            if !topic.partitions.is_empty() {
                records.push(MetadataRecord::CreatePartitions {
                    topic: topic.id,
                    first: PartitionId(0),
                    partitions: topic.partitions.iter().map(|set| set.to_vec()).collect(),
                });
            }
            records.extend(topic.recovery_records().map(MetadataRecord::Recover));
            if !mutant::active(Mutant::ImageForgetsMoves) {
                records.extend(topic.move_records().map(MetadataRecord::Move));
            }
        }
        records.extend(self.throttle.records().map(MetadataRecord::Throttle));
        records.extend(self.deleted.iter().map(|id| MetadataRecord::DeleteTopic { id: *id }));
        records
    }

    /// How many records `to_records` gives, without making them.
    pub fn records(&self) -> u64 {
        let of_broker = |broker: &Arc<Broker>| {
            1 + usize::from(broker.fenced) + usize::from(broker.duty != BrokerDuty::Active)
        };
        let of_topic = |topic: &Arc<Topic>| {
            let extra = topic.move_records().count() + topic.recoveries.len();
            1 + usize::from(!topic.partitions.is_empty()) + extra
        };
        let brokers: usize = self.brokers.values().map(of_broker).sum();
        let topics: usize = self.topics.values().map(of_topic).sum();
        let whole = usize::from(!self.voters.is_empty())
            + self.throttle.records().count()
            + self.settings.scopes().count();
        (self.removed.len() + whole + brokers + topics + self.deleted.len()) as u64
    }

    /// The settings of the cluster and of its brokers.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Every registered broker, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().map(|broker| &**broker)
    }

    /// A broker.
    pub fn broker(&self, node: NodeId) -> Option<&Broker> {
        self.brokers.get(&node).map(|broker| &**broker)
    }

    /// Who votes on the metadata, by id; empty before the controller's first leader has said so.
    pub fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Whether a broker of this id was taken out at some time.
    pub fn was_removed(&self, node: NodeId) -> bool {
        self.removed.iter().any(|(removed, _)| *removed == node)
    }

    /// Whether the broker that had this data directory was taken out, or has another one now.
    pub fn was_removed_with(&self, node: NodeId, directory: DirectoryId) -> bool {
        self.removed.contains(&(node, directory))
    }

    /// The data directory of a registered broker.
    pub fn directory_of(&self, node: NodeId) -> Option<DirectoryId> {
        Some(self.broker(node)?.registration.directory)
    }

    /// Every topic, by id.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// A topic.
    pub fn topic(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// A topic by its name.
    pub fn topic_named(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// Every topic, by name.
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.names.values().map(|id| &self.topics[id])
    }

    /// Every partition, by its topic's id and its number.
    pub fn every_partition(&self) -> impl Iterator<Item = (&Topic, PartitionId)> {
        self.topics.values().flat_map(|topic| {
            (0u32..).map(PartitionId).take(topic.partitions.len()).map(move |at| (&**topic, at))
        })
    }

    /// How fast moves may copy.
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Whether a topic is among those deleted last: what a broker still has of it may be removed.
    pub fn is_deleted(&self, id: TopicId) -> bool {
        self.deleted.contains(&id)
    }
}

fn parse(topic: &str, defaults: &Given, configs: &Given) -> Result<TopicConfig, Contradiction> {
    TopicConfig::parse_over(defaults, configs).map_err(|error| {
        let why = error.detail;
        contradiction(format!("topic {topic} has settings that this build refuses: {why}"))
    })
}

fn contradiction(what: String) -> Contradiction {
    Contradiction(what)
}

/// Deleted topics that are remembered, for brokers that were away when they were deleted and have
/// crashed in between; files of topics deleted longer ago are left for the operator.
const DELETED_MAX: usize = 10_000;
/// Directories that are remembered because they must not come back.
const REMOVED_MAX: usize = 1_000;

#[cfg(test)]
mod tests;
