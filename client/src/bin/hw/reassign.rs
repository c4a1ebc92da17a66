//! `hw partition reassign`, `moves`, `cancel`: replicas move to other brokers, with a plan that is
//! confirmed first and progress until they are there.
//!
//! Whoever stops looking stops nothing: moves are the cluster's, and `moves` shows them again.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anstream::eprintln;
use clap::{ArgGroup, Args};
use highwater_client::{
    Admin, DryRun, MoveInfo, MoveStage, MoveWish, NodeId, PartitionId, PlannedMove, TopicId,
    TopicPartition,
};
use serde_json::json;

use crate::confirm;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids};
use crate::target::Target;
use crate::watch::Watch;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("wish").required(true).args(["to", "drain", "replicas"])))]
pub struct ReassignArgs {
    /// Topics, or single partitions such as orders/3; without any, --drain means all
    #[arg(value_name = "TOPIC[/P]")]
    pub targets: Vec<Target>,
    /// Move them to exactly these brokers
    #[arg(long, value_name = "BROKERS", value_delimiter = ',')]
    pub to: Vec<u32>,
    /// Move them off this broker
    #[arg(long, value_name = "BROKER")]
    pub drain: Option<u32>,
    /// Give them this many replicas
    #[arg(long, value_name = "N")]
    pub replicas: Option<u8>,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would move, move nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Begin the moves and do not wait for their end
    #[arg(long)]
    pub detach: bool,
}

#[derive(Debug, Args)]
pub struct CancelArgs {
    /// Topics, or single partitions such as orders/3
    #[arg(value_name = "TOPIC[/P]", required_unless_present = "all")]
    pub targets: Vec<Target>,
    /// Everything that is moving
    #[arg(long, conflicts_with = "targets")]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct MovesArgs {
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Names of the topics that were looked at.
pub type Names = BTreeMap<TopicId, String>;

/// Plans, asks, begins, and waits.
pub async fn reassign(args: ReassignArgs, settings: &Settings) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("moving replicas asks first, but there is no terminal")
            .way_out("-y to move without asking, --dry-run to see what would move"));
    }
    if args.targets.is_empty() && args.drain.is_none() {
        return Err(Failure::usage("which partitions are to move?")
            .way_out("name topics or partitions, such as `orders` or `orders/3`"));
    }
    let wish = match (args.drain, args.replicas) {
        (Some(broker), _) => MoveWish::Drain(NodeId(broker)),
        (None, Some(replicas)) => MoveWish::Replicas(replicas),
        (None, None) => MoveWish::To(args.to.iter().copied().map(NodeId).collect()),
    };
    let admin = settings.connect().await?.admin();
    let (partitions, names) = resolve(&admin, &args.targets).await?;
    let plan = admin.reassign(partitions.clone(), wish.clone(), DryRun::Yes).await?;
    if plan.is_empty() {
        eprintln!("nothing to move: everything is as wished already");
        return Ok(Exit::Fine);
    }
    let bytes = show_plan(&admin, &plan, &names).await;
    let what = format!("{} partitions, {} to copy", plan.len(), human::bytes(bytes));
    if args.dry_run {
        eprintln!("would move {what}");
        return Ok(Exit::Fine);
    }
    if !args.yes {
        confirm::yes(&format!("Move {what}?"), "nothing was moved")?;
    }
    let begun = admin.reassign(partitions, wish, DryRun::No).await?;
    if begun != plan {
        eprintln!("the cluster changed meanwhile, so this is moved instead:");
        show_plan(&admin, &begun, &names).await;
    }
    if args.detach {
        eprintln!("begun; `hw partition moves -w` shows how far it is");
        return Ok(Exit::Fine);
    }
    follow(&admin, &begun, &names).await
}

/// Has moves go back.
pub async fn cancel(args: CancelArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let (mut partitions, names) = resolve(&admin, &args.targets).await?;
    if !args.all {
        // Of a whole topic only what moves is meant; a partition that was named must be moving.
        let named = |at: &TopicPartition| {
            let exactly = |target: &Target| {
                target.partition == Some(at.partition.0)
                    && names.get(&at.topic) == Some(&target.topic)
            };
            args.targets.iter().any(exactly)
        };
        let moving = admin.list_moves().await?;
        let moves = |at: &TopicPartition| moving.iter().any(|info| info.planned.partition == *at);
        partitions.retain(|at| named(at) || moves(at));
        if partitions.is_empty() {
            eprintln!("nothing to cancel: none of them is moving");
            return Ok(Exit::Fine);
        }
    }
    let cancelled = admin.cancel_moves(partitions).await?;
    for PlannedMove { partition, to, .. } in &cancelled {
        eprintln!("{} goes back to {}", title(*partition, &names), ids(to));
    }
    if cancelled.is_empty() {
        eprintln!("nothing to cancel: nothing is moving");
    }
    Ok(Exit::Fine)
}

/// Shows what is moving.
pub async fn moves(args: MovesArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    args.watch.show(args.output.format, async || list(&admin).await).await
}

const COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::words("STAGE"),
    Column::words("FROM"),
    Column::words("TO"),
    Column::words("BEHIND"),
];

async fn list(admin: &Admin) -> Result<(Page, Exit), Failure> {
    let mut rows = Vec::new();
    for MoveInfo { topic, planned, stage } in admin.list_moves().await? {
        let name = format!("{topic}/{}", planned.partition.partition);
        let stage = match stage {
            MoveStage::Waiting => "waiting",
            MoveStage::Running => "running",
            MoveStage::GoingBack => "going back",
        };
        let behind = match stage {
            "running" => behind(admin, &topic, &planned).await,
            _ => None,
        };
        rows.push(Row {
            cells: vec![
                name.clone(),
                stage.to_owned(),
                ids(&planned.from),
                ids(&planned.to),
                behind.map_or_else(|| "-".to_owned(), human::count),
            ],
            value: json!({
                "topic": topic,
                "partition": planned.partition.partition.0,
                "stage": stage,
                "from": planned.from.iter().map(|node| node.0).collect::<Vec<_>>(),
                "to": planned.to.iter().map(|node| node.0).collect::<Vec<_>>(),
                "behind": behind,
            }),
            name,
        });
    }
    let rows = Rows { field: "moves", columns: COLUMNS, rows };
    Ok((Page::list("hw.partition.moves/1", rows), Exit::Fine))
}

/// How many entries the furthest-behind of the new replicas lacks, if the leader says so.
async fn behind(admin: &Admin, topic: &str, planned: &PlannedMove) -> Option<u64> {
    let described = admin.describe_partition(topic, planned.partition.partition).await.ok()?;
    let end = described.replicas.iter().map(|replica| replica.appended.0).max()?;
    let new = planned.to.iter().filter(|node| !planned.from.contains(node));
    let has = |node: &NodeId| {
        let found = described.replicas.iter().find(|replica| replica.node == *node);
        found.map_or(0, |replica| replica.appended.0)
    };
    new.map(|node| end - has(node)).max()
}

pub async fn resolve(
    admin: &Admin,
    targets: &[Target],
) -> Result<(Vec<TopicPartition>, Names), Failure> {
    let (mut partitions, mut names) = (Vec::new(), Names::new());
    if targets.is_empty() {
        for topic in admin.topics().await? {
            if let Ok(detail) = topic.result {
                names.insert(detail.id, topic.name);
            }
        }
    }
    for Target { topic, partition } in targets {
        let detail = admin.describe_topic(topic).await?;
        names.insert(detail.id, topic.clone());
        let number = |number| TopicPartition::new(detail.id, number);
        match partition {
            Some(one) => partitions.push(number(PartitionId(*one))),
            None => partitions.extend(detail.partitions.iter().map(|info| number(info.partition))),
        }
    }
    Ok((partitions, names))
}

/// Prints the plan and gives the bytes that it copies, as far as leaders tell.
pub async fn show_plan(admin: &Admin, plan: &[PlannedMove], names: &Names) -> u64 {
    let mut total = 0;
    for PlannedMove { partition, from, to } in plan {
        let new = to.iter().filter(|node| !from.contains(node)).count() as u64;
        let described = match names.get(&partition.topic) {
            Some(topic) => admin.describe_partition(topic, partition.partition).await.ok(),
            None => None,
        };
        let bytes = described.map(|described| described.bytes * new);
        total += bytes.unwrap_or(0);
        let bytes = bytes.map_or_else(|| "size not known".to_owned(), human::bytes);
        eprintln!("{}: {} -> {}, {bytes}", title(*partition, names), ids(from), ids(to));
    }
    total
}

/// Looks again and again until every partition is where it should be.
pub async fn follow(admin: &Admin, plan: &[PlannedMove], names: &Names) -> Result<Exit, Failure> {
    let (mut last, mut changed) = (String::new(), Instant::now());
    loop {
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
        let moving = admin.list_moves().await?;
        let ours = |info: &&MoveInfo| {
            plan.iter().any(|planned| planned.partition == info.planned.partition)
        };
        let ours: Vec<_> = moving.iter().filter(ours).collect();
        let waiting = ours.iter().filter(|info| info.stage == MoveStage::Waiting).count();
        let under_way = ours.len() - waiting;
        let all = plan.len();
        let line = format!("{arrived} of {all} moved, {under_way} under way, {waiting} waiting");
        if line != last {
            eprintln!("{line}");
            (last, changed) = (line, Instant::now());
        }
        if arrived == all {
            return Ok(Exit::Fine);
        }
        // A broker that is a moment late may show neither a move nor its end.
        if ours.is_empty() && changed.elapsed() > LATE_MAX {
            let what = format!("{} of {all} did not move: they were cancelled", all - arrived);
            return Err(Failure::new(Exit::Failed, what)
                .way_out("`hw partition list` shows where they are"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

pub fn title(partition: TopicPartition, names: &Names) -> String {
    match names.get(&partition.topic) {
        Some(name) => format!("{name}/{}", partition.partition),
        None => partition.to_string(),
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
const LATE_MAX: Duration = Duration::from_secs(5);

pub const REASSIGN_EXAMPLES: &str = "\
Examples:
  hw partition reassign orders --to 4,5,6          every partition of a topic to these brokers
  hw partition reassign orders/3 --to 4,5,6 -y     one partition, without asking
  hw partition reassign --drain 2 --dry-run        what would leave broker 2
  hw partition reassign orders --replicas 3        more or fewer replicas

New replicas first copy the log, then get votes; only then do old ones lose theirs and are deleted.
Reading and writing go on meanwhile. Eight partitions move at a time, the others wait.
Ctrl-C stops the looking, not the moves: `hw partition cancel` does that.";

pub const MOVES_EXAMPLES: &str = "\
Examples:
  hw partition moves                               what is moving now
  hw partition moves -w                            look again every 2 s

BEHIND is how many entries the slowest new replica still lacks.";

pub const CANCEL_EXAMPLES: &str = "\
Examples:
  hw partition cancel orders/3                     one partition goes back to where it was
  hw partition cancel --all                        everything that is moving";
