//! How simulated brokers give up what was taken from them, and what must hold when they say so.

use highwater_protocol::ids::{NodeId, TopicPartition};

use super::{Mover, Moving, directory, me};
use crate::controller::MetadataRecord;
use crate::controller::moves::dropped::GivenUp;
use crate::controller::moves::{MoveCommand, MoveRecord, nodes};
use crate::controller::recover::RecoverRecord;
use crate::disk::Disk;
use crate::node::reconcile::{self, Owed};
use crate::shard::event::{AfterClose, Event, RequestId};
use crate::sim::checker::{Broken, Checked};
use crate::sim::cluster::{Cluster, Happening, dir_of};
use crate::sim::node::{node_id, node_number};

impl Cluster {
    /// As `node::follow` does each second: saves the image, and has the shard delete what is left.
    pub(super) fn look_for_what_is_owed(&mut self, node: usize) {
        let saves = self.rng.per_mille(200);
        let mover = self.mover.as_mut().expect("asked for where replicas move");
        let view = &mut mover.views[node];
        if saves && view.may_save() {
            view.saved = view.applied;
        }
        let view = &mover.views[node];
        if reconcile::dropped(&view.image, node_id(node)).is_empty() {
            return;
        }
        let saved = reconcile::dropped(&mover.replayed(view.saved), node_id(node));
        let standing = view.standing();
        for Owed { partition, by, dir: _ } in
            reconcile::owed(&view.image, &saved, standing, me(node))
        {
            let id = self.draw_request();
            let mover = self.mover.as_mut().expect("it was there just now");
            mover.giving_up.insert(id, (node, partition, by));
            *self.nodes[node].dropping.entry(partition).or_default() += 1;
            let dir = dir_of(partition.partition.0 as usize);
            self.give(node, Event::GiveUp(id, partition, dir));
        }
    }

    /// A shard has answered; if nothing is left, the controller hears of it, or the word is lost.
    pub(in crate::sim) fn giving_up_answered(&mut self, id: RequestId, done: bool) {
        let Some(mover) = &mut self.mover else { return };
        let Some((node, partition, by)) = mover.giving_up.remove(&id) else { return };
        if !done || self.rng.per_mille(50) {
            return;
        }
        let drops = vec![(partition, by)];
        let word = GivenUp { node: node_id(node), directory: directory(node), drops };
        let at_us = self.now_us + self.road_us();
        let decide = Moving::Decide(MoveCommand::GivenUp(word), None);
        self.schedule(at_us, Happening::Moves(decide));
    }

    /// M6 and M7: who says that it gave up a replica has nothing of it, and before that nobody gives it one.
    pub(super) fn check_given_up(&mut self, record: &MetadataRecord) -> Checked {
        let mover = self.mover.as_mut().expect("asked for where replicas move");
        match record {
            MetadataRecord::Move(MoveRecord::End { partition, dropped, .. })
            | MetadataRecord::Recover(RecoverRecord::Begin { partition, dropped, .. }) => {
                mover.owing.extend(dropped.iter().map(|node| (*partition, *node)));
            }
            MetadataRecord::Move(MoveRecord::GivenUp(partition, node)) => {
                mover.owing.remove(&(*partition, *node));
                return self.check_nothing_is_left(*partition, *node);
            }
            MetadataRecord::Move(MoveRecord::Set(partition, found)) if found.opens_replicas() => {
                let owes = |node: &NodeId| mover.owing.contains(&(*partition, *node));
                if let Some(node) = nodes(&found.target).into_iter().find(owes) {
                    return Err(Broken {
                        invariant: "M7: no replica goes back to a broker that has not given it up",
                        detail: format!("{partition} goes to broker {node} with {found:?}"),
                    });
                }
            }
            MetadataRecord::Move(_) | MetadataRecord::Recover(_) => {}
            other => unreachable!("nothing else is decided here: {other:?}"),
        }
        Ok(())
    }

    /// A replica is closed: if it was to be deleted, nothing is left of it.
    pub(in crate::sim) fn replica_closed(
        &mut self,
        node: usize,
        partition: TopicPartition,
        after: AfterClose,
    ) -> Checked {
        if self.mover.is_none() {
            return Ok(());
        }
        let broker = &mut self.nodes[node];
        broker.leaderships.remove(&partition);
        match after {
            AfterClose::Keep => return Ok(()),
            AfterClose::Delete => {}
        }
        match broker.dropping.get_mut(&partition) {
            None => {}
            Some(1) => drop(broker.dropping.remove(&partition)),
            // A broker that stood still may have missed a whole move, and be told of two deletions.
            Some(more) => *more -= 1,
        }
        self.coverage.replicas_dropped += 1;
        let dir = dir_of(partition.partition.0 as usize);
        let kept = broker.shard.as_ref().is_some_and(|shard| shard.keeps(partition));
        if kept || broker.disk.is_dead() || broker.disk.has_failed() {
            return Ok(());
        }
        match broker.disk.list(&dir) {
            Ok(names) if !names.is_empty() => Err(Broken {
                invariant: "M2: nothing is left of what a move took away",
                detail: format!("broker {node} keeps {names:?} of {partition}"),
            }),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn check_nothing_is_left(&self, partition: TopicPartition, node: NodeId) -> Checked {
        let broker = &self.nodes[node_number(node)];
        let shard = broker.shard.as_ref();
        let is_open = shard.is_some_and(|shard| shard.replica(partition).is_some());
        let dir = dir_of(partition.partition.0 as usize);
        let names = broker.disk.list(&dir).unwrap_or_default();
        if !is_open && names.is_empty() {
            return Ok(());
        }
        Err(Broken {
            invariant: "M6: who says that it gave up a replica has nothing of it",
            detail: format!("broker {node} has {partition}, open: {is_open}, {names:?}"),
        })
    }
}

impl Mover {
    /// Whether a broker has the only replica of a partition, and nothing moves it.
    pub(in crate::sim) fn rests(&self, partition: TopicPartition, node: usize) -> bool {
        let topic = self.image.topic(partition.topic).expect("nobody deletes it");
        let hosts = topic.hosts(partition.partition).map(|replica| replica.node);
        topic.move_of(partition.partition).is_none() && hosts.eq([node_id(node)])
    }

    /// A broker dies, and with it what it was about to say.
    pub(super) fn forget_giving_up(&mut self, node: usize) {
        self.giving_up.retain(|_, (of, _, _)| *of != node);
    }
}
