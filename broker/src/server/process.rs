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
use crate::node::{Node, NodeState};
use crate::server::Server;

/// What earlier crashes of this broker mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crashes {
    /// After too many it starts for administration only.
    Count,
    /// Nothing any more: somebody has looked at them.
    Forget,
}

/// Runs a broker until it is told to stop; the exit code says whether all went well.
pub fn start(file: &Path, parent: Option<u32>, crashes: Crashes) -> anyhow::Result<ExitCode> {
    if let Some(parent) = parent {
        die_with(parent).context("tie this process to the one that started it")?;
    }
    let mut config = Config::load(file)?;
    match crashes {
        Crashes::Count => {}
        Crashes::Forget => config.limits.crashes_an_hour_max = 0,
    }
    let filter_log = write_log(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("edge")
        .enable_all()
        .build()
        .context("start the threads of the edge")?;
    let outcome = runtime.block_on(run(&config, filter_log));
    // What still waits for a client must not keep the process alive.
    runtime.shutdown_background();
    Ok(outcome?)
}

async fn run(config: &Config, filter_log: FilterLog) -> io::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::start(config).await?;
    let mut state = server.state();
    tell(&[NotifyState::Ready]);
    tokio::spawn(follow_filter(server.node().clone(), filter_log));
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

/// Changes what is written to the log: what was set while running, or else as at the start.
type FilterLog = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// Keeps the log to the filter that is set for this broker while it runs.
async fn follow_filter(node: Node, filter_log: FilterLog) {
    let mut changes = node.image_changes();
    let mut in_force = None;
    loop {
        let image = node.image();
        let set = image.settings().of_broker(node.options().me, "log.filter").map(str::to_owned);
        if set != in_force {
            filter_log(set.as_deref());
            info!(filter = set.as_deref(), "log.filter changed");
            in_force = set;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// To standard error; `RUST_LOG` wins over the file, and what is set while running over both.
fn write_log(output: &LogOutput) -> FilterLog {
    let at_start = output.filter.clone();
    let first = move || {
        EnvFilter::try_from_default_env()
            .or_else(|_| EnvFilter::try_new(&at_start))
            .unwrap_or_else(|_| EnvFilter::new("info"))
    };
    let filter = first();
    let choose = move |set: Option<&str>| {
        let set = set.and_then(|set| EnvFilter::try_new(set).ok());
        set.unwrap_or_else(&first)
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match output.format {
        LogFormat::Text => {
            let builder = builder.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |set| reloaded(handle.reload(choose(set))))
        }
        LogFormat::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |set| reloaded(handle.reload(choose(set))))
        }
    }
}

fn reloaded(result: Result<(), tracing_subscriber::reload::Error>) {
    if let Err(error) = result {
        error!(%error, "log.filter could not be changed");
    }
}
