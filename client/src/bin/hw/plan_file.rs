//! Plans in files: Kafka's reassignment JSON, read and written.
//!
//! `{"version":1,"partitions":[{"topic":"orders","partition":3,"replicas":[4,5,6]}]}`. `log_dirs` is taken
//! only where it leaves the choice open (`any`): a broker has one directory for data.

use std::io::{self, Read};
use std::path::Path;

use highwater_client::PlannedMove;
use serde::Deserialize;
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::reassign::Names;

#[derive(Debug, Deserialize)]
struct Plan {
    version: u32,
    partitions: Vec<Line>,
}

/// Where one partition goes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Line {
    pub topic: String,
    pub partition: u32,
    pub replicas: Vec<u32>,
    #[serde(default)]
    log_dirs: Vec<String>,
}

/// Which end of the moves is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// Reads a plan; `-` is the standard input.
pub fn read(file: &Path) -> Result<Vec<Line>, Failure> {
    let name = file.display();
    let text = match file == Path::new("-") {
        true => {
            let mut text = String::new();
            io::stdin().lock().read_to_string(&mut text).map(|_| text)
        }
        false => std::fs::read_to_string(file),
    };
    let text = text.map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
    parse(&text).map_err(|why| {
        Failure::usage(format!("{name} is no plan: {why}")).way_out(
            "`hw partition reassign TOPIC --to BROKERS --dry-run -o kafka` prints one to begin with",
        )
    })
}

fn parse(text: &str) -> Result<Vec<Line>, String> {
    let plan: Plan = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if plan.version != 1 {
        return Err(format!("its version is {}, not 1", plan.version));
    }
    if plan.partitions.is_empty() {
        return Err("it names no partition".to_owned());
    }
    let chosen = |line: &&Line| line.log_dirs.iter().any(|dir| dir != "any");
    if let Some(line) = plan.partitions.iter().find(chosen) {
        let Line { topic, partition, .. } = line;
        return Err(format!("{topic}/{partition} names log_dirs; only \"any\" can be asked for"));
    }
    Ok(plan.partitions)
}

/// One end of the moves as a plan.
pub fn text(moves: &[PlannedMove], names: &Names, side: Side) -> String {
    let line = |planned: &PlannedMove| {
        let set = match side {
            Side::Before => &planned.from,
            Side::After => &planned.to,
        };
        let replicas: Vec<u32> = set.iter().map(|node| node.0).collect();
        let topic = names.get(&planned.partition.topic);
        json!({ "topic": topic, "partition": planned.partition.partition.0, "replicas": replicas })
    };
    let partitions: Vec<_> = moves.iter().map(line).collect();
    json!({ "version": 1, "partitions": partitions }).to_string()
}

/// Writes a plan; what is there already is somebody's way back.
pub fn write(file: &Path, plan: &str) -> Result<(), Failure> {
    let written = std::fs::File::create_new(file)
        .and_then(|mut new| io::Write::write_all(&mut new, format!("{plan}\n").as_bytes()));
    written.map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot write {}: {error}", file.display()))
            .way_out("name a file that does not exist yet; nothing was moved")
    })
}

#[cfg(test)]
mod tests {
    use highwater_client::{NodeId, PartitionId, TopicId, TopicPartition};

    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written_and_as_kafka_writes_it() {
        let id = TopicId(uuid::Uuid::from_u128(7));
        let nodes = |ids: &[u32]| ids.iter().copied().map(NodeId).collect();
        let partition = TopicPartition::new(id, PartitionId(3));
        let moves = [PlannedMove { partition, from: nodes(&[1, 2]), to: nodes(&[4, 2]) }];
        let names = Names::from([(id, "orders".to_owned())]);
        let replicas = |side| parse(&text(&moves, &names, side)).expect("ours")[0].replicas.clone();
        assert_eq!((replicas(Side::Before), replicas(Side::After)), (vec![1, 2], vec![4, 2]));
        let kafka = r#"{"version":1,"partitions":[{"topic":"orders","partition":3,"replicas":[4,5,6],"log_dirs":["any","any","any"]}]}"#;
        assert_eq!(parse(kafka).expect("Kafka's")[0].replicas, [4, 5, 6]);
    }

    #[test]
    fn what_is_no_plan_is_refused_with_the_reason() {
        for (text, words) in [
            ("{}", "version"),
            (r#"{"version":2,"partitions":[]}"#, "version is 2"),
            (r#"{"version":1,"partitions":[]}"#, "names no partition"),
            (r#"{"version":1,"partitions":[{"topic":"a","partition":-1,"replicas":[]}]}"#, "-1"),
            (
                r#"{"version":1,"partitions":[{"topic":"a","partition":1,"replicas":[1],"log_dirs":["/d"]}]}"#,
                "a/1 names log_dirs",
            ),
        ] {
            let why = parse(text).expect_err("no plan");
            assert!(why.contains(words), "{why}");
        }
    }
}
