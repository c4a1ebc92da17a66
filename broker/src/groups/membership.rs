//! Joining, staying, leaving: what a heartbeat does to its group (KIP-848).
//!
//! What must hold: a member is given a partition only when nobody else owns it; it is taken for given up
//! only when the member itself says so, in a request that it sent after it had heard this coordinator, and that is newer
//! than all others: one that was held up may tell what was true once. Its owner may be somebody else meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::groups::{
    Beat, GroupHeartbeatRequest, GroupHeartbeatResponse, GroupId, MemberEpoch, MemberId,
    MemberProfile, MemberStep, Returns,
};

use super::coordinator::{Coordinator, Moment};
use super::image::{Group, Member};
use super::record::{Current, GroupChange, Partitions};
use crate::mutant::{self, Mutant};

impl Coordinator {
    pub(super) fn heartbeat(
        &mut self,
        at: Moment<'_>,
        request: &GroupHeartbeatRequest,
    ) -> Result<GroupHeartbeatResponse, WireError> {
        let id = &request.group;
        id.check().map_err(|why| WireError::new(ErrorCode::InvalidGroup, why))?;
        self.check_newest(id, request.heard.map(|heard| heard.term))?;
        if !self.sessions.is_news(id, request.member, request.beat)
            && !mutant::active(Mutant::OldBeatCounts)
        {
            return Err(held_up(request));
        }
        match &request.step {
            MemberStep::Join(profile) => self.join(at, request, profile)?,
            MemberStep::Stay { epoch, owned, profile } => {
                self.stay(at, request, *epoch, owned, profile.as_ref())?;
            }
            MemberStep::Leave { epoch, returns } => {
                self.leave(at, request, *epoch, *returns)?;
                return Ok(GroupHeartbeatResponse {
                    term: self.term,
                    epoch: MemberEpoch(0),
                    heartbeat_ms: 0,
                    assigned: Vec::new(),
                });
            }
        }
        let group = self.known(id)?;
        let member = group.members.get(&request.member).expect("it joined or stayed").clone();
        let heartbeat_ms = heartbeat_ms(group, &member);
        let took = request.heard.filter(|heard| heard.term == self.term).map(|heard| heard.beat);
        self.sessions.hear(id, request.member, &member, (request.beat, took), at.now);
        Ok(GroupHeartbeatResponse {
            term: self.term,
            epoch: member.current.epoch,
            heartbeat_ms,
            assigned: member.current.assigned.iter().copied().collect(),
        })
    }

    fn join(
        &mut self,
        at: Moment<'_>,
        request: &GroupHeartbeatRequest,
        profile: &MemberProfile,
    ) -> Result<(), WireError> {
        let GroupHeartbeatRequest { group: id, member, beat, .. } = request;
        check_profile(id, profile)?;
        self.check_room(id)?;
        let empty = Group::default();
        let group = self.ledger.group(id).unwrap_or(&empty);
        let known = group.members.get(member);
        if known.is_some_and(|known| known.joined >= *beat) && !mutant::active(Mutant::JoinedTwice)
        {
            return Err(held_up(request));
        }
        let is_known = known.is_some();
        let owned_something = known.is_some_and(|known| known.current.owned().next().is_some());
        let replaces = place_of(id, group, *member, profile)?;
        if !is_known && replaces.is_none() && group.members.len() >= MEMBERS_MAX {
            let why = format!(
                "group {id} has {MEMBERS_MAX} members, and no group has more; those beyond its partitions would have nothing to read"
            );
            return Err(WireError::new(ErrorCode::GroupFull, why));
        }
        let same = replaces.and_then(|old| group.members.get(&old));
        let anew = same.is_none_or(|old| matters(&old.profile) != matters(profile));
        let change = GroupChange::Member {
            member: *member,
            joined: *beat,
            replaces,
            profile: profile.clone(),
        };
        self.ledger.put(id, change);
        if owned_something {
            // It says that it owns nothing any more.
            let current = Current::default();
            self.ledger.put(id, GroupChange::Current { member: *member, current });
        }
        self.retarget(at, id, if anew { Cause::Members } else { Cause::Topics });
        self.reconcile(id, *member, Some(&Partitions::new()));
        Ok(())
    }

    fn stay(
        &mut self,
        at: Moment<'_>,
        request: &GroupHeartbeatRequest,
        epoch: MemberEpoch,
        owned: &[TopicPartition],
        profile: Option<&MemberProfile>,
    ) -> Result<(), WireError> {
        let GroupHeartbeatRequest { group: id, member, .. } = request;
        let known = self.member(id, *member)?;
        if known.is_away() {
            return Err(unknown_member(id, *member));
        }
        let current = &known.current;
        if epoch != current.epoch && epoch != current.previous {
            return Err(fenced(id, *member, epoch, current.epoch));
        }
        let hears_us = request.heard.is_some_and(|heard| heard.term == self.term);
        let believed = hears_us || mutant::active(Mutant::OwnedBelievedUnheard);
        let owned: Partitions = owned.iter().copied().collect();
        let may_own: BTreeSet<TopicPartition> = current.owned().collect();
        if believed && let Some(taken) = owned.difference(&may_own).next() {
            let why = format!(
                "member {member} of group {id} owns partition {taken}, which it was not given: others may own it; \
                 give everything up and join anew"
            );
            return Err(WireError::new(ErrorCode::FencedMemberEpoch, why));
        }
        let joined = known.joined;
        let changed = profile.filter(|new| **new != known.profile);
        let cause = match changed {
            Some(new) if matters(new) != matters(&known.profile) => Cause::Members,
            Some(_) | None => Cause::Topics,
        };
        if let Some(profile) = changed {
            check_profile(id, profile)?;
            let (member, profile) = (*member, profile.clone());
            self.ledger.put(id, GroupChange::Member { member, joined, replaces: None, profile });
        }
        self.retarget(at, id, cause);
        self.reconcile(id, *member, believed.then_some(&owned));
        Ok(())
    }

    fn leave(
        &mut self,
        at: Moment<'_>,
        request: &GroupHeartbeatRequest,
        epoch: MemberEpoch,
        returns: Returns,
    ) -> Result<(), WireError> {
        let GroupHeartbeatRequest { group: id, member, beat, .. } = request;
        let group = self.ledger.group(id);
        // Whoever asks again after a lost answer has left already.
        let Some(known) = group.and_then(|group| group.members.get(member)) else { return Ok(()) };
        if known.joined >= *beat {
            return Err(held_up(request));
        }
        if epoch != known.current.epoch && epoch != known.current.previous && !known.is_away() {
            return Err(fenced(id, *member, epoch, known.current.epoch));
        }
        match returns {
            Returns::Soon
                if known.profile.instance.is_some() && !mutant::active(Mutant::PlaceNotKept) =>
            {
                let session = known.clone();
                let current = Current::default();
                self.ledger.put(id, GroupChange::Current { member: *member, current });
                self.sessions.hear(id, *member, &session, (*beat, None), at.now);
            }
            Returns::Soon | Returns::No => {
                self.ledger.put(id, GroupChange::MemberGone(*member));
                self.members_left(at, id);
            }
        }
        Ok(())
    }

    /// What remains is given out among those who stay.
    pub(super) fn members_left(&mut self, at: Moment<'_>, id: &GroupId) {
        let group = self.ledger.group(id).expect("it had members");
        if !group.members.is_empty() {
            let missed = !mutant::active(Mutant::LeaverNotMissed);
            self.retarget(at, id, if missed { Cause::Members } else { Cause::Topics });
        } else if group.offsets.is_empty() || mutant::active(Mutant::OffsetsGoWithMembers) {
            self.ledger.put(id, GroupChange::Gone);
        } else {
            self.ledger.put(id, GroupChange::Emptied(at.wall));
        }
    }

    /// Brings a member nearer to its target, by what it says that it owns; nothing is taken from it or given to
    /// it at any other time.
    fn reconcile(&mut self, id: &GroupId, member: MemberId, owned: Option<&Partitions>) {
        let group = self.ledger.group(id).expect("it has this member");
        let known = &group.members[&member];
        let next = next_current(group, member, known, owned);
        if next != known.current {
            self.ledger.put(id, GroupChange::Current { member, current: next });
        }
    }

    pub(super) fn member(&self, id: &GroupId, member: MemberId) -> Result<&Member, WireError> {
        let group = self.ledger.group(id);
        let known = group.and_then(|group| group.members.get(&member));
        known.ok_or_else(|| unknown_member(id, member))
    }
}

/// Why a target is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Members came, went, or want something else: it is made anew.
    Members,
    /// It is made anew if topics have come, gone, or grown.
    Topics,
}

/// What a member has after a request; `owned` is what it owns, where that is believed.
fn next_current(
    group: &Group,
    member: MemberId,
    known: &Member,
    owned: Option<&Partitions>,
) -> Current {
    let Member { current, target, .. } = known;
    let still: Partitions = match owned {
        Some(_) if mutant::active(Mutant::RevokedAtOnce) => Partitions::new(),
        Some(owned) => current.revoking.intersection(owned).copied().collect(),
        None => current.revoking.clone(),
    };
    let (keep, drop): (Partitions, Partitions) =
        current.assigned.iter().copied().partition(|partition| target.contains(partition));
    let revoking: Partitions = still.union(&drop).copied().collect();
    if !revoking.is_empty() && !mutant::active(Mutant::GivenBeforeTaken) {
        let (epoch, previous) = (current.epoch, current.previous);
        return Current { epoch, previous, assigned: keep, revoking };
    }
    let is_free = |partition: &&TopicPartition| {
        let owner = group.owner(**partition);
        owner.is_none_or(|owner| owner == member) || mutant::active(Mutant::TargetGivenAtOnce)
    };
    let free = target.difference(&keep).filter(is_free).copied();
    let assigned = keep.iter().copied().chain(free).collect();
    let previous = if group.epoch == current.epoch { current.previous } else { current.epoch };
    Current { epoch: group.epoch, previous, assigned, revoking: Partitions::new() }
}

/// The member whose place a new one takes: the one that left under the same instance's name.
fn place_of(
    id: &GroupId,
    group: &Group,
    member: MemberId,
    profile: &MemberProfile,
) -> Result<Option<MemberId>, WireError> {
    let Some(instance) = &profile.instance else { return Ok(None) };
    let bears = |(other, known): &(&MemberId, &Member)| {
        **other != member && known.profile.instance.as_ref() == Some(instance)
    };
    match group.members.iter().find(bears) {
        None => Ok(None),
        Some((other, known)) if known.is_away() || mutant::active(Mutant::PlaceTaken) => {
            Ok(Some(*other))
        }
        Some((other, _)) => {
            let why = format!(
                "member {other} of group {id} bears the instance's name {instance} and has not left; stop it, or wait until its session ends"
            );
            Err(WireError::new(ErrorCode::UnreleasedInstance, why))
        }
    }
}

/// What of a profile a target is made from.
fn matters(profile: &MemberProfile) -> (BTreeSet<&String>, Option<&String>, u8) {
    (profile.topics.iter().collect(), profile.rack.as_ref(), profile.assignor as u8)
}

fn check_profile(id: &GroupId, profile: &MemberProfile) -> Result<(), WireError> {
    let MemberProfile { client_id, instance, rack, topics, session_ms, rebalance_ms, .. } = profile;
    let invalid = |why: String| Err(WireError::new(ErrorCode::InvalidRequest, why));
    let names = [Some(client_id), instance.as_ref(), rack.as_ref()];
    if let Some(long) =
        names.into_iter().flatten().chain(topics).find(|it| it.len() > NAME_BYTES_MAX)
    {
        let bytes = long.len();
        return invalid(format!(
            "group {id}: a name of {bytes} bytes is too long: {NAME_BYTES_MAX} are allowed"
        ));
    }
    if topics.is_empty() || topics.len() > TOPICS_MAX {
        let count = topics.len();
        return invalid(format!(
            "group {id}: a member reads 1 to {TOPICS_MAX} topics, not {count}"
        ));
    }
    let times = BTreeMap::from([("session", session_ms), ("rebalance", rebalance_ms)]);
    match times.into_iter().find(|(_, ms)| !TIMES_MS.contains(ms)) {
        None => Ok(()),
        Some((which, ms)) => {
            let (least, most) = (TIMES_MS.start(), TIMES_MS.end());
            invalid(format!(
                "group {id}: a {which} time of {ms} ms is not allowed; {least} to {most} ms are"
            ))
        }
    }
}

/// Soon while something is on its way, else as the session needs it.
fn heartbeat_ms(group: &Group, member: &Member) -> u32 {
    match member.has_arrived(group.epoch) {
        true => (member.profile.session_ms / 10).clamp(HEARTBEAT_SOON_MS, HEARTBEAT_MS_MAX),
        false => HEARTBEAT_SOON_MS,
    }
}

fn held_up(request: &GroupHeartbeatRequest) -> WireError {
    let GroupHeartbeatRequest { group, member, beat: Beat(beat), .. } = request;
    let why = format!(
        "request {beat} of member {member} of group {group} was held up on its way: a newer one came before it"
    );
    WireError::new(ErrorCode::StaleMemberEpoch, why)
}

fn unknown_member(id: &GroupId, member: MemberId) -> WireError {
    let why = format!(
        "group {id} has no member {member}: it left, or was not heard for its session's time; give everything up and join anew"
    );
    WireError::new(ErrorCode::UnknownMember, why)
}

fn fenced(id: &GroupId, member: MemberId, told: MemberEpoch, known: MemberEpoch) -> WireError {
    let why = format!(
        "member {member} of group {id} believes to be in epoch {told} and is in {known}; give everything up and join anew"
    );
    WireError::new(ErrorCode::FencedMemberEpoch, why)
}

/// More would have nothing to read in any sensible topic.
const MEMBERS_MAX: usize = 1_000;
const TOPICS_MAX: usize = 1_000;
const NAME_BYTES_MAX: usize = 249;
const TIMES_MS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;
const HEARTBEAT_SOON_MS: u32 = 100;
const HEARTBEAT_MS_MAX: u32 = 1_000;
