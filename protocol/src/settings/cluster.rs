//! The settings of the cluster as a whole, which are committed records: its own, and what it says for
//! topics and brokers that do not say otherwise.

use super::{ConfigKey, Effect, Takes, broker, topic};

/// The cluster's own settings, sorted by name.
pub const KEYS: &[ConfigKey] = &[
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

/// All that can be set for the cluster, sorted by name, and whom it serves.
pub fn settable() -> Vec<(&'static ConfigKey, Serves)> {
    let own = KEYS.iter().map(|key| (key, Serves::Cluster));
    let topics = topic::KEYS.iter().map(|key| (key, Serves::Topics));
    let brokers = broker::dynamic().map(|key| (key, Serves::Brokers));
    let mut all: Vec<_> = own.chain(topics).chain(brokers).collect();
    all.sort_by_key(|(key, _)| key.name);
    all
}
