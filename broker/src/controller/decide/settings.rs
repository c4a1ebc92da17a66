//! Deciding on settings of the cluster, of single brokers and of single clients.
//!
//! A change is one record with all settings that the scope has then, so whoever asks again after a
//! lost answer finds nothing left to change. Nothing is taken that nobody goes by.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::settings::{
    AlterSettingsRequest, AlterSettingsResponse, SettingScope,
};
use highwater_protocol::settings::{self, ConfigKey, Effect, cluster, unknown_key};

use super::Decision;
use super::alter::{Wishes, differences, merged};
use crate::controller::command::CommandReply;
use crate::controller::config::TopicConfig;
use crate::controller::image::ClusterImage;
use crate::controller::record::MetadataRecord;
use crate::controller::settings::topic_defaults;

/// Sets and unsets settings, all or none.
pub(super) fn alter(
    image: &ClusterImage,
    request: &AlterSettingsRequest,
) -> Result<Decision, WireError> {
    let AlterSettingsRequest { scope, set, unset, dry_run } = request;
    if let SettingScope::Broker(node) = scope
        && image.broker(*node).is_none()
    {
        let why =
            format!("broker {node} is not registered; `hw cluster brokers` shows those that are");
        return Err(WireError::new(ErrorCode::UnknownBroker, why));
    }
    if let SettingScope::Client(name) = scope {
        check_client(image, name)?;
    }
    let wishes = Wishes { set, unset };
    let mut wrong = wishes.at_odds(|name| known(scope, name).map(|_| ()));
    wrong.extend(set.iter().filter_map(|(name, value)| check(scope, name, value).err()));
    let before = image.settings().given(scope);
    let after = merged(before, wishes);
    if wrong.is_empty() && *scope == SettingScope::Cluster {
        wrong.extend(unfit(image, &after));
    }
    if !wrong.is_empty() {
        return Err(WireError::new(ErrorCode::InvalidConfig, wrong.join("; ")));
    }
    let changes = differences(before, &after);
    let records = match dry_run {
        DryRun::No if !changes.is_empty() => {
            vec![MetadataRecord::AlterSettings { scope: scope.clone(), configs: after }]
        }
        DryRun::No | DryRun::Yes => Vec::new(),
    };
    Ok((records, CommandReply::SettingsAltered(AlterSettingsResponse { changes })))
}

/// A name that a certificate may have, of one client more than there are, at most so many.
fn check_client(image: &ClusterImage, name: &str) -> Result<(), WireError> {
    let refused = |why| Err(WireError::new(ErrorCode::InvalidRequest, why));
    if name.is_empty() || name.len() > CLIENT_NAME_BYTES_MAX || name.contains('/') {
        return refused(format!(
            "a client cannot be called `{name}`: names have 1 to {CLIENT_NAME_BYTES_MAX} bytes, and no slash"
        ));
    }
    let clients = image.settings().clients();
    if !clients.contains_key(name) && clients.len() >= CLIENTS_MAX {
        return refused(format!(
            "{CLIENTS_MAX} clients have settings of their own, and no more may; `hw quota reset` takes them from one"
        ));
    }
    Ok(())
}

fn known(scope: &SettingScope, name: &str) -> Result<&'static ConfigKey, String> {
    let settable = cluster::settable();
    let found = settable.iter().find(|(key, _)| key.name == name).map(|(key, _)| *key);
    match (scope, settings::broker::named(name)) {
        (_, Some(key)) if key.effect != Effect::AtOnce => Err(format!(
            "`{name}` does not change while a broker runs; write it into that broker's file and \
             restart it"
        )),
        (SettingScope::Broker(_), Some(key)) => Ok(key),
        (SettingScope::Broker(_), None) if found.is_some() => {
            Err(format!("`{name}` is no setting of a single broker; set it for the cluster"))
        }
        (SettingScope::Broker(_), None) => {
            Err(unknown_key(name, "a broker", settings::broker::KEYS))
        }
        (SettingScope::Client(_), _) => {
            let keys: Vec<ConfigKey> = cluster::of_clients().copied().collect();
            let key = cluster::of_clients().find(|key| key.name == name);
            key.ok_or_else(|| unknown_key(name, "a client", &keys))
        }
        (SettingScope::Cluster, _) => found.ok_or_else(|| {
            let keys: Vec<ConfigKey> = settable.iter().map(|(key, _)| **key).collect();
            unknown_key(name, "the cluster", &keys)
        }),
    }
}

fn check(scope: &SettingScope, name: &str, value: &str) -> Result<(), String> {
    let key = known(scope, name)?;
    match key.takes.read(value) {
        Some(_) => Ok(()),
        None => Err(key.refusal(value)),
    }
}

/// Topics that could not go by these values of the cluster.
fn unfit(image: &ClusterImage, after: &[(String, String)]) -> Vec<String> {
    let defaults = topic_defaults(after);
    if let Err(error) = TopicConfig::parse_over(&defaults, &[]) {
        return vec![error.detail];
    }
    let unfit = image.topics_by_name().filter_map(|topic| {
        let error = TopicConfig::parse_over(&defaults, &topic.configs).err()?;
        Some(format!("topic {} could not go by it: {}", topic.name, error.detail))
    });
    unfit.take(UNFIT_NAMED_MAX).collect()
}

/// All brokers have all of them in memory.
const CLIENTS_MAX: usize = 1_000;
const CLIENT_NAME_BYTES_MAX: usize = 255;
/// Nobody reads more of them.
const UNFIT_NAMED_MAX: usize = 3;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{DirectoryId, Incarnation, NodeId, TopicId};
    use uuid::Uuid;

    use super::*;
    use crate::controller::record::BrokerRegistration;

    fn image() -> ClusterImage {
        let mut image = ClusterImage::default();
        let register = MetadataRecord::RegisterBroker(BrokerRegistration {
            node: NodeId(1),
            incarnation: Incarnation(1),
            directory: DirectoryId(Uuid::nil()),
            rack: None,
            client_address: "a:1".into(),
            peer_address: "a:1".into(),
        });
        let configs = vec![("max.message.bytes".to_string(), "4000000".to_string())];
        let id = TopicId(Uuid::from_u128(7));
        let create = MetadataRecord::CreateTopic { id, name: "orders".into(), configs };
        for record in [register, create] {
            image.apply(&record).expect("fits");
        }
        image
    }

    fn request(scope: &SettingScope, set: &[(&str, &str)], unset: &[&str]) -> AlterSettingsRequest {
        let set = set.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let unset = unset.iter().map(|name| name.to_string()).collect();
        AlterSettingsRequest { scope: scope.clone(), set, unset, dry_run: DryRun::No }
    }

    fn refused(scope: &SettingScope, name: &str, value: &str) -> String {
        alter(&image(), &request(scope, &[(name, value)], &[])).expect_err("a rule").detail
    }

    #[test]
    fn a_topic_goes_by_the_clusters_value_until_it_has_its_own() {
        let mut image = image();
        let wish = request(&SettingScope::Cluster, &[("retention.ms", "5000")], &[]);
        let (records, _) = alter(&image, &wish).expect("all is well");
        records.iter().for_each(|record| image.apply(record).expect("fits"));
        let retention = |image: &ClusterImage| {
            image.topic_named("orders").expect("made above").config.retention_ms
        };
        assert_eq!(retention(&image), Some(5000));
        assert_eq!(alter(&image, &wish).expect("a repetition").0, [], "nothing is left to change");
        let id = TopicId(Uuid::from_u128(7));
        let configs = vec![("retention.ms".to_string(), "-1".to_string())];
        image.apply(&MetadataRecord::AlterTopic { id, configs }).expect("fits");
        assert_eq!(retention(&image), None);
        let mut copy = ClusterImage::default();
        image.to_records().iter().for_each(|record| copy.apply(record).expect("fits"));
        assert_eq!(copy, image, "an image made anew has the settings, too");
    }

    #[test]
    fn nothing_is_taken_that_nobody_goes_by() {
        let (cluster, broker) = (&SettingScope::Cluster, &SettingScope::Broker(NodeId(1)));
        assert!(refused(cluster, "leader.balanse", "on").contains("did you mean `leader.balance`"));
        assert!(refused(cluster, "leader.balance", "maybe").contains("it takes `on` or `off`"));
        assert!(refused(cluster, "listen", "a:1").contains("does not change while a broker runs"));
        assert!(refused(broker, "leader.balance", "on").contains("set it for the cluster"));
        assert!(refused(broker, "limits.conections", "1").contains("limits.connections"));
        assert!(
            refused(&SettingScope::Broker(NodeId(9)), "log.filter", "info").contains("broker 9")
        );
        let client = |name: &str| SettingScope::Client(name.to_owned());
        assert!(refused(&client("a"), "leader.balance", "on").contains("`leader.balance`"));
        assert!(refused(&client("a"), "quota.fetch.rate", "1").contains("1024"));
        for name in ["", "a/b", &"a".repeat(256)] {
            assert!(
                refused(&client(name), "quota.fetch.rate", "-1").contains("no slash"),
                "{name}"
            );
        }
        let wish = request(cluster, &[], &["x.y"]);
        assert!(alter(&image(), &wish).expect_err("no such key").detail.contains("`x.y`"));
    }

    #[test]
    fn a_value_that_some_topic_cannot_go_by_is_refused_by_naming_it() {
        let why = refused(&SettingScope::Cluster, "segment.bytes", "2097152");
        assert!(why.contains("topic orders could not go by it"), "{why}");
    }

    #[test]
    fn no_more_clients_have_settings_of_their_own_than_brokers_hold_in_memory() {
        let mut image = image();
        let mut ask = |name: String| {
            let scope = SettingScope::Client(name);
            let decided = alter(&image, &request(&scope, &[("quota.fetch.rate", "4096")], &[]));
            let (records, _) = decided.map_err(|error| error.detail)?;
            records.iter().for_each(|record| image.apply(record).expect("fits"));
            Ok::<(), String>(())
        };
        (0..CLIENTS_MAX).for_each(|nth| ask(format!("c{nth}")).expect("there is room"));
        assert!(ask("one-more".to_owned()).expect_err("it is full").contains("hw quota reset"));
        ask("c7".to_owned()).expect("it is one of them");
    }
}
