//! Partitions in trouble, and asking for metadata on their behalf: somebody else may lead them by now.

use std::time::{Duration, Instant};

use highwater_protocol::ids::NodeId;

use super::{Event, PROBE_AFTER, Sender};
use crate::retry::Backoff;

/// When to ask for metadata, and whether somebody is asking.
pub(super) struct Refresh {
    pub(super) under_way: bool,
    pub(super) not_before: Option<Instant>,
    /// Since when there has been a partition in trouble.
    pub(super) since: Option<Instant>,
    /// The broker that does not answer, and so is asked last.
    pub(super) avoid: Option<NodeId>,
    pub(super) backoff: Backoff,
}

impl Sender {
    /// Notes whether better metadata might help this partition.
    pub(super) fn note_trouble(&mut self, index: usize, now: Instant, leaderless: bool) {
        let partition = &self.partitions[index];
        let oldest = partition.pipeline.oldest_attempt();
        // No answer for long: others may know of a new leader before this one is known to be dead.
        let stalled = oldest.filter(|(sent, _)| *sent + PROBE_AFTER <= now);
        if let Some((_, node)) = stalled {
            self.refresh.avoid = Some(node);
        }
        let waits = leaderless && !partition.pipeline.is_empty();
        if waits || stalled.is_some() || partition.pipeline.in_trouble() {
            self.troubled.insert(index);
        } else {
            self.troubled.remove(&index);
        }
    }

    /// When metadata should be asked for next.
    pub(super) fn next_refresh(&self) -> Option<Instant> {
        let wanted = !self.troubled.is_empty() && !self.refresh.under_way;
        self.refresh.not_before.filter(|_| wanted)
    }

    /// Asks for metadata while a partition is in trouble: one asker at a time, often while an
    /// election may be going on, then ever more rarely.
    pub(super) fn ask_for_metadata(&mut self) {
        let (now, refresh) = (Instant::now(), &mut self.refresh);
        if self.troubled.is_empty() {
            (refresh.since, refresh.avoid) = (None, None);
            return refresh.backoff.reset();
        }
        if refresh.under_way || refresh.not_before.is_some_and(|time| now < time) {
            return;
        }
        let since = *refresh.since.get_or_insert(now);
        let lasts = now.duration_since(since);
        let pause = match lasts < ELECTION_ABOUT {
            true => lasts.clamp(HANDOVER_PAUSE, ELECTION_PAUSE),
            false => refresh.backoff.pause(),
        };
        refresh.not_before = Some(now + pause);
        refresh.under_way = true;
        let avoid = refresh.avoid.take();
        let (core, answers) = (self.core.clone(), self.answers.clone());
        tokio::spawn(async move {
            let seen = core.metadata.now().generation;
            // What it found is in the cache; if it found nothing, the sender asks again.
            let _ = core.refresh(seen, avoid).await;
            let _ = answers.send(Event::Refreshed);
        });
    }
}

/// An election takes about this long; meanwhile metadata is asked for often.
const ELECTION_ABOUT: Duration = Duration::from_secs(3);
const ELECTION_PAUSE: Duration = Duration::from_millis(40);
/// A leader that goes on purpose has a successor within some milliseconds.
const HANDOVER_PAUSE: Duration = Duration::from_millis(5);
