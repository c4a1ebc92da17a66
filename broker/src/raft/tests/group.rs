//! A group of Rafts with toy logs, a lossy network and disks that forget what was not flushed. After
//! every event it checks: one leader per term, leaders hold what is committed, committed entries
//! never change, votes never change, and Suspects do not vote.

use std::collections::BTreeMap;

use highwater_protocol::batch::VoterSet;
use highwater_protocol::ids::{LogIndex, NodeId, Position, Term};
use highwater_protocol::peer::RaftMessage;

use super::super::{
    Arrival, Counts, FrameSpan, HardState, Intake, Millis, Options, Raft, Start, Suspicion,
    TermStart, TermStarts, Trust,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub term: Term,
    pub end: LogIndex,
    /// Tells apart what two leaders wrote at one place.
    pub value: u64,
    pub voters: Option<VoterSet>,
}

#[derive(Debug, Clone)]
pub enum Payload {
    Raft(RaftMessage),
    Append {
        term: Term,
        prev: Position,
        commit: LogIndex,
        frames: Vec<Frame>,
    },
    /// "This is my life": the answer to what was meant for an earlier one. A learner that came back
    /// would else never be heard of, since it speaks only when spoken to.
    Life,
}

#[derive(Debug, Clone)]
pub struct Letter {
    pub from: NodeId,
    pub to: NodeId,
    pub lives: (u64, u64),
    pub payload: Payload,
}

pub struct Node {
    pub raft: Raft,
    pub log: Vec<Frame>,
    pub saved: HardState,
    pub life: u64,
    pub up: bool,
    pub target: Option<VoterSet>,
    flushed: LogIndex,
    lives_known: BTreeMap<NodeId, u64>,
}

pub struct Group {
    pub now: Millis,
    pub nodes: BTreeMap<NodeId, Node>,
    pub letters: Vec<Letter>,
    pub options: Options,
    pub committed: Vec<Frame>,
    pub elections: usize,
    made_with: VoterSet,
    leaders: BTreeMap<Term, NodeId>,
    votes: BTreeMap<(NodeId, Term), NodeId>,
    next_value: u64,
}

pub fn set(voters: &[u32], learners: &[u32]) -> VoterSet {
    let nodes = |list: &[u32]| list.iter().copied().map(NodeId).collect();
    VoterSet { voters: nodes(voters), learners: nodes(learners) }
}

fn end_of(log: &[Frame]) -> LogIndex {
    log.last().map_or(LogIndex::ZERO, |frame| frame.end)
}

pub fn shape_of(log: &[Frame]) -> TermStarts {
    let mut starts: Vec<TermStart> = Vec::new();
    let mut start = LogIndex::ZERO;
    for frame in log {
        if starts.last().is_none_or(|last| last.term < frame.term) {
            starts.push(TermStart { term: frame.term, start });
        }
        start = frame.end;
    }
    TermStarts::new(Position::default(), starts, start)
}

impl Group {
    pub fn new(voters: &[u32], learners: &[u32], seed: u64, options: Options) -> Group {
        let mut group = Group {
            now: Millis(0),
            nodes: BTreeMap::new(),
            letters: Vec::new(),
            options,
            committed: Vec::new(),
            elections: 0,
            made_with: set(voters, learners),
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            next_value: 0,
        };
        for node in voters.iter().chain(learners) {
            group.open(NodeId(*node), Vec::new(), HardState::default(), 1, Suspicion::None, seed);
        }
        group
    }

    pub fn open(
        &mut self,
        me: NodeId,
        log: Vec<Frame>,
        saved: HardState,
        life: u64,
        suspicion: Suspicion,
        seed: u64,
    ) {
        let sets = log.iter().filter_map(|frame| Some((frame.end, frame.voters.clone()?)));
        let start = Start {
            me,
            hard: saved,
            term_min: Term(0),
            terms: shape_of(&log),
            flushed: end_of(&log),
            made_with: self.made_with.clone(),
            changes: sets.collect(),
            suspicion,
            seed: seed.wrapping_mul(31) + u64::from(me.0) * 1_000_003 + life,
        };
        let raft = Raft::new(start, self.options, self.now);
        let flushed = end_of(&log);
        let lives_known = BTreeMap::new();
        let node = Node { raft, log, saved, life, up: true, target: None, flushed, lives_known };
        self.nodes.insert(me, node);
    }

    pub fn node(&self, id: u32) -> &Node {
        &self.nodes[&NodeId(id)]
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |(_, node): &(&NodeId, &Node)| node.up && node.raft.is_leader();
        self.nodes.iter().filter(leads).max_by_key(|(_, node)| node.raft.term()).map(|(id, _)| *id)
    }

    /// A restart that keeps the log's first `kept` entries at least up to a frame's end.
    pub fn restart(&mut self, id: NodeId, kept: LogIndex, suspicion: Suspicion, seed: u64) {
        let node = self.nodes.remove(&id).expect("it exists");
        let log: Vec<Frame> = node.log.into_iter().filter(|frame| frame.end <= kept).collect();
        let saved = match suspicion {
            Suspicion::None | Suspicion::LostTail | Suspicion::Damage => node.saved,
            Suspicion::LostIdentity => HardState::default(),
        };
        self.votes.retain(|(voter, _), _| *voter != id || suspicion != Suspicion::LostIdentity);
        self.open(id, log, saved, node.life + 1, suspicion, seed);
    }

    pub fn flushed_end(&self, id: NodeId) -> LogIndex {
        self.nodes[&id].flushed
    }

    pub fn flush(&mut self, id: NodeId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).expect("it exists");
        node.flushed = end_of(&node.log);
        node.raft.flushed(now, node.flushed);
        self.finish(id);
    }

    pub fn tick(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("it exists");
        if self.now >= node.raft.next_deadline() {
            node.raft.tick(self.now);
        }
        self.finish(id);
    }

    pub fn heartbeats(&mut self, id: NodeId) {
        let now = self.now;
        self.nodes.get_mut(&id).expect("it exists").raft.heartbeats(now);
        self.finish(id);
    }

    /// Appends `width` records as one frame at the leader.
    pub fn produce(&mut self, id: NodeId, width: u64) -> bool {
        let node = &self.nodes[&id];
        let ready = node.raft.is_leader() && !node.raft.term_mark_due();
        if ready && node.raft.transferring_to().is_none() {
            let end = self.append_own(id, width, None);
            let now = self.now;
            self.nodes.get_mut(&id).expect("it exists").raft.appended(now, end);
            self.finish(id);
        }
        ready
    }

    fn append_own(&mut self, id: NodeId, width: u64, voters: Option<VoterSet>) -> LogIndex {
        self.next_value += 1;
        let node = self.nodes.get_mut(&id).expect("it exists");
        let end = end_of(&node.log).advance(width);
        node.log.push(Frame { term: node.raft.term(), end, value: self.next_value, voters });
        end
    }

    pub fn deliver(&mut self, letter: Letter) {
        let Letter { from, to, lives, payload } = letter;
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&to) else { return };
        let known = node.lives_known.entry(from).or_insert(0);
        if !node.up || lives.0 < *known {
            return;
        }
        if lives.1 != 0 && lives.1 != node.life {
            let lives = (node.life, lives.0);
            self.letters.push(Letter { from: to, to: from, lives, payload: Payload::Life });
            return;
        }
        if *known < lives.0 {
            *known = lives.0;
            node.raft.peer_restarted(from);
        }
        match payload {
            Payload::Raft(message) => match message {
                RaftMessage::Vote(request) => {
                    if lives.1 != 0 {
                        node.raft.end_reported(from, request);
                    }
                    node.raft.receive_vote(now, from, request);
                }
                RaftMessage::VoteAnswer(answer) => node.raft.receive_vote_answer(now, from, answer),
                RaftMessage::AppendAnswer(answer) => {
                    node.raft.receive_append_answer(now, from, answer);
                }
                RaftMessage::Heartbeat(heartbeat) => {
                    node.raft.receive_heartbeat(now, from, heartbeat);
                }
                RaftMessage::HeartbeatAnswer(answer) => {
                    node.raft.receive_heartbeat_answer(now, from, answer);
                }
                RaftMessage::TimeoutNow { term } => node.raft.receive_timeout_now(now, from, term),
                RaftMessage::Append(_) | RaftMessage::Wanted(_) | RaftMessage::Found(_) => {
                    panic!("appends travel with frames here, and no log rots")
                }
            },
            Payload::Life => {}
            Payload::Append { term, prev, commit, frames } => {
                node.take_append(now, from, term, prev, commit, frames);
            }
        }
        self.finish(to);
    }

    /// What a host does at the end of a pass.
    pub fn finish(&mut self, id: NodeId) {
        let now = self.now;
        if self.nodes[&id].raft.term_mark_due() {
            let end = self.append_own(id, 1, None);
            self.nodes.get_mut(&id).expect("it exists").raft.appended_term_mark(now, end);
        }
        let node = self.nodes.get_mut(&id).expect("it exists");
        if node.target.as_ref().is_some_and(|target| node.raft.must_renew(target)) {
            node.raft.renew(now);
        }
        let node = &self.nodes[&id];
        let step =
            node.target.as_ref().and_then(|target| node.raft.next_voter_set(self.now, target));
        if let Some(set) = step {
            let end = self.append_own(id, 1, Some(set.clone()));
            self.nodes.get_mut(&id).expect("it exists").raft.appended_voters(now, end, set);
        }
        let node = self.nodes.get_mut(&id).expect("it exists");
        let mut letters = Vec::new();
        while let Some(plan) = node.raft.next_send(now) {
            letters.push((plan.to, node.read_append(now, plan.to, plan.from, plan.bytes_max)));
        }
        if let Some(hard) = node.raft.take_dirty_hard_state() {
            node.saved = hard;
        }
        let messages = node.raft.take_messages();
        for sent in &messages {
            if let RaftMessage::VoteAnswer(answer) = sent.message {
                assert!(!(answer.granted && node.raft.is_suspect()), "a Suspect voted");
            }
        }
        letters.extend(messages.into_iter().map(|sent| (sent.to, Payload::Raft(sent.message))));
        for (to, payload) in letters {
            let lives = (node.life, node.lives_known.get(&to).copied().unwrap_or(0));
            let stranger =
                matches!(payload, Payload::Raft(RaftMessage::Vote(_) | RaftMessage::Heartbeat(_)));
            if lives.1 != 0 || stranger {
                self.letters.push(Letter { from: id, to, lives, payload });
            }
        }
        self.check(id);
    }

    fn check(&mut self, id: NodeId) {
        let node = &self.nodes[&id];
        let raft = &node.raft;
        assert_eq!(raft.last().index, end_of(&node.log), "shape and log part ways");
        if let Some(vote) = node.saved.vote {
            let first = *self.votes.entry((id, node.saved.term)).or_insert(vote);
            assert_eq!(first, vote, "{id} voted twice in term {}", node.saved.term);
        }
        let commit = raft.commit();
        for (at, frame) in node.log.iter().take_while(|frame| frame.end <= commit).enumerate() {
            match self.committed.get(at) {
                Some(known) => assert_eq!(known, frame, "{id} commits something else"),
                None => self.committed.push(frame.clone()),
            }
        }
        if raft.is_leader() {
            let first = *self.leaders.entry(raft.term()).or_insert_with(|| {
                self.elections += 1;
                id
            });
            assert_eq!(first, id, "two leaders in term {}", raft.term());
            let newest =
                self.leaders.last_key_value().is_some_and(|(term, _)| *term == raft.term());
            if newest {
                let holds = node.log.starts_with(&self.committed);
                assert!(holds, "leader {id} of term {} lacks committed entries", raft.term());
            }
        }
    }

    /// Delivers everything, ticks and flushes for `ms` milliseconds, without faults.
    pub fn run(&mut self, ms: u64) {
        for round in 0..ms / 10 {
            self.now.0 += 10;
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            for id in ids.into_iter().filter(|id| self.nodes[id].up).collect::<Vec<_>>() {
                self.tick(id);
                if round % (self.options.heartbeat_ms / 10) == 0 {
                    self.heartbeats(id);
                }
                self.flush(id);
            }
            for _ in 0..4 {
                for letter in std::mem::take(&mut self.letters) {
                    self.deliver(letter);
                }
            }
        }
    }

    /// Every node has the same log, and all of it is committed everywhere.
    pub fn assert_converged(&self) {
        let leader = self.leader().expect("there is a leader");
        let log = &self.nodes[&leader].log;
        let members = self.nodes[&leader].raft.voter_set();
        for (id, node) in &self.nodes {
            if members.voters.contains(id) || members.learners.contains(id) {
                let agree = node.log.iter().zip(log).take_while(|(a, b)| a == b).count();
                let (has, all) = (node.log.len(), log.len());
                assert!(agree == all && has == all, "{id}: {has} frames, {agree} of {all} agree");
                assert_eq!(node.raft.commit(), end_of(log), "{id} does not know the commit");
            }
        }
    }
}

impl Node {
    /// Whether it lost nothing, or has made good for it.
    pub fn is_sound(&self) -> bool {
        self.raft.trust == Trust::Full
    }

    fn read_append(
        &mut self,
        now: Millis,
        to: NodeId,
        from: LogIndex,
        bytes_max: usize,
    ) -> Payload {
        let skip = self.log.partition_point(|frame| frame.end <= from);
        let prev = end_of(&self.log[..skip]);
        // A frame weighs 20 KiB here, so that bounds are felt.
        let count = (bytes_max / (20 << 10)).max(1);
        let frames: Vec<Frame> = self.log[skip..].iter().take(count).cloned().collect();
        let end = frames.last().map_or(prev, |frame| frame.end);
        let (term, prev_at) = (self.raft.term(), self.raft.prev(prev));
        self.raft.sent(now, to, prev, end, frames.len() * (20 << 10));
        Payload::Append { term, prev: prev_at, commit: self.raft.commit(), frames }
    }

    fn take_append(
        &mut self,
        now: Millis,
        from: NodeId,
        term: Term,
        prev: Position,
        commit: LogIndex,
        frames: Vec<Frame>,
    ) {
        let spans: Vec<FrameSpan> =
            frames.iter().map(|frame| FrameSpan { term: frame.term, end: frame.end }).collect();
        let sets = frames.iter().filter_map(|frame| Some((frame.end, frame.voters.clone()?)));
        let voter_sets = sets.collect();
        let arrival = Arrival { term, prev, commit, frames: &spans, voter_sets };
        match self.raft.receive_append(now, from, arrival) {
            Intake::Nothing => {}
            Intake::Store { cut, skip } => {
                if let Some(cut) = cut {
                    self.log.retain(|frame| frame.end <= cut);
                    self.flushed = self.flushed.min(cut);
                }
                self.log.extend(frames.into_iter().skip(skip));
            }
        }
    }
}

pub fn counting(counts: Counts) -> Options {
    Options { counts, ..Options::default() }
}
