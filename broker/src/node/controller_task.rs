//! The controller at work: runs `Controller` while this broker leads the controller's partition.
//!
//! What must hold: a command is decided only when everything in the leader's own log is applied, so
//! nothing that may still be committed is overlooked, whoever wrote it and whatever became of the
//! answer. One batch of records is under way at a time; whoever asked is answered once the records
//! are committed and applied here. While another broker leads, every command is refused by naming it.

mod voters;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Offset, Term, TopicPartition};
use highwater_protocol::native::admin::DescribePartitionResponse;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use super::Inner;
use super::ask::Ask;
use super::own_log::{self, AppendError, COMMIT_MAX, OwnLog, in_doubt};
use crate::controller::liveness::Heard;
use crate::controller::{ClusterImage, CommandReply, Controller, MetadataRecord};
use crate::raft::Millis;
use crate::shard::event::{AdminReply, ReplicaCommand};

/// Answers commands until the node stops.
pub(super) async fn run(node: Arc<Inner>, mut asked: mpsc::Receiver<Ask>) {
    loop {
        let changed = node.routes.controller_changed().notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Some(term) = own_log::led_in(&node, TopicPartition::CLUSTER) {
            tracing::info!(%term, "this broker leads the controller");
            Leading::new(node.clone(), term).run(&mut asked).await;
            tracing::info!(%term, "this broker no longer leads the controller");
            if node.stop.is_cancelled() {
                return;
            }
            continue;
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = changed => {}
            ask = asked.recv() => match ask {
                Some(ask) => answer(ask, Err(not_controller(&node))),
                None => return,
            },
        }
    }
}

/// One term of leading the controller.
struct Leading {
    node: Arc<Inner>,
    log: OwnLog,
    controller: Controller,
    waiting: VecDeque<Ask>,
}

/// Somebody who is answered once the records of a batch are applied.
type Promise = (Ask, Result<CommandReply, WireError>);

impl Leading {
    fn new(node: Arc<Inner>, term: Term) -> Leading {
        let options = &node.options;
        let controller =
            Controller::new(options.me, &options.controllers, options.session_ms, now(&node));
        let log = OwnLog::new(node.clone(), TopicPartition::CLUSTER, term);
        Leading { node, log, controller, waiting: VecDeque::new() }
    }

    async fn run(&mut self, asked: &mut mpsc::Receiver<Ask>) {
        let node = self.node.clone();
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changed = node.routes.controller_changed().notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if !self.log.is_led() {
                break;
            }
            tokio::select! {
                () = node.stop.cancelled() => break,
                () = changed => {}
                _ = look.tick() => self.look_around().await,
                ask = asked.recv() => match ask {
                    Some(ask) => {
                        self.waiting.push_back(ask);
                        while let Ok(ask) = asked.try_recv() {
                            self.waiting.push_back(ask);
                        }
                        self.decide_all().await;
                    }
                    None => break,
                },
            }
        }
        for ask in self.waiting.drain(..) {
            answer(ask, Err(not_controller(&self.node)));
        }
    }

    async fn decide_all(&mut self) {
        while !self.waiting.is_empty() {
            if let Err(error) = self.all_applied().await {
                self.waiting.drain(..).for_each(|ask| answer(ask, Err(error.clone())));
                return;
            }
            self.know_voters().await;
            let (records, promises) = self.decide_some();
            let outcome = match records.is_empty() {
                true => Ok(()),
                false => self.commit(records).await.map(|_| ()),
            };
            for (ask, reply) in promises {
                let result = match &outcome {
                    Ok(()) => self.lead_voters(reply).await,
                    Err(error) => Err(error.clone()),
                };
                answer(ask, result);
            }
        }
    }

    /// Decides as many of those waiting as fit into one batch, each on the image that the ones
    /// before it will have made.
    fn decide_some(&mut self) -> (Vec<Bytes>, Vec<Promise>) {
        let mut image = ClusterImage::clone(&self.node.image.load());
        let (mut records, mut promises, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(ask) = self.waiting.pop_front()
        {
            let decided = self.controller.decide(&image, ask.command.clone(), now(&self.node));
            let reply = decided.map(|(decided, reply)| {
                for record in decided {
                    image.apply(&record).expect("a decision fits the image that it was made on");
                    let encoded = record.encode();
                    bytes += encoded.len();
                    records.push(encoded);
                }
                voters::expect(&reply, &mut image);
                reply
            });
            promises.push((ask, reply));
        }
        (records, promises)
    }

    /// Waits until everything in our own log is applied.
    async fn all_applied(&self) -> Result<(), WireError> {
        let reader = self.node.routes.cluster().reader();
        let reader = reader.ok_or_else(|| not_controller(&self.node))?;
        self.applied_up_to(reader.log_end()).await
    }

    async fn applied_up_to(&self, end: Offset) -> Result<(), WireError> {
        let mut applied = self.node.applied.subscribe();
        let deadline = Instant::now() + COMMIT_MAX;
        let reached = timeout_at(deadline, applied.wait_for(|applied| *applied >= end)).await;
        match reached {
            Ok(Ok(_)) if self.log.is_led() => Ok(()),
            Ok(Ok(_) | Err(_)) => Err(not_controller(&self.node)),
            Err(_) => {
                let why = "the controller's earlier changes wait for a majority of its brokers; nothing was changed";
                Err(WireError::new(ErrorCode::NotController, why))
            }
        }
    }

    /// Appends records to the controller's log and waits until they are committed and applied; says
    /// at which offset they begin.
    async fn commit(&self, records: Vec<Bytes>) -> Result<Offset, WireError> {
        match self.log.append(&records).await {
            Ok(base) => {
                // Committed in our term, so that leading or not does not matter any more.
                let end = base.advance(records.len() as u64);
                let mut applied = self.node.applied.subscribe();
                let done = applied.wait_for(|applied| *applied >= end);
                let deadline = Instant::now() + COMMIT_MAX;
                match timeout_at(deadline, done).await {
                    Ok(Ok(_)) => Ok(base),
                    Ok(Err(_)) | Err(_) => {
                        Err(in_doubt("it is committed but not applied here yet"))
                    }
                }
            }
            // Nothing was written, and no other broker can help: people must know why.
            Err(AppendError::NotWritten(error)) if error.code == ErrorCode::DiskFull => Err(error),
            Err(AppendError::NotWritten(error)) if error.code == ErrorCode::Overloaded => {
                Err(error)
            }
            Err(AppendError::NotWritten(error)) => {
                Err(WireError::new(ErrorCode::NotController, error.detail))
            }
            Err(AppendError::InDoubt(why)) => Err(in_doubt(&why)),
        }
    }

    /// Looks who was heard, fences and takes back, and sees that every broker gets the log.
    async fn look_around(&mut self) {
        let Some(seen) = self.describe().await else { return };
        // An older image may lack brokers that learn already.
        if self.all_applied().await.is_err() {
            return;
        }
        self.feed_learners(&seen).await;
        self.note_voters(&seen).await;
        let heard: Vec<Heard> = seen
            .replicas
            .iter()
            .map(|replica| Heard { node: replica.node, ago_ms: replica.heard_ms })
            .collect();
        let records = self.controller.judge(&self.node.image.load(), &heard, now(&self.node));
        if records.is_empty() {
            self.begin_log_anew(&seen).await;
            return;
        }
        for record in &records {
            if let MetadataRecord::FenceBroker { node, fenced } = record {
                tracing::warn!(broker = %node, fenced, "a broker's session changed");
            }
        }
        let encoded = records.iter().map(MetadataRecord::encode).collect();
        if let Err(error) = self.commit(encoded).await {
            // The next look finds the same.
            tracing::warn!(%error, "fencing was not committed");
        }
    }

    /// Writes the whole image into a log that has grown long, in one batch, then gives up what is
    /// before it. Everything in our log is applied and nothing is under way, so the image is what the
    /// log says up to that batch. A crash in between leaves a longer log, which is as good.
    async fn begin_log_anew(&self, seen: &DescribePartitionResponse) {
        let image = self.node.image.load_full();
        let held = seen.high_watermark.since(seen.log_start);
        // Counted before they are made: this is asked twice a second, and nearly always in vain.
        if held <= image.records() + 1 + self.node.options.log_records_max {
            return;
        }
        let records = std::iter::once(MetadataRecord::BeginImage).chain(image.to_records());
        let records: Vec<Bytes> = records.map(|record| record.encode()).collect();
        let bytes: usize = records.iter().map(Bytes::len).sum();
        if bytes > IMAGE_BYTES_MAX {
            tracing::warn!(bytes, "the image is too large for a batch: the controller's log grows");
            return;
        }
        let begun = match self.commit(records).await {
            Ok(base) => self.log.command(ReplicaCommand::TrimBefore(base)).await.map(|_| base),
            Err(error) => Err(error),
        };
        match begun {
            Ok(base) => {
                tracing::info!(%base, held, "the controller's log begins with an image now")
            }
            // The next look tries again.
            Err(error) => tracing::warn!(%error, "the controller's log could not be begun anew"),
        }
    }

    async fn describe(&self) -> Option<DescribePartitionResponse> {
        match self.log.command(ReplicaCommand::Describe).await {
            Ok(AdminReply::Description(description)) => Some(description),
            Ok(
                AdminReply::Done(_)
                | AdminReply::Trimmed(_)
                | AdminReply::Inspection(_)
                | AdminReply::Unreadable(_),
            ) => None,
            Err(error) => {
                tracing::debug!(%error, "the controller's replicas cannot be described");
                None
            }
        }
    }
}

fn answer(ask: Ask, result: Result<CommandReply, WireError>) {
    // Whoever asked may have given up meanwhile.
    let _ = ask.reply.send(result);
}

fn now(node: &Inner) -> Millis {
    node.shards.of(TopicPartition::CLUSTER).clock().now()
}

fn not_controller(node: &Inner) -> WireError {
    let why = match node.routes.cluster().leader().leader {
        Some(leader) if leader == node.options.me => {
            "the controller's leader is just starting".to_string()
        }
        Some(leader) => {
            format!("broker {leader} leads the controller, not broker {}", node.options.me)
        }
        None => format!("broker {} knows no leader of the controller", node.options.me),
    };
    WireError::new(ErrorCode::NotController, why)
}

/// Bytes of records after which a batch is closed; what one command decides may go beyond.
const BATCH_BYTES: usize = 512 * 1024;
/// The largest image that is written into the log: half of what a frame may have.
const IMAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
const LOOK_EVERY: Duration = Duration::from_millis(500);
