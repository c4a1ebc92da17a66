//! The network between simulated brokers: it loses, repeats, reorders, delays, clogs and partitions.
//!
//! Links are directed. Whether a message passes is decided when it is sent; one that is under way
//! arrives although the link was cut or its sender restarted since, which is how messages of an
//! earlier life come about.

use std::collections::{BTreeMap, BTreeSet};

use crate::sim::rng::Rng;

/// How bad a network is; drawn per seed and shifted while it runs.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Messages lost of a thousand.
    pub loss: u64,
    /// Messages delivered twice of a thousand.
    pub repeat: u64,
    /// Messages of a thousand that take seconds.
    pub straggle: u64,
    /// The shortest way.
    pub delay_us_min: u64,
    /// What the way takes longer on average.
    pub delay_us_mean: u64,
}

/// Which links a partition cuts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Nothing passes between these brokers and the others.
    Between(BTreeSet<usize>),
    /// Nothing comes to these brokers from the others.
    Into(BTreeSet<usize>),
    /// Nothing leaves these brokers for the others.
    OutOf(BTreeSet<usize>),
}

/// The links between brokers.
#[derive(Debug)]
pub struct Network {
    rng: Rng,
    /// How bad it is at the moment.
    pub weather: Weather,
    cuts: Vec<Cut>,
    clogged_until_us: BTreeMap<(usize, usize), u64>,
    /// Messages that were lost on purpose.
    pub lost: u64,
    /// Messages that were delivered twice.
    pub repeated: u64,
}

impl Network {
    /// A network without partitions.
    pub fn new(seed: u64, weather: Weather) -> Network {
        let rng = Rng::new(seed, "network");
        Network {
            rng,
            weather,
            cuts: Vec::new(),
            clogged_until_us: BTreeMap::new(),
            lost: 0,
            repeated: 0,
        }
    }

    /// When copies of a message sent now arrive; none if it is lost.
    pub fn send(&mut self, now_us: u64, from: usize, to: usize) -> Vec<u64> {
        if !self.passes(from, to) || self.rng.per_mille(self.weather.loss) {
            self.lost += 1;
            return Vec::new();
        }
        let mut arrivals = vec![self.arrival(now_us, from, to)];
        if self.rng.per_mille(self.weather.repeat) {
            self.repeated += 1;
            arrivals.push(self.arrival(now_us, from, to));
        }
        arrivals
    }

    /// Whether no partition lies between.
    pub fn passes(&self, from: usize, to: usize) -> bool {
        !self.cuts.iter().any(|cut| match cut {
            Cut::Between(side) => side.contains(&from) != side.contains(&to),
            Cut::Into(side) => side.contains(&to) && !side.contains(&from),
            Cut::OutOf(side) => side.contains(&from) && !side.contains(&to),
        })
    }

    /// Cuts links until `heal`.
    pub fn cut(&mut self, cut: Cut) {
        self.cuts.push(cut);
    }

    /// Holds back what is sent on a link until then.
    pub fn clog(&mut self, from: usize, to: usize, until_us: u64) {
        self.clogged_until_us.insert((from, to), until_us);
    }

    /// Mends every link.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.clogged_until_us.clear();
    }

    /// Whether any link is cut.
    pub fn is_partitioned(&self) -> bool {
        !self.cuts.is_empty()
    }

    fn arrival(&mut self, now_us: u64, from: usize, to: usize) -> u64 {
        let mut delay =
            self.weather.delay_us_min + self.rng.long_tailed(self.weather.delay_us_mean);
        if self.rng.per_mille(self.weather.straggle) {
            delay += self.rng.between(200_000..=STRAGGLER_US_MAX);
        }
        let free = self.clogged_until_us.get(&(from, to)).copied().unwrap_or(0).max(now_us);
        free + delay
    }
}

impl Weather {
    /// A network that does its work.
    pub const FAIR: Weather =
        Weather { loss: 0, repeat: 0, straggle: 0, delay_us_min: 50, delay_us_mean: 300 };

    /// Draws a weather.
    pub fn draw(rng: &mut Rng) -> Weather {
        Weather {
            loss: *rng.pick(&[0, 0, 5, 30, 150, 300]),
            repeat: *rng.pick(&[0, 0, 5, 50, 300]),
            straggle: *rng.pick(&[0, 0, 1, 10, 50]),
            delay_us_min: *rng.pick(&[20, 50, 500, 5_000]),
            delay_us_mean: *rng.pick(&[100, 300, 2_000, 20_000, 60_000]),
        }
    }
}

/// The latest that a straggler comes: later than an election, and than most restarts.
const STRAGGLER_US_MAX: u64 = 8_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_one_way_cut_lets_the_other_way_through() {
        let mut network = Network::new(1, Weather::FAIR);
        network.cut(Cut::Into(BTreeSet::from([0])));
        assert!(network.send(0, 1, 0).is_empty());
        assert_eq!(network.send(0, 0, 1).len(), 1);
        network.heal();
        assert_eq!(network.send(0, 1, 0).len(), 1);
    }

    #[test]
    fn a_clogged_link_delivers_late_and_loses_nothing() {
        let mut network = Network::new(1, Weather::FAIR);
        network.clog(0, 1, 1_000_000);
        assert!(network.send(0, 0, 1)[0] >= 1_000_000);
        assert!(network.send(0, 1, 0)[0] < 1_000_000);
    }
}
