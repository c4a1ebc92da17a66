//! `hw cluster config`: settings of the cluster and of single brokers that change while they run,
//! and where each value in force comes from.
//!
//! The controller checks everything and says what differs; all changes take effect, or none.

use std::io::{self, IsTerminal};

use anstream::eprintln;
use clap::{Args, Subcommand};
use highwater_client::{
    DryRun, NodeId, SettingChange, SettingScope, SettingSource, SettingValue, SettingsChange,
};
use highwater_protocol::nearest::nearest;
use highwater_protocol::settings::{self, ConfigKey, cluster};
use serde_json::json;

use crate::cli::parse_setting;
use crate::confirm;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Page, ReadOutput, Row, Rows, or_dash};
use crate::target::parse_broker;

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// List all settings, their values and where these come from
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show single settings
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Set settings; they take effect at once
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// Have settings be as if nobody had set them
    #[command(visible_alias = "unset", after_help = RESET_EXAMPLES)]
    Reset(ResetArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// The settings that this broker goes by, its file included, instead of the cluster's
    #[arg(long, value_name = "BROKER", value_parser = parse_broker)]
    pub broker: Option<u32>,
    /// Only those that somebody has set
    #[arg(long)]
    pub set: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Args)]
pub struct GetArgs {
    /// The settings' names
    #[arg(required = true, value_name = "KEY")]
    pub names: Vec<String>,
    /// As this broker goes by them
    #[arg(long, value_name = "BROKER", value_parser = parse_broker)]
    pub broker: Option<u32>,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// What to set, such as leader.balance=off
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub settings: Vec<(String, String)>,
    /// For this broker only
    #[arg(long, value_name = "BROKER", value_parser = parse_broker)]
    pub broker: Option<u32>,
    /// Do not ask before retention is shortened
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Check everything, show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The settings' names
    #[arg(required = true, value_name = "KEY")]
    pub names: Vec<String>,
    /// What was set for this broker only
    #[arg(long, value_name = "BROKER", value_parser = parse_broker)]
    pub broker: Option<u32>,
    /// Do not ask before retention is shortened
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Check everything, show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Carries out a verb.
pub async fn run(verb: ConfigVerb, settings: &Settings) -> Result<Exit, Failure> {
    match verb {
        ConfigVerb::List(args) => {
            let mut found = describe(args.broker, settings).await?;
            found.retain(|setting| !args.set || setting.source != SettingSource::Default);
            list(found).print(args.output.format)?;
        }
        ConfigVerb::Get(args) => {
            let found = describe(args.broker, settings).await?;
            list(named(found, &args.names)?).print(args.output.format)?;
        }
        ConfigVerb::Set(args) => {
            let SetArgs { settings: set, broker, yes, dry_run, output } = args;
            let change = change(broker, set, Vec::new(), dry_run);
            let asks = if yes { Asks::Never } else { Asks::BeforeLoss };
            alter(change, asks, settings, output).await?;
        }
        ConfigVerb::Reset(args) => {
            let ResetArgs { names, broker, yes, dry_run, output } = args;
            let change = change(broker, Vec::new(), names, dry_run);
            let asks = if yes { Asks::Never } else { Asks::BeforeLoss };
            alter(change, asks, settings, output).await?;
        }
    }
    Ok(Exit::Fine)
}

async fn describe(broker: Option<u32>, settings: &Settings) -> Result<Vec<SettingValue>, Failure> {
    let admin = settings.connect().await?.admin();
    if let Some(node) = broker {
        crate::brokers::known(&admin, NodeId(node)).await?;
    }
    Ok(admin.describe_settings(scope(broker)).await?)
}

fn scope(broker: Option<u32>) -> SettingScope {
    broker.map_or(SettingScope::Cluster, |node| SettingScope::Broker(NodeId(node)))
}

fn change(
    broker: Option<u32>,
    set: Vec<(String, String)>,
    unset: Vec<String>,
    dry_run: bool,
) -> SettingsChange {
    let dry_run = if dry_run { DryRun::Yes } else { DryRun::No };
    SettingsChange { scope: scope(broker), set, unset, dry_run }
}

/// Changes settings, and says what differs.
pub async fn alter(
    change: SettingsChange,
    asks: Asks,
    settings: &Settings,
    output: ReadOutput,
) -> Result<(), Failure> {
    let (scope, dry_run) = (change.scope.clone(), change.dry_run);
    let admin = settings.connect().await?.admin();
    if let SettingScope::Broker(node) = scope {
        crate::brokers::known(&admin, node).await?;
    }
    if dry_run == DryRun::No && asks == Asks::BeforeLoss {
        let first = SettingsChange { dry_run: DryRun::Yes, ..change.clone() };
        let planned = admin.alter_settings(first).await?;
        let shortened: Vec<_> = planned.iter().filter(|change| is_shortened(change)).collect();
        if !shortened.is_empty() {
            ask_for_loss(&shortened).await?;
        }
    }
    let changes = admin.alter_settings(change).await?;
    if scope == SettingScope::Cluster && changes.iter().any(|change| change.name == "flush") {
        eprintln!("flush: {}", settings::topic::FLUSH_ADVICE);
    }
    Ok(alteration(&scope, &changes, dry_run).print(output.format)?)
}

/// Whether somebody is asked before records are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    Never,
    BeforeLoss,
}

/// Whether records that were kept are kept no longer.
fn is_shortened(change: &SettingChange) -> bool {
    if !matches!(change.name.as_str(), "retention.ms" | "retention.bytes") {
        return false;
    }
    let default = ConfigKey::named(&change.name).map(|key| key.default);
    // -1 is no limit, and so larger than every other.
    let limit = |value: &Option<String>| {
        let value = value.as_deref().or(default).unwrap_or_default();
        value.parse().unwrap_or(u64::MAX)
    };
    limit(&change.after) < limit(&change.before)
}

async fn ask_for_loss(shortened: &[&SettingChange]) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("a shorter retention deletes records, which is asked about first, but there is no terminal")
            .way_out("-y to change it without asking, --dry-run to see what would change"));
    }
    for SettingChange { name, before, after } in shortened {
        let (before, after) = (or_dash(before.as_ref()), or_dash(after.as_ref()));
        eprintln!("{name}: {before} -> {after}, for every topic that does not say otherwise");
    }
    eprintln!("Older records are deleted within a minute or two, and that cannot be undone.");
    confirm::yes("Shorten it?", "nothing was changed").await
}

fn named(found: Vec<SettingValue>, names: &[String]) -> Result<Vec<SettingValue>, Failure> {
    let one = |name: &String| {
        let setting = found.iter().find(|setting| setting.name == *name).cloned();
        setting.ok_or_else(|| {
            let failure =
                Failure::new(Exit::NotFound, format!("there is no setting `{name}` here"));
            match nearest(name, found.iter().map(|setting| setting.name.as_str())) {
                Some(near) => failure.way_out(format!("did you mean `{near}`?")),
                None => failure.way_out("`hw cluster config list` shows all"),
            }
        })
    };
    names.iter().map(one).collect()
}

/// The word for where a value comes from.
pub fn source_word(source: SettingSource) -> &'static str {
    match source {
        SettingSource::Default => "default",
        SettingSource::File => "file",
        SettingSource::Cluster => "cluster",
        SettingSource::Broker => "broker",
        SettingSource::Client => "client",
    }
}

const COLUMNS: &[Column] = &[
    Column::words("SETTING"),
    Column::words("VALUE"),
    Column::words("SOURCE"),
    Column::words("FOR"),
    Column::words("WHILE RUNNING").wide(),
    Column::words("DESCRIPTION").wide(),
];

fn list(found: Vec<SettingValue>) -> Page {
    let rows = found.into_iter().map(|setting| {
        let SettingValue { name, value, source } = setting;
        let (key, serves) = known(&name);
        let word = source_word(source);
        let description = key.map_or("", |key| key.description);
        let effect = key.map(|key| key.effect.to_string()).unwrap_or_default();
        Row {
            value: json!({
                "name": name, "value": value, "source": word, "for": serves, "while_running": effect,
            }),
            cells: [&name, &or_dash(value), word, serves, &effect, description]
                .map(str::to_owned)
                .to_vec(),
            name,
        }
    });
    let rows = Rows { field: "settings", columns: COLUMNS, rows: rows.collect() };
    Page::list("hw.cluster.config/1", rows)
}

/// What our tables say of a setting, and whose it is; a newer broker may have others.
fn known(name: &str) -> (Option<&'static ConfigKey>, &'static str) {
    let of_cluster = cluster::settable().into_iter().find(|(key, _)| key.name == name);
    let of_file = || settings::broker::named(name).map(|key| (key, cluster::Serves::Brokers));
    match of_cluster.or_else(of_file) {
        Some((key, cluster::Serves::Cluster)) => (Some(key), "cluster"),
        Some((key, cluster::Serves::Topics)) => (Some(key), "topics"),
        Some((key, cluster::Serves::Brokers)) => (Some(key), "brokers"),
        None => (None, "-"),
    }
}

const CHANGE_COLUMNS: &[Column] =
    &[Column::words("SETTING"), Column::words("BEFORE"), Column::words("AFTER")];

fn alteration(scope: &SettingScope, changes: &[SettingChange], dry_run: DryRun) -> Page {
    let (subject, broker, client) = match scope {
        SettingScope::Cluster => ("the cluster".to_owned(), None, None),
        SettingScope::Broker(node) => (format!("broker {node}"), Some(node.0), None),
        SettingScope::Client(name) => (format!("client {name}"), None, Some(name.as_str())),
    };
    let mut page = Page::describe("hw.cluster.config.alter/1", subject.clone());
    let title = match (dry_run, changes.is_empty()) {
        (_, true) => "Nothing to change in",
        (DryRun::Yes, false) => "Would change",
        (DryRun::No, false) => "Changed",
    };
    page.fact(title, subject);
    page.field("broker", broker);
    page.field("client", client);
    page.field("changed", dry_run == DryRun::No && !changes.is_empty());
    let row = |SettingChange { name, before, after }: &SettingChange| {
        let shown =
            |value: &Option<String>| value.clone().unwrap_or_else(|| "(not set)".to_owned());
        Row {
            name: name.clone(),
            cells: vec![name.clone(), shown(before), shown(after)],
            value: json!({"name": name, "before": before, "after": after}),
        }
    };
    let rows = changes.iter().map(row).collect();
    page.rows = Some(Rows { field: "changes", columns: CHANGE_COLUMNS, rows });
    page
}

const LIST_EXAMPLES: &str = "\
Examples:
  hw cluster config list                  the cluster's settings, and what topics and brokers go by
  hw cluster config list --broker 2       all that broker 2 goes by, with what its file says
  hw cluster config list --set -o jsonl

A value comes from: default, file (the broker's), cluster, broker, and for topics topic; the later one
wins. `hw explain KEY` says what a setting does.";
const GET_EXAMPLES: &str = "\
Examples:
  hw cluster config get leader.balance
  hw cluster config get limits.connections --broker 2 -o json";
const SET_EXAMPLES: &str = "\
Examples:
  hw cluster config set leader.balance=off
  hw cluster config set retention.ms=86400000       for all topics that do not say otherwise; asks
                                                    where records go, -y does not
  hw cluster config set log.filter=info,highwater_broker::raft=debug --broker 2
  hw cluster config set segment.bytes=67108864 --dry-run";
const RESET_EXAMPLES: &str = "\
Examples:
  hw cluster config reset leader.balance
  hw cluster config reset log.filter --broker 2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn setting(name: &str, value: &str, source: SettingSource) -> SettingValue {
        SettingValue { name: name.to_owned(), value: Some(value.to_owned()), source }
    }

    fn text(page: &Page) -> String {
        let mut out = Vec::new();
        page.write(Format::Table, &mut out).expect("a vector");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_value_is_shown_with_its_source_and_whom_it_serves() {
        let found = vec![
            setting("leader.balance", "off", SettingSource::Cluster),
            setting("retention.ms", "604800000", SettingSource::Default),
            setting("limits.connections", "9", SettingSource::Broker),
        ];
        let text = text(&list(found));
        let shows = |row: [&str; 4]| text.lines().any(|line| line.split_whitespace().eq(row));
        assert!(shows(["leader.balance", "off", "cluster", "cluster"]), "{text}");
        assert!(shows(["retention.ms", "604800000", "default", "topics"]), "{text}");
        assert!(shows(["limits.connections", "9", "broker", "brokers"]), "{text}");
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_the_nearest() {
        let found = vec![setting("leader.balance", "on", SettingSource::Default)];
        let failure = named(found, &["leader.balanc".to_owned()]).expect_err("a letter is missing");
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.to_string().contains("leader.balance"), "{failure}");
    }

    #[test]
    fn only_a_shorter_retention_is_a_loss() {
        let shortened = |name: &str, before: Option<&str>, after: Option<&str>| {
            let (before, after) = (before.map(str::to_owned), after.map(str::to_owned));
            is_shortened(&SettingChange { name: name.to_owned(), before, after })
        };
        assert!(shortened("retention.ms", None, Some("5000")));
        assert!(shortened("retention.ms", Some("-1"), None));
        assert!(shortened("retention.bytes", None, Some("2000000")));
        assert!(!shortened("retention.ms", Some("5000"), None));
        assert!(!shortened("retention.bytes", Some("5000000"), Some("-1")));
        assert!(!shortened("segment.ms", Some("9000"), Some("5000")));
    }

    #[test]
    fn a_change_says_whose_it_is() {
        let change = SettingChange {
            name: "log.filter".to_owned(),
            before: None,
            after: Some("debug".to_owned()),
        };
        let page = alteration(&SettingScope::Broker(NodeId(2)), &[change], DryRun::Yes);
        let text = text(&page);
        assert!(text.contains("Would change  broker 2"), "{text}");
        assert!(text.contains("log.filter  (not set)  debug"), "{text}");
        assert_eq!(page.document()["broker"], 2);
    }
}
