//! Admin: settings of the cluster, of single brokers and of single clients that change while they run.
//!
//! They are committed records. Any broker takes a change and passes it on to the controller; what a
//! broker goes by is asked of that broker, which alone knows its file.

use crate::ids::NodeId;
use crate::native::admin::DryRun;
use crate::native::alter::SettingChange;
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// Whose settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SettingScope {
    /// The cluster's, and what it says for topics, brokers and clients that do not say otherwise.
    Cluster,
    /// One broker's.
    Broker(NodeId),
    /// One client's, by the name in its certificate.
    Client(String),
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

/// A question for all settings of the cluster, of the broker that is asked, or of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeSettingsRequest {
    /// Whose; a broker answers only for itself, and each one for every client.
    pub scope: SettingScope,
}

/// All settings, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeSettingsResponse {
    /// The settings.
    pub settings: Vec<SettingValue>,
    /// The clients with settings of their own, sorted by name, in an answer for the cluster.
    pub clients: Vec<ClientSettings>,
}

/// What was set for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// The name in its certificate.
    pub client: String,
    /// Names and values, in the order in which they were given.
    pub settings: Vec<(String, String)>,
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
    /// The client's settings.
    Client,
}

impl SettingScope {
    /// Writes the scope.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            SettingScope::Cluster => writer.u8(0),
            SettingScope::Broker(node) => {
                writer.u8(1);
                writer.u32(node.0);
            }
            SettingScope::Client(name) => {
                writer.u8(2);
                writer.text(name);
            }
        }
    }

    /// Reads the scope.
    pub fn decode(reader: &mut Reader<'_>) -> Result<SettingScope, DecodeError> {
        match reader.u8()? {
            0 => Ok(SettingScope::Cluster),
            1 => Ok(SettingScope::Broker(coding::node(reader)?)),
            2 => Ok(SettingScope::Client(reader.text("a client")?)),
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
                SettingSource::Client => 4,
            });
        });
        if self.clients.is_empty() {
            return writer.no_tagged_fields();
        }
        let mut field = Writer::new();
        field.list(&self.clients, |writer, of| {
            writer.text(&of.client);
            coding::put_pairs(writer, &of.settings);
        });
        writer.uvarint(1);
        writer.uvarint(TAG_CLIENTS);
        writer.blob(&field.finish());
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
                4 => SettingSource::Client,
                found => {
                    let what = "where a value comes from";
                    return Err(DecodeError::Invalid { what, found: found.into() });
                }
            };
            Ok(SettingValue { name, value, source })
        })?;
        let mut clients = Vec::new();
        reader.tagged_fields_with(|tag, field| {
            if tag == TAG_CLIENTS {
                clients = Reader::new(field).list("clients", 2, |reader| {
                    let client = reader.text("a client")?;
                    Ok(ClientSettings { client, settings: coding::pairs(reader)? })
                })?;
            }
            Ok(())
        })?;
        Ok(DescribeSettingsResponse { settings, clients })
    }
}

/// The tagged field of an answer for the cluster.
const TAG_CLIENTS: u64 = 0;
