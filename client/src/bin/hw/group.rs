//! `hw group`: what consumer groups there are, how far they have come, and changing that while nobody reads.

mod export;
mod lag;
mod pace;
mod seek;

use std::collections::BTreeMap;

use anstream::eprintln;
use clap::{Args, Subcommand};
use highwater_client::{
    Admin, GroupDescription, GroupListing, MemberDescription, TopicId, TopicPartition,
};
use serde_json::json;

use crate::confirm;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, ReadOutput, Row, Rows, or_dash};
use crate::watch::Watch;

#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// List all consumer groups
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        watch: Watch,
        /// How to print it.
        #[command(flatten)]
        output: ReadOutput,
    },
    /// Describe a group: its members and what each of them owns
    #[command(visible_aliases = ["info", "members"], after_help = DESCRIBE_EXAMPLES)]
    Describe {
        /// The group's name
        group: String,
        #[command(flatten)]
        watch: Watch,
        /// How to print it.
        #[command(flatten)]
        output: ReadOutput,
    },
    /// Show how far a group is behind, in every partition
    #[command(after_help = lag::EXAMPLES)]
    Lag(lag::LagArgs),
    /// Print how far a group has come, for `hw group seek --from-file`
    #[command(after_help = export::EXAMPLES)]
    Export {
        /// The group's name
        group: String,
    },
    /// Set where a group without members goes on
    #[command(after_help = seek::EXAMPLES)]
    Seek(seek::SeekArgs),
    /// Delete a group without members, and how far it has come
    #[command(visible_alias = "rm", after_help = DELETE_EXAMPLES)]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The group's name
    pub group: String,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Show what would be deleted, delete nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Carries out a verb.
pub async fn run(verb: GroupVerb, settings: &Settings) -> Result<Exit, Failure> {
    let client = settings.connect().await?;
    let admin = client.admin();
    match verb {
        GroupVerb::List { watch, output } => {
            watch.show(output.format, async || list(&admin).await).await
        }
        GroupVerb::Describe { group, watch, output } => {
            let look = async || {
                let described = admin.describe_group(&group).await?;
                let names = names(&admin).await?;
                Ok((description(&group, &described, &names), Exit::Fine))
            };
            watch.show(output.format, look).await
        }
        GroupVerb::Lag(args) => lag::run(args, &client).await,
        GroupVerb::Export { group } => export::run(&group, &admin).await,
        GroupVerb::Seek(args) => seek::run(args, &admin).await,
        GroupVerb::Delete(args) => delete(args, &admin).await,
    }
}

/// The names of topics by their ids.
async fn names(admin: &Admin) -> Result<BTreeMap<TopicId, String>, Failure> {
    let topics = admin.topics().await?;
    Ok(topics.into_iter().filter_map(|it| Some((it.result.ok()?.id, it.name))).collect())
}

fn title(names: &BTreeMap<TopicId, String>, at: TopicPartition) -> String {
    match names.get(&at.topic) {
        Some(name) => format!("{name}/{}", at.partition),
        None => at.to_string(),
    }
}

const LIST_COLUMNS: &[Column] = &[
    Column::words("GROUP"),
    Column::words("STATE"),
    Column::number("MEMBERS"),
    Column::number("PARTITIONS COMMITTED"),
];

async fn list(admin: &Admin) -> Result<(Page, Exit), Failure> {
    let row = |listing: GroupListing| {
        let GroupListing { group, state, members, offsets } = listing;
        let name = group.0;
        Row {
            cells: vec![
                name.clone(),
                state.name().into(),
                members.to_string(),
                offsets.to_string(),
            ],
            value: json!({
                "group": name,
                "state": state.name(),
                "members_total": members,
                "offsets_total": offsets,
            }),
            name,
        }
    };
    let rows = admin.groups().await?.into_iter().map(row).collect();
    let rows = Rows { field: "groups", columns: LIST_COLUMNS, rows };
    Ok((Page::list("hw.group.list/1", rows), Exit::Fine))
}

const MEMBER_COLUMNS: &[Column] = &[
    Column::words("MEMBER"),
    Column::words("CLIENT"),
    Column::words("INSTANCE"),
    Column::words("HEARD"),
    Column::number("OWNS"),
    Column::number("GIVES UP"),
    Column::number("GETS"),
    Column::words("PARTITIONS").wide(),
    Column::words("RACK").wide(),
    Column::number("EPOCH").wide(),
];

fn description(
    group: &str,
    described: &GroupDescription,
    names: &BTreeMap<TopicId, String>,
) -> Page {
    let mut page = Page::describe("hw.group.describe/1", group);
    page.fact("Group", group);
    page.fact("State", described.state.name());
    page.fact("Assignor", described.assignor.name());
    page.fact("Members", described.members.len().to_string());
    page.field("group", group);
    page.field("state", described.state.name());
    page.field("assignor", described.assignor.name());
    page.field("epoch", described.epoch.0);
    page.field("empty_since_ms", described.empty_since.map(|since| since.0));
    let rows = described.members.iter().map(|member| member_row(member, names)).collect();
    page.rows = Some(Rows { field: "members", columns: MEMBER_COLUMNS, rows });
    page
}

fn member_row(member: &MemberDescription, names: &BTreeMap<TopicId, String>) -> Row {
    let titles = |list: &[TopicPartition]| -> Vec<String> {
        list.iter().map(|at| title(names, *at)).collect()
    };
    let coming = member.target.iter().filter(|at| !member.assigned.contains(at)).count();
    let id = member.member.to_string();
    Row {
        cells: vec![
            id.clone(),
            member.client_id.clone(),
            or_dash(member.instance.as_ref()),
            format!("{} ago", human::seconds(member.heard_ms / 1000)),
            member.assigned.len().to_string(),
            member.revoking.len().to_string(),
            coming.to_string(),
            titles(&member.assigned).join(" "),
            or_dash(member.rack.as_ref()),
            member.epoch.to_string(),
        ],
        value: json!({
            "member": id,
            "client": member.client_id,
            "instance": member.instance,
            "rack": member.rack,
            "reads": member.topics,
            "epoch": member.epoch.0,
            "heard_ms": member.heard_ms,
            "owns": titles(&member.assigned),
            "gives_up": titles(&member.revoking),
            "target": titles(&member.target),
        }),
        name: id,
    }
}

async fn delete(args: DeleteArgs, admin: &Admin) -> Result<Exit, Failure> {
    let DeleteArgs { group, yes, dry_run } = args;
    if !yes && !dry_run {
        confirm::terminal_for("deleting a group asks first", "-y to delete without asking")?;
    }
    let described = admin.describe_group(&group).await?;
    let offsets = admin.group_offsets(&group).await?.len();
    let what = format!(
        "group {group}, with what it has committed for {}",
        human::counted(offsets, "partition")
    );
    if dry_run {
        match described.members.len() {
            0 => eprintln!("would delete {what}"),
            members => eprintln!(
                "would refuse to delete {what}, for it has {}",
                human::counted(members, "member")
            ),
        }
        return Ok(Exit::Fine);
    }
    if !yes {
        confirm::yes(&format!("Delete {what}?"), "nothing was deleted").await?;
    }
    admin.delete_group(&group).await?;
    eprintln!("deleted {what}");
    Ok(Exit::Fine)
}

const LIST_EXAMPLES: &str = "\
Examples:
  hw group list
  hw group list -o json | jq '.groups[] | select(.state == \"reconciling\")'
  hw group list -w";

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  hw group describe billing
  hw group describe billing -o wide
  hw group describe billing -w 1s

GIVES UP counts partitions that a member was told to give up and has not yet; GETS those that are to be
its own once others have given them up.";

const DELETE_EXAMPLES: &str = "\
Examples:
  hw group delete billing
  hw group delete billing -y
  hw group delete billing --dry-run";
