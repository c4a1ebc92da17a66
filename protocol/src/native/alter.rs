//! Admin: changing what exists while it is in use.
//!
//! Any broker takes these and passes them on to the controller or tells who leads.

use crate::ids::{NodeId, PartitionId, TopicId, TopicPartition};
use crate::native::admin::DryRun;
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// New values for settings of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterTopicRequest {
    /// The topic's name.
    pub name: String,
    /// Settings to set, by name; an unknown name refuses the request.
    pub set: Vec<(String, String)>,
    /// Settings that go back to their defaults.
    pub unset: Vec<String>,
    /// Check everything and change nothing.
    pub dry_run: DryRun,
}

/// What the request changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterTopicResponse {
    /// The topic's id.
    pub id: TopicId,
    /// The settings that are different now, sorted by name.
    pub changes: Vec<SettingChange>,
}

/// One setting of a topic, before and after; `None` stands for the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    /// The setting's name.
    pub name: String,
    /// Its value before.
    pub before: Option<String>,
    /// Its value after.
    pub after: Option<String>,
}

/// More partitions for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitionsRequest {
    /// The topic's name.
    pub name: String,
    /// How many partitions it is to have in all; with as many as it has, nothing happens.
    pub partitions: u32,
    /// Check everything and change nothing.
    pub dry_run: DryRun,
}

/// The partitions that were added, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitionsResponse {
    /// The topic's id.
    pub id: TopicId,
    /// The first new partition.
    pub first: PartitionId,
    /// The replicas of each new partition in order, the preferred leader first.
    pub replicas: Vec<Vec<NodeId>>,
}

/// A wish that another broker leads a partition; its leader carries it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLeaderRequest {
    /// Which partition.
    pub partition: TopicPartition,
    /// Who is to lead; `None` for the voter that is furthest on.
    pub to: Option<NodeId>,
}

impl SettingChange {
    /// Whether settings given by name are as they are after this change.
    pub fn is_in(&self, configs: &[(String, String)]) -> bool {
        let value = configs.iter().find(|(name, _)| *name == self.name).map(|(_, value)| value);
        value == self.after.as_ref()
    }

    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.text(&self.name);
        writer.optional(self.before.as_deref(), Writer::text);
        writer.optional(self.after.as_deref(), Writer::text);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<SettingChange, DecodeError> {
        let name = reader.text("a setting's name")?;
        let value = |reader: &mut Reader<'_>| {
            reader.optional("a value", |reader| reader.text("a setting's value"))
        };
        Ok(SettingChange { name, before: value(reader)?, after: value(reader)? })
    }
}

impl AlterTopicRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.text(&self.name);
        coding::put_pairs(writer, &self.set);
        writer.list(&self.unset, |writer, name| writer.text(name));
        coding::put_flag(writer, self.dry_run == DryRun::Yes);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<AlterTopicRequest, DecodeError> {
        coding::open_request(reader, "a request to alter a topic")?;
        let request = AlterTopicRequest {
            name: reader.text("a topic name")?,
            set: coding::pairs(reader)?,
            unset: reader.list("settings", 1, |reader| reader.text("a setting's name"))?,
            dry_run: dry_run(reader)?,
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl AlterTopicResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u128(self.id.0.as_u128());
        writer.list(&self.changes, |writer, change| change.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<AlterTopicResponse, DecodeError> {
        reader.within("an altered topic's answer");
        let response = AlterTopicResponse {
            id: coding::topic_id(reader)?,
            changes: reader.list("changes", 3, SettingChange::decode)?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl CreatePartitionsRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.text(&self.name);
        writer.u32(self.partitions);
        coding::put_flag(writer, self.dry_run == DryRun::Yes);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<CreatePartitionsRequest, DecodeError> {
        coding::open_request(reader, "a request for partitions")?;
        let request = CreatePartitionsRequest {
            name: reader.text("a topic name")?,
            partitions: reader.u32()?,
            dry_run: dry_run(reader)?,
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl CreatePartitionsResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u128(self.id.0.as_u128());
        writer.u32(self.first.0);
        writer.list(&self.replicas, |writer, nodes| coding::put_nodes(writer, nodes));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<CreatePartitionsResponse, DecodeError> {
        reader.within("an answer with new partitions");
        let response = CreatePartitionsResponse {
            id: coding::topic_id(reader)?,
            first: PartitionId(reader.u32()?),
            replicas: reader.list("partitions", 1, coding::nodes)?,
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

impl TransferLeaderRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.optional(self.to, |writer, node| writer.u32(node.0));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<TransferLeaderRequest, DecodeError> {
        coding::open_request(reader, "a request to hand over leadership")?;
        let request = TransferLeaderRequest {
            partition: coding::partition(reader)?,
            to: reader.optional("a broker", coding::node)?,
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

fn dry_run(reader: &mut Reader<'_>) -> Result<DryRun, DecodeError> {
    Ok(if coding::flag(reader, "a dry-run flag")? { DryRun::Yes } else { DryRun::No })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    macro_rules! comes_back {
        ($message:expr, $type:ident) => {
            let (message, mut writer) = ($message, Writer::new());
            message.encode(&mut writer);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!($type::decode(&mut reader), Ok(message));
            prop_assert!(reader.end().is_ok());
        };
    }

    fn change() -> impl Strategy<Value = SettingChange> {
        let value = || proptest::option::of(".*");
        (".*", value(), value()).prop_map(|(name, before, after)| SettingChange {
            name,
            before,
            after,
        })
    }

    proptest! {
        #[test]
        fn changes_of_topics_come_back(
            name in ".*", set in vec((".*", ".*"), 0..4), unset in vec(".*", 0..4), id: u128,
            changes in vec(change(), 0..4),
        ) {
            for dry_run in [DryRun::Yes, DryRun::No] {
                let (name, set, unset) = (name.clone(), set.clone(), unset.clone());
                comes_back!(AlterTopicRequest { name, set, unset, dry_run }, AlterTopicRequest);
            }
            let id = TopicId(Uuid::from_u128(id));
            comes_back!(AlterTopicResponse { id, changes }, AlterTopicResponse);
            let (partitions, dry_run, first) = (9, DryRun::Yes, PartitionId(6));
            let wish = CreatePartitionsRequest { name, partitions, dry_run };
            comes_back!(wish, CreatePartitionsRequest);
            let partition = TopicPartition::new(id, first);
            for to in [None, Some(NodeId(3))] {
                comes_back!(TransferLeaderRequest { partition, to }, TransferLeaderRequest);
            }
            let replicas = vec![vec![NodeId(1), NodeId(2)], vec![NodeId(2)]];
            comes_back!(CreatePartitionsResponse { id, first, replicas }, CreatePartitionsResponse);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..256)) {
            let _ = AlterTopicRequest::decode(&mut Reader::new(&bytes));
            let _ = AlterTopicResponse::decode(&mut Reader::new(&bytes));
            let _ = CreatePartitionsRequest::decode(&mut Reader::new(&bytes));
            let _ = TransferLeaderRequest::decode(&mut Reader::new(&bytes));
            let _ = CreatePartitionsResponse::decode(&mut Reader::new(&bytes));
        }
    }
}
