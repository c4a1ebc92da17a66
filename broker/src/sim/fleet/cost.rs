//! What the acts of the controller cost, by a stopwatch that the caller brings.

use std::collections::BTreeMap;
use std::time::Duration;

/// Time since some moment; a test that does not measure brings one that stands still.
pub type Stopwatch = fn() -> Duration;

/// Something that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// One command is decided and applied.
    Decide,
    /// One broker takes in what came since it last looked: decodes, applies, compares, opens and closes.
    Follow,
    /// The controller looks who lives and what waits.
    Judge,
    /// The image is encoded to begin the log anew.
    Image,
    /// What would even the fleet out is planned.
    Plan,
    /// A broker saves its image.
    Save,
    /// A broker starts from its saved image.
    Load,
}

/// The cost of one act, over many times.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// How many times.
    pub times: u64,
    /// How long all of them took.
    pub took: Duration,
    /// How long the longest took.
    pub worst: Duration,
}

/// The costs of all acts.
#[derive(Debug)]
pub struct Costs {
    stopwatch: Stopwatch,
    acts: BTreeMap<Act, Cost>,
}

impl Costs {
    /// Nothing has cost anything yet.
    pub fn new(stopwatch: Stopwatch) -> Costs {
        Costs { stopwatch, acts: BTreeMap::new() }
    }

    /// Does something and takes its time.
    pub fn of<T>(&mut self, act: Act, work: impl FnOnce() -> T) -> T {
        let began = (self.stopwatch)();
        let result = work();
        let took = (self.stopwatch)().saturating_sub(began);
        let cost = self.acts.entry(act).or_default();
        cost.times += 1;
        cost.took += took;
        cost.worst = cost.worst.max(took);
        result
    }

    /// Everything since the last call.
    pub fn take(&mut self) -> BTreeMap<Act, Cost> {
        std::mem::take(&mut self.acts)
    }
}
