//! When members were heard: what only the coordinator of this term knows, and a new one begins anew.
//!
//! What must hold: nobody is taken for gone who may believe to be a member still. A member gives
//! everything up by itself once it may be silent no longer, counted from when it *sent* the last heartbeat that was
//! answered; so here the same time counts from when one was heard, and in a new term from its beginning, with the
//! time added in which a coordinator that was replaced may have answered. The time to give something up counts
//! from when the member is known to know.

use std::collections::BTreeMap;

use highwater_protocol::native::groups::{Beat, GroupId, MemberId};

use super::image::{Groups, Member};
use super::record::Partitions;
use crate::mutant::{self, Mutant};
use crate::raft::Millis;

/// The sessions of all members of all groups.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<(GroupId, MemberId), Session>,
}

/// What is known of a member in this term.
#[derive(Debug, Clone)]
pub(super) struct Session {
    /// When it was heard, or this term began.
    pub heard_at: Millis,
    /// It is gone unless it was heard by then.
    ends_at: Millis,
    /// Its newest request.
    beat: Option<Beat>,
    giving_up: Option<GivingUp>,
}

/// What a member was told to give up in this term.
#[derive(Debug, Clone)]
struct GivingUp {
    partitions: Partitions,
    /// The answer to this request was the first that said so.
    told: Beat,
    /// When it was first heard to know: it counts from an earlier moment itself.
    known_since: Option<Millis>,
}

impl GivingUp {
    fn next(
        before: Option<&GivingUp>,
        revoking: &Partitions,
        beat: Beat,
        took: Option<Beat>,
        now: Millis,
    ) -> Option<GivingUp> {
        if revoking.is_empty() {
            return None;
        }
        let partitions = revoking.clone();
        match before {
            Some(before) if revoking.is_subset(&before.partitions) => {
                let told = before.told;
                let knows = took.is_some_and(|took| took >= told)
                    || mutant::active(Mutant::ToldCountsAsKnown);
                let known_since = before.known_since.or(knows.then_some(now));
                Some(GivingUp { partitions, told, known_since })
            }
            Some(_) | None => Some(GivingUp { partitions, told: beat, known_since: None }),
        }
    }
}

impl Sessions {
    /// Sessions of a term that begins now.
    pub fn new(groups: &Groups, now: Millis) -> Sessions {
        let members = groups.iter().flat_map(|(id, group)| {
            group.members.iter().map(move |(member, known)| (id, *member, known))
        });
        let session = |(id, member, known): (&GroupId, MemberId, &Member)| {
            ((id.clone(), member), Session::unheard(known, now))
        };
        Sessions { sessions: members.map(session).collect() }
    }

    /// Whether a request is newer than all that the member was heard with.
    pub fn is_news(&self, group: &GroupId, member: MemberId, beat: Beat) -> bool {
        let known = self.get(group, member).and_then(|session| session.beat);
        known.is_none_or(|known| known < beat)
    }

    /// A member was heard, with a request and the answer that it had taken before, if that was one of this term.
    pub fn hear(
        &mut self,
        group: &GroupId,
        id: MemberId,
        member: &Member,
        (beat, took): (Beat, Option<Beat>),
        now: Millis,
    ) {
        let key = (group.clone(), id);
        let ends_at = Millis(now.0 + member.profile.silence_ms());
        let before = self.sessions.remove(&key);
        let giving_up = before.as_ref().and_then(|before| before.giving_up.as_ref());
        let session = Session {
            heard_at: now,
            // What a new term added is never taken back.
            ends_at: before.as_ref().map_or(ends_at, |before| before.ends_at.max(ends_at)),
            beat: Some(beat),
            giving_up: GivingUp::next(giving_up, &member.current.revoking, beat, took, now),
        };
        self.sessions.insert(key, session);
    }

    /// What is known of a member.
    pub fn get(&self, group: &GroupId, member: MemberId) -> Option<&Session> {
        self.sessions.get(&(group.clone(), member))
    }

    /// Why a member is to be taken for gone, if it is.
    pub fn verdict(
        &mut self,
        group: &GroupId,
        id: MemberId,
        member: &Member,
        now: Millis,
    ) -> Option<Verdict> {
        // One whose end was decided, and not committed, begins anew.
        let unheard = || Session::unheard(member, now);
        let session = self.sessions.entry((group.clone(), id)).or_insert_with(unheard);
        if session.ends_at <= now && !mutant::active(Mutant::SilentStay) {
            return Some(Verdict::Silent);
        }
        let since = session.giving_up.as_ref()?.known_since?;
        let rebalance_ms = u64::from(member.profile.rebalance_ms);
        let keeps = since.0 + rebalance_ms <= now.0 && !mutant::active(Mutant::KeepersStay);
        keeps.then_some(Verdict::KeepsPartitions)
    }

    /// Forgets who is no member any more.
    pub fn keep(&mut self, is_member: impl Fn(&GroupId, MemberId) -> bool) {
        self.sessions.retain(|(group, member), _| is_member(group, *member));
    }
}

impl Session {
    /// Of a member that this coordinator has not heard yet.
    fn unheard(member: &Member, now: Millis) -> Session {
        let takeover_ms = if mutant::active(Mutant::TakeoverUncounted) { 0 } else { TAKEOVER_MS };
        let whole_ms = member.profile.silence_ms() + takeover_ms;
        let short = mutant::active(Mutant::SessionsEndEarly);
        let ends_at = Millis(now.0 + if short { whole_ms / 4 } else { whole_ms });
        Session { heard_at: now, ends_at, beat: None, giving_up: None }
    }
}

/// Why a member is taken for gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was not heard for its session's time.
    Silent,
    /// It has not given up what it was told to.
    KeepsPartitions,
}

/// A coordinator that was replaced notices within this time, and answers nobody any more.
const TAKEOVER_MS: u64 = 5_000;
