//! `hw group seek`: where a group without members goes on, at one place in all partitions or as a file says.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anstream::eprintln;
use clap::Args;
use highwater_client::{
    Admin, Offset, OffsetAt, OffsetToCommit, PartitionId, Timestamp, TopicDetail, TopicPartition,
};

use super::export;
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::record::position::{Bounds, Position};
use crate::target::{PartitionName, Target};
use crate::trim::parse_position;

#[derive(Debug, Args)]
pub struct SeekArgs {
    /// The group's name
    pub group: String,
    /// A topic, or one partition of it such as orders/3
    #[arg(value_name = "TOPIC[/P]", required_unless_present = "from_file", requires = "to")]
    pub target: Option<Target>,
    /// Where to go on: start, end, an offset, @TIME, +N or -N
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, value_parser = parse_position)]
    pub to: Option<Position>,
    /// Where to go on in each partition, as `hw group export` printed it; - for the standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["target", "to"])]
    pub from_file: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Where to go on in one partition.
struct Wish {
    name: PartitionName,
    to: Position,
}

pub async fn run(args: SeekArgs, admin: &Admin) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run {
        confirm::terminal_for("seeking asks first", "-y to do it without asking")?;
    }
    let SeekArgs { group, target, to, from_file, yes, dry_run } = args;
    let mut topics = Topics { admin, known: BTreeMap::new() };
    let wishes = match (target, to, from_file) {
        (Some(target), Some(to), _) => in_topic(&mut topics, &target, to).await?,
        (_, _, Some(file)) => in_file(&file)?,
        (_, _, None) => unreachable!("the command line asks for one of them"),
    };
    let known = admin.group_offsets(&group).await?;
    let mut offsets = Vec::new();
    for Wish { name, to } in wishes {
        let partition = topics.partition(&name).await?;
        let offset = place(admin, &name.topic, partition.partition, to).await?;
        let before = known.iter().find(|it| it.partition == partition).map(|it| it.offset);
        let before = before.map_or("nothing".to_owned(), |offset| offset.to_string());
        eprintln!("{name}: {before} -> {offset}");
        offsets.push(OffsetToCommit { partition, offset, term: None, note: String::new() });
    }
    let what = format!("group {group} in {}", human::counted(offsets.len(), "partition"));
    if dry_run {
        eprintln!("would set {what}");
        return Ok(Exit::Fine);
    }
    if !yes {
        confirm::yes(&format!("Set {what}?"), "nothing was changed").await?;
    }
    admin.set_group_offsets(&group, offsets).await?;
    eprintln!("set {what}");
    Ok(Exit::Fine)
}

/// One place in a partition, or in all that a topic has.
async fn in_topic(
    topics: &mut Topics<'_>,
    target: &Target,
    to: Position,
) -> Result<Vec<Wish>, Failure> {
    let topic = &target.topic;
    let numbers: Vec<u32> = match target.partition {
        Some(partition) => vec![partition],
        None => topics.topic(topic).await?.partitions.iter().map(|it| it.partition.0).collect(),
    };
    let name = |partition| PartitionName { topic: topic.clone(), partition };
    Ok(numbers.into_iter().map(|number| Wish { name: name(number), to }).collect())
}

fn in_file(file: &Path) -> Result<Vec<Wish>, Failure> {
    let read = || -> std::io::Result<String> {
        if file != Path::new("-") {
            return std::fs::read_to_string(file);
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        Ok(text)
    };
    let shown = file.display();
    let wrong = |why: String| {
        let way_out = "give a file that `hw group export` wrote";
        Failure::usage(format!("cannot take offsets from {shown}: {why}")).way_out(way_out)
    };
    let text = read().map_err(|error| wrong(error.to_string()))?;
    let places = export::parse(&text).map_err(wrong)?;
    if places.is_empty() {
        return Err(wrong("it has none".to_owned()));
    }
    let wish =
        |(name, offset): (PartitionName, Offset)| Wish { name, to: Position::Offset(offset.0) };
    Ok(places.into_iter().map(wish).collect())
}

/// Topics that were asked about.
struct Topics<'a> {
    admin: &'a Admin,
    known: BTreeMap<String, TopicDetail>,
}

impl Topics<'_> {
    async fn topic(&mut self, name: &str) -> Result<&TopicDetail, Failure> {
        if !self.known.contains_key(name) {
            self.known.insert(name.to_owned(), self.admin.describe_topic(name).await?);
        }
        Ok(&self.known[name])
    }

    async fn partition(&mut self, name: &PartitionName) -> Result<TopicPartition, Failure> {
        let detail = self.topic(&name.topic).await?;
        if detail.partitions.iter().all(|info| info.partition.0 != name.partition) {
            let count = detail.partitions.len();
            let what = format!("topic {} has {count} partitions, and no {name}", name.topic);
            return Err(Failure::usage(what).way_out("name one that it has"));
        }
        Ok(TopicPartition::new(detail.id, PartitionId(name.partition)))
    }
}

async fn place(
    admin: &Admin,
    topic: &str,
    partition: PartitionId,
    to: Position,
) -> Result<Offset, Failure> {
    let find = async |at| Ok::<_, Failure>(admin.list_offsets(topic, partition, at).await?.offset);
    let (start, end) = (find(OffsetAt::Start).await?, find(OffsetAt::End).await?);
    let meant = match (to, to.resolve(Bounds { start: start.0, end: end.0 })) {
        (Position::Time(ms), _) => find(OffsetAt::Time(Timestamp(ms))).await?,
        (_, resolved) => Offset(resolved.expect("only times need a question")),
    };
    if meant < start || meant > end {
        let what = format!("{topic}/{partition} has offsets {start} up to {end}, not {meant}");
        return Err(Failure::usage(what).way_out("take start, end, or an offset between them"));
    }
    Ok(meant)
}

pub const EXAMPLES: &str = "\
Examples:
  hw group seek billing orders --to start
  hw group seek billing orders/3 --to 1200
  hw group seek billing orders --to @-1h --dry-run
  hw group seek billing orders --to end -y
  hw group seek billing --from-file billing.csv

Stop the group's members first: while it has any, what they commit would overwrite it.";
