//! Who may be drained, retired and taken out, and what refusals name.

use highwater_protocol::ids::{Incarnation, TopicId};
use highwater_protocol::native::settings::SettingScope;
use uuid::Uuid;

use super::*;
use crate::controller::moves::{MoveRecord, Step};
use crate::controller::placement;
use crate::controller::record::BrokerRegistration;
use crate::controller::throttle::ThrottleRecord;

const VOTERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];
const ID: MoveId = MoveId(9);

fn directory(node: u32) -> DirectoryId {
    DirectoryId(Uuid::from_u128(u128::from(node)))
}

fn at(number: u32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionId(number))
}

fn place(node: u32) -> PlacedReplica {
    PlacedReplica { node: NodeId(node), directory: directory(node) }
}

/// Brokers 1 to `brokers`, and the replicas of each partition of `orders`.
fn image(brokers: u32, partitions: &[&[u32]]) -> ClusterImage {
    let mut image = ClusterImage::default();
    let mut take = |record: MetadataRecord| image.apply(&record).expect("it fits");
    for node in 1..=brokers {
        take(MetadataRecord::RegisterBroker(registration(node, 1)));
    }
    let topic = at(0).topic;
    take(MetadataRecord::CreateTopic { id: topic, name: "orders".into(), configs: Vec::new() });
    take(MetadataRecord::CreatePartitions {
        topic,
        first: PartitionId(0),
        partitions: partitions.iter().map(|set| set.iter().map(|n| place(*n)).collect()).collect(),
    });
    image
}

fn registration(node: u32, life: u64) -> BrokerRegistration {
    BrokerRegistration {
        node: NodeId(node),
        incarnation: Incarnation(life),
        directory: directory(node),
        rack: None,
        client_address: String::new(),
        peer_address: String::new(),
    }
}

/// Decides and applies as if committed.
fn carry_out(image: &mut ClusterImage, command: BrokerCommand) -> Result<BrokerReply, WireError> {
    let (records, reply) = decide(image, &VOTERS, &command)?;
    for record in records {
        assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record.clone()));
        image.apply(&record).expect("a decision fits its image");
    }
    let CommandReply::Broker(reply) = reply else { panic!("not a reply about brokers") };
    Ok(reply)
}

fn duty(node: u32, duty: BrokerDuty) -> BrokerCommand {
    let request = SetDutyRequest { node: NodeId(node), duty, dry_run: DryRun::No };
    BrokerCommand::SetDuty(ID, request)
}

fn removal(node: u32, unretired: Unretired) -> BrokerCommand {
    BrokerCommand::Remove(RemoveBrokerRequest {
        node: NodeId(node),
        unretired,
        dry_run: DryRun::No,
    })
}

fn moves(reply: BrokerReply) -> Vec<(u32, Vec<u32>)> {
    let BrokerReply::DutySet(response) = reply else { panic!("not about a duty") };
    let to = |planned: &PlannedMove| planned.to.iter().map(|node| node.0).collect();
    response.moves.iter().map(|planned| (planned.partition.partition.0, to(planned))).collect()
}

fn fence(image: &mut ClusterImage, node: u32) {
    let fence = MetadataRecord::FenceBroker { node: NodeId(node), fenced: true };
    image.apply(&fence).expect("fits");
}

fn end_move(image: &mut ClusterImage, number: u32) {
    let step = MoveCommand::Step(at(number), ID, Step::Reached);
    for record in reassign::decide(image, &step).expect("it is under way").0 {
        image.apply(&record).expect("fits");
    }
}

#[test]
fn a_drained_broker_gets_nothing_new_and_keeps_its_duty_over_a_restart() {
    let mut image = image(4, &[&[1, 2, 3]]);
    let reply = carry_out(&mut image, duty(4, BrokerDuty::Draining)).expect("it is registered");
    assert_eq!(moves(reply), [], "its replicas stay");
    let again = MetadataRecord::RegisterBroker(registration(4, 2));
    image.apply(&again).expect("fits");
    let candidates = placement::candidates(&image);
    let chosen: Vec<u32> = candidates.iter().map(|candidate| candidate.node.0).collect();
    assert_eq!(chosen, [1, 2, 3]);
    let wish = |wish| ReassignRequest { partitions: Vec::new(), wish, dry_run: DryRun::No };
    let command = MoveCommand::Reassign(ID, wish(MoveWish::To(vec![NodeId(4)])));
    let error = reassign::decide(&image, &command).expect_err("it is drained");
    assert!(error.detail.contains("hw cluster undrain 4"), "{error}");

    carry_out(&mut image, duty(4, BrokerDuty::Active)).expect("it is registered");
    assert_eq!(placement::candidates(&image).len(), 4);
    let mut other = ClusterImage::default();
    carry_out(&mut image, duty(2, BrokerDuty::Draining)).expect("a voter may be drained");
    image.to_records().iter().for_each(|record| other.apply(record).expect("fits"));
    assert_eq!(other, image);
}

#[test]
fn a_retired_broker_has_every_replica_moved_to_brokers_that_take_work() {
    let mut image = image(6, &[&[4, 1, 2], &[1, 2, 3], &[2, 4, 5]]);
    carry_out(&mut image, duty(6, BrokerDuty::Draining)).expect("it is registered");
    let asked = duty(4, BrokerDuty::Leaving);
    let reply = carry_out(&mut image, asked.clone()).expect("there is room");
    let planned = moves(reply);
    assert_eq!(planned.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 2]);
    assert!(planned.iter().all(|(_, to)| !to.contains(&4) && !to.contains(&6)), "{planned:?}");
    let again = carry_out(&mut image, asked).expect("it is the same command");
    assert_eq!(moves(again), planned, "and begins nothing new");
    let error = carry_out(&mut image, removal(4, Unretired::Refuse)).expect_err("not empty");
    assert!(error.detail.contains("orders/0 and 1 others"), "{error}");
    end_move(&mut image, 0);
    end_move(&mut image, 2);
    carry_out(&mut image, removal(4, Unretired::Refuse)).expect("it is empty");
    assert!(image.broker(NodeId(4)).is_none() && image.was_removed(NodeId(4)));
    carry_out(&mut image, removal(4, Unretired::Refuse)).expect("the answer may have been lost");
}

#[test]
fn retiring_is_refused_with_the_partition_that_finds_no_place() {
    let mut few = image(4, &[&[1, 2, 3], &[1, 2, 3, 4]]);
    let error = carry_out(&mut few, duty(4, BrokerDuty::Leaving)).expect_err("no fifth broker");
    assert!(error.detail.contains("orders/1") && error.detail.contains("--replicas 3"), "{error}");
    assert_eq!(few.broker(NodeId(4)).expect("registered").duty, BrokerDuty::Active);

    let mut image = image(5, &[&[1, 2, 3]]);
    let target = vec![place(4), place(2), place(3)];
    let coming = Move { id: MoveId(1), stage: MoveStage::Running, target };
    image.apply(&MetadataRecord::Move(MoveRecord::Set(at(0), coming))).expect("fits");
    let error = carry_out(&mut image, duty(4, BrokerDuty::Leaving)).expect_err("it is arriving");
    assert!(error.detail.contains("hw partition cancel orders/0"), "{error}");
}

#[test]
fn a_voter_on_the_metadata_is_neither_retired_nor_removed() {
    let mut image = image(4, &[]);
    for command in [duty(2, BrokerDuty::Leaving), removal(2, Unretired::IfDead)] {
        let error = carry_out(&mut image, command).expect_err("it votes");
        assert!(error.detail.contains("votes on the cluster's metadata"), "{error}");
    }
}

#[test]
fn a_broker_that_nobody_retired_is_removed_only_if_it_is_dead_and_empty() {
    let mut image = image(5, &[&[1, 2, 4]]);
    let refused = |image: &mut ClusterImage, node, unretired| {
        carry_out(image, removal(node, unretired)).expect_err("it must not go").detail
    };
    assert!(refused(&mut image, 5, Unretired::Refuse).contains("--force"));
    assert!(refused(&mut image, 5, Unretired::IfDead).contains("alive"));
    fence(&mut image, 4);
    fence(&mut image, 5);
    assert!(refused(&mut image, 4, Unretired::IfDead).contains("orders/0"));
    carry_out(&mut image, removal(5, Unretired::IfDead)).expect("dead and empty");
    assert!(refused(&mut image, 9, Unretired::IfDead).contains("not part of the cluster"));
}

#[test]
fn an_image_made_anew_remembers_who_was_removed_until_another_directory_takes_the_id() {
    let mut made = image(5, &[]);
    fence(&mut made, 5);
    carry_out(&mut made, removal(5, Unretired::IfDead)).expect("dead and empty");
    let mut other = ClusterImage::default();
    made.to_records().iter().for_each(|record| other.apply(record).expect("fits"));
    assert_eq!(other, made);
    let new = BrokerRegistration { directory: directory(55), ..registration(5, 9) };
    made.apply(&MetadataRecord::RegisterBroker(new)).expect("fits");
    assert!(made.broker(NodeId(5)).is_some());
    assert!(made.was_removed_with(NodeId(5), directory(5)));
    assert!(!made.was_removed_with(NodeId(5), directory(55)));
    let mut other = ClusterImage::default();
    made.to_records().iter().for_each(|record| other.apply(record).expect("fits"));
    assert_eq!(other, made);
}

#[test]
fn replicas_filled_again_are_noted_where_they_are_now_and_the_old_disk_stays_out() {
    let mut image = image(3, &[&[1, 2], &[2, 3]]);
    let new = BrokerRegistration { directory: directory(22), ..registration(2, 9) };
    image.apply(&MetadataRecord::RegisterBroker(new)).expect("fits");
    assert!(image.was_removed_with(NodeId(2), directory(2)), "it was replaced");
    let refilled = |directory| BrokerCommand::Refilled {
        node: NodeId(2),
        directory,
        partitions: vec![at(0), at(0), at(9)],
    };
    carry_out(&mut image, refilled(directory(2))).expect_err("of the old disk");
    carry_out(&mut image, refilled(directory(22))).expect("of the new one");
    let set =
        |number: usize| image.topic(at(0).topic).expect("made above").partitions[number].clone();
    let now = PlacedReplica { node: NodeId(2), directory: directory(22) };
    assert_eq!(set(0)[..], [place(1), now]);
    assert_eq!(set(1)[..], [place(2), place(3)], "it was not named");
    let mut other = ClusterImage::default();
    image.to_records().iter().for_each(|record| other.apply(record).expect("fits"));
    assert_eq!(other, image);
}

#[test]
fn what_was_set_for_a_broker_goes_with_it() {
    let mut image = image(4, &[&[1, 2]]);
    let scope = SettingScope::Broker(NodeId(4));
    let configs = vec![("limits.connections".to_owned(), "7".to_owned())];
    let settings = MetadataRecord::AlterSettings { scope: scope.clone(), configs };
    let throttle = ThrottleRecord { broker: Some(NodeId(4)), bytes_per_s: Some(5_000) };
    for record in [settings, MetadataRecord::Throttle(throttle)] {
        image.apply(&record).expect("fits");
    }
    fence(&mut image, 4);
    carry_out(&mut image, removal(4, Unretired::IfDead)).expect("it is dead and empty");
    assert!(image.settings().given(&scope).is_empty());
    assert_eq!(image.throttle().brokers().count(), 0);
}

#[test]
fn a_replica_that_is_filled_again_during_a_move_is_so_when_the_move_is_over() {
    let mut image = image(3, &[&[1, 2]]);
    let (stage, target) = (MoveStage::Running, vec![place(2), place(3)]);
    let change = Move { id: MoveId(4), stage, target };
    image.apply(&MetadataRecord::Move(MoveRecord::Set(at(0), change))).expect("fits");
    let new = BrokerRegistration { directory: directory(22), ..registration(2, 9) };
    image.apply(&MetadataRecord::RegisterBroker(new)).expect("fits");
    let (node, directory) = (NodeId(2), directory(22));
    let partitions = vec![at(0)];
    carry_out(&mut image, BrokerCommand::Refilled { node, directory, partitions }).expect("it is");
    let topic = image.topic(at(0).topic).expect("made above");
    let now = PlacedReplica { node, directory };
    assert_eq!(topic.move_of(PartitionId(0)).expect("it runs").target, [now, place(3)]);
}
