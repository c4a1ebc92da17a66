//! Who operates: what was typed, what it printed, and what the names in it have meant so far.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::common::terminal::Terminal;
use crate::common::{self, Cluster};

/// A cluster, what was typed, and what the names of fields have meant so far.
pub struct Walk {
    pub cluster: Cluster,
    pub begun: Instant,
    ran: BTreeSet<String>,
    types: BTreeMap<String, (&'static str, String)>,
}

impl Walk {
    /// Three brokers, made and started as the README says.
    pub fn begin() -> Walk {
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
    pub fn join(&mut self) -> usize {
        let node = self.cluster.join();
        self.ran("highwater invite --dir cluster --address d:9400");
        self.ran("highwater start --join node-4.invitation --dir .");
        node
    }

    /// Notes that a command was run by other means, such as a test's own start of a broker.
    pub fn ran(&mut self, line: &str) {
        println!("{:>8.1?}  {line}", self.begun.elapsed());
        self.ran.insert(line.to_owned());
    }

    /// Runs a line with what a script adds to it, such as `-y`; what it prints, as JSON.
    pub fn hw(&mut self, line: &str, more: &str) -> Value {
        let output = self.output(&format!("{line} {more} -o json"), b"");
        self.ran(line);
        let value: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"));
        assert!(value["schema"].is_string(), "{line}: {value}");
        self.note_types(line, "", &value);
        value
    }

    /// Runs a line that goes on for ever, reads a line of it, and ends it as `how` says: with this code it
    /// ends then. Gives what it said.
    pub fn watch(&mut self, line: &str, how: fn(&Child, ChildStdout), code: i32) -> Value {
        let (ended, seen) = tokio::task::block_in_place(|| {
            let mut child = self.command(line).stdout(Stdio::piped()).spawn().expect("it is built");
            let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
            let mut first = String::new();
            out.read_line(&mut first).expect("it prints");
            how(&child, out.into_inner());
            (child.wait().expect("it was started"), first)
        });
        assert_eq!(ended.code(), Some(code), "{line}");
        self.ran(line);
        serde_json::from_str(&seen).unwrap_or_else(|error| panic!("{line}: {error}: {seen}"))
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(built("hw"));
        command.args(line.split_whitespace().skip(1));
        command.env("HIGHWATER_PROFILE", &self.cluster.created.profile);
        command.current_dir(self.cluster.dir.path());
        command
    }

    /// What a line prints.
    pub fn text(&mut self, line: &str) -> String {
        String::from_utf8(self.output(line, b"").stdout).expect("it prints text")
    }

    /// Runs a line of which only what it prints for people is looked at.
    pub fn read(&mut self, line: &str) -> String {
        let text = self.text(line);
        self.ran(line);
        text
    }

    /// Runs a line at a terminal, which it must refuse before it asks anything.
    pub fn refused(&mut self, line: &str, code: i32, why: &str) {
        let (ended, shown) = Terminal::run(self.command(line)).end();
        assert_eq!(ended.code(), Some(code), "{line}: {shown}");
        assert!(shown.contains(why), "{line}: {shown}");
        self.ran(line);
    }

    /// Runs a line that says what is not well, until it says this of something.
    pub async fn unhealthy(&mut self, line: &str, what: &str) {
        self.until(what, |walk| {
            let done = walk.command(line).output().expect("it is built beside the broker");
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            done.status.code() == Some(10) && said.contains(what)
        })
        .await;
        self.ran(line);
    }

    /// Runs a line of `hw` or `highwater` that is about files, not about the cluster that is walked through.
    pub fn files(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let name = words.next().expect("a line has words");
        let mut command = Command::new(built(name));
        command.args(words).current_dir(self.cluster.dir.path());
        command.env("HIGHWATER_PROFILE", self.cluster.dir.path().join("profiles.toml"));
        let done = command.output().expect("it is built beside the broker");
        assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
        self.ran(line);
        String::from_utf8(done.stdout).expect("it prints text")
    }

    /// Runs a line that reads its input.
    pub fn feed(&mut self, line: &str, input: &[u8]) {
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
    pub fn healthy(&mut self) {
        let up = self.brokers().len();
        let seen = self.hw("hw cluster health --wait", &format!("--brokers-min {up}"));
        assert_eq!(seen["healthy"], true, "{seen}");
    }

    pub async fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Walk) -> bool) {
        let deadline = Instant::now() + common::PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not in time: {what}\n{}", self.cluster.logs());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    pub fn brokers(&mut self) -> Vec<u64> {
        let listed = self.hw("hw cluster brokers", "");
        let brokers = listed["brokers"].as_array().expect("a list").iter();
        brokers.filter_map(|broker| broker["broker"].as_u64()).collect()
    }

    /// A number that is told of a broker.
    pub fn count(&mut self, node: u64, what: &str) -> Option<u64> {
        let listed = self.hw("hw cluster brokers", "");
        let mut brokers = listed["brokers"].as_array().expect("a list").iter();
        brokers.find(|it| it["broker"] == node)?[what].as_u64()
    }

    pub fn told(&mut self, kind: &str) -> bool {
        self.hw(&format!("hw cluster events --kind {kind}"), "")["events"] != json!([])
    }

    /// The brokers of each partition of the topic under load.
    pub fn replicas(&mut self) -> Vec<BTreeSet<u64>> {
        self.sets_of("orders")
    }

    pub fn sets_of(&mut self, topic: &str) -> Vec<BTreeSet<u64>> {
        let listed = self.hw(&format!("hw partition list {topic}"), "");
        let partitions = listed["partitions"].as_array().expect("a list").iter();
        let set = |partition: &Value| {
            let replicas = partition["replicas"].as_array().expect("a list").iter();
            replicas.filter_map(Value::as_u64).collect()
        };
        partitions.map(set).collect()
    }

    pub fn everything_of_the_readme_was_run(&self) {
        let readme = include_str!("../../../README.md");
        let (_, section) =
            readme.split_once("## Operating a cluster").expect("there is such a section");
        let (section, _) = section.split_once("\n## ").expect("it is not the last one");
        for command in commands_of(section) {
            assert!(self.ran.contains(&command), "the README's `{command}` was not run");
        }
    }

    /// All but what others than we have written.
    pub fn everything_of_the_page_was_run(&self) {
        let commands = commands_of(include_str!("../../OPERATIONS.md"));
        assert!(commands.len() > 60, "{} commands were found", commands.len());
        for command in commands.iter().filter(|command| !command.starts_with("journalctl ")) {
            assert!(self.ran.contains(command), "`{command}` of OPERATIONS.md was not run");
        }
    }
}

/// Nobody reads what it prints any more, which it sees when it prints the next time.
pub fn stop_reading(_: &Child, out: ChildStdout) {
    drop(out);
}

/// Ctrl-C. What it has printed before is read to its end, so that it has nothing to complain of.
pub fn interrupt(child: &Child, mut out: ChildStdout) {
    let told = rustix::process::kill_process(Pid::from_child(child), Signal::INT);
    told.expect("it is ours");
    std::io::copy(&mut out, &mut std::io::sink()).expect("it can be read");
}

/// Every command of a page, without its comment.
fn commands_of(page: &str) -> Vec<String> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
    let lines = blocks.flat_map(|(block, _)| block.lines());
    let lines = lines.map(|line| line.split_once('#').map_or(line, |(line, _)| line));
    let commands = lines
        .flat_map(|line| line.split("&&"))
        .map(|command| command.split_whitespace().collect::<Vec<_>>().join(" "));
    commands.filter(|command| !command.is_empty()).collect()
}

pub fn highwater(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(arguments);
    command
}

fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_highwater")).with_file_name(name)
}
