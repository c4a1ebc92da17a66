//! The programs that people hold in their hands, against real brokers: `hw` line for line, and the
//! client's examples.
//!
//! They belong to another package, so they are looked for beside the broker's own program: `cargo test
//! --workspace` builds them all.

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::Cluster;

/// Runs a program with the cluster's profile and gives it lines to read.
fn run(cluster: &Cluster, program: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .env("HIGHWATER_PROFILE", &cluster.created.profile)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{}: {error}; build the whole workspace", program.display())
        });
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it was started");
    // A program that does not read its input may end before it was written.
    let _ = feeder.join().expect("the feeder does not panic");
    output
}

fn succeed(cluster: &Cluster, program: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run(cluster, program, arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {errors}", program.display());
    output.stdout
}

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name(name)
}

/// Lines with keys, empty values, bytes that are not text, and no newline at the very end.
fn lines() -> Vec<u8> {
    let mut lines = Vec::new();
    for number in 0..50_000_u32 {
        let value: &[u8] =
            [&b"plain"[..], b"", b"\xff\xfe\x00 raw", b"a\tsecond tab"][number as usize % 4];
        lines.extend_from_slice(format!("key-{}\t{number} ", number % 977).as_bytes());
        lines.extend_from_slice(value);
        lines.push(b'\n');
    }
    lines.pop();
    lines
}

/// Each key's lines in order; between keys there is no order to keep.
fn by_key(lines: &[u8]) -> HashMap<&[u8], Vec<&[u8]>> {
    let mut found: HashMap<&[u8], Vec<&[u8]>> = HashMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let key = line.split(|byte| *byte == b'\t').next().expect("a split has a first part");
        found.entry(key).or_default().push(line);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn hw_gives_back_the_lines_it_took_in_order_per_key_at_every_ack_mode() {
    let cluster = Cluster::started(3);
    cluster.client().await.close().await;
    let (hw, lines) = (built("hw"), lines());
    for acks in ["async", "semi-sync", "sync"] {
        let topic = format!("lines-{acks}");
        succeed(&cluster, &hw, &["topic", "create", &topic, "--partitions", "12"], b"");
        succeed(&cluster, &hw, &["produce", &topic, "--key-sep", "\t", "--acks", acks], &lines);
        let back =
            succeed(&cluster, &hw, &["consume", &topic, "--until-end", "--key-sep", "\t"], b"");
        assert!(by_key(&back) == by_key(&lines), "{acks}: other lines came back than went in");
    }
    let listed = succeed(&cluster, &hw, &["topic", "list", "-o", "name"], b"");
    assert_eq!(listed, b"lines-async\nlines-semi-sync\nlines-sync\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn hw_packs_with_every_codec_and_shows_the_lines_as_if_it_had_not() {
    let cluster = Cluster::started(1);
    cluster.client().await.close().await;
    let (hw, all) = (built("hw"), lines());
    succeed(&cluster, &hw, &["topic", "create", "packed", "-r", "1", "-p", "1"], b"");
    let produce = |topic: &str, codec: &str| {
        let arguments = ["produce", topic, "-k", "\t", "--compression", codec];
        succeed(&cluster, &hw, &arguments, &all);
    };
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    codecs.into_iter().for_each(|codec| produce("packed", codec));
    let back = succeed(&cluster, &hw, &["consume", "packed", "-e", "-k", "\t"], b"");
    let mut expected = [all.as_slice(), b"\n"].concat();
    expected = expected.repeat(codecs.len());
    assert!(back == expected, "the same lines, five times, in order");

    // The topic's codec wins over the producer's, also while it is in use, and nobody notices.
    let named = run(&cluster, &hw, &["topic", "alter", "packed", "compression.type=zst"], b"");
    let why = String::from_utf8_lossy(&named.stderr).into_owned();
    assert!(!named.status.success() && why.contains("did you mean `zstd`"), "{why}");
    succeed(&cluster, &hw, &["topic", "alter", "packed", "compression.type=zstd"], b"");
    produce("packed", "snappy");
    let shown = succeed(&cluster, &hw, &["topic", "alter", "packed", "-o", "json"], b"");
    let shown = String::from_utf8(shown).expect("JSON is text");
    assert!(shown.contains("compression.type") && shown.contains("zstd"), "{shown}");
    let refused = run(&cluster, &hw, &["produce", "packed", "--compression", "rar"], b"x\n");
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("rar") && why.contains("snappy"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hw_writes_headers_and_tombstones_and_shows_them() {
    let cluster = Cluster::started(1);
    cluster.client().await.close().await;
    let hw = built("hw");
    succeed(&cluster, &hw, &["topic", "create", "marked", "-r", "1"], b"");
    let written = ["produce", "marked", "-k", ":", "-Z", "-H", "a=1", "-H", "a=2", "-H", "flag"];
    succeed(&cluster, &hw, &written, b"gone:\nkept:v\n");
    let read = succeed(&cluster, &hw, &["consume", "marked", "-e", "-o", "jsonl"], b"");
    let read = String::from_utf8(read).expect("JSON is text");
    let lines: Vec<&str> = read.lines().collect();
    assert_eq!(lines.len(), 2, "{read}");
    assert!(lines[0].contains(r#""key":"gone","value":null"#), "{read}");
    assert!(lines[1].contains(r#""key":"kept","value":"v""#), "{read}");
    let headers =
        r#"[{"name":"a","value":"1"},{"name":"a","value":"2"},{"name":"flag","value":null}]"#;
    assert!(lines.iter().all(|line| line.contains(headers)), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hw_names_what_is_wrong_and_ends_with_the_code_for_it() {
    let cluster = Cluster::started(3);
    cluster.client().await.close().await;
    let hw = built("hw");
    let cases: [(&[&str], &str); 5] = [
        (&["produce", "nowhere"], "nowhere"),
        (&["consume", "nowhere", "--until-end"], "nowhere"),
        (&["topic", "create", "no good", "--partitions", "1"], "no good"),
        (&["topic", "create", "many", "--partitions", "1", "--replication", "9"], "9"),
        (
            &["topic", "create", "odd", "--partitions", "1", "--config", "retention.m=5"],
            "retention.ms",
        ),
    ];
    for (arguments, named) in cases {
        let output = run(&cluster, &hw, arguments, b"a line\n");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        assert!(errors.contains(named), "{arguments:?} does not name {named}: {errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hw_trims_what_its_plan_said_and_asks_first() {
    let cluster = Cluster::started(3);
    cluster.client().await.close().await;
    let hw = built("hw");
    succeed(&cluster, &hw, &["topic", "create", "short", "--partitions", "2"], b"");
    succeed(&cluster, &hw, &["produce", "short", "--acks", "sync"], b"one\ntwo\nthree\n");
    let count = || {
        let back = succeed(&cluster, &hw, &["consume", "short", "--until-end"], b"");
        String::from_utf8_lossy(&back).lines().count()
    };
    let trim = |more: &[&str]| {
        let arguments = [&["topic", "trim", "short", "--before", "end"], more].concat();
        let output = run(&cluster, &hw, &arguments, b"");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (planned, plan) = trim(&["--dry-run"]);
    assert!(planned && plan.contains("would delete up to 3 records"), "{plan}");
    let (asked, why) = trim(&[]);
    assert!(!asked && why.contains("-y"), "nobody is there to ask: {why}");
    assert_eq!(count(), 3);
    let (done, said) = trim(&["-y"]);
    assert!(done, "{said}");
    assert_eq!(count(), 0);
    let (again, said) = trim(&["-y"]);
    assert!(again && said.contains("nothing to delete"), "{said}");
    let too_far = run(&cluster, &hw, &["topic", "trim", "short/0", "--before", "99", "-y"], b"");
    assert!(!too_far.status.success(), "there are not so many");
}

/// The walk of the README: a fourth broker comes, works, and goes again.
#[tokio::test(flavor = "multi_thread")]
async fn hw_walks_from_three_brokers_to_four_and_back() {
    let mut cluster = Cluster::started(3);
    let client = cluster.client().await;
    let hw = built("hw");
    succeed(&cluster, &hw, &["topic", "create", "orders", "-p", "4", "-r", "3"], b"");
    succeed(&cluster, &hw, &["produce", "orders", "--acks", "sync"], b"one\ntwo\nthree\n");
    cluster.join();
    cluster
        .eventually("the fourth broker is there", async || {
            let brokers = client.admin().brokers().await.ok()?;
            (brokers.len() == 4).then_some(())
        })
        .await;
    let said = |arguments: &[&str]| {
        let output = run(&cluster, &hw, arguments, b"");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let brokers = |words: &[&str]| {
        let table = succeed(&cluster, &hw, &["cluster", "brokers"], b"");
        let table = String::from_utf8(table).expect("a table is text");
        let line = table.lines().find(|line| line.trim_start().starts_with('4'));
        words.iter().all(|word| line.is_some_and(|line| line.contains(word)))
    };
    succeed(&cluster, &hw, &["partition", "reassign", "ord*", "--to", "2,3,4", "-y"], b"");
    assert!(brokers(&["up", "active", " 4 "]));
    let (_, why) = said(&["cluster", "remove", "4", "-y"]);
    assert!(why.contains("orders/0 and 3 others") && why.contains("decommission 4"), "{why}");
    let (drained, how) = said(&["cluster", "drain", "4"]);
    assert!(drained && how.contains("it keeps its 4 replicas"), "{how}");
    assert!(brokers(&["drained"]));
    assert!(said(&["cluster", "undrain", "4"]).0 && brokers(&["active"]));
    let (_, why) = said(&["cluster", "decommission", "2", "-y"]);
    assert!(why.contains("votes on the cluster's metadata"), "{why}");
    let (asked, why) = said(&["cluster", "decommission", "4"]);
    assert!(!asked && why.contains("-y"), "nobody is there to ask: {why}");
    let (planned, plan) = said(&["cluster", "decommission", "4", "--dry-run"]);
    assert!(planned && plan.contains("would move 4 partitions"), "{plan}");
    let (done, how) = said(&["cluster", "decommission", "4", "-y"]);
    assert!(done && how.contains("4 of 4 moved") && how.contains("remove 4"), "{how}");
    assert!(brokers(&["decommissioned"]));
    let (removed, how) = said(&["cluster", "remove", "4", "-y"]);
    assert!(removed && how.contains("no part of the cluster any more"), "{how}");
    cluster.eventually_ended(4).await;
    cluster
        .eventually("three brokers are left", async || {
            let listed = succeed(&cluster, &hw, &["cluster", "brokers", "-o", "name"], b"");
            (listed == b"1\n2\n3\n").then_some(())
        })
        .await;
    let mut lines = succeed(&cluster, &hw, &["consume", "orders", "--until-end"], b"");
    lines.sort_unstable();
    assert_eq!(lines.len(), b"one\ntwo\nthree\n".len());
}

/// Exit codes, and lines that end with them where there is one broker and a protected topic `there`.
const ENDS: [(i32, &[&str]); 5] = [
    (
        2,
        &[
            "cluster drain one",
            "cluster decommission 1",
            "cluster remove 1",
            "cluster balance",
            "cluster config set retention.ms=5000",
            "cluster events --kind broker-fencd",
            "partition reassign there --to 1",
            "partition cancel --all",
            "partition throttle fast",
            "topic delete there",
            "topic trim there --before end",
            "topic alter there --partitions 2",
        ],
    ),
    (
        3,
        &[
            "topic describe nowhere",
            "topic alter nowhere",
            "topic alter nowhere retention.ms=5000",
            "topic delete nowhere -y",
            "topic trim nowhere --before end -y",
            "topic trim there/0 --before 99 -y",
            "partition list nowhere",
            "partition describe nowhere/0",
            "partition describe there/9",
            "partition explain nowhere/0",
            "partition explain there/9",
            "partition explain there/0@99",
            "partition reassign nowhere --to 1 -y",
            "partition reassign there/9 --to 1 -y",
            "partition reassign nowhere-* --to 1 -y",
            "partition reassign there --to 9 -y",
            "partition reassign --drain 9 -y",
            "partition cancel nowhere",
            "partition top nowhere",
            "partition transfer there/0 --to 9",
            "partition throttle 1MiB --broker 9",
            "partition throttle 1MiB --broker 9 --dry-run",
            "cluster drain 9",
            "cluster undrain 9",
            "cluster undrain 9 --dry-run",
            "cluster decommission 9 -y",
            "cluster remove 9 -y",
            "cluster controller add 9",
            "cluster config list --broker 9",
            "cluster config get leader.balance --broker 9",
            "cluster config get leader.balanc",
            "cluster config set limits.connections=9 --broker 9",
            "explain nothing-of-the-kind",
            "profile show nothing",
            "profile use nothing",
            "profile remove nothing",
            "consume nowhere --until-end",
        ],
    ),
    (
        4,
        &[
            "topic create there -r 1",
            "topic delete there -y",
            "partition cancel there/0",
            "cluster decommission 1 -y",
            "cluster remove 1 -y",
            "cluster controller remove 1",
        ],
    ),
    (10, &["cluster health --brokers-min 2"]),
    (
        0,
        &[
            "cluster health",
            "cluster undrain 1",
            "partition cancel --all -y",
            "partition cancel there",
            "cluster config set retention.ms=5000 -y --dry-run",
            "cluster config set retention.ms=-1",
        ],
    ),
];

/// The same mistake ends with the same code, whichever verb it is made with.
#[tokio::test(flavor = "multi_thread")]
async fn hw_ends_with_the_documented_code_whichever_verb_is_asked() {
    let cluster = Cluster::started(1);
    cluster.client().await.close().await;
    let hw = built("hw");
    succeed(
        &cluster,
        &hw,
        &["topic", "create", "there", "-r", "1", "-c", "delete.protection=on"],
        b"",
    );
    for (code, lines) in ENDS {
        for line in lines {
            let arguments: Vec<&str> = line.split(' ').collect();
            let output = run(&cluster, &hw, &arguments, b"");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "hw {line}: {errors}");
        }
    }
}

/// What a pipe reads of a watch is a line for each thing, and closing it ends the watch well.
#[tokio::test(flavor = "multi_thread")]
async fn hw_watches_into_a_pipe_in_json_and_ends_quietly_when_nobody_reads() {
    let cluster = Cluster::started(1);
    cluster.client().await.close().await;
    let hw = built("hw");
    succeed(&cluster, &hw, &["topic", "create", "seen", "-r", "1"], b"");
    for watch in [
        ["cluster", "events", "-w=50ms", "-n", "1"],
        ["partition", "list", "seen", "-w=50ms", "--color=never"],
    ] {
        let mut child = Command::new(&hw)
            .args(watch)
            .env("HIGHWATER_PROFILE", &cluster.created.profile)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is built");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("it prints");
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert!(value.is_object(), "{line}");
        drop(out);
        // Whoever watches events writes nothing until something is decided.
        let topic = format!("after-{}", watch[1]);
        succeed(&cluster, &hw, &["topic", "create", &topic, "-r", "1"], b"");
        let ended = child.wait().expect("it was started");
        assert_eq!(ended.code(), Some(0), "{watch:?}");
    }
}

/// Plans are data, and a rollback is written for what is really done.
#[tokio::test(flavor = "multi_thread")]
async fn hw_prints_plans_as_json_and_writes_the_way_back_only_when_it_goes() {
    let cluster = Cluster::started(2);
    cluster.client().await.close().await;
    let hw = built("hw");
    succeed(&cluster, &hw, &["topic", "create", "plans", "-p", "2", "-r", "1"], b"");
    let json = |line: &str| -> serde_json::Value {
        let arguments: Vec<&str> = line.split(' ').collect();
        let out = succeed(&cluster, &hw, &arguments, b"");
        serde_json::from_slice(&out).unwrap_or_else(|error| panic!("hw {line}: {error}"))
    };
    let planned = json("partition reassign plans --to 1 --dry-run -o json");
    assert_eq!(planned["changed"], false);
    assert_eq!(planned["moves"].as_array().map(Vec::len), Some(1), "{planned}");
    assert_eq!(planned["moves"][0]["to"], serde_json::json!([1]));
    let back = cluster.dir.path().join("back.json");
    let back = back.to_str().expect("a path of ours is text");
    let line = ["partition", "reassign", "plans", "--to", "1", "--rollback", back];
    assert!(!run(&cluster, &hw, &line, b"").status.success(), "nobody is there to confirm it");
    assert!(!Path::new(back).exists());
    let moved = json(&format!("partition reassign plans --to 1 --rollback {back} -y -o json"));
    assert_eq!(
        (&moved["changed"], &moved["moves"][0]["to"]),
        (&true.into(), &planned["moves"][0]["to"])
    );
    let moved = json(&format!("partition reassign --plan {back} -y -o json"));
    assert_eq!(moved["moves"][0]["from"], serde_json::json!([1]));
    for line in [
        "cluster balance --dry-run --measure 1s -o json",
        "cluster drain 2 --dry-run -o json",
        "cluster undrain 2 --dry-run -o json",
        "partition cancel --all --dry-run -o json",
        "partition throttle 5MiB --dry-run -o json",
        "topic delete plans --dry-run -o json",
        "topic trim plans --before end --dry-run -o json",
    ] {
        let planned = json(line);
        assert_eq!(planned["changed"], false, "hw {line}: {planned}");
        assert!(planned["schema"].is_string(), "hw {line}: {planned}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hw_shows_what_a_setting_that_is_taken_back_goes_back_to() {
    let cluster = Cluster::started(1);
    cluster.client().await.close().await;
    let hw = built("hw");
    let said = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        String::from_utf8(succeed(&cluster, &hw, &arguments, b"")).expect("text")
    };
    said("topic create kept -r 1 -c retention.ms=5000");
    said("cluster config set retention.ms=90000000 -y");
    let shown = said("topic alter kept retention.ms-");
    assert!(shown.contains("retention.ms  5000    90000000 (cluster)"), "{shown}");
}

/// Ctrl-C stops the looking, not the moves, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn hw_says_on_ctrl_c_that_the_moves_go_on_and_how_to_turn_them_back() {
    let cluster = Cluster::started(2);
    cluster.client().await.close().await;
    let hw = built("hw");
    succeed(&cluster, &hw, &["topic", "create", "bulk", "-r", "1"], b"");
    let line = [b"x".repeat(8000), b"\n".to_vec()].concat();
    let produce = ["produce", "bulk", "--acks", "sync", "--compression", "none"];
    succeed(&cluster, &hw, &produce, &line.repeat(200));
    let listed = succeed(&cluster, &hw, &["partition", "list", "bulk", "-o", "json"], b"");
    let listed: serde_json::Value = serde_json::from_slice(&listed).expect("JSON");
    let home = listed["partitions"][0]["leader"].as_u64().expect("it is led");
    let other = (3 - home).to_string();
    let mut child = Command::new(&hw)
        .args(["partition", "reassign", "bulk", "--to", &other, "--throttle", "20KiB", "-y"])
        .env("HIGHWATER_PROFILE", &cluster.created.profile)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is built");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("0 of 1 moved") {
        line.clear();
        assert_ne!(said.read_line(&mut line).expect("text"), 0, "it ended by itself");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is ours");
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("it was started").code(), Some(130), "{rest}");
    for words in ["the moves go on", "hw partition moves -w", "hw partition cancel --all"] {
        assert!(rest.contains(words), "{rest}");
    }
    let moving = succeed(&cluster, &hw, &["partition", "moves", "-o", "name"], b"");
    assert_eq!(moving, b"bulk/0\n");
    succeed(&cluster, &hw, &["partition", "cancel", "--all", "-y"], b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_client_run() {
    let cluster = Cluster::started(3);
    cluster.client().await.close().await;
    succeed(&cluster, &built("hw"), &["topic", "create", "demo", "--partitions", "3"], b"");
    let example = |name: &str, arguments: &[&str]| {
        succeed(&cluster, &built("examples").join(name), arguments, b"")
    };
    example("produce", &["demo"]);
    let consumed = example("consume", &["demo"]);
    let text = String::from_utf8(consumed).expect("the example writes text");
    assert!(text.lines().count() > 1, "nothing was read: {text}");
    example("tail_from_time", &["demo", "1"]);
    example("ack_modes", &["demo"]);
}
