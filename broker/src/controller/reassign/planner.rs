//! Which brokers get a replica, and which lose theirs, where a wish leaves that open.

use std::collections::BTreeMap;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{NodeId, PartitionId};
use highwater_protocol::native::moves::MoveWish;

use super::same;
use crate::controller::image::{ClusterImage, Topic};

/// Chooses brokers for what a wish leaves open: racks first, then the fewest replicas, those on their
/// way counted where they go.
pub(super) struct Planner<'a> {
    image: &'a ClusterImage,
    pub(super) held: BTreeMap<NodeId, usize>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(image: &'a ClusterImage) -> Planner<'a> {
        let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (topic, partition) in image.every_partition() {
            for replica in topic.settles_on(partition) {
                *held.entry(replica.node).or_default() += 1;
            }
        }
        Planner { image, held }
    }

    /// Whether a wish may change a partition with these replicas.
    pub(super) fn touches(&self, wish: &MoveWish, from: &[NodeId]) -> bool {
        match wish {
            MoveWish::To(to) => !same(from, to),
            MoveWish::Each(_) => true,
            MoveWish::Drain(node) => from.contains(node),
            MoveWish::Replicas(wanted) => from.len() != usize::from(*wanted),
        }
    }

    pub(super) fn target(
        &self,
        topic: &Topic,
        partition: PartitionId,
        from: &[NodeId],
        wish: &MoveWish,
    ) -> Result<Vec<NodeId>, WireError> {
        let mut to = from.to_vec();
        let no_broker = || {
            let name = &topic.name;
            let why = format!(
                "{name}/{partition}: no broker is alive that could take another replica; add or start one, or ask \
                 for fewer replicas first (`hw partition reassign {name}/{partition} --replicas {}`)",
                (from.len() - 1).max(1)
            );
            WireError::new(ErrorCode::BrokerNotAvailable, why)
        };
        match wish {
            MoveWish::To(nodes) => to.clone_from(nodes),
            MoveWish::Each(_) => unreachable!("a plan leaves nothing open"),
            MoveWish::Drain(node) => {
                if let Some(place) = to.iter().position(|held| held == node) {
                    to.remove(place);
                    let heir =
                        self.best((topic, partition), &to, Some(*node)).ok_or_else(no_broker)?;
                    to.insert(place, heir);
                }
            }
            MoveWish::Replicas(wanted) => {
                let wanted = usize::from(*wanted);
                while to.len() > wanted {
                    let worst = self.worst(&to);
                    to.remove(worst);
                }
                while to.len() < wanted {
                    to.push(self.best((topic, partition), &to, None).ok_or_else(no_broker)?);
                }
            }
        }
        Ok(to)
    }

    pub(super) fn placed(&mut self, from: &[NodeId], to: &[NodeId]) {
        for node in from.iter().filter(|node| !to.contains(node)) {
            let held = self.held.entry(*node).or_default();
            *held = held.saturating_sub(1);
        }
        for node in to.iter().filter(|node| !from.contains(node)) {
            *self.held.entry(*node).or_default() += 1;
        }
    }

    /// Within what racks allow, who has given up what it had before comes first: for others the move would wait.
    pub(super) fn best(
        &self,
        (topic, at): (&Topic, PartitionId),
        set: &[NodeId],
        not: Option<NodeId>,
    ) -> Option<NodeId> {
        let alive = self.image.brokers().filter(|broker| broker.takes_work());
        let open = alive.map(|broker| broker.registration.node);
        let open = open.filter(|node| !set.contains(node) && Some(*node) != not);
        open.min_by_key(|node| {
            let held = self.held.get(node).copied().unwrap_or_default();
            (self.in_rack_of(set, *node), topic.is_dropped(at, *node), held, *node)
        })
    }

    /// Who leaves first: the dead and the drained, then those that share a rack, then the last named.
    fn worst(&self, set: &[NodeId]) -> usize {
        let unfit = |node| self.image.broker(node).is_none_or(|broker| !broker.takes_work());
        let key = |at: &usize| (unfit(set[*at]), self.in_rack_of(set, set[*at]), *at);
        (0..set.len()).max_by_key(key).expect("a set is never empty")
    }

    /// How many others of the set lie in the broker's rack.
    fn in_rack_of(&self, set: &[NodeId], node: NodeId) -> usize {
        let rack = |node| self.image.broker(node).and_then(|b| b.registration.rack.as_deref());
        let mine = rack(node);
        set.iter()
            .filter(|other| **other != node && mine.is_some() && rack(**other) == mine)
            .count()
    }
}
