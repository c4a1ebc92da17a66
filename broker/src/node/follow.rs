//! From the controller's log to the image: reads what is committed, applies it, and has the shards
//! open and close what that means.
//!
//! What must hold: records are applied in order and once; the image that others see, the routes and
//! the replicas change in one go per batch of records; the saved image is never ahead of what was
//! applied. Who comes to the log behind its start takes the image that it begins with, which lies in
//! one batch, so that no half of it is ever seen. A record that cannot be read or does not fit ends the follower and the broker with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use highwater_protocol::batch::{BatchView, frames};
use highwater_protocol::ids::{Offset, TopicPartition};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::ask::Line;
use super::reconcile::{self, Changes, Owed, Sight, Standing};
use super::snapshot::{self, Snapshot};
use super::{Hosting, Inner, NodeOptions, NodeState, give_up, strays};
use crate::controller::moves::MoveId;
use crate::controller::{ClusterImage, MetadataRecord};
use crate::log::{LogReader, ReadError};
use crate::shard::event::{AfterClose, Event, OpenReplica};
use crate::shard::handle::Notice;

/// Follows the controller's log.
pub(super) struct Follower {
    node: Arc<Inner>,
    applied: Offset,
    /// The next record must begin an image: what came before is not known here.
    wants_image: bool,
    saved: Offset,
    save_not_before: Instant,
    /// Replicas that this life has had open: their files are the shards'.
    touched: BTreeSet<TopicPartition>,
    sight: Sight,
    caught_up: bool,
    strays_due: Instant,
    line: Arc<Line>,
    /// What the saved image has as taken from this broker.
    saved_drops: BTreeMap<TopicPartition, MoveId>,
    give_up_due: Instant,
    giving_up: Option<JoinHandle<()>>,
}

impl Follower {
    /// A follower that goes on from the saved image, if there is one.
    pub fn new(node: Arc<Inner>, line: Arc<Line>, saved: Option<&Snapshot>) -> Follower {
        let applied = saved.map_or(Offset(0), |saved| saved.applied);
        let me = node.options.me;
        Follower {
            node,
            applied,
            wants_image: false,
            saved: applied,
            save_not_before: Instant::now(),
            touched: BTreeSet::new(),
            sight: if saved.is_some() { Sight::Clear } else { Sight::Blind },
            caught_up: false,
            strays_due: Instant::now(),
            line,
            saved_drops: saved.map_or(BTreeMap::new(), |it| reconcile::dropped(&it.image, me)),
            give_up_due: Instant::now(),
            giving_up: None,
        }
    }

    /// Applies records as they are committed, until the node stops or a record makes no sense.
    pub async fn run(mut self) {
        let stop = self.node.stop.clone();
        loop {
            // Registered before looking, so that what is committed meanwhile is not missed.
            let route = self.node.routes.cluster();
            let changed = route.changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(reason) = route.failed() {
                self.node
                    .fail(format!("the controller's partition failed on this broker: {reason}"));
                return;
            }
            if let Some(reader) = route.reader()
                && let Err(why) = self.catch_up(&reader).await
            {
                self.node.fail(why);
                return;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = changed => {}
                () = sleep_until(self.save_not_before), if self.may_save() => {
                    self.save().await;
                }
                () = sleep_until(self.strays_due), if self.caught_up => self.tend_strays().await,
                () = sleep_until(self.give_up_due), if self.may_owe() => self.give_up(),
            }
        }
        if self.may_save() {
            self.save().await;
        }
    }

    fn may_save(&self) -> bool {
        self.applied > self.saved && self.sight.may_save()
    }

    async fn catch_up(&mut self, reader: &LogReader) -> Result<(), String> {
        let mut image = None;
        while self.applied < reader.high_watermark() {
            let start = reader.log_start();
            if self.applied < start {
                // What was before is given up, and the log begins with an image that has all of it.
                (self.applied, self.wants_image) = (start, true);
                continue;
            }
            let slices = match reader.read(self.applied, READ_BYTES) {
                Ok(slices) => slices,
                Err(ReadError::OutOfRange { start, .. }) if self.applied < start => continue,
                // It is being mended; until then this broker knows what it knew before.
                Err(error @ ReadError::Faulty(_)) => {
                    tracing::warn!(%error, "the controller's log cannot be read on");
                    tokio::select! {
                        () = self.node.stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(FAULTY_WAIT) => continue,
                    }
                }
                Err(error) => {
                    let at = self.applied;
                    return Err(format!(
                        "the controller's log cannot be read from offset {at}: {error}"
                    ));
                }
            };
            let image = image.get_or_insert_with(|| ClusterImage::clone(&self.node.image.load()));
            for slice in slices {
                self.apply(image, &slice)?;
            }
        }
        if let Some(image) = image {
            self.publish(image).await;
        }
        Ok(())
    }

    fn apply(&mut self, image: &mut ClusterImage, slice: &Bytes) -> Result<(), String> {
        let at = |applied: Offset, why: String| {
            format!("the controller's log at offset {applied}: {why}")
        };
        for (offset, record) in decode(slice).map_err(|why| at(self.applied, why))? {
            // The first batch may begin before the offset asked for.
            if offset >= self.applied {
                if std::mem::take(&mut self.wants_image) && record != MetadataRecord::BeginImage {
                    return Err(at(offset, "it starts without an image of what was before".into()));
                }
                image.apply(&record).map_err(|why| at(offset, why.to_string()))?;
                self.applied = offset.advance(1);
            }
        }
        Ok(())
    }

    /// Shows the image to everyone and has the shards follow it.
    pub async fn publish(&mut self, image: ClusterImage) {
        let old = self.node.image.load_full();
        let registered = self.is_registered(&image);
        let standing = if registered { Standing::CaughtUp } else { Standing::Behind };
        let changes = reconcile::diff(&old, &image, self.node.me());
        let mut changes = self.sight.follow(changes, &image, standing, self.node.me());
        if let Hosting::Nothing(why) = &self.node.options.hosting {
            changes = self.host_nothing(changes, why);
        }
        let saves_first = reconcile::gives_up_files(&changes);
        let Changes { gone, appeared, mut close, mut open, discard } = changes;
        if !gone.is_empty() || !appeared.is_empty() {
            self.node.routes.change(appeared, &gone);
        }
        let NodeOptions { me, directory, .. } = self.node.options;
        if old.broker(me).is_some() && image.was_removed_with(me, directory) {
            let (node, stop) = (Arc::clone(&self.node), self.node.stop.clone());
            tokio::spawn(async move {
                // Who asked this very broker for it has its answer by then.
                let stopped = tokio::time::timeout(FAREWELL, stop.cancelled()).await;
                if stopped.is_err() {
                    let why = "was taken out of the cluster (`hw cluster remove`)";
                    node.fail(format!("broker {me} {why}"));
                }
            });
        }
        self.node.image.store(Arc::new(image));
        self.node.applied.send_replace(self.applied);
        if saves_first && !self.save().await {
            // Left for the next start to remove: nothing is deleted that a saved image still has.
            for (_, after) in &mut close {
                *after = AfterClose::Keep;
            }
            // It may not go on in a group that was given up; the next start opens it anew.
            close.extend(discard.iter().map(|partition| (*partition, AfterClose::Keep)));
            open.retain(|replica| !discard.contains(&replica.partition));
        }
        for (partition, after) in close {
            tracing::info!(%partition, ?after, "closing a replica");
            self.node.shards.of(partition).control(Event::Close(partition, after)).await;
        }
        self.take_back(&open).await;
        for replica in open {
            let partition = replica.partition;
            self.touched.insert(partition);
            self.node.shards.of(partition).control(Event::Open(Box::new(replica))).await;
        }
        if registered && !self.caught_up {
            self.caught_up = true;
            self.tend_strays().await;
            self.node.state.send_replace(NodeState::Serving);
            tracing::info!(offset = %self.applied, "registered and caught up with the cluster");
        }
    }

    /// Says of every replica why it is not opened, and leaves all files as they are: what is to be deleted
    /// is found by the next life that hosts anything.
    fn host_nothing(&self, changes: Changes, why: &str) -> Changes {
        let Changes { gone, appeared, close: _, open, discard: _ } = changes;
        self.node.routes.change(appeared, &gone);
        for replica in open {
            self.node.routes.sink()(Notice::Failed(replica.partition, why.to_owned()));
        }
        Changes::default()
    }

    /// Our own registration in this life comes after everything that was decided before it.
    fn is_registered(&self, image: &ClusterImage) -> bool {
        let known = image.broker(self.node.options.me);
        known.is_some_and(|broker| broker.registration == self.node.registration())
    }

    /// Whether something may be left of what was taken from this broker.
    fn may_owe(&self) -> bool {
        self.node.options.hosting == Hosting::All && !self.saved_drops.is_empty()
    }

    /// Has the shards delete what is left of replicas that were taken, and the controller told once nothing is;
    /// again and again, until the image shows that it knows. Here, so that no shard takes what is given up for
    /// what is opened later.
    fn give_up(&mut self) {
        self.give_up_due = Instant::now() + GIVE_UP_EVERY;
        if self.giving_up.as_ref().is_some_and(|telling| !telling.is_finished()) {
            return;
        }
        let standing = if self.caught_up { Standing::CaughtUp } else { Standing::Behind };
        let (image, me) = (self.node.image.load(), self.node.me());
        let owed = reconcile::owed(&image, &self.saved_drops, standing, me);
        let mut asked = Vec::new();
        for Owed { partition, by, dir } in owed {
            if let Ok(reply) = self.node.shards.of(partition).give_up(partition, dir) {
                asked.push((partition, by, reply));
            }
        }
        if !asked.is_empty() {
            let (node, line) = (self.node.clone(), self.line.clone());
            self.giving_up = Some(tokio::spawn(async move {
                let stop = node.stop.clone();
                let telling = give_up::tell(&node, &line, asked);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = telling => {}
                }
            }));
        }
    }

    /// What was set aside of replicas that this life has not had open.
    async fn take_back(&self, open: &[OpenReplica]) {
        let fresh = open.iter().filter(|replica| !self.touched.contains(&replica.partition));
        let opening: Vec<_> = fresh.map(|it| (it.partition, it.dir.clone())).collect();
        if opening.is_empty() {
            return;
        }
        let node = self.node.clone();
        let work = move || strays::take_back(&*node.disk, &node.options.data_dir, &opening);
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::warn!(%error, "looking for what was set aside failed");
        }
    }

    async fn tend_strays(&mut self) {
        self.strays_due = Instant::now() + STRAYS_EVERY;
        // Whoever opens nothing cannot tell what is in use.
        if self.node.options.hosting != Hosting::All {
            return;
        }
        let (node, touched) = (self.node.clone(), self.touched.clone());
        let work = move || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let (image, now_s) = (node.image.load(), since.as_secs());
            let tended = strays::tend(&*node.disk, node.me(), &image, &touched, now_s);
            node.metrics.strays_set_aside.add(tended.set_aside);
            node.metrics.strays.set(tended.kept);
        };
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::warn!(%error, "looking for left-over directories failed");
        }
    }

    /// Saves the image, and says whether that was done.
    async fn save(&mut self) -> bool {
        self.save_not_before = Instant::now() + SAVE_EVERY;
        let snapshot =
            Snapshot { image: ClusterImage::clone(&self.node.image.load()), applied: self.applied };
        let node = self.node.clone();
        let drops = reconcile::dropped(&snapshot.image, node.options.me);
        let work = move || snapshot::save(&*node.disk, &node.options.data_dir, &snapshot);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => {
                self.saved = self.applied;
                if drops != self.saved_drops {
                    (self.saved_drops, self.give_up_due) = (drops, Instant::now());
                }
                return true;
            }
            // Only the next start gets slower.
            Ok(Err(error)) => tracing::warn!(%error, "the image could not be saved"),
            Err(error) => tracing::warn!(%error, "saving the image was cut short"),
        }
        false
    }
}

/// The records in a run of batches, with their offsets.
fn decode(slice: &[u8]) -> Result<Vec<(Offset, MetadataRecord)>, String> {
    let mut decoded = Vec::new();
    for frame in frames(slice) {
        let (_, bytes) = frame.map_err(|error| error.to_string())?;
        let batch = BatchView::parse(bytes).map_err(|error| error.to_string())?;
        for record in batch.records().map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let value = record.value.ok_or("a metadata record without a value")?;
            let metadata = MetadataRecord::decode(value).map_err(|error| error.to_string())?;
            decoded.push((record.offset, metadata));
        }
    }
    Ok(decoded)
}

/// Bytes of the log read at once.
const READ_BYTES: u32 = 1024 * 1024;
/// How long a look at a log that is being mended waits for the next.
const FAULTY_WAIT: Duration = Duration::from_millis(200);
/// The least time between two saves of the image.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked for what was taken from this broker and may be left.
const GIVE_UP_EVERY: Duration = Duration::from_secs(1);
/// What waits for its day to pass may wait an hour longer.
const STRAYS_EVERY: Duration = Duration::from_secs(3_600);
/// A broker that reads of its removal stays as long.
const FAREWELL: Duration = Duration::from_secs(1);
