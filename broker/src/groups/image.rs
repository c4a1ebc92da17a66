//! The groups that one coordinator keeps, as the records in its log have made them.
//!
//! What must hold: applying is a function of the records and nothing else, so that whoever leads the
//! partition next knows the same groups; and a partition never has two owners in one group.

use std::collections::BTreeMap;

use highwater_protocol::ids::{Timestamp, TopicId, TopicPartition};
use highwater_protocol::native::groups::{
    Assignor, Beat, GroupId, GroupState, MemberEpoch, MemberId, MemberProfile,
};

use super::record::{Committed, Current, GroupChange, GroupRecord, Partitions, Target};
use crate::mutant::{self, Mutant};

/// All groups of one coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    groups: BTreeMap<GroupId, Group>,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// The number of the newest target assignment.
    pub epoch: MemberEpoch,
    /// How that was made.
    pub assignor: Assignor,
    /// The topics that it was made for, with their ids and numbers of partitions.
    pub topics: BTreeMap<String, (TopicId, u32)>,
    /// The members.
    pub members: BTreeMap<MemberId, Member>,
    /// How far it has come.
    pub offsets: BTreeMap<TopicPartition, Committed>,
    /// Since when it has no members.
    pub empty_since: Option<Timestamp>,
    owners: BTreeMap<TopicPartition, MemberId>,
    /// What the notes beside its offsets take together.
    note_bytes: usize,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub profile: MemberProfile,
    /// With which of its requests it joined.
    pub joined: Beat,
    /// What it has.
    pub current: Current,
    /// What it is to have in the end.
    pub target: Partitions,
}

/// A record that contradicts those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("group {group}: {why}")]
pub struct Contradiction {
    group: GroupId,
    why: String,
}

impl Groups {
    /// A group that has members or offsets.
    pub fn get(&self, group: &GroupId) -> Option<&Group> {
        self.groups.get(group)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupId, &Group)> {
        self.groups.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Takes a record in.
    ///
    /// # Errors
    /// A record that does not fit what is known; nothing is changed then.
    pub fn apply(&mut self, record: &GroupRecord) -> Result<(), Contradiction> {
        let GroupRecord { group: id, change } = record;
        if *change == GroupChange::Gone {
            self.groups.remove(id);
            return Ok(());
        }
        let group = self.groups.entry(id.clone()).or_default();
        group.apply(change).map_err(|why| Contradiction { group: id.clone(), why })
    }

    /// Records that make all of it anew.
    pub fn to_records(&self) -> impl Iterator<Item = GroupRecord> {
        self.groups.iter().flat_map(|(id, group)| {
            let record = |change| GroupRecord { group: id.clone(), change };
            group.to_changes().into_iter().map(record).collect::<Vec<_>>()
        })
    }

    /// How many records that takes.
    pub fn records(&self) -> u64 {
        self.groups.values().map(Group::records).sum()
    }
}

impl Group {
    pub(super) fn apply(&mut self, change: &GroupChange) -> Result<(), String> {
        match change {
            GroupChange::Member { member, joined, replaces, profile } => {
                self.put_member(*member, *joined, *replaces, profile);
            }
            GroupChange::MemberGone(member) => self.remove_member(*member)?,
            GroupChange::Target(target) => self.aim(target)?,
            GroupChange::Current { member, current } => self.give(*member, current)?,
            GroupChange::Emptied(since) => self.empty_since = Some(*since),
            GroupChange::Offset { partition, committed } => {
                let before = self.offsets.insert(*partition, committed.clone());
                self.note_bytes -= before.map_or(0, |before| before.note.len());
                self.note_bytes += committed.note.len();
            }
            GroupChange::OffsetGone(partition) => {
                let before = self.offsets.remove(partition);
                self.note_bytes -= before.map_or(0, |before| before.note.len());
            }
            GroupChange::Gone => unreachable!("the group is taken out as a whole"),
        }
        Ok(())
    }

    fn put_member(
        &mut self,
        member: MemberId,
        joined: Beat,
        replaces: Option<MemberId>,
        profile: &MemberProfile,
    ) {
        self.empty_since = None;
        let former = replaces.and_then(|old| self.take_out(old));
        let fresh = || Member {
            profile: profile.clone(),
            joined,
            current: Current::default(),
            target: former.map_or(Partitions::new(), |former| former.target),
        };
        let entry = self.members.entry(member).or_insert_with(fresh);
        entry.profile = profile.clone();
        entry.joined = joined;
    }

    fn remove_member(&mut self, member: MemberId) -> Result<(), String> {
        self.take_out(member).map(|_| ()).ok_or_else(|| format!("member {member} is not in it"))
    }

    fn take_out(&mut self, member: MemberId) -> Option<Member> {
        let gone = self.members.remove(&member)?;
        self.disown(&gone.current);
        Some(gone)
    }

    fn aim(&mut self, target: &Target) -> Result<(), String> {
        if let Some((stranger, _)) =
            target.members.iter().find(|(member, _)| !self.members.contains_key(member))
        {
            return Err(format!("a target for member {stranger}, who is not in it"));
        }
        let topics = target.topics.iter();
        self.topics = topics.map(|(name, id, count)| (name.clone(), (*id, *count))).collect();
        self.epoch = target.epoch;
        self.assignor = target.assignor;
        self.members.values_mut().for_each(|member| member.target.clear());
        for (member, partitions) in &target.members {
            let member = self.members.get_mut(member).expect("just looked for");
            member.target = partitions.clone();
        }
        Ok(())
    }

    fn give(&mut self, member: MemberId, current: &Current) -> Result<(), String> {
        let Some(known) = self.members.get(&member) else {
            return Err(format!("what member {member} has, who is not in it"));
        };
        let taken = current.owned().find(|at| self.owners.get(at).is_some_and(|it| *it != member));
        if let Some(partition) = taken {
            return Err(format!("member {member} gets {partition}, which another one owns"));
        }
        let before = known.current.clone();
        self.disown(&before);
        self.owners.extend(current.owned().map(|partition| (partition, member)));
        self.members.get_mut(&member).expect("just looked for").current = current.clone();
        Ok(())
    }

    fn disown(&mut self, current: &Current) {
        for partition in current.owned() {
            self.owners.remove(&partition);
        }
    }

    /// Who owns a partition, or has not said yet that it gave it up.
    pub fn owner(&self, partition: TopicPartition) -> Option<MemberId> {
        self.owners.get(&partition).copied()
    }

    /// What the notes beside its offsets take together.
    pub fn note_bytes(&self) -> usize {
        self.note_bytes
    }

    /// How it is as a whole.
    pub fn state(&self) -> GroupState {
        match self.members.is_empty() {
            true => GroupState::Empty,
            false if self.members.values().all(|member| member.has_arrived(self.epoch)) => {
                GroupState::Stable
            }
            false => GroupState::Reconciling,
        }
    }

    fn to_changes(&self) -> Vec<GroupChange> {
        let member = |(id, member): (&MemberId, &Member)| GroupChange::Member {
            member: *id,
            joined: member.joined,
            replaces: None,
            profile: member.profile.clone(),
        };
        let current = |(id, member): (&MemberId, &Member)| {
            let mut current = member.current.clone();
            if mutant::active(Mutant::AnewForgetsRevoking) {
                current.revoking.clear();
            }
            GroupChange::Current { member: *id, current }
        };
        let offset = |(partition, committed): (&TopicPartition, &Committed)| GroupChange::Offset {
            partition: *partition,
            committed: committed.clone(),
        };
        let topics = self.topics.iter();
        let members = self.members.iter();
        let target = Target {
            epoch: self.epoch,
            assignor: self.assignor,
            topics: topics.map(|(name, (id, count))| (name.clone(), *id, *count)).collect(),
            members: members.map(|(id, member)| (*id, member.target.clone())).collect(),
        };
        let mut changes: Vec<GroupChange> = self.members.iter().map(member).collect();
        changes.push(GroupChange::Target(target));
        changes.extend(self.members.iter().map(current));
        changes.extend(self.offsets.iter().map(offset));
        changes.extend(self.empty_since.map(GroupChange::Emptied));
        changes
    }

    fn records(&self) -> u64 {
        let empty = usize::from(self.empty_since.is_some());
        (2 * self.members.len() + 1 + self.offsets.len() + empty) as u64
    }
}

impl Member {
    /// Whether it has all that the target of this epoch gives it, and nothing else.
    pub fn has_arrived(&self, epoch: MemberEpoch) -> bool {
        let Current { epoch: reached, assigned, revoking, .. } = &self.current;
        *reached == epoch && revoking.is_empty() && *assigned == self.target
    }

    /// Whether it has left and only its place is kept, under its instance's name.
    pub fn is_away(&self) -> bool {
        self.current.epoch == MemberEpoch(0)
    }
}

impl Current {
    /// All that it may own.
    pub fn owned(&self) -> impl Iterator<Item = TopicPartition> {
        self.assigned.iter().chain(&self.revoking).copied()
    }
}
