//! Runs the simulator over many seeds and says what it found, how fast it was and what it reached.
//!
//! `cargo run --release -p highwater-broker --features sim --example simulate -- --seeds 2000`

use std::time::Instant;

use clap::Parser;
use highwater_broker::mutant::{self, Mutant};
use highwater_broker::sim::coverage::Coverage;
use highwater_broker::sim::faults::KINDS;
use highwater_broker::sim::swarm::Swarm;
use highwater_broker::sim::{self, RunOptions, Verbose};

/// Whole clusters in one thread, from seeds.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Take only every so-manieth seed; `--first 2 --step 7` are those with recoveries.
    #[arg(long, default_value_t = 1)]
    step: usize,
    /// For how many simulated seconds faults strike in each.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Stop after so many failing seeds.
    #[arg(long, default_value_t = 10)]
    failures_max: usize,
    /// Run as this mutant, to see how a planted bug shows.
    #[arg(long)]
    mutant: Option<String>,
    /// Have this fault strike in every seed, by its name in `FaultKind`.
    #[arg(long)]
    fault: Option<String>,
    /// Print every event; for a single seed.
    #[arg(long)]
    verbose: bool,
}

fn main() {
    let args = Args::parse();
    let verbose = if args.verbose { Verbose::Yes } else { Verbose::No };
    let options = RunOptions { fault_ms: args.seconds * 1_000, verbose };
    if let Some(name) = &args.mutant {
        let named = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == *name);
        mutant::choose(Some(*named.expect("one of the mutants of MUTANTS.md, spelt as there")));
    }
    let fault = args.fault.as_ref().map(|name| {
        let named = KINDS.iter().find(|kind| format!("{kind:?}") == *name);
        *named.unwrap_or_else(|| panic!("--fault takes one of {KINDS:?}"))
    });
    if !args.verbose {
        // A failed assertion is reported with its seed; the hook's own words would only repeat it.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let started = Instant::now();
    let mut total = Coverage::default();
    let mut failing = Vec::new();
    let mut done = 0;
    for seed in (args.first..args.first + args.seeds).step_by(args.step) {
        let mut swarm = Swarm::draw(seed);
        if let Some(kind) = fault {
            swarm.force(seed, kind);
        }
        let outcome = sim::run_swarm(seed, swarm, options);
        total += &outcome.coverage;
        done += 1;
        if let Some(failure) = outcome.failure {
            println!("{failure}");
            failing.push(seed);
            if failing.len() >= args.failures_max {
                break;
            }
        }
        if done % 50 == 0 || args.verbose {
            report(done, failing.len(), &total, started);
        }
    }
    report(done, failing.len(), &total, started);
    println!("{total:#?}");
    if !failing.is_empty() {
        println!("failing seeds: {failing:?}");
        std::process::exit(1);
    }
}

fn report(done: u64, failing: usize, total: &Coverage, started: Instant) {
    let real = started.elapsed().as_secs_f64();
    let simulated = total.simulated_ms as f64 / 1_000.0;
    println!(
        "{done} seeds, {failing} failing, {:.1} simulated hours in {real:.0} s: {:.0} times real time",
        simulated / 3_600.0,
        simulated / real
    );
}
