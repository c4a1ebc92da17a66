//! Who leads: the first of a set does, by preference, and places within a set are changed by copying
//! nothing.
//!
//! By count first: nobody is first two times more often than another that could be instead. Then by
//! load, counts staying as they are: a broker gives a partition that is expensive to lead and gets a
//! cheap one back, from whom it gave to or from a third that gets one instead.

use std::collections::{BTreeMap, BTreeSet};

use super::exchange::Band;
use super::planner::Planner;
use crate::controller::placement::{self, chain_to_level};

/// Who leads what; brokers are named by their places among those that take replicas.
struct Led {
    places: BTreeMap<usize, usize>,
    led: Vec<BTreeSet<usize>>,
    load: Vec<u64>,
}

/// Whether leaders are evened out by load after their count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByLoad {
    Yes,
    No,
}

/// One broker leads a partition instead of another.
type Step = placement::Move;

impl Led {
    fn new(planner: &Planner<'_>) -> Led {
        let takers = planner.takers.iter().enumerate();
        let places: BTreeMap<usize, usize> = takers.map(|(at, broker)| (*broker, at)).collect();
        let mut led = vec![BTreeSet::new(); planner.takers.len()];
        let mut load = vec![0; planner.takers.len()];
        for (number, set) in planner.sets.iter().enumerate() {
            if let Some(at) = places.get(&set[0]) {
                led[*at].insert(number);
                load[*at] += planner.partitions[number].leader_load();
            }
        }
        Led { places, led, load }
    }

    /// By how much the sum of squared loads would change.
    fn change(&self, planner: &Planner<'_>, steps: &[Step]) -> i128 {
        let load = |step: &Step| i128::from(planner.partitions[step.number].leader_load());
        let mut differs: Vec<(usize, i128)> = Vec::with_capacity(2 * steps.len());
        for step in steps {
            for (at, by) in [(step.from, -load(step)), (step.to, load(step))] {
                match differs.iter_mut().find(|(known, _)| *known == at) {
                    Some((_, sum)) => *sum += by,
                    None => differs.push((at, by)),
                }
            }
        }
        // (was + by)² - was²
        let squares = |(at, by): (usize, i128)| by * (2 * i128::from(self.load[at]) + by);
        differs.into_iter().map(squares).sum()
    }
}

impl Planner<'_> {
    /// Evens out who leads, within the sets.
    pub fn even_leaders(&mut self, by_load: ByLoad) {
        let mut led = Led::new(self);
        loop {
            self.even_leader_counts(&mut led);
            // An exchange may open a way for a count.
            if by_load == ByLoad::No || !self.exchange_leaders(&mut led) {
                return;
            }
        }
    }

    fn even_leader_counts(&mut self, led: &mut Led) {
        loop {
            let counts: Vec<usize> = led.led.iter().map(BTreeSet::len).collect();
            let chain = chain_to_level(&counts, |from| {
                let mut steps = BTreeMap::new();
                for number in led.led[from].iter().filter(|number| self.is_movable(**number)) {
                    for to in self.could_lead(led, *number) {
                        steps.entry(to).or_insert(Step { number: *number, from, to });
                    }
                }
                steps.into_values().collect()
            });
            let chain = chain.filter(|chain| self.has_room(chain.iter().map(|step| step.number)));
            let Some(chain) = chain else { return };
            chain.into_iter().for_each(|step| self.step(led, step));
        }
    }

    /// Whether there was anything to exchange.
    fn exchange_leaders(&mut self, led: &mut Led) -> bool {
        let mean = led.load.iter().sum::<u64>() / led.load.len().max(1) as u64;
        let band = Band::of_rates(mean);
        if !led.load.iter().any(|load| band.begins_at(*load)) {
            return false;
        }
        let mut any = false;
        while let Some(steps) = self.next_leader_exchange(led, band) {
            if !self.has_room(steps.iter().map(|step| step.number)) {
                return false;
            }
            any = true;
            steps.into_iter().for_each(|step| self.step(led, step));
        }
        any
    }

    /// What helps the busiest most that can be helped.
    fn next_leader_exchange(&self, led: &Led, band: Band) -> Option<Vec<Step>> {
        let mut busy: Vec<usize> =
            (0..led.load.len()).filter(|at| band.is_above(led.load[*at])).collect();
        busy.sort_by_key(|at| (u64::MAX - led.load[*at], *at));
        if busy.is_empty() {
            return None;
        }
        let cheapest = self.cheapest(led);
        busy.into_iter().find_map(|busy| self.best_leader_exchange(led, &cheapest, busy, band))
    }

    /// By who leads it and who could instead: the partition that is cheapest to lead.
    fn cheapest(&self, led: &Led) -> BTreeMap<(usize, usize), usize> {
        let mut cheapest: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let load = |number: usize| self.partitions[number].leader_load();
        for (from, numbers) in led.led.iter().enumerate() {
            for number in numbers.iter().copied().filter(|number| self.is_movable(*number)) {
                for to in self.could_lead(led, number) {
                    let known = cheapest.entry((from, to)).or_insert(number);
                    if load(number) < load(*known) {
                        *known = number;
                    }
                }
            }
        }
        cheapest
    }

    fn best_leader_exchange(
        &self,
        led: &Led,
        cheapest: &BTreeMap<(usize, usize), usize>,
        busy: usize,
        band: Band,
    ) -> Option<Vec<Step>> {
        let load = |step: &Step| self.partitions[step.number].leader_load();
        let back = |from: usize, to: usize| {
            cheapest.get(&(from, to)).map(|number| Step { number: *number, from, to })
        };
        let mut best: Option<(i128, Vec<Step>)> = None;
        for number in led.led[busy].iter().copied().filter(|number| self.is_movable(*number)) {
            for to in self.could_lead(led, number) {
                let gives = Step { number, from: busy, to };
                let alone = (led.led[busy].len() > led.led[to].len()).then(|| vec![gives]);
                let straight = back(to, busy).map(|comes| vec![gives, comes]);
                let by_a_third = (0..led.load.len()).filter_map(|third| {
                    let (passes, comes) = (back(to, third)?, back(third, busy)?);
                    Some(vec![gives, passes, comes])
                });
                for steps in alone.into_iter().chain(straight).chain(by_a_third) {
                    let comes = steps.last().filter(|step| step.to == busy).map_or(0, load);
                    let change = led.change(self, &steps);
                    let worth = load(&gives) > comes + band.grain() && change < 0;
                    if worth && best.as_ref().is_none_or(|(found, _)| change < *found) {
                        best = Some((change, steps));
                    }
                }
            }
        }
        best.map(|(_, steps)| steps)
    }

    /// The others of a set that take replicas.
    fn could_lead(&self, led: &Led, number: usize) -> Vec<usize> {
        self.sets[number][1..].iter().filter_map(|broker| led.places.get(broker)).copied().collect()
    }

    fn step(&mut self, led: &mut Led, Step { number, from, to }: Step) {
        self.hand_over(number, self.takers[to]);
        led.led[from].remove(&number);
        led.led[to].insert(number);
        let load = self.partitions[number].leader_load();
        led.load[from] -= load;
        led.load[to] += load;
    }
}
