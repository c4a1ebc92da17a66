//! `hw cluster`: is it healthy. `brokers` has the verbs about single brokers.
//!
//! Health is judged from outside, as a client sees it: one broker's picture of the cluster, and
//! whether every other broker answers at the address that it registered.

use std::time::{Duration, Instant};

use anstream::eprintln;
use clap::Args;
use highwater_client::{Admin, BrokerStatus, Client, ClusterInfo, TopicInfo};
use serde_json::json;

use crate::brokers;
use crate::cli::ClusterVerb;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, or_dash};
use crate::topic::is_under_replicated;
use crate::watch::Watch;
use crate::why::{self, Known, Missing};

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Wait until the cluster is healthy
    #[arg(long, conflicts_with = "every")]
    pub wait: bool,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", requires = "wait")]
    #[arg(value_parser = crate::human::parse_duration)]
    pub timeout: std::time::Duration,
    /// Healthy means at least this many brokers are up
    #[arg(long, value_name = "N")]
    pub brokers_min: Option<usize>,
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Carries out a verb.
pub async fn run(verb: ClusterVerb, settings: &Settings) -> Result<Exit, Failure> {
    match verb {
        ClusterVerb::Health(args) if args.watch.every.is_some() => watch(args, settings).await,
        ClusterVerb::Health(args) => health(args, settings).await,
        ClusterVerb::Balance(args) => crate::balance::run(args, settings).await,
        ClusterVerb::Brokers(args) => brokers::list(args, settings).await,
        ClusterVerb::Drain(args) => crate::duty::drain(args, settings).await,
        ClusterVerb::Undrain(args) => crate::duty::undrain(args, settings).await,
        ClusterVerb::Decommission(args) => crate::retire::decommission(args, settings).await,
        ClusterVerb::Remove(args) => crate::retire::remove(args, settings).await,
        ClusterVerb::Controller(verb) => crate::controller::run(verb, settings).await,
        ClusterVerb::Events(args) => crate::events::run(args, settings).await,
        ClusterVerb::Verify(args) => crate::verify::run(args, settings).await,
        ClusterVerb::Config(verb) => crate::config::run(verb, settings).await,
    }
}

/// Something that keeps a cluster from being healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    kind: &'static str,
    subject: String,
    detail: String,
    /// The replicas that a partition lacks.
    missing: Vec<Missing>,
}

/// What was found in one look.
#[derive(Debug)]
struct Health {
    info: ClusterInfo,
    partitions: usize,
    troubles: Vec<Trouble>,
}

async fn health(args: HealthArgs, settings: &Settings) -> Result<Exit, Failure> {
    let deadline = Instant::now() + args.timeout;
    let mut client = None;
    loop {
        let seen = look(&mut client, settings, &args).await;
        let healthy = seen.as_ref().is_ok_and(|seen| seen.troubles.is_empty());
        if healthy || !args.wait || Instant::now() + LOOK_AGAIN_AFTER > deadline {
            let seen = seen?;
            page(&seen).print(args.output.format)?;
            return Ok(match (healthy, args.wait) {
                (true, _) => Exit::Fine,
                (false, false) => Exit::Unhealthy,
                (false, true) => {
                    eprintln!("still not healthy after {:?}", args.timeout);
                    Exit::TimedOut
                }
            });
        }
        if seen.as_ref().is_err_and(|failure| failure.exit == Exit::Unauthorised) {
            seen?;
        }
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}

async fn watch(args: HealthArgs, settings: &Settings) -> Result<Exit, Failure> {
    let mut client = None;
    let look = async || {
        let seen = look(&mut client, settings, &args).await?;
        let exit = if seen.troubles.is_empty() { Exit::Fine } else { Exit::Unhealthy };
        Ok((page(&seen), exit))
    };
    args.watch.show(args.output.format, look).await
}

async fn look(
    client: &mut Option<Client>,
    settings: &Settings,
    args: &HealthArgs,
) -> Result<Health, Failure> {
    let admin = match client {
        Some(client) => client.admin(),
        None => client.insert(settings.connect().await?).admin(),
    };
    let info = admin.cluster().await?;
    // Without a controller nobody is sure which topics there are, and nobody need wait to hear it.
    let topics = match info.controller {
        Some(_) => admin.topics().await?,
        None => Vec::new(),
    };
    let mut troubles = cluster_troubles(&info, args.brokers_min.unwrap_or(1));
    troubles.extend(silent_brokers(&admin, &info).await);
    match admin.brokers().await {
        Ok(brokers) => troubles.extend(refilling(&brokers)),
        // The rest is of use without it, as while brokers of two builds are mixed.
        Err(error) => {
            eprintln!("whether a broker's disk is being filled again is not known: {error}")
        }
    }
    let known = Known::of(&admin, &info, &topics).await;
    troubles.extend(topics.iter().flat_map(|topic| topic_troubles(topic, &known)));
    let partitions =
        topics.iter().flat_map(|topic| &topic.result).map(|detail| detail.partitions.len()).sum();
    Ok(Health { info, partitions, troubles })
}

fn cluster_troubles(info: &ClusterInfo, brokers_min: usize) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let mut trouble = |kind, subject: String, detail: String| {
        troubles.push(Trouble { kind, subject, detail, missing: Vec::new() });
    };
    if info.controller.is_none() {
        let detail = format!("broker {} knows no leader of the controller", info.node);
        trouble("no-controller", "controller".to_owned(), detail);
    }
    let up = info.brokers.iter().filter(|broker| !broker.fenced).count();
    if up < brokers_min {
        let detail = format!("{} up, {brokers_min} wanted", human::counted(up, "broker"));
        trouble("too-few-brokers", "brokers".to_owned(), detail);
    }
    for broker in info.brokers.iter().filter(|broker| broker.fenced) {
        let detail = format!("the controller has lost touch with it ({})", broker.address);
        trouble("broker-fenced", format!("broker {}", broker.node), detail);
    }
    troubles
}

fn refilling(brokers: &[BrokerStatus]) -> Vec<Trouble> {
    let trouble = |status: &BrokerStatus| {
        let (lost, of) = (status.lost, status.replicas);
        let detail =
            format!("its disk was replaced; {lost} of its {of} replicas are not filled again yet");
        let subject = format!("broker {}", status.node);
        Trouble { kind: "broker-refilling", subject, detail, missing: Vec::new() }
    };
    brokers.iter().filter(|status| status.lost > 0).map(trouble).collect()
}

async fn silent_brokers(admin: &Admin, info: &ClusterInfo) -> Vec<Trouble> {
    let asked = info.brokers.iter().filter(|broker| !broker.fenced && broker.node != info.node);
    let answers = asked.map(|broker| async move {
        let error = admin.cluster_seen_by(broker.node, ANSWER_WITHIN).await.err()?;
        let subject = format!("broker {}", broker.node);
        let (detail, missing) = (error.to_string(), Vec::new());
        Some(Trouble { kind: "broker-silent", subject, detail, missing })
    });
    futures_util::future::join_all(answers).await.into_iter().flatten().collect()
}

fn topic_troubles(topic: &TopicInfo, known: &Known) -> Vec<Trouble> {
    let detail = match &topic.result {
        Ok(detail) => detail,
        Err(error) => {
            let subject = topic.name.clone();
            let (detail, missing) = (error.to_string(), Vec::new());
            return vec![Trouble { kind: "topic-broken", subject, detail, missing }];
        }
    };
    let mut troubles = Vec::new();
    for partition in &detail.partitions {
        let subject = format!("{}/{}", topic.name, partition.partition);
        let missing = known.missing(detail.id, partition);
        let (why, of) = (why::sentence(&missing), partition.replicas.len());
        if partition.leader.is_none() {
            let serve = known.serving(detail.id, partition);
            let (term, needed) = (partition.term, of / 2 + 1);
            // Whoever reads this first thinks of starting brokers; this is for when that is no use.
            let last = match serve < needed {
                true => {
                    format!("; if they never come back: `hw partition unsafe-recover {subject}`")
                }
                false => String::new(),
            };
            let detail = format!(
                "no leader in term {term}: {serve} of {of} replicas serve, {needed} are needed; {why}{last}"
            );
            troubles.push(Trouble { kind: "partition-leaderless", subject, detail, missing });
        } else if is_under_replicated(partition) {
            let have = partition.in_sync.len();
            let detail = format!("{have} of {of} replicas keep up; {why}");
            troubles.push(Trouble { kind: "partition-under-replicated", subject, detail, missing });
        }
    }
    troubles
}

/// The words for the whole, the good one first.
pub const VERDICTS: [&str; 2] = ["healthy", "unhealthy"];

const TROUBLE_COLUMNS: &[Column] =
    &[Column::words("PROBLEM"), Column::words("OF"), Column::words("DETAIL")];

fn page(seen: &Health) -> Page {
    let healthy = seen.troubles.is_empty();
    let verdict = VERDICTS[usize::from(!healthy)];
    let up = seen.info.brokers.iter().filter(|broker| !broker.fenced).count();
    let of_kind = |kind| seen.troubles.iter().filter(|trouble| trouble.kind == kind).count();
    let leaderless = of_kind("partition-leaderless");
    let under = of_kind("partition-under-replicated");
    let mut page = Page::describe("hw.cluster.health/1", verdict);
    page.fact("Health", verdict);
    page.fact("Cluster", seen.info.cluster_id.as_str());
    page.fact("Controller", or_dash(seen.info.controller));
    page.fact("Brokers", format!("{up} of {} up", seen.info.brokers.len()));
    let broken = format!("{leaderless} leaderless, {under} under-replicated");
    page.fact("Partitions", format!("{}, {broken}", seen.partitions));
    page.field("healthy", healthy);
    page.field("cluster_id", seen.info.cluster_id.as_str());
    page.field("controller", seen.info.controller.map(|node| node.0));
    page.field("brokers_total", seen.info.brokers.len());
    page.field("brokers_up", up);
    page.field("partitions_total", seen.partitions);
    page.field("partitions_leaderless", leaderless);
    page.field("partitions_under_replicated", under);
    let rows = seen.troubles.iter().map(|trouble| Row {
        name: trouble.subject.clone(),
        cells: vec![trouble.kind.to_owned(), trouble.subject.clone(), trouble.detail.clone()],
        value: json!({
            "kind": trouble.kind,
            "subject": trouble.subject,
            "detail": trouble.detail,
            "missing": why::values(&trouble.missing),
        }),
    });
    page.table_rows_max = TROUBLES_SHOWN_MAX;
    page.rows = Some(Rows { field: "problems", columns: TROUBLE_COLUMNS, rows: rows.collect() });
    page
}

/// A broker that is down is trouble for every partition it has; a page of that is enough.
const TROUBLES_SHOWN_MAX: usize = 20;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(250);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

pub const HEALTH_EXAMPLES: &str = "\
Examples:
  hw cluster health
  hw cluster health --wait --timeout 30s --brokers-min 3 && ./deploy
  hw cluster health -o json
  hw cluster health --watch

Exits with 0 when healthy, 10 when not, and 6 when waiting took too long.";

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_client::{
        BrokerInfo, NodeId, PartitionId, PartitionInfo, Term, TopicDetail, TopicId,
    };
    use highwater_protocol::ids::{DirectoryId, Incarnation};

    fn broker(node: u32, fenced: bool) -> BrokerInfo {
        BrokerInfo {
            node: NodeId(node),
            address: format!("h{node}:9092"),
            rack: None,
            incarnation: Incarnation(1),
            directory: DirectoryId(TopicId::CLUSTER.0),
            fenced,
        }
    }

    fn info(controller: Option<u32>, brokers: Vec<BrokerInfo>) -> ClusterInfo {
        let controller = controller.map(NodeId);
        ClusterInfo { cluster_id: "c".to_owned(), node: NodeId(1), controller, brokers }
    }

    fn kinds(troubles: &[Trouble]) -> Vec<&str> {
        troubles.iter().map(|trouble| trouble.kind).collect()
    }

    #[test]
    fn a_whole_cluster_has_no_trouble() {
        let info = info(Some(1), vec![broker(1, false), broker(2, false), broker(3, false)]);
        assert_eq!(cluster_troubles(&info, 3), []);
    }

    #[test]
    fn fenced_brokers_and_a_missing_controller_are_trouble() {
        let info = info(None, vec![broker(1, false), broker(2, true)]);
        assert_eq!(
            kinds(&cluster_troubles(&info, 2)),
            ["no-controller", "too-few-brokers", "broker-fenced"]
        );
    }

    #[test]
    fn a_broker_whose_disk_was_replaced_is_trouble_until_it_is_filled_again() {
        let status = |node, lost| BrokerStatus {
            node: NodeId(node),
            duty: highwater_client::BrokerDuty::Active,
            controller: false,
            replicas: 5,
            leads: 0,
            going: 0,
            coming: 0,
            lost,
        };
        let troubles = refilling(&[status(1, 0), status(2, 3)]);
        assert_eq!(kinds(&troubles), ["broker-refilling"]);
        assert!(troubles[0].detail.contains("3 of its 5 replicas"), "{}", troubles[0].detail);
    }

    #[test]
    fn each_partition_is_counted_for_its_worst_problem() {
        let nodes = |ids: &[u32]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let partition = |number, leader, in_sync: &[u32]| PartitionInfo {
            partition: PartitionId(number),
            leader,
            term: Term(1),
            replicas: nodes(&[1, 2, 3]),
            in_sync: nodes(in_sync),
        };
        let partitions = vec![
            partition(0, Some(NodeId(1)), &[1, 2, 3]),
            partition(1, Some(NodeId(1)), &[1, 2]),
            partition(2, None, &[]),
        ];
        let detail =
            TopicDetail { id: TopicId::CLUSTER, configs: Vec::new(), partitions, codec: None };
        let topic = TopicInfo { name: "t".to_owned(), result: Ok(detail) };
        let troubles = topic_troubles(&topic, &Known::default());
        assert_eq!(kinds(&troubles), ["partition-under-replicated", "partition-leaderless"]);
        let detail = "2 of 3 replicas keep up; broker 3: its broker is not part of the cluster";
        assert_eq!(troubles[0].detail, detail);
    }
}
