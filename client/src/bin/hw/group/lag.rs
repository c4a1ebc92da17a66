//! `hw group lag`: how many records a group has not handled yet, partition by partition, and how old they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use highwater_client::{
    Admin, Client, CommittedOffset, GroupDescription, Offset, OffsetAt, OutOfRange, PartitionId,
    ReaderConfig, StartAt, TopicPartition,
};
use serde_json::json;

use super::pace::{self, Drains, Pace, Place};
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
    /// Exit with 10 when the oldest record that it has not handled is older than this
    #[arg(long, value_name = "TIME", value_parser = crate::human::parse_duration)]
    pub max_age: Option<Duration>,
    /// Look twice, so far apart, and say how fast it catches up and when it has
    #[arg(long, value_name = "TIME", value_parser = crate::human::parse_duration)]
    pub over: Option<Duration>,
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
    place: Place,
    /// How old the first record is that it has not handled.
    age: Option<Duration>,
    owner: Option<String>,
    pace: Option<Pace>,
}

pub async fn run(args: LagArgs, client: &Client) -> Result<Exit, Failure> {
    let LagArgs { group, max, max_age, over, watch, output } = args;
    let admin = client.admin();
    let mut last = None;
    let look = async || {
        if let (Some(over), None) = (over, &last) {
            last = Some((Instant::now(), places(&behind(client, &admin, &group).await?)));
            tokio::time::sleep(over).await;
        }
        let (now, mut behind) = (Instant::now(), behind(client, &admin, &group).await?);
        if let Some((then, places)) = &last {
            for it in &mut behind {
                let before = places.get(&it.at);
                it.pace = before.map(|before| pace::between(*before, it.place, now - *then));
            }
            last = Some((now, self::places(&behind)));
        }
        let total = behind.iter().map(|it| it.place.lag()).sum::<u64>();
        let oldest = behind.iter().filter_map(|it| it.age).max();
        let late = max.is_some_and(|max| total > max)
            || max_age.is_some_and(|max| oldest.is_some_and(|oldest| oldest > max));
        let exit = if late { Exit::Unhealthy } else { Exit::Fine };
        Ok((page(&group, &behind, over.is_some()), exit))
    };
    watch.show(output.format, look).await
}

fn places(behind: &[Behind]) -> BTreeMap<TopicPartition, Place> {
    behind.iter().map(|it| (it.at, it.place)).collect()
}

async fn behind(client: &Client, admin: &Admin, group: &str) -> Result<Vec<Behind>, Failure> {
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
            let place = Place { committed, start, end };
            let age = match place.lag() {
                0 => None,
                _ => age(client, name, at.partition, place.next()).await?,
            };
            let owner = owner(described, at);
            Ok::<_, Failure>(Behind { at, title, place, age, owner, pace: None })
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

/// How old the first record from an offset on is, by its own timestamp and our clock; none where there is no record
/// any more.
async fn age(
    client: &Client,
    topic: &str,
    partition: PartitionId,
    from: Offset,
) -> Result<Option<Duration>, Failure> {
    let mut config = ReaderConfig::new(topic, StartAt::Offset(from))
        .partitions([partition.0])
        .out_of_range(OutOfRange::Start)
        .until_end();
    (config.partition_bytes_max, config.prefetch_bytes_max) = (LOOK_BYTES, LOOK_BYTES as usize);
    let mut reader = client.reader(config).await?;
    let Some(batch) = reader.next_batch().await? else { return Ok(None) };
    let Some(record) = batch.iter().next() else { return Ok(None) };
    let age = jiff::Timestamp::now().as_millisecond().saturating_sub(record.timestamp.0);
    Ok(Some(Duration::from_millis(u64::try_from(age).unwrap_or(0))))
}

const COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::number("COMMITTED"),
    Column::number("END"),
    Column::number("LAG"),
    Column::number("AGE"),
    Column::words("OWNER"),
];

const PACE_COLUMNS: &[Column] = &[
    Column::words("PARTITION"),
    Column::number("COMMITTED"),
    Column::number("END"),
    Column::number("LAG"),
    Column::number("AGE"),
    Column::words("OWNER"),
    Column::number("NEW/S"),
    Column::number("HANDLED/S"),
    Column::number("CAUGHT UP IN"),
];

fn page(group: &str, behind: &[Behind], paced: bool) -> Page {
    let total = behind.iter().map(|it| it.place.lag()).sum::<u64>();
    let oldest = behind.iter().filter_map(|it| it.age).max();
    let mut page = Page::describe("hw.group.lag/1", group);
    page.fact("Group", group);
    page.fact("Lag", human::counted(usize::try_from(total).unwrap_or(usize::MAX), "record"));
    page.fact("Oldest", or_dash(oldest.map(spoken)));
    page.field("group", group);
    page.field("lag_total", total);
    page.field("lag_ms_max", millis(oldest));
    if paced {
        let drains = behind.iter().map(drains).max().unwrap_or(Drains::Now);
        page.fact("Caught up in", drains.to_string());
        page.field("caught_up_in_s", drains.seconds());
    }
    let rows = behind.iter().map(|it| row(it, paced)).collect();
    let columns = if paced { PACE_COLUMNS } else { COLUMNS };
    page.rows = Some(Rows { field: "partitions", columns, rows });
    page
}

fn row(it: &Behind, paced: bool) -> Row {
    let Behind { at, title, place, age, owner, pace } = it;
    let mut cells = vec![
        title.clone(),
        or_dash(place.committed),
        place.end.to_string(),
        place.lag().to_string(),
        or_dash(age.map(spoken)),
        or_dash(owner.as_ref()),
    ];
    let mut value = json!({
        "partition": at.partition.0,
        "topic": title.rsplit_once('/').map(|(topic, _)| topic),
        "committed_offset": place.committed.map(|offset| offset.0),
        "start_offset": place.start.0,
        "end_offset": place.end.0,
        "lag": place.lag(),
        "lag_ms": millis(*age),
        "owner": owner,
    });
    if paced {
        let rate = |of: fn(&Pace) -> f64| or_dash(pace.map(|pace| format!("{:.1}", of(&pace))));
        cells.extend([rate(|pace| pace.new), rate(|pace| pace.handled), drains(it).to_string()]);
        value["new_per_s"] = json!(pace.map(|pace| pace.new));
        value["handled_per_s"] = json!(pace.map(|pace| pace.handled));
        value["caught_up_in_s"] = json!(drains(it).seconds());
    }
    Row { name: title.clone(), cells, value }
}

fn drains(it: &Behind) -> Drains {
    pace::drains(it.place.lag(), it.pace)
}

fn spoken(age: Duration) -> String {
    human::seconds(age.as_secs())
}

fn millis(age: Option<Duration>) -> Option<u64> {
    age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

const AT_ONCE: usize = 32;
/// One batch of records is enough, whatever its size.
const LOOK_BYTES: u32 = 16 * 1024;

pub const EXAMPLES: &str = "\
Examples:
  hw group lag billing
  hw group lag billing --over 10s
  hw group lag billing -w 1s
  hw group lag billing --max 10000 --max-age 5m || page-somebody

A partition for which the group has committed nothing counts from its oldest record. AGE is that of the first
record that was not handled, by its timestamp. Exits with 10 when the group is further behind than --max or --max-age.";
