//! What the controller decides, command by command.

use highwater_protocol::ids::{DirectoryId, Incarnation};
use uuid::Uuid;

use super::*;

const NOW: Millis = Millis(1_000);

fn registration(node: u32) -> BrokerRegistration {
    BrokerRegistration {
        node: NodeId(node),
        incarnation: Incarnation(5),
        directory: DirectoryId(Uuid::from_u128(u128::from(node))),
        rack: None,
        client_address: format!("b{node}:9092"),
        peer_address: format!("b{node}:9092"),
    }
}

fn controller() -> Controller {
    Controller::new(NodeId(1), &[NodeId(1)], 3_000, Millis(0))
}

fn cluster(brokers: u32) -> ClusterImage {
    let mut image = ClusterImage::default();
    for node in 1..=brokers {
        image.apply(&MetadataRecord::RegisterBroker(registration(node))).expect("fits");
    }
    image
}

fn request(name: &str, partitions: u32, replication: Option<u8>) -> CreateTopicRequest {
    CreateTopicRequest {
        name: name.into(),
        partitions,
        replication,
        configs: Vec::new(),
        dry_run: DryRun::No,
    }
}

fn create(id: u128, request: CreateTopicRequest) -> Command {
    Command::CreateTopic { id: TopicId(Uuid::from_u128(id)), request }
}

/// Decides, and applies as if committed.
fn carry_out(image: &mut ClusterImage, command: Command) -> Result<Decision, WireError> {
    let decision = controller().decide(image, command, NOW)?;
    for record in &decision.0 {
        image.apply(record).expect("a decision fits the image it was made on");
    }
    Ok(decision)
}

fn refused(brokers: u32, request: CreateTopicRequest) -> WireError {
    carry_out(&mut cluster(brokers), create(7, request)).expect_err("it breaks a rule")
}

#[test]
fn a_topic_is_made_with_three_replicas_where_there_are_three_brokers() {
    let mut image = cluster(4);
    carry_out(&mut image, create(7, request("orders", 12, None))).expect("all is well");
    let topic = image.topic_named("orders").expect("just made");
    assert_eq!(topic.partitions.len(), 12);
    for replicas in &topic.partitions {
        assert_eq!(replicas.len(), 3);
        assert!(replicas.iter().all(|r| Some(r.directory) == image.directory_of(r.node)));
    }
    let mut single = cluster(1);
    carry_out(&mut single, create(7, request("orders", 1, None))).expect("one broker is enough");
}

#[test]
fn a_command_that_comes_twice_gets_the_same_answer_and_changes_nothing() {
    let mut image = cluster(3);
    let first = carry_out(&mut image, create(7, request("a", 5, Some(2)))).expect("all is well");
    let again = carry_out(&mut image, create(7, request("a", 5, Some(2)))).expect("its own topic");
    assert_eq!((again.0, again.1), (Vec::new(), first.1));
    let other = carry_out(&mut image, create(8, request("a", 5, Some(2)))).expect_err("taken");
    assert_eq!(other.code, ErrorCode::TopicExists);
}

#[test]
fn a_dry_run_checks_and_places_and_changes_nothing() {
    let dry = CreateTopicRequest { dry_run: DryRun::Yes, ..request("a", 5, Some(2)) };
    let (records, reply) = carry_out(&mut cluster(3), create(7, dry)).expect("all is well");
    assert_eq!(records, []);
    let CommandReply::TopicCreated(created) = reply else {
        panic!("not the reply to a create: {reply:?}")
    };
    assert_eq!(created.replicas.len(), 5);
    let dry = CreateTopicRequest { dry_run: DryRun::Yes, ..request("a", 5, Some(4)) };
    assert_eq!(refused(3, dry).code, ErrorCode::InvalidReplicationFactor);
}

#[test]
fn more_replicas_than_living_brokers_are_refused_with_their_number() {
    let error = refused(2, request("a", 1, Some(3)));
    assert_eq!(error.code, ErrorCode::InvalidReplicationFactor);
    assert!(error.detail.contains("2 brokers are alive"), "{}", error.detail);
    assert_eq!(refused(3, request("a", 1, Some(0))).code, ErrorCode::InvalidReplicationFactor);
    let mut image = cluster(3);
    image.apply(&MetadataRecord::FenceBroker { node: NodeId(3), fenced: true }).expect("fits");
    let error =
        carry_out(&mut image, create(7, request("a", 1, Some(3)))).expect_err("one is fenced");
    assert!(error.detail.contains("2 brokers are alive"), "{}", error.detail);
}

#[test]
fn bounds_on_partitions_hold() {
    assert_eq!(refused(1, request("a", 0, None)).code, ErrorCode::InvalidPartitions);
    assert_eq!(refused(1, request("a", 10_001, None)).code, ErrorCode::InvalidPartitions);
    let mut image = cluster(1);
    for topic in 0..10 {
        carry_out(&mut image, create(topic, request(&format!("t{topic}"), 10_000, None)))
            .expect("fits");
    }
    let error = carry_out(&mut image, create(99, request("a", 1, None))).expect_err("full");
    assert!(error.detail.contains("has 100000"), "{}", error.detail);
}

#[test]
fn names_and_settings_are_checked() {
    assert_eq!(refused(1, request("a/b", 1, None)).code, ErrorCode::InvalidTopic);
    let min = |value: &str| vec![("min.insync.replicas".to_string(), value.to_string())];
    let too_many = CreateTopicRequest { configs: min("3"), ..request("a", 1, Some(2)) };
    assert_eq!(refused(3, too_many).code, ErrorCode::InvalidConfig);
    let enough = CreateTopicRequest { configs: min("2"), ..request("a", 1, Some(2)) };
    carry_out(&mut cluster(3), create(7, enough)).expect("two of two");
}

#[test]
fn a_deleted_topic_leaves_a_tombstone() {
    let mut image = cluster(1);
    carry_out(&mut image, create(7, request("a", 1, None))).expect("all is well");
    let id = TopicId(Uuid::from_u128(7));
    let delete = |id| Command::DeleteTopic { name: "a".into(), id };
    carry_out(&mut image, delete(None)).expect("it exists");
    assert!(image.is_deleted(id));
    let error = carry_out(&mut image, delete(None)).expect_err("it is gone");
    assert_eq!(error.code, ErrorCode::UnknownTopicOrPartition);
    let again = carry_out(&mut image, delete(Some(id))).expect("the answer was lost, say");
    assert_eq!(again, (Vec::new(), CommandReply::TopicDeleted { id }));
}

#[test]
fn a_protected_topic_is_not_deleted_until_its_guard_is_off() {
    let mut image = ClusterImage::default();
    let id = TopicId(Uuid::from_u128(7));
    let configs = |value: &str| vec![("delete.protection".to_string(), value.to_string())];
    let create = MetadataRecord::CreateTopic { id, name: "a".into(), configs: configs("on") };
    image.apply(&create).expect("fits");
    let delete = Command::DeleteTopic { name: "a".into(), id: None };
    let error = carry_out(&mut image, delete.clone()).expect_err("it is protected");
    assert_eq!(error.code, ErrorCode::TopicProtected);
    assert!(error.detail.contains("hw topic alter a delete.protection=off"), "{error}");
    image.apply(&MetadataRecord::AlterTopic { id, configs: configs("off") }).expect("fits");
    carry_out(&mut image, delete).expect("the guard is off");
}

#[test]
fn a_delete_never_hits_a_later_topic_of_the_same_name() {
    let mut image = cluster(1);
    carry_out(&mut image, create(8, request("a", 1, None))).expect("all is well");
    let stale = Command::DeleteTopic { name: "a".into(), id: Some(TopicId(Uuid::from_u128(7))) };
    carry_out(&mut image, stale).expect_err("that one is not here");
    assert!(image.topic_named("a").is_some());
}

#[test]
fn a_broker_registers_once_a_life() {
    let mut image = cluster(0);
    let (records, _) = carry_out(&mut image, Command::Register(registration(1))).expect("new");
    assert_eq!(records.len(), 1);
    let (records, _) = carry_out(&mut image, Command::Register(registration(1))).expect("repeated");
    assert_eq!(records, []);
    let next = BrokerRegistration { incarnation: Incarnation(6), ..registration(1) };
    let (records, _) = carry_out(&mut image, Command::Register(next)).expect("a new life");
    assert_eq!(records.len(), 1);
    let error = carry_out(&mut image, Command::Register(registration(1))).expect_err("an old life");
    assert!(error.detail.contains("copied or restored"), "{}", error.detail);
}

#[test]
fn a_node_id_passes_to_another_directory_only_when_the_first_is_gone() {
    let mut image = cluster(2);
    let other =
        BrokerRegistration { directory: DirectoryId(Uuid::from_u128(99)), ..registration(2) };
    let error = carry_out(&mut image, Command::Register(other.clone())).expect_err("it is alive");
    assert!(
        error.detail.contains("node id 2 belongs to the broker at b2:9092"),
        "{}",
        error.detail
    );
    image.apply(&MetadataRecord::FenceBroker { node: NodeId(2), fenced: true }).expect("fits");
    carry_out(&mut image, Command::Register(other)).expect("the first is fenced");
    assert_eq!(image.directory_of(NodeId(2)), Some(DirectoryId(Uuid::from_u128(99))));
}
