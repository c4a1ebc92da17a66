//! `hw group lag`: how many records a group has not handled yet, partition by partition, and how old they are.

use std::collections::BTreeMap;

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use highwater_client::{
    Admin, CommittedOffset, GroupDescription, Offset, OffsetAt, TopicPartition,
};
use serde_json::json;

use super::{names, title};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, or_dash};
use crate::watch::Watch;

#[derive(Debug, Args)]
pub struct LagArgs {
    /// The group's name
    pub group: String,
    /// Exit with 10 when it is behind by more records than this in all
    #[arg(long, value_name = "N")]
    pub max: Option<u64>,
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// How far a group is behind in one partition.
struct Behind {
    at: TopicPartition,
    title: String,
    committed: Option<Offset>,
    start: Offset,
    end: Offset,
    owner: Option<String>,
}

impl Behind {
    /// What was never committed counts from the oldest record.
    fn lag(&self) -> u64 {
        let next = self.committed.map_or(self.start, |committed| committed.max(self.start));
        self.end.0.saturating_sub(next.0)
    }
}

pub async fn run(args: LagArgs, admin: &Admin) -> Result<Exit, Failure> {
    let LagArgs { group, max, watch, output } = args;
    let look = async || {
        let behind = behind(admin, &group).await?;
        let total = behind.iter().map(Behind::lag).sum::<u64>();
        let exit = if max.is_some_and(|max| total > max) { Exit::Unhealthy } else { Exit::Fine };
        Ok((page(&group, &behind, total), exit))
    };
    watch.show(output.format, look).await
}

async fn behind(admin: &Admin, group: &str) -> Result<Vec<Behind>, Failure> {
    let described = admin.describe_group(group).await?;
    let offsets = admin.group_offsets(group).await?;
    let names = names(admin).await?;
    let mut wanted: BTreeMap<TopicPartition, Option<Offset>> = offsets
        .iter()
        .map(|CommittedOffset { partition, offset, .. }| (*partition, Some(*offset)))
        .collect();
    for at in described.members.iter().flat_map(|member| &member.target) {
        wanted.entry(*at).or_insert(None);
    }
    // Topics that are gone are forgotten by the group in a moment.
    let known = wanted.into_iter().filter(|(at, _)| names.contains_key(&at.topic));
    let look = |(at, committed): (TopicPartition, Option<Offset>)| {
        let (name, described) = (&names[&at.topic], &described);
        let title = title(&names, at);
        async move {
            let found = |place| admin.list_offsets(name, at.partition, place);
            let (start, end) =
                (found(OffsetAt::Start).await?.offset, found(OffsetAt::End).await?.offset);
            let owner = owner(described, at);
            Ok::<_, Failure>(Behind { at, title, committed, start, end, owner })
        }
    };
    let mut behind: Vec<Behind> =
        stream::iter(known).map(look).buffer_unordered(AT_ONCE).try_collect().await?;
    behind.sort_by(|one, other| {
        let place = |it: &Behind| (names[&it.at.topic].clone(), it.at.partition);
        place(one).cmp(&place(other))
    });
    Ok(behind)
}

fn owner(described: &GroupDescription, at: TopicPartition) -> Option<String> {
    let owns = described.members.iter().find(|member| member.assigned.contains(&at))?;
    Some(owns.instance.clone().unwrap_or_else(|| owns.member.to_string()))
}

const COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::number("COMMITTED"),
    Column::number("END"),
    Column::number("LAG"),
    Column::words("OWNER"),
];

fn page(group: &str, behind: &[Behind], total: u64) -> Page {
    let row = |it: &Behind| Row {
        name: it.title.clone(),
        cells: vec![
            it.title.clone(),
            or_dash(it.committed),
            it.end.to_string(),
            it.lag().to_string(),
            or_dash(it.owner.as_ref()),
        ],
        value: json!({
            "partition": it.at.partition.0,
            "topic": it.title.rsplit_once('/').map(|(topic, _)| topic),
            "committed_offset": it.committed.map(|offset| offset.0),
            "start_offset": it.start.0,
            "end_offset": it.end.0,
            "lag": it.lag(),
            "owner": it.owner,
        }),
    };
    let mut page = Page::describe("hw.group.lag/1", group);
    page.fact("Group", group);
    page.fact("Lag", human::counted(usize::try_from(total).unwrap_or(usize::MAX), "record"));
    page.field("group", group);
    page.field("lag_total", total);
    let rows = behind.iter().map(row).collect();
    page.rows = Some(Rows { field: "partitions", columns: COLUMNS, rows });
    page
}

const AT_ONCE: usize = 32;

pub const EXAMPLES: &str = "\
Examples:
  hw group lag billing
  hw group lag billing -w 1s
  hw group lag billing --max 10000 || page-somebody

A partition for which the group has committed nothing counts from its oldest record.
Exits with 10 when the group is further behind than --max.";
