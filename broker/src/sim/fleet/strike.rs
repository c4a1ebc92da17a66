//! What strikes a fleet in a storm: brokers die and return, some do not hear the controller's log for
//! a while, partitions are sent elsewhere at random, and moves are cancelled.

use highwater_protocol::ids::{NodeId, PartitionId, TopicPartition};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::moves::{CancelMovesRequest, MoveWish, ReassignRequest};

use super::{Fleet, moving};
use crate::controller::Command;
use crate::controller::moves::MoveCommand;
use crate::raft::Millis;

impl Fleet {
    /// What strikes in one round.
    pub(super) fn strike_at_random(&mut self) {
        if self.rng.per_mille(150) {
            let at = self.rng.below(self.hosts.len() as u64) as usize;
            self.kill(at);
        }
        if self.rng.per_mille(20)
            && let Some(at) = self.controller()
        {
            self.kill(at);
        }
        for at in 0..self.hosts.len() {
            if !self.hosts[at].is_up() && self.rng.per_mille(40) {
                self.start(at);
            }
        }
        if self.rng.per_mille(100) {
            let at = self.rng.below(self.hosts.len() as u64) as usize;
            self.deaf_until[at] = Millis(self.now.0 + self.rng.between(1_000..=10_000));
        }
        if self.rng.per_mille(100) {
            self.move_at_random();
        }
        if self.rng.per_mille(30) {
            let moving = moving(self.image());
            if !moving.is_empty() {
                let partitions = vec![*self.rng.pick(&moving)];
                let request = CancelMovesRequest { partitions };
                let id = self.draw_move();
                self.ask(Command::Moves(MoveCommand::Cancel(id, request)));
                self.seen.cancelled += 1;
            }
        }
    }

    /// Few brokers are away at once, but some for longer than they are waited for.
    pub(super) fn ebb_and_flow(&mut self) {
        let away = self.hosts.iter().filter(|host| !host.is_up()).count();
        if away * 4 < self.hosts.len() && self.rng.per_mille(20) {
            let at = self.rng.below(self.hosts.len() as u64) as usize;
            self.kill(at);
        }
        for at in 0..self.hosts.len() {
            if !self.hosts[at].is_up() && self.rng.per_mille(2) {
                self.start(at);
            }
        }
    }

    /// Some partition is to go somewhere, as an operator may wish at any time.
    fn move_at_random(&mut self) {
        let topics: Vec<_> =
            self.image().topics().map(|topic| (topic.id, topic.partitions.len())).collect();
        let (topic, partitions) = *self.rng.pick(&topics);
        let number = PartitionId(self.rng.below(partitions as u64) as u32);
        let brokers = self.hosts.len() as u32;
        let first = self.rng.below(u64::from(brokers)) as u32;
        let to = (0..3).map(|next| NodeId((first + next) % brokers + 1)).collect();
        let request = ReassignRequest {
            partitions: vec![TopicPartition::new(topic, number)],
            wish: MoveWish::To(to),
            dry_run: DryRun::No,
        };
        let id = self.draw_move();
        self.ask(Command::Moves(MoveCommand::Reassign(id, request)));
    }
}
