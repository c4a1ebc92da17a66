//! A member's side of a group (KIP-848), without clock, thread or socket: what to say to the coordinator
//! when, and what its answers mean.
//!
//! What must hold: nothing is owned that the coordinator may have given to somebody else. So only the
//! answer to the newest request counts, and none of a coordinator that is older than one heard before; what
//! is to be given up is owned, and named in every request, until it was given up; and once no answer came
//! for most of a session since the last request that was answered was sent, or the coordinator has not heard in time that
//! something was given up, all is lost without asking anybody. The coordinator counts from later moments than this
//! side does.

use std::collections::BTreeSet;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Term, TopicPartition};
use highwater_protocol::native::groups::{
    Beat, Committer, GroupHeartbeatRequest, GroupHeartbeatResponse, GroupId, Heard, MemberEpoch,
    MemberId, MemberProfile, MemberStep, Returns,
};

/// Milliseconds of a clock that never goes back.
pub type Ms = u64;

/// A member of a group, or somebody who wants to be one.
#[derive(Debug, Clone)]
pub struct Membership {
    group: GroupId,
    member: MemberId,
    profile: MemberProfile,
    beat: Beat,
    /// 0 while it is none.
    epoch: MemberEpoch,
    /// The one that the coordinator knows, perhaps.
    last_epoch: MemberEpoch,
    heard: Option<Heard>,
    owned: BTreeSet<TopicPartition>,
    /// Of what is owned, what must be given up.
    leaving: BTreeSet<TopicPartition>,
    leaving_by: Option<Ms>,
    /// All is lost then, unless an answer comes.
    lost_at: Ms,
    under_way: Option<UnderWay>,
    due: Ms,
}

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    beat: Beat,
    sent_at: Ms,
    /// It names nothing that is to be given up.
    told_all: bool,
}

/// What a member must know of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These are its own from now on.
    Assigned(Vec<TopicPartition>),
    /// These must be given up, and are its own until it says that they were.
    Revoked(Vec<TopicPartition>),
    /// These are its own no more, and may be somebody else's already.
    Lost(Vec<TopicPartition>),
}

/// What a refusal of the coordinator means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It goes on, perhaps as a new member, with this news.
    GoesOn(Vec<News>),
    /// It cannot be a member as it is.
    Final,
}

impl Membership {
    /// Somebody who wants to be a member.
    pub fn new(group: GroupId, member: MemberId, profile: MemberProfile, now: Ms) -> Membership {
        Membership {
            group,
            member,
            profile,
            beat: Beat(0),
            epoch: MemberEpoch(0),
            last_epoch: MemberEpoch(0),
            heard: None,
            owned: BTreeSet::new(),
            leaving: BTreeSet::new(),
            leaving_by: None,
            lost_at: Ms::MAX,
            under_way: None,
            due: now,
        }
    }

    /// All that it owns, what is to be given up among it.
    pub fn owned(&self) -> &BTreeSet<TopicPartition> {
        &self.owned
    }

    /// The term of the newest coordinator that it has heard.
    pub fn heard(&self) -> Option<Term> {
        self.heard.map(|heard| heard.term)
    }

    /// Whether it was told to be a member, and has not lost that.
    pub fn is_member(&self) -> bool {
        self.epoch != MemberEpoch(0)
    }

    /// Whether what it owns is its own at this moment, as far as it can tell without looking.
    pub fn holds(&self, now: Ms) -> bool {
        self.lost_at > now && self.leaving_by.is_none_or(|by| by > now)
    }

    /// When to look again.
    pub fn wakes_at(&self) -> Ms {
        let due = if self.under_way.is_some() { Ms::MAX } else { self.due };
        due.min(self.lost_at).min(self.leaving_by.unwrap_or(Ms::MAX))
    }

    /// What time has brought: all is lost once the coordinator may take this member for gone.
    pub fn look(&mut self, now: Ms) -> Option<News> {
        if self.holds(now) { None } else { self.lose(now) }
    }

    /// The next request, if it is time for one; one is under way at a time.
    pub fn request(&mut self, now: Ms) -> Option<GroupHeartbeatRequest> {
        if self.under_way.is_some() || now < self.due {
            return None;
        }
        let step = match self.is_member() {
            false => MemberStep::Join(self.profile.clone()),
            true => MemberStep::Stay {
                epoch: self.epoch,
                owned: self.owned.iter().copied().collect(),
                profile: None,
            },
        };
        Some(self.send(step, now))
    }

    /// The request that ends it; nothing is owned any more.
    pub fn leave(&mut self, returns: Returns, now: Ms) -> GroupHeartbeatRequest {
        let epoch = self.last_epoch;
        self.lose(now);
        let beat = self.next_beat();
        let (group, member, heard) = (self.group.clone(), self.member, self.heard);
        let step = MemberStep::Leave { epoch, returns };
        GroupHeartbeatRequest { group, member, beat, heard, step }
    }

    /// The next request goes at once.
    pub fn hurry(&mut self, now: Ms) {
        self.due = now;
    }

    fn send(&mut self, step: MemberStep, now: Ms) -> GroupHeartbeatRequest {
        let beat = self.next_beat();
        let told_all = self.leaving.is_empty();
        self.under_way = Some(UnderWay { beat, sent_at: now, told_all });
        let (group, member, heard) = (self.group.clone(), self.member, self.heard);
        GroupHeartbeatRequest { group, member, beat, heard, step }
    }

    fn next_beat(&mut self) -> Beat {
        self.beat = Beat(self.beat.0 + 1);
        self.beat
    }

    /// In whose name offsets are committed, while it is a member.
    pub fn committer(&mut self) -> Option<Committer> {
        let (epoch, heard) = (self.epoch, self.heard.filter(|_| self.is_member())?.term);
        let beat = self.next_beat();
        Some(Committer::Member { member: self.member, epoch, beat, heard })
    }

    /// An answer has come to the request with this number.
    pub fn answered(&mut self, beat: Beat, answer: &GroupHeartbeatResponse, now: Ms) -> Vec<News> {
        let Some(UnderWay { sent_at, told_all, .. }) = self.under_way.take_if(|it| it.beat == beat)
        else {
            return Vec::new();
        };
        if self.heard.is_some_and(|heard| answer.term < heard.term) {
            self.due = now;
            return Vec::new();
        }
        self.heard = Some(Heard { term: answer.term, beat });
        (self.epoch, self.last_epoch) = (answer.epoch, answer.epoch);
        self.lost_at = sent_at + self.profile.silence_ms();
        self.due = now + Ms::from(answer.heartbeat_ms);
        let assigned: BTreeSet<TopicPartition> = answer.assigned.iter().copied().collect();
        let revoked: Vec<TopicPartition> = self
            .owned
            .difference(&assigned)
            .filter(|it| !self.leaving.contains(it))
            .copied()
            .collect();
        let new: Vec<TopicPartition> = assigned.difference(&self.owned).copied().collect();
        self.owned.extend(&new);
        let mut news = Vec::new();
        if !revoked.is_empty() {
            self.leaving.extend(&revoked);
            news.push(News::Revoked(revoked));
        }
        // Until the coordinator has heard that everything was given up.
        self.leaving_by = match (told_all, self.leaving.is_empty()) {
            (true, true) => None,
            (true, false) => Some(sent_at + Ms::from(self.profile.rebalance_ms)),
            (false, _) => {
                let by = sent_at + Ms::from(self.profile.rebalance_ms);
                Some(self.leaving_by.map_or(by, |known| known.min(by)))
            }
        };
        if !new.is_empty() {
            news.push(News::Assigned(new));
        }
        news
    }

    /// These were given up; the coordinator hears of it at once. Says which of them it was to give up: of the others
    /// it is no news.
    pub fn gave_up(&mut self, partitions: &[TopicPartition], now: Ms) -> Vec<TopicPartition> {
        let mut gone = partitions.to_vec();
        gone.retain(|partition| self.leaving.remove(partition) && self.owned.remove(partition));
        if !gone.is_empty() {
            self.due = now;
        }
        gone
    }

    /// No answer to a request came, or one that says nothing: it is sent anew, as a newer one.
    pub fn failed(&mut self, beat: Beat, now: Ms) {
        if self.under_way.take_if(|it| it.beat == beat).is_some() {
            self.due = now + RETRY_MS;
        }
    }

    /// The coordinator refused a request.
    pub fn refused(&mut self, beat: Beat, code: ErrorCode, now: Ms) -> Refusal {
        let newest = self.under_way.is_some_and(|it| it.beat == beat);
        let is_none = matches!(code, ErrorCode::UnknownMember | ErrorCode::FencedMemberEpoch);
        let passes = code.retriable() || code == ErrorCode::StaleMemberEpoch;
        self.failed(beat, now);
        if !newest || passes {
            return Refusal::GoesOn(Vec::new());
        }
        match is_none {
            true => Refusal::GoesOn(self.lose(now).into_iter().collect()),
            false => Refusal::Final,
        }
    }

    /// It is no member any more as far as it knows; the next request joins anew.
    pub fn lose(&mut self, now: Ms) -> Option<News> {
        self.epoch = MemberEpoch(0);
        (self.lost_at, self.leaving_by) = (Ms::MAX, None);
        // An answer that comes now is about what was lost.
        self.under_way = None;
        self.due = now;
        self.leaving.clear();
        let lost = std::mem::take(&mut self.owned);
        (!lost.is_empty()).then(|| News::Lost(lost.into_iter().collect()))
    }
}

/// How long after a failure the next request goes.
const RETRY_MS: Ms = 100;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{PartitionId, TopicId};
    use highwater_protocol::native::groups::Assignor;
    use uuid::Uuid;

    use super::*;

    fn partition(number: u32) -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionId(number))
    }

    fn member() -> Membership {
        let profile = MemberProfile {
            client_id: "c".into(),
            instance: None,
            rack: None,
            topics: vec!["orders".into()],
            assignor: Assignor::Uniform,
            session_ms: 10_000,
            rebalance_ms: 5_000,
        };
        Membership::new(GroupId("g".into()), MemberId(Uuid::from_u128(1)), profile, 0)
    }

    fn answer(term: u32, epoch: u32, assigned: &[u32]) -> GroupHeartbeatResponse {
        GroupHeartbeatResponse {
            term: Term(term),
            epoch: MemberEpoch(epoch),
            heartbeat_ms: 1_000,
            assigned: assigned.iter().map(|number| partition(*number)).collect(),
        }
    }

    fn joined(assigned: &[u32]) -> Membership {
        let mut member = member();
        let request = member.request(0).expect("it joins at once");
        assert!(matches!(request.step, MemberStep::Join(_)));
        let news = member.answered(request.beat, &answer(1, 1, assigned), 10);
        let all: Vec<TopicPartition> = assigned.iter().map(|number| partition(*number)).collect();
        let wanted = if all.is_empty() { None } else { Some(News::Assigned(all)) };
        assert_eq!(news, Vec::from_iter(wanted));
        member
    }

    #[test]
    fn what_is_revoked_is_owned_and_named_until_it_was_given_up() {
        let mut member = joined(&[1, 2]);
        let request = member.request(1_010).expect("it is time");
        let news = member.answered(request.beat, &answer(1, 1, &[1]), 1_020);
        assert_eq!(news, [News::Revoked(vec![partition(2)])]);
        let owned = |request: GroupHeartbeatRequest| match request.step {
            MemberStep::Stay { owned, .. } => owned,
            other => panic!("it stays, and does not {other:?}"),
        };
        let request = member.request(2_020).expect("it is time");
        let beat = request.beat;
        assert_eq!(owned(request), [partition(1), partition(2)]);
        assert!(member.answered(beat, &answer(1, 1, &[1]), 2_030).is_empty(), "no news");
        assert!(member.gave_up(&[partition(1)], 2_040).is_empty(), "it is to keep that");
        assert_eq!(member.gave_up(&[partition(1), partition(2)], 2_040), [partition(2)]);
        assert_eq!(owned(member.request(2_040).expect("at once")), [partition(1)]);
    }

    #[test]
    fn only_the_answer_to_the_newest_request_counts_and_none_of_an_older_coordinator() {
        let mut member = joined(&[]);
        let first = member.request(1_010).expect("it is time");
        member.failed(first.beat, 2_000);
        let second = member.request(2_100).expect("again");
        assert!(member.answered(first.beat, &answer(1, 1, &[1]), 2_200).is_empty());
        assert!(member.owned().is_empty());
        assert!(!member.answered(second.beat, &answer(2, 1, &[1]), 2_200).is_empty());
        let third = member.request(3_200).expect("it is time");
        assert!(member.answered(third.beat, &answer(1, 1, &[1, 2]), 3_300).is_empty());
        assert_eq!(member.owned().len(), 1);
    }

    #[test]
    fn all_is_lost_four_fifths_of_a_session_after_the_last_answered_request_was_sent() {
        let mut member = joined(&[1]);
        let request = member.request(1_010).expect("it is time");
        member.answered(request.beat, &answer(1, 1, &[1]), 7_000);
        let unanswered = member.request(8_000).expect("it is time");
        assert_eq!(member.look(9_009), None);
        assert_eq!(member.look(9_010), Some(News::Lost(vec![partition(1)])));
        let late = member.answered(unanswered.beat, &answer(1, 1, &[1]), 9_011);
        assert!(late.is_empty() && member.owned().is_empty(), "it comes too late");
        let request = member.request(9_011).expect("at once");
        assert!(matches!(request.step, MemberStep::Join(_)));
    }

    #[test]
    fn who_is_not_heard_to_have_given_up_in_time_loses_all() {
        let mut member = joined(&[1, 2]);
        let request = member.request(1_010).expect("it is time");
        member.answered(request.beat, &answer(1, 1, &[1]), 1_020);
        member.gave_up(&[partition(2)], 2_000);
        assert_eq!(member.look(6_009), None);
        assert_eq!(member.look(6_010), Some(News::Lost(vec![partition(1)])), "nobody heard of it");
    }

    #[test]
    fn a_fenced_member_loses_all_and_joins_anew_and_one_that_is_wrong_ends() {
        let mut member = joined(&[1]);
        let request = member.request(1_010).expect("it is time");
        let refusal = member.refused(request.beat, ErrorCode::StaleMemberEpoch, 1_020);
        assert_eq!(refusal, Refusal::GoesOn(Vec::new()));
        let request = member.request(1_120).expect("again");
        let refusal = member.refused(request.beat, ErrorCode::UnknownMember, 1_130);
        assert_eq!(refusal, Refusal::GoesOn(vec![News::Lost(vec![partition(1)])]));
        let request = member.request(1_130).expect("at once");
        assert_eq!(member.refused(request.beat, ErrorCode::InvalidRequest, 1_140), Refusal::Final);
    }
}
