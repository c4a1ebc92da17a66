//! The controller at scale: a hundred brokers, ten thousand partitions, one thread, one seed.
//!
//! The real commands, records, images, placement, sessions, moves and the real difference of images
//! that opens and closes replicas; Raft and the logs of partitions are not here but for what a move
//! needs of them (`groups`). Brokers follow the controller's log late and unevenly, are killed and begin
//! again with an image that they saved some time ago; the controller changes, before and after a
//! decision is committed. Watched: every image is the same at the same place, every broker hosts
//! what its image says, nobody deletes a replica that votes, moves are bounded and come to an end.
//!
//! Time is counted in rounds of 100 ms. What things cost is measured with the caller's stopwatch.
//! Read `story` and `busy` for what is played, then this.

pub mod busy;
pub mod cost;
pub mod groups;
pub mod host;
pub mod log;
mod own;
pub mod story;
mod strike;

use std::collections::VecDeque;

use bytes::Bytes;
use highwater_protocol::error::WireError;
use highwater_protocol::ids::{NodeId, PartitionId, TopicPartition};

use self::cost::{Act, Costs, Stopwatch};
use self::groups::{Groups, Word};
use self::host::Host;
use self::log::Log;
use crate::controller::liveness::{Heard, REGISTRATION_REPEAT_MS};
use crate::controller::moves::{MoveCommand, MoveId};
use crate::controller::{ClusterImage, Command, CommandReply, Controller, MetadataRecord};
use crate::raft::Millis;
use crate::shard::event::AfterClose;
use crate::sim::rng::Rng;
use crate::sim::wishes;

/// A fleet of brokers.
pub struct Fleet {
    rng: Rng,
    now: Millis,
    hosts: Vec<Host>,
    log: Log,
    leading: Option<Leading>,
    /// When a next controller is elected.
    election_at: Millis,
    groups: Groups,
    asked: VecDeque<Asked>,
    next_move: u64,
    /// Until when brokers do not hear the controller's log, although they run.
    deaf_until: Vec<Millis>,
    log_records_max: u64,
    strike: Strike,
    demand: busy::Demand,
    rests: busy::Rests,
    /// What everything has cost.
    pub costs: Costs,
    /// What happened.
    pub seen: Seen,
}

/// The broker that leads the controller, by its place.
struct Leading {
    at: usize,
    controller: Controller,
}

/// A command, and whom the answer is for.
struct Asked {
    command: Command,
    word: Option<Word>,
    /// What is asked in quiet times is not refused.
    during: Strike,
}

/// What happened in a run; a run in which nothing happens would pass as well.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Controllers elected.
    pub elections: u64,
    /// Brokers killed.
    pub kills: u64,
    /// Moves that drains began.
    pub drained: u64,
    /// Moves that were asked to go back.
    pub cancelled: u64,
    /// Decisions that died with their controller before they were committed.
    pub lost_decisions: u64,
    /// Commands answered by a controller that died before it could say so.
    pub lost_answers: u64,
    /// Moves that the controller began by itself.
    pub own_moves: u64,
    /// Images written into the log.
    pub images_written: u64,
    /// Brokers that found the log begun anew behind their back.
    pub began_behind: u64,
}

/// What strikes while a fleet runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// Nothing.
    Calm,
    /// Brokers die and return, controllers die amid decisions, moves are cancelled.
    Storm,
    /// Now and then a broker goes, for seconds or for minutes.
    Tide,
}

impl Fleet {
    /// Brokers that know nothing yet, spread over racks.
    pub fn new(seed: u64, brokers: u32, racks: u32, stopwatch: Stopwatch) -> Fleet {
        let host = |number: u32| Host::new(NodeId(number), format!("rack-{}", number % racks));
        Fleet {
            rng: Rng::new(seed, "fleet"),
            now: Millis(0),
            hosts: (1..=brokers).map(host).collect(),
            log: Log::default(),
            leading: None,
            election_at: Millis(300),
            groups: Groups::default(),
            asked: VecDeque::new(),
            next_move: 1,
            deaf_until: vec![Millis(0); brokers as usize],
            log_records_max: LOG_RECORDS_MAX,
            strike: Strike::Calm,
            demand: busy::Demand::default(),
            rests: busy::Rests::default(),
            costs: Costs::new(stopwatch),
            seen: Seen::default(),
        }
    }

    /// The image of whoever is furthest.
    pub fn image(&self) -> &ClusterImage {
        let furthest = self.hosts.iter().max_by_key(|host| (host.is_up(), host.applied()));
        furthest.expect("a fleet has brokers").image()
    }

    /// The brokers, by number.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The controller's log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// From now on this strikes.
    pub fn strike(&mut self, strike: Strike) {
        self.strike = strike;
    }

    /// An id that no move had before.
    pub fn draw_move(&mut self) -> MoveId {
        self.next_move += 1;
        MoveId(self.next_move)
    }

    /// Asks the controller for something; it is asked again until there is an answer.
    pub fn ask(&mut self, command: Command) {
        self.asked.push_back(Asked { command, word: None, during: self.strike });
    }

    /// Kills a broker.
    pub fn kill(&mut self, at: usize) {
        if self.hosts[at].is_up() {
            self.hosts[at].kill(self.now);
            self.seen.kills += 1;
        }
        if self.leading.as_ref().is_some_and(|leading| leading.at == at) {
            self.leading = None;
            self.election_at = Millis(self.now.0 + self.rng.between(300..=500));
        }
    }

    /// Starts a broker that is down.
    pub fn start(&mut self, at: usize) {
        if !self.hosts[at].is_up() {
            let host = &mut self.hosts[at];
            self.costs.of(Act::Load, || host.start());
        }
    }

    /// Which broker leads the controller.
    pub fn controller(&self) -> Option<usize> {
        self.leading.as_ref().map(|leading| leading.at)
    }

    /// Plays until this holds; it must within so many rounds.
    pub fn play_until(&mut self, rounds_max: u64, done: impl Fn(&Fleet) -> bool) {
        for _ in 0..rounds_max {
            if self.asked.is_empty() && done(self) {
                return;
            }
            self.round();
        }
        panic!("not within {rounds_max} rounds: {:?}", self.seen);
    }

    /// Whether all brokers have applied the whole log and are registered in their life.
    pub fn is_settled(&self) -> bool {
        let end = self.log.end();
        let settled = |host: &Host| {
            let known = host.image().broker(host.node());
            host.is_up()
                && host.applied() == end
                && known.is_some_and(|b| !b.fenced && b.registration == *host.registration())
        };
        self.hosts.iter().all(settled)
    }

    /// One round: 100 ms.
    pub fn round(&mut self) {
        self.now = Millis(self.now.0 + ROUND_MS);
        match self.strike {
            Strike::Calm => {}
            Strike::Storm => self.strike_at_random(),
            Strike::Tide => self.ebb_and_flow(),
        }
        self.elect();
        for at in 0..self.hosts.len() {
            self.follow_some(at);
        }
        self.register_some();
        self.tell_loads();
        let words = match self.leading.as_ref() {
            Some(leading) => {
                let image = self.hosts[leading.at].image();
                self.groups.step(image, &self.hosts, &mut self.rng)
            }
            None => Vec::new(),
        };
        for word @ (partition, id, step) in words {
            let command = Command::Moves(MoveCommand::Step(partition, id, step));
            self.asked.push_back(Asked { command, word: Some(word), during: self.strike });
        }
        self.decide_all();
        if self.now.0.is_multiple_of(LOOK_EVERY_MS) {
            self.look_around();
        }
        if self.strike == Strike::Storm {
            self.check_one();
        }
    }

    /// One broker that is as far as another has the same image, whichever way it came there.
    fn check_one(&mut self) {
        let host = self.rng.pick(&self.hosts);
        let other = self.rng.pick(&self.hosts);
        if host.is_up() && other.is_up() && host.applied() == other.applied() {
            let (a, b) = (host.node(), other.node());
            assert!(host.image() == other.image(), "brokers {a} and {b} differ in their images");
        }
    }

    /// A broker with a vote that is up takes the lead, with everything that is committed.
    fn elect(&mut self) {
        if self.leading.is_some() || self.now < self.election_at {
            return;
        }
        let voters = self.hosts.len().min(VOTERS);
        let up: Vec<usize> = (0..voters).filter(|at| self.hosts[*at].is_up()).collect();
        if up.len() * 2 <= voters {
            return;
        }
        let at = *self.rng.pick(&up);
        // It leads with everything that is committed: an older image may lack whole topics.
        self.follow(at, self.log.end());
        let controller = Controller::new(self.hosts[at].node(), &[], SESSION_MS, self.now);
        self.leading = Some(Leading { at, controller });
        self.seen.elections += 1;
        self.rests.forget();
    }

    /// Most brokers are near the end of the log, some are behind by a few batches.
    fn follow_some(&mut self, at: usize) {
        if !self.hosts[at].is_up() || self.rng.per_mille(200) || self.now < self.deaf_until[at] {
            return;
        }
        let end = self.log.end();
        let upto = match self.rng.per_mille(200) {
            true => self.log.batch_at(end.saturating_sub(self.rng.below(20))),
            false => end,
        };
        self.follow(at, upto);
        if self.rng.per_mille(50) && self.hosts[at].is_unsaved() {
            let host = &mut self.hosts[at];
            self.costs.of(Act::Save, || host.save());
        }
    }

    fn follow(&mut self, at: usize, upto: u64) {
        let host = &mut self.hosts[at];
        if host.applied() >= upto {
            return;
        }
        if host.applied() < self.log.start() {
            self.seen.began_behind += 1;
            // Half of an image is never seen: it is one batch.
            if upto <= self.log.start() {
                return;
            }
        }
        let log = &self.log;
        let closed = self.costs.of(Act::Follow, || host.follow(log, upto));
        if closed.iter().any(|(_, after)| *after == AfterClose::Delete) {
            self.costs.of(Act::Save, || host.save());
        }
        for (partition, after) in closed {
            if host.image().topic(partition.topic).is_some() {
                let node = host.node();
                assert_eq!(after, AfterClose::Delete, "{partition}: broker {node} is not told to");
                self.groups.check_delete(partition, node);
            }
        }
    }

    /// Every broker says every three seconds that it lives, and until it is registered; and each second what
    /// it has given up.
    fn register_some(&mut self) {
        for host in &self.hosts {
            let known = host.image().broker(host.node()).map(|broker| &broker.registration);
            let turn = (self.now.0 + u64::from(host.node().0) * ROUND_MS)
                .is_multiple_of(REGISTRATION_REPEAT_MS);
            if host.is_up() && (turn || known != Some(host.registration())) {
                let command = Command::Register(host.registration().clone());
                self.asked.push_back(Asked { command, word: None, during: self.strike });
            }
            let second = (self.now.0 + u64::from(host.node().0) * ROUND_MS).is_multiple_of(1_000);
            if let Some(word) = host.gives_up().filter(|_| host.is_up() && second) {
                let command = Command::Moves(MoveCommand::GivenUp(word));
                // It may have another life by then, or be registered anew.
                self.asked.push_back(Asked { command, word: None, during: self.strike });
            }
        }
    }

    /// As the controller's task does: each is decided on what those before it will have made.
    fn decide_all(&mut self) {
        let Some(Leading { at, mut controller }) = self.leading.take() else { return };
        self.follow(at, self.log.end());
        let dies_before = self.strike == Strike::Storm && self.rng.per_mille(20);
        let dies_after = self.strike == Strike::Storm && self.rng.per_mille(20);
        let asked = std::mem::take(&mut self.asked);
        let (mut records, mut answers) = (Vec::new(), Vec::new());
        let mut image = self.hosts[at].image().clone();
        for Asked { command, word, during } in &asked {
            let before = image.clone();
            let (image, now) = (&mut image, self.now);
            let answer = self.costs.of(Act::Decide, || {
                decide(&mut controller, image, command.clone(), now, &mut records)
            });
            check_room(&before, image);
            answers.push((*word, *during, answer));
        }
        if dies_before {
            self.seen.lost_decisions += 1;
        } else if !records.is_empty() {
            self.log.push(records);
        }
        if dies_before || dies_after {
            self.seen.lost_answers += 1;
            self.kill_leader(at);
            // Whoever asked asks again; a leader of a partition looks anew.
            self.asked = asked.into_iter().filter(|asked| asked.word.is_none()).collect();
            return;
        }
        for (word, during, answer) in answers {
            match word {
                Some(word) => self.groups.answered(word, answer.is_ok()),
                None => check_answer(during, answer),
            }
        }
        self.follow(at, self.log.end());
        self.leading = Some(Leading { at, controller });
    }

    fn kill_leader(&mut self, at: usize) {
        self.election_at = Millis(self.now.0 + self.rng.between(300..=500));
        self.hosts[at].kill(self.now);
        self.seen.kills += 1;
    }

    /// As the controller's task does each half second.
    fn look_around(&mut self) {
        let Some(Leading { at, mut controller }) = self.leading.take() else { return };
        self.follow(at, self.log.end());
        let now = self.now;
        let ago = |host: &Host| match host.down_since() {
            Some(since) => now.0 - since.0,
            None => 50,
        };
        let heard = |host: &Host| Heard { node: host.node(), ago_ms: Some(ago(host)) };
        let heard: Vec<Heard> = self.hosts.iter().map(heard).collect();
        let image = self.hosts[at].image();
        let records = self.costs.of(Act::Judge, || controller.judge(image, &heard, now));
        let held = self.log.end() - self.log.start();
        if !records.is_empty() {
            self.log.push(records.iter().map(MetadataRecord::encode).collect());
        } else if held > image.records() + self.log_records_max {
            let whole = self.costs.of(Act::Image, || encode_image(image));
            let base = self.log.push(whole);
            self.log.trim_before(base);
            self.seen.images_written += 1;
        }
        let mut after = image.clone();
        records
            .iter()
            .for_each(|record| after.apply(record).expect("it was decided on this image"));
        check_room(image, &after);
        own::check_rates(&after);
        self.seen.own_moves += own::check(image, &records, &self.hosts, now);
        self.rests.check(&records, now);
        self.leading = Some(Leading { at, controller });
    }

    /// What must hold once everything is quiet.
    pub fn check_all(&self) {
        let image = self.image();
        for host in &self.hosts {
            host.check();
            assert!(host.image() == image, "broker {} has another image", host.node());
        }
        self.groups.check_settled(image);
    }
}

fn decide(
    controller: &mut Controller,
    image: &mut ClusterImage,
    command: Command,
    now: Millis,
    records: &mut Vec<Bytes>,
) -> Result<CommandReply, WireError> {
    let (decided, reply) = controller.decide(image, command, now)?;
    for record in decided {
        image.apply(&record).expect("a decision fits the image that it was made on");
        records.push(record.encode());
    }
    Ok(reply)
}

fn check_answer(during: Strike, answer: Result<CommandReply, WireError>) {
    if let Err(error) = answer {
        // A move may have ended, or a broker died, since it was asked for.
        assert_ne!(during, Strike::Calm, "refused in quiet times: {error}");
    }
}

/// The batch that begins a log anew.
pub fn encode_image(image: &ClusterImage) -> Vec<Bytes> {
    let records = std::iter::once(MetadataRecord::BeginImage).chain(image.to_records());
    records.map(|record| record.encode()).collect()
}

/// The partitions with a move that is not over.
pub fn moving(image: &ClusterImage) -> Vec<TopicPartition> {
    let of = |topic: &crate::controller::image::Topic| {
        let numbers: Vec<PartitionId> = topic.moving().map(|(number, _)| number).collect();
        let id = topic.id;
        numbers.into_iter().map(move |number| TopicPartition::new(id, number))
    };
    image.topics().flat_map(|topic| of(topic)).collect()
}

fn check_room(before: &ClusterImage, after: &ClusterImage) {
    let copying = wishes::begun_beyond_the_limit(before, after);
    assert!(copying.is_none(), "{copying:?} moves are under way at once");
}

const ROUND_MS: u64 = 100;
const LOOK_EVERY_MS: u64 = 500;
const SESSION_MS: u64 = 3_000;
/// Brokers with a vote in the controller's partition: the first ones.
const VOTERS: usize = 5;
/// Small, so that logs begin anew often enough to be seen.
const LOG_RECORDS_MAX: u64 = 60;
