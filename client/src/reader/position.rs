//! Where the fetcher is in one partition.

use std::time::{Duration, Instant};

use highwater_protocol::ids::{NodeId, Offset, TopicPartition};

use crate::metadata::{Place, Snapshot};
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
    /// A replica nearby has failed, and until then only the leader is asked.
    at_leader_until: Option<Instant>,
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
            at_leader_until: None,
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

    /// Where it is to be read: nearby if it can be, at its leader otherwise.
    pub(super) fn place(&self, snapshot: &Snapshot, rack: Option<&str>) -> Option<Place> {
        let trusts = self.at_leader_until.is_none_or(|until| until <= Instant::now());
        let near = rack.filter(|_| trusts).and_then(|rack| snapshot.place_in(self.partition, rack));
        near.or_else(|| snapshot.place(self.partition))
    }

    /// If what failed was a fetch from another than the leader, it counts for nothing: the leader is asked from now on, and
    /// nobody else for a while. Says so.
    pub(super) fn turns_to_leader(&mut self, snapshot: &Snapshot) -> bool {
        let State::Fetching { node, .. } = self.state else { return false };
        let leader = snapshot.place(self.partition).map(|place| place.node);
        let turns = leader.is_some_and(|leader| leader != node);
        if turns {
            self.at_leader_until = Some(Instant::now() + AT_LEADER);
            self.state = State::Idle;
        }
        turns
    }

    pub(super) fn pause(&mut self) {
        self.state = State::Paused(Instant::now() + self.backoff.pause());
    }
}

/// How long a partition is read at its leader after a replica nearby has failed.
const AT_LEADER: Duration = Duration::from_secs(10);
