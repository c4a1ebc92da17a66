//! How a command reaches the controller's leader: straight if it is here, otherwise passed on.
//!
//! A command is sent again for as long as its answer proves that it was not carried out, and after a
//! lost answer because the controller recognises a repetition. What is not known when the time is
//! up is answered as not known.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::NodeId;
use highwater_protocol::peer::PeerBody;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Inner;
use crate::controller::{Command, CommandReply};

/// A command and who waits for what comes of it.
pub(super) struct Ask {
    pub command: Command,
    pub reply: oneshot::Sender<Result<CommandReply, WireError>>,
}

/// This broker's line to the controller.
pub(super) struct Line {
    node: Arc<Inner>,
    here: mpsc::Sender<Ask>,
    passed_on: Mutex<HashMap<u64, oneshot::Sender<Result<Bytes, WireError>>>>,
    next_id: AtomicU64,
}

impl Line {
    /// A line, and the end at which this broker's own controller listens.
    pub fn new(node: Arc<Inner>) -> (Line, mpsc::Receiver<Ask>) {
        let (here, asked) = mpsc::channel(ASKS_MAX);
        // Answers to an earlier life must not be taken for answers to this one.
        let next_id = AtomicU64::new(node.options.incarnation.0 << 40);
        (Line { node, here, passed_on: Mutex::default(), next_id }, asked)
    }

    /// Has the controller's leader carry out a command, wherever it is.
    pub async fn command(
        &self,
        command: Command,
        timeout: Duration,
    ) -> Result<CommandReply, WireError> {
        let deadline = Instant::now() + timeout;
        let mut last = None;
        for attempt in 0.. {
            if Instant::now() >= deadline {
                break;
            }
            let changed = self.node.routes.controller_changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let error = match self.attempt(&command, attempt, deadline).await {
                Err(error) if worth_repeating(error.code) => error,
                result => return result,
            };
            last = Some(error);
            let pause = (Instant::now() + ATTEMPT_PAUSE).min(deadline);
            // Either the pause is over or there is a new leader: try again in both cases.
            let _ = timeout_at(pause, changed).await;
        }
        Err(last.unwrap_or_else(|| given_up(timeout)))
    }

    async fn attempt(
        &self,
        command: &Command,
        attempt: usize,
        deadline: Instant,
    ) -> Result<CommandReply, WireError> {
        let options = &self.node.options;
        let known = self.node.routes.cluster().leader().leader;
        let to = known.unwrap_or_else(|| {
            // The image may be old, and the configuration older: whoever of them is there knows more.
            let image = self.node.image.load();
            let voters = image.voters().iter().chain(&options.controllers);
            let voters: Vec<NodeId> = voters.copied().collect();
            voters[attempt % voters.len()]
        });
        let until = deadline.min(Instant::now() + ATTEMPT_MAX);
        let result = if to == options.me {
            timeout_at(until, self.ask_here(command.clone())).await
        } else {
            tokio::select! {
                result = timeout_at(until, self.pass_on(to, command)) => result,
                // It may have died with the command: whoever leads now recognises it if it was
                // carried out.
                () = self.led_by_another_than(to) => Ok(Err(lost_lead(to))),
            }
        };
        result.unwrap_or_else(|_| {
            let why = format!(
                "broker {to} leads the controller and did not answer in time; the change may or may not be made"
            );
            Err(WireError::new(ErrorCode::RequestTimedOut, why))
        })
    }

    /// Waits until somebody else is known to lead the controller.
    async fn led_by_another_than(&self, node: NodeId) {
        loop {
            let changed = self.node.routes.controller_changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.node.routes.cluster().leader().leader.is_some_and(|leader| leader != node) {
                return;
            }
            changed.await;
        }
    }

    /// Has this broker's own controller decide, or say who leads.
    pub async fn ask_here(&self, command: Command) -> Result<CommandReply, WireError> {
        let (reply, answer) = oneshot::channel();
        match self.here.try_send(Ask { command, reply }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(cut_short())),
            Err(TrySendError::Full(_)) => {
                let why = format!(
                    "the controller has {ASKS_MAX} commands waiting; try again in a moment"
                );
                Err(WireError::new(ErrorCode::Overloaded, why))
            }
            Err(TrySendError::Closed(_)) => {
                let why = format!("broker {} is stopping", self.node.options.me);
                Err(WireError::new(ErrorCode::NotController, why))
            }
        }
    }

    async fn pass_on(&self, to: NodeId, command: &Command) -> Result<CommandReply, WireError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        // Taken back when the answer came, the time is up, or the caller is gone.
        let _entry = PassedOn { line: self, id };
        if !self.remember(id, reply) {
            let why =
                format!("{PASSED_ON_MAX} commands wait for the controller; try again in a moment");
            return Err(WireError::new(ErrorCode::Overloaded, why));
        }
        if !self.node.outbox.send(to, PeerBody::Command { id, command: command.encode() }) {
            let why = format!("the controller's broker {to} is not connected; is it running?");
            return Err(WireError::new(ErrorCode::NotController, why));
        }
        CommandReply::decode(&answer.await.unwrap_or_else(|_| Err(cut_short()))?)
    }

    fn remember(&self, id: u64, reply: oneshot::Sender<Result<Bytes, WireError>>) -> bool {
        let mut passed_on = self.passed_on();
        let room = passed_on.len() < PASSED_ON_MAX;
        if room {
            passed_on.insert(id, reply);
        }
        room
    }

    /// The answer to a command that was passed on; one that nobody waits for is dropped.
    pub fn answered(&self, id: u64, result: Result<Bytes, WireError>) {
        if let Some(reply) = self.passed_on().remove(&id) {
            // Whoever asked may have given up meanwhile.
            let _ = reply.send(result);
        }
    }

    fn passed_on(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<Bytes, WireError>>>> {
        self.passed_on.lock().expect("nobody panics while holding the table")
    }
}

/// Forgets a command that was passed on, however its wait ends.
struct PassedOn<'a> {
    line: &'a Line,
    id: u64,
}

impl Drop for PassedOn<'_> {
    fn drop(&mut self) {
        self.line.passed_on().remove(&self.id);
    }
}

/// Whether a command with this answer was not carried out, or would be recognised if it was.
fn worth_repeating(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::NotController | ErrorCode::RequestTimedOut)
}

fn given_up(timeout: Duration) -> WireError {
    let why = format!("no leader of the controller was found within {} ms", timeout.as_millis());
    WireError::new(ErrorCode::NotController, why)
}

fn lost_lead(node: NodeId) -> WireError {
    let why = format!(
        "broker {node} lost the lead of the controller before it answered; the change may or may not be made"
    );
    WireError::new(ErrorCode::RequestTimedOut, why)
}

fn cut_short() -> WireError {
    let why = "the broker stopped before it could answer; the change may or may not be made";
    WireError::new(ErrorCode::RequestTimedOut, why)
}

/// Commands waiting for this broker's controller; more are refused.
const ASKS_MAX: usize = 1024;
/// Commands waiting for another broker's answer; more are refused.
const PASSED_ON_MAX: usize = 4096;
/// How long one broker may take before another is asked.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);
