//! The rules of the house, checked on the text of every source file: layers, purity, headers, and
//! the sizes of files and functions. Each rule has a planted violation that must be found.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the broker, bottom up; each line may use only the lines before it. Modules that
/// share a line do not see each other.
const LAYERS: &[&[&str]] = &[
    &["config", "metrics", "crash_point", "mutant"],
    &["disk"],
    &["log"],
    &["raft"],
    &["replica"],
    &["controller"],
    &["groups"],
    &["shard"],
    &["node"],
    &["api"],
    &["net", "kafka", "http"],
    &["init"],
    &["server"],
    &["dev", "testing"],
    &["main"],
];

/// What a module must not use although it lies below it.
const STRANGERS: &[(&str, &str)] = &[
    ("raft", "log"),
    ("raft", "disk"),
    ("controller", "replica"),
    ("controller", "log"),
    ("groups", "replica"),
    ("net", "replica"),
    ("http", "replica"),
];

/// What the simulator may use: the core, and the pure half of `node`.
const SIM_USES: &[&str] = &[
    "config",
    "metrics",
    "crash_point",
    "mutant",
    "disk",
    "log",
    "raft",
    "replica",
    "controller",
    "groups",
    "shard",
    "node",
];

/// Folders and files without clock, thread, socket, async or randomness of their own.
const PURE: &[&str] =
    &["log/", "raft/", "replica/", "controller/", "groups/", "shard/", "node/reconcile.rs", "sim/"];

/// The files of `shard` that know threads.
const EDGES: &[&str] = &["shard/thread.rs", "shard/handle.rs", "shard/outbox.rs"];

const IMPURE: &[&str] = &[
    "std::net",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "tokio",
    "quinn",
    "rand::",
    "async fn",
    ".await",
    "std::env",
    "std::fs",
    "crossbeam::channel",
];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 60;

#[test]
fn every_source_file_keeps_the_rules_of_the_house() {
    let mut found = Vec::new();
    for package in ["protocol", "client", "broker", "bench"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(package).join("src");
        for path in sources(&root) {
            let text = fs::read_to_string(&path).expect("a listed source file can be read");
            let name =
                path.strip_prefix(&root).expect("listed below its root").display().to_string();
            found.extend(
                check_text(package, &name, &text)
                    .into_iter()
                    .map(|what| format!("{package}/src/{name}{what}")),
            );
        }
    }
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_list_of_layers_is_the_list_of_modules() {
    let lib = include_str!("../src/lib.rs");
    let declared: Vec<&str> = lib
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|module| *module != "sim")
        .collect();
    let layered: Vec<&str> = LAYERS.iter().flat_map(|line| line.iter().copied()).collect();
    let expected: Vec<&str> =
        layered.into_iter().filter(|module| declared.contains(module)).collect();
    assert_eq!(declared, expected, "lib.rs lists its modules bottom up, as LAYERS does");
}

#[test]
fn planted_violations_are_found() {
    let planted = [
        ("raft/mod.rs", "//! Raft.\nuse crate::log::Log;\n", "uses `log`"),
        ("log/mod.rs", "//! Log.\nuse crate::replica;\n", "uses `replica`"),
        ("log/mod.rs", "//! Log.\nuse crate::{disk::Disk, shard::Event};\n", "uses `shard`"),
        ("sim/mod.rs", "//! Sim.\nuse crate::net::tls;\n", "uses `net`"),
        ("raft/mod.rs", "//! Raft.\nfn f() { let t = Instant::now(); }\n", "is not pure"),
        ("net/mod.rs", "use crate::api;\n", "header"),
    ];
    for (name, text, expected) in planted {
        let found = check_text("broker", name, text);
        assert!(
            found.iter().any(|what| what.contains(expected)),
            "{name}: {expected} not in {found:?}"
        );
    }
    let long_file = format!("//! Long.\n{}", "const A: u8 = 0;\n".repeat(FILE_LINES_MAX));
    assert!(check_text("broker", "log/mod.rs", &long_file)[0].contains("lines"));
    let long_function =
        format!("//! Long.\nfn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX));
    assert!(check_text("broker", "log/mod.rs", &long_function)[0].contains("function"));
}

fn check_text(package: &str, name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//! ") {
        found.push(": has no `//!` header that says what it is".to_string());
    }
    let is_test_file = name.ends_with("tests.rs") || name.contains("tests/");
    if is_test_file {
        return found;
    }
    let code = before_tests(text);
    let lines = code.lines().count();
    if lines > FILE_LINES_MAX {
        found.push(format!(
            ": has {lines} lines, more than {FILE_LINES_MAX}: find the second subject in it"
        ));
    }
    found.extend(long_functions(code));
    if package == "broker" {
        found.extend(upward_uses(name, code));
        found.extend(impurities(name, code));
    }
    found
}

/// The text up to the unit tests at the end of a file.
fn before_tests(text: &str) -> &str {
    text.split_once("\n#[cfg(test)]\nmod ").map_or(text, |(code, _)| code)
}

fn long_functions(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<(usize, usize, String)> = None;
    for (number, line) in code.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if let Some((start, at_indent, head)) = &open {
            if indent == *at_indent && line.trim_start().starts_with('}') {
                let length = number - start + 1;
                if length > FUNCTION_LINES_MAX {
                    found.push(format!(":{}: function of {length} lines: {head}", start + 1));
                }
                open = None;
            }
        } else if is_function_head(line) && !line.trim_end().ends_with(['}', ';']) {
            open = Some((number, indent, line.trim().to_string()));
        }
    }
    found
}

fn is_function_head(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().take_while(|word| *word != "fn").collect();
    line.split_whitespace().any(|word| word == "fn")
        && words.iter().all(|word| {
            word.starts_with("pub")
                || ["const", "async", "unsafe", "extern", "\"C\""].contains(word)
        })
}

fn upward_uses(name: &str, code: &str) -> Vec<String> {
    let module = name.split(['/', '.']).next().expect("a name has a first part");
    let allowed = allowed_uses(module);
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for used in used_modules(line) {
            let own = used == module || module == "lib";
            if !own && is_module(&used) && !allowed.contains(&used.as_str()) {
                found.push(format!(
                    ":{}: uses `{used}`, which does not lie below `{module}`",
                    number + 1
                ));
            }
            if module == "sim" && used == "node" && !line.contains("reconcile") {
                found.push(format!(":{}: uses `node` beyond `node::reconcile`", number + 1));
            }
        }
    }
    found
}

fn is_module(name: &str) -> bool {
    name == "sim" || LAYERS.iter().any(|line| line.contains(&name))
}

fn allowed_uses(module: &str) -> Vec<&'static str> {
    if module == "sim" {
        return SIM_USES.to_vec();
    }
    let below = LAYERS.iter().take_while(|line| !line.contains(&module));
    below
        .flat_map(|line| line.iter().copied())
        .filter(|used| !STRANGERS.contains(&(module, used)))
        .collect()
}

/// The modules named after `crate::` or `highwater_broker::` in a line, single or in braces.
fn used_modules(line: &str) -> Vec<String> {
    let mut used = Vec::new();
    for root in ["crate::", "highwater_broker::"] {
        for (at, _) in line.match_indices(root) {
            let rest = &line[at + root.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                let mut depth = 0;
                let mut word = String::new();
                let mut first = true;
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            used.push(std::mem::take(&mut word));
                            first = true;
                        }
                        ':' if depth == 0 => first = false,
                        c if depth == 0 && first && !c.is_whitespace() => word.push(c),
                        _ => {}
                    }
                }
                used.push(word);
            } else {
                used.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            }
        }
    }
    used
}

fn impurities(name: &str, code: &str) -> Vec<String> {
    if EDGES.contains(&name) || !PURE.iter().any(|pure| name.starts_with(pure)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        for word in IMPURE.iter().filter(|word| line.contains(**word)) {
            found.push(format!(":{}: is not pure: `{word}`", number + 1));
        }
    }
    found
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a source folder can be read") {
        let path = entry.expect("its entries too").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}
