//! One person operates a cluster with nothing but `hw` and `highwater`: the walk of the README's
//! "Operating a cluster", in its order and with every command of it, while a producer writes with `sync`
//! and a reader follows.
//!
//! What the commands print is read as JSON, and the same thing must have the same name and type in all of
//! it. `hw` belongs to another package: `cargo test --workspace` builds it beside the broker.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use common::Cluster;
use common::tail::Tail;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_person_operates_a_cluster_while_records_flow() {
    let mut walk = Walk::begin();
    let client = walk.cluster.client().await;
    walk.ran("export HIGHWATER_PROFILE=cluster/admin/profile.toml");
    walk.hw("hw cluster health --wait", "");
    assert_eq!(walk.brokers(), [1, 2, 3]);
    walk.hw("hw topic create orders --partitions 6 --replication 3", "");
    let tail = Tail::start(&client, "orders");
    tail.goes_on(200).await;

    grow(&mut walk).await;
    tail.goes_on(200).await;
    look(&mut walk);
    drain_and_take_back(&mut walk).await;
    tail.goes_on(200).await;
    hand_the_vote_on_and_retire(&mut walk).await;
    tail.goes_on(200).await;
    turn_a_move_back_halfway(&mut walk).await;
    other_numbers_of_replicas(&mut walk);
    tail.goes_on(200).await;
    restart_one_by_one(&mut walk);
    tail.goes_on(200).await;
    replace_a_disk(&mut walk).await;
    tail.goes_on(200).await;

    let sent = tail.stop().await;
    walk.healthy();
    println!("{sent} records came through; {:?} in all", walk.begun.elapsed());
    walk.everything_of_the_readme_was_run();
}

/// From three brokers to five, with work for the new ones.
async fn grow(walk: &mut Walk) {
    assert_eq!(walk.join(), 4);
    walk.hw("hw cluster health --wait", "--brokers-min 4");
    let moved = walk.hw("hw partition reassign orders --to 2,3,4", "-y");
    let moves = moved["moves"].as_array().expect("a list");
    assert!(!moves.is_empty() && moves.iter().all(|it| it["topic"] == "orders"), "{moved}");
    assert!(walk.replicas().iter().all(|set| *set == BTreeSet::from([2, 3, 4])));

    assert_eq!(walk.join(), 5);
    walk.hw("hw cluster health --wait", "--brokers-min 5");
    let plan = walk.hw("hw cluster balance --dry-run", "--measure 1s");
    assert_eq!(plan["changed"], false, "{plan}");
    let done = walk.hw("hw cluster balance", "-y --measure 0s");
    assert_eq!(done["changed"], true, "{done}");
    for newcomer in [4, 5] {
        let share = walk.replicas().iter().filter(|set| set.contains(&newcomer)).count();
        assert!((3..=4).contains(&share), "18 replicas on 5 brokers: {share} on {newcomer}");
    }
}

/// What there is to look at, on the way.
fn look(walk: &mut Walk) {
    assert_eq!(walk.hw("hw partition moves", "")["moves"], json!([]));
    walk.watch("hw partition moves -w");
    let told = walk.hw("hw cluster events --since 1h", "");
    let kinds = told["events"].as_array().expect("a list").iter().map(|event| &event["kind"]);
    let kinds: BTreeSet<&str> = kinds.filter_map(Value::as_str).collect();
    for kind in ["broker-registered", "topic-created", "move-begun", "move-ended"] {
        assert!(kinds.contains(kind), "{kind} is not told: {kinds:?}");
    }
    for line in [
        "hw topic list",
        "hw topic describe orders",
        "hw topic alter orders",
        "hw partition list",
        "hw partition describe orders/0",
        "hw partition explain orders/0",
        "hw partition explain orders/0@0",
        "hw partition top --over 200ms",
        "hw partition top --brokers --over 200ms",
        "hw partition throttle",
        "hw cluster config list",
        "hw cluster controller list",
    ] {
        walk.hw(line, "");
    }
}

async fn drain_and_take_back(walk: &mut Walk) {
    let drained = walk.hw("hw cluster drain 2", "");
    assert_eq!((&drained["duty"], &drained["leaders_total"]), (&json!("drained"), &json!(0)));
    assert_ne!(drained["replicas_total"], 0, "its replicas stay");
    assert_eq!(walk.hw("hw cluster undrain 2", "")["duty"], "active");
}

/// Broker 4 gets the vote of broker 1, which then leaves for good.
async fn hand_the_vote_on_and_retire(walk: &mut Walk) {
    let added = walk.hw("hw cluster controller add 4", "");
    assert_eq!(added["voters"], json!([1, 2, 3, 4]));
    let taken = walk.hw("hw cluster controller remove 1", "");
    assert_eq!(taken["voters"], json!([2, 3, 4]));
    walk.hw("hw cluster decommission 1", "-y");
    walk.hw("hw cluster remove 1", "-y");
    walk.cluster.eventually_ended(1).await;
    assert_eq!(walk.brokers(), [2, 3, 4, 5]);
    walk.healthy();
}

/// A plan in a file, throttled so that there is a half of the way, and cancelled there.
async fn turn_a_move_back_halfway(walk: &mut Walk) {
    walk.hw("hw topic create bulk --partitions 2 --replication 1", "");
    let line = |key: u32| format!("{key}:{}\n", "x".repeat(8000));
    let lines: String = (0..600).map(line).collect();
    walk.feed("hw produce bulk --acks sync --compression none --key-sep :", lines.as_bytes());
    let homes = walk.sets_of("bulk");
    let other = [2, 3, 4, 5].into_iter().find(|it| !homes.iter().flatten().any(|at| at == it));
    let other = other.expect("two partitions of one replica leave brokers free");
    let plan = walk.text(&format!("hw partition reassign bulk --to {other} --dry-run -o kafka"));
    let file = walk.cluster.dir.path().join("plan.json");
    std::fs::write(&file, plan).expect("the directory is ours");
    let file = file.display().to_string();
    walk.hw(&format!("hw partition reassign --plan {file} --throttle 200KiB --detach"), "-y");
    let moving = walk.hw("hw partition moves", "");
    assert_eq!(moving["moves"].as_array().map(Vec::len), Some(2), "they take a while: {moving}");
    let back = walk.hw("hw partition cancel bulk", "");
    assert_eq!(back["moves"].as_array().map(Vec::len), Some(2), "{back}");
    walk.hw("hw partition throttle none", "");
    walk.until("nothing moves", |walk| walk.hw("hw partition moves", "")["moves"] == json!([]))
        .await;
    assert_eq!(walk.sets_of("bulk"), homes, "it is where it was");
    walk.hw("hw topic delete bulk", "-y");
}

fn other_numbers_of_replicas(walk: &mut Walk) {
    for count in [4, 3] {
        walk.hw(&format!("hw partition reassign orders --replicas {count}"), "-y");
        assert!(walk.replicas().iter().all(|set| set.len() == count), "{count}");
    }
}

fn restart_one_by_one(walk: &mut Walk) {
    for node in 2..=5 {
        assert!(walk.cluster.stop(node), "it ends well\n{}", walk.cluster.logs());
        walk.cluster.start(node);
        walk.ran("systemctl restart highwater");
        walk.healthy();
    }
}

/// An old machine gets a new, empty disk.
async fn replace_a_disk(walk: &mut Walk) {
    walk.cluster.kill(2);
    let data = walk.cluster.dir.path().join("node-2/data");
    std::fs::remove_dir_all(data).expect("nobody uses it");
    let config = walk.cluster.created.configs[1].clone();
    let formatted = highwater(&["format", "-c"]).arg(config).output().expect("it is built");
    assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
    walk.ran("highwater format -c config.toml");
    walk.cluster.start(2);
    walk.until("its disk is known to be new", |walk| {
        walk.count(2, "replicas_refilling").is_some_and(|count| count > 0)
            || walk.told("replica-refilled")
            // Where it is placed on what was made since, it may have nothing to fill.
            || walk.count(2, "replicas_total") == Some(0)
    })
    .await;
    walk.healthy();
}

/// A cluster, what was typed, and what the names of fields have meant so far.
struct Walk {
    cluster: Cluster,
    begun: Instant,
    ran: BTreeSet<String>,
    types: BTreeMap<String, (&'static str, String)>,
}

impl Walk {
    /// Three brokers, made and started as the README says.
    fn begin() -> Walk {
        let cluster = Cluster::started(3);
        let types = BTreeMap::new();
        let mut walk = Walk { cluster, begun: Instant::now(), ran: BTreeSet::new(), types };
        let line =
            "highwater init --dir cluster --address a:9400 --address b:9400 --address c:9400";
        let arguments: Vec<&str> = line.split(' ').skip(1).collect();
        let made = highwater(&arguments).current_dir(walk.cluster.dir.path()).output();
        let made = made.expect("the broker's program is there");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        walk.ran(line);
        walk.ran("highwater start -c config.toml");
        walk
    }

    /// Invites one more broker and starts it by the invitation; gives its number.
    fn join(&mut self) -> usize {
        let node = self.cluster.join();
        self.ran("highwater invite --dir cluster --address d:9400");
        self.ran("highwater start --join node-4.invitation --dir .");
        node
    }

    /// Notes that a command was run by other means, such as a test's own start of a broker.
    fn ran(&mut self, line: &str) {
        println!("{:>8.1?}  {line}", self.begun.elapsed());
        self.ran.insert(line.to_owned());
    }

    /// Runs a line with what a script adds to it, such as `-y`; what it prints, as JSON.
    fn hw(&mut self, line: &str, more: &str) -> Value {
        let output = self.output(&format!("{line} {more} -o json"), b"");
        self.ran(line);
        let value: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"));
        assert!(value["schema"].is_string(), "{line}: {value}");
        self.note_types(line, "", &value);
        value
    }

    /// Runs a line that goes on for ever, reads a line of it, and stops reading: then it ends well.
    fn watch(&mut self, line: &str) {
        let ended = tokio::task::block_in_place(|| {
            let mut child = self.command(line).stdout(Stdio::piped()).spawn().expect("it is built");
            let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
            let mut first = String::new();
            out.read_line(&mut first).expect("it prints");
            let seen: Value = serde_json::from_str(&first).expect("a document a line");
            assert!(seen["schema"].is_string(), "{seen}");
            drop(out);
            child.wait().expect("it was started")
        });
        assert!(ended.success(), "{line}: {ended}");
        self.ran(line);
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(built("hw"));
        command.args(line.split_whitespace().skip(1));
        command.env("HIGHWATER_PROFILE", &self.cluster.created.profile);
        command
    }

    /// What a line prints.
    fn text(&mut self, line: &str) -> String {
        String::from_utf8(self.output(line, b"").stdout).expect("it prints text")
    }

    /// Runs a line that reads its input.
    fn feed(&mut self, line: &str, input: &[u8]) {
        self.output(line, input);
    }

    fn output(&self, line: &str, input: &[u8]) -> Output {
        let output = tokio::task::block_in_place(|| {
            let mut child = self
                .command(line)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("hw is built beside the broker: build the whole workspace");
            let mut stdin = child.stdin.take().expect("it is piped");
            // A program that does not read its input may end before it was written.
            let _ = std::io::Write::write_all(&mut stdin, input);
            drop(stdin);
            child.wait_with_output().expect("it was started")
        });
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {errors}\n{}", self.cluster.logs());
        output
    }

    /// The same name never stands for another type of thing, in whatever was printed.
    fn note_types(&mut self, line: &str, name: &str, value: &Value) {
        let kind = match value {
            Value::Null => return,
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "text",
            Value::Object(_) => "an object",
            Value::Array(items) => match items.first() {
                None => return,
                Some(Value::Object(_)) => "a list of objects",
                Some(_) => "a list of values",
            },
        };
        if !name.is_empty() {
            let known = self.types.entry(name.to_owned()).or_insert((kind, line.to_owned()));
            assert_eq!(known.0, kind, "`{name}` of `{line}` and of `{}`", known.1);
        }
        match value {
            Value::Object(fields) if name != "configs" => {
                for (name, value) in fields {
                    self.note_types(line, name, value);
                }
            }
            Value::Array(items) => {
                for object in items.iter().filter_map(Value::as_object) {
                    for (name, value) in object {
                        self.note_types(line, name, value);
                    }
                }
            }
            _ => {}
        }
    }

    /// Waits until the cluster is whole, as its operator does.
    fn healthy(&mut self) {
        let up = self.brokers().len();
        let seen = self.hw("hw cluster health --wait", &format!("--brokers-min {up}"));
        assert_eq!(seen["healthy"], true, "{seen}");
    }

    async fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Walk) -> bool) {
        let deadline = Instant::now() + common::PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.cluster.logs());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    fn brokers(&mut self) -> Vec<u64> {
        let listed = self.hw("hw cluster brokers", "");
        let brokers = listed["brokers"].as_array().expect("a list").iter();
        brokers.filter_map(|broker| broker["broker"].as_u64()).collect()
    }

    /// A number that is told of a broker.
    fn count(&mut self, node: u64, what: &str) -> Option<u64> {
        let listed = self.hw("hw cluster brokers", "");
        let mut brokers = listed["brokers"].as_array().expect("a list").iter();
        brokers.find(|it| it["broker"] == node)?[what].as_u64()
    }

    fn told(&mut self, kind: &str) -> bool {
        self.hw(&format!("hw cluster events --kind {kind}"), "")["events"] != json!([])
    }

    /// The brokers of each partition of the topic under load.
    fn replicas(&mut self) -> Vec<BTreeSet<u64>> {
        self.sets_of("orders")
    }

    fn sets_of(&mut self, topic: &str) -> Vec<BTreeSet<u64>> {
        let listed = self.hw(&format!("hw partition list {topic}"), "");
        let partitions = listed["partitions"].as_array().expect("a list").iter();
        let set = |partition: &Value| {
            let replicas = partition["replicas"].as_array().expect("a list").iter();
            replicas.filter_map(Value::as_u64).collect()
        };
        partitions.map(set).collect()
    }

    fn everything_of_the_readme_was_run(&self) {
        for command in commands_of_the_readme() {
            assert!(self.ran.contains(&command), "the README's `{command}` was not run");
        }
    }
}

/// Every command of "Operating a cluster", without its comment.
fn commands_of_the_readme() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let (_, section) =
        readme.split_once("## Operating a cluster").expect("there is such a section");
    let (_, block) = section.split_once("```sh\n").expect("it has commands");
    let (block, _) = block.split_once("```").expect("they end");
    let lines = block.lines().map(|line| line.split_once('#').map_or(line, |(line, _)| line));
    let commands = lines
        .flat_map(|line| line.split("&&"))
        .map(|command| command.split_whitespace().collect::<Vec<_>>().join(" "));
    commands.filter(|command| !command.is_empty()).collect()
}

fn highwater(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(arguments);
    command
}

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name(name)
}
