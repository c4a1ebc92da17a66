//! Where to begin in partitions that were assigned: where the group has come to, else where the
//! configuration says. Each begins as soon as that is known of it.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use highwater_protocol::ids::{Offset, Term, TopicId, TopicPartition};
use highwater_protocol::native::groups::FetchOffsetsRequest;
use tokio::time::timeout;

use super::ConsumerConfig;
use super::coordinator::Coordinator;
use crate::client::{Core, again};
use crate::error::Error;
use crate::reader::find;
use crate::record::TopicName;
use crate::retry::{self, Backoff};

/// A partition, and where to begin in it.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub partition: TopicPartition,
    pub topic: TopicName,
    pub start: Offset,
    /// What the group has committed, if anything.
    pub committed: Option<Offset>,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub placed: Vec<Placed>,
    /// For these it is to be asked again: a partition may have no leader for as long as it likes, and the others
    /// don't wait for it.
    pub missing: Vec<TopicPartition>,
    /// Nobody will ever say where these begin.
    pub failed: Vec<(TopicPartition, Error)>,
}

/// Finds out where to begin, for as long as that may succeed, and gives what it has once nothing more comes at once.
pub(super) async fn place(
    core: &Core,
    config: &ConsumerConfig,
    coordinator: &Coordinator,
    partitions: Vec<TopicPartition>,
    heard: Option<Term>,
) -> Result<Found, Error> {
    let mut backoff = Backoff::new(retry::seed());
    loop {
        match try_place(core, config, coordinator, &partitions, heard).await {
            Err(error) if again(&error) => {
                tracing::debug!(%error, "where to begin is not known yet");
                tokio::time::sleep(backoff.pause()).await;
            }
            Ok(found) => {
                if found.placed.is_empty() && found.failed.is_empty() {
                    tokio::time::sleep(backoff.pause()).await;
                }
                return Ok(found);
            }
            Err(error) => return Err(error),
        }
    }
}

async fn try_place(
    core: &Core,
    config: &ConsumerConfig,
    coordinator: &Coordinator,
    partitions: &[TopicPartition],
    heard: Option<Term>,
) -> Result<Found, Error> {
    let (group, wanted) = (config.group_id(), Some(partitions.to_vec()));
    let request = FetchOffsetsRequest { group, partitions: wanted, heard };
    let known = coordinator.ask(&request).await?.offsets;
    let known: BTreeMap<TopicPartition, Offset> =
        known.into_iter().map(|it| (it.partition, it.offset)).collect();
    let names = names(core, config, partitions).await;
    // Whoever is likely to answer is asked first, or those without a leader would take all the room.
    let snapshot = core.metadata.now();
    let mut partitions = partitions.to_vec();
    partitions.sort_by_key(|partition| snapshot.place(*partition).is_none());
    let place = |partition: TopicPartition| {
        let topic =
            names.iter().find(|(id, _)| *id == partition.topic).map(|(_, name)| name.clone());
        let known = known.get(&partition).copied();
        let placing = async move {
            // A topic that is gone already; its partitions are taken away in a moment.
            let Some(topic) = topic else { return Ok(None) };
            let start = match known {
                Some(offset) => offset,
                None => find(core, partition, config.when_no_offset).await?,
            };
            Ok(Some(Placed { partition, topic, start, committed: known }))
        };
        async move { (partition, placing.await) }
    };
    // What the group has come to needs no leader's word.
    let is_known = |partition: &TopicPartition| known.contains_key(partition);
    let (quick, slow): (Vec<_>, Vec<_>) = partitions.iter().copied().partition(is_known);
    let quick = stream::iter(quick).then(place);
    let slow = stream::iter(slow).map(place).buffer_unordered(PLACING_AT_ONCE);
    Ok(gather(&partitions, quick.chain(slow)).await)
}

/// Takes what comes until nothing has for a moment after the first; what has not come then is missing.
async fn gather(
    partitions: &[TopicPartition],
    placing: impl Stream<Item = (TopicPartition, Result<Option<Placed>, Error>)>,
) -> Found {
    let mut placing = pin!(placing);
    let (mut placed, mut failed) = (Vec::new(), Vec::new());
    let mut missing = BTreeSet::from_iter(partitions.iter().copied());
    loop {
        let next = match placed.is_empty() && failed.is_empty() {
            true => placing.next().await,
            false => timeout(GATHERING, placing.next()).await.unwrap_or(None),
        };
        let Some((partition, result)) = next else { break };
        match result {
            Ok(found) => {
                missing.remove(&partition);
                placed.extend(found);
            }
            Err(error) if again(&error) => {
                tracing::debug!(%error, %partition, "where to begin is not known yet");
            }
            Err(error) => {
                missing.remove(&partition);
                failed.push((partition, error));
            }
        }
    }
    Found { placed, missing: missing.into_iter().collect(), failed }
}

/// The names of the topics that partitions belong to, as far as they are among those to read.
async fn names(
    core: &Core,
    config: &ConsumerConfig,
    partitions: &[TopicPartition],
) -> Vec<(TopicId, TopicName)> {
    let mut names = Vec::new();
    for name in &config.topics {
        core.metadata.follow(name);
        if let Ok(shape) = core.topic(name, NAME_PATIENCE).await {
            names.push((shape.id, name.clone()));
        }
    }
    let is_known = |at: &TopicPartition| names.iter().any(|(id, _)| *id == at.topic);
    if !partitions.iter().all(is_known) {
        // One that was made a moment ago, under a name that stood for nothing, or for another topic.
        let seen = core.metadata.now().generation;
        // If nobody answers, what is known must do.
        let _ = core.refresh(seen, None).await;
        names.clear();
        for name in &config.topics {
            if let Some(Ok(shape)) = core.metadata.now().topic(name) {
                names.push((shape.id, name.clone()));
            }
        }
    }
    names
}

const PLACING_AT_ONCE: usize = 64;
const NAME_PATIENCE: Duration = Duration::from_secs(1);
/// Others that come within this time are told together with the first.
const GATHERING: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use futures_util::future::{Either, pending, ready};
    use highwater_protocol::ids::PartitionId;
    use uuid::Uuid;

    use super::*;
    use crate::error::ErrorKind;

    fn partition(number: u32) -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::nil()), PartitionId(number))
    }

    type Answer = (TopicPartition, Result<Option<Placed>, Error>);

    fn found(number: u32) -> Answer {
        let (partition, start) = (partition(number), Offset(7));
        (partition, Ok(Some(Placed { partition, topic: "t".into(), start, committed: None })))
    }

    /// The numbers of those that were placed, that are missing, and that failed.
    async fn gathered(answers: Vec<Option<Answer>>) -> [Vec<u32>; 3] {
        let all: Vec<_> = (0..answers.len() as u32).map(partition).collect();
        let answers = answers.into_iter().map(|answer| match answer {
            Some(answer) => Either::Left(ready(answer)),
            None => Either::Right(pending()),
        });
        let found = gather(&all, stream::iter(answers).buffer_unordered(64)).await;
        let number = |it: &TopicPartition| it.partition.0;
        let placed = found.placed.iter().map(|it| number(&it.partition)).collect();
        let failed = found.failed.iter().map(|(it, _)| number(it)).collect();
        [placed, found.missing.iter().map(number).collect(), failed]
    }

    #[tokio::test]
    async fn a_partition_that_nobody_leads_keeps_no_other_from_being_read() {
        let refused = Err(Error::new(ErrorKind::TimedOut, "it has no leader at the moment"));
        let answers = vec![None, Some(found(1)), Some((partition(2), refused)), Some(found(3))];
        assert_eq!(gathered(answers).await, [vec![1, 3], vec![0, 2], vec![]]);
    }

    #[tokio::test]
    async fn what_one_partition_will_never_say_keeps_no_other_from_being_read() {
        let refused = Err(Error::new(ErrorKind::Closed, "for good"));
        let answers = vec![Some(found(0)), Some((partition(1), refused)), None, Some(found(3))];
        assert_eq!(gathered(answers).await, [vec![0, 3], vec![2], vec![1]]);
    }

    #[tokio::test]
    async fn a_partition_of_a_topic_that_is_gone_is_not_asked_for_again() {
        let answers = vec![Some((partition(0), Ok(None))), Some(found(1))];
        assert_eq!(gathered(answers).await, [vec![1], vec![], vec![]]);
    }
}
