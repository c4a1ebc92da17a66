//! The task behind a producer: takes batches from the queues, drives each partition's pipeline, and
//! carries out what they ask: sending, dialling, asking for metadata.
//!
//! One task for all partitions, because its work is per batch, not per record, and because one
//! owner needs no locks. It never waits for a broker: answers, connections and metadata come in as
//! events, and it sleeps until the next event or deadline.

mod trouble;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{NodeId, ProducerId};
use highwater_protocol::native::produce::{ProduceRequest, ProduceResponse};
use tokio::sync::{mpsc, oneshot, watch};

use super::accumulator::{Queue, Taken, closed};
use super::delivery::Completion;
use super::partition::{Answered, Attempt, Leader, Options, Outgoing, Pipeline, Settled};
use super::{ProducerConfig, Shared};
use crate::client::Core;
use crate::connection::{Connection, Request, decode};
use crate::error::{Error, ErrorKind, Outcome};
use crate::metadata::Snapshot;
use crate::retry::{self, Backoff};
use trouble::Refresh;

/// What happens to a sender.
pub(super) enum Event {
    /// A broker answered, or the way to it broke.
    Answer { index: usize, attempt: Attempt, answer: Answered },
    /// A dial has ended.
    Dialled { node: NodeId, result: Result<(), Error> },
    /// Asking for metadata has ended, well or not.
    Refreshed,
    /// Say which batches are not settled.
    Unsettled(oneshot::Sender<Vec<Arc<Completion>>>),
    /// Fail everything that is not settled, and end.
    Abort { error: Error, done: oneshot::Sender<()> },
}

/// The sender's own state.
pub(super) struct Sender {
    core: Arc<Core>,
    shared: Arc<Shared>,
    config: ProducerConfig,
    producer: ProducerId,
    events: mpsc::UnboundedReceiver<Event>,
    answers: mpsc::UnboundedSender<Event>,
    metadata: watch::Receiver<Arc<Snapshot>>,
    partitions: Vec<Partition>,
    timers: BTreeSet<(Instant, usize)>,
    dialling: HashSet<NodeId>,
    /// Partitions that better metadata might help.
    troubled: BTreeSet<usize>,
    refresh: Refresh,
    settled: Vec<Settled>,
}

struct Partition {
    queue: Arc<Queue>,
    pipeline: Pipeline,
    timer: Option<Instant>,
    /// Since when its leader says that it does not know the topic.
    unknown_since: Option<Instant>,
}

/// Whatever ends the task, its runtime for example: nobody waits for ever.
impl Drop for Sender {
    fn drop(&mut self) {
        let text = "the producer's task ended before the batch was through";
        self.abort(&Error::with_outcome(ErrorKind::Closed, Outcome::NotWritten, text));
    }
}

impl Sender {
    pub(super) fn new(
        core: Arc<Core>,
        shared: Arc<Shared>,
        config: ProducerConfig,
        events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    ) -> Sender {
        let metadata = core.metadata.watch();
        let refresh = Refresh {
            under_way: false,
            not_before: None,
            since: None,
            avoid: None,
            backoff: Backoff::new(retry::seed()),
        };
        Sender {
            core,
            shared,
            config,
            producer: ProducerId(retry::seed() & super::partition::PRODUCER_ID_MASK),
            answers: events.0,
            events: events.1,
            metadata,
            partitions: Vec::new(),
            timers: BTreeSet::new(),
            dialling: HashSet::new(),
            troubled: BTreeSet::new(),
            refresh,
            settled: Vec::new(),
        }
    }

    /// Runs until the producer is dropped and everything is settled, or until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            let timer = self.timers.first().map(|(time, _)| *time);
            let timer = timer.into_iter().chain(self.next_refresh()).min();
            tokio::select! {
                event = self.events.recv() => {
                    let event = event.expect("the sender itself holds an end of the channel");
                    if self.all_events(event).is_break() {
                        return;
                    }
                }
                () = self.shared.announcements.wake.notified() => {}
                changed = self.metadata.changed() => {
                    changed.expect("the core, which we hold, keeps the metadata");
                    let snapshot = self.metadata.borrow().clone();
                    self.shared.grow_topics(&snapshot);
                    self.pump_all();
                }
                () = sleep_until(timer), if timer.is_some() => {}
            }
            self.pump_announced();
            self.pump_due();
            self.ask_for_metadata();
            if self.shared.announcements.dropped.load(Ordering::Acquire) && self.finish() {
                return;
            }
        }
    }

    /// Handles an event and those that have come in meanwhile.
    fn all_events(&mut self, first: Event) -> std::ops::ControlFlow<()> {
        let mut next = Some(first);
        while let Some(event) = next {
            match event {
                Event::Answer { index, attempt, answer } => self.answer(index, attempt, answer),
                Event::Dialled { node, result } => self.dialled(node, result),
                // What was found shows as a change of the metadata.
                Event::Refreshed => self.refresh.under_way = false,
                Event::Unsettled(reply) => {
                    self.pump_all();
                    // The flush that asked may have been dropped.
                    let _ = reply.send(self.unsettled());
                }
                Event::Abort { error, done } => {
                    self.abort(&error);
                    let _ = done.send(());
                    return std::ops::ControlFlow::Break(());
                }
            }
            next = self.events.try_recv().ok();
        }
        std::ops::ControlFlow::Continue(())
    }

    fn answer(&mut self, index: usize, attempt: Attempt, answer: Answered) {
        let now = Instant::now();
        let partition = &mut self.partitions[index];
        match &answer {
            Answered::Written(_) => partition.unknown_since = None,
            Answered::Refused(refusal) if refusal.code == ErrorCode::UnknownTopicOrPartition => {
                partition.unknown_since.get_or_insert(now);
            }
            Answered::Refused(_) | Answered::Lost(_) => {}
        }
        partition.pipeline.answered(attempt, answer, now, &mut self.settled);
        self.pump(index, now);
    }

    fn dialled(&mut self, node: NodeId, result: Result<(), Error>) {
        self.dialling.remove(&node);
        let now = Instant::now();
        if let Err(error) = result {
            self.refresh.avoid = Some(node);
            for index in 0..self.partitions.len() {
                if self.leader(index).is_some_and(|(leader, _)| leader.node == node) {
                    self.partitions[index].pipeline.hold(now, &error);
                }
            }
        }
        self.pump_all();
    }

    fn pump_all(&mut self) {
        self.adopt_queues();
        let now = Instant::now();
        for index in 0..self.partitions.len() {
            self.pump(index, now);
        }
    }

    fn pump_announced(&mut self) {
        let announced = self.shared.announcements.take();
        if announced.is_empty() {
            return;
        }
        self.adopt_queues();
        let now = Instant::now();
        for index in announced {
            self.pump(index, now);
        }
    }

    fn pump_due(&mut self) {
        let now = Instant::now();
        while let Some((time, index)) = self.timers.first().copied()
            && time <= now
        {
            self.timers.remove(&(time, index));
            self.partitions[index].timer = None;
            self.pump(index, now);
        }
    }

    /// Makes pipelines for queues that are new.
    fn adopt_queues(&mut self) {
        let queues = self.shared.queues_from(self.partitions.len());
        for queue in queues {
            let options = Options {
                in_flight_max: self.config.in_flight_max,
                attempt_max: self.core.config.request_timeout,
            };
            let name = format!("{}/{}", queue.topic, queue.partition.partition);
            let pipeline = Pipeline::new(name, self.producer, retry::seed(), options);
            self.partitions.push(Partition { queue, pipeline, timer: None, unknown_since: None });
        }
    }

    /// Moves one partition on as far as it goes now.
    fn pump(&mut self, index: usize, now: Instant) {
        self.fail_if_gone(index, now);
        let leader = self.leader(index);
        let partition = &mut self.partitions[index];
        if let Some((leader, _)) = &leader {
            partition.pipeline.leader(*leader, &mut self.settled);
            // What was sent before its broker asked for a pause may lie there unread until that is over.
            if let Some(over) = self.shared.throttles.over(leader.node) {
                partition.pipeline.excuse(leader.node, over);
            }
        }
        let throttles = &self.shared.throttles;
        let blamed = leader.as_ref().map(|(leader, _)| leader.node);
        let blame = |since| throttles.blame(Some(blamed?), since, now).map(with_time_out);
        partition.pipeline.expire(now, blame, &mut self.settled);
        self.expire_queued(index, now, blamed);
        let lingers_until = self.fill(index, now);
        self.settle_all();
        let leaderless = leader.is_none();
        let paused =
            leader.as_ref().and_then(|(leader, _)| self.shared.throttles.until(leader.node, now));
        if let (Some((leader, address)), None) = (leader, paused) {
            self.send(index, now, leader, &address);
        }
        self.set_timer(index, now, lingers_until.into_iter().chain(paused).min());
        self.note_trouble(index, now, leaderless);
    }

    /// Takes batches while the pipeline has room; says until when the open one may wait.
    fn fill(&mut self, index: usize, now: Instant) -> Option<Instant> {
        let Partition { queue, pipeline, .. } = &mut self.partitions[index];
        while pipeline.has_room() {
            match queue.take(now, self.config.linger, pipeline.is_empty()) {
                Taken::Batch(batch) => pipeline.push(*batch),
                Taken::Later(time) => return Some(time),
                Taken::Nothing => return None,
            }
        }
        None
    }

    fn send(&mut self, index: usize, now: Instant, leader: Leader, address: &Arc<str>) {
        if !self.partitions[index].pipeline.wants_to_send(now) {
            return;
        }
        let Some(connection) = self.core.pool.live(leader.node) else {
            return self.dial(leader.node, address.clone());
        };
        let topic = &self.partitions[index].queue.topic;
        let codec = self.config.codec_for(topic, &self.metadata.borrow());
        self.partitions[index].pipeline.pack_with(codec);
        while let Some(outgoing) = self.partitions[index].pipeline.next(now, leader) {
            self.submit(index, &connection, leader, outgoing);
        }
    }

    fn submit(&self, index: usize, connection: &Connection, leader: Leader, outgoing: Outgoing) {
        let partition = self.partitions[index].queue.partition;
        let request = ProduceRequest {
            partition,
            acks: outgoing.acks,
            leader_term: Some(leader.term),
            timeout_ms: u32::try_from(outgoing.patience.as_millis()).unwrap_or(u32::MAX),
            expected_end: outgoing.expected_end,
            batch: outgoing.bytes,
        };
        let (answers, attempt) = (self.answers.clone(), outgoing.attempt);
        let (throttles, watch) = (self.shared.throttles.clone(), self.core.watch.clone());
        let broker = connection.broker().to_owned();
        let reply = Box::new(move |answer: Result<crate::connection::Answer, Error>| {
            let answer = match answer {
                Ok(Ok(body)) => match decode::<ProduceResponse>(body, "read a receipt", &broker) {
                    Ok(answer) => {
                        if answer.throttle_ms > 0 {
                            let pause = Duration::from_millis(answer.throttle_ms.into());
                            watch.throttled(leader.node, pause);
                        }
                        Answered::Written(throttles.heed(leader.node, &answer, Instant::now()))
                    }
                    Err(malformed) => Answered::Lost(malformed),
                },
                Ok(Err(refusal)) => Answered::Refused(refusal),
                Err(lost) => Answered::Lost(lost),
            };
            // The sender may have ended; then everything was settled.
            let _ = answers.send(Event::Answer { index, attempt, answer });
        });
        connection.produce(partition, Request::produce(&request), reply);
    }

    fn dial(&mut self, node: NodeId, address: Arc<str>) {
        if !self.dialling.insert(node) {
            return;
        }
        let (core, answers) = (self.core.clone(), self.answers.clone());
        tokio::spawn(async move {
            let result = core.pool.get(node, &address).await.map(drop);
            let _ = answers.send(Event::Dialled { node, result });
        });
    }

    /// The leader and its address, if metadata knows them.
    fn leader(&self, index: usize) -> Option<(Leader, Arc<str>)> {
        let partition = self.partitions[index].queue.partition;
        let place = self.metadata.borrow().place(partition)?;
        Some((Leader { node: place.node, term: place.term }, place.address))
    }

    /// A leader that does not know the topic may only be late; but if it keeps saying so, and the
    /// metadata says it too, the topic is gone.
    fn fail_if_gone(&mut self, index: usize, now: Instant) {
        let Partition { queue, unknown_since, .. } = &self.partitions[index];
        let long = unknown_since.is_some_and(|since| since + TOPIC_GONE_AFTER <= now);
        if long && self.metadata.borrow().is_gone(&queue.topic, queue.partition.topic) {
            self.partitions[index].unknown_since = None;
            self.topic_gone(index);
        }
    }

    fn topic_gone(&mut self, index: usize) {
        let queue = self.partitions[index].queue.clone();
        let name = &queue.topic;
        let text = format!("topic {name} was deleted; create it with `hw topic create {name}`");
        let error = Error::new(ErrorKind::UnknownTopic, text);
        queue.refuse(&error);
        self.shared.forget_topic(name);
        self.partitions[index].pipeline.fail_all(&error, &mut self.settled);
        let waiting = queue.drain().into_iter().map(|batch| (batch, Err(error.clone())));
        self.settled.extend(waiting);
        self.settle_all();
    }

    fn expire_queued(&mut self, index: usize, now: Instant, leader: Option<NodeId>) {
        let queue = &self.partitions[index].queue;
        let Some(deadline) = queue.deadline().filter(|deadline| *deadline <= now) else { return };
        let created = deadline.checked_sub(self.config.delivery_timeout).unwrap_or(now);
        let why = leader.and_then(|node| self.shared.throttles.blame(Some(node), created, now));
        let why = why
            .map(with_time_out)
            .unwrap_or_else(|| "batches before this one are not through".to_owned());
        let (topic, number) = (&queue.topic, queue.partition.partition);
        let text = format!("cannot write to {topic}/{number} within delivery_timeout: {why}");
        let error = Error::new(ErrorKind::TimedOut, text);
        let expired = queue.expired(now).into_iter().map(|batch| (batch, Err(error.clone())));
        self.settled.extend(expired);
    }

    /// Tells those who wait, and gives back the memory.
    fn settle_all(&mut self) {
        for (batch, result) in self.settled.drain(..) {
            self.core.watch.produced(&batch.written(&result));
            self.shared.settled(&batch, &result);
            batch.completion.settle(result);
        }
    }

    fn set_timer(&mut self, index: usize, now: Instant, lingers_until: Option<Instant>) {
        let partition = &mut self.partitions[index];
        let probe = partition.pipeline.oldest_attempt().map(|(sent, _)| sent + PROBE_AFTER);
        let times =
            [partition.pipeline.deadline(), partition.queue.deadline(), lingers_until, probe];
        // A time that has passed and could not be used waits for another event.
        let time = times.into_iter().flatten().filter(|time| *time > now).min();
        if partition.timer != time {
            if let Some(old) = partition.timer {
                self.timers.remove(&(old, index));
            }
            self.timers.extend(time.map(|time| (time, index)));
            partition.timer = time;
        }
    }

    fn unsettled(&self) -> Vec<Arc<Completion>> {
        let each = |partition: &Partition| {
            let under_way = partition.pipeline.completions();
            under_way.chain(partition.queue.completions()).collect::<Vec<_>>()
        };
        self.partitions.iter().flat_map(each).collect()
    }

    fn abort(&mut self, error: &Error) {
        self.adopt_queues();
        for partition in &mut self.partitions {
            partition.queue.refuse(&closed());
            partition.pipeline.fail_all(error, &mut self.settled);
            let waiting = partition.queue.drain();
            self.settled.extend(waiting.into_iter().map(|batch| (batch, Err(error.clone()))));
        }
        self.settle_all();
    }

    /// After the last handle was dropped: sends the rest, and says whether all is settled.
    fn finish(&mut self) -> bool {
        self.adopt_queues();
        for partition in &self.partitions {
            partition.queue.hurry(&self.shared.announcements);
        }
        self.partitions.iter().all(|each| each.pipeline.is_empty() && each.queue.is_empty())
    }
}

/// What helps besides where the time was up.
fn with_time_out(cause: String) -> String {
    format!("{cause}; or have a smaller buffer_bytes_max, or a longer delivery_timeout")
}

async fn sleep_until(time: Option<Instant>) {
    let time = time.expect("awaited only with a time");
    tokio::time::sleep_until(time.into()).await;
}

/// Without an answer for this long, other brokers are asked who leads.
const PROBE_AFTER: Duration = Duration::from_millis(200);
/// A topic just made may not be known everywhere yet; after this long it should be.
const TOPIC_GONE_AFTER: Duration = Duration::from_secs(2);
