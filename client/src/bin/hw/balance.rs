//! `hw cluster balance`: spreads replicas and leaders over racks and brokers, with a plan that is
//! confirmed first and progress until all is there.
//!
//! Sizes and loads are gathered from the brokers, the plan is a broker's, and what is begun are ordinary
//! moves: `hw partition moves` shows them, `hw partition cancel` takes them back.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use anstream::eprintln;
use clap::Args;
use futures_util::StreamExt;
use highwater_client::{
    Admin, BrokerShare, DryRun, ListReplicasResponse, Load, MoveWish, PlanBalanceResponse,
    PlannedMove, SettingScope, TopicPartition,
};
use serde_json::json;

use crate::confirm;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids};
use crate::rates::{self, PerSecond, Rate};
use crate::reassign::{self, Names};
use crate::{follow, human};

#[derive(Debug, Args)]
pub struct BalanceArgs {
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long to measure what is written and read; 0s goes by count and size alone
    #[arg(long, value_name = "TIME", default_value = "5s")]
    #[arg(value_parser = crate::human::parse_duration)]
    pub measure: Duration,
    /// Begin the moves and do not wait for their end
    #[arg(long)]
    pub detach: bool,
    /// How to print the plan.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Plans, asks, begins, and waits.
pub async fn run(args: BalanceArgs, settings: &Settings) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("balancing asks first, but there is no terminal")
            .way_out("-y to balance without asking, --dry-run to see what would change"));
    }
    let admin = settings.connect().await?.admin();
    let mut names = Names::new();
    for topic in admin.topics().await? {
        if let Ok(detail) = topic.result {
            names.insert(detail.id, topic.name);
        }
    }
    let Measured { sizes, loads } = measure(&admin, args.measure).await?;
    let plan = admin.plan_balance(sizes.clone().into_iter().collect(), loads).await?;
    let cost = Cost::of(&plan, &sizes);
    if args.output.format.is_for_people() {
        tell(&plan, &sizes, &names);
    }
    let mut page = page(&plan, &cost, &sizes, &names);
    let auto = auto(&admin).await?;
    page.field("auto", auto.as_str());
    page.field("changed", !args.dry_run && !plan.moves.is_empty());
    // To programs is said what was done, to people before they are asked.
    if plan.moves.is_empty() || args.dry_run || args.output.format.is_for_people() {
        page.print(args.output.format)?;
    }
    if args.output.format.is_for_people() {
        eprintln!("{}", unasked(&auto));
    }
    if plan.moves.is_empty() {
        eprintln!("nothing to do: the cluster is even");
        return Ok(Exit::Fine);
    }
    if args.dry_run {
        eprintln!("would change {cost}");
        return Ok(Exit::Fine);
    }
    if !args.yes {
        confirm::yes(&format!("Change {cost}?"), "nothing was moved").await?;
    }
    begin(&admin, &plan.moves, &names).await?;
    page.print_for_programs(args.output.format)?;
    if args.detach {
        eprintln!("begun; `hw partition moves -w` shows how far it is");
        return Ok(Exit::Fine);
    }
    follow::follow(&admin, &plan.moves, &names).await
}

/// What a plan goes by.
struct Measured {
    /// The bytes of one replica of each partition; the largest, where replicas differ.
    sizes: BTreeMap<TopicPartition, u64>,
    loads: Vec<(TopicPartition, Load)>,
}

/// Two looks at every broker, or one where nothing is to be measured.
async fn measure(admin: &Admin, over: Duration) -> Result<Measured, Failure> {
    let before = ask_all(admin).await?;
    let (after, rates) = match over.is_zero() {
        true => (before, Vec::new()),
        false => {
            eprintln!("measuring what is written and read, for {} s", over.as_secs_f64());
            tokio::time::sleep(over).await;
            let after = ask_all(admin).await?;
            let rates = rates::rates(&before, &after);
            (after, rates)
        }
    };
    let mut sizes = BTreeMap::new();
    for replica in after.into_iter().flat_map(|answer| answer.replicas) {
        let size = sizes.entry(replica.partition).or_default();
        *size = replica.bytes.max(*size);
    }
    Ok(Measured { sizes, loads: loads(&rates) })
}

async fn ask_all(admin: &Admin) -> Result<Vec<ListReplicasResponse>, Failure> {
    let answers = rates::ask_each(admin).await?.into_iter();
    Ok(answers.map(|(_, answer)| answer).collect::<Result<_, _>>()?)
}

/// What clients do to each partition, whoever of its replicas led meanwhile.
fn loads(rates: &[Rate]) -> Vec<(TopicPartition, Load)> {
    let mut loads: BTreeMap<TopicPartition, PerSecond> = BTreeMap::new();
    for rate in rates {
        let load = loads.entry(rate.partition).or_default();
        *load = load.plus(rate.traffic);
    }
    let whole = |rate: PerSecond| Load {
        bytes_in_per_s: rate.bytes_in as u64,
        bytes_out_per_s: rate.bytes_out as u64,
    };
    loads.into_iter().map(|(partition, rate)| (partition, whole(rate))).collect()
}

/// Whether the controller does this by itself as well: the value of `balance.auto`.
async fn auto(admin: &Admin) -> Result<String, Failure> {
    let settings = admin.describe_settings(SettingScope::Cluster).await?;
    let auto = settings.into_iter().find(|setting| setting.name == "balance.auto");
    // A broker of an earlier version knows no such setting, and does nothing by itself.
    Ok(auto.and_then(|setting| setting.value).unwrap_or_else(|| "off".to_owned()))
}

fn unasked(auto: &str) -> String {
    match auto {
        "on" => "balance.auto is on: the controller does this by itself, in calm times".to_owned(),
        other => format!(
            "balance.auto is {other}: nothing is evened out unasked (`hw cluster config set balance.auto=on`)"
        ),
    }
}

/// What a plan comes to.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    partitions: usize,
    leaders_only: usize,
    bytes: u64,
}

impl Cost {
    fn of(plan: &PlanBalanceResponse, sizes: &BTreeMap<TopicPartition, u64>) -> Cost {
        let leaders_only = plan.moves.iter().filter(|planned| copies(planned) == 0).count();
        let bytes = plan.moves.iter().map(|planned| bytes(planned, sizes)).sum();
        Cost { partitions: plan.moves.len(), leaders_only, bytes }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cost { partitions, leaders_only, bytes } = self;
        let bytes = human::bytes(*bytes);
        let partitions = human::counted(*partitions, "partition");
        write!(f, "{partitions}, {bytes} to copy ({leaders_only} of them only in who leads)")
    }
}

/// How many replicas a move copies.
fn copies(planned: &PlannedMove) -> u64 {
    planned.to.iter().filter(|node| !planned.from.contains(node)).count() as u64
}

fn bytes(planned: &PlannedMove, sizes: &BTreeMap<TopicPartition, u64>) -> u64 {
    copies(planned) * sizes.get(&planned.partition).copied().unwrap_or_default()
}

/// Begins every move of the plan. What is begun goes on if another one is refused.
async fn begin(admin: &Admin, moves: &[PlannedMove], names: &Names) -> Result<(), Failure> {
    let asked = moves.iter().map(|PlannedMove { partition, to, .. }| async move {
        let begun = admin.reassign(vec![*partition], MoveWish::To(to.clone()), DryRun::No).await;
        (*partition, begun)
    });
    let mut answers = futures_util::stream::iter(asked).buffered(ASKED_AT_ONCE);
    let mut begun = 0;
    while let Some((partition, answer)) = answers.next().await {
        if let Err(error) = answer {
            let all = moves.len();
            let what = format!("moving {}", reassign::title(partition, names));
            eprintln!(
                "{begun} of {all} moves were begun and go on; `hw partition moves` shows them"
            );
            return Err(Failure::from(error).during(&what));
        }
        begun += 1;
    }
    Ok(())
}

const COLUMNS: &[Column] = &[
    Column::words("BROKER"),
    Column::number("REPLICAS"),
    Column::number("AFTER"),
    Column::number("LEADERS"),
    Column::number("AFTER"),
    Column::number("DATA"),
    Column::number("AFTER"),
    Column::number("WRITTEN/S"),
    Column::number("AFTER"),
    Column::number("SENT/S"),
    Column::number("AFTER"),
];

fn page(
    plan: &PlanBalanceResponse,
    cost: &Cost,
    sizes: &BTreeMap<TopicPartition, u64>,
    names: &Names,
) -> Page {
    let rows = plan.before.iter().zip(&plan.after).map(|(before, after)| row(before, after));
    let rows = Rows { field: "brokers", columns: COLUMNS, rows: rows.collect() };
    let mut page = Page::list("hw.cluster.balance/1", rows);
    let moves = plan.moves.iter().map(|planned| {
        json!({
            "topic": names.get(&planned.partition.topic),
            "partition": planned.partition.partition.0,
            "from": planned.from.iter().map(|node| node.0).collect::<Vec<_>>(),
            "to": planned.to.iter().map(|node| node.0).collect::<Vec<_>>(),
            "bytes": bytes(planned, sizes),
        })
    });
    page.field("moves", moves.collect::<Vec<_>>());
    page.field("bytes", cost.bytes);
    page
}

/// What goes where, a line for each partition.
fn tell(plan: &PlanBalanceResponse, sizes: &BTreeMap<TopicPartition, u64>, names: &Names) {
    for planned in plan.moves.iter().take(MOVES_SHOWN_MAX) {
        let (title, to) = (reassign::title(planned.partition, names), ids(&planned.to));
        let what = match copies(planned) {
            0 => "only who leads".to_owned(),
            _ => human::bytes(bytes(planned, sizes)),
        };
        eprintln!("{title}: {} -> {to}, {what}", ids(&planned.from));
    }
    if plan.moves.len() > MOVES_SHOWN_MAX {
        eprintln!("and {} more (-o json has all)", plan.moves.len() - MOVES_SHOWN_MAX);
    }
}

fn row(before: &BrokerShare, after: &BrokerShare) -> Row {
    Row {
        name: before.node.to_string(),
        cells: vec![
            before.node.to_string(),
            before.replicas.to_string(),
            after.replicas.to_string(),
            before.leaders.to_string(),
            after.leaders.to_string(),
            human::bytes(before.bytes),
            human::bytes(after.bytes),
            human::bytes(before.write_load),
            human::bytes(after.write_load),
            human::bytes(before.leader_load),
            human::bytes(after.leader_load),
        ],
        value: json!({
            "broker": before.node.0,
            "replicas_total": before.replicas,
            "replicas_total_after": after.replicas,
            "leaders_total": before.leaders,
            "leaders_total_after": after.leaders,
            "bytes": before.bytes,
            "bytes_after": after.bytes,
            "write_load_bytes_per_s": before.write_load,
            "write_load_bytes_per_s_after": after.write_load,
            "leader_load_bytes_per_s": before.leader_load,
            "leader_load_bytes_per_s_after": after.leader_load,
        }),
    }
}

/// Commands on their way to the controller at once; it takes many in one step.
const ASKED_AT_ONCE: usize = 16;
const MOVES_SHOWN_MAX: usize = 30;

pub const EXAMPLES: &str = "\
Examples:
  hw cluster balance --dry-run                     what would move, and what each broker has then
  hw cluster balance                               the same, then ask, then do it
  hw cluster balance --measure 1m                  go by the rates of a whole minute
  hw cluster balance -y --detach                   begin without asking or waiting

Spreads replicas over brokers by count, by bytes, and by what clients write to them (WRITTEN/S, which
every replica takes); and preferred leaders by count, and by what they send to followers and readers
(SENT/S). Two replicas of a partition never come into one rack where they were apart. Nothing moves
that need not: a broker that was added gets its share, and brokers may differ by a tenth, in rates by
two tenths. Brokers that are down get nothing, and partitions that have a replica there, or move already, are
left alone. `hw partition top` shows the busiest.

The controller does the same by itself, slowly and by loads that last, after
`hw cluster config set balance.auto=on`. What it begins stands in `hw cluster events` with its reason.";

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_client::{NodeId, PartitionId, TopicId};

    fn planned(number: u32, from: &[u32], to: &[u32]) -> PlannedMove {
        let nodes = |nodes: &[u32]| nodes.iter().copied().map(NodeId).collect();
        let partition = TopicPartition::new(TopicId::CLUSTER, PartitionId(number));
        PlannedMove { partition, from: nodes(from), to: nodes(to) }
    }

    #[test]
    fn a_partition_that_changed_its_leader_while_it_was_measured_has_the_load_of_both() {
        let partition = planned(0, &[1], &[1]).partition;
        let rate = |node, bytes_in| {
            let traffic = PerSecond { bytes_in, bytes_out: 1.0, ..PerSecond::default() };
            Rate { node: NodeId(node), partition, leads: node == 1, traffic }
        };
        let load = Load { bytes_in_per_s: 40, bytes_out_per_s: 2 };
        assert_eq!(loads(&[rate(1, 30.0), rate(2, 10.0)]), [(partition, load)]);
    }

    #[test]
    fn a_plan_costs_the_bytes_that_it_copies_and_a_change_of_leaders_costs_none() {
        let moves = vec![planned(0, &[1, 2], &[3, 2]), planned(1, &[1, 2], &[2, 1])];
        let sizes = moves.iter().map(|planned| (planned.partition, 2048)).collect();
        let plan = PlanBalanceResponse { moves, before: Vec::new(), after: Vec::new() };
        let cost = Cost::of(&plan, &sizes);
        assert_eq!(cost, Cost { partitions: 2, leaders_only: 1, bytes: 2048 });
        assert_eq!(cost.to_string(), "2 partitions, 2.0 KiB to copy (1 of them only in who leads)");
    }
}
