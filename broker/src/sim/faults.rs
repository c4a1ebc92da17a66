//! What goes wrong in a simulated cluster, and when: each kind of fault strikes at its own drawn rate,
//! and the mix shifts while the run goes on; a quarter of the time is quiet.

use std::collections::BTreeSet;

use highwater_protocol::ids::{NodeId, Offset, TopicPartition};

use crate::replica::FlushPolicy;
use crate::shard::event::{AfterClose, Event, ReplicaCommand};
use crate::sim::checker::{Checked, Death};
use crate::sim::cluster::{Cluster, Happening};
use crate::sim::network::{Cut, Weather};
use crate::sim::node::node_id;
use crate::sim::swarm::{FaultRates, Loses};

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
    /// A clock jumps ahead by up to a minute.
    ClockJump,
    /// A topic's `flush` changes while it is in use.
    FlushChange,
    /// The controller is asked to move replicas, or to cancel moves.
    Moves,
    /// The operator gives up a partition's majority.
    Recover,
    /// A disk has no room, or next to none, for up to eight seconds.
    Full,
    /// Whatever writes to a disk stands still until that is over, for up to eight seconds.
    Stuck,
    /// A process dies, and while it is down a write to its journal turns out lost, misdirected or rotten.
    JournalRot,
    /// Frames rot on the only replica that has them, and an operator accepts the loss.
    AcceptLoss,
}

/// All kinds.
pub const KINDS: [FaultKind; 22] = [
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
    FaultKind::ClockJump,
    FaultKind::Moves,
    FaultKind::Recover,
    FaultKind::FlushChange,
    FaultKind::Full,
    FaultKind::Stuck,
    FaultKind::JournalRot,
    FaultKind::AcceptLoss,
];

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
            FaultKind::SlowDisk => self.slow_down(node),
            FaultKind::BadFlush => self.fail_a_flush(node),
            FaultKind::Transfer | FaultKind::Voters | FaultKind::Trim => self.order(kind),
            FaultKind::Weather => self.network.weather = Weather::draw(&mut self.rng),
            FaultKind::Reopen => self.reopen_some(node),
            FaultKind::Rot => self.rot(node)?,
            FaultKind::ClockJump => {
                let ms = *self.rng.pick(&[50, 1_000, 5_000, 60_000]);
                self.coverage.clock_jumps += 1;
                self.nodes[node].jump(self.rng.between(1..=ms) * 1_000);
            }
            FaultKind::Moves => return self.wish_for_moves(),
            FaultKind::Recover => return self.wish_for_recovery(),
            FaultKind::FlushChange => self.change_flush(),
            FaultKind::Full => self.fill_disk(node),
            FaultKind::Stuck => self.stick(node),
            FaultKind::JournalRot => self.rot_journal(node)?,
            FaultKind::AcceptLoss => self.lose_for_good()?,
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

    fn fail_a_flush(&mut self, node: usize) {
        // The replica may be made anew, and lacks then what it had on disk, too; with two voters nobody does that.
        let spared = |(number, partition): (usize, &TopicPartition)| {
            let alone = self.checker.voters(*partition).len() <= 2;
            self.may_fall_short(node, *partition)
                || alone && matches!(self.swarm.loses(number), Loses::Nothing)
        };
        if !self.partitions.iter().enumerate().all(spared) {
            return;
        }
        // What gathers in a nap is flushed together: one bad file among the good ones of others.
        let nap_us = self.rng.between(0..=200_000);
        let broker = &mut self.nodes[node];
        broker.paused_until_us = broker.paused_until_us.max(self.now_us + nap_us);
        broker.disk.fail_next_flush();
        // Mostly the broker has made the replica anew by then, where the others have a leader.
        let after_us = self.rng.between(500_000..=20_000_000);
        self.schedule(self.now_us + after_us, Happening::RestartFailed(node));
    }

    /// Flushes take long, or none ends for up to half a minute.
    fn slow_down(&mut self, node: usize) {
        let broker = &mut self.nodes[node];
        if self.rng.per_mille(250) {
            self.coverage.frozen_disks += 1;
            broker.frozen_until_us = self.now_us + self.rng.between(1_000_000..=30_000_000);
        } else {
            broker.slow_until_us = self.now_us + self.rng.between(100_000..=5_000_000);
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
    fn reopen_some(&mut self, node: usize) {
        let number = self.rng.below(self.partitions.len() as u64) as usize;
        if !self.nodes[node].is_up() || self.nodes[node].failed.contains(&self.partitions[number]) {
            return;
        }
        let after_us = match self.rng.below(2) {
            0 => 0,
            _ => self.rng.long_tailed(300_000),
        };
        // A broker closes and opens in one go; while it had none in between, a move could not take it.
        let after_us = if self.mover.is_some() { 0 } else { after_us };
        self.reopen(node, number, after_us);
    }

    /// The topic's `flush` becomes another one; each broker hears of it in its own time, and one that is
    /// down when it starts.
    fn change_flush(&mut self) {
        let number = self.rng.below(self.partitions.len() as u64) as usize;
        let policies =
            [FlushPolicy::Ack, FlushPolicy::Interval { ms: 20 }, FlushPolicy::Interval { ms: 500 }];
        self.swarm.partitions[number] = *self.rng.pick(&policies);
        self.coverage.flush_changes += 1;
        let policy = self.swarm.partitions[number];
        self.trace.note(self.now_us, format_args!("partition {number} goes by {policy:?}"));
        for node in 0..self.nodes.len() {
            let mean_us = *self.rng.pick(&[10_000, 100_000, 2_000_000]);
            let after_us = self.rng.long_tailed(mean_us);
            self.schedule(self.now_us + after_us, Happening::Open(node, number));
        }
    }

    /// Closes a replica and opens it again so much later.
    pub fn reopen(&mut self, node: usize, number: usize, after_us: u64) {
        self.trace.note(self.now_us, format_args!("broker {node} closes partition {number}"));
        self.coverage.reopened += 1;
        self.give(node, Event::Close(self.partitions[number], AfterClose::Keep));
        self.schedule(self.now_us + after_us, Happening::Open(node, number));
    }

    /// An operator's or a controller's wish.
    fn order(&mut self, kind: FaultKind) {
        let number = self.rng.below(self.partitions.len() as u64) as usize;
        let partition = self.partitions[number];
        let Some(leader) = self.known_leader(partition) else { return };
        if kind == FaultKind::Voters && self.is_losing(partition) {
            return;
        }
        let nodes = self.nodes.len() as u64;
        let command = match kind {
            FaultKind::Transfer => {
                let to = self.rng.per_mille(700).then(|| node_id(self.rng.below(nodes) as usize));
                ReplicaCommand::TransferLeader(to)
            }
            FaultKind::Voters => {
                let voters = self.draw_voters();
                if !self.would_stand(&voters, partition, None) {
                    return;
                }
                self.operator.voters_asked.insert(partition, voters.clone());
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
            | FaultKind::Rot
            | FaultKind::ClockJump
            | FaultKind::Moves
            | FaultKind::Recover
            | FaultKind::FlushChange
            | FaultKind::Full
            | FaultKind::Stuck
            | FaultKind::JournalRot
            | FaultKind::AcceptLoss => unreachable!("not an order"),
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
