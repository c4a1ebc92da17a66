//! How `hw` ends: the exit codes that scripts rely on, and failures with a reason and a way out.
//!
//! The numbers are fixed for good; `hw --help` lists them.

use std::fmt;
use std::process::ExitCode;

use anstream::eprintln;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Fine,
    /// It failed for a reason without a number of its own.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// The thing named does not exist.
    NotFound,
    /// The thing to create exists already, or the change contradicts what is there.
    Conflict,
    /// The cluster does not let this client in, or not this far.
    Unauthorised,
    /// No answer in time.
    TimedOut,
    /// Some of it was done, some failed.
    Partial,
    /// The cluster answers and is not healthy.
    Unhealthy,
    /// Ctrl-C.
    Interrupted,
}

/// A run that did not end well: what happened, to what, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// The code to exit with.
    pub exit: Exit,
    what: String,
    way_out: Option<String>,
}

impl Exit {
    /// The number that the shell sees.
    pub fn number(self) -> u8 {
        match self {
            Exit::Fine => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Conflict => 4,
            Exit::Unauthorised => 5,
            Exit::TimedOut => 6,
            Exit::Partial => 7,
            Exit::Unhealthy => 10,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.number())
    }
}

impl Failure {
    /// A failure that exits with `exit` after saying `what`.
    pub fn new(exit: Exit, what: impl Into<String>) -> Failure {
        Failure { exit, what: what.into(), way_out: None }
    }

    /// The command line makes no sense.
    pub fn usage(what: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, what)
    }

    /// Adds what a person can do about it.
    pub fn way_out(mut self, hint: impl Into<String>) -> Failure {
        self.way_out = Some(hint.into());
        self
    }

    /// Puts what was attempted in front of the reason.
    pub fn during(mut self, attempt: &str) -> Failure {
        self.what = format!("{attempt}: {}", self.what);
        self
    }

    /// Prints the failure on the standard error.
    pub fn report(&self) {
        eprintln!("\x1b[1;31merror:\x1b[0m {}", self.what);
        if let Some(hint) = &self.way_out {
            eprintln!("\x1b[1;36m try:\x1b[0m  {hint}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.way_out {
            Some(hint) => write!(f, "; try: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(Exit::Failed, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_the_exit_codes_are_those_in_the_help() {
        let numbers = [
            (Exit::Fine, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::NotFound, 3),
            (Exit::Conflict, 4),
            (Exit::Unauthorised, 5),
            (Exit::TimedOut, 6),
            (Exit::Partial, 7),
            (Exit::Unhealthy, 10),
            (Exit::Interrupted, 130),
        ];
        for (exit, number) in numbers {
            assert_eq!(exit.number(), number, "{exit:?}");
        }
    }
}
