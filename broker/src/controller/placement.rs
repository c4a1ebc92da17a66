//! Where the replicas of new partitions go, and which of them leads.
//!
//! Rendezvous hashing (every broker draws a number for every partition; the highest win) with load
//! correction: a broker that has its fair share already is passed over, first of this topic, then of
//! the whole cluster. So the spread is even, a broker that comes or goes moves little more than its
//! own share, and a new broker gets what the others have too much of. Racks come before load: no
//! rack holds a second replica of a partition while another has none.
//!
//! The choice depends on nothing but the arguments. It is made once, by the controller's leader, and
//! recorded; nobody computes it again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use highwater_protocol::ids::{NodeId, PartitionId, TopicId};
use xxhash_rust::xxh3::xxh3_64;

use crate::controller::image::ClusterImage;
use crate::mutant::{self, Mutant};

/// A broker that may get replicas, and what it has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The broker.
    pub node: NodeId,
    /// Its failure domain; a broker without one is a domain of its own.
    pub rack: Option<String>,
    /// Replicas placed on it, or on their way to it.
    pub replicas: usize,
    /// Those of them that are preferred leaders.
    pub leaders: usize,
}

/// What is to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The topic.
    pub topic: TopicId,
    /// Its first new partition.
    pub first: PartitionId,
    /// How many new partitions.
    pub partitions: usize,
    /// Replicas of each; at most as many as there are candidates.
    pub replication: usize,
}

/// The brokers that may get replicas: all that live and take work. What moves is counted where it
/// goes: a broker that is being filled would be taken for an empty one, and filled twice.
pub fn candidates(image: &ClusterImage) -> Vec<Candidate> {
    let mut load: BTreeMap<NodeId, (usize, usize)> = BTreeMap::new();
    for (topic, partition) in image.every_partition() {
        let replicas = match mutant::active(Mutant::PlacementIgnoresMoves) {
            true => &topic.partitions[partition.0 as usize][..],
            false => topic.settles_on(partition),
        };
        for (place, replica) in replicas.iter().enumerate() {
            let (held, led) = load.entry(replica.node).or_default();
            *held += 1;
            *led += usize::from(place == 0);
        }
    }
    let active = image.brokers().filter(|broker| broker.takes_work());
    let candidate = active.map(|broker| {
        let node = broker.registration.node;
        let (replicas, leaders) = load.get(&node).copied().unwrap_or_default();
        Candidate { node, rack: broker.registration.rack.clone(), replicas, leaders }
    });
    candidate.collect()
}

/// The replicas of each new partition, the preferred leader first.
pub fn assign(wanted: Wanted, candidates: &[Candidate]) -> Vec<Vec<NodeId>> {
    assert!(
        (1..=candidates.len()).contains(&wanted.replication),
        "{} replicas cannot be placed on {} brokers",
        wanted.replication,
        candidates.len()
    );
    let mut placing = Placing::new(wanted, candidates);
    for number in 0..wanted.partitions {
        placing.choose_replicas(number);
    }
    placing.level_replicas();
    for number in 0..wanted.partitions {
        placing.choose_leader(number);
    }
    placing.level_leaders();
    placing.in_order()
}

/// Failure domains by number; who has none is one of its own.
pub(super) fn racks<'n>(names: impl Iterator<Item = Option<&'n str>>) -> Vec<usize> {
    let names: Vec<Option<&str>> = names.collect();
    let number = |(at, name): (usize, &Option<&str>)| match name {
        Some(_) => names.iter().position(|other| other == name).expect("it finds itself"),
        None => at,
    };
    names.iter().enumerate().map(number).collect()
}

/// Work in progress; brokers are named by their place among the candidates.
struct Placing<'a> {
    wanted: Wanted,
    candidates: &'a [Candidate],
    /// Each broker's failure domain, by number.
    racks: Vec<usize>,
    /// New replicas and leaders of each broker.
    held: Vec<usize>,
    led: Vec<usize>,
    sets: Vec<BTreeSet<usize>>,
    leaders: Vec<usize>,
    topic_share: usize,
    cluster_share: usize,
}

impl<'a> Placing<'a> {
    fn new(wanted: Wanted, candidates: &'a [Candidate]) -> Placing<'a> {
        let new = wanted.partitions * wanted.replication;
        let before: usize = candidates.iter().map(|candidate| candidate.replicas).sum();
        Placing {
            wanted,
            candidates,
            racks: racks(candidates.iter().map(|candidate| candidate.rack.as_deref())),
            held: vec![0; candidates.len()],
            led: vec![0; candidates.len()],
            sets: vec![BTreeSet::new(); wanted.partitions],
            leaders: Vec::with_capacity(wanted.partitions),
            topic_share: new.div_ceil(candidates.len()),
            cluster_share: (before + new).div_ceil(candidates.len()),
        }
    }

    fn choose_replicas(&mut self, number: usize) {
        for _ in 0..self.wanted.replication {
            let open = self.least_used_racks(number);
            let in_share = |broker: &usize| self.held[*broker] < self.topic_share;
            let in_both = |broker: &usize| {
                in_share(broker)
                    && self.candidates[*broker].replicas + self.held[*broker] < self.cluster_share
            };
            let best = |among: &mut dyn Iterator<Item = usize>| {
                among.max_by_key(|broker| self.draw(number, *broker))
            };
            let chosen = best(&mut open.iter().copied().filter(in_both))
                .or_else(|| best(&mut open.iter().copied().filter(in_share)))
                .or_else(|| best(&mut open.iter().copied()))
                .expect("there are as many brokers as replicas");
            self.sets[number].insert(chosen);
            self.held[chosen] += 1;
        }
    }

    /// The unused brokers in the racks that hold the fewest replicas of the partition.
    fn least_used_racks(&self, number: usize) -> Vec<usize> {
        let unused =
            (0..self.candidates.len()).filter(|broker| !self.sets[number].contains(broker));
        let used = |broker: usize| self.replicas_in_rack(number, self.racks[broker]);
        let fewest = unused.clone().map(used).min().unwrap_or(0);
        let anywhere = mutant::active(Mutant::PlacementIgnoresRacks);
        unused.filter(|broker| used(*broker) == fewest || anywhere).collect()
    }

    fn replicas_in_rack(&self, number: usize, rack: usize) -> usize {
        self.sets[number].iter().filter(|broker| self.racks[**broker] == rack).count()
    }

    /// Moves replicas until no broker has two more of the topic than another that could take one:
    /// the last partitions find some brokers full and fill others beyond their share.
    fn level_replicas(&mut self) {
        while let Some(chain) = chain_to_level(&self.held, |from| self.replica_moves(from)) {
            for Move { number, from, to } in chain {
                self.sets[number].remove(&from);
                self.sets[number].insert(to);
                self.held[from] -= 1;
                self.held[to] += 1;
            }
        }
    }

    /// To whom a broker could give a replica without using fewer racks: one way for each.
    fn replica_moves(&self, from: usize) -> Vec<Move> {
        let with: Vec<usize> =
            (0..self.sets.len()).filter(|number| self.sets[*number].contains(&from)).collect();
        let move_to = |to: usize| {
            let movable = |number: &&usize| {
                let rack_allows = self.racks[from] == self.racks[to]
                    || self.replicas_in_rack(**number, self.racks[to])
                        < self.replicas_in_rack(**number, self.racks[from]);
                !self.sets[**number].contains(&to) && rack_allows
            };
            let best = with.iter().filter(movable).max_by_key(|number| self.draw(**number, to));
            best.map(|number| Move { number: *number, from, to })
        };
        (0..self.candidates.len()).filter(|to| *to != from).filter_map(move_to).collect()
    }

    fn choose_leader(&mut self, number: usize) {
        let least = |broker: &&usize| {
            let before = self.candidates[**broker].leaders;
            (self.led[**broker], before, u64::MAX - self.draw(number, **broker))
        };
        let leader = *self.sets[number].iter().min_by_key(least).expect("a set is never empty");
        self.leaders.push(leader);
        self.led[leader] += 1;
    }

    fn level_leaders(&mut self) {
        while let Some(chain) = chain_to_level(&self.led, |from| self.leader_moves(from)) {
            for Move { number, from, to } in chain {
                self.leaders[number] = to;
                self.led[from] -= 1;
                self.led[to] += 1;
            }
        }
    }

    /// To whom a broker could give the lead of a partition: one way for each.
    fn leader_moves(&self, from: usize) -> Vec<Move> {
        let mut moves: BTreeMap<usize, Move> = BTreeMap::new();
        for number in (0..self.sets.len()).filter(|number| self.leaders[*number] == from) {
            for to in self.sets[number].iter().copied().filter(|to| *to != from) {
                moves.entry(to).or_insert(Move { number, from, to });
            }
        }
        moves.into_values().collect()
    }

    /// The sets as lists: the leader first, then by the numbers drawn.
    fn in_order(&self) -> Vec<Vec<NodeId>> {
        let ordered = (0..self.sets.len()).map(|number| {
            let mut set: Vec<usize> = self.sets[number].iter().copied().collect();
            set.sort_by_key(|broker| {
                (*broker != self.leaders[number], u64::MAX - self.draw(number, *broker))
            });
            set.into_iter().map(|broker| self.candidates[broker].node).collect()
        });
        ordered.collect()
    }

    fn draw(&self, number: usize, broker: usize) -> u64 {
        let mut drawn_from = [0; 24];
        drawn_from[..16].copy_from_slice(self.wanted.topic.0.as_bytes());
        let partition = self.wanted.first.0 + number as u32;
        drawn_from[16..20].copy_from_slice(&partition.to_le_bytes());
        drawn_from[20..].copy_from_slice(&self.candidates[broker].node.0.to_le_bytes());
        xxh3_64(&drawn_from)
    }
}

/// One partition's replica, or its lead, from one broker to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    /// The partition.
    pub number: usize,
    /// From whom.
    pub from: usize,
    /// To whom.
    pub to: usize,
}

/// The shortest chain of moves from a broker to one that has at least two less. When there is none, no
/// other choice is more even (optimal semi-matchings, Harvey et al. 2003). Every chain makes the sum
/// of squares smaller, so that levelling ends.
pub(super) fn chain_to_level(
    load: &[usize],
    moves: impl Fn(usize) -> Vec<Move>,
) -> Option<Vec<Move>> {
    let least = *load.iter().min()?;
    let mut starts: Vec<usize> = (0..load.len()).filter(|at| load[*at] >= least + 2).collect();
    starts.sort_by_key(|at| (usize::MAX - load[*at], *at));
    starts.into_iter().find_map(|start| {
        let mut reached: BTreeMap<usize, Move> = BTreeMap::new();
        let mut next = VecDeque::from([start]);
        while let Some(from) = next.pop_front() {
            for step in moves(from) {
                if step.to == start || reached.contains_key(&step.to) {
                    continue;
                }
                reached.insert(step.to, step);
                if load[step.to] + 2 <= load[start] {
                    return walk_back(&reached, start, step.to);
                }
                next.push_back(step.to);
            }
        }
        None
    })
}

/// The moves from `start` to `end`, unless two of them touch the same partition: the second was
/// found possible without the first.
fn walk_back(reached: &BTreeMap<usize, Move>, start: usize, end: usize) -> Option<Vec<Move>> {
    let mut chain = Vec::new();
    let mut at = end;
    while at != start {
        let step = reached[&at];
        chain.push(step);
        at = step.from;
    }
    let partitions: BTreeSet<usize> = chain.iter().map(|step| step.number).collect();
    (partitions.len() == chain.len()).then_some(chain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn wanted(topic: u128, partitions: usize, replication: usize) -> Wanted {
        let topic = TopicId(Uuid::from_u128(topic));
        Wanted { topic, first: PartitionId(0), partitions, replication }
    }

    fn brokers(count: usize, racks: usize) -> Vec<Candidate> {
        let broker = |at: usize| Candidate {
            node: NodeId(at as u32 + 1),
            rack: (racks > 0).then(|| format!("rack-{}", at % racks)),
            replicas: 0,
            leaders: 0,
        };
        (0..count).map(broker).collect()
    }

    fn counts<'a>(brokers: &[Candidate], placed: impl Iterator<Item = &'a NodeId>) -> Vec<usize> {
        let mut counts = vec![0; brokers.len()];
        placed.for_each(|node| counts[node.0 as usize - 1] += 1);
        counts
    }

    fn spread(counts: &[usize]) -> usize {
        counts.iter().max().expect("brokers") - counts.iter().min().expect("brokers")
    }

    proptest! {
        #[test]
        fn replicas_are_distinct_and_evenly_spread_and_so_are_leaders(
            topic: u128, count in 1usize..12, partitions in 1usize..60, replication in 1usize..6,
        ) {
            let brokers = brokers(count, 0);
            let replication = replication.min(count);
            let sets = assign(wanted(topic, partitions, replication), &brokers);
            prop_assert_eq!(sets.len(), partitions);
            for set in &sets {
                prop_assert_eq!(set.iter().collect::<BTreeSet<_>>().len(), replication);
            }
            prop_assert!(spread(&counts(&brokers, sets.iter().flatten())) <= 1);
            let led = counts(&brokers, sets.iter().map(|set| &set[0]));
            prop_assert!(spread(&led) <= 1, "{:?}", led);
        }

        #[test]
        fn a_partition_uses_as_many_racks_as_it_can(
            topic: u128, per_rack in 1usize..4, racks in 1usize..5, partitions in 1usize..40, replication in 1usize..6,
        ) {
            let brokers = brokers(per_rack * racks, racks);
            let replication = replication.min(brokers.len());
            let sets = assign(wanted(topic, partitions, replication), &brokers);
            for set in &sets {
                let used: BTreeSet<usize> = set.iter().map(|node| (node.0 as usize - 1) % racks).collect();
                prop_assert_eq!(used.len(), replication.min(racks));
            }
            prop_assert!(spread(&counts(&brokers, sets.iter().flatten())) <= 1);
        }

        #[test]
        fn one_more_broker_moves_little_more_than_its_share(topic: u128, count in 3usize..10) {
            let (partitions, replication) = (200, 3);
            let before = assign(wanted(topic, partitions, replication), &brokers(count, 0));
            let after = assign(wanted(topic, partitions, replication), &brokers(count + 1, 0));
            let moved: usize = before
                .iter()
                .zip(&after)
                .map(|(old, new)| new.iter().filter(|node| !old.contains(node)).count())
                .sum();
            let share = partitions * replication / (count + 1);
            prop_assert!(moved <= share * 8 / 5, "{} moved, a share is {}", moved, share);
        }
    }

    #[test]
    fn small_topics_go_where_there_is_least() {
        let mut brokers = brokers(3, 0);
        for topic in 0..90 {
            for node in assign(wanted(topic, 1, 1), &brokers).concat() {
                let broker = &mut brokers[node.0 as usize - 1];
                broker.replicas += 1;
                broker.leaders += 1;
            }
        }
        let replicas: Vec<usize> = brokers.iter().map(|broker| broker.replicas).collect();
        assert_eq!(replicas, [30, 30, 30]);
    }

    #[test]
    fn a_new_broker_gets_its_share_of_a_new_topic_and_of_many_small_ones_more() {
        let mut brokers = brokers(4, 0);
        for broker in &mut brokers[..3] {
            broker.replicas = 100;
        }
        let large = assign(wanted(7, 12, 3), &brokers);
        assert_eq!(large.iter().flatten().filter(|node| node.0 == 4).count(), 9, "no hot spot");
        assert!((0..20).all(|topic| assign(wanted(topic, 1, 1), &brokers) == [[NodeId(4)]]));
    }

    #[test]
    fn twelve_partitions_on_three_brokers_give_each_four_to_lead() {
        let brokers = brokers(3, 0);
        let sets = assign(wanted(42, 12, 3), &brokers);
        assert_eq!(counts(&brokers, sets.iter().map(|set| &set[0])), [4, 4, 4]);
    }
}
