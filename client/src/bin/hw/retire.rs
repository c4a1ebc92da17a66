//! `hw cluster decommission`, `remove`: everything moves off a broker, and then it is taken out.
//!
//! Whoever stops looking stops nothing: the cluster goes on, and `hw cluster brokers` shows how far it is.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anstream::eprintln;
use clap::Args;
use highwater_client::{Admin, BrokerDuty, DryRun, NodeId, Unretired};

use crate::brokers::find;
use crate::confirm;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::follow::{follow, until_ctrl_c};
use crate::human::counted;
use crate::output::{Page, ReadOutput};
use crate::plan::{Begun, Plan};
use crate::reassign;
use crate::target::parse_broker;

#[derive(Debug, Args)]
pub struct DecommissionArgs {
    /// The broker's id
    #[arg(value_name = "BROKER", value_parser = parse_broker)]
    pub broker: u32,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would move, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Begin the moves and do not wait for their end
    #[arg(long)]
    pub detach: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The broker's id
    #[arg(value_name = "BROKER", value_parser = parse_broker)]
    pub broker: u32,
    /// Also if nobody decommissioned it, provided that it is dead and hosts nothing
    #[arg(long)]
    pub force: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Check whether it could be removed, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Moves everything off a broker that is to go.
pub async fn decommission(args: DecommissionArgs, settings: &Settings) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("decommissioning asks first, but there is no terminal")
            .way_out("-y to begin without asking, --dry-run to see what would move"));
    }
    let (admin, node) = (settings.connect().await?.admin(), NodeId(args.broker));
    let moves = admin.set_duty(node, BrokerDuty::Leaving, DryRun::Yes).await?.moves;
    let (_, names) = reassign::resolve(&admin, &[]).await?;
    let plan = Plan::of(&admin, &moves, &names).await;
    if args.dry_run {
        plan.page(SCHEMA, Begun::No).print(args.output.format)?;
        eprintln!("would move {}", plan.size());
        return Ok(Exit::Fine);
    }
    plan.tell();
    if !args.yes {
        let question = format!("Move {} off broker {node}?", plan.size());
        confirm::yes(&question, "nothing was changed").await?;
    }
    let begun = admin.set_duty(node, BrokerDuty::Leaving, DryRun::No).await?.moves;
    Plan::of(&admin, &begun, &names)
        .await
        .page(SCHEMA, Begun::Yes)
        .print_for_programs(args.output.format)?;
    if args.detach {
        eprintln!("begun; `hw partition moves -w` shows how far it is");
        return Ok(Exit::Fine);
    }
    match follow(&admin, &begun, &names).await? {
        Exit::Fine => {}
        other => return Ok(other),
    }
    let going_on = format!("it goes on: `hw cluster brokers -w` shows how far broker {node} is");
    until_ctrl_c(until_empty(&admin, node), &going_on).await
}

/// Waits for moves that were under way before and are none of the plan's.
async fn until_empty(admin: &Admin, node: NodeId) -> Result<Exit, Failure> {
    let (mut told, mut idle_since) = (None, Instant::now());
    loop {
        let Some(status) = find(admin, node).await? else {
            eprintln!("broker {node} is no part of the cluster any more: somebody removed it");
            return Ok(Exit::Fine);
        };
        if status.duty != BrokerDuty::Leaving {
            let what =
                format!("broker {node} is not decommissioned any more: somebody took it back");
            return Err(Failure::new(Exit::Conflict, what)
                .way_out("`hw cluster events --kind duty-changed` shows when"));
        }
        let left = (status.replicas, status.going, status.coming);
        if (left.0, left.2) == (0, 0) {
            eprintln!(
                "broker {node} hosts nothing any more; stop it, then `hw cluster remove {node}`"
            );
            return Ok(Exit::Fine);
        }
        if told != Some(left) {
            (told, idle_since) = (Some(left), Instant::now());
            let stay = counted(status.replicas as usize, "replica");
            eprintln!(
                "broker {node} still has {stay}: {} on the way off it, {} on the way to it",
                status.going, status.coming
            );
        }
        if (status.going, status.coming) == (0, 0) && idle_since.elapsed() > LATE_MAX {
            let what = format!(
                "{} on broker {node} and nothing moves: moves off it were cancelled",
                counted(status.replicas as usize, "replica")
            );
            return Err(Failure::new(Exit::Conflict, what).way_out(format!(
                "`hw cluster decommission {node}` again moves what is left, `hw cluster undrain {node}` keeps the broker"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Takes an empty broker out of the cluster.
pub async fn remove(args: RemoveArgs, settings: &Settings) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("removing a broker asks first, but there is no terminal")
            .way_out("-y to remove it without asking, --dry-run to see whether it could be"));
    }
    let (admin, node) = (settings.connect().await?.admin(), NodeId(args.broker));
    let unretired = if args.force { Unretired::IfDead } else { Unretired::Refuse };
    admin.remove_broker(node, unretired, DryRun::Yes).await?;
    let mut page = Page::describe("hw.cluster.remove/1", node.to_string());
    page.field("broker", node.0);
    page.field("changed", !args.dry_run);
    if args.dry_run {
        eprintln!("broker {node} could be removed");
        page.print_for_programs(args.output.format)?;
        return Ok(Exit::Fine);
    }
    if !args.yes {
        let question = format!(
            "Remove broker {node}? Its process ends, and its data directory registers no more."
        );
        confirm::yes(&question, "nothing was changed").await?;
    }
    admin.remove_broker(node, unretired, DryRun::No).await?;
    eprintln!("broker {node} is no part of the cluster any more");
    page.print_for_programs(args.output.format)?;
    Ok(Exit::Fine)
}

const SCHEMA: &str = "hw.cluster.decommission/1";
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A broker that is a moment late may show neither a move nor its end.
const LATE_MAX: Duration = Duration::from_secs(5);

pub const DECOMMISSION_EXAMPLES: &str = "\
Examples:
  hw cluster decommission 4 --dry-run              what would move, and where to
  hw cluster decommission 4 -y
  hw cluster decommission 4 -y && hw cluster remove 4 -y

Every replica is copied before it is given up, eight partitions at a time. Ctrl-C stops the looking,
not the moves. Asked for again, it moves what is left. A broker that votes on the cluster's metadata
has to lose its vote first: `hw cluster controller remove`.";

pub const REMOVE_EXAMPLES: &str = "\
Examples:
  hw cluster remove 4                              after `hw cluster decommission 4`
  hw cluster remove 4 --force -y                   it is dead and hosts nothing

A broker that hosts a replica, or is about to, is never removed.";
