//! Deciding on changes of topics that exist.
//!
//! Partitions are named by how many there are to be in all; none ever goes away. A change of settings is one record with all settings that the topic has then, so whoever asks
//! again after a lost answer finds nothing left to change.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{PartitionId, TopicId};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::alter::{
    AlterTopicRequest, AlterTopicResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    SettingChange,
};

use super::{
    CLUSTER_PARTITIONS_MAX, Decision, TOPIC_PARTITIONS_MAX, check_insync, existing, placed,
};
use crate::controller::command::CommandReply;
use crate::controller::config::{self, TopicConfig};
use crate::controller::image::{ClusterImage, Topic};
use crate::controller::placement::{self, Wanted};
use crate::controller::record::MetadataRecord;

/// Sets and unsets settings, all or none.
pub(super) fn settings(
    image: &ClusterImage,
    id: Option<TopicId>,
    request: &AlterTopicRequest,
) -> Result<Decision, WireError> {
    let topic = existing(image, &request.name, id)?;
    let wishes = Wishes { set: &request.set, unset: &request.unset };
    let mut wrong = wishes.at_odds(config::check_name);
    let configs = merged(&topic.configs, wishes);
    match TopicConfig::parse_over(&image.settings().for_topics(), &configs) {
        Ok(config) => wrong.extend(unfit(topic, &config)),
        Err(error) => wrong.push(error.detail),
    }
    if !wrong.is_empty() {
        return Err(WireError::new(ErrorCode::InvalidConfig, wrong.join("; ")));
    }
    let changes = differences(&topic.configs, &configs);
    let records = match request.dry_run {
        DryRun::No if !changes.is_empty() => {
            vec![MetadataRecord::AlterTopic { id: topic.id, configs }]
        }
        DryRun::No | DryRun::Yes => Vec::new(),
    };
    let altered = AlterTopicResponse { id: topic.id, changes };
    Ok((records, CommandReply::TopicAltered(altered)))
}

/// Settings to set and to unset, of whatever it may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wishes<'a> {
    pub set: &'a [(String, String)],
    pub unset: &'a [String],
}

impl Wishes<'_> {
    /// What is wrong with them whatever was before.
    pub fn at_odds(self, known: impl Fn(&str) -> Result<(), String>) -> Vec<String> {
        let mut wrong = Vec::new();
        let Wishes { set, unset } = self;
        if set.is_empty() && unset.is_empty() {
            wrong.push("nothing is to be set or unset".to_string());
        }
        for (number, (name, _)) in set.iter().enumerate() {
            if set[..number].iter().any(|(earlier, _)| earlier == name) {
                wrong.push(format!("`{name}` is set twice"));
            }
            if unset.contains(name) {
                wrong.push(format!("`{name}` is both set and unset"));
            }
        }
        wrong.extend(unset.iter().filter_map(|name| known(name).err()));
        wrong
    }
}

/// What a topic cannot bear of settings that are fine by themselves.
fn unfit(topic: &Topic, config: &TopicConfig) -> Vec<String> {
    let replication = topic.partitions.iter().map(|set| set.len()).min().unwrap_or(1);
    check_insync(config, replication).err().map(|error| error.detail).into_iter().collect()
}

/// The settings that there are afterwards, in the order in which they were given.
pub(super) fn merged(before: &[(String, String)], wishes: Wishes<'_>) -> Vec<(String, String)> {
    let mut configs = before.to_vec();
    for (name, value) in wishes.set {
        match configs.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.clone_from(value),
            None => configs.push((name.clone(), value.clone())),
        }
    }
    configs.retain(|(name, _)| !wishes.unset.contains(name));
    configs
}

/// What became different, sorted by name.
pub(super) fn differences(
    before: &[(String, String)],
    after: &[(String, String)],
) -> Vec<SettingChange> {
    let value = |configs: &[(String, String)], name: &str| {
        configs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    let mut names: Vec<&String> = before.iter().chain(after).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let change = |name: &String| {
        let (before, after) = (value(before, name), value(after, name));
        (before != after).then(|| SettingChange { name: name.clone(), before, after })
    };
    names.into_iter().filter_map(change).collect()
}

/// Adds partitions until the topic has as many as are wanted.
pub(super) fn partitions(
    image: &ClusterImage,
    id: Option<TopicId>,
    request: &CreatePartitionsRequest,
) -> Result<Decision, WireError> {
    let topic = existing(image, &request.name, id)?;
    let first = PartitionId(topic.partitions.len() as u32);
    let more = check_count(image, topic, request.partitions)?;
    let answer = |replicas| {
        let created = CreatePartitionsResponse { id: topic.id, first, replicas };
        CommandReply::PartitionsCreated(created)
    };
    if more == 0 {
        return Ok((Vec::new(), answer(Vec::new())));
    }
    let candidates = placement::candidates(image);
    let replication = topic.partitions.iter().map(|set| set.len()).max().unwrap_or(1);
    if candidates.len() < replication {
        let why = format!(
            "topic {} has {replication} replicas of each partition, but only {} brokers are alive; \
             start the others and try again",
            topic.name,
            candidates.len()
        );
        return Err(WireError::new(ErrorCode::InvalidReplicationFactor, why));
    }
    let wanted = Wanted { topic: topic.id, first, partitions: more, replication };
    let replicas = placement::assign(wanted, &candidates);
    let partitions = placed(image, &replicas);
    let records = match request.dry_run {
        DryRun::Yes => Vec::new(),
        DryRun::No => {
            vec![MetadataRecord::CreatePartitions { topic: topic.id, first, partitions }]
        }
    };
    Ok((records, answer(replicas)))
}

/// How many partitions the topic lacks of those wanted.
fn check_count(image: &ClusterImage, topic: &Topic, wanted: u32) -> Result<usize, WireError> {
    let (name, have, total) = (&topic.name, topic.partitions.len(), image.partitions());
    let why = if (wanted as usize) < have {
        format!(
            "topic {name} has {have} partitions, and none of them can be removed; make a topic with \
             {wanted} and move the records there"
        )
    } else if wanted > TOPIC_PARTITIONS_MAX {
        format!("topic {name} cannot have {wanted} partitions; {TOPIC_PARTITIONS_MAX} are the most")
    } else if total - have + wanted as usize > CLUSTER_PARTITIONS_MAX {
        format!(
            "topic {name} cannot have {wanted} partitions: the cluster has {total} and takes no more \
             than {CLUSTER_PARTITIONS_MAX}"
        )
    } else {
        return Ok(wanted as usize - have);
    };
    Err(WireError::new(ErrorCode::InvalidPartitions, why))
}

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{DirectoryId, Incarnation, NodeId};
    use uuid::Uuid;

    use super::*;
    use crate::controller::record::{BrokerRegistration, PlacedReplica};

    const ID: TopicId = TopicId(Uuid::from_u128(7));

    /// A topic with three replicas and these settings.
    fn image(configs: &[(&str, &str)]) -> ClusterImage {
        let mut image = ClusterImage::default();
        let (name, configs) = ("orders".to_string(), owned(configs));
        image.apply(&MetadataRecord::CreateTopic { id: ID, name, configs }).expect("fits");
        let directory = DirectoryId(Uuid::nil());
        let place = |node| PlacedReplica { node: NodeId(node), directory };
        let partitions = vec![vec![place(1), place(2), place(3)]];
        let first = PartitionId(0);
        let create = MetadataRecord::CreatePartitions { topic: ID, first, partitions };
        image.apply(&create).expect("fits");
        image
    }

    fn owned(configs: &[(&str, &str)]) -> Vec<(String, String)> {
        configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    fn request(set: &[(&str, &str)], unset: &[&str]) -> AlterTopicRequest {
        let unset = unset.iter().map(|name| name.to_string()).collect();
        AlterTopicRequest { name: "orders".into(), set: owned(set), unset, dry_run: DryRun::No }
    }

    fn refused(request: &AlterTopicRequest) -> String {
        settings(&image(&[]), None, request).expect_err("it breaks a rule").detail
    }

    #[test]
    fn settings_change_and_the_answer_shows_the_difference() {
        let mut image = image(&[("segment.ms", "5000"), ("retention.ms", "-1")]);
        let wish = request(&[("retention.ms", "9000"), ("flush", "ack")], &["segment.ms"]);
        let (records, reply) = settings(&image, Some(ID), &wish).expect("all is well");
        let CommandReply::TopicAltered(altered) = reply else { panic!("not the reply: {reply:?}") };
        let shown = |change: &SettingChange| {
            let SettingChange { name, before, after } = change.clone();
            (name, before.unwrap_or_default(), after.unwrap_or_default())
        };
        let shown: Vec<_> = altered.changes.iter().map(shown).collect();
        let expected = [("flush", "", "ack"), ("retention.ms", "-1", "9000")]
            .into_iter()
            .chain([("segment.ms", "5000", "")])
            .map(|(name, before, after)| (name.to_string(), before.to_string(), after.to_string()));
        assert_eq!(shown, expected.collect::<Vec<_>>());
        for record in &records {
            image.apply(record).expect("a decision fits the image it was made on");
        }
        let topic = image.topic(ID).expect("made above");
        assert_eq!(topic.config.retention_ms, Some(9000));
        assert_eq!(topic.config.segment_ms, TopicConfig::default().segment_ms);
        let (again, _) = settings(&image, Some(ID), &wish).expect("a repetition");
        assert_eq!(again, [], "nothing is left to change");
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        let dry =
            AlterTopicRequest { dry_run: DryRun::Yes, ..request(&[("retention.ms", "9000")], &[]) };
        let (records, _) = settings(&image(&[]), None, &dry).expect("all is well");
        assert_eq!(records, []);
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let why = refused(&request(
            &[("segment.byts", "1"), ("retention.ms", "-2"), ("flush", "ack")],
            &["retention.byte", "flush"],
        ));
        for part in [
            "did you mean `segment.bytes`?",
            "`retention.ms` cannot be `-2`",
            "did you mean `retention.bytes`?",
            "`flush` is both set and unset",
        ] {
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn what_the_topic_cannot_bear_is_refused() {
        let why = refused(&request(&[("min.insync.replicas", "4")], &[]));
        assert!(why.contains("3 replicas"), "{why}");
        let why = refused(&request(&[], &[]));
        assert!(why.contains("nothing"), "{why}");
        for (before, after) in [("50", "90"), ("50", "ack"), ("ack", "50")] {
            let wish = request(&[("flush", after)], &[]);
            settings(&image(&[("flush", before)]), None, &wish).expect("replicas see to it");
        }
    }

    #[test]
    fn a_topic_made_anew_under_the_same_name_is_left_alone() {
        let other = Some(TopicId(Uuid::from_u128(8)));
        let wish = request(&[("retention.ms", "9000")], &[]);
        let error = settings(&image(&[]), other, &wish).expect_err("another topic");
        assert_eq!(error.code, ErrorCode::UnknownTopicOrPartition);
    }

    fn wish(partitions: u32, dry_run: DryRun) -> CreatePartitionsRequest {
        CreatePartitionsRequest { name: "orders".into(), partitions, dry_run }
    }

    fn with_brokers(count: u32) -> ClusterImage {
        let mut image = image(&[]);
        for node in 1..=count {
            let registration = BrokerRegistration {
                node: NodeId(node),
                incarnation: Incarnation(1),
                directory: DirectoryId(Uuid::nil()),
                rack: None,
                client_address: format!("b{node}:1"),
                peer_address: format!("b{node}:1"),
            };
            image.apply(&MetadataRecord::RegisterBroker(registration)).expect("fits");
        }
        image
    }

    #[test]
    fn partitions_are_added_and_those_that_exist_stay_where_they_are() {
        let mut image = with_brokers(4);
        let before = image.topic(ID).expect("made above").partitions.clone();
        let (none, _) = partitions(&image, None, &wish(4, DryRun::Yes)).expect("all is well");
        assert_eq!(none, [], "a dry run");
        let (records, reply) = partitions(&image, Some(ID), &wish(4, DryRun::No)).expect("fine");
        let CommandReply::PartitionsCreated(created) = reply else { panic!("not it: {reply:?}") };
        assert_eq!((created.first, created.replicas.len()), (PartitionId(1), 3));
        for record in &records {
            image.apply(record).expect("a decision fits the image it was made on");
        }
        let after = &image.topic(ID).expect("made above").partitions;
        assert_eq!((after.len(), &after[..1]), (4, &before[..]));
        assert!(after.iter().all(|replicas| replicas.len() == 3));
        let (again, _) = partitions(&image, None, &wish(4, DryRun::No)).expect("a repetition");
        assert_eq!(again, []);
    }

    #[test]
    fn partitions_that_cannot_be_are_refused_with_the_reason() {
        let mut image = with_brokers(3);
        for record in partitions(&image, None, &wish(4, DryRun::No)).expect("fine").0 {
            image.apply(&record).expect("a decision fits the image it was made on");
        }
        let refused = |image: &ClusterImage, count| {
            let error = partitions(image, None, &wish(count, DryRun::No)).expect_err("a rule");
            error.detail
        };
        assert!(refused(&image, 3).contains("none of them can be removed"));
        assert!(refused(&image, 10_001).contains("10000 are the most"));
        assert!(refused(&with_brokers(2), 4).contains("only 2 brokers are alive"));
    }
}
