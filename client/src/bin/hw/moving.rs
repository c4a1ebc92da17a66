//! What is moving and how fast: `hw partition moves`.
//!
//! How much a copy lacks is the word of the partition's leader; rates come from two looks at it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use highwater_client::{
    Admin, MoveInfo, MoveStage, NodeId, PlannedMove, ReplicaRole, TopicPartition,
};
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids};
use crate::watch::Watch;

#[derive(Debug, Args)]
pub struct MovesArgs {
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// A rate for people.
pub fn per_second(bytes: u64) -> String {
    format!("{}/s", human::bytes(bytes))
}

/// Shows what is moving.
pub async fn moves(args: MovesArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let mut looks = Looks::default();
    args.watch.show(args.output.format, async || list(&admin, &mut looks).await).await
}

const COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::words("STAGE"),
    Column::words("FROM"),
    Column::words("TO"),
    Column::words("AWAITS"),
    Column::words("LEFT"),
    Column::words("RATE"),
    Column::words("ETA"),
];

/// What earlier looks have seen of each move: the bytes left, and when.
#[derive(Debug, Default)]
pub struct Looks {
    seen: BTreeMap<TopicPartition, Vec<(Instant, u64)>>,
}

impl Looks {
    /// Takes in what is left now; gives the rate since a while ago, once that is known.
    pub fn rate(&mut self, at: TopicPartition, now: Instant, left: u64) -> Option<u64> {
        let looks = self.seen.entry(at).or_default();
        looks.push((now, left));
        let old = looks.iter().filter(|(then, _)| now.duration_since(*then) > RATE_OVER).count();
        looks.drain(..old.min(looks.len() - 1));
        let (first, before) = looks[0];
        let seconds = now.duration_since(first).as_secs_f64();
        (seconds > 0.1).then(|| (before.saturating_sub(left) as f64 / seconds) as u64)
    }
}

async fn list(admin: &Admin, looks: &mut Looks) -> Result<(Page, Exit), Failure> {
    let mut moving = admin.list_moves().await?;
    let runs = |info: &MoveInfo| info.stage == MoveStage::Running;
    if looks.seen.is_empty() && moving.iter().any(runs) {
        // A rate takes two looks.
        for info in moving.iter().filter(|info| runs(info)) {
            if let Some(left) = left(admin, &info.topic, &info.planned).await {
                looks.rate(info.planned.partition, Instant::now(), left);
            }
        }
        tokio::time::sleep(FIRST_LOOK).await;
        moving = admin.list_moves().await?;
    }
    looks.seen.retain(|at, _| moving.iter().any(|info| info.planned.partition == *at));
    let mut rows = Vec::new();
    for info in moving {
        let left = match runs(&info) {
            true => left(admin, &info.topic, &info.planned).await,
            false => None,
        };
        let rate = left.and_then(|left| looks.rate(info.planned.partition, Instant::now(), left));
        rows.push(row(&info, left, rate));
    }
    let rows = Rows { field: "moves", columns: COLUMNS, rows };
    Ok((Page::list("hw.partition.moves/1", rows), Exit::Fine))
}

fn row(info: &MoveInfo, left: Option<u64>, rate: Option<u64>) -> Row {
    let MoveInfo { topic, planned, stage, awaits } = info;
    let name = format!("{topic}/{}", planned.partition.partition);
    let stage = stage_word(*stage);
    let eta = left.and_then(|left| eta(left, rate));
    let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    Row {
        cells: vec![
            name.clone(),
            stage.to_owned(),
            ids(&planned.from),
            ids(&planned.to),
            if awaits.is_empty() { "-".to_owned() } else { ids(awaits) },
            shown(left.map(human::bytes)),
            shown(rate.map(per_second)),
            shown(eta.map(human::seconds)),
        ],
        value: json!({
            "topic": topic,
            "partition": planned.partition.partition.0,
            "stage": stage,
            "from": planned.from.iter().map(|node| node.0).collect::<Vec<_>>(),
            "to": planned.to.iter().map(|node| node.0).collect::<Vec<_>>(),
            "awaits": awaits.iter().map(|node| node.0).collect::<Vec<_>>(),
            "left_bytes": left,
            "bytes_per_s": rate,
            "eta_s": eta,
        }),
        name,
    }
}

/// The word for how far a move is.
pub fn stage_word(stage: MoveStage) -> &'static str {
    match stage {
        MoveStage::Waiting => "waiting",
        MoveStage::Running => "running",
        MoveStage::GoingBack => "going-back",
    }
}

/// How many seconds the bytes left take at a rate.
pub fn eta(left: u64, rate: Option<u64>) -> Option<u64> {
    match (left, rate) {
        (0, _) => Some(0),
        (_, None | Some(0)) => None,
        (left, Some(rate)) => Some(left.div_ceil(rate)),
    }
}

/// How many bytes the new replicas lack together, if the leader says so.
pub async fn left(admin: &Admin, topic: &str, planned: &PlannedMove) -> Option<u64> {
    let described = admin.describe_partition(topic, planned.partition.partition).await.ok()?;
    if !described.replicas.iter().any(|replica| replica.role == ReplicaRole::Leader) {
        return None;
    }
    let new = planned.to.iter().filter(|node| !planned.from.contains(node));
    let lacks = |node: &NodeId| {
        let found = described.replicas.iter().find(|replica| replica.node == *node);
        // One that the leader has not met yet lacks everything.
        found.map_or(Some(described.bytes), |replica| replica.behind_bytes)
    };
    new.map(lacks).sum()
}

const FIRST_LOOK: Duration = Duration::from_millis(700);
const RATE_OVER: Duration = Duration::from_secs(10);

pub const MOVES_EXAMPLES: &str = "\
Examples:
  hw partition moves                               what is moving now
  hw partition moves -w                            look again every 2 s
  hw partition moves -o json                       with bytes, bytes a second and seconds

LEFT is what the new replicas still lack, as the partition's leader knows it. AWAITS are brokers that had the
partition before and have not deleted that replica yet: the move begins when they have.";

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_client::{PartitionId, TopicId};

    #[test]
    fn a_rate_is_what_was_copied_over_the_last_looks() {
        let (mut looks, start) = (Looks::default(), Instant::now());
        let at = TopicPartition::new(TopicId(uuid::Uuid::from_u128(1)), PartitionId(0));
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(looks.rate(at, start, 1_000), None);
        assert_eq!(looks.rate(at, after(2), 800), Some(100));
        assert_eq!(looks.rate(at, after(12), 800), Some(0), "what is long ago is forgotten");
        assert_eq!((eta(100, Some(30)), eta(100, Some(0)), eta(0, None)), (Some(4), None, Some(0)));
    }
}
