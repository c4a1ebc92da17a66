//! The three brokers as child processes: started, killed, restarted, stopped, never left behind.
//!
//! Each child asks the kernel for a signal when its parent ends, so that not even a SIGKILL of
//! `highwater dev` leaves one running. They have a process group of their own: Ctrl-C reaches only
//! the parent, which then stops them in order.

use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::config::Config;

/// The brokers of the cluster, running or not.
pub(super) struct Brokers {
    brokers: Vec<Broker>,
}

/// One broker.
pub(super) struct Broker {
    pub(super) config: Config,
    file: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Brokers {
    /// Starts one broker for each configuration file.
    pub(super) fn start(files: &[PathBuf]) -> anyhow::Result<Brokers> {
        let mut brokers = Vec::new();
        for file in files {
            let config = Config::load(file)?;
            let log = file.with_file_name("broker.log");
            let mut broker = Broker { config, file: file.clone(), log, child: None };
            broker.start()?;
            brokers.push(broker);
        }
        Ok(Brokers { brokers })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.brokers.len()
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.iter()
    }

    /// An error if one of them has ended, with what it said last.
    pub(super) fn check_running(&mut self) -> anyhow::Result<()> {
        let deaths = self.deaths();
        if deaths.is_empty() {
            return Ok(());
        }
        bail!("{}\n{}", deaths.join("\n"), self.last_words())
    }

    /// Those that ended by themselves since the last call.
    pub(super) fn deaths(&mut self) -> Vec<String> {
        let mut deaths = Vec::new();
        for broker in &mut self.brokers {
            let Some(child) = &mut broker.child else { continue };
            if let Ok(Some(status)) = child.try_wait() {
                broker.child = None;
                let log = broker.log.display();
                deaths.push(format!("broker {} ended, {status}; see {log}", broker.config.node.id));
            }
        }
        deaths
    }

    /// The last lines of every broker's log.
    pub(super) fn last_words(&self) -> String {
        let mut text = String::new();
        for broker in &self.brokers {
            let log = fs::read_to_string(&broker.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
            // Writing to a string cannot fail.
            let _ = writeln!(text, "--- {}\n{}", broker.log.display(), last.join("\n"));
        }
        text
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self, node: u32) -> anyhow::Result<String> {
        let broker = self.find(node)?;
        let Some(mut child) = broker.child.take() else {
            bail!("broker {node} is not running; `highwater dev restart {node}` starts it");
        };
        child.kill().await.with_context(|| format!("kill broker {node}"))?;
        Ok(format!("broker {node} killed; bring it back with `highwater dev restart {node}`\n"))
    }

    /// Kills a broker if it runs and starts it.
    pub(super) async fn restart(&mut self, node: u32) -> anyhow::Result<String> {
        let broker = self.find(node)?;
        if let Some(mut child) = broker.child.take() {
            child.kill().await.with_context(|| format!("kill broker {node}"))?;
        }
        broker.start()?;
        Ok(format!("broker {node} started, process {}\n", broker.pid().unwrap_or(0)))
    }

    /// Stops all of them cleanly, and by force who has not stopped at the deadline.
    pub(super) async fn stop(&mut self) {
        for broker in &self.brokers {
            if let Some(pid) = broker.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                // It may have ended a moment ago.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        for broker in &mut self.brokers {
            let Some(mut child) = broker.child.take() else { continue };
            if timeout(STOP_DEADLINE, child.wait()).await.is_err() {
                eprintln!("broker {} did not stop; it is killed", broker.config.node.id);
                // Nothing is left to do about a process that cannot even be killed.
                let _ = child.kill().await;
            }
        }
    }

    fn find(&mut self, node: u32) -> anyhow::Result<&mut Broker> {
        let count = self.brokers.len();
        let found = self.brokers.iter_mut().find(|broker| broker.config.node.id.0 == node);
        found.with_context(|| format!("there is no broker {node}; there are 1 to {count}"))
    }
}

impl Broker {
    /// Its process, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Its own log.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let program = std::env::current_exe().context("find this program")?;
        let child = Command::new(program)
            .arg("start")
            .arg("--config")
            .arg(&self.file)
            // Whoever tries things out kills brokers on purpose.
            .arg("--after-crashes")
            .arg("--with-parent")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start broker {}", self.config.node.id))?;
        self.child = Some(child);
        Ok(())
    }
}

const LAST_WORDS: usize = 15;
const STOP_DEADLINE: Duration = Duration::from_secs(15);
