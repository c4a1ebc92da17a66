//! The controller's decisions about moves under commands at random: repeated, late, about moves that are
//! over, with brokers that come and go. Pure: only commands in and images out, no cluster.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{
    DirectoryId, Incarnation, NodeId, PartitionId, TopicId, TopicPartition,
};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::moves::{CancelMovesRequest, MoveStage, MoveWish, ReassignRequest};
use uuid::Uuid;

use crate::controller::image::Topic;
use crate::controller::moves::dropped::GivenUp;
use crate::controller::moves::{MoveCommand, MoveId, MoveRecord, Step, nodes};
use crate::controller::record::{BrokerRegistration, PlacedReplica};
use crate::controller::{ClusterImage, Command, Controller, MOVES_AT_ONCE_MAX, MetadataRecord};
use crate::raft::Millis;
use crate::sim::checker::{Broken, Checked};
use crate::sim::rng::Rng;

/// How many moves copy, if a decision began one and these are more than may be at once. One that waits
/// for a dead broker copies nothing; when that comes back there may be more for a while.
pub(super) fn begun_beyond_the_limit(before: &ClusterImage, after: &ClusterImage) -> Option<usize> {
    let (mut begun, mut copying) = (false, 0);
    for topic in after.topics() {
        let was = before.topic(topic.id);
        for (number, found) in topic.moving() {
            if found.stage != MoveStage::Running {
                continue;
            }
            let old = was.and_then(|was| was.move_of(number));
            begun |= old.is_none_or(|old| old.stage == MoveStage::Waiting);
            let set = nodes(&topic.partitions[number.0 as usize]);
            let mut new = found.target.iter().filter(|it| !set.contains(&it.node));
            let alive = |node| after.broker(node).is_some_and(|broker| !broker.fenced);
            copying += usize::from(new.all(|it| alive(it.node)));
        }
    }
    (begun && copying > MOVES_AT_ONCE_MAX).then_some(copying)
}

struct Wishes {
    rng: Rng,
    controller: Controller,
    image: ClusterImage,
    /// Ids that were given to moves so far, old ones too.
    ids: Vec<MoveId>,
    /// Who has not given up what was taken from it, and by which move it was.
    owing: BTreeMap<(PartitionId, NodeId), MoveId>,
}

/// Runs a few hundred commands from a seed and checks the image after each.
pub fn run(seed: u64) -> Checked {
    let mut wishes = Wishes::new(seed);
    for _ in 0..COMMANDS {
        wishes.once()?;
    }
    Ok(())
}

impl Wishes {
    fn new(seed: u64) -> Wishes {
        let controller = Controller::new(NodeId(1), &[], u64::MAX, Millis(0));
        let (rng, image) = (Rng::new(seed, "wishes"), ClusterImage::default());
        let mut wishes =
            Wishes { rng, controller, image, ids: vec![MoveId(0)], owing: BTreeMap::new() };
        for node in 1..=NODES {
            wishes.take(MetadataRecord::RegisterBroker(BrokerRegistration {
                node: NodeId(node),
                incarnation: Incarnation(1),
                directory: DirectoryId(Uuid::from_u128(node.into())),
                rack: Some(format!("r{}", node % 3)),
                client_address: String::new(),
                peer_address: String::new(),
            }));
        }
        let configs = vec![("min.insync.replicas".to_owned(), "1".to_owned())];
        wishes.take(MetadataRecord::CreateTopic { id: TOPIC, name: "t".into(), configs });
        let place = |node| PlacedReplica {
            node: NodeId(node),
            directory: DirectoryId(Uuid::from_u128(node.into())),
        };
        let set = |first: u32| (0..3).map(|nth| place((first + nth) % NODES + 1)).collect();
        let (topic, first) = (TOPIC, PartitionId(0));
        let partitions = (0..PARTITIONS).map(set).collect();
        wishes.take(MetadataRecord::CreatePartitions { topic, first, partitions });
        wishes
    }

    fn take(&mut self, record: MetadataRecord) {
        let read = MetadataRecord::decode(&record.encode()).expect("it was just written");
        assert_eq!(read, record, "a record is read as it was written");
        self.image.apply(&record).expect("a decision fits the image that it was made on");
    }

    fn topic(&self) -> &Topic {
        self.image.topic(TOPIC).expect("nobody deletes it")
    }

    fn once(&mut self) -> Checked {
        if self.rng.per_mille(100) {
            let node = NodeId(self.rng.between(1..=u64::from(NODES)) as u32);
            let fenced = self.rng.per_mille(400);
            self.take(MetadataRecord::FenceBroker { node, fenced });
        }
        let before = self.image.clone();
        let mut word = None;
        let records = match self.rng.per_mille(100) {
            true => self.controller.judge(&before, &[], Millis(0)),
            false => {
                let command = self.draw();
                if let MoveCommand::GivenUp(said) = &command {
                    word = Some(said.clone());
                }
                let command = Command::Moves(command);
                let decided = self.controller.decide(&before, command, Millis(0));
                decided.map_or(Vec::new(), |(records, _)| records)
            }
        };
        // A broker that comes back brings its moves with it, however many are under way.
        let came_back =
            records.iter().any(|record| matches!(record, MetadataRecord::FenceBroker { .. }));
        for record in records {
            check_record(self.topic(), &record)?;
            self.check_owing(&record, word.as_ref())?;
            self.take(record);
        }
        if !came_back {
            self.check_room(&before)?;
        }
        self.check_image()
    }

    fn draw(&mut self) -> MoveCommand {
        let some = self.rng.between(1..=4);
        let mut partitions: Vec<_> = (0..some).map(|_| self.partition()).collect();
        if self.rng.per_mille(100) {
            partitions.clear();
        }
        let id = match self.rng.per_mille(100) {
            true => *self.rng.pick(&self.ids),
            false => MoveId(self.ids.len() as u64),
        };
        self.ids.push(id);
        match self.rng.below(12) {
            10..=11 => MoveCommand::GivenUp(self.word()),
            0..=4 => {
                let wish = self.wish();
                MoveCommand::Reassign(id, ReassignRequest { partitions, wish, dry_run: DryRun::No })
            }
            5 => MoveCommand::Cancel(id, CancelMovesRequest { partitions }),
            _ => {
                let partition = self.partition();
                let current = self.topic().move_of(partition.partition).map(|found| found.id);
                let old = *self.rng.pick(&self.ids);
                let id = current.filter(|_| self.rng.per_mille(800)).unwrap_or(old);
                let step = *self.rng.pick(&[Step::Begins, Step::Reached]);
                MoveCommand::Step(partition, id, step)
            }
        }
    }

    /// Mostly what a broker owes, at times about an earlier taking.
    fn word(&mut self) -> GivenUp {
        let owing: Vec<_> = self.owing.iter().map(|(who, by)| (*who, *by)).collect();
        let some = NodeId(self.rng.between(1..=u64::from(NODES)) as u32);
        let node = if owing.is_empty() { some } else { self.rng.pick(&owing).0.1 };
        let directory = DirectoryId(Uuid::from_u128(node.0.into()));
        let mut drops = Vec::new();
        for ((number, _), by) in owing.into_iter().filter(|((_, of), _)| *of == node) {
            let by = if self.rng.per_mille(300) { *self.rng.pick(&self.ids) } else { by };
            drops.push((TopicPartition::new(TOPIC, number), by));
        }
        drops.push((self.partition(), *self.rng.pick(&self.ids)));
        GivenUp { node, directory, drops }
    }

    /// Nobody gets a replica back before it gave up the former one, and word of another is none.
    fn check_owing(&mut self, record: &MetadataRecord, word: Option<&GivenUp>) -> Checked {
        let MetadataRecord::Move(change) = record else { return Ok(()) };
        match change {
            MoveRecord::End { partition, dropped, .. } => {
                let ended =
                    self.topic().move_of(partition.partition).expect("only what moves ends").id;
                let owing = dropped.iter().map(|node| ((partition.partition, *node), ended));
                self.owing.extend(owing);
            }
            MoveRecord::GivenUp(partition, node) => {
                let by = self.owing.remove(&(partition.partition, *node));
                let said = |said: &GivenUp| {
                    let about = |drop: &(TopicPartition, MoveId)| {
                        Some(drop.1) == by && drop.0 == *partition
                    };
                    said.node == *node && said.drops.iter().any(about)
                };
                if !word.is_some_and(said) {
                    return broken(format!(
                        "{word:?} ends what {node} owes of {partition} by {by:?}"
                    ));
                }
            }
            MoveRecord::Set(partition, found) if found.opens_replicas() => {
                let owes = |node: &NodeId| self.owing.contains_key(&(partition.partition, *node));
                if let Some(node) = nodes(&found.target).into_iter().find(owes) {
                    return broken(format!(
                        "broker {node} gets {partition} back before it gave it up"
                    ));
                }
            }
            MoveRecord::Set(..) | MoveRecord::Dropped(..) | MoveRecord::Because(..) => {}
        }
        Ok(())
    }

    fn partition(&mut self) -> TopicPartition {
        TopicPartition::new(TOPIC, PartitionId(self.rng.below(PARTITIONS.into()) as u32))
    }

    fn wish(&mut self) -> MoveWish {
        match self.rng.below(4) {
            0 => MoveWish::Drain(NodeId(self.rng.between(1..=u64::from(NODES)) as u32)),
            1 => MoveWish::Replicas(self.rng.between(1..=5) as u8),
            _ => {
                let first = self.rng.below(NODES.into()) as u32;
                let size = self.rng.between(1..=4) as u32;
                MoveWish::To((0..size).map(|nth| NodeId((first + nth) % NODES + 1)).collect())
            }
        }
    }

    /// No move begins while as many are under way as may be.
    fn check_room(&self, before: &ClusterImage) -> Checked {
        match begun_beyond_the_limit(before, &self.image) {
            Some(copying) => broken(format!("{copying} moves are under way at once")),
            None => Ok(()),
        }
    }

    fn check_image(&self) -> Checked {
        let topic = self.topic();
        for number in (0..PARTITIONS).map(PartitionId) {
            let hosts: Vec<NodeId> = topic.hosts(number).map(|replica| replica.node).collect();
            let distinct: BTreeSet<_> = hosts.iter().collect();
            let dropped = hosts.iter().any(|node| topic.is_dropped(number, *node));
            if distinct.len() != hosts.len() || hosts.is_empty() || dropped {
                return broken(format!("partition {number} lies on {hosts:?}, dropped {dropped}"));
            }
            if let Some(found) = topic.move_of(number) {
                let targets: BTreeSet<_> = found.target.iter().map(|it| it.node).collect();
                if targets.len() != found.target.len() || targets.is_empty() {
                    return broken(format!("partition {number} moves to {:?}", found.target));
                }
            }
        }
        let mut again = ClusterImage::default();
        let records = self.image.to_records();
        records.iter().for_each(|record| again.apply(record).expect("it fits"));
        match again == self.image {
            true => Ok(()),
            false => broken("an image made anew is another one".into()),
        }
    }
}

/// What a record does to the move that is there.
fn check_record(topic: &Topic, record: &MetadataRecord) -> Checked {
    let MetadataRecord::Move(MoveRecord::End { partition, replicas, dropped }) = record else {
        return Ok(());
    };
    let number = partition.partition;
    let set = nodes(&topic.partitions[number.0 as usize]);
    let found = topic.move_of(number).expect("only what moves ends");
    let target = nodes(&found.target);
    let (aim, leaves): (&[NodeId], &[NodeId]) = match found.stage {
        MoveStage::Running => (&target, &set),
        MoveStage::GoingBack => (&set, &target),
        MoveStage::Waiting => (&set, &[]),
    };
    let gone: Vec<_> = leaves.iter().filter(|node| !aim.contains(node)).copied().collect();
    if nodes(replicas) != aim || *dropped != gone {
        return broken(format!("{found:?} of {set:?} ends with {record:?}"));
    }
    Ok(())
}

fn broken(detail: String) -> Checked {
    Err(Broken { invariant: "M5: decisions about moves keep their rules", detail })
}

const TOPIC: TopicId = TopicId(Uuid::from_u128(0x5eed));
const NODES: u32 = 7;
const PARTITIONS: u32 = 24;
const COMMANDS: usize = 400;
