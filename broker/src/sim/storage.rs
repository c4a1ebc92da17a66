//! Disks that are full, processes without descriptors, disks that hold up whoever writes to them, and that spoil a
//! broker's journal.
//!
//! A full disk is a neighbour's doing: it takes what room there is, or all but a little, and gives it back before
//! long. What must hold: nobody dies of it, no replica fails of it, and nothing that was acknowledged suffers.

use std::path::Path;

use crate::mutant::{self, Mutant};
use crate::raft::Millis;
use crate::shard::event::Effect;
use crate::sim::checker::{Checked, Death};
use crate::sim::cluster::{Cluster, Happening};
use crate::sim::swarm::{FaultRates, Loses};

/// What a pass wants done and when it wakes next: kept back by a disk that hangs.
pub(super) struct Held {
    effects: Vec<Effect>,
    deadline: Millis,
}

impl Cluster {
    pub(super) fn fill_disk(&mut self, node: usize) {
        if self.rng.per_mille(300) {
            return self.take_files(node);
        }
        let free = match self.rng.below(3) {
            0 => 0,
            1 => self.rng.below(128 << 10),
            _ => self.swarm.keep_free_bytes + self.rng.below(256 << 10),
        };
        self.trace.note(self.now_us, format_args!("broker {node} has {free} bytes of room"));
        self.coverage.full_disks += 1;
        self.nodes[node].disk.fill(free);
        self.give_room_later(node);
    }

    /// Others have taken all descriptors: nothing can be opened.
    fn take_files(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            return;
        }
        let spares = self.rng.below(9) as usize;
        let what = format_args!("broker {node} can open no more files, and make {spares}");
        self.trace.note(self.now_us, what);
        self.coverage.files_taken += 1;
        self.nodes[node].disk.take_files(spares);
        self.give_room_later(node);
    }

    fn give_room_later(&mut self, node: usize) {
        let after_us = self.rng.between(100_000..=8_000_000);
        self.schedule(self.now_us + after_us, Happening::Room(node));
    }

    pub(super) fn give_room(&mut self, node: usize) {
        let disk = &self.nodes[node].disk;
        disk.limit_bytes(None);
        disk.give_files();
    }

    pub(super) fn stick(&mut self, node: usize) {
        let us = match self.rng.below(3) {
            0 => self.rng.between(10_000..=300_000),
            _ => self.rng.between(300_000..=8_000_000),
        };
        self.trace.note(self.now_us, format_args!("the disk of broker {node} sticks for {us} us"));
        let broker = &mut self.nodes[node];
        broker.stuck_until_us = broker.stuck_until_us.max(self.now_us + us);
        broker.disk.hang();
        let (until_us, life) = (broker.stuck_until_us, broker.life);
        self.schedule(until_us, Happening::Unstuck(node, life));
        if self.rng.per_mille(300) {
            let at_us = self.rng.between(self.now_us..=until_us);
            self.schedule(at_us, Happening::PowerFails(node));
        }
    }

    pub(super) fn fail_power(&mut self, node: usize) -> Checked {
        let faults = self.swarm.faults != FaultRates::NONE;
        if faults && self.nodes[node].is_up() && self.may_lose_pages(node) {
            self.power_off(node, Death::PowerLost)?;
            self.come_back_later(node);
        }
        Ok(())
    }

    /// What a pass wrote is on its way: the broker stands amid its pass until its disk is done. Then it says
    /// what it has to say, and is looked at.
    pub(super) fn hold_up(
        &mut self,
        node: usize,
        mut effects: Vec<Effect>,
        deadline: Millis,
    ) -> Checked {
        self.coverage.stuck_passes += 1;
        if mutant::active(Mutant::SpeaksBeforeFlushed) {
            self.end_pass(node, std::mem::take(&mut effects), deadline)?;
        }
        if self.nodes[node].is_up() {
            self.nodes[node].held = Some(Held { effects, deadline });
        }
        Ok(())
    }

    pub(super) fn unstick(&mut self, node: usize, life: u64) -> Checked {
        let broker = &mut self.nodes[node];
        if broker.stuck_until_us > self.now_us {
            return Ok(());
        }
        broker.disk.unhang();
        if broker.life != life {
            return Ok(());
        }
        let Some(Held { effects, deadline }) = broker.held.take() else { return Ok(()) };
        self.end_pass(node, effects, deadline)?;
        if self.nodes[node].is_up() {
            self.nodes[node].pass_is_due = true;
            self.schedule(self.now_us + 1, Happening::Pass(node, life));
        }
        Ok(())
    }

    /// A process dies amid a pass that was held up: what that did to the files is done, but for its flushes,
    /// and nobody heard of it.
    pub(super) fn die_held_up(&mut self, node: usize) {
        let Some(Held { effects, .. }) = self.nodes[node].held.take() else { return };
        self.note_services(node, &effects);
        for partition in &self.partitions {
            self.checker.closed(self.nodes[node].id, *partition);
        }
    }

    /// One copy of the journal is spoilt: the other one has all that either had. Or both are, and nobody knows
    /// whom this broker voted for.
    pub(super) fn rot_journal(&mut self, node: usize) -> Checked {
        let armed = self.nodes[node].disk.is_armed() || self.nodes[node].disk.has_failed();
        if !self.nodes[node].is_up() || armed {
            return Ok(());
        }
        let both = self.may_forget(node) && self.rng.per_mille(300);
        self.kill(node)?;
        let dir = Path::new("/data/shard-0");
        self.nodes[node].disk.write_back(dir);
        let one = self.rng.below(2) as usize;
        let copies = if both { 0..2 } else { one..one + 1 };
        for copy in &["journal.a", "journal.b"][copies] {
            self.spoil_copy(node, &dir.join(copy));
        }
        self.coverage.journals_rotted += 1;
        if both {
            self.coverage.journals_lost += 1;
            self.checker.forgot(self.nodes[node].id);
            self.nodes[node].short.extend(&self.partitions);
        }
        self.come_back_later(node);
        Ok(())
    }

    /// Whether a broker may forget its votes: it is one of a minority of each partition's voters that do not
    /// vote before a leader has led them, and no change of voters leaves it alone with one that needs its vote.
    fn may_forget(&self, node: usize) -> bool {
        let mut partitions = self.partitions.iter().enumerate();
        self.swarm.faults.voters == 0
            && self.mover.is_none()
            && partitions.all(|(number, partition)| {
                self.swarm.loses(number) == Loses::Nothing && self.may_fall_short(node, *partition)
            })
    }

    fn spoil_copy(&mut self, node: usize, path: &Path) {
        let disk = &self.nodes[node].disk;
        let page = self.rng.below(2);
        let what = match self.rng.below(4) {
            0 => {
                disk.spoil_page(path, page, None);
                "lost"
            }
            1 => {
                disk.spoil_page(path, page, Some(1 - page));
                "misdirected"
            }
            2 => {
                disk.make_unreadable(path, page);
                "unreadable"
            }
            _ => {
                let flipped = disk.flip_bit(path, self.rng.below(2 * 4096 * 8));
                assert!(flipped, "a journal is larger");
                "rotten"
            }
        };
        let path = path.display();
        self.trace.note(self.now_us, format_args!("broker {node}: a page of {path} is {what}"));
    }
}
