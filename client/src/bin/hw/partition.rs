//! `hw partition`: where partitions are, who leads them, how far their replicas are.

use std::time::{Duration, Instant};

use anstream::eprintln;
use clap::Args;
use highwater_client::{
    Admin, DescribePartitionResponse, NodeId, PartitionId, PartitionInfo, ReplicaRole,
    ReplicaStatus,
};
use serde_json::json;

use crate::cli::{PartitionVerb, Problem};
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids, or_dash};
use crate::target::{PartitionName, parse_broker};
use crate::topic::{is_under_replicated, partition_value};

#[derive(Debug, Args)]
pub struct TransferArgs {
    /// TOPIC/NUMBER, such as orders/3
    #[arg(value_name = "TOPIC/P")]
    pub partition: PartitionName,
    /// The broker that is to lead [default: the replica that is furthest on]
    #[arg(long, value_name = "BROKER", value_parser = parse_broker)]
    pub to: Option<u32>,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Carries out a verb.
pub async fn run(verb: PartitionVerb, settings: &Settings) -> Result<Exit, Failure> {
    match verb {
        PartitionVerb::List { topic, problem, watch, output } => {
            let admin = settings.connect().await?.admin();
            watch.show(output.format, async || list(&admin, topic.as_deref(), problem).await).await
        }
        PartitionVerb::Describe { partition, watch, output } => {
            let admin = settings.connect().await?.admin();
            let id = PartitionId(partition.partition);
            let look = async || {
                let seen = admin.describe_partition(&partition.topic, id).await?;
                Ok((description(&partition, &seen), Exit::Fine))
            };
            watch.show(output.format, look).await
        }
        PartitionVerb::Explain(args) => crate::standing::run(args, settings).await,
        PartitionVerb::Transfer(args) => transfer(args, settings).await,
        PartitionVerb::Top(args) => crate::top::run(args, settings).await,
        PartitionVerb::Reassign(args) => crate::reassign::reassign(args, settings).await,
        PartitionVerb::Repair(args) => crate::repair::run(args, settings).await,
        PartitionVerb::UnsafeRecover(args) => crate::unsafe_recover::run(args, settings).await,
        PartitionVerb::Moves(args) => crate::moving::moves(args, settings).await,
        PartitionVerb::Throttle(args) => crate::throttle::run(args, settings).await,
        PartitionVerb::Cancel(args) => crate::cancel::run(args, settings).await,
    }
}

/// Who leads once the election that a transfer asks for is over; nobody if that takes long.
async fn leader_after(
    admin: &Admin,
    topic: &str,
    partition: PartitionId,
) -> Result<Option<NodeId>, Failure> {
    let begun = Instant::now();
    loop {
        let leader = admin.describe_partition(topic, partition).await?.leader;
        if leader.is_some() || begun.elapsed() > ELECTION_MAX {
            return Ok(leader);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn transfer(args: TransferArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let TransferArgs { partition, to, output } = args;
    let id = PartitionId(partition.partition);
    let before = admin.describe_partition(&partition.topic, id).await?.leader;
    admin.transfer_leader(&partition.topic, id, to.map(NodeId)).await?;
    let after = leader_after(&admin, &partition.topic, id).await?;
    let (was, is) = (or_dash(before), or_dash(after));
    match before == after {
        true => eprintln!("{partition} is led by broker {is}, as before"),
        false => eprintln!("{partition} is led by broker {is} now, before by broker {was}"),
    }
    let mut page = Page::describe("hw.partition.transfer/1", partition.to_string());
    page.field("topic", partition.topic.as_str());
    page.field("partition", partition.partition);
    page.field("leader", after.map(|node| node.0));
    page.field("leader_before", before.map(|node| node.0));
    page.field("changed", before != after);
    page.print_for_programs(output.format)?;
    Ok(Exit::Fine)
}

const LIST_COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::words("LEADER"),
    Column::number("TERM"),
    Column::words("REPLICAS"),
    Column::words("IN-SYNC"),
    Column::words("PROBLEM"),
    Column::words("TOPIC-ID").wide(),
];

async fn list(
    admin: &Admin,
    topic: Option<&str>,
    problem: Option<Problem>,
) -> Result<(Page, Exit), Failure> {
    let mut exit = Exit::Fine;
    let mut topics = Vec::new();
    match topic {
        Some(name) => {
            let detail = admin.describe_topic(name).await?;
            topics.push((name.to_owned(), detail));
        }
        None => {
            for topic in admin.topics().await? {
                match topic.result {
                    Ok(detail) => topics.push((topic.name, detail)),
                    Err(error) => {
                        eprintln!("topic {}: {error}", topic.name);
                        exit = Exit::Partial;
                    }
                }
            }
        }
    }
    topics.sort_by(|a, b| a.0.cmp(&b.0));
    let rows = topics.iter().flat_map(|(name, detail)| {
        let wanted = |partition: &&PartitionInfo| {
            problem.is_none_or(|problem| problems(partition).contains(&problem))
        };
        let id = detail.id.to_string();
        detail.partitions.iter().filter(wanted).map(move |found| list_row(name, &id, found))
    });
    let rows = Rows { field: "partitions", columns: LIST_COLUMNS, rows: rows.collect() };
    Ok((Page::list("hw.partition.list/1", rows), exit))
}

fn problems(partition: &PartitionInfo) -> Vec<Problem> {
    let mut found = Vec::new();
    if partition.leader.is_none() {
        found.push(Problem::Leaderless);
    }
    if is_under_replicated(partition) {
        found.push(Problem::UnderReplicated);
    }
    found
}

fn list_row(topic: &str, topic_id: &str, partition: &PartitionInfo) -> Row {
    let name = format!("{topic}/{}", partition.partition);
    let problem = match problems(partition).first() {
        Some(Problem::Leaderless) => "leaderless",
        Some(Problem::UnderReplicated) => "under-replicated",
        None => "",
    };
    let mut value = partition_value(partition);
    value["topic"] = json!(topic);
    value["topic_id"] = json!(topic_id);
    Row {
        cells: vec![
            name.clone(),
            or_dash(partition.leader),
            partition.term.to_string(),
            ids(&partition.replicas),
            ids(&partition.in_sync),
            problem.to_owned(),
            topic_id.to_owned(),
        ],
        name,
        value,
    }
}

const REPLICA_COLUMNS: &[Column] = &[
    Column::words("BROKER"),
    Column::words("ROLE"),
    Column::number("APPENDED"),
    Column::number("FLUSHED"),
    Column::number("BEHIND"),
    Column::words("HEARD"),
    Column::words("IN-SYNC"),
];

fn description(name: &PartitionName, seen: &DescribePartitionResponse) -> Page {
    let mut page = Page::describe("hw.partition.describe/1", name.to_string());
    let records = seen.high_watermark.0.saturating_sub(seen.log_start.0);
    page.fact("Partition", name.to_string());
    page.fact("Leader", or_dash(seen.leader));
    page.fact("Term", seen.term.to_string());
    page.fact("Log start", seen.log_start.to_string());
    page.fact("High watermark", seen.high_watermark.to_string());
    page.fact("Log end", seen.log_end.to_string());
    page.fact("Records", human::count(records));
    page.fact("On disk", human::bytes(seen.bytes));
    page.field("topic", name.topic.as_str());
    page.field("partition", name.partition);
    page.field("leader", seen.leader.map(|leader| leader.0));
    page.field("term", seen.term.0);
    page.field("log_start", seen.log_start.0);
    page.field("high_watermark", seen.high_watermark.0);
    page.field("log_end", seen.log_end.0);
    page.field("bytes", seen.bytes);
    let end = seen.replicas.iter().map(|replica| replica.appended.0).max().unwrap_or(0);
    let rows = seen.replicas.iter().map(|replica| replica_row(replica, end)).collect();
    page.rows = Some(Rows { field: "replica_states", columns: REPLICA_COLUMNS, rows });
    page
}

/// The word for what a replica is.
pub fn role_word(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Leader => "leader",
        ReplicaRole::Follower => "follower",
        ReplicaRole::Learner => "learner",
    }
}

fn replica_row(replica: &ReplicaStatus, end: u64) -> Row {
    let role = role_word(replica.role);
    let behind = end.saturating_sub(replica.appended.0);
    Row {
        name: replica.node.to_string(),
        cells: vec![
            replica.node.to_string(),
            role.to_owned(),
            replica.appended.to_string(),
            replica.flushed.to_string(),
            behind.to_string(),
            replica.heard_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms ago")),
            if replica.in_sync { "yes" } else { "no" }.to_owned(),
        ],
        value: json!({
            "broker": replica.node.0,
            "role": role,
            "appended_index": replica.appended.0,
            "flushed_index": replica.flushed.0,
            "behind_index": behind,
            "heard_ms": replica.heard_ms,
            "is_in_sync": replica.in_sync,
        }),
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
const ELECTION_MAX: Duration = Duration::from_secs(2);

pub const TRANSFER_EXAMPLES: &str = "\
Examples:
  hw partition transfer orders/3 --to 2
  hw partition transfer orders/3

Producers and readers follow by themselves. Ten seconds after the preferred replica (the first of the
list) is in sync it gets the leadership back.";

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_client::{NodeId, Offset, Term};
    use highwater_protocol::ids::LogIndex;

    #[test]
    fn a_description_says_how_far_each_replica_is_behind() {
        let replica = |node, appended, heard_ms| ReplicaStatus {
            behind_bytes: None,
            node: NodeId(node),
            role: if node == 1 { ReplicaRole::Leader } else { ReplicaRole::Follower },
            appended: LogIndex(appended),
            flushed: LogIndex(appended),
            heard_ms,
            in_sync: appended > 90,
        };
        let seen = DescribePartitionResponse {
            leader: Some(NodeId(1)),
            term: Term(2),
            log_start: Offset(0),
            high_watermark: Offset(98),
            log_end: Offset(99),
            bytes: 4096,
            replicas: vec![replica(1, 100, None), replica(2, 80, Some(12))],
        };
        let name = PartitionName { topic: "orders".to_owned(), partition: 3 };
        let document = description(&name, &seen).document();
        assert_eq!(document["replica_states"][1]["behind_index"], 20);
        assert_eq!(document["replica_states"][1]["is_in_sync"], false);
        assert_eq!(document["high_watermark"], 98);
    }
}
