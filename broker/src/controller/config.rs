//! The settings of a topic, read from text: which values are taken, and what is wrong with the others.
//!
//! Names and words stand in `protocol::settings`. All mistakes of a request are reported together,
//! and a name that is not known is answered with the nearest one that is.

use highwater_protocol::batch::Compression;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::settings::topic::KEYS;
use highwater_protocol::settings::{ConfigKey, Given, unknown_key};

/// A topic's settings, parsed once; what was not set is at its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicConfig {
    /// The fewest in-sync replicas that let a `sync` produce in; `None` for the default, which
    /// depends on the number of replicas.
    pub insync_replicas_min: Option<u8>,
    /// The same as the cluster says it: for topics with fewer replicas, all of these.
    pub insync_replicas_default: Option<u8>,
    /// When a replica counts a batch as held.
    pub flush: FlushMode,
    /// A segment is sealed before it grows past this.
    pub segment_bytes: u64,
    /// A segment whose oldest record is older than this is sealed, full or not.
    pub segment_ms: u64,
    /// Records older than this may be deleted; `None` keeps them.
    pub retention_ms: Option<u64>,
    /// The oldest segments may be deleted while a partition is larger than this; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// The largest batch that a produce may bring.
    pub message_bytes_max: u32,
    /// A voter that has not caught up for this long is no longer in sync.
    pub lag_ms_max: u64,
    /// Whether the topic may be deleted.
    pub deletion: Deletion,
    /// How its batches may come packed, beside not at all; `None` where producers choose.
    pub codec: Option<Compression>,
    /// Whose clock its records go by.
    pub record_clock: RecordClock,
    /// How far a producer's clock may be from the leader's.
    pub clock_bounds: ClockBounds,
}

/// Whose clock the records of a topic go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordClock {
    /// The producers', within bounds around the leader's.
    Producer,
    /// The leader's, when it takes the batch.
    Leader,
}

/// How far a producer's clock may be from the leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockBounds {
    /// How far behind.
    pub before_ms_max: u64,
    /// How far ahead.
    pub after_ms_max: u64,
}

/// When a replica counts a batch as held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// Once it is on disk.
    Ack,
    /// Once it is in the page cache, to be on disk within this many milliseconds.
    Interval {
        /// The longest that it stays off the disk.
        ms: u64,
    },
}

/// Whether a topic may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// By a request.
    Allowed,
    /// Not until this is changed.
    Refused,
}

impl Default for TopicConfig {
    fn default() -> TopicConfig {
        TopicConfig {
            insync_replicas_min: None,
            insync_replicas_default: None,
            flush: FlushMode::Ack,
            segment_bytes: 256 * 1024 * 1024,
            segment_ms: 7 * 24 * 3600 * 1000,
            retention_ms: Some(7 * 24 * 3600 * 1000),
            retention_bytes: None,
            message_bytes_max: 1_048_588,
            lag_ms_max: 10_000,
            deletion: Deletion::Allowed,
            codec: None,
            record_clock: RecordClock::Producer,
            clock_bounds: ClockBounds::default(),
        }
    }
}

impl Default for ClockBounds {
    fn default() -> ClockBounds {
        ClockBounds { before_ms_max: i64::MAX as u64, after_ms_max: 3_600_000 }
    }
}

impl TopicConfig {
    /// Reads settings by name; the error lists everything that is wrong with them.
    pub fn parse(configs: &[(String, String)]) -> Result<TopicConfig, WireError> {
        TopicConfig::parse_over(&[], configs)
    }

    /// The same, where other values stand in for those that are not set.
    pub fn parse_over(
        defaults: &[(String, String)],
        configs: &[(String, String)],
    ) -> Result<TopicConfig, WireError> {
        let mut config = TopicConfig::default();
        let mut wrong = Vec::new();
        wrong.extend(defaults.iter().filter_map(|(name, value)| config.set(name, value).err()));
        config.insync_replicas_default = config.insync_replicas_min.take();
        for (number, (name, value)) in configs.iter().enumerate() {
            if configs[..number].iter().any(|(earlier, _)| earlier == name) {
                wrong.push(format!("`{name}` is set twice"));
            } else if let Err(why) = config.set(name, value) {
                wrong.push(why);
            }
        }
        if config.segment_bytes < u64::from(config.message_bytes_max) {
            wrong.push(format!(
                "`segment.bytes` is {} and must not be below `max.message.bytes`, which is {}",
                config.segment_bytes, config.message_bytes_max
            ));
        }
        if wrong.is_empty() {
            Ok(config)
        } else {
            Err(WireError::new(ErrorCode::InvalidConfig, wrong.join("; ")))
        }
    }

    /// The fewest in-sync replicas for a `sync` produce, of a topic with so many replicas.
    pub fn insync_replicas_min(&self, replication: usize) -> u8 {
        let all = u8::try_from(replication.max(1)).unwrap_or(u8::MAX);
        let fallback = self.insync_replicas_default.unwrap_or(2).min(all);
        self.insync_replicas_min.unwrap_or(fallback)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let key = known(name)?;
        let given = key.takes.read(value).ok_or_else(|| key.refusal(value))?;
        match (key.name, given) {
            ("flush", Given::Number(ms)) => self.flush = FlushMode::Interval { ms },
            ("flush", Given::Word(_) | Given::Unlimited) => self.flush = FlushMode::Ack,
            ("compression.type", Given::Word("producer")) => self.codec = None,
            ("compression.type", Given::Word("uncompressed")) => {
                self.codec = Some(Compression::None);
            }
            ("compression.type", Given::Word(name)) => self.codec = Compression::named(name),
            ("message.timestamp.after.max.ms", given) => {
                self.clock_bounds.after_ms_max = number(given);
            }
            ("message.timestamp.before.max.ms", given) => {
                self.clock_bounds.before_ms_max = number(given);
            }
            ("message.timestamp.type", Given::Word("LogAppendTime")) => {
                self.record_clock = RecordClock::Leader;
            }
            ("message.timestamp.type", _) => self.record_clock = RecordClock::Producer,
            ("delete.protection", Given::Word("on")) => self.deletion = Deletion::Refused,
            ("delete.protection", _) => self.deletion = Deletion::Allowed,
            ("max.message.bytes", given) => {
                self.message_bytes_max = u32::try_from(number(given)).expect("the table's limit");
            }
            ("min.insync.replicas", given) => {
                let replicas = u8::try_from(number(given)).expect("the table's limit");
                self.insync_replicas_min = Some(replicas);
            }
            ("replica.lag.time.max.ms", given) => self.lag_ms_max = number(given),
            ("retention.bytes", given) => self.retention_bytes = limit(given),
            ("retention.ms", given) => self.retention_ms = limit(given),
            ("segment.bytes", given) => self.segment_bytes = number(given),
            ("segment.ms", given) => self.segment_ms = number(given),
            (name, _) => unreachable!("`{name}` stands in the table and is not read"),
        }
        Ok(())
    }
}

fn number(given: Given<'_>) -> u64 {
    limit(given).expect("the table takes numbers here")
}

fn limit(given: Given<'_>) -> Option<u64> {
    match given {
        Given::Number(number) => Some(number),
        Given::Unlimited => None,
        Given::Word(word) => unreachable!("the table takes no words here, such as {word}"),
    }
}

fn known(name: &str) -> Result<&'static ConfigKey, String> {
    ConfigKey::named(name).ok_or_else(|| unknown_key(name, "a topic", &KEYS))
}

/// Whether a setting of this name exists; the error names the nearest one.
pub fn check_name(name: &str) -> Result<(), String> {
    known(name).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(configs: &[(&str, &str)]) -> Result<TopicConfig, String> {
        let owned: Vec<(String, String)> =
            configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        TopicConfig::parse(&owned).map_err(|error| error.detail)
    }

    #[test]
    fn every_key_takes_the_default_that_it_shows() {
        for key in KEYS.iter().filter(|key| key.name != "min.insync.replicas") {
            assert_eq!(
                parse(&[(key.name, key.default)]),
                Ok(TopicConfig::default()),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn settings_are_read() {
        let config =
            parse(&[("flush", "50"), ("retention.ms", "-1"), ("min.insync.replicas", "3")])
                .expect("all three are allowed");
        assert_eq!(config.flush, FlushMode::Interval { ms: 50 });
        assert_eq!(config.retention_ms, None);
        assert_eq!(config.insync_replicas_min(3), 3);
    }

    #[test]
    fn one_replica_needs_one_in_sync_and_more_need_two() {
        assert_eq!(TopicConfig::default().insync_replicas_min(1), 1);
        assert_eq!(TopicConfig::default().insync_replicas_min(5), 2);
    }

    #[test]
    fn a_slip_of_the_pen_is_answered_with_the_nearest_name() {
        let why = parse(&[("min.insync.replica", "2")]).expect_err("an s is missing");
        assert_eq!(
            why,
            "`min.insync.replica` is not a setting of a topic; did you mean `min.insync.replicas`?"
        );
        let why = parse(&[("x", "2")]).expect_err("nothing is called so");
        assert!(why.contains("there are compression.type, delete.protection, flush"), "{why}");
    }

    #[test]
    fn codec_and_clock_are_read_by_kafkas_words() {
        let config =
            parse(&[("compression.type", "zstd"), ("message.timestamp.type", "LogAppendTime")])
                .expect("both are Kafka's");
        assert_eq!(config.codec, Some(Compression::Zstd));
        assert_eq!(config.record_clock, RecordClock::Leader);
        let plain = parse(&[("compression.type", "uncompressed")]).expect("Kafka's word for it");
        assert_eq!(plain.codec, Some(Compression::None));
        let why = parse(&[("compression.type", "zst")]).expect_err("a d is missing");
        assert!(why.contains("did you mean `zstd`"), "{why}");
        let why = parse(&[("message.timestamp.type", "logappendtime")]).expect_err("capitals");
        assert!(why.contains("`CreateTime` or `LogAppendTime`"), "{why}");
        let bounds =
            [("message.timestamp.before.max.ms", "5"), ("message.timestamp.after.max.ms", "7")];
        let bounds = parse(&bounds).expect("numbers").clock_bounds;
        assert_eq!(bounds, ClockBounds { before_ms_max: 5, after_ms_max: 7 });
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let why = parse(&[
            ("flush", "never"),
            ("flush", "ack"),
            ("segmentbytes", "1"),
            ("retention.ms", "-2"),
        ])
        .expect_err("four mistakes");
        assert_eq!(why.split("; ").filter(|part| part.starts_with('`')).count(), 4, "{why}");
    }

    #[test]
    fn a_segment_holds_at_least_one_batch() {
        let why = parse(&[("segment.bytes", "1048576"), ("max.message.bytes", "2000000")])
            .expect_err("the batch would not fit");
        assert!(why.contains("must not be below"), "{why}");
    }
}
