//! Time, the network, what strikes, and what must hold.

use std::collections::BTreeMap;
use std::fmt;

use highwater_protocol::error::WireError;
use highwater_protocol::ids::{
    DirectoryId, Incarnation, NodeId, PartitionId, TopicId, TopicPartition,
};
use highwater_protocol::native::groups::{
    Assignor, GroupId, GroupState, MemberId, MemberProfile, Returns,
};
use uuid::Uuid;

use super::keeper::{Caller, Keepers};
use super::reader::{Did, Reader};
use super::swarm::Swarm;
use crate::controller::record::{BrokerRegistration, PlacedReplica};
use crate::controller::{ClusterImage, MetadataRecord};
use crate::groups::image::Group;
use crate::groups::{GroupAnswer, GroupRequest};
use crate::sim::rng::Rng;
use crate::sim::trace::Trace;

/// What happened in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// The hash of all that happened.
    pub hash: u64,
    /// Commits that were answered.
    pub commits: u64,
    /// Partitions that were given up for somebody else.
    pub revoked: u64,
    /// Failovers of the coordinator.
    pub failovers: u64,
    /// Members that ended without a word.
    pub crashes: u64,
    /// Members that kept a place by their name.
    pub returned: u64,
}

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which, and where.
    pub what: String,
    /// The last things that happened before.
    pub last: Vec<String>,
}

/// Plays one seed.
///
/// # Errors
/// The first rule that does not hold.
pub fn play(seed: u64) -> Result<Seen, Broken> {
    World::new(seed).play()
}

pub(super) struct World {
    pub now: u64,
    rng: Rng,
    pub keepers: Keepers,
    cluster: ClusterImage,
    partitions: BTreeMap<u128, u32>,
    pub readers: BTreeMap<usize, Reader>,
    names: BTreeMap<usize, String>,
    last_reader: usize,
    post: BTreeMap<(u64, u64), Letter>,
    last_letter: u64,
    pub swarm: Swarm,
    /// How far each partition was handled without a gap.
    handled: BTreeMap<TopicPartition, u64>,
    acked: BTreeMap<TopicPartition, u64>,
    trace: Trace,
    seen: Seen,
}

enum Letter {
    Ask { node: usize, caller: Caller, request: GroupRequest },
    Answer { caller: Caller, answer: Result<GroupAnswer, WireError> },
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed, "groups");
        let swarm = Swarm::drawn(&mut rng);
        let mut world = World::empty(seed, rng, swarm);
        world.build();
        world
    }

    /// One without topics and members.
    pub fn empty(seed: u64, rng: Rng, swarm: Swarm) -> World {
        let keepers = Keepers::new(Rng::new(seed, "groups' coordinators"));
        let mut cluster = ClusterImage::default();
        let registration = BrokerRegistration {
            node: NodeId(1),
            incarnation: Incarnation(1),
            directory: DirectoryId(Uuid::from_u128(1)),
            rack: None,
            client_address: "b:1".into(),
            peer_address: "b:2".into(),
        };
        cluster.apply(&MetadataRecord::RegisterBroker(registration)).expect("it fits");
        World {
            now: 0,
            rng,
            keepers,
            cluster,
            partitions: BTreeMap::new(),
            readers: BTreeMap::new(),
            names: BTreeMap::new(),
            last_reader: 0,
            post: BTreeMap::new(),
            last_letter: 0,
            swarm,
            handled: BTreeMap::new(),
            acked: BTreeMap::new(),
            trace: Trace::default(),
            seen: Seen::default(),
        }
    }

    fn build(&mut self) {
        for number in 1..=self.rng.between(1..=2) {
            let count = self.rng.between(1..=12) as u32;
            self.create(u128::from(number), count);
        }
        for _ in 0..self.rng.between(1..=self.swarm.readers_max as u64) {
            self.join(None);
        }
    }

    /// Creates a topic.
    pub fn create(&mut self, number: u128, partitions: u32) {
        let (id, name) = (TopicId(Uuid::from_u128(number)), format!("t{number}"));
        let record = MetadataRecord::CreateTopic { id, name, configs: Vec::new() };
        self.cluster.apply(&record).expect("it fits");
        self.grow(number, partitions);
    }

    fn grow(&mut self, number: u128, by: u32) {
        let first = self.partitions.entry(number).or_default();
        let replica = PlacedReplica { node: NodeId(1), directory: DirectoryId(Uuid::from_u128(1)) };
        let record = MetadataRecord::CreatePartitions {
            topic: TopicId(Uuid::from_u128(number)),
            first: PartitionId(*first),
            partitions: vec![vec![replica]; by as usize],
        };
        self.cluster.apply(&record).expect("it fits");
        *first += by;
    }

    /// A member begins.
    pub fn join(&mut self, name: Option<String>) {
        self.last_reader += 1;
        let number = self.last_reader;
        let topics = self.partitions.keys().map(|number| format!("t{number}")).collect();
        let profile = MemberProfile {
            client_id: format!("r{number}"),
            instance: name.clone(),
            rack: None,
            topics,
            assignor: self.swarm.assignor,
            session_ms: self.swarm.session_ms as u32,
            rebalance_ms: 5_000,
        };
        let id = MemberId(Uuid::from_u128(1 << 64 | number as u128));
        let rng = Rng::new(self.rng.draw(), "a reader");
        self.trace.note(self.now * 1000, format_args!("reader {number} begins as {name:?}"));
        self.readers.insert(number, Reader::new(group(), id, profile, self.now, rng));
        self.names.extend(name.map(|name| (number, name)));
    }

    fn play(mut self) -> Result<Seen, Broken> {
        for _ in 0..STRIKES {
            self.strike();
            self.step(STEP_MS)?;
        }
        // What strikes has an end: everybody comes to rest.
        self.swarm.lose = 0;
        self.swarm.repeat = 0;
        self.swarm.delay = 0;
        if self.readers.is_empty() {
            self.join(None);
        }
        self.readers.values_mut().for_each(|reader| reader.paused_until = 0);
        self.end_twins();
        let rest_ms = 2 * self.swarm.session_ms + 30_000;
        for _ in 0..rest_ms / STEP_MS {
            self.step(STEP_MS)?;
        }
        self.check_rest()?;
        self.seen.hash = self.trace.hash();
        Ok(self.seen)
    }

    fn strike(&mut self) {
        if self.rng.per_mille(self.swarm.fail_over) {
            self.seen.failovers += 1;
            self.keepers.fail_over(self.now);
            let leader = self.keepers.leader();
            self.trace.note(self.now * 1000, format_args!("node {leader} leads"));
        }
        if self.rng.per_mille(1) {
            self.keepers.begin_log_anew();
        }
        if self.rng.per_mille(self.swarm.grow) {
            let numbers: Vec<u128> = self.partitions.keys().copied().collect();
            let number = *self.rng.pick(&numbers);
            self.grow(number, 1);
        }
        if self.readers.len() < self.swarm.readers_max && self.rng.per_mille(self.swarm.join) {
            let name = self.rng.per_mille(300).then(|| format!("name-{}", self.last_reader));
            self.join(name);
        }
        if self.rng.per_mille(self.swarm.twin) && !self.names.is_empty() {
            let names: Vec<String> = self.names.values().cloned().collect();
            let name = self.rng.pick(&names).clone();
            self.join(Some(name));
        }
        let numbers: Vec<usize> = self.readers.keys().copied().collect();
        if numbers.is_empty() {
            return;
        }
        let number = *self.rng.pick(&numbers);
        if self.rng.per_mille(self.swarm.pause) {
            let until = self.now + self.rng.long_tailed(self.swarm.session_ms / 2);
            self.trace.note(self.now * 1000, format_args!("reader {number} sleeps until {until}"));
            self.readers.get_mut(&number).expect("just listed").paused_until = until;
        } else if self.rng.per_mille(self.swarm.crash) {
            self.crash(number);
        } else if self.rng.per_mille(self.swarm.leave) {
            self.leave(number);
        }
    }

    fn leave(&mut self, number: usize) {
        let (request, name) = self.end(number);
        self.send(number, u64::MAX, request);
        if name.is_some() {
            self.seen.returned += 1;
            self.join(name);
        }
    }

    /// Ends a member well; gives its last words, and its name.
    pub fn end(&mut self, number: usize) -> (GroupRequest, Option<String>) {
        let mut reader = self.readers.remove(&number).expect("it runs");
        let name = self.names.remove(&number);
        let returns = if name.is_some() { Returns::Soon } else { Returns::No };
        self.trace.note(self.now * 1000, format_args!("reader {number} leaves: {returns:?}"));
        (reader.leave(returns, self.now), name)
    }

    /// Ends a member without a word; gives its name.
    pub fn crash(&mut self, number: usize) -> Option<String> {
        self.seen.crashes += 1;
        self.trace.note(self.now * 1000, format_args!("reader {number} is gone"));
        self.readers.remove(&number);
        self.names.remove(&number)
    }

    /// Of those who want the same name one can be a member.
    fn end_twins(&mut self) {
        let mut bearers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, name) in &self.names {
            bearers.entry(name.clone()).or_default().push(*number);
        }
        for numbers in bearers.into_values() {
            let is_member = |it: &&usize| self.readers[*it].membership.is_member();
            let stays = *numbers.iter().find(is_member).unwrap_or(&numbers[0]);
            for number in numbers.into_iter().filter(|it| *it != stays) {
                self.crash(number);
            }
        }
    }

    /// Lets time pass.
    pub fn step(&mut self, ms: u64) -> Result<(), Broken> {
        self.now += ms;
        while let Some(entry) = self.post.first_entry().filter(|it| it.key().0 <= self.now) {
            match entry.remove() {
                Letter::Ask { node, caller, request } => {
                    if let Some((caller, answer)) = self.keepers.ask(node, caller, request) {
                        self.answer(caller, answer);
                    }
                }
                Letter::Answer { caller, answer } => self.deliver(caller, answer)?,
            }
        }
        let said = self.keepers.step(self.now, &self.cluster);
        for (caller, answer) in said.answers {
            self.answer(caller, answer);
        }
        if said.committed {
            self.check_commits()?;
        }
        let numbers: Vec<usize> = self.readers.keys().copied().collect();
        for number in numbers {
            let reader = self.readers.get_mut(&number).expect("just listed");
            if reader.paused_until <= self.now {
                let did = reader.step(self.now);
                self.take(number, did)?;
            }
        }
        self.check_owners()
    }

    fn answer(&mut self, caller: Caller, answer: Result<GroupAnswer, WireError>) {
        self.put(Letter::Answer { caller, answer });
    }

    fn send(&mut self, number: usize, question: u64, request: GroupRequest) {
        let leader = self.keepers.leader();
        // It asks whoever it believes to lead.
        let node = if self.rng.per_mille(850) { leader } else { self.rng.below(3) as usize };
        if self.rng.per_mille(self.swarm.repeat) {
            // Sent again by its connection, perhaps to whoever leads later.
            let (node, request) = (self.rng.below(3) as usize, request.clone());
            self.put(Letter::Ask { node, caller: (number, u64::MAX), request });
        }
        self.put(Letter::Ask { node, caller: (number, question), request });
    }

    /// Sends what nobody waits for an answer to.
    pub fn tell_leader(&mut self, number: usize, request: GroupRequest) {
        let node = self.keepers.leader();
        self.put(Letter::Ask { node, caller: (number, u64::MAX), request });
    }

    fn put(&mut self, letter: Letter) {
        if self.rng.per_mille(self.swarm.lose) {
            return;
        }
        let late = self.rng.per_mille(self.swarm.delay);
        let delay_ms = if late { self.rng.below(8_000) } else { self.rng.between(1..=40) };
        self.last_letter += 1;
        self.post.insert((self.now + delay_ms, self.last_letter), letter);
    }

    fn deliver(
        &mut self,
        caller: Caller,
        answer: Result<GroupAnswer, WireError>,
    ) -> Result<(), Broken> {
        let (number, question) = caller;
        let Some(reader) = self.readers.get_mut(&number) else { return Ok(()) };
        if reader.paused_until > self.now {
            // It lies in its socket.
            self.last_letter += 1;
            let at = (reader.paused_until, self.last_letter);
            self.post.insert(at, Letter::Answer { caller, answer });
            return Ok(());
        }
        let did = reader.answered(question, answer, self.now);
        self.take(number, did)
    }

    fn take(&mut self, number: usize, did: Did) -> Result<(), Broken> {
        let Did { asks, revoked, began, handled, acked } = did;
        for partition in revoked {
            self.seen.revoked += 1;
            self.trace.note(self.now * 1000, format_args!("{number} is to give {partition} up"));
        }
        for (partition, start) in began {
            let done = self.handled.get(&partition).copied().unwrap_or_default();
            if start > done {
                let what = format!(
                    "reader {number} begins {partition} at {start}, and only {done} were handled"
                );
                return Err(self.broken(what));
            }
        }
        for (partition, at) in handled {
            let done = self.handled.entry(partition).or_default();
            *done = at.max(*done);
        }
        for (partition, at) in acked {
            self.seen.commits += 1;
            let known = self.acked.entry(partition).or_default();
            *known = at.max(*known);
            self.trace
                .note(self.now * 1000, format_args!("{number} has committed {partition} at {at}"));
        }
        for (question, request) in asks {
            self.send(number, question, request);
        }
        Ok(())
    }

    /// No partition has two owners who may both act.
    fn check_owners(&self) -> Result<(), Broken> {
        let mut owners: BTreeMap<TopicPartition, usize> = BTreeMap::new();
        for (number, reader) in &self.readers {
            // One that sleeps finds out before it does anything else.
            if !reader.membership.holds(self.now) {
                continue;
            }
            for partition in reader.membership.owned() {
                if let Some(other) = owners.insert(*partition, *number) {
                    let what = format!("readers {other} and {number} both own {partition}");
                    return Err(self.broken(what));
                }
            }
        }
        Ok(())
    }

    /// What was answered stays, and nothing is committed that nobody handled.
    fn check_commits(&self) -> Result<(), Broken> {
        let groups = self.keepers.groups();
        let empty = Group::default();
        let group = groups.get(&group()).unwrap_or(&empty);
        for (partition, acked) in &self.acked {
            let committed = group.offsets.get(partition).map_or(0, |it| it.offset.0);
            if committed < *acked {
                let what =
                    format!("{partition} is committed up to {committed}, and {acked} was answered");
                return Err(self.broken(what));
            }
        }
        for (partition, committed) in &group.offsets {
            let done = self.handled.get(partition).copied().unwrap_or_default();
            if committed.offset.0 > done {
                let what = format!(
                    "{partition} is committed at {}, handled up to {done}",
                    committed.offset
                );
                return Err(self.broken(what));
            }
        }
        // What bounds them goes by this number.
        let bytes: usize = group.offsets.values().map(|it| it.note.len()).sum();
        if bytes != group.note_bytes() {
            let what = format!("notes of {bytes} bytes are taken for {}", group.note_bytes());
            return Err(self.broken(what));
        }
        Ok(())
    }

    /// With nothing striking, every partition has one owner, and nobody much more than others.
    pub fn check_rest(&self) -> Result<(), Broken> {
        let groups = self.keepers.groups();
        let Some(known) = groups.get(&group()) else {
            return Err(self.broken("nobody is in the group in the end".to_owned()));
        };
        if known.state() != GroupState::Stable || known.members.len() != self.readers.len() {
            let members = known.members.len();
            let what = format!(
                "in the end it is {:?}, with {members} members of {}",
                known.state(),
                self.readers.len()
            );
            return Err(self.broken(what));
        }
        let owned: Vec<usize> =
            self.readers.values().map(|reader| reader.membership.owned().len()).collect();
        let all: u32 = self.partitions.values().sum();
        if owned.iter().sum::<usize>() != all as usize {
            return Err(self.broken(format!("{owned:?} of {all} partitions are owned in the end")));
        }
        let (least, most) = (owned.iter().min(), owned.iter().max());
        let even = most.zip(least).is_none_or(|(most, least)| most - least <= 1);
        if self.swarm.assignor == Assignor::Uniform && !even {
            return Err(self.broken(format!("partitions lie unevenly in the end: {owned:?}")));
        }
        if self.readers.values().any(|reader| reader.at.len() != reader.membership.owned().len()) {
            return Err(self.broken("somebody does not handle what it owns".to_owned()));
        }
        Ok(())
    }

    pub fn broken(&self, what: String) -> Broken {
        Broken { what: format!("at {} ms: {what}", self.now), last: self.trace.last() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.last.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        f.write_str(&self.what)
    }
}

fn group() -> GroupId {
    GroupId("group".to_owned())
}

const STEP_MS: u64 = 20;
/// A minute of strikes.
const STRIKES: u64 = 3_000;
