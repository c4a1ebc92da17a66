//! Who may give up what, and what a recovery makes of a partition.

use highwater_protocol::ids::Incarnation;
use highwater_protocol::native::moves::MoveStage;

use super::*;
use crate::controller::moves::{Move, MoveRecord};
use crate::controller::record::BrokerRegistration;

const TOPIC: TopicId = TopicId(Uuid::from_u128(7));
const AT: TopicPartition = TopicPartition { topic: TOPIC, partition: PartitionId(0) };

fn place(node: u32) -> PlacedReplica {
    PlacedReplica { node: NodeId(node), directory: DirectoryId(Uuid::from_u128(node.into())) }
}

/// Five brokers, one partition on the first three; these are fenced.
fn image(fenced: &[u32]) -> ClusterImage {
    let mut image = ClusterImage::default();
    for node in 1..=5 {
        take(
            &mut image,
            MetadataRecord::RegisterBroker(BrokerRegistration {
                node: NodeId(node),
                incarnation: Incarnation(1),
                directory: place(node).directory,
                rack: None,
                client_address: String::new(),
                peer_address: String::new(),
            }),
        );
    }
    let (id, configs) = (TOPIC, Vec::new());
    take(&mut image, MetadataRecord::CreateTopic { id, name: "orders".into(), configs });
    let partitions = vec![vec![place(1), place(2), place(3)]];
    let first = PartitionId(0);
    take(&mut image, MetadataRecord::CreatePartitions { topic: TOPIC, first, partitions });
    for node in fenced {
        let node = NodeId(*node);
        take(&mut image, MetadataRecord::FenceBroker { node, fenced: true });
    }
    image
}

fn take(image: &mut ClusterImage, record: MetadataRecord) {
    let read = MetadataRecord::decode(&record.encode()).expect("it was just written");
    assert_eq!(read, record);
    image.apply(&record).expect("it fits");
}

fn wish(survivor: u32, given_up: &[u32], term: u32) -> RecoverPartitionRequest {
    let given_up = given_up.iter().copied().map(NodeId).collect();
    let (survivor, term) = (NodeId(survivor), Term(term));
    RecoverPartitionRequest { partition: AT, survivor, given_up, term }
}

fn recover(image: &mut ClusterImage, id: u64, request: &RecoverPartitionRequest) {
    let (records, _) = decide(image, MoveId(id), request).expect("it may be recovered");
    records.into_iter().for_each(|record| take(image, record));
}

fn refusal(image: &ClusterImage, request: &RecoverPartitionRequest) -> ErrorCode {
    decide(image, MoveId(1), request).expect_err("it must not be recovered").code
}

#[test]
fn a_partition_goes_on_with_the_survivor_alone_and_the_others_are_dropped() {
    let mut image = image(&[2, 3]);
    recover(&mut image, 1, &wish(1, &[], 5));
    let topic = image.topic(TOPIC).expect("made above");
    assert_eq!(nodes(&topic.partitions[0]), [NodeId(1)]);
    let recovered = topic.recovered(PartitionId(0)).expect("just now");
    assert_eq!((recovered.epoch, recovered.founder), (RecoveryEpoch(1), place(1)));
    assert_eq!(recovered.since, Term(5 + TERMS_SKIPPED));
    assert!(
        topic.is_dropped(PartitionId(0), NodeId(2)) && !topic.is_dropped(PartitionId(0), NodeId(1))
    );
    let mut again = ClusterImage::default();
    image.to_records().into_iter().for_each(|record| take(&mut again, record));
    assert_eq!(again, image);
    assert_eq!(image.records(), image.to_records().len() as u64);
}

#[test]
fn nothing_is_given_up_while_a_majority_is_alive_and_not_given_up_by_name() {
    assert_eq!(refusal(&image(&[]), &wish(1, &[], 0)), ErrorCode::MajorityAlive);
    assert_eq!(refusal(&image(&[3]), &wish(1, &[], 0)), ErrorCode::MajorityAlive);
    recover(&mut image(&[3]), 1, &wish(1, &[2], 0));
    // A disk that was replaced has nothing to elect with.
    let mut image = image(&[3]);
    let BrokerRegistration { rack, client_address, peer_address, .. } =
        image.broker(NodeId(2)).expect("registered above").registration.clone();
    let (node, incarnation, directory) = (NodeId(2), Incarnation(2), place(9).directory);
    take(
        &mut image,
        MetadataRecord::RegisterBroker(BrokerRegistration {
            node,
            incarnation,
            directory,
            rack,
            client_address,
            peer_address,
        }),
    );
    recover(&mut image, 1, &wish(1, &[], 0));
}

#[test]
fn nor_while_those_that_a_move_brings_could_elect_a_leader() {
    let mut image = image(&[1, 2, 3]);
    let (stage, target) = (MoveStage::Running, vec![place(4), place(5)]);
    let change = Move { id: MoveId(8), stage, target };
    take(&mut image, MetadataRecord::Move(MoveRecord::Set(AT, change)));
    assert_eq!(refusal(&image, &wish(4, &[], 0)), ErrorCode::MajorityAlive);
    // Whoever has asked them knows that they only learn.
    recover(&mut image, 1, &wish(4, &[4, 5], 0));
}

#[test]
fn a_survivor_must_be_alive_and_have_a_replica() {
    assert_eq!(refusal(&image(&[2, 3]), &wish(2, &[], 0)), ErrorCode::BrokerNotAvailable);
    assert_eq!(refusal(&image(&[2, 3]), &wish(4, &[], 0)), ErrorCode::InvalidRequest);
    let nowhere = TopicPartition::new(TOPIC, PartitionId(9));
    let request = RecoverPartitionRequest { partition: nowhere, ..wish(1, &[], 0) };
    assert_eq!(refusal(&image(&[2, 3]), &request), ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn a_request_that_comes_twice_is_carried_out_once_and_a_second_recovery_counts_on() {
    let mut image = image(&[2, 3]);
    recover(&mut image, 1, &wish(1, &[], 5));
    let (records, _) = decide(&image, MoveId(1), &wish(1, &[], 5)).expect("it is known");
    assert!(records.is_empty());
    recover(&mut image, 2, &wish(1, &[1], 0));
    let recovered = image.topic(TOPIC).and_then(|topic| topic.recovered(PartitionId(0)));
    let recovered = recovered.expect("twice");
    assert_eq!(recovered.epoch, RecoveryEpoch(2));
    assert_eq!(recovered.since, Term(5 + 2 * TERMS_SKIPPED), "after all that the first one had");
}

#[test]
fn a_move_under_way_is_over_and_what_it_brought_may_be_the_survivor() {
    let mut image = image(&[2, 3]);
    let (stage, target) = (MoveStage::Running, vec![place(1), place(4)]);
    let change = Move { id: MoveId(8), stage, target };
    take(&mut image, MetadataRecord::Move(MoveRecord::Set(AT, change)));
    recover(&mut image, 1, &wish(4, &[1], 0));
    let topic = image.topic(TOPIC).expect("made above");
    assert_eq!(nodes(&topic.partitions[0]), [NodeId(4)]);
    assert!(topic.move_of(PartitionId(0)).is_none());
    assert!((1..=3).all(|node| topic.is_dropped(PartitionId(0), NodeId(node))));
}
