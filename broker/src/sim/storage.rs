//! Disks that are full, that hold up whoever writes to them, and that spoil a broker's journal.
//!
//! A full disk is a neighbour's doing: it takes what room there is, or all but a little, and gives it back before
//! long. What must hold: nobody dies of it, no replica fails of it, and nothing that was acknowledged suffers.

use std::path::{Path, PathBuf};

use crate::raft::Millis;
use crate::shard::event::Effect;
use crate::sim::checker::Checked;
use crate::sim::cluster::{Cluster, Happening};

/// What a pass wants done and when it wakes next: kept back by a disk that still holds up its writes.
pub(super) struct Held {
    effects: Vec<Effect>,
    deadline: Millis,
}

impl Cluster {
    pub(super) fn fill_disk(&mut self, node: usize) {
        let free = match self.rng.below(3) {
            0 => 0,
            1 => self.rng.below(128 << 10),
            _ => self.swarm.keep_free_bytes + self.rng.below(256 << 10),
        };
        self.trace.note(self.now_us, format_args!("broker {node} has {free} bytes of room"));
        self.coverage.full_disks += 1;
        self.nodes[node].disk.fill(free);
        let after_us = self.rng.between(100_000..=8_000_000);
        self.schedule(self.now_us + after_us, Happening::Room(node));
    }

    pub(super) fn give_room(&mut self, node: usize) {
        self.nodes[node].disk.limit_bytes(None);
    }

    pub(super) fn stick(&mut self, node: usize) {
        let us = match self.rng.below(3) {
            0 => self.rng.between(10_000..=300_000),
            _ => self.rng.between(300_000..=8_000_000),
        };
        self.trace.note(self.now_us, format_args!("the disk of broker {node} sticks for {us} us"));
        self.nodes[node].stuck_until_us = self.now_us + us;
    }

    /// Whether what a pass wrote is still on its way: then the broker stands amid its pass.
    pub(super) fn holds_up(
        &mut self,
        node: usize,
        effects: &mut Vec<Effect>,
        deadline: Millis,
    ) -> bool {
        let broker = &mut self.nodes[node];
        if broker.stuck_until_us <= self.now_us {
            return false;
        }
        self.coverage.stuck_passes += 1;
        broker.held = Some(Held { effects: std::mem::take(effects), deadline });
        let (until_us, life) = (broker.stuck_until_us, broker.life);
        self.schedule(until_us, Happening::Unstuck(node, life));
        true
    }

    pub(super) fn unstick(&mut self, node: usize, life: u64) -> Checked {
        if self.nodes[node].life != life {
            return Ok(());
        }
        let Some(Held { effects, deadline }) = self.nodes[node].held.take() else { return Ok(()) };
        self.carry_out(node, effects)?;
        self.wake_at(node, deadline);
        if self.nodes[node].is_up() {
            self.nodes[node].pass_is_due = true;
            self.schedule(self.now_us + 1, Happening::Pass(node, life));
        }
        Ok(())
    }

    /// One copy of the journal is spoilt: the other one has all that either had.
    pub(super) fn rot_journal(&mut self, node: usize) -> Checked {
        let armed = self.nodes[node].disk.is_armed() || self.nodes[node].disk.has_failed();
        if !self.nodes[node].is_up() || armed {
            return Ok(());
        }
        self.kill(node)?;
        let copy = *self.rng.pick(&["journal.a", "journal.b"]);
        let dir = Path::new("/data/shard-0");
        let path: PathBuf = dir.join(copy);
        let disk = &self.nodes[node].disk;
        disk.write_back(dir);
        let page = self.rng.below(2);
        let what = match self.rng.below(4) {
            0 => {
                disk.spoil_page(&path, page, None);
                "lost"
            }
            1 => {
                disk.spoil_page(&path, page, Some(1 - page));
                "misdirected"
            }
            2 => {
                disk.make_unreadable(&path, page);
                "unreadable"
            }
            _ => {
                let flipped = disk.flip_bit(&path, self.rng.below(2 * 4096 * 8));
                assert!(flipped, "a journal is larger");
                "rotten"
            }
        };
        self.trace.note(self.now_us, format_args!("broker {node}: a page of {copy} is {what}"));
        self.coverage.journals_rotted += 1;
        self.come_back_later(node);
        Ok(())
    }
}
