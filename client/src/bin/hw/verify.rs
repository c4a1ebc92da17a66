//! `hw cluster verify`: whether all replicas of a partition hold the same, by hashes that the brokers make
//! of what they have on disk.
//!
//! Compared is what is committed, and of each replica what it has of that. The range is walked in windows of
//! a few MiB, all replicas side by side, so that where they part is known to the batch.

mod compare;

use std::collections::BTreeMap;
use std::time::Duration;

use anstream::eprintln;
use clap::Args;
use futures_util::StreamExt;
use futures_util::stream;
use highwater_client::{Admin, NodeId, PartitionId, TopicDetail, TopicPartition};
use serde_json::{Value, json};

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids, or_dash};
use crate::target::Target;
use crate::watch::Watch;

#[cfg(test)]
pub use compare::FINDINGS;
pub use compare::VERDICTS;
use compare::{Compared, Finding, compare};

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Topics, also as patterns such as 'orders-*', or single partitions such as orders/3 [default: all]
    #[arg(value_name = "TOPIC[/P]")]
    pub targets: Vec<Target>,
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// A partition to be looked at.
#[derive(Debug, Clone)]
struct Subject {
    topic: String,
    at: TopicPartition,
    leader: Option<NodeId>,
    replicas: Vec<NodeId>,
}

/// Compares, and prints what was found.
pub async fn run(args: VerifyArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let patience = settings.request_timeout.max(ANSWER_WITHIN);
    let look = async || {
        let subjects = subjects(&admin, &args.targets).await?;
        let compared = subjects.iter().map(|subject| {
            let admin = &admin;
            async move {
                let others = subject.replicas.iter().copied();
                let others = others.filter(|node| Some(*node) != subject.leader);
                let nodes = subject.leader.into_iter().chain(others);
                let ask = async |node, range| {
                    let answer = admin.digest_replica(node, subject.at, range, patience).await;
                    answer.map_err(|error| error.to_string())
                };
                (subject, compare(nodes.collect(), ask).await)
            }
        });
        let compared: Vec<_> = stream::iter(compared).buffered(AT_ONCE).collect().await;
        let exits = compared.iter().map(|(_, compared)| compared.exit());
        let exit = exits.max_by_key(|exit| exit.number()).unwrap_or(Exit::Fine);
        Ok((page(&compared), exit))
    };
    args.watch.show(args.output.format, look).await
}

async fn subjects(admin: &Admin, targets: &[Target]) -> Result<Vec<Subject>, Failure> {
    let mut found: BTreeMap<(String, PartitionId), Subject> = BTreeMap::new();
    let mut add = |topic: &str, detail: &TopicDetail, number: Option<u32>| {
        let before = found.len();
        let wanted = detail.partitions.iter();
        for info in wanted.filter(|info| number.is_none_or(|number| info.partition.0 == number)) {
            let subject = Subject {
                topic: topic.to_owned(),
                at: TopicPartition::new(detail.id, info.partition),
                leader: info.leader,
                replicas: info.replicas.clone(),
            };
            found.insert((topic.to_owned(), info.partition), subject);
        }
        found.len() > before
    };
    let is_cluster = |target: &Target| target.topic == CLUSTER;
    let asked_for_cluster = targets.is_empty() || targets.iter().any(is_cluster);
    let (patterns, names): (Vec<_>, Vec<_>) = targets.iter().partition(|it| it.is_pattern());
    for target in names.into_iter().filter(|target| !is_cluster(target)) {
        let detail = admin.describe_topic(&target.topic).await?;
        if !add(&target.topic, &detail, target.partition) && target.partition.is_some() {
            let count = human::counted(detail.partitions.len(), "partition");
            let what = format!("topic {} has {count}, numbered from 0", target.topic);
            return Err(Failure::new(Exit::NotFound, what));
        }
    }
    if targets.is_empty() || !patterns.is_empty() {
        for topic in admin.topics().await? {
            let fits = patterns.iter().find(|target| target.matches(&topic.name));
            let number = fits.and_then(|target| target.partition);
            match &topic.result {
                Ok(detail) if targets.is_empty() || fits.is_some() => {
                    add(&topic.name, detail, number);
                }
                Ok(_) => {}
                Err(error) => eprintln!("topic {}: {error}", topic.name),
            }
        }
    }
    let mut subjects: Vec<Subject> = found.into_values().collect();
    if asked_for_cluster {
        // Every broker has the controller's log.
        let info = admin.cluster().await?;
        let replicas = info.brokers.iter().map(|broker| broker.node).collect();
        let (topic, at, leader) = (CLUSTER.to_owned(), TopicPartition::CLUSTER, info.controller);
        subjects.insert(0, Subject { topic, at, leader, replicas });
    }
    Ok(subjects)
}

const COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::words("VERDICT"),
    Column::number("FROM OFFSET"),
    Column::number("UP TO (EXCLUSIVE)"),
    Column::words("AGREE"),
    Column::words("DETAIL"),
    Column::words("HASH").wide(),
];

fn page(compared: &[(&Subject, Compared)]) -> Page {
    let count = |verdict| compared.iter().filter(|(_, it)| it.verdict() == verdict).count();
    let rows = compared.iter().map(|(subject, compared)| row(subject, compared)).collect();
    let rows = Rows { field: "partitions", columns: COLUMNS, rows };
    let mut page = Page::describe("hw.cluster.verify/1", "verify");
    let bytes = compared.iter().map(|(_, it)| it.bytes).sum::<u64>();
    let counted = VERDICTS.map(|verdict| format!("{} {verdict}", count(verdict))).join(", ");
    page.fact("Partitions", format!("{}: {counted}", compared.len()));
    page.fact("Compared", human::bytes(bytes));
    page.field("partitions_total", compared.len());
    for verdict in VERDICTS {
        page.field(&format!("partitions_{verdict}"), count(verdict));
    }
    page.field("bytes", bytes);
    page.rows = Some(rows);
    page
}

fn row(subject: &Subject, compared: &Compared) -> Row {
    let name = format!("{}/{}", subject.topic, subject.at.partition);
    let offsets = compared.offsets;
    let told: Vec<String> =
        compared.findings.iter().map(|(node, found)| format!("broker {node} {found}")).collect();
    let hash = format!("{:032x}", compared.hash);
    Row {
        cells: vec![
            name.clone(),
            compared.verdict().to_owned(),
            or_dash(offsets.map(|(from, _)| from)),
            or_dash(offsets.map(|(_, until)| until)),
            ids(&compared.agree),
            told.join("; "),
            hash.clone(),
        ],
        name,
        value: json!({
            "topic": subject.topic,
            "partition": subject.at.partition.0,
            "verdict": compared.verdict(),
            "from_offset": offsets.map(|(from, _)| from.0),
            "until_offset": offsets.map(|(_, until)| until.0),
            "bytes": compared.bytes,
            "hash": hash,
            "agree": compared.agree.iter().map(|node| node.0).collect::<Vec<_>>(),
            "replica_states": compared.findings.iter().map(finding).collect::<Vec<_>>(),
        }),
    }
}

fn finding((node, found): &(NodeId, Finding)) -> Value {
    let at = found.offsets();
    json!({
        "broker": node.0,
        "kind": found.word(),
        "from_offset": at.map(|(from, _)| from.0),
        "until_offset": at.map(|(_, until)| until.0),
        "detail": found.to_string(),
    })
}

const CLUSTER: &str = "__cluster";
/// Brokers hash for one at a time anyway; this many keep different brokers busy.
const AT_ONCE: usize = 4;
/// A broker rests between its answers, and hashes for others as well.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

pub const EXAMPLES: &str = "\
Examples:
  hw cluster verify
  hw cluster verify orders payments/3 'audit-*'
  hw cluster verify orders -o json | jq '.partitions[] | select(.verdict != \"agree\")'
  hw cluster verify --watch=1h

Every broker reads what it has on disk and hashes it, slowly; what is committed must be the same everywhere.
A batch that is found to be damaged is fetched from another replica by itself: look again a moment later.

Exits with 0 when all replicas agree, 10 when some differ or are damaged, and 7 when some could not
be compared, or not wholly.";
