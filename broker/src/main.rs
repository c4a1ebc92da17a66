//! `highwater`: the broker's command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use highwater_broker::config::Config;
use highwater_broker::dev;
use highwater_broker::init::command;
use highwater_broker::server::process;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A replicated, partitioned event log.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a cluster of three brokers on this machine, to try things out
    Dev(dev::Arguments),
    /// Make a cluster: its certificates, and a directory for each node
    Init(command::InitArguments),
    /// Issue a certificate for one more client
    Issue(command::IssueArguments),
    /// Run a broker
    Start {
        /// The broker's configuration
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// End when the process that started this one does
        #[arg(long, hide = true, value_name = "PID")]
        with_parent: Option<u32>,
    },
    /// Check a configuration and say everything that is wrong with it
    CheckConfig {
        /// The configuration
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// Make a broker's data directory anew, after its disk was replaced
    Format {
        /// The broker's configuration
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Dev(arguments) => dev::run(arguments),
        Command::Init(arguments) => command::init(arguments),
        Command::Issue(arguments) => command::issue(arguments),
        Command::Start { config, with_parent } => process::start(&config, with_parent),
        Command::CheckConfig { config } => check_config(&config),
        Command::Format { config } => command::format(&config),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("highwater: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check_config(file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(file)?;
    println!(
        "{}: node {} of cluster {} is in order",
        file.display(),
        config.node.id,
        config.cluster.id
    );
    Ok(ExitCode::SUCCESS)
}
