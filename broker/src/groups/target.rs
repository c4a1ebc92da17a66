//! Making a group's target anew: when members or their topics have changed.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{PartitionId, TopicId};
use highwater_protocol::native::groups::{Assignor, GroupId, MemberEpoch, MemberId};

use super::assignment::{self, Candidate, Subject};
use super::coordinator::{Coordinator, Moment};
use super::image::{Group, Member};
use super::membership::Cause;
use super::record::{GroupChange, Target};
use crate::controller::ClusterImage;
use crate::controller::image::Topic;
use crate::mutant::{self, Mutant};

impl Coordinator {
    /// Gives out anew what the members read, if there is cause to.
    pub(super) fn retarget(&mut self, at: Moment<'_>, id: &GroupId, cause: Cause) {
        let Some(group) = self.ledger.group(id).filter(|group| !group.members.is_empty()) else {
            return;
        };
        let topics = topics(group, at.cluster);
        let known = topics == group.topics || mutant::active(Mutant::GrowthUnseen);
        if cause == Cause::Topics && known {
            return;
        }
        let target = target(group, topics, at.cluster);
        self.ledger.put(id, GroupChange::Target(target));
    }

    /// Takes up topics that came, went, or got partitions.
    pub(super) fn follow_topics(&mut self, at: Moment<'_>, id: &GroupId) {
        self.retarget(at, id, Cause::Topics);
    }
}

/// The topics that somebody reads, as far as they exist.
fn topics(group: &Group, cluster: &ClusterImage) -> BTreeMap<String, (TopicId, u32)> {
    let names: BTreeSet<&String> =
        group.members.values().flat_map(|member| &member.profile.topics).collect();
    let known = names.into_iter().filter_map(|name| {
        let topic = cluster.topic_named(name)?;
        Some((name.clone(), (topic.id, topic.partitions.len() as u32)))
    });
    known.collect()
}

fn target(
    group: &Group,
    topics: BTreeMap<String, (TopicId, u32)>,
    cluster: &ClusterImage,
) -> Target {
    let candidate = |(id, member): (&MemberId, &Member)| {
        let names = member.profile.topics.iter();
        let topics = names.filter_map(|name| topics.get(name)).map(|(topic, _)| *topic).collect();
        // Borrowed from the group, as it is until the target is put.
        (*id, topics)
    };
    let read: Vec<(MemberId, BTreeSet<TopicId>)> = group.members.iter().map(candidate).collect();
    let candidates: Vec<Candidate<'_>> = read
        .into_iter()
        .map(|(id, topics)| {
            let Member { profile, target, .. } = &group.members[&id];
            Candidate {
                member: id,
                order: (profile.instance.as_deref(), id),
                rack: profile.rack.as_deref(),
                topics,
                before: target,
            }
        })
        .collect();
    let subjects: Vec<Subject> = topics
        .values()
        .filter_map(|(id, _)| cluster.topic(*id))
        .map(|topic| Subject { id: topic.id, racks: racks(topic, cluster) })
        .collect();
    let assignor = wanted(group);
    let given = assignment::assign(assignor, &candidates, &subjects);
    Target {
        epoch: MemberEpoch(group.epoch.0 + 1),
        assignor,
        topics: topics.into_iter().map(|(name, (id, count))| (name, id, count)).collect(),
        members: given.into_iter().collect(),
    }
}

/// What most members want; of two that as many want, the first.
fn wanted(group: &Group) -> Assignor {
    let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
    for member in group.members.values() {
        *votes.entry(member.profile.assignor).or_default() += 1;
    }
    let most =
        votes.iter().max_by_key(|(assignor, votes)| (**votes, std::cmp::Reverse(**assignor)));
    most.map_or(Assignor::default(), |(assignor, _)| *assignor)
}

fn racks(topic: &Topic, cluster: &ClusterImage) -> Vec<BTreeSet<String>> {
    let rack = |node| cluster.broker(node)?.registration.rack.clone();
    let of = |number: usize| {
        let set = &topic.partitions[number];
        set.iter().filter_map(|replica| rack(replica.node)).collect()
    };
    let count = PartitionId(topic.partitions.len() as u32);
    (0..count.0 as usize).map(of).collect()
}
