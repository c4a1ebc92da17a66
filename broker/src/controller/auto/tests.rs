//! When the controller moves something by itself, and when it does not.

use highwater_protocol::ids::{DirectoryId, TopicId, TopicPartition};
use highwater_protocol::native::balance::Load;
use highwater_protocol::native::settings::SettingScope;
use uuid::Uuid;

use super::*;
use crate::controller::brokers::BrokerRecord;
use crate::controller::loads::PartitionLoad;
use crate::controller::moves::{MoveId, MoveRecord, nodes};
use crate::controller::record::{BrokerRegistration, PlacedReplica};

const TOPIC: TopicId = TopicId(Uuid::from_u128(7));
const MINUTE: u64 = 60_000;

fn place(node: &u32) -> PlacedReplica {
    PlacedReplica { node: NodeId(*node), directory: DirectoryId(Uuid::from_u128(1)) }
}

fn take(image: &mut ClusterImage, record: MetadataRecord) {
    let read = MetadataRecord::decode(&record.encode()).expect("it was just written");
    assert_eq!(read, record);
    image.apply(&record).expect("it fits");
}

/// Brokers 1 to `brokers` in three racks, and a topic with these sets.
fn image(brokers: u32, sets: &[&[u32]]) -> ClusterImage {
    let mut image = ClusterImage::default();
    for node in 1..=brokers {
        let registration = BrokerRegistration {
            node: NodeId(node),
            incarnation: Incarnation(1),
            directory: DirectoryId(Uuid::from_u128(1)),
            rack: Some(format!("r{}", node % 3)),
            client_address: String::new(),
            peer_address: String::new(),
        };
        take(&mut image, MetadataRecord::RegisterBroker(registration));
    }
    let (id, name) = (TOPIC, "orders".to_owned());
    take(&mut image, MetadataRecord::CreateTopic { id, name, configs: Vec::new() });
    let partitions = sets.iter().map(|set| set.iter().map(place).collect()).collect();
    let (topic, first) = (TOPIC, PartitionId(0));
    take(&mut image, MetadataRecord::CreatePartitions { topic, first, partitions });
    image
}

fn set(image: &mut ClusterImage, name: &str, value: &str) {
    let configs = vec![(name.to_owned(), value.to_owned())];
    take(image, MetadataRecord::AlterSettings { scope: SettingScope::Cluster, configs });
}

fn fence(image: &mut ClusterImage, node: u32, fenced: bool) {
    take(image, MetadataRecord::FenceBroker { node: NodeId(node), fenced });
}

/// Looks twice a second, applies what comes, and gives when it came and how many moves it began.
fn play(auto: &mut Auto, image: &mut ClusterImage, from: u64, to: u64) -> Vec<(u64, usize)> {
    let mut came = Vec::new();
    for now in (from..=to).step_by(500) {
        let records = auto.look(image, Millis(now));
        let begun = |record: &&MetadataRecord| {
            matches!(record, MetadataRecord::Move(MoveRecord::Because(..)))
        };
        if !records.is_empty() {
            came.push((now, records.iter().filter(begun).count()));
        }
        records.into_iter().for_each(|record| take(image, record));
    }
    came
}

fn stages(image: &ClusterImage) -> Vec<MoveStage> {
    let topic = image.topic(TOPIC).expect("made above");
    topic.moving().map(|(_, found)| found.stage).collect()
}

fn targets(image: &ClusterImage) -> Vec<Vec<NodeId>> {
    let topic = image.topic(TOPIC).expect("made above");
    topic.moving().map(|(_, found)| nodes(&found.target)).collect()
}

#[test]
fn an_uneven_cluster_is_evened_out_after_a_minute_of_calm_and_only_if_that_is_wished() {
    let sets: &[&[u32]] = &[&[1], &[1], &[1], &[1], &[2], &[2], &[2], &[2]];
    let mut image = image(3, sets);
    let mut auto = Auto::new(NodeId(1), Millis(0));
    assert_eq!(play(&mut auto, &mut image, 0, 10 * MINUTE), [], "nobody wished for it");
    set(&mut image, "balance.auto", "on");
    let came = play(&mut auto, &mut image, 10 * MINUTE + 500, 11 * MINUTE);
    assert_eq!(came.iter().map(|(_, begun)| *begun).collect::<Vec<_>>(), [2]);
    // An answer of an earlier leader, who had not witnessed the calm.
    let mut new = Auto::new(NodeId(2), Millis(0));
    assert_eq!(play(&mut new, &mut image, 0, 5 * MINUTE), [], "what moves goes on first");
}

#[test]
fn a_broker_that_comes_or_goes_and_a_move_that_was_asked_for_begin_the_calm_anew() {
    let mut image = image(3, &[&[1], &[1], &[1], &[1], &[2]]);
    set(&mut image, "balance.auto", "on");
    let mut auto = Auto::new(NodeId(1), Millis(0));
    assert_eq!(play(&mut auto, &mut image, 0, 50_000), []);
    fence(&mut image, 3, true);
    assert_eq!(play(&mut auto, &mut image, 50_500, 55_000), []);
    fence(&mut image, 3, false);
    assert_eq!(play(&mut auto, &mut image, 55_500, 110_000), []);
    let partition = TopicPartition::new(TOPIC, PartitionId(4));
    let asked = Move { id: MoveId(9), stage: MoveStage::Running, target: vec![place(&3)] };
    take(&mut image, MetadataRecord::Move(MoveRecord::Set(partition, asked)));
    assert_eq!(play(&mut auto, &mut image, 110_500, 200_000), []);
    let (replicas, dropped) = (vec![place(&3)], vec![NodeId(2)]);
    take(&mut image, MetadataRecord::Move(MoveRecord::End { partition, replicas, dropped }));
    let came = play(&mut auto, &mut image, 200_500, 300_000);
    assert!(came[0].0 >= 200_000 + CALM_MS, "{came:?}");
}

#[test]
fn a_broker_that_is_away_for_long_is_replaced_in_another_rack_and_one_that_is_drained_is_not() {
    // Racks: 1 and 4, 2 and 5, 3 and 6.
    let mut image = image(6, &[&[1, 2, 3], &[3, 1, 2], &[4, 5, 6]]);
    set(&mut image, "balance.replace.after.ms", "120000");
    let mut auto = Auto::new(NodeId(1), Millis(0));
    fence(&mut image, 3, true);
    let came = play(&mut auto, &mut image, 0, 3 * MINUTE);
    assert_eq!(came, [(120_000, 2)], "after two minutes, and once");
    assert_eq!(targets(&image), [[1, 2, 6].map(NodeId), [6, 1, 2].map(NodeId)]);
    let mut new = Auto::new(NodeId(1), Millis(0));
    fence(&mut image, 6, true);
    let duty = BrokerRecord::SetDuty(NodeId(6), BrokerDuty::Draining);
    take(&mut image, MetadataRecord::Broker(duty));
    assert_eq!(play(&mut new, &mut image, 0, 10 * MINUTE), [], "it is expected back");
}

#[test]
fn what_a_sleeping_leader_did_not_witness_does_not_count_and_neither_does_a_loss_of_many() {
    let mut image = image(6, &[&[1, 2, 3]]);
    set(&mut image, "balance.replace.after.ms", "120000");
    let mut auto = Auto::new(NodeId(1), Millis(0));
    fence(&mut image, 3, true);
    assert_eq!(play(&mut auto, &mut image, 0, 1_000), []);
    assert_eq!(play(&mut auto, &mut image, 10 * MINUTE, 11 * MINUTE), []);
    fence(&mut image, 4, true);
    fence(&mut image, 5, true);
    assert_eq!(play(&mut auto, &mut image, 11 * MINUTE, 20 * MINUTE), [], "three of six are away");
    fence(&mut image, 5, false);
    let came = play(&mut auto, &mut image, 20 * MINUTE, 21 * MINUTE);
    assert_eq!(came.len(), 1, "{came:?}");
}

#[test]
fn what_has_not_begun_is_dropped_when_the_broker_is_back_or_nobody_wants_it() {
    let sets: Vec<&[u32]> = vec![&[1, 2, 3]; 12];
    for back in [true, false] {
        let mut image = image(6, &sets);
        let mut auto = Auto::new(NodeId(1), Millis(0));
        set(&mut image, "balance.replace.after.ms", "60000");
        fence(&mut image, 3, true);
        assert_eq!(play(&mut auto, &mut image, 0, MINUTE), [(60_000, 12)]);
        let waiting = |image: &ClusterImage| {
            stages(image).iter().filter(|stage| **stage == MoveStage::Waiting).count()
        };
        assert_eq!((waiting(&image), stages(&image).len()), (4, 12));
        match back {
            true => fence(&mut image, 3, false),
            false => set(&mut image, "balance.replace.after.ms", "never"),
        }
        play(&mut auto, &mut image, MINUTE + 500, MINUTE + 500);
        assert_eq!((waiting(&image), stages(&image).len()), (0, 8), "what runs goes on");
    }
}

#[test]
fn a_move_of_ours_to_a_broker_that_goes_too_is_turned_back() {
    let mut image = image(7, &[&[1, 2, 3]]);
    let mut auto = Auto::new(NodeId(1), Millis(0));
    set(&mut image, "balance.replace.after.ms", "60000");
    fence(&mut image, 3, true);
    play(&mut auto, &mut image, 0, MINUTE);
    assert_eq!(targets(&image), [[1, 2, 6].map(NodeId)]);
    fence(&mut image, 6, true);
    play(&mut auto, &mut image, MINUTE + 500, 2 * MINUTE + 10_500);
    assert_eq!(stages(&image), [MoveStage::GoingBack]);
}

const BUSY: u64 = 10 << 20;

/// Each broker tells once a minute what it leads, by preference; `rate` says what is written to each
/// partition.
fn tell(auto: &mut Auto, image: &ClusterImage, now: u64, rate: impl Fn(u32) -> u64) {
    for broker in image.brokers() {
        let node = broker.registration.node;
        let mut led = Vec::new();
        for (topic, number) in image.every_partition() {
            if topic.partitions[number.0 as usize][0].node == node {
                let load = Load { bytes_in_per_s: rate(number.0), bytes_out_per_s: 0 };
                let partition = TopicPartition::new(topic.id, number);
                led.push(PartitionLoad { partition, bytes: 0, load });
            }
        }
        auto.hear(image, &LoadReport { node, led }, Millis(now));
    }
}

/// Plays minutes, and gives what was begun to even out what, and from where to where.
fn play_minutes(
    auto: &mut Auto,
    image: &mut ClusterImage,
    minutes: std::ops::Range<u64>,
    rate: impl Fn(u32) -> u64,
) -> Vec<(Evened, u32, Vec<u32>)> {
    let mut begun = Vec::new();
    for minute in minutes {
        tell(auto, image, minute * MINUTE, &rate);
        for now in (minute * MINUTE..(minute + 1) * MINUTE).step_by(500) {
            for record in auto.look(image, Millis(now)) {
                take(image, record.clone());
                let MetadataRecord::Move(MoveRecord::Because(at, Why::Evens(evened))) = record
                else {
                    continue;
                };
                let topic = image.topic(at.topic).expect("it is there");
                let target = &topic.move_of(at.partition).expect("it was begun").target;
                let replicas = target.clone();
                begun.push((evened, at.partition.0, nodes(target).iter().map(|at| at.0).collect()));
                // It is over at once.
                let set = nodes(&topic.partitions[at.partition.0 as usize]);
                let stays = nodes(&replicas);
                let dropped = set.into_iter().filter(|node| !stays.contains(node)).collect();
                let end = MoveRecord::End { partition: at, replicas, dropped };
                take(image, MetadataRecord::Move(end));
            }
        }
    }
    begun
}

#[test]
fn a_load_that_lasts_is_evened_out_by_who_leads_before_anything_is_copied() {
    // Each broker has four replicas and leads two; broker 1 leads both that are hot.
    let sets: &[&[u32]] = &[&[1, 2], &[1, 2], &[2, 1], &[2, 1], &[3, 4], &[3, 4], &[4, 3], &[4, 3]];
    let mut image = image(4, sets);
    set(&mut image, "balance.auto", "on");
    let mut auto = Auto::new(NodeId(1), Millis(0));
    let hot = |number: u32| if number < 2 { BUSY } else { 1024 };
    assert_eq!(play_minutes(&mut auto, &mut image, 0..8, hot), [], "eight minutes are a burst");
    let begun = play_minutes(&mut auto, &mut image, 8..40, hot);
    let of = |evened: Evened| begun.iter().filter(move |it| it.0 == evened).count();
    assert_eq!((begun[0].0, of(Evened::Leading)), (Evened::Leading, 2), "{begun:?}");
    assert!((1..=3).contains(&of(Evened::Writes)), "{begun:?}");
    assert_eq!(of(Evened::Counts) + of(Evened::Bytes), 0, "{begun:?}");
    let again = play_minutes(&mut auto, &mut image, 40..200, hot);
    assert_eq!(again, [], "and then there is quiet");
}

#[test]
fn a_load_of_which_one_broker_tells_nothing_moves_nothing() {
    let sets: &[&[u32]] = &[&[1, 2], &[1, 2], &[2, 1], &[2, 1], &[3, 4], &[3, 4], &[4, 3], &[4, 3]];
    let mut image = image(4, sets);
    set(&mut image, "balance.auto", "on");
    let mut auto = Auto::new(NodeId(1), Millis(0));
    for minute in 0..30 {
        for node in 1..=3 {
            let at = |number| TopicPartition::new(TOPIC, PartitionId(number));
            let load = Load { bytes_in_per_s: BUSY, bytes_out_per_s: 0 };
            let told = |number| PartitionLoad { partition: at(number), bytes: 0, load };
            let led = if node == 1 { vec![told(0), told(1)] } else { Vec::new() };
            auto.hear(&image, &LoadReport { node: NodeId(node), led }, Millis(minute * MINUTE));
        }
        let (from, to) = (minute * MINUTE, (minute + 1) * MINUTE - 500);
        assert_eq!(play(&mut auto, &mut image, from, to), [], "minute {minute}");
    }
}
