//! Asking before something is done that cannot be taken back, or that takes long.
//!
//! The question goes to the standard error; whether anybody can answer is for the caller to know. Ctrl-C is
//! a no: a thread of its own waits for the line, for one that blocked the verb would not hear of the
//! signal, and would take the next line for the answer.

use std::io::{self, BufRead, IsTerminal, Write};

use anstream::{eprint, eprintln};

use crate::exit::{Exit, Failure};

/// Wants the topic's name typed in before records are deleted.
pub async fn deletion(topic: &str, what: &str) -> Result<(), Failure> {
    eprintln!("This deletes {what}. It cannot be undone.");
    let undone = "nothing was deleted";
    match answer("Type the topic's name to delete: ", undone).await? == topic {
        true => Ok(()),
        false => {
            let what = format!("what was typed is not the name; {undone}");
            Err(Failure::new(Exit::Failed, what))
        }
    }
}

/// Refuses where nobody could type a name; `way_out` says how to do without.
pub fn terminal(way_out: &str) -> Result<(), Failure> {
    match io::stdin().is_terminal() {
        true => Ok(()),
        false => {
            let what = "this asks for the partition's name, but there is no terminal";
            Err(Failure::usage(what).way_out(way_out))
        }
    }
}

/// Refuses where nobody could answer; `what` asks, and `way_out` says how to do without.
pub fn terminal_for(what: &str, way_out: &str) -> Result<(), Failure> {
    match io::stdin().is_terminal() {
        true => Ok(()),
        false => {
            let what = format!("{what}, but there is no terminal");
            Err(Failure::usage(what).way_out(way_out))
        }
    }
}

/// Wants a name typed in after a warning; otherwise `undone` says what did not happen.
pub async fn typed(name: &str, warning: &str, undone: &str) -> Result<(), Failure> {
    eprintln!("{warning} It cannot be undone.");
    match answer(&format!("Type {name} to go on: "), undone).await? == name {
        true => Ok(()),
        false => {
            let what = format!("what was typed is not {name}; {undone}");
            Err(Failure::new(Exit::Failed, what))
        }
    }
}

/// Wants a yes to `question`; otherwise `undone` says what did not happen.
pub async fn yes(question: &str, undone: &str) -> Result<(), Failure> {
    match answer(&format!("{question} [y/N] "), undone).await?.as_str() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, format!("not confirmed; {undone}"))),
    }
}

async fn answer(question: &str, undone: &str) -> Result<String, Failure> {
    eprint!("{question}");
    io::stderr().flush()?;
    let line = tokio::task::spawn_blocking(|| {
        let mut typed = String::new();
        io::stdin().lock().read_line(&mut typed).map(|_| typed.trim().to_owned())
    });
    tokio::select! {
        // Who interrupts and answers at once means the former.
        biased;
        Ok(()) = tokio::signal::ctrl_c() => {
            eprintln!();
            Err(Failure::new(Exit::Interrupted, format!("interrupted; {undone}")))
        }
        line = line => Ok(line.map_err(io::Error::other)??),
    }
}
