//! `hw group export`: how far a group has come, as lines that `hw group seek --from-file` reads.
//!
//! The lines are those of Kafka's `kafka-consumer-groups.sh`: topic, partition and offset, with commas between.

use std::io::{self, Write};

use anstream::eprintln;
use highwater_client::{Admin, CommittedOffset, Offset};

use super::names;
use crate::exit::{Exit, Failure};
use crate::output::{Reader, quiet_if_closed};
use crate::target::PartitionName;

pub async fn run(group: &str, admin: &Admin) -> Result<Exit, Failure> {
    let names = names(admin).await?;
    let mut lines = Vec::new();
    for CommittedOffset { partition: at, offset, .. } in admin.group_offsets(group).await? {
        match names.get(&at.topic) {
            Some(topic) => lines.push((topic, at.partition, offset)),
            None => eprintln!("left out {at}: there is no such topic any more"),
        }
    }
    lines.sort_unstable();
    let mut text = String::new();
    for (topic, partition, offset) in lines {
        text += &format!("{topic},{partition},{offset}\n");
    }
    match quiet_if_closed(io::stdout().lock().write_all(text.as_bytes()))? {
        Reader::Gone | Reader::There => Ok(Exit::Fine),
    }
}

/// The places that a file names, in its order.
pub fn parse(text: &str) -> Result<Vec<(PartitionName, Offset)>, String> {
    let lines = text.lines().enumerate().map(|(nth, line)| (nth + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(nth, line)| parse_line(line).ok_or_else(|| wrong(nth, line))).collect()
}

fn parse_line(line: &str) -> Option<(PartitionName, Offset)> {
    let mut fields = line.split(',').map(|field| field.trim().trim_matches('"'));
    let (topic, partition, offset) = (fields.next()?, fields.next()?, fields.next()?);
    if topic.is_empty() || fields.next().is_some() {
        return None;
    }
    let name = PartitionName { topic: topic.to_owned(), partition: partition.parse().ok()? };
    Some((name, Offset(offset.parse().ok()?)))
}

fn wrong(nth: usize, line: &str) -> String {
    format!("line {nth}: `{line}` is not TOPIC,PARTITION,OFFSET, such as orders,3,1200")
}

pub const EXAMPLES: &str = "\
Examples:
  hw group export billing > billing.csv
  hw group seek billing --from-file billing.csv --dry-run
  hw group export billing | hw group seek billing-copy --from-file - -y

A line is TOPIC,PARTITION,OFFSET, as Kafka's kafka-consumer-groups.sh writes and reads it.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written_and_as_kafka_quotes_them() {
        let place = |topic: &str, partition, offset| {
            (PartitionName { topic: topic.to_owned(), partition }, Offset(offset))
        };
        let text = "orders,0,12\n\n# by hand\n\"bills\",1,0\n";
        assert_eq!(parse(text), Ok(vec![place("orders", 0, 12), place("bills", 1, 0)]));
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        for wrong in ["orders,1", "orders,1,2,3", ",1,2", "orders,x,2", "orders,1,-1"] {
            let error = parse(&format!("orders,0,12\n{wrong}\n")).expect_err(wrong);
            assert!(error.starts_with(&format!("line 2: `{wrong}`")), "{error}");
        }
    }
}
