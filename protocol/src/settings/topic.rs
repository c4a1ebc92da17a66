//! The settings of a topic.

use super::{ConfigKey, Effect, NUMBER_MAX, Takes};

impl ConfigKey {
    /// The setting of a topic of this name.
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

/// Every setting of a topic, sorted by name.
pub const KEYS: [ConfigKey; 13] = [
    ConfigKey {
        name: "compression.type",
        default: "producer",
        takes: Takes::Words(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        unit: None,
        effect: Effect::AtOnce,
        description: "How batches may come packed: as the producer likes, not at all, or with one \
                      codec or not at all. Brokers store batches as they came.",
        advice: "Unlike Kafka's, our brokers pack nothing anew: a batch with another codec is refused \
                 (UNSUPPORTED_COMPRESSION_TYPE). Our clients learn the topic's codec and use it; \
                 set others to the same one first.",
        example: "hw topic alter orders compression.type=zstd",
    },
    ConfigKey {
        name: "delete.protection",
        default: "off",
        takes: Takes::Words(&["on", "off"]),
        unit: None,
        effect: Effect::AtOnce,
        description: "Whether a request to delete the topic is refused. Retention and trims go on.",
        advice: "Switch it on for what nobody should delete by a slip of the hand; with \
                 `hw cluster config set` it holds for every topic that does not say otherwise.",
        example: "hw topic alter orders delete.protection=on",
    },
    ConfigKey {
        name: "flush",
        default: "ack",
        takes: Takes::WordOrNumber { word: "ack", min: 1, max: HOUR_MS },
        unit: Some("milliseconds"),
        effect: Effect::AtOnce,
        description: "When a replica counts a batch as held: `ack` after it is on disk; a number \
                      once it is in the page cache, to be on disk within that many milliseconds.",
        advice: FLUSH_ADVICE,
        example: "hw topic alter logs flush=100",
    },
    ConfigKey {
        name: "max.message.bytes",
        default: "1048588",
        takes: Takes::Number { min: 1024, max: MESSAGE_BYTES_LIMIT },
        unit: Some("bytes"),
        effect: Effect::AtOnce,
        description: "The largest record batch that a produce may bring.",
        advice: "Raise it for large records; `segment.bytes` must not be smaller, and every reader \
                 needs room for one such batch.",
        example: "hw topic alter orders max.message.bytes=4194304",
    },
    ConfigKey {
        name: "message.timestamp.after.max.ms",
        default: "3600000",
        takes: Takes::Number { min: 0, max: NUMBER_MAX },
        unit: Some("milliseconds"),
        effect: Effect::AtOnce,
        description: "With `CreateTime`, a batch is refused whose latest record is further ahead of \
                      the leader's clock than this.",
        advice: "A clock that runs ahead keeps records for longer than `retention.ms` says; raise it \
                 only for records of the future.",
        example: "hw topic alter orders message.timestamp.after.max.ms=60000",
    },
    ConfigKey {
        name: "message.timestamp.before.max.ms",
        default: "9223372036854775807",
        takes: Takes::Number { min: 0, max: NUMBER_MAX },
        unit: Some("milliseconds"),
        effect: Effect::AtOnce,
        description: "With `CreateTime`, a batch is refused whose first or latest record is further \
                      behind the leader's clock than this.",
        advice: "Lower it to refuse clocks that were never set; not below what a producer may \
                 buffer, nor where old data is copied in.",
        example: "hw topic alter orders message.timestamp.before.max.ms=86400000",
    },
    ConfigKey {
        name: "message.timestamp.type",
        default: "CreateTime",
        takes: Takes::Words(&["CreateTime", "LogAppendTime"]),
        unit: None,
        effect: Effect::AtOnce,
        description: "Whose clock a record's timestamp is: the producer's, or the leader's when the batch came.",
        advice: "`LogAppendTime` trusts no producer's clock and makes retention and look-ups by time \
                 go by the brokers'; the producers' times are not kept.",
        example: "hw topic alter orders message.timestamp.type=LogAppendTime",
    },
    ConfigKey {
        name: "min.insync.replicas",
        default: "2, or 1 where there is a single replica",
        takes: Takes::Number { min: 1, max: u8::MAX as u64 },
        unit: Some("replicas"),
        effect: Effect::AtOnce,
        description: "The fewest in-sync replicas that let a produce with `sync` in; no more than \
                      the topic has replicas.",
        advice: "With as many as there are replicas, one broker that is away stops `sync` produce; \
                 one less than that is the usual choice.",
        example: "hw topic alter orders min.insync.replicas=2",
    },
    ConfigKey {
        name: "replica.lag.time.max.ms",
        default: "10000",
        takes: Takes::Number { min: 500, max: HOUR_MS },
        unit: Some("milliseconds"),
        effect: Effect::AtOnce,
        description: "A replica that has not caught up with its leader for this long is no longer in sync.",
        advice: "Lower lets `sync` produce go on sooner without a slow broker; higher keeps a \
                 broker in sync through short pauses.",
        example: "hw topic alter orders replica.lag.time.max.ms=5000",
    },
    ConfigKey {
        name: "retention.bytes",
        default: "-1",
        takes: Takes::Limit { min: SEGMENT_BYTES_MIN },
        unit: Some("bytes of each partition"),
        effect: Effect::AtOnce,
        description: "The oldest segments of a partition are deleted while the others are at least this large.",
        advice: "A partition holds this much, one segment more and the active one; multiply by \
                 partitions and replicas for the room on the disks.",
        example: "hw topic alter orders retention.bytes=10737418240",
    },
    ConfigKey {
        name: "retention.ms",
        default: "604800000",
        takes: Takes::Limit { min: 1000 },
        unit: Some("milliseconds"),
        effect: Effect::AtOnce,
        description: "Segments whose newest record is older than this are deleted.",
        advice: "A shorter one deletes within a minute or two, and that cannot be taken back; -1 \
                 keeps records for ever.",
        example: "hw topic alter orders retention.ms=86400000",
    },
    ConfigKey {
        name: "segment.bytes",
        default: "268435456",
        takes: Takes::Number { min: SEGMENT_BYTES_MIN, max: 2 << 30 },
        unit: Some("bytes"),
        effect: Effect::AtOnce,
        description: "A segment of the log is sealed before it grows past this; not below `max.message.bytes`.",
        advice: "Space is given back in whole segments: smaller ones follow retention more closely \
                 and cost more files.",
        example: "hw topic alter orders segment.bytes=67108864",
    },
    ConfigKey {
        name: "segment.ms",
        default: "604800000",
        takes: Takes::Number { min: 1000, max: NUMBER_MAX },
        unit: Some("milliseconds"),
        effect: Effect::AtOnce,
        description: "A segment of the log is sealed once its oldest record is older than this, so \
                      that it can be deleted when its time comes.",
        advice: "Lower it for quiet topics whose old records must go on time.",
        example: "hw topic alter orders segment.ms=3600000",
    },
];

/// Whom a value of `flush` serves, and when it may change: said here and nowhere else.
pub const FLUSH_ADVICE: &str = "With a number a power cut of a majority may cost that much. It changes while the topic is in use, \
     broker by broker within moments; after a change to `ack` what was written before is soon on disk. \
     A value of the cluster holds for topics that are made from then on only.";

const HOUR_MS: u64 = 3_600_000;
const SEGMENT_BYTES_MIN: u64 = 1024 * 1024;
/// A batch must fit into a frame of 16 MiB together with what surrounds it.
const MESSAGE_BYTES_LIMIT: u64 = 15 * 1024 * 1024;
