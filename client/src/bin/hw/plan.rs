//! Planned moves, for people and for programs: what goes where, and how much that copies.
//!
//! A dry run's plan is data and goes to the standard output. Before a question it is part of the
//! conversation and goes to the standard error, like all that is said there.

use anstream::eprintln;
use futures_util::StreamExt;
use highwater_client::{Admin, PlannedMove};
use serde_json::json;

use crate::human;
use crate::output::{Column, Page, Row, Rows, ids};
use crate::reassign::{Names, title};

/// Moves, and the bytes that each copies where its leader tells.
pub struct Plan<'a> {
    moves: &'a [PlannedMove],
    names: &'a Names,
    bytes: Vec<Option<u64>>,
}

impl<'a> Plan<'a> {
    /// Asks the leaders how much there is to copy.
    pub async fn of(admin: &Admin, moves: &'a [PlannedMove], names: &'a Names) -> Plan<'a> {
        let asked = moves.iter().map(|planned| async move {
            let (topic, number) =
                (names.get(&planned.partition.topic)?, planned.partition.partition);
            let described = admin.describe_partition(topic, number).await.ok()?;
            let new = planned.to.iter().filter(|node| !planned.from.contains(node)).count();
            Some(described.bytes * new as u64)
        });
        let bytes = futures_util::stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await;
        Plan { moves, names, bytes }
    }

    /// The bytes of all, as far as they are known.
    pub fn bytes(&self) -> u64 {
        self.bytes.iter().flatten().sum()
    }

    /// The size of it all in words.
    pub fn size(&self) -> String {
        let count = human::counted(self.moves.len(), "partition");
        format!("{count}, {} to copy", human::bytes(self.bytes()))
    }

    /// Says it on the standard error, a line for each partition.
    pub fn tell(&self) {
        for (planned, bytes) in self.moves.iter().zip(&self.bytes).take(MOVES_SHOWN_MAX) {
            let (title, bytes) = (title(planned.partition, self.names), size_of(*bytes));
            eprintln!("{title}: {} -> {}, {bytes}", ids(&planned.from), ids(&planned.to));
        }
        if self.moves.len() > MOVES_SHOWN_MAX {
            let more = self.moves.len() - MOVES_SHOWN_MAX;
            eprintln!("and {more} more; --dry-run shows all");
        }
    }

    /// The same as a page.
    pub fn page(&self, schema: &'static str, begun: Begun) -> Page {
        let row = |(planned, bytes): (&PlannedMove, &Option<u64>)| {
            let name = title(planned.partition, self.names);
            let cells = [name.clone(), ids(&planned.from), ids(&planned.to), size_of(*bytes)];
            let nodes = |set: &[highwater_client::NodeId]| {
                set.iter().map(|node| node.0).collect::<Vec<_>>()
            };
            Row {
                value: json!({
                    "topic": self.names.get(&planned.partition.topic),
                    "partition": planned.partition.partition.0,
                    "from": nodes(&planned.from),
                    "to": nodes(&planned.to),
                    "bytes": bytes,
                }),
                cells: cells.to_vec(),
                name,
            }
        };
        let rows = self.moves.iter().zip(&self.bytes).map(row).collect();
        let mut page = Page::list(schema, Rows { field: "moves", columns: COLUMNS, rows });
        page.field("bytes", self.bytes());
        page.field("changed", begun == Begun::Yes && !self.moves.is_empty());
        page
    }
}

/// Whether what is shown was begun, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    Yes,
    No,
}

fn size_of(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "size not known".to_owned(), human::bytes)
}

const COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::words("FROM"),
    Column::words("TO"),
    Column::number("TO COPY"),
];
/// Nobody answers a question that a thousand lines stand above.
const MOVES_SHOWN_MAX: usize = 50;
const ASKED_AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use highwater_client::{NodeId, PartitionId, TopicId, TopicPartition};

    use super::*;

    #[test]
    fn a_plan_is_rows_for_people_and_numbers_for_programs() {
        let id = TopicId(uuid::Uuid::from_u128(7));
        let nodes = |ids: &[u32]| ids.iter().copied().map(NodeId).collect();
        let partition = TopicPartition::new(id, PartitionId(3));
        let moves = [PlannedMove { partition, from: nodes(&[1, 2]), to: nodes(&[4, 2]) }];
        let names = Names::from([(id, "orders".to_owned())]);
        let plan = Plan { moves: &moves, names: &names, bytes: vec![Some(2048)] };
        assert_eq!(plan.size(), "1 partition, 2.0 KiB to copy");
        let document = plan.page("hw.partition.reassign/1", Begun::No).document();
        assert_eq!((&document["changed"], &document["bytes"]), (&json!(false), &json!(2048)));
        let expected =
            json!({"topic": "orders", "partition": 3, "from": [1, 2], "to": [4, 2], "bytes": 2048});
        assert_eq!(document["moves"][0], expected);
    }
}
