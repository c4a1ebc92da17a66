//! What the controller can be asked, as brokers pass it on to each other.
//!
//! Requests of clients come with everything that must not be decided twice: the id of a new topic is
//! drawn by the broker that took the request, so that a command which is sent again after its answer
//! was lost finds its own topic and not a stranger's.

use bytes::Bytes;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{NodeId, TopicId};
use highwater_protocol::native::admin::{CreateTopicRequest, CreateTopicResponse, DryRun};
use highwater_protocol::native::alter::{
    AlterTopicRequest, AlterTopicResponse, CreatePartitionsRequest, CreatePartitionsResponse,
};
use highwater_protocol::native::moves::PlannedMove;
use highwater_protocol::native::settings::{AlterSettingsRequest, AlterSettingsResponse};
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use uuid::Uuid;

use crate::controller::brokers::{BrokerCommand, BrokerReply};
use crate::controller::loads::LoadReport;
use crate::controller::moves::{self, MoveCommand};
use crate::controller::record::{BrokerRegistration, get_configs, put_configs};

/// Something to be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A broker starts a life, or repeats that it lives.
    Register(BrokerRegistration),
    /// Make a topic under this id.
    CreateTopic {
        /// The id, if the name is free.
        id: TopicId,
        /// What is wanted.
        request: CreateTopicRequest,
    },
    /// Make the topic that keeps the consumer groups, unless it is there.
    CreateGroupsTopic {
        /// The id, if there is none yet.
        id: TopicId,
    },
    /// Delete a topic by name.
    DeleteTopic {
        /// Its name.
        name: String,
        /// Its id, where the broker that took the request knows it: a topic of that name made
        /// later is then left alone.
        id: Option<TopicId>,
    },
    /// Change the settings of a topic.
    AlterTopic {
        /// Its id, where the broker that took the request knows it, as in `DeleteTopic`.
        id: Option<TopicId>,
        /// What is wanted.
        request: AlterTopicRequest,
    },
    /// Add partitions to a topic.
    CreatePartitions {
        /// Its id, where the broker that took the request knows it, as in `DeleteTopic`.
        id: Option<TopicId>,
        /// What is wanted.
        request: CreatePartitionsRequest,
    },
    /// Something about moves of replicas.
    Moves(MoveCommand),
    /// Something about brokers that come and go.
    Brokers(BrokerCommand),
    /// Change the settings of the cluster or of a broker.
    AlterSettings(AlterSettingsRequest),
    /// Know what a broker's partitions weigh: nothing is decided.
    Loads(LoadReport),
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandReply {
    /// The broker is registered in this life.
    Registered,
    /// The topic exists, or would.
    TopicCreated(CreateTopicResponse),
    /// The topic is deleted.
    TopicDeleted {
        /// It had this id.
        id: TopicId,
    },
    /// The topic has these settings, or would.
    TopicAltered(AlterTopicResponse),
    /// The topic has these partitions more, or would.
    PartitionsCreated(CreatePartitionsResponse),
    /// The moves that the command was about.
    Moves(Vec<PlannedMove>),
    /// What became of a command about brokers.
    Broker(BrokerReply),
    /// The settings are so, or would be.
    SettingsAltered(AlterSettingsResponse),
    /// The loads are known.
    LoadsHeard,
}

impl Command {
    /// The command as it travels.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            Command::Register(registration) => {
                put_head(REGISTER, &mut out);
                registration.encode(&mut out);
            }
            Command::CreateTopic { id, request } => {
                put_head(CREATE_TOPIC, &mut out);
                out.u128(id.0.as_u128());
                put_create_topic(request, &mut out);
            }
            Command::CreateGroupsTopic { id } => {
                put_head(CREATE_GROUPS_TOPIC, &mut out);
                out.u128(id.0.as_u128());
            }
            Command::DeleteTopic { name, id } => {
                put_head(DELETE_TOPIC, &mut out);
                out.text(name);
                put_id(*id, &mut out);
            }
            Command::AlterTopic { id, request } => {
                put_head(ALTER_TOPIC, &mut out);
                put_id(*id, &mut out);
                request.encode(&mut out);
            }
            Command::CreatePartitions { id, request } => {
                put_head(CREATE_PARTITIONS, &mut out);
                put_id(*id, &mut out);
                request.encode(&mut out);
            }
            Command::Moves(command) => {
                put_head(command.kind(), &mut out);
                command.encode(&mut out);
            }
            Command::Brokers(command) => {
                put_head(command.kind(), &mut out);
                command.encode(&mut out);
            }
            Command::AlterSettings(request) => {
                put_head(ALTER_SETTINGS, &mut out);
                request.encode(&mut out);
            }
            Command::Loads(report) => {
                put_head(LOADS, &mut out);
                report.encode(&mut out);
            }
        }
        out.no_tagged_fields();
        out.finish()
    }

    /// Reads a command of another broker.
    pub fn decode(bytes: &[u8]) -> Result<Command, WireError> {
        read("controller command", bytes, |kind, input| {
            Ok(Some(match kind {
                REGISTER => Command::Register(BrokerRegistration::decode(input)?),
                CREATE_TOPIC => Command::CreateTopic {
                    id: TopicId(Uuid::from_u128(input.u128()?)),
                    request: get_create_topic(input)?,
                },
                CREATE_GROUPS_TOPIC => {
                    Command::CreateGroupsTopic { id: TopicId(Uuid::from_u128(input.u128()?)) }
                }
                DELETE_TOPIC => {
                    Command::DeleteTopic { name: input.text("a topic's name")?, id: get_id(input)? }
                }
                ALTER_TOPIC => Command::AlterTopic {
                    id: get_id(input)?,
                    request: AlterTopicRequest::decode(input)?,
                },
                CREATE_PARTITIONS => Command::CreatePartitions {
                    id: get_id(input)?,
                    request: CreatePartitionsRequest::decode(input)?,
                },
                ALTER_SETTINGS => Command::AlterSettings(AlterSettingsRequest::decode(input)?),
                LOADS => Command::Loads(LoadReport::decode(input)?),
                other => {
                    let command = MoveCommand::decode(other, input)?.map(Command::Moves);
                    return Ok(match command {
                        Some(command) => Some(command),
                        None => BrokerCommand::decode(other, input)?.map(Command::Brokers),
                    });
                }
            }))
        })
    }
}

impl CommandReply {
    /// The reply as it travels.
    pub fn encode(&self) -> Bytes {
        let mut out = Writer::new();
        match self {
            CommandReply::Registered => put_head(REGISTER, &mut out),
            CommandReply::TopicCreated(created) => {
                put_head(CREATE_TOPIC, &mut out);
                out.u128(created.id.0.as_u128());
                out.list(&created.replicas, |out, replicas| {
                    out.list(replicas, |out, node| out.u32(node.0));
                });
            }
            CommandReply::TopicDeleted { id } => {
                put_head(DELETE_TOPIC, &mut out);
                out.u128(id.0.as_u128());
            }
            CommandReply::TopicAltered(altered) => {
                put_head(ALTER_TOPIC, &mut out);
                altered.encode(&mut out);
            }
            CommandReply::PartitionsCreated(created) => {
                put_head(CREATE_PARTITIONS, &mut out);
                created.encode(&mut out);
            }
            CommandReply::Moves(planned) => {
                put_head(moves::MOVES_REPLY, &mut out);
                moves::put_reply(planned, &mut out);
            }
            CommandReply::Broker(reply) => {
                put_head(reply.kind(), &mut out);
                reply.encode(&mut out);
            }
            CommandReply::SettingsAltered(altered) => {
                put_head(ALTER_SETTINGS, &mut out);
                altered.encode(&mut out);
            }
            CommandReply::LoadsHeard => put_head(LOADS, &mut out),
        }
        out.no_tagged_fields();
        out.finish()
    }

    /// Reads the controller's reply.
    pub fn decode(bytes: &[u8]) -> Result<CommandReply, WireError> {
        read("controller reply", bytes, |kind, input| {
            Ok(Some(match kind {
                REGISTER => CommandReply::Registered,
                CREATE_TOPIC => CommandReply::TopicCreated(CreateTopicResponse {
                    id: TopicId(Uuid::from_u128(input.u128()?)),
                    replicas: get_replicas(input)?,
                }),
                DELETE_TOPIC => {
                    CommandReply::TopicDeleted { id: TopicId(Uuid::from_u128(input.u128()?)) }
                }
                ALTER_TOPIC => CommandReply::TopicAltered(AlterTopicResponse::decode(input)?),
                CREATE_PARTITIONS => {
                    CommandReply::PartitionsCreated(CreatePartitionsResponse::decode(input)?)
                }
                ALTER_SETTINGS => {
                    CommandReply::SettingsAltered(AlterSettingsResponse::decode(input)?)
                }
                LOADS => CommandReply::LoadsHeard,
                moves::MOVES_REPLY => CommandReply::Moves(moves::get_reply(input)?),
                other => return Ok(BrokerReply::decode(other, input)?.map(CommandReply::Broker)),
            }))
        })
    }
}

fn put_head(kind: u16, out: &mut Writer) {
    out.u16(kind);
    out.u8(VERSION);
}

fn read<T>(
    what: &str,
    bytes: &[u8],
    body: impl FnOnce(u16, &mut Reader<'_>) -> Result<Option<T>, DecodeError>,
) -> Result<T, WireError> {
    let malformed = |why| WireError::new(ErrorCode::InvalidRequest, format!("{what}: {why}"));
    let mut input = Reader::new(bytes);
    let kind = input.u16().map_err(malformed)?;
    let version = input.u8().map_err(malformed)?;
    let unknown = || {
        let why = format!(
            "{what} of kind {kind} version {version} is not known to the broker that got it; \
             the brokers run different builds: finish the upgrade and try again"
        );
        WireError::new(ErrorCode::UnsupportedVersion, why)
    };
    if version != VERSION {
        return Err(unknown());
    }
    let value = body(kind, &mut input).map_err(malformed)?.ok_or_else(unknown)?;
    input.tagged_fields().map_err(malformed)?;
    input.end().map_err(malformed)?;
    Ok(value)
}

fn put_id(id: Option<TopicId>, out: &mut Writer) {
    out.optional(id, |out, id| out.u128(id.0.as_u128()));
}

fn get_id(input: &mut Reader<'_>) -> Result<Option<TopicId>, DecodeError> {
    let id = input.optional("a topic's id", Reader::u128)?;
    Ok(id.map(|id| TopicId(Uuid::from_u128(id))))
}

fn put_create_topic(request: &CreateTopicRequest, out: &mut Writer) {
    out.text(&request.name);
    out.u32(request.partitions);
    out.optional(request.replication, Writer::u8);
    put_configs(&request.configs, out);
    out.u8(match request.dry_run {
        DryRun::No => 0,
        DryRun::Yes => 1,
    });
}

fn get_create_topic(input: &mut Reader<'_>) -> Result<CreateTopicRequest, DecodeError> {
    Ok(CreateTopicRequest {
        name: input.text("a topic's name")?,
        partitions: input.u32()?,
        replication: input.optional("a replication factor", Reader::u8)?,
        configs: get_configs(input)?,
        dry_run: match input.u8()? {
            0 => DryRun::No,
            1 => DryRun::Yes,
            found => return Err(DecodeError::Invalid { what: "dry run", found: found.into() }),
        },
    })
}

fn get_replicas(input: &mut Reader<'_>) -> Result<Vec<Vec<NodeId>>, DecodeError> {
    input.list("partitions", 1, |input| input.list("replicas", 4, |input| Ok(NodeId(input.u32()?))))
}

const VERSION: u8 = 0;
const REGISTER: u16 = 1;
const CREATE_TOPIC: u16 = 2;
const DELETE_TOPIC: u16 = 3;
const ALTER_TOPIC: u16 = 20;
const CREATE_PARTITIONS: u16 = 21;
const ALTER_SETTINGS: u16 = 35;
const LOADS: u16 = 36;
const CREATE_GROUPS_TOPIC: u16 = 37;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{DirectoryId, Incarnation, PartitionId, TopicPartition};
    use highwater_protocol::native::balance::Load;
    use highwater_protocol::native::settings::SettingScope;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::controller::loads::PartitionLoad;

    fn commands() -> Vec<Command> {
        let request = |replication, dry_run| CreateTopicRequest {
            name: "orders".into(),
            partitions: 12,
            replication,
            configs: vec![("flush".into(), "ack".into())],
            dry_run,
        };
        let id = TopicId(Uuid::from_u128(7));
        vec![
            Command::Register(BrokerRegistration {
                node: NodeId(3),
                incarnation: Incarnation(9),
                directory: DirectoryId(Uuid::from_u128(1)),
                rack: None,
                client_address: "a:1".into(),
                peer_address: "a:2".into(),
            }),
            Command::CreateTopic { id, request: request(None, DryRun::No) },
            Command::CreateTopic { id, request: request(Some(3), DryRun::Yes) },
            Command::DeleteTopic { name: "orders".into(), id: None },
            Command::DeleteTopic { name: "orders".into(), id: Some(id) },
            Command::AlterTopic {
                id: Some(id),
                request: AlterTopicRequest {
                    name: "orders".into(),
                    set: vec![("retention.ms".into(), "5000".into())],
                    unset: vec!["segment.ms".into()],
                    dry_run: DryRun::Yes,
                },
            },
            Command::AlterSettings(AlterSettingsRequest {
                scope: SettingScope::Broker(NodeId(3)),
                set: vec![("log.filter".into(), "debug".into())],
                unset: Vec::new(),
                dry_run: DryRun::No,
            }),
            Command::Loads(LoadReport { node: NodeId(3), led: Vec::new() }),
            Command::Loads(LoadReport {
                node: NodeId(3),
                led: vec![PartitionLoad {
                    partition: TopicPartition::new(id, PartitionId(2)),
                    bytes: 1 << 40,
                    load: Load { bytes_in_per_s: 5, bytes_out_per_s: u64::MAX },
                }],
            }),
            Command::CreatePartitions {
                id: None,
                request: CreatePartitionsRequest {
                    name: "orders".into(),
                    partitions: 24,
                    dry_run: DryRun::No,
                },
            },
        ]
    }

    #[test]
    fn commands_are_read_as_they_were_written() {
        for command in commands() {
            assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
    }

    #[test]
    fn replies_are_read_as_they_were_written() {
        let id = TopicId(Uuid::from_u128(7));
        let replicas = vec![vec![NodeId(1), NodeId(2)], vec![NodeId(2)]];
        let first = PartitionId(3);
        let added = CreatePartitionsResponse { id, first, replicas: replicas.clone() };
        for reply in [
            CommandReply::Registered,
            CommandReply::TopicCreated(CreateTopicResponse { id, replicas }),
            CommandReply::TopicDeleted { id },
            CommandReply::TopicAltered(AlterTopicResponse { id, changes: Vec::new() }),
            CommandReply::PartitionsCreated(added),
            CommandReply::SettingsAltered(AlterSettingsResponse { changes: Vec::new() }),
            CommandReply::LoadsHeard,
        ] {
            assert_eq!(CommandReply::decode(&reply.encode()), Ok(reply));
        }
    }

    #[test]
    fn a_command_of_a_newer_build_is_refused_with_a_way_out() {
        let error = Command::decode(&[0xff, 0xff, 0, 0]).expect_err("there is no such kind");
        assert_eq!(error.code, ErrorCode::UnsupportedVersion);
        assert!(error.detail.contains("finish the upgrade"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind in 0u8..50, bytes in vec(any::<u8>(), 0..100)) {
            for head in [[kind, 0, 0], [0, kind, 0]] {
                let typed = [head.to_vec(), bytes.clone()].concat();
                let _ = Command::decode(&typed);
                let _ = CommandReply::decode(&typed);
            }
        }
    }
}
