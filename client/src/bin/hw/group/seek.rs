//! `hw group seek`: where a group without members goes on.

use anstream::eprintln;
use clap::Args;
use highwater_client::{
    Admin, Offset, OffsetAt, OffsetToCommit, PartitionId, Timestamp, TopicPartition,
};

use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::record::position::{Bounds, Position};
use crate::target::Target;
use crate::trim::parse_position;

#[derive(Debug, Args)]
pub struct SeekArgs {
    /// The group's name
    pub group: String,
    /// A topic, or one partition of it such as orders/3
    #[arg(value_name = "TOPIC[/P]")]
    pub target: Target,
    /// Where to go on: start, end, an offset, @TIME, +N or -N
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true, value_parser = parse_position)]
    pub to: Position,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

pub async fn run(args: SeekArgs, admin: &Admin) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run {
        confirm::terminal_for("seeking asks first", "-y to do it without asking")?;
    }
    let SeekArgs { group, target, to, yes, dry_run } = args;
    let detail = admin.describe_topic(&target.topic).await?;
    let known = admin.group_offsets(&group).await?;
    let mut offsets = Vec::new();
    for info in &detail.partitions {
        if target.partition.is_some_and(|wanted| wanted != info.partition.0) {
            continue;
        }
        let partition = TopicPartition::new(detail.id, info.partition);
        let offset = place(admin, &target.topic, info.partition, to).await?;
        let before = known.iter().find(|it| it.partition == partition).map(|it| it.offset);
        let before = before.map_or("nothing".to_owned(), |offset| offset.to_string());
        eprintln!("{}/{}: {before} -> {offset}", target.topic, info.partition);
        offsets.push(OffsetToCommit { partition, offset, term: None, note: String::new() });
    }
    if offsets.is_empty() {
        let what = format!("topic {} has {} partitions", target.topic, detail.partitions.len());
        return Err(Failure::usage(what).way_out("name one that it has, or none for all of them"));
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

Stop the group's members first: while it has any, what they commit would overwrite it.";
