//! Coordinators over one replicated log: one leads at a time, a former one may linger for a while and answer
//! from what it knew, and what was being committed when the lead changed is there or is not.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Term, Timestamp};

use crate::controller::ClusterImage;
use crate::groups::record::GroupRecord;
use crate::groups::{Coordinator, GroupAnswer, GroupRequest, Groups, Moment};
use crate::raft::Millis;
use crate::sim::rng::Rng;

/// Who asked, with which question.
pub(super) type Caller = (usize, u64);

/// What a coordinator says to whom.
pub(super) type Answered = (Caller, Result<GroupAnswer, WireError>);

/// All nodes that may keep the group.
pub(super) struct Keepers {
    nodes: Vec<Option<Keeper>>,
    leader: usize,
    term: u32,
    /// What is committed.
    log: Vec<GroupRecord>,
    /// What that comes to.
    groups: Groups,
    rng: Rng,
}

/// A node that keeps the group, or believes so.
struct Keeper {
    coordinator: Coordinator,
    queue: Vec<(Caller, GroupRequest)>,
    /// Answers that wait for a commit, and when that is through.
    committing: Option<(u64, Vec<Answered>)>,
    /// It notices that another one leads.
    until: Option<u64>,
    next_look: u64,
}

/// What came of a moment.
#[derive(Default)]
pub(super) struct Said {
    pub answers: Vec<Answered>,
    /// The log has grown.
    pub committed: bool,
}

impl Keepers {
    pub fn new(rng: Rng) -> Keepers {
        let mut keepers = Keepers {
            nodes: vec![None, None, None],
            leader: 0,
            term: 1,
            log: Vec::new(),
            groups: Groups::default(),
            rng,
        };
        keepers.begin(0, 0);
        keepers
    }

    pub fn leader(&self) -> usize {
        self.leader
    }

    /// The groups as the log has them.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    fn append(&mut self, records: Vec<GroupRecord>) {
        for record in records {
            let decoded = GroupRecord::decode(&record.encode()).expect("a record comes back");
            self.groups.apply(&decoded).expect("the log makes sense");
            self.log.push(record);
        }
    }

    fn read_log_anew(&mut self) {
        self.groups = Groups::default();
        let log = std::mem::take(&mut self.log);
        self.append(log);
    }

    fn begin(&mut self, node: usize, now: u64) {
        self.read_log_anew();
        let coordinator = Coordinator::new(Term(self.term), self.groups.clone(), Millis(now));
        let next_look = now + LOOK_MS;
        self.nodes[node] = Some(Keeper {
            coordinator,
            queue: Vec::new(),
            committing: None,
            until: None,
            next_look,
        });
    }

    /// Another node leads from now on; says who may have been promised something all the same.
    pub fn fail_over(&mut self, now: u64) {
        let (old, lingers) = (self.leader, self.rng.between(0..=LINGER_MS));
        let next = (old + 1 + self.rng.below(2) as usize) % self.nodes.len();
        if let Some(keeper) = &mut self.nodes[old] {
            keeper.until = Some(now + lingers);
            // What was on its way is with a majority, or it is not.
            let mut written = Vec::new();
            if keeper.committing.take().is_some() && self.rng.per_mille(500) {
                written = keeper.coordinator.decided().to_vec();
            }
            keeper.coordinator.dropped();
            self.append(written);
        }
        self.leader = next;
        self.term += 1;
        self.begin(next, now);
    }

    /// The log begins anew with all that is known.
    pub fn begin_log_anew(&mut self) {
        let Some(keeper) = &self.nodes[self.leader] else { return };
        if keeper.committing.is_none() {
            self.log = keeper.coordinator.groups().to_records().collect();
            self.read_log_anew();
        }
    }

    /// A request comes to a node.
    pub fn ask(&mut self, node: usize, caller: Caller, request: GroupRequest) -> Option<Answered> {
        match &mut self.nodes[node] {
            Some(keeper) => {
                keeper.queue.push((caller, request));
                None
            }
            None => Some((caller, Err(WireError::new(ErrorCode::NotLeader, "not here")))),
        }
    }

    /// What the nodes do at a moment.
    pub fn step(&mut self, now: u64, cluster: &ClusterImage) -> Said {
        let mut said = Said::default();
        for node in 0..self.nodes.len() {
            if self.nodes[node]
                .as_ref()
                .is_some_and(|it| it.until.is_some_and(|until| until <= now))
            {
                self.nodes[node] = None;
            }
            let leads = node == self.leader;
            let Some(keeper) = &mut self.nodes[node] else { continue };
            if let Some((_, answers)) = keeper.committing.take_if(|(at, _)| *at <= now) {
                let written = keeper.coordinator.decided().to_vec();
                keeper.coordinator.committed().expect("a decision fits");
                said.answers.extend(answers);
                said.committed = true;
                self.append(written);
            }
            let Some(keeper) = &mut self.nodes[node] else { continue };
            if keeper.committing.is_none() {
                let commit_ms = self.rng.between(1..=40);
                keeper.decide(now, cluster, leads, now + commit_ms, &mut said.answers);
            }
        }
        said
    }
}

impl Keeper {
    /// Decides all that waits; who leads no more commits nothing, and answers what needs no commit.
    fn decide(
        &mut self,
        now: u64,
        cluster: &ClusterImage,
        leads: bool,
        committed_at: u64,
        said: &mut Vec<Answered>,
    ) {
        let wall = Timestamp(now as i64);
        let at = Moment { now: Millis(now), wall, cluster, offsets_kept_ms: OFFSETS_KEPT_MS };
        if self.next_look <= now {
            self.next_look = now + LOOK_MS;
            self.coordinator.look_around(at);
            if !self.coordinator.decided().is_empty() {
                if leads {
                    self.committing = Some((committed_at, Vec::new()));
                } else {
                    self.coordinator.dropped();
                }
                return;
            }
        }
        let mut answers = Vec::new();
        for (caller, request) in self.queue.drain(..) {
            answers.push((caller, self.coordinator.decide(at, &request)));
        }
        if self.coordinator.decided().is_empty() {
            said.append(&mut answers);
        } else if leads {
            self.committing = Some((committed_at, answers));
        } else {
            // The answers are lost with what they rest on.
            self.coordinator.dropped();
        }
    }
}

const LOOK_MS: u64 = 500;
/// Less than a new coordinator adds to everybody's first session.
const LINGER_MS: u64 = 3_000;
const OFFSETS_KEPT_MS: u64 = 7 * 24 * 3_600_000;
