//! `hw partition explain`: where each replica of a partition stands, and what has become of the record
//! at an offset, in words.
//!
//! Every broker that has or should have a replica is asked for its own view; the words are made from
//! all of them together (`verdict`), so no broker's word is taken for another's.

mod verdict;

use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use highwater_client::{
    Admin, BrokerInfo, InspectReplicaResponse, NodeId, Offset, PartitionId, TopicPartition,
};
use serde_json::{Value, json};

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human::counted;
use crate::output::{Column, Page, ReadOutput, Row, Rows, or_dash};
use crate::target::PartitionName;
use crate::watch::Watch;

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// TOPIC/NUMBER or TOPIC/NUMBER@OFFSET, such as orders/3@1200
    #[arg(value_name = "TOPIC/P[@OFFSET]")]
    pub place: Place,
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// A partition, and perhaps an offset in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub partition: PartitionName,
    pub offset: Option<Offset>,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let Some((partition, offset)) = text.rsplit_once('@') else {
            return Ok(Place { partition: text.parse()?, offset: None });
        };
        let wrong = || format!("`{offset}` is not an offset, such as in orders/3@1200");
        let offset = offset.parse().ok().filter(|offset| *offset <= i64::MAX as u64);
        let offset = Some(Offset(offset.ok_or_else(wrong)?));
        Ok(Place { partition: partition.parse()?, offset })
    }
}

/// What is known of one replica.
#[derive(Debug, Clone)]
struct Seen {
    node: NodeId,
    /// Whether the controller has lost touch with its broker.
    fenced: bool,
    /// Its own word, or why there is none.
    answer: Result<InspectReplicaResponse, String>,
}

/// Shows where everyone stands.
pub async fn run(args: ExplainArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let patience = settings.request_timeout.min(ANSWER_WITHIN);
    let look = async || {
        let seen = look(&admin, &args.place.partition, args.place.offset, patience).await?;
        Ok((page(&args.place, &seen)?, Exit::Fine))
    };
    args.watch.show(args.output.format, look).await
}

async fn look(
    admin: &Admin,
    name: &PartitionName,
    offset: Option<Offset>,
    patience: Duration,
) -> Result<Vec<Seen>, Failure> {
    let detail = admin.describe_topic(&name.topic).await?;
    let number = PartitionId(name.partition);
    let found = detail.partitions.iter().find(|partition| partition.partition == number);
    let found = found.ok_or_else(|| {
        let (topic, count) = (&name.topic, counted(detail.partitions.len(), "partition"));
        let what = format!("topic {topic} has {count}, numbered from 0: no {number}");
        Failure::new(Exit::NotFound, what)
    })?;
    let brokers = admin.cluster().await?.brokers;
    let partition = TopicPartition::new(detail.id, number);
    let ask = async |nodes: Vec<NodeId>| {
        let asked = nodes.into_iter().map(|node| async move {
            let answer = admin.inspect_replica(node, partition, offset, patience).await;
            (node, answer.map_err(|error| error.to_string()))
        });
        join_all(asked).await
    };
    let mut nodes = found.replicas.clone();
    nodes.extend(found.leader.filter(|leader| !nodes.contains(leader)));
    let mut answers = ask(nodes.clone()).await;
    // A move brings replicas that the partition's set does not name yet.
    let named = answers.iter().flat_map(|(_, answer)| answer).flat_map(|seen| &seen.voters);
    let learning = answers.iter().flat_map(|(_, answer)| answer).flat_map(|seen| &seen.learners);
    let mut more: Vec<NodeId> =
        named.chain(learning).copied().filter(|node| !nodes.contains(node)).collect();
    more.sort();
    more.dedup();
    answers.extend(ask(more).await);
    let is_fenced = |node| brokers.iter().any(|b: &BrokerInfo| b.node == node && b.fenced);
    let seen = |(node, answer)| Seen { node, fenced: is_fenced(node), answer };
    Ok(answers.into_iter().map(seen).collect())
}

const COLUMNS: &[Column] = &[
    Column::words("BROKER"),
    Column::words("ROLE"),
    Column::number("TERM"),
    Column::number("START"),
    Column::number("COMMITTED"),
    Column::number("FLUSHED"),
    Column::number("END"),
    Column::number("LAG"),
    Column::words("STATE"),
    Column::words("THE OFFSET"),
];

fn page(place: &Place, seen: &[Seen]) -> Result<Page, Failure> {
    let name = &place.partition;
    let mut page = Page::describe("hw.partition.explain/1", name.to_string());
    let leader = verdict::leader(seen);
    page.fact("Partition", name.to_string());
    page.fact("Leader", or_dash(leader.map(|(node, _)| node)));
    page.field("topic", name.topic.as_str());
    page.field("partition", name.partition);
    page.field("leader", leader.map(|(node, _)| node.0));
    if let Some(offset) = place.offset {
        page.fact("Offset", offset.to_string());
        page.field("offset", offset.0);
        let verdict = verdict::of_offset(&name.to_string(), offset, seen)?;
        page.fact("Verdict", verdict.word);
        page.field("verdict", verdict.word);
        page.field("batch", verdict.batch.map(batch_value));
        say(&mut page, verdict.words);
    } else {
        say(&mut page, verdict::of_partition(seen));
    }
    let end = seen.iter().flat_map(|seen| &seen.answer).map(|seen| seen.log_end.0).max();
    let rows = seen.iter().map(|seen| row(place.offset, seen, end.unwrap_or(0), leader.is_some()));
    page.rows = Some(Rows { field: "replica_states", columns: COLUMNS, rows: rows.collect() });
    Ok(page)
}

fn say(page: &mut Page, words: Vec<String>) {
    for (number, line) in words.iter().enumerate() {
        page.fact(if number == 0 { "In words" } else { "" }, line);
    }
    page.field("explanation", words);
}

fn row(offset: Option<Offset>, seen: &Seen, end: u64, led: bool) -> Row {
    let states = verdict::states(seen, led);
    let held = offset.map(|offset| verdict::held(seen, offset));
    let mut value = json!({
        "broker": seen.node.0, "fenced": seen.fenced, "states": states, "held": held,
    });
    let mut cells = vec![seen.node.to_string()];
    match &seen.answer {
        Ok(answer) => {
            let lag = end.saturating_sub(answer.log_end.0);
            let role = crate::partition::role_word(answer.role);
            cells.push(role.to_owned());
            cells.push(answer.term.to_string());
            let ends = [answer.log_start, answer.high_watermark, answer.flushed, answer.log_end];
            cells.extend(ends.map(|end| end.to_string()));
            cells.push(lag.to_string());
            value["role"] = json!(role);
            value["term"] = json!(answer.term.0);
            value["log_start"] = json!(answer.log_start.0);
            value["high_watermark"] = json!(answer.high_watermark.0);
            value["flushed"] = json!(answer.flushed.0);
            value["log_end"] = json!(answer.log_end.0);
            value["lag"] = json!(lag);
            value["suspect"] = json!(answer.suspect);
            value["batch"] = answer.batch.map_or(Value::Null, batch_value);
        }
        Err(error) => {
            cells.extend((0..7).map(|_| "-".to_owned()));
            value["error"] = json!(error);
        }
    }
    cells.push(states.join(", "));
    cells.push(held.unwrap_or("").to_owned());
    Row { name: seen.node.to_string(), cells, value }
}

fn batch_value(batch: highwater_client::HeldBatch) -> Value {
    json!({
        "base_offset": batch.base.0,
        "end_offset": batch.end.0,
        "term": batch.term.0,
        "timestamp_min": batch.timestamps.0.0,
        "timestamp_max": batch.timestamps.1.0,
        "checksum": batch.checksum,
    })
}

pub const EXAMPLES: &str = "\
Examples:
  hw partition explain orders/3            where each replica stands, and what is wrong
  hw partition explain orders/3@1200       which term wrote the record, who has it on disk, is it safe
  hw partition explain orders/3@1200 -o json
  hw partition explain orders/3 -w

Every broker is asked for its own replica. COMMITTED is what that replica knows to be committed; a
follower learns of it a moment after the leader. `hw explain WORD` says what a word means.";

/// Longer than a broker takes that is merely busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
