//! What `hw partition unsafe-recover` prints for programs.

use highwater_client::{InspectReplicaResponse, NodeId};
use serde_json::{Value, json};

use super::{Case, Seen};
use crate::output::{Column, Page, Row, Rows};

/// Whether a partition was begun anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It was.
    Yes,
    /// It was only looked at.
    No,
}

/// One partition: what there was, what goes on, and whether it does.
pub fn row(case: &Case, survivor: NodeId, begun: Begun) -> Row {
    let name = case.name.to_string();
    let kept = case.standing(survivor).map(|it| (it.log_start.0, it.log_end.0));
    let cell = kept.map_or("-".to_owned(), |(from, until)| format!("{from} to {until}"));
    let value = json!({
        "topic": case.name.topic,
        "partition": case.name.partition,
        "survivor": survivor.0,
        "recovered": begun == Begun::Yes,
        "kept_from_offset": kept.map(|(from, _)| from),
        "kept_before_offset": kept.map(|(_, until)| until),
        "voters": case.voters().iter().map(|node| node.0).collect::<Vec<_>>(),
        "replicas": case.seen.iter().map(replica).collect::<Vec<_>>(),
    });
    Row { cells: vec![name.clone(), survivor.to_string(), cell], name, value }
}

/// All of them.
pub fn page(rows: Vec<Row>) -> Page {
    Page::list(
        "hw.partition.unsafe-recover/1",
        Rows { field: "partitions", columns: COLUMNS, rows },
    )
}

fn replica(seen: &Seen) -> Value {
    let stands = |it: &InspectReplicaResponse| {
        json!({
            "term": it.term.0,
            "last_term": it.last_term.0,
            "log_start": it.log_start.0,
            "high_watermark": it.high_watermark.0,
            "log_end": it.log_end.0,
            "suspect": it.suspect,
            "voters": it.voters.iter().map(|node| node.0).collect::<Vec<_>>(),
        })
    };
    json!({
        "broker": seen.node.0,
        "fenced": seen.fenced,
        "stands": seen.answer.as_ref().ok().map(stands),
        "silent_because": seen.answer.as_ref().err(),
    })
}

const COLUMNS: &[Column] =
    &[Column::words("PARTITION"), Column::words("SURVIVOR"), Column::words("KEPT")];
