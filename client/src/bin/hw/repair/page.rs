//! What `hw partition repair` prints.

use highwater_client::UnreadableRange;
use serde_json::{Value, json};

use super::{Replica, Way, way};
use crate::human;
use crate::output::{Column, Page, Row, Rows, ids};
use crate::target::PartitionName;

/// One row for each range that a replica cannot read.
pub fn page(name: &PartitionName, replicas: &[Replica]) -> Page {
    let rows = replicas.iter().flat_map(|replica| {
        let seen = replica.unreadable.as_ref().ok();
        let since_ms = seen.and_then(|seen| seen.since_ms);
        let ranges = seen.into_iter().flat_map(|seen| &seen.unreadable);
        ranges.map(move |range| row(replicas, replica, range, since_ms))
    });
    let rows = Rows { field: "unreadable", columns: COLUMNS, rows: rows.collect() };
    let mut page = Page::list("hw.partition.repair/1", rows);
    page.field("topic", name.topic.clone());
    page.field("partition", name.partition);
    page.field("replicas", replicas.iter().map(replica).collect::<Vec<_>>());
    page
}

fn row(
    replicas: &[Replica],
    replica: &Replica,
    range: &UnreadableRange,
    since_ms: Option<u64>,
) -> Row {
    let UnreadableRange { from, until, batches, file } = range;
    let records = until.since(*from);
    let way = way(replicas, replica.node, range);
    let (word, nodes) = match &way {
        Way::From(nodes) => ("mending", &nodes[..]),
        Way::Perhaps(nodes) => ("waits", &nodes[..]),
        Way::Lost => ("lost", &[][..]),
    };
    let from_whom = if nodes.is_empty() { "nobody".to_owned() } else { ids(nodes) };
    let since = since_ms.map_or("-".to_owned(), |ms| human::seconds(ms / 1_000));
    let cells = vec![
        replica.node.to_string(),
        from.to_string(),
        until.to_string(),
        human::count(records),
        since,
        format!("{word}, {from_whom}"),
        batches.to_string(),
        file.clone(),
    ];
    let value = json!({
        "broker": replica.node.0,
        "from_offset": from.0,
        "before_offset": until.0,
        "records": records,
        "batches": batches,
        "file": file,
        "for_ms": since_ms,
        "outlook": word,
        "brokers": nodes.iter().map(|node| node.0).collect::<Vec<_>>(),
    });
    Row { name: format!("{}:{from}", replica.node), cells, value }
}

fn replica(replica: &Replica) -> Value {
    let silent = replica.stands.as_ref().err().or(replica.unreadable.as_ref().err());
    json!({ "broker": replica.node.0, "silent_because": silent })
}

const COLUMNS: &[Column] = &[
    Column::number("BROKER"),
    Column::number("FROM"),
    Column::number("BEFORE"),
    Column::number("RECORDS"),
    Column::words("FOR"),
    Column::words("OUTLOOK"),
    Column::number("BATCHES").wide(),
    Column::words("FILE").wide(),
];
