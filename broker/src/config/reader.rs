//! Takes values out of TOML tables and remembers everything that is wrong with them.
//!
//! A `Section` hands out each key once; what is left over at the end was never a key, and is
//! reported with the nearest name that is one. Nothing here stops at the first mistake.

use std::fmt;
use std::path::{Path, PathBuf};

use highwater_protocol::nearest::nearest;
use toml::{Table, Value};

/// Why a configuration cannot be used: all of it, not only the first reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// Every mistake in it.
    pub problems: Vec<Problem>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, with its tables, as `node.id`; empty for the file as a whole.
    pub key: String,
    /// What the file says, where it says something.
    pub value: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// What to write instead.
    pub way_out: String,
}

impl ConfigError {
    /// The file could not be read at all.
    pub fn unreadable(file: &Path, reason: &str) -> ConfigError {
        ConfigError::whole(
            file,
            reason,
            "give the path of a broker's config.toml; `highwater init` writes one",
        )
    }

    pub(super) fn whole(file: &Path, reason: &str, way_out: &str) -> ConfigError {
        let problem = Problem {
            key: String::new(),
            value: None,
            reason: reason.to_owned(),
            way_out: way_out.to_owned(),
        };
        ConfigError { file: file.to_owned(), problems: vec![problem] }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let mistakes = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "{}: {count} {mistakes}", self.file.display())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.value) {
            (key, _) if key.is_empty() => {}
            (key, Some(value)) => write!(f, "{key} = {value}: ")?,
            (key, None) => write!(f, "{key}: ")?,
        }
        write!(f, "{}; {}", self.reason, self.way_out)
    }
}

/// One table of the file, consumed key by key.
pub(super) struct Section {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    pub(super) problems: Vec<Problem>,
}

impl Section {
    pub(super) fn root(table: Table) -> Section {
        Section { path: String::new(), table, known: Vec::new(), problems: Vec::new() }
    }

    /// The table under `key`; an empty one where there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section {
        let path = self.path_of(key);
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong(key, Some(&other), "not a table", &format!("write it as [{path}]"));
                Table::new()
            }
        };
        Section { path, table, known: Vec::new(), problems: Vec::new() }
    }

    /// The tables under `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section> {
        let way_out = format!("write each one under its own [[{key}]]");
        let values = match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => values,
            Some(other) => {
                self.wrong(key, Some(&other), "not a list of tables", &way_out);
                Vec::new()
            }
        };
        let mut sections = Vec::new();
        for (number, value) in values.into_iter().enumerate() {
            let path = format!("{}[{number}]", self.path_of(key));
            match value {
                Value::Table(table) => {
                    sections.push(Section { path, table, known: Vec::new(), problems: Vec::new() })
                }
                other => self.wrong(key, Some(&other), "not a table", &way_out),
            }
        }
        sections
    }

    /// A value that must be there; `wants` says what it should look like.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        wants: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.wrong(key, None, "missing", &format!("set it to {wants}"));
            return None;
        }
        self.optional(key, wants, parse)
    }

    /// A value that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        wants: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            let reason = format!("not {wants}");
            self.wrong(key, Some(&value), &reason, &format!("set it to {wants}"));
        }
        parsed
    }

    /// A key of earlier builds, and what to do instead.
    pub(super) fn moved(&mut self, key: &'static str, reason: &str, way_out: &str) {
        if let Some(value) = self.table.remove(key) {
            self.wrong(key, Some(&value), reason, way_out);
        }
    }

    /// Notes a mistake that lies in the value of one key.
    pub(super) fn wrong(&mut self, key: &str, value: Option<&Value>, reason: &str, way_out: &str) {
        self.problems.push(Problem {
            key: self.path_of(key),
            value: value.map(ToString::to_string),
            reason: reason.to_owned(),
            way_out: way_out.to_owned(),
        });
    }

    /// Reports what is left over, and hands everything found to the parent.
    pub(super) fn finish(mut self, parent: &mut Section) {
        self.report_unknown();
        parent.problems.append(&mut self.problems);
    }

    /// Reports what is left over in the root and gives everything found.
    pub(super) fn finish_root(mut self) -> Vec<Problem> {
        self.report_unknown();
        self.problems
    }

    fn report_unknown(&mut self) {
        for (key, value) in std::mem::take(&mut self.table) {
            let way_out = match nearest(&key, self.known.iter().copied()) {
                Some(near) => format!("did you mean {}?", self.path_of(near)),
                None => format!("remove it; known here: {}", self.known.join(", ")),
            };
            self.wrong(&key, Some(&value), "no such key", &way_out);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
