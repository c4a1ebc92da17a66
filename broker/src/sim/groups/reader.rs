//! A member: the real client's `Membership`, and a program that handles records, commits what it has handled, and takes
//! its time to give partitions up.

use std::collections::{BTreeMap, BTreeSet};

use highwater_client::membership::{Membership, News, Refusal};
use highwater_protocol::error::WireError;
use highwater_protocol::ids::{Offset, TopicPartition};
use highwater_protocol::native::groups::{
    Beat, CommitOffsetsRequest, Committer, FetchOffsetsRequest, GroupId, MemberId, MemberProfile,
    OffsetToCommit, Returns,
};

use crate::groups::{GroupAnswer, GroupRequest};
use crate::sim::rng::Rng;

/// A member of the group, alive.
pub(super) struct Reader {
    pub membership: Membership,
    group: GroupId,
    /// Where it is in what it owns and knows the start of.
    pub at: BTreeMap<TopicPartition, u64>,
    /// What it has committed, as far as it knows.
    known: BTreeMap<TopicPartition, u64>,
    /// What it gives up, and when.
    giving_up: BTreeMap<TopicPartition, u64>,
    /// Whose start it has asked for.
    wanted: BTreeSet<TopicPartition>,
    under_way: BTreeMap<u64, Asked>,
    last_question: u64,
    pub paused_until: u64,
    commit_due: u64,
    rng: Rng,
}

enum Asked {
    Heartbeat { beat: Beat, by: u64 },
    Commit { offsets: Vec<OffsetToCommit>, by: u64 },
    Start { partitions: Vec<TopicPartition>, by: u64 },
}

/// What a member does at a moment.
#[derive(Default)]
pub(super) struct Did {
    pub asks: Vec<(u64, GroupRequest)>,
    pub revoked: Vec<TopicPartition>,
    /// It begins here, with this offset.
    pub began: Vec<(TopicPartition, u64)>,
    pub handled: Vec<(TopicPartition, u64)>,
    /// These commits were answered.
    pub acked: Vec<(TopicPartition, u64)>,
}

impl Reader {
    pub fn new(group: GroupId, id: MemberId, profile: MemberProfile, now: u64, rng: Rng) -> Reader {
        Reader {
            membership: Membership::new(group.clone(), id, profile, now),
            group,
            at: BTreeMap::new(),
            known: BTreeMap::new(),
            giving_up: BTreeMap::new(),
            wanted: BTreeSet::new(),
            under_way: BTreeMap::new(),
            last_question: 0,
            paused_until: 0,
            commit_due: now,
            rng,
        }
    }

    /// What it does by itself.
    pub fn step(&mut self, now: u64) -> Did {
        let mut did = Did::default();
        if let Some(news) = self.membership.look(now) {
            self.hear(vec![news], now, &mut did);
        }
        self.time_out(now);
        self.handle(&mut did);
        self.give_up(now);
        let has_commit = self.under_way.values().any(|it| matches!(it, Asked::Commit { .. }));
        let has_beat = self.under_way.values().any(|it| matches!(it, Asked::Heartbeat { .. }));
        if !has_commit && !has_beat && self.commit_due <= now {
            self.commit(now, &mut did);
        }
        if !has_commit && let Some(request) = self.membership.request(now) {
            let asked = Asked::Heartbeat { beat: request.beat, by: now + ANSWER_MS };
            self.ask(asked, GroupRequest::Heartbeat(request), &mut did);
        }
        self.ask_starts(now, &mut did);
        did
    }

    /// The last words of one that ends well.
    pub fn leave(&mut self, returns: Returns, now: u64) -> GroupRequest {
        GroupRequest::Heartbeat(self.membership.leave(returns, now))
    }

    fn ask(&mut self, asked: Asked, request: GroupRequest, did: &mut Did) {
        self.last_question += 1;
        self.under_way.insert(self.last_question, asked);
        did.asks.push((self.last_question, request));
    }

    fn time_out(&mut self, now: u64) {
        let over = |asked: &Asked| match asked {
            Asked::Heartbeat { by, .. } | Asked::Commit { by, .. } | Asked::Start { by, .. } => {
                *by <= now
            }
        };
        let late: Vec<u64> =
            self.under_way.iter().filter(|(_, it)| over(it)).map(|(number, _)| *number).collect();
        for number in late {
            self.failed(number, now);
        }
    }

    fn failed(&mut self, number: u64, now: u64) {
        match self.under_way.remove(&number) {
            Some(Asked::Heartbeat { beat, .. }) => self.membership.failed(beat, now),
            Some(Asked::Start { partitions, .. }) => self.wanted.extend(partitions),
            Some(Asked::Commit { .. }) | None => {}
        }
    }

    /// An answer has come.
    pub fn answered(
        &mut self,
        number: u64,
        answer: Result<GroupAnswer, WireError>,
        now: u64,
    ) -> Did {
        let mut did = Did::default();
        if let Some(news) = self.membership.look(now) {
            self.hear(vec![news], now, &mut did);
        }
        match (self.under_way.remove(&number), answer) {
            (None, _) => {}
            (Some(Asked::Heartbeat { beat, .. }), Ok(GroupAnswer::Heartbeat(answer))) => {
                let news = self.membership.answered(beat, &answer, now);
                self.hear(news, now, &mut did);
            }
            (Some(Asked::Heartbeat { beat, .. }), Err(error)) => {
                match self.membership.refused(beat, error.code, now) {
                    Refusal::GoesOn(news) => self.hear(news, now, &mut did),
                    Refusal::Final => panic!("a member that does nothing wrong: {error}"),
                }
            }
            (Some(Asked::Commit { offsets, .. }), Ok(GroupAnswer::CommitOffsets(answer))) => {
                for (asked, result) in offsets.iter().zip(answer.results) {
                    if result.is_ok() {
                        self.known.insert(asked.partition, asked.offset.0);
                        did.acked.push((asked.partition, asked.offset.0));
                    }
                }
            }
            (Some(Asked::Commit { .. }), Err(_)) => {}
            (Some(Asked::Start { partitions, .. }), Ok(GroupAnswer::FetchOffsets(answer))) => {
                for partition in partitions {
                    let found = answer.offsets.iter().find(|it| it.partition == partition);
                    let start = found.map_or(0, |it| it.offset.0);
                    if self.may_handle(partition) {
                        self.at.insert(partition, start);
                        self.known.insert(partition, start);
                        did.began.push((partition, start));
                    }
                }
            }
            (Some(Asked::Start { partitions, .. }), Err(_)) => self.wanted.extend(partitions),
            (Some(_), Ok(other)) => panic!("an answer to something else: {other:?}"),
        }
        did
    }

    fn may_handle(&self, partition: TopicPartition) -> bool {
        self.membership.owned().contains(&partition) && !self.giving_up.contains_key(&partition)
    }

    fn hear(&mut self, news: Vec<News>, now: u64, did: &mut Did) {
        for news in news {
            match news {
                News::Assigned(partitions) => self.wanted.extend(partitions),
                News::Revoked(partitions) => {
                    for partition in &partitions {
                        let takes_ms = self.rng.between(0..=2_000);
                        self.giving_up.insert(*partition, now + takes_ms);
                    }
                    self.commit_due = now;
                    did.revoked.extend(partitions);
                }
                News::Lost(partitions) => partitions.iter().for_each(|it| self.forget(it)),
            }
        }
    }

    /// What it handles at this moment.
    pub fn handles(&self) -> impl Iterator<Item = TopicPartition> {
        self.at.keys().filter(|partition| !self.giving_up.contains_key(partition)).copied()
    }

    fn forget(&mut self, partition: &TopicPartition) {
        self.at.remove(partition);
        self.known.remove(partition);
        self.giving_up.remove(partition);
        self.wanted.remove(partition);
        // What was asked for an earlier time says nothing of a later one.
        for asked in self.under_way.values_mut() {
            if let Asked::Start { partitions, .. } = asked {
                partitions.retain(|it| it != partition);
            }
        }
    }

    fn handle(&mut self, did: &mut Did) {
        for (partition, at) in &mut self.at {
            if !self.giving_up.contains_key(partition) && self.rng.per_mille(500) {
                *at += self.rng.between(1..=5);
                did.handled.push((*partition, *at));
            }
        }
    }

    fn give_up(&mut self, now: u64) {
        let due =
            self.giving_up.iter().filter(|(_, at)| **at <= now).map(|(partition, _)| *partition);
        let due: Vec<TopicPartition> = due.collect();
        if due.is_empty() {
            return;
        }
        self.membership.gave_up(&due, now);
        due.iter().for_each(|partition| self.forget(partition));
    }

    fn commit(&mut self, now: u64, did: &mut Did) {
        self.commit_due = now + self.rng.between(200..=3_000);
        let behind = self.at.iter().filter(|(partition, at)| self.known.get(partition) != Some(at));
        let offsets: Vec<OffsetToCommit> = behind
            .map(|(partition, at)| OffsetToCommit {
                partition: *partition,
                offset: Offset(*at),
                term: None,
                note: "n".repeat((*at % 7) as usize),
            })
            .collect();
        if offsets.is_empty() {
            return;
        }
        let Some(by) = self.membership.committer() else { return };
        assert!(by != Committer::Outsider, "a member commits as one");
        let request =
            CommitOffsetsRequest { group: self.group.clone(), by, offsets: offsets.clone() };
        let asked = Asked::Commit { offsets, by: now + ANSWER_MS };
        self.ask(asked, GroupRequest::CommitOffsets(request), did);
    }

    fn ask_starts(&mut self, now: u64, did: &mut Did) {
        let partitions: Vec<TopicPartition> =
            std::mem::take(&mut self.wanted).into_iter().collect();
        if partitions.is_empty() {
            return;
        }
        let (group, wanted) = (self.group.clone(), Some(partitions.clone()));
        let heard = self.membership.heard();
        let request = FetchOffsetsRequest { group, partitions: wanted, heard };
        let asked = Asked::Start { partitions, by: now + ANSWER_MS };
        self.ask(asked, GroupRequest::FetchOffsets(request), did);
    }
}

/// How long a member waits for an answer.
const ANSWER_MS: u64 = 1_500;
