//! Completion scripts and manual pages, both made from the verb tree itself.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory;

use crate::cli::Cli;
use crate::exit::{Exit, Failure};

/// Prints the completion script for `shell`.
pub fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hw", &mut script);
    if shell == clap_complete::Shell::Fish {
        // The generator leaves the values of positional arguments out for this one.
        let names = crate::explain::names().join(" ");
        writeln!(
            script,
            "complete -c hw -n \"__fish_hw_using_subcommand explain\" -f -a \"{names}\""
        )?;
    }
    print(&script)
}

/// Prints the page of `hw`, or writes the pages of all verbs into `dir`.
pub fn man(dir: Option<&Path>) -> Result<Exit, Failure> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return print(&page);
    };
    let attempt = format!("cannot write manual pages into {}", dir.display());
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|error| Failure::from(error).during(&attempt))?;
    Ok(Exit::Fine)
}

fn print(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    crate::output::quiet_if_closed(out.write_all(bytes).and_then(|()| out.flush()))?;
    Ok(Exit::Fine)
}
