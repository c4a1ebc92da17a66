//! Losses for good: frames rot on the only replica of a partition, and an operator accepts that.
//!
//! As with `hw partition repair --accept-loss`, the operator asks what cannot be read and gives up what is named,
//! at times only the first of it, at times all that there is. And at times what nobody has lost, or what others have.
//! Until all can be read again nobody moves the partition or changes its voters. What must hold:
//!
//! * G1: a gap stands only where a frame rotted that no other replica had, and that was given up since;
//! * G2: it takes that frame's place, offsets, term, length and producer, and everything else stays as it was, also
//!   on replicas that copy it later (I4).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_protocol::batch::FrameHeader;
use highwater_protocol::error::WireError;
use highwater_protocol::ids::{LogIndex, NodeId, Offset, TopicPartition};

use crate::disk::Disk;
use crate::log::Log;
use crate::shard::event::{AdminReply, ReplicaCommand, RequestId};
use crate::sim::checker::{Broken, Checked, Checker, broken};
use crate::sim::cluster::{Cluster, Happening, dir_of};
use crate::sim::model::Frame;
use crate::sim::node::{node_id, node_number};
use crate::sim::reading;

/// What may be missing of a partition, and what is.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Frames that rotted where nobody else had them, by end and hash; none once all can be read again.
    lost: BTreeSet<(LogIndex, u64)>,
    /// What was given up since they rotted.
    accepted: Vec<Range<Offset>>,
    /// The values that went, of all time.
    values: BTreeSet<u64>,
}

/// The operator's side of it.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// Partitions that lost something for good, by number: where their only replica is.
    losses: BTreeMap<usize, Pending>,
    /// Requests under way.
    asked: BTreeMap<RequestId, Asked>,
    /// The voters that were asked for last.
    pub(super) voters_asked: BTreeMap<TopicPartition, Vec<NodeId>>,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    node: usize,
    since_us: u64,
    /// Whether something was given up.
    accepted: bool,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    /// What cannot be read.
    Look(usize),
    /// To give up what cannot be read.
    GiveUp(usize),
}

/// Where a frame lies on disk.
struct Struck {
    end: LogIndex,
    hash: u64,
    file: PathBuf,
    bit: u64,
}

impl Losses {
    /// G1 and G2: whether a frame may stand where another one stood.
    pub(super) fn allow(&self, known: &Frame, found: &Frame) -> bool {
        let named =
            |range: &Range<Offset>| range.start <= known.base && known.base_end <= range.end;
        found.is_gap_in_place_of(known)
            && self.lost.contains(&(known.end, known.hash))
            && self.accepted.iter().any(named)
    }
}

impl Checker {
    /// An operator gives these offsets up.
    fn accepts_loss(&mut self, partition: TopicPartition, offsets: &[Range<Offset>]) {
        self.losses.entry(partition).or_default().accepted.extend_from_slice(offsets);
    }

    /// All can be read again: what was accepted is no licence for a loss to come.
    fn loss_is_over(&mut self, partition: TopicPartition) {
        let losses = self.losses.entry(partition).or_default();
        losses.lost.clear();
        losses.accepted.clear();
    }

    /// Whether these values were in frames in whose place there are gaps.
    pub(super) fn were_lost(&self, partition: TopicPartition, values: &[u64]) -> bool {
        let losses = self.losses.get(&partition);
        losses.is_some_and(|losses| values.iter().all(|value| losses.values.contains(value)))
    }

    /// Whether a frame may stand where another one stood.
    fn is_gap_of(&self, partition: TopicPartition, known: &Frame, found: &Frame) -> bool {
        self.losses.get(&partition).is_some_and(|losses| losses.allow(known, found))
    }

    /// Takes a gap for what is committed from now on, if it may stand there.
    pub(super) fn takes_gap(&mut self, partition: TopicPartition, gap: &Frame) -> bool {
        let Some(known) = self.committed(partition).frame_ending_at(gap.end) else { return false };
        if known.hash == gap.hash {
            return true;
        }
        if !self.is_gap_of(partition, known, gap) {
            return false;
        }
        let committed = self.committed.get_mut(&partition).expect("looked at just now");
        let values = committed.replace(gap.clone());
        self.excuse(partition, &values);
        self.take_back(partition, &values);
        self.losses.entry(partition).or_default().values.extend(values);
        true
    }

    /// Reads all of a replica's log once more, and says whether all of it can be read.
    pub(super) fn read_again(
        &mut self,
        node: NodeId,
        partition: TopicPartition,
        log: &Log,
    ) -> Result<bool, Broken> {
        let mut from = log.start().0;
        while from < log.end() {
            let (frames, end) = reading::next_frames(node, partition, log, from)?;
            for frame in frames {
                self.compare(node, partition, frame)?;
            }
            if end == from {
                return Ok(false);
            }
            from = end;
        }
        Ok(true)
    }

    fn compare(&mut self, node: NodeId, partition: TopicPartition, frame: Frame) -> Checked {
        let shadow = &self.shadows[&(node, partition)];
        // What it gained since it was last looked at is nobody's loss.
        if frame.end > shadow.end() {
            return Ok(());
        }
        let held = shadow.frame_ending_at(frame.end);
        if held.is_some_and(|held| held.hash == frame.hash) {
            return Ok(());
        }
        let is_gap = held.is_some_and(|held| self.is_gap_of(partition, held, &frame));
        if !is_gap || !self.takes_gap(partition, &frame) {
            return broken(
                "G1, G2: a gap stands only for what nobody can read and somebody gave up",
                format_args!(
                    "{node}, {partition}: {frame:?} is not what was there, gap: {}",
                    frame.is_gap()
                ),
            );
        }
        let shadow = self.shadows.get_mut(&(node, partition)).expect("looked at just now");
        shadow.replace(frame);
        Ok(())
    }
}

impl Cluster {
    /// Frames rot on the only replica that a partition has; or somebody gives up what need not be.
    pub(super) fn lose_for_good(&mut self) -> Checked {
        let number = self.rng.below(self.partitions.len() as u64) as usize;
        let only = self.only_replica(number).filter(|_| self.rng.per_mille(700));
        let Some(node) = only else {
            self.give_up_needlessly(number);
            return Ok(());
        };
        let struck = self.draw_frames(node, number);
        if struck.is_empty() {
            return Ok(());
        }
        let (partition, dir) = (self.partitions[number], dir_of(number));
        let end = self.view(node, partition).map(|view| view.log_end);
        self.kill(node)?;
        self.come_back_later(node);
        self.nodes[node].disk.write_back(&dir);
        if self.opens_after(node, number, &struck) != end {
            // No entry says yet what it was: the log ends there, and only a recovery goes on.
            return Ok(());
        }
        for it in &struck {
            self.nodes[node].disk.flip_bit(&it.file, it.bit);
            let what =
                format_args!("a bit turns before {} of {number}, which only {node} has", it.end);
            self.trace.note(self.now_us, what);
        }
        self.coverage.lost_for_good += struck.len() as u64;
        self.nodes[node].rotten.insert(partition);
        let lost = struck.iter().map(|it| (it.end, it.hash));
        self.checker.losses.entry(partition).or_default().lost.extend(lost);
        let since_us = self.now_us;
        self.operator.losses.insert(number, Pending { node, since_us, accepted: false });
        self.operate_later(number);
        Ok(())
    }

    /// Whether nobody must change who has a partition: something of it is to be given up first.
    pub(super) fn is_losing(&self, partition: TopicPartition) -> bool {
        self.operator.losses.contains_key(&(partition.partition.0 as usize))
    }

    /// Who alone has a partition, and nobody is to join.
    fn only_replica(&self, number: usize) -> Option<usize> {
        let partition = self.partitions[number];
        let [voter] = self.checker.voters(partition) else { return None };
        let node = node_number(*voter);
        let broker = &self.nodes[node];
        let view = self.view(node, partition)?;
        let alone = view.voters == [*voter] && view.learners.is_empty();
        let serves =
            !broker.failed.contains(&partition) && view.epoch == self.checker.epoch(partition);
        let sound = !broker.disk.is_armed() && !broker.disk.has_failed();
        // Who was a voter or learned goes on without a mover, and what is on its way to him he takes.
        let rests = match &self.mover {
            Some(mover) => mover.rests(partition, node),
            None => !self.was_asked_for_voters(number),
        };
        let stays = rests && self.checker.voters_to_come(partition).is_empty();
        (alone && serves && sound && stays && !self.is_losing(partition)).then_some(node)
    }

    /// Bits in a few committed frames of records that no other replica has.
    fn draw_frames(&mut self, node: usize, number: usize) -> Vec<Struck> {
        let (broker, partition) = (&self.nodes[node], self.partitions[number]);
        let replica = broker.shard.as_ref().and_then(|shard| shard.replica(partition));
        let replica = replica.expect("it serves");
        let (files, view) = (replica.log().files(), replica.view());
        let until = view.flushed.min(view.commit);
        let shadows = self.checker.shadows.iter();
        let others: Vec<_> = shadows
            .filter(|((of, about), _)| *about == partition && *of != broker.id)
            .map(|(_, shadow)| shadow)
            .collect();
        let Some(shadow) = self.checker.shadow(broker.id, partition) else { return Vec::new() };
        let only_here = |frame: &&Frame| {
            let held = |end| others.iter().any(|other| other.frame_ending_at(end).is_some());
            frame.end <= until && frame.base < frame.base_end && !held(frame.end)
        };
        let frames: Vec<&Frame> = shadow.frames.iter().filter(only_here).collect();
        let mut struck = BTreeMap::new();
        for _ in 0..self.rng.between(1..=FRAMES_MAX) {
            if frames.is_empty() {
                break;
            }
            let frame = *self.rng.pick(&frames);
            let file = files.iter().find(|(_, held)| held.contains(&frame.start));
            let Some((file, _)) = file else { continue };
            let contents = broker.disk.open(file, 0).and_then(|file| file.read(0..file.len()));
            let Ok(contents) = contents else { continue };
            let bytes = &frame.bytes;
            let at = contents.windows(bytes.len()).position(|held| held == bytes);
            let Some(at) = at else { continue };
            let bit = (at as u64) * 8 + self.rng.below(bytes.len() as u64 * 8);
            let (end, hash, file) = (frame.end, frame.hash, file.clone());
            struck.insert(frame.end, Struck { end, hash, file, bit });
        }
        struck.into_values().collect()
    }

    /// Where the log would end if these bits turned, and whether it would open.
    fn opens_after(&self, node: usize, number: usize, struck: &[Struck]) -> Option<LogIndex> {
        let disk = self.nodes[node].disk.fork();
        for it in struck {
            assert!(disk.flip_bit(&it.file, it.bit), "the frame was found there");
        }
        let disk: Arc<dyn Disk> = disk;
        let opened =
            Log::open(disk, &dir_of(number), self.partitions[number], self.log_options()).ok()?;
        opened.1.damage.is_none().then(|| opened.0.end())
    }

    fn operate_later(&mut self, number: usize) {
        let after_us = self.rng.between(50_000..=600_000);
        self.schedule(self.now_us + after_us, Happening::Operate(number));
    }

    /// The operator looks after a partition that lost something.
    pub(super) fn operate(&mut self, number: usize) -> Checked {
        let Some(pending) = self.operator.losses.get(&number).copied() else { return Ok(()) };
        self.operate_later(number);
        let (node, partition) = (pending.node, self.partitions[number]);
        let broker = &self.nodes[node];
        // What a pass did that is held up is not told yet.
        if broker.held.is_some() || broker.disk.is_dead() || broker.failed.contains(&partition) {
            return Ok(());
        }
        // Nor can be read what cannot be opened now.
        if broker.disk.is_limited() {
            return Ok(());
        }
        let shard = broker.shard.as_ref();
        let Some(replica) = shard.and_then(|shard| shard.replica(partition)) else { return Ok(()) };
        let waited = self.now_us > pending.since_us + PATIENCE_US;
        if !replica.view().faulty && (pending.accepted || waited) {
            // Whoever reads finds what rotted: not before the broker had the time to.
            let whole = self.checker.read_again(broker.id, partition, replica.log())?;
            if whole {
                self.trace.note(self.now_us, format_args!("partition {number} can be read again"));
                self.checker.loss_is_over(partition);
                self.operator.losses.remove(&number);
                return Ok(());
            }
        }
        self.ask_repair(node, number, Vec::new());
        Ok(())
    }

    fn ask_repair(&mut self, node: usize, number: usize, give_up: Vec<Range<Offset>>) {
        let asked = match give_up.is_empty() {
            true => Asked::Look(number),
            false => Asked::GiveUp(number),
        };
        let partition = self.partitions[number];
        self.checker.accepts_loss(partition, &give_up);
        let id =
            self.command(node, partition, ReplicaCommand::Repair { start: Offset::ZERO, give_up });
        self.operator.asked.insert(id, asked);
    }

    /// A replica has answered the operator.
    pub(super) fn repair_answered(
        &mut self,
        node: usize,
        id: RequestId,
        answer: &Result<AdminReply, WireError>,
    ) {
        let Some(asked) = self.operator.asked.remove(&id) else { return };
        match (asked, answer) {
            (Asked::Look(number), Ok(AdminReply::Unreadable(seen))) => {
                let named = seen.unreadable.iter().map(|range| range.from..range.until);
                let mut named: Vec<Range<Offset>> = named.collect();
                if named.is_empty() {
                    return;
                }
                match self.rng.below(4) {
                    0 => named.truncate(1),
                    1 => named = vec![ALL],
                    _ => {}
                }
                self.ask_repair(node, number, named);
            }
            (Asked::GiveUp(number), Ok(AdminReply::Unreadable(given))) => {
                self.coverage.gaps += given.given_up;
                if let Some(pending) = self.operator.losses.get_mut(&number) {
                    pending.accepted = true;
                }
            }
            (Asked::GiveUp(_), Err(_)) => self.coverage.losses_refused += 1,
            (Asked::Look(_), Ok(_) | Err(_)) | (Asked::GiveUp(_), Ok(_)) => {}
        }
    }

    /// A range is given up wherever chance will have it: of a replica that is one of several, or has lost nothing.
    fn give_up_needlessly(&mut self, number: usize) {
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        if !self.nodes[node].is_up() {
            return;
        }
        let end = self.checker.committed(self.partitions[number]).end_offset();
        let range = match self.rng.below(2) {
            0 => ALL,
            _ => Offset(self.rng.below(end.0 + 1))..end,
        };
        let who = node_id(node);
        self.trace.note(self.now_us, format_args!("{who} is to give up {range:?} of {number}"));
        self.ask_repair(node, number, vec![range]);
    }
}

impl Frame {
    /// Whether it only keeps the place of what was given up.
    pub(super) fn is_gap(&self) -> bool {
        FrameHeader::parse(&self.bytes).is_ok_and(|header| header.is_gap())
    }

    fn is_gap_in_place_of(&self, other: &Frame) -> bool {
        let place = |frame: &Frame| {
            let Frame { start, end, base, base_end, term, .. } = *frame;
            (start, end, base, base_end, term, frame.bytes.len())
        };
        let producer =
            |frame: &Frame| FrameHeader::parse(&frame.bytes).ok().map(|header| header.producer());
        self.is_gap() && place(self) == place(other) && producer(self) == producer(other)
    }
}

const ALL: Range<Offset> = Offset(0)..Offset(u64::MAX);
/// How many frames rot at most.
const FRAMES_MAX: u64 = 4;
/// When the operator looks for himself whether anything is wrong at all.
const PATIENCE_US: u64 = 10_000_000;
