//! `hw group lag`: how many records a group has not handled yet, partition by partition, and how old they are.

use std::time::{Duration, Instant};

use clap::Args;
use futures_util::{StreamExt, TryStreamExt, stream};
use highwater_client::{Client, OutOfRange, PartitionLag, ReaderConfig, StartAt};
use serde_json::json;
use tokio::time::timeout;

use super::pace::{self, Drains, Pace};
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
    /// Look twice, so far apart, and say how fast it catches up and when it has; with --watch, since the last look
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
    lag: PartitionLag,
    /// How old the first record is that it has not handled.
    age: Option<Duration>,
    pace: Option<Pace>,
}

pub async fn run(args: LagArgs, client: &Client) -> Result<Exit, Failure> {
    let LagArgs { group, max, max_age, over, watch, output } = args;
    let admin = client.admin();
    let mut last: Option<(Instant, Vec<PartitionLag>)> = None;
    let look = async || {
        if let (Some(over), None) = (over, &last) {
            last = Some((Instant::now(), admin.group_lag(&group).await?));
            tokio::time::sleep(over).await;
        }
        let (now, lag) = (Instant::now(), admin.group_lag(&group).await?);
        let before = last.take();
        if over.is_some() {
            last = Some((now, lag.clone()));
        }
        let pace = |lag: &PartitionLag| {
            let (then, before) = before.as_ref()?;
            let place = |of: &PartitionLag| (of.topic.clone(), of.partition);
            let before = before.iter().find(|before| place(before) == place(lag))?;
            Some(pace::between(before, lag, now - *then))
        };
        let behind = stream::iter(lag).map(async |lag| {
            let (age, pace) = (age(client, &lag).await?, pace(&lag));
            Ok::<_, Failure>(Behind { lag, age, pace })
        });
        let behind: Vec<Behind> = behind.buffered(AT_ONCE).try_collect().await?;
        let total = behind.iter().map(|it| it.lag.records()).sum::<u64>();
        let oldest = behind.iter().filter_map(|it| it.age).max();
        let late = max.is_some_and(|max| total > max)
            || max_age.is_some_and(|max| oldest.is_some_and(|oldest| oldest > max));
        let exit = if late { Exit::Unhealthy } else { Exit::Fine };
        Ok((page(&group, &behind, over.is_some()), exit))
    };
    watch.show(output.format, look).await
}

/// How old the first record is that a group has not handled, by its own timestamp and our clock.
async fn age(client: &Client, lag: &PartitionLag) -> Result<Option<Duration>, Failure> {
    if lag.records() == 0 {
        return Ok(None);
    }
    let mut config = ReaderConfig::new(lag.topic.clone(), StartAt::Offset(lag.next()))
        .partitions([lag.partition.0])
        .out_of_range(OutOfRange::Start)
        .until_end();
    (config.partition_bytes_max, config.prefetch_bytes_max) = (LOOK_BYTES, LOOK_BYTES as usize);
    let mut reader = client.reader(config).await?;
    // A reader waits for a leader as long as it takes; whoever asks for the lag does not.
    let Ok(batch) = timeout(LOOK_MAX, reader.next_batch()).await else { return Ok(None) };
    let Some(batch) = batch? else { return Ok(None) };
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
    let total = behind.iter().map(|it| it.lag.records()).sum::<u64>();
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
    let Behind { lag, age, pace } = it;
    let title = format!("{}/{}", lag.topic, lag.partition);
    let mut cells = vec![
        title.clone(),
        or_dash(lag.committed),
        lag.end.to_string(),
        lag.records().to_string(),
        or_dash(age.map(spoken)),
        or_dash(lag.owner.as_ref()),
    ];
    let mut value = json!({
        "partition": lag.partition.0,
        "topic": lag.topic.as_str(),
        "committed_offset": lag.committed.map(|offset| offset.0),
        "start_offset": lag.start.0,
        "end_offset": lag.end.0,
        "lag": lag.records(),
        "lag_ms": millis(*age),
        "owner": lag.owner,
    });
    if paced {
        let rate = |of: fn(&Pace) -> f64| or_dash(pace.map(|pace| format!("{:.1}", of(&pace))));
        cells.extend([rate(|pace| pace.new), rate(|pace| pace.handled), drains(it).to_string()]);
        value["new_per_s"] = json!(pace.map(|pace| pace.new));
        value["handled_per_s"] = json!(pace.map(|pace| pace.handled));
        value["caught_up_in_s"] = json!(drains(it).seconds());
    }
    Row { name: title, cells, value }
}

fn drains(it: &Behind) -> Drains {
    pace::drains(it.lag.records(), it.pace)
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
const LOOK_MAX: Duration = Duration::from_secs(5);

pub const EXAMPLES: &str = "\
Examples:
  hw group lag billing
  hw group lag billing --over 10s
  hw group lag billing -w 1s
  hw group lag billing --max 10000 --max-age 5m || page-somebody

A partition for which the group has committed nothing counts from its oldest record. AGE is that of the first
record that was not handled, by its timestamp. Exits with 10 when the group is further behind than --max or --max-age.";
