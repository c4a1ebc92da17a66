//! `hw explain`: what an error, a setting or a word of `hw` means, and what to do about it; offline.
//!
//! Everything comes from the tables that the code itself goes by: error codes, settings, reasons.

use clap::Args;
use clap::builder::{PossibleValue, TypedValueParser};
use highwater_client::Outcome;
use highwater_protocol::error::ErrorCode;
use highwater_protocol::nearest::nearest;
use highwater_protocol::settings::{self, ConfigKey};
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::output::{Column, Page, ReadOutput, Row, Rows};
use crate::reasons::{self, Reason};

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// An error by name or number, a setting, or a word that hw has printed; without one, all are listed
    #[arg(value_name = "NAME", value_parser = AnyName, hide_possible_values = true)]
    pub name: Option<String>,
    /// How to print it.
    #[command(flatten)]
    pub output: ReadOutput,
}

/// Takes any text, and has shells complete the names that can be explained.
#[derive(Debug, Clone, Copy)]
struct AnyName;

impl TypedValueParser for AnyName {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        clap::builder::StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(everything().into_iter().map(|thing| PossibleValue::new(thing.name()))))
    }
}

/// Something that can be explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Error(ErrorCode),
    Setting(Owner, &'static ConfigKey),
    Word(&'static Reason),
}

/// Whose setting it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Topic,
    Cluster,
    BrokerFile,
    Profile,
}

/// All that can be explained, in the order in which it is listed.
fn everything() -> Vec<Thing> {
    let errors = ErrorCode::ALL.iter().map(|code| Thing::Error(*code));
    let of =
        |owner, keys: &'static [ConfigKey]| keys.iter().map(move |key| Thing::Setting(owner, key));
    let topic = of(Owner::Topic, &settings::topic::KEYS);
    let broker = of(Owner::BrokerFile, settings::broker::KEYS);
    let cluster = of(Owner::Cluster, settings::cluster::KEYS);
    let profile = of(Owner::Profile, settings::profile::KEYS);
    errors
        .chain(topic)
        .chain(cluster)
        .chain(broker)
        .chain(profile)
        .chain(reasons::all().map(Thing::Word))
        .collect()
}

/// The names of all that can be explained.
pub fn names() -> Vec<&'static str> {
    everything().iter().map(Thing::name).collect()
}

/// Explains the thing named, or lists what can be explained.
pub fn run(args: &ExplainArgs) -> Result<Exit, Failure> {
    let Some(name) = &args.name else {
        list().print(args.output.format)?;
        return Ok(Exit::Fine);
    };
    page(find(name)?).print(args.output.format)?;
    Ok(Exit::Fine)
}

fn find(name: &str) -> Result<Thing, Failure> {
    let things = everything();
    if let Some(found) = things.iter().find(|thing| thing.is_called(name)) {
        return Ok(*found);
    }
    let failure = Failure::new(Exit::NotFound, format!("nothing here is called `{name}`"));
    Err(match nearest(name, things.iter().map(Thing::name)) {
        Some(near) => failure.way_out(format!("did you mean `hw explain {near}`?")),
        None => failure.way_out("`hw explain` lists everything that can be explained"),
    })
}

impl Thing {
    fn name(&self) -> &'static str {
        match self {
            Thing::Error(code) => code.label(),
            Thing::Setting(_, key) => key.name,
            Thing::Word(reason) => reason.name,
        }
    }

    /// Whether people call it so: in any case, and errors by number and by their name in Rust, too.
    fn is_called(&self, name: &str) -> bool {
        let by_other_names = match self {
            Thing::Error(code) => {
                name == code.number().to_string() || name.eq_ignore_ascii_case(&format!("{code:?}"))
            }
            Thing::Setting(..) | Thing::Word(_) => false,
        };
        by_other_names || name.eq_ignore_ascii_case(self.name())
    }

    fn kind(&self) -> &'static str {
        match self {
            Thing::Error(_) => "error",
            Thing::Setting(owner, _) => owner.words(),
            Thing::Word(_) => "word",
        }
    }

    fn meaning(&self) -> &'static str {
        match self {
            Thing::Error(code) => code.meaning(),
            Thing::Setting(_, key) => key.description,
            Thing::Word(reason) => reason.meaning,
        }
    }
}

impl Owner {
    fn words(self) -> &'static str {
        match self {
            Owner::Topic => "setting of topics, and of the cluster for those that do not say",
            Owner::Cluster => "setting of the cluster",
            Owner::BrokerFile => "key of a broker's file",
            Owner::Profile => "key of a profile",
        }
    }
}

fn page(thing: Thing) -> Page {
    let mut page = Page::describe("hw.explain/1", thing.name());
    page.fact("Name", thing.name());
    page.fact("Is", thing.kind());
    page.fact("Meaning", thing.meaning());
    page.field("name", thing.name());
    page.field("kind", thing.kind());
    page.field("meaning", thing.meaning());
    match thing {
        Thing::Error(code) => explain_error(code, &mut page),
        Thing::Setting(_, key) => explain_setting(key, &mut page),
        Thing::Word(reason) => {
            page.fact("What to do", reason.advice);
            page.fact("Seen in", reason.example);
            page.field("advice", reason.advice);
            page.field("example", reason.example);
        }
    }
    page
}

fn explain_error(code: ErrorCode, page: &mut Page) {
    let retriable = match code.retriable() {
        true => "yes: the same request may succeed later; clients try again by themselves",
        false => "no: it fails until somebody changes something",
    };
    let outcome = match Outcome::after(code) {
        Outcome::NotWritten => "not written: sending it again cannot repeat it",
        Outcome::Unknown => "unknown: it may or may not be written",
        Outcome::Written => "written, but with less than what was asked for",
    };
    page.fact("Number", code.number().to_string());
    page.fact("Retriable", retriable);
    page.fact("A produced batch", outcome);
    page.fact("What to do", code.remedy());
    page.fact("Seen as", format!("error: cannot ...: ... ({})", code.label()));
    page.field("number", code.number());
    page.field("retriable", code.retriable());
    page.field("outcome", outcome);
    page.field("advice", code.remedy());
}

fn explain_setting(key: &ConfigKey, page: &mut Page) {
    let default = if key.default.is_empty() { "none: it must be given" } else { key.default };
    page.fact("Takes", key.takes.to_string());
    if let Some(unit) = key.unit {
        page.fact("Unit", unit);
    }
    page.fact("Default", default);
    page.fact("While running", key.effect.to_string());
    page.fact("What to do", key.advice);
    page.fact("Example", key.example);
    page.field("takes", key.takes.to_string());
    page.field("unit", key.unit);
    page.field("default", (!key.default.is_empty()).then_some(key.default));
    page.field("while_running", key.effect.to_string());
    page.field("advice", key.advice);
    page.field("example", key.example);
}

const COLUMNS: &[Column] =
    &[Column::words("NAME"), Column::words("IS"), Column::words("MEANING").wide()];

fn list() -> Page {
    let row = |thing: Thing| Row {
        name: thing.name().to_owned(),
        cells: [thing.name(), thing.kind(), thing.meaning()].map(str::to_owned).to_vec(),
        value: json!({"name": thing.name(), "kind": thing.kind(), "meaning": thing.meaning()}),
    };
    let rows = everything().into_iter().map(row).collect();
    Page::list("hw.explain.list/1", Rows { field: "things", columns: COLUMNS, rows })
}

pub const EXAMPLES: &str = "\
Examples:
  hw explain NOT_ENOUGH_REPLICAS      an error by its name, or by its number: hw explain 19
  hw explain retention.ms             a setting: what it does, takes, and when it takes effect
  hw explain under-replicated         a word that hw has printed
  hw explain -o name                  everything that can be explained";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn everything_has_its_own_name_and_a_whole_page() {
        let things = everything();
        for thing in &things {
            assert_eq!(find(thing.name()).ok(), Some(*thing), "{}", thing.name());
            let mut out = Vec::new();
            page(*thing).write(Format::Table, &mut out).expect("a vector");
            let text = String::from_utf8(out).expect("text");
            let parts = match thing {
                Thing::Error(_) => &["Meaning", "Retriable", "A produced batch", "What to do"][..],
                Thing::Setting(..) => &["Takes", "Default", "While running", "Example"],
                Thing::Word(_) => &["Meaning", "What to do", "Seen in"],
            };
            for part in parts {
                let line = text.lines().find_map(|line| line.strip_prefix(part));
                assert!(line.is_some_and(|rest| !rest.trim().is_empty()), "{text}");
            }
        }
    }

    #[test]
    fn errors_are_found_by_number_and_in_any_case() {
        let expected = Thing::Error(ErrorCode::NotEnoughReplicas);
        for name in ["19", "NOT_ENOUGH_REPLICAS", "not_enough_replicas", "NotEnoughReplicas"] {
            assert_eq!(find(name).ok(), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_near_miss_is_answered_with_the_name_that_was_meant() {
        let failure = find("retension.ms").expect_err("a typing mistake");
        assert_eq!(failure.exit, Exit::NotFound);
        assert!(failure.to_string().contains("hw explain retention.ms"), "{failure}");
        let failure = find("the meaning of life").expect_err("not in any table");
        assert!(failure.to_string().contains("lists everything"), "{failure}");
    }
}
