//! How simulated brokers learn of what the controller decided, and follow it, as `node::follow` does.

use std::collections::BTreeSet;

use super::{Moving, me};
use crate::controller::ClusterImage;
use crate::disk::Disk;
use crate::log;
use crate::node::reconcile;
use crate::shard::event::{AfterClose, Event};
use crate::sim::checker::Checked;
use crate::sim::cluster::{Cluster, Happening, dir_of};
use crate::sim::node::node_id;
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
        self.remove_strays(node)
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
        self.remove_strays(node)
    }

    /// A broker has a newer image: its shard follows it.
    pub(super) fn show(&mut self, node: usize, image: ClusterImage) {
        let saves = self.rng.per_mille(300);
        let view = &mut self.mover.as_mut().expect("asked for where replicas move").views[node];
        let mut changes = reconcile::diff(&view.image, &image, me(node));
        let mut given_up = BTreeSet::new();
        if view.applied >= view.registered_at {
            given_up = std::mem::take(&mut view.spared);
            given_up.retain(|partition| !reconcile::is_placed(&image, *partition, me(node)));
        } else {
            let spared = reconcile::spare_dropped(&mut changes, &view.image, &image, me(node));
            view.spared.extend(spared.into_iter().map(|(partition, _)| partition));
        }
        if saves || reconcile::gives_up_files(&changes) || !given_up.is_empty() {
            view.saved = view.applied;
        }
        view.image = image;
        view.touched.extend(changes.open.iter().map(|open| open.partition));
        for (partition, after) in changes.close {
            if after == AfterClose::Delete {
                // A closing that waits in the inbox would pass for this one.
                let waits = |event: &Event| matches!(event, Event::Close(of, AfterClose::Keep) if *of == partition);
                self.nodes[node].inbox.retain(|event| !waits(event));
                *self.nodes[node].dropping.entry(partition).or_default() += 1;
            }
            self.give(node, Event::Close(partition, after));
        }
        for partition in given_up {
            *self.nodes[node].dropping.entry(partition).or_default() += 1;
            let dir = dir_of(partition.partition.0 as usize);
            self.give(node, Event::GiveUp(partition, dir));
        }
        for open in changes.open {
            self.host(node, open);
        }
    }

    /// What an earlier life left of replicas that were taken from it, as `node::strays` does it.
    fn remove_strays(&mut self, node: usize) -> Checked {
        let view = &mut self.mover.as_mut().expect("asked for where replicas move").views[node];
        let caught_up = view.applied >= view.registered_at;
        if !caught_up || std::mem::replace(&mut view.caught_up, true) {
            return Ok(());
        }
        for (number, partition) in self.partitions.iter().enumerate() {
            let topic = view.image.topic(partition.topic);
            let taken =
                topic.is_some_and(|topic| topic.is_dropped(partition.partition, node_id(node)));
            let disk = &self.nodes[node].disk;
            if taken && !view.touched.contains(partition) && disk.list(&dir_of(number)).is_ok() {
                // A disk that fails here is looked at below.
                if log::remove(disk.as_ref(), &dir_of(number)).is_ok() {
                    self.checker.deleted(node_id(node), *partition);
                }
            }
        }
        self.bury_if_dead(node)
    }
}
