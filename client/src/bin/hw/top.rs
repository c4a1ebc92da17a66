//! `hw partition top`: which partitions, or brokers, are written to and read from the most.
//!
//! Brokers count what clients write and read; two looks at the counts, over the time between them
//! by each broker's own clock, are rates. A broker that began anew in between counts from nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anstream::eprintln;
use clap::Args;
use highwater_client::{
    Admin, ListReplicasResponse, NodeId, ReplicaReport, TopicId, TopicPartition, Traffic,
};
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, or_dash};
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
        let rates = rates(&before, &after);
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
    let alive = admin.cluster().await?.brokers.into_iter().filter(|broker| !broker.fenced);
    let nodes: Vec<NodeId> = alive.map(|broker| broker.node).collect();
    let asked = nodes.into_iter().map(|node| async move { (node, admin.replicas_on(node).await) });
    let mut answers = Vec::new();
    for (node, answer) in futures_util::future::join_all(asked).await {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) => eprintln!("broker {node} is left out: {error}"),
        }
    }
    Ok(answers)
}

/// What one replica took and gave in a second, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate {
    node: NodeId,
    partition: TopicPartition,
    leads: bool,
    traffic: PerSecond,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct PerSecond {
    records_in: f64,
    bytes_in: f64,
    records_out: f64,
    bytes_out: f64,
}

impl PerSecond {
    fn plus(self, other: PerSecond) -> PerSecond {
        PerSecond {
            records_in: self.records_in + other.records_in,
            bytes_in: self.bytes_in + other.bytes_in,
            records_out: self.records_out + other.records_out,
            bytes_out: self.bytes_out + other.bytes_out,
        }
    }

    fn bytes(self) -> f64 {
        self.bytes_in + self.bytes_out
    }

    fn cells(self) -> [String; 4] {
        let count = |rate: f64| human::count(rate.round() as u64);
        let bytes = |rate: f64| human::bytes(rate.round() as u64);
        [
            count(self.records_in),
            bytes(self.bytes_in),
            count(self.records_out),
            bytes(self.bytes_out),
        ]
    }

    fn value(self) -> serde_json::Value {
        json!({
            "records_in_per_s": self.records_in,
            "bytes_in_per_s": self.bytes_in,
            "records_out_per_s": self.records_out,
            "bytes_out_per_s": self.bytes_out,
        })
    }
}

fn rates(before: &[ListReplicasResponse], after: &[ListReplicasResponse]) -> Vec<Rate> {
    let mut rates = Vec::new();
    for now in after {
        let then = before.iter().find(|then| then.node == now.node);
        // A clock that went back is another life's.
        let then = then.filter(|then| then.clock_ms < now.clock_ms);
        let seconds = (now.clock_ms - then.map_or(0, |then| then.clock_ms)) as f64 / 1_000.0;
        let counted: BTreeMap<TopicPartition, Traffic> = then
            .into_iter()
            .flat_map(|then| &then.replicas)
            .map(|replica| (replica.partition, replica.traffic))
            .collect();
        for ReplicaReport { partition, leads, traffic, .. } in &now.replicas {
            let was = counted.get(partition).copied().unwrap_or_default();
            let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let traffic = PerSecond {
                records_in: per_second(traffic.records_in, was.records_in),
                bytes_in: per_second(traffic.bytes_in, was.bytes_in),
                records_out: per_second(traffic.records_out, was.records_out),
                bytes_out: per_second(traffic.bytes_out, was.bytes_out),
            };
            rates.push(Rate { node: now.node, partition: *partition, leads: *leads, traffic });
        }
    }
    rates
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
    use highwater_client::{Offset, PartitionId, ReplicaState};

    fn answer(node: u32, clock_ms: u64, counts: &[(u32, u64)]) -> ListReplicasResponse {
        let report = |(number, bytes): &(u32, u64)| ReplicaReport {
            partition: TopicPartition::new(TopicId::CLUSTER, PartitionId(*number)),
            state: ReplicaState::Open,
            leads: true,
            log_start: Offset(0),
            high_watermark: Offset(0),
            log_end: Offset(0),
            bytes: 0,
            traffic: Traffic { bytes_in: *bytes, ..Traffic::default() },
        };
        let replicas = counts.iter().map(report).collect();
        ListReplicasResponse { node: NodeId(node), clock_ms, replicas }
    }

    #[test]
    fn rates_are_the_difference_of_counts_over_the_brokers_own_time() {
        let before = [answer(1, 1_000, &[(0, 100), (1, 5)])];
        let after = [answer(1, 3_000, &[(0, 1_100), (1, 5), (2, 40)])];
        let rates = rates(&before, &after);
        let bytes: Vec<f64> = rates.iter().map(|rate| rate.traffic.bytes_in).collect();
        assert_eq!(bytes, [500.0, 0.0, 20.0]);
    }

    #[test]
    fn a_broker_that_began_anew_counts_from_nothing() {
        let before = [answer(1, 90_000, &[(0, 5_000)])];
        let after = [answer(1, 2_000, &[(0, 400)])];
        assert_eq!(rates(&before, &after)[0].traffic.bytes_in, 200.0);
    }

    #[test]
    fn the_busiest_comes_first_and_no_more_than_asked_for() {
        let before = [answer(1, 0, &[]), answer(2, 0, &[])];
        let after = [answer(1, 1_000, &[(0, 10), (1, 30)]), answer(2, 1_000, &[(2, 20)])];
        let rates = rates(&before, &after);
        let names = BTreeMap::from([(TopicId::CLUSTER, "t".to_owned())]);
        let shown = |page: Page| {
            let rows = page.rows.expect("a list has rows").rows;
            rows.into_iter().map(|row| row.name).collect::<Vec<_>>()
        };
        assert_eq!(shown(partitions_page(&rates, &names, 2)), ["t/1", "t/2"]);
        assert_eq!(shown(brokers_page(&rates, &names, 9)), ["1", "2"]);
    }
}
