//! A worker for each partition of one's own: in order within a partition, side by side across them.
//!
//! The consumer is read by one task, which hands batches on to the workers and listens to the group, so that a worker
//! that takes its time holds up its own partition and nothing else. A partition moves only when its worker has ended
//! and what that marked is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::partition::{Lane, PartitionConsumer};
use super::{Consumer, Event, OwnedPartition, Revocation};
use crate::error::{Error, ErrorKind};
use crate::reader::RecordBatch;

/// The workers of a consumer.
struct Workers<E, F> {
    consumer: Consumer,
    work: F,
    lanes: BTreeMap<OwnedPartition, Lane>,
    tasks: JoinSet<Ended<E>>,
    giving_up: Vec<GivingUp>,
    /// A worker has taken or marked a batch.
    changed: Arc<Notify>,
    ending: bool,
    failure: Option<E>,
}

/// Partitions that are given up once their workers have ended.
struct GivingUp {
    running: BTreeSet<OwnedPartition>,
    /// Dropped last.
    _revocation: Revocation,
}

enum Ended<E> {
    Worker(OwnedPartition, Result<(), E>),
    /// Its next worker may begin.
    Pause(OwnedPartition),
}

impl Consumer {
    /// Gives each partition of its own a worker, on a task of its own, from its first records on: records of one
    /// partition, and therefore of one key, are handled one after the other, those of different partitions side by side.
    /// Ends when `stop` is ready or something fails: workers are told to end, and are waited for; then what they marked
    /// is committed, and the group is left.
    ///
    /// A partition that must be given up is when its worker has ended and its marks are committed, unless commits are
    /// up to the program ([`Commit::Manual`](crate::Commit::Manual): nothing is committed then). A worker that ends well while its partition is
    /// still there is followed, after a moment, by another one, which begins behind what was marked. Of all
    /// partitions together about `prefetch_bytes_max` may lie before the workers; one with more than its share is paused.
    ///
    /// Where one worker neither asks for what waits for it nor ends for `poll_interval_max`, the member leaves the group: its other
    /// workers are told to end, and other members go on. It joins again once no worker is stuck.
    ///
    /// ```no_run
    /// # use highwater_client::{Client, ConsumerConfig, Error};
    /// # async fn run(client: Client) -> Result<(), Error> {
    /// let consumer = client.consumer(ConsumerConfig::new("billing", ["orders"])).await?;
    /// let stop = async { tokio::signal::ctrl_c().await.expect("signals can be heard") };
    /// consumer
    ///     .for_each_partition(stop, |mut partition| async move {
    ///         while let Some(batch) = partition.next_batch().await {
    ///             for record in &batch {
    ///                 println!("{}: {:?}", partition.partition(), record.value);
    ///             }
    ///             partition.mark(&batch);
    ///         }
    ///         Ok(())
    ///     })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first failure of a worker, or of [`Consumer::next_event`]; that of the last commit; `TimedOut` where workers
    /// did not end within `rebalance_timeout`: they are aborted then.
    ///
    /// # Panics
    /// If a worker does.
    ///
    /// # Cancel safety
    /// If the future is dropped, workers are aborted, and the group is left without another commit: what they marked
    /// since the last one is handled again by the next owners.
    pub async fn for_each_partition<E, W>(
        self,
        stop: impl Future<Output = ()>,
        work: impl FnMut(PartitionConsumer) -> W,
    ) -> Result<(), E>
    where
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let patience = self.config.rebalance_timeout;
        let mut workers = Workers::of(self, work);
        let mut stop = pin!(stop);
        while workers.failure.is_none() {
            tokio::select! {
                () = &mut stop => break,
                () = workers.step() => {}
            }
        }
        workers.end();
        let in_time = timeout(patience, workers.ended()).await.is_ok();
        workers.take_marks();
        let Workers { consumer, failure, giving_up, tasks, .. } = workers;
        drop(tasks);
        let group = consumer.config.group.clone();
        let closed = consumer.close(patience).await;
        // Not before the last commit.
        drop(giving_up);
        match failure {
            Some(failure) => Err(failure),
            None if in_time => Ok(closed?),
            None => {
                let text = format!(
                    "workers of group {group} did not end within its rebalance timeout of {patience:?} and were aborted"
                );
                Err(Error::new(ErrorKind::TimedOut, text).into())
            }
        }
    }
}

impl<E, W, F> Workers<E, F>
where
    F: FnMut(PartitionConsumer) -> W,
    W: Future<Output = Result<(), E>> + Send + 'static,
    E: From<Error> + Send + 'static,
{
    fn of(consumer: Consumer, work: F) -> Workers<E, F> {
        Workers {
            consumer,
            work,
            lanes: BTreeMap::new(),
            tasks: JoinSet::new(),
            giving_up: Vec::new(),
            changed: Arc::default(),
            ending: false,
            failure: None,
        }
    }

    /// Waits for the next thing to happen, and does what follows from it. Nothing is lost if it is dropped.
    async fn step(&mut self) {
        self.take_marks();
        self.give_up_what_is_done().await;
        let listens = self.failure.is_none();
        tokio::select! {
            Some(ended) = self.tasks.join_next() => self.take(ended),
            () = self.changed.notified() => {}
            event = self.consumer.next_event(), if listens => match event {
                Ok(event) => self.hear(event),
                Err(error) => self.fail(error.into()),
            },
        }
    }

    /// Goes on until no worker runs.
    async fn ended(&mut self) {
        while !self.lanes.is_empty() {
            self.step().await;
        }
    }

    fn end(&mut self) {
        self.ending = true;
        self.lanes.values_mut().for_each(Lane::end);
    }

    fn fail(&mut self, failure: E) {
        self.failure.get_or_insert(failure);
    }

    /// Has the consumer take over what was marked and who is away, and reads on where workers have made room.
    fn take_marks(&mut self) {
        let enough = self.share_bytes() / 2;
        let away = self.lanes.values().filter_map(Lane::away_since).min();
        self.consumer.presence.set_workers_away(away);
        for (name, lane) in &mut self.lanes {
            if let Some(marked) = lane.take_marked().filter(|_| !lane.lost) {
                self.consumer.note_marked(name, marked);
            }
            if lane.full && !lane.is_over() && lane.queued_bytes() <= enough {
                lane.full = false;
                // It may have to be given up in a moment.
                let _ = self.consumer.resume(name);
            }
        }
    }

    /// How many bytes may lie before one worker.
    fn share_bytes(&self) -> usize {
        self.consumer.config.prefetch_bytes_max / self.consumer.owned.len().max(1)
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Batch(batch) => self.hand_on(batch),
            Event::Assigned(names) => {
                for name in names {
                    // Two workers of one partition would not keep its order.
                    if let Some(lane) = self.lanes.get_mut(&name) {
                        lane.is_back = true;
                        self.consumer.pause(&name).expect("it was assigned just now");
                    }
                }
            }
            Event::Revoking(revocation) => {
                let mut running = BTreeSet::new();
                for name in &revocation.partitions {
                    if let Some(lane) = self.lanes.get_mut(name) {
                        lane.end();
                        lane.is_back = false;
                        running.insert(name.clone());
                    }
                }
                self.giving_up.push(GivingUp { running, _revocation: revocation });
            }
            // What was lost comes next.
            Event::Stalled(_) => {}
            Event::Lost(names) => {
                for name in names {
                    if let Some(lane) = self.lanes.get_mut(&name) {
                        lane.end();
                        (lane.lost, lane.is_back) = (true, false);
                    }
                }
            }
        }
    }

    fn hand_on(&mut self, batch: RecordBatch) {
        if self.ending {
            return; // It is not marked, and so read again.
        }
        let name = OwnedPartition { topic: batch.topic.clone(), partition: batch.partition };
        if !self.lanes.contains_key(&name) {
            let (lane, far_end) = Lane::new(name.clone(), &batch, self.changed.clone());
            let (working, its) = ((self.work)(far_end), name.clone());
            self.tasks.spawn(async move { Ended::Worker(its, working.await) });
            self.lanes.insert(name.clone(), lane);
        }
        let most = self.share_bytes();
        let lane = self.lanes.get_mut(&name).expect("it is there now");
        lane.put(batch);
        if lane.queued_bytes() > most {
            lane.full = true;
            self.consumer.pause(&name).expect("only what is its own is read");
        }
    }

    fn take(&mut self, ended: Result<Ended<E>, JoinError>) {
        match ended {
            Ok(Ended::Worker(name, result)) => self.worker_ended(name, result),
            // If it is not its own any more, its next owner reads on. One with a worker was lost and came back since,
            // and goes on when that one says so.
            Ok(Ended::Pause(name)) if self.lanes.contains_key(&name) => {}
            Ok(Ended::Pause(name)) => drop(self.consumer.resume(&name)),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime shuts down.
            Err(_) => {}
        }
    }

    fn worker_ended(&mut self, name: OwnedPartition, result: Result<(), E>) {
        let lane = self.lanes.remove(&name).expect("a worker that runs has a lane");
        if let Some(marked) = lane.take_marked().filter(|_| !lane.lost) {
            self.consumer.note_marked(&name, marked);
        }
        if let Err(failure) = result {
            self.fail(failure);
        }
        if !lane.is_over() && self.consumer.rewind(&name, lane.first).is_ok() {
            let name = name.clone();
            self.tasks.spawn(async move {
                sleep(BETWEEN_WORKERS).await;
                Ended::Pause(name)
            });
        }
        if lane.is_back {
            // It may be gone again.
            let _ = self.consumer.resume(&name);
        }
        for giving_up in &mut self.giving_up {
            giving_up.running.remove(&name);
        }
    }

    async fn give_up_what_is_done(&mut self) {
        if self.giving_up.iter().any(|it| it.running.is_empty()) {
            // Only then are they dropped.
            self.consumer.commit_before_giving_up().await;
            self.giving_up.retain(|it| !it.running.is_empty());
        }
    }
}

/// A worker that ends at once each time must not keep a core busy.
const BETWEEN_WORKERS: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
