//! Coordinators at work: a task for each partition of `__groups` that runs a `Coordinator` while this
//! broker leads the partition.
//!
//! What must hold: a coordinator begins with everything that the log holds and that may still be committed,
//! so with all that any earlier one has answered; one batch of records is under way at a time, and whoever
//! asked is answered once that is committed. What may or may not have been written is found out by reading
//! the log again. A log that has grown long is begun anew with records that say all of it once more.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::batch::{BatchView, frames};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Offset, PartitionId, TopicPartition};
use highwater_protocol::native::groups::{GROUPS_TOPIC, GroupId, coordinator_partition};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use super::Inner;
use super::own_log::{self, AppendError, OwnLog, in_doubt};
use crate::controller::ClusterImage;
use crate::groups::record::GroupRecord;
use crate::groups::{
    BATCH_BYTES, BATCH_RECORDS, Coordinator, GroupAnswer, GroupRequest, Groups, Moment,
};
use crate::log::{LogReader, ReadError};
use crate::node::Route;
use crate::raft::Millis;
use crate::shard::event::ReplicaCommand;

/// The ways to this broker's coordinators.
#[derive(Default)]
pub(super) struct Coordinators {
    ways: RwLock<HashMap<TopicPartition, mpsc::Sender<Ask>>>,
}

/// A request and who waits for the answer.
struct Ask {
    request: GroupRequest,
    reply: oneshot::Sender<Result<GroupAnswer, WireError>>,
}

/// The partition whose leader keeps a group, once there is the topic.
pub(super) fn partition_of(image: &ClusterImage, group: &GroupId) -> Option<TopicPartition> {
    let topic = image.topic_named(GROUPS_TOPIC)?;
    let count = topic.partitions.len() as u32;
    (count > 0).then(|| TopicPartition::new(topic.id, coordinator_partition(group, count)))
}

impl Coordinators {
    /// Has the coordinator of a partition answer, if it is here.
    pub async fn ask(
        &self,
        partition: TopicPartition,
        request: GroupRequest,
    ) -> Result<GroupAnswer, WireError> {
        let way =
            self.ways.read().expect("nobody panics while holding it").get(&partition).cloned();
        let Some(way) = way else { return Err(starting(partition)) };
        let (reply, answer) = oneshot::channel();
        match way.try_send(Ask { request, reply }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(in_doubt("the broker is stopping"))),
            Err(TrySendError::Full(_)) => {
                let why = format!(
                    "the coordinator of partition {partition} has {ASKS_MAX} requests waiting; try again in a moment"
                );
                Err(WireError::new(ErrorCode::Overloaded, why))
            }
            Err(TrySendError::Closed(_)) => Err(in_doubt("the broker is stopping")),
        }
    }
}

/// Keeps a task for every partition of the topic, once there is one.
pub(super) async fn run(node: Arc<Inner>) {
    let mut changes = node.applied.subscribe();
    let mut tasks = JoinSet::new();
    loop {
        let image = node.image.load_full();
        for partition in image.topic_named(GROUPS_TOPIC).into_iter().flat_map(|topic| {
            (0..topic.partitions.len() as u32)
                .map(|it| TopicPartition::new(topic.id, PartitionId(it)))
        }) {
            let mut ways = node.coordinators.ways.write().expect("nobody panics while holding it");
            ways.entry(partition).or_insert_with(|| {
                let (way, asked) = mpsc::channel(ASKS_MAX);
                node.spawn(
                    &mut tasks,
                    "keeps consumer groups",
                    keep(node.clone(), partition, asked),
                );
                way
            });
        }
        tokio::select! {
            () = node.stop.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Answers for one partition until the node stops.
async fn keep(node: Arc<Inner>, partition: TopicPartition, mut asked: mpsc::Receiver<Ask>) {
    while !node.stop.is_cancelled() {
        let Some(route) = node.routes.get(partition) else {
            // The topic is known; its routes come in the same step, and go with it.
            tokio::time::sleep(ROUTE_WAIT).await;
            continue;
        };
        let changed = route.changed().notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Some(leading) = lead(&node, &route).await {
            leading.run(&mut asked).await;
            continue;
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = changed => {}
            ask = asked.recv() => match ask {
                Some(ask) => answer(ask, Err(not_here(&node, partition))),
                None => return,
            },
        }
    }
}

/// Begins a term, if this broker leads the partition and its log can be read.
async fn lead(node: &Arc<Inner>, route: &Route) -> Option<Leading> {
    let partition = route.partition();
    let term = own_log::led_in(node, partition)?;
    let reader = route.reader()?;
    let log = OwnLog::new(node.clone(), partition, term);
    match load(node, &log, route, &reader).await {
        Ok(loaded) => {
            let (groups, applied) = loaded?;
            let coordinator = Coordinator::new(term, groups, now(node, partition));
            Some(Leading { node: node.clone(), log, reader, coordinator, applied })
        }
        Err(why) => {
            tracing::error!(partition = route.title(), why, "the groups cannot be read");
            tokio::time::sleep(BROKEN_WAIT).await;
            None
        }
    }
}

/// Reads all that is in the log, and may still be committed; nothing if the lead is lost meanwhile.
async fn load(
    node: &Inner,
    log: &OwnLog,
    route: &Route,
    reader: &LogReader,
) -> Result<Option<(Groups, Offset)>, String> {
    let end = reader.log_end();
    loop {
        let changed = route.changed().notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if reader.high_watermark() >= end {
            break;
        }
        if !log.is_led() || node.stop.is_cancelled() {
            return Ok(None);
        }
        let _ = timeout(ROUTE_WAIT, changed).await;
    }
    let (mut groups, mut next) = (Groups::default(), reader.log_start());
    while next < end {
        if !log.is_led() || node.stop.is_cancelled() {
            return Ok(None);
        }
        let slices = match reader.read(next, READ_BYTES) {
            Ok(slices) => slices,
            Err(error @ ReadError::Faulty(_)) => {
                tracing::warn!(%error, "the log of the groups cannot be read on");
                tokio::time::sleep(ROUTE_WAIT).await;
                continue;
            }
            Err(error) => return Err(format!("from offset {next}: {error}")),
        };
        for slice in slices {
            next = apply(&mut groups, &slice, next)?;
        }
        tokio::task::yield_now().await;
    }
    Ok(Some((groups, next)))
}

/// Takes in the records of a run of batches from an offset on; says at which it goes on.
fn apply(groups: &mut Groups, slice: &[u8], from: Offset) -> Result<Offset, String> {
    let mut next = from;
    for frame in frames(slice) {
        let (header, bytes) = frame.map_err(|error| error.to_string())?;
        let batch = BatchView::parse(bytes).map_err(|error| error.to_string())?;
        for record in batch.records().map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            // The first batch may begin before the offset asked for.
            if record.offset >= next {
                let value = record.value.ok_or("a group record without a value")?;
                let decoded = GroupRecord::decode(value);
                let decoded = decoded.map_err(|why| format!("offset {}: {why}", record.offset))?;
                groups.apply(&decoded).map_err(|why| format!("offset {}: {why}", record.offset))?;
                next = record.offset.advance(1);
            }
        }
        // What was given up left offsets without records.
        next = next.max(header.base_offset.advance(u64::from(header.records())));
    }
    Ok(next)
}

/// One term of keeping the groups of a partition.
struct Leading {
    node: Arc<Inner>,
    log: OwnLog,
    reader: Arc<LogReader>,
    coordinator: Coordinator,
    /// Up to where the log is in the coordinator.
    applied: Offset,
}

/// The term is over, or what the log holds is not known any more.
struct Over;

impl Leading {
    async fn run(mut self, asked: &mut mpsc::Receiver<Ask>) {
        let node = self.node.clone();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.log.is_led() {
            let went = tokio::select! {
                () = node.stop.cancelled() => return,
                _ = look.tick() => self.look_around().await,
                ask = asked.recv() => match ask {
                    Some(ask) => self.serve(ask, asked).await,
                    None => return,
                },
            };
            if went.is_err() {
                return;
            }
        }
    }

    /// Decides what waits, commits what comes of it, and answers.
    async fn serve(&mut self, first: Ask, asked: &mut mpsc::Receiver<Ask>) -> Result<(), Over> {
        if !self.log.is_led() {
            let error = not_here(&self.node, self.log.partition());
            answer(first, Err(error));
            return Err(Over);
        }
        let image = self.node.image.load_full();
        let mut answers = Vec::new();
        let mut next = Some(first);
        while let Some(ask) = next {
            let moment = self.moment(&image);
            let decided = self.coordinator.decide(moment, &ask.request);
            answers.push((ask, decided));
            next = if self.coordinator.is_full() { None } else { asked.try_recv().ok() };
        }
        let outcome = self.commit().await;
        for (ask, decided) in answers {
            let result = match &outcome {
                Ok(()) => decided,
                Err(failure) => Err(failure.error.clone()),
            };
            answer(ask, result);
        }
        match outcome {
            Err(Failure { known: Known::No, .. }) => Err(Over),
            Ok(()) | Err(Failure { known: Known::NotWritten, .. }) => Ok(()),
        }
    }

    /// What time alone has brought.
    async fn look_around(&mut self) -> Result<(), Over> {
        let image = self.node.image.load_full();
        let moment = self.moment(&image);
        self.coordinator.look_around(moment);
        match self.commit().await {
            Ok(()) => self.begin_log_anew().await,
            // The next look finds the same.
            Err(Failure { known: Known::NotWritten, .. }) => Ok(()),
            Err(Failure { known: Known::No, .. }) => Err(Over),
        }
    }

    async fn commit(&mut self) -> Result<(), Failure> {
        let records: Vec<Bytes> =
            self.coordinator.decided().iter().map(GroupRecord::encode).collect();
        if records.is_empty() {
            return Ok(());
        }
        match self.append(&records).await {
            Ok(_) => self.coordinator.committed().map_err(|why| {
                tracing::error!(%why, "a decision contradicts the groups");
                Failure { known: Known::No, error: in_doubt("the coordinator failed") }
            }),
            Err(failure) => {
                self.coordinator.dropped();
                Err(failure)
            }
        }
    }

    /// Appends records; nobody else writes to this log in our term, so they come where ours end.
    async fn append(&mut self, records: &[Bytes]) -> Result<Offset, Failure> {
        match self.log.append(records).await {
            Ok(base) if base == self.applied => {
                self.applied = base.advance(records.len() as u64);
                Ok(base)
            }
            // What was in doubt came to be written after the log was read.
            Ok(_) => Err(Failure { known: Known::No, error: in_doubt("the log has grown beside") }),
            Err(AppendError::NotWritten(error)) => Err(Failure { known: Known::NotWritten, error }),
            Err(AppendError::InDoubt(why)) => {
                Err(Failure { known: Known::No, error: in_doubt(&why) })
            }
        }
    }

    /// Says all of it once more in a log that has grown long, then gives up what is before. Records only say
    /// how something is, so a crash in between leaves a longer log, which is as good.
    async fn begin_log_anew(&mut self) -> Result<(), Over> {
        let held = self.reader.high_watermark().since(self.reader.log_start());
        let whole = self.coordinator.groups().records();
        if held <= 2 * whole + LOG_RECORDS_MAX {
            return Ok(());
        }
        let records: Vec<Bytes> =
            self.coordinator.groups().to_records().map(|record| record.encode()).collect();
        let begin = self.applied;
        let mut rest = &records[..];
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(batch_of(rest));
            rest = behind;
            match self.append(batch).await {
                Ok(_) => {}
                Err(Failure { known: Known::NotWritten, .. }) => return Ok(()),
                Err(Failure { known: Known::No, .. }) => return Err(Over),
            }
        }
        match self.log.command(ReplicaCommand::TrimBefore(begin)).await {
            Ok(_) => tracing::info!(%begin, held, "the log of some groups begins anew"),
            // A later look tries again.
            Err(error) => tracing::warn!(%error, "the log of the groups could not be begun anew"),
        }
        Ok(())
    }

    fn moment<'a>(&self, image: &'a ClusterImage) -> Moment<'a> {
        Moment {
            now: now(&self.node, self.log.partition()),
            wall: own_log::wall_clock(),
            cluster: image,
            offsets_kept_ms: image.settings().offsets_kept_ms(),
        }
    }
}

/// Why records are not known to be committed, in the words for those who wait.
struct Failure {
    known: Known,
    error: WireError,
}

/// What is known of records that were not acknowledged.
enum Known {
    /// They are nowhere.
    NotWritten,
    /// Nothing.
    No,
}

/// With how many of some records a batch is closed: no coordinator decided on one that does not fit a frame.
fn batch_of(records: &[Bytes]) -> usize {
    let mut bytes = 0;
    let is_closed = |record: &Bytes| {
        bytes += record.len();
        bytes >= BATCH_BYTES
    };
    let first = records.iter().position(is_closed).map_or(records.len(), |last| last + 1);
    first.min(BATCH_RECORDS)
}

fn answer(ask: Ask, result: Result<GroupAnswer, WireError>) {
    // Whoever asked may have given up meanwhile.
    let _ = ask.reply.send(result);
}

fn now(node: &Inner, partition: TopicPartition) -> Millis {
    node.shards.of(partition).clock().now()
}

fn not_here(node: &Inner, partition: TopicPartition) -> WireError {
    let me = node.options.me;
    let view = node.routes.get(partition).map(|route| (route.title(), route.leader()));
    match view {
        Some((title, view)) if view.leader.is_some_and(|leader| leader != me) => {
            let leader = view.leader.expect("just looked at");
            let why = format!(
                "{title}, which keeps the group, is led by broker {leader}, not by broker {me}; ask there"
            );
            WireError::new(ErrorCode::NotLeader, why)
        }
        Some(_) | None => starting(partition),
    }
}

fn starting(partition: TopicPartition) -> WireError {
    let why = format!(
        "partition {partition} of the groups has no coordinator yet; try again in a moment"
    );
    WireError::new(ErrorCode::LeaderNotAvailable, why)
}

/// Requests waiting for one coordinator; more are refused.
const ASKS_MAX: usize = 4096;
/// So many records more than twice what the groups need make a log long.
const LOG_RECORDS_MAX: u64 = 20_000;
const READ_BYTES: u32 = 1024 * 1024;
const LOOK_EVERY: Duration = Duration::from_millis(500);
const ROUTE_WAIT: Duration = Duration::from_millis(100);
/// How long a log that makes no sense waits for the next try.
const BROKEN_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use highwater_protocol::batch::Gap;
    use highwater_protocol::ids::{Term, Timestamp};

    use super::*;

    #[test]
    fn reading_goes_on_behind_records_that_were_given_up() {
        let gap = Gap {
            base_offset: Offset(5),
            term: Term(1),
            records: 7,
            frame_bytes: 300,
            max_timestamp: Timestamp(1),
            producer: None,
        };
        let end = apply(&mut Groups::default(), &gap.encode(), Offset(5)).expect("it is a frame");
        assert_eq!(end, Offset(12));
    }

    #[test]
    fn a_batch_of_a_log_begun_anew_is_closed_by_its_bytes_or_its_number() {
        let of = |bytes: usize, count: usize| batch_of(&vec![Bytes::from(vec![0; bytes]); count]);
        assert_eq!((of(10, 5_000), of(10, 7)), (BATCH_RECORDS, 7));
        assert_eq!((of(BATCH_BYTES, 3), of(BATCH_BYTES / 2, 3)), (1, 2));
    }
}
