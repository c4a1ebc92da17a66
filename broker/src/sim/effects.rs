//! Carrying out what a shard wants: the simulator's half of what threads, sockets and flushers do in a
//! broker.

use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::error::WireError;
use highwater_protocol::ids::{Incarnation, NodeId, RecoveryEpoch, TopicPartition};
use highwater_protocol::native::produce::{AckMode, Receipt};
use highwater_protocol::peer::{GroupMessage, PeerBody, PeerFrame, RaftMessage};

use crate::disk::File;
use crate::replica::Replica;
use crate::shard::event::{AfterClose, Effect, FlushTicket, RequestId};
use crate::sim::checker::{Broken, Checked};
use crate::sim::cluster::{Cluster, Early, Happening, dir_of, flush_each};
use crate::sim::node::node_number;
use crate::sim::promises::Promise;

impl Cluster {
    pub(super) fn carry_out(&mut self, node: usize, effects: Vec<Effect>) -> Checked {
        let survives = self.nodes[node].dies_after_effects.take();
        let carried_out = survives.unwrap_or(usize::MAX);
        let closed = |effect: &Effect| {
            if let Effect::Closed(partition, _) = effect { Some(*partition) } else { None }
        };
        let mut closes: Vec<TopicPartition> = effects.iter().filter_map(closed).collect();
        closes.reverse();
        for effect in effects.into_iter().take(carried_out) {
            if closed(&effect).is_some() {
                closes.pop();
            }
            if let Effect::Produced(id, Ok(_)) = &effect
                && self.is_lost_ack(node, *id, &closes)
            {
                let Effect::Produced(id, result) = effect else { unreachable!("looked just now") };
                self.reply(id, result);
                continue;
            }
            self.carry_out_one(node, effect)?;
            if !self.nodes[node].is_up() {
                // Its power failed amid what it copied beside the shard.
                return Ok(());
            }
        }
        if survives.is_some() {
            self.trace.note(self.now_us, format_args!("broker {node} dies amid its effects"));
            return self.kill(node);
        }
        Ok(())
    }

    /// Which replicas came and went in a pass: to be known before anything of it is judged.
    pub(super) fn note_services(&mut self, node: usize, effects: &[Effect]) {
        let broker = &mut self.nodes[node];
        broker.closed.clear();
        for effect in effects {
            if let Effect::Closed(partition, _) = effect {
                broker.closed.insert(*partition);
            }
            match effect {
                Effect::Closed(partition, AfterClose::Delete) => {
                    self.checker.deleted(broker.id, *partition);
                }
                Effect::Closed(partition, AfterClose::Keep) => {
                    self.checker.closed(broker.id, *partition);
                }
                Effect::Opened(partition, _) => {
                    broker.failed.remove(partition);
                }
                Effect::Rebuilding(partition) => {
                    self.checker.rebuilt(broker.id, *partition);
                    broker.short.insert(*partition);
                    self.coverage.rebuilt_replicas += 1;
                }
                Effect::Send { .. }
                | Effect::Flush(..)
                | Effect::Mend(..)
                | Effect::Repaired(..)
                | Effect::Produced(..)
                | Effect::Answered(..)
                | Effect::Committed(_)
                | Effect::Leadership(_)
                // What it said earlier in the pass still leaves, and has to be true.
                | Effect::Failed(..) => {}
            }
        }
    }

    fn carry_out_one(&mut self, node: usize, effect: Effect) -> Checked {
        match effect {
            Effect::Send { to, lane: _, incarnation, messages } => {
                return self.send(node, to, incarnation, messages);
            }
            Effect::Flush(ticket, files) => self.flush(node, ticket, files),
            Effect::Produced(id, result) => return self.produced(node, id, result),
            Effect::Answered(id, result) => {
                self.coverage.commands += u64::from(result.is_ok());
                self.voters_answered(id, result.is_ok());
                self.giving_up_answered(id, result.is_ok());
                self.repair_answered(node, id, &result);
            }
            Effect::Mend(partition, mend) => {
                let broker = &self.nodes[node];
                let life = broker.life;
                let slow = if broker.slow_until_us > self.now_us { SLOWER } else { 1 };
                let at_us = self.now_us + 20 + self.rng.long_tailed(MEND_US_MEAN * slow);
                let mended = Box::new(mend.run());
                self.schedule(at_us, Happening::Mended { node, life, partition, mended });
                return self.bury_if_dead(node);
            }
            Effect::Repaired(partition, batches) => {
                let what = format_args!("broker {node}: {batches} batches of {partition} mended");
                self.trace.note(self.now_us, what);
                self.coverage.repaired += batches;
            }
            Effect::Opened(partition, reader) => {
                self.nodes[node].failed.remove(&partition);
                self.nodes[node].readers.insert(partition, reader);
            }
            Effect::Rebuilding(partition) => {
                self.trace.note(self.now_us, format_args!("broker {node} makes {partition} anew"));
            }
            Effect::Closed(partition, after) => {
                self.nodes[node].readers.remove(&partition);
                return self.replica_closed(node, partition, after);
            }
            Effect::Committed(_) => {}
            Effect::Leadership(news) => {
                let what = (news.partition.partition, news.term, news.leader);
                self.trace.note(self.now_us, format_args!("broker {node}: leadership {what:?}"));
                self.nodes[node].leaderships.insert(news.partition, news);
            }
            Effect::Failed(partition, reason) => {
                self.trace
                    .note(self.now_us, format_args!("broker {node}: {partition} failed: {reason}"));
                return self.replica_failed(node, partition, reason);
            }
        }
        Ok(())
    }

    fn send(
        &mut self,
        node: usize,
        to: NodeId,
        incarnation: Option<Incarnation>,
        messages: Vec<GroupMessage>,
    ) -> Checked {
        let broker = &self.nodes[node];
        let shard = broker.shard.as_ref().expect("it just acted");
        for GroupMessage { group, epoch, message } in &messages {
            if !self.checker.is_judged(*group, *epoch) {
                continue;
            }
            let replica = shard.replica(*group);
            // A vote may be that of a replica that was closed in the same pass, before this one was opened.
            let speaks = !broker.closed.contains(group);
            let suspect = replica.is_some_and(|replica| replica.raft().is_suspect() && speaks);
            self.checker.sent(broker.id, to, *group, message, suspect)?;
            if let (RaftMessage::Append(append), Some(rate)) =
                (message, self.swarm.learner_bytes_per_s)
            {
                let stint = (broker.id, broker.life, *group, append.term, to);
                let bytes = append.entries.iter().map(Bytes::len).sum();
                let learns = |replica: &Replica| replica.raft().voter_set().learners.contains(&to);
                match replica.is_some_and(learns) {
                    true => self.throttled.sent(stint, broker.pass_at, rate, bytes)?,
                    false => self.throttled.free(stint),
                }
            }
        }
        self.coverage.messages += messages.len() as u64;
        let frame = PeerFrame {
            from: broker.incarnation(),
            to: incarnation,
            body: PeerBody::Raft(messages),
        };
        let (frame, to) = (Bytes::from(frame.encode_chunks().concat()), node_number(to));
        for at_us in self.network.send(self.now_us, node, to) {
            self.schedule(at_us, Happening::Deliver { from: node, to, frame: frame.clone() });
        }
        Ok(())
    }

    fn flush(&mut self, node: usize, ticket: FlushTicket, files: Vec<Arc<dyn File>>) {
        self.coverage.flushes += 1;
        let broker = &self.nodes[node];
        let life = broker.life;
        let slow = if broker.slow_until_us > self.now_us { SLOWER } else { 1 };
        let takes_us = self.rng.long_tailed(self.swarm.flush_us_mean * slow).min(FLUSH_US_MAX);
        let at_us = self.now_us + 20 + takes_us;
        // A flush may reach the device long before it is answered, or only just then.
        let hangs = self.nodes[node].stuck_until_us > self.now_us;
        let early = match self.rng.per_mille(500) && !hangs {
            true => Early::Done(flush_each(&files)),
            false => Early::Pending,
        };
        self.schedule(at_us, Happening::FlushDone { node, life, ticket, files, early });
    }

    /// Whether a receipt comes from a group that was given up; then it is excused. One given in the
    /// pass in which the replica was closed may do so.
    fn is_lost_ack(&mut self, node: usize, id: RequestId, closes: &[TopicPartition]) -> bool {
        let Some(asked) = self.unanswered.get(&id.0) else { return false };
        let partition = self.partitions[asked.partition];
        let closed_since =
            closes.contains(&partition) && self.checker.epoch(partition) > RecoveryEpoch::default();
        let old = closed_since || self.is_of_the_old(node, partition);
        if old {
            let asked = self.unanswered.remove(&id.0).expect("looked just now");
            self.checker.excuse(partition, &asked.values);
        }
        old
    }

    fn reply(&mut self, id: RequestId, result: Result<Receipt, WireError>) {
        let at_us = self.now_us + 50 + self.rng.long_tailed(300);
        self.schedule(at_us, Happening::Reply { request: id.0, result });
    }

    fn produced(
        &mut self,
        node: usize,
        id: RequestId,
        result: Result<Receipt, WireError>,
    ) -> Checked {
        let Some(asked) = self.unanswered.remove(&id.0) else {
            return Err(Broken {
                invariant: "a request is answered once",
                detail: format!("request {} was answered again: {result:?}", id.0),
            });
        };
        let partition = self.partitions[asked.partition];
        if let Err(WireError { end: Some(end), .. }) = &result {
            self.checker.ends_elsewhere(partition, self.nodes[node].id, *end)?;
        }
        if let Ok(receipt) = &result {
            let leader = self.nodes[node].id;
            let now = self.nodes[node].pass_at;
            let shard = self.nodes[node].shard.as_ref().expect("it just answered");
            // What was answered in the pass that closed it was async, and promises nothing of others.
            let replica = shard.replica(partition);
            let in_sync: Vec<NodeId> =
                replica.map_or(Vec::new(), |replica| replica.raft().in_sync(now).collect());
            let (acks, expected_end) = (asked.acks, asked.expected_end);
            let promise = Promise { leader, acks, in_sync: &in_sync, expected_end };
            self.checker.acked(partition, promise, receipt, &asked.values)?;
            match asked.acks {
                AckMode::Async => {}
                AckMode::SemiSync | AckMode::Sync => {
                    self.checker.vouch(partition, receipt.base_offset, &asked.values);
                }
            }
            self.coverage.acked[asked.partition] += 1;
        }
        self.reply(id, result);
        Ok(())
    }

    /// A replica out of service comes back when its broker restarts; what its flush did not reach is gone.
    /// The others of its broker go on, also those whose files were flushed beside its own.
    fn replica_failed(
        &mut self,
        node: usize,
        partition: TopicPartition,
        reason: String,
    ) -> Checked {
        self.coverage.failed_replicas += 1;
        let known = self.partitions.iter().position(|known| *known == partition);
        let number = known.expect("a shard hosts what it was told to host");
        let broker = &mut self.nodes[node];
        // What rotted takes with it who votes, and an old image names nobody else: it waits for news, and is filled then.
        let unheard = broker.rotten.contains(&partition)
            && self.checker.voters(partition).iter().any(|voter| *voter != broker.id);
        if !unheard && !broker.disk.has_failed_in(&dir_of(number)) {
            return Err(Broken {
                invariant: "a replica fails only when its own files do",
                detail: format!("broker {node}, {partition}: {reason}"),
            });
        }
        broker.failed.insert(partition);
        self.coverage.spared_replicas += (self.partitions.len() - broker.failed.len()) as u64;
        Ok(())
    }
}

/// How long the copying of a segment takes.
const MEND_US_MEAN: u64 = 5_000;
/// How much longer a flush takes on a slow disk.
const SLOWER: u64 = 200;
/// The longest flush; longer ones belong to a disk that is gone.
const FLUSH_US_MAX: u64 = 5_000_000;
