//! `hw topic alter`: changes the settings of a topic in use, shows them with their sources, and adds
//! partitions.
//!
//! The broker checks everything and says what differs; all changes take effect, or none.

use std::io::{self, IsTerminal};

use anstream::eprintln;
use clap::Args;
use highwater_client::{
    Admin, AlterTopicResponse, ConfigKey, CreatePartitionsResponse, DryRun, NodeId, SettingChange,
    SettingScope, SettingSource, SettingValue, TOPIC_SETTINGS, TopicChange, TopicDetail,
};
use serde_json::{Value, json};

use crate::cli::parse_setting;
use crate::confirm;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Page, ReadOutput, Row, Rows, ids, or_dash};

#[derive(Debug, Args)]
pub struct AlterArgs {
    /// The topic's name
    pub name: String,
    /// KEY=VALUE to set, KEY- to go back to what the cluster says, or the default; without any, the settings are shown
    #[arg(value_name = "SETTING", value_parser = parse_wish)]
    pub settings: Vec<Wish>,
    /// A setting to set, such as retention.ms=86400000; may be repeated
    #[arg(long = "config", short = 'c', value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub configs: Vec<(String, String)>,
    /// A setting that goes back to what the cluster says, or the default; may be repeated
    #[arg(long, value_name = "KEY")]
    pub unset: Vec<String>,
    /// How many partitions the topic is to have in all; they can be added, never removed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(conflicts_with_all = ["settings", "configs", "unset"])]
    pub partitions: Option<u32>,
    /// Do not ask before adding partitions
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Check everything, show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// What a positional setting asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A value.
    Set(String, String),
    /// The default.
    Unset(String),
}

/// Changes what was named, or shows all settings.
pub async fn run(args: AlterArgs, settings: &Settings) -> Result<Exit, Failure> {
    if args.partitions.is_some() && !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("adding partitions asks first, but there is no terminal")
            .way_out("-y to add them without asking, --dry-run to see where they would go"));
    }
    let admin = settings.connect().await?.admin();
    let change = change(&args);
    let dry_run = change.dry_run;
    if let Some(count) = args.partitions {
        let added = add_partitions(&admin, &args, count).await?;
        addition(&args.name, &added, dry_run).print(args.output.format)?;
        return Ok(Exit::Fine);
    }
    if change.set.is_empty() && change.unset.is_empty() {
        let detail = admin.describe_topic(&args.name).await?;
        let cluster = cluster_settings(&admin).await?;
        settings_page(&args.name, &detail, &cluster).print(args.output.format)?;
        return Ok(Exit::Fine);
    }
    let replicas = replicas_of(&admin.describe_topic(&args.name).await?);
    let cluster = cluster_settings(&admin).await?;
    let altered = admin.alter_topic(change).await?;
    let otherwise = |key: &'static ConfigKey| otherwise(key, &cluster, replicas);
    alteration(&args.name, &altered, dry_run, otherwise).print(args.output.format)?;
    Ok(Exit::Fine)
}

async fn add_partitions(
    admin: &Admin,
    args: &AlterArgs,
    count: u32,
) -> Result<CreatePartitionsResponse, Failure> {
    let name = &args.name;
    let plan = admin.create_partitions(name, count, DryRun::Yes).await?;
    if plan.replicas.is_empty() || args.dry_run {
        return Ok(plan);
    }
    let (first, more) = (plan.first.0, plan.replicas.len());
    let more = crate::human::counted(more, "partition");
    eprintln!("Adds {more} to topic {name}, which has {first}. They cannot be removed.");
    eprintln!(
        "Most keys go to another partition from then on: the order of a key's records is kept \
         before and after the change, but not across it."
    );
    if !args.yes {
        confirm::yes("Add them?", "nothing was changed").await?;
    }
    Ok(admin.create_partitions(name, count, DryRun::No).await?)
}

const ADDED_COLUMNS: &[Column] =
    &[Column::number("PARTITION"), Column::words("PREFERRED"), Column::words("REPLICAS")];

fn addition(name: &str, added: &CreatePartitionsResponse, dry_run: DryRun) -> Page {
    let mut page = Page::describe("hw.topic.partitions/1", name);
    let title = match (dry_run, added.replicas.is_empty()) {
        (_, true) => "Nothing to add to",
        (DryRun::Yes, false) => "Would add to",
        (DryRun::No, false) => "Added to",
    };
    page.fact(title, name);
    page.field("topic", name);
    page.field("topic_id", added.id.to_string());
    page.field("changed", dry_run == DryRun::No && !added.replicas.is_empty());
    let row = |(number, replicas): (u32, &Vec<NodeId>)| Row {
        name: format!("{name}/{number}"),
        cells: vec![number.to_string(), or_dash(replicas.first()), ids(replicas)],
        value: json!({
            "partition": number,
            "replicas": replicas.iter().map(|node| node.0).collect::<Vec<_>>(),
        }),
    };
    let rows = (added.first.0..).zip(&added.replicas).map(row).collect();
    page.rows = Some(Rows { field: "partitions", columns: ADDED_COLUMNS, rows });
    page
}

fn change(args: &AlterArgs) -> TopicChange {
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    let (set, unset) = (args.configs.clone(), args.unset.clone());
    let change = TopicChange { name: args.name.clone(), set, unset, dry_run };
    args.settings.iter().fold(change, |change, wish| match wish {
        Wish::Set(name, value) => change.set(name, value),
        Wish::Unset(name) => change.unset(name),
    })
}

const CHANGE_COLUMNS: &[Column] =
    &[Column::words("SETTING"), Column::words("BEFORE"), Column::words("AFTER")];

fn alteration(
    name: &str,
    altered: &AlterTopicResponse,
    dry_run: DryRun,
    otherwise: impl Fn(&'static ConfigKey) -> (String, &'static str),
) -> Page {
    let mut page = Page::describe("hw.topic.alter/1", name);
    let title = match (dry_run, altered.changes.is_empty()) {
        (_, true) => "Nothing to change in",
        (DryRun::Yes, false) => "Would change",
        (DryRun::No, false) => "Changed",
    };
    page.fact(title, name);
    page.field("topic", name);
    page.field("topic_id", altered.id.to_string());
    page.field("changed", dry_run == DryRun::No && !altered.changes.is_empty());
    let row = |SettingChange { name, before, after }: &SettingChange| {
        let shown = |value: &Option<String>| match (value, ConfigKey::named(name)) {
            (Some(value), _) => value.clone(),
            (None, Some(key)) => {
                let (value, source) = otherwise(key);
                format!("{value} ({source})")
            }
            (None, None) => "(not set)".to_owned(),
        };
        let holds = |value: &Option<String>| {
            let key = ConfigKey::named(name);
            value.clone().or_else(|| key.map(|key| otherwise(key).0))
        };
        Row {
            name: name.clone(),
            cells: vec![name.clone(), shown(before), shown(after)],
            value: json!({"name": name, "before": before, "after": after, "value": holds(after)}),
        }
    };
    let rows = altered.changes.iter().map(row).collect();
    page.rows = Some(Rows { field: "changes", columns: CHANGE_COLUMNS, rows });
    page
}

/// A setting's value and where it comes from.
struct Sourced {
    key: &'static ConfigKey,
    value: String,
    source: &'static str,
}

/// What the cluster says for topics that do not say otherwise.
pub async fn cluster_settings(admin: &Admin) -> Result<Vec<SettingValue>, Failure> {
    let mut settings = admin.describe_settings(SettingScope::Cluster).await?;
    settings.retain(|setting| setting.source == SettingSource::Cluster);
    Ok(settings)
}

/// All settings of a topic, sorted by name.
fn sourced(detail: &TopicDetail, cluster: &[SettingValue]) -> Vec<Sourced> {
    let replicas = replicas_of(detail);
    let one = |key: &'static ConfigKey| {
        let given = detail.configs.iter().find(|(name, _)| name == key.name);
        match given {
            Some((_, value)) => Sourced { key, value: value.clone(), source: "topic" },
            None => {
                let (value, source) = otherwise(key, cluster, replicas);
                Sourced { key, value, source }
            }
        }
    };
    TOPIC_SETTINGS.iter().map(one).collect()
}

fn replicas_of(detail: &TopicDetail) -> usize {
    detail.partitions.iter().map(|p| p.replicas.len()).max().unwrap_or(0)
}

/// The value that holds where the topic does not say, and where it comes from.
fn otherwise(key: &ConfigKey, cluster: &[SettingValue], replicas: usize) -> (String, &'static str) {
    match of_cluster(key, cluster, replicas) {
        Some(value) => (value, "cluster"),
        None => (key.default_for(replicas).to_owned(), "default"),
    }
}

fn of_cluster(key: &ConfigKey, cluster: &[SettingValue], replicas: usize) -> Option<String> {
    let set = cluster.iter().find(|setting| setting.name == key.name)?.value.clone()?;
    match (key.name, set.parse::<usize>()) {
        // Settled when a topic is made, as `FLUSH_ADVICE` says.
        ("flush", _) => None,
        ("min.insync.replicas", Ok(wanted)) => Some(wanted.min(replicas.max(1)).to_string()),
        _ => Some(set),
    }
}

fn value(Sourced { key, value, source }: &Sourced) -> Value {
    json!({"name": key.name, "value": value, "source": source, "default": key.default})
}

/// The value of a setting that a topic goes by; empty where there is no such setting.
pub fn in_force(detail: &TopicDetail, cluster: &[SettingValue], name: &str) -> String {
    let found = sourced(detail, cluster).into_iter().find(|sourced| sourced.key.name == name);
    found.map(|sourced| sourced.value).unwrap_or_default()
}

/// Adds all settings with their sources to a topic's description.
pub fn describe_settings(detail: &TopicDetail, cluster: &[SettingValue], page: &mut Page) {
    let settings = sourced(detail, cluster);
    for Sourced { key, value, source } in &settings {
        page.fact(key.name, format!("{value} ({source})"));
    }
    page.field("settings", settings.iter().map(value).collect::<Vec<_>>());
}

const SETTING_COLUMNS: &[Column] = &[
    Column::words("SETTING"),
    Column::words("VALUE"),
    Column::words("SOURCE"),
    Column::words("TAKES").wide(),
    Column::words("DESCRIPTION").wide(),
];

fn settings_page(name: &str, detail: &TopicDetail, cluster: &[SettingValue]) -> Page {
    let mut page = Page::describe("hw.topic.settings/1", name);
    page.field("topic", name);
    let row = |sourced: Sourced| {
        let value = value(&sourced);
        let Sourced { key, value: text, source } = sourced;
        let takes = key.takes.to_string();
        let words = [key.name, &text, source, &takes, key.description];
        let cells = words.iter().map(|word| (*word).to_owned()).collect();
        Row { name: key.name.to_owned(), cells, value }
    };
    let rows = sourced(detail, cluster).into_iter().map(row).collect();
    page.rows = Some(Rows { field: "settings", columns: SETTING_COLUMNS, rows });
    page
}

fn parse_wish(text: &str) -> Result<Wish, String> {
    let shape = || format!("`{text}` is neither KEY=VALUE nor KEY-, such as retention.ms-");
    if text.contains('=') {
        return parse_setting(text).map(|(name, value)| Wish::Set(name, value));
    }
    let name = text.strip_suffix('-').filter(|name| !name.is_empty()).ok_or_else(shape)?;
    Ok(Wish::Unset(name.to_owned()))
}

pub const EXAMPLES: &str = "\
Examples:
  hw topic alter orders                                     all settings and their sources
  hw topic alter orders retention.ms=86400000 segment.ms-   set one, and have one as if nobody had set it
  hw topic alter orders --config min.insync.replicas=2 --unset segment.bytes --dry-run
  hw topic alter orders --partitions 24                     add partitions until there are 24

All changes take effect at once on every broker, or none does. A smaller segment.bytes ends the
segment that is being written; a larger one holds from the next segment on.";

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_client::TopicId;

    use crate::output::Format;

    fn text(page: &Page) -> String {
        let mut out = Vec::new();
        page.write(Format::Table, &mut out).expect("a vector");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_setting_is_set_or_taken_back() {
        let set = Wish::Set("a.b".to_owned(), "-1".to_owned());
        assert_eq!(parse_wish("a.b=-1"), Ok(set));
        assert_eq!(parse_wish("a.b-"), Ok(Wish::Unset("a.b".to_owned())));
        for wrong in ["a.b", "-", "=1"] {
            assert!(parse_wish(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_setting_is_shown_with_its_source() {
        let configs = vec![("retention.ms".to_owned(), "5000".to_owned())];
        let detail =
            TopicDetail { id: TopicId::CLUSTER, configs, partitions: Vec::new(), codec: None };
        let cluster = [("segment.ms", "9000"), ("retention.ms", "1"), ("flush", "50")].map(
            |(name, value)| {
                let (name, value) = (name.to_owned(), Some(value.to_owned()));
                SettingValue { name, value, source: SettingSource::Cluster }
            },
        );
        let page = settings_page("orders", &detail, &cluster);
        let text = text(&page);
        let shows = |row: [&str; 3]| text.lines().any(|line| line.split_whitespace().eq(row));
        assert!(shows(["retention.ms", "5000", "topic"]), "{text}");
        assert!(shows(["retention.bytes", "-1", "default"]), "{text}");
        assert!(shows(["segment.ms", "9000", "cluster"]), "{text}");
        assert!(shows(["flush", "ack", "default"]), "{text}");
        assert_eq!(in_force(&detail, &cluster, "delete.protection"), "off");
        let settings = page.document()["settings"].as_array().map(Vec::len);
        assert_eq!(settings, Some(TOPIC_SETTINGS.len()));
    }

    #[test]
    fn a_difference_shows_what_holds_where_the_topic_does_not_say() {
        let change = |name: &str, before: Option<&str>, after: Option<&str>| SettingChange {
            name: name.to_owned(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let changes = vec![change("retention.ms", None, Some("5000"))];
        let altered = AlterTopicResponse { id: TopicId::CLUSTER, changes };
        let shown = |cluster: &[SettingValue]| {
            text(&alteration("orders", &altered, DryRun::Yes, |key| otherwise(key, cluster, 3)))
        };
        assert!(shown(&[]).contains("Would change"), "{}", shown(&[]));
        assert!(shown(&[]).contains("retention.ms  604800000 (default)  5000"), "{}", shown(&[]));
        let (name, value) = ("retention.ms".to_owned(), Some("9000".to_owned()));
        let cluster = [SettingValue { name, value, source: SettingSource::Cluster }];
        assert!(
            shown(&cluster).contains("retention.ms  9000 (cluster)  5000"),
            "{}",
            shown(&cluster)
        );
    }
}
