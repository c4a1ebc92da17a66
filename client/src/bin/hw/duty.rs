//! `hw cluster drain`, `undrain`: a broker gives its leaders away and gets no new work, and has its
//! share again. Its replicas stay where they are; `retire` has the verbs that move them.

use std::time::{Duration, Instant};

use anstream::eprintln;
use clap::Args;
use highwater_client::{Admin, BrokerDuty, BrokerStatus, DryRun, NodeId};

use crate::brokers::{duty, find};
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::follow::until_ctrl_c;
use crate::human::counted;
use crate::output::{Page, ReadOutput};
use crate::target::parse_broker;

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The broker's id
    #[arg(value_name = "BROKER", value_parser = parse_broker)]
    pub broker: u32,
    /// Show what it leads now, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until it leads nothing
    #[arg(long)]
    pub detach: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Args)]
pub struct UndrainArgs {
    /// The broker's id
    #[arg(value_name = "BROKER", value_parser = parse_broker)]
    pub broker: u32,
    /// Show what it is now, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Takes the leaders off a broker, and new work.
pub async fn drain(args: DrainArgs, settings: &Settings) -> Result<Exit, Failure> {
    let (admin, node) = (settings.connect().await?.admin(), NodeId(args.broker));
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    let set = admin.set_duty(node, BrokerDuty::Draining, dry_run).await?;
    if args.dry_run {
        let status = status(&admin, node).await?;
        let leads = counted(status.leads as usize, "partition");
        page("hw.cluster.drain/1", &status, dry_run).print(args.output.format)?;
        eprintln!("would hand over the {leads} that broker {node} leads");
        return Ok(Exit::Fine);
    }
    if set.before == BrokerDuty::Leaving {
        eprintln!("broker {node} is not decommissioned any more; moves that are under way go on");
    }
    let exit = match args.detach {
        true => {
            eprintln!("begun; `hw cluster brokers -w` shows how far it is");
            Exit::Fine
        }
        false => {
            let going_on = format!(
                "it goes on: `hw cluster brokers -w` shows how far it is, `hw cluster undrain {node}` takes it back"
            );
            until_ctrl_c(until_drained(&admin, node), &going_on).await?
        }
    };
    let now = status(&admin, node).await?;
    page("hw.cluster.drain/1", &now, dry_run).print_for_programs(args.output.format)?;
    Ok(exit)
}

async fn until_drained(admin: &Admin, node: NodeId) -> Result<Exit, Failure> {
    let mut last = None;
    let (mut changed, mut told) = (Instant::now(), false);
    loop {
        let status = status(admin, node).await?;
        if status.duty == BrokerDuty::Active {
            let what = format!("broker {node} is active again: somebody took it back meanwhile");
            return Err(Failure::new(Exit::Conflict, what)
                .way_out("`hw cluster events --kind duty-changed` shows when"));
        }
        if last != Some(status.leads) {
            eprintln!("broker {node} leads {}", counted(status.leads as usize, "partition"));
            (last, changed) = (Some(status.leads), Instant::now());
        }
        if status.leads == 0 {
            let replicas = counted(status.replicas as usize, "replica");
            eprintln!("drained: it keeps its {replicas} and gets no new ones");
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
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    let set = admin.set_duty(node, BrokerDuty::Active, dry_run).await?;
    let now = status(&admin, node).await?;
    let schema = "hw.cluster.undrain/1";
    if args.dry_run {
        page(schema, &now, dry_run).print(args.output.format)?;
        match set.before {
            BrokerDuty::Active => eprintln!("would change nothing: broker {node} is active"),
            BrokerDuty::Draining | BrokerDuty::Leaving => {
                eprintln!("would give broker {node} leaders and new replicas again");
            }
        }
    } else {
        match set.before {
            BrokerDuty::Active => eprintln!("broker {node} was active already"),
            BrokerDuty::Draining | BrokerDuty::Leaving => eprintln!(
                "broker {node} is active; it leads again what it is preferred for in a moment"
            ),
        }
        page(schema, &now, dry_run).print_for_programs(args.output.format)?;
    }
    if now.going > 0 {
        let going = counted(now.going as usize, "replica");
        eprintln!("{going} on the way off it: `hw partition cancel` has what moves stay");
    }
    Ok(Exit::Fine)
}

async fn status(admin: &Admin, node: NodeId) -> Result<BrokerStatus, Failure> {
    find(admin, node).await?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("broker {node} was removed meanwhile"))
            .way_out("`hw cluster events --kind broker-removed` shows when")
    })
}

/// What a broker is for now.
pub fn page(schema: &'static str, status: &BrokerStatus, dry_run: DryRun) -> Page {
    let mut page = Page::describe(schema, status.node.to_string());
    page.fact("Broker", status.node.to_string());
    page.fact("Duty", duty(status));
    page.fact("Leads", status.leads.to_string());
    page.fact("Replicas", status.replicas.to_string());
    page.field("broker", status.node.0);
    page.field("duty", duty(status));
    page.field("leaders_total", status.leads);
    page.field("replicas_total", status.replicas);
    page.field("changed", dry_run == DryRun::No);
    page
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// With nothing handed over for so long, a person should know why.
const STUCK_AFTER: Duration = Duration::from_secs(10);

pub const DRAIN_EXAMPLES: &str = "\
Examples:
  hw cluster drain 2                               before work on its machine
  hw cluster drain 2 --dry-run                     how much it leads

Its replicas stay and keep up, and it gets no new ones; `hw cluster undrain 2` takes it back.
A restart needs no drain: a broker that is stopped hands over what it leads.";

pub const UNDRAIN_EXAMPLES: &str = "\
Examples:
  hw cluster undrain 2
  hw cluster undrain 2 --dry-run                   what it is now
  hw cluster undrain 2 && hw partition cancel --all -y   after a decommission that was begun";
