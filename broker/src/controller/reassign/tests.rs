//! Which moves are decided on, which are refused, and what their records leave behind.

use highwater_protocol::ids::{DirectoryId, Incarnation, TopicId};
use uuid::Uuid;

use super::*;
use crate::controller::brokers::BrokerRecord;
use crate::controller::moves::MoveCommand;
use crate::controller::record::BrokerRegistration;

fn directory(node: u32) -> DirectoryId {
    DirectoryId(Uuid::from_u128(u128::from(node)))
}

fn topic() -> TopicId {
    TopicId(Uuid::from_u128(7))
}

fn at(number: u32) -> TopicPartition {
    TopicPartition::new(topic(), PartitionId(number))
}

/// Brokers 1 to `brokers`, the odd ones in one rack, and the replicas of each partition of `orders`.
fn image(brokers: u32, partitions: &[&[u32]]) -> ClusterImage {
    let mut image = ClusterImage::default();
    let mut take = |record: MetadataRecord| image.apply(&record).expect("it fits");
    for node in 1..=brokers {
        take(MetadataRecord::RegisterBroker(BrokerRegistration {
            node: NodeId(node),
            incarnation: Incarnation(1),
            directory: directory(node),
            rack: Some(if node % 2 == 1 { "odd" } else { "even" }.into()),
            client_address: String::new(),
            peer_address: String::new(),
        }));
    }
    let place = |node: &u32| PlacedReplica { node: NodeId(*node), directory: directory(*node) };
    take(MetadataRecord::CreateTopic { id: topic(), name: "orders".into(), configs: Vec::new() });
    take(MetadataRecord::CreatePartitions {
        topic: topic(),
        first: PartitionId(0),
        partitions: partitions.iter().map(|set| set.iter().map(place).collect()).collect(),
    });
    image
}

fn wish(wish: MoveWish) -> ReassignRequest {
    ReassignRequest { partitions: Vec::new(), wish, dry_run: DryRun::No }
}

fn brokers(list: &[u32]) -> Vec<NodeId> {
    list.iter().copied().map(NodeId).collect()
}

/// Decides and applies; gives the moves of the reply.
fn carry_out(
    image: &mut ClusterImage,
    command: MoveCommand,
) -> Result<Vec<PlannedMove>, WireError> {
    let (records, reply) = decide(image, &command)?;
    for record in records {
        let read = MetadataRecord::decode(&record.encode()).expect("it was just written");
        assert_eq!(read, record);
        image.apply(&record).expect("a decision fits");
    }
    let mut again = ClusterImage::default();
    image.to_records().iter().for_each(|record| again.apply(record).expect("it fits"));
    assert_eq!(&again, image, "an image made anew keeps moves and what they dropped");
    match reply {
        CommandReply::Moves(moves) => Ok(moves),
        other => panic!("not an answer about moves: {other:?}"),
    }
}

fn reassign_to(
    image: &mut ClusterImage,
    id: u64,
    to: &[u32],
) -> Result<Vec<PlannedMove>, WireError> {
    let request = wish(MoveWish::To(brokers(to)));
    carry_out(image, MoveCommand::Reassign(MoveId(id), request))
}

fn replicas(image: &ClusterImage, number: u32) -> Vec<NodeId> {
    nodes(&image.topic(topic()).expect("made above").partitions[number as usize])
}

fn stages(image: &ClusterImage) -> Vec<MoveStage> {
    let topic = image.topic(topic()).expect("made above");
    topic.moving().map(|(_, found)| found.stage).collect()
}

fn step(image: &mut ClusterImage, number: u32, id: u64, step: Step) -> Result<(), WireError> {
    carry_out(image, MoveCommand::Step(at(number), MoveId(id), step)).map(|_| ())
}

#[test]
fn a_move_changes_the_set_only_when_its_leader_says_that_the_voters_are_reached() {
    let mut image = image(4, &[&[1, 2, 3]]);
    let moves = reassign_to(&mut image, 9, &[2, 3, 4]).expect("all are alive");
    assert_eq!(moves[0].to, brokers(&[2, 3, 4]));
    assert_eq!(replicas(&image, 0), brokers(&[1, 2, 3]));
    let hosts = |image: &ClusterImage| -> Vec<NodeId> {
        let topic = image.topic(topic()).expect("made above");
        topic.hosts(PartitionId(0)).map(|replica| replica.node).collect()
    };
    assert_eq!(hosts(&image), brokers(&[1, 2, 3, 4]));
    assert_eq!(reassign_to(&mut image, 9, &[2, 3, 4]), Ok(moves), "asked again");
    step(&mut image, 0, 9, Step::Begins).expect("it is wanted");
    step(&mut image, 0, 9, Step::Reached).expect("it is this move");
    assert_eq!(hosts(&image), brokers(&[2, 3, 4]));
    let dropped = |node| image.topic(topic()).expect("made").is_dropped(PartitionId(0), node);
    assert!(dropped(NodeId(1)) && !dropped(NodeId(2)) && !dropped(NodeId(4)));
}

#[test]
fn word_of_an_earlier_move_ends_no_later_one() {
    let mut image = image(4, &[&[1, 2, 3]]);
    reassign_to(&mut image, 9, &[2, 3, 4]).expect("all are alive");
    let all = CancelMovesRequest { partitions: Vec::new() };
    carry_out(&mut image, MoveCommand::Cancel(MoveId(10), all)).expect("always");
    assert_eq!(stages(&image), [MoveStage::GoingBack]);
    step(&mut image, 0, 9, Step::Reached).expect("nothing is done on it");
    assert_eq!(stages(&image), [MoveStage::GoingBack]);
    assert!(step(&mut image, 0, 9, Step::Begins).is_err());
    step(&mut image, 0, 10, Step::Reached).expect("the voters went back");
    assert!(stages(&image).is_empty());
    assert_eq!(replicas(&image, 0), brokers(&[1, 2, 3]));
    let topic = image.topic(topic()).expect("made above");
    assert!(
        topic.is_dropped(PartitionId(0), NodeId(4)) && !topic.is_dropped(PartitionId(0), NodeId(1))
    );
}

#[test]
fn a_set_may_name_a_broker_that_is_away_where_it_has_the_partition_already() {
    let mut image = image(4, &[&[1, 2], &[3, 4]]);
    let fence = MetadataRecord::FenceBroker { node: NodeId(2), fenced: true };
    image.apply(&fence).expect("it is registered");
    let mut to = |number, set: &[u32]| {
        let mut request = wish(MoveWish::To(brokers(set)));
        request.partitions = vec![at(number)];
        carry_out(&mut image, MoveCommand::Reassign(MoveId(9), request))
    };
    assert!(to(1, &[2, 3]).is_err(), "it cannot be filled there");
    assert_eq!(to(0, &[3, 2]).expect("it stays where it is").len(), 1);
}

#[test]
fn only_so_many_moves_are_under_way_and_the_others_follow_as_they_end() {
    const SET: &[u32] = &[1, 2];
    let mut image = image(3, &[SET; MOVES_AT_ONCE_MAX + 2]);
    reassign_to(&mut image, 9, &[2, 3]).expect("all are alive");
    let running = |image: &ClusterImage| {
        stages(image).iter().filter(|stage| **stage == MoveStage::Running).count()
    };
    assert_eq!(running(&image), MOVES_AT_ONCE_MAX);
    assert!(start_waiting(&image).is_empty());
    let last = MOVES_AT_ONCE_MAX as u32 + 1;
    assert!(step(&mut image, last, 9, Step::Begins).is_err(), "it waits");
    step(&mut image, 0, 9, Step::Reached).expect("it is this move");
    assert_eq!(running(&image), MOVES_AT_ONCE_MAX);
    let waiting = CancelMovesRequest { partitions: vec![at(last)] };
    carry_out(&mut image, MoveCommand::Cancel(MoveId(10), waiting)).expect("it waits still");
    assert_eq!(stages(&image).len(), MOVES_AT_ONCE_MAX, "what waited is over at once");
}

#[test]
fn a_drained_broker_is_replaced_in_its_place_by_one_of_a_rack_that_lacks_a_replica() {
    let mut image = image(4, &[&[1, 2], &[2, 3], &[3, 4]]);
    let drain = wish(MoveWish::Drain(NodeId(2)));
    let moves = carry_out(&mut image, MoveCommand::Reassign(MoveId(9), drain)).expect("4 is left");
    let to: Vec<_> = moves.iter().map(|planned| planned.to.clone()).collect();
    assert_eq!(to, [brokers(&[1, 4]), brokers(&[4, 3])], "4 is the other even one");
}

#[test]
fn the_number_of_replicas_grows_over_racks_and_shrinks_by_the_dead_first() {
    let mut image = image(4, &[&[1, 3], &[1, 2, 4]]);
    let fence = MetadataRecord::FenceBroker { node: NodeId(1), fenced: true };
    image.apply(&fence).expect("it is registered");
    let plan = |image: &ClusterImage, number, count| {
        let mut request = wish(MoveWish::Replicas(count));
        (request.partitions, request.dry_run) = (vec![at(number)], DryRun::Yes);
        let command = MoveCommand::Reassign(MoveId(9), request);
        let (records, reply) = decide(image, &command).expect("there are as many");
        assert!(records.is_empty(), "a dry run changes nothing");
        match reply {
            CommandReply::Moves(moves) => moves[0].to.clone(),
            other => panic!("not an answer about moves: {other:?}"),
        }
    };
    assert_eq!(plan(&image, 0, 3), brokers(&[1, 3, 2]));
    assert_eq!(plan(&image, 1, 2), brokers(&[2, 4]));
    assert_eq!(plan(&image, 1, 1), brokers(&[2]));
}

#[test]
fn a_plan_moves_each_partition_to_its_own_set_or_is_refused_whole() {
    let mut image = image(4, &[&[1, 2], &[2, 3], &[3, 4]]);
    let plan = |sets: &[&[u32]]| ReassignRequest {
        partitions: vec![at(0), at(2)],
        wish: MoveWish::Each(sets.iter().map(|set| brokers(set)).collect()),
        dry_run: DryRun::No,
    };
    for (sets, words) in [
        (&[&[1u32, 3][..]][..], "1 sets of brokers for 2 partitions"),
        (&[&[1, 3], &[3, 9]], "broker 9 is not part"),
        (&[&[1, 3], &[]], "name 1 to 7 brokers"),
    ] {
        let command = MoveCommand::Reassign(MoveId(9), plan(sets));
        let detail = carry_out(&mut image, command).expect_err("refused").detail;
        assert!(detail.contains(words), "{detail}");
    }
    let command = MoveCommand::Reassign(MoveId(9), plan(&[&[3, 1], &[4, 2, 1]]));
    let moves = carry_out(&mut image, command).expect("all are alive");
    let to: Vec<_> = moves.iter().map(|planned| planned.to.clone()).collect();
    assert_eq!(to, [brokers(&[3, 1]), brokers(&[4, 2, 1])], "in the order given");
}

#[test]
fn a_move_to_a_broker_that_died_keeps_no_other_from_beginning() {
    const SET: &[u32] = &[1, 2];
    let mut image = image(4, &[SET; MOVES_AT_ONCE_MAX + 3]);
    reassign_to(&mut image, 9, &[2, 3]).expect("all are alive");
    let dead = MetadataRecord::FenceBroker { node: NodeId(3), fenced: true };
    image.apply(&dead).expect("it is registered");
    assert!(start_waiting(&image).is_empty(), "what waits would go to the dead one as well");
    let last = MOVES_AT_ONCE_MAX as u32 + 2;
    let cancel = CancelMovesRequest { partitions: vec![at(last)] };
    carry_out(&mut image, MoveCommand::Cancel(MoveId(10), cancel)).expect("it waits");
    let mut other = wish(MoveWish::To(brokers(&[2, 4])));
    other.partitions = vec![at(last)];
    carry_out(&mut image, MoveCommand::Reassign(MoveId(11), other)).expect("4 is alive");
    let topic = image.topic(topic()).expect("made above");
    let stage = topic.move_of(PartitionId(last)).map(|found| found.stage);
    assert_eq!(stage, Some(MoveStage::Running));
}

#[test]
fn what_cannot_be_moved_is_refused_with_its_name_and_a_way_out() {
    let mut image = image(3, &[&[1, 2], &[1, 3]]);
    let refusal = |image: &mut ClusterImage, request| {
        let error = carry_out(image, MoveCommand::Reassign(MoveId(9), request));
        error.expect_err("refused").detail
    };
    let cases = [
        (wish(MoveWish::To(brokers(&[1, 9]))), "broker 9 is not part of the cluster"),
        (wish(MoveWish::To(brokers(&[1, 1]))), "named twice"),
        (wish(MoveWish::To(Vec::new())), "name 1 to 7 brokers"),
        (wish(MoveWish::Replicas(4)), "ask for 1 to 3"),
    ];
    for (request, words) in cases {
        let detail = refusal(&mut image, request);
        assert!(detail.contains(words), "{detail}");
    }
    let unknown = ReassignRequest { partitions: vec![at(5)], ..wish(MoveWish::Replicas(1)) };
    assert!(refusal(&mut image, unknown).contains("`hw topic list`"));
    let fence = MetadataRecord::FenceBroker { node: NodeId(3), fenced: true };
    image.apply(&fence).expect("it is registered");
    assert!(refusal(&mut image, wish(MoveWish::To(brokers(&[3])))).contains("is not alive"));
    let detail = refusal(&mut image, wish(MoveWish::Drain(NodeId(1))));
    assert!(detail.starts_with("orders/0: no broker is alive"), "{detail}");
    reassign_to(&mut image, 8, &[2, 1]).map(|_| ()).expect("only the second one moves");
    let again = ReassignRequest { partitions: vec![at(1)], ..wish(MoveWish::Replicas(1)) };
    assert!(refusal(&mut image, again).contains("`hw partition cancel orders/1`"));
}

#[test]
fn one_partitions_brokers_in_another_order_only_change_who_is_preferred_to_lead() {
    let mut image = image(4, &[&[1, 2, 3], &[2, 3, 4]]);
    let request = ReassignRequest {
        partitions: vec![at(0)],
        wish: MoveWish::To(brokers(&[3, 2, 1])),
        dry_run: DryRun::No,
    };
    let moves = carry_out(&mut image, MoveCommand::Reassign(MoveId(9), request));
    assert_eq!(moves.expect("all are alive").len(), 1);
    step(&mut image, 0, 9, Step::Reached).expect("the voters are the same");
    assert_eq!(replicas(&image, 0), brokers(&[3, 2, 1]));
    let topic = image.topic(topic()).expect("made above");
    assert!((1..=4).all(|node| !topic.is_dropped(PartitionId(0), NodeId(node))));
}

#[test]
fn a_partition_comes_back_to_a_broker_only_once_that_has_given_up_what_it_had() {
    let mut image = image(3, &[&[1, 2]]);
    // `carry_out` holds the image against one made anew after each step.
    reassign_to(&mut image, 9, &[2, 3]).expect("all are alive");
    step(&mut image, 0, 9, Step::Reached).expect("it is this move");
    reassign_to(&mut image, 10, &[1, 2]).expect("it waits");
    let state = |image: &ClusterImage| {
        let topic = image.topic(topic()).expect("made above");
        let found = topic.move_of(PartitionId(0)).expect("it moves");
        (found.stage, topic.move_waits_for(PartitionId(0), found))
    };
    let waits = (MoveStage::Waiting, brokers(&[1]));
    assert_eq!(state(&image), waits);
    assert!(start_waiting(&image).is_empty());
    let word = |node: u32, data: u32, id| {
        let drops = vec![(at(0), MoveId(id))];
        let (node, directory) = (NodeId(node), directory(data));
        MoveCommand::GivenUp(dropped::GivenUp { node, directory, drops })
    };
    carry_out(&mut image, word(1, 1, 8)).expect("late word is none");
    assert_eq!(state(&image), waits);
    assert!(carry_out(&mut image, word(1, 7, 9)).is_err(), "another data directory");
    carry_out(&mut image, word(3, 3, 9)).expect("nothing was taken from it");
    assert_eq!(state(&image), waits);
    carry_out(&mut image, word(1, 1, 9)).expect("it is this taking");
    assert_eq!(state(&image), (MoveStage::Running, Vec::new()));
    step(&mut image, 0, 10, Step::Reached).expect("it is this move");
    let topic = image.topic(topic()).expect("made above");
    assert!(topic.is_dropped(PartitionId(0), NodeId(3)));
    assert!(!topic.is_dropped(PartitionId(0), NodeId(1)));
}

#[test]
fn a_move_that_waits_for_a_broker_can_be_cancelled_and_who_is_taken_out_is_not_waited_for() {
    let mut image = image(3, &[&[1, 2]]);
    reassign_to(&mut image, 9, &[2, 3]).expect("all are alive");
    step(&mut image, 0, 9, Step::Reached).expect("it is this move");
    reassign_to(&mut image, 10, &[1, 2]).expect("it waits");
    let all = CancelMovesRequest { partitions: Vec::new() };
    carry_out(&mut image, MoveCommand::Cancel(MoveId(11), all)).expect("always");
    assert_eq!(replicas(&image, 0), brokers(&[2, 3]));
    assert!(stages(&image).is_empty());
    let gone = BrokerRecord::Remove { node: NodeId(1), directory: directory(1) };
    image.apply(&MetadataRecord::Broker(gone)).expect("it hosts nothing");
    let topic = image.topic(topic()).expect("made above");
    assert!(!topic.is_dropped(PartitionId(0), NodeId(1)));
}

#[test]
fn what_waits_to_move_counts_where_it_goes() {
    // Ten partitions on broker 1; eight of the moves to broker 2 begin, two wait.
    let mut image = image(4, &[&[1][..]; 10]);
    reassign_to(&mut image, 1, &[2]).expect("all are alive");
    assert_eq!(stages(&image).iter().filter(|stage| **stage == MoveStage::Waiting).count(), 2);
    let load: Vec<_> = crate::controller::placement::candidates(&image)
        .into_iter()
        .map(|candidate| (candidate.replicas, candidate.leaders))
        .collect();
    assert_eq!(load, [(0, 0), (10, 10), (0, 0), (0, 0)]);
    let planner = Planner::new(&image);
    assert_eq!(
        planner.best(
            (image.topic(topic()).expect("made above"), PartitionId(0)),
            &brokers(&[3]),
            None
        ),
        Some(NodeId(4)),
        "the other even one is full"
    );
    assert_eq!(planner.held.get(&NodeId(1)), None);
}
