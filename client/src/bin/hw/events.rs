//! `hw cluster events`: what the controller decided, when, and why.

use std::time::Duration;

use clap::Args;
use highwater_client::{Admin, ClusterEvent, Offset, Timestamp};
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Format, Page, ReadOutput, Row, Rows};

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only what was decided within this time, such as 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = crate::human::parse_duration)]
    pub since: Option<Duration>,
    /// Only so many, the newest
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub last: u32,
    /// Only this kind, such as broker-fenced
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Go on with what is decided from now on, until Ctrl-C
    #[arg(long, short = 'w')]
    pub watch: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Prints what was decided, and with `--watch` what is decided from then on.
pub async fn run(args: EventsArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let ago = |time: Duration| Timestamp(now_ms().saturating_sub(time.as_millis() as i64));
    let since = args.since.map(ago);
    let (mut from, format) = (Offset(0), args.output.format);
    let found = fetch(&admin, &args, from, since, &mut from).await?;
    page(&found).print(format)?;
    if !args.watch {
        return Ok(Exit::Fine);
    }
    // One document cannot go on; whoever watches as JSON wants a line an event.
    let format = match format {
        Format::Json | Format::Yaml => Format::Jsonl,
        other => other,
    };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let begin = from;
        match fetch(&admin, &args, begin, since, &mut from).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => without_heading(&found, format)?,
            // That is when people watch.
            Err(failure) => failure.report(),
        }
    }
}

async fn fetch(
    admin: &Admin,
    args: &EventsArgs,
    begin: Offset,
    since: Option<Timestamp>,
    next: &mut Offset,
) -> Result<Vec<ClusterEvent>, Failure> {
    let mut found = admin.list_events(begin, since, EVENTS_ASKED_MAX).await?;
    if let Some(last) = found.last() {
        *next = Offset(last.offset.0 + 1);
    }
    found.retain(|event| args.kind.as_ref().is_none_or(|kind| *kind == event.kind));
    let over = found.len().saturating_sub(args.last as usize);
    Ok(found.split_off(over))
}

const COLUMNS: &[Column] = &[
    Column::words("TIME"),
    Column::words("EVENT"),
    Column::words("ABOUT"),
    Column::words("WHAT AND WHY"),
    Column::number("OFFSET").wide(),
];

fn page(events: &[ClusterEvent]) -> Page {
    let rows = events.iter().map(row).collect();
    Page::list("hw.cluster.events/1", Rows { field: "events", columns: COLUMNS, rows })
}

fn row(event: &ClusterEvent) -> Row {
    let ClusterEvent { offset, timestamp, kind, subject, detail } = event;
    let time = jiff::Timestamp::from_millisecond(timestamp.0)
        .map_or_else(|_| timestamp.0.to_string(), |at| at.to_string());
    Row {
        name: offset.to_string(),
        value: json!({
            "offset": offset.0, "time": time, "kind": kind, "about": subject, "detail": detail,
        }),
        cells: vec![time, kind.clone(), subject.clone(), detail.clone(), offset.to_string()],
    }
}

/// Later looks go on below the first one, so the columns are not headed again.
fn without_heading(events: &[ClusterEvent], format: Format) -> Result<(), Failure> {
    let mut text = Vec::new();
    page(events).write(format, &mut text)?;
    let text = String::from_utf8_lossy(&text);
    let lines = match format {
        Format::Table | Format::Wide => text.split_once('\n').map_or("", |(_, rest)| rest),
        Format::Json | Format::Jsonl | Format::Yaml | Format::Name => &text,
    };
    anstream::print!("{lines}");
    Ok(())
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

pub const EXAMPLES: &str = "\
Examples:
  hw cluster events
  hw cluster events --since 1h --kind broker-fenced
  hw cluster events -w -o jsonl
  hw cluster events -n 1000 -o wide

Told from the committed log of the controller, back to where it was begun anew last. Leadership that
goes back to preferred replicas is no decision of the controller: `hw partition list -w` shows it.";

const LOOK_EVERY: Duration = Duration::from_secs(1);
const EVENTS_ASKED_MAX: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_for_people_and_a_value_for_programs() {
        let event = ClusterEvent {
            offset: Offset(7),
            timestamp: Timestamp(0),
            kind: "broker-fenced".to_owned(),
            subject: "broker 3".to_owned(),
            detail: "not heard of".to_owned(),
        };
        let page = page(&[event]);
        let mut out = Vec::new();
        page.write(Format::Table, &mut out).expect("a vector");
        let text = String::from_utf8(out).expect("text");
        assert!(
            text.contains("1970-01-01T00:00:00Z  broker-fenced  broker 3  not heard of"),
            "{text}"
        );
        assert_eq!(page.document()["events"][0]["offset"], 7);
    }
}
