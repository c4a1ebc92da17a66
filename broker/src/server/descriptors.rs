//! The budget of file descriptors: storage's share is reserved at start, and what people open is bounded.
//!
//! A broker that runs out of descriptors takes no records where a segment must be begun, and sends nobody what lies in
//! files that it cannot open. So the soft limit is raised to the hard one, and a broker whose replicas do not fit does not start: it says what it needs. Clients and
//! peers share one UDP socket; what takes a descriptor per visitor is HTTP alone, and that is bounded (`http`).

use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// What there is and what is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    limit: u64,
    replicas: u64,
}

/// How well it fits.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Well,
    /// Enough to write, and not for all readers of old segments.
    Tightly,
    Not,
}

/// Raises the limit as far as allowed, and fails where the replicas in this data directory do not fit.
pub(super) fn reserve(data_dir: &Path) -> io::Result<()> {
    let budget = Budget { limit: raised(), replicas: replicas_in(data_dir) };
    match budget.fit() {
        Fit::Well => Ok(()),
        Fit::Tightly => {
            warn!("{}", budget.shortage());
            Ok(())
        }
        Fit::Not => Err(io::Error::other(budget.shortage())),
    }
}

impl Budget {
    fn fit(self) -> Fit {
        if self.limit < self.least() {
            Fit::Not
        } else if self.limit < self.most() {
            Fit::Tightly
        } else {
            Fit::Well
        }
    }

    fn least(self) -> u64 {
        OTHERS + self.replicas * REPLICA_LEAST
    }

    fn most(self) -> u64 {
        OTHERS + self.replicas * REPLICA_MOST
    }

    fn shortage(self) -> String {
        let Budget { limit, replicas } = self;
        let (least, most) = (self.least(), self.most());
        format!(
            "this process may open {limit} files, and its {replicas} replicas with all else need {least} at least \
             and {most} when old segments are read: raise the hard limit (LimitNOFILE= of the service, or \
             `ulimit -Hn`), or move replicas to other brokers"
        )
    }
}

/// The limit, once it is as high as it may be.
fn raised() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => info!(from = current, to = maximum, "raised the limit of open files"),
            Err(error) => warn!(%error, "the limit of open files stays as it is"),
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// As many as have a directory: the image that says which of them are ours is not read yet.
fn replicas_in(data_dir: &Path) -> u64 {
    std::fs::read_dir(data_dir.join("topics")).map_or(0, |entries| entries.count() as u64)
}

/// The program's own files, sockets and queues, the journals and the controller's log, and HTTP.
const OTHERS: u64 = 64 + crate::http::CONNECTIONS_MAX as u64;
/// The segment that takes appends: frames and index.
const REPLICA_LEAST: u64 = 2;
/// The same, and four sealed segments that somebody reads.
const REPLICA_MOST: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_whose_replicas_do_not_fit_says_what_it_has_and_needs() {
        let fits = |limit| Budget { limit, replicas: 1_000 }.fit();
        assert_eq!(fits(OTHERS + 1_999), Fit::Not);
        assert_eq!(fits(OTHERS + 2_000), Fit::Tightly);
        assert_eq!(fits(OTHERS + 10_000), Fit::Well);
        let said = Budget { limit: 1_024, replicas: 1_000 }.shortage();
        for part in ["may open 1024 files", "1000 replicas", "LimitNOFILE="] {
            assert!(said.contains(part), "{said}");
        }
    }
}
