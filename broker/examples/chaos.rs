//! Many runs of chaos over real processes, each from a seed of its own, with a report of each.
//!
//! `cargo build --release -p highwater-broker --bin highwater && cargo run --release -p highwater-broker --features sim --example chaos -- --seed 1 --seconds 60 --runs 100`

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use common::chaos::plan::{Fault, Script};
use common::chaos::run::{Healing, Options, Outcome, run};
use tokio::signal::unix::{SignalKind, signal};

/// Chaos over real processes.
#[derive(Parser)]
struct Args {
    /// The seed of the first run; the next ones count on.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long each run is tormented.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many runs.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Brokers, three to five.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
    nodes: u8,
    /// What to play.
    #[arg(long, default_value = "random")]
    script: Script,
    /// The menu, several with commas.
    #[arg(
        long,
        visible_alias = "fault",
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "all",
        value_parser = known_faults()
    )]
    faults: Vec<String>,
    /// The program of another build, for `other-build` and the rolling scripts: all brokers begin with it.
    #[arg(long, value_name = "PATH")]
    other: Option<PathBuf>,
    /// One line of JSON for each run is added to this file.
    #[arg(long, default_value = "chaos.jsonl")]
    report: PathBuf,
    /// What failed runs leave is kept here: histories, and the brokers' logs and files.
    #[arg(long, default_value = ".")]
    keep: PathBuf,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let menu = menu(&args.faults, args.other.as_deref());
    if let Err(what) = check_other(args.script, &menu, args.other.as_deref()) {
        eprintln!("{what}");
        return ExitCode::from(2);
    }
    let mut fired: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut failing, mut elections) = (Vec::new(), 0);
    for seed in args.seed..args.seed + args.runs {
        let options = Options {
            seed,
            script: args.script,
            nodes: usize::from(args.nodes),
            seconds: args.seconds,
            menu: menu.clone(),
            other: args.other.clone(),
            keep: Some(args.keep.clone()),
        };
        println!("seed {seed} begins");
        let outcome = tokio::select! {
            outcome = run(&options) => outcome,
            () = asked_to_end() => {
                println!("ended in seed {seed}, which is not counted; failing seeds: {failing:?}");
                return ExitCode::FAILURE;
            }
        };
        tell(&outcome, &args.report);
        elections += outcome.healing.elections;
        outcome.fired.iter().for_each(|(name, times)| *fired.entry(name).or_default() += times);
        if !outcome.failures.is_empty() {
            failing.push(seed);
        }
    }
    println!("{} runs, {elections} elections, fired: {fired:?}", args.runs);
    let fired_all =
        args.script != Script::Random || menu.iter().all(|fault| fired.contains_key(fault.name()));
    // A single run may be too short for the whole menu; a campaign is not.
    if args.runs >= 5 && !(fired_all && (elections > 0 || args.script == Script::Quiet)) {
        println!("vacuous: not every fault was fired, or nobody was ever elected");
        return ExitCode::FAILURE;
    }
    if failing.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failing seeds: {failing:?}");
    ExitCode::FAILURE
}

/// What is dropped on the way out takes brokers and directories with it.
async fn asked_to_end() {
    let mut term = signal(SignalKind::terminate()).expect("signals can be listened to");
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn known_faults() -> PossibleValuesParser {
    let names = Fault::with_other_build().into_iter().map(Fault::name);
    PossibleValuesParser::new(names.chain(["all"]))
}

/// What a rolling restart needs is there.
fn check_other(script: Script, menu: &[Fault], other: Option<&Path>) -> Result<(), String> {
    let is_rolling = matches!(script, Script::Rolling | Script::RollingBack);
    match other {
        None if is_rolling || menu.contains(&Fault::OtherBuild) => Err(
            "two builds are needed: name the program of the other one, which brokers begin with, by --other PATH"
                .to_owned(),
        ),
        Some(other) if !other.is_file() => Err(format!("--other {}: no such program", other.display())),
        None | Some(_) => Ok(()),
    }
}

fn menu(names: &[String], other: Option<&Path>) -> Vec<Fault> {
    if names.iter().any(|name| name == "all") {
        let mut all = match other {
            None => Fault::all(),
            Some(_) => Fault::with_other_build(),
        };
        if !common::has_crash_points(&common::program()) {
            println!("without crash points: build the broker with --features crash-points");
            all.retain(|fault| *fault != Fault::CrashPoint);
        }
        return all;
    }
    let mut named: Vec<Fault> = names.iter().filter_map(|name| Fault::named(name)).collect();
    // Each has its turn, however often it is named.
    let mut again = BTreeSet::new();
    named.retain(|fault| again.insert(fault.name()));
    named
}

fn tell(outcome: &Outcome, report: &PathBuf) {
    let Outcome { seed, acked, healing, .. } = outcome;
    let Healing { elections, accepts_after_ms, converged_after_ms, whole_after_ms, .. } = healing;
    println!(
        "seed {seed}: {acked} acked, {elections} elections, accepts after {accepts_after_ms:?} ms, alike after \
         {converged_after_ms:?} ms, whole after {whole_after_ms:?} ms, {} async lost, fired {:?}",
        outcome.history.async_lost, outcome.fired
    );
    for failure in &outcome.failures {
        println!("seed {seed} FAILED: {failure}");
    }
    if let Some(kept) = &outcome.kept {
        println!("seed {seed}: what it left is in {}", kept.display());
    }
    if !outcome.history.is_clean() {
        println!("{}", outcome.history.page());
    }
    let line = serde_json::to_string(outcome).expect("plain data");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(report);
    let mut file =
        file.unwrap_or_else(|error| panic!("cannot write {}: {error}", report.display()));
    writeln!(file, "{line}").expect("the report can be written");
}
