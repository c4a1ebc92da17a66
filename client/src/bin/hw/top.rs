//! `hw partition top`: which partitions, or brokers, are written to and read from the most.
//! `rates` measures, this shows.

use std::collections::BTreeMap;
use std::time::Duration;

use anstream::eprintln;
use clap::Args;
use highwater_client::{Admin, ListReplicasResponse, NodeId, TopicId, TopicPartition};
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, or_dash};
use crate::rates::{self, PerSecond, Rate};
use crate::watch::Watch;

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Only this topic's partitions
    pub topic: Option<String>,
    /// Sum up by broker
    #[arg(long)]
    pub brokers: bool,
    /// How many to show
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub count: usize,
    /// How long to measure
    #[arg(long, value_name = "TIME", default_value = "2s")]
    #[arg(value_parser = crate::human::parse_duration)]
    pub over: Duration,
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Measures and shows, once or again and again.
pub async fn run(args: TopArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let mut last: Option<Vec<ListReplicasResponse>> = None;
    let look = async || {
        let before = match last.take() {
            Some(before) => before,
            None => {
                let before = ask_all(&admin).await?;
                tokio::time::sleep(args.over).await;
                before
            }
        };
        let names = names(&admin, args.topic.as_deref()).await?;
        let after = ask_all(&admin).await?;
        let rates = rates::rates(&before, &after);
        last = Some(after);
        let page = match args.brokers {
            true => brokers_page(&rates, &names, args.count),
            false => partitions_page(&rates, &names, args.count),
        };
        Ok((page, Exit::Fine))
    };
    args.watch.show(args.output.format, look).await
}

async fn names(admin: &Admin, only: Option<&str>) -> Result<BTreeMap<TopicId, String>, Failure> {
    if let Some(topic) = only {
        let detail = admin.describe_topic(topic).await?;
        return Ok(BTreeMap::from([(detail.id, topic.to_owned())]));
    }
    let topics = admin.topics().await?.into_iter();
    Ok(topics.filter_map(|topic| Some((topic.result.ok()?.id, topic.name))).collect())
}

/// Every broker that answers; one that does not is named and left out.
async fn ask_all(admin: &Admin) -> Result<Vec<ListReplicasResponse>, Failure> {
    let mut answers = Vec::new();
    for (node, answer) in rates::ask_each(admin).await? {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) => eprintln!("broker {node} is left out: {error}"),
        }
    }
    Ok(answers)
}

const PARTITION_COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::words("LEADER"),
    Column::number("RECORDS IN/S"),
    Column::number("BYTES IN/S"),
    Column::number("RECORDS OUT/S"),
    Column::number("BYTES OUT/S"),
];

fn partitions_page(rates: &[Rate], names: &BTreeMap<TopicId, String>, count: usize) -> Page {
    let mut found: BTreeMap<TopicPartition, (Option<NodeId>, PerSecond)> = BTreeMap::new();
    for rate in rates.iter().filter(|rate| names.contains_key(&rate.partition.topic)) {
        let (leader, traffic) = found.entry(rate.partition).or_default();
        // What an earlier leader took within the time counts as well.
        *traffic = traffic.plus(rate.traffic);
        *leader = leader.or(rate.leads.then_some(rate.node));
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by(|(a, (_, x)), (b, (_, y))| y.bytes().total_cmp(&x.bytes()).then(a.cmp(b)));
    let row = |(partition, (leader, traffic)): (TopicPartition, (Option<NodeId>, PerSecond))| {
        let name = format!("{}/{}", names[&partition.topic], partition.partition);
        let mut value = traffic.value();
        value["topic"] = json!(names[&partition.topic]);
        value["partition"] = json!(partition.partition.0);
        value["leader"] = json!(leader.map(|node| node.0));
        let cells = [name.clone(), or_dash(leader)].into_iter().chain(traffic.cells());
        Row { cells: cells.collect(), value, name }
    };
    let rows = found.into_iter().take(count).map(row).collect();
    let rows = Rows { field: "partitions", columns: PARTITION_COLUMNS, rows };
    Page::list("hw.partition.top/1", rows)
}

const BROKER_COLUMNS: &[Column] = &[
    Column::words("BROKER"),
    Column::number("LEADS"),
    Column::number("RECORDS IN/S"),
    Column::number("BYTES IN/S"),
    Column::number("RECORDS OUT/S"),
    Column::number("BYTES OUT/S"),
];

fn brokers_page(rates: &[Rate], names: &BTreeMap<TopicId, String>, count: usize) -> Page {
    let mut found: BTreeMap<NodeId, (u64, PerSecond)> = BTreeMap::new();
    for rate in rates.iter().filter(|rate| names.contains_key(&rate.partition.topic)) {
        let (leads, traffic) = found.entry(rate.node).or_default();
        *leads += u64::from(rate.leads);
        *traffic = traffic.plus(rate.traffic);
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by(|(a, (_, x)), (b, (_, y))| y.bytes().total_cmp(&x.bytes()).then(a.cmp(b)));
    let row = |(node, (leads, traffic)): (NodeId, (u64, PerSecond))| {
        let mut value = traffic.value();
        value["broker"] = json!(node.0);
        value["leaders_total"] = json!(leads);
        let cells = [node.to_string(), human::count(leads)].into_iter().chain(traffic.cells());
        Row { cells: cells.collect(), value, name: node.to_string() }
    };
    let rows = found.into_iter().take(count).map(row).collect();
    let rows = Rows { field: "brokers", columns: BROKER_COLUMNS, rows };
    Page::list("hw.partition.top.brokers/1", rows)
}

pub const EXAMPLES: &str = "\
Examples:
  hw partition top                                 the 20 partitions with the most traffic
  hw partition top orders -n 5 -w                  of one topic, again every 2 s
  hw partition top --brokers --over 10s -o json    by broker, over ten seconds

Counts what clients write and read, in bytes of batches as they are sent; replication is not in it.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::tests::answer;

    #[test]
    fn the_busiest_comes_first_and_no_more_than_asked_for() {
        let before = [answer(1, 0, &[]), answer(2, 0, &[])];
        let after = [answer(1, 1_000, &[(0, 10), (1, 30)]), answer(2, 1_000, &[(2, 20)])];
        let rates = rates::rates(&before, &after);
        let names = BTreeMap::from([(TopicId::CLUSTER, "t".to_owned())]);
        let shown = |page: Page| {
            let rows = page.rows.expect("a list has rows").rows;
            rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
        };
        assert_eq!(shown(partitions_page(&rates, &names, 2)), ["t/1", "t/2"]);
        assert_eq!(shown(brokers_page(&rates, &names, 9)), ["1", "2"]);
    }
}
