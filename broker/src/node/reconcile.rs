//! What a change of the image means for this broker: which replicas to host, to change, to let go.
//!
//! Pure: two images in, changes out, so that the simulator runs the same code. What must hold: files
//! are given up for deletion only when the topic's tombstone was applied, or a record that ends a
//! move and names this broker; a replica that merely is no longer ours is closed and its files stay.

mod sight;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_protocol::ids::{DirectoryId, NodeId, PartitionId, Term, TopicId, TopicPartition};
use uuid::Uuid;

use crate::controller::config::FlushMode;
use crate::controller::image::{ClusterImage, Topic};
use crate::controller::moves::{self, MoveId};
use crate::controller::record::PlacedReplica;
use crate::controller::throttle;
use crate::log;
use crate::mutant::{self, Mutant};
use crate::replica::{FlushPolicy, Recovery, ReplicaOptions, Retention};
use crate::shard::event::{AfterClose, Identity, Moving, OpenReplica};

pub use sight::{Sight, Standing};

/// Whose view is taken.
#[derive(Debug, Clone, Copy)]
pub struct Me<'a> {
    /// This broker.
    pub node: NodeId,
    /// The identity of its data directory.
    pub directory: DirectoryId,
    /// Where its data lies.
    pub data_dir: &'a Path,
}

/// What is to be done, in the order of the fields.
#[derive(Debug, Default)]
pub struct Changes {
    /// Partitions that are no more.
    pub gone: Vec<TopicPartition>,
    /// Partitions that are new, with their topic's name.
    pub appeared: Vec<(TopicPartition, Arc<str>)>,
    /// Replicas to close, and what becomes of their files.
    pub close: Vec<(TopicPartition, AfterClose)>,
    /// Replicas to open, or to change where they are open.
    pub open: Vec<OpenReplica>,
    /// Those of them that discard what they had, because a recovery began elsewhere.
    pub discard: Vec<TopicPartition>,
}

/// What became different for `me` between two images.
pub fn diff(old: &ClusterImage, new: &ClusterImage, me: Me<'_>) -> Changes {
    let mut changes = Changes::default();
    let (rates_before, rates) = (throttle::learner_rates(old), throttle::learner_rates(new));
    for topic in old.topics() {
        if new.topic(topic.id).is_none() {
            changes.gone.extend(partitions(topic));
            let hosted = partitions(topic).filter(|at| hosts(topic, *at, me).is_some());
            // A tombstone so old that it is forgotten deletes nothing: the files are the operator's.
            let after = match new.is_deleted(topic.id) {
                true => AfterClose::Delete,
                false => AfterClose::Keep,
            };
            changes.close.extend(hosted.map(|partition| (partition, after)));
        }
    }
    for topic in new.topics() {
        match old.topic(topic.id) {
            Some(before) if Arc::ptr_eq(before, topic) || before == topic => {}
            before => compare(before, topic, me, &mut changes),
        }
    }
    for open in &mut changes.open {
        open.options.learner_bytes_per_s = rates.get(&open.partition).copied();
    }
    // The end of one move leaves more for the others.
    let changed = |at: &&TopicPartition| rates.get(at) != rates_before.get(at);
    for partition in rates.keys().chain(rates_before.keys()).filter(changed) {
        let topic = new.topic(partition.topic);
        let mine = topic.and_then(|topic| Some((topic, hosts(topic, *partition, me)?)));
        if let Some((topic, mine)) = mine
            && changes.open.iter().all(|open| open.partition != *partition)
        {
            let mut open = open(topic, *partition, mine, me);
            open.options.learner_bytes_per_s = rates.get(partition).copied();
            changes.open.push(open);
        }
    }
    changes
}

/// Whether files are given up for good. The saved image must be as new as that before it happens: a
/// broker that starts with an older one would open a blank replica and take it for what it had.
pub fn gives_up_files(changes: &Changes) -> bool {
    !mutant::active(Mutant::DeletedBeforeSaved)
        && (changes.close.iter().any(|(_, after)| *after == AfterClose::Delete)
            || !changes.discard.is_empty())
}

/// What was taken from this broker and may be left there, and which move or recovery took it.
pub fn dropped(image: &ClusterImage, node: NodeId) -> BTreeMap<TopicPartition, MoveId> {
    let of = |topic: &Arc<Topic>| -> Vec<(TopicPartition, MoveId)> {
        let id = topic.id;
        topic.dropped_from(node).map(|(at, by)| (TopicPartition::new(id, at), by)).collect()
    };
    image.topics().flat_map(of).collect()
}

/// A replica that a broker is to give up for good, and to say so once nothing is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// Of which partition.
    pub partition: TopicPartition,
    /// Which move or recovery took it.
    pub by: MoveId,
    /// Where it lay.
    pub dir: PathBuf,
}

/// What this broker owes, by its image and what was `saved` as dropped. Only what is saved: a life that begins
/// with an older image would read once more that the replica is taken, when it may have come back, and delete it.
pub fn owed(
    image: &ClusterImage,
    saved: &BTreeMap<TopicPartition, MoveId>,
    standing: Standing,
    me: Me<'_>,
) -> Vec<Owed> {
    match standing {
        Standing::Behind if !mutant::active(Mutant::GivesUpBeforeCaughtUp) => return Vec::new(),
        Standing::Behind | Standing::CaughtUp => {}
    }
    let is_saved = |(partition, by): &(TopicPartition, MoveId)| {
        saved.get(partition) == Some(by) || mutant::active(Mutant::GivesUpUnsaved)
    };
    let owed = |(partition, by): (TopicPartition, MoveId)| {
        let topic = image.topic(partition.topic).expect("the image has it as dropped");
        Owed { partition, by, dir: dir_of(topic, partition, me) }
    };
    let dropped = dropped(image, me.node).into_iter();
    dropped.filter(is_saved).take(OWED_AT_ONCE_MAX).map(owed).collect()
}

/// A move as the leader of its partition needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Led {
    /// Of which partition.
    pub partition: TopicPartition,
    /// Which move.
    pub id: MoveId,
    /// The voters aimed at.
    pub aim: Vec<NodeId>,
    /// The term in which this broker leads the partition.
    pub term: Term,
}

/// The moves under way of partitions that this broker leads; `leads` gives the term in which it does.
/// The controller bounds how many there are.
pub fn moves_led(image: &ClusterImage, leads: impl Fn(TopicPartition) -> Option<Term>) -> Vec<Led> {
    let mut found = Vec::new();
    for topic in image.topics() {
        for (number, change) in topic.moving() {
            let partition = TopicPartition::new(topic.id, number);
            if let Some(aim) = topic.aim(number)
                && let Some(term) = leads(partition)
            {
                found.push(Led { partition, id: change.id, aim: moves::nodes(aim), term });
            }
        }
    }
    found
}

/// Whether a move whose controller said that it is wanted is so still, as far as is known here. The
/// answer may have been under way for long, and this broker may have led the voters back meanwhile.
pub fn may_lead_on(
    image: &ClusterImage,
    leads: impl Fn(TopicPartition) -> Option<Term>,
    led: &Led,
) -> bool {
    mutant::active(Mutant::OldMoveLed) || moves_led(image, leads).contains(led)
}

fn compare(before: Option<&Arc<Topic>>, after: &Topic, me: Me<'_>, changes: &mut Changes) {
    let config_changed = before.is_none_or(|before| before.config != after.config);
    for partition in partitions(after) {
        let number = partition.partition;
        let had = before.and_then(|before| before.partitions.get(number.0 as usize));
        let has = &after.partitions[number.0 as usize];
        let moved = before.is_none_or(|before| {
            let same = had.is_some_and(|had| Arc::ptr_eq(had, has) || had == has);
            let begun_anew = before.recovered(number) != after.recovered(number);
            !same || begun_anew || before.move_of(number) != after.move_of(number)
        });
        // Most partitions of a topic that changed are as they were, and there may be thousands.
        if !moved && !config_changed {
            continue;
        }
        if had.is_none() {
            changes.appeared.push((partition, after.name.clone()));
        }
        let hosted_before = before.and_then(|before| hosts(before, partition, me));
        match (hosted_before, hosts(after, partition, me)) {
            (None, None) => {}
            (Some(_), None) if mutant::active(Mutant::MovedStaysOpen) => {}
            (Some(_), None) => {
                // The record that ended the move names who is to delete.
                let then = match after.is_dropped(number, me.node) {
                    true => AfterClose::Delete,
                    false => AfterClose::Keep,
                };
                changes.close.push((partition, then));
            }
            (None, Some(mine)) => changes.open.push(open(after, partition, mine, me)),
            (Some(_), Some(mine)) => {
                let open = open(after, partition, mine, me);
                let before = before.and_then(|before| before.recovered(number));
                if before != after.recovered(number) && open.identity != Identity::Founds {
                    changes.discard.push(partition);
                }
                changes.open.push(open);
            }
        }
    }
}

fn partitions(topic: &Topic) -> impl Iterator<Item = TopicPartition> + '_ {
    let numbers = (0u32..).map(PartitionId).take(topic.partitions.len());
    numbers.map(|number| TopicPartition::new(topic.id, number))
}

fn hosts(topic: &Topic, partition: TopicPartition, me: Me<'_>) -> Option<PlacedReplica> {
    topic.hosts(partition.partition).find(|replica| replica.node == me.node)
}

fn open(topic: &Topic, partition: TopicPartition, mine: PlacedReplica, me: Me<'_>) -> OpenReplica {
    let number = partition.partition;
    let replicas = moves::nodes(&topic.partitions[number.0 as usize]);
    let comes = !replicas.contains(&me.node);
    let recovered = topic.recovered(number);
    let founds = recovered.is_some_and(|recovered| recovered.founder == mine);
    let identity = match (mine.directory == me.directory, comes) {
        (false, _) => Identity::Lost,
        (true, true) => Identity::Joins,
        // The journal knows whether it has done so already.
        (true, false) if founds => Identity::Founds,
        (true, false) => Identity::Same,
    };
    // While the number of replicas changes, the smaller one must do for `sync`.
    let change = topic.move_of(number);
    let aimed = change.map_or(replicas.len(), |found| found.target.len());
    OpenReplica {
        partition,
        dir: dir_of(topic, partition, me),
        options: options(topic, replicas.len().min(aimed)),
        voters: replicas,
        learners: comes.then_some(me.node).into_iter().collect(),
        moving: match change.is_some_and(|found| found.opens_replicas()) {
            true => Moving::UnderWay,
            false => Moving::No,
        },
        identity,
        recovery: recovered.map(|recovered| Recovery {
            epoch: recovered.epoch,
            founder: recovered.founder.node,
            since: recovered.since,
        }),
    }
}

fn options(topic: &Topic, replication: usize) -> ReplicaOptions {
    let config = &topic.config;
    ReplicaOptions {
        log: log::Options { segment_bytes_max: config.segment_bytes, keep_free_bytes: 0 },
        flush: match config.flush {
            FlushMode::Ack => FlushPolicy::Ack,
            FlushMode::Interval { ms } => FlushPolicy::Interval { ms },
        },
        insync_replicas_min: config.insync_replicas_min(replication),
        lag_ms_max: config.lag_ms_max,
        retention: Retention {
            ms: config.retention_ms,
            bytes: config.retention_bytes,
            segment_ms: config.segment_ms,
        },
        learner_bytes_per_s: None,
    }
}

fn dir_of(topic: &Topic, partition: TopicPartition, me: Me<'_>) -> PathBuf {
    topics_dir(me.data_dir).join(dir_name(&topic.name, partition))
}

/// The directory that holds one directory for each replica.
pub fn topics_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("topics")
}

/// The directory of what was set aside.
pub fn strays_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("stray")
}

/// The name of a replica's directory: the topic and partition for people, the topic's id for us.
pub fn dir_name(topic: &str, partition: TopicPartition) -> String {
    // Names of topics may take 249 bytes, those of directories 255.
    let shown = &topic[..topic.len().min(NAME_BYTES_SHOWN)];
    format!("{shown}-{}.{}", partition.partition, partition.topic.0.simple())
}

/// The partition whose replica a directory of this name holds, if it is one of ours.
pub fn parse_dir_name(name: &str) -> Option<TopicPartition> {
    let (shown, id) = name.rsplit_once('.')?;
    let (_, number) = shown.rsplit_once('-')?;
    let topic = TopicId(Uuid::try_parse(id).ok().filter(|_| id.len() == 32)?);
    Some(TopicPartition::new(topic, PartitionId(number.parse().ok()?)))
}

const NAME_BYTES_SHOWN: usize = 200;
/// What a broker gives up in one go; the rest follows.
const OWED_AT_ONCE_MAX: usize = 500;

#[cfg(test)]
mod tests;
