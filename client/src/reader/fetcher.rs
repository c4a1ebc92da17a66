//! The task that reads ahead: one fetch under way per broker, for all partitions that are read there: its own, or with a
//! rack those that it follows.
//!
//! Each partition has a position that only moves forward, to the end of what was handed out. A fetch
//! carries an id, and an answer counts for a partition only while it waits for that very fetch; so
//! a partition whose leader moved is fetched from the new one at once, and the late answer of the
//! old one is ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{NodeId, Offset, PartitionId, TopicPartition};
use highwater_protocol::native::fetch::{
    FetchFrom, FetchPartition, FetchRequest, FetchResponse, FetchedRecords, ListOffsetsRequest,
    OffsetAt,
};
use tokio::sync::{mpsc, watch};

use super::batch::{Checked, RecordBatch, Wanted};
use super::budget::{Budget, Part, Reserved};
use super::fetch::Fetch;
use super::position::{Assignment, Position, State, Stint};
use super::{OutOfRange, Partitions, ReaderConfig};
use crate::client::{Core, again};
use crate::error::Error;
use crate::metadata::{Place, Snapshot};

/// The fetcher's own state.
pub(crate) struct Fetcher {
    core: Arc<Core>,
    config: ReaderConfig,
    metadata: watch::Receiver<Arc<Snapshot>>,
    positions: Vec<Position>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Fetches under way by broker.
    fetches: BTreeMap<NodeId, Fetch>,
    last_fetch: u64,
    refreshing: bool,
    budget: Part,
    /// By how much the last batches grew when they were unpacked.
    growth: usize,
    /// Where partitions come and go at somebody's word.
    steer: Option<mpsc::UnboundedReceiver<Steer>>,
    output: mpsc::UnboundedSender<Fetched>,
}

/// What a partition brought.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) partition: TopicPartition,
    pub(crate) stint: Stint,
    /// Records, or why reading this partition has ended.
    pub(crate) result: Result<RecordBatch, Error>,
}

/// A word to a fetcher that runs.
#[derive(Debug)]
pub(crate) enum Steer {
    /// Read this, from the start that it names, whatever was before.
    Read(Assignment),
    /// Read this no more.
    Stop(TopicPartition),
}

/// What has come to an end.
enum Done {
    Fetched { node: NodeId, id: u64, result: Result<FetchResponse, Error> },
    Placed { index: usize, stint: Stint, result: Result<Offset, Error> },
    Refreshed,
}

impl Fetcher {
    pub(crate) fn new(
        core: Arc<Core>,
        config: ReaderConfig,
        assignments: Vec<Assignment>,
        budget: Arc<Budget>,
        output: mpsc::UnboundedSender<Fetched>,
    ) -> Fetcher {
        let positions = assignments.into_iter().map(Position::new).collect();
        Fetcher {
            metadata: core.metadata.watch(),
            core,
            config,
            positions,
            under_way: FuturesUnordered::new(),
            fetches: BTreeMap::new(),
            last_fetch: 0,
            refreshing: false,
            budget: Part::of(budget),
            growth: 1,
            steer: None,
            output,
        }
    }

    /// The same, but partitions come and go as somebody says, and it runs on without any.
    pub(crate) fn steered(mut self, steer: mpsc::UnboundedReceiver<Steer>) -> Fetcher {
        self.steer = Some(steer);
        self
    }

    /// Runs until every partition has ended or the reader is dropped.
    pub(crate) async fn run(mut self) {
        let goes_on = |position: &Position| position.state != State::Ended;
        while self.steer.is_some() || self.positions.iter().any(goes_on) {
            let now = Instant::now();
            self.wake_paused(now);
            self.start_fetches(now);
            self.probe(now);
            let wake = self.next_wake();
            tokio::select! {
                Some(done) = self.under_way.next() => self.done(done),
                () = self.budget.freed() => {}
                changed = self.metadata.changed() => {
                    changed.expect("the core, which we hold, keeps the metadata");
                    self.follow_leaders();
                    self.follow_partitions();
                }
                () = tokio::time::sleep_until(wake.into()) => {}
                steer = next_word(&mut self.steer) => self.follow(steer),
                () = self.output.closed() => return,
            }
        }
    }

    fn follow(&mut self, word: Steer) {
        let partition = match &word {
            Steer::Read(assignment) => assignment.partition,
            Steer::Stop(partition) => *partition,
        };
        let known = self.positions.iter_mut().find(|position| position.partition == partition);
        match (word, known) {
            // In place, so that what is under way for others finds them where they were.
            (Steer::Read(assignment), Some(known)) => *known = Position::new(assignment),
            (Steer::Read(assignment), None) => self.positions.push(Position::new(assignment)),
            (Steer::Stop(_), Some(known)) => known.state = State::Ended,
            (Steer::Stop(_), None) => {}
        }
    }

    /// Asks every leader that is not being asked for all partitions that wait for it; whoever was
    /// asked longest ago comes first, so that no leader is left out while the budget is short.
    fn start_fetches(&mut self, now: Instant) {
        let mut waiting: BTreeMap<NodeId, (Place, Vec<usize>)> = BTreeMap::new();
        let mut leaders = BTreeSet::new();
        let snapshot = self.metadata.borrow().clone();
        let mut leaderless = false;
        for (index, position) in self.positions.iter().enumerate() {
            if position.state == State::Ended {
                continue;
            }
            let place = position.place(&snapshot, self.config.rack.as_deref());
            leaders.extend(place.as_ref().map(|place| place.node));
            if position.state != State::Idle {
                continue;
            }
            match place {
                Some(place) if !self.fetches.contains_key(&place.node) => {
                    waiting.entry(place.node).or_insert((place, Vec::new())).1.push(index);
                }
                Some(_) => {}
                None => leaderless = true,
            }
        }
        if leaderless {
            self.refresh(None);
        }
        let mut waiting: Vec<(Place, Vec<usize>)> = waiting.into_values().collect();
        let asked = |indexes: &[usize]| indexes.iter().map(|at| self.positions[*at].asked).max();
        waiting.sort_by_key(|(_, indexes)| asked(indexes));
        self.budget.asks(leaders.len());
        for (place, indexes) in waiting {
            let Some(share) = self.budget.reserve(self.config.fetch_bytes_max as usize) else {
                return;
            };
            self.fetch(place, indexes, share, now);
        }
    }

    fn fetch(&mut self, place: Place, mut indexes: Vec<usize>, share: Reserved, now: Instant) {
        self.last_fetch += 1;
        let id = self.last_fetch;
        // The order in which `bytes_max` is spent.
        indexes.sort_by_key(|index| self.positions[*index].served);
        let mut partitions = Vec::with_capacity(indexes.len());
        for index in indexes {
            let position = &mut self.positions[index];
            position.state = State::Fetching { id, node: place.node };
            position.asked = id;
            partitions.push(FetchPartition {
                partition: position.partition,
                offset: position.next,
                bytes_max: self.config.partition_bytes_max,
                leader_term: None,
            });
        }
        let wait_max = self.config.wait_max;
        let request = FetchRequest {
            wait_max_ms: u32::try_from(wait_max.as_millis()).unwrap_or(u32::MAX),
            bytes_min: 1,
            // What comes packed is held unpacked.
            bytes_max: (share.bytes / self.growth).max(1) as u32,
            partitions,
            from: match self.config.rack {
                Some(_) => FetchFrom::AnyReplica,
                None => FetchFrom::Leader,
            },
        };
        self.fetches.insert(place.node, Fetch::new(share, now + wait_max));
        let core = self.core.clone();
        self.under_way.push(Box::pin(async move {
            let fetching = async {
                let connection = core.pool.get(place.node, &place.address).await?;
                connection.fetch(&request, wait_max + FETCH_PATIENCE).await
            };
            Done::Fetched { node: place.node, id, result: fetching.await }
        }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Refreshed => self.refreshing = false,
            Done::Placed { index, stint, result } => self.placed(index, stint, result),
            Done::Fetched { node, id, result } => {
                // Its share is free once what it brought is counted.
                let _fetch = self.fetches.remove(&node);
                match result {
                    Ok(response) => self.fetched(id, response),
                    Err(error) => self.lost(node, id, &error),
                }
            }
        }
    }

    fn fetched(&mut self, id: u64, response: FetchResponse) {
        let mut answers: BTreeMap<TopicPartition, _> = response
            .partitions
            .into_iter()
            .map(|answer| (answer.partition, answer.result))
            .collect();
        for index in 0..self.positions.len() {
            if !self.positions[index].waits_for(id) {
                continue;
            }
            match answers.remove(&self.positions[index].partition) {
                Some(Ok(records)) => self.records(index, &records),
                Some(Err(refusal)) => self.refused(index, &refusal),
                // Left out: as good as nothing new.
                None => self.positions[index].pause(),
            }
        }
    }

    fn records(&mut self, index: usize, records: &FetchedRecords) {
        let position = &mut self.positions[index];
        let stays_beyond = position.stays_beyond(records.high_watermark);
        if stays_beyond && position.turns_to_leader(&self.metadata.borrow()) {
            return self.refresh(None);
        }
        let room = self.budget.room();
        let wanted = Wanted {
            from: position.next,
            until: position.end,
            room,
            unpacked_bytes_max: self.config.unpacked_bytes_max,
        };
        let number = position.partition.partition;
        let checked = RecordBatch::check(
            &self.config.topic,
            number,
            records.high_watermark,
            &records.records,
            wanted,
        );
        match checked {
            Ok(Checked { batch: Some(batch), .. }) => {
                if let State::Fetching { node, .. } = position.state {
                    position.came_from(node, &self.metadata.borrow());
                }
                position.succeed(batch.next_offset());
                position.served = position.asked;
                let came: usize = records.records.iter().map(Bytes::len).sum();
                self.growth = (batch.bytes() / came.max(1)).max(1);
                self.budget.hold(batch.bytes());
                self.hand_out(index, Ok(batch));
            }
            // Nothing came, nothing that could be unpacked now, or only what was given up: again when there is room.
            Ok(Checked { next, .. })
                if records.records.is_empty() || room == 0 || next > wanted.from =>
            {
                position.succeed(next);
            }
            Ok(_) => position.pause(),
            Err(_) if position.turns_to_leader(&self.metadata.borrow()) => {}
            Err(error) => self.end_with(index, error),
        }
    }

    fn refused(&mut self, index: usize, refusal: &WireError) {
        let position = &mut self.positions[index];
        if position.turns_to_leader(&self.metadata.borrow()) {
            return self.refresh(None);
        }
        let name = format!("{}/{}", self.config.topic, position.partition.partition);
        let error = Error::refused(&format!("read {name} at offset {}", position.next), refusal);
        if refusal.code == ErrorCode::OffsetOutOfRange {
            return self.out_of_range(index, error);
        }
        if refusal.code == ErrorCode::UnknownTopicOrPartition {
            let since = *position.unknown_since.get_or_insert_with(Instant::now);
            let id = position.partition.topic;
            let gone = self.metadata.borrow().is_gone(&self.config.topic, id);
            if gone && since.elapsed() > TOPIC_GONE_AFTER {
                return self.end_with(index, error);
            }
        }
        if !again(&error) {
            return self.end_with(index, error);
        }
        position.pause();
        self.refresh(None);
    }

    fn out_of_range(&mut self, index: usize, error: Error) {
        let at = match self.config.out_of_range {
            OutOfRange::Error => return self.end_with(index, error),
            OutOfRange::Start => OffsetAt::Start,
            OutOfRange::End => OffsetAt::End,
        };
        self.positions[index].state = State::Placing;
        let Position { partition, stint, .. } = self.positions[index];
        let core = self.core.clone();
        self.under_way.push(Box::pin(async move {
            let request = ListOffsetsRequest { partition, at };
            let result = core.on_leader(partition, &request).await.map(|found| found.offset);
            Done::Placed { index, stint, result }
        }));
    }

    fn placed(&mut self, index: usize, stint: Stint, result: Result<Offset, Error>) {
        let position = &self.positions[index];
        if position.stint != stint || position.state != State::Placing {
            return;
        }
        match result {
            Ok(offset) => self.positions[index].succeed(offset),
            Err(error) if again(&error) => self.positions[index].pause(),
            Err(error) => self.end_with(index, error),
        }
    }

    /// A whole fetch has failed: its partitions go on elsewhere, or here after a pause.
    fn lost(&mut self, node: NodeId, id: u64, error: &Error) {
        for index in 0..self.positions.len() {
            if !self.positions[index].waits_for(id) {
                continue;
            }
            if self.positions[index].turns_to_leader(&self.metadata.borrow()) {
                continue;
            }
            if error.retriable() {
                self.positions[index].pause();
            } else {
                let name = format!("read {}/{}", self.config.topic, index);
                self.end_with(index, error.during(&name));
            }
        }
        self.refresh(Some(node));
    }

    fn end_with(&mut self, index: usize, error: Error) {
        self.positions[index].state = State::Ended;
        self.hand_out(index, Err(error));
    }

    fn hand_out(&self, index: usize, result: Result<RecordBatch, Error>) {
        let Position { partition, stint, .. } = self.positions[index];
        // An error means that the reader was dropped; the loop sees that too.
        let _ = self.output.send(Fetched { partition, stint, result });
    }

    /// Partitions whose leader has moved don't wait for the old one's answer.
    fn follow_leaders(&mut self) {
        let snapshot = self.metadata.borrow().clone();
        for position in &mut self.positions {
            let place = position.place(&snapshot, self.config.rack.as_deref());
            let Some(place) = place else { continue };
            if matches!(position.state, State::Fetching { node, .. } if node != place.node) {
                position.state = State::Idle;
            }
        }
    }

    /// Who reads all partitions without end reads those that are added, too, and from their start:
    /// nothing in them is older than this reader.
    fn follow_partitions(&mut self) {
        let all = match self.config.partitions {
            Partitions::All => !self.config.until_end,
            Partitions::Only(_) => false,
        };
        let Some(known) = self.positions.first().map(|position| position.partition.topic) else {
            return;
        };
        let snapshot = self.metadata.borrow().clone();
        let Some(Ok(shape)) = snapshot.topic(&self.config.topic) else { return };
        if !all || shape.id != known {
            return;
        }
        for number in self.positions.len() as u32..shape.partitions {
            let partition = shape.partition(PartitionId(number));
            let start = Offset(0);
            let assignment = Assignment { partition, start, end: None, stint: Stint::default() };
            self.positions.push(Position::new(assignment));
        }
    }

    fn wake_paused(&mut self, now: Instant) {
        for position in &mut self.positions {
            if matches!(position.state, State::Paused(until) if until <= now) {
                position.state = State::Idle;
            }
        }
    }

    /// Asks others who leads when a leader is silent for longer than it was allowed to wait.
    fn probe(&mut self, now: Instant) {
        let mut silent = None;
        for (node, fetch) in &mut self.fetches {
            if fetch.is_silent(now) {
                silent = Some(*node);
            }
        }
        if silent.is_some() {
            self.refresh(silent);
        }
    }

    fn refresh(&mut self, avoid: Option<NodeId>) {
        if std::mem::replace(&mut self.refreshing, true) {
            return;
        }
        let core = self.core.clone();
        self.under_way.push(Box::pin(async move {
            let seen = core.metadata.now().generation;
            // What was found is in the cache. If nobody answers, it is asked again after a pause;
            // and even news that change nothing must not be asked for in a tight loop.
            let _ = core.refresh(seen, avoid).await;
            tokio::time::sleep(REFRESH_PAUSE).await;
            Done::Refreshed
        }));
    }

    fn next_wake(&self) -> Instant {
        let paused = self.positions.iter().filter_map(|position| match position.state {
            State::Paused(until) => Some(until),
            State::Idle | State::Fetching { .. } | State::Placing | State::Ended => None,
        });
        let probes = self.fetches.values().map(|fetch| fetch.probe_at());
        let idle = Instant::now() + IDLE_WAKE;
        paused.chain(probes).min().map_or(idle, |time| time.min(idle))
    }
}

/// The next word to a fetcher that is steered; whoever steers it may let go of it.
async fn next_word(steer: &mut Option<mpsc::UnboundedReceiver<Steer>>) -> Steer {
    if let Some(words) = steer {
        if let Some(word) = words.recv().await {
            return word;
        }
        *steer = None;
    }
    std::future::pending().await
}

const REFRESH_PAUSE: Duration = Duration::from_millis(40);
/// How much longer than its `wait_max` a fetch may take at all.
const FETCH_PATIENCE: Duration = Duration::from_secs(10);
const TOPIC_GONE_AFTER: Duration = Duration::from_secs(2);
const IDLE_WAKE: Duration = Duration::from_secs(1);
