//! A plan in progress: who has what, and what may go where.
//!
//! Every step of a plan goes through `relocate`, or swaps who is first in a set.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{NodeId, TopicId};
use highwater_protocol::native::moves::PlannedMove;

use super::exchange::Weight;
use super::{Host, Movable, Placed, Takes};
use crate::controller::placement;
use crate::mutant::{self, Mutant};

/// Work in progress; brokers and partitions are named by their places.
pub(super) struct Planner<'a> {
    pub partitions: &'a [Placed],
    racks: Vec<usize>,
    pub takers: Vec<usize>,
    pub sets: Vec<Vec<usize>>,
    /// By broker: which partitions, how many of each topic, how much they weigh.
    pub held: Vec<BTreeSet<usize>>,
    topics: BTreeMap<(usize, TopicId), usize>,
    bytes: Vec<u64>,
    writes: Vec<u64>,
    /// How many replicas were given another place by now.
    relocated: usize,
    /// What has changed by now, and of how much that may be.
    changed: BTreeSet<usize>,
    pub changes_max: usize,
}

impl<'a> Planner<'a> {
    pub fn new(hosts: &[Host], partitions: &'a [Placed]) -> Planner<'a> {
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
            writes: vec![0; hosts.len()],
            relocated: 0,
            changed: BTreeSet::new(),
            changes_max: usize::MAX,
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
        self.bytes[broker] += self.weight(number, Weight::Bytes);
        self.writes[broker] += self.weight(number, Weight::Writes);
        let topic = self.partitions[number].partition.topic;
        *self.topics.entry((broker, topic)).or_default() += 1;
    }

    /// Whether a step that changes these may be taken. The first one always may, so that there is
    /// progress.
    pub fn has_room(&self, numbers: impl IntoIterator<Item = usize>) -> bool {
        let new = numbers.into_iter().filter(|number| !self.changed.contains(number)).count();
        self.changed.is_empty() || new <= self.changes_max.saturating_sub(self.changed.len())
    }

    /// Racks, counts and weights, until none of them opens a way for another.
    pub fn even_replicas(&mut self) {
        self.mend_racks();
        let mut before = usize::MAX;
        while std::mem::replace(&mut before, self.relocated) != self.relocated {
            self.even_counts();
            self.exchange(Weight::Bytes);
            self.exchange(Weight::Writes);
        }
    }

    /// What the plan comes to.
    pub fn changes(&self, hosts: &[Host]) -> Vec<PlannedMove> {
        let nodes = |set: &Vec<usize>| set.iter().map(|at| hosts[*at].node).collect();
        let planned = |(before, set): (&Placed, &Vec<usize>)| PlannedMove {
            partition: before.partition,
            from: before.replicas.clone(),
            to: nodes(set),
        };
        let changes = self.partitions.iter().zip(&self.sets).map(planned);
        changes.filter(|change| change.from != change.to).collect()
    }

    /// Another one of a set leads by preference.
    pub fn hand_over(&mut self, number: usize, to: usize) {
        self.changed.insert(number);
        let at = self.sets[number].iter().position(|held| *held == to);
        self.sets[number].swap(0, at.expect("only a replica can lead"));
    }

    pub fn relocate(&mut self, number: usize, from: usize, to: usize) {
        self.relocated += 1;
        self.changed.insert(number);
        let place = self.sets[number].iter().position(|held| *held == from);
        self.sets[number][place.expect("a replica is moved from where it is")] = to;
        self.held[from].remove(&number);
        self.bytes[from] -= self.weight(number, Weight::Bytes);
        self.writes[from] -= self.weight(number, Weight::Writes);
        let topic = self.partitions[number].partition.topic;
        *self.topics.entry((from, topic)).or_default() -= 1;
        self.add(number, to);
    }

    pub fn relocated(&self) -> usize {
        self.relocated
    }

    /// What one replica of a partition weighs.
    pub fn weight(&self, number: usize, weight: Weight) -> u64 {
        match weight {
            Weight::Bytes => self.partitions[number].bytes,
            Weight::Writes => self.partitions[number].load.bytes_in_per_s,
        }
    }

    /// What all replicas of each broker weigh.
    pub fn carried(&self, weight: Weight) -> &[u64] {
        match weight {
            Weight::Bytes => &self.bytes,
            Weight::Writes => &self.writes,
        }
    }

    pub fn total(&self, weight: Weight) -> u64 {
        self.takers.iter().map(|at| self.carried(weight)[*at]).sum()
    }

    pub fn mean(&self, weight: Weight) -> u64 {
        self.total(weight) / self.takers.len().max(1) as u64
    }

    /// How many replicas of its topic a broker has.
    pub fn of_topic(&self, broker: usize, number: usize) -> usize {
        let topic = self.partitions[number].partition.topic;
        self.topics.get(&(broker, topic)).copied().unwrap_or_default()
    }

    pub fn is_movable(&self, number: usize) -> bool {
        match self.partitions[number].movable {
            Movable::Yes => true,
            Movable::No => false,
        }
    }

    pub fn may_move(&self, number: usize, from: usize, to: usize) -> bool {
        let crowded =
            self.others_in_rack(number, from, to) > self.others_in_rack(number, from, from);
        let crowded = crowded && !mutant::active(Mutant::BalanceIgnoresRacks);
        self.is_movable(number) && !self.sets[number].contains(&to) && !crowded
    }

    /// How many replicas but the one on `from` lie in the rack of `there`.
    fn others_in_rack(&self, number: usize, from: usize, there: usize) -> usize {
        let others = self.sets[number].iter().filter(|broker| **broker != from);
        others.filter(|broker| self.racks[**broker] == self.racks[there]).count()
    }

    /// Replicas that share a rack go to one that has none of theirs, if there is such a rack.
    pub fn mend_racks(&mut self) {
        for number in 0..self.sets.len() {
            for from in self.sets[number].clone() {
                if !self.takers.contains(&from) || self.others_in_rack(number, from, from) == 0 {
                    continue;
                }
                if !self.has_room([number]) {
                    return;
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
}
