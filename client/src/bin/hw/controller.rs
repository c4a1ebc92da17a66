//! `hw cluster controller`: who votes on the cluster's metadata.

use anstream::eprintln;
use clap::{Args, Subcommand};
use highwater_client::{Admin, DryRun, NodeId, Vote};
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids};
use crate::target::parse_broker;
use crate::watch::Watch;

#[derive(Debug, Subcommand)]
pub enum ControllerVerb {
    /// Show who votes, and who leads
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        watch: Watch,
        /// How to print it.
        #[command(flatten)]
        output: ReadOutput,
    },
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
    #[arg(value_name = "BROKER", value_parser = parse_broker)]
    pub broker: u32,
    /// Show who would vote then, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Carries out a verb.
pub async fn run(verb: ControllerVerb, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    match verb {
        ControllerVerb::List { watch, output } => {
            watch.show(output.format, async || Ok((list(&admin).await?, Exit::Fine))).await
        }
        ControllerVerb::Add(args) => change(&admin, args, Vote::Add).await,
        ControllerVerb::Remove(args) => change(&admin, args, Vote::Remove).await,
    }
}

/// Has one broker more vote on the metadata, or one fewer.
async fn change(admin: &Admin, args: ControllerArgs, vote: Vote) -> Result<Exit, Failure> {
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    let voters = admin.change_controller(NodeId(args.broker), vote, dry_run).await?;
    let verb = if args.dry_run { "would vote" } else { "vote" };
    eprintln!("brokers {} {verb} on the metadata", ids(&voters));
    if voters.len() % 2 == 0 {
        eprintln!("an even number bears no more failures than one fewer: add or remove another");
    }
    let mut page = Page::describe("hw.cluster.controller.alter/1", args.broker.to_string());
    page.field("broker", args.broker);
    page.field("voters", voters.iter().map(|node| node.0).collect::<Vec<_>>());
    page.field("changed", !args.dry_run);
    page.print_for_programs(args.output.format)?;
    Ok(Exit::Fine)
}

const COLUMNS: &[Column] =
    &[Column::words("BROKER"), Column::words("CONTROLLER"), Column::words("STATE")];

async fn list(admin: &Admin) -> Result<Page, Failure> {
    let info = admin.cluster().await?;
    let voters: Vec<NodeId> =
        admin.brokers().await?.into_iter().filter(|it| it.controller).map(|it| it.node).collect();
    let row = |node: &NodeId| {
        let leads = info.controller == Some(*node);
        let known = info.brokers.iter().find(|broker| broker.node == *node);
        let state = crate::brokers::state_word(known.is_none_or(|broker| broker.fenced));
        let word = if leads { "leads" } else { "votes" };
        Row {
            name: node.to_string(),
            cells: vec![node.to_string(), word.to_owned(), state.to_owned()],
            value: json!({
                "broker": node.0, "controller_leads": leads, "controller_votes": true,
                "fenced": known.is_none_or(|broker| broker.fenced),
            }),
        }
    };
    let rows = voters.iter().map(row).collect();
    let rows = Rows { field: "brokers", columns: COLUMNS, rows };
    let mut page = Page::list("hw.cluster.controller/1", rows);
    page.field("voters", voters.iter().map(|node| node.0).collect::<Vec<_>>());
    Ok(page)
}

const LIST_EXAMPLES: &str = "\
Examples:
  hw cluster controller list
  hw cluster controller list -w -o jsonl           while votes are given and taken";

pub const CONTROLLER_EXAMPLES: &str = "\
Examples:
  hw cluster controller add 4
  hw cluster controller remove 1                   before broker 1 is decommissioned
  hw cluster controller remove 1 --dry-run

A majority of the voters must be alive for anything about the cluster to change; records flow without.
The brokers' own configuration names those that the cluster began with, and need not be changed.";
