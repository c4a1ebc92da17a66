//! `hw quota`: how fast clients may write to and read from each broker, all of them and each by its name.
//!
//! Quotas are settings of the cluster, for everyone, and of single clients; this says so in fewer words.

use clap::{Args, Subcommand};
use highwater_client::{Admin, ClientSettings, DryRun, SettingScope, SettingsChange};
use serde_json::json;

use crate::config::{Asks, alter};
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows};

#[derive(Debug, Subcommand)]
pub enum QuotaVerb {
    /// List the quotas of everyone, and of clients with one of their own
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List {
        /// How to print it.
        #[command(flatten)]
        output: ReadOutput,
    },
    /// Set the quotas of a client, or of everyone who has none of their own; they hold at once
    #[command(after_help = SET_EXAMPLES)]
    Set(SetArgs),
    /// Have a client go by the quotas of everyone
    #[command(visible_alias = "unset", after_help = RESET_EXAMPLES)]
    Reset(ResetArgs),
}

#[derive(Debug, Args)]
pub struct SetArgs {
    #[command(flatten)]
    pub whose: Whose,
    /// How much it may write to each broker in a second, such as 10MiB, or none for any amount
    #[arg(long, value_name = "SIZE", value_parser = parse_rate, required_unless_present = "fetch")]
    pub produce: Option<Rate>,
    /// How much it may read from each broker in a second, such as 50MiB, or none for any amount
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub fetch: Option<Rate>,
    /// Check everything, show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

#[derive(Debug, Args)]
pub struct ResetArgs {
    #[command(flatten)]
    pub whose: Whose,
    /// Check everything, show what would change, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// One client, or everyone.
#[derive(Debug, Args)]
#[group(required = true)]
pub struct Whose {
    /// The client's name, as in its certificate
    #[arg(value_name = "NAME", conflicts_with = "everyone")]
    pub client: Option<String>,
    /// Everyone who has no quota of their own
    #[arg(long)]
    pub everyone: bool,
}

impl Whose {
    fn scope(self) -> SettingScope {
        self.client.map_or(SettingScope::Cluster, SettingScope::Client)
    }
}

/// Bytes a second; none for any number.
type Rate = Option<u64>;

fn parse_rate(text: &str) -> Result<Rate, String> {
    match text {
        "none" => Ok(None),
        size => human::parse_bytes(size).map(Some),
    }
}

/// Carries out a verb.
pub async fn run(verb: QuotaVerb, settings: &Settings) -> Result<Exit, Failure> {
    let dry = |dry_run| if dry_run { DryRun::Yes } else { DryRun::No };
    let (change, output) = match verb {
        QuotaVerb::List { output } => {
            list(&settings.connect().await?.admin()).await?.print(output.format)?;
            return Ok(Exit::Fine);
        }
        QuotaVerb::Set(SetArgs { whose, produce, fetch, dry_run, output }) => {
            let given = [(PRODUCE, produce), (FETCH, fetch)].into_iter();
            let set = given.filter_map(|(name, rate)| {
                let rate = rate?.map_or("-1".to_owned(), |rate| rate.to_string());
                Some((name.to_owned(), rate))
            });
            let (set, unset, dry_run) = (set.collect(), Vec::new(), dry(dry_run));
            (SettingsChange { scope: whose.scope(), set, unset, dry_run }, output)
        }
        QuotaVerb::Reset(ResetArgs { whose, dry_run, output }) => {
            let (set, unset, dry_run) =
                (Vec::new(), vec![PRODUCE.into(), FETCH.into()], dry(dry_run));
            (SettingsChange { scope: whose.scope(), set, unset, dry_run }, output)
        }
    };
    alter(change, Asks::Never, settings, output).await?;
    Ok(Exit::Fine)
}

const COLUMNS: &[Column] =
    &[Column::words("CLIENT"), Column::number("PRODUCE/S"), Column::number("FETCH/S")];

async fn list(admin: &Admin) -> Result<Page, Failure> {
    let everyone = admin.describe_settings(SettingScope::Cluster).await?;
    let of_everyone = |name: &str| {
        let setting = everyone.iter().find(|setting| setting.name == name)?;
        setting.value.as_deref()?.parse::<u64>().ok()
    };
    let (produce, fetch) = (of_everyone(PRODUCE), of_everyone(FETCH));
    let mut rows = vec![row(None, produce, fetch)];
    for ClientSettings { client, settings } in admin.client_settings().await? {
        let of = |name: &str, or: Rate| {
            let own = settings.iter().find(|(known, _)| known == name);
            own.map_or(or, |(_, value)| value.parse().ok())
        };
        rows.push(row(Some(client), of(PRODUCE, produce), of(FETCH, fetch)));
    }
    Ok(Page::list("hw.quota.list/1", Rows { field: "quotas", columns: COLUMNS, rows }))
}

fn row(client: Option<String>, produce: Rate, fetch: Rate) -> Row {
    let shown = |rate: Rate| rate.map_or("any".to_owned(), human::bytes);
    let name = client.clone().unwrap_or_else(|| "(everyone)".to_owned());
    Row {
        cells: vec![name.clone(), shown(produce), shown(fetch)],
        value: json!({
            "client": client, "produce_bytes_per_s": produce, "fetch_bytes_per_s": fetch,
        }),
        name,
    }
}

const PRODUCE: &str = "quota.produce.rate";
const FETCH: &str = "quota.fetch.rate";

const LIST_EXAMPLES: &str = "\
Examples:
  hw quota list
  hw quota list -o json | jq '.quotas[] | select(.client)'

A client without a quota of its own goes by that of everyone, each by itself. `any` is no limit.";
const SET_EXAMPLES: &str = "\
Examples:
  hw quota set --everyone --produce 10MiB --fetch 50MiB
  hw quota set reports --fetch 5MiB
  hw quota set ingest --produce none

NAME is what `highwater issue NAME` wrote into the client's certificate. A quota holds on each broker, over all
connections of the client; who goes beyond it waits, and is not refused.";
const RESET_EXAMPLES: &str = "\
Examples:
  hw quota reset reports
  hw quota reset --everyone --dry-run";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_size_or_none() {
        assert_eq!(parse_rate("10MiB"), Ok(Some(10 << 20)));
        assert_eq!(parse_rate("10MiB/s"), Ok(Some(10 << 20)));
        assert_eq!(parse_rate("none"), Ok(None));
        assert!(parse_rate("any").is_err() && parse_rate("-1").is_err());
    }
}
