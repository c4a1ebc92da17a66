//! What goes wrong in a simulated cluster, and when: each kind of fault strikes at its own drawn rate,
//! and the mix shifts while the run goes on; a quarter of the time is quiet.

use std::collections::BTreeSet;
use std::path::PathBuf;

use highwater_protocol::ids::{LogIndex, NodeId, Offset, TopicPartition};

use crate::disk::Disk;
use crate::shard::event::{AfterClose, Event, ReplicaCommand};
use crate::sim::checker::{Checked, Death};
use crate::sim::cluster::{Cluster, Happening, dir_of};
use crate::sim::network::{Cut, Weather};
use crate::sim::node::node_id;
use crate::sim::swarm::FaultRates;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A process dies, its page cache lives on.
    Kill,
    /// The power fails.
    Power,
    /// The power fails at the n-th disk operation from now.
    Fuse,
    /// A process stands still for up to 30 seconds.
    Pause,
    /// The network falls apart.
    Partition,
    /// A link holds back what is sent on it.
    Clog,
    /// A disk is slow.
    SlowDisk,
    /// A flush fails.
    BadFlush,
    /// Leadership is moved on purpose.
    Transfer,
    /// Voters are changed on purpose.
    Voters,
    /// Old records are given up.
    Trim,
    /// The weather changes.
    Weather,
    /// A replica is moved away and comes back.
    Reopen,
    /// A process dies, and while it is down a flushed frame rots, on a minority only.
    Rot,
}

const KINDS: [FaultKind; 14] = [
    FaultKind::Kill,
    FaultKind::Power,
    FaultKind::Fuse,
    FaultKind::Pause,
    FaultKind::Partition,
    FaultKind::Clog,
    FaultKind::SlowDisk,
    FaultKind::BadFlush,
    FaultKind::Transfer,
    FaultKind::Voters,
    FaultKind::Trim,
    FaultKind::Weather,
    FaultKind::Reopen,
    FaultKind::Rot,
];

impl FaultRates {
    fn of(&self, kind: FaultKind) -> u64 {
        match kind {
            FaultKind::Kill => self.kill,
            FaultKind::Power => self.power,
            FaultKind::Fuse => self.fuse,
            FaultKind::Pause => self.pause,
            FaultKind::Partition => self.partition,
            FaultKind::Clog => self.clog,
            FaultKind::SlowDisk => self.slow_disk,
            FaultKind::BadFlush => self.bad_flush,
            FaultKind::Transfer => self.transfer,
            FaultKind::Voters => self.voters,
            FaultKind::Trim => self.trim,
            FaultKind::Weather => self.weather,
            FaultKind::Reopen => self.reopen,
            FaultKind::Rot => self.rot,
        }
    }
}

impl Cluster {
    /// Lets the drawn faults strike from now on.
    pub fn begin_faults(&mut self) {
        self.schedule(self.now_us, Happening::Phase);
        for kind in KINDS {
            self.schedule_fault(kind);
        }
    }

    /// No fault strikes any more; what is broken stays broken.
    pub fn end_faults(&mut self) {
        self.swarm.faults = FaultRates::NONE;
    }

    fn schedule_fault(&mut self, kind: FaultKind) {
        let mean_ms = self.swarm.faults.of(kind);
        if mean_ms > 0 {
            let after_us = 1_000 + self.rng.long_tailed(mean_ms * 1_000);
            self.schedule(self.now_us + after_us, Happening::Fault(kind));
        }
    }

    pub(super) fn shift_phase(&mut self) {
        self.quiet = self.rng.per_mille(250);
        let after_us = self.rng.between(1_000_000..=10_000_000);
        self.schedule(self.now_us + after_us, Happening::Phase);
    }

    pub(super) fn strike(&mut self, kind: FaultKind) -> Checked {
        if self.swarm.faults.of(kind) == 0 {
            return Ok(());
        }
        self.schedule_fault(kind);
        if self.quiet {
            return Ok(());
        }
        let node = self.victim();
        match kind {
            FaultKind::Kill => self.strike_dead(node, Death::Killed)?,
            FaultKind::Power => self.strike_dead(node, Death::PowerLost)?,
            FaultKind::Fuse => self.arm(node),
            FaultKind::Pause => self.pause(node),
            FaultKind::Partition => self.partition(node),
            FaultKind::Clog => self.clog(node),
            FaultKind::SlowDisk => {
                self.nodes[node].slow_until_us =
                    self.now_us + self.rng.between(100_000..=5_000_000);
            }
            FaultKind::BadFlush => {
                if self.may_lose_pages(node) {
                    self.nodes[node].disk.fail_next_flush();
                    let after_us = self.rng.between(500_000..=5_000_000);
                    self.schedule(self.now_us + after_us, Happening::RestartFailed(node));
                }
            }
            FaultKind::Transfer | FaultKind::Voters | FaultKind::Trim => self.order(kind),
            FaultKind::Weather => self.network.weather = Weather::draw(&mut self.rng),
            FaultKind::Reopen => self.reopen(node),
            FaultKind::Rot => self.rot(node)?,
        }
        Ok(())
    }

    /// Leaders are struck more often than by chance: that is where bugs live.
    fn victim(&mut self) -> usize {
        let partition = *self.rng.pick(&self.partitions);
        match self.known_leader(partition) {
            Some(leader) if self.rng.per_mille(400) => leader,
            Some(_) | None => self.rng.below(self.nodes.len() as u64) as usize,
        }
    }

    fn strike_dead(&mut self, node: usize, death: Death) -> Checked {
        if !self.nodes[node].is_up() {
            return Ok(());
        }
        if death == Death::Killed && self.rng.per_mille(300) {
            self.nodes[node].dies_after_effects = Some(self.rng.below(6) as usize);
            self.come_back_later(node);
            return Ok(());
        }
        // Sometimes several at once, up to all of them.
        let victims = match self.rng.below(10) {
            0 => (0..self.nodes.len()).collect(),
            1 | 2 => vec![node, (node + 1) % self.nodes.len()],
            _ => vec![node],
        };
        for victim in victims {
            if !self.nodes[victim].is_up() {
                continue;
            }
            match death {
                Death::PowerLost if self.may_lose_pages(victim) => self.power_off(victim, death)?,
                Death::PowerLost | Death::AmidPass | Death::Killed => self.kill(victim)?,
            }
            self.come_back_later(victim);
        }
        Ok(())
    }

    fn arm(&mut self, node: usize) {
        if self.nodes[node].is_up() && self.may_lose_pages(node) {
            let operations = self.rng.between(1..=40);
            self.trace.note(
                self.now_us,
                format_args!("the power of broker {node} fails after {operations} disk operations"),
            );
            self.nodes[node].disk.arm(operations);
        }
    }

    fn pause(&mut self, node: usize) {
        let ms = match self.rng.below(4) {
            0 => self.rng.between(1..=100),
            1 | 2 => self.rng.between(100..=3_000),
            _ => self.rng.between(3_000..=30_000),
        };
        self.pause_for(node, ms);
    }

    /// A process stands still; what arrives waits for it.
    pub fn pause_for(&mut self, node: usize, ms: u64) {
        self.trace.note(self.now_us, format_args!("broker {node} stands still for {ms} ms"));
        self.coverage.pauses += 1;
        self.nodes[node].paused_until_us = self.now_us + ms * 1_000;
    }

    fn partition(&mut self, node: usize) {
        let side: BTreeSet<usize> = if self.rng.per_mille(500) {
            BTreeSet::from([node])
        } else {
            (0..self.nodes.len()).filter(|_| self.rng.per_mille(500)).collect()
        };
        let cut = match self.rng.below(4) {
            0 => Cut::Into(side),
            1 => Cut::OutOf(side),
            _ => Cut::Between(side),
        };
        self.trace.note(self.now_us, format_args!("the network is cut: {cut:?}"));
        self.coverage.cuts += 1;
        self.network.cut(cut);
        let after_us = self.rng.between(100_000..=8_000_000);
        self.schedule(self.now_us + after_us, Happening::HealNetwork);
    }

    fn clog(&mut self, node: usize) {
        let other = self.rng.below(self.nodes.len() as u64) as usize;
        let until_us = self.now_us + self.rng.between(10_000..=5_000_000);
        self.coverage.cuts += 1;
        self.network.clog(node, other, until_us);
    }

    /// A replica is closed and its files stay; it is opened again at once or before long.
    fn reopen(&mut self, node: usize) {
        let number = self.rng.below(self.partitions.len() as u64) as usize;
        if !self.nodes[node].is_up() || self.nodes[node].failed.contains(&self.partitions[number]) {
            return;
        }
        let partition = self.partitions[number];
        self.trace.note(self.now_us, format_args!("broker {node} closes partition {number}"));
        self.coverage.reopened += 1;
        self.give(node, Event::Close(partition, AfterClose::Keep));
        let after_us = match self.rng.below(2) {
            0 => 0,
            _ => self.rng.long_tailed(300_000),
        };
        self.schedule(self.now_us + after_us, Happening::Open(node, number));
    }

    /// A process dies, and while it is down a bit of what it had flushed turns. Only a minority is
    /// short of anything at any time, so whatever gets lost is a bug.
    fn rot(&mut self, node: usize) -> Checked {
        let number = self.rng.below(self.partitions.len() as u64) as usize;
        let partition = self.partitions[number];
        let serves = self.nodes[node].is_up() && !self.nodes[node].failed.contains(&partition);
        if !serves || self.nodes[node].disk.is_armed() || !self.may_fall_short(node, partition) {
            return Ok(());
        }
        let Some((file, byte, from)) = self.something_flushed(node, partition) else {
            return Ok(());
        };
        self.trace.note(
            self.now_us,
            format_args!("broker {node} dies, and its partition {number} rots from {from} on"),
        );
        self.kill(node)?;
        // Only what was written back and dropped from the cache is read from the medium again.
        self.nodes[node].disk.write_back(&dir_of(number));
        let bit = byte * 8 + self.rng.below(8);
        assert!(self.nodes[node].disk.flip_bit(&file, bit), "the frame was found there");
        self.nodes[node].short.insert(partition);
        self.checker.rotted(self.nodes[node].id, partition, from);
        self.coverage.rotted += 1;
        self.come_back_later(node);
        Ok(())
    }

    /// A byte of a frame that is on disk in a segment which is not sealed yet: in which file, where, and
    /// where the frame starts in the log.
    fn something_flushed(
        &mut self,
        node: usize,
        partition: TopicPartition,
    ) -> Option<(PathBuf, u64, LogIndex)> {
        let broker = &self.nodes[node];
        let replica = broker.shard.as_ref()?.replica(partition)?;
        let (file, view) = (replica.log().growing_file()?, replica.view());
        let shadow = self.checker.shadow(broker.id, partition)?;
        let flushed = shadow.frames.partition_point(|frame| frame.end <= view.flushed);
        let back = self.rng.below(ROT_FRAMES_BACK) as usize;
        let frame = &shadow.frames[flushed.checked_sub(back + 1)?];
        let contents = broker.disk.open(&file, 0).ok()?;
        let contents = contents.read(0..contents.len()).ok()?;
        let at = contents.windows(frame.bytes.len()).position(|bytes| bytes == frame.bytes)?;
        let byte = at as u64 + self.rng.below(frame.bytes.len() as u64);
        Some((file, byte, frame.start))
    }

    /// An operator's or a controller's wish.
    fn order(&mut self, kind: FaultKind) {
        let number = self.rng.below(self.partitions.len() as u64) as usize;
        let partition = self.partitions[number];
        let Some(leader) = self.known_leader(partition) else { return };
        let nodes = self.nodes.len() as u64;
        let command = match kind {
            FaultKind::Transfer => {
                let to = self.rng.per_mille(700).then(|| node_id(self.rng.below(nodes) as usize));
                ReplicaCommand::TransferLeader(to)
            }
            FaultKind::Voters => {
                let voters = self.draw_voters();
                ReplicaCommand::ChangeVoters { voters, learners: Vec::new() }
            }
            FaultKind::Trim => {
                // Mostly a good deal of it, at times all, at times more than there is.
                let end = self.checker.committed(partition).end_offset().0;
                let offset = match self.rng.below(4) {
                    0 => end + self.rng.below(3),
                    1 => end.saturating_sub(self.rng.below(10)),
                    _ => self.rng.below(end + 1),
                };
                ReplicaCommand::TrimBefore(Offset(offset))
            }
            FaultKind::Kill
            | FaultKind::Power
            | FaultKind::Fuse
            | FaultKind::Pause
            | FaultKind::Partition
            | FaultKind::Clog
            | FaultKind::SlowDisk
            | FaultKind::BadFlush
            | FaultKind::Weather
            | FaultKind::Reopen
            | FaultKind::Rot => unreachable!("not an order"),
        };
        self.trace.note(self.now_us, format_args!("broker {leader} is told {command:?}"));
        self.command(leader, partition, command);
    }

    fn draw_voters(&mut self) -> Vec<NodeId> {
        let nodes = self.nodes.len() as u64;
        let size = self.rng.between(1..=nodes.min(5));
        let first = self.rng.below(nodes);
        (0..size).map(|nth| node_id(((first + nth) % nodes) as usize)).collect()
    }
}

/// How far back a frame may lie that rots.
const ROT_FRAMES_BACK: u64 = 8;
