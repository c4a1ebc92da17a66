//! The keys of a client's profile; `hw profile` writes them.

use super::{ConfigKey, Effect, Takes};

/// Every key of a profile, sorted by name; without a default it must be there.
pub const KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "bootstrap",
        default: "",
        takes: Takes::Text("addresses, HOST:PORT"),
        unit: None,
        effect: Effect::NextRun,
        description: "Brokers that are asked first; the rest is learned from them.",
        advice: "Name two or three, so that one that is down does not matter.",
        example: "hw --bootstrap a:9400,b:9400 cluster health",
    },
    ConfigKey {
        name: "ca",
        default: "",
        takes: Takes::Text(PEM),
        unit: None,
        effect: Effect::NextRun,
        description: "The certificate of the cluster's own authority.",
        advice: "It is the `ca.pem` that `highwater init` made; the cluster's brokers \
                 have the same.",
        example: "hw --ca pki/ca.pem cluster health",
    },
    ConfigKey {
        name: "cert",
        default: "",
        takes: Takes::Text(PEM),
        unit: None,
        effect: Effect::NextRun,
        description: "The certificate that proves who you are to the cluster.",
        advice: "It must come from the cluster's own authority.",
        example: "hw --cert pki/me.pem cluster health",
    },
    ConfigKey {
        name: "compression",
        default: "lz4",
        takes: Takes::Words(CODECS),
        unit: None,
        effect: Effect::NextRun,
        description: "What producers pack batches with that do not choose themselves, where it makes them smaller.",
        advice: "`zstd` packs tightest at about the price of `lz4`; a topic's own `compression.type` has the last word.",
        example: "hw profile add prod --compression zstd",
    },
    ConfigKey {
        name: "current",
        default: "the only profile there is",
        takes: Takes::Text("the name of a profile"),
        unit: None,
        effect: Effect::NextRun,
        description: "The profile that is used when none is named.",
        advice: "`hw profile use` sets it.",
        example: "hw profile use staging && cat \"$(hw profile path)\" # current = \"staging\"",
    },
    ConfigKey {
        name: "key",
        default: "",
        takes: Takes::Text(PEM),
        unit: None,
        effect: Effect::NextRun,
        description: "The private key of your certificate.",
        advice: "Only you should be able to read it.",
        example: "hw --key pki/me.key cluster health",
    },
];

/// The codecs by name, in the order of their numbers.
pub const CODECS: &[&str] = &["none", "gzip", "snappy", "lz4", "zstd"];
const PEM: &str = "the path of a PEM file";
