//! Moves of replicas in a simulated cluster: the real decisions of the controller, and every broker's
//! late view of them.
//!
//! The controller's log is taken for granted: a command is decided on all that was decided before, and is
//! committed. Everything around it is not: commands and answers are late or lost, each broker learns of
//! records in its own time, and one that boots begins with an image that it saved earlier. What must hold:
//! a move ends at the voters in force, and nothing is left of what it took away.

mod giving_up;
mod learning;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use highwater_protocol::ids::{
    DirectoryId, Incarnation, NodeId, PartitionId, RecoveryEpoch, Term, TopicPartition,
};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::moves::{CancelMovesRequest, MoveWish, ReassignRequest};
use uuid::Uuid;

use crate::controller::moves::{self, MoveCommand, MoveId, MoveRecord, Step};
use crate::controller::record::{BrokerRegistration, PlacedReplica};
use crate::controller::{ClusterImage, Command, Controller, MetadataRecord};
use crate::disk::Disk;
use crate::node::reconcile::{self, Led, Me, Sight, Standing};
use crate::replica::View;
use crate::shard::event::{OpenReplica, ReplicaCommand, RequestId};
use crate::sim::checker::{Broken, Checked};
use crate::sim::cluster::{Cluster, Happening, dir_of};
use crate::sim::node::{node_id, node_number};
use crate::sim::swarm::FaultRates;

/// Something that happens to moves.
pub(super) enum Moving {
    /// A broker learns of more records.
    Learn(usize),
    /// A broker looks for moves to lead, in this life.
    Look(usize, u64),
    /// A command reaches the controller.
    Decide(MoveCommand, Option<Asker>),
    /// The controller's answer to a leader: whether its move is wanted.
    Answer(Asker, bool),
    /// A leader asks no longer.
    GiveUp(Asker),
}

/// Who asked the controller about a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asker {
    node: usize,
    life: u64,
    led: Led,
}

/// The controller's log, and who knows how much of it.
pub(super) struct Mover {
    controller: Controller,
    image: ClusterImage,
    records: Vec<MetadataRecord>,
    views: Vec<BrokerView>,
    /// Changes of voters under way, by their requests.
    changing: BTreeMap<RequestId, Asker>,
    /// What brokers are giving up, by the requests to their shards, and which move took it.
    giving_up: BTreeMap<RequestId, (usize, TopicPartition, MoveId)>,
    /// Who has not said yet that it gave up what was taken from it.
    owing: BTreeSet<(TopicPartition, NodeId)>,
    next_id: u64,
    begun: u64,
    ended: u64,
}

/// What one broker knows.
pub(super) struct BrokerView {
    image: ClusterImage,
    applied: usize,
    saved: usize,
    leading: BTreeSet<Led>,
    /// Where its registration in this life stands among the records, at the earliest.
    registered_at: usize,
    sight: Sight,
    /// Learns nothing, but what a script tells it.
    pub(super) deaf: bool,
    /// Saves its image only when it must.
    pub(super) saves_late: bool,
    /// Its next life cannot read the saved image.
    pub(super) image_spoilt: bool,
}

impl Default for BrokerView {
    fn default() -> BrokerView {
        BrokerView {
            image: ClusterImage::default(),
            applied: 0,
            saved: 0,
            leading: BTreeSet::new(),
            registered_at: 0,
            sight: Sight::Clear,
            deaf: false,
            saves_late: false,
            image_spoilt: false,
        }
    }
}

impl BrokerView {
    fn may_save(&self) -> bool {
        !self.saves_late && self.sight.may_save()
    }

    fn standing(&self) -> Standing {
        match self.applied >= self.registered_at {
            true => Standing::CaughtUp,
            false => Standing::Behind,
        }
    }
}

impl Mover {
    /// What a broker would open of a partition, by its image.
    pub(super) fn placed_here(
        &self,
        node: usize,
        partition: TopicPartition,
    ) -> Option<OpenReplica> {
        let image = &self.views[node].image;
        if self.views[node].sight == Sight::Blind {
            return None;
        }
        let changes = reconcile::diff(&ClusterImage::default(), image, me(node));
        changes.open.into_iter().find(|open| open.partition == partition)
    }

    /// What was decided.
    pub(super) fn image(&self) -> &ClusterImage {
        &self.image
    }

    /// How many records there are.
    pub(super) fn records(&self) -> usize {
        self.records.len()
    }

    /// What one broker knows.
    pub(super) fn view(&mut self, node: usize) -> &mut BrokerView {
        &mut self.views[node]
    }

    fn replayed(&self, up_to: usize) -> ClusterImage {
        let mut image = ClusterImage::default();
        for record in &self.records[..up_to] {
            image.apply(record).expect("what was decided fits");
        }
        image
    }

    fn take(&mut self, record: MetadataRecord) {
        self.image.apply(&record).expect("a decision fits the image that it was made on");
        self.records.push(record);
    }
}

impl Cluster {
    /// Every broker is registered and knows of the one topic.
    pub(super) fn begin_moves(&mut self, seed: u64) {
        let nodes = self.nodes.len();
        let mut mover = Mover {
            controller: Controller::new(node_id(0), &[], u64::MAX, crate::raft::Millis(0)),
            image: ClusterImage::default(),
            records: Vec::new(),
            views: (0..nodes).map(|_| BrokerView::default()).collect(),
            changing: BTreeMap::new(),
            giving_up: BTreeMap::new(),
            owing: BTreeSet::new(),
            next_id: 1,
            begun: 0,
            ended: 0,
        };
        for node in 0..nodes {
            mover.take(MetadataRecord::RegisterBroker(BrokerRegistration {
                node: node_id(node),
                incarnation: Incarnation(1),
                directory: directory(node),
                rack: None,
                client_address: String::new(),
                peer_address: String::new(),
            }));
        }
        let (id, name) = (self.partitions[0].topic, format!("t{seed}"));
        let configs = vec![("min.insync.replicas".to_owned(), "1".to_owned())];
        mover.take(MetadataRecord::CreateTopic { id, name, configs });
        let place =
            |node: &NodeId| PlacedReplica { node: *node, directory: directory(node_number(*node)) };
        let sets = (0..self.partitions.len()).map(|number| self.voters_at_start(number));
        let partitions = sets.map(|set| set.iter().map(place).collect()).collect();
        let (topic, first) = (id, PartitionId(0));
        mover.take(MetadataRecord::CreatePartitions { topic, first, partitions });
        for view in &mut mover.views {
            // Made together, long before anything moves.
            view.saved = mover.records.len();
        }
        self.mover = Some(mover);
    }

    /// Learners are sent as much as they take from now on, as when somebody changes the throttle.
    pub(super) fn lift_throttle(&mut self) {
        if self.swarm.learner_bytes_per_s.take().is_some() {
            for node in 0..self.nodes.len() {
                (0..self.partitions.len()).for_each(|number| self.open(node, number));
            }
        }
    }

    /// How many moves were begun or turned back, and how many are over.
    pub(super) fn moves_seen(&self) -> (u64, u64) {
        self.mover.as_ref().map_or((0, 0), |mover| (mover.begun, mover.ended))
    }

    /// A broker that boots begins with an image that it saved, at the latest before it deleted anything.
    pub(super) fn boot_view(&mut self, node: usize) {
        let life = self.nodes[node].life;
        let mover = self.mover.as_mut().expect("asked for where replicas move");
        mover.forget_giving_up(node);
        let faulty = self.swarm.faults != FaultRates::NONE;
        // Who began blind and has saved nothing since has nothing to begin with.
        let unsaved = mover.views[node].saved == 0;
        let blind = unsaved || mover.views[node].image_spoilt || faulty && self.rng.per_mille(30);
        self.coverage.images_spoilt += u64::from(blind);
        let (saved, applied) = match blind {
            true => (0, 0),
            false => (mover.views[node].saved, mover.views[node].applied),
        };
        let from = match mover.views[node].saves_late {
            true => saved,
            false => self.rng.between(saved as u64..=applied.max(saved) as u64) as usize,
        };
        let image = mover.replayed(from);
        let BrokerView { deaf, saves_late, .. } = mover.views[node];
        let (registered_at, applied) = (mover.records.len(), from);
        mover.views[node] = BrokerView {
            applied,
            saved,
            registered_at,
            sight: if blind { Sight::Blind } else { Sight::Clear },
            deaf,
            saves_late,
            ..BrokerView::default()
        };
        self.show(node, image);
        self.learn_later(node);
        self.schedule(self.now_us + LOOK_US, Happening::Moves(Moving::Look(node, life)));
    }

    pub(super) fn happen_to_moves(&mut self, moving: Moving) -> Checked {
        match moving {
            Moving::Learn(node) => return self.learn(node),
            Moving::Look(node, life) => self.look_for_moves(node, life),
            Moving::Decide(command, asker) => return self.decide(command, asker),
            Moving::Answer(asker, wanted) => self.told_about_move(asker, wanted),
            Moving::GiveUp(asker) => self.stop_leading(&asker),
        }
        Ok(())
    }

    /// The controller is asked for something.
    pub(super) fn wish_for_moves(&mut self) -> Checked {
        let partitions = vec![*self.rng.pick(&self.partitions)];
        if self.is_losing(partitions[0]) {
            return Ok(());
        }
        let number = self.rng.below(self.nodes.len() as u64) as usize;
        let Some(mover) = &mut self.mover else { return Ok(()) };
        let id = MoveId(mover.next_id);
        mover.next_id += 1;
        let wish = match self.rng.below(10) {
            0..=4 => MoveWish::To(self.draw_brokers()),
            5 => MoveWish::Drain(node_id(number)),
            6 => MoveWish::Replicas(self.rng.between(1..=self.nodes.len().min(5) as u64) as u8),
            _ => {
                let cancel = CancelMovesRequest { partitions };
                return self.decide(MoveCommand::Cancel(id, cancel), None);
            }
        };
        let request = ReassignRequest { partitions, wish, dry_run: DryRun::No };
        self.decide(MoveCommand::Reassign(id, request), None)
    }

    fn draw_brokers(&mut self) -> Vec<NodeId> {
        let mut all: Vec<NodeId> = (0..self.nodes.len()).map(node_id).collect();
        let size = self.rng.between(1..=all.len().min(5) as u64) as usize;
        let drawn = |_| all.remove(self.rng.below(all.len() as u64) as usize);
        (0..size).map(drawn).collect()
    }

    pub(super) fn decide(&mut self, command: MoveCommand, asker: Option<Asker>) -> Checked {
        let mover = self.mover.as_mut().expect("asked for where replicas move");
        let now = crate::raft::Millis(self.now_us / 1_000);
        let wish = matches!(command, MoveCommand::Reassign(..) | MoveCommand::Cancel(..));
        let decided = mover.controller.decide(&mover.image, Command::Moves(command), now);
        let wanted = decided.is_ok();
        let records = decided.map_or(Vec::new(), |(records, _)| records);
        if wish && !self.may_aim(&records) {
            return Ok(());
        }
        for record in records {
            self.trace.note(self.now_us, format_args!("decided: {record:?}"));
            self.check_end(&record)?;
            self.check_given_up(&record)?;
            let mover = self.mover.as_mut().expect("it was there just now");
            match &record {
                MetadataRecord::Move(MoveRecord::End { .. }) => mover.ended += 1,
                MetadataRecord::Recover(_) | MetadataRecord::Move(MoveRecord::GivenUp(..)) => {}
                _ => mover.begun += 1,
            }
            mover.take(record.clone());
            if let MetadataRecord::Recover(recovery) = &record {
                self.note_recovery(recovery);
            }
            (0..self.nodes.len()).for_each(|node| self.learn_later(node));
        }
        if let Some(asker) = asker {
            let lost = self.rng.per_mille(50);
            let (after_us, then) = match lost {
                true => (ASK_US_MAX, Moving::GiveUp(asker)),
                false => (self.road_us(), Moving::Answer(asker, wanted)),
            };
            self.schedule(self.now_us + after_us, Happening::Moves(then));
        }
        Ok(())
    }

    /// An id that no move has had.
    pub(super) fn draw_move_id(&mut self) -> u64 {
        let mover = self.mover.as_mut().expect("asked for where replicas move");
        mover.next_id += 1;
        mover.next_id - 1
    }

    /// The brokers on which the controller has a replica of a partition, or brings one.
    pub(super) fn hosts_of(&self, partition: TopicPartition) -> Vec<usize> {
        let mover = self.mover.as_ref().expect("asked for where replicas move");
        let topic = mover.image.topic(partition.topic).expect("nobody deletes it");
        topic.hosts(partition.partition).map(|replica| node_number(replica.node)).collect()
    }

    /// The newest recovery of a partition that a broker's image has.
    pub(super) fn epoch_known(&self, node: usize, partition: TopicPartition) -> RecoveryEpoch {
        let topic = self.mover.as_ref().and_then(|it| it.views[node].image.topic(partition.topic));
        let recovered = topic.and_then(|topic| topic.recovered(partition.partition));
        recovered.map_or(RecoveryEpoch::default(), |recovered| recovered.epoch)
    }

    /// M1: a move ends at the voters in force.
    fn check_end(&self, record: &MetadataRecord) -> Checked {
        let MetadataRecord::Move(MoveRecord::End { partition, replicas, .. }) = record else {
            return Ok(());
        };
        let (voters, set) = (self.checker.voters(*partition), moves::nodes(replicas));
        if voters.len() == set.len() && voters.iter().all(|voter| set.contains(voter)) {
            return Ok(());
        }
        Err(Broken {
            invariant: "M1: a move ends at the voters in force",
            detail: format!("{partition} ends at {set:?}, but the voters are {voters:?}"),
        })
    }

    /// How long a command or its answer takes to the controller: mostly a moment, at times seconds.
    fn road_us(&mut self) -> u64 {
        match self.swarm.faults == FaultRates::NONE || self.rng.per_mille(700) {
            true => 200 + self.rng.long_tailed(2_000),
            false => self.rng.long_tailed(400_000).min(ASK_US_MAX),
        }
    }

    fn look_for_moves(&mut self, node: usize, life: u64) {
        if self.nodes[node].life != life || !self.nodes[node].is_up() {
            return;
        }
        self.schedule(self.now_us + LOOK_US, Happening::Moves(Moving::Look(node, life)));
        self.look_for_what_is_owed(node);
        let found = {
            let mover = self.mover.as_ref().expect("asked for where replicas move");
            reconcile::moves_led(&mover.views[node].image, |at| self.term_led(node, at))
        };
        for led in found {
            let mover = self.mover.as_mut().expect("it was there just now");
            if mover.views[node].leading.insert(led.clone()) {
                let command = MoveCommand::Step(led.partition, led.id, Step::Begins);
                let asker = Asker { node, life, led };
                let at_us = self.now_us + self.road_us();
                self.schedule(at_us, Happening::Moves(Moving::Decide(command, Some(asker))));
            }
        }
    }

    /// The term in which a broker leads a partition, as far as its own replica has said.
    fn term_led(&self, node: usize, partition: TopicPartition) -> Option<Term> {
        let news = self.nodes[node].leaderships.get(&partition)?;
        (news.leader == Some(node_id(node))).then_some(news.term)
    }

    fn told_about_move(&mut self, asker: Asker, wanted: bool) {
        let (node, led) = (asker.node, &asker.led);
        if self.nodes[node].life != asker.life || !self.nodes[node].is_up() {
            return;
        }
        let image = &self.mover.as_ref().expect("asked for where replicas move").views[node].image;
        let still = reconcile::may_lead_on(image, |at| self.term_led(node, at), led);
        if !wanted || !still {
            self.stop_leading(&asker);
            return;
        }
        let command = ReplicaCommand::MoveVoters { voters: led.aim.clone(), term: led.term };
        self.trace.note(self.now_us, format_args!("broker {node} leads {led:?}"));
        let id = self.command(node, led.partition, command);
        self.mover.as_mut().expect("it was there just now").changing.insert(id, asker);
    }

    fn stop_leading(&mut self, asker: &Asker) {
        if self.nodes[asker.node].life == asker.life
            && let Some(mover) = &mut self.mover
        {
            mover.views[asker.node].leading.remove(&asker.led);
        }
    }

    /// A change of voters was answered; if it was for a move, the controller hears of it.
    pub(super) fn voters_answered(&mut self, id: RequestId, done: bool) {
        let Some(mover) = &mut self.mover else { return };
        let Some(asker) = mover.changing.remove(&id) else { return };
        self.stop_leading(&asker);
        if done {
            let command = MoveCommand::Step(asker.led.partition, asker.led.id, Step::Reached);
            let at_us = self.now_us + self.road_us();
            self.schedule(at_us, Happening::Moves(Moving::Decide(command, None)));
        }
    }

    /// Why a partition's moves are not over, or what they left behind.
    pub(super) fn why_still_moving(
        &self,
        partition: TopicPartition,
        leader: &View,
    ) -> Option<String> {
        let mover = self.mover.as_ref()?;
        let topic = mover.image.topic(partition.topic).expect("nobody deletes it");
        if let Some(found) = topic.move_of(partition.partition) {
            return Some(format!("M4: it is still moving: {found:?}"));
        }
        let set = moves::nodes(&topic.partitions[partition.partition.0 as usize]);
        let same =
            leader.voters.len() == set.len() && leader.voters.iter().all(|v| set.contains(v));
        if !same || !leader.learners.is_empty() {
            return Some(format!("M4: its replicas are {set:?}, the leader is at {leader:?}"));
        }
        let dir = dir_of(partition.partition.0 as usize);
        (0..self.nodes.len()).find_map(|node| {
            if mover.views[node].applied < mover.records.len() {
                return Some(format!("broker {node} has not caught up with the controller"));
            }
            let names = self.nodes[node].disk.list(&dir).unwrap_or_default();
            let left = !set.contains(&node_id(node)) && !names.is_empty();
            left.then(|| format!("M2: broker {node} was never told to delete {names:?}"))
        })
    }
}

fn me(node: usize) -> Me<'static> {
    Me { node: node_id(node), directory: directory(node), data_dir: Path::new("/data") }
}

fn directory(node: usize) -> DirectoryId {
    DirectoryId(Uuid::from_u128(node as u128 + 1))
}

/// How often a broker looks for moves to lead.
const LOOK_US: u64 = 500_000;
/// After this long a leader asks anew.
const ASK_US_MAX: u64 = 3_000_000;
