//! Clients take all the places that there are for them, and other brokers come in all the same.

mod common;

use common::Cluster;
use highwater_client::{Client, DryRun, NodeId, Profiles, SettingScope, SettingsChange};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_come_in_where_clients_have_taken_every_place() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    let change = SettingsChange {
        scope: SettingScope::Cluster,
        set: vec![("limits.connections".to_owned(), "1".to_owned())],
        unset: Vec::new(),
        dry_run: DryRun::No,
    };
    client.admin().alter_settings(change).await.expect("it may be set");
    for broker in [1, 2, 3] {
        // The place of this client, which stays.
        cluster
            .eventually("the client is connected everywhere", async || {
                client.admin().replicas_on(NodeId(broker)).await.ok()
            })
            .await;
    }
    let profiles = Profiles::load_from(&cluster.created.profile).expect("init wrote it");
    let config = profiles.get(None).expect("one profile").config();
    // Each broker hears of the limit in its own time.
    cluster
        .eventually("there is no place for a second one", async || {
            Client::connect(config.clone()).await.is_err().then_some(())
        })
        .await;
    // Who dials and who is dialled depends on the ids, so both ends of the order are tried.
    for broker in [1, 3] {
        cluster.kill(broker);
        cluster
            .eventually("it is away", async || alive(&client).await.filter(|alive| *alive == 2))
            .await;
        cluster.start(broker);
        cluster
            .eventually("it is back", async || alive(&client).await.filter(|alive| *alive == 3))
            .await;
    }
}

async fn alive(client: &Client) -> Option<usize> {
    let seen = client.admin().cluster().await.ok()?;
    Some(seen.brokers.iter().filter(|broker| !broker.fenced).count())
}
