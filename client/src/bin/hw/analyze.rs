//! `hw topic analyze`: what the records of a topic are like, by reading them.

mod hot;
mod tally;

use std::pin::pin;

use anstream::eprintln;
use clap::Args;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::connect::{Settings, exit_for};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows};
use crate::record::format::insert_bytes;
use crate::record::position::Range;
use crate::record::scope::Scope;
use hot::{Distinct, HotKey};
use tally::Tally;

#[derive(Debug, Args)]
pub struct AnalyzeArgs {
    /// The topic to read
    pub topic: String,
    /// Where to start, and after a colon where to stop, as with `hw consume`
    #[arg(long, short = 'O', value_name = "FROM[:UNTIL]", default_value = "start")]
    #[arg(allow_hyphen_values = true)]
    pub from: Range,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "N")]
    pub number: Option<u64>,
    /// Read only these partitions; several with commas
    #[arg(long, short = 'p', value_name = "P", value_delimiter = ',')]
    pub partition: Vec<u32>,
    /// How many of the hottest keys to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub keys: usize,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Reads up to where the topic ends now, and says what was there; with Ctrl-C, what was there so far.
pub async fn run(args: AnalyzeArgs, settings: &Settings) -> Result<Exit, Failure> {
    let client = settings.connect().await?;
    let AnalyzeArgs { topic, from, number, partition, keys, output } = args;
    let scope =
        Scope { topic: &topic, partitions: &partition, range: from, until_end: true, rack: None };
    let (batches, mut stops) = scope.open(&client).await?;
    let mut batches = pin!(batches);
    let (mut tally, mut left) = (Tally::new(KEYS_MAX), number.unwrap_or(u64::MAX));
    let mut exit = Exit::Fine;
    // One for the whole reading: a signal may come while a batch is looked at.
    let mut stop = pin!(tokio::signal::ctrl_c());
    while left > 0 && !stops.all_passed() {
        let next = tokio::select! {
            biased;
            Ok(()) = &mut stop => {
                exit = Exit::Interrupted;
                break;
            }
            next = batches.next() => next,
        };
        let batch = match next {
            Some(Ok(batch)) => batch,
            // It ends one partition; the others go on.
            Some(Err(error)) => {
                exit = exit_for(error.kind());
                Failure::from(error).report();
                continue;
            }
            None => break,
        };
        let partition = batch.partition.0;
        for record in &batch {
            if left == 0 || !stops.want(partition, record.offset.0) {
                break;
            }
            tally.saw(partition, &record);
            left -= 1;
        }
        stops.pass(partition, batch.next_offset().0);
    }
    if left == 0 {
        eprintln!("looked at the first {} records that came", human::count(number.unwrap_or(0)));
    }
    page(&topic, &tally, keys).print(output.format)?;
    Ok(exit)
}

const COLUMNS: &[Column] = &[
    Column::words("KEY"),
    Column::number("PARTITION"),
    Column::number("RECORDS"),
    Column::number("SHARE"),
];

fn page(topic: &str, tally: &Tally, keys: usize) -> Page {
    let total = tally.total();
    let mut page = Page::describe("hw.topic.analyze/1", topic);
    page.fact("Topic", topic);
    page.fact("Records", human::count(total.records));
    page.fact("Bytes", format!("{} of keys and values", human::bytes(total.bytes)));
    page.field("topic", topic);
    page.field("records", total.records);
    page.field("bytes", total.bytes);
    if let Some((oldest, newest)) = tally.times {
        page.fact("Times", format!("{} to {}", human::time(oldest), human::time(newest)));
    }
    page.field("oldest_ms", tally.times.map(|(oldest, _)| oldest));
    page.field("newest_ms", tally.times.map(|(_, newest)| newest));
    page.fact("Key sizes", lengths(&tally.keys));
    page.fact("Value sizes", lengths(&tally.values));
    page.field("key_bytes", quantiles(&tally.keys));
    page.field("value_bytes", quantiles(&tally.values));
    page.fact("Without a key", human::count(tally.keyless));
    page.fact("Tombstones", human::count(tally.tombstones));
    page.field("keyless", tally.keyless);
    page.field("tombstones", tally.tombstones);
    let (distinct, known) = match tally.hot.distinct() {
        Distinct::Exactly(count) => (human::count(count as u64), Some(count)),
        Distinct::MoreThan(count) => (format!("more than {}", human::count(count as u64)), None),
    };
    page.fact("Different keys", distinct);
    page.field("distinct_keys", known);
    if let Some((partition, share)) = tally.fullest() {
        let of = share_of(share.records, total.records);
        page.fact("Fullest", format!("partition {partition}, with {of} of the records"));
    }
    let partitions = tally.partitions.iter().map(|(partition, share)| {
        json!({"partition": partition, "records": share.records, "bytes": share.bytes})
    });
    page.field("partitions", partitions.collect::<Vec<_>>());
    page.field("key_records_lack_max", tally.hot.lacks_max());
    if tally.hot.lacks_max() > 0 {
        let most = human::count(tally.hot.lacks_max());
        page.fact("Counts below", format!("may be too low by up to {most}: there are many keys"));
    }
    let rows = tally.hot.most(keys).into_iter().map(|key| row(key, total.records)).collect();
    page.rows = Some(Rows { field: "hot_keys", columns: COLUMNS, rows });
    page
}

fn row(hot: &HotKey, records: u64) -> Row {
    let mut shown = hot.key.escape_ascii().to_string();
    if let Ok(text) = std::str::from_utf8(&hot.key) {
        shown = text.escape_debug().to_string();
    }
    if hot.len > hot.key.len() {
        shown += &format!("... ({} bytes)", hot.len);
    }
    let mut value = Map::new();
    insert_bytes(&mut value, "key", Some(&hot.key));
    value.insert("key_bytes".to_owned(), json!(hot.len));
    value.insert("partition".to_owned(), json!(hot.partition));
    value.insert("records".to_owned(), json!(hot.records));
    Row {
        name: shown.clone(),
        cells: vec![
            shown,
            hot.partition.to_string(),
            human::count(hot.records),
            share_of(hot.records, records),
        ],
        value: Value::Object(value),
    }
}

fn share_of(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}

fn lengths(of: &Histogram<u64>) -> String {
    if of.is_empty() {
        return "-".to_owned();
    }
    let at = |quantile| human::bytes(of.value_at_quantile(quantile));
    let (half, most, max) = (at(0.5), at(0.99), human::bytes(of.max()));
    format!("half up to {half}, 99 % up to {most}, the largest {max}")
}

fn quantiles(of: &Histogram<u64>) -> Value {
    if of.is_empty() {
        return Value::Null;
    }
    let at = |quantile| of.value_at_quantile(quantile);
    json!({"min": of.min(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": of.max()})
}

/// About 20 MB.
const KEYS_MAX: usize = 100_000;

pub const EXAMPLES: &str = "\
Examples:
  hw topic analyze orders
  hw topic analyze orders --from @-1h --keys 50
  hw topic analyze orders --from=-10000 -o json | jq '.hot_keys[0]'

Reads the records, all of them unless --from or -n say otherwise. Up to 100,000 different keys are counted exactly;
with more, counts of hot keys may be too low, and it is said by how much.";
