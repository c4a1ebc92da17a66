//! The settings of a topic, for people: names, defaults, which values they take, and what they do.
//!
//! Names are Kafka's where Kafka has the setting. The broker reads values by this table, and `hw`
//! shows it; nothing else lists settings.

/// One setting, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigKey {
    /// Its name.
    pub name: &'static str,
    /// Its value where none is set, as it would be written.
    pub default: &'static str,
    /// Which values it takes.
    pub values: &'static str,
    /// What it does.
    pub description: &'static str,
}

impl ConfigKey {
    /// The setting of this name.
    pub fn named(name: &str) -> Option<&'static ConfigKey> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its value where none is set, in a topic with so many replicas of each partition.
    pub fn default_for(&self, replicas: usize) -> &'static str {
        match (self.name, replicas) {
            ("min.insync.replicas", 0 | 1) => "1",
            ("min.insync.replicas", _) => "2",
            _ => self.default,
        }
    }
}

/// Every setting, sorted by name.
pub const KEYS: [ConfigKey; 8] = [
    ConfigKey {
        name: "flush",
        default: "ack",
        values: "`ack`, or 1..=3600000 (milliseconds)",
        description: "When a replica counts a batch as held: `ack` after it is on disk; a number \
                      once it is in the page cache, to be on disk within that many milliseconds.",
    },
    ConfigKey {
        name: "max.message.bytes",
        default: "1048588",
        values: "1024..=15728640",
        description: "The largest record batch that a produce may bring.",
    },
    ConfigKey {
        name: "min.insync.replicas",
        default: "2, or 1 where there is a single replica",
        values: "1..=replicas",
        description: "The fewest in-sync replicas that let a produce with `sync` in.",
    },
    ConfigKey {
        name: "replica.lag.time.max.ms",
        default: "10000",
        values: "500..=3600000",
        description: "A replica that has not caught up with its leader for this long is no longer in sync.",
    },
    ConfigKey {
        name: "retention.bytes",
        default: "-1",
        values: "-1 (without limit), or 1048576 and up",
        description: "The oldest segments of a partition are deleted while the others are at least this large.",
    },
    ConfigKey {
        name: "retention.ms",
        default: "604800000",
        values: "-1 (without limit), or 1000 and up",
        description: "Segments whose newest record is older than this are deleted.",
    },
    ConfigKey {
        name: "segment.bytes",
        default: "268435456",
        values: "1048576..=2147483648, and at least max.message.bytes",
        description: "A segment of the log is sealed before it grows past this.",
    },
    ConfigKey {
        name: "segment.ms",
        default: "604800000",
        values: "1000 and up",
        description: "A segment of the log is sealed once its oldest record is older than this, so \
                      that it can be deleted when its time comes.",
    },
];
