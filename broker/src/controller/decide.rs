//! Deciding: a command and the image it is decided on in, records and a reply out.
//!
//! Checks come first and whole, records last; whoever asks again after a lost answer gets the same
//! answer and no second set of records.

mod alter;
mod own;
mod settings;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{NodeId, PartitionId, TopicId};
use highwater_protocol::native::admin::{CreateTopicRequest, CreateTopicResponse, DryRun};
use highwater_protocol::topic_name;

use crate::controller::auto::Auto;
use crate::controller::command::{Command, CommandReply};
use crate::controller::config::{Deletion, TopicConfig};
use crate::controller::duty;
use crate::controller::image::{ClusterImage, ReplicaSet, Topic};
use crate::controller::liveness::{Heard, Sessions, Verdict};
use crate::controller::placement::{self, Wanted};
use crate::controller::reassign;
use crate::controller::record::{BrokerRegistration, MetadataRecord, PlacedReplica};
use crate::mutant::{self, Mutant};
use crate::raft::Millis;

/// Who decides while this broker leads the controller's partition; made anew in every term.
#[derive(Debug, Clone)]
pub struct Controller {
    sessions: Sessions,
    auto: Auto,
    /// Who votes on the metadata of a cluster that begins.
    voters: Vec<NodeId>,
}

/// Records to commit, and what to say once they are.
pub type Decision = (Vec<MetadataRecord>, CommandReply);

impl Controller {
    /// The controller of a term that begins now.
    pub fn new(me: NodeId, voters: &[NodeId], session_ms: u64, now: Millis) -> Controller {
        Controller {
            sessions: Sessions::new(me, session_ms, now),
            auto: Auto::new(me, now),
            voters: voters.to_vec(),
        }
    }

    /// What a command comes to; without records nothing changes and the reply can go at once.
    pub fn decide(
        &mut self,
        image: &ClusterImage,
        command: Command,
        now: Millis,
    ) -> Result<Decision, WireError> {
        match command {
            Command::Register(registration) => self.register(image, registration, now),
            Command::CreateTopic { id, request } => create_topic(image, id, &request),
            Command::CreateGroupsTopic { id } => own::create_groups_topic(image, id),
            Command::DeleteTopic { name, id } => delete_topic(image, &name, id),
            Command::AlterTopic { id, request } => alter::settings(image, id, &request),
            Command::CreatePartitions { id, request } => alter::partitions(image, id, &request),
            Command::Moves(command) => reassign::decide(image, &command),
            Command::AlterSettings(request) => settings::alter(image, &request),
            Command::Loads(report) => {
                self.auto.hear(image, &report, now);
                Ok((Vec::new(), CommandReply::LoadsHeard))
            }
            Command::Brokers(command) => {
                // Those of the configuration count until the first leader has said who votes.
                let known = image.voters();
                let voters = if known.is_empty() { &self.voters } else { known };
                duty::decide(image, voters, &command)
            }
        }
    }

    /// Whom to fence and whom to take back, from how long ago each broker was heard; and which of
    /// the moves that wait begin. With none of that, what the controller moves by itself: never on
    /// top of news of this very look.
    pub fn judge(
        &mut self,
        image: &ClusterImage,
        heard: &[Heard],
        now: Millis,
    ) -> Vec<MetadataRecord> {
        let verdicts = self.sessions.judge(now, image, heard);
        let record = |Verdict { node, fenced }| MetadataRecord::FenceBroker { node, fenced };
        let news = verdicts.into_iter().map(record).chain(reassign::start_waiting(image));
        let news: Vec<MetadataRecord> = news.collect();
        let own = self.auto.look(image, now);
        if news.is_empty() { own } else { news }
    }

    fn register(
        &mut self,
        image: &ClusterImage,
        new: BrokerRegistration,
        now: Millis,
    ) -> Result<Decision, WireError> {
        if image.was_removed_with(new.node, new.directory)
            && !mutant::active(Mutant::RemovedReturns)
        {
            return Err(removed(&new));
        }
        if let Some(broker) = image.broker(new.node) {
            let known = &broker.registration;
            if known.directory != new.directory {
                if self.sessions.may_live(image, new.node, now) {
                    return Err(taken(known, &new));
                }
            } else if new.incarnation < known.incarnation {
                return Err(outlived(known, &new));
            }
        }
        self.sessions.renew(new.node, now);
        let known = image.broker(new.node).is_some_and(|broker| broker.registration == new);
        // A fenced broker that only repeats itself is taken back by its heartbeats, not by this.
        let records = if known { Vec::new() } else { vec![MetadataRecord::RegisterBroker(new)] };
        Ok((records, CommandReply::Registered))
    }
}

fn taken(known: &BrokerRegistration, new: &BrokerRegistration) -> WireError {
    let why = format!(
        "node id {} belongs to the broker at {} with data directory {}, which is alive; the one at {} has data \
         directory {}. Give one of them another node id; if its disk was replaced, stop the old one and wait \
         until it is fenced",
        known.node, known.peer_address, known.directory, new.peer_address, new.directory
    );
    WireError::new(ErrorCode::InvalidRequest, why)
}

fn outlived(known: &BrokerRegistration, new: &BrokerRegistration) -> WireError {
    let why = format!(
        "broker {} registers in life {}, but data directory {} has been in life {} already: it was copied or \
         restored from a backup. Stop the other copy; if there is none, make the directory anew and let it be \
         filled from the other replicas",
        new.node, new.incarnation, new.directory, known.incarnation
    );
    WireError::new(ErrorCode::InvalidRequest, why)
}

fn removed(new: &BrokerRegistration) -> WireError {
    let why = format!(
        "broker {} with data directory {} was taken out of the cluster (`hw cluster remove`), or has come back with \
         another directory since. To have the machine back, put the old data away, make the directory anew with \
         `highwater format`, and start it again",
        new.node, new.directory
    );
    WireError::new(ErrorCode::BrokerRemoved, why)
}

fn create_topic(
    image: &ClusterImage,
    id: TopicId,
    request: &CreateTopicRequest,
) -> Result<Decision, WireError> {
    let name = &request.name;
    if let Err(why) = topic_name::check(name) {
        return Err(WireError::new(ErrorCode::InvalidTopic, why));
    }
    if let Some(topic) = image.topic_named(name) {
        if topic.id == id {
            return Ok((Vec::new(), created(topic)));
        }
        let why =
            format!("topic {name} exists already, with {} partitions", topic.partitions.len());
        return Err(WireError::new(ErrorCode::TopicExists, why));
    }
    place_topic(image, id, request)
}

/// A topic of a name that is free and may be given.
fn place_topic(
    image: &ClusterImage,
    id: TopicId,
    request: &CreateTopicRequest,
) -> Result<Decision, WireError> {
    let name = &request.name;
    check_partitions(image, request)?;
    let candidates = placement::candidates(image);
    let replication = check_replication(image, request, candidates.len())?;
    let configs = new_configs(image, request);
    let config = TopicConfig::parse_over(&image.settings().for_topics(), &configs)?;
    check_insync(&config, replication)?;

    let first = PartitionId(0);
    let wanted = Wanted { topic: id, first, partitions: request.partitions as usize, replication };
    let replicas = placement::assign(wanted, &candidates);
    let records = match request.dry_run {
        DryRun::Yes => Vec::new(),
        DryRun::No => vec![
            MetadataRecord::CreateTopic { id, name: name.clone(), configs },
            MetadataRecord::CreatePartitions {
                topic: id,
                first,
                partitions: placed(image, &replicas),
            },
        ],
    };
    Ok((records, CommandReply::TopicCreated(CreateTopicResponse { id, replicas })))
}

fn created(topic: &Topic) -> CommandReply {
    let nodes = |set: &ReplicaSet| set.iter().map(|replica| replica.node).collect();
    let replicas = topic.partitions.iter().map(nodes).collect();
    CommandReply::TopicCreated(CreateTopicResponse { id: topic.id, replicas })
}

fn placed(image: &ClusterImage, sets: &[Vec<NodeId>]) -> Vec<Vec<PlacedReplica>> {
    let place = |node: &NodeId| {
        let directory = image.directory_of(*node).expect("only registered brokers are candidates");
        PlacedReplica { node: *node, directory }
    };
    sets.iter().map(|set| set.iter().map(place).collect()).collect()
}

fn check_partitions(image: &ClusterImage, request: &CreateTopicRequest) -> Result<(), WireError> {
    let (name, wanted) = (&request.name, request.partitions);
    if !(1..=TOPIC_PARTITIONS_MAX).contains(&wanted) {
        let why = format!(
            "topic {name} cannot have {wanted} partitions; 1 to {TOPIC_PARTITIONS_MAX} are allowed"
        );
        return Err(WireError::new(ErrorCode::InvalidPartitions, why));
    }
    let have = image.partitions();
    if have + wanted as usize > CLUSTER_PARTITIONS_MAX {
        let why = format!(
            "topic {name} cannot have {wanted} partitions: the cluster has {have} and takes no more than \
             {CLUSTER_PARTITIONS_MAX}; ask for fewer or delete topics that are not needed"
        );
        return Err(WireError::new(ErrorCode::InvalidPartitions, why));
    }
    Ok(())
}

/// The settings of a new topic: those asked for, and what the cluster settles for new ones.
fn new_configs(image: &ClusterImage, request: &CreateTopicRequest) -> Vec<(String, String)> {
    let mut configs = request.configs.clone();
    let asked = |name: &str| request.configs.iter().any(|(known, _)| known == name);
    let settled = image.settings().for_new_topics();
    configs.extend(settled.into_iter().filter(|(name, _)| !asked(name)));
    configs
}

fn check_replication(
    image: &ClusterImage,
    request: &CreateTopicRequest,
    brokers: usize,
) -> Result<usize, WireError> {
    let name = &request.name;
    if brokers == 0 {
        let why = format!(
            "topic {name} cannot be placed: no broker is alive and takes new replicas; start one or \
             `hw cluster undrain` one"
        );
        return Err(WireError::new(ErrorCode::BrokerNotAvailable, why));
    }
    let by_default = || image.settings().replication().unwrap_or(REPLICATION_DEFAULT.min(brokers));
    let wanted = request.replication.map_or_else(by_default, usize::from);
    if (1..=brokers.min(REPLICATION_MAX)).contains(&wanted) {
        return Ok(wanted);
    }
    let why = format!(
        "topic {name} cannot have {wanted} replicas of each partition: {} alive, and {REPLICATION_MAX} are the \
         most; ask for 1 to {}",
        if brokers == 1 { "1 broker is".to_string() } else { format!("{brokers} brokers are") },
        brokers.min(REPLICATION_MAX)
    );
    Err(WireError::new(ErrorCode::InvalidReplicationFactor, why))
}

fn check_insync(config: &TopicConfig, replication: usize) -> Result<(), WireError> {
    let wanted = config.insync_replicas_min(replication);
    if usize::from(wanted) <= replication {
        return Ok(());
    }
    let why = format!(
        "`min.insync.replicas` is {wanted}, but the topic has {replication} replicas of each partition; no `sync` \
         produce could ever succeed"
    );
    Err(WireError::new(ErrorCode::InvalidConfig, why))
}

fn delete_topic(
    image: &ClusterImage,
    name: &str,
    id: Option<TopicId>,
) -> Result<Decision, WireError> {
    if let Some(id) = id.filter(|id| image.is_deleted(*id)) {
        return Ok((Vec::new(), CommandReply::TopicDeleted { id }));
    }
    let topic = existing(image, name, id)?;
    if topic.config.deletion == Deletion::Refused {
        let why = format!(
            "topic {name} is protected by `delete.protection`; `hw topic alter {name} \
             delete.protection=off` lets it be deleted"
        );
        return Err(WireError::new(ErrorCode::TopicProtected, why));
    }
    let id = topic.id;
    Ok((vec![MetadataRecord::DeleteTopic { id }], CommandReply::TopicDeleted { id }))
}

/// The topic of this name, unless it is another than the one that was meant.
/// A topic that people may change.
fn existing<'a>(
    image: &'a ClusterImage,
    name: &str,
    id: Option<TopicId>,
) -> Result<&'a Topic, WireError> {
    own::refuse(name)?;
    let topic = image.topic_named(name).filter(|topic| id.is_none_or(|id| topic.id == id));
    topic.map(|topic| &**topic).ok_or_else(|| {
        let why = format!("topic {name} does not exist; `hw topic list` shows those that do");
        WireError::new(ErrorCode::UnknownTopicOrPartition, why)
    })
}

/// Replicas of each partition where none are asked for and there are as many brokers.
const REPLICATION_DEFAULT: usize = 3;
/// More replicas than this cost more than they save.
pub(super) const REPLICATION_MAX: usize = 7;
const TOPIC_PARTITIONS_MAX: u32 = 10_000;
/// Every broker holds the image of all partitions, and news of all leaders flow every second.
const CLUSTER_PARTITIONS_MAX: usize = 100_000;

#[cfg(test)]
mod tests;
