//! Settings of the cluster, of this broker and of clients: changed through the controller, shown with where each
//! value comes from.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::settings::{
    AlterSettingsRequest, AlterSettingsResponse, ClientSettings, DescribeSettingsRequest,
    DescribeSettingsResponse, SettingScope, SettingSource, SettingValue,
};
use highwater_protocol::settings::{ConfigKey, Effect, broker, cluster};

use super::Api;
use super::admin::{COMMAND_MAX, not_the_answer};
use crate::config::is_log_filter;
use crate::controller::{Command, CommandReply};

impl Api {
    /// Changes settings of the cluster, of a broker or of a client, through the controller.
    pub async fn alter_settings(
        &self,
        request: AlterSettingsRequest,
    ) -> Result<AlterSettingsResponse, WireError> {
        // The controller knows tables; the language of filters is known here.
        let filter = request.set.iter().find(|(name, _)| name == "log.filter");
        if let Some((name, value)) = filter.filter(|(_, value)| !is_log_filter(value)) {
            let why = format!("`{name}` cannot be `{value}`: it is no filter");
            return Err(WireError::new(ErrorCode::InvalidConfig, why));
        }
        let (scope, dry_run) = (request.scope.clone(), request.dry_run);
        let reply = self.node.command(Command::AlterSettings(request), COMMAND_MAX).await?;
        let CommandReply::SettingsAltered(altered) = reply else {
            return Err(not_the_answer(&reply));
        };
        if dry_run == DryRun::No {
            self.seen_here(|image| {
                let given = image.settings().given(&scope);
                altered.changes.iter().all(|change| change.is_in(given))
            })
            .await;
        }
        Ok(altered)
    }

    /// All settings of the cluster, of this broker or of a client, and where each value comes from.
    pub fn describe_settings(
        &self,
        request: DescribeSettingsRequest,
    ) -> Result<DescribeSettingsResponse, WireError> {
        let me = self.node.options().me;
        let mut clients = Vec::new();
        let settings = match request.scope {
            SettingScope::Cluster => {
                let image = self.node.image();
                let all = image.settings().clients().iter();
                let of = |(client, settings): (&String, &Vec<_>)| ClientSettings {
                    client: client.clone(),
                    settings: settings.clone(),
                };
                clients.extend(all.map(of));
                cluster::settable().into_iter().map(|(key, _)| self.of_cluster(key)).collect()
            }
            SettingScope::Client(name) => {
                cluster::of_clients().map(|key| self.of_client(&name, key)).collect()
            }
            SettingScope::Broker(node) if node == me => {
                broker::KEYS.iter().map(|key| self.of_broker(key)).collect()
            }
            SettingScope::Broker(node) => {
                let why =
                    format!("this is broker {me}; ask broker {node} itself, which knows its file");
                return Err(WireError::new(ErrorCode::InvalidRequest, why));
            }
        };
        Ok(DescribeSettingsResponse { settings, clients })
    }

    /// What was set for this broker while it runs, in place of what its file says.
    pub fn limit_set(&self, name: &str) -> Option<usize> {
        self.node.image().settings().number_of_broker(self.node.options().me, name)
    }

    /// How many brokers the cluster has, as far as is known here.
    pub fn brokers_known(&self) -> usize {
        self.node.image().brokers().count().max(self.node.options().controllers.len())
    }

    fn of_cluster(&self, key: &ConfigKey) -> SettingValue {
        let image = self.node.image();
        let set = image.settings().of_cluster(key.name);
        match set {
            Some(value) => shown(key, value, SettingSource::Cluster),
            None => by_default(key),
        }
    }

    fn of_client(&self, name: &str, key: &ConfigKey) -> SettingValue {
        let image = self.node.image();
        let own = image.settings().get(&SettingScope::Client(name.to_owned()), key.name);
        first_of(
            key,
            [
                (own, SettingSource::Client),
                (image.settings().of_cluster(key.name), SettingSource::Cluster),
            ],
        )
    }

    fn of_broker(&self, key: &ConfigKey) -> SettingValue {
        let image = self.node.image();
        let me = SettingScope::Broker(self.node.options().me);
        let changes = key.effect == Effect::AtOnce;
        let own = image.settings().get(&me, key.name);
        let file = self.file.get(key.name).map(String::as_str);
        first_of(
            key,
            [
                (own.filter(|_| changes), SettingSource::Broker),
                (image.settings().of_cluster(key.name).filter(|_| changes), SettingSource::Cluster),
                (file, SettingSource::File),
            ],
        )
    }
}

/// The strongest value that was set, or the default.
fn first_of<const N: usize>(
    key: &ConfigKey,
    found: [(Option<&str>, SettingSource); N],
) -> SettingValue {
    let found = found.into_iter().find_map(|(value, source)| Some((value?, source)));
    found.map_or_else(|| by_default(key), |(value, source)| shown(key, value, source))
}

fn shown(key: &ConfigKey, value: &str, source: SettingSource) -> SettingValue {
    SettingValue { name: key.name.to_owned(), value: Some(value.to_owned()), source }
}

fn by_default(key: &ConfigKey) -> SettingValue {
    let value = (!key.default.is_empty()).then(|| key.default.to_owned());
    SettingValue { name: key.name.to_owned(), value, source: SettingSource::Default }
}
