//! Where the fetcher is in one partition.

use std::time::Instant;

use highwater_protocol::ids::{NodeId, Offset, TopicPartition};

use crate::retry::{self, Backoff};

/// A partition to read, and from where to where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Assignment {
    pub(crate) partition: TopicPartition,
    pub(crate) start: Offset,
    pub(crate) end: Option<Offset>,
    /// Tells what is fetched for this assignment from what was fetched for an earlier one.
    pub(crate) stint: Stint,
}

/// Counts the times that a partition was begun to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Stint(pub(crate) u64);

/// Where it is, and what it waits for.
pub(super) struct Position {
    pub(super) partition: TopicPartition,
    pub(super) stint: Stint,
    pub(super) next: Offset,
    pub(super) end: Option<Offset>,
    pub(super) state: State,
    /// The last fetch that asked for it, and the last that brought records of it.
    pub(super) asked: u64,
    pub(super) served: u64,
    backoff: Backoff,
    pub(super) unknown_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Fetching {
        id: u64,
        node: NodeId,
    },
    /// After a failure, until then.
    Paused(Instant),
    /// Its position was out of range and a new one is being found.
    Placing,
    Ended,
}

impl Position {
    pub(super) fn new(assignment: Assignment) -> Position {
        let Assignment { partition, start, end, stint } = assignment;
        let mut position = Position {
            partition,
            stint,
            next: start,
            end,
            state: State::Idle,
            asked: 0,
            served: 0,
            backoff: Backoff::new(retry::seed()),
            unknown_since: None,
        };
        position.succeed(start);
        position
    }

    pub(super) fn succeed(&mut self, next: Offset) {
        self.next = next;
        self.backoff.reset();
        self.unknown_since = None;
        let ended = self.end.is_some_and(|end| end <= next);
        self.state = if ended { State::Ended } else { State::Idle };
    }

    pub(super) fn waits_for(&self, fetch: u64) -> bool {
        matches!(self.state, State::Fetching { id, .. } if id == fetch)
    }

    pub(super) fn pause(&mut self) {
        self.state = State::Paused(Instant::now() + self.backoff.pause());
    }
}
