//! The pure multiplexer of replicas: many Raft groups, one journal, one bundle of messages per peer.
//!
//! A pass is `step` for each event of an inbox batch, then `finish_pass` once, all with one `out`.
//! What must hold: terms and votes that a pass changed are on disk, twice, before any effect of the
//! pass is handed out; when that fails, `finish_pass` returns the error with `out` emptied, and the
//! shard is dead. Only replicas that an event touched are finished, so a thousand idle ones cost
//! nothing but their turn in the heartbeat round. What a peer sent in an earlier life, or meant for
//! an earlier life of ours, never reaches a replica. Read `event` first.
//!
//! No threads, clocks or sockets here: `thread` drives a shard in a broker, `sim` in a test.

mod deadlines;
pub mod event;
mod flushes;
mod groups;
pub mod handle;
mod heartbeats;
mod hosted;
mod identity;
mod journal;
mod journal_codec;
mod open;
pub mod outbox;
mod peers;
mod rebuild;
mod retention;
#[cfg(all(test, feature = "sim"))]
mod tests;
pub mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Incarnation, NodeId, Position, Timestamp, TopicPartition};
use highwater_protocol::peer::{GroupMessage, RaftMessage};

use crate::crash_point::{self, CrashPoint};
use crate::disk::{Disk, FlushFailure};
use crate::log;
use crate::mutant::{self, Mutant};
use crate::raft::{Counts, Suspicion};
use crate::replica::{Boot, LastLife, Logged, Output, Remembered, epoch_of};

use deadlines::Deadlines;
use event::{AfterClose, Effect, Event, FlushTicket, Leadership, Millis, OpenReplica, RequestId};
use flushes::{Flushes, Part};
use heartbeats::HeartbeatRound;
use hosted::{Hosted, Noted};
use journal::Journal;
use peers::{Outbox, Peers};

pub use rebuild::FAILED;

/// What a shard must know of the broker it belongs to.
#[derive(Debug, Clone)]
pub struct ShardOptions {
    /// This broker.
    pub me: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Where all chance of the shard comes from.
    pub seed: u64,
    /// How often a leader shows each follower that it lives.
    pub heartbeat_ms: u64,
    /// The directory of the journal; no other shard writes there.
    pub dir: PathBuf,
    /// Where the files of failed replicas are set aside.
    pub stray_dir: PathBuf,
    /// How the life before this one ended.
    pub last_life: LastLife,
    /// Whether a broker has run on this data directory before.
    pub directory: Directory,
    /// Records of topics are refused rather than leave less than this free on the disk.
    pub keep_free_bytes: u64,
}

/// Whether a broker has run on a data directory before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directory {
    /// Never: there is nothing that could have been forgotten.
    New,
    /// It has: what should be there and is not was lost.
    Used,
}

/// Many replicas on one thread.
pub struct Shard {
    boot: Boot,
    disk: Arc<dyn Disk>,
    journal: Journal,
    replicas: BTreeMap<TopicPartition, Hosted>,
    dirty: BTreeSet<TopicPartition>,
    deadlines: Deadlines,
    round: HeartbeatRound,
    retention: retention::Rounds,
    peers: Peers,
    outbox: Outbox,
    keep_free_bytes: u64,
    flushes: Flushes,
    /// Replicas closed in this pass whose files are given up, and where those are.
    doomed: BTreeMap<TopicPartition, PathBuf>,
    /// Replicas that could not be opened for want of descriptors, or of room: tried again with each round of heartbeats.
    unopened: BTreeMap<TopicPartition, OpenReplica>,
    /// Who wants to know in this pass that nothing is left of a replica, and where it lay.
    giving_up: Vec<(RequestId, TopicPartition, PathBuf)>,
    stray_dir: PathBuf,
    /// Replicas that were made anew in this life, because their files had failed, and what they had said before.
    rebuilt: BTreeMap<TopicPartition, Position>,
    /// Where the failed files go of those of them that are to be opened.
    to_set_aside: BTreeMap<TopicPartition, PathBuf>,
    /// Where the failed files of those of them are that are not trusted yet.
    aside: BTreeMap<TopicPartition, Vec<PathBuf>>,
    /// The same of earlier lives, by the names of the replicas' directories: until those are opened.
    left_aside: BTreeMap<String, Vec<PathBuf>>,
    /// The wall clock as it was told last.
    wall: Option<Timestamp>,
    /// When an event was last taken.
    awake_at: Millis,
}

impl Shard {
    /// Reads the journal, or makes it. Replicas come by `Event::Open`.
    pub fn open(options: ShardOptions, disk: Arc<dyn Disk>, now: Millis) -> io::Result<Shard> {
        let ShardOptions { me, incarnation, seed, heartbeat_ms, dir, last_life, .. } = options;
        let journal = Journal::open(Arc::clone(&disk), &dir, options.directory, last_life)?;
        let left_aside = rebuild::left_aside(&*disk, &options.stray_dir);
        Ok(Shard {
            boot: Boot { me, incarnation, seed },
            disk,
            journal,
            replicas: BTreeMap::new(),
            dirty: BTreeSet::new(),
            deadlines: Deadlines::default(),
            round: HeartbeatRound::new(now, heartbeat_ms, seed),
            retention: retention::Rounds::default(),
            peers: Peers::new(incarnation),
            outbox: Outbox::default(),
            keep_free_bytes: options.keep_free_bytes,
            flushes: Flushes::default(),
            doomed: BTreeMap::new(),
            unopened: BTreeMap::new(),
            giving_up: Vec::new(),
            stray_dir: options.stray_dir,
            rebuilt: BTreeMap::new(),
            to_set_aside: BTreeMap::new(),
            aside: BTreeMap::new(),
            left_aside,
            wall: None,
            awake_at: now,
        })
    }

    /// Takes one event of a pass. Effects in `out` may be carried out only after `finish_pass`.
    pub fn step(&mut self, now: Millis, event: Event, out: &mut Vec<Effect>) {
        self.notice_starvation(now);
        match event {
            Event::Open(open) => self.open_replica(now, *open, out),
            Event::Close(partition, after) => self.close_replica(partition, after, out),
            Event::GiveUp(id, partition, dir) => self.give_up(id, partition, dir, out),
            Event::Produce(produce) => {
                let Some(hosted) = self.replicas.get_mut(&produce.partition) else {
                    let refusal = unknown(produce.partition);
                    out.push(Effect::Produced(produce.id, Err(refusal)));
                    return;
                };
                let partition = produce.partition;
                let mut output = Output::default();
                hosted.replica.produce(now, produce, &mut output);
                self.touched(partition, output, out);
            }
            Event::Peer { from, incarnation, to, messages } => {
                self.receive(now, from, incarnation, to, messages, out);
            }
            Event::Flushed(ticket, failures) => self.flushed(now, ticket, &failures, out),
            Event::Mended(partition, mended) => {
                let Some(hosted) = self.replicas.get_mut(&partition) else { return };
                let mut output = Output::default();
                hosted.replica.mended(now, mended, &mut output);
                self.touched(partition, output, out);
            }
            Event::Admin(id, partition, command) => {
                let Some(hosted) = self.replicas.get_mut(&partition) else {
                    out.push(Effect::Answered(id, Err(unknown(partition))));
                    return;
                };
                let mut output = Output::default();
                hosted.replica.command(now, id, command, &mut output);
                self.touched(partition, output, out);
            }
            Event::Retain(wall) => self.retain(now, wall, out),
            Event::Tick => self.tick(now, out),
        }
    }

    /// Whoever slept through a deadline must not take the silence for the others' death.
    fn notice_starvation(&mut self, now: Millis) {
        let due = self.next_deadline().max(self.awake_at);
        self.awake_at = now;
        let late_ms = now.0.saturating_sub(due.0);
        if late_ms >= LATE_MS {
            for (partition, hosted) in &mut self.replicas {
                hosted.replica.starved(now, late_ms);
                self.dirty.insert(*partition);
            }
        }
    }

    /// Ends the pass. After an error nothing of the pass may be carried out, and no other pass begun.
    pub fn finish_pass(&mut self, now: Millis, out: &mut Vec<Effect>) -> io::Result<()> {
        let dirty = std::mem::take(&mut self.dirty);
        for partition in &dirty {
            let Some(hosted) = self.replicas.get_mut(partition) else { continue };
            let mut output = Output::default();
            hosted.replica.finish_pass(now, &mut output);
            self.fold(*partition, output, out);
        }
        let mut files = Vec::new();
        let mut parts = Vec::new();
        let mut vouching = Vec::new();
        for partition in dirty {
            let Some(hosted) = self.replicas.get_mut(&partition) else { continue };
            if hosted.write_down(partition, &mut self.journal) == Noted::Vouch {
                vouching.push(partition);
            }
            if let Some(unflushed) = hosted.replica.take_unflushed(now) {
                let first = files.len();
                files.extend(unflushed);
                parts.push(Part { partition, files: first..files.len() });
            }
            self.deadlines.set(partition, hosted.replica.next_deadline());
        }
        if let Err(error) = self.delete_doomed(out).and_then(|()| self.journal.flush()) {
            // A vote that may be forgotten must never be heard of.
            out.clear();
            self.outbox.clear();
            return Err(error);
        }
        self.answer_given_up(out);
        self.delete_replaced();
        self.vouch(now, vouching);
        self.outbox.drain_into(&self.peers, out);
        if !parts.is_empty() {
            out.push(Effect::Flush(self.flushes.begin(parts), files));
        }
        Ok(())
    }

    /// When the next `Event::Tick` is due, if nothing else happens.
    pub fn next_deadline(&self) -> Millis {
        self.deadlines.next().min(self.round.next())
    }

    /// A replica, for the simulator's checker to look at.
    #[cfg(feature = "sim")]
    pub fn replica(&self, partition: TopicPartition) -> Option<&crate::replica::Replica> {
        self.replicas.get(&partition).map(|hosted| &hosted.replica)
    }

    fn close_replica(
        &mut self,
        partition: TopicPartition,
        after: AfterClose,
        out: &mut Vec<Effect>,
    ) {
        if let Some(open) = self.unopened.remove(&partition) {
            self.close_unopened(open, after, out);
            return;
        }
        let Some(mut hosted) = self.replicas.remove(&partition) else { return };
        self.dirty.remove(&partition);
        self.deadlines.forget(partition);
        self.flushes.leave(partition);
        hosted.write_down(partition, &mut self.journal);
        let mut output = Output::default();
        let closed = hosted.replica.close(&mut output);
        self.fold(partition, output, out);
        out.push(Effect::Closed(partition, after));
        drop(hosted.replica);
        let ended = match after {
            AfterClose::Keep => closed,
            AfterClose::Delete => {
                let hard = hosted.known.map(|known| known.hard).unwrap_or_default();
                let suspicion = Suspicion::LostIdentity;
                let recovery = hosted.known.and_then(|known| known.recovery);
                let (last_life, vouches) = (LastLife::Clean, Counts::Flushed);
                let logged = Logged::Nothing;
                let known = Remembered { hard, suspicion, last_life, vouches, recovery, logged };
                self.journal.remember(partition, known);
                self.doomed.insert(partition, hosted.open.dir);
                return;
            }
        };
        if let Err(error) = ended {
            let dir = hosted.open.dir.display();
            out.push(Effect::Failed(partition, format!("closing {dir}: {error}")));
        }
    }

    /// Whether a replica is open, or waits to be opened, or its files to be deleted: for descriptors, or for this pass
    /// to end.
    #[cfg(feature = "sim")]
    pub fn keeps(&self, partition: TopicPartition) -> bool {
        self.replicas.contains_key(&partition)
            || self.unopened.contains_key(&partition)
            || self.doomed.contains_key(&partition)
    }

    /// Deletes what was given up in this pass. The journal says before that nothing of it is to be
    /// trusted: what a crash leaves of the files must not pass for all that there was. The vote goes
    /// last: files without a vote would pass for a new replica.
    fn delete_doomed(&mut self, out: &mut Vec<Effect>) -> io::Result<()> {
        if self.doomed.is_empty() {
            return Ok(());
        }
        self.journal.flush()?;
        crash_point::reached(CrashPoint::RemovalBegun);
        for (partition, dir) in std::mem::take(&mut self.doomed) {
            match log::remove(self.disk.as_ref(), &dir) {
                Ok(()) => {
                    crash_point::reached(CrashPoint::RemovalDone);
                    self.journal.forget(partition);
                }
                // Its time comes with the next pass.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    self.doomed.insert(partition, dir);
                }
                Err(error) => {
                    let dir = dir.display();
                    out.push(Effect::Failed(partition, format!("deleting {dir}: {error}")));
                }
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        now: Millis,
        from: NodeId,
        incarnation: Incarnation,
        to: Option<Incarnation>,
        messages: Vec<GroupMessage>,
        out: &mut Vec<Effect>,
    ) {
        match self.peers.meet(from, incarnation, to) {
            peers::Meeting::OlderSender => return,
            peers::Meeting::OlderReceiver => {
                self.outbox.greet(from, incarnation);
                return;
            }
            peers::Meeting::Known => {}
            peers::Meeting::Reborn => {
                for (partition, hosted) in &mut self.replicas {
                    hosted.replica.peer_restarted(from);
                    self.dirty.insert(*partition);
                }
            }
        }
        for GroupMessage { group, epoch, message } in messages {
            if to.is_none() && !peers::may_go_to_a_stranger(&message) {
                continue;
            }
            let Some(hosted) = self.replicas.get_mut(&group) else { continue };
            let of_our_group = epoch == epoch_of(hosted.replica.recovery());
            if !of_our_group && !mutant::active(Mutant::OldEpochHeard) {
                continue;
            }
            if hosted.replica.is_failed() {
                self.heard_while_failed(now, group, &message, out);
                continue;
            }
            let says_it_to_us = to.is_some() || mutant::active(Mutant::StaleReportCounts);
            if let (RaftMessage::Vote(request), true) = (&message, says_it_to_us) {
                hosted.replica.end_reported(from, *request);
            }
            let mut output = Output::default();
            hosted.replica.receive(now, from, message, &mut output);
            self.touched(group, output, out);
        }
    }

    fn flushed(
        &mut self,
        now: Millis,
        ticket: FlushTicket,
        failures: &[FlushFailure],
        out: &mut Vec<Effect>,
    ) {
        for part in self.flushes.end(ticket) {
            let Some(hosted) = self.replicas.get_mut(&part.partition) else { continue };
            let mut output = Output::default();
            hosted.replica.flushed(now, part.result(failures), &mut output);
            self.touched(part.partition, output, out);
        }
    }

    fn retain(&mut self, now: Millis, wall: Timestamp, out: &mut Vec<Effect>) {
        self.wall = Some(wall);
        for (partition, by_age) in self.retention.next(now, wall, &self.replicas) {
            let hosted = self.replicas.get_mut(&partition).expect("it was listed just now");
            let mut output = Output::default();
            hosted.replica.retain(now, wall, by_age, &mut output);
            self.touched(partition, output, out);
        }
    }

    fn tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        while let Some(partition) = self.deadlines.pop_due(now) {
            let Some(hosted) = self.replicas.get_mut(&partition) else { continue };
            let mut output = Output::default();
            hosted.replica.tick(now, &mut output);
            self.touched(partition, output, out);
        }
        if self.round.is_due(now) {
            let mut partitions = Vec::with_capacity(self.replicas.len());
            for (partition, hosted) in &mut self.replicas {
                let mut output = Output::default();
                hosted.replica.heartbeats(now, &mut output);
                if !output.is_empty() {
                    partitions.push((*partition, output));
                }
            }
            for (partition, output) in partitions {
                self.fold(partition, output, out);
            }
            self.open_again(now, out);
        }
    }

    fn touched(&mut self, partition: TopicPartition, output: Output, out: &mut Vec<Effect>) {
        self.dirty.insert(partition);
        self.fold(partition, output, out);
    }

    /// Turns what one replica wants into effects of the shard.
    fn fold(&mut self, partition: TopicPartition, output: Output, out: &mut Vec<Effect>) {
        let Output { messages, produced, answered, committed, leadership, .. } = output;
        let Output { mends, repaired, failed, .. } = output;
        let hosted = self.replicas.get(&partition);
        let epoch = epoch_of(hosted.and_then(|hosted| hosted.replica.recovery()));
        out.extend(mends.into_iter().map(|mend| Effect::Mend(partition, mend)));
        if repaired > 0 {
            out.push(Effect::Repaired(partition, repaired));
        }
        for outgoing in messages {
            self.outbox.push(partition, epoch, outgoing);
        }
        out.extend(produced.into_iter().map(|(id, result)| Effect::Produced(id, result)));
        out.extend(answered.into_iter().map(|(id, result)| Effect::Answered(id, result)));
        if committed.is_some() {
            out.push(Effect::Committed(partition));
        }
        if let Some(leadership) = leadership {
            debug_assert_eq!(leadership.partition, partition, "news of another partition");
            out.push(Effect::Leadership(Leadership { partition, ..leadership }));
        }
        if let Some(reason) = failed {
            // Nor may it go on to speak by what it said earlier in the pass.
            self.outbox.forget(partition);
            out.push(Effect::Failed(partition, reason));
        }
    }
}

fn unknown(partition: TopicPartition) -> WireError {
    WireError::new(
        ErrorCode::UnknownTopicOrPartition,
        format!("this broker has no replica of {partition}; ask for the metadata again"),
    )
}

/// A deadline missed by this much means that this host was starved: paused, swapped out, or stuck in a
/// disk operation.
const LATE_MS: u64 = 100;
