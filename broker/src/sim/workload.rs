//! The clients of a simulated cluster: producers that retry, pipeline, time out and give up as real
//! ones do, and the history of what they were told.
//!
//! Every value is unique. An idempotent producer keeps its batches of a partition in order and sends
//! one again until it is acknowledged; only when the partition has forgotten the producer while a
//! batch was in doubt does it give that batch up and begin a new epoch. A plain producer sends once.
//!
//! Some batches are conditional: they expect the end that whoever was last told of one knows, so that they
//! race each other and all the rest.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use highwater_protocol::batch::{BatchBuilder, BuilderOptions, ProducerStamp};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Offset, ProducerEpoch, ProducerId, Timestamp};
use highwater_protocol::native::produce::{AckMode, Receipt};

use crate::sim::rng::Rng;
use crate::sim::swarm::Clients;

/// A batch on its way to a broker.
#[derive(Debug, Clone)]
pub struct Request {
    /// Pairs the reply with it.
    pub id: u64,
    /// Which producer sent it.
    pub producer: usize,
    /// Which partition, by its number in the swarm.
    pub partition: usize,
    /// The batch.
    pub batch: Bytes,
    /// The promise wanted.
    pub acks: AckMode,
    /// Where the partition must end.
    pub expected_end: Option<Offset>,
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Sent, and no answer yet, or one that leaves it open.
    Open,
    /// Acknowledged at this offset.
    Acked(Offset, AckMode),
    /// Refused: it is not written, and never will be.
    Refused(ErrorCode),
}

/// All producers and what they were told.
#[derive(Debug)]
pub struct Workload {
    params: Clients,
    rng: Rng,
    /// A stream of its own, so that seeds without conditions stay what they were.
    conditions: Rng,
    /// Where each partition ended, as somebody was told last.
    ends: Vec<Offset>,
    producers: Vec<Producer>,
    requests: BTreeMap<u64, Sent>,
    next_request: u64,
    fates: Vec<BTreeMap<u64, Fate>>,
    stopped: bool,
    acks: &'static [AckMode],
    /// Requests answered with a receipt, by ack mode.
    pub acked: [u64; 3],
    /// Requests that were sent again.
    pub retries: u64,
    /// Requests refused.
    pub refused: u64,
    /// Conditional requests answered with a receipt.
    pub conditions_met: u64,
    /// Conditional requests refused because the partition ended elsewhere.
    pub conditions_unmet: u64,
}

#[derive(Debug)]
struct Producer {
    id: Option<ProducerId>,
    next_value: u64,
    lanes: Vec<Lane>,
}

/// One producer's way to one partition.
#[derive(Debug, Default)]
struct Lane {
    epoch: u16,
    next_sequence: u32,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    values: Vec<u64>,
    batch: Bytes,
    acks: AckMode,
    expected_end: Option<Offset>,
    request: Option<u64>,
    in_doubt: bool,
}

/// What is known of a request that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Which producer.
    pub producer: usize,
    /// Which partition.
    pub partition: usize,
    /// The values in its batch.
    pub values: Vec<u64>,
    /// The promise wanted.
    pub acks: AckMode,
    /// Where the partition must end.
    pub expected_end: Option<Offset>,
    idempotent: bool,
}

impl Workload {
    /// The producers of a seed, for so many partitions.
    pub fn new(seed: u64, params: Clients, partitions: usize) -> Workload {
        let producer = |number: u64| Producer {
            id: (number < params.idempotent).then_some(ProducerId(number + 1)),
            next_value: 1 + (number + 1) * (1 << 40),
            lanes: (0..partitions).map(|_| Lane::default()).collect(),
        };
        Workload {
            params,
            rng: Rng::new(seed, "workload"),
            conditions: Rng::new(seed, "conditions"),
            ends: vec![Offset::ZERO; partitions],
            // The last one only tries, at the end, whether a partition takes a write.
            producers: (0..params.idempotent + params.plain + 1).map(producer).collect(),
            requests: BTreeMap::new(),
            next_request: 0,
            fates: vec![BTreeMap::new(); partitions],
            stopped: false,
            acks: &[AckMode::Async, AckMode::SemiSync, AckMode::Sync],
            acked: [0; 3],
            retries: 0,
            refused: 0,
            conditions_met: 0,
            conditions_unmet: 0,
        }
    }

    /// How many producers there are that send of their own accord.
    pub fn producers(&self) -> usize {
        self.producers.len() - 1
    }

    /// The producer that sends only when it is told to.
    pub fn prober(&self) -> usize {
        self.producers.len() - 1
    }

    /// Whoever still waits for all in-sync replicas contents itself with a majority: after voters were
    /// changed there may be fewer of them than `sync` wants.
    pub fn lower_demands(&mut self) {
        for lane in self.producers.iter_mut().flat_map(|producer| &mut producer.lanes) {
            lane.waiting.iter_mut().for_each(|waiting| waiting.acks = AckMode::SemiSync);
        }
        self.acks = &[AckMode::Async, AckMode::SemiSync];
    }

    /// What a producer sends when its time comes: what has to be sent again in order, then something new.
    pub fn send(&mut self, producer: usize) -> Vec<Request> {
        let partition = self.rng.below(self.fates.len() as u64) as usize;
        let mut requests = Vec::new();
        for partition in 0..self.fates.len() {
            self.resend(producer, partition, &mut requests);
        }
        let waiting = self.producers[producer].lanes[partition].waiting.len();
        if !self.stopped && waiting < self.params.inflight_max {
            requests.push(self.send_new(producer, partition));
        }
        requests
    }

    /// Sends one new batch to a partition, whatever is waiting.
    pub fn send_new(&mut self, producer: usize, partition: usize) -> Request {
        let acks = *self.rng.pick(self.acks);
        let expected_end = self.condition(producer, partition);
        self.send_if(producer, partition, acks, expected_end)
    }

    /// Mostly with nothing else under way, as a careful client sends them.
    fn condition(&mut self, producer: usize, partition: usize) -> Option<Offset> {
        let idle = self.producers[producer].lanes[partition].waiting.is_empty();
        let share = if idle { self.params.conditional } else { self.params.conditional / 5 };
        self.conditions.per_mille(share).then_some(self.ends[partition])
    }

    /// The same with a promise of the caller's choice.
    pub fn send_with(&mut self, producer: usize, partition: usize, acks: AckMode) -> Request {
        self.send_if(producer, partition, acks, None)
    }

    fn send_if(
        &mut self,
        producer: usize,
        partition: usize,
        acks: AckMode,
        expected_end: Option<Offset>,
    ) -> Request {
        let count = self.rng.between(1..=self.params.records_max);
        let Producer { id, next_value, lanes } = &mut self.producers[producer];
        let lane = &mut lanes[partition];
        let values: Vec<u64> = (*next_value..*next_value + count).collect();
        *next_value += count;
        let stamp = id.map(|id| ProducerStamp {
            id,
            epoch: ProducerEpoch(lane.epoch),
            base_sequence: lane.next_sequence,
        });
        lane.next_sequence += count as u32;
        let batch = build(stamp, &values, self.params.value_bytes_max, &mut self.rng);
        lane.waiting.push_back(Waiting {
            values: values.clone(),
            batch,
            acks,
            expected_end,
            request: None,
            in_doubt: false,
        });
        self.fates[partition].extend(values.iter().map(|value| (*value, Fate::Open)));
        let at = self.producers[producer].lanes[partition].waiting.len() - 1;
        self.request(producer, partition, at)
    }

    fn resend(&mut self, producer: usize, partition: usize, out: &mut Vec<Request>) {
        let lane = &self.producers[producer].lanes[partition];
        let unsent: Vec<usize> =
            (0..lane.waiting.len()).filter(|at| lane.waiting[*at].request.is_none()).collect();
        for at in unsent {
            self.retries += 1;
            out.push(self.request(producer, partition, at));
        }
    }

    fn request(&mut self, producer: usize, partition: usize, at: usize) -> Request {
        let id = self.next_request;
        self.next_request += 1;
        let idempotent = self.producers[producer].id.is_some();
        let waiting = &mut self.producers[producer].lanes[partition].waiting[at];
        waiting.request = Some(id);
        let (acks, expected_end) = (waiting.acks, waiting.expected_end);
        let values = waiting.values.clone();
        let sent = Sent { producer, partition, values, acks, expected_end, idempotent };
        self.requests.insert(id, sent);
        Request { id, producer, partition, batch: waiting.batch.clone(), acks, expected_end }
    }

    /// What a request was, for whoever checks its reply.
    pub fn sent(&self, request: u64) -> Option<&Sent> {
        self.requests.get(&request)
    }

    /// A reply has arrived. The producer is to be woken when this says so.
    pub fn replied(&mut self, request: u64, result: &Result<Receipt, WireError>) {
        let Some(sent) = self.requests.remove(&request) else { return };
        let Sent { producer, partition, values, acks, expected_end, idempotent } = sent;
        let lane = &mut self.producers[producer].lanes[partition];
        let Some(at) = lane.waiting.iter().position(|waiting| waiting.request == Some(request))
        else {
            return;
        };
        match result {
            Ok(receipt) => {
                let in_doubt = lane.waiting.remove(at).is_some_and(|waiting| waiting.in_doubt);
                self.acked[acks as usize] += 1;
                self.conditions_met += u64::from(expected_end.is_some());
                let end = receipt.base_offset.advance(values.len() as u64);
                self.ends[partition] = self.ends[partition].max(end);
                for (nth, value) in values.iter().enumerate() {
                    let offset = receipt.base_offset.advance(nth as u64);
                    // Where a deposed leader took it is nowhere, if another one has it as well.
                    let fate = match acks {
                        AckMode::Async if in_doubt => Fate::Open,
                        AckMode::Async | AckMode::SemiSync | AckMode::Sync => {
                            Fate::Acked(offset, acks)
                        }
                    };
                    self.fates[partition].insert(*value, fate);
                }
            }
            Err(error) if error.end.is_some() => {
                let end = error.end.expect("looked just now");
                let waiting = lane.waiting.remove(at).expect("found just now");
                if lane.waiting.is_empty() && idempotent {
                    // Its sequence is a hole.
                    (lane.epoch, lane.next_sequence) = (lane.epoch + 1, 0);
                }
                self.conditions_unmet += 1;
                self.ends[partition] = end;
                // A repeat that is still under way meets the condition once the log has come so far.
                if Some(end) > expected_end || !waiting.in_doubt {
                    let fate = Fate::Refused(error.code);
                    self.fates[partition].extend(values.into_iter().map(|value| (value, fate)));
                }
            }
            Err(error) if idempotent => {
                self.refused_idempotent(producer, partition, at, error.code)
            }
            Err(error) => {
                lane.waiting.remove(at);
                self.refused += 1;
                if is_definite(error.code) {
                    let fate = Fate::Refused(error.code);
                    self.fates[partition].extend(values.into_iter().map(|value| (value, fate)));
                }
            }
        }
    }

    fn refused_idempotent(
        &mut self,
        producer: usize,
        partition: usize,
        at: usize,
        code: ErrorCode,
    ) {
        self.refused += 1;
        let lane = &mut self.producers[producer].lanes[partition];
        match code {
            // Behind one that has to be sent again, this says nothing about the batch itself.
            ErrorCode::OutOfOrderSequence | ErrorCode::UnknownProducer if at > 0 => {
                lane.waiting[at].request = None;
            }
            ErrorCode::OutOfOrderSequence
            | ErrorCode::UnknownProducer
            | ErrorCode::ProducerFenced => {
                lane.epoch += 1;
                lane.next_sequence = 0;
                let given_up = std::mem::take(&mut lane.waiting);
                for waiting in given_up {
                    // What was sent may lie in some log that is not lost yet.
                    if let Some(request) = waiting.request {
                        self.requests.remove(&request);
                    }
                }
            }
            code => {
                let waiting = &mut lane.waiting[at];
                waiting.in_doubt |= !is_definite(code);
                waiting.request = None;
            }
        }
    }

    /// No reply has come in time.
    pub fn timed_out(&mut self, request: u64) {
        let Some(sent) = self.requests.get(&request) else { return };
        let (producer, partition, idempotent) = (sent.producer, sent.partition, sent.idempotent);
        let lane = &mut self.producers[producer].lanes[partition];
        let Some(at) = lane.waiting.iter().position(|waiting| waiting.request == Some(request))
        else {
            return;
        };
        if idempotent {
            lane.waiting[at].request = None;
            lane.waiting[at].in_doubt = true;
        } else {
            lane.waiting.remove(at);
        }
    }

    /// Nothing new is sent from now on.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// What idempotent producers still have to bring home.
    pub fn describe(&self) -> String {
        let mut said = String::new();
        for (number, producer) in
            self.producers.iter().enumerate().filter(|(_, it)| it.id.is_some())
        {
            for (partition, lane) in producer.lanes.iter().enumerate() {
                for waiting in &lane.waiting {
                    let Waiting { values, acks, request, in_doubt, .. } = waiting;
                    let (from, epoch) = (values[0], lane.epoch);
                    said += &format!(
                        "producer {number}, partition {partition}, epoch {epoch}: {from:x} {acks:?} request {request:?}, in doubt {in_doubt}; "
                    );
                }
            }
        }
        said
    }

    /// Whether idempotent producers still have something to bring home.
    pub fn is_idle(&self) -> bool {
        self.producers.iter().all(|producer| {
            producer.id.is_none() || producer.lanes.iter().all(|lane| lane.waiting.is_empty())
        })
    }

    /// What became of each value of a partition.
    pub fn fates(&self, partition: usize) -> &BTreeMap<u64, Fate> {
        &self.fates[partition]
    }
}

/// Whether an error promises that the batch is not written and never will be.
pub fn is_definite(code: ErrorCode) -> bool {
    match code {
        ErrorCode::NotLeader
        | ErrorCode::LeaderNotAvailable
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::UnknownLeaderEpoch
        | ErrorCode::UnknownTopicOrPartition
        | ErrorCode::Overloaded
        | ErrorCode::DiskFull
        | ErrorCode::BatchTooLarge
        | ErrorCode::OutOfOrderSequence
        | ErrorCode::ProducerFenced
        | ErrorCode::UnknownProducer => true,
        code => {
            assert!(
                !matches!(code, ErrorCode::CorruptBatch | ErrorCode::InvalidRecord),
                "the workload sends sound batches, and was told {code}"
            );
            false
        }
    }
}

fn build(stamp: Option<ProducerStamp>, values: &[u64], bytes_max: u64, rng: &mut Rng) -> Bytes {
    let mut builder =
        BatchBuilder::new(BuilderOptions { producer: stamp, ..BuilderOptions::default() });
    for value in values {
        let mut bytes = value.to_le_bytes().to_vec();
        bytes.resize(rng.between(8..=bytes_max.max(8)) as usize, *value as u8);
        builder.push(Timestamp(*value as i64 & 0xffff), None, Some(&bytes), &[]);
    }
    builder.finish()
}
