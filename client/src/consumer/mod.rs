//! Reading topics as a member of a consumer group: the group shares out partitions among its members, and
//! remembers how far it has come.
//!
//! Read `config`, then `membership` (the rules, pure), `driver` (the task that lives by them), `polling` (who is
//! away for too long), `place` (where to begin), the `Consumer` here, `committing`, `steer` (pausing and seeking), and `workers` (one for each partition).

mod committing;
mod config;
mod coordinator;
mod driver;
mod event;
pub mod membership;
mod partition;
mod place;
mod polling;
mod steer;
mod workers;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_protocol::ids::{Offset, TopicId, TopicPartition};
use highwater_protocol::native::groups::MemberId;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::client::Core;
use crate::error::{Error, ErrorKind};
use crate::hooks::Rebalance;
use crate::reader::{
    Assignment, Fetched, Fetcher, OutOfRange, ReaderConfig, RecordBatch, StartAt, Steer, Stint,
};
use committing::{Committing, commit_due, committed};
pub use config::{Commit, ConsumerConfig};
pub(crate) use coordinator::Coordinator;
use driver::{Driver, Tidings, Why, Word};
pub use event::{Event, OwnedPartition, Revocation};
use membership::Membership;
pub use partition::PartitionConsumer;
use place::Placed;
use polling::{Polling, Presence};

/// A member of a consumer group.
///
/// By default every record is handled at least once: what was not marked before partitions moved, or before the
/// program ended, is read again by whoever comes next.
///
/// ```no_run
/// # use std::time::Duration;
/// # use highwater_client::{Client, ConsumerConfig, Error};
/// # async fn run(client: Client) -> Result<(), Error> {
/// let mut consumer = client.consumer(ConsumerConfig::new("billing", ["orders"])).await?;
/// for _ in 0..1000 {
///     let batch = consumer.next_batch().await?;
///     for record in &batch {
///         println!("{:?}", record.value);
///     }
///     consumer.mark(&batch);
/// }
/// consumer.close(Duration::from_secs(10)).await
/// # }
/// ```
pub struct Consumer {
    core: Arc<Core>,
    config: Arc<ConsumerConfig>,
    member: MemberId,
    words: mpsc::UnboundedSender<Word>,
    tidings: mpsc::UnboundedReceiver<Tidings>,
    fetched: mpsc::UnboundedReceiver<Fetched>,
    output: mpsc::UnboundedSender<Fetched>,
    fetchers: HashMap<TopicId, mpsc::UnboundedSender<Steer>>,
    owned: BTreeMap<TopicPartition, Owned>,
    last_stint: Stint,
    commit_due: Instant,
    committing: Option<Committing>,
    /// What a call that was dropped had begun to give up.
    giving_up: Option<Revocation>,
    presence: Arc<Presence>,
}

/// A partition of one's own.
#[derive(Debug)]
struct Owned {
    name: OwnedPartition,
    stint: Stint,
    /// Marks of batches that were fetched before this one say nothing any more.
    marks_since: Stint,
    /// What comes next to the program.
    next: Offset,
    marked: Option<Offset>,
    committed: Option<Offset>,
    reading: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    Paused,
    /// It is to be given up.
    Over,
}

impl Consumer {
    pub(crate) async fn open(core: Arc<Core>, config: ConsumerConfig) -> Result<Consumer, Error> {
        if config.topics.is_empty() {
            let text =
                format!("a consumer of group {} reads no topic: name at least one", config.group);
            return Err(Error::new(ErrorKind::Config, text));
        }
        let group = config.group_id();
        group.check().map_err(|why| Error::new(ErrorKind::Config, why))?;
        let coordinator = Coordinator::find(core.clone(), &group).await?;
        let member = MemberId(Uuid::new_v4());
        let profile = config.profile(&core.config.client_id);
        let membership = Membership::new(group, member, profile, 0);
        let presence = Arc::new(Presence::new(config.prefetch_bytes_max));
        let config = Arc::new(config);
        let (words, heard) = mpsc::unbounded_channel();
        let (told, tidings) = mpsc::unbounded_channel();
        let driver = Driver::new(
            core.clone(),
            config.clone(),
            coordinator,
            membership,
            (heard, told),
            presence.clone(),
        );
        tokio::spawn(driver.run());
        Ok(Consumer::of(core, config, member, (words, tidings), presence))
    }

    /// The consumer to a driver.
    fn of(
        core: Arc<Core>,
        config: Arc<ConsumerConfig>,
        member: MemberId,
        ways: (mpsc::UnboundedSender<Word>, mpsc::UnboundedReceiver<Tidings>),
        presence: Arc<Presence>,
    ) -> Consumer {
        // Unbounded in number, bounded in bytes: the fetchers ask for no more than the budget has.
        let (output, fetched) = mpsc::unbounded_channel();
        let (words, tidings) = ways;
        Consumer {
            core,
            member,
            words,
            tidings,
            fetched,
            output,
            fetchers: HashMap::new(),
            owned: BTreeMap::new(),
            last_stint: Stint::default(),
            commit_due: commit_due(presence.begun, &config),
            committing: None,
            giving_up: None,
            presence,
            config,
        }
    }

    /// The id of this member, as `hw group describe` shows it.
    pub fn member(&self) -> String {
        self.member.to_string()
    }

    /// The partitions that it owns now.
    pub fn owned(&self) -> Vec<OwnedPartition> {
        self.owned.values().map(|owned| owned.name.clone()).collect()
    }

    /// The next records of any of its partitions. Partitions that must be given up are: what was marked of them is
    /// committed first, where that is done by itself, and nothing more of them comes.
    ///
    /// Call it again only when the last batch is done with, or marks would lag behind what was done.
    ///
    /// # Errors
    /// Of one partition, as for [`crate::Reader::next_batch`], or the end of the membership, after which every call fails.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped, and nothing is given up: where that happens amid a commit before
    /// partitions are given up, they are kept until the next call, which goes on waiting for it, or until the consumer is
    /// closed or dropped.
    pub async fn next_batch(&mut self) -> Result<RecordBatch, Error> {
        loop {
            match self.next_event().await? {
                Event::Batch(batch) => return Ok(batch),
                Event::Revoking(revocation) => {
                    // Not in this future, with which it would be dropped and the partitions given up.
                    self.giving_up = Some(revocation);
                    self.commit_before_giving_up().await;
                    drop(self.giving_up.take());
                }
                Event::Assigned(_) | Event::Lost(_) | Event::Stalled(_) => {}
            }
        }
    }

    /// The next records, or what becomes of partitions; for programs that keep something for each partition.
    ///
    /// # Errors
    /// As for [`Consumer::next_batch`].
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn next_event(&mut self) -> Result<Event, Error> {
        let _polling = Polling::begin(self);
        if let Some(revocation) = self.giving_up.take() {
            return Ok(Event::Revoking(revocation));
        }
        loop {
            let due = self.commit_due;
            let commits = self.commits_by_itself();
            tokio::select! {
                biased;
                told = self.tidings.recv() => {
                    let told = told.ok_or_else(|| self.ended())?;
                    if let Some(event) = self.take(told)? {
                        return Ok(event);
                    }
                }
                result = committed(&mut self.committing) => self.settle(result),
                () = tokio::time::sleep_until(due.into()), if commits => self.begin_commit(),
                fetched = self.fetched.recv() => {
                    let fetched = fetched.expect("one end of it is ours");
                    if let Some(result) = self.deliver(fetched) {
                        return result.map(Event::Batch);
                    }
                }
            }
        }
    }

    /// A batch is done with: with the next commit the group has come to its end.
    pub fn mark(&mut self, batch: &RecordBatch) {
        self.mark_before(batch, batch.next_offset());
    }

    /// Of a batch, all records before an offset are done with.
    ///
    /// # Panics
    /// If the offset lies behind the batch, or before it.
    pub fn mark_before(&mut self, batch: &RecordBatch, offset: Offset) {
        batch.must_reach(offset);
        // Of an earlier time of the same partition, or of before a seek, it says nothing about this one.
        let is_of = |owned: &&mut Owned| {
            let OwnedPartition { topic, partition } = &owned.name;
            (topic, partition) == (&batch.topic, &batch.partition)
                && batch.stint() >= owned.marks_since
        };
        if let Some(owned) = self.owned.values_mut().find(is_of) {
            owned.mark(offset);
        }
    }

    /// Of a partition of its own, all records before an offset are done with.
    fn note_marked(&mut self, name: &OwnedPartition, offset: Offset) {
        if let Some(owned) = self.owned.values_mut().find(|owned| owned.name == *name) {
            owned.mark(offset);
        }
    }

    /// Commits all that is marked, and waits until that is done.
    ///
    /// # Errors
    /// `Refused(StaleMemberEpoch)` or `Refused(UnknownMember)` where partitions were lost meanwhile: somebody else
    /// goes on from the last commit.
    ///
    /// # Cancel safety
    /// The commit may be made even if the future is dropped.
    pub async fn commit(&mut self) -> Result<(), Error> {
        // What is under way is older; it may be that of a call that was dropped.
        if self.committing.is_some() {
            let done = committed(&mut self.committing).await;
            self.settle(done);
        }
        let offsets = self.uncommitted();
        if offsets.is_empty() {
            return Ok(());
        }
        let reply = self.send_commit(offsets.clone());
        self.committing = Some(Committing { offsets, reply });
        let (offsets, result) = committed(&mut self.committing).await;
        if result.is_ok() {
            self.note_committed(&offsets);
        }
        result
    }

    /// Commits what is marked, unless commits are up to the program, gives everything up, and leaves the group, so that
    /// others go on at once. One with an instance's name keeps its place, and its partitions, for a session. Where no
    /// coordinator hears of it in a few seconds, which is no error, the others go on when its session ends.
    ///
    /// # Errors
    /// If the last commit failed, or the time was up. It leaves nevertheless, in the latter case behind your back.
    pub async fn close(mut self, timeout: Duration) -> Result<(), Error> {
        let closing = async {
            let committed = match self.config.commit {
                Commit::AutoMarked(_) => self.commit().await,
                Commit::Manual => Ok(()),
            };
            let (reply, left) = oneshot::channel();
            if self.words.send(Word::Close(reply)).is_ok() {
                // The driver has ended otherwise, and is no member.
                let _ = left.await;
            }
            committed
        };
        match tokio::time::timeout(timeout, closing).await {
            Ok(committed) => committed,
            Err(_) => {
                let group = &self.config.group;
                let text = format!(
                    "leaving group {group} took longer than {timeout:?}; it may not have committed all, and its partitions are free when its session ends at the latest"
                );
                Err(Error::new(ErrorKind::TimedOut, text))
            }
        }
    }

    fn take(&mut self, told: Tidings) -> Result<Option<Event>, Error> {
        Ok(match told {
            Tidings::Assigned(placed) if placed.is_empty() => None,
            Tidings::Assigned(placed) => {
                let names: Vec<_> = placed.into_iter().map(|it| self.begin_reading(it)).collect();
                self.moved(&Rebalance::Assigned(&names));
                Some(Event::Assigned(names))
            }
            Tidings::Revoked(number, partitions) => {
                for partition in &partitions {
                    self.stop_reading(*partition, Reading::Over);
                }
                let names = self.names(&partitions);
                self.moved(&Rebalance::Revoked(&names));
                let ids = (number, partitions);
                Some(Event::Revoking(Revocation::new(names, ids, self.words.clone())))
            }
            Tidings::Gone(partitions, why) => {
                let names = self.names(&partitions);
                for partition in &partitions {
                    self.stop_reading(*partition, Reading::Over);
                    self.owned.remove(partition);
                }
                let lost = why == Why::Lost && !names.is_empty();
                if lost {
                    self.moved(&Rebalance::Lost(&names));
                }
                lost.then_some(Event::Lost(names))
            }
            Tidings::Stalled(away) => Some(Event::Stalled(away)),
            Tidings::Failed(error) => return Err(error),
        })
    }

    fn moved(&self, what: &Rebalance<'_>) {
        self.core.watch.rebalanced(&self.config.group, what);
    }

    fn names(&self, partitions: &[TopicPartition]) -> Vec<OwnedPartition> {
        partitions.iter().filter_map(|it| self.owned.get(it)).map(|it| it.name.clone()).collect()
    }

    fn begin_reading(&mut self, placed: Placed) -> OwnedPartition {
        let Placed { partition, topic, start, committed } = placed;
        let name = OwnedPartition { topic, partition: partition.partition };
        let owned = Owned {
            name: name.clone(),
            stint: Stint::default(),
            marks_since: Stint(self.last_stint.0 + 1),
            next: start,
            marked: None,
            committed,
            reading: Reading::Paused,
        };
        self.owned.insert(partition, owned);
        self.read_on(partition);
        name
    }

    /// Has a partition fetched from where the program has come to.
    fn read_on(&mut self, partition: TopicPartition) {
        self.last_stint = Stint(self.last_stint.0 + 1);
        let stint = self.last_stint;
        let owned = self.owned.get_mut(&partition).expect("it is read on because it is owned");
        (owned.stint, owned.reading) = (stint, Reading::On);
        let (start, name) = (owned.next, owned.name.topic.clone());
        let fetcher = self.fetchers.entry(partition.topic).or_insert_with(|| {
            let mut config = ReaderConfig::new(name, StartAt::Start).partitions([]);
            config.prefetch_bytes_max = self.config.prefetch_bytes_max;
            config.rack.clone_from(&self.config.rack);
            config.out_of_range = match self.config.when_no_offset {
                StartAt::Start => OutOfRange::Start,
                StartAt::End | StartAt::Last => OutOfRange::End,
                StartAt::Offset(_) | StartAt::Time(_) => OutOfRange::Error,
            };
            let (steer, words) = mpsc::unbounded_channel();
            let (core, budget) = (self.core.clone(), self.presence.budget.clone());
            let fetcher = Fetcher::new(core, config, Vec::new(), budget, self.output.clone());
            tokio::spawn(fetcher.steered(words).run());
            steer
        });
        let assignment = Assignment { partition, start, end: None, stint };
        // It runs as long as we listen to it.
        let _ = fetcher.send(Steer::Read(assignment));
    }

    fn stop_reading(&mut self, partition: TopicPartition, reading: Reading) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.reading = reading;
        }
        if let Some(fetcher) = self.fetchers.get(&partition.topic) {
            let _ = fetcher.send(Steer::Stop(partition));
        }
    }

    /// What was fetched, unless it is of an earlier time of its partition.
    fn deliver(&mut self, fetched: Fetched) -> Option<Result<RecordBatch, Error>> {
        let Fetched { partition, stint, result } = fetched;
        if let Ok(batch) = &result {
            self.presence.budget.release(batch.bytes());
        }
        let owned = self.owned.get_mut(&partition)?;
        if owned.stint != stint || owned.reading != Reading::On {
            return None;
        }
        Some(result.map(|batch| {
            owned.next = batch.next_offset();
            self.core.watch.fetched(&batch);
            batch.of_stint(stint)
        }))
    }

    fn ended(&self) -> Error {
        let text = format!("this consumer is no member of group {} any more", self.config.group);
        Error::new(ErrorKind::Closed, text)
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owned = self.owned.values().map(|owned| owned.name.to_string()).collect::<Vec<_>>();
        let mut told = f.debug_struct("Consumer");
        told.field("group", &self.config.group).field("member", &self.member);
        told.field("owned", &owned).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
