//! How simulated brokers learn of what the controller decided, and follow it, as `node::follow` does.

use super::{Moving, me};
use crate::controller::ClusterImage;
use crate::node::reconcile;
use crate::shard::event::{AfterClose, Event};
use crate::sim::checker::Checked;
use crate::sim::cluster::{Cluster, Happening};
use crate::sim::swarm::FaultRates;

impl Cluster {
    pub(in crate::sim) fn learn_later(&mut self, node: usize) {
        let after_us = match self.swarm.faults == FaultRates::NONE || self.rng.per_mille(700) {
            true => self.rng.long_tailed(3_000),
            false => self.rng.long_tailed(700_000),
        };
        self.schedule(self.now_us + after_us, Happening::Moves(Moving::Learn(node)));
    }

    pub(super) fn learn(&mut self, node: usize) -> Checked {
        let mover = self.mover.as_mut().expect("asked for where replicas move");
        let (known, all) = (mover.views[node].applied, mover.records.len());
        if !self.nodes[node].is_up() || mover.views[node].deaf {
            return Ok(());
        }
        if known < all {
            let up_to = match self.rng.per_mille(600) {
                true => all,
                false => self.rng.between(known as u64 + 1..=all as u64) as usize,
            };
            return self.learn_up_to(node, up_to);
        }
        Ok(())
    }

    /// A broker applies so many records.
    pub(in crate::sim) fn learn_up_to(&mut self, node: usize, up_to: usize) -> Checked {
        let mover = self.mover.as_mut().expect("asked for where replicas move");
        let (image, all) = (mover.replayed(up_to), mover.records.len());
        mover.views[node].applied = up_to;
        self.show(node, image);
        if up_to < all {
            self.learn_later(node);
        }
        Ok(())
    }

    /// A broker has a newer image: its shard follows it.
    pub(super) fn show(&mut self, node: usize, image: ClusterImage) {
        let saves = self.rng.per_mille(300);
        let view = &mut self.mover.as_mut().expect("asked for where replicas move").views[node];
        let changes = reconcile::diff(&view.image, &image, me(node));
        let changes = view.sight.follow(changes, &image, view.standing(), me(node));
        if saves && view.may_save() || reconcile::gives_up_files(&changes) {
            view.saved = view.applied;
        }
        view.image = image;
        for (partition, after) in changes.close {
            if after == AfterClose::Delete {
                *self.nodes[node].dropping.entry(partition).or_default() += 1;
            }
            self.give(node, Event::Close(partition, after));
        }
        for open in changes.open {
            self.host(node, open);
        }
    }
}
