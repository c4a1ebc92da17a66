//! How fast moves may copy: bytes a second that the learners of moves are sent, in the whole cluster and
//! to each broker. Who is in sync is never held back.
//!
//! Nobody keeps count for the cluster: each rate is divided evenly among the copies under way, which every
//! leader sees in its image, and each leader holds its own learners to their share. So the sum never
//! exceeds the rate, whoever leads what, and reaches it while all of them copy.

use std::collections::BTreeMap;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::moves::MoveStage;
use highwater_protocol::wire::{DecodeError, Reader, Writer};

use crate::controller::command::CommandReply;
use crate::controller::decide::Decision;
use crate::controller::image::{ClusterImage, Topic};
use crate::controller::moves::nodes;
use crate::controller::record::MetadataRecord;
use crate::mutant::{self, Mutant};

/// One rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleRecord {
    /// What this broker receives; `None` for all brokers together.
    pub broker: Option<NodeId>,
    /// Bytes a second; `None` for no limit.
    pub bytes_per_s: Option<u64>,
}

/// All rates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Throttle {
    cluster: Option<u64>,
    brokers: BTreeMap<NodeId, u64>,
}

impl Throttle {
    /// What all brokers together may receive in a second.
    pub fn cluster(&self) -> Option<u64> {
        self.cluster
    }

    /// What single brokers may receive in a second.
    pub fn brokers(&self) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        self.brokers.iter().map(|(node, rate)| (*node, *rate))
    }

    pub(super) fn take(&mut self, record: &ThrottleRecord) {
        match (record.broker, record.bytes_per_s) {
            (None, rate) => self.cluster = rate,
            (Some(node), Some(rate)) => {
                self.brokers.insert(node, rate);
            }
            (Some(node), None) => {
                self.brokers.remove(&node);
            }
        }
    }

    pub(super) fn records(&self) -> impl Iterator<Item = ThrottleRecord> + '_ {
        let record = |broker, rate| ThrottleRecord { broker, bytes_per_s: Some(rate) };
        let cluster = self.cluster.map(|rate| record(None, rate));
        cluster.into_iter().chain(self.brokers().map(move |(node, rate)| record(Some(node), rate)))
    }

    fn rate_of(&self, broker: Option<NodeId>) -> Option<u64> {
        match broker {
            None => self.cluster,
            Some(node) => self.brokers.get(&node).copied(),
        }
    }
}

impl ThrottleRecord {
    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        out.optional(self.broker, |out, node| out.u32(node.0));
        out.optional(self.bytes_per_s, Writer::u64);
    }

    /// Reads what `encode` wrote.
    pub fn decode(input: &mut Reader<'_>) -> Result<ThrottleRecord, DecodeError> {
        Ok(ThrottleRecord {
            broker: input.optional("a broker", Reader::u32)?.map(NodeId),
            bytes_per_s: input.optional("a rate", Reader::u64)?,
        })
    }
}

/// What a wish for a rate comes to.
pub(super) fn decide(image: &ClusterImage, wish: ThrottleRecord) -> Result<Decision, WireError> {
    if let Some(node) = wish.broker
        && image.broker(node).is_none()
    {
        let why = format!(
            "broker {node} is not part of the cluster; `hw cluster brokers` shows those that are"
        );
        return Err(WireError::new(ErrorCode::UnknownBroker, why));
    }
    if let Some(rate) = wish.bytes_per_s
        && rate < RATE_MIN
    {
        let why = format!(
            "a throttle of {rate} bytes a second would keep moves from ever ending; give at least {RATE_MIN}, or \
             cancel the moves (`hw partition cancel --all`)"
        );
        return Err(WireError::new(ErrorCode::InvalidRequest, why));
    }
    let known = image.throttle().rate_of(wish.broker) == wish.bytes_per_s;
    let records = if known { Vec::new() } else { vec![MetadataRecord::Throttle(wish)] };
    Ok((records, CommandReply::Moves(Vec::new())))
}

/// The replicas that a move brings.
struct Copies {
    of: TopicPartition,
    new: Vec<NodeId>,
    /// Whether somebody asked for it; what the controller begins by itself is never without a rate.
    asked: bool,
}

/// What the leader of each moving partition may send each learner of it in a second; those that are not
/// named may send what they can.
pub fn learner_rates(image: &ClusterImage) -> BTreeMap<TopicPartition, u64> {
    let throttle = image.throttle();
    let own = |topic: &Topic| topic.moving().any(|(number, _)| topic.why_moved(number).is_some());
    if *throttle == Throttle::default() && !image.topics().any(|topic| own(topic)) {
        return BTreeMap::new();
    }
    let mut copies: Vec<Copies> = Vec::new();
    for topic in image.topics() {
        for (number, found) in topic.moving() {
            let (set, target) = (nodes(&topic.partitions[number.0 as usize]), nodes(&found.target));
            let lacks = |set: &[NodeId], node: &NodeId| !set.contains(node);
            let comes = target.iter().filter(|node| lacks(&set, node));
            let new = match found.stage {
                MoveStage::Waiting => continue,
                MoveStage::Running => comes.copied().collect(),
                // Who lost its vote already has to learn again; and what was to come is still fed until
                // the leader has heard of it.
                MoveStage::GoingBack => {
                    comes.chain(set.iter().filter(|node| lacks(&target, node))).copied().collect()
                }
            };
            let asked = topic.why_moved(number).is_none();
            copies.push(Copies { of: TopicPartition::new(topic.id, number), new, asked });
        }
    }
    let mut received: BTreeMap<NodeId, u64> = BTreeMap::new();
    for node in copies.iter().flat_map(|copies| &copies.new) {
        *received.entry(*node).or_default() += 1;
    }
    let all: u64 = match mutant::active(Mutant::ShareNotDivided) {
        true => 1,
        false => received.values().sum(),
    };
    let own: usize = copies.iter().filter(|copies| !copies.asked).map(|own| own.new.len()).sum();
    let own = image.settings().own_moves_bytes_per_s() / own.max(1) as u64;
    let share = |Copies { of, new, asked }: Copies| {
        let unthrottled = (!asked).then_some(own);
        let cluster = throttle.cluster.map(|rate| rate / all.max(1)).or(unthrottled);
        let to = |node: &NodeId| Some(throttle.brokers.get(node)? / received[node]);
        let least = new.iter().filter_map(to).chain(cluster).min();
        least.map(|rate| (of, rate.max(1)))
    };
    copies.into_iter().filter_map(share).collect()
}

/// The type of the record and of the command.
pub(super) const THROTTLE: u16 = 30;
/// The slowest throttle.
const RATE_MIN: u64 = 1024;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{DirectoryId, PartitionId, TopicId};
    use uuid::Uuid;

    use super::*;
    use crate::controller::moves::{Evened, Move, MoveId, MoveRecord, Why};
    use crate::controller::record::PlacedReplica;

    const TOPIC: TopicId = TopicId(Uuid::from_u128(7));

    fn at(number: u32) -> TopicPartition {
        TopicPartition::new(TOPIC, PartitionId(number))
    }

    /// Partitions on broker 1 that move to these sets.
    fn moving_to(targets: &[&[u32]]) -> ClusterImage {
        let directory = DirectoryId(Uuid::from_u128(1));
        let place = |node: &u32| PlacedReplica { node: NodeId(*node), directory };
        let mut records = vec![
            MetadataRecord::CreateTopic { id: TOPIC, name: "t".into(), configs: Vec::new() },
            MetadataRecord::CreatePartitions {
                topic: TOPIC,
                first: PartitionId(0),
                partitions: vec![vec![place(&1)]; targets.len()],
            },
        ];
        for (number, target) in (0..).zip(targets) {
            let target = target.iter().map(place).collect();
            let change = Move { id: MoveId(1), stage: MoveStage::Running, target };
            records.push(MetadataRecord::Move(MoveRecord::Set(at(number), change)));
        }
        let mut image = ClusterImage::default();
        records.iter().for_each(|record| image.apply(record).expect("it fits"));
        image
    }

    fn limit(image: &mut ClusterImage, broker: Option<u32>, bytes_per_s: Option<u64>) {
        let record = ThrottleRecord { broker: broker.map(NodeId), bytes_per_s };
        image.apply(&MetadataRecord::Throttle(record)).expect("it always fits");
    }

    #[test]
    fn what_nobody_asked_for_is_slow_although_there_is_no_throttle() {
        let mut image = moving_to(&[&[2, 3], &[2], &[4]]);
        let because = MoveRecord::Because(at(0), Why::Evens(Evened::Counts));
        image.apply(&MetadataRecord::Move(because)).expect("it moves");
        assert_eq!(learner_rates(&image), BTreeMap::from([(at(0), 16 << 20)]), "of 32 MiB/s");
        limit(&mut image, None, Some(400_000));
        let rates = learner_rates(&image);
        assert_eq!(rates.values().copied().collect::<Vec<_>>(), [100_000; 3], "the throttle wins");
    }

    #[test]
    fn what_a_cancelled_move_still_copies_keeps_its_share() {
        let mut image = moving_to(&[&[2, 3], &[4]]);
        limit(&mut image, None, Some(30_000));
        limit(&mut image, Some(2), Some(5_000));
        let MoveRecord::Set(partition, running) =
            image.topic(TOPIC).expect("made above").move_records().next().expect("it moves")
        else {
            panic!("nothing is over")
        };
        let back = Move { id: MoveId(2), stage: MoveStage::GoingBack, ..running };
        image.apply(&MetadataRecord::Move(MoveRecord::Set(partition, back))).expect("it fits");
        let rates = learner_rates(&image);
        // Brokers 2 and 3 until the leader hears of it, broker 1 if it has to learn again, and broker 4.
        assert_eq!(rates[&at(1)], 30_000 / 4);
        assert_eq!(rates[&at(0)], 5_000, "what broker 2 receives stays limited");
    }

    #[test]
    fn a_rate_is_divided_among_the_copies_and_a_broker_has_its_own_besides() {
        let mut image = moving_to(&[&[2, 3], &[2], &[1, 4]]);
        assert!(learner_rates(&image).is_empty());
        limit(&mut image, None, Some(40_000));
        let rates = learner_rates(&image);
        assert_eq!(rates.values().copied().collect::<Vec<_>>(), [10_000; 3], "of four copies");
        limit(&mut image, Some(2), Some(6_000));
        let rates = learner_rates(&image);
        assert_eq!(rates.values().copied().collect::<Vec<_>>(), [3_000, 3_000, 10_000]);
        limit(&mut image, None, None);
        assert_eq!(learner_rates(&image).get(&at(2)), None);
        let mut again = ClusterImage::default();
        image.to_records().iter().for_each(|record| again.apply(record).expect("it fits"));
        assert_eq!(again, image);
        limit(&mut image, Some(2), None);
        assert_eq!(image.throttle(), &Throttle::default());
    }
}
