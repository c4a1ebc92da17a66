//! Moves that nobody asked for: what evens the cluster out while `balance.auto` is on, and what puts the
//! replicas of a broker that has been away for long elsewhere (`balance.replace.after.ms`).
//!
//! The same plans and the same moves as an operator's, few at a time and slowly, and each says in the
//! log why it was begun. What must hold: nothing is evened out but in a calm cluster, so that no plan is
//! overtaken by what it did not know; it begins when brokers differ by more than the planner leaves, so
//! that it ends, and by weight (`weights`) only where that has lasted for minutes, so that no burst
//! moves anything; what was moved for its weight rests for an hour; nobody is replaced whose absence
//! this leader did not witness for the whole time, nor while so many are away that it must be the
//! network or the power. What has not begun is dropped once its reason is gone. Pure; the records are
//! `reassign::own`'s.

mod weights;

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{Incarnation, NodeId, PartitionId, TopicPartition};
use highwater_protocol::native::brokers::BrokerDuty;
use highwater_protocol::native::moves::MoveStage;

use crate::controller::balance::{self, Aim, Host, Movable, Placed};
use crate::controller::image::{Broker, ClusterImage, Topic};
use crate::controller::loads::{LoadReport, Loads};
use crate::controller::moves::{Evened, Move, Why};
use crate::controller::reassign::own::{self, Draw, Wanted};
use crate::controller::record::MetadataRecord;
use crate::mutant::{self, Mutant};
use crate::raft::Millis;

/// What a leader of the controller has witnessed; made anew in every term.
#[derive(Debug, Clone)]
pub struct Auto {
    me: NodeId,
    witnessed_at: Millis,
    looked_at: Millis,
    /// Since when no broker came or went, and nobody else moved anything.
    calm_since: Millis,
    brokers: Vec<(NodeId, Incarnation, bool, BrokerDuty)>,
    away_since: BTreeMap<NodeId, Millis>,
    loads: Loads,
    /// When each partition was moved last for its weight: one that only changed its leader may be
    /// copied all the same.
    weighed_at: BTreeMap<(TopicPartition, Aim), Millis>,
}

impl Auto {
    /// Of a leader elected now: it has witnessed nothing yet.
    pub fn new(me: NodeId, now: Millis) -> Auto {
        Auto {
            me,
            witnessed_at: now,
            looked_at: now,
            calm_since: now,
            brokers: Vec::new(),
            away_since: BTreeMap::new(),
            loads: Loads::default(),
            weighed_at: BTreeMap::new(),
        }
    }

    /// What a broker says of the partitions that it leads.
    pub fn hear(&mut self, image: &ClusterImage, report: &LoadReport, now: Millis) {
        if image.settings().balances_itself() {
            self.loads.hear(image, report, now);
        }
    }

    /// What to move, and which of the moves that wait to drop; to be asked about twice a second.
    pub fn look(&mut self, image: &ClusterImage, now: Millis) -> Vec<MetadataRecord> {
        self.witness(image, now);
        let unwanted = own::drop_unwanted(image);
        if !unwanted.is_empty() || age(now, self.looked_at) < LOOK_EVERY_MS {
            return unwanted;
        }
        self.looked_at = now;
        match image.settings().balances_itself() {
            true => self.loads.forget(image, now),
            false => self.loads = Loads::default(),
        }
        let draw = Draw::new(image, self.me, now);
        let turned = self.turn_back(image, now, draw);
        if !turned.is_empty() {
            return turned;
        }
        let mut wanted = self.replacements(image, now);
        if wanted.is_empty() {
            wanted = self.evening_out(image, now);
        }
        own::begin(image, &wanted, draw)
    }

    fn witness(&mut self, image: &ClusterImage, now: Millis) {
        if age(now, self.witnessed_at) > UNWITNESSED_MS {
            // We did not run ourselves: who knows who was there meanwhile.
            self.away_since.clear();
            self.calm_since = now;
        }
        self.witnessed_at = now;
        let is_away = |node: &NodeId| image.broker(*node).is_some_and(|broker| broker.fenced);
        self.away_since.retain(|node, _| is_away(node));
        for broker in image.brokers().filter(|broker| broker.fenced) {
            self.away_since.entry(broker.registration.node).or_insert(now);
        }
        let state = |broker: &Broker| {
            let known = &broker.registration;
            (known.node, known.incarnation, broker.fenced, broker.duty)
        };
        let brokers: Vec<_> = image.brokers().map(state).collect();
        // Somebody begins a move, or turns one of ours back.
        let by_hand = |topic: &Topic, (number, found): (PartitionId, &Move)| {
            topic.why_moved(number).is_none() || found.stage == MoveStage::GoingBack
        };
        let asked = image.topics().any(|topic| topic.moving().any(|found| by_hand(topic, found)));
        if asked || brokers != self.brokers {
            self.calm_since = now;
            self.brokers = brokers;
        }
        self.weighed_at.retain(|_, at| age(now, *at) < REST_MS);
    }

    /// Who has been away for so long that others are to have its replicas. Who was drained before it
    /// went is expected back.
    fn gone(&self, image: &ClusterImage, now: Millis) -> BTreeSet<NodeId> {
        let Some(mut after_ms) = image.settings().replaces_after_ms() else {
            return BTreeSet::new();
        };
        if mutant::active(Mutant::ReplacedTooSoon) {
            after_ms = 0;
        }
        let all = image.brokers().count();
        if self.away_since.len() * AWAY_SHARE_MAX > all {
            return BTreeSet::new();
        }
        let expected = |node: &NodeId| match image.broker(*node).map(|broker| broker.duty) {
            Some(BrokerDuty::Active) => false,
            Some(BrokerDuty::Draining | BrokerDuty::Leaving) | None => true,
        };
        let long = self.away_since.iter().filter(|(_, since)| age(now, **since) >= after_ms);
        long.map(|(node, _)| *node).filter(|node| !expected(node)).collect()
    }

    /// A replica on a broker that is gone goes to another, in a rack of its own where there is one.
    fn replacements(&self, image: &ClusterImage, now: Millis) -> Vec<Wanted> {
        let gone = self.gone(image, now);
        if gone.is_empty() {
            return Vec::new();
        }
        let room = OWN_MOVES_MAX.saturating_sub(own::count(image));
        own::replacements(image, &gone, room)
    }

    /// Moves of ours to brokers that are gone since: they would never end.
    fn turn_back(&self, image: &ClusterImage, now: Millis, draw: Draw) -> Vec<MetadataRecord> {
        let gone = self.gone(image, now);
        if gone.is_empty() { Vec::new() } else { own::turn_back(image, &gone, draw) }
    }

    fn evening_out(&mut self, image: &ClusterImage, now: Millis) -> Vec<Wanted> {
        if !image.settings().balances_itself() || age(now, self.calm_since) < CALM_MS {
            return Vec::new();
        }
        let moves = image.topics().any(|topic| topic.moving().next().is_some());
        let held_by_absent = || {
            let mut sets = image.every_partition().flat_map(|(topic, at)| topic.settles_on(at));
            sets.any(|replica| self.away_since.contains_key(&replica.node))
        };
        if !mutant::active(Mutant::BalanceAmidMoves) && (moves || held_by_absent()) {
            return Vec::new();
        }
        let known = self.loads.are_whole(image, now);
        let (sizes, loads) = match known {
            true => (self.loads.sizes(), self.loads.loads()),
            false => (Vec::new(), Vec::new()),
        };
        let (hosts, placed) = balance::inputs(image, &sizes, &loads);
        let mut evened = Evened::Counts;
        let mut plan = match is_uneven(&hosts, &placed) {
            true => balance::first_steps(&hosts, &placed, Aim::Counts, OWN_MOVES_MAX),
            false => Vec::new(),
        };
        if plan.is_empty() && known {
            let rested = |aim| self.rested(&placed, aim);
            (evened, plan) = weights::first_steps(&hosts, rested, OWN_MOVES_MAX);
            // At once, for a change of who leads may be over before the next look.
            let begun = plan.iter().map(|at| ((at.partition, weights::aim(evened)), now));
            self.weighed_at.extend(begun);
        }
        plan.into_iter().map(|at| (at.partition, at.to, Why::Evens(evened))).collect()
    }

    /// The partitions, of which those stay where they are that were moved not long ago to this end.
    fn rested(&self, placed: &[Placed], aim: Aim) -> Vec<Placed> {
        let rest = |at: &Placed| {
            let moved = self.weighed_at.contains_key(&(at.partition, aim));
            let stays = moved && !mutant::active(Mutant::LoadMovesUnrested);
            let movable = if stays { Movable::No } else { at.movable };
            Placed { movable, ..at.clone() }
        };
        placed.iter().map(rest).collect()
    }
}

/// Whether a plan is worth its moves: what the planner would still call even is left as it is, and so
/// is a tenth more.
fn is_uneven(hosts: &[Host], placed: &[Placed]) -> bool {
    let shares = balance::shares(hosts, placed);
    let differ = |values: Vec<usize>| {
        let (most, least) = (values.iter().max(), values.iter().min());
        let mean = values.iter().sum::<usize>() / values.len().max(1);
        let (Some(most), Some(least)) = (most, least) else { return false };
        most - least >= 2 + mean / SLACK
    };
    differ(shares.iter().map(|share| share.replicas).collect())
        || differ(shares.iter().map(|share| share.leaders).collect())
        || balance::shares_a_rack(hosts, placed)
}

fn age(now: Millis, then: Millis) -> u64 {
    now.0.saturating_sub(then.0)
}

/// How often there is a plan at most; between two, what was begun goes on.
const LOOK_EVERY_MS: u64 = 10_000;
/// The cluster is calm once nobody came, went or moved anything for so long.
pub const CALM_MS: u64 = 60_000;
/// Looks come twice a second; after a longer pause nothing from before it counts.
const UNWITNESSED_MS: u64 = 5_000;
/// Moves of its own that the controller has under way and waiting.
pub const OWN_MOVES_MAX: usize = 32;
/// While more than a third of all brokers is away nobody is replaced.
const AWAY_SHARE_MAX: usize = 3;
/// What was moved for its weight stays where it is for so long.
pub const REST_MS: u64 = 3_600_000;
/// Brokers may differ by a tenth, and by one more replica than a plan leaves.
const SLACK: usize = 10;

#[cfg(test)]
mod tests;
