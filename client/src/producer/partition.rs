//! One partition's batches under way: a state machine without clock, socket or task.
//!
//! What must hold, whatever is lost, refused or moved:
//! * batches leave in order, each with the sequence that follows the one before;
//! * at most `in_flight_max` (five) batches lie between the oldest unsettled one and the newest,
//!   because brokers recognise repeats among a producer's last five batches;
//! * after a failure nothing is sent until nothing is under way; then everything unsettled goes
//!   out again in order, with the same sequences, so that a broker that has a batch already answers
//!   with the first receipt;
//! * a conditional batch is under way alone: what it expects does not hang on others that may fail, and
//!   none has to go out again when it is refused;
//! * sequences start over, in a new epoch, only when no batch that may have been written would be
//!   written again: batches in doubt then fail with outcome unknown.
//!
//! The driver calls `leader`, `expire`, `answered`, then sends what `next` gives out.

mod slot;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_protocol::batch::{Compression, ProducerStamp};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{NodeId, Offset, ProducerEpoch, ProducerId, Term};
use highwater_protocol::native::produce::{AckMode, Receipt};

use super::accumulator::Batch;
use super::delivery::Completion;
use crate::error::{Error, ErrorKind, Outcome, outcome_of};
use crate::retry::Backoff;
use slot::{Progress, Slot};

/// Who leads a partition, as far as metadata knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: NodeId,
    pub(crate) term: Term,
}

/// One way of a batch to a leader; its answer names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempt(u64);

/// A batch on its way out.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) attempt: Attempt,
    pub(crate) bytes: Bytes,
    pub(crate) acks: AckMode,
    /// How long the broker may take.
    pub(crate) patience: Duration,
    /// Written only if the partition ends here.
    pub(crate) expected_end: Option<Offset>,
}

/// What a leader, or the way to it, answered.
#[derive(Debug)]
pub(crate) enum Answered {
    Written(Receipt),
    Refused(WireError),
    /// No answer: it may or may not have arrived.
    Lost(Error),
}

/// A batch and what became of it.
pub(crate) type Settled = (Batch, Result<Receipt, Error>);

/// The batches of one partition from first attempt to final answer.
pub(crate) struct Pipeline {
    /// `topic/partition`, for error messages.
    name: String,
    options: Options,
    producer: ProducerId,
    epoch: ProducerEpoch,
    next_sequence: u32,
    next_attempt: u64,
    /// What batches are packed with that are sent for the first time.
    codec: Compression,
    window: VecDeque<Slot>,
    /// After a failure: nothing is sent until nothing is under way.
    draining: bool,
    /// Sequences must start over once nothing is under way.
    restart: bool,
    not_before: Option<Instant>,
    known: Option<Leader>,
    backoff: Backoff,
}

/// What a pipeline must know of the producer's configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) in_flight_max: usize,
    /// After this long an attempt counts as lost, though its connection may live.
    pub(crate) attempt_max: Duration,
}

/// What a refusal asks for.
enum Verdict {
    Retry,
    SequenceLost,
    Final,
}

impl Pipeline {
    pub(crate) fn new(name: String, producer: ProducerId, seed: u64, options: Options) -> Pipeline {
        assert!((1..=IN_FLIGHT_MAX).contains(&options.in_flight_max), "brokers remember five");
        Pipeline {
            name,
            options,
            producer,
            epoch: ProducerEpoch(0),
            next_sequence: 0,
            next_attempt: 0,
            codec: Compression::None,
            window: VecDeque::new(),
            draining: false,
            restart: false,
            not_before: None,
            known: None,
            backoff: Backoff::new(seed),
        }
    }

    /// Whether another batch may be pushed.
    pub(crate) fn has_room(&self) -> bool {
        self.window.len() < self.options.in_flight_max
    }

    /// From now on batches that are sent for the first time are packed so.
    pub(crate) fn pack_with(&mut self, codec: Compression) {
        self.codec = codec;
    }

    /// Whether no batch is under way or waiting.
    pub(crate) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Whether something has failed that is not made good yet.
    pub(crate) fn in_trouble(&self) -> bool {
        self.draining || self.not_before.is_some()
    }

    /// The batches not settled yet.
    pub(crate) fn completions(&self) -> impl Iterator<Item = Arc<Completion>> {
        self.window.iter().filter_map(|slot| slot.batch.as_ref()).map(|b| b.completion.clone())
    }

    /// Takes the next batch, which gets the next sequence.
    pub(crate) fn push(&mut self, batch: Batch) {
        assert!(self.has_room(), "a batch more than brokers remember");
        let sequence = self.take_sequence(batch.records());
        self.window.push_back(Slot {
            sequence,
            progress: Progress::Waiting,
            in_doubt: false,
            barred: false,
            last_error: None,
            batch: Some(batch),
        });
    }

    /// Metadata's word on the leader. Batches under way to an older term are given up as lost,
    /// because only the new leader's answer counts; it recognises what it has already.
    pub(crate) fn leader(&mut self, leader: Leader, out: &mut Vec<Settled>) {
        if self.known.replace(leader) != Some(leader) {
            // Whoever failed us before, this one has not.
            self.not_before = None;
        }
        let mut moved = false;
        for slot in &mut self.window {
            if let Progress::InFlight { to, .. } = slot.progress
                && to.term < leader.term
            {
                slot.give_up(Error::with_outcome(
                    ErrorKind::ConnectionLost,
                    Outcome::Unknown,
                    format!("the leader of {} moved to node {}", self.name, leader.node),
                ));
                moved = true;
            }
        }
        if moved {
            self.draining = true;
            self.when_drained(out);
        }
    }

    /// The leader cannot be reached: not again before a pause.
    pub(crate) fn hold(&mut self, now: Instant, error: &Error) {
        self.not_before = Some(now + self.backoff.pause());
        for slot in &mut self.window {
            if slot.batch.is_some() && slot.progress == Progress::Waiting {
                slot.last_error = Some(error.clone());
            }
        }
    }

    /// Whether `next` would give out a batch.
    pub(crate) fn wants_to_send(&self, now: Instant) -> bool {
        let held = self.not_before.is_some_and(|time| now < time);
        let next = self.window.iter().find(|slot| slot.is_waiting());
        !self.draining && !held && next.is_some_and(|next| self.may_join(next))
    }

    /// Whether a batch may go out beside those under way.
    fn may_join(&self, next: &Slot) -> bool {
        let mut under_way = self.window.iter().filter(|slot| slot.is_in_flight());
        match next.expected_end() {
            Some(_) => under_way.next().is_none(),
            None => under_way.all(|slot| slot.expected_end().is_none()),
        }
    }

    /// The next batch to send to `leader`, in order.
    pub(crate) fn next(&mut self, now: Instant, leader: Leader) -> Option<Outgoing> {
        if !self.wants_to_send(now) {
            return None;
        }
        self.not_before = None;
        let (producer, epoch) = (self.producer, self.epoch);
        let attempt = Attempt(self.next_attempt);
        self.next_attempt += 1;
        let slot = self.window.iter_mut().find(|slot| slot.is_waiting())?;
        slot.progress = Progress::InFlight { attempt, waits_since: now, to: leader };
        let sequence = slot.sequence;
        let batch = slot.batch.as_mut().expect("a waiting batch is not settled");
        let stamp = ProducerStamp { id: producer, epoch, base_sequence: sequence };
        let patience = batch.deadline.saturating_duration_since(now);
        let patience = patience.min(self.options.attempt_max);
        Some(Outgoing {
            attempt,
            bytes: batch.stamped(stamp, self.codec),
            acks: batch.acks,
            patience,
            expected_end: batch.expected_end,
        })
    }

    /// The answer to an attempt; late answers to attempts given up are ignored.
    pub(crate) fn answered(
        &mut self,
        attempt: Attempt,
        answer: Answered,
        now: Instant,
        out: &mut Vec<Settled>,
    ) {
        let Some(index) = self.window.iter().position(|slot| slot.is_attempt(attempt)) else {
            return;
        };
        match answer {
            Answered::Written(receipt) => {
                self.backoff.reset();
                self.settle(index, Ok(receipt), out);
            }
            Answered::Lost(error) => {
                self.window[index].give_up(error);
                self.fall_back(now);
            }
            Answered::Refused(refusal) => self.refused(index, &refusal, now, out),
        }
        self.when_drained(out);
    }

    /// A broker had asked for a pause until then and reads nothing meanwhile, so the wait for its answers begins
    /// there: it is neither dying nor has it lost what it has not read.
    pub(crate) fn excuse(&mut self, node: NodeId, until: Instant) {
        for slot in &mut self.window {
            if let Progress::InFlight { waits_since, to, .. } = &mut slot.progress
                && to.node == node
            {
                *waits_since = until.max(*waits_since);
            }
        }
    }

    /// Fails what has passed its deadline, and gives up attempts that nobody answers. `blame` knows of a reason why
    /// what was created at a time is still here.
    pub(crate) fn expire(
        &mut self,
        now: Instant,
        blame: impl Fn(Instant) -> Option<String>,
        out: &mut Vec<Settled>,
    ) {
        for index in (0..self.window.len()).rev() {
            let slot = &mut self.window[index];
            if let Some(batch) = slot.batch.as_ref().filter(|batch| batch.deadline <= now) {
                let error = slot.timed_out(&self.name, blame(batch.created));
                self.fail(index, error, out);
            } else if slot
                .waits_since()
                .is_some_and(|since| since + self.options.attempt_max <= now)
            {
                slot.give_up(Error::with_outcome(
                    ErrorKind::TimedOut,
                    Outcome::Unknown,
                    format!("no answer in {:?}", self.options.attempt_max),
                ));
                self.fall_back(now);
            }
        }
        self.when_drained(out);
    }

    /// Fails everything with `error`; where a batch may have been written, its outcome is unknown.
    pub(crate) fn fail_all(&mut self, error: &Error, out: &mut Vec<Settled>) {
        for slot in &mut self.window {
            let error = error.but(slot.outcome());
            out.extend(slot.batch.take().map(|batch| (batch, Err(error))));
        }
        self.window.clear();
        self.draining = false;
        self.not_before = None;
        self.start_over(out);
    }

    /// The longest wait for an answer so far, and for whom.
    pub(crate) fn oldest_attempt(&self) -> Option<(Instant, NodeId)> {
        let attempts = self.window.iter().filter_map(|slot| match slot.progress {
            Progress::InFlight { waits_since, to, .. } => Some((waits_since, to.node)),
            Progress::Waiting => None,
        });
        attempts.min_by_key(|(since, _)| *since)
    }

    /// When `expire` or `next` have something to do, if nothing else happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let slots = self.window.iter().filter_map(|slot| {
            let deadline = slot.batch.as_ref()?.deadline;
            let attempt = slot.waits_since().map(|since| since + self.options.attempt_max);
            Some(attempt.map_or(deadline, |attempt| attempt.min(deadline)))
        });
        slots.chain(self.not_before).min()
    }

    fn refused(&mut self, index: usize, refusal: &WireError, now: Instant, out: &mut Vec<Settled>) {
        let error = Error::refused(&format!("write to {}", self.name), refusal);
        let slot = &mut self.window[index];
        // The topic's codec was changed and the metadata did not say so yet; every topic takes a
        // plain batch. It keeps its sequence, so one that was written before is recognised.
        let unpack = refusal.code == ErrorCode::UnsupportedCompression
            && slot.batch.as_mut().is_some_and(Batch::unpack);
        if unpack {
            slot.retry(error, Outcome::NotWritten);
            return self.fall_back(now);
        }
        match verdict(refusal.code) {
            Verdict::Retry => {
                slot.retry(error, outcome_of(refusal.code));
                self.fall_back(now);
            }
            Verdict::SequenceLost => {
                slot.retry(error, Outcome::NotWritten);
                self.fall_back(now);
                // With an older batch unsettled this is only the echo of that one's failure. The
                // oldest, however, continues what the broker had acknowledged and does not have.
                self.restart |= index == 0;
            }
            Verdict::Final => {
                // Where the log goes on behind the end that was expected there is another batch for good,
                // so no earlier attempt was written, nor will be one that is still on its way.
                let taken = refusal.end.is_some() && refusal.end > slot.expected_end();
                let outcome = match slot.in_doubt && !taken {
                    true => Outcome::Unknown,
                    false => outcome_of(refusal.code),
                };
                self.fail(index, error.but(outcome), out);
            }
        }
    }

    /// Settles a batch with an error, which leaves a hole in the sequence.
    fn fail(&mut self, index: usize, error: Error, out: &mut Vec<Settled>) {
        if error.outcome() == Outcome::NotWritten {
            for later in self.window.iter_mut().skip(index + 1) {
                later.barred = true;
            }
        }
        self.restart = true;
        self.draining = true;
        self.settle(index, Err(error), out);
    }

    fn settle(&mut self, index: usize, result: Result<Receipt, Error>, out: &mut Vec<Settled>) {
        let slot = &mut self.window[index];
        slot.progress = Progress::Waiting;
        let batch = slot.batch.take().expect("a batch is settled once");
        out.push((batch, result));
        while self.window.front().is_some_and(|slot| slot.batch.is_none()) {
            self.window.pop_front();
        }
    }

    fn fall_back(&mut self, now: Instant) {
        if !self.draining || self.not_before.is_none() {
            self.not_before = Some(now + self.backoff.pause());
        }
        self.draining = true;
    }

    fn when_drained(&mut self, out: &mut Vec<Settled>) {
        if !self.draining || self.window.iter().any(|slot| slot.is_in_flight()) {
            return;
        }
        self.draining = false;
        if std::mem::take(&mut self.restart) {
            self.start_over(out);
        }
    }

    /// A new epoch, sequences from 0. A batch in doubt would be written twice if it went out again
    /// under a new number, so it fails; but behind one that was surely not written nothing was.
    fn start_over(&mut self, out: &mut Vec<Settled>) {
        if self.epoch.0 == EPOCH_MAX {
            self.producer = ProducerId((self.producer.0 + 1) & PRODUCER_ID_MASK);
            self.epoch = ProducerEpoch(0);
        } else {
            self.epoch = ProducerEpoch(self.epoch.0 + 1);
        }
        self.restart = false;
        self.next_sequence = 0;
        let mut in_doubt = true;
        for mut slot in std::mem::take(&mut self.window) {
            in_doubt &= slot.in_doubt && !slot.barred;
            let Some(batch) = slot.batch.take() else { continue };
            if in_doubt {
                out.push((batch, Err(slot.lost_track(&self.name))));
            } else {
                self.push(batch);
            }
        }
    }

    fn take_sequence(&mut self, records: u32) -> u32 {
        let sequence = self.next_sequence;
        // Sequences wrap from 2^31 - 1 to 0, as in Kafka.
        self.next_sequence = sequence.wrapping_add(records) & SEQUENCE_MASK;
        sequence
    }
}

fn verdict(code: ErrorCode) -> Verdict {
    let sequence = matches!(code, ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer);
    match (sequence, code.retriable()) {
        (true, _) => Verdict::SequenceLost,
        (false, true) => Verdict::Retry,
        (false, false) => Verdict::Final,
    }
}

/// Brokers recognise repeats among this many batches of a producer.
pub(crate) const IN_FLIGHT_MAX: usize = 5;
pub(crate) const PRODUCER_ID_MASK: u64 = i64::MAX as u64;
const EPOCH_MAX: u16 = i16::MAX as u16;
const SEQUENCE_MASK: u32 = i32::MAX as u32;

#[cfg(test)]
mod tests;
