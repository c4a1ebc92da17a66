//! Quotas against a real broker: who has one gets it, and others do not feel it.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, program};
use highwater_client::{
    Client, ClientConfig, Compression, DryRun, NewTopic, Pem, Producer, ProducerConfig, Profiles,
    ReaderConfig, Record, SettingScope, SettingsChange, StartAt,
};
use tokio::time::timeout;

const QUOTA: u64 = 512 * 1024;
const RECORD_BYTES: usize = 4 * 1024;

/// Records that take about a second of the quota.
const A_SECOND: usize = QUOTA as usize / RECORD_BYTES;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_principal_writes_and_reads_at_its_quota_and_no_faster() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    client.admin().create_topic(NewTopic::new("orders", 1).replication(1)).await.expect("made");
    let other = other_principal(&cluster).await;
    set(&client, "quota.produce.rate").await;

    // What is saved up goes first; then each of the two gets the whole rate, though both write.
    let (one, two) = (producer(&client), producer(&other));
    tokio::join!(send(&one, 2 * A_SECOND), send(&two, 2 * A_SECOND));
    let (first, second) = tokio::join!(send(&one, 4 * A_SECOND), send(&two, 4 * A_SECOND));
    eprintln!("{first:?} and {second:?} for what is due in four seconds");
    assert!(first.min(second) > Duration::from_secs(4).mul_f64(0.9), "nobody is quicker");
    // Would one wait for the other, it took twice as long.
    assert!(first.max(second) < first.min(second).mul_f64(1.75), "{first:?} and {second:?}");

    for paused in [&client, &other].map(|client| client.metrics().throttled_ms) {
        assert!(paused > 1_000, "a client is asked to pause for most of the time, and counts that");
    }

    // Amid a debt everything else of the same connection goes on.
    let busy = tokio::spawn({
        let one = one.clone();
        async move { send(&one, 4 * A_SECOND).await }
    });
    for _ in 0..20 {
        client.admin().describe_topic("orders").await.expect("it answers");
    }
    assert!(!busy.is_finished(), "all of them were answered before the debt was paid");
    busy.await.expect("it is written");

    set(&client, "quota.fetch.rate").await;
    let begun = Instant::now();
    let mut reader = reader(&client).await;
    let (mut read, seconds) = (0, 3);
    while read < seconds * A_SECOND {
        let next = timeout(PATIENCE, reader.next_batch()).await.expect("in time");
        read += next.expect("readable").expect("there is more").len();
    }
    // The half second that was saved up, and the last answer, which is paid for afterwards.
    let least = Duration::from_secs(seconds as u64 - 2);
    assert!(begun.elapsed() > least, "{read} records in {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_with_a_quota_of_its_own_goes_by_that_and_everyone_else_by_the_clusters() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    client.admin().create_topic(NewTopic::new("orders", 1).replication(1)).await.expect("made");
    let other = other_principal(&cluster).await;
    set_for(&client, SettingScope::Client("other".to_owned()), "quota.produce.rate").await;

    // What is saved up goes first.
    let (one, two) = (producer(&client), producer(&other));
    send(&two, A_SECOND).await;
    let (free, bound) = tokio::join!(send(&one, 3 * A_SECOND), send(&two, 3 * A_SECOND));
    assert!(bound > Duration::from_secs(3).mul_f64(0.9), "{bound:?}");
    assert!(free < bound / 2, "{free:?} without a quota, {bound:?} with one");
    let admin = client.admin();
    let known = admin.client_settings().await.expect("known");
    assert_eq!(known.iter().map(|it| it.client.as_str()).collect::<Vec<_>>(), ["other"]);

    let reset = SettingsChange {
        scope: SettingScope::Client("other".to_owned()),
        set: Vec::new(),
        unset: vec!["quota.produce.rate".to_owned()],
        dry_run: DryRun::No,
    };
    admin.alter_settings(reset).await.expect("taken back");
    assert_eq!(admin.client_settings().await.expect("known"), []);
    // A batch more may be under way still when the debt is looked at.
    send(&two, 1).await;
    assert!(send(&two, 3 * A_SECOND).await < bound / 2, "its quota is gone");
}

async fn set(client: &Client, name: &str) {
    set_for(client, SettingScope::Cluster, name).await;
}

async fn set_for(client: &Client, scope: SettingScope, name: &str) {
    let change = SettingsChange {
        scope,
        set: vec![(name.to_owned(), QUOTA.to_string())],
        unset: Vec::new(),
        dry_run: DryRun::No,
    };
    client.admin().alter_settings(change).await.expect("it is a setting");
}

fn producer(client: &Client) -> Producer {
    let config = ProducerConfig::default().compression(Compression::None);
    client.producer(config.batch_bytes_max(16 * 1024))
}

/// How long it takes until all are acknowledged.
async fn send(producer: &Producer, records: usize) -> Duration {
    let begun = Instant::now();
    for _ in 0..records {
        let record = Record::to("orders").value(vec![7; RECORD_BYTES]);
        let _delivery = producer.send(record).await.expect("taken");
    }
    let report = timeout(PATIENCE, producer.flush()).await.expect("in time");
    assert_eq!((report.acked, report.failed), (records as u64, 0));
    begun.elapsed()
}

async fn reader(client: &Client) -> highwater_client::Reader {
    client.reader(ReaderConfig::new("orders", StartAt::Start)).await.expect("a reader")
}

fn config(cluster: &Cluster) -> ClientConfig {
    let profiles = Profiles::load_from(&cluster.created.profile).expect("init wrote it");
    profiles.get(None).expect("one profile").config()
}

async fn other_principal(cluster: &Cluster) -> Client {
    let into = cluster.dir.path().join("other");
    let mut issue = Command::new(program());
    issue.args(["issue", "other", "--dir"]).arg(cluster.dir.path());
    let issued = issue.arg("--into").arg(&into).output().expect("the broker's program is there");
    assert!(issued.status.success(), "{}", String::from_utf8_lossy(&issued.stderr));
    let mut config = config(cluster);
    config.tls.cert = Pem::File(into.join("client.pem"));
    config.tls.key = Pem::File(into.join("client.key"));
    Client::connect(config).await.expect("a client of the same cluster")
}
