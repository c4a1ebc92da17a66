//! Partitions that begin anew from one replica: the operator gives a majority up, rightly or not.
//!
//! What the simulated operator does is harsher than what `hw` allows: the others may be alive, lead and
//! acknowledge when they are given up, and come back with their old disks and an old image, or never
//! hear of it for seconds. From the decision on, the old group is nobody's: it is not judged any more,
//! and what it acknowledges is excused. What must hold:
//!
//! * R1: a broker whose image has a recovery hosts nothing older, once it has acted on it;
//! * R2: all invariants hold among the replicas of the new group, whoever of the old one speaks;
//! * R3: what was committed and on the survivor's disk at the decision is there when the group
//!   begins, and to the end: exactly the rest may be lost, as `hw` prints it before it asks.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{LogIndex, NodeId, Offset, RecoveryEpoch, Term, TopicPartition};
use highwater_protocol::native::recover::RecoverPartitionRequest;

use crate::controller::moves::{MoveCommand, MoveId};
use crate::controller::recover::{RecoverRecord, Recovered};
use crate::replica::{View, epoch_of};
use crate::shard::event::Event;
use crate::sim::checker::{Checked, Checker, Death, broken};
use crate::sim::cluster::Cluster;
use crate::sim::model::Frame;
use crate::sim::node::node_id;
use crate::sim::swarm::Loses;

/// The group of a partition that is judged.
#[derive(Debug, Default)]
pub(super) struct World {
    recovered: Option<Recovered>,
    /// Whether its founder was not seen yet.
    lacks_founder: bool,
    /// What the founder has to bring, by end and hash.
    kept: BTreeSet<(LogIndex, u64)>,
    /// Values that may be lost although they were acknowledged.
    excused: BTreeSet<u64>,
    /// Where the group that is judged acknowledged values as committed.
    vouched: BTreeMap<u64, Offset>,
}

impl Checker {
    /// The epoch of the group that is judged.
    pub fn epoch(&self, partition: TopicPartition) -> RecoveryEpoch {
        let recovered = self.worlds.get(&partition).and_then(|world| world.recovered);
        recovered.map_or(RecoveryEpoch::default(), |recovered| recovered.epoch)
    }

    /// Whether what a replica of this group shows is judged.
    pub(super) fn is_judged(&self, partition: TopicPartition, epoch: RecoveryEpoch) -> bool {
        let waits = self.worlds.get(&partition).is_some_and(|world| world.lacks_founder);
        epoch == self.epoch(partition) && !waits
    }

    /// Whether a value may be lost although it was acknowledged, or be somewhere else: sent again, it may lie
    /// in the groups of before and after a recovery at different places.
    pub fn is_excused(&self, partition: TopicPartition, value: u64) -> bool {
        self.worlds.get(&partition).is_some_and(|world| world.excused.contains(&value))
    }

    /// A broker that has not heard of the recovery acknowledged these.
    pub(super) fn excuse(&mut self, partition: TopicPartition, values: &[u64]) {
        self.worlds.entry(partition).or_default().excused.extend(values);
    }

    /// The group that is judged acknowledged these as committed.
    pub(super) fn vouch(&mut self, partition: TopicPartition, base: Offset, values: &[u64]) {
        if base < self.committed[&partition].unwatched_before() {
            return;
        }
        if self.were_lost(partition, values) {
            return;
        }
        let world = self.worlds.entry(partition).or_default();
        let places = values.iter().zip(0..);
        world.vouched.extend(places.map(|(value, nth)| (*value, base.advance(nth))));
    }

    /// What was acknowledged of these is given up.
    pub(super) fn take_back(&mut self, partition: TopicPartition, values: &[u64]) {
        let world = self.worlds.entry(partition).or_default();
        world.vouched.retain(|value, _| !values.contains(value));
    }

    /// What the group that is judged acknowledged is committed where it said, whatever an older one said of it.
    pub(super) fn check_vouched(&self, partition: TopicPartition) -> Checked {
        let committed = &self.committed[&partition];
        let mut vouched = self.worlds.get(&partition).into_iter().flat_map(|it| &it.vouched);
        match vouched.find(|(value, at)| committed.offset_of(**value) != Some(**at)) {
            None => Ok(()),
            Some((value, at)) => broken(
                "I1: a record is readable exactly once, at its offset",
                format_args!(
                    "{partition}: value {value:x} was acknowledged at {at}, but is committed at {:?}",
                    committed.offset_of(*value)
                ),
            ),
        }
    }

    /// The voters that a frame names, if it is a mark of the group that is judged.
    pub(super) fn voters_named(
        &self,
        partition: TopicPartition,
        frame: &Frame,
    ) -> Option<Vec<NodeId>> {
        let recovered = self.worlds.get(&partition).and_then(|world| world.recovered);
        let since = recovered.map_or(Term(0), |recovered| recovered.since);
        frame.voters().filter(|_| frame.term >= since)
    }

    /// A recovery is decided: everything that was sent so far and is not sure to survive may be lost.
    pub(super) fn given_up(
        &mut self,
        partition: TopicPartition,
        recovered: Recovered,
        sent: impl Iterator<Item = u64>,
    ) {
        let founder = recovered.founder.node;
        let (committed, shadow) = (&self.committed[&partition], self.shadow(founder, partition));
        let sure: Vec<&Frame> = shadow.map_or(Vec::new(), |shadow| {
            let all = committed.frames().iter().map(|(frame, _)| frame);
            all.filter(|frame| frame.end <= shadow.flushed && shadow.holds(frame)).collect()
        });
        let kept = sure.iter().map(|frame| (frame.end, frame.hash)).collect();
        let values: BTreeSet<u64> = sure.iter().flat_map(|frame| frame.values()).collect();
        let world = self.worlds.entry(partition).or_default();
        world.excused.extend(sent.filter(|value| !values.contains(value)));
        world.vouched.retain(|value, _| values.contains(value));
        world.recovered = Some(recovered);
        (world.lacks_founder, world.kept) = (true, kept);
        self.shadows.retain(|(_, of), _| *of != partition);
        self.taken.remove(&partition);
        self.leaders.retain(|(of, _), _| *of != partition);
        self.votes.retain(|(of, _, _), _| *of != partition);
        self.voters.insert(partition, vec![founder]);
    }

    /// The founder of a group is seen for the first time: its log is what the group begins with.
    pub(super) fn founded(
        &mut self,
        node: NodeId,
        partition: TopicPartition,
        view: &View,
        start: (LogIndex, Offset),
    ) -> Checked {
        let Some(world) = self.worlds.get_mut(&partition) else { return Ok(()) };
        let is_founder = world.recovered.is_some_and(|recovered| recovered.founder.node == node);
        if !world.lacks_founder || !is_founder {
            return Ok(());
        }
        world.lacks_founder = false;
        let kept = std::mem::take(&mut world.kept);
        let shadow = &self.shadows[&(node, partition)];
        let committed = self.committed.get_mut(&partition).expect("every partition was added");
        committed.truncate(shadow.agreed(committed).max(view.log_start));
        committed.resume_at(start);
        self.starts.insert((partition, view.log_start));
        let there = |(end, hash): &(LogIndex, u64)| {
            *end <= view.log_start
                || shadow.frame_ending_at(*end).is_some_and(|frame| frame.hash == *hash)
        };
        match kept.iter().find(|frame| !there(frame)) {
            Some((end, _)) => broken(
                "R3: what the survivor had on disk outlives a recovery",
                format_args!("{node} founds {partition} without what was committed up to {end}"),
            ),
            None => Ok(()),
        }
    }
}

impl Cluster {
    /// The operator gives a partition's majority up, after some accident.
    pub(super) fn wish_for_recovery(&mut self) -> Checked {
        let number = self.rng.below(self.partitions.len() as u64) as usize;
        let partition = self.partitions[number];
        if self.is_losing(partition) {
            return Ok(());
        }
        let hosts = self.hosts_of(partition);
        let fit: Vec<usize> =
            hosts.iter().copied().filter(|node| self.may_found(*node, number)).collect();
        if fit.is_empty() {
            return Ok(());
        }
        let survivor = *self.rng.pick(&fit);
        let accident = self.rng.per_mille(600);
        for node in hosts.iter().copied().filter(|node| *node != survivor && accident) {
            match self.may_lose_pages(node) && self.rng.per_mille(300) {
                true => self.power_off(node, Death::PowerLost)?,
                false => self.kill(node)?,
            }
            self.come_back_later(node);
        }
        let term = self.view(survivor, partition).map_or(Term(0), |view| view.term);
        let request = RecoverPartitionRequest {
            partition,
            survivor: node_id(survivor),
            given_up: hosts.into_iter().map(node_id).collect(),
            term,
        };
        let id = MoveId(self.draw_move_id());
        self.decide(MoveCommand::Recover(id, request), None)
    }

    /// What rotted on the only voter is lost for good, as the operator was told. Where entries count before
    /// they are flushed, it must not be short of what it counted either, nor about to be.
    fn may_found(&self, node: usize, number: usize) -> bool {
        let (broker, partition) = (&self.nodes[node], self.partitions[number]);
        let sound = match self.swarm.loses(number) {
            Loses::Nothing => !broker.rotten.contains(&partition),
            Loses::Unflushed => !self.is_short(broker, partition) && !broker.disk.has_failed(),
        };
        broker.is_up() && sound
    }

    /// The checker hears of a recovery that was decided.
    pub(super) fn note_recovery(&mut self, record: &RecoverRecord) {
        match record {
            RecoverRecord::Begin { partition, recovered, .. } => {
                self.coverage.recoveries += 1;
                let number = partition.partition.0 as usize;
                let sent = self.workload.fates(number).keys().copied();
                self.checker.given_up(*partition, *recovered, sent);
            }
            RecoverRecord::Standing(..) => unreachable!("no image is begun anew here"),
        }
    }

    /// An event that makes a shard close a replica of its own accord: the closing must not pass for one
    /// that was asked for.
    pub(super) fn note_discard(&mut self, node: usize, event: &Event) {
        let Event::Open(open) = event else { return };
        let broker = &mut self.nodes[node];
        let hosted = broker.shard.as_ref().and_then(|shard| shard.replica(open.partition));
        let older = hosted.is_some_and(|it| epoch_of(it.recovery()) < epoch_of(open.recovery));
        let stays = hosted.is_some_and(|it| it.is_failed());
        if older && !stays {
            *broker.dropping.entry(open.partition).or_default() += 1;
        }
    }

    /// R1: what a broker's image has begun anew, its shard has, too, once it has nothing left to do.
    pub(super) fn check_nothing_older(&self, node: usize) -> Checked {
        if self.mover.is_none() {
            return Ok(());
        }
        let broker = &self.nodes[node];
        let Some(shard) = broker.shard.as_ref().filter(|_| broker.inbox.is_empty()) else {
            return Ok(());
        };
        for partition in &self.partitions {
            let Some(replica) = shard.replica(*partition) else { continue };
            let (known, hosted) =
                (self.epoch_known(node, *partition), epoch_of(replica.recovery()));
            if hosted < known && !replica.is_failed() {
                return broken(
                    "R1: whoever knows of a recovery hosts nothing older",
                    format_args!("broker {node} knows of {known} of {partition}, and has {hosted}"),
                );
            }
        }
        Ok(())
    }

    /// An acknowledgement of a broker that has not heard of the recovery is the loss of whoever got it.
    pub(super) fn is_of_the_old(&self, node: usize, partition: TopicPartition) -> bool {
        let shard = self.nodes[node].shard.as_ref();
        let replica = shard.and_then(|shard| shard.replica(partition));
        let epoch = replica.map(|replica| epoch_of(replica.recovery()));
        let since = self.checker.epoch(partition) > RecoveryEpoch::default();
        since && epoch.is_none_or(|epoch| !self.checker.is_judged(partition, epoch))
    }
}
