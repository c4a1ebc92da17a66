//! What records make of an image, and which of them it refuses.

use highwater_protocol::ids::Incarnation;
use uuid::Uuid;

use super::*;

fn id(n: u128) -> TopicId {
    TopicId(Uuid::from_u128(n))
}

fn register(node: u32, incarnation: u64) -> MetadataRecord {
    MetadataRecord::RegisterBroker(BrokerRegistration {
        node: NodeId(node),
        incarnation: Incarnation(incarnation),
        directory: DirectoryId(Uuid::from_u128(u128::from(node))),
        rack: Some("a".into()),
        client_address: format!("b{node}:9092"),
        peer_address: format!("b{node}:9093"),
    })
}

fn topic(n: u128, name: &str) -> MetadataRecord {
    MetadataRecord::CreateTopic { id: id(n), name: name.into(), configs: Vec::new() }
}

fn partitions(n: u128, first: u32, count: usize) -> MetadataRecord {
    let replica = PlacedReplica { node: NodeId(1), directory: DirectoryId(Uuid::from_u128(1)) };
    MetadataRecord::CreatePartitions {
        topic: id(n),
        first: PartitionId(first),
        partitions: vec![vec![replica]; count],
    }
}

fn image(records: &[MetadataRecord]) -> ClusterImage {
    let mut image = ClusterImage::default();
    for record in records {
        image.apply(record).expect("the records fit each other");
    }
    image
}

#[test]
fn an_image_made_from_its_own_records_is_the_same() {
    let fence = MetadataRecord::FenceBroker { node: NodeId(2), fenced: true };
    let delete = MetadataRecord::DeleteTopic { id: id(8) };
    let configs = vec![("retention.ms".to_string(), "5000".to_string())];
    let alter = MetadataRecord::AlterTopic { id: id(7), configs };
    let made = image(&[
        register(1, 1),
        register(2, 1),
        fence,
        topic(7, "a"),
        partitions(7, 0, 2),
        partitions(7, 2, 1),
        topic(8, "b"),
        partitions(8, 0, 4),
        alter,
        delete,
    ]);
    assert_eq!(image(&made.to_records()), made);
    assert_eq!(made.records(), made.to_records().len() as u64);
    let mut other = image(&[topic(9, "z"), register(3, 1)]);
    other.apply(&MetadataRecord::BeginImage).expect("it always fits");
    for record in made.to_records() {
        other.apply(&record).expect("the records fit each other");
    }
    assert_eq!(other, made, "whatever was before");
    assert_eq!(made.partitions(), 3);
    assert_eq!(made.topic_named("a").map(|topic| topic.config.retention_ms), Some(Some(5000)));
    assert!(made.topic_named("b").is_none());
    assert!(made.is_deleted(id(8)));
}

#[test]
fn a_broker_that_registers_again_is_no_longer_fenced() {
    let fence = MetadataRecord::FenceBroker { node: NodeId(1), fenced: true };
    let made = image(&[register(1, 1), fence, register(1, 2)]);
    assert!(!made.broker(NodeId(1)).expect("registered above").fenced);
}

#[test]
fn a_record_that_does_not_fit_is_refused() {
    let made = image(&[register(1, 1), topic(7, "a"), partitions(7, 0, 2)]);
    let unfit = [
        MetadataRecord::FenceBroker { node: NodeId(2), fenced: true },
        topic(9, "a"),
        topic(7, "b"),
        partitions(7, 3, 1),
        partitions(9, 0, 1),
        MetadataRecord::AlterTopic { id: id(9), configs: Vec::new() },
    ];
    for record in unfit {
        assert!(made.clone().apply(&record).is_err(), "{record:?}");
    }
}

#[test]
fn a_deleted_topic_frees_its_name() {
    let delete = MetadataRecord::DeleteTopic { id: id(7) };
    let made = image(&[topic(7, "a"), delete, topic(9, "a")]);
    assert_eq!(made.topic_named("a").map(|topic| topic.id), Some(id(9)));
}
