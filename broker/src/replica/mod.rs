//! One broker's copy of one partition: joins `raft` with `log`.
//!
//! Events come in, an `Output` goes out; `finish_pass` ends a pass. What must hold: Raft and the log
//! count alike at the end of every event; nothing is acknowledged under a promise that does not
//! hold; and the first failed write or flush is final. A failed replica says so once, answers
//! everything with `StorageFailed`, speaks to no peer, and harms no other replica of its shard.
//!
//! Read in this order: `open`, `produce` with `producers` and `acks` (the way in), `receive` (what
//! a leader sends), `recovery`
//! (which group it belongs to), `watermarks` (what the broker learns), `retention` (what is given up), `shortage` (of
//! descriptors), `commands` with `describe`.

mod acks;
mod commands;
mod condition;
mod describe;
mod event;
mod open;
mod options;
mod output;
mod produce;
mod producers;
mod receive;
mod recovery;
mod repair;
mod retention;
mod shortage;
#[cfg(feature = "sim")]
mod view;
mod vouch;
mod watermarks;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use highwater_protocol::batch::Mark;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Incarnation, LogIndex, NodeId, Position, TopicPartition};
use highwater_protocol::peer::{AppendRequest, RaftMessage};

use crate::disk::File;
use crate::log::{self, FrameSummary, Log, LogReader};
use crate::mutant::{self, Mutant};
use crate::raft::{HardState, Lag, Millis, Raft, SendPlan, Suspicion};

use acks::Waiters;
use producers::{Placed, Producers};
use shortage::is_shortage;

pub use event::{
    AdminReply, Identity, Lane, Leadership, Moving, OpenReplica, ProduceEvent, ReplicaCommand,
    RequestId,
};
pub use open::{Logged, Remembered};
pub use options::{FlushPolicy, ReplicaOptions, Retention};
pub use output::{Outgoing, Output};
pub use recovery::{Recovery, epoch_of};
pub use retention::ByAge;
#[cfg(feature = "sim")]
pub use view::View;

/// What a replica must know of the process that opens it.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// This broker.
    pub me: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Seeds the election time-outs, together with the partition and the node.
    pub seed: u64,
}

/// How a broker's previous life ended: only after a clean end were all pages written back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLife {
    /// Every log was closed, or the machine has not been off since.
    Clean,
    /// Pages that were not flushed may be gone.
    Unclean,
}

/// One broker's copy of one partition.
pub struct Replica {
    partition: TopicPartition,
    me: NodeId,
    recovery: Option<Recovery>,
    options: ReplicaOptions,
    /// The time of the last event.
    now: Millis,
    log: Log,
    raft: Raft,
    producers: Producers,
    waiters: Waiters,
    vouch: vouch::Vouch,
    flush: Flush,
    told: watermarks::Told,
    wishes: commands::Wishes,
    starts: retention::Starts,
    failure: Failure,
    /// Whether the last append of a leader found no room: told once, not for every message.
    disk_is_full: bool,
    shortage: shortage::Shortage,
    repair: repair::Repair,
    /// Kept for its allocations only.
    parsed: receive::Parsed,
}

/// Where the road to the disk stands.
#[derive(Debug)]
struct Flush {
    /// What the log gave out for the flush under way.
    under_way: Option<LogIndex>,
    /// When the oldest entry was appended that no flush was asked for yet.
    oldest_unflushed: Option<Millis>,
}

/// Whether the replica is in service.
#[derive(Debug)]
enum Failure {
    /// It is.
    None,
    /// Its files failed, and why.
    Final(String),
}

impl Replica {
    /// Takes changed options of a replica that is open already; what is kept free on the disk is the
    /// broker's and stays.
    pub fn reconfigure(&mut self, open: &OpenReplica) {
        let keep_free_bytes = self.options.log.keep_free_bytes;
        let log = log::Options { keep_free_bytes, ..open.options.log };
        self.options = ReplicaOptions { log, ..open.options };
        self.log.reconfigure(log);
        self.reconfigure_raft();
    }

    /// Time has passed: elections, check-quorum, deadlines of waiting requests.
    pub fn tick(&mut self, now: Millis, out: &mut Output) {
        self.now = now;
        self.waiters.expire(now, out);
        match self.failure {
            Failure::None => self.raft.tick(now),
            Failure::Final(_) => {}
        }
    }

    /// The shard did nothing for `late_ms`: what the others said meanwhile may still be in a queue.
    pub fn starved(&mut self, now: Millis, late_ms: u64) {
        self.now = now;
        self.raft.starved(now, late_ms);
    }

    /// The flush asked for by the last `take_unflushed` is over.
    pub fn flushed(&mut self, now: Millis, result: Result<(), &io::Error>, out: &mut Output) {
        self.now = now;
        let given = self.flush.under_way.take().expect("a replica hears only of its own flushes");
        let result = match mutant::active(Mutant::FlushErrorIgnored) {
            true => Ok(()),
            false => result,
        };
        match result.map_err(copy).and_then(|()| self.log.flushed(given)) {
            Ok(()) => {
                let durable = self.log.durable();
                self.raft.flushed(now, durable);
            }
            Err(error) => self.fail(&error, out),
        }
    }

    /// A peer came back in a new life, perhaps with less.
    pub fn peer_restarted(&mut self, peer: NodeId) {
        self.raft.peer_restarted(peer);
    }

    /// Call once each heartbeat interval: heartbeats for the peers that no append went to since.
    pub fn heartbeats(&mut self, now: Millis, out: &mut Output) {
        self.now = now;
        match self.failure {
            Failure::None => self.raft.heartbeats(now),
            Failure::Final(_) => return,
        }
        self.pass_messages(out);
    }

    /// Ends a pass: reads from the log what Raft wants to send, moves watermarks, answers waiters.
    pub fn finish_pass(&mut self, now: Millis, out: &mut Output) {
        if let Err(error) = self.try_files_again() {
            self.fail(&error, out);
        }
        self.settle(now, out);
        if let Err(error) = self.send_appends(now, out) {
            self.fail(&error, out);
        }
        match self.failure {
            Failure::None => {
                self.give_up_decided(now, out);
                self.publish(now, out);
                self.keep_within_size(now, out);
                self.plan_giving_up(now);
                self.repair(now, out);
                self.answer_wishes(out);
                self.pass_messages(out);
                self.tell_end_of_shortage(now);
            }
            Failure::Final(_) => {}
        }
    }

    /// The files to flush now, if a flush is due and none is under way; `flushed` must follow.
    pub fn take_unflushed(&mut self, now: Millis) -> Option<Vec<Arc<dyn File>>> {
        if self.flush_deadline()? > now {
            return None;
        }
        self.flush.oldest_unflushed = None;
        let (files, given) = self.log.take_unflushed()?;
        self.flush.under_way = Some(given);
        Some(files)
    }

    /// The term and vote if they changed since the last call; the caller makes them durable before
    /// any message of the pass leaves.
    pub fn hard_state_if_dirty(&mut self) -> Option<HardState> {
        self.raft.take_dirty_hard_state()
    }

    /// When `tick` has something to do, or a flush is due, if nothing else happens.
    pub fn next_deadline(&self) -> Millis {
        match self.failure {
            Failure::None => {
                let waits = self.waiters.next_deadline().into_iter().chain(self.flush_deadline());
                let waits = waits.chain(self.starts.due()).chain(self.giving_up_due());
                let waits = waits.chain(self.shortage.retry_at());
                waits.fold(self.raft.next_deadline(), Millis::min)
            }
            Failure::Final(_) => Millis(u64::MAX),
        }
    }

    /// Answers what still waits and closes the log; the replica only waits to be dropped.
    pub fn close(&mut self, out: &mut Output) -> io::Result<()> {
        let detail = format!("{} is being closed on broker {}", self.partition, self.me);
        let error = WireError::new(ErrorCode::RequestTimedOut, detail);
        self.waiters.fail_all(&error, out);
        self.drop_wishes(&error, out);
        match self.failure {
            Failure::None => self.log.close(),
            Failure::Final(_) => Ok(()),
        }
    }

    /// The partition.
    pub fn partition(&self) -> TopicPartition {
        self.partition
    }

    /// The recovery that began its group, if one did.
    pub fn recovery(&self) -> Option<Recovery> {
        self.recovery
    }

    /// It was made anew, and what it said before may still be under way to a leader.
    pub fn has_said(&mut self, said: Position) {
        self.raft.has_said(said);
    }

    /// Whether its files failed, so that it is out of service.
    pub fn is_failed(&self) -> bool {
        matches!(self.failure, Failure::Final(_))
    }

    /// Reads committed records from any thread.
    pub fn reader(&self) -> LogReader {
        self.log.reader()
    }

    /// What it may have forgotten: to be remembered, beside its term and vote, until it is over.
    pub fn suspicion(&self) -> Suspicion {
        self.raft.suspicion()
    }

    /// Raft's view, for whoever checks invariants.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Appends the marks that Raft wants: the start of a term won, the next change of voters.
    fn settle(&mut self, now: Millis, out: &mut Output) {
        self.now = now;
        if let Failure::Final(_) = self.failure {
            return;
        }
        match self.append_marks(now) {
            Ok(()) => {}
            // A full disk changed nothing: the mark stays due, and others may make room.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(partition = %self.partition, %error, "no room for a mark");
            }
            Err(error) => self.fail(&error, out),
        }
    }

    fn append_marks(&mut self, now: Millis) -> io::Result<()> {
        let term = self.raft.term();
        if self.raft.term_mark_due() {
            let appended = self.log.append_mark(term, &Mark::TermStart)?;
            self.noted_append(now);
            self.raft.appended_term_mark(now, appended.end);
        }
        if self.voters_wished().is_some_and(|target| self.raft.must_renew(target)) {
            self.raft.renew(now);
        }
        if let Some(set) = self.next_voters(now) {
            let appended = self.log.append_mark(term, &Mark::Voters(set.clone()))?;
            self.noted_append(now);
            self.raft.appended_voters(now, appended.end, set);
        }
        Ok(())
    }

    fn send_appends(&mut self, now: Millis, out: &mut Output) -> io::Result<()> {
        if let Failure::Final(_) = self.failure {
            return Ok(());
        }
        while let Some(SendPlan { to, from, bytes_max, lag }) = self.raft.next_send(now) {
            let until = self.log.boundary_until(from);
            let read =
                until.and_then(|(prev, _)| Ok((prev, self.log.read_frames(prev, bytes_max)?)));
            let (prev, read) = match read {
                Ok(read) => read,
                Err(error) if is_shortage(&error) => {
                    self.wait_for_files(now, &error);
                    self.raft.hold(now, to, from);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if read.frames.is_empty() && prev < self.log.end() {
                // What comes next cannot be read: `repair` is at it.
                self.raft.hold(now, to, prev);
                continue;
            }
            let prev_is_start = prev == self.log.start().0 && prev > LogIndex::ZERO;
            let message = RaftMessage::Append(AppendRequest {
                term: self.raft.term(),
                prev: self.raft.prev(prev),
                commit: self.raft.commit(),
                start: prev_is_start.then(|| self.log.start_point()),
                entries: read.frames,
            });
            self.raft.sent(now, to, prev, read.end, read.bytes);
            let lane = match lag {
                Lag::Near => Lane::Append,
                Lag::Far => Lane::Bulk,
            };
            out.messages.push(Outgoing { to, lane, message });
        }
        Ok(())
    }

    fn pass_messages(&mut self, out: &mut Output) {
        out.messages.extend(self.raft.take_messages().into_iter().map(|sent| Outgoing {
            to: sent.to,
            lane: lane(&sent.message),
            message: sent.message,
        }));
    }

    /// Something was appended: a flush will be due.
    fn noted_append(&mut self, now: Millis) {
        self.flush.oldest_unflushed.get_or_insert(now);
    }

    fn flush_deadline(&self) -> Option<Millis> {
        if self.flush.under_way.is_some() {
            return None;
        }
        let oldest = self.flush.oldest_unflushed?;
        match (&self.failure, self.options.flush) {
            (Failure::Final(_), _) => None,
            (Failure::None, FlushPolicy::Ack) => Some(oldest),
            (Failure::None, FlushPolicy::Interval { .. }) if !self.raft.voter_set_is_flushed() => {
                Some(oldest)
            }
            (Failure::None, FlushPolicy::Interval { ms }) => Some(Millis(oldest.0 + ms)),
        }
    }

    fn fold_producers(&mut self, summaries: Vec<FrameSummary>) {
        for summary in summaries {
            let (base_offset, end, term) = (summary.base_offset, summary.end, summary.term);
            let placed = Placed { base_offset, end, term, stamped: None };
            self.producers.appended(summary.producer, summary.records, placed);
        }
    }

    /// The files failed: the kernel has forgotten what it could not write, so this is final.
    fn fail(&mut self, error: &io::Error, out: &mut Output) {
        if let Failure::Final(_) = self.failure {
            return;
        }
        let reason = format!("the files of {} failed: {error}", self.partition);
        tracing::error!(partition = %self.partition, %error, "the replica is out of service");
        let answer = WireError::new(ErrorCode::StorageFailed, reason.clone());
        self.waiters.fail_all(&answer, out);
        self.drop_wishes(&answer, out);
        out.failed = Some(reason.clone());
        self.failure = Failure::Final(reason);
    }
}

fn lane(message: &RaftMessage) -> Lane {
    match message {
        RaftMessage::Vote(_)
        | RaftMessage::VoteAnswer(_)
        | RaftMessage::Heartbeat(_)
        | RaftMessage::HeartbeatAnswer(_)
        | RaftMessage::TimeoutNow { .. } => Lane::Control,
        RaftMessage::Append(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::Wanted(_)
        | RaftMessage::Found(_) => Lane::Append,
    }
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
