//! Seeded storms: loss, repeats, reordering, cuts, crashes that forget, voter changes, transfers.

use highwater_protocol::ids::{LogIndex, NodeId};

use super::super::{Counts, Suspicion};
use super::group::{Group, counting, set};

/// SplitMix64, as in `timer`.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn permille(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }
}

/// How often each fault happens, drawn per seed so that the mixes differ.
struct Faults {
    loss: u64,
    repeat: u64,
    delay: u64,
    crash: u64,
    cut: u64,
    change: u64,
    transfer: u64,
    flush: u64,
}

impl Faults {
    fn draw(dice: &mut Dice) -> Faults {
        let mut upto = |max: u64| dice.below(2) * dice.below(max + 1);
        Faults {
            loss: upto(200),
            repeat: upto(100),
            delay: upto(800),
            crash: upto(8),
            cut: upto(10),
            change: upto(10),
            transfer: upto(10),
            flush: 50 + upto(600),
        }
    }
}

struct Storm {
    group: Group,
    dice: Dice,
    faults: Faults,
    counts: Counts,
    cut_off: Option<NodeId>,
    down: Vec<NodeId>,
}

const NODES: [u32; 5] = [1, 2, 3, 4, 5];

impl Storm {
    fn new(seed: u64, counts: Counts) -> Storm {
        let mut dice = Dice(seed);
        let faults = Faults::draw(&mut dice);
        let (voters, learners) = match dice.below(3) {
            0 => (&NODES[..3], &NODES[3..]),
            1 => (&NODES[..], &NODES[5..]),
            _ => (&NODES[..4], &NODES[4..]),
        };
        let group = Group::new(voters, learners, seed, counting(counts));
        Storm { group, dice, faults, counts, cut_off: None, down: Vec::new() }
    }

    fn any(&mut self) -> NodeId {
        NodeId(NODES[self.dice.below(5) as usize])
    }

    fn step(&mut self) {
        self.group.now.0 += 1 + self.dice.below(12);
        for id in NODES.map(NodeId) {
            if self.group.nodes[&id].up {
                self.group.tick(id);
                if self.dice.permille(100) {
                    self.group.heartbeats(id);
                }
                if self.dice.permille(self.faults.flush) {
                    self.group.flush(id);
                }
            }
        }
        self.deliver();
        if let Some(leader) = self.group.leader() {
            if self.dice.permille(300) {
                let width = 1 + self.dice.below(4);
                self.group.produce(leader, width);
            }
            self.administer(leader);
        }
        self.disturb();
    }

    fn deliver(&mut self) {
        for letter in std::mem::take(&mut self.group.letters) {
            let cut = self.cut_off.is_some_and(|cut| cut == letter.from || cut == letter.to);
            if cut || self.dice.permille(self.faults.loss) {
                continue;
            }
            if self.dice.permille(self.faults.repeat) {
                self.group.letters.push(letter.clone());
            }
            if self.dice.permille(self.faults.delay) {
                self.group.letters.push(letter);
            } else {
                self.group.deliver(letter);
            }
        }
        let waiting = self.group.letters.len();
        assert!(waiting < 20_000, "{waiting} messages are under way");
        if waiting > 1 {
            let (a, b) = (self.dice.below(waiting as u64), self.dice.below(waiting as u64));
            self.group.letters.swap(a as usize, b as usize);
        }
    }

    fn administer(&mut self, leader: NodeId) {
        let now = self.group.now;
        if self.dice.permille(self.faults.transfer) {
            let to = match self.dice.below(2) {
                0 => None,
                _ => Some(self.any()),
            };
            // Refusals are fine: the wish may be impossible.
            let _refused =
                self.group.nodes.get_mut(&leader).expect("it leads").raft.transfer(now, to);
            self.group.finish(leader);
        }
        if self.dice.permille(self.faults.change) {
            let mask = 1 + self.dice.below(31);
            // A single voter's unflushed tail is lost with it, by the contract of such a topic.
            let mask = match self.counts {
                Counts::Flushed => mask,
                Counts::Appended => mask | 0b110,
            };
            let voters: Vec<u32> = NODES.into_iter().filter(|n| mask >> (n - 1) & 1 == 1).collect();
            let rest: Vec<u32> = NODES.into_iter().filter(|n| !voters.contains(n)).collect();
            let target = Some(set(&voters, &rest));
            self.group.nodes.get_mut(&leader).expect("it leads").target = target;
        }
    }

    fn disturb(&mut self) {
        if self.dice.permille(self.faults.cut) {
            self.cut_off = match self.cut_off {
                Some(_) => None,
                None => Some(self.any()),
            };
        }
        if self.dice.permille(self.faults.crash) && self.down.len() < 2 {
            let id = self.any();
            if self.group.nodes[&id].up {
                self.group.nodes.get_mut(&id).expect("it exists").up = false;
                self.down.push(id);
            }
        }
        if !self.down.is_empty() && self.dice.permille(20) {
            let at = self.dice.below(self.down.len() as u64) as usize;
            let id = self.down.swap_remove(at);
            self.restart(id);
        }
    }

    /// A crash keeps a random part of what was not flushed. Where unflushed entries count, it loses
    /// some only while every other log can be believed: more is loss by the contract.
    fn restart(&mut self, id: NodeId) {
        let (flushed, end) = (self.group.flushed_end(id), self.group.nodes[&id].raft.last().index);
        let keeps = flushed.advance(self.dice.below(end.since(flushed) + 1));
        let others_are_sound = NODES
            .map(NodeId)
            .iter()
            .all(|other| *other == id || self.group.nodes[other].is_sound());
        let was_suspect = !self.group.nodes[&id].is_sound();
        let (kept, suspicion) = match self.counts {
            Counts::Flushed => (keeps, Suspicion::None),
            Counts::Appended if others_are_sound => (keeps, Suspicion::LostTail),
            Counts::Appended if was_suspect => (end, Suspicion::LostTail),
            Counts::Appended => (end, Suspicion::None),
        };
        let seed = self.dice.below(u64::MAX);
        self.group.restart(id, kept, suspicion, seed);
    }

    fn heal(&mut self) {
        self.cut_off = None;
        for id in std::mem::take(&mut self.down) {
            self.restart(id);
        }
        for node in self.group.nodes.values_mut() {
            // Old leaders' wishes may contradict each other for ever.
            node.target = None;
        }
        self.group.run(20_000);
        let leader = self.group.leader().expect("a healed group elects a leader");
        assert!(self.group.produce(leader, 1), "a settled leader takes records");
        self.group.run(3_000);
        self.group.assert_converged();
    }
}

fn storms(counts: Counts, seeds: std::ops::Range<u64>) {
    let (mut elections, mut committed) = (0, LogIndex::ZERO);
    for seed in seeds {
        let mut storm = Storm::new(seed, counts);
        for _ in 0..3_000 {
            storm.step();
        }
        storm.heal();
        elections += storm.group.elections;
        let end = storm.group.committed.last().map_or(LogIndex::ZERO, |frame| frame.end);
        committed = committed.advance(end.0);
    }
    assert!(elections > 100 && committed.0 > 10_000, "vacuous: {elections}, {committed}");
}

#[test]
fn storms_lose_nothing_committed_where_entries_count_once_flushed() {
    storms(Counts::Flushed, 0..30);
}

#[test]
fn storms_lose_nothing_committed_where_entries_count_once_appended() {
    storms(Counts::Appended, 1_000..1_030);
}
