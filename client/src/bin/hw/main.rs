//! `hw`, the command line of Highwater: an ordinary client and nothing more.
//!
//! Data goes to the standard output, everything else to the standard error; the exit code says how
//! it ended (`exit`). Flags win over `HIGHWATER_*` variables, those over the profile (`connect`).
//!
//! Read `cli` (what can be typed), `output` (what is printed), then the module of a noun.

mod alter;
mod analyze;
mod balance;
mod brokers;
mod cancel;
mod cli;
mod cluster;
mod completions;
mod config;
mod confirm;
mod connect;
mod controller;
mod duty;
mod events;
mod exit;
mod explain;
mod follow;
mod group;
mod human;
mod moving;
#[cfg(test)]
mod names;
mod output;
mod partition;
mod plan;
mod plan_file;
mod profile;
mod quota;
mod reassign;
mod rates;
mod reasons;
mod record;
mod repair;
mod retire;
mod standing;
mod target;
mod throttle;
mod top;
mod topic;
mod trim;
mod unsafe_recover;
mod verify;
mod watch;
mod why;
mod yaml;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, ColorWhen, Noun};
use connect::Settings;
use exit::{Exit, Failure};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.global.color {
        ColorWhen::Auto => {}
        ColorWhen::Always => anstream::ColorChoice::Always.write_global(),
        ColorWhen::Never => anstream::ColorChoice::Never.write_global(),
    }
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let settings = Settings::from_args(cli.global);
    match cli.noun {
        Noun::Profile(verb) => profile::run(verb, &settings),
        Noun::Explain(args) => explain::run(&args),
        Noun::Completions { shell } => completions::completions(shell),
        Noun::Man { dir } => completions::man(dir.as_deref()),
        Noun::Topic(verb) => online(until_ctrl_c(topic::run(verb, &settings))),
        Noun::Partition(verb) => online(until_ctrl_c(partition::run(verb, &settings))),
        Noun::Group(verb) => online(until_ctrl_c(group::run(verb, &settings))),
        Noun::Quota(verb) => online(until_ctrl_c(quota::run(verb, &settings))),
        Noun::Cluster(verb) => online(until_ctrl_c(cluster::run(verb, &settings))),
        // These two finish tidily on Ctrl-C, so they listen for it themselves.
        Noun::Produce(args) => online(record::produce::run(args, &settings)),
        Noun::Consume(args) => online(record::consume::run(args, &settings)),
    }
}

/// Runs a verb that talks to the cluster.
fn online(verb: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::from(error).during("cannot start the runtime"))?;
    let result = runtime.block_on(verb);
    // Waiting for a task that waits for a broker helps nobody who wants the prompt back.
    runtime.shutdown_background();
    result
}

async fn until_ctrl_c(verb: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let mut verb = std::pin::pin!(verb);
    tokio::select! {
        result = &mut verb => result,
        // A verb that has something to say on Ctrl-C listens for it, too, and may hear it a moment later.
        Ok(()) = tokio::signal::ctrl_c() => {
            tokio::time::timeout(LAST_WORD, verb).await.unwrap_or(Ok(Exit::Interrupted))
        }
    }
}

/// Longer than one listener hears a signal after another, and too short for anybody to notice.
const LAST_WORD: std::time::Duration = std::time::Duration::from_millis(100);

/// One for the verb's own tasks, one for the connections.
const WORKER_THREADS: usize = 2;
