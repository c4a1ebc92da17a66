//! How simulated brokers boot, die and lose pages.

use std::sync::Arc;

use highwater_protocol::ids::{NodeId, TopicPartition};

use crate::disk::Disk;
use crate::log::{self, Log};
use crate::replica::{LastLife, ReplicaOptions};
use crate::shard::event::{Event, Identity, Moving, OpenReplica};
use crate::sim::checker::{Broken, Checked, Death};
use crate::sim::cluster::{Cluster, Happening, dir_of};
use crate::sim::model;
use crate::sim::node::{SimNode, node_id, node_number};
use crate::sim::swarm::Loses;

impl Cluster {
    /// Boots a broker that is down.
    pub fn start(&mut self, node: usize) -> Checked {
        if self.nodes[node].is_up() {
            return Ok(());
        }
        if self.nodes[node].stuck_until_us > self.now_us {
            // A boot writes, and has to wait for that.
            self.schedule(self.nodes[node].stuck_until_us + 1, Happening::Restart(node));
            return Ok(());
        }
        self.trace.note(self.now_us, format_args!("broker {node} boots"));
        let twice = self.rng.per_mille(200);
        if twice && self.nodes[node].life > 0 {
            self.check_recovery_is_idempotent(node)?;
        }
        let armed = self.swarm.faults.fuse > 0 && self.rng.per_mille(200);
        if armed && self.nodes[node].life > 0 && self.may_lose_pages(node) {
            // Recovery and the journal's rewriting have to stand it as well.
            self.nodes[node].disk.arm(self.rng.between(1..=BOOT_OPERATIONS_MAX));
        }
        let booted = self.nodes[node].boot(self.now_us);
        if self.nodes[node].disk.is_dead() {
            self.coverage.died_booting += 1;
            return self.bury_if_dead(node);
        }
        if booted.is_err() && self.nodes[node].disk.is_limited() {
            self.coverage.full_boots += 1;
            self.come_back_later(node);
            return Ok(());
        }
        if booted.is_err() && self.nodes[node].disk.has_failed() {
            self.power_off(node, Death::AmidPass)?;
            self.come_back_later(node);
            return Ok(());
        }
        self.coverage.suspects += u64::from(self.nodes[node].last_life == LastLife::Unclean);
        booted.map_err(|error| Broken {
            invariant: "a broker boots whatever a crash left behind",
            detail: format!("broker {node}: {error}"),
        })?;
        if self.mover.is_some() {
            self.boot_view(node);
            return Ok(());
        }
        for number in 0..self.partitions.len() {
            self.open(node, number);
        }
        Ok(())
    }

    pub(super) fn open(&mut self, node: usize, number: usize) {
        match &self.mover {
            None => {
                let open = self.open_replica(number);
                self.give(node, Event::Open(Box::new(open)));
            }
            Some(mover) => {
                let placed = mover.placed_here(node, self.partitions[number]);
                placed.into_iter().for_each(|open| self.host(node, open));
            }
        }
    }

    /// Has a broker host what its image says.
    pub(super) fn host(&mut self, node: usize, placed: OpenReplica) {
        let number = placed.partition.partition.0 as usize;
        let OpenReplica { dir, options, .. } = self.open_replica(number);
        self.give(node, Event::Open(Box::new(OpenReplica { dir, options, ..placed })));
    }

    fn open_replica(&self, number: usize) -> OpenReplica {
        let options = ReplicaOptions {
            log: self.log_options(),
            flush: self.swarm.partitions[number],
            insync_replicas_min: self.swarm.insync_replicas_min,
            lag_ms_max: self.swarm.lag_ms_max,
            retention: self.swarm.retention,
            learner_bytes_per_s: self.swarm.learner_bytes_per_s,
        };
        OpenReplica {
            partition: self.partitions[number],
            dir: dir_of(number),
            voters: self.voters_at_start(number),
            learners: Vec::new(),
            // Voters are changed at the leader here, and the image, which names those of the start, never hears of it.
            moving: match self.was_asked_for_voters(number) {
                true => Moving::UnderWay,
                false => Moving::No,
            },
            identity: Identity::Same,
            recovery: None,
            options,
        }
    }

    pub(super) fn log_options(&self) -> log::Options {
        log::Options { segment_bytes_max: self.swarm.segment_bytes_max, keep_free_bytes: 0 }
    }

    /// S1: a log recovered twice is the same log.
    fn check_recovery_is_idempotent(&self, node: usize) -> Checked {
        let disk: Arc<dyn Disk> = Arc::clone(&self.nodes[node].disk) as Arc<dyn Disk>;
        // An opening makes the directory, and that is all that tells a loss of it.
        let there = |number: &usize| disk.list(&dir_of(*number)).is_ok();
        for number in (0..self.partitions.len()).filter(there) {
            let partition = &self.partitions[number];
            let recover = || -> Result<_, String> {
                let opened =
                    Log::open(Arc::clone(&disk), &dir_of(number), *partition, self.log_options());
                let (log, _) = opened.map_err(|error| error.to_string())?;
                let start = log.start().0;
                let mut hashes = Vec::new();
                let mut from = start;
                while from < log.end() {
                    let read = log.read_frames(from, 1 << 20).map_err(|error| error.to_string())?;
                    let frames = model::parse_frames(from, &read.frames)?;
                    hashes.extend(frames.into_iter().map(|frame| (frame.end, frame.hash)));
                    if read.end == from {
                        hashes.push((log.end(), 0));
                        break;
                    }
                    from = read.end;
                }
                Ok((start, hashes))
            };
            let (first, second) = (recover(), recover());
            let disk = &self.nodes[node].disk;
            if first != second && !disk.is_dead() && !disk.has_failed() {
                let (first, second) = (brief(&first), brief(&second));
                return Err(Broken {
                    invariant: "S1: recovering twice gives the same bytes",
                    detail: format!("broker {node}, {partition}: {first}, then {second}"),
                });
            }
        }
        Ok(())
    }

    /// Ends a broker's process; its page cache lives on.
    pub fn kill(&mut self, node: usize) -> Checked {
        if self.nodes[node].is_up() {
            self.trace.note(self.now_us, format_args!("broker {node} is killed"));
            self.coverage.kills += 1;
            self.checker.crashed(self.nodes[node].id, Death::Killed);
            self.die_held_up(node);
            self.nodes[node].die(LastLife::Clean);
        }
        Ok(())
    }

    /// Takes a broker's power: any subset of what was not flushed is gone.
    pub fn power_off(&mut self, node: usize, death: Death) -> Checked {
        let death = if self.nodes[node].held.is_some() { Death::AmidPass } else { death };
        let disk = &self.nodes[node].disk;
        if self.nodes[node].is_up() || disk.is_dead() || disk.has_failed() {
            self.trace.note(self.now_us, format_args!("broker {node} loses its power ({death:?})"));
            self.coverage.power_cuts += 1;
            self.checker.crashed(self.nodes[node].id, death);
            if death == Death::AmidPass {
                // What was being deleted may be half gone.
                for partition in self.nodes[node].dropping.keys() {
                    self.checker.deleted(self.nodes[node].id, *partition);
                }
                // So may what was being set aside; never what is the only replica.
                let id = self.nodes[node].id;
                let alone = |partition: &&TopicPartition| {
                    self.view(node, **partition).is_some_and(|view| view.voters == [id])
                };
                let failed = self.nodes[node].failed.iter().filter(|it| !alone(it)).copied();
                for partition in failed.collect::<Vec<_>>() {
                    self.checker.rebuilt(id, partition);
                }
            }
            self.nodes[node].die(LastLife::Unclean);
            self.nodes[node].short.extend(&self.partitions);
            self.nodes[node].disk.lose_power();
            self.nodes[node].stuck_until_us = 0;
        }
        Ok(())
    }

    /// Buries a broker whose disk went dead under it, and has it come back.
    pub(super) fn bury_if_dead(&mut self, node: usize) -> Checked {
        if !self.nodes[node].disk.is_dead() {
            return Ok(());
        }
        self.power_off(node, Death::AmidPass)?;
        self.come_back_later(node);
        Ok(())
    }

    pub(super) fn come_back_later(&mut self, node: usize) {
        let after_us = self.rng.between(10..=self.swarm.down_ms_max) * 1_000;
        self.schedule(self.now_us + after_us, Happening::Restart(node));
    }

    /// The operator restarts a broker whose disk failed.
    pub(super) fn restart_failed(&mut self, node: usize) -> Checked {
        if self.nodes[node].is_up() && self.nodes[node].disk.has_failed() {
            self.end_failed_life(node)?;
            self.come_back_later(node);
        }
        Ok(())
    }

    /// What the failed flush did not reach is lost with the power, or is still in the page cache.
    pub(super) fn end_failed_life(&mut self, node: usize) -> Checked {
        match self.may_lose_pages(node) {
            true => self.power_off(node, Death::PowerLost),
            false => self.kill(node),
        }
    }

    /// Whether a broker may lose unflushed pages without a promise being broken: where entries count
    /// before they are flushed, only a minority may be short of what they counted at any time.
    pub fn may_lose_pages(&self, node: usize) -> bool {
        let mut partitions = self.partitions.iter().enumerate();
        partitions.all(|(number, partition)| match self.swarm.loses(number) {
            Loses::Nothing => true,
            Loses::Unflushed => self.may_fall_short(node, *partition),
        })
    }

    /// Whether a majority of the voters has all that it counted, also without this broker's replica. A set
    /// of voters that is not committed yet may be so before the fault is felt, and who is aimed at may
    /// have got its vote by then, on a word that left before.
    pub(super) fn may_fall_short(&self, node: usize, partition: TopicPartition) -> bool {
        let id = node_id(node);
        let mut sets = self.checker.voters_to_come(partition);
        sets.push(self.checker.voters(partition).to_vec());
        let mut aims = self.aims(partition);
        // Who is to go may be the last to go.
        let votes = sets.iter().any(|voters| voters.contains(&id));
        let stays = aims.iter_mut().filter(|voters| votes && !voters.contains(&id));
        stays.for_each(|voters| voters.push(id));
        aims.retain(|voters| voters.contains(&id));
        let stands = sets.iter_mut().all(|voters| {
            if !voters.contains(&id) {
                if aims.is_empty() {
                    return true;
                }
                voters.push(id);
            }
            let short = |voter: &&NodeId| {
                let member = node_number(**voter);
                member == node || self.is_short(&self.nodes[member], partition)
            };
            voters.iter().filter(short).count() * 2 < voters.len()
        });
        stands && aims.iter().all(|voters| self.would_stand(voters, partition, Some(node)))
    }

    pub(super) fn is_short(&self, node: &SimNode, partition: TopicPartition) -> bool {
        // Also one that is down: the fault strikes while it boots.
        if node.short.contains(&partition) || node.disk.is_armed() {
            return true;
        }
        let failed = node.failed.contains(&partition);
        let Some(shard) = &node.shard else { return failed || node.last_life == LastLife::Unclean };
        failed || shard.replica(partition).is_none_or(|replica| replica.raft().is_suspect())
    }
}

type RecoveredLog =
    (highwater_protocol::ids::LogIndex, Vec<(highwater_protocol::ids::LogIndex, u64)>);

fn brief(recovered: &Result<RecoveredLog, String>) -> String {
    match recovered {
        Ok((start, frames)) => {
            format!("{} frames from {start}, the last {:x?}", frames.len(), frames.last())
        }
        Err(error) => error.clone(),
    }
}

/// About as many disk operations as a boot takes.
const BOOT_OPERATIONS_MAX: u64 = 30;
