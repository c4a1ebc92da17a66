//! `highwater`: the broker's command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use highwater_broker::config::Config;
#[cfg(feature = "crash-points")]
use highwater_broker::crash_point::CrashPoint;
use highwater_broker::dev;
use highwater_broker::init::command;
use highwater_broker::server::process::{self, Crashes};

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
    /// Invite one more broker to a cluster, where the authority's key is
    Invite(command::InviteArguments),
    /// Run a broker
    Start {
        /// The broker's configuration
        #[arg(short, long, value_name = "FILE", required_unless_present = "join")]
        config: Option<PathBuf>,
        /// Join a cluster by this invitation (`-`: from the standard input), unless that is done already
        #[arg(long, value_name = "FILE", requires = "dir", conflicts_with = "config")]
        join: Option<PathBuf>,
        /// The new broker's own directory: configuration, certificates, data
        #[arg(long, value_name = "DIR", requires = "join")]
        dir: Option<PathBuf>,
        /// Host replicas again although this broker crashed often within the last hour: somebody has looked why
        #[arg(long)]
        after_crashes: bool,
        /// End as if killed when this point is reached, to see how the broker comes back
        #[cfg(feature = "crash-points")]
        #[arg(long, value_name = "POINT")]
        crash_at: Option<CrashPoint>,
        /// Which time the point is reached that is meant
        #[cfg(feature = "crash-points")]
        #[arg(long, value_name = "N", requires = "crash_at", default_value_t = 1)]
        crash_at_time: u64,
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
        Command::Invite(arguments) => command::invite(arguments),
        Command::Start {
            config,
            join,
            dir,
            after_crashes,
            with_parent,
            #[cfg(feature = "crash-points")]
            crash_at,
            #[cfg(feature = "crash-points")]
            crash_at_time,
        } => {
            #[cfg(feature = "crash-points")]
            if let Some(point) = crash_at {
                highwater_broker::crash_point::arm(point, crash_at_time);
            }
            let crashes = if after_crashes { Crashes::Forget } else { Crashes::Count };
            start(config, join.zip(dir), with_parent, crashes)
        }
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

fn start(
    config: Option<PathBuf>,
    join: Option<(PathBuf, PathBuf)>,
    with_parent: Option<u32>,
    crashes: Crashes,
) -> anyhow::Result<ExitCode> {
    let config = match (config, join) {
        (Some(config), _) => config,
        (None, Some((invitation, dir))) => command::join(&invitation, &dir)?,
        (None, None) => anyhow::bail!("give --config FILE, or --join FILE --dir DIR"),
    };
    process::start(&config, with_parent, crashes)
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
