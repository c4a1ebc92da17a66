//! What is moving and how fast: `hw partition moves`, `hw partition throttle`, and the progress that
//! `hw partition reassign` shows.
//!
//! How much a copy lacks is the word of the partition's leader; rates come from two looks at it. Whoever
//! stops looking stops nothing: moves are the cluster's.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use anstream::{eprint, eprintln};
use clap::Args;
use highwater_client::{
    Admin, MoveInfo, MoveStage, NodeId, PlannedMove, ReplicaRole, TopicPartition,
};
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids};
use crate::reassign::Names;
use crate::watch::Watch;

#[derive(Debug, Args)]
pub struct MovesArgs {
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Args)]
pub struct ThrottleArgs {
    /// Bytes a second, such as 50MiB, or `none`; without it the limits are shown
    #[arg(value_name = "RATE", value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// Limit what this broker receives, instead of all brokers together
    #[arg(long, value_name = "BROKER", requires = "rate")]
    pub broker: Option<u32>,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(Option<u64>);

fn parse_rate(text: &str) -> Result<Rate, String> {
    match text {
        "none" => Ok(Rate(None)),
        size => human::parse_bytes(size).map(|bytes| Rate(Some(bytes))),
    }
}

/// Changes how fast moves may copy, or shows it.
pub async fn throttle(args: ThrottleArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    if let Some(Rate(rate)) = args.rate {
        admin.throttle_moves(args.broker.map(NodeId), rate).await?;
        let whose = match args.broker {
            None => "all brokers together".to_owned(),
            Some(broker) => format!("broker {broker}"),
        };
        match rate {
            None => eprintln!("{whose}: moves copy as fast as they can"),
            Some(rate) => eprintln!("{whose}: moves copy {}/s at most", human::bytes(rate)),
        }
        return Ok(Exit::Fine);
    }
    let holds = admin.move_throttle().await?;
    let row = |name: String, broker: Option<u32>, rate: Option<u64>| Row {
        cells: vec![name.clone(), rate.map_or_else(|| "none".to_owned(), per_second)],
        value: json!({ "broker": broker, "bytes_per_s": rate }),
        name,
    };
    let mut rows = vec![row("cluster".to_owned(), None, holds.cluster)];
    rows.extend(
        holds
            .brokers
            .iter()
            .map(|(node, rate)| row(format!("broker {node}"), Some(node.0), Some(*rate))),
    );
    let columns = const { &[Column::words("RECEIVES"), Column::words("AT MOST")] };
    let rows = Rows { field: "throttles", columns, rows };
    Page::list("hw.partition.throttle/1", rows).print(args.output.format)?;
    Ok(Exit::Fine)
}

fn per_second(bytes: u64) -> String {
    format!("{}/s", human::bytes(bytes))
}

/// Shows what is moving.
pub async fn moves(args: MovesArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let mut looks = Looks::default();
    args.watch.show(args.output.format, async || list(&admin, &mut looks).await).await
}

const COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::words("STAGE"),
    Column::words("FROM"),
    Column::words("TO"),
    Column::words("LEFT"),
    Column::words("RATE"),
    Column::words("ETA"),
];

/// What earlier looks have seen of each move: the bytes left, and when.
#[derive(Debug, Default)]
struct Looks {
    seen: BTreeMap<TopicPartition, Vec<(Instant, u64)>>,
}

impl Looks {
    /// Takes in what is left now; gives the rate since a while ago, once that is known.
    fn rate(&mut self, at: TopicPartition, now: Instant, left: u64) -> Option<u64> {
        let looks = self.seen.entry(at).or_default();
        looks.push((now, left));
        let old = looks.iter().filter(|(then, _)| now.duration_since(*then) > RATE_OVER).count();
        looks.drain(..old.min(looks.len() - 1));
        let (first, before) = looks[0];
        let seconds = now.duration_since(first).as_secs_f64();
        (seconds > 0.1).then(|| (before.saturating_sub(left) as f64 / seconds) as u64)
    }
}

async fn list(admin: &Admin, looks: &mut Looks) -> Result<(Page, Exit), Failure> {
    let mut moving = admin.list_moves().await?;
    let runs = |info: &MoveInfo| info.stage == MoveStage::Running;
    if looks.seen.is_empty() && moving.iter().any(runs) {
        // A rate takes two looks.
        for info in moving.iter().filter(|info| runs(info)) {
            if let Some(left) = left(admin, &info.topic, &info.planned).await {
                looks.rate(info.planned.partition, Instant::now(), left);
            }
        }
        tokio::time::sleep(FIRST_LOOK).await;
        moving = admin.list_moves().await?;
    }
    looks.seen.retain(|at, _| moving.iter().any(|info| info.planned.partition == *at));
    let mut rows = Vec::new();
    for info in moving {
        let left = match runs(&info) {
            true => left(admin, &info.topic, &info.planned).await,
            false => None,
        };
        let rate = left.and_then(|left| looks.rate(info.planned.partition, Instant::now(), left));
        rows.push(row(&info, left, rate));
    }
    let rows = Rows { field: "moves", columns: COLUMNS, rows };
    Ok((Page::list("hw.partition.moves/1", rows), Exit::Fine))
}

fn row(info: &MoveInfo, left: Option<u64>, rate: Option<u64>) -> Row {
    let MoveInfo { topic, planned, stage } = info;
    let name = format!("{topic}/{}", planned.partition.partition);
    let stage = match stage {
        MoveStage::Waiting => "waiting",
        MoveStage::Running => "running",
        MoveStage::GoingBack => "going back",
    };
    let eta = left.and_then(|left| eta(left, rate));
    let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    Row {
        cells: vec![
            name.clone(),
            stage.to_owned(),
            ids(&planned.from),
            ids(&planned.to),
            shown(left.map(human::bytes)),
            shown(rate.map(per_second)),
            shown(eta.map(human::seconds)),
        ],
        value: json!({
            "topic": topic,
            "partition": planned.partition.partition.0,
            "stage": stage,
            "from": planned.from.iter().map(|node| node.0).collect::<Vec<_>>(),
            "to": planned.to.iter().map(|node| node.0).collect::<Vec<_>>(),
            "left_bytes": left,
            "bytes_per_s": rate,
            "eta_s": eta,
        }),
        name,
    }
}

fn eta(left: u64, rate: Option<u64>) -> Option<u64> {
    match (left, rate) {
        (0, _) => Some(0),
        (_, None | Some(0)) => None,
        (left, Some(rate)) => Some(left.div_ceil(rate)),
    }
}

/// How many bytes the new replicas lack together, if the leader says so.
async fn left(admin: &Admin, topic: &str, planned: &PlannedMove) -> Option<u64> {
    let described = admin.describe_partition(topic, planned.partition.partition).await.ok()?;
    if !described.replicas.iter().any(|replica| replica.role == ReplicaRole::Leader) {
        return None;
    }
    let new = planned.to.iter().filter(|node| !planned.from.contains(node));
    let lacks = |node: &NodeId| {
        let found = described.replicas.iter().find(|replica| replica.node == *node);
        // One that the leader has not met yet lacks everything.
        found.map_or(Some(described.bytes), |replica| replica.behind_bytes)
    };
    new.map(lacks).sum()
}

/// Looks again and again until every partition is where it should be.
pub async fn follow(admin: &Admin, plan: &[PlannedMove], names: &Names) -> Result<Exit, Failure> {
    let mut looks = Looks::default();
    let mut shown = Shown::default();
    let mut changed = Instant::now();
    let mut before = 0;
    loop {
        let arrived = arrived(admin, plan, names).await?;
        if arrived != before {
            (before, changed) = (arrived, Instant::now());
        }
        let moving = admin.list_moves().await?;
        let ours = |info: &&MoveInfo| {
            plan.iter().any(|planned| planned.partition == info.planned.partition)
        };
        let ours: Vec<_> = moving.iter().filter(ours).collect();
        shown.show(&progress(admin, plan.len(), arrived, &ours, &mut looks).await);
        let all = plan.len();
        if arrived == all {
            shown.end();
            return Ok(Exit::Fine);
        }
        // A broker that is a moment late may show neither a move nor its end.
        if ours.is_empty() && changed.elapsed() > LATE_MAX {
            shown.end();
            let what = format!("{} of {all} did not move: they were cancelled", all - arrived);
            return Err(Failure::new(Exit::Failed, what)
                .way_out("`hw partition list` shows where they are"));
        }
        if !ours.is_empty() {
            changed = Instant::now();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How many partitions of a plan are where they should be.
async fn arrived(admin: &Admin, plan: &[PlannedMove], names: &Names) -> Result<usize, Failure> {
    let mut arrived = 0;
    for (topic, name) in names {
        let wanted = || plan.iter().filter(|planned| planned.partition.topic == *topic);
        if wanted().next().is_none() {
            continue;
        }
        let detail = admin.describe_topic(name).await?;
        let is_there = |planned: &&PlannedMove| {
            let same = |set: &[NodeId]| {
                set.len() == planned.to.len() && set.iter().all(|n| planned.to.contains(n))
            };
            let at = planned.partition.partition;
            detail.partitions.iter().any(|info| info.partition == at && same(&info.replicas))
        };
        arrived += wanted().filter(is_there).count();
    }
    Ok(arrived)
}

async fn progress(
    admin: &Admin,
    all: usize,
    arrived: usize,
    ours: &[&MoveInfo],
    looks: &mut Looks,
) -> String {
    let (mut left_all, mut rate_all) = (0, None);
    let waiting = ours.iter().filter(|info| info.stage == MoveStage::Waiting).count();
    for info in ours.iter().filter(|info| info.stage == MoveStage::Running) {
        if let Some(left) = left(admin, &info.topic, &info.planned).await {
            left_all += left;
            if let Some(rate) = looks.rate(info.planned.partition, Instant::now(), left) {
                rate_all = Some(rate_all.unwrap_or(0) + rate);
            }
        }
    }
    let under_way = ours.len() - waiting;
    let mut line = format!("{arrived} of {all} moved, {under_way} under way, {waiting} waiting");
    if under_way > 0 {
        line += &format!("; {} left of those under way", human::bytes(left_all));
        if let Some(rate) = rate_all {
            line += &format!(", {}", per_second(rate));
        }
        if let Some(eta) = eta(left_all, rate_all) {
            line += &format!(", {}", human::seconds(eta));
        }
    }
    line
}

/// The line of progress: drawn anew on a terminal, elsewhere printed when there is news worth a line.
#[derive(Debug, Default)]
struct Shown {
    last: String,
    printed: Option<Instant>,
}

impl Shown {
    fn show(&mut self, line: &str) {
        if line == self.last {
            return;
        }
        if io::stderr().is_terminal() {
            eprint!("\r\x1b[K{line}");
            // Only the looks are at stake.
            let _ = io::stderr().flush();
        } else {
            let counts = |line: &str| line.split(';').next().map(str::to_owned);
            let lately = self.printed.is_some_and(|at| at.elapsed() < LINE_EVERY);
            if lately && counts(line) == counts(&self.last) {
                return;
            }
            eprintln!("{line}");
        }
        (self.last, self.printed) = (line.to_owned(), Some(Instant::now()));
    }

    fn end(&self) {
        if io::stderr().is_terminal() {
            eprintln!();
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
const FIRST_LOOK: Duration = Duration::from_millis(700);
const RATE_OVER: Duration = Duration::from_secs(10);
const LINE_EVERY: Duration = Duration::from_secs(5);
const LATE_MAX: Duration = Duration::from_secs(5);

pub const MOVES_EXAMPLES: &str = "\
Examples:
  hw partition moves                               what is moving now
  hw partition moves -w                            look again every 2 s
  hw partition moves -o json                       with bytes, bytes a second and seconds

LEFT is what the new replicas still lack, as the partition's leader knows it.";

pub const THROTTLE_EXAMPLES: &str = "\
Examples:
  hw partition throttle                            what holds now
  hw partition throttle 50MiB                      all moves together copy 50 MiB/s at most
  hw partition throttle 10MiB --broker 4           broker 4 receives 10 MiB/s at most
  hw partition throttle none                       as fast as they can

It holds at once, also for moves under way, and until it is changed. Only new replicas are held back;
replicas in sync never are. Below the rate at which a partition is written its move cannot end.";

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_client::{PartitionId, TopicId};

    #[test]
    fn a_rate_is_what_was_copied_over_the_last_looks() {
        let (mut looks, start) = (Looks::default(), Instant::now());
        let at = TopicPartition::new(TopicId(uuid::Uuid::from_u128(1)), PartitionId(0));
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(looks.rate(at, start, 1_000), None);
        assert_eq!(looks.rate(at, after(2), 800), Some(100));
        assert_eq!(looks.rate(at, after(12), 800), Some(0), "what is long ago is forgotten");
        assert_eq!((eta(100, Some(30)), eta(100, Some(0)), eta(0, None)), (Some(4), None, Some(0)));
    }
}
