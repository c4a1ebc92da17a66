//! `hw partition reassign`: replicas move to other brokers, with a plan that is confirmed
//! first and progress until they are there (`follow`).
//!
//! Whoever stops looking stops nothing: moves are the cluster's, and `moves` shows them again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use anstream::{eprintln, println};
use clap::{ArgGroup, Args, ValueEnum};
use highwater_client::{
    Admin, DryRun, MoveWish, NodeId, PartitionId, PlannedMove, TopicId, TopicPartition,
};

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::Format;
use crate::plan::{Begun, Plan};
use crate::target::{Target, parse_broker};
use crate::{confirm, follow, human, plan_file, throttle};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("wish").required(true).args(["to", "drain", "replicas", "plan"])))]
pub struct ReassignArgs {
    /// Topics, single partitions such as orders/3, or patterns such as 'orders-*'; without any, --drain means all
    #[arg(value_name = "TOPIC[/P]")]
    pub targets: Vec<Target>,
    /// Move what this file says: Kafka's reassignment JSON; - reads the standard input
    #[arg(long, value_name = "FILE", conflicts_with = "targets")]
    pub plan: Option<PathBuf>,
    /// Move them to exactly these brokers
    #[arg(long, value_name = "BROKERS", value_delimiter = ',', value_parser = parse_broker)]
    pub to: Vec<u32>,
    /// Move them off this broker
    #[arg(long, value_name = "BROKER", value_parser = parse_broker)]
    pub drain: Option<u32>,
    /// Give them this many replicas
    #[arg(long, value_name = "N")]
    pub replicas: Option<u8>,
    /// Limit how fast this and every other move may copy, from now on: bytes a second in the whole cluster
    #[arg(long, value_name = "RATE", value_parser = human::parse_bytes)]
    pub throttle: Option<u64>,
    /// Write where the replicas are now to this file, as a plan that moves them back
    #[arg(long, value_name = "FILE")]
    pub rollback: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would move, move nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print the plan
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    pub output: PlanFormat,
    /// Begin the moves and do not wait for their end
    #[arg(long)]
    pub detach: bool,
}

/// The forms of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// A line for each partition
    #[value(alias = "text", alias = "wide")]
    Table,
    /// One JSON document
    Json,
    /// One JSON value a line
    Jsonl,
    /// One YAML document
    Yaml,
    /// Only the partitions, one a line
    Name,
    /// Kafka's reassignment JSON, as --plan reads it
    Kafka,
}

impl PlanFormat {
    fn print(
        self,
        plan: &Plan<'_>,
        begun: Begun,
        kafka: impl FnOnce() -> String,
    ) -> io::Result<()> {
        let format = match self {
            PlanFormat::Table => Format::Table,
            PlanFormat::Json => Format::Json,
            PlanFormat::Jsonl => Format::Jsonl,
            PlanFormat::Yaml => Format::Yaml,
            PlanFormat::Name => Format::Name,
            PlanFormat::Kafka => {
                println!("{}", kafka());
                return Ok(());
            }
        };
        let page = plan.page("hw.partition.reassign/1", begun);
        match begun {
            Begun::No => page.print(format),
            Begun::Yes => page.print_for_programs(format),
        }
    }
}

/// Names of the topics that were looked at.
pub type Names = BTreeMap<TopicId, String>;

/// Plans, asks, begins, and waits.
pub async fn reassign(args: ReassignArgs, settings: &Settings) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("moving replicas asks first, but there is no terminal")
            .way_out("-y to move without asking, --dry-run to see what would move"));
    }
    if args.targets.is_empty() && args.drain.is_none() && args.plan.is_none() {
        return Err(Failure::usage("which partitions are to move?")
            .way_out("name topics or partitions, such as `orders`, `orders/3` or `'orders-*'`"));
    }
    let file = args.plan.as_deref().map(plan_file::read).transpose()?;
    let admin = settings.connect().await?.admin();
    let (partitions, names, wish) = match file {
        Some(lines) => wish_of(&admin, lines).await?,
        None => meant(&admin, &args).await?,
    };
    let moves = admin.reassign(partitions.clone(), wish.clone(), DryRun::Yes).await?;
    let plan = Plan::of(&admin, &moves, &names).await;
    if args.dry_run || moves.is_empty() {
        let begun = if args.dry_run { Begun::No } else { Begun::Yes };
        let kafka = || plan_file::text(&moves, &names, plan_file::Side::After);
        args.output.print(&plan, begun, kafka)?;
    }
    if moves.is_empty() {
        eprintln!("nothing to move: everything is as wished already");
        return Ok(Exit::Fine);
    }
    let holds = admin.move_throttle().await?.cluster;
    let what = with_time(&plan, args.throttle.or(holds));
    if args.dry_run {
        eprintln!("would move {what}");
        if let Some(file) = &args.rollback {
            eprintln!("would write the way back to {}", file.display());
        }
        return Ok(Exit::Fine);
    }
    plan.tell();
    if !args.yes {
        confirm::yes(&format!("Move {what}?"), "nothing was moved").await?;
    }
    if let Some(file) = &args.rollback {
        plan_file::write(file, &plan_file::text(&moves, &names, plan_file::Side::Before))?;
        eprintln!("`hw partition reassign --plan {}` moves them back", file.display());
    }
    if let Some(rate) = args.throttle {
        admin.throttle_moves(None, Some(rate)).await?;
    }
    let begun = admin.reassign(partitions, wish, DryRun::No).await?;
    let ended = see_through(&admin, &args, &moves, &begun, &names).await;
    if args.throttle.is_some() {
        throttle::remind(&admin).await;
    }
    ended
}

/// Says what was begun where it is not what was planned, and stays with it unless told not to.
async fn see_through(
    admin: &Admin,
    args: &ReassignArgs,
    planned: &[PlannedMove],
    begun: &[PlannedMove],
    names: &Names,
) -> Result<Exit, Failure> {
    let plan = Plan::of(admin, begun, names).await;
    if begun != planned {
        eprintln!("the cluster changed meanwhile, so this is moved instead:");
        plan.tell();
    }
    let kafka = || plan_file::text(begun, names, plan_file::Side::After);
    args.output.print(&plan, Begun::Yes, kafka)?;
    if args.detach {
        eprintln!("begun; `hw partition moves -w` shows how far it is");
        return Ok(Exit::Fine);
    }
    follow::follow(admin, begun, names).await
}

/// What the arguments name and ask for.
async fn meant(
    admin: &Admin,
    args: &ReassignArgs,
) -> Result<(Vec<TopicPartition>, Names, MoveWish), Failure> {
    let (partitions, names) = resolve(admin, &args.targets).await?;
    let wish = match (args.drain, args.replicas) {
        (Some(broker), _) => MoveWish::Drain(NodeId(broker)),
        (None, Some(replicas)) => MoveWish::Replicas(replicas),
        (None, None) => MoveWish::To(args.to.iter().copied().map(NodeId).collect()),
    };
    Ok((partitions, names, wish))
}

/// The size of it all, and how long it takes where that is limited.
fn with_time(plan: &Plan<'_>, rate: Option<u64>) -> String {
    let what = plan.size();
    match rate {
        None => what,
        Some(rate) => {
            let time = human::seconds(plan.bytes().div_ceil(rate.max(1)));
            format!("{what}, about {time} at {}/s", human::bytes(rate))
        }
    }
}

/// What a plan's lines ask for.
async fn wish_of(
    admin: &Admin,
    lines: Vec<plan_file::Line>,
) -> Result<(Vec<TopicPartition>, Names, MoveWish), Failure> {
    let (mut partitions, mut names, mut sets) = (Vec::new(), Names::new(), Vec::new());
    let mut ids: BTreeMap<String, TopicId> = BTreeMap::new();
    for plan_file::Line { topic, partition, replicas, .. } in lines {
        let id = match ids.get(&topic) {
            Some(id) => *id,
            None => {
                let id = admin.describe_topic(&topic).await?.id;
                names.insert(id, topic.clone());
                ids.insert(topic, id);
                id
            }
        };
        partitions.push(TopicPartition::new(id, PartitionId(partition)));
        sets.push(replicas.into_iter().map(NodeId).collect());
    }
    Ok((partitions, names, MoveWish::Each(sets)))
}

/// What targets mean: the partitions, and the names of their topics; without targets all names.
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
    let all = match targets.iter().any(Target::is_pattern) {
        true => admin.topics().await?.into_iter().map(|topic| topic.name).collect(),
        false => Vec::new(),
    };
    for target in targets {
        let meant: Vec<&String> = match target.is_pattern() {
            true => all.iter().filter(|topic| target.matches(topic)).collect(),
            false => vec![&target.topic],
        };
        if meant.is_empty() {
            return Err(Failure::new(Exit::NotFound, format!("no topic fits `{}`", target.topic))
                .way_out("`hw topic list` shows them; quote patterns, or the shell takes them"));
        }
        for topic in meant {
            let detail = admin.describe_topic(topic).await?;
            names.insert(detail.id, topic.clone());
            let number = |number| TopicPartition::new(detail.id, number);
            match target.partition {
                Some(one) => partitions.push(number(PartitionId(one))),
                None => {
                    partitions.extend(detail.partitions.iter().map(|info| number(info.partition)));
                }
            }
        }
    }
    // Two patterns may fit one topic.
    let mut seen = BTreeSet::new();
    partitions.retain(|partition| seen.insert(*partition));
    Ok((partitions, names))
}

/// A partition as people write it.
pub fn title(partition: TopicPartition, names: &Names) -> String {
    match names.get(&partition.topic) {
        Some(name) => format!("{name}/{}", partition.partition),
        None => partition.to_string(),
    }
}

pub const REASSIGN_EXAMPLES: &str = "\
Examples:
  hw partition reassign orders --to 4,5,6          every partition of a topic to these brokers
  hw partition reassign orders/3 --to 4,5,6 -y     one partition, without asking
  hw partition reassign --drain 2 --dry-run        what would leave broker 2
  hw partition reassign orders --replicas 3        more or fewer replicas
  hw partition reassign 'orders-*' --to 4,5,6 --throttle 50MiB
                                                   every topic that fits, at 50 MiB/s at most
  hw partition reassign --plan plan.json           Kafka's reassignment JSON
  hw partition reassign --drain 2 --dry-run -o kafka > plan.json
                                                   the plan as such a file, to be edited
  hw partition reassign --drain 2 --rollback back.json
                                                   with a plan for the way back

New replicas first copy the log, then get votes; only then do old ones lose theirs and are deleted.
Reading and writing go on meanwhile. Eight partitions move at a time, the others wait.
Ctrl-C stops the looking, not the moves: `hw partition cancel` does that.";
