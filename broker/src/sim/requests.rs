//! The way of clients' requests and reads to a simulated broker.

use highwater_protocol::ids::{Timestamp, TopicPartition};

use crate::raft::Millis;
use crate::replica::Retention;
use crate::shard::event::{Event, ProduceEvent, RequestId};
use crate::sim::checker::Checked;
use crate::sim::cluster::{Asked, Cluster, Happening};
use crate::sim::node::{node_id, node_number};
use crate::sim::reading;
use crate::sim::workload::Request;

impl Cluster {
    pub(super) fn take_request(&mut self, node: usize, request: Request) {
        if !self.nodes[node].is_up() {
            return;
        }
        let partition = self.partitions[request.partition];
        let hint = self.nodes[node].leaderships.get(&partition).map(|news| news.term);
        let leader_term = hint.filter(|_| self.rng.per_mille(300));
        let clock = self.nodes[node].clock(self.now_us);
        let deadline = Millis(clock.0 + self.swarm.clients.timeout_ms);
        let event = ProduceEvent {
            id: RequestId(request.id),
            partition,
            batch: request.batch,
            acks: request.acks,
            leader_term,
            deadline,
            expected_end: request.expected_end,
        };
        self.give(node, Event::Produce(event));
    }

    pub(super) fn produce(&mut self, producer: usize) {
        let every_us = 1_000_000 / self.swarm.clients.rate;
        let next_us = self.now_us + every_us / 2 + self.rng.below(every_us);
        self.schedule(next_us, Happening::Producer(producer));
        for request in self.workload.send(producer) {
            self.submit(request);
        }
    }

    /// Sends a client's request to the broker that it takes for the leader.
    pub fn submit(&mut self, request: Request) {
        let partition = self.partitions[request.partition];
        let node = match self.known_leader(partition) {
            Some(leader) if self.rng.per_mille(950) => leader,
            Some(_) | None => self.rng.below(self.nodes.len() as u64) as usize,
        };
        let sent = self.workload.sent(request.id).expect("it was just made");
        let asked = Asked {
            partition: request.partition,
            values: sent.values.clone(),
            acks: sent.acks,
            expected_end: sent.expected_end,
        };
        self.unanswered.insert(request.id, asked);
        let give_up_us = self.now_us + (self.swarm.clients.timeout_ms + 300) * 1_000;
        self.schedule(give_up_us, Happening::Timeout(request.id));
        // One connection to each broker: requests arrive in the order sent.
        let way = (request.producer, node);
        let at_us = self.now_us + 50 + self.rng.long_tailed(500);
        let at_us = at_us.max(self.arrivals.get(&way).copied().unwrap_or(0) + 1);
        self.arrivals.insert(way, at_us);
        self.schedule(at_us, Happening::Request { node, request });
    }

    /// The leader of the newest term that any live broker has heard of.
    pub fn known_leader(&self, partition: TopicPartition) -> Option<usize> {
        let news = self.nodes.iter().filter_map(|node| node.leaderships.get(&partition));
        let newest = news.filter(|news| news.leader.is_some()).max_by_key(|news| news.term)?;
        newest.leader.map(node_number)
    }

    /// The workload's timestamps lie in the first minute of the epoch, and by then it is over.
    pub(super) fn look_at_retention(&mut self, node: usize) {
        self.schedule(self.now_us + RETAIN_EVERY_US, Happening::Retain(node));
        if self.swarm.retention != Retention::FOREVER {
            let wall = Timestamp(60_000 + self.now_ms() as i64);
            self.give(node, Event::Retain(wall));
        }
    }

    /// Reads from a replica at random, as a consumer would.
    pub(super) fn probe(&mut self) -> Checked {
        let next_us = self.now_us + self.rng.between(10_000..=80_000);
        self.schedule(next_us, Happening::Probe);
        let node = self.rng.below(self.nodes.len() as u64) as usize;
        let partition = *self.rng.pick(&self.partitions);
        // What came and went in a pass that is held up is not told yet.
        if self.nodes[node].disk.is_dead() || self.nodes[node].held.is_some() {
            return Ok(());
        }
        let Some(reader) = self.nodes[node].readers.get(&partition) else { return Ok(()) };
        if self.is_of_the_old(node, partition) {
            return Ok(());
        }
        let end = reader.high_watermark().0;
        let from = match self.rng.below(8) {
            0 => reader.log_start().0,
            _ => end.saturating_sub(self.rng.below(20)),
        };
        let bytes_max = *self.rng.pick(&[1, 1_000, 100_000]);
        self.coverage.reads +=
            reading::check_read(&self.checker, node_id(node), partition, reader, from, bytes_max)?;
        Ok(())
    }
}

const RETAIN_EVERY_US: u64 = 200_000;
