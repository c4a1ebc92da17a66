//! Where to begin in partitions that were assigned: where the group has come to, else where the
//! configuration says.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use highwater_protocol::ids::{Offset, Term, TopicId, TopicPartition};
use highwater_protocol::native::fetch::{ListOffsetsRequest, OffsetAt};
use highwater_protocol::native::groups::FetchOffsetsRequest;

use super::ConsumerConfig;
use super::coordinator::Coordinator;
use crate::client::{Core, again};
use crate::error::Error;
use crate::reader::StartAt;
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

/// Finds out where to begin, for as long as that may succeed.
pub(super) async fn place(
    core: &Core,
    config: &ConsumerConfig,
    coordinator: &Coordinator,
    partitions: Vec<TopicPartition>,
    heard: Option<Term>,
) -> Result<Vec<Placed>, Error> {
    let mut backoff = Backoff::new(retry::seed());
    loop {
        match try_place(core, config, coordinator, &partitions, heard).await {
            Err(error) if again(&error) => {
                tracing::debug!(%error, "where to begin is not known yet");
                tokio::time::sleep(backoff.pause()).await;
            }
            result => return result,
        }
    }
}

async fn try_place(
    core: &Core,
    config: &ConsumerConfig,
    coordinator: &Coordinator,
    partitions: &[TopicPartition],
    heard: Option<Term>,
) -> Result<Vec<Placed>, Error> {
    let (group, wanted) = (config.group_id(), Some(partitions.to_vec()));
    let request = FetchOffsetsRequest { group, partitions: wanted, heard };
    let known = coordinator.ask(&request).await?.offsets;
    let names = names(core, config, partitions).await;
    let place = |partition: TopicPartition| {
        let topic =
            names.iter().find(|(id, _)| *id == partition.topic).map(|(_, name)| name.clone());
        let known = known.iter().find(|it| it.partition == partition).map(|it| it.offset);
        async move {
            // A topic that is gone already; its partitions are taken away in a moment.
            let Some(topic) = topic else { return Ok(None) };
            let start = match known {
                Some(offset) => offset,
                None => find(core, partition, config.when_no_offset).await?,
            };
            Ok::<_, Error>(Some(Placed { partition, topic, start, committed: known }))
        }
    };
    let placing = stream::iter(partitions.iter().copied()).map(place).buffered(PLACING_AT_ONCE);
    let placed: Vec<Option<Placed>> = placing.try_collect().await?;
    Ok(placed.into_iter().flatten().collect())
}

/// The offset that a place means.
pub(super) async fn find(
    core: &Core,
    partition: TopicPartition,
    start: StartAt,
) -> Result<Offset, Error> {
    let at = match start {
        StartAt::Offset(offset) => return Ok(offset),
        StartAt::Start => OffsetAt::Start,
        StartAt::End => OffsetAt::End,
        StartAt::Time(time) => OffsetAt::Time(time),
    };
    Ok(core.on_leader(partition, &ListOffsetsRequest { partition, at }).await?.offset)
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
