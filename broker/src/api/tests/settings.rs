//! Settings that change while brokers run, on brokers in one process.

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, Offset};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::events::ListEventsRequest;
use highwater_protocol::native::settings::{
    AlterSettingsRequest, DescribeSettingsRequest, SettingScope, SettingSource,
};

use super::rig::{Rig, eventually, led_topic, topic, within};
use crate::api::Api;
use crate::controller::config::FlushMode;

fn set(scope: &SettingScope, name: &str, value: &str) -> AlterSettingsRequest {
    let set = vec![(name.to_string(), value.to_string())];
    AlterSettingsRequest { scope: scope.clone(), set, unset: Vec::new(), dry_run: DryRun::No }
}

fn shown(api: &Api, scope: &SettingScope, name: &str) -> (Option<String>, SettingSource) {
    let found =
        api.describe_settings(DescribeSettingsRequest { scope: scope.clone() }).expect("its own");
    let found = found.settings.into_iter().find(|setting| setting.name == name);
    let found = found.expect("every setting is shown");
    (found.value, found.source)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_cluster_says_holds_for_every_topic_that_does_not_say_otherwise() {
    let mut rig = Rig::start(3).await;
    within(rig.api(1).create_topic(topic("before", 1, 3))).await.expect("made");
    let cluster = &SettingScope::Cluster;
    for (name, value) in
        [("retention.ms", "5000"), ("flush", "50"), ("default.replication.factor", "1")]
    {
        within(rig.api(2).alter_settings(set(cluster, name, value))).await.expect("set");
    }
    let request = highwater_protocol::native::admin::CreateTopicRequest {
        replication: None,
        ..topic("after", 1, 3)
    };
    within(rig.api(3).create_topic(request)).await.expect("made");
    assert_eq!(led_topic(rig.api(3), "after").await.partitions[0].replicas.len(), 1);
    for node in 1..=3 {
        let image = eventually(async || {
            let image = rig.api(node).node().image();
            image.topic_named("after").is_some().then_some(image)
        })
        .await;
        let config = |name: &str| image.topic_named(name).expect("made above").config;
        assert_eq!(config("before").retention_ms, Some(5000));
        assert_eq!(config("before").flush, FlushMode::Ack, "what exists keeps how it counts");
        assert_eq!(config("after").flush, FlushMode::Interval { ms: 50 });
        assert_eq!(
            shown(rig.api(node), cluster, "retention.ms"),
            (Some("5000".to_string()), SettingSource::Cluster)
        );
    }
    let request = ListEventsRequest { from: Offset(0), since: None, events_max: 100 };
    let events = within(rig.api(2).list_events(request)).await.expect("told").events;
    let told = |kind: &str, about: &str| {
        events.iter().any(|event| event.kind == kind && event.subject == about)
    };
    assert!(told("broker-registered", "broker 3") && told("topic-created", "before"), "{events:?}");
    assert!(told("settings-altered", "the cluster") && told("partitions-placed", "after"));
    assert!(events.is_sorted_by_key(|event| event.offset), "in the order of the log");
    let few = ListEventsRequest { events_max: 2, ..request };
    let newest = within(rig.api(2).list_events(few)).await.expect("told").events;
    assert_eq!(newest, events[events.len() - 2..]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_goes_by_its_own_value_then_the_clusters_then_its_file() {
    let mut rig = Rig::start(1).await;
    let api = rig.api(1);
    let (name, me) = ("limits.connections", &SettingScope::Broker(NodeId(1)));
    let is = |value: &str, source| (Some(value.to_string()), source);
    assert_eq!(shown(api, me, name), is("5", SettingSource::File));
    assert_eq!(api.limit_set(name), None);
    within(api.alter_settings(set(&SettingScope::Cluster, name, "6"))).await.expect("set");
    assert_eq!(shown(api, me, name), is("6", SettingSource::Cluster));
    within(api.alter_settings(set(me, name, "7"))).await.expect("set");
    assert_eq!(shown(api, me, name), is("7", SettingSource::Broker));
    assert_eq!(api.limit_set(name), Some(7));
    let unset = vec![name.to_string()];
    let reset =
        AlterSettingsRequest { scope: me.clone(), set: Vec::new(), unset, dry_run: DryRun::No };
    within(api.alter_settings(reset)).await.expect("reset");
    assert_eq!(shown(api, me, name), is("6", SettingSource::Cluster));
    let wrong = within(api.alter_settings(set(me, "log.filter", "a=[b"))).await;
    assert_eq!(wrong.expect_err("no filter").code, ErrorCode::InvalidConfig);
    let other = DescribeSettingsRequest { scope: SettingScope::Broker(NodeId(2)) };
    assert!(api.describe_settings(other).expect_err("not its own").detail.contains("broker 2"));
    rig.stop().await;
}
