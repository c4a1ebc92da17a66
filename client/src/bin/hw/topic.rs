//! `hw topic`: create, list, describe, delete.

use std::io::{self, IsTerminal};

use anstream::eprintln;
use highwater_client::{
    Admin, CreateTopicResponse, DryRun, NewTopic, PartitionInfo, SettingValue, TopicDetail,
    TopicInfo,
};
use serde_json::{Map, Value, json};

use crate::cli::{TopicCreateArgs, TopicDeleteArgs, TopicVerb};
use crate::confirm;
use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Column, Page, Row, Rows, ids, or_dash};

/// Carries out a verb.
pub async fn run(verb: TopicVerb, settings: &Settings) -> Result<Exit, Failure> {
    match verb {
        TopicVerb::Create(args) => create(args, settings).await,
        TopicVerb::List { watch, output } => {
            let admin = settings.connect().await?.admin();
            watch.show(output.format, async || list(&admin).await).await
        }
        TopicVerb::Describe { name, watch, output } => {
            let admin = settings.connect().await?.admin();
            let look = async || {
                let detail = admin.describe_topic(&name).await?;
                let cluster = crate::alter::cluster_settings(&admin).await?;
                Ok((description(&name, &detail, &cluster), Exit::Fine))
            };
            watch.show(output.format, look).await
        }
        TopicVerb::Delete(args) => delete(args, settings).await,
        TopicVerb::Trim(args) => crate::trim::run(args, settings).await,
        TopicVerb::Analyze(args) => crate::analyze::run(args, settings).await,
        TopicVerb::Alter(args) => crate::alter::run(args, settings).await,
    }
}

async fn create(args: TopicCreateArgs, settings: &Settings) -> Result<Exit, Failure> {
    let topic = NewTopic {
        name: args.name.clone(),
        partitions: args.partitions,
        replication: args.replication,
        configs: args.configs,
        dry_run: if args.dry_run { DryRun::Yes } else { DryRun::No },
    };
    let dry_run = topic.dry_run;
    let created = settings.connect().await?.admin().create_topic(topic).await?;
    creation(&args.name, &created, dry_run).print(args.output.format)?;
    Ok(Exit::Fine)
}

const PLACEMENT_COLUMNS: &[Column] =
    &[Column::number("PARTITION"), Column::words("PREFERRED"), Column::words("REPLICAS")];

/// Whoever makes a thousand partitions does not want to read a thousand lines.
const PLACEMENTS_SHOWN_MAX: usize = 12;

fn creation(name: &str, created: &CreateTopicResponse, dry_run: DryRun) -> Page {
    let mut page = Page::describe("hw.topic.create/1", name);
    let (title, done) = match dry_run {
        DryRun::Yes => ("Would create", false),
        DryRun::No => ("Created", true),
    };
    page.fact(title, name);
    page.field("topic", name);
    page.field("created", done);
    if done {
        page.fact("Id", created.id.to_string());
        page.field("topic_id", created.id.to_string());
    }
    let rows = created.replicas.iter().enumerate().map(|(partition, replicas)| Row {
        name: format!("{name}/{partition}"),
        cells: vec![partition.to_string(), or_dash(replicas.first()), ids(replicas)],
        value: json!({"partition": partition, "replicas": numbers(replicas)}),
    });
    page.rows =
        Some(Rows { field: "partitions", columns: PLACEMENT_COLUMNS, rows: rows.collect() });
    page.fact("Partitions", created.replicas.len().to_string());
    page.table_rows_max = PLACEMENTS_SHOWN_MAX;
    page
}

const LIST_COLUMNS: &[Column] = &[
    Column::words("NAME"),
    Column::number("PARTITIONS"),
    Column::number("REPLICATION"),
    Column::number("UNDER-REPLICATED"),
    Column::number("LEADERLESS").wide(),
    Column::words("ID").wide(),
    Column::words("SETTINGS").wide(),
];

async fn list(admin: &Admin) -> Result<(Page, Exit), Failure> {
    let mut topics = admin.topics().await?;
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let mut exit = Exit::Fine;
    let mut rows = Vec::with_capacity(topics.len());
    for TopicInfo { name, result } in &topics {
        match result {
            Ok(detail) => rows.push(list_row(name, detail)),
            Err(error) => {
                eprintln!("topic {name}: {error}");
                exit = Exit::Partial;
            }
        }
    }
    let rows = Rows { field: "topics", columns: LIST_COLUMNS, rows };
    Ok((Page::list("hw.topic.list/1", rows), exit))
}

fn list_row(name: &str, detail: &TopicDetail) -> Row {
    let replication = detail.partitions.iter().map(|p| p.replicas.len()).max().unwrap_or(0);
    let under = detail.partitions.iter().filter(|p| is_under_replicated(p)).count();
    let leaderless = detail.partitions.iter().filter(|p| p.leader.is_none()).count();
    Row {
        name: name.to_owned(),
        cells: vec![
            name.to_owned(),
            detail.partitions.len().to_string(),
            replication.to_string(),
            under.to_string(),
            leaderless.to_string(),
            detail.id.to_string(),
            settings_text(&detail.configs),
        ],
        value: json!({
            "topic": name,
            "topic_id": detail.id.to_string(),
            "partitions_total": detail.partitions.len(),
            "partitions_under_replicated": under,
            "partitions_leaderless": leaderless,
            "replication": replication,
            "configs": settings_value(&detail.configs),
        }),
    }
}

/// Whether fewer replicas keep up than there are.
pub fn is_under_replicated(partition: &PartitionInfo) -> bool {
    partition.in_sync.len() < partition.replicas.len()
}

const DESCRIBE_COLUMNS: &[Column] = &[
    Column::number("PARTITION"),
    Column::words("LEADER"),
    Column::number("TERM"),
    Column::words("REPLICAS"),
    Column::words("IN-SYNC"),
];

fn description(name: &str, detail: &TopicDetail, cluster: &[SettingValue]) -> Page {
    let mut page = Page::describe("hw.topic.describe/1", name);
    page.fact("Topic", name);
    page.fact("Id", detail.id.to_string());
    page.fact("Partitions", detail.partitions.len().to_string());
    page.field("topic", name);
    page.field("topic_id", detail.id.to_string());
    page.field("configs", settings_value(&detail.configs));
    crate::alter::describe_settings(detail, cluster, &mut page);
    let rows = detail.partitions.iter().map(|partition| Row {
        name: format!("{name}/{}", partition.partition),
        cells: vec![
            partition.partition.to_string(),
            or_dash(partition.leader),
            partition.term.to_string(),
            ids(&partition.replicas),
            ids(&partition.in_sync),
        ],
        value: partition_value(partition),
    });
    page.rows = Some(Rows { field: "partitions", columns: DESCRIBE_COLUMNS, rows: rows.collect() });
    page
}

/// A partition's fields as in every document that has partitions.
pub fn partition_value(partition: &PartitionInfo) -> Value {
    json!({
        "partition": partition.partition.0,
        "leader": partition.leader.map(|leader| leader.0),
        "term": partition.term.0,
        "replicas": numbers(&partition.replicas),
        "in_sync": numbers(&partition.in_sync),
    })
}

fn numbers(nodes: &[highwater_client::NodeId]) -> Vec<u32> {
    nodes.iter().map(|node| node.0).collect()
}

fn settings_text(configs: &[(String, String)]) -> String {
    if configs.is_empty() {
        return "(defaults)".to_owned();
    }
    configs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

fn settings_value(configs: &[(String, String)]) -> Map<String, Value> {
    configs.iter().map(|(key, value)| (key.clone(), json!(value))).collect()
}

async fn delete(args: TopicDeleteArgs, settings: &Settings) -> Result<Exit, Failure> {
    if !args.yes && !args.dry_run && !io::stdin().is_terminal() {
        return Err(Failure::usage("deleting asks for the topic's name, but there is no terminal")
            .way_out("-y to delete without asking, --dry-run to see what would be deleted"));
    }
    let admin = settings.connect().await?.admin();
    let (mut done, mut rows) = (0, Vec::new());
    let mut first = None;
    for name in &args.names {
        match delete_one(&admin, name, &args).await {
            Ok(row) => {
                done += 1;
                rows.push(row);
            }
            Err(failure) if args.names.len() == 1 => return Err(failure),
            Err(failure) => {
                failure.report();
                first.get_or_insert(failure.exit);
            }
        }
    }
    let columns = const {
        &[Column::words("TOPIC"), Column::number("PARTITIONS"), Column::number("RECORDS")]
    };
    let mut page = Page::list("hw.topic.delete/1", Rows { field: "topics", columns, rows });
    page.field("changed", !args.dry_run && done > 0);
    match args.dry_run {
        true => page.print(args.output.format)?,
        false => page.print_for_programs(args.output.format)?,
    }
    Ok(match first {
        None => Exit::Fine,
        Some(exit) if done == 0 => exit,
        Some(_) => Exit::Partial,
    })
}

async fn delete_one(admin: &Admin, name: &str, args: &TopicDeleteArgs) -> Result<Row, Failure> {
    let detail = admin.describe_topic(name).await?;
    // Said before anybody counts records or types the name in; the controller has the last word.
    if crate::alter::in_force(&detail, &crate::alter::cluster_settings(admin).await?, GUARD) == "on"
    {
        let what = format!("topic {name} is protected by `{GUARD}`; nothing was deleted");
        let way_out = format!("`hw topic alter {name} {GUARD}=off`, then delete it");
        return Err(Failure::new(Exit::Conflict, what).way_out(way_out));
    }
    let partitions = detail.partitions.len();
    let mut plan = format!("topic {name} with {}", human::counted(partitions, "partition"));
    let mut records = None;
    if args.dry_run || !args.yes {
        records = count_records(admin, name, &detail).await;
        plan += &match records {
            Some(records) => format!(" and {}", human::counted(records as usize, "record")),
            None => " and an unknown number of records".to_owned(),
        };
    }
    let row = Row {
        name: name.to_owned(),
        cells: vec![name.to_owned(), partitions.to_string(), or_dash(records.map(human::count))],
        value: json!({
            "topic": name,
            "topic_id": detail.id.to_string(),
            "partitions_total": partitions,
            "records_total": records,
        }),
    };
    if args.dry_run {
        eprintln!("would delete {plan}");
        return Ok(row);
    }
    if !args.yes {
        confirm::deletion(name, &plan).await?;
    }
    admin.delete_topic(name).await?;
    eprintln!("deleted {plan}");
    Ok(row)
}

/// The setting that keeps a topic from being deleted.
const GUARD: &str = "delete.protection";

/// How many records would be gone; `None` where a partition cannot say, because a plan must not
/// keep anyone from deleting a broken topic.
async fn count_records(admin: &Admin, name: &str, detail: &TopicDetail) -> Option<u64> {
    use highwater_client::OffsetAt;
    if detail.partitions.iter().any(|partition| partition.leader.is_none()) {
        return None;
    }
    let mut records = 0;
    for partition in detail.partitions.iter().map(|info| info.partition) {
        let start = admin.list_offsets(name, partition, OffsetAt::Start).await.ok()?;
        let end = admin.list_offsets(name, partition, OffsetAt::End).await.ok()?;
        records += end.offset.0.saturating_sub(start.offset.0);
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use highwater_client::{NodeId, PartitionId, Term, TopicId};

    fn partition(number: u32, in_sync: &[u32]) -> PartitionInfo {
        let nodes = |ids: &[u32]| ids.iter().copied().map(NodeId).collect();
        PartitionInfo {
            partition: PartitionId(number),
            leader: in_sync.first().copied().map(NodeId),
            term: Term(4),
            replicas: nodes(&[1, 2, 3]),
            in_sync: nodes(in_sync),
        }
    }

    #[test]
    fn a_creation_shows_a_few_placements_and_programs_get_all() {
        let replicas = vec![vec![NodeId(1), NodeId(2)]; 1_000];
        let created = CreateTopicResponse { id: TopicId::CLUSTER, replicas };
        let page = creation("orders", &created, DryRun::No);
        let lines = |format| {
            let mut out = Vec::new();
            page.write(format, &mut out).expect("a vector");
            String::from_utf8(out).expect("text")
        };
        let table = lines(Format::Table);
        assert!(table.lines().count() < 20, "{table}");
        assert!(table.contains("Partitions  1000\n"), "{table}");
        assert!(table.contains("... and 988 more; -o wide shows all"), "{table}");
        assert!(lines(Format::Wide).lines().count() > 1_000);
        assert_eq!(page.document()["partitions"].as_array().map(Vec::len), Some(1_000));
    }

    #[test]
    fn a_list_counts_what_is_not_well() {
        let detail = TopicDetail {
            id: TopicId::CLUSTER,
            configs: vec![("flush".to_owned(), "ack".to_owned())],
            partitions: vec![partition(0, &[1, 2, 3]), partition(1, &[2]), partition(2, &[])],
            codec: None,
        };
        let row = list_row("orders", &detail);
        assert_eq!(row.value["partitions_under_replicated"], 2);
        assert_eq!(row.value["partitions_leaderless"], 1);
        assert_eq!(row.value["configs"]["flush"], "ack");
        assert_eq!(row.cells[..4], ["orders", "3", "3", "2"].map(str::to_owned));
    }

    #[test]
    fn a_description_names_leader_and_replicas_of_each_partition() {
        let detail = TopicDetail {
            id: TopicId::CLUSTER,
            configs: Vec::new(),
            partitions: vec![partition(0, &[1, 3])],
            codec: None,
        };
        let mut out = Vec::new();
        description("orders", &detail, &[]).write(Format::Table, &mut out).expect("a vector");
        let text = String::from_utf8(out).expect("text");
        assert!(text.contains("PARTITION  LEADER  TERM  REPLICAS  IN-SYNC\n"), "{text}");
        assert!(text.contains("        0  1          4  1,2,3     1,3\n"), "{text}");
    }
}
