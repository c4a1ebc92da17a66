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
    /// For how long after the next failure: twice as long each time in a row.
    at_leader_for: Duration,
    /// Since when what comes next lies behind all that a replica nearby knows to be committed.
    beyond_since: Option<Instant>,
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
            at_leader_for: AT_LEADER,
            beyond_since: None,
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
        let turns = !self.is_led_by(node, snapshot);
        if turns {
            self.at_leader_until = Some(Instant::now() + self.at_leader_for);
            self.at_leader_for = (2 * self.at_leader_for).min(AT_LEADER_MAX);
            self.state = State::Idle;
        }
        turns
    }

    fn is_led_by(&self, node: NodeId, snapshot: &Snapshot) -> bool {
        snapshot.place(self.partition).is_some_and(|place| place.node == node)
    }

    /// A replica has answered, and knows of what is committed up to here. Whether it is behind for so long that only the
    /// leader can say what becomes of an offset like this.
    pub(super) fn stays_beyond(&mut self, high_watermark: Offset) -> bool {
        if self.next <= high_watermark {
            self.beyond_since = None;
            return false;
        }
        self.beyond_since.get_or_insert_with(Instant::now).elapsed() > BEYOND
    }

    /// Records came from there: a replica nearby is trusted as before.
    pub(super) fn came_from(&mut self, node: NodeId, snapshot: &Snapshot) {
        if !self.is_led_by(node, snapshot) {
            self.at_leader_for = AT_LEADER;
        }
    }

    pub(super) fn pause(&mut self) {
        self.state = State::Paused(Instant::now() + self.backoff.pause());
    }
}

/// How long a partition is read at its leader after a replica nearby has failed.
const AT_LEADER: Duration = Duration::from_secs(10);
const AT_LEADER_MAX: Duration = Duration::from_secs(300);
/// For how long a replica may be behind what its reader has come to elsewhere.
const BEYOND: Duration = Duration::from_secs(1);
