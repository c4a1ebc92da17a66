//! What is played with a fleet, chapter by chapter; each says what it has cost.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{NodeId, TopicId};
use highwater_protocol::native::admin::{CreateTopicRequest, DryRun};
use highwater_protocol::native::moves::{MoveWish, PlannedMove, ReassignRequest};
use highwater_protocol::native::settings::{AlterSettingsRequest, SettingScope};
use uuid::Uuid;

use super::cost::{Act, Cost, Stopwatch};
use super::{Fleet, Seen, Strike, encode_image, moving};
use crate::controller::moves::MoveCommand;
use crate::controller::throttle::ThrottleRecord;
use crate::controller::{ClusterImage, Command, balance};

/// How large the fleet is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Brokers, in ten racks.
    pub brokers: u32,
    /// Topics.
    pub topics: u32,
    /// Partitions of each, three replicas each.
    pub partitions_each: u32,
    /// For how many rounds the storm blows.
    pub storm_rounds: u64,
}

/// A chapter, and what it cost.
#[derive(Debug)]
pub struct Chapter {
    /// What was played.
    pub title: &'static str,
    /// By act.
    pub costs: BTreeMap<Act, Cost>,
    /// Records in the controller's log that it took.
    pub records: u64,
}

/// What a whole story came to.
#[derive(Debug)]
pub struct Story {
    /// One after the other.
    pub chapters: Vec<Chapter>,
    /// What happened in all of them.
    pub seen: Seen,
    /// Bytes of the image as records, at its largest.
    pub image_bytes: usize,
    /// The image at its largest.
    pub image: ClusterImage,
}

/// Plays everything; panics where something does not hold.
pub fn play(seed: u64, size: Size, stopwatch: Stopwatch) -> Story {
    let mut teller = Teller {
        fleet: Fleet::new(seed, size.brokers, RACKS, stopwatch),
        chapters: Vec::new(),
        told: 0,
    };
    teller.tell("brokers register", |fleet| fleet.play_until(200, Fleet::is_settled));
    teller.tell("topics are created", |fleet| create(fleet, size, 0));
    check_spread(teller.fleet.image());
    let image = teller.fleet.image().clone();
    let image_bytes = encode_image(&image).iter().map(|record| record.len()).sum();
    teller.tell("nothing happens for ten minutes", |fleet| (0..6_000).for_each(|_| fleet.round()));
    teller.tell("the controller fails over five times", fail_over);
    teller.tell("all brokers restart at once", restart_all);
    teller.tell("a broker is drained", |fleet| drain(fleet, NodeId(7)));
    teller.tell("it is filled again by balancing", fill_again);
    teller.tell("topics are created while a broker is filled", create_amid_moves);
    teller.tell("another is drained amid a storm", |fleet| storm(fleet, size.storm_rounds));
    teller.tell("what the storm left is balanced", |fleet| drop(balance(fleet)));
    teller.tell("a broker is away for long and is replaced", replace);
    teller.tell("it is back and filled without being asked", fill_unasked);
    teller.tell("brokers go and come", |fleet| tide(fleet, 10 * size.storm_rounds));
    teller.tell("topics are deleted", delete);
    let Teller { fleet, chapters, .. } = teller;
    Story { chapters, seen: fleet.seen, image_bytes, image }
}

struct Teller {
    fleet: Fleet,
    chapters: Vec<Chapter>,
    told: u64,
}

impl Teller {
    fn tell(&mut self, title: &'static str, chapter: impl FnOnce(&mut Fleet)) {
        chapter(&mut self.fleet);
        self.fleet.play_until(600, Fleet::is_settled);
        self.fleet.check_all();
        let records = self.fleet.log().end() - self.told;
        self.told += records;
        self.chapters.push(Chapter { title, costs: self.fleet.costs.take(), records });
    }
}

pub(super) fn create(fleet: &mut Fleet, size: Size, first: u32) {
    for number in first..first + size.topics {
        let request = CreateTopicRequest {
            name: format!("topic-{number}"),
            partitions: size.partitions_each,
            replication: Some(3),
            configs: Vec::new(),
            dry_run: DryRun::No,
        };
        fleet.ask(Command::CreateTopic { id: topic_id(number), request });
        fleet.round();
    }
}

fn topic_id(number: u32) -> TopicId {
    TopicId(Uuid::from_u128(0xA11 + u128::from(number)))
}

/// Every broker has its share, and no partition has two replicas in one rack.
fn check_spread(image: &ClusterImage) {
    let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
    for set in image.topics().flat_map(|topic| &topic.partitions) {
        let racks: BTreeSet<u32> = set.iter().map(|replica| replica.node.0 % RACKS).collect();
        assert_eq!(racks.len(), set.len(), "replicas of a partition lie in different racks");
        set.iter().for_each(|replica| *held.entry(replica.node).or_default() += 1);
    }
    let share = 3 * image.partitions() / image.brokers().count();
    for (node, held) in held {
        let near = share * 9 / 10..=share * 11 / 10 + 1;
        assert!(near.contains(&held), "broker {node} has {held} replicas, a share is {share}");
    }
}

fn fail_over(fleet: &mut Fleet) {
    for _ in 0..5 {
        let leader = fleet.controller().expect("in quiet times there is a controller");
        fleet.kill(leader);
        fleet.play_until(10, |fleet| fleet.controller().is_some());
        (0..50).for_each(|_| fleet.round());
        fleet.start(leader);
        fleet.play_until(100, Fleet::is_settled);
    }
}

fn restart_all(fleet: &mut Fleet) {
    let all = 0..fleet.hosts().len();
    all.clone().for_each(|at| fleet.kill(at));
    (0..100).for_each(|_| fleet.round());
    all.for_each(|at| fleet.start(at));
}

fn drain(fleet: &mut Fleet, node: NodeId) {
    ask_to_drain(fleet, node);
    fleet.play_until(100_000, |fleet| moving(fleet.image()).is_empty());
    let image = fleet.image();
    let mut left = image.topics().flat_map(|topic| &topic.partitions);
    let free = left.all(|set| set.iter().all(|replica| replica.node != node));
    assert!(free, "broker {node} is drained");
}

fn ask_to_drain(fleet: &mut Fleet, node: NodeId) {
    let before = moving(fleet.image()).len();
    assert_eq!(before, 0, "a drain begins in quiet times");
    let wish = MoveWish::Drain(node);
    let request = ReassignRequest { partitions: Vec::new(), wish, dry_run: DryRun::No };
    let id = fleet.draw_move();
    fleet.ask(Command::Moves(MoveCommand::Reassign(id, request)));
    fleet.play_until(100, |_| true);
    fleet.seen.drained += moving(fleet.image()).len() as u64;
}

/// An empty broker is as good as one that was added: it gets its share, and nothing else moves.
fn fill_again(fleet: &mut Fleet) {
    let (brokers, replicas) = (fleet.hosts().len(), 3 * fleet.image().partitions());
    let came = balance(fleet);
    let total: usize = came.values().sum();
    assert_eq!(came.keys().collect::<Vec<_>>(), [&NodeId(7)], "nothing else moves");
    assert!(total <= replicas.div_ceil(brokers), "{total} of {replicas} replicas moved");
}

/// What is on its way to a broker counts there, or small topics would all go to it as well.
fn create_amid_moves(fleet: &mut Fleet) {
    let filled = NodeId(8);
    drain(fleet, filled);
    begin_balance(fleet);
    assert!(!moving(fleet.image()).is_empty(), "broker {filled} is being filled");
    let first = fleet.image().topics().count() as u32;
    create(
        fleet,
        Size { brokers: 0, topics: SMALL_TOPICS, partitions_each: 1, storm_rounds: 0 },
        first,
    );
    fleet.play_until(100_000, |fleet| moving(fleet.image()).is_empty());
    let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
    let image = fleet.image();
    for set in image.topics().flat_map(|topic| &topic.partitions) {
        set.iter().for_each(|replica| *held.entry(replica.node).or_default() += 1);
    }
    let share = (3 * image.partitions()).div_ceil(image.brokers().count());
    let got = held[&filled];
    assert!(got <= share + 1, "broker {filled} got {got} replicas, a share is {share}");
}

/// Plans and carries out; gives how many replicas came to which broker.
fn balance(fleet: &mut Fleet) -> BTreeMap<NodeId, usize> {
    let came = begin_balance(fleet);
    fleet.play_until(100_000, |fleet| moving(fleet.image()).is_empty());
    check_even(fleet.image());
    came
}

/// Plans and asks for the moves; gives how many replicas go to which broker.
fn begin_balance(fleet: &mut Fleet) -> BTreeMap<NodeId, usize> {
    let (hosts, placed) = balance::inputs(&fleet.image().clone(), &[], &[]);
    let plan = fleet.costs.of(Act::Plan, || balance::plan(&hosts, &placed));
    let mut came: BTreeMap<NodeId, usize> = BTreeMap::new();
    for PlannedMove { partition, from, to } in plan {
        let racks = |set: &[NodeId]| set.iter().map(|node| node.0 % RACKS).collect::<BTreeSet<_>>();
        assert!(racks(&to).len() >= racks(&from).len(), "{partition}: {from:?} to {to:?}");
        for node in to.iter().filter(|node| !from.contains(node)) {
            *came.entry(*node).or_default() += 1;
        }
        let (partitions, wish) = (vec![partition], MoveWish::To(to));
        let request = ReassignRequest { partitions, wish, dry_run: DryRun::No };
        let id = fleet.draw_move();
        fleet.ask(Command::Moves(MoveCommand::Reassign(id, request)));
    }
    fleet.play_until(100, |_| true);
    came
}

/// No broker has much more to hold or to lead than another.
fn check_even(image: &ClusterImage) {
    let (hosts, placed) = balance::inputs(image, &[], &[]);
    let shares = balance::shares(&hosts, &placed);
    let most = shares.iter().map(|share| (share.replicas, share.leaders));
    let least = most.clone().reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
    let most = most.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
    let (Some(least), Some(most)) = (least, most) else { return };
    // Racks allow no more where a broker's rack holds less than the others'.
    assert!(most.0 - least.0 <= 2 && most.1 - least.1 <= 1, "uneven: {least:?} to {most:?}");
}

fn throttle(fleet: &mut Fleet, broker: Option<NodeId>, bytes_per_s: Option<u64>) {
    let wish = ThrottleRecord { broker, bytes_per_s };
    fleet.ask(Command::Moves(MoveCommand::Throttle(wish)));
    fleet.play_until(100, |_| true);
}

fn storm(fleet: &mut Fleet, rounds: u64) {
    throttle(fleet, None, Some(50 << 20));
    throttle(fleet, Some(NodeId(3)), Some(1 << 20));
    ask_to_drain(fleet, NodeId(11));
    fleet.strike(Strike::Storm);
    (0..rounds).for_each(|_| fleet.round());
    fleet.strike(Strike::Calm);
    for at in 0..fleet.hosts().len() {
        fleet.start(at);
    }
    fleet.play_until(100_000, |fleet| moving(fleet.image()).is_empty());
}

pub(super) fn set(fleet: &mut Fleet, name: &str, value: &str) {
    let (scope, dry_run) = (SettingScope::Cluster, DryRun::No);
    let set = vec![(name.to_owned(), value.to_owned())];
    let request = AlterSettingsRequest { scope, set, unset: Vec::new(), dry_run };
    fleet.ask(Command::AlterSettings(request));
    fleet.play_until(100, |_| true);
}

fn replicas_on(image: &ClusterImage, node: NodeId) -> usize {
    let sets = image.topics().flat_map(|topic| &topic.partitions);
    sets.flat_map(|set| set.iter()).filter(|replica| replica.node == node).count()
}

/// Who is back in time keeps everything; who is not gives it to others, once, and to other racks.
fn replace(fleet: &mut Fleet) {
    set(fleet, "balance.replace.after.ms", &AWAY_MS.to_string());
    let (at, node) = (8, NodeId(9));
    let before = replicas_on(fleet.image(), node);
    let own_moves = fleet.seen.own_moves;
    fleet.kill(at);
    (0..AWAY_MS / 100 - 100).for_each(|_| fleet.round());
    fleet.start(at);
    fleet.play_until(600, Fleet::is_settled);
    (0..AWAY_MS / 100).for_each(|_| fleet.round());
    assert_eq!(fleet.seen.own_moves, own_moves, "broker {node} was back in time");
    fleet.kill(at);
    fleet.play_until(100_000, |fleet| {
        replicas_on(fleet.image(), node) == 0 && moving(fleet.image()).is_empty()
    });
    let moved = fleet.seen.own_moves - own_moves;
    assert_eq!(moved, before as u64, "each of its replicas is moved once");
    for set in fleet.image().topics().flat_map(|topic| &topic.partitions) {
        let racks: BTreeSet<u32> = set.iter().map(|replica| replica.node.0 % RACKS).collect();
        assert_eq!(racks.len(), set.len(), "replicas of a partition lie in different racks");
    }
    fleet.start(at);
}

/// The empty broker gets its share, nothing else moves, and then there is quiet.
fn fill_unasked(fleet: &mut Fleet) {
    let own_moves = fleet.seen.own_moves;
    set(fleet, "balance.auto", "on");
    let share = 3 * fleet.image().partitions() / fleet.hosts().len();
    until_quiet(fleet);
    check_nearly_even(fleet.image());
    let (got, moved) = (replicas_on(fleet.image(), NodeId(9)), fleet.seen.own_moves - own_moves);
    assert!(got + 2 + share / 10 >= share, "broker 9 got {got}, a share is {share}");
    // Some change only who leads.
    let most = 2 * share as u64 + fleet.image().partitions() as u64;
    assert!(moved <= most, "{moved} moves for {share} replicas");
}

/// Plays until nothing was written for two minutes: an even cluster writes nothing.
fn until_quiet(fleet: &mut Fleet) {
    for _ in 0..200 {
        let end = fleet.log().end();
        (0..1_200).for_each(|_| fleet.round());
        if fleet.log().end() == end {
            return;
        }
    }
    panic!("it never becomes quiet: {:?}", fleet.seen);
}

/// As even as the controller makes it by itself, which leaves a tenth.
fn check_nearly_even(image: &ClusterImage) {
    let (hosts, placed) = balance::inputs(image, &[], &[]);
    let shares = balance::shares(&hosts, &placed);
    let replicas: Vec<usize> = shares.iter().map(|share| share.replicas).collect();
    let leaders: Vec<usize> = shares.iter().map(|share| share.leaders).collect();
    for counts in [replicas, leaders] {
        let mean = counts.iter().sum::<usize>() / counts.len();
        let (Some(least), Some(most)) = (counts.iter().min(), counts.iter().max()) else {
            continue;
        };
        assert!(most - least <= 2 + mean / 10, "uneven: {counts:?}");
    }
}

/// Whatever went, came and was replaced meanwhile: it ends, even.
fn tide(fleet: &mut Fleet, rounds: u64) {
    fleet.strike(Strike::Tide);
    (0..rounds).for_each(|_| fleet.round());
    fleet.strike(Strike::Calm);
    for at in 0..fleet.hosts().len() {
        fleet.start(at);
    }
    until_quiet(fleet);
    assert!(moving(fleet.image()).is_empty(), "every move ends");
    check_nearly_even(fleet.image());
    set(fleet, "balance.auto", "off");
    set(fleet, "balance.replace.after.ms", "never");
}

fn delete(fleet: &mut Fleet) {
    let names: Vec<String> = fleet.image().topics().map(|topic| topic.name.to_string()).collect();
    for name in names.into_iter().take(20) {
        fleet.ask(Command::DeleteTopic { name, id: None });
        fleet.round();
    }
}

const RACKS: u32 = 10;
/// Topics of one partition that are made while a broker is filled.
const SMALL_TOPICS: u32 = 40;
/// How long brokers are waited for.
const AWAY_MS: u64 = 60_000;
