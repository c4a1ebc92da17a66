//! `hw` without a cluster: help, usage, profiles, exit codes, completions, manual pages.
//!
//! What needs brokers is tested with the brokers. Nothing here opens a socket.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::Output;

use assert_cmd::Command;

fn hw(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hw"));
    command.env_clear().env("HIGHWATER_PROFILE", home.join("profile.toml"));
    command.current_dir(home);
    command
}

fn run(home: &Path, args: &[&str]) -> Output {
    hw(home).args(args).output().expect("the binary starts")
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is text")
}

/// Runs `hw args` and expects an exit code, and words on the standard error.
fn check(args: &[&str], code: i32, words: &[&str]) {
    let output = run(home().path(), args);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "hw {args:?}: {error}");
    for word in words {
        assert!(error.contains(word), "hw {args:?} does not say {word:?}: {error}");
    }
    assert!(output.stdout.is_empty(), "errors do not belong on the standard output");
}

fn add_profile(home: &Path, name: &str) -> Output {
    for file in ["ca.pem", "me.pem", "me.key"] {
        std::fs::write(home.join(file), "not a real one").expect("a file in the test's directory");
    }
    let files = ["--ca", "ca.pem", "--cert", "me.pem", "--key", "me.key"];
    let mut args = vec!["profile", "add", name, "--bootstrap", "localhost:1,localhost:2"];
    args.extend(files);
    run(home, &args)
}

#[test]
fn help_lists_the_verbs_and_the_exit_codes() {
    let output = run(home().path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in ["topic", "produce", "consume", "partition", "cluster", "profile", "Exit codes"] {
        assert!(help.contains(word), "{help}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_names_the_mistake() {
    check(&["topci", "list"], 2, &["topci", "topic"]);
    check(&["topic", "create"], 2, &["<NAME>"]);
    check(&["topic", "create", "t", "--partitions", "0"], 2, &["--partitions"]);
    check(&["topic", "create", "t", "--config", "novalue"], 2, &["KEY=VALUE"]);
    check(&["topic", "list", "-o", "xml"], 2, &["xml", "jsonl"]);
    check(&["produce", "t", "--acks", "all"], 2, &["semi-sync"]);
    check(&["produce", "t", "--key-sep", ""], 2, &["separator"]);
    check(&["consume", "t", "--from", "begin"], 2, &["start, end, N"]);
    check(&["consume", "t", "--from", "@yesterday"], 2, &["@-1h30m"]);
    check(&["consume", "t", "-f", "%x"], 2, &["%x"]);
    check(&["consume", "t", "-f", "%v", "-o", "json"], 2, &["--format"]);
    check(&["partition", "describe", "orders"], 2, &["orders/3"]);
    check(&["cluster", "health", "--timeout", "1s"], 2, &["--wait"]);
}

#[test]
fn deleting_without_a_terminal_wants_a_y() {
    check(&["topic", "delete", "orders"], 2, &["no terminal", "-y"]);
}

#[test]
fn no_profile_is_an_error_with_a_way_out() {
    check(&["topic", "list"], 1, &["highwater dev", "hw profile add"]);
    check(&["profile", "show"], 1, &["highwater dev"]);
    check(&["profile", "show", "nope"], 3, &["nope", "hw profile list"]);
    check(&["profile", "use", "nope"], 3, &["nope"]);
    check(&["profile", "remove", "nope"], 3, &["nope"]);
    check(&["profile", "add", "dev"], 2, &["--bootstrap"]);
}

#[test]
fn profiles_are_added_listed_used_renamed_and_removed() {
    let home = home();
    assert_eq!(add_profile(home.path(), "dev").status.code(), Some(0));
    assert_eq!(add_profile(home.path(), "prod").status.code(), Some(0));
    assert_eq!(add_profile(home.path(), "prod").status.code(), Some(4), "it exists already");
    let names = run(home.path(), &["profile", "list", "-o", "name"]);
    assert_eq!(text(&names.stdout), "dev\nprod\n");
    assert_eq!(run(home.path(), &["profile", "use", "prod"]).status.code(), Some(0));
    let list = text(&run(home.path(), &["profile", "list"]).stdout);
    assert!(list.contains("*        prod"), "{list}");
    let rename = |to| run(home.path(), &["profile", "rename", "prod", to]).status.code();
    assert_eq!((rename("dev"), rename("live")), (Some(4), Some(0)));
    assert_eq!(text(&run(home.path(), &["profile", "current"]).stdout), "live\n");
    assert_eq!(run(home.path(), &["profile", "remove", "live"]).status.code(), Some(0));
    assert_eq!(run(home.path(), &["profile", "current"]).status.code(), Some(0), "the only one");
    let names = run(home.path(), &["profile", "list", "-o", "name"]);
    assert_eq!(text(&names.stdout), "dev\n");
}

#[test]
fn a_flag_wins_over_its_variable_and_both_over_the_profile() {
    let home = home();
    add_profile(home.path(), "dev");
    let bootstrap = |variable: Option<&str>, args: &[&str]| {
        let mut command = hw(home.path());
        if let Some(value) = variable {
            command.env("HIGHWATER_BOOTSTRAP", value);
        }
        let show = ["profile", "show", "--sources", "-o", "json"];
        let output = command.args(show).args(args).output().expect("the binary starts");
        let page: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (page["bootstrap"][0].clone(), page["sources"]["bootstrap"].clone())
    };
    assert_eq!(bootstrap(None, &[]).0, "localhost:1");
    assert_eq!(bootstrap(Some("variable:1"), &[]).0, "variable:1");
    let (address, source) = bootstrap(Some("variable:1"), &["--bootstrap", "flag:1"]);
    assert_eq!(address, "flag:1");
    assert_eq!(source, "--bootstrap or its variable");
}

#[test]
fn a_profile_looks_the_same_in_json_and_yaml_for_ever() {
    let home = home();
    add_profile(home.path(), "dev");
    let root = home.path().canonicalize().expect("it exists");
    let root = root.display();
    let yaml = text(&run(home.path(), &["profile", "show", "-o", "yaml"]).stdout);
    assert_eq!(
        yaml,
        format!(
            "schema: hw.profile.show/1\nname: dev\nbootstrap:\n  - \"localhost:1\"\n  - \
             \"localhost:2\"\nca: \"{root}/ca.pem\"\ncert: \"{root}/me.pem\"\nkey: \
             \"{root}/me.key\"\n"
        )
    );
    let jsonl = text(&run(home.path(), &["profile", "list", "-o", "jsonl"]).stdout);
    assert!(jsonl.starts_with("{\"name\":\"dev\",\"bootstrap\":["), "{jsonl}");
}

#[test]
fn a_profile_file_that_is_no_toml_is_named_in_the_error() {
    let home = home();
    std::fs::write(home.path().join("profile.toml"), "current = [").expect("a file");
    let output = run(home.path(), &["topic", "list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("profile.toml"));
}

#[test]
fn every_shell_gets_completions_and_every_verb_a_manual_page() {
    let home = home();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(home.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        assert!(text(&output.stdout).contains("produce"), "{shell}");
    }
    let page = text(&run(home.path(), &["man"]).stdout);
    assert!(page.contains(".TH hw 1"), "{page}");
    assert_eq!(run(home.path(), &["man", "--dir", "man"]).status.code(), Some(0));
    for name in ["hw.1", "hw-topic-create.1", "hw-consume.1", "hw-cluster-health.1"] {
        assert!(home.path().join("man").join(name).is_file(), "{name}");
    }
}

#[test]
fn anything_is_explained_without_a_cluster_and_completed_by_the_shell() {
    let home = home();
    let page = text(&run(home.path(), &["explain", "19", "-o", "json"]).stdout);
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!(page["name"], "NOT_ENOUGH_REPLICAS");
    assert_eq!(page["retriable"], true);
    check(&["explain", "segment.byte"], 3, &["hw explain segment.bytes"]);
    let names = text(&run(home.path(), &["explain", "-o", "name"]).stdout);
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&run(home.path(), &["completions", shell]).stdout);
        for name in names.lines() {
            assert!(script.contains(name), "{shell} does not complete {name}");
        }
    }
}

#[test]
fn a_missing_input_file_is_named_before_anything_is_sent() {
    let home = home();
    add_profile(home.path(), "dev");
    let output = run(home.path(), &["produce", "orders", "missing.txt"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("missing.txt"));
}

#[test]
fn colours_stay_away_from_pipes_unless_asked_for() {
    let plain = run(home().path(), &["profile", "use", "nope"]);
    assert!(!text(&plain.stderr).contains('\x1b'));
    let forced = run(home().path(), &["--color", "always", "profile", "use", "nope"]);
    assert!(text(&forced.stderr).contains("\x1b[1;31merror:"));
}
