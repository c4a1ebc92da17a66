//! The recipes of the client's guide, against real brokers: each is run as a newcomer runs it, and must hold what its
//! header says while it is killed, joined by others, or told to end.
//!
//! The programs belong to another package and are looked for beside the broker's own: `cargo test --workspace` builds them.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use common::load::{create, leader_of};
use common::{Cluster, read_all};
use highwater_client::{
    Client, GroupState, NewTopic, PartitionId, ProducerConfig, ReaderConfig, Record, StartAt,
    Timestamp,
};
use rustix::process::{Pid, Signal, kill_process};

/// A recipe that runs; killed when dropped, so that a failed test leaves nothing running.
struct Recipe {
    name: &'static str,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
}

impl Recipe {
    fn start(cluster: &Cluster, name: &'static str, arguments: &[&str]) -> Recipe {
        let examples = Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name("examples");
        let mut child = Command::new(examples.join(name))
            .args(arguments)
            .env("HIGHWATER_PROFILE", &cluster.created.profile)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}; build the whole workspace"));
        let (said, heard) = (Arc::default(), BufReader::new(child.stdout.take().expect("piped")));
        let lines: Arc<Mutex<Vec<String>>> = Arc::clone(&said);
        let reading = std::thread::spawn(move || {
            for line in heard.lines().map_while(Result::ok) {
                lines.lock().expect("nobody panics with it").push(line);
            }
        });
        Recipe { name, child, said, reading: Some(reading) }
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().expect("nobody panics with it").clone()
    }

    async fn says(&self, cluster: &Cluster, what: &str, enough: impl Fn(&[String]) -> bool) {
        let what = format!("{} says {what}", self.name);
        cluster.eventually(&what, async || enough(&self.said()).then_some(())).await;
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it was killed");
    }

    /// Tells it to end, and waits until it has, well.
    async fn end(mut self, cluster: &Cluster, how: Signal) -> Vec<String> {
        kill_process(Pid::from_child(&self.child), how).expect("it is ours");
        self.ends(cluster).await
    }

    /// Waits until it has ended by itself, and well.
    async fn ends(&mut self, cluster: &Cluster) -> Vec<String> {
        let what = format!("{} ends", self.name);
        let child = &mut self.child;
        let ended = async || child.try_wait().expect("it is ours");
        let exit = cluster.eventually(&what, ended).await;
        // What it said last may still lie in the pipe.
        self.reading.take().expect("it ends once").join().expect("the reader does not panic");
        assert!(exit.success(), "{} ended with {exit}: {:?}", self.name, self.said());
        self.said()
    }
}

impl Drop for Recipe {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes values with keys, and waits until they are acknowledged.
async fn write(client: &Client, topic: &str, records: impl Iterator<Item = (String, String)>) {
    let producer = client.producer(ProducerConfig::default());
    let mut sent = Vec::new();
    for (key, value) in records {
        let record = Record::to(topic).key(key).value(value);
        sent.push(producer.send(record).await.expect("taken"));
    }
    for delivery in sent {
        delivery.await.expect("acknowledged");
    }
}

/// Ten keys, each with the numbers of its own in order.
fn numbered(numbers: std::ops::Range<u32>) -> impl Iterator<Item = (String, String)> {
    numbers.map(|number| (format!("key-{}", number % 10), number.to_string()))
}

fn numbers(said: &[String]) -> Vec<u32> {
    said.iter().map(|line| line.parse().expect("a number")).collect()
}

async fn lag(client: &Client, group: &str) -> u64 {
    let lag = client.admin().group_lag(group).await.expect("it has offsets");
    lag.iter().map(|it| it.records()).sum()
}

/// Waits until so many members have shared out the partitions.
async fn members(cluster: &Cluster, client: &Client, group: &str, count: usize) {
    let rest = async || {
        let group = client.admin().describe_group(group).await.ok()?;
        let all = group.members.iter().all(|it| !it.assigned.is_empty());
        (group.state == GroupState::Stable && group.members.len() == count && all).then_some(())
    };
    cluster.eventually(&format!("{count} members share {group}"), rest).await;
}

#[test]
fn every_recipe_of_the_guide_is_run_here_shown_in_the_docs_and_short() {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client");
    let read = |name: &str| std::fs::read_to_string(client.join(name)).expect("it is there");
    let (guide, docs, tests) = (read("GUIDE.md"), read("src/guide.rs"), include_str!("recipes.rs"));
    let links = guide.lines().filter_map(|line| line.split_once("]: examples/"));
    let recipes: Vec<&str> = links.filter_map(|(_, file)| file.strip_suffix(".rs")).collect();
    assert_eq!(recipes.len(), 12);
    for name in &recipes {
        let program = read(&format!("examples/{name}.rs"));
        let code = program.lines().filter(|line| !line.starts_with("//!")).count();
        assert!(code <= 60, "{name} has {code} lines");
        assert!(docs.contains(&format!("include_str!(\"../examples/{name}.rs\")")), "{name}");
        assert!(tests.contains(&format!("\"{name}\", &")), "{name} is not run");
    }
    assert!(read("examples/pipeline.rs").lines().count() < 60);
    for file in std::fs::read_dir(client.join("examples")).expect("it is there") {
        let file = file.expect("it is there").file_name();
        let name = file.to_str().expect("our names are text");
        assert!(guide.contains(name), "the guide does not name {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_at_least_once_worker_that_is_killed_leaves_nothing_undone() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 3).await;
    write(&client, "orders", numbered(0..5_000)).await;
    let mut doomed = Recipe::start(&cluster, "worker", &["orders", "billing"]);
    doomed.says(&cluster, "something", |said| !said.is_empty()).await;
    doomed.kill();
    let heir = Recipe::start(&cluster, "worker", &["orders", "billing"]);
    write(&client, "orders", numbered(5_000..5_100)).await;
    let all = |said: &[String]| {
        let mut done: BTreeSet<u32> =
            doomed.said().iter().filter_map(|it| it.parse().ok()).collect();
        done.extend(numbers(said));
        done.into_iter().eq(0..5_100)
    };
    heir.says(&cluster, "what the other had not done", all).await;
    heir.end(&cluster, Signal::INT).await;
    assert_eq!(lag(&client, "billing").await, 0, "what was marked is committed at the close");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outbox_is_applied_once_though_its_consumer_is_killed() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 3).await;
    let file = cluster.dir.path().join("totals.json");
    let name = file.to_str().expect("a path of ours is text");
    let sums = || -> BTreeMap<String, u64> {
        let text = std::fs::read(&file).unwrap_or_else(|_| b"{\"totals\":{}}".to_vec());
        let database: serde_json::Value = serde_json::from_slice(&text).expect("it is never torn");
        serde_json::from_value(database["totals"].clone()).expect("numbers by customer")
    };
    let mut expected = BTreeMap::new();
    for (key, value) in numbered(0..3_000) {
        *expected.entry(key).or_default() += value.parse::<u64>().expect("a number");
    }
    write(&client, "orders", numbered(0..1_500)).await;
    let mut doomed = Recipe::start(&cluster, "outbox", &["orders", name]);
    cluster.eventually("something is applied", async || (!sums().is_empty()).then_some(())).await;
    doomed.kill();
    let heir = Recipe::start(&cluster, "outbox", &["orders", name]);
    write(&client, "orders", numbered(1_500..3_000)).await;
    let whole: u64 = expected.values().sum();
    let enough = async || (sums().values().sum::<u64>() >= whole).then_some(());
    cluster.eventually("all is applied", enough).await;
    heir.end(&cluster, Signal::INT).await;
    assert_eq!(sums(), expected, "each event once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_never_overdrawn_by_many_at_once() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "accounts", 3).await;
    Recipe::start(&cluster, "event_sourcing", &["accounts", "ann", "100"]).ends(&cluster).await;
    let take = |_| Recipe::start(&cluster, "event_sourcing", &["accounts", "ann", "-30"]);
    let mut taking: Vec<Recipe> = (0..8).map(take).collect();
    let mut taken = 0;
    for one in &mut taking {
        let ended = async || one.child.try_wait().expect("it is ours");
        let exit = cluster.eventually("it has decided", ended).await;
        assert!(matches!(exit.code(), Some(0 | 1)), "{exit}");
        taken += usize::from(exit.success());
    }
    assert_eq!(taken, 3, "there was enough for three of them");
    let amounts: Vec<i64> = read_all(&client, "accounts")
        .await
        .into_values()
        .map(|amount| amount.parse().expect("an amount"))
        .collect();
    assert_eq!(amounts, [100, -30, -30, -30]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_gives_back_a_span_of_time_and_nothing_else() {
    let cluster = Cluster::started(1);
    let client = cluster.client().await;
    let topic = NewTopic::new("orders", 3).replication(1);
    client.admin().create_topic(topic).await.expect("created");
    let producer = client.producer(ProducerConfig::default());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let begun = now.expect("it is after 1970").as_millis() as i64 - 1_000_000;
    for number in 0..300_i64 {
        let record = Record::to("orders").partition((number % 3) as u32);
        let record = record.timestamp(Timestamp(begun + number * 10)).value(number.to_string());
        let _settled_at_the_close = producer.send(record).await.expect("taken");
    }
    producer.close(common::PATIENCE).await.expect("acknowledged");
    let (since, until) = ((begun + 1_000).to_string(), (begun + 2_000).to_string());
    let said = Recipe::start(&cluster, "replay", &["orders", &since, &until]).ends(&cluster).await;
    let replayed: BTreeSet<i64> = said
        .iter()
        .map(|line| line.rsplit(' ').next().and_then(|it| it.parse().ok()).expect("a number"))
        .collect();
    assert!(replayed.iter().copied().eq(100..200), "{replayed:?}");
    assert_eq!(said.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_of_a_fan_out_sees_every_record_once() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 3).await;
    write(&client, "orders", numbered(0..100)).await;
    let services = Recipe::start(&cluster, "fan_out", &["orders", "billing", "mail"]);
    services.says(&cluster, "all, twice", |said| said.len() >= 200).await;
    let said = services.end(&cluster, Signal::INT).await;
    for service in ["billing", "mail"] {
        let title = format!("{service}: ");
        let its: Vec<String> =
            said.iter().filter_map(|line| line.strip_prefix(&title)).map(str::to_owned).collect();
        let mut seen = numbers(&its);
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..100), "{service}: {its:?}");
        assert_eq!(lag(&client, service).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_keep_their_order_and_nothing_is_done_twice_while_workers_come_and_go() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 6).await;
    let one = Recipe::start(&cluster, "by_key", &["orders", "shipping"]);
    members(&cluster, &client, "shipping", 1).await;
    write(&client, "orders", numbered(0..1_000)).await;
    one.says(&cluster, "something", |said| !said.is_empty()).await;
    // It comes amid the work of the first, and gets some of its partitions.
    let two = Recipe::start(&cluster, "by_key", &["orders", "shipping"]);
    members(&cluster, &client, "shipping", 2).await;
    write(&client, "orders", numbered(1_000..1_500)).await;
    two.says(&cluster, "something", |said| !said.is_empty()).await;
    // It ends amid its work, and the second has the rest.
    let mut ways = vec![one.end(&cluster, Signal::INT).await];
    let before = ways[0].len();
    two.says(&cluster, "the rest", |said| before + said.len() >= 1_500).await;
    ways.push(two.end(&cluster, Signal::INT).await);
    let mut done = Vec::new();
    for said in &ways {
        let mut last = BTreeMap::new();
        for line in said {
            let mut words = line.split(' ').skip(1);
            let key = words.next().expect("a key").to_owned();
            let number: u32 = words.next().and_then(|it| it.parse().ok()).expect("a number");
            let before = last.insert(key, number);
            assert!(before.is_none_or(|before| before < number), "{before:?} before {line}");
            done.push(number);
        }
    }
    done.sort_unstable();
    assert!(done.into_iter().eq(0..1_500), "some are missing, or done twice");
    assert_eq!(lag(&client, "shipping").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_told_to_end_answers_nothing_twice_and_leaves_at_once() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "requests", 3).await;
    create(&client, "answers", 1).await;
    for signal in [Signal::TERM, Signal::INT] {
        write(&client, "requests", numbered(0..2_000)).await;
        let service = Recipe::start(&cluster, "graceful_shutdown", &["requests", "answers"]);
        service.says(&cluster, "that it answers", |said| !said.is_empty()).await;
        write(&client, "requests", numbered(0..500)).await;
        let said = service.end(&cluster, signal).await;
        assert_eq!(said.last().map(String::as_str), Some("ended well"));
        let group = client.admin().describe_group("answering").await.expect("it has offsets");
        assert_eq!(group.state, GroupState::Empty, "nobody waits for its session");
        let answers = read_all(&client, "answers").await.len() as u64;
        let committed = client.admin().group_offsets("answering").await.expect("it has some");
        let committed: u64 = committed.iter().map(|it| it.offset.0).sum();
        assert_eq!(answers, committed, "what was answered is committed, and nothing else");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_leaves_one_copy_though_it_and_its_leader_are_killed() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "lines", 1).await;
    let file = cluster.dir.path().join("lines.txt");
    let lines: Vec<String> = (0..20_000).map(|number| format!("line {number}")).collect();
    std::fs::write(&file, lines.join("\n")).expect("it is ours");
    let arguments = ["lines", file.to_str().expect("a path of ours is text")];
    let mut doomed = Recipe::start(&cluster, "exactly_one_copy", &arguments);
    doomed.says(&cluster, "that some are there", |said| said.len() > 5).await;
    doomed.kill();
    let mut heir = Recipe::start(&cluster, "exactly_one_copy", &arguments);
    heir.says(&cluster, "that more are there", |said| said.len() > 5).await;
    let leader = leader_of(&cluster, &client, "lines").await;
    cluster.kill(leader);
    heir.ends(&cluster).await;
    let mut again = Recipe::start(&cluster, "exactly_one_copy", &arguments);
    assert!(again.ends(&cluster).await.is_empty(), "all lines are there");
    let there: Vec<String> = read_all(&client, "lines").await.into_values().collect();
    assert!(there == lines, "{} lines are there, or in another order", there.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_copies_each_record_once_and_in_order_whoever_dies() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 3).await;
    create(&client, "invoices", 3).await;
    let copies = async || read_all(&client, "invoices").await.len();
    let mut doomed = Recipe::start(&cluster, "pipeline", &["orders", "invoices"]);
    let other = Recipe::start(&cluster, "pipeline", &["orders", "invoices"]);
    members(&cluster, &client, "orders-to-invoices", 2).await;
    write(&client, "orders", numbered(0..5_000)).await;
    let some = async || (copies().await > 0).then_some(());
    cluster.eventually("some are copied", some).await;
    let leader = leader_of(&cluster, &client, "invoices").await;
    cluster.kill(leader);
    write(&client, "orders", numbered(5_000..6_000)).await;
    // One that is killed says no word: the other has to wait for its session. One that is told to end does.
    doomed.kill();
    other.end(&cluster, Signal::INT).await;
    let heir = Recipe::start(&cluster, "pipeline", &["orders", "invoices"]);
    let all = async || (copies().await >= 6_000).then_some(());
    cluster.eventually("all are copied", all).await;
    heir.end(&cluster, Signal::INT).await;
    let (from, to) = (keyed(&client, "orders").await, keyed(&client, "invoices").await);
    assert!(from == to, "{} copies of {}", to.len(), from.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nightly_job_copies_what_has_come_since_the_last_one() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 3).await;
    create(&client, "archive", 3).await;
    for (night, came) in [(0..1_000, "1000"), (1_000..1_010, "10")] {
        write(&client, "orders", numbered(night)).await;
        let mut job = Recipe::start(&cluster, "blocking", &["orders", "archive", "nightly"]);
        assert_eq!(job.ends(&cluster).await, [came]);
        assert_eq!(lag(&client, "nightly").await, 0, "what was copied is committed");
    }
    assert!(keyed(&client, "orders").await == keyed(&client, "archive").await);
}

/// What lies in a topic, with keys, partition by partition and in order.
async fn keyed(client: &Client, topic: &str) -> Vec<(PartitionId, Vec<u8>, Vec<u8>)> {
    let config = ReaderConfig::new(topic, StartAt::Start).until_end();
    let mut reader = client.reader(config).await.expect("a reader");
    let mut found = Vec::new();
    while let Some(batch) = reader.next_batch().await.expect("readable") {
        found.extend(batch.iter().map(|record| {
            let part = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
            (batch.partition, part(record.key), part(record.value))
        }));
    }
    // Stable: the order within a partition is kept.
    found.sort_by_key(|(partition, _, _)| *partition);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_handled_is_put_aside_with_where_it_was_and_why() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 1).await;
    create(&client, "orders.dead", 1).await;
    let bad = |number: u32| number % 40 == 7;
    let values = (0..100).map(|number| {
        let value = if bad(number) { "a lot".to_owned() } else { number.to_string() };
        (format!("key-{number}"), value)
    });
    write(&client, "orders", values).await;
    let worker = Recipe::start(&cluster, "dead_letters", &["orders", "billing"]);
    worker.says(&cluster, "all that is good", |said| said.len() == 97).await;
    worker.end(&cluster, Signal::INT).await;
    assert_eq!(lag(&client, "billing").await, 0, "bad records hold up nothing");
    let config = ReaderConfig::new("orders.dead", StartAt::Start).until_end();
    let mut reader = client.reader(config).await.expect("a reader");
    let mut letters = Vec::new();
    while let Some(batch) = reader.next_batch().await.expect("readable") {
        for record in &batch {
            let text = |bytes: Option<&[u8]>| {
                String::from_utf8(bytes.expect("it is there").to_vec()).expect("text")
            };
            assert!(text(record.header("error")).contains("is no amount"));
            letters.push([text(record.header("from")), text(record.key), text(record.value)]);
        }
    }
    let expected: Vec<[String; 3]> = (0..100)
        .filter(|number| bad(*number))
        .map(|number| [format!("orders/0@{number}"), format!("key-{number}"), "a lot".into()])
        .collect();
    assert_eq!(letters, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lag_alert_tells_who_does_not_move_and_when_it_is_over() {
    let cluster = Cluster::started(3);
    let client = cluster.client().await;
    create(&client, "orders", 1).await;
    write(&client, "orders", numbered(0..10)).await;
    let worker = Recipe::start(&cluster, "worker", &["orders", "billing"]);
    worker.says(&cluster, "all", |said| said.len() == 10).await;
    worker.end(&cluster, Signal::INT).await;
    let alert = Recipe::start(&cluster, "lag_alert", &["billing", "40", "0.05"]);
    let last = |words: &'static str| {
        move |said: &[String]| said.last().is_some_and(|line| line.contains(words))
    };
    alert.says(&cluster, "that all is well", last("fine: billing")).await;
    write(&client, "orders", numbered(10..60)).await;
    let stuck = "ALERT orders/0 does not move: 50 records behind, owned by nobody";
    alert.says(&cluster, "who is behind", last(stuck)).await;
    let worker = Recipe::start(&cluster, "worker", &["orders", "billing"]);
    alert.says(&cluster, "that it is over", last("fine: billing")).await;
    worker.end(&cluster, Signal::INT).await;
    alert.end(&cluster, Signal::INT).await;
}
