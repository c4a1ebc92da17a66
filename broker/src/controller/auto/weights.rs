//! When weights are uneven enough that the controller moves something by itself.
//!
//! A plan begins where a broker carries three tenths more than the mean, and only if it takes at least
//! a tenth of the mean off all that brokers carry beyond the tenth which a plan leaves: so that a lone
//! partition which is too heavy for any broker moves nothing, nor do its neighbours for it. Leaders
//! change places first, for that copies nothing.

use highwater_protocol::native::moves::PlannedMove;

use crate::controller::balance::{self, Aim, Host, Placed, Share};
use crate::controller::moves::Evened;

/// Something that brokers carry.
struct Weight {
    evened: Evened,
    of: fn(&Share) -> u64,
    /// Brokers that differ by less do not differ.
    slack_min: u64,
}

const WEIGHTS: [Weight; 3] = [
    Weight { evened: Evened::Leading, of: |share| share.leader_load, slack_min: RATE_SLACK_MIN },
    Weight { evened: Evened::Bytes, of: |share| share.bytes, slack_min: BYTES_SLACK_MIN },
    Weight { evened: Evened::Writes, of: |share| share.write_load, slack_min: RATE_SLACK_MIN },
];

/// What is to be evened out first, and the first steps to it; none where all is even enough.
/// `partitions` gives those that may move to this end.
pub fn first_steps(
    hosts: &[Host],
    partitions: impl Fn(Aim) -> Vec<Placed>,
    changes_max: usize,
) -> (Evened, Vec<PlannedMove>) {
    for weight in &WEIGHTS {
        let aim = aim(weight.evened);
        let before = partitions(aim);
        let carried = weight.carried(hosts, &before);
        if !weight.is_uneven(&carried) {
            continue;
        }
        let whole = balance::first_steps(hosts, &before, aim, usize::MAX);
        let after = weight.carried(hosts, &balance::carried_out(&before, &whole));
        let gain = weight.excess(&carried).saturating_sub(weight.excess(&after));
        if gain >= weight.slack(&carried) {
            return (weight.evened, balance::first_steps(hosts, &before, aim, changes_max));
        }
    }
    (Evened::Counts, Vec::new())
}

/// What a plan aims at that evens this out.
pub fn aim(evened: Evened) -> Aim {
    match evened {
        Evened::Counts => Aim::Counts,
        Evened::Bytes | Evened::Writes => Aim::All,
        Evened::Leading => Aim::Leaders,
    }
}

impl Weight {
    fn carried(&self, hosts: &[Host], partitions: &[Placed]) -> Vec<u64> {
        balance::shares(hosts, partitions).iter().map(self.of).collect()
    }

    fn slack(&self, carried: &[u64]) -> u64 {
        (mean(carried) / 10).max(self.slack_min)
    }

    fn is_uneven(&self, carried: &[u64]) -> bool {
        let most = carried.iter().max().copied().unwrap_or_default();
        most > mean(carried) + 3 * self.slack(carried)
    }

    /// What all brokers together carry beyond what a plan leaves.
    fn excess(&self, carried: &[u64]) -> u64 {
        let may = mean(carried) + self.slack(carried);
        carried.iter().map(|carries| carries.saturating_sub(may)).sum()
    }
}

fn mean(carried: &[u64]) -> u64 {
    carried.iter().sum::<u64>() / carried.len().max(1) as u64
}

const RATE_SLACK_MIN: u64 = 64 * 1024;
const BYTES_SLACK_MIN: u64 = 256 * 1024 * 1024;
