//! `hw profile`: named clusters, their addresses and certificates.
//!
//! The file belongs to the client library, which reads and writes it; `highwater dev` writes one
//! too. Keys stay in their own files, a profile only points at them.

use std::path::{Path, PathBuf};

use anstream::eprintln;
use clap::{Args, Subcommand};
use highwater_client::{Profile, Profiles};
use serde_json::{Value, json};

use crate::connect::Settings;
use crate::exit::{Exit, Failure};
use crate::output::{Column, Format, Page, ReadOutput, Row, Rows};
use crate::record::args::Codec;

#[derive(Debug, Subcommand)]
pub enum ProfileVerb {
    /// List the profiles
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List {
        /// How to print it.
        #[command(flatten)]
        output: ReadOutput,
    },
    /// Show the profile in use, or the one named
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Its name
        name: Option<String>,
        /// Say of every value where it comes from
        #[arg(long)]
        sources: bool,
        /// How to print it.
        #[command(flatten)]
        output: ReadOutput,
    },
    /// Make a profile the current one
    #[command(after_help = USE_EXAMPLES)]
    Use {
        /// Its name
        name: String,
    },
    /// Add a profile from --bootstrap, --ca, --cert and --key
    #[command(visible_alias = "create", after_help = ADD_EXAMPLES)]
    Add(ProfileAddArgs),
    /// Print the name of the profile in use
    #[command(after_help = CURRENT_EXAMPLES)]
    Current,
    /// Give a profile another name
    #[command(visible_alias = "mv", after_help = RENAME_EXAMPLES)]
    Rename {
        /// Its name
        from: String,
        /// Its new name
        to: String,
    },
    /// Remove a profile; certificates stay where they are
    #[command(visible_alias = "rm", after_help = REMOVE_EXAMPLES)]
    Remove {
        /// Its name
        name: String,
    },
    /// Print the path of the file with the profiles
    #[command(after_help = PATH_EXAMPLES)]
    Path,
}

#[derive(Debug, Args)]
pub struct ProfileAddArgs {
    /// Its name
    pub name: String,
    /// Make it the current one
    #[arg(long = "use")]
    pub make_current: bool,
    /// Replace a profile of that name
    #[arg(long)]
    pub force: bool,
    /// What producers pack batches with that do not choose themselves [default: lz4]
    #[arg(long, value_name = "CODEC")]
    pub compression: Option<Codec>,
}

/// Carries out a verb.
pub fn run(verb: ProfileVerb, settings: &Settings) -> Result<Exit, Failure> {
    match verb {
        ProfileVerb::List { output } => list(output.format),
        ProfileVerb::Show { name, sources, output } => {
            let page = match name {
                Some(name) => describe(&name, named(&Profiles::load()?, &name)?),
                None => {
                    effective(settings, if sources { Sources::Shown } else { Sources::Hidden })?
                }
            };
            page.print(output.format)?;
            Ok(Exit::Fine)
        }
        ProfileVerb::Use { name } => {
            let mut profiles = Profiles::load()?;
            named(&profiles, &name)?;
            profiles.current = Some(name.clone());
            profiles.save()?;
            eprintln!("now using profile {name}");
            Ok(Exit::Fine)
        }
        ProfileVerb::Add(args) => add(args, settings),
        ProfileVerb::Current => current(settings),
        ProfileVerb::Rename { from, to } => rename(&from, to),
        ProfileVerb::Remove { name } => remove(&name),
        ProfileVerb::Path => {
            anstream::println!("{}", Profiles::path()?.display());
            Ok(Exit::Fine)
        }
    }
}

const LIST_COLUMNS: &[Column] = &[
    Column::words("CURRENT"),
    Column::words("NAME"),
    Column::words("BOOTSTRAP"),
    Column::words("CERTIFICATE").wide(),
];

fn list(format: Format) -> Result<Exit, Failure> {
    let profiles = Profiles::load()?;
    let rows = profiles.profiles.iter().map(|(name, profile)| {
        let current = profiles.current.as_ref() == Some(name);
        let mark = if current { "*" } else { "" };
        let mut value = value_of(name, profile);
        value["current"] = json!(current);
        Row {
            name: name.clone(),
            cells: vec![
                mark.to_owned(),
                name.clone(),
                profile.bootstrap.join(","),
                profile.cert.display().to_string(),
            ],
            value,
        }
    });
    let rows = Rows { field: "profiles", columns: LIST_COLUMNS, rows: rows.collect() };
    Page::list("hw.profile.list/1", rows).print(format)?;
    Ok(Exit::Fine)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sources {
    Shown,
    Hidden,
}

fn describe(name: &str, profile: &Profile) -> Page {
    let mut page = Page::describe("hw.profile.show/1", name);
    page.fact("Profile", name);
    page.fact("Bootstrap", profile.bootstrap.join(","));
    page.fact("CA", profile.ca.display().to_string());
    page.fact("Certificate", profile.cert.display().to_string());
    page.fact("Key", profile.key.display().to_string());
    if let Some(codec) = profile.compression {
        page.fact("Compression", codec.name());
    }
    if let Value::Object(fields) = value_of(name, profile) {
        page.fields = fields;
    }
    page
}

/// What a verb would use now, from all sources together.
fn effective(settings: &Settings, sources: Sources) -> Result<Page, Failure> {
    let profile = settings.effective()?;
    let stored = match settings.without_profile() {
        Some(_) => None,
        None => current_name(settings, &Profiles::load()?),
    };
    let mut page = describe(stored.as_deref().unwrap_or("(none)"), &profile);
    if sources == Sources::Hidden {
        return Ok(page);
    }
    let file = Profiles::path()?.display().to_string();
    let from_profile = format!("profile {} in {file}", stored.as_deref().unwrap_or("(none)"));
    let source = |replaced: bool, flag: &str| match replaced {
        true => format!("{flag} or its variable"),
        false => from_profile.clone(),
    };
    let origins = [
        ("Bootstrap", "bootstrap", source(!settings.bootstrap.is_empty(), "--bootstrap")),
        ("CA", "ca", source(settings.ca.is_some(), "--ca")),
        ("Certificate", "cert", source(settings.cert.is_some(), "--cert")),
        ("Key", "key", source(settings.key.is_some(), "--key")),
    ];
    let mut fields = serde_json::Map::new();
    for (label, field, origin) in origins {
        for fact in page.facts.iter_mut().filter(|(known, _)| *known == label) {
            fact.1 = format!("{}  (from {origin})", fact.1);
        }
        fields.insert(field.to_owned(), json!(origin));
    }
    page.field("sources", fields);
    Ok(page)
}

fn current_name(settings: &Settings, profiles: &Profiles) -> Option<String> {
    let only = || profiles.profiles.keys().next().filter(|_| profiles.profiles.len() == 1);
    settings.profile.as_ref().or(profiles.current.as_ref()).or_else(only).cloned()
}

fn add(args: ProfileAddArgs, settings: &Settings) -> Result<Exit, Failure> {
    let Some(profile) = settings.without_profile() else {
        return Err(Failure::usage(
            "a profile needs --bootstrap, --ca, --cert and --key (or their variables)",
        )
        .way_out("`hw profile add --help` has examples"));
    };
    let profile = Profile {
        bootstrap: profile.bootstrap,
        ca: absolute(&profile.ca)?,
        cert: absolute(&profile.cert)?,
        key: absolute(&profile.key)?,
        compression: args.compression.map(Codec::codec),
    };
    let mut profiles = Profiles::load()?;
    if profiles.profiles.contains_key(&args.name) && !args.force {
        return Err(Failure::new(
            Exit::Conflict,
            format!("there is a profile called {} already", args.name),
        )
        .way_out("another name, or --force to replace it"));
    }
    profiles.profiles.insert(args.name.clone(), profile);
    if args.make_current || profiles.current.is_none() {
        profiles.current = Some(args.name.clone());
    }
    let path = profiles.save()?;
    eprintln!("profile {} is in {}", args.name, path.display());
    Ok(Exit::Fine)
}

fn current(settings: &Settings) -> Result<Exit, Failure> {
    let profiles = Profiles::load()?;
    let name = current_name(settings, &profiles).ok_or_else(|| {
        Failure::new(Exit::NotFound, "no profile is in use")
            .way_out("`hw profile use NAME`; `hw profile list` shows what there is")
    })?;
    named(&profiles, &name)?;
    anstream::println!("{name}");
    Ok(Exit::Fine)
}

fn rename(from: &str, to: String) -> Result<Exit, Failure> {
    let mut profiles = Profiles::load()?;
    named(&profiles, from)?;
    if profiles.profiles.contains_key(&to) {
        let what = format!("there is a profile called {to} already");
        return Err(Failure::new(Exit::Conflict, what)
            .way_out(format!("another name, or `hw profile remove {to}` first")));
    }
    let profile = profiles.profiles.remove(from).expect("it was found above");
    profiles.profiles.insert(to.clone(), profile);
    if profiles.current.as_deref() == Some(from) {
        profiles.current = Some(to.clone());
    }
    profiles.save()?;
    eprintln!("profile {from} is called {to} now");
    Ok(Exit::Fine)
}

fn remove(name: &str) -> Result<Exit, Failure> {
    let mut profiles = Profiles::load()?;
    named(&profiles, name)?;
    profiles.profiles.remove(name);
    if profiles.current.as_deref() == Some(name) {
        profiles.current = None;
    }
    profiles.save()?;
    eprintln!("profile {name} is removed; its certificates are where they were");
    Ok(Exit::Fine)
}

fn named<'a>(profiles: &'a Profiles, name: &str) -> Result<&'a Profile, Failure> {
    profiles.profiles.get(name).ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("there is no profile called {name}"))
            .way_out("`hw profile list` shows what there is")
    })
}

fn value_of(name: &str, profile: &Profile) -> Value {
    let mut value = json!({
        "name": name,
        "bootstrap": profile.bootstrap,
        "ca": profile.ca,
        "cert": profile.cert,
        "key": profile.key,
    });
    if let Some(codec) = profile.compression {
        value["compression"] = json!(codec.name());
    }
    value
}

/// The profile is used from any directory, so it holds absolute paths.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    let attempt = || format!("cannot use {}", path.display());
    path.canonicalize().map_err(|error| Failure::from(error).during(&attempt()))
}

const LIST_EXAMPLES: &str = "\
Examples:
  hw profile list
  hw profile list -o name";
const SHOW_EXAMPLES: &str = "\
Examples:
  hw profile show
  hw profile show staging -o yaml
  hw profile show --sources";
const USE_EXAMPLES: &str = "\
Examples:
  hw profile use staging
  hw profile use dev && hw cluster health";
const ADD_EXAMPLES: &str = "\
Examples:
  hw profile add dev --bootstrap localhost:9092 --ca ca.pem --cert me.pem --key me.key --use
  hw profile add prod --bootstrap a:9092,b:9092,c:9092 --ca ca.pem --cert me.pem --key me.key";
const CURRENT_EXAMPLES: &str = "\
Examples:
  hw profile current
  PS1='$(hw profile current) $ '";
const RENAME_EXAMPLES: &str = "\
Examples:
  hw profile rename dev old-dev
  hw profile rename staging prod && hw profile use prod";
const REMOVE_EXAMPLES: &str = "\
Examples:
  hw profile remove staging
  hw profile list -o name | grep '^tmp-' | xargs -n1 hw profile remove";
const PATH_EXAMPLES: &str = "\
Examples:
  hw profile path
  $EDITOR \"$(hw profile path)\"";
