//! `hw partition unsafe-recover`: a partition whose majority is lost for good goes on with what one
//! replica has.
//!
//! Everyone alive is asked first where it stands, so that what will be lost is printed before it is; then
//! the partition's name must be typed. What is decided here only chooses and warns: the controller
//! refuses by itself while replicas that are not given up could elect a leader.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use anstream::eprintln;
use clap::Args;
use futures_util::future::join_all;
use highwater_client::{
    Admin, BrokerInfo, ClusterEvent, DryRun, InspectReplicaResponse, MoveWish, NodeId, Offset,
    PartitionId, Term, TopicDetail, TopicPartition,
};

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::ids;
use crate::reassign::Names;
use crate::target::PartitionName;
use crate::{confirm, follow, human};

#[derive(Debug, Args)]
pub struct UnsafeRecoverArgs {
    /// Partitions that have lost their majority for good, such as orders/3
    #[arg(value_name = "TOPIC/P", required = true)]
    pub partitions: Vec<PartitionName>,
    /// Go on with this broker's replica, not with the one that has most
    #[arg(long, value_name = "BROKER")]
    pub broker: Option<u32>,
    /// What would otherwise be typed in: the partitions whose missing records are given up
    #[arg(long, value_name = "TOPIC/P", value_delimiter = ',')]
    pub yes_i_lose: Vec<PartitionName>,
    /// Leave the partition with the one replica
    #[arg(long)]
    pub no_refill: bool,
    /// Begin to copy the other replicas and do not wait for them
    #[arg(long)]
    pub detach: bool,
    /// Show what would be lost, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A replica, as far as it can be asked.
#[derive(Debug)]
struct Seen {
    node: NodeId,
    fenced: bool,
    /// When the controller lost touch with its broker, in words.
    since: Option<String>,
    answer: Result<Standing, String>,
}

/// Where a replica stands.
#[derive(Debug)]
struct Standing {
    inspected: InspectReplicaResponse,
    /// The term of the last batch of its log: what makes one log better than another.
    last_term: Term,
}

/// What there is to be decided about one partition.
#[derive(Debug)]
struct Case {
    name: PartitionName,
    partition: TopicPartition,
    replicas: Vec<NodeId>,
    seen: Vec<Seen>,
}

/// Looks, prints, asks, recovers, and has the other replicas copied.
pub async fn run(args: UnsafeRecoverArgs, settings: &Settings) -> Result<Exit, Failure> {
    if args.partitions.iter().any(|name| name.topic == CLUSTER) {
        return Err(Failure::usage(format!(
            "{CLUSTER} cannot be recovered so: the controller would have to decide it, and is what was lost"
        ))
        .way_out("bring a majority of the controller's brokers back with their disks"));
    }
    let unconfirmed = |name: &&PartitionName| !args.yes_i_lose.contains(name);
    if !args.dry_run
        && !io::stdin().is_terminal()
        && args.partitions.iter().any(|it| unconfirmed(&it))
    {
        return Err(Failure::usage("this asks for the partition's name, but there is no terminal")
            .way_out(
                "--dry-run to see what would be lost, then --yes-i-lose with each partition's name",
            ));
    }
    let admin = settings.connect().await?.admin();
    for name in &args.partitions {
        let case = look(&admin, name).await?;
        let survivor = choose(&case, args.broker.map(NodeId))?;
        report(&case, survivor);
        if args.dry_run {
            continue;
        }
        if unconfirmed(&name) {
            confirm::typed(
                &name.to_string(),
                "What is not listed as kept is lost for good, also where it was acknowledged.",
                "nothing was changed",
            )?;
        }
        recover(&admin, &case, survivor).await?;
        if !args.no_refill {
            refill(&admin, &case, survivor, args.detach).await?;
        }
    }
    Ok(Exit::Fine)
}

async fn look(admin: &Admin, name: &PartitionName) -> Result<Case, Failure> {
    let detail = admin.describe_topic(&name.topic).await?;
    let number = PartitionId(name.partition);
    let found = detail.partitions.iter().find(|partition| partition.partition == number);
    let found = found.ok_or_else(|| {
        let (topic, count) = (&name.topic, detail.partitions.len());
        let what = format!("topic {topic} has {count} partitions, numbered from 0: no {number}");
        Failure::new(Exit::NotFound, what)
    })?;
    let partition = TopicPartition::new(detail.id, number);
    let brokers = admin.cluster().await?.brokers;
    let mut hosts = found.replicas.clone();
    // A move may have brought a replica that is the best one now.
    for info in admin.list_moves().await? {
        if info.planned.partition == partition {
            hosts.extend(info.planned.to);
        }
    }
    hosts.sort_unstable();
    hosts.dedup();
    let fencings = fencings(admin).await;
    let asked = hosts.iter().map(|node| {
        let (brokers, fencings) = (&brokers, &fencings);
        async move {
            let fenced = brokers.iter().any(|it: &BrokerInfo| it.node == *node && it.fenced);
            let since = fencings.iter().find(|(of, _)| of == node).map(|(_, since)| since.clone());
            let answer = stand(admin, *node, partition).await;
            Seen { node: *node, fenced, since: since.filter(|_| fenced), answer }
        }
    });
    let seen = join_all(asked).await;
    Ok(Case { name: name.clone(), partition, replicas: found.replicas.clone(), seen })
}

async fn stand(admin: &Admin, node: NodeId, at: TopicPartition) -> Result<Standing, String> {
    let ask = async |offset| {
        let answer = admin.inspect_replica(node, at, offset, PATIENCE).await;
        answer.map_err(|error| error.to_string())
    };
    let inspected = ask(None).await?;
    let last = inspected.log_end.0.checked_sub(1).map(Offset);
    let batch = match last.filter(|last| *last >= inspected.log_start) {
        Some(last) => ask(Some(last)).await?.batch,
        None => None,
    };
    let last_term = batch.map_or(Term(0), |batch| batch.term);
    Ok(Standing { inspected, last_term })
}

/// When each broker was fenced last, as far as the controller's log goes back.
async fn fencings(admin: &Admin) -> Vec<(NodeId, String)> {
    let events = admin.list_events(Offset(0), None, EVENTS_MAX).await.unwrap_or_default();
    let fenced = events.iter().rev().filter(|event| event.kind == "broker-fenced");
    let of = |subject: &str| subject.strip_prefix("broker ")?.parse().ok().map(NodeId);
    let at = |event: &ClusterEvent| {
        let time = jiff::Timestamp::from_millisecond(event.timestamp.0);
        time.map_or_else(|_| event.timestamp.0.to_string(), |at| at.to_string())
    };
    fenced.filter_map(|event| Some((of(&event.subject)?, at(event)))).collect()
}

impl Case {
    fn standing(&self, node: NodeId) -> Option<&Standing> {
        self.seen.iter().find(|seen| seen.node == node)?.answer.as_ref().ok()
    }

    /// The replicas that vote and can: those of the set in force that answer and forgot nothing.
    fn able(&self) -> Vec<NodeId> {
        let able = |node: &&NodeId| self.standing(**node).is_some_and(|it| !it.inspected.suspect);
        self.replicas.iter().filter(able).copied().collect()
    }

    /// What one replica has and another one lacks, in the order of Raft.
    fn place(standing: &Standing) -> (Term, u64) {
        (standing.last_term, standing.inspected.indexes.appended.0)
    }
}

/// The replica to go on with, unless the partition has not lost its majority.
fn choose(case: &Case, wanted: Option<NodeId>) -> Result<NodeId, Failure> {
    let (able, of, name) = (case.able(), case.replicas.len(), &case.name);
    if able.len() * 2 > of {
        let what = format!(
            "{name} has not lost its majority: brokers {} of {} are alive and able to elect a leader",
            ids(&able),
            ids(&case.replicas)
        );
        return Err(Failure::new(Exit::Conflict, what).way_out(format!(
            "wait a second; `hw partition explain {name}` shows what keeps them"
        )));
    }
    if let Some(wanted) = wanted {
        return match case.seen.iter().any(|seen| seen.node == wanted) {
            true => Ok(wanted),
            false => {
                let hosts: Vec<NodeId> = case.seen.iter().map(|seen| seen.node).collect();
                let what = format!("broker {wanted} has no replica of {name}");
                Err(Failure::usage(what).way_out(format!("one of {}", ids(&hosts))))
            }
        };
    }
    let alive = case.seen.iter().filter(|seen| !seen.fenced);
    let standing = alive.filter_map(|seen| Some((seen.node, seen.answer.as_ref().ok()?)));
    let best = standing.max_by_key(|(node, it)| (Case::place(it), std::cmp::Reverse(*node)));
    best.map(|(node, _)| node).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            format!("no replica of {name} answers, so there is nothing to go on with"),
        )
        .way_out("start a broker that has one, or name one whose records are lost with --broker")
    })
}

/// What is gone, what is kept, and what is lost.
fn report(case: &Case, survivor: NodeId) {
    let (able, of, name) = (case.able().len(), case.replicas.len(), &case.name);
    eprintln!(
        "{name} has lost its majority: {able} of {of} replicas can vote, {} are needed",
        of / 2 + 1
    );
    for line in lines(case, survivor) {
        eprintln!("  {line}");
    }
}

fn lines(case: &Case, survivor: NodeId) -> Vec<String> {
    let mut lines: Vec<String> = case.seen.iter().map(|seen| line(seen, survivor)).collect();
    let Some(kept) = case.standing(survivor) else {
        lines.push(format!(
            "lost: whatever broker {survivor} cannot read of its log; it did not answer"
        ));
        return lines;
    };
    let end = kept.inspected.log_end;
    lines.push(format!(
        "kept: offsets {} up to {end} (exclusive), of which broker {survivor} knew those before {} to be committed",
        kept.inspected.log_start, kept.inspected.high_watermark
    ));
    lines.push(format!(
        "lost: every record from offset {end} on, also those that were acknowledged"
    ));
    for seen in case.seen.iter().filter(|seen| seen.node != survivor) {
        let Ok(other) = &seen.answer else { continue };
        let more = other.inspected.log_end.0.saturating_sub(end.0);
        if more > 0 {
            lines.push(format!(
                "lost: {} records that broker {} still has, offsets {end} up to {}; --broker {} keeps them instead",
                human::count(more),
                seen.node,
                other.inspected.log_end,
                seen.node
            ));
        } else if other.last_term > kept.last_term {
            lines.push(format!(
                "lost: what broker {} wrote in term {}, which broker {survivor} lacks; --broker {} keeps it instead",
                seen.node, other.last_term, seen.node
            ));
        }
    }
    let away = case.seen.iter().filter(|seen| seen.answer.is_err()).map(|seen| seen.node);
    let away: Vec<NodeId> = away.collect();
    if !away.is_empty() {
        lines.push(format!(
            "if {} still run somewhere out of reach, stop them first: what they acknowledge from now on is lost, \
             and what they have is discarded when they come back",
            ids(&away)
        ));
    }
    lines
}

fn line(seen: &Seen, survivor: NodeId) -> String {
    let chosen = if seen.node == survivor { " <- goes on with this" } else { "" };
    let what = match &seen.answer {
        Ok(Standing { inspected, last_term }) => {
            let doubt = if inspected.suspect { ", may have forgotten what it had" } else { "" };
            format!(
                "log end {}, high watermark {}, last written in term {last_term}{doubt}",
                inspected.log_end, inspected.high_watermark
            )
        }
        Err(_) if seen.fenced => match &seen.since {
            Some(since) => format!("its broker is down, fenced since {since}"),
            None => "its broker is down (fenced)".to_owned(),
        },
        Err(why) => format!("does not answer: {why}"),
    };
    format!("broker {}: {what}{chosen}", seen.node)
}

async fn recover(admin: &Admin, case: &Case, survivor: NodeId) -> Result<(), Failure> {
    let able = case.able();
    let given_up = case.replicas.iter().copied().filter(|node| !able.contains(node)).collect();
    let terms = case.seen.iter().filter_map(|seen| Some(seen.answer.as_ref().ok()?.inspected.term));
    let term = terms.max().unwrap_or(Term(0));
    admin.recover_partition(case.partition, survivor, given_up, term).await?;
    eprintln!("{}: decided; waiting until broker {survivor} leads", case.name);
    let begun = Instant::now();
    loop {
        let detail = admin.describe_topic(&case.name.topic).await?;
        if leads(&detail, case.partition.partition, survivor, term) {
            eprintln!("{}: broker {survivor} leads, and takes writes again", case.name);
            return Ok(());
        }
        if begun.elapsed() > LEADS_WITHIN {
            let what = format!("broker {survivor} does not lead {} yet", case.name);
            return Err(Failure::new(Exit::TimedOut, what)
                .way_out(format!("its log says why; `hw partition explain {}`", case.name)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn leads(detail: &TopicDetail, number: PartitionId, survivor: NodeId, term: Term) -> bool {
    let found = detail.partitions.iter().find(|partition| partition.partition == number);
    found.is_some_and(|it| it.leader == Some(survivor) && it.term > term)
}

/// Has as many replicas copied as there were, where so many brokers are alive.
async fn refill(admin: &Admin, case: &Case, survivor: NodeId, detach: bool) -> Result<(), Failure> {
    let (name, before) = (&case.name, case.replicas.len());
    let again = format!("hw partition reassign {name} --replicas {before}");
    let alive = admin.cluster().await?.brokers.iter().filter(|broker| !broker.fenced).count();
    let wanted = before.min(alive);
    if wanted <= 1 {
        if before > 1 {
            eprintln!(
                "{name} stays with one replica, on broker {survivor}; once brokers are back: `{again}`"
            );
        }
        return Ok(());
    }
    let wish = MoveWish::Replicas(u8::try_from(wanted).unwrap_or(u8::MAX));
    let begun = match admin.reassign(vec![case.partition], wish, DryRun::No).await {
        Ok(begun) => begun,
        Err(error) => {
            eprintln!(
                "{name} has one replica, for the others cannot be copied now: {error}; later: `{again}`"
            );
            return Ok(());
        }
    };
    if wanted < before {
        eprintln!(
            "{name} gets {wanted} replicas, as brokers are alive; once more are back: `{again}`"
        );
    }
    if detach {
        eprintln!(
            "{name}: the other replicas are being copied; `hw partition moves -w` shows how far that is"
        );
        return Ok(());
    }
    let names = Names::from([(case.partition.topic, name.topic.clone())]);
    follow::follow(admin, &begun, &names).await.map(|_| ())
}

const CLUSTER: &str = "__cluster";
const PATIENCE: Duration = Duration::from_secs(2);
const LEADS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const EVENTS_MAX: u32 = 10_000;

pub const EXAMPLES: &str = "\
Examples:
  hw partition unsafe-recover orders/3 --dry-run      what would be lost
  hw partition unsafe-recover orders/3                asks for the partition's name first
  hw partition unsafe-recover orders/3 --broker 4     go on with broker 4's replica
  hw partition unsafe-recover orders/3 --yes-i-lose orders/3

For a partition that has lost more than half of its replicas for good: disks that are gone, machines that
never come back. It goes on with what one replica has; every record which that one lacks is lost, also where
it was acknowledged. While a majority is alive it is refused. Replicas on brokers that come back later are
discarded, and copied anew. The controller's own partition cannot be recovered so.";

#[cfg(test)]
mod tests;
