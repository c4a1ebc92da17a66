//! The keys of a broker's configuration file; `broker::config` reads them.

use super::{ConfigKey, Effect, Takes};

/// The key of this name.
pub fn named(name: &str) -> Option<&'static ConfigKey> {
    KEYS.iter().find(|key| key.name == name)
}

/// Those that can also be set for the cluster or for a broker while it runs.
pub fn dynamic() -> impl Iterator<Item = &'static ConfigKey> {
    KEYS.iter().filter(|key| key.effect == Effect::AtOnce)
}

/// Every key of the file, with its tables, sorted by name; without a default it must be there. Those
/// with an effect at once can also be set while the broker runs.
pub const KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "advertise",
        default: "the address under `listen`",
        takes: Takes::Text(HOST_PORT),
        unit: None,
        effect: Effect::AtStart,
        description: "What clients and other brokers are told to connect to.",
        advice: "Set it where the broker listens on every address, or behind a \
                 translation of addresses.",
        example: "advertise = \"broker-1.example:9400\"",
    },
    ConfigKey {
        name: "cluster.controllers",
        default: "",
        takes: Takes::Text("a list of 1, 3 or 5 node ids, such as [1, 2, 3]"),
        unit: None,
        effect: Effect::AtStart,
        description: "The brokers that voted on metadata when the cluster began.",
        advice: "Leave it as `highwater init` or the invitation wrote it: who votes now stands in the \
                 cluster's own log, and `hw cluster controller` changes it. Three outlive the loss of \
                 one, five of two.",
        example: "[cluster] controllers = [1, 2, 3]",
    },
    ConfigKey {
        name: "cluster.id",
        default: "",
        takes: Takes::Text("the cluster's id, as `highwater init` printed it"),
        unit: None,
        effect: Effect::Never,
        description: "Which cluster the broker belongs to; the certificates carry it too.",
        advice: "Never change it: a broker does not open the data of another cluster.",
        example: "[cluster] id = \"0191b1c2-5a7e\"",
    },
    ConfigKey {
        name: "data.dir",
        default: "",
        takes: Takes::Text("the path of a directory"),
        unit: None,
        effect: Effect::AtStart,
        description: "Where the broker keeps its data.",
        advice: "Give it a disk of its own; a broker that comes back without it has \
                 lost its memory and is filled anew by the others.",
        example: "[data] dir = \"/var/lib/highwater\"",
    },
    ConfigKey {
        name: "data.reserve_mib",
        default: "256",
        takes: Takes::Number { min: 8, max: 1 << 20 },
        unit: Some("MiB"),
        effect: Effect::AtStart,
        description: "Produces are refused while the disk has less than this free; below a \
                      quarter of it no replica takes records.",
        advice: "Half a second of the disk's speed at least; raise it where other \
                 programs fill the same disk.",
        example: "[data] reserve_mib = 1024",
    },
    ConfigKey {
        name: "data.scrub_mib_per_s",
        default: "4",
        takes: Takes::Number { min: 0, max: 1_024 },
        unit: Some("MiB/s"),
        effect: Effect::AtStart,
        description: "How much of what lies on the disk is read and checked in a second, to find \
                      and mend damage while other replicas are whole; 0 turns it off.",
        advice: "High enough for a pass in two weeks: what the broker holds, divided by \
                 1,200,000 seconds.",
        example: "[data] scrub_mib_per_s = 16",
    },
    ConfigKey {
        name: "defaults.heartbeat_ms",
        default: "100",
        takes: Takes::Number { min: 10, max: 5_000 },
        unit: Some("milliseconds"),
        effect: Effect::AtStart,
        description: "How often brokers hear of each other.",
        advice: "Failover takes a few of them. The same value belongs into every broker's file.",
        example: "[defaults] heartbeat_ms = 100",
    },
    ConfigKey {
        name: "http.listen",
        default: "none: metrics are not served",
        takes: Takes::Text(ADDRESS),
        unit: None,
        effect: Effect::AtStart,
        description: "Where metrics and health are served.",
        advice: "Bind it to an address that only your monitoring reaches: it is not encrypted.",
        example: "[http] listen = \"127.0.0.1:9480\"",
    },
    ConfigKey {
        name: "limits.connections",
        default: "10000",
        takes: Takes::Number { min: 1, max: 1_000_000 },
        unit: Some("connections"),
        effect: Effect::AtOnce,
        description: "Connections at one time; more are refused.",
        advice: "Raise it together with the limit on memory of the process.",
        example: "hw cluster config set limits.connections=20000 --broker 2",
    },
    ConfigKey {
        name: "limits.crashes_an_hour",
        default: "5",
        takes: Takes::Number { min: 0, max: 100 },
        unit: Some("crashes"),
        effect: Effect::AtStart,
        description: "After so many crashes within an hour the broker starts for administration only: it \
                      answers, and hosts nothing; 0: never.",
        advice: "Leave it; `highwater start --after-crashes` starts a broker once somebody has looked \
                 why, and begins to count anew.",
        example: "[limits] crashes_an_hour = 0",
    },
    ConfigKey {
        name: "limits.requests_in_flight",
        default: "1024",
        takes: Takes::Number { min: 1, max: 65_536 },
        unit: Some("requests"),
        effect: Effect::AtOnce,
        description: "Requests of one connection that are not answered yet; more are not read.",
        advice: "Raise it for programs that share one connection among very many tasks.",
        example: "hw cluster config set limits.requests_in_flight=4096",
    },
    ConfigKey {
        name: "limits.shards",
        default: "1 on two cores or fewer, else one per core up to 4",
        takes: Takes::Number { min: 1, max: 64 },
        unit: Some("threads"),
        effect: Effect::AtStart,
        description: "How many threads run the core; partitions are spread over them.",
        advice: "Leave a core to the network; more shards than cores only cost.",
        example: "[limits] shards = 2",
    },
    ConfigKey {
        name: "listen",
        default: "",
        takes: Takes::Text(ADDRESS),
        unit: None,
        effect: Effect::AtStart,
        description: "The UDP address that clients and other brokers reach.",
        advice: "With 0.0.0.0 or [::] set `advertise`, too.",
        example: "listen = \"0.0.0.0:9400\"",
    },
    ConfigKey {
        name: "log.filter",
        default: "info",
        takes: Takes::Text("a filter such as \"info,highwater=debug\""),
        unit: None,
        effect: Effect::AtOnce,
        description: "Which lines of its own log the broker writes.",
        advice: "`debug` for one module tells more than for all: \
                 `info,highwater_broker::raft=debug`.",
        example: "hw cluster config set log.filter=info,highwater_broker::raft=debug --broker 2",
    },
    ConfigKey {
        name: "log.format",
        default: "text",
        takes: Takes::Words(&["text", "json"]),
        unit: None,
        effect: Effect::AtStart,
        description: "Whether the broker's own log is for people or for machines.",
        advice: "`json` gives one object a line to a collector of logs.",
        example: "[log] format = \"json\"",
    },
    ConfigKey {
        name: "node.id",
        default: "",
        takes: Takes::Text("a number from 1 to 2147483647"),
        unit: None,
        effect: Effect::AtStart,
        description: "Who this broker is.",
        advice: "Never give the id of one broker to another one: replicas are remembered by it.",
        example: "[node] id = 1",
    },
    ConfigKey {
        name: "node.rack",
        default: "none: every broker is a place of its own",
        takes: Takes::Text("a name"),
        unit: None,
        effect: Effect::AtStart,
        description: "The broker's failure domain: a rack, a room, a zone.",
        advice: "Replicas of a partition are spread over racks; set it on every broker or on none.",
        example: "[node] rack = \"zone-a\"",
    },
    ConfigKey {
        name: "peers.address",
        default: "",
        takes: Takes::Text(HOST_PORT),
        unit: None,
        effect: Effect::AtStart,
        description: "Where a broker listened when the file was written.",
        advice: "For finding the cluster at the start: a few brokers that are up will do. Those that \
                 joined later are known from the cluster itself and need no entry.",
        example: "[[peers]] address = \"broker-2.example:9400\"",
    },
    ConfigKey {
        name: "peers.id",
        default: "",
        takes: Takes::Text("a number from 1 to 2147483647"),
        unit: None,
        effect: Effect::AtStart,
        description: "The id of the broker under that address.",
        advice: "One [[peers]] entry for each broker of `cluster.controllers` at least; those that \
                 joined later need none.",
        example: "[[peers]] id = 2",
    },
    ConfigKey {
        name: "tls.ca",
        default: "",
        takes: Takes::Text(PEM),
        unit: None,
        effect: Effect::AtStart,
        description: "The certificate of the cluster's own authority.",
        advice: "`highwater init` makes it; every broker and client has the same one.",
        example: "[tls] ca = \"pki/ca.pem\"",
    },
    ConfigKey {
        name: "tls.cert",
        default: "",
        takes: Takes::Text(PEM),
        unit: None,
        effect: Effect::AtStart,
        description: "The certificate that proves who the broker is.",
        advice: "`highwater init` makes it; it names the cluster and the node id.",
        example: "[tls] cert = \"pki/node-1.pem\"",
    },
    ConfigKey {
        name: "tls.key",
        default: "",
        takes: Takes::Text(PEM),
        unit: None,
        effect: Effect::AtStart,
        description: "The private key of the broker's certificate.",
        advice: "Only the broker's own account should be able to read it.",
        example: "[tls] key = \"pki/node-1.key\"",
    },
];

const ADDRESS: &str = "an IP address and a port, such as \"0.0.0.0:9400\"";
const HOST_PORT: &str = "a host and a port, such as \"broker-1.example:9400\"";
const PEM: &str = "the path of a PEM file that exists";
