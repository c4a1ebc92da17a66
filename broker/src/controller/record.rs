//! The records of the controller's log, and how they lie in bytes.
//!
//! A record is a type and a version, the fields of that version, and a section of tagged fields (none
//! today) that older builds skip. A type or version that this build does not know is refused: going
//! on without it would make this broker's image differ from the others'. New kinds of change (moves,
//! drains, settings) get new types or versions; numbers are never reused.

use bytes::Bytes;
use highwater_protocol::ids::{DirectoryId, Incarnation, NodeId, PartitionId, TopicId};
use highwater_protocol::native::settings::SettingScope;
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use uuid::Uuid;

use crate::controller::brokers::BrokerRecord;
use crate::controller::moves::MoveRecord;
use crate::controller::recover::RecoverRecord;
use crate::controller::throttle::{THROTTLE, ThrottleRecord};

/// One change of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A broker starts a life, or says something new of itself; it is not fenced from here on.
    RegisterBroker(BrokerRegistration),
    /// The controller has lost touch with a broker, or found it again.
    FenceBroker {
        /// Which broker.
        node: NodeId,
        /// Whether it is fenced from here on.
        fenced: bool,
    },
    /// A topic begins, without partitions.
    CreateTopic {
        /// Its id.
        id: TopicId,
        /// Its name.
        name: String,
        /// The settings given, by name.
        configs: Vec<(String, String)>,
    },
    /// A topic gets partitions: one record for a whole run of them, so that a topic begins at once.
    CreatePartitions {
        /// Which topic.
        topic: TopicId,
        /// The first new partition; always the next one.
        first: PartitionId,
        /// The replicas of each, the preferred leader first.
        partitions: Vec<Vec<PlacedReplica>>,
    },
    /// The tombstone of a topic: the one thing that deletes data.
    DeleteTopic {
        /// Which topic.
        id: TopicId,
    },
    /// The records of this one's batch that follow make the whole image anew: whoever begins here
    /// needs nothing of what was before.
    BeginImage,
    /// A topic's settings become these, as a whole.
    AlterTopic {
        /// Which topic.
        id: TopicId,
        /// All settings given, by name.
        configs: Vec<(String, String)>,
    },
    /// A partition's replicas move to other brokers.
    Move(MoveRecord),
    /// A partition begins anew from one replica.
    Recover(RecoverRecord),
    /// A broker gets another duty, or is taken out.
    Broker(BrokerRecord),
    /// How fast moves may copy.
    Throttle(ThrottleRecord),
    /// The settings of the cluster, or of a broker, become these, as a whole.
    AlterSettings {
        /// Whose.
        scope: SettingScope,
        /// All settings given, by name.
        configs: Vec<(String, String)>,
    },
}

/// What a broker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// Its id.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its data directory.
    pub directory: DirectoryId,
    /// Its failure domain.
    pub rack: Option<String>,
    /// Where clients reach it, `host:port`.
    pub client_address: String,
    /// Where other brokers reach it, `host:port`.
    pub peer_address: String,
}

/// A replica where it was placed: a broker, and the data directory that the broker had then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlacedReplica {
    /// The broker.
    pub node: NodeId,
    /// Its data directory at that time; under another one the replica has lost its memory.
    pub directory: DirectoryId,
}

/// Why bytes are no record that this build understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer build.
    #[error(
        "metadata record of type {kind} version {version} is not known to this build: a newer broker \
         wrote it; start a build that is at least as new"
    )]
    Unknown {
        /// Its type.
        kind: u16,
        /// Its version.
        version: u8,
    },
    /// Not as its type and version say.
    #[error("metadata record of type {kind} version {version}: {why}")]
    Malformed {
        /// Its type.
        kind: u16,
        /// Its version.
        version: u8,
        /// What is wrong.
        why: DecodeError,
    },
    /// Too short to have a type and a version.
    #[error("metadata record: {0}")]
    NoType(DecodeError),
}

impl MetadataRecord {
    /// The record as a record's value.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        out.u16(self.kind());
        out.u8(VERSION);
        match self {
            MetadataRecord::RegisterBroker(registration) => registration.encode(&mut out),
            MetadataRecord::FenceBroker { node, fenced } => {
                out.u32(node.0);
                out.u8(u8::from(*fenced));
            }
            MetadataRecord::CreateTopic { id, name, configs } => {
                out.u128(id.0.as_u128());
                out.text(name);
                put_configs(configs, &mut out);
            }
            MetadataRecord::CreatePartitions { topic, first, partitions } => {
                out.u128(topic.0.as_u128());
                out.u32(first.0);
                put_partitions(partitions, &mut out);
            }
            MetadataRecord::DeleteTopic { id } => out.u128(id.0.as_u128()),
            MetadataRecord::BeginImage => {}
            MetadataRecord::AlterTopic { id, configs } => {
                out.u128(id.0.as_u128());
                put_configs(configs, &mut out);
            }
            MetadataRecord::Move(change) => change.encode(&mut out),
            MetadataRecord::Recover(change) => change.encode(&mut out),
            MetadataRecord::Broker(change) => change.encode(&mut out),
            MetadataRecord::Throttle(throttle) => throttle.encode(&mut out),
            MetadataRecord::AlterSettings { scope, configs } => {
                scope.encode(&mut out);
                put_configs(configs, &mut out);
            }
        }
        out.no_tagged_fields();
        out.finish()
    }

    /// Reads a record's value, whatever it is.
    pub fn decode(bytes: &[u8]) -> Result<MetadataRecord, RecordError> {
        let mut input = Reader::new(bytes);
        let kind = input.u16().map_err(RecordError::NoType)?;
        let version = input.u8().map_err(RecordError::NoType)?;
        let known = kind == THROTTLE
            || (MoveRecord::LATER_MIN..=MoveRecord::LATER_MAX).contains(&kind)
            || KINDS.contains(&kind)
            || (MoveRecord::KIND_MIN..=MoveRecord::KIND_MAX).contains(&kind)
            || (RecoverRecord::KIND_MIN..=RecoverRecord::KIND_MAX).contains(&kind)
            || (BrokerRecord::KIND_MIN..=BrokerRecord::KIND_MAX).contains(&kind);
        if version != VERSION || !known {
            return Err(RecordError::Unknown { kind, version });
        }
        let record = MetadataRecord::decode_body(kind, &mut input).and_then(|record| {
            input.tagged_fields()?;
            input.end()?;
            Ok(record)
        });
        record.map_err(|why| RecordError::Malformed { kind, version, why })
    }

    fn decode_body(kind: u16, input: &mut Reader<'_>) -> Result<MetadataRecord, DecodeError> {
        Ok(match kind {
            REGISTER_BROKER => MetadataRecord::RegisterBroker(BrokerRegistration::decode(input)?),
            FENCE_BROKER => MetadataRecord::FenceBroker {
                node: NodeId(input.u32()?),
                fenced: match input.u8()? {
                    0 => false,
                    1 => true,
                    found => {
                        return Err(DecodeError::Invalid { what: "fenced", found: found.into() });
                    }
                },
            },
            CREATE_TOPIC => MetadataRecord::CreateTopic {
                id: TopicId(Uuid::from_u128(input.u128()?)),
                name: input.text("a topic's name")?,
                configs: get_configs(input)?,
            },
            CREATE_PARTITIONS => MetadataRecord::CreatePartitions {
                topic: TopicId(Uuid::from_u128(input.u128()?)),
                first: PartitionId(input.u32()?),
                partitions: get_partitions(input)?,
            },
            BEGIN_IMAGE => MetadataRecord::BeginImage,
            ALTER_TOPIC => MetadataRecord::AlterTopic {
                id: TopicId(Uuid::from_u128(input.u128()?)),
                configs: get_configs(input)?,
            },
            THROTTLE => MetadataRecord::Throttle(ThrottleRecord::decode(input)?),
            MoveRecord::KIND_MIN..=MoveRecord::KIND_MAX
            | MoveRecord::LATER_MIN..=MoveRecord::LATER_MAX => {
                MetadataRecord::Move(MoveRecord::decode(kind, input)?)
            }
            RecoverRecord::KIND_MIN..=RecoverRecord::KIND_MAX => {
                MetadataRecord::Recover(RecoverRecord::decode(kind, input)?)
            }
            BrokerRecord::KIND_MIN..=BrokerRecord::KIND_MAX => {
                MetadataRecord::Broker(BrokerRecord::decode(kind, input)?)
            }
            ALTER_SETTINGS => MetadataRecord::AlterSettings {
                scope: SettingScope::decode(input)?,
                configs: get_configs(input)?,
            },
            _ => MetadataRecord::DeleteTopic { id: TopicId(Uuid::from_u128(input.u128()?)) },
        })
    }

    fn kind(&self) -> u16 {
        match self {
            MetadataRecord::RegisterBroker(_) => REGISTER_BROKER,
            MetadataRecord::FenceBroker { .. } => FENCE_BROKER,
            MetadataRecord::CreateTopic { .. } => CREATE_TOPIC,
            MetadataRecord::CreatePartitions { .. } => CREATE_PARTITIONS,
            MetadataRecord::DeleteTopic { .. } => DELETE_TOPIC,
            MetadataRecord::BeginImage => BEGIN_IMAGE,
            MetadataRecord::AlterTopic { .. } => ALTER_TOPIC,
            MetadataRecord::Move(change) => change.kind(),
            MetadataRecord::Recover(change) => change.kind(),
            MetadataRecord::Broker(change) => change.kind(),
            MetadataRecord::Throttle(_) => THROTTLE,
            MetadataRecord::AlterSettings { .. } => ALTER_SETTINGS,
        }
    }
}

impl BrokerRegistration {
    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        out.u32(self.node.0);
        out.u64(self.incarnation.0);
        out.u128(self.directory.0.as_u128());
        out.optional(self.rack.as_deref(), Writer::text);
        out.text(&self.client_address);
        out.text(&self.peer_address);
    }

    /// Reads what `encode` wrote.
    pub fn decode(input: &mut Reader<'_>) -> Result<BrokerRegistration, DecodeError> {
        Ok(BrokerRegistration {
            node: NodeId(input.u32()?),
            incarnation: Incarnation(input.u64()?),
            directory: DirectoryId(Uuid::from_u128(input.u128()?)),
            rack: input.optional("a rack", |input| input.text("a rack"))?,
            client_address: input.text("an address")?,
            peer_address: input.text("an address")?,
        })
    }
}

/// Settings by name, as records and commands have them.
pub(super) fn put_configs(configs: &[(String, String)], out: &mut Writer) {
    out.list(configs, |out, (name, value)| {
        out.text(name);
        out.text(value);
    });
}

/// Reads what `put_configs` wrote.
pub(super) fn get_configs(input: &mut Reader<'_>) -> Result<Vec<(String, String)>, DecodeError> {
    input.list("settings", 2, |input| Ok((input.text("a setting")?, input.text("a value")?)))
}

/// Each replica once in a table, then for each partition the places in it: a topic of ten thousand
/// partitions must fit into one record.
fn put_partitions(partitions: &[Vec<PlacedReplica>], out: &mut Writer) {
    let mut table: Vec<PlacedReplica> = partitions.iter().flatten().copied().collect();
    table.sort();
    table.dedup();
    out.list(&table, |out, replica| {
        out.u32(replica.node.0);
        out.u128(replica.directory.0.as_u128());
    });
    out.list(partitions, |out, replicas| {
        out.list(replicas, |out, replica| {
            out.uvarint(table.binary_search(replica).expect("gathered above") as u64);
        });
    });
}

fn get_partitions(input: &mut Reader<'_>) -> Result<Vec<Vec<PlacedReplica>>, DecodeError> {
    let table = input.list("replicas", 20, |input| {
        let node = NodeId(input.u32()?);
        Ok(PlacedReplica { node, directory: DirectoryId(Uuid::from_u128(input.u128()?)) })
    })?;
    let place = |input: &mut Reader<'_>| {
        let found = input.uvarint()?;
        let replica = usize::try_from(found).ok().and_then(|place| table.get(place)).copied();
        replica.ok_or(DecodeError::Invalid { what: "a replica's place in the table", found })
    };
    input.list("partitions", 1, |input| input.list("replicas of a partition", 1, place))
}

const VERSION: u8 = 0;
const REGISTER_BROKER: u16 = 1;
const FENCE_BROKER: u16 = 2;
const CREATE_TOPIC: u16 = 3;
const CREATE_PARTITIONS: u16 = 4;
const DELETE_TOPIC: u16 = 5;
const BEGIN_IMAGE: u16 = 6;
const ALTER_TOPIC: u16 = 20;
const ALTER_SETTINGS: u16 = 35;
const KINDS: &[u16] = &[
    REGISTER_BROKER,
    FENCE_BROKER,
    CREATE_TOPIC,
    CREATE_PARTITIONS,
    DELETE_TOPIC,
    BEGIN_IMAGE,
    ALTER_TOPIC,
    ALTER_SETTINGS,
];

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn uuid() -> impl Strategy<Value = Uuid> {
        any::<u128>().prop_map(Uuid::from_u128)
    }

    fn registration() -> impl Strategy<Value = BrokerRegistration> {
        let text = || ".{0,20}";
        (any::<u32>(), any::<u64>(), uuid(), proptest::option::of(text()), text(), text()).prop_map(
            |(node, incarnation, directory, rack, client_address, peer_address)| {
                BrokerRegistration {
                    node: NodeId(node),
                    incarnation: Incarnation(incarnation),
                    directory: DirectoryId(directory),
                    rack,
                    client_address,
                    peer_address,
                }
            },
        )
    }

    fn record() -> impl Strategy<Value = MetadataRecord> {
        let replica = (0u32..50, uuid()).prop_map(|(node, directory)| PlacedReplica {
            node: NodeId(node),
            directory: DirectoryId(directory),
        });
        prop_oneof![
            registration().prop_map(MetadataRecord::RegisterBroker),
            (any::<u32>(), any::<bool>()).prop_map(|(node, fenced)| MetadataRecord::FenceBroker {
                node: NodeId(node),
                fenced
            }),
            (uuid(), ".{0,30}", vec((".{0,9}", ".{0,9}"), 0..4)).prop_map(|(id, name, configs)| {
                MetadataRecord::CreateTopic { id: TopicId(id), name, configs }
            }),
            (uuid(), any::<u32>(), vec(vec(replica, 0..6), 0..20)).prop_map(
                |(topic, first, partitions)| {
                    MetadataRecord::CreatePartitions {
                        topic: TopicId(topic),
                        first: PartitionId(first),
                        partitions,
                    }
                }
            ),
            uuid().prop_map(|id| MetadataRecord::DeleteTopic { id: TopicId(id) }),
            Just(MetadataRecord::BeginImage),
            (uuid(), vec((".{0,9}", ".{0,9}"), 0..4))
                .prop_map(|(id, configs)| MetadataRecord::AlterTopic { id: TopicId(id), configs }),
            (".{0,9}", vec((".{0,9}", ".{0,9}"), 0..4)).prop_map(|(client, configs)| {
                MetadataRecord::AlterSettings { scope: SettingScope::Client(client), configs }
            }),
            (proptest::option::of(any::<u32>()), vec((".{0,9}", ".{0,9}"), 0..4)).prop_map(
                |(node, configs)| {
                    let broker = |node| SettingScope::Broker(NodeId(node));
                    let scope = node.map_or(SettingScope::Cluster, broker);
                    MetadataRecord::AlterSettings { scope, configs }
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(record in record()) {
            prop_assert_eq!(MetadataRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), kind in 0u16..50) {
            let _ = MetadataRecord::decode(&bytes);
            let mut typed = MetadataRecord::DeleteTopic { id: TopicId(Uuid::nil()) }.encode()[..3].to_vec();
            typed[..2].copy_from_slice(&(kind.to_be_bytes()));
            typed.extend_from_slice(&bytes);
            let _ = MetadataRecord::decode(&typed);
        }

        #[test]
        fn a_record_cut_short_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
            let bytes = record.encode();
            prop_assert!(MetadataRecord::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn a_record_of_a_newer_build_says_so() {
        let mut bytes = MetadataRecord::DeleteTopic { id: TopicId(Uuid::nil()) }.encode().to_vec();
        bytes[2] = 9;
        let error = MetadataRecord::decode(&bytes).expect_err("version 9 is not known");
        assert_eq!(error, RecordError::Unknown { kind: DELETE_TOPIC, version: 9 });
        assert!(error.to_string().contains("start a build that is at least as new"));
    }

    #[test]
    fn tagged_fields_of_a_newer_build_are_skipped() {
        let record = MetadataRecord::DeleteTopic { id: TopicId(Uuid::nil()) };
        let plain = record.encode();
        let mut bytes = plain[..plain.len() - 1].to_vec();
        bytes.extend_from_slice(&[1, 7, 2, 0xAA, 0xBB]);
        assert_eq!(MetadataRecord::decode(&bytes), Ok(record));
    }

    #[test]
    fn ten_thousand_partitions_fit_into_one_batch() {
        let replica =
            |node| PlacedReplica { node: NodeId(node), directory: DirectoryId(Uuid::from_u128(9)) };
        let partitions = vec![vec![replica(1), replica(2), replica(3)]; 10_000];
        let record = MetadataRecord::CreatePartitions {
            topic: TopicId(Uuid::nil()),
            first: PartitionId(0),
            partitions,
        };
        assert!(record.encode().len() < 100_000);
    }
}
