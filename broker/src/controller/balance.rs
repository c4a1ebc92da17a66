//! Evening out: which replicas and leaders go where so that brokers and racks carry alike.
//!
//! By count first: a broker gives only while another has at least two less, so that nothing moves
//! that need not, and a broker that was added gets its share and no more. Among the replicas that
//! could go it chooses those that even out the bytes. By bytes then: what still weighs a tenth too
//! much is exchanged for less, counts staying as they are. Leaders last: they change places within
//! the sets, which copies nothing.
//!
//! What must hold: no partition gets more replicas into one rack than it had, and one that has several
//! there although another rack is free is mended; nothing goes to a broker that takes nothing; what
//! moves already is counted and left alone; the same input gives the same plan, and a plan carried
//! out leaves nothing to plan. Pure arithmetic; `reassign` carries it out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{NodeId, TopicId, TopicPartition};
use highwater_protocol::native::moves::PlannedMove;

use crate::controller::image::{Broker, ClusterImage};
use crate::controller::moves;
use crate::controller::placement::{self, chain_to_level};
use crate::controller::record::BrokerRegistration;
use crate::mutant::{self, Mutant};

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Which one.
    pub node: NodeId,
    /// Its failure domain; a broker without one is a domain of its own.
    pub rack: Option<String>,
    /// Whether it takes replicas.
    pub takes: Takes,
}

/// Whether a broker takes replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// It does, and is evened out.
    Replicas,
    /// It is not alive, or is being emptied: it gets nothing, and what it has is not counted.
    Nothing,
}

/// A partition as it is placed, or will be once its move is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which one.
    pub partition: TopicPartition,
    /// Its replicas, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// The bytes of one replica.
    pub bytes: u64,
    /// Whether it may be moved.
    pub movable: Movable,
}

/// Whether a partition may be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movable {
    /// It may.
    Yes,
    /// It moves already.
    No,
}

/// What a broker carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which broker.
    pub node: NodeId,
    /// Its replicas.
    pub replicas: usize,
    /// Those of them that are preferred leaders.
    pub leaders: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// What there is to even out: the brokers and partitions of an image, and the bytes of a replica of
/// each partition. What moves is counted where it goes. A partition that has a replica on a broker
/// that takes nothing is left to whoever empties that broker, or to its return.
pub fn inputs(image: &ClusterImage, sizes: &[(TopicPartition, u64)]) -> (Vec<Host>, Vec<Placed>) {
    let host = |broker: &Broker| {
        let BrokerRegistration { node, rack, .. } = &broker.registration;
        Host { node: *node, rack: rack.clone(), takes: takes(broker) }
    };
    let mut hosts: BTreeMap<NodeId, Host> =
        image.brokers().map(host).map(|host| (host.node, host)).collect();
    let sizes: BTreeMap<TopicPartition, u64> = sizes.iter().copied().collect();
    let mut placed = Vec::with_capacity(image.partitions());
    for (topic, number) in image.every_partition() {
        let partition = TopicPartition::new(topic.id, number);
        let replicas = moves::nodes(topic.settles_on(number));
        for node in &replicas {
            let gone = || Host { node: *node, rack: None, takes: Takes::Nothing };
            hosts.entry(*node).or_insert_with(gone);
        }
        let kept = |node: &NodeId| hosts[node].takes == Takes::Replicas;
        let free = topic.move_of(number).is_none() && replicas.iter().all(kept);
        let movable = if free { Movable::Yes } else { Movable::No };
        let bytes = sizes.get(&partition).copied().unwrap_or_default().min(BYTES_MAX);
        placed.push(Placed { partition, replicas, bytes, movable });
    }
    (hosts.into_values().collect(), placed)
}

/// Whether a broker may be given replicas.
fn takes(broker: &Broker) -> Takes {
    if broker.takes_work() { Takes::Replicas } else { Takes::Nothing }
}

/// What each broker that takes replicas carries.
pub fn shares(hosts: &[Host], partitions: &[Placed]) -> Vec<Share> {
    let planner = Planner::new(hosts, partitions);
    let mut leaders = vec![0; hosts.len()];
    for set in &planner.sets {
        leaders[set[0]] += 1;
    }
    let takers = planner.takers.iter();
    let share = |at: &usize| Share {
        node: hosts[*at].node,
        replicas: planner.held[*at].len(),
        leaders: leaders[*at],
        bytes: planner.bytes[*at],
    };
    takers.map(share).collect()
}

/// Whether replicas of a partition share a rack that could be apart.
pub fn shares_a_rack(hosts: &[Host], partitions: &[Placed]) -> bool {
    let mut planner = Planner::new(hosts, partitions);
    planner.mend_racks();
    planner.relocated > 0
}

/// The partitions that change, with their replicas before and after. A set that only changes its
/// order changes who leads. Every replica must be on one of the hosts, and every set have one.
pub fn plan(hosts: &[Host], partitions: &[Placed]) -> Vec<PlannedMove> {
    let mut planner = Planner::new(hosts, partitions);
    planner.mend_racks();
    // An exchange of bytes may open a way for a count; either makes one of two sums smaller for good.
    let mut before = usize::MAX;
    while std::mem::replace(&mut before, planner.relocated) != planner.relocated {
        planner.even_counts();
        planner.even_bytes();
    }
    planner.even_leaders();
    let nodes = |set: &Vec<usize>| set.iter().map(|at| hosts[*at].node).collect();
    let planned = |(before, set): (&Placed, &Vec<usize>)| PlannedMove {
        partition: before.partition,
        from: before.replicas.clone(),
        to: nodes(set),
    };
    let changes = partitions.iter().zip(&planner.sets).map(planned);
    changes.filter(|change| change.from != change.to).collect()
}

/// Work in progress; brokers and partitions are named by their places.
struct Planner<'a> {
    partitions: &'a [Placed],
    racks: Vec<usize>,
    takers: Vec<usize>,
    sets: Vec<Vec<usize>>,
    /// By broker: which partitions, how many of each topic, how many bytes.
    held: Vec<BTreeSet<usize>>,
    topics: BTreeMap<(usize, TopicId), usize>,
    bytes: Vec<u64>,
    /// How many replicas were given another place by now.
    relocated: usize,
}

impl<'a> Planner<'a> {
    fn new(hosts: &[Host], partitions: &'a [Placed]) -> Planner<'a> {
        let places: BTreeMap<NodeId, usize> =
            hosts.iter().enumerate().map(|(at, host)| (host.node, at)).collect();
        let place = |node: &NodeId| places[node];
        let takes = |at: &usize| match hosts[*at].takes {
            Takes::Replicas => true,
            Takes::Nothing => false,
        };
        let mut planner = Planner {
            partitions,
            racks: placement::racks(hosts.iter().map(|host| host.rack.as_deref())),
            takers: (0..hosts.len()).filter(takes).collect(),
            sets: partitions.iter().map(|at| at.replicas.iter().map(place).collect()).collect(),
            held: vec![BTreeSet::new(); hosts.len()],
            topics: BTreeMap::new(),
            bytes: vec![0; hosts.len()],
            relocated: 0,
        };
        for number in 0..partitions.len() {
            for broker in planner.sets[number].clone() {
                planner.add(number, broker);
            }
        }
        planner
    }

    fn add(&mut self, number: usize, broker: usize) {
        self.held[broker].insert(number);
        self.bytes[broker] += self.partitions[number].bytes;
        let topic = self.partitions[number].partition.topic;
        *self.topics.entry((broker, topic)).or_default() += 1;
    }

    fn relocate(&mut self, number: usize, from: usize, to: usize) {
        self.relocated += 1;
        let place = self.sets[number].iter().position(|held| *held == from);
        self.sets[number][place.expect("a replica is moved from where it is")] = to;
        self.held[from].remove(&number);
        self.bytes[from] -= self.partitions[number].bytes;
        let topic = self.partitions[number].partition.topic;
        *self.topics.entry((from, topic)).or_default() -= 1;
        self.add(number, to);
    }

    fn may_move(&self, number: usize, from: usize, to: usize) -> bool {
        let movable = match self.partitions[number].movable {
            Movable::Yes => true,
            Movable::No => false,
        };
        let crowded =
            self.others_in_rack(number, from, to) > self.others_in_rack(number, from, from);
        let crowded = crowded && !mutant::active(Mutant::BalanceIgnoresRacks);
        movable && !self.sets[number].contains(&to) && !crowded
    }

    /// How many replicas but the one on `from` lie in the rack of `there`.
    fn others_in_rack(&self, number: usize, from: usize, there: usize) -> usize {
        let others = self.sets[number].iter().filter(|broker| **broker != from);
        others.filter(|broker| self.racks[**broker] == self.racks[there]).count()
    }

    /// Replicas that share a rack go to one that has none of theirs, if there is such a rack.
    fn mend_racks(&mut self) {
        for number in 0..self.sets.len() {
            for from in self.sets[number].clone() {
                if !self.takers.contains(&from) || self.others_in_rack(number, from, from) == 0 {
                    continue;
                }
                let free = |to: &&usize| {
                    self.may_move(number, from, **to)
                        && self.others_in_rack(number, from, **to) == 0
                };
                let open = self.takers.iter().filter(free);
                if let Some(to) = open.min_by_key(|to| (self.held[**to].len(), self.bytes[**to])) {
                    self.relocate(number, from, *to);
                }
            }
        }
    }

    /// From who has most to who has least, until nobody has two more than another that could take one.
    fn even_counts(&mut self) {
        while let Some((number, from, to)) = self.next_for_counts() {
            self.relocate(number, from, to);
        }
    }

    fn next_for_counts(&self) -> Option<(usize, usize, usize)> {
        let count = |at: &usize| self.held[*at].len();
        let mut givers = self.takers.clone();
        givers.sort_by_key(|at| (Reverse(count(at)), Reverse(self.bytes[*at]), *at));
        let mut receivers = self.takers.clone();
        receivers.sort_by_key(|at| (count(at), self.bytes[*at], *at));
        for from in &givers {
            for to in receivers.iter().take_while(|to| count(to) + 2 <= count(from)) {
                if let Some(number) = self.best_to_give(*from, *to) {
                    return Some((number, *from, *to));
                }
            }
        }
        None
    }

    /// Of what `from` could give to `to`: what evens out bytes best, then what evens out topics.
    fn best_to_give(&self, from: usize, to: usize) -> Option<usize> {
        let wish = (self.wish(from) + self.wish(to)) / 2;
        let total: u64 = self.takers.iter().map(|at| self.bytes[*at]).sum();
        let replicas: usize = self.takers.iter().map(|at| self.held[*at].len()).sum();
        let grain = total / replicas.max(1) as u64 / 4 + 1;
        let of_topic = |broker: usize, number: usize| {
            let topic = self.partitions[number].partition.topic;
            self.topics.get(&(broker, topic)).copied().unwrap_or_default() as i64
        };
        let key = |number: &usize| {
            let far = self.partitions[*number].bytes.abs_diff(wish) / grain;
            (far, of_topic(to, *number) - of_topic(from, *number), *number)
        };
        let could = self.held[from].iter().copied();
        could.filter(|number| self.may_move(*number, from, to)).min_by_key(key)
    }

    /// The bytes that each of the replicas would have that a broker has too many or too few of.
    fn wish(&self, broker: usize) -> u64 {
        let takers = self.takers.len().max(1);
        let mean = self.takers.iter().map(|at| self.held[*at].len()).sum::<usize>() / takers;
        let mean_bytes = self.mean_bytes();
        let (count, bytes) = (self.held[broker].len(), self.bytes[broker]);
        let lacks = (mean.saturating_sub(count).max(1) as u64, mean_bytes.saturating_sub(bytes));
        let exceeds = (count.saturating_sub(mean).max(1) as u64, bytes.saturating_sub(mean_bytes));
        let (replicas, bytes) = if count < mean { lacks } else { exceeds };
        bytes / replicas
    }

    fn mean_bytes(&self) -> u64 {
        let total: u64 = self.takers.iter().map(|at| self.bytes[*at]).sum();
        total / self.takers.len().max(1) as u64
    }

    /// Exchanges large replicas for small ones while a broker has a tenth more or less than the mean.
    /// Each exchange makes the sum of squares smaller, so that this ends.
    fn even_bytes(&mut self) {
        let mean = self.mean_bytes();
        let slack = mean / BYTES_SLACK;
        loop {
            let heaviest = self.takers.iter().copied().max_by_key(|at| (self.bytes[*at], *at));
            let lightest = self.takers.iter().copied().min_by_key(|at| (self.bytes[*at], *at));
            let (Some(heavy), Some(light)) = (heaviest, lightest) else { return };
            let uneven = self.bytes[heavy] > mean + slack || self.bytes[light] + slack < mean;
            let exchange = uneven.then(|| self.best_exchange(heavy, light)).flatten();
            let Some((large, small)) = exchange else { return };
            self.relocate(large, heavy, light);
            if let Some(small) = small {
                self.relocate(small, light, heavy);
            }
        }
    }

    /// A replica of the heavier broker, and one of the lighter one for it; none for it where the
    /// heavier has one more.
    fn best_exchange(&self, heavy: usize, light: usize) -> Option<(usize, Option<usize>)> {
        let gap = self.bytes[heavy] - self.bytes[light];
        let bytes = |number: usize| self.partitions[number].bytes;
        let mut small: Vec<usize> = self.held[light].iter().copied().collect();
        small.sort_by_key(|number| (bytes(*number), *number));
        small.retain(|number| self.may_move(*number, light, heavy));
        small.truncate(SMALL_TRIED_MAX);
        let alone = (self.held[heavy].len() > self.held[light].len()).then_some(None);
        let back: Vec<Option<usize>> =
            alone.into_iter().chain(small.into_iter().map(Some)).collect();
        let mut best = None;
        for large in self.held[heavy].iter().copied() {
            if !self.may_move(large, heavy, light) {
                continue;
            }
            for small in &back {
                let less = small.map_or(0, bytes);
                let moved = bytes(large).saturating_sub(less);
                // Less than a sixteenth of the gap is not worth copying.
                if moved <= gap / 16 || moved >= gap {
                    continue;
                }
                let far = moved.abs_diff(gap / 2) / (gap / 8 + 1);
                let key = (far, bytes(large) + less, large, *small);
                if best.is_none_or(|found| key < found) {
                    best = Some(key);
                }
            }
        }
        best.map(|(_, _, large, small)| (large, small))
    }

    /// The first of a set leads by preference: nobody is first two times more often than another
    /// that could be instead.
    fn even_leaders(&mut self) {
        let place: BTreeMap<usize, usize> =
            self.takers.iter().enumerate().map(|(at, broker)| (*broker, at)).collect();
        let mut led = vec![BTreeSet::new(); self.takers.len()];
        for (number, set) in self.sets.iter().enumerate() {
            if let Some(at) = place.get(&set[0]) {
                led[*at].insert(number);
            }
        }
        loop {
            let load: Vec<usize> = led.iter().map(BTreeSet::len).collect();
            let chain = chain_to_level(&load, |from| {
                let mut moves = BTreeMap::new();
                let movable = |number: &&usize| self.partitions[**number].movable == Movable::Yes;
                for number in led[from].iter().filter(movable) {
                    for to in self.sets[*number][1..].iter().filter_map(|at| place.get(at)) {
                        let step = placement::Move { number: *number, from, to: *to };
                        moves.entry(*to).or_insert(step);
                    }
                }
                moves.into_values().collect()
            });
            let Some(chain) = chain else { return };
            for placement::Move { number, from, to } in chain {
                let next = self.takers[to];
                let at = self.sets[number].iter().position(|held| *held == next);
                self.sets[number].swap(0, at.expect("only a replica can lead"));
                led[from].remove(&number);
                led[to].insert(number);
            }
        }
    }
}

/// A broker may have a tenth more or less bytes than the mean.
const BYTES_SLACK: u64 = 10;
/// So many of the smallest replicas are tried in exchange for a large one.
const SMALL_TRIED_MAX: usize = 16;

/// No partition counts as larger, whatever somebody says of it: sums over all replicas of a cluster
/// must fit.
const BYTES_MAX: u64 = 1 << 44;

#[cfg(test)]
mod tests;
