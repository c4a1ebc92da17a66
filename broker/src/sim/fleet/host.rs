//! A broker of the fleet: it follows the controller's log, keeps its image, and hosts what that says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use highwater_protocol::ids::{DirectoryId, Incarnation, NodeId, TopicPartition};
use uuid::Uuid;

use super::log::Log;
use crate::controller::moves::MoveId;
use crate::controller::moves::dropped::GivenUp;
use crate::controller::record::BrokerRegistration;
use crate::controller::{ClusterImage, MetadataRecord};
use crate::node::reconcile::{self, Standing};
use crate::raft::Millis;
use crate::shard::event::AfterClose;

/// A broker.
#[derive(Debug)]
pub struct Host {
    registration: BrokerRegistration,
    down_since: Option<Millis>,
    image: ClusterImage,
    applied: u64,
    saved: (Vec<Bytes>, u64),
    saved_drops: BTreeMap<TopicPartition, MoveId>,
    open: BTreeSet<TopicPartition>,
}

impl Host {
    /// A broker with an empty directory.
    pub fn new(node: NodeId, rack: String) -> Host {
        let registration = BrokerRegistration {
            node,
            incarnation: Incarnation(1),
            directory: DirectoryId(Uuid::from_u128(u128::from(node.0))),
            rack: Some(rack),
            client_address: format!("broker-{node}.example:9092"),
            peer_address: format!("broker-{node}.example:9093"),
        };
        Host {
            registration,
            down_since: None,
            image: ClusterImage::default(),
            applied: 0,
            saved: (Vec::new(), 0),
            saved_drops: BTreeMap::new(),
            open: BTreeSet::new(),
        }
    }

    /// Which one.
    pub fn node(&self) -> NodeId {
        self.registration.node
    }

    /// What it says of itself.
    pub fn registration(&self) -> &BrokerRegistration {
        &self.registration
    }

    /// Since when it is down, if it is.
    pub fn down_since(&self) -> Option<Millis> {
        self.down_since
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.down_since.is_none()
    }

    /// The cluster as it knows it.
    pub fn image(&self) -> &ClusterImage {
        &self.image
    }

    /// Up to where it has applied the log.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The replicas that it has open.
    pub fn open(&self) -> &BTreeSet<TopicPartition> {
        &self.open
    }

    /// Applies the log up to an offset at which a batch begins; gives the replicas that it closes.
    pub fn follow(&mut self, log: &Log, end: u64) -> Vec<(TopicPartition, AfterClose)> {
        if end <= self.applied {
            return Vec::new();
        }
        let mut image = self.image.clone();
        let from = self.applied.max(log.start());
        let mut wants_image = from > self.applied;
        for bytes in log.read(from).take((end - from) as usize) {
            let record = MetadataRecord::decode(bytes).expect("this build wrote it");
            let begins = record == MetadataRecord::BeginImage;
            assert!(!std::mem::take(&mut wants_image) || begins, "a log starts with an image");
            image.apply(&record).expect("the log does not contradict itself");
        }
        self.applied = end;
        self.take(image)
    }

    fn take(&mut self, image: ClusterImage) -> Vec<(TopicPartition, AfterClose)> {
        let me = reconcile::Me {
            node: self.registration.node,
            directory: self.registration.directory,
            data_dir: Path::new("/data"),
        };
        let changes = reconcile::diff(&self.image, &image, me);
        self.image = image;
        for (partition, _) in &changes.close {
            assert!(self.open.remove(partition), "{partition} is closed and was not open");
        }
        self.open.extend(changes.open.iter().map(|replica| replica.partition));
        changes.close
    }

    /// Whether it has applied more than it saved.
    pub fn is_unsaved(&self) -> bool {
        self.applied > self.saved.1
    }

    /// Writes its image down, as a file that the next life begins with.
    pub fn save(&mut self) {
        let records = self.image.to_records().iter().map(MetadataRecord::encode).collect();
        self.saved = (records, self.applied);
        self.saved_drops = reconcile::dropped(&self.image, self.registration.node);
    }

    /// What it says to have given up, if anything.
    pub fn gives_up(&self) -> Option<GivenUp> {
        let BrokerRegistration { node, directory, .. } = self.registration;
        let known = self.image.broker(node).map(|broker| &broker.registration);
        let standing = match known == Some(&self.registration) {
            true => Standing::CaughtUp,
            false => Standing::Behind,
        };
        let me = reconcile::Me { node, directory, data_dir: Path::new("/data") };
        let owed = reconcile::owed(&self.image, &self.saved_drops, standing, me);
        let drops: Vec<_> = owed.into_iter().map(|owed| (owed.partition, owed.by)).collect();
        (!drops.is_empty()).then_some(GivenUp { node, directory, drops })
    }

    /// Stops without a word.
    pub fn kill(&mut self, now: Millis) {
        self.down_since = Some(now);
        self.image = ClusterImage::default();
        self.open.clear();
    }

    /// Starts with the image that it saved last; gives what the image says to close: nothing.
    pub fn start(&mut self) {
        self.down_since = None;
        self.registration.incarnation = Incarnation(self.registration.incarnation.0 + 1);
        let mut image = ClusterImage::default();
        for bytes in &self.saved.0 {
            let record = MetadataRecord::decode(bytes).expect("it was written by `save`");
            image.apply(&record).expect("an image fits itself");
        }
        self.applied = self.saved.1;
        let closed = self.take(image);
        assert!(closed.is_empty(), "nothing was open before the start");
    }

    /// Compares what it has open with what its image says at once, without a history.
    pub fn check(&self) {
        let node = self.registration.node;
        let mut hosted = BTreeSet::new();
        for topic in self.image.topics() {
            for number in
                (0u32..).map(highwater_protocol::ids::PartitionId).take(topic.partitions.len())
            {
                if topic.hosts(number).any(|replica| replica.node == node) {
                    hosted.insert(TopicPartition::new(topic.id, number));
                }
            }
        }
        assert_eq!(self.open, hosted, "broker {node} hosts what its image says");
    }
}
