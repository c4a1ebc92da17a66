//! The settings of the cluster as a whole, which are committed records: its own, and what it says for
//! topics and brokers that do not say otherwise.

use super::{ConfigKey, Effect, Takes, broker, topic};

/// The cluster's own settings, sorted by name.
pub const KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "balance.auto",
        default: "off",
        takes: Takes::Words(&["on", "off"]),
        unit: None,
        effect: Effect::AtOnce,
        description: "Whether the controller evens replicas and preferred leaders out by itself, once the \
                      cluster has been calm for a minute: by their number, and by bytes and load where \
                      a broker has carried three tenths more than the mean for minutes.",
        advice: "Switch it on where brokers are alike and nobody places replicas by hand: it would take \
                 such a placement back, fill a broker again that `hw partition reassign --drain` has \
                 emptied, and begin again what is cancelled. `hw cluster balance` does the same once, \
                 by the load of a moment. Bursts of minutes move nothing; leaders change places before \
                 anything is copied, and what was moved for its load stays for an hour.",
        example: "hw cluster config set balance.auto=on",
    },
    ConfigKey {
        name: "balance.auto.rate",
        default: "33554432",
        takes: Takes::Number { min: 1024, max: 1 << 40 },
        unit: Some("bytes a second"),
        effect: Effect::AtOnce,
        description: "How fast the moves that the controller begins by itself may copy, all together, \
                      where no throttle is set.",
        advice: "A throttle for all moves (`hw partition throttle`) goes before it.",
        example: "hw cluster config set balance.auto.rate=104857600",
    },
    ConfigKey {
        name: "balance.replace.after.ms",
        default: "1800000",
        takes: Takes::WordOrNumber { word: "never", min: 60_000, max: 2_592_000_000 },
        unit: Some("milliseconds"),
        effect: Effect::AtOnce,
        description: "How long a broker is away before the controller gives its replicas to others.",
        advice: "Nobody is replaced while more than a third of all brokers is away, nor who was drained \
                 before it went: `hw cluster drain N` before a long repair. What has not begun is dropped \
                 when the broker is back.",
        example: "hw cluster config set balance.replace.after.ms=never",
    },
    ConfigKey {
        name: "default.replication.factor",
        default: "3, or as many as brokers are alive",
        takes: Takes::Number { min: 1, max: 7 },
        unit: Some("replicas"),
        effect: Effect::AtOnce,
        description: "How many replicas a partition of a new topic has where its request does not say.",
        advice: "Three outlive the loss of one broker without a pause. Topics that exist stay as they \
                 are: `hw partition reassign --replicas` changes those.",
        example: "hw cluster config set default.replication.factor=3",
    },
    ConfigKey {
        name: "leader.balance",
        default: "on",
        takes: Takes::Words(&["on", "off"]),
        unit: None,
        effect: Effect::AtOnce,
        description: "Whether leadership goes back to preferred replicas by itself, some seconds after \
                      they are in sync again.",
        advice: "Switch it off while you place leaders by hand with `hw partition transfer`, and on \
                 again after that: a broker that was restarted leads nothing until then.",
        example: "hw cluster config set leader.balance=off",
    },
    ConfigKey {
        name: "offsets.retention.minutes",
        default: "10080",
        takes: Takes::Number { min: 1, max: 52_560_000 },
        unit: Some("minutes"),
        effect: Effect::AtOnce,
        description: "How long the committed offsets of a group are kept after its last member has left, or after \
                      the last commit of somebody who is none. Then the group is forgotten, and begins where a \
                      new one does when it comes again.",
        advice: "Longer than the longest time for which a program of yours may stand still. Offsets of topics that are \
                 deleted go with them, and a group that has members keeps all of its own.",
        example: "hw cluster config set offsets.retention.minutes=43200",
    },
    ConfigKey {
        name: "quota.fetch.rate",
        default: "-1",
        takes: Takes::Limit { min: 1024 },
        unit: Some("bytes a second"),
        effect: Effect::AtOnce,
        description: "How fast each principal may read from each broker. What is beyond waits, and is not \
                      refused.",
        advice: "Set it where one reader could take what others need. It counts for every owner of a \
                 certificate by itself, over all its connections; `hw quota set NAME` gives one of them another.",
        example: "hw cluster config set quota.fetch.rate=52428800",
    },
    ConfigKey {
        name: "quota.produce.rate",
        default: "-1",
        takes: Takes::Limit { min: 1024 },
        unit: Some("bytes a second"),
        effect: Effect::AtOnce,
        description: "How fast each principal may write to each broker, as bytes come, packed or not. What is \
                      beyond waits, and is not refused.",
        advice: "Set it where one producer could take what others need. It counts for every owner of a \
                 certificate by itself, over all its connections; `hw quota set NAME` gives one of them another. \
                 Answers tell clients how long to wait. \
                 A producer with a full buffer of 32 MiB needs 1.1 MB/s to send all of it in the 30 s of its \
                 `delivery_timeout`: where less is allowed, give producers a smaller `buffer_bytes_max`.",
        example: "hw cluster config set quota.produce.rate=10485760",
    },
];

/// Whose values a value of the cluster is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// The cluster's own.
    Cluster,
    /// Topics that do not say otherwise.
    Topics,
    /// Brokers that do not say otherwise.
    Brokers,
}

/// All that can be set for a single client, sorted by name.
pub fn of_clients() -> impl Iterator<Item = &'static ConfigKey> {
    KEYS.iter().filter(|key| key.name.starts_with("quota."))
}

/// All that can be set for the cluster, sorted by name, and whom it serves.
pub fn settable() -> Vec<(&'static ConfigKey, Serves)> {
    let own = KEYS.iter().map(|key| (key, Serves::Cluster));
    let topics = topic::KEYS.iter().map(|key| (key, Serves::Topics));
    let brokers = broker::dynamic().map(|key| (key, Serves::Brokers));
    let mut all: Vec<_> = own.chain(topics).chain(brokers).collect();
    all.sort_by_key(|(key, _)| key.name);
    all
}
