//! Every setting there is, for people and for programs: names, defaults, which values they take, what
//! they do, and whether they change while their owner runs.
//!
//! Brokers read values by these tables and `hw` explains them; nothing else lists settings. Names are
//! Kafka's where Kafka has the setting.

pub mod broker;
pub mod cluster;
pub mod profile;
pub mod topic;

use std::fmt;

use crate::nearest::nearest;

/// One setting, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigKey {
    /// Its name.
    pub name: &'static str,
    /// Its value where none is set, as it would be written, or in words where it depends.
    pub default: &'static str,
    /// Which values it takes.
    pub takes: Takes,
    /// What its number counts.
    pub unit: Option<&'static str>,
    /// When a new value takes effect.
    pub effect: Effect,
    /// What it does.
    pub description: &'static str,
    /// When to change it, and what to mind then.
    pub advice: &'static str,
    /// How it is written.
    pub example: &'static str,
}

/// Which values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// A whole number, both ends included.
    Number {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A whole number from here on, or -1 for no limit.
    Limit {
        /// The smallest.
        min: u64,
    },
    /// One of these words.
    Words(&'static [&'static str]),
    /// This word, or a whole number.
    WordOrNumber {
        /// The word.
        word: &'static str,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// Something that these words describe.
    Text(&'static str),
}

/// When a new value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// At once, while the owner runs.
    AtOnce,
    /// At the next start of the broker whose file has it.
    AtStart,
    /// With the next run of the program that reads it.
    NextRun,
    /// Never: it is settled when the thing is made.
    Never,
}

/// What a value that was set is, read by what the setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given<'a> {
    /// A number.
    Number(u64),
    /// No limit.
    Unlimited,
    /// A word, or text.
    Word(&'a str),
}

impl Takes {
    /// Reads a value; `None` if it is not among those taken.
    pub fn read(self, value: &str) -> Option<Given<'_>> {
        let number = |min, max| {
            let number = value.parse::<u64>().ok().filter(|number| (min..=max).contains(number));
            number.map(Given::Number)
        };
        match self {
            Takes::Number { min, max } => number(min, max),
            Takes::Limit { .. } if value == "-1" => Some(Given::Unlimited),
            Takes::Limit { min } => number(min, NUMBER_MAX),
            Takes::Words(words) => words.contains(&value).then_some(Given::Word(value)),
            Takes::WordOrNumber { word, .. } if value == word => Some(Given::Word(value)),
            Takes::WordOrNumber { min, max, .. } => number(min, max),
            Takes::Text(_) => (!value.is_empty()).then_some(Given::Word(value)),
        }
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Takes::Number { min, max: NUMBER_MAX } => write!(f, "a number from {min} on"),
            Takes::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Takes::Limit { min } => write!(f, "a number from {min} on, or -1 for no limit"),
            Takes::Words(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
                f.write_str(&quoted.join(" or "))
            }
            Takes::WordOrNumber { word, min, max } => {
                write!(f, "`{word}`, or a number from {min} to {max}")
            }
            Takes::Text(what) => f.write_str(what),
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::AtOnce => "yes, at once",
            Effect::AtStart => "no: write it into the broker's file and restart that broker",
            Effect::NextRun => "yes, with the next run of the program",
            Effect::Never => "no, never",
        })
    }
}

impl ConfigKey {
    /// What to say of a value that it does not take.
    pub fn refusal(&self, value: &str) -> String {
        let refused = format!("`{}` cannot be `{value}`; it takes {}", self.name, self.takes);
        let words: &[&str] = match self.takes {
            Takes::Words(words) => words,
            Takes::WordOrNumber { .. }
            | Takes::Number { .. }
            | Takes::Limit { .. }
            | Takes::Text(_) => &[],
        };
        match nearest(value, words.iter().copied()) {
            Some(near) => format!("{refused}; did you mean `{near}`?"),
            None => refused,
        }
    }
}

/// What to say of a name that is none of `keys`, the settings of `owner`.
pub fn unknown_key(unknown: &str, owner: &str, keys: &[ConfigKey]) -> String {
    let names = || keys.iter().map(|key| key.name);
    match nearest(unknown, names()) {
        Some(near) => format!("`{unknown}` is not a setting of {owner}; did you mean `{near}`?"),
        None => {
            let all: Vec<&str> = names().collect();
            format!("`{unknown}` is not a setting of {owner}; there are {}", all.join(", "))
        }
    }
}

/// The largest number where there is no other limit: what Kafka's 64-bit settings take.
pub const NUMBER_MAX: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_sorted_and_explained_and_takes_its_own_default() {
        for keys in [&topic::KEYS[..], broker::KEYS, cluster::KEYS, profile::KEYS] {
            assert!(keys.is_sorted_by(|a, b| a.name < b.name), "sorted, each name once");
            for key in keys {
                let ConfigKey { name, default, takes, .. } = *key;
                for words in [key.description, key.advice] {
                    assert!(words.ends_with('.') && words.len() > 15, "{name}: {words}");
                }
                let last = name.rsplit('.').next().unwrap_or(name);
                assert!(key.example.contains(last), "{name}: {}", key.example);
                let in_words = default.contains(' ') || default.is_empty();
                assert!(in_words || takes.read(default).is_some(), "{name}: {default}");
            }
        }
    }

    #[test]
    fn values_are_read_by_what_a_setting_takes() {
        let limit = Takes::Limit { min: 1000 };
        assert_eq!(limit.read("-1"), Some(Given::Unlimited));
        assert_eq!(limit.read("999"), None);
        assert_eq!(Takes::Number { min: 1, max: 3 }.read("3"), Some(Given::Number(3)));
        let flush = Takes::WordOrNumber { word: "ack", min: 1, max: 9 };
        assert_eq!(flush.read("ack"), Some(Given::Word("ack")));
        assert_eq!(flush.read("never"), None);
        assert_eq!(flush.to_string(), "`ack`, or a number from 1 to 9");
        assert_eq!(Takes::Words(&["on", "off"]).read("maybe"), None);
    }

    #[test]
    fn a_slip_of_the_pen_is_answered_with_the_nearest_name() {
        let why = unknown_key("min.insync.replica", "a topic", &topic::KEYS);
        assert_eq!(
            why,
            "`min.insync.replica` is not a setting of a topic; did you mean `min.insync.replicas`?"
        );
        assert!(
            unknown_key("x", "a topic", &topic::KEYS)
                .contains("there are compression.type, delete.protection, flush,")
        );
    }
}
