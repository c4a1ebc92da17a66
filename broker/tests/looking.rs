//! What `hw` says of groups and of what lies in topics, on real brokers, and what it changes there.

mod common;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::Cluster;
use highwater_client::{Client, ConsumerConfig, GroupState, NewTopic, ProducerConfig, Record};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hw_reads_in_a_group_says_its_lag_and_moves_it() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    let topic = NewTopic::new(TOPIC, 1).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    let producer = client.producer(ProducerConfig::default());
    for number in 0..10 {
        let record = Record::to(TOPIC).value(format!("v{number}"));
        producer.send_and_wait(record).await.expect("acknowledged");
    }
    let read = hw(&cluster, &["consume", TOPIC, "-g", GROUP, "-n", "4"]);
    assert_eq!(String::from_utf8_lossy(&read.stdout), "v0\nv1\nv2\nv3\n", "{}", told(&read));
    let lag = json(&hw(&cluster, &["group", "lag", GROUP, "-o", "json"]));
    assert_eq!(
        (&lag["lag_total"], &lag["partitions"][0]["committed_offset"]),
        (&6.into(), &4.into())
    );
    let behind = hw(&cluster, &["group", "lag", GROUP, "--max", "5"]);
    assert_eq!(behind.status.code(), Some(10), "{}", told(&behind));
    says_how_old_its_lag_is(&cluster);
    let list = json(&hw(&cluster, &["group", "list", "-o", "json"]));
    assert_eq!(
        (&list["groups"][0]["group"], &list["groups"][0]["state"]),
        (&GROUP.into(), &"empty".into())
    );

    let unasked = hw(&cluster, &["group", "seek", GROUP, TOPIC, "--to", "end"]);
    assert!(
        !unasked.status.success() && told(&unasked).contains("no terminal"),
        "{}",
        told(&unasked)
    );
    let outside = hw(&cluster, &["group", "seek", GROUP, TOPIC, "--to", "11", "-y"]);
    assert!(told(&outside).contains("offsets 0 up to 10"), "{}", told(&outside));
    let moved = hw(&cluster, &["group", "seek", GROUP, "orders/0", "--to", "-2", "-y"]);
    assert!(
        moved.status.success() && told(&moved).contains("orders/0: 4 -> 8"),
        "{}",
        told(&moved)
    );
    let rest = hw(&cluster, &["consume", TOPIC, "-g", GROUP, "-n", "2"]);
    assert_eq!(String::from_utf8_lossy(&rest.stdout), "v8\nv9\n", "{}", told(&rest));

    carries_offsets_to_another_group(&cluster);
    is_not_deleted_while_it_has_members(&cluster, &client).await;
}

fn says_how_old_its_lag_is(cluster: &Cluster) {
    let late = hw(cluster, &["group", "lag", GROUP, "--max-age", "0s"]);
    assert_eq!(late.status.code(), Some(10), "{}", told(&late));
    let paced = json(&hw(cluster, &["group", "lag", GROUP, "--over", "50ms", "-o", "json"]));
    let partition = &paced["partitions"][0];
    assert!(partition["lag_ms"].as_u64().is_some_and(|age| age < 600_000), "{paced}");
    assert_eq!(
        (&partition["handled_per_s"], &paced["caught_up_in_s"]),
        (&0.0.into(), &serde_json::Value::Null)
    );
}

fn carries_offsets_to_another_group(cluster: &Cluster) {
    let exported = hw(cluster, &["group", "export", GROUP]);
    assert_eq!(String::from_utf8_lossy(&exported.stdout), "orders,0,10\n", "{}", told(&exported));
    let (file, wrong) = (cluster.dir.path().join("a.csv"), cluster.dir.path().join("b.csv"));
    std::fs::write(&file, &exported.stdout).expect("the directory is ours");
    std::fs::write(&wrong, "orders,7,1\n").expect("the directory is ours");
    let copy = |file: &Path| {
        let file = file.display().to_string();
        hw(cluster, &["group", "seek", "copy", "--from-file", &file, "-y"])
    };
    let refused = copy(&wrong);
    assert!(told(&refused).contains("and no orders/7"), "{}", told(&refused));
    assert!(copy(&file).status.success());
    let copied = hw(cluster, &["group", "export", "copy"]);
    assert_eq!(copied.stdout, exported.stdout, "{}", told(&copied));
}

async fn is_not_deleted_while_it_has_members(cluster: &Cluster, client: &Client) {
    let member = client.consumer(ConsumerConfig::new(GROUP, [TOPIC])).await.expect("it begins");
    cluster
        .eventually("it owns the partition", async || {
            let group = client.admin().describe_group(GROUP).await.ok()?;
            let owns = group.members.iter().any(|it| !it.assigned.is_empty());
            (group.state == GroupState::Stable && owns).then_some(())
        })
        .await;
    let described = json(&hw(cluster, &["group", "describe", GROUP, "-o", "json"]));
    assert_eq!(described["members"][0]["owns"], serde_json::json!(["orders/0"]), "{described}");
    let refused = hw(cluster, &["group", "delete", GROUP, "-y"]);
    assert!(told(&refused).contains("while it has 1 members"), "{}", told(&refused));
    member.close(PATIENCE).await.expect("it leaves");
    let deleted = hw(cluster, &["group", "delete", GROUP, "-y"]);
    assert!(deleted.status.success(), "{}", told(&deleted));
    let gone = hw(cluster, &["group", "describe", GROUP]);
    assert!(told(&gone).contains("neither members nor committed offsets"), "{}", told(&gone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hw_says_what_the_records_of_a_topic_are_like() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    let topic = NewTopic::new(TOPIC, 2).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    let producer = client.producer(ProducerConfig::default());
    let send = async |record: Record| producer.send_and_wait(record).await.expect("acknowledged");
    for number in 0..30_u32 {
        let key = if number % 3 == 0 { "hot".to_owned() } else { format!("key-{number}") };
        send(Record::to(TOPIC).partition(1).key(key).value(vec![b'v'; 100])).await;
    }
    send(Record::to(TOPIC).partition(0).key("gone")).await;
    send(Record::to(TOPIC).partition(0).value("no key")).await;

    let seen = json(&hw(&cluster, &["topic", "analyze", TOPIC, "--keys", "1", "-o", "json"]));
    let number = |field: &str| seen[field].as_u64().unwrap_or_else(|| panic!("{field}: {seen}"));
    assert_eq!(
        ["records", "keyless", "tombstones", "distinct_keys"].map(number),
        [32, 1, 1, 22],
        "{seen}"
    );
    assert_eq!(
        (&seen["value_bytes"]["max"], &seen["value_bytes"]["p50"]),
        (&100.into(), &100.into())
    );
    let hot = &seen["hot_keys"];
    assert_eq!(hot.as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!((&hot[0]["key"], &hot[0]["records"]), (&"hot".into(), &10.into()));
    assert_eq!(seen["partitions"][1]["records"], 30, "{seen}");
    let some =
        hw(&cluster, &["topic", "analyze", TOPIC, "-p", "1", "--from", "10:15", "-o", "json"]);
    assert_eq!(json(&some)["records"], 5, "{}", told(&some));
    let read = hw(&cluster, &["consume", TOPIC, "-p", "1", "--from", "10:12", "--until-end"]);
    assert_eq!(read.stdout.len(), 2 * 101, "{}", told(&read));
    let few = hw(&cluster, &["topic", "analyze", TOPIC, "-n", "3"]);
    let table = String::from_utf8_lossy(&few.stdout).into_owned();
    assert!(table.contains("Records") && told(&few).contains("first 3 records"), "{table}");
    let gone = hw(&cluster, &["topic", "analyze", "nowhere"]);
    assert!(told(&gone).contains("nowhere") && !gone.status.success(), "{}", told(&gone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hw_sets_lists_and_takes_back_quotas() {
    let cluster = Cluster::started(1);
    cluster.client().await.close().await;
    let quotas = || json(&hw(&cluster, &["quota", "list", "-o", "json"]))["quotas"].clone();
    let shown = |client: Option<&str>, produce: Option<u64>, fetch: Option<u64>| {
        serde_json::json!({
            "client": client, "produce_bytes_per_s": produce, "fetch_bytes_per_s": fetch,
        })
    };
    let ran = |line: &str| {
        let output = hw(&cluster, &line.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "{line}: {}", told(&output));
    };
    assert_eq!(quotas(), serde_json::json!([shown(None, None, None)]));
    ran("quota set --everyone --produce 1MiB --fetch 2MiB");
    ran("quota set reports --produce none");
    let (everyone, one) = (shown(None, Some(1 << 20), Some(2 << 20)), Some("reports"));
    assert_eq!(quotas(), serde_json::json!([everyone, shown(one, None, Some(2 << 20))]));
    ran("quota reset reports");
    assert_eq!(quotas(), serde_json::json!([everyone]));
    let cases: [(&[&str], &str); 4] = [
        (&["set", "a/b", "--fetch", "1MiB"], "no slash"),
        (&["set", "reports", "--fetch", "12"], "1024"),
        (&["set", "reports"], "--produce"),
        (&["set", "--fetch", "1MiB"], "NAME"),
    ];
    for (arguments, named) in cases {
        let refused = hw(&cluster, &[&["quota"], arguments].concat());
        assert!(!refused.status.success(), "{arguments:?}");
        assert!(told(&refused).contains(named), "{arguments:?}: {}", told(&refused));
    }
}

/// Runs the command line as a script would: without a terminal.
fn hw(cluster: &Cluster, arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name("hw");
    let mut command = Command::new(program);
    command.args(arguments).env("HIGHWATER_PROFILE", &cluster.created.profile);
    command.stdin(Stdio::null()).output().expect("hw is built beside the broker")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(output)))
}

const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "orders";
const GROUP: &str = "billing";
