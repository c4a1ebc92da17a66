//! Replicas by count: from who has most to who has least, and of what could go that which fits best.

use std::cmp::Reverse;

use super::exchange::Weight;
use super::planner::Planner;

impl Planner<'_> {
    /// From who has most to who has least, until nobody has two more than another that could take one.
    pub fn even_counts(&mut self) {
        while let Some((number, from, to)) = self.next_for_counts() {
            if !self.has_room([number]) {
                return;
            }
            self.relocate(number, from, to);
        }
    }

    fn next_for_counts(&self) -> Option<(usize, usize, usize)> {
        let count = |at: &usize| self.held[*at].len();
        let bytes = self.carried(Weight::Bytes);
        let mut givers = self.takers.clone();
        givers.sort_by_key(|at| (Reverse(count(at)), Reverse(bytes[*at]), *at));
        let mut receivers = self.takers.clone();
        receivers.sort_by_key(|at| (count(at), bytes[*at], *at));
        for from in &givers {
            for to in receivers.iter().take_while(|to| count(to) + 2 <= count(from)) {
                if let Some(number) = self.best_to_give(*from, *to) {
                    return Some((number, *from, *to));
                }
            }
        }
        None
    }

    /// Of what `from` could give to `to`: what evens out bytes and writes best, then what evens out
    /// topics.
    fn best_to_give(&self, from: usize, to: usize) -> Option<usize> {
        let replicas: usize = self.takers.iter().map(|at| self.held[*at].len()).sum();
        let wished = |weight| {
            let wish = (self.wish(from, weight) + self.wish(to, weight)) / 2;
            let grain = self.total(weight) / replicas.max(1) as u64 / 4 + 1;
            move |number: usize| self.weight(number, weight).abs_diff(wish) / grain
        };
        let (far_in_bytes, far_in_writes) = (wished(Weight::Bytes), wished(Weight::Writes));
        let of_topic = |broker: usize, number: usize| self.of_topic(broker, number) as i64;
        let key = |number: &usize| {
            let far = far_in_bytes(*number) + far_in_writes(*number);
            (far, of_topic(to, *number) - of_topic(from, *number), *number)
        };
        let could = self.held[from].iter().copied();
        could.filter(|number| self.may_move(*number, from, to)).min_by_key(key)
    }

    /// What each of the replicas would weigh that a broker has too many or too few of.
    fn wish(&self, broker: usize, weight: Weight) -> u64 {
        let takers = self.takers.len().max(1);
        let mean = self.takers.iter().map(|at| self.held[*at].len()).sum::<usize>() / takers;
        let mean_weight = self.mean(weight);
        let (count, carried) = (self.held[broker].len(), self.carried(weight)[broker]);
        let lacks = (mean.saturating_sub(count).max(1), mean_weight.saturating_sub(carried));
        let exceeds = (count.saturating_sub(mean).max(1), carried.saturating_sub(mean_weight));
        let (replicas, weight) = if count < mean { lacks } else { exceeds };
        weight / replicas as u64
    }
}
