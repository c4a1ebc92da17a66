//! Settings of the cluster, of single brokers and of single clients that change while they run.

use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::alter::SettingChange;
use highwater_protocol::native::settings::{
    AlterSettingsRequest, ClientSettings, DescribeSettingsRequest, SettingScope, SettingValue,
};

use crate::admin::Admin;
use crate::error::Error;

/// A change of settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsChange {
    /// Whose.
    pub scope: SettingScope,
    /// Settings to set, by name.
    pub set: Vec<(String, String)>,
    /// Settings that are as if nobody had set them there.
    pub unset: Vec<String>,
    /// Whether to check only.
    pub dry_run: DryRun,
}

impl Admin {
    /// Changes settings of the cluster, of a broker or of a client while they run, or only checks that they could
    /// be changed; says what differs afterwards.
    ///
    /// # Errors
    /// `Refused` with `InvalidConfig` and all mistakes, or with `UnknownBroker`; otherwise with outcome unknown where the answer was lost.
    pub async fn alter_settings(
        &self,
        change: SettingsChange,
    ) -> Result<Vec<SettingChange>, Error> {
        let SettingsChange { scope, set, unset, dry_run } = change;
        let request = AlterSettingsRequest { scope, set, unset, dry_run };
        Ok(self.change(&request).await?.changes)
    }

    /// All settings of the cluster, of a broker or of a client, sorted by name, and where each value comes from.
    /// A broker is asked itself, for it alone knows its file.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where nobody, or that broker, did not answer.
    pub async fn describe_settings(&self, scope: SettingScope) -> Result<Vec<SettingValue>, Error> {
        let node = match &scope {
            SettingScope::Cluster | SettingScope::Client(_) => None,
            SettingScope::Broker(node) => Some(*node),
        };
        let request = DescribeSettingsRequest { scope };
        match node {
            None => Ok(self.change(&request).await?.settings),
            Some(node) => {
                let connection = self.core.connection(node).await?;
                let answer = connection.call(&request, self.core.config.request_timeout).await?;
                Ok(answer.settings)
            }
        }
    }

    /// The clients with settings of their own, sorted by name.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where nobody answered.
    pub async fn client_settings(&self) -> Result<Vec<ClientSettings>, Error> {
        let request = DescribeSettingsRequest { scope: SettingScope::Cluster };
        Ok(self.change(&request).await?.clients)
    }
}
