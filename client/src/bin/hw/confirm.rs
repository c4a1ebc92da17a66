//! Asking before something is done that cannot be taken back, or that takes long.
//!
//! The question goes to the standard error; whether anybody can answer is for the caller to know.

use std::io::{self, BufRead, Write};

use anstream::{eprint, eprintln};

use crate::exit::{Exit, Failure};

/// Wants the topic's name typed in before records are deleted.
pub fn deletion(topic: &str, what: &str) -> Result<(), Failure> {
    eprintln!("This deletes {what}. It cannot be undone.");
    match answer("Type the topic's name to delete: ")? == topic {
        true => Ok(()),
        false => {
            Err(Failure::new(Exit::Failed, "what was typed is not the name; nothing was deleted"))
        }
    }
}

/// Wants a name typed in after a warning; otherwise `undone` says what did not happen.
pub fn typed(name: &str, warning: &str, undone: &str) -> Result<(), Failure> {
    eprintln!("{warning} It cannot be undone.");
    match answer(&format!("Type {name} to go on: "))? == name {
        true => Ok(()),
        false => {
            let what = format!("what was typed is not {name}; {undone}");
            Err(Failure::new(Exit::Failed, what))
        }
    }
}

/// Wants a yes to `question`; otherwise `undone` says what did not happen.
pub fn yes(question: &str, undone: &str) -> Result<(), Failure> {
    match answer(&format!("{question} [y/N] "))?.as_str() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, format!("not confirmed; {undone}"))),
    }
}

fn answer(question: &str) -> Result<String, Failure> {
    eprint!("{question}");
    io::stderr().flush()?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed)?;
    Ok(typed.trim().to_owned())
}
