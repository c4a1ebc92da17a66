//! `hw cluster events`: what the controller decided, when, and why.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use highwater_client::{Admin, ClusterEvent, Offset, Timestamp};
use highwater_protocol::native::events;
use serde_json::json;

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Format, Page, ReadOutput, Reader, Row, Rows, quiet_if_closed};
use crate::watch::Watch;

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only what was decided within this time, such as 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = crate::human::parse_duration)]
    pub since: Option<Duration>,
    /// Only so many, the newest
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub last: u32,
    /// Only this kind, such as broker-fenced; `hw explain KIND` says what it is
    #[arg(long, value_name = "KIND", hide_possible_values = true)]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(events::KINDS))]
    pub kind: Option<String>,
    #[command(flatten)]
    pub watch: Watch,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Prints what was decided, and with `--watch` what is decided from then on.
pub async fn run(args: EventsArgs, settings: &Settings) -> Result<Exit, Failure> {
    let admin = settings.connect().await?.admin();
    let ago = |time: Duration| Timestamp(now_ms().saturating_sub(time.as_millis() as i64));
    let since = args.since.map(ago);
    let mut from = Offset(0);
    let found = fetch(&admin, &args, from, since, &mut from).await?;
    let Some(every) = args.watch.every else {
        page(&found).print(args.output.format)?;
        return Ok(Exit::Fine);
    };
    let format = watched(args.output.format, io::stdout().is_terminal());
    let mut text = Vec::new();
    page(&found).write(format, &mut text)?;
    loop {
        if write(&text)? == Reader::Gone {
            return Ok(Exit::Fine);
        }
        tokio::time::sleep(every).await;
        let begin = from;
        text = match fetch(&admin, &args, begin, since, &mut from).await {
            Ok(found) if found.is_empty() => Vec::new(),
            Ok(found) => without_heading(&found, format)?,
            // That is when people watch.
            Err(failure) => {
                failure.report();
                Vec::new()
            }
        };
    }
}

/// The format of a watch: one document cannot go on, and nobody can take a stream of tables apart.
fn watched(format: Format, terminal: bool) -> Format {
    match format {
        Format::Table | Format::Wide if !terminal => Format::Jsonl,
        Format::Json => Format::Jsonl,
        Format::Table | Format::Wide | Format::Jsonl | Format::Yaml | Format::Name => format,
    }
}

fn write(text: &[u8]) -> io::Result<Reader> {
    let mut out = io::stdout().lock();
    quiet_if_closed(out.write_all(text).and_then(|()| out.flush()))
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
    let time = human::time(timestamp.0);
    Row {
        name: offset.to_string(),
        value: json!({
            "offset": offset.0, "time": time, "kind": kind, "subject": subject, "detail": detail,
        }),
        cells: vec![time, kind.clone(), subject.clone(), detail.clone(), offset.to_string()],
    }
}

/// Later looks go on below the first one, so the columns are not headed again.
fn without_heading(events: &[ClusterEvent], format: Format) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    page(events).write(format, &mut text)?;
    match format {
        Format::Table | Format::Wide => {
            let heading = text.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            Ok(text.split_off(heading))
        }
        Format::Json | Format::Jsonl | Format::Yaml | Format::Name => Ok(text),
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

pub const EXAMPLES: &str = "\
Examples:
  hw cluster events
  hw cluster events --since 1h --kind broker-fenced
  hw cluster events -w                             and go on with what is decided from now on
  hw cluster events -w -o jsonl | grep move-ended
  hw cluster events -n 1000 -o wide

Told from the committed log of the controller, back to where it was begun anew last. Leadership that
goes back to preferred replicas is no decision of the controller: `hw partition list -w` shows it.";

const EVENTS_ASKED_MAX: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_goes_on_in_lines_without_a_second_heading() {
        let event = ClusterEvent {
            offset: Offset(7),
            timestamp: Timestamp(0),
            kind: "broker-fenced".to_owned(),
            subject: "broker 3".to_owned(),
            detail: "not heard of".to_owned(),
        };
        assert_eq!(watched(Format::Table, true), Format::Table);
        for format in [Format::Table, Format::Wide, Format::Json, Format::Jsonl] {
            assert_eq!(watched(format, false), Format::Jsonl);
        }
        let lines =
            |format| without_heading(std::slice::from_ref(&event), format).expect("a vector");
        assert!(lines(Format::Table).starts_with(b"1970-01-01"));
        assert!(lines(Format::Jsonl).starts_with(b"{\"offset\":7"));
    }

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
