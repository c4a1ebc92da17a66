//! What a broker opens and closes as its image changes.

use highwater_protocol::native::moves::MoveStage;

use super::*;
use crate::controller::moves::{Move, MoveId, MoveRecord};
use crate::controller::record::MetadataRecord;

const HERE: DirectoryId = DirectoryId(Uuid::from_u128(77));

fn me() -> Me<'static> {
    Me { node: NodeId(1), directory: HERE, data_dir: Path::new("/data") }
}

fn id(n: u128) -> TopicId {
    TopicId(Uuid::from_u128(n))
}

/// An image of topics, each with its partitions as lists of node ids.
fn image(topics: &[(u128, &[&[u32]])]) -> ClusterImage {
    let mut image = ClusterImage::default();
    for (topic, partitions) in topics {
        let place = |node: &u32| PlacedReplica { node: NodeId(*node), directory: HERE };
        let partitions = partitions.iter().map(|set| set.iter().map(place).collect()).collect();
        let name = format!("topic-{topic}");
        let create = MetadataRecord::CreateTopic { id: id(*topic), name, configs: Vec::new() };
        image.apply(&create).expect("fits");
        let first = PartitionId(0);
        let create = MetadataRecord::CreatePartitions { topic: id(*topic), first, partitions };
        image.apply(&create).expect("fits");
    }
    image
}

fn partition(topic: u128, number: u32) -> TopicPartition {
    TopicPartition::new(id(topic), PartitionId(number))
}

#[test]
fn a_new_topic_opens_the_replicas_placed_here_and_shows_all_its_partitions() {
    let changes = diff(&image(&[]), &image(&[(5, &[&[1, 2], &[2, 3]])]), me());
    assert_eq!(changes.appeared.len(), 2);
    let opened: Vec<_> = changes.open.iter().map(|open| open.partition).collect();
    assert_eq!(opened, [partition(5, 0)]);
    assert_eq!(changes.open[0].voters, [NodeId(1), NodeId(2)]);
    assert_eq!(changes.open[0].identity, Identity::Same);
    assert!(changes.open[0].dir.starts_with("/data/topics"));
}

#[test]
fn a_deleted_topic_closes_its_replicas_for_deletion() {
    let before = image(&[(5, &[&[1, 2], &[2, 3]])]);
    let mut after = before.clone();
    after.apply(&MetadataRecord::DeleteTopic { id: id(5) }).expect("fits");
    let changes = diff(&before, &after, me());
    assert_eq!(changes.gone, [partition(5, 0), partition(5, 1)]);
    assert_eq!(changes.close, [(partition(5, 0), AfterClose::Delete)]);
    let forgotten = diff(&before, &image(&[]), me());
    assert_eq!(forgotten.close, [(partition(5, 0), AfterClose::Keep)], "without a tombstone");
    assert!(changes.open.is_empty());
}

#[test]
fn a_replica_that_moved_away_is_closed_and_its_files_stay() {
    let changes = diff(&image(&[(5, &[&[1, 2]])]), &image(&[(5, &[&[3, 2]])]), me());
    assert_eq!(changes.close, [(partition(5, 0), AfterClose::Keep)]);
    assert!(changes.gone.is_empty());
}

fn moved(image: &ClusterImage, record: MoveRecord) -> ClusterImage {
    let mut after = image.clone();
    after.apply(&MetadataRecord::Move(record)).expect("fits");
    after
}

#[test]
fn a_broker_opens_what_moves_to_it_as_a_learner_and_deletes_what_a_move_took_from_it() {
    let before = image(&[(5, &[&[2, 3]])]);
    let at = partition(5, 0);
    let place = |node| PlacedReplica { node: NodeId(node), directory: HERE };
    let to = |target: &[u32], stage| {
        let target = target.iter().map(|node| place(*node)).collect();
        MoveRecord::Set(at, Move { id: MoveId(9), stage, target })
    };
    let waiting = moved(&before, to(&[1, 2], MoveStage::Waiting));
    assert!(diff(&before, &waiting, me()).open.is_empty(), "it has to wait");
    let running = moved(&before, to(&[1, 2], MoveStage::Running));
    let changes = diff(&waiting, &running, me());
    assert_eq!(changes.open[0].voters, [NodeId(2), NodeId(3)]);
    assert_eq!(changes.open[0].learners, [NodeId(1)]);
    assert_eq!(changes.open[0].identity, Identity::Joins);

    let end = |replicas: &[u32], dropped: &[u32]| MoveRecord::End {
        partition: at,
        replicas: replicas.iter().map(|node| place(*node)).collect(),
        dropped: dropped.iter().copied().map(NodeId).collect(),
    };
    let there = moved(&running, end(&[1, 2], &[3]));
    let changes = diff(&running, &there, me());
    assert!(changes.close.is_empty());
    assert_eq!(changes.open[0].voters, [NodeId(1), NodeId(2)]);
    let back = moved(&running, end(&[2, 3], &[1]));
    assert_eq!(diff(&running, &back, me()).close, [(at, AfterClose::Delete)]);
    let unnamed = moved(&running, end(&[2, 3], &[]));
    assert_eq!(diff(&running, &unnamed, me()).close, [(at, AfterClose::Keep)]);
}

#[test]
fn others_may_vote_once_a_move_has_begun() {
    let before = image(&[(5, &[&[1]])]);
    let stages = [
        (MoveStage::Waiting, Moving::No),
        (MoveStage::Running, Moving::UnderWay),
        (MoveStage::GoingBack, Moving::UnderWay),
    ];
    for (stage, moving) in stages {
        let target = vec![PlacedReplica { node: NodeId(2), directory: HERE }];
        let change = Move { id: MoveId(9), stage, target };
        let after = moved(&before, MoveRecord::Set(partition(5, 0), change));
        assert_eq!(diff(&image(&[]), &after, me()).open[0].moving, moving, "{stage:?}");
    }
}

#[test]
fn what_was_taken_is_owed_once_that_is_saved_and_the_broker_has_caught_up() {
    let before = image(&[(5, &[&[1, 2]])]);
    let at = partition(5, 0);
    let target = vec![PlacedReplica { node: NodeId(2), directory: HERE }];
    let change = Move { id: MoveId(9), stage: MoveStage::Running, target: target.clone() };
    let after = moved(&before, MoveRecord::Set(at, change));
    let dropped_here = vec![NodeId(1)];
    let end = MoveRecord::End { partition: at, replicas: target, dropped: dropped_here };
    let after = moved(&after, end);
    let saved = dropped(&after, NodeId(1));
    let hosted = diff(&image(&[]), &before, me()).open;
    let expected = Owed { partition: at, by: MoveId(9), dir: hosted[0].dir.clone() };
    assert_eq!(owed(&after, &saved, Standing::CaughtUp, me()), [expected]);
    assert_eq!(owed(&after, &saved, Standing::Behind, me()), []);
    assert_eq!(owed(&after, &BTreeMap::new(), Standing::CaughtUp, me()), []);
    let other = BTreeMap::from([(at, MoveId(8))]);
    assert_eq!(owed(&after, &other, Standing::CaughtUp, me()), [], "an earlier taking is saved");
    let given_up = moved(&after, MoveRecord::GivenUp(at, NodeId(1)));
    assert_eq!(owed(&given_up, &saved, Standing::CaughtUp, me()), []);
}

#[test]
fn the_same_image_changes_nothing() {
    let image = image(&[(5, &[&[1, 2]]), (6, &[&[1]])]);
    let changes = diff(&image, &image.clone(), me());
    assert!(changes.open.is_empty() && changes.close.is_empty());
    assert!(changes.appeared.is_empty() && changes.gone.is_empty());
}

#[test]
fn a_replica_placed_on_an_earlier_directory_has_lost_its_memory() {
    let mut wiped = me();
    wiped.directory = DirectoryId(Uuid::from_u128(78));
    let changes = diff(&image(&[]), &image(&[(5, &[&[1, 2]])]), wiped);
    assert_eq!(changes.open[0].identity, Identity::Lost);
}

#[test]
fn who_begins_without_an_image_opens_and_closes_nothing_before_it_has_caught_up() {
    let before = image(&[(5, &[&[1, 2]]), (6, &[&[1]])]);
    let mut after = before.clone();
    after.apply(&MetadataRecord::DeleteTopic { id: id(6) }).expect("fits");
    let mut sight = Sight::Blind;
    let mut follow = |standing| sight.follow(diff(&before, &after, me()), &after, standing, me());
    let held = follow(Standing::Behind);
    assert!(held.close.is_empty() && held.open.is_empty());
    assert_eq!(held.gone, [partition(6, 0)], "the routes know");
    let begun = follow(Standing::CaughtUp);
    assert!(begun.close.is_empty());
    let opened: Vec<_> = begun.open.iter().map(|open| open.partition).collect();
    assert_eq!(opened, [partition(5, 0)]);
    assert!(!Sight::Blind.may_save(), "the next life would go by half an image");
    assert!(sight.may_save());
}

#[test]
fn a_directory_names_its_partition() {
    let long = "x".repeat(249);
    for name in ["orders", "a-1.b", &long] {
        let dir = dir_name(name, partition(9, 41));
        assert!(dir.len() <= 255);
        assert_eq!(parse_dir_name(&dir), Some(partition(9, 41)), "{dir}");
    }
    for stranger in ["lost+found", "orders-1", "orders-x.00000000000000000000000000000009"] {
        assert_eq!(parse_dir_name(stranger), None, "{stranger}");
    }
}
