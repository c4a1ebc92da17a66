//! Settings of the cluster, of single brokers and of single clients, as the committed records have made them.
//!
//! Kept as text, as given: whoever goes by one asks for it by name. What must hold: every value here
//! is one that its table takes, for the decision checked it. A topic that does not say otherwise goes
//! by the cluster's value, but for `flush`: how a topic counts should not change under it, so a new
//! topic takes the cluster's value of that moment as its own.

use std::collections::BTreeMap;

use highwater_protocol::ids::NodeId;
use highwater_protocol::native::settings::SettingScope;
use highwater_protocol::settings::ConfigKey;

/// Settings by name, in the order in which they were given.
pub type Given = Vec<(String, String)>;

/// All settings that are neither a topic's nor in a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    cluster: Given,
    brokers: BTreeMap<NodeId, Given>,
    clients: BTreeMap<String, Given>,
}

impl Settings {
    /// Takes in a record: these are all settings of the scope from here on.
    pub(super) fn replace(&mut self, scope: &SettingScope, configs: &Given) {
        match scope {
            SettingScope::Cluster => self.cluster.clone_from(configs),
            SettingScope::Broker(node) => replace(&mut self.brokers, node, configs),
            SettingScope::Client(name) => replace(&mut self.clients, name, configs),
        }
    }

    /// Every scope with settings, and what it has.
    pub(super) fn scopes(&self) -> impl Iterator<Item = (SettingScope, &Given)> {
        let cluster = (!self.cluster.is_empty()).then_some((SettingScope::Cluster, &self.cluster));
        let broker = |(node, given): (&NodeId, _)| (SettingScope::Broker(*node), given);
        let client = |(name, given): (&String, _)| (SettingScope::Client(name.clone()), given);
        let single = self.brokers.iter().map(broker).chain(self.clients.iter().map(client));
        cluster.into_iter().chain(single)
    }

    /// The clients with settings of their own, and what each has.
    pub fn clients(&self) -> &BTreeMap<String, Given> {
        &self.clients
    }

    /// What was given for a scope.
    pub fn given(&self, scope: &SettingScope) -> &[(String, String)] {
        match scope {
            SettingScope::Cluster => &self.cluster,
            SettingScope::Broker(node) => self.brokers.get(node).map_or(&[], Vec::as_slice),
            SettingScope::Client(name) => self.clients.get(name).map_or(&[], Vec::as_slice),
        }
    }

    /// What was given for a scope under this name.
    pub fn get(&self, scope: &SettingScope, name: &str) -> Option<&str> {
        value(self.given(scope), name)
    }

    /// What was given for the cluster under this name.
    pub fn of_cluster(&self, name: &str) -> Option<&str> {
        value(&self.cluster, name)
    }

    /// What a broker goes by: its own value, or else the cluster's.
    pub fn of_broker(&self, node: NodeId, name: &str) -> Option<&str> {
        let own = self.brokers.get(&node).and_then(|given| value(given, name));
        own.or_else(|| self.of_cluster(name))
    }

    /// What a client goes by: its own value, or else the cluster's.
    pub fn of_client(&self, client: &str, name: &str) -> Option<&str> {
        let own = self.clients.get(client).and_then(|given| value(given, name));
        own.or_else(|| self.of_cluster(name))
    }

    /// The same as a number.
    pub fn number_of_broker(&self, node: NodeId, name: &str) -> Option<usize> {
        self.of_broker(node, name)?.parse().ok()
    }

    /// Whether leadership goes back to preferred replicas.
    pub fn leaders_return(&self) -> bool {
        self.of_cluster("leader.balance") != Some("off")
    }

    /// Whether the controller evens the cluster out by itself.
    pub fn balances_itself(&self) -> bool {
        self.of_cluster("balance.auto") == Some("on")
    }

    /// Bytes a second for the moves that the controller begins by itself, where there is no throttle.
    pub fn own_moves_bytes_per_s(&self) -> u64 {
        let given = self.of_cluster("balance.auto.rate");
        given.and_then(|rate| rate.parse().ok()).unwrap_or(OWN_MOVES_BYTES_PER_S)
    }

    /// A quota of a client in bytes a second; `None` where there is none.
    pub fn quota(&self, client: Option<&str>, name: &str) -> Option<u64> {
        let given = match client {
            Some(client) => self.of_client(client, name),
            None => self.of_cluster(name),
        };
        given?.parse().ok()
    }

    /// How long a broker is away before its replicas are placed elsewhere; `None` for ever.
    pub fn replaces_after_ms(&self) -> Option<u64> {
        match self.of_cluster("balance.replace.after.ms") {
            Some(given) => given.parse().ok(),
            None => Some(REPLACES_AFTER_MS),
        }
    }

    /// How long offsets are kept after the last member of their group has left, or the last commit of somebody who is none.
    pub fn offsets_kept_ms(&self) -> u64 {
        let given = self.of_cluster("offsets.retention.minutes");
        given.and_then(|minutes| minutes.parse().ok()).unwrap_or(OFFSETS_KEPT_MINUTES) * 60_000
    }

    /// How many replicas a new topic has that does not say.
    pub fn replication(&self) -> Option<usize> {
        self.of_cluster("default.replication.factor")?.parse().ok()
    }

    /// What topics go by that do not say otherwise.
    pub(super) fn for_topics(&self) -> Given {
        topic_defaults(&self.cluster)
    }

    /// What becomes a new topic's own.
    pub(super) fn for_new_topics(&self) -> Given {
        let settled = |(name, _): &&(String, String)| SETTLED.contains(&name.as_str());
        self.cluster.iter().filter(settled).cloned().collect()
    }
}

fn replace<K: Ord + Clone>(all: &mut BTreeMap<K, Given>, of: &K, configs: &Given) {
    match configs.is_empty() {
        true => drop(all.remove(of)),
        false => drop(all.insert(of.clone(), configs.clone())),
    }
}

/// Of a cluster's settings those that topics go by.
pub(super) fn topic_defaults(cluster: &[(String, String)]) -> Given {
    let serves = |(name, _): &&(String, String)| {
        ConfigKey::named(name).is_some() && !SETTLED.contains(&name.as_str())
    };
    cluster.iter().filter(serves).cloned().collect()
}

/// The value under a name.
pub(super) fn value<'a>(given: &'a [(String, String)], name: &str) -> Option<&'a str> {
    given.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Slow enough for any disk and network: a terabyte takes nine hours.
const OWN_MOVES_BYTES_PER_S: u64 = 32 << 20;
/// Long enough for a restart, a repair of a file system, a new power supply.
const REPLACES_AFTER_MS: u64 = 1_800_000;
/// Seven days, as in Kafka.
const OFFSETS_KEPT_MINUTES: u64 = 7 * 24 * 60;
/// What is settled when a topic is made.
const SETTLED: &[&str] = &["flush"];

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Given {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_brokers_own_value_wins_over_the_clusters() {
        let (one, two) = (NodeId(1), NodeId(2));
        let mut settings = Settings::default();
        settings.replace(&SettingScope::Cluster, &given(&[("limits.connections", "7")]));
        settings.replace(&SettingScope::Broker(two), &given(&[("limits.connections", "9")]));
        assert_eq!(settings.number_of_broker(one, "limits.connections"), Some(7));
        assert_eq!(settings.number_of_broker(two, "limits.connections"), Some(9));
        assert_eq!(settings.scopes().count(), 2);
        settings.replace(&SettingScope::Broker(two), &Given::new());
        assert_eq!(settings.number_of_broker(two, "limits.connections"), Some(7));
        assert_eq!(settings.scopes().count(), 1);
    }

    #[test]
    fn a_client_with_a_quota_of_its_own_goes_by_that() {
        let mut settings = Settings::default();
        let rate = "quota.fetch.rate";
        let one = SettingScope::Client("one".to_owned());
        settings.replace(&SettingScope::Cluster, &given(&[(rate, "7000")]));
        settings.replace(&one, &given(&[(rate, "-1")]));
        let quota = |settings: &Settings| {
            [Some("one"), Some("two"), None].map(|client| settings.quota(client, rate))
        };
        assert_eq!(quota(&settings), [None, Some(7000), Some(7000)]);
        assert_eq!(settings.scopes().map(|(scope, _)| scope).last(), Some(one.clone()));
        settings.replace(&one, &Given::new());
        assert_eq!(quota(&settings), [Some(7000); 3]);
    }

    #[test]
    fn topics_go_by_the_clusters_values_but_for_what_is_settled_when_they_are_made() {
        let mut settings = Settings::default();
        let all = [("flush", "50"), ("retention.ms", "5000"), ("leader.balance", "off")];
        settings.replace(&SettingScope::Cluster, &given(&all));
        assert_eq!(settings.for_topics(), given(&[("retention.ms", "5000")]));
        assert_eq!(settings.for_new_topics(), given(&[("flush", "50")]));
        assert!(!settings.leaders_return());
    }

    #[test]
    fn offsets_are_kept_for_a_week_or_as_long_as_the_cluster_says() {
        let mut settings = Settings::default();
        assert_eq!(settings.offsets_kept_ms(), 604_800_000);
        let two_minutes = given(&[("offsets.retention.minutes", "2")]);
        settings.replace(&SettingScope::Cluster, &two_minutes);
        assert_eq!(settings.offsets_kept_ms(), 120_000);
    }
}
