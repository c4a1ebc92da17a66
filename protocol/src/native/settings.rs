//! Admin: settings of the cluster and of single brokers that change while they run.
//!
//! They are committed records. Any broker takes a change and passes it on to the controller; what a
//! broker goes by is asked of that broker, which alone knows its file.

use crate::ids::NodeId;
use crate::native::admin::DryRun;
use crate::native::alter::SettingChange;
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// Whose settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SettingScope {
    /// The cluster's, and what it says for topics and brokers that do not say otherwise.
    Cluster,
    /// One broker's.
    Broker(NodeId),
}

/// New values for settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterSettingsRequest {
    /// Whose.
    pub scope: SettingScope,
    /// Settings to set, by name; an unknown name refuses the request.
    pub set: Vec<(String, String)>,
    /// Settings that are as if nobody had set them there.
    pub unset: Vec<String>,
    /// Check everything and change nothing.
    pub dry_run: DryRun,
}

/// What the request changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterSettingsResponse {
    /// The settings that are different now, sorted by name.
    pub changes: Vec<SettingChange>,
}

/// A question for all settings of the cluster, or of the broker that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescribeSettingsRequest {
    /// Whose; a broker answers only for itself.
    pub scope: SettingScope,
}

/// All settings, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeSettingsResponse {
    /// The settings.
    pub settings: Vec<SettingValue>,
}

/// A setting's value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingValue {
    /// Its name.
    pub name: String,
    /// Its value; `None` where there is neither a value nor a default.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: SettingSource,
}

/// Where a value comes from, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingSource {
    /// Nobody has set it.
    Default,
    /// The broker's file.
    File,
    /// The cluster's settings.
    Cluster,
    /// The broker's settings.
    Broker,
}

impl SettingScope {
    /// Writes the scope.
    pub fn encode(self, writer: &mut Writer) {
        match self {
            SettingScope::Cluster => writer.u8(0),
            SettingScope::Broker(node) => {
                writer.u8(1);
                writer.u32(node.0);
            }
        }
    }

    /// Reads the scope.
    pub fn decode(reader: &mut Reader<'_>) -> Result<SettingScope, DecodeError> {
        match reader.u8()? {
            0 => Ok(SettingScope::Cluster),
            1 => Ok(SettingScope::Broker(coding::node(reader)?)),
            found => Err(DecodeError::Invalid { what: "whose settings", found: found.into() }),
        }
    }
}

impl AlterSettingsRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.scope.encode(writer);
        coding::put_pairs(writer, &self.set);
        writer.list(&self.unset, |writer, name| writer.text(name));
        coding::put_flag(writer, self.dry_run == DryRun::Yes);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<AlterSettingsRequest, DecodeError> {
        coding::open_request(reader, "a request to change settings")?;
        let request = AlterSettingsRequest {
            scope: SettingScope::decode(reader)?,
            set: coding::pairs(reader)?,
            unset: reader.list("settings", 1, |reader| reader.text("a setting"))?,
            dry_run: if coding::flag(reader, "a dry-run flag")? { DryRun::Yes } else { DryRun::No },
        };
        reader.tagged_fields()?;
        Ok(request)
    }
}

impl AlterSettingsResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.changes, |writer, change| change.encode(writer));
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<AlterSettingsResponse, DecodeError> {
        reader.within("the answer to a change of settings");
        let changes = reader.list("changes", 3, SettingChange::decode)?;
        reader.tagged_fields()?;
        Ok(AlterSettingsResponse { changes })
    }
}

impl DescribeSettingsRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        self.scope.encode(writer);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DescribeSettingsRequest, DecodeError> {
        coding::open_request(reader, "a question for settings")?;
        let scope = SettingScope::decode(reader)?;
        reader.tagged_fields()?;
        Ok(DescribeSettingsRequest { scope })
    }
}

impl DescribeSettingsResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.settings, |writer, setting| {
            writer.text(&setting.name);
            writer.optional(setting.value.as_deref(), Writer::text);
            writer.u8(match setting.source {
                SettingSource::Default => 0,
                SettingSource::File => 1,
                SettingSource::Cluster => 2,
                SettingSource::Broker => 3,
            });
        });
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DescribeSettingsResponse, DecodeError> {
        reader.within("settings");
        let settings = reader.list("settings", 3, |reader| {
            let name = reader.text("a setting")?;
            let value = reader.optional("a value", |reader| reader.text("a value"))?;
            let source = match reader.u8()? {
                0 => SettingSource::Default,
                1 => SettingSource::File,
                2 => SettingSource::Cluster,
                3 => SettingSource::Broker,
                found => {
                    let what = "where a value comes from";
                    return Err(DecodeError::Invalid { what, found: found.into() });
                }
            };
            Ok(SettingValue { name, value, source })
        })?;
        reader.tagged_fields()?;
        Ok(DescribeSettingsResponse { settings })
    }
}
