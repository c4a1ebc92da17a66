//! The rule of `output` for names of fields, as a check that every document of every test goes through.

use serde_json::Value;

/// Fails where a field has another type than its name promises.
pub fn check(document: &Value) {
    each_field("", document);
}

fn each_field(path: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                if let Some(wanted) = promised(name) {
                    assert!(wanted.holds(value), "{path} is to be {wanted:?}, not {value}");
                }
                // Below these, the names are those of settings.
                if name != "configs" {
                    each_field(&path, value);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_field(path, item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Number,
    Word,
    Truth,
    Numbers,
    Things,
}

impl Type {
    fn holds(self, value: &Value) -> bool {
        match (self, value) {
            // What is not known or not there.
            (_, Value::Null) => true,
            (Type::Number, value) => value.is_number(),
            (Type::Word, value) => value.is_string(),
            (Type::Truth, value) => value.is_boolean(),
            (Type::Numbers, Value::Array(items)) => items.iter().all(Value::is_number),
            (Type::Things, Value::Array(items)) => items.iter().all(Value::is_object),
            (Type::Numbers | Type::Things, _) => false,
        }
    }
}

/// What a name promises; a name of which nothing is known may be anything.
fn promised(name: &str) -> Option<Type> {
    let listed = NAMES.iter().find(|(_, names)| names.contains(&name)).map(|(found, _)| *found);
    let number =
        ["_total", "_up", "_bytes", "_per_s", "_ms", "_s", "_index", "_offset", "_leaderless"];
    listed.or_else(|| number.iter().any(|end| name.ends_with(end)).then_some(Type::Number))
}

const NAMES: [(Type, &[&str]); 5] = [
    (
        Type::Number,
        &[
            "partition",
            "broker",
            "leader",
            "controller",
            "offset",
            "term",
            "bytes",
            "log_start",
            "log_end",
            "high_watermark",
            "flushed",
            "lag",
            "timestamp",
            "line",
            "replication",
        ],
    ),
    (
        Type::Word,
        &[
            "schema",
            "topic",
            "topic_id",
            "cluster_id",
            "name",
            "kind",
            "subject",
            "detail",
            "role",
            "stage",
            "duty",
            "source",
            "why",
            "error",
            "time",
            "rack",
            "address",
            "held",
            "word",
        ],
    ),
    (Type::Truth, &["changed", "created", "is_in_sync", "fenced", "healthy", "suspect", "current"]),
    (Type::Numbers, &["replicas", "in_sync", "from", "to", "voters"]),
    (
        Type::Things,
        &[
            "partitions",
            "brokers",
            "topics",
            "moves",
            "problems",
            "events",
            "settings",
            "changes",
            "replica_states",
            "throttles",
            "missing",
        ],
    ),
];

#[test]
#[should_panic(expected = ".moves.partition is to be Number")]
fn a_partition_that_is_no_number_is_noticed() {
    check(&serde_json::json!({"moves": [{"topic": "orders", "partition": "orders/3"}]}));
}
