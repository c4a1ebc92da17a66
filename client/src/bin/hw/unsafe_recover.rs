//! `hw partition unsafe-recover`: a partition whose majority is lost for good goes on with what one
//! replica has.
//!
//! Everyone alive is asked first where it stands, so that what will be lost is printed before it is; then
//! the partition's name must be typed. What is decided here only chooses and warns: the controller
//! refuses by itself while replicas that are not given up could elect a leader.

mod page;

use std::time::{Duration, Instant};

use anstream::eprintln;
use clap::Args;
use futures_util::future::join_all;
use highwater_client::{
    Admin, BrokerInfo, DryRun, InspectReplicaResponse, MoveWish, NodeId, Offset, PartitionId, Term,
    TopicDetail, TopicPartition,
};

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{ReadOutput, Row, ids};
use crate::reassign::Names;
use crate::target::PartitionName;
use crate::{confirm, follow, human};
use page::Begun;

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
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// A replica, as far as it can be asked.
#[derive(Debug)]
pub struct Seen {
    /// Where it is.
    pub node: NodeId,
    fenced: bool,
    /// When the controller lost touch with its broker, in words.
    since: Option<String>,
    /// What it says of itself, or why it does not.
    pub answer: Result<InspectReplicaResponse, String>,
}

/// What there is to be decided about one partition.
#[derive(Debug)]
pub struct Case {
    name: PartitionName,
    /// Its number.
    pub partition: TopicPartition,
    replicas: Vec<NodeId>,
    /// Its replicas.
    pub seen: Vec<Seen>,
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
    if !args.dry_run && args.partitions.iter().any(|it| unconfirmed(&it)) {
        confirm::terminal(
            "--dry-run to see what would be lost, then --yes-i-lose with each partition's name",
        )?;
    }
    let admin = settings.connect().await?.admin();
    let mut rows = Vec::new();
    let result = one_after_another(&admin, &args, &mut rows).await;
    // What was done is done, also where a later one failed.
    page::page(rows).print_for_programs(args.output.format)?;
    result.map(|()| Exit::Fine)
}

async fn one_after_another(
    admin: &Admin,
    args: &UnsafeRecoverArgs,
    rows: &mut Vec<Row>,
) -> Result<(), Failure> {
    for name in &args.partitions {
        let case = look(admin, name).await?;
        let survivor = choose(&case, args.broker.map(NodeId))?;
        report(&case, survivor);
        if args.dry_run {
            rows.push(page::row(&case, survivor, Begun::No));
            continue;
        }
        if !args.yes_i_lose.contains(name) {
            confirm::typed(
                &name.to_string(),
                "What is not listed as kept is lost for good, also where it was acknowledged.",
                "nothing was changed",
            )
            .await?;
        }
        let able = case.able(case.voters());
        let hosts = case.seen.iter().map(|seen| seen.node);
        let given_up = hosts.filter(|node| !able.contains(node)).collect();
        recover(admin, &case, survivor, given_up).await?;
        rows.push(page::row(&case, survivor, Begun::Yes));
        if !args.no_refill {
            refill(admin, &case, survivor, args.detach).await?;
        }
    }
    Ok(())
}

/// Asks everyone who should have a replica where it stands.
pub async fn look(admin: &Admin, name: &PartitionName) -> Result<Case, Failure> {
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
    let (fencings, brokers) = (fencings(admin).await, &brokers);
    let asked = hosts.iter().map(|node| stand(admin, *node, partition, brokers));
    let seen = join_all(asked).await.into_iter().zip(hosts.iter());
    let seen = seen.map(|((answer, fenced), node)| {
        let since = fencings.iter().find(|(of, _)| of == node).map(|(_, since)| since.clone());
        Seen { node: *node, fenced, since: since.filter(|_| fenced), answer }
    });
    let seen = seen.collect();
    Ok(Case { name: name.clone(), partition, replicas: found.replicas.clone(), seen })
}

/// Where a replica stands, and whether its broker is fenced. Who is silent is asked again until the
/// controller has lost touch with it as well: a moment's trouble must not cost anybody's records.
async fn stand(
    admin: &Admin,
    node: NodeId,
    at: TopicPartition,
    brokers: &[BrokerInfo],
) -> (Result<InspectReplicaResponse, String>, bool) {
    let is_fenced = |brokers: &[BrokerInfo]| brokers.iter().any(|it| it.node == node && it.fenced);
    let (begun, mut fenced) = (Instant::now(), is_fenced(brokers));
    loop {
        let error = match admin.inspect_replica(node, at, None, PATIENCE).await {
            Ok(answer) => return (Ok(answer), fenced),
            Err(error) => error,
        };
        let said = error.code().is_some_and(|code| !code.retriable());
        if fenced || said || begun.elapsed() > SILENT_FOR {
            return (Err(error.to_string()), fenced);
        }
        tokio::time::sleep(ASK_AGAIN).await;
        let brokers = admin.cluster().await.map(|info| info.brokers);
        fenced = brokers.is_ok_and(|brokers| is_fenced(&brokers));
    }
}

/// When each broker was fenced last, as far as the controller's log goes back.
async fn fencings(admin: &Admin) -> Vec<(NodeId, String)> {
    let events = admin.list_events(Offset(0), None, EVENTS_MAX).await.unwrap_or_default();
    let fenced = events.iter().rev().filter(|event| event.kind == "broker-fenced");
    let of = |subject: &str| subject.strip_prefix("broker ")?.parse().ok().map(NodeId);
    fenced.filter_map(|event| Some((of(&event.subject)?, human::time(event.timestamp.0)))).collect()
}

impl Case {
    fn standing(&self, node: NodeId) -> Option<&InspectReplicaResponse> {
        self.seen.iter().find(|seen| seen.node == node)?.answer.as_ref().ok()
    }

    fn answers(&self) -> impl Iterator<Item = (NodeId, &InspectReplicaResponse)> {
        self.seen.iter().filter_map(|seen| Some((seen.node, seen.answer.as_ref().ok()?)))
    }

    /// Of some voters, those that can vote: they answer, and forgot nothing.
    fn able(&self, voters: &[NodeId]) -> Vec<NodeId> {
        let able = |node: &&NodeId| self.standing(**node).is_some_and(|it| !it.suspect);
        voters.iter().filter(able).copied().collect()
    }

    /// Who votes: as the best log says, which may be ahead of what the controller has heard of a move.
    fn voters(&self) -> &[NodeId] {
        let best = self.answers().max_by_key(|(_, it)| Case::place(it));
        let named = best.map(|(_, it)| &it.voters[..]).filter(|voters| !voters.is_empty());
        named.unwrap_or(&self.replicas)
    }

    /// Voters that elect a leader by themselves, and the set of which they are a majority: every replica
    /// stands by the voters that its own log names.
    fn electing(&self) -> Option<(Vec<NodeId>, &[NodeId])> {
        let own = self.answers().map(|(_, it)| &it.voters[..]).filter(|it| !it.is_empty());
        let sets = own.chain([self.voters()]);
        let mut sets = sets.map(|voters| (self.able(voters), voters));
        sets.find(|(able, voters)| able.len() * 2 > voters.len())
    }

    /// What one replica has and another one lacks, in the order of Raft.
    pub fn place(standing: &InspectReplicaResponse) -> (Term, u64) {
        (standing.last_term, standing.indexes.appended.0)
    }
}

/// The replica to go on with, unless the partition has not lost its majority.
fn choose(case: &Case, wanted: Option<NodeId>) -> Result<NodeId, Failure> {
    let name = &case.name;
    if let Some((able, voters)) = case.electing() {
        let what = format!(
            "{name} has not lost its majority: brokers {} of {} are alive and able to elect a leader",
            ids(&able),
            ids(voters)
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
    let (voters, name) = (case.voters(), &case.name);
    let (able, of) = (case.able(voters).len(), voters.len());
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
    let end = kept.log_end;
    lines.push(format!(
        "kept: offsets {} up to {end} (exclusive), of which broker {survivor} knew those before {} to be committed",
        kept.log_start, kept.high_watermark
    ));
    lines.push(format!(
        "lost: every record from offset {end} on, also those that were acknowledged"
    ));
    for seen in case.seen.iter().filter(|seen| seen.node != survivor) {
        let Ok(other) = &seen.answer else { continue };
        let more = other.log_end.0.saturating_sub(end.0);
        if more > 0 {
            lines.push(format!(
                "lost: {} records that broker {} still has, offsets {end} up to {}; --broker {} keeps them instead",
                human::count(more),
                seen.node,
                other.log_end,
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
        Ok(stands) => {
            let doubt = if stands.suspect { ", may have forgotten what it had" } else { "" };
            format!(
                "log end {}, high watermark {}, last written in term {}{doubt}",
                stands.log_end, stands.high_watermark, stands.last_term
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

/// Makes one replica the only one, and waits until it leads.
pub async fn recover(
    admin: &Admin,
    case: &Case,
    survivor: NodeId,
    given_up: Vec<NodeId>,
) -> Result<(), Failure> {
    let term = case.answers().map(|(_, it)| it.term).max().unwrap_or(Term(0));
    let epoch = case.answers().map(|(_, it)| it.epoch).max().unwrap_or_default();
    admin.recover_partition(case.partition, survivor, given_up, term).await?;
    eprintln!("{}: decided; waiting until broker {survivor} leads", case.name);
    let begun = Instant::now();
    loop {
        // In the group of before it may lead as well, and in a newer term than anybody has said.
        let anew = admin.inspect_replica(survivor, case.partition, None, PATIENCE).await;
        let since = anew.ok().filter(|it| it.epoch > epoch).map(|it| it.term);
        let detail = admin.describe_topic(&case.name.topic).await?;
        if since.is_some_and(|term| leads(&detail, case.partition.partition, survivor, term)) {
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
    found.is_some_and(|it| it.leader == Some(survivor) && it.term >= term)
}

/// Has as many replicas copied as there were, where so many brokers are alive.
pub async fn refill(
    admin: &Admin,
    case: &Case,
    survivor: NodeId,
    detach: bool,
) -> Result<(), Failure> {
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
/// Longer than the controller needs to lose touch with a broker that died.
const SILENT_FOR: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(500);
const LEADS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const EVENTS_MAX: u32 = 10_000;

pub const EXAMPLES: &str = "\
Examples:
  hw partition unsafe-recover orders/3 --dry-run      what would be lost
  hw partition unsafe-recover orders/3                asks for the partition's name first
  hw partition unsafe-recover orders/3 --broker 4     go on with broker 4's replica
  hw partition unsafe-recover orders/3 --yes-i-lose orders/3
  hw partition unsafe-recover orders/3 --dry-run -o json

For a partition that has lost more than half of its replicas for good: disks that are gone, machines that
never come back. It goes on with what one replica has; every record which that one lacks is lost, also where
it was acknowledged. While a majority is alive it is refused. Replicas on brokers that come back later are
discarded, and copied anew. The controller's own partition cannot be recovered so.";

#[cfg(test)]
mod tests;
