//! `hw partition throttle`: how fast moves may copy, in the whole cluster and to single brokers.

use anstream::eprintln;
use clap::Args;
use highwater_client::{Admin, NodeId};
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::moving::per_second;
use crate::output::{Column, Page, ReadOutput, Row, Rows};
use crate::target::parse_broker;

#[derive(Debug, Args)]
pub struct ThrottleArgs {
    /// Bytes a second, such as 50MiB, or `none`; without it the limits are shown
    #[arg(value_name = "RATE", value_parser = parse_rate)]
    pub rate: Option<Rate>,
    /// Limit what this broker receives, instead of all brokers together
    #[arg(long, value_name = "BROKER", requires = "rate", value_parser = parse_broker)]
    pub broker: Option<u32>,
    /// Show what would change, change nothing
    #[arg(long, requires = "rate")]
    pub dry_run: bool,
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
pub async fn run(args: ThrottleArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let Some(Rate(rate)) = args.rate else {
        list(&admin).await?.print(args.output.format)?;
        return Ok(Exit::Fine);
    };
    let node = args.broker.map(NodeId);
    if args.dry_run {
        let holds = admin.move_throttle().await?;
        let before = match node {
            None => holds.cluster,
            Some(node) => {
                crate::brokers::known(&admin, node).await?;
                holds.brokers.iter().find(|(known, _)| *known == node).map(|(_, rate)| *rate)
            }
        };
        eprintln!("would change {}: now {}, then {}", whose(node), at_most(before), at_most(rate));
    } else {
        admin.throttle_moves(node, rate).await?;
        eprintln!("{}: {}", whose(node), at_most(rate));
        if rate.is_some() {
            eprintln!("{STAYS}");
        }
    }
    let mut page = Page::describe("hw.partition.throttle.set/1", whose(node));
    page.field("broker", args.broker);
    page.field("bytes_per_s", rate);
    page.field("changed", !args.dry_run);
    page.print_for_programs(args.output.format)?;
    Ok(Exit::Fine)
}

/// Says that a limit outlives the moves for which it was given, if there is one.
pub async fn remind(admin: &Admin) {
    if let Ok(Some(rate)) = admin.move_throttle().await.map(|holds| holds.cluster) {
        eprintln!("moves may still copy {} at most. {STAYS}", per_second(rate));
    }
}

/// What people forget.
const STAYS: &str =
    "It holds for every move until somebody changes it: `hw partition throttle none` lifts it";

async fn list(admin: &Admin) -> Result<Page, Failure> {
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
    Ok(Page::list("hw.partition.throttle/1", rows))
}

fn whose(node: Option<NodeId>) -> String {
    node.map_or_else(|| "all brokers together".to_owned(), |node| format!("broker {node}"))
}

fn at_most(rate: Option<u64>) -> String {
    match rate {
        None => "moves copy as fast as they can".to_owned(),
        Some(rate) => format!("moves copy {} at most", per_second(rate)),
    }
}

pub const EXAMPLES: &str = "\
Examples:
  hw partition throttle                            what holds now
  hw partition throttle 50MiB                      all moves together copy 50 MiB/s at most
  hw partition throttle 10MiB --broker 4           broker 4 receives 10 MiB/s at most
  hw partition throttle none                       as fast as they can
  hw partition throttle 50MiB --dry-run            what holds now, and what would then

It holds at once, also for moves under way, and until it is changed. Only new replicas are held back;
replicas in sync never are. Below the rate at which a partition is written its move cannot end.";
