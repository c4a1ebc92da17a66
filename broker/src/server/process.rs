//! A broker as a process: its log, its threads, its signals, and what the service manager is told.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat, LogOutput};
use crate::node::NodeState;
use crate::server::Server;

/// Runs a broker until it is told to stop; the exit code says whether all went well.
pub fn start(file: &Path, parent: Option<u32>) -> anyhow::Result<ExitCode> {
    if let Some(parent) = parent {
        die_with(parent).context("tie this process to the one that started it")?;
    }
    let config = Config::load(file)?;
    write_log(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("edge")
        .enable_all()
        .build()
        .context("start the threads of the edge")?;
    let outcome = runtime.block_on(run(&config));
    // What still waits for a client must not keep the process alive.
    runtime.shutdown_background();
    Ok(outcome?)
}

async fn run(config: &Config) -> io::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::start(config).await?;
    let mut state = server.state();
    tell(&[NotifyState::Ready]);
    let failed = async move {
        let failed = state.wait_for(|state| matches!(state, NodeState::Failed(_))).await;
        match failed.map(|state| state.clone()) {
            Ok(NodeState::Failed(reason)) => reason,
            Ok(NodeState::Starting | NodeState::Serving) | Err(_) => "the node has gone".to_owned(),
        }
    };
    let code = tokio::select! {
        _ = interrupt.recv() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::SUCCESS,
        reason = failed => {
            error!(reason, "the broker cannot go on");
            ExitCode::FAILURE
        }
    };
    info!("broker stops");
    tell(&[NotifyState::Stopping]);
    tokio::select! {
        stopped = server.stop() => stopped?,
        // Whoever asks twice means it; the next start recovers.
        _ = interrupt.recv() => error!("stopped at once; the logs were not closed"),
    }
    Ok(code)
}

/// Without a service manager there is nobody to tell, and that is no failure.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        error!(%error, "the service manager could not be told");
    }
}

/// Asks the kernel to end this process when its parent ends, however that may come about.
fn die_with(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // The parent may have ended before the kernel knew of the wish.
    let now = getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs());
    if now != Some(parent) {
        return Err(io::Error::other(format!("process {parent} has ended already")));
    }
    Ok(())
}

/// To standard error; `RUST_LOG` has the last word on what is written.
fn write_log(output: &LogOutput) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&output.filter))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match output.format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
}
