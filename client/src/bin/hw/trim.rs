//! `hw topic trim`: deletes the oldest records, with a plan that is confirmed first.
//!
//! Where to cut is resolved to an offset of each partition before anything is asked, so that what
//! was confirmed is what happens, however long the answer took.

use std::io::{self, IsTerminal};

use anstream::eprintln;
use clap::Args;
use highwater_client::{Admin, Offset, OffsetAt, PartitionId, Timestamp};
use serde_json::json;

use crate::confirm;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows};
use crate::record::position::{Bounds, Position};
use crate::target::Target;

#[derive(Debug, Args)]
pub struct TrimArgs {
    /// A topic, or one partition of it such as orders/3
    #[arg(value_name = "TOPIC[/P]")]
    pub target: Target,
    /// Delete what is before this: an offset, @TIME, end, +N or -N
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, value_parser = parse_position)]
    pub before: Position,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would be deleted, delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// One partition's share of the plan.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    partition: PartitionId,
    start: Offset,
    before: Offset,
}

/// Plans, asks, and deletes.
pub async fn run(args: TrimArgs, settings: &Settings) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("trimming asks for the topic's name, but there is no terminal")
            .way_out("-y to trim without asking, --dry-run to see what would be deleted"));
    }
    let admin = settings.connect().await?.admin();
    let topic = &args.target.topic;
    let cuts = plan(&admin, &args).await?;
    if args.dry_run {
        page(topic, &cuts, Done::No).print(args.output.format)?;
    }
    if cuts.is_empty() {
        eprintln!("nothing to delete: no partition of {topic} has records before that");
        if !args.dry_run {
            page(topic, &cuts, Done::Yes).print_for_programs(args.output.format)?;
        }
        return Ok(Exit::Fine);
    }
    let records: u64 = cuts.iter().map(|cut| cut.before.0 - cut.start.0).sum();
    if !args.dry_run {
        for Cut { partition, start, before } in &cuts {
            eprintln!("{topic}/{partition}: offsets {start} up to {before} (exclusive)");
        }
    }
    let what = format!(
        "up to {} of {}",
        human::counted(records as usize, "record"),
        human::counted(cuts.len(), "partition")
    );
    if args.dry_run {
        eprintln!("would delete {what}");
        return Ok(Exit::Fine);
    }
    if !args.yes {
        confirm::deletion(topic, &what).await?;
    }
    let exit = carry_out(&admin, topic, &cuts).await?;
    page(topic, &cuts, Done::Yes).print_for_programs(args.output.format)?;
    Ok(exit)
}

async fn carry_out(admin: &Admin, topic: &str, cuts: &[Cut]) -> Result<Exit, Failure> {
    let (mut done, mut first) = (0, None);
    for cut in cuts {
        match admin.trim_partition(topic, cut.partition, cut.before).await {
            Ok(start) => {
                done += 1;
                eprintln!("{topic}/{} starts at {start} now", cut.partition);
            }
            Err(error) => {
                let failure =
                    Failure::from(error).during(&format!("trim {topic}/{}", cut.partition));
                if cuts.len() == 1 {
                    return Err(failure);
                }
                failure.report();
                first.get_or_insert(failure.exit);
            }
        }
    }
    Ok(match first {
        None => Exit::Fine,
        Some(exit) if done == 0 => exit,
        Some(_) => Exit::Partial,
    })
}

/// Whether it was done, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Yes,
    No,
}

const COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::number("FROM OFFSET"),
    Column::number("UP TO (EXCLUSIVE)"),
];

fn page(topic: &str, cuts: &[Cut], done: Done) -> Page {
    let row = |Cut { partition, start, before }: &Cut| {
        let name = format!("{topic}/{partition}");
        let (from, to) = (start.0, before.0);
        Row {
            cells: vec![name.clone(), start.to_string(), before.to_string()],
            value: json!({
                "topic": topic, "partition": partition.0, "from_offset": from, "before_offset": to,
            }),
            name,
        }
    };
    let rows = Rows { field: "partitions", columns: COLUMNS, rows: cuts.iter().map(row).collect() };
    let mut page = Page::list("hw.topic.trim/1", rows);
    page.field("changed", done == Done::Yes && !cuts.is_empty());
    page
}

async fn plan(admin: &Admin, args: &TrimArgs) -> Result<Vec<Cut>, Failure> {
    let topic = &args.target.topic;
    let partitions = match args.target.partition {
        Some(number) => vec![PartitionId(number)],
        None => {
            let detail = admin.describe_topic(topic).await?;
            detail.partitions.iter().map(|info| info.partition).collect()
        }
    };
    let mut cuts = Vec::new();
    for partition in partitions {
        let start = admin.list_offsets(topic, partition, OffsetAt::Start).await?.offset;
        let end = admin.list_offsets(topic, partition, OffsetAt::End).await?.offset;
        let before = match args.before {
            Position::Time(ms) => {
                let at = OffsetAt::Time(Timestamp(ms));
                admin.list_offsets(topic, partition, at).await?.offset
            }
            other @ (Position::Start
            | Position::End
            | Position::Offset(_)
            | Position::AfterStart(_)
            | Position::BeforeEnd(_)) => {
                let bounds = Bounds { start: start.0, end: end.0 };
                Offset(other.resolve(bounds).expect("only a time needs a question"))
            }
        };
        if before > end {
            let what = format!("{topic}/{partition} ends at {end}, which is before {before}");
            return Err(
                Failure::new(Exit::NotFound, what).way_out("--before end to delete everything")
            );
        }
        if before > start {
            cuts.push(Cut { partition, start, before });
        }
    }
    Ok(cuts)
}

pub fn parse_position(text: &str) -> Result<Position, String> {
    Position::parse(text, jiff::Timestamp::now())
}

pub const EXAMPLES: &str = "\
Examples:
  hw topic trim orders --before @-7d --dry-run     what is older than a week, in every partition
  hw topic trim orders/3 --before 120000           offsets below 120000 of one partition
  hw topic trim orders --before end -y             everything

A partition starts at a batch of records: the batch that holds the offset stays, with what is in it.
Disk space is freed in whole segments.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_or_one_of_its_partitions_is_meant() {
        let target = |partition| Target { topic: "orders".to_owned(), partition };
        assert_eq!("orders".parse(), Ok(target(None)));
        assert_eq!("orders/3".parse(), Ok(target(Some(3))));
        assert!("orders/x".parse::<Target>().is_err());
    }

    #[test]
    fn a_position_is_an_offset_a_time_or_the_end() {
        assert_eq!(parse_position("12"), Ok(Position::Offset(12)));
        assert_eq!(parse_position("end"), Ok(Position::End));
        assert_eq!(parse_position("@1000"), Ok(Position::Time(1000)));
        assert_eq!(parse_position("-5"), Ok(Position::BeforeEnd(5)));
        assert!(parse_position("soon").is_err());
    }
}
