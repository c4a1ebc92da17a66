//! `hw partition repair`: what the replicas of a partition cannot read any more, and giving it up.
//!
//! Damage is mended by itself from another replica that can read the range; this shows how that stands. What no
//! replica can give is lost, and keeps the partition from being led: with `--accept-loss` its offsets are printed, the
//! partition's name is asked for, and gaps take the place of the records. One replica does that alone: the others are
//! discarded before and copied from it afterwards (`unsafe_recover`), so that no two of them differ.

mod page;

use std::ops::Range;
use std::time::{Duration, Instant};

use anstream::eprintln;
use clap::Args;
use futures_util::future::join_all;
use highwater_client::{
    Admin, ErrorKind, InspectReplicaResponse, NodeId, Offset, RepairReplicaResponse,
    UnreadableRange,
};
use highwater_protocol::error::ErrorCode;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{ReadOutput, ids};
use crate::target::PartitionName;
use crate::unsafe_recover::{Case, look, recover, refill};
use crate::{confirm, human};

#[derive(Debug, Args)]
pub struct RepairArgs {
    /// The partition, such as orders/3
    #[arg(value_name = "TOPIC/P")]
    pub partition: PartitionName,
    /// Give up the records that no replica can read: gaps take their place
    #[arg(long)]
    pub accept_loss: bool,
    /// What would otherwise be typed in: the partition whose records are given up
    #[arg(long, value_name = "TOPIC/P", requires = "accept_loss")]
    pub yes_i_lose: Option<PartitionName>,
    /// Show what would be given up, change nothing
    #[arg(long, requires = "accept_loss")]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// A replica, and what it cannot read.
#[derive(Debug)]
struct Replica {
    node: NodeId,
    stands: Result<InspectReplicaResponse, String>,
    unreadable: Result<RepairReplicaResponse, String>,
}

/// What becomes of a range that one replica cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    /// It is fetched from one of these.
    From(Vec<NodeId>),
    /// These do not answer, and may have it.
    Perhaps(Vec<NodeId>),
    /// Nobody has it.
    Lost,
}

/// What is to be given up, and where.
#[derive(Debug)]
struct Loss {
    founder: NodeId,
    offsets: Vec<Range<Offset>>,
}

/// Looks, prints, and where it is told to, asks and gives up.
pub async fn run(args: RepairArgs, settings: &Settings) -> Result<Exit, Failure> {
    let name = &args.partition;
    let confirmed = args.yes_i_lose.as_ref() == Some(name);
    if args.accept_loss && !args.dry_run && !confirmed {
        confirm::terminal(
            "--dry-run to see what would be given up, then --yes-i-lose with the partition's name",
        )?;
    }
    let admin = settings.connect().await?.admin();
    let case = look(&admin, name).await?;
    let replicas = seen(&admin, &case).await;
    page::page(name, &replicas).print(args.output.format)?;
    lines(name, &replicas).iter().for_each(|line| eprintln!("{line}"));
    if !args.accept_loss {
        return Ok(Exit::Fine);
    }
    let loss = loss(name, &replicas)?;
    let records: u64 = loss.offsets.iter().map(|range| range.end.since(range.start)).sum();
    eprintln!("{name} loses {} for good:", human::count(records) + " records");
    for Range { start, end } in &loss.offsets {
        let records = human::count(end.since(*start));
        eprintln!("  offsets {start} to {end} (exclusive), {records} records");
    }
    if replicas.len() > 1 {
        let node = loss.founder;
        eprintln!(
            "the replica on broker {node} stays, the others are discarded and copied from it"
        );
    }
    if args.dry_run {
        return Ok(Exit::Fine);
    }
    if !confirmed {
        let warning = "Readers pass over these offsets from then on.";
        confirm::typed(&name.to_string(), warning, "nothing was changed").await?;
    }
    give_up(&admin, name, &case, &loss).await?;
    Ok(Exit::Fine)
}

async fn seen(admin: &Admin, case: &Case) -> Vec<Replica> {
    let ask = async |node| admin.unreadable(node, case.partition, PATIENCE).await;
    let asked = case.seen.iter().map(async |seen| Replica {
        node: seen.node,
        stands: seen.answer.clone(),
        unreadable: ask(seen.node).await.map_err(|error| error.to_string()),
    });
    join_all(asked).await
}

/// What becomes of a range of one of the replicas.
fn way(replicas: &[Replica], of: NodeId, range: &UnreadableRange) -> Way {
    let (mut have, mut silent) = (Vec::new(), Vec::new());
    for other in replicas.iter().filter(|other| other.node != of) {
        match (&other.stands, &other.unreadable) {
            (Ok(stands), Ok(seen)) => {
                let (from, until) =
                    (range.from.max(stands.log_start), range.until.min(stands.log_end));
                let lacked = joined(seen.unreadable.iter().map(|it| it.from..it.until).collect());
                let lacks = |it: &Range<Offset>| it.start <= from && until <= it.end;
                let told = seen.next.is_none_or(|next| until <= next);
                // Whoever has a part of it gives that.
                if from < until && !lacked.iter().any(lacks) {
                    if told { &mut have } else { &mut silent }.push(other.node);
                }
            }
            (Err(_), _) | (_, Err(_)) => silent.push(other.node),
        }
    }
    match (have.is_empty(), silent.is_empty()) {
        (false, _) => Way::From(have),
        (true, false) => Way::Perhaps(silent),
        (true, true) => Way::Lost,
    }
}

fn lines(name: &PartitionName, replicas: &[Replica]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut found = false;
    for replica in replicas {
        let seen = match (&replica.stands, &replica.unreadable) {
            (Ok(_), Ok(seen)) => seen,
            (Err(why), _) | (Ok(_), Err(why)) => {
                lines.push(format!("broker {} does not say what it can read: {why}", replica.node));
                continue;
            }
        };
        found |= !seen.unreadable.is_empty();
        if let Some(next) = seen.next {
            lines.push(format!("broker {} cannot read more, from offset {next} on", replica.node));
        }
        for range in &seen.unreadable {
            let UnreadableRange { from, until, .. } = range;
            let what = format!("offsets {from} to {until} (exclusive) of broker {}", replica.node);
            lines.push(match way(replicas, replica.node, range) {
                Way::From(nodes) => {
                    format!("{what} are mended by themselves, from broker {}", ids(&nodes))
                }
                Way::Perhaps(nodes) => format!(
                    "{what} are mended by themselves once broker {} answers, if it has them",
                    ids(&nodes)
                ),
                Way::Lost => format!(
                    "{what} can be read nowhere; `hw partition repair {name} --accept-loss` gives them up"
                ),
            });
        }
    }
    if !found {
        lines.push(format!("{name}: nobody has found anything that cannot be read"));
    }
    lines
}

/// What can be given up: only what nobody has, and only when nothing else can be done first.
fn loss(name: &PartitionName, replicas: &[Replica]) -> Result<Loss, Failure> {
    let refused = |what: String, way_out: String| {
        Err(Failure::new(Exit::Conflict, format!("{name}: {what}")).way_out(way_out))
    };
    let answers = |it: &&Replica| it.stands.is_ok() && it.unreadable.is_ok();
    if let Some(silent) = replicas.iter().find(|replica| !answers(replica)) {
        let node = silent.node;
        let what = format!("broker {node} does not answer, and may have what the others lack");
        let way_out = format!(
            "start it; if its replica is lost for good: `hw partition unsafe-recover {name}`, then this again"
        );
        return refused(what, way_out);
    }
    let mut lost = false;
    for replica in replicas {
        let node = replica.node;
        for range in replica.unreadable.iter().flat_map(|seen| &seen.unreadable) {
            match way(replicas, node, range) {
                Way::Lost => lost = true,
                Way::From(_) | Way::Perhaps(_) => {
                    let UnreadableRange { from, until, .. } = range;
                    let what = format!(
                        "offsets {from} to {until} of broker {node} can be read elsewhere, and are being fetched"
                    );
                    return refused(what, format!("wait; `hw partition repair {name}` shows them"));
                }
            }
        }
    }
    if !lost {
        let what = "nobody has found anything that cannot be read".to_owned();
        return refused(what, "nothing is to be done".to_owned());
    }
    let leader = replicas.iter().find_map(|it| it.stands.as_ref().ok()?.leader);
    if let Some(leader) = leader.filter(|_| replicas.len() > 1) {
        // It cannot be sure yet that it lacks something, or that nobody has it; what it acknowledges counts.
        let what = format!("broker {leader} leads it");
        return refused(what, "wait until it has stepped down, some seconds".to_owned());
    }
    let standing = replicas.iter().filter_map(|it| Some((it.node, it.stands.as_ref().ok()?)));
    let best = standing.max_by_key(|(node, it)| (Case::place(it), std::cmp::Reverse(*node)));
    let founder = best.map(|(node, _)| node).expect("somebody has offsets that cannot be read");
    let unreadable = replicas.iter().filter(|replica| replica.node == founder);
    let unreadable = unreadable.flat_map(|replica| replica.unreadable.iter());
    let offsets = unreadable.flat_map(|seen| &seen.unreadable).map(|it| it.from..it.until);
    Ok(Loss { founder, offsets: joined(offsets.collect()) })
}

/// The same offsets without overlaps, in their order.
fn joined(mut offsets: Vec<Range<Offset>>) -> Vec<Range<Offset>> {
    offsets.sort_unstable_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<Offset>> = Vec::new();
    for range in offsets {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            Some(_) | None => joined.push(range),
        }
    }
    joined
}

async fn give_up(
    admin: &Admin,
    name: &PartitionName,
    case: &Case,
    loss: &Loss,
) -> Result<(), Failure> {
    let founder = loss.founder;
    let others = case.seen.iter().map(|seen| seen.node).filter(|node| *node != founder);
    let others: Vec<NodeId> = others.collect();
    if !others.is_empty() {
        recover(admin, case, founder, others.clone()).await?;
    }
    let (mut records, mut asked) = (0, Asked::Once);
    for (done, offsets) in loss.offsets.chunks(AT_ONCE_MAX).enumerate() {
        let begun = Instant::now();
        loop {
            let wish = admin.repair_replica(founder, case.partition, offsets.to_vec(), PATIENCE);
            match wish.await {
                Ok(seen) => break records += seen.given_up,
                Err(error) if passes(error.kind()) && begun.elapsed() < GIVEN_UP_WITHIN => {
                    asked = Asked::Again;
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                Err(error) => {
                    let before = &loss.offsets[..done * AT_ONCE_MAX];
                    eprintln!("{}", cut_short_line(&name.to_string(), records, before, offsets));
                    if !others.is_empty() {
                        eprintln!(
                            "{name} was begun anew with the replica on broker {founder} alone: say `hw partition repair \
                             {name} --accept-loss` again, then `hw partition reassign {name} --replicas {}`",
                            others.len() + 1
                        );
                    }
                    return Err(error.into());
                }
            }
        }
    }
    eprintln!("{}", given_up_line(&name.to_string(), records, asked));
    if !others.is_empty() {
        refill(admin, case, founder, false).await?;
    }
    Ok(())
}

/// Whether a refusal ends by itself: another request is under way, this one still is, or the replica is being opened.
fn passes(why: ErrorKind) -> bool {
    match why {
        ErrorKind::TimedOut | ErrorKind::ConnectionLost | ErrorKind::Unreachable => true,
        ErrorKind::Refused(code) => matches!(
            code,
            ErrorCode::Conflict
                | ErrorCode::RequestTimedOut
                | ErrorCode::NotLeader
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::Overloaded
        ),
        _final => false,
    }
}

fn given_up_line(name: &str, records: u64, asked: Asked) -> String {
    match (records, asked) {
        (0, Asked::Once) => {
            format!("{name}: nothing was given up; all that was named can be read again")
        }
        (0, Asked::Again) => {
            format!(
                "{name}: nothing more was given up; an earlier try did it, or it can be read again"
            )
        }
        (_, Asked::Once) => format!("{name}: {} records were given up", human::count(records)),
        (_, Asked::Again) => {
            let records = human::count(records);
            format!(
                "{name}: {records} records were given up, and what earlier tries had begun with"
            )
        }
    }
}

/// What is known of a loss whose giving up failed at some of its offsets: nothing that is gone goes unsaid.
fn cut_short_line(
    name: &str,
    records: u64,
    before: &[Range<Offset>],
    open: &[Range<Offset>],
) -> String {
    let span = |offsets: &[Range<Offset>]| Some((offsets.first()?.start, offsets.last()?.end));
    let mut line = format!("{name}: ");
    if let Some((start, end)) = span(before) {
        let records = human::count(records);
        line +=
            &format!("{records} records of offsets {start} to {end} (exclusive) are given up; ");
    }
    let (start, end) = span(open).expect("some offsets were asked for");
    line + &format!(
        "of offsets {start} to {end} (exclusive) some may be, and nothing behind: `hw partition repair {name}` shows what \
         is left"
    )
}

/// Whether some of it was asked for more than once, for no answer came to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Once,
    Again,
}

const PATIENCE: Duration = Duration::from_secs(8);
/// For each part; a large one takes the broker many passes.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(120);
/// So many runs of batches are given up with one request.
const AT_ONCE_MAX: usize = 100;
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub const EXAMPLES: &str = "\
Examples:
  hw partition repair orders/3                          what replicas cannot read, and who mends it
  hw partition repair orders/3 --accept-loss --dry-run  what would be given up
  hw partition repair orders/3 --accept-loss            asks for the partition's name first
  hw partition repair orders/3 --accept-loss --yes-i-lose orders/3
  hw partition repair orders/3 -o json

Damage is mended by itself while another replica can read the range. What no replica has keeps the partition
from being led, until it is given up: then readers pass over its offsets, which are never used again. Refused
while a replica does not answer or can still give something. Only what somebody has tried to read is known to
be damaged; `hw cluster verify` reads everything.";

#[cfg(test)]
mod tests;
