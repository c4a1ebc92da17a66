//! `hw cluster brokers`, `drain`, `undrain`, `decommission`, `remove`: brokers come and go.
//!
//! Draining takes leaders off and moves nothing; decommissioning moves every replica off, with the
//! plan and the progress of `hw partition reassign`; removing takes out what is empty. Whoever stops
//! looking stops nothing: the cluster goes on, and `brokers` shows how far it is.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anstream::eprintln;
use clap::{Args, Subcommand};
use highwater_client::{
    Admin, BrokerDuty, BrokerInfo, BrokerStatus, DryRun, NodeId, Unretired, Vote,
};
use serde_json::json;

use crate::confirm;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids, or_dash};
use crate::watch::Watch;
use crate::{human, moving, reassign};

#[derive(Debug, Args)]
pub struct BrokersArgs {
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The broker's id
    #[arg(value_name = "BROKER")]
    pub broker: u32,
    /// Show what it leads now, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until it leads nothing
    #[arg(long)]
    pub detach: bool,
}

#[derive(Debug, Args)]
pub struct UndrainArgs {
    /// The broker's id
    #[arg(value_name = "BROKER")]
    pub broker: u32,
}

#[derive(Debug, Args)]
pub struct DecommissionArgs {
    /// The broker's id
    #[arg(value_name = "BROKER")]
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
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The broker's id
    #[arg(value_name = "BROKER")]
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
}

#[derive(Debug, Subcommand)]
pub enum ControllerVerb {
    /// Give a broker a vote
    #[command(after_help = CONTROLLER_EXAMPLES)]
    Add(ControllerArgs),
    /// Take the vote of a broker
    #[command(visible_alias = "rm", after_help = CONTROLLER_EXAMPLES)]
    Remove(ControllerArgs),
}

#[derive(Debug, Args)]
pub struct ControllerArgs {
    /// The broker's id
    #[arg(value_name = "BROKER")]
    pub broker: u32,
    /// Show who would vote then, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

const COLUMNS: &[Column] = &[
    Column::words("BROKER"),
    Column::words("ADDRESS"),
    Column::words("RACK"),
    Column::words("STATE"),
    Column::words("DUTY"),
    Column::words("CONTROLLER"),
    Column::number("REPLICAS"),
    Column::number("LEADS"),
    Column::words("MOVING"),
    Column::number("INCARNATION").wide(),
    Column::words("DIRECTORY").wide(),
];

/// Lists the brokers.
pub async fn list(args: BrokersArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    args.watch.show(args.output.format, async || Ok((page(&admin).await?, Exit::Fine))).await
}

async fn page(admin: &Admin) -> Result<Page, Failure> {
    let info = admin.cluster().await?;
    // A broker of an older build does not know of duties; the rest is of use without them.
    let statuses = admin.brokers().await.unwrap_or_default();
    let row = |broker: &BrokerInfo| {
        let status = statuses.iter().find(|status| status.node == broker.node);
        row(broker, status, info.controller)
    };
    let rows = info.brokers.iter().map(row).collect();
    let mut page =
        Page::list("hw.cluster.brokers/1", Rows { field: "brokers", columns: COLUMNS, rows });
    page.field("cluster_id", info.cluster_id.as_str());
    Ok(page)
}

fn row(broker: &BrokerInfo, status: Option<&BrokerStatus>, controller: Option<NodeId>) -> Row {
    let state = if broker.fenced { "fenced" } else { "up" };
    let leads_controller = controller == Some(broker.node);
    let controls = match (leads_controller, status.is_some_and(|status| status.controller)) {
        (true, _) => "leads",
        (false, true) => "votes",
        (false, false) => "",
    };
    let count = |count: fn(&BrokerStatus) -> u32| status.map(count);
    Row {
        name: broker.node.to_string(),
        cells: vec![
            broker.node.to_string(),
            broker.address.clone(),
            or_dash(broker.rack.as_ref()),
            state.to_owned(),
            or_dash(status.map(duty)),
            controls.to_owned(),
            or_dash(count(|status| status.replicas)),
            or_dash(count(|status| status.leads)),
            status.map(moving).unwrap_or_default(),
            broker.incarnation.to_string(),
            broker.directory.to_string(),
        ],
        value: json!({
            "broker": broker.node.0,
            "address": broker.address,
            "rack": broker.rack,
            "fenced": broker.fenced,
            "duty": status.map(duty),
            "controller": leads_controller,
            "controller_voter": status.map(|status| status.controller),
            "replicas": count(|status| status.replicas),
            "leads": count(|status| status.leads),
            "going": count(|status| status.going),
            "coming": count(|status| status.coming),
            "lost": count(|status| status.lost),
            "incarnation": broker.incarnation.0,
            "directory": broker.directory.to_string(),
        }),
    }
}

/// What the broker is for and how far that is, in one word.
fn duty(status: &BrokerStatus) -> &'static str {
    match (status.duty, status.leads, status.replicas) {
        (BrokerDuty::Active, _, _) => "active",
        (BrokerDuty::Draining, 0, _) => "drained",
        (BrokerDuty::Draining, _, _) => "draining",
        (BrokerDuty::Leaving, _, 0) if status.coming == 0 => "decommissioned",
        (BrokerDuty::Leaving, _, _) => "decommissioning",
    }
}

fn moving(status: &BrokerStatus) -> String {
    let part = |count: u32, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let parts =
        [part(status.going, "off"), part(status.coming, "on"), part(status.lost, "refilling")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Takes the leaders off a broker, and new work.
pub async fn drain(args: DrainArgs, settings: &Settings) -> Result<Exit, Failure> {
    let (admin, node) = (settings.connect().await?.admin(), NodeId(args.broker));
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    let set = admin.set_duty(node, BrokerDuty::Draining, dry_run).await?;
    if args.dry_run {
        let leads = find(&admin, node).await?.map_or(0, |status| status.leads);
        eprintln!("would hand over the {leads} partitions that broker {node} leads");
        return Ok(Exit::Fine);
    }
    if set.before == BrokerDuty::Leaving {
        eprintln!("broker {node} is not decommissioned any more; moves that are under way go on");
    }
    if args.detach {
        eprintln!("begun; `hw cluster brokers -w` shows how far it is");
        return Ok(Exit::Fine);
    }
    let mut last = None;
    let (mut changed, mut told) = (Instant::now(), false);
    loop {
        let Some(status) = find(&admin, node).await? else {
            return Err(Failure::new(
                Exit::NotFound,
                format!("broker {node} was removed meanwhile"),
            ));
        };
        if last != Some(status.leads) {
            eprintln!("broker {node} leads {} partitions", status.leads);
            (last, changed) = (Some(status.leads), Instant::now());
        }
        if status.leads == 0 {
            eprintln!("drained: it keeps its {} replicas and gets no new ones", status.replicas);
            return Ok(Exit::Fine);
        }
        if !told && changed.elapsed() > STUCK_AFTER {
            told = true;
            eprintln!(
                "no other replica of these is in sync, so nobody can take them over: \
                 `hw partition list --problem under-replicated` shows which"
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Gives a broker work again.
pub async fn undrain(args: UndrainArgs, settings: &Settings) -> Result<Exit, Failure> {
    let (admin, node) = (settings.connect().await?.admin(), NodeId(args.broker));
    let set = admin.set_duty(node, BrokerDuty::Active, DryRun::No).await?;
    match set.before {
        BrokerDuty::Active => eprintln!("broker {node} was active already"),
        BrokerDuty::Draining | BrokerDuty::Leaving => {
            eprintln!(
                "broker {node} is active; it leads again what it is preferred for in a moment"
            );
        }
    }
    let going = find(&admin, node).await?.map_or(0, |status| status.going);
    if going > 0 {
        eprintln!("{going} replicas still move off it: `hw partition cancel` has them stay");
    }
    Ok(Exit::Fine)
}

/// Moves everything off a broker that is to go.
pub async fn decommission(args: DecommissionArgs, settings: &Settings) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("decommissioning asks first, but there is no terminal")
            .way_out("-y to begin without asking, --dry-run to see what would move"));
    }
    let (admin, node) = (settings.connect().await?.admin(), NodeId(args.broker));
    let plan = admin.set_duty(node, BrokerDuty::Leaving, DryRun::Yes).await?.moves;
    let (_, names) = reassign::resolve(&admin, &[]).await?;
    let bytes = reassign::show_plan(&admin, &plan, &names).await;
    let what = format!("{} partitions, {} to copy", plan.len(), human::bytes(bytes));
    if args.dry_run {
        eprintln!("would move {what}");
        return Ok(Exit::Fine);
    }
    if !args.yes {
        confirm::yes(&format!("Move {what} off broker {node}?"), "nothing was changed")?;
    }
    let begun = admin.set_duty(node, BrokerDuty::Leaving, DryRun::No).await?.moves;
    if args.detach {
        eprintln!("begun; `hw partition moves -w` shows how far it is");
        return Ok(Exit::Fine);
    }
    moving::follow(&admin, &begun, &names).await?;
    // Moves that were under way before are none of the plan's.
    while find(&admin, node).await?.is_some_and(|status| status.replicas + status.coming > 0) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    eprintln!("broker {node} hosts nothing any more; stop it, then `hw cluster remove {node}`");
    Ok(Exit::Fine)
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
    if args.dry_run {
        eprintln!("broker {node} could be removed");
        return Ok(Exit::Fine);
    }
    if !args.yes {
        let question = format!(
            "Remove broker {node}? Its process ends, and its data directory registers no more."
        );
        confirm::yes(&question, "nothing was changed")?;
    }
    admin.remove_broker(node, unretired, DryRun::No).await?;
    eprintln!("broker {node} is no part of the cluster any more");
    Ok(Exit::Fine)
}

/// Has one broker more vote on the metadata, or one fewer.
pub async fn controller(verb: ControllerVerb, settings: &Settings) -> Result<Exit, Failure> {
    let (args, vote) = match verb {
        ControllerVerb::Add(args) => (args, Vote::Add),
        ControllerVerb::Remove(args) => (args, Vote::Remove),
    };
    let admin = settings.connect().await?.admin();
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    let voters = admin.change_controller(NodeId(args.broker), vote, dry_run).await?;
    let verb = if args.dry_run { "would vote" } else { "vote" };
    eprintln!("brokers {} {verb} on the metadata", ids(&voters));
    if voters.len() % 2 == 0 {
        eprintln!("an even number bears no more failures than one fewer: add or remove another");
    }
    Ok(Exit::Fine)
}

async fn find(admin: &Admin, node: NodeId) -> Result<Option<BrokerStatus>, Failure> {
    Ok(admin.brokers().await?.into_iter().find(|status| status.node == node))
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// With nothing handed over for so long, a person should know why.
const STUCK_AFTER: Duration = Duration::from_secs(10);

pub const BROKERS_EXAMPLES: &str = "\
Examples:
  hw cluster brokers
  hw cluster brokers -o wide
  hw cluster brokers -w                            while one is drained or decommissioned

DUTY is what the operator wants: active, draining or drained (leads nothing, gets nothing new),
decommissioning or decommissioned (and its replicas move off). STATE is what the cluster sees.";

pub const DRAIN_EXAMPLES: &str = "\
Examples:
  hw cluster drain 2                               before work on its machine
  hw cluster drain 2 --dry-run                     how much it leads

Its replicas stay and keep up, and it gets no new ones; `hw cluster undrain 2` takes it back.
A restart needs no drain: a broker that is stopped hands over what it leads.";

pub const UNDRAIN_EXAMPLES: &str = "\
Examples:
  hw cluster undrain 2
  hw cluster undrain 2 && hw partition cancel --all      after a decommission that was begun";

pub const DECOMMISSION_EXAMPLES: &str = "\
Examples:
  hw cluster decommission 4 --dry-run              what would move, and where to
  hw cluster decommission 4 -y
  hw cluster decommission 4 -y && hw cluster remove 4 -y

Every replica is copied before it is given up, eight partitions at a time. Ctrl-C stops the looking,
not the moves. Asked for again, it moves what is left. A broker that votes on the cluster's metadata
has to lose its vote first: `hw cluster controller remove`.";

pub const CONTROLLER_EXAMPLES: &str = "\
Examples:
  hw cluster controller add 4
  hw cluster controller remove 1                   before broker 1 is decommissioned
  hw cluster controller remove 1 --dry-run

A majority of the voters must be alive for anything about the cluster to change; records flow without.
The brokers' own configuration names those that the cluster began with, and need not be changed.";

pub const REMOVE_EXAMPLES: &str = "\
Examples:
  hw cluster remove 4                              after `hw cluster decommission 4`
  hw cluster remove 4 --force -y                   it is dead and hosts nothing

A broker that hosts a replica, or is about to, is never removed.";

#[cfg(test)]
mod tests {
    use super::*;

    fn status(duty: BrokerDuty, replicas: u32, leads: u32) -> BrokerStatus {
        let node = NodeId(4);
        BrokerStatus {
            node,
            duty,
            controller: false,
            replicas,
            leads,
            going: 0,
            coming: 0,
            lost: 0,
        }
    }

    #[test]
    fn a_duty_says_how_far_it_is() {
        let said = |wanted, replicas, leads| duty(&status(wanted, replicas, leads));
        assert_eq!(said(BrokerDuty::Active, 0, 0), "active");
        assert_eq!(said(BrokerDuty::Draining, 3, 1), "draining");
        assert_eq!(said(BrokerDuty::Draining, 3, 0), "drained");
        assert_eq!(said(BrokerDuty::Leaving, 3, 0), "decommissioning");
        assert_eq!(said(BrokerDuty::Leaving, 0, 0), "decommissioned");
    }

    #[test]
    fn what_moves_is_said_in_words_and_nothing_where_nothing_does() {
        let still = status(BrokerDuty::Active, 3, 1);
        assert_eq!(moving(&still), "");
        let busy = BrokerStatus { going: 2, coming: 1, lost: 4, ..still };
        assert_eq!(moving(&busy), "2 off, 1 on, 4 refilling");
    }
}
