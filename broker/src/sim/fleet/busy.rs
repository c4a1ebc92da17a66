//! A fleet whose clients write much to few partitions: what the controller moves for its load by
//! itself, and what it leaves where it is.
//!
//! Played: a quarter of an hour of even load, a burst of four minutes, a skewed load that stays until
//! nothing moves any more, and a load that always lies where one broker leads. Each broker tells its
//! loads once a minute, a tenth more or less than they are. What must hold: even loads and bursts move
//! nothing; a load that stays is spread, with an end; nothing is moved for its load twice in an hour.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::balance::Load;

use super::story::{self, Size};
use super::{Fleet, moving};
use crate::controller::auto::REST_MS;
use crate::controller::balance::{self, Share};
use crate::controller::loads::{LoadReport, PartitionLoad, REPORT_EVERY_MS};
use crate::controller::moves::{Evened, MoveRecord, Why};
use crate::controller::{Command, MetadataRecord};
use crate::raft::Millis;
use crate::sim::rng::Rng;

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Moves that spread the load that stayed.
    pub spread_by: u64,
    /// Minutes until nothing moved any more.
    pub spread_within: u64,
    /// What the busiest broker took in, in percent of the mean, before and after.
    pub writes: [u64; 2],
    /// What it sent as a leader.
    pub leading: [u64; 2],
    /// Moves while the load followed one broker.
    pub followed_by: u64,
}

/// What clients do to each partition that they do more to than nothing.
#[derive(Debug, Default)]
pub(super) struct Demand(BTreeMap<TopicPartition, u64>);

impl Demand {
    fn load(&self, partition: TopicPartition) -> Load {
        let bytes_in_per_s = self.0.get(&partition).copied().unwrap_or_default();
        Load { bytes_in_per_s, bytes_out_per_s: bytes_in_per_s }
    }

    /// As it is measured: a tenth more or less.
    fn measured(&self, partition: TopicPartition, rng: &mut Rng) -> Load {
        let Load { bytes_in_per_s, bytes_out_per_s } = self.load(partition);
        let percent = rng.between(90..=110);
        Load {
            bytes_in_per_s: bytes_in_per_s * percent / 100,
            bytes_out_per_s: bytes_out_per_s * percent / 100,
        }
    }
}

/// When each partition was moved last for its load: by who leads, or by copies.
#[derive(Debug, Default)]
pub(super) struct Rests(BTreeMap<(TopicPartition, Evened), Millis>);

impl Rests {
    /// Nothing is moved for its load twice in an hour.
    pub fn check(&mut self, records: &[MetadataRecord], now: Millis) {
        for record in records {
            let MetadataRecord::Move(MoveRecord::Because(partition, Why::Evens(evened))) = record
            else {
                continue;
            };
            let kind = match evened {
                Evened::Counts => continue,
                Evened::Leading => Evened::Leading,
                Evened::Bytes | Evened::Writes => Evened::Writes,
            };
            if let Some(last) = self.0.insert((*partition, kind), now) {
                let rested_ms = now.0 - last.0;
                assert!(rested_ms >= REST_MS, "{partition} is moved again after {rested_ms} ms");
            }
        }
    }

    /// A new controller knows nothing of what an earlier one moved.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

impl Fleet {
    /// Every broker tells once a minute, each at its own time, what it leads: the first of each set,
    /// for nobody else leads in quiet times.
    pub(super) fn tell_loads(&mut self) {
        if self.demand.0.is_empty() {
            return;
        }
        for at in 0..self.hosts.len() {
            let host = &self.hosts[at];
            let (node, image) = (host.node(), host.image());
            let turn = self.now.0 + u64::from(node.0) * 4_700;
            if !host.is_up() || !turn.is_multiple_of(REPORT_EVERY_MS) {
                continue;
            }
            let led = image.every_partition().filter(|(topic, number)| {
                topic.partitions[number.0 as usize].first().is_some_and(|it| it.node == node)
            });
            let led: Vec<TopicPartition> =
                led.map(|(topic, number)| TopicPartition::new(topic.id, number)).collect();
            let told = |partition| {
                let load = self.demand.measured(partition, &mut self.rng);
                PartitionLoad { partition, bytes: 1 << 20, load }
            };
            let led = led.into_iter().map(told).collect();
            self.ask(Command::Loads(LoadReport { node, led }));
        }
    }

    fn minutes(&mut self, minutes: u64) {
        (0..minutes * REPORT_EVERY_MS / super::ROUND_MS).for_each(|_| self.round());
    }

    /// Few partitions of those that a broker leads are hot, and all others are not idle.
    fn heat(&mut self, node: NodeId, hot: usize) {
        let (mut demand, mut heated) = (BTreeMap::new(), 0);
        for (topic, number) in self.image().every_partition() {
            let leads = topic.partitions[number.0 as usize][0].node == node;
            let is_hot = leads && heated < hot;
            heated += usize::from(is_hot);
            let rate = if is_hot { 10 << 20 } else { 20 << 10 };
            demand.insert(TopicPartition::new(topic.id, number), rate);
        }
        self.demand = Demand(demand);
    }

    /// The most that a broker carries, in percent of the mean.
    fn busiest(&self, of: fn(&Share) -> u64) -> u64 {
        let demand = self.demand.0.keys();
        let loads: Vec<_> = demand.map(|at| (*at, self.demand.load(*at))).collect();
        let (hosts, placed) = balance::inputs(self.image(), &[], &loads);
        let carried: Vec<u64> = balance::shares(&hosts, &placed).iter().map(of).collect();
        let mean = carried.iter().sum::<u64>() / carried.len() as u64;
        100 * carried.iter().max().copied().unwrap_or_default() / mean
    }
}

/// Plays everything; panics where something does not hold.
pub fn play(seed: u64) -> Seen {
    let mut fleet = Fleet::new(seed, 12, 4, || Duration::ZERO);
    let size = Size { brokers: 12, topics: 4, partitions_each: 18, storm_rounds: 0 };
    fleet.play_until(200, Fleet::is_settled);
    story::create(&mut fleet, size, 0);
    story::set(&mut fleet, "balance.auto", "on");
    let busy = NodeId(1 + (seed % 12) as u32);
    // Placement leaves a little that is uneven by count.
    fleet.minutes(3);
    let by_count = fleet.seen.own_moves;

    fleet.heat(busy, 0);
    fleet.minutes(15);
    fleet.heat(busy, 4);
    fleet.minutes(4);
    fleet.heat(busy, 0);
    fleet.minutes(10);
    assert_eq!(fleet.seen.own_moves, by_count, "neither even loads nor a burst move anything");

    fleet.heat(busy, 4);
    let loads = |fleet: &Fleet| {
        (fleet.busiest(|share| share.write_load), fleet.busiest(|share| share.leader_load))
    };
    let before = loads(&fleet);
    let (mut spread_within, mut moved) = (0, u64::MAX);
    while moved != fleet.seen.own_moves {
        moved = fleet.seen.own_moves;
        // Longer than it takes to know a load: after so long without a move there is none to come.
        fleet.minutes(15);
        spread_within += 15;
        assert!(spread_within <= 90, "a load that stays is spread within a bound");
    }
    let after = loads(&fleet);
    assert!(moving(fleet.image()).is_empty());
    assert!(after.0 * 2 <= before.0, "writes are spread: {before:?} to {after:?}");
    assert!(after.1 * 2 <= before.1, "leaders are spread: {before:?} to {after:?}");

    for _ in 0..4 {
        fleet.heat(busy, 3);
        fleet.minutes(12);
    }
    fleet.play_until(600, Fleet::is_settled);
    fleet.check_all();
    Seen {
        spread_by: moved - by_count,
        spread_within,
        writes: [before.0, after.0],
        leading: [before.1, after.1],
        followed_by: fleet.seen.own_moves - moved,
    }
}
