//! `hw partition cancel`: moves go back to where they began.

use std::io::{self, IsTerminal};

use anstream::eprintln;
use clap::Args;
use highwater_client::{MoveInfo, NodeId, PlannedMove, TopicPartition};
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids};
use crate::plan::Begun;
use crate::reassign::{Names, resolve, title};
use crate::target::Target;
use crate::{confirm, human};

#[derive(Debug, Args)]
pub struct CancelArgs {
    /// Topics, or single partitions such as orders/3
    #[arg(value_name = "TOPIC[/P]", required_unless_present = "all")]
    pub targets: Vec<Target>,
    /// Everything that is moving
    #[arg(long, conflicts_with = "targets")]
    pub all: bool,
    /// Do not ask before everything goes back
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would go back, cancel nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Has moves go back.
pub async fn run(args: CancelArgs, settings: &Settings) -> Result<Exit, Failure> {
    if args.all && !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("cancelling every move asks first, but there is no terminal")
            .way_out("-y to cancel without asking, --dry-run to see what would go back"));
    }
    let admin = settings.connect().await?.admin();
    let (mut partitions, names) = resolve(&admin, &args.targets).await?;
    let moving = admin.list_moves().await?;
    if args.all {
        partitions = moving.iter().map(|info| info.planned.partition).collect();
    } else {
        // Of a whole topic only what moves is meant; a partition that was named must be moving.
        let named = |at: &TopicPartition| {
            let exactly = |target: &Target| {
                target.partition == Some(at.partition.0)
                    && names.get(&at.topic) == Some(&target.topic)
            };
            args.targets.iter().any(exactly)
        };
        let moves = |at: &TopicPartition| moving.iter().any(|info| info.planned.partition == *at);
        partitions.retain(|at| named(at) || moves(at));
    }
    let back = |info: &MoveInfo| PlannedMove {
        partition: info.planned.partition,
        from: info.planned.to.clone(),
        to: info.planned.from.clone(),
    };
    let ours = moving.iter().filter(|info| partitions.contains(&info.planned.partition));
    let planned: Vec<PlannedMove> = ours.map(back).collect();
    if args.dry_run {
        cancelled_page(&planned, &names, Begun::No).print(args.output.format)?;
        eprintln!("would have {} go back", human::counted(planned.len(), "partition"));
        return Ok(Exit::Fine);
    }
    if partitions.is_empty() {
        let of = if args.all { "nothing" } else { "none of them" };
        eprintln!("nothing to cancel: {of} is moving");
        cancelled_page(&[], &names, Begun::Yes).print_for_programs(args.output.format)?;
        return Ok(Exit::Fine);
    }
    if args.all && !args.yes {
        let what = human::counted(planned.len(), "partition");
        confirm::yes(&format!("Have {what} go back to where they began?"), "nothing was changed")
            .await?;
    }
    // Without names the controller takes what moves by then: moves end while this is asked.
    let named = if args.all { Vec::new() } else { partitions };
    let cancelled = admin.cancel_moves(named).await?;
    for PlannedMove { partition, to, .. } in &cancelled {
        eprintln!("{} goes back to {}", title(*partition, &names), ids(to));
    }
    cancelled_page(&cancelled, &names, Begun::Yes).print_for_programs(args.output.format)?;
    Ok(Exit::Fine)
}

fn cancelled_page(moves: &[PlannedMove], names: &Names, begun: Begun) -> Page {
    let numbers = |set: &[NodeId]| set.iter().map(|node| node.0).collect::<Vec<_>>();
    let row = |planned: &PlannedMove| {
        let name = title(planned.partition, names);
        Row {
            cells: vec![name.clone(), ids(&planned.to)],
            value: json!({
                "topic": names.get(&planned.partition.topic),
                "partition": planned.partition.partition.0,
                "from": numbers(&planned.from),
                "to": numbers(&planned.to),
            }),
            name,
        }
    };
    let columns = const { &[Column::words("PARTITION"), Column::words("BACK TO")] };
    let rows = Rows { field: "moves", columns, rows: moves.iter().map(row).collect() };
    let mut page = Page::list("hw.partition.cancel/1", rows);
    page.field("changed", begun == Begun::Yes && !moves.is_empty());
    page
}

pub const EXAMPLES: &str = "\
Examples:
  hw partition cancel orders/3                     one partition goes back to where it was
  hw partition cancel --all                        everything that is moving, after asking
  hw partition cancel --all --dry-run -o json      what that would be";
