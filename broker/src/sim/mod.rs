//! The simulator: whole clusters in one thread, from a seed.
//!
//! The real shard, replica, Raft and log run on a disk that tears and forgets (`disk`), a network
//! that loses, repeats, delays and partitions (`network`), with clients that retry (`workload`), while
//! faults drawn from the seed strike (`swarm`, `faults`) and the invariants of `FAULTS.md` are checked after
//! every pass (`checker`, `model`), and once everything is mended, that the cluster comes to one mind (`finale`).
//! The same seed gives the same run, to the last step; `trace` proves it.
//!
//! The controller has a simulation of its own, at scale: `fleet`; its moves are driven here as well, in `moves`,
//! and partitions that are begun anew, in `recovery`.
//!
//! Consumer groups have one, too: `groups`.
//!
//! Not simulated: threads, QUIC. Read `cluster` first.

mod accepted;
mod aims;
pub mod checker;
pub mod cluster;
pub mod coverage;
pub mod disk;
pub mod dropped;
mod effects;
mod endings;
pub mod faults;
pub mod fleet;
mod finale;
pub mod groups;
mod lifecycle;
pub mod model;
mod moves;
pub mod network;
mod newcomers;
pub mod node;
pub mod promises;
mod reading;
mod recovery;
mod requests;
pub mod rng;
mod rot;
mod scrub;
pub mod shadow;
mod storage;
pub mod swarm;
mod throttled;
pub mod trace;
mod watching;
pub mod wishes;
pub mod workload;

use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use checker::{Broken, Checked};
use cluster::Cluster;
use coverage::Coverage;
use swarm::Swarm;

/// How a seed is run.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions {
    /// For how long faults strike.
    pub fault_ms: u64,
    /// Whether every event is printed.
    pub verbose: Verbose,
}

/// Whether every event is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbose {
    /// Only failures are.
    No,
    /// All of them are.
    Yes,
}

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The hash of all that happened.
    pub hash: u64,
    /// How many steps that were.
    pub steps: u64,
    /// What was reached.
    pub coverage: Coverage,
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
}

/// A broken invariant, and how it came about.
#[derive(Debug)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// After how many steps.
    pub step: u64,
    /// At what simulated time.
    pub at_ms: u64,
    /// Which invariant, and what was seen.
    pub broken: Broken,
    /// The last events before.
    pub events: Vec<String>,
}

/// Runs one seed: faults for a while, then the mending and the final check.
pub fn run(seed: u64, options: RunOptions) -> Outcome {
    run_swarm(seed, Swarm::draw(seed), options)
}

/// Runs one seed with parameters of the caller's choice.
pub fn run_swarm(seed: u64, swarm: Swarm, options: RunOptions) -> Outcome {
    let mut cluster = Cluster::new(seed, swarm);
    if options.verbose == Verbose::Yes {
        cluster.trace = trace::Trace::printing();
    }
    let verdict = judge(&mut cluster, |cluster| {
        cluster.begin_faults();
        cluster.run_for_ms(options.fault_ms)?;
        cluster.heal_and_check()
    });
    conclude(seed, cluster, verdict)
}

/// Runs a script against a cluster; a failed assertion of the core is a broken invariant like any other.
pub fn judge(cluster: &mut Cluster, script: impl FnOnce(&mut Cluster) -> Checked) -> Checked {
    let ran = panic::catch_unwind(AssertUnwindSafe(|| script(cluster)));
    ran.unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_string()));
        Err(Broken {
            invariant: "no assertion of the core fails",
            detail: said.unwrap_or_else(|| "a panic without a message".into()),
        })
    })
}

/// Sums up a run.
pub fn conclude(seed: u64, cluster: Cluster, verdict: Checked) -> Outcome {
    let mut coverage = cluster.coverage.clone();
    coverage.elections = cluster.checker.elections;
    coverage.truncations = cluster.checker.truncations;
    coverage.trims = cluster.checker.trims;
    coverage.starts_anew = cluster.checker.starts_anew;
    coverage.acked_by_mode = cluster.workload.acked;
    coverage.retries = cluster.workload.retries;
    coverage.conditions_met = cluster.workload.conditions_met;
    coverage.conditions_unmet = cluster.workload.conditions_unmet;
    coverage.lost_or_repeated = cluster.network.lost + cluster.network.repeated;
    coverage.simulated_ms = cluster.now_ms();
    let refused = cluster.nodes.iter().map(|node| node.disk.injected().no_file_errors);
    coverage.files_refused = refused.sum();
    (coverage.moves_begun, coverage.moves_ended) = cluster.moves_seen();
    let (hash, steps) = (cluster.trace.hash(), cluster.trace.steps());
    let failure = verdict.err().map(|broken| Failure {
        seed,
        step: steps,
        at_ms: cluster.now_ms(),
        broken,
        events: cluster.trace.last(),
    });
    // After a failed assertion the shards may be in any state; they are not worth taking apart.
    if failure.is_some() {
        std::mem::forget(cluster);
    }
    Outcome { hash, steps, coverage, failure }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} broke an invariant at step {}, {} ms:",
            self.seed, self.step, self.at_ms
        )?;
        writeln!(f, "  {}", self.broken.invariant)?;
        writeln!(f, "  {}", self.broken.detail)?;
        writeln!(f, "the last events:")?;
        for event in &self.events {
            writeln!(f, "  {event}")?;
        }
        Ok(())
    }
}
