//! Replicas by weight: a broker that carries too much gives a heavy one for a light one, counts staying
//! as they are.
//!
//! What must hold: each exchange brings its two brokers closer, so that a sum of squares shrinks and
//! this ends; one by writes leaves neither broker's bytes further outside of their band than they were.
//! Rates are never the same twice: by writes nothing begins before a broker is two tenths off, and
//! what begins goes on until all are within one.

use super::planner::Planner;

/// What replicas weigh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Bytes on disk.
    Bytes,
    /// Bytes that are written in a second.
    Writes,
}

/// Where what a broker carries lies, and is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Band {
    mean: u64,
    slack: u64,
    /// So far off the mean something begins.
    begins: u64,
}

impl Band {
    /// For rates, which vary, around their mean.
    pub fn of_rates(mean: u64) -> Band {
        let slack = (mean / SLACK).max(RATE_SLACK_MIN);
        Band { mean, slack, begins: 2 * slack }
    }

    fn of_bytes(mean: u64) -> Band {
        let slack = mean / SLACK;
        Band { mean, slack, begins: slack }
    }

    /// Whether a broker that carries this is a reason to begin.
    pub fn begins_at(self, carried: u64) -> bool {
        carried.abs_diff(self.mean) > self.begins
    }

    /// Whether a broker carries more than the band allows.
    pub fn is_above(self, carried: u64) -> bool {
        carried > self.mean + self.slack
    }

    fn is_below(self, carried: u64) -> bool {
        carried + self.slack < self.mean
    }

    /// How far outside it lies.
    fn beyond(self, carried: u64) -> u64 {
        carried.abs_diff(self.mean).saturating_sub(self.slack)
    }

    /// Less than this is not worth a change.
    pub fn grain(self) -> u64 {
        self.slack / 4
    }
}

/// A replica of the heavier broker, and one of the lighter one for it; none for it where the heavier
/// has one more.
struct Exchange {
    heavy: usize,
    light: usize,
    large: usize,
    small: Option<usize>,
}

impl Planner<'_> {
    /// Exchanges heavy replicas for light ones while a broker carries a tenth more or less than the mean.
    pub fn exchange(&mut self, weight: Weight) {
        let band = self.band(weight);
        if !self.takers.iter().any(|at| band.begins_at(self.carried(weight)[*at])) {
            return;
        }
        while let Some(Exchange { heavy, light, large, small }) = self.next_exchange(weight, band) {
            if !self.has_room(small.into_iter().chain([large])) {
                return;
            }
            self.relocate(large, heavy, light);
            if let Some(small) = small {
                self.relocate(small, light, heavy);
            }
        }
    }

    fn band(&self, weight: Weight) -> Band {
        let mean = self.mean(weight);
        match weight {
            Weight::Bytes => Band::of_bytes(mean),
            Weight::Writes => Band::of_rates(mean),
        }
    }

    /// Between the heaviest and the lightest; where racks or sets forbid that, between the next.
    fn next_exchange(&self, weight: Weight, band: Band) -> Option<Exchange> {
        let carried = self.carried(weight);
        let mut by_weight = self.takers.clone();
        by_weight.sort_by_key(|at| (carried[*at], *at));
        for heavy in by_weight.iter().rev().copied() {
            for light in by_weight.iter().copied() {
                let outside = band.is_above(carried[heavy]) || band.is_below(carried[light]);
                if !outside || carried[heavy].saturating_sub(carried[light]) <= band.slack {
                    break;
                }
                let found = self.best_exchange(weight, heavy, light);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    fn best_exchange(&self, weight: Weight, heavy: usize, light: usize) -> Option<Exchange> {
        let gap = self.carried(weight)[heavy] - self.carried(weight)[light];
        let (weigh, bytes) = (|at| self.weight(at, weight), |at| self.weight(at, Weight::Bytes));
        // Less than a sixteenth of the gap is not worth copying.
        let worth = gap / 16;
        let goes = self.held[heavy].iter().copied();
        let goes = goes.filter(|at| weigh(*at) > worth && self.may_move(*at, heavy, light));
        let comes = self.held[light].iter().copied();
        let comes: Vec<usize> = comes.filter(|at| self.may_move(*at, light, heavy)).collect();
        let lightest = first(comes.clone(), |at| (weigh(at), at));
        let mut best = None;
        for large in self.worth_trying(weight, goes.collect(), gap) {
            // Of those that are all as good as idle, those that weigh as much on disk.
            let alike = |at| (weigh(at) / (worth + 1), bytes(at).abs_diff(bytes(large)), at);
            let back = match weight {
                Weight::Bytes => lightest.clone(),
                Weight::Writes => first(comes.clone(), alike),
            };
            let alone = (self.held[heavy].len() > self.held[light].len()).then_some(None);
            for small in alone.into_iter().chain(back.into_iter().map(Some)) {
                let exchange = Exchange { heavy, light, large, small };
                let moved = weigh(large).saturating_sub(small.map_or(0, weigh));
                if moved <= worth || moved >= gap || self.undoes(weight, &exchange) {
                    continue;
                }
                let far = moved.abs_diff(gap / 2) / (gap / 8 + 1);
                let key = (far, bytes(large) + small.map_or(0, bytes), large, small);
                if best.is_none_or(|found| key < found) {
                    best = Some(key);
                }
            }
        }
        best.map(|(_, _, large, small)| Exchange { heavy, light, large, small })
    }

    fn worth_trying(&self, weight: Weight, goes: Vec<usize>, gap: u64) -> Vec<usize> {
        match weight {
            Weight::Bytes => goes,
            Weight::Writes => {
                first(goes, |at| (self.weight(at, Weight::Writes).abs_diff(gap / 2), at))
            }
        }
    }

    /// Whether what is evened out before this weight would be worse than it is.
    fn undoes(&self, weight: Weight, exchange: &Exchange) -> bool {
        let Exchange { heavy, light, large, small } = *exchange;
        match weight {
            Weight::Bytes => false,
            Weight::Writes => {
                let band = self.band(Weight::Bytes);
                let (goes, comes) = (
                    self.weight(large, Weight::Bytes),
                    small.map_or(0, |small| self.weight(small, Weight::Bytes)),
                );
                let worse = |broker: usize, less: u64, more: u64| {
                    let now = self.carried(Weight::Bytes)[broker];
                    band.beyond(now - less + more) > band.beyond(now)
                };
                worse(heavy, goes, comes) || worse(light, comes, goes)
            }
        }
    }
}

/// The first few by this key.
fn first<K: Ord>(mut all: Vec<usize>, key: impl Fn(usize) -> K) -> Vec<usize> {
    if all.len() > TRIED_MAX {
        all.select_nth_unstable_by_key(TRIED_MAX, |at| key(*at));
        all.truncate(TRIED_MAX);
    }
    all.sort_by_key(|at| key(*at));
    all
}

/// A broker may carry a tenth more or less than the mean.
const SLACK: u64 = 10;
/// Brokers that differ by less in a second differ in nothing.
const RATE_SLACK_MIN: u64 = 64 * 1024;
/// So many of the lightest replicas are tried in exchange for a heavy one.
const TRIED_MAX: usize = 16;
