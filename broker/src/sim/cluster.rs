//! A whole cluster in one thread: brokers, network, clients and time, driven by one queue of events.
//!
//! Nothing here decides what is right (`checker` does) or what goes wrong (`faults` does). A step takes the
//! next happening off the queue; what must hold: the same seed takes the same steps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::error::WireError;
use highwater_protocol::ids::{NodeId, Offset, PartitionId, TopicId, TopicPartition};
use highwater_protocol::native::produce::{AckMode, Receipt};
use highwater_protocol::peer::{AppendRequest, GroupMessage, PeerBody, PeerFrame, RaftMessage};
use uuid::Uuid;

use crate::disk::{File, FlushFailure};
use crate::log::Mended;
use crate::raft::Millis;
use crate::replica::View;
use crate::shard::event::{AfterClose, Effect, Event, FlushTicket, ReplicaCommand, RequestId};
use crate::sim::accepted::Operator;
use crate::sim::checker::{Broken, Checked, Checker, Death};
use crate::sim::coverage::Coverage;
use crate::sim::faults::FaultKind;
use crate::sim::moves::{Mover, Moving};
use crate::sim::network::Network;
use crate::sim::node::{SimNode, node_id};
use crate::sim::rng::Rng;
use crate::sim::swarm::Swarm;
use crate::sim::throttled::Throttled;
use crate::sim::trace::Trace;
use crate::sim::workload::{Request, Workload};

/// Something that happens at a point in time.
pub(super) enum Happening {
    /// A broker works through its inbox.
    Pass(usize, u64),
    /// A broker's deadline has come.
    Tick(usize, u64),
    /// A frame arrives.
    Deliver { from: usize, to: usize, frame: Bytes },
    /// A flush is over.
    FlushDone {
        node: usize,
        life: u64,
        ticket: FlushTicket,
        files: Vec<Arc<dyn File>>,
        early: Early,
    },
    /// The copying for a damaged segment is over.
    Mended { node: usize, life: u64, partition: TopicPartition, mended: Box<Mended> },
    /// A broker reads what lies on its disk.
    Scrub(usize),
    /// A client's request arrives.
    Request { node: usize, request: Request },
    /// A reply arrives at its client.
    Reply { request: u64, result: Result<Receipt, WireError> },
    /// A client stops waiting.
    Timeout(u64),
    /// A producer's time has come.
    Producer(usize),
    /// Somebody reads.
    Probe,
    /// A broker looks for what need not be kept.
    Retain(usize),
    /// A fault strikes, perhaps.
    Fault(FaultKind),
    /// The mix of faults shifts.
    Phase,
    /// A broker that is down comes back.
    Restart(usize),
    /// A broker whose disk failed is restarted.
    RestartFailed(usize),
    /// A full disk has room again.
    Room(usize),
    /// A broker loses its power, where that may be.
    PowerFails(usize),
    /// What a broker wrote is written at last.
    Unstuck(usize, u64),
    /// Partitions heal.
    HealNetwork,
    /// A broker is told to host a partition.
    Open(usize, usize),
    /// Something about moves of replicas.
    Moves(Moving),
    /// The operator looks after what a partition lost.
    Operate(usize),
}

/// Whether a flush's files were on the device when it was asked for, or are only now.
pub(super) enum Early {
    /// Done at once; only the answer took its time.
    Done(Vec<FlushFailure>),
    /// To be done when the answer is due.
    Pending,
}

/// A cluster and everything around it.
pub struct Cluster {
    /// What the seed drew.
    pub swarm: Swarm,
    /// The brokers.
    pub nodes: Vec<SimNode>,
    /// The partitions, in the order of the swarm.
    pub partitions: Vec<TopicPartition>,
    /// The links.
    pub network: Network,
    /// The clients.
    pub workload: Workload,
    /// What must hold.
    pub checker: Checker,
    /// What happened.
    pub trace: Trace,
    /// What was reached.
    pub coverage: Coverage,
    pub(super) throttled: Throttled,
    pub(super) now_us: u64,
    pub(super) rng: Rng,
    pub(super) quiet: bool,
    /// Boxed, because what stays in a leaf of the tree is moved up whenever the first is taken.
    queue: BTreeMap<(u64, u64), Box<Happening>>,
    next_number: u64,
    pub(super) unanswered: BTreeMap<u64, Asked>,
    next_admin: u64,
    pub(super) arrivals: BTreeMap<(usize, usize), u64>,
    /// The controller and every broker's view of what it decided, where replicas move.
    pub(super) mover: Option<Mover>,
    pub(super) operator: Operator,
}

/// A request that a broker has not answered yet.
pub(super) struct Asked {
    pub(super) partition: usize,
    pub(super) values: Vec<u64>,
    pub(super) acks: AckMode,
    pub(super) expected_end: Option<Offset>,
}

impl Cluster {
    /// Boots all brokers of a swarm.
    pub fn new(seed: u64, swarm: Swarm) -> Cluster {
        let topic = TopicId(Uuid::from_u128(0x5eed_0000 + u128::from(seed)));
        let partitions: Vec<_> = (0..swarm.partitions.len())
            .map(|number| TopicPartition::new(topic, PartitionId(number as u32)))
            .collect();
        let node = |number: usize| SimNode::new(number, seed, swarm.clock_ppm[number]);
        let mut cluster = Cluster {
            nodes: (0..swarm.nodes).map(node).collect(),
            network: Network::new(seed, swarm.weather),
            workload: Workload::new(seed, swarm.clients, partitions.len()),
            checker: Checker::default(),
            trace: Trace::default(),
            coverage: Coverage { acked: vec![0; partitions.len()], ..Coverage::default() },
            throttled: Throttled::default(),
            now_us: 0,
            rng: Rng::new(seed, "cluster"),
            quiet: false,
            queue: BTreeMap::new(),
            next_number: 0,
            unanswered: BTreeMap::new(),
            next_admin: 1 << 60,
            arrivals: BTreeMap::new(),
            mover: None,
            operator: Operator::default(),
            partitions,
            swarm,
        };
        for node in &mut cluster.nodes {
            node.keep_free_bytes = cluster.swarm.keep_free_bytes;
        }
        if cluster.swarm.faults.moves > 0 {
            cluster.begin_moves(seed);
        }
        for (number, partition) in cluster.partitions.iter().enumerate() {
            cluster.checker.add_partition(*partition, cluster.voters_at_start(number));
        }
        for number in 0..cluster.nodes.len() {
            cluster.schedule(number as u64 * 100, Happening::Restart(number));
        }
        for producer in 0..cluster.workload.producers() {
            cluster.schedule(300_000 + producer as u64 * 7_000, Happening::Producer(producer));
        }
        cluster.schedule(500_000, Happening::Probe);
        for number in 0..cluster.nodes.len() {
            cluster.schedule(1_000_000 + number as u64 * 30_000, Happening::Retain(number));
            cluster.schedule(1_500_000 + number as u64 * 70_000, Happening::Scrub(number));
        }
        cluster
    }

    /// Where the partition's voters are when it is made.
    pub(super) fn voters_at_start(&self, partition: usize) -> Vec<NodeId> {
        let nodes = self.nodes.len();
        (0..self.swarm.replication).map(|nth| node_id((partition + nth) % nodes)).collect()
    }

    /// Simulated time since the start.
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// Lets time pass.
    pub fn run_for_ms(&mut self, ms: u64) -> Checked {
        let end_us = self.now_us + ms * 1_000;
        while let Some(next) = self.queue.first_entry() {
            let at_us = next.key().0;
            if at_us > end_us {
                break;
            }
            let happening = next.remove();
            self.now_us = self.now_us.max(at_us);
            self.happen(*happening)?;
        }
        self.now_us = end_us;
        Ok(())
    }

    pub(super) fn schedule(&mut self, at_us: u64, happening: Happening) {
        let key = (at_us.max(self.now_us), self.next_number);
        self.queue.insert(key, Box::new(happening));
        self.next_number += 1;
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Pass(node, life) => return self.pass(node, life),
            Happening::Tick(node, life) => {
                if self.nodes[node].life == life && self.nodes[node].tick_at_us <= self.now_us {
                    self.nodes[node].tick_at_us = u64::MAX;
                    self.give(node, Event::Tick);
                }
            }
            Happening::Deliver { from, to, frame } => self.deliver(from, to, frame),
            Happening::FlushDone { node, life, ticket, files, early } => {
                if self.nodes[node].flushes_nothing_before() > self.now_us {
                    let thaws = Happening::FlushDone { node, life, ticket, files, early };
                    self.schedule(self.now_us + FROZEN_US, thaws);
                    return Ok(());
                }
                if self.nodes[node].life == life && self.nodes[node].is_up() {
                    let failures = match early {
                        Early::Done(failures) => failures,
                        Early::Pending => flush_each(&files),
                    };
                    self.give(node, Event::Flushed(ticket, failures));
                    return self.bury_if_dead(node);
                }
            }
            Happening::Mended { node, life, partition, mended } => {
                if self.nodes[node].stuck_until_us > self.now_us {
                    let goes_on = Happening::Mended { node, life, partition, mended };
                    self.schedule(self.now_us + FROZEN_US, goes_on);
                } else if self.nodes[node].life == life {
                    self.give(node, Event::Mended(partition, *mended));
                }
            }
            Happening::Scrub(node) => self.scrub(node),
            Happening::Request { node, request } => self.take_request(node, request),
            Happening::Reply { request, result } => self.workload.replied(request, &result),
            Happening::Timeout(request) => self.workload.timed_out(request),
            Happening::Producer(producer) => self.produce(producer),
            Happening::Probe => return self.probe(),
            Happening::Retain(node) => self.look_at_retention(node),
            Happening::Fault(kind) => return self.strike(kind),
            Happening::Phase => self.shift_phase(),
            Happening::Restart(node) => return self.start(node),
            Happening::RestartFailed(node) => return self.restart_failed(node),
            Happening::Room(node) => self.give_room(node),
            Happening::PowerFails(node) => return self.fail_power(node),
            Happening::Unstuck(node, life) => return self.unstick(node, life),
            Happening::HealNetwork => self.network.heal(),
            Happening::Open(node, number) => self.open(node, number),
            Happening::Moves(moving) => return self.happen_to_moves(moving),
            Happening::Operate(number) => return self.operate(number),
        }
        Ok(())
    }

    /// Puts an event into a broker's inbox and makes sure that a pass follows.
    pub(super) fn give(&mut self, node: usize, event: Event) {
        let broker = &mut self.nodes[node];
        if !broker.is_up() {
            return;
        }
        if broker.inbox.len() >= INBOX_MAX && matches!(event, Event::Peer { .. }) {
            return;
        }
        broker.inbox.push_back(event);
        if !broker.pass_is_due {
            broker.pass_is_due = true;
            let at_us = (self.now_us + self.rng.below(PASS_US_MAX)).max(broker.paused_until_us);
            let life = broker.life;
            self.schedule(at_us, Happening::Pass(node, life));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, frame: Bytes) {
        if !self.nodes[to].is_up() {
            return;
        }
        let frame = PeerFrame::decode(frame).expect("what a broker encoded can be decoded");
        self.coverage.from_the_past += u64::from(frame.from < self.nodes[from].incarnation());
        let PeerBody::Raft(messages) = frame.body else { unreachable!("shards send Raft only") };
        let printed = if self.trace.prints() { &messages[..] } else { &[] };
        for GroupMessage { group, epoch: _, message } in printed {
            let (number, message) = (group.partition, brief(message));
            self.trace
                .print(self.now_us, format_args!("{from} to {to}, partition {number}: {message}"));
        }
        let from = node_id(from);
        self.give(to, Event::Peer { from, incarnation: frame.from, to: frame.to, messages });
    }

    fn pass(&mut self, node: usize, life: u64) -> Checked {
        let broker = &mut self.nodes[node];
        if broker.life != life || !broker.is_up() || broker.held.is_some() {
            return Ok(());
        }
        if broker.paused_until_us > self.now_us {
            let at_us = broker.paused_until_us;
            self.schedule(at_us, Happening::Pass(node, life));
            return Ok(());
        }
        let events: Vec<Event> = (0..EVENTS_MAX).map_while(|_| broker.inbox.pop_front()).collect();
        let now = broker.clock(self.now_us);
        broker.pass_at = now;
        let written = broker.disk.operations();
        let mut effects = Vec::new();
        self.trace.mix(&[self.now_us, node as u64, events.len() as u64]);
        for event in events {
            self.note_discard(node, &event);
            if let Event::Close(partition, AfterClose::Keep) = event {
                self.look_before_closing(node, partition)?;
            }
            let shard = self.nodes[node].shard.as_mut().expect("it is up");
            shard.step(now, event, &mut effects);
        }
        let broker = &mut self.nodes[node];
        let shard = broker.shard.as_mut().expect("it is up");
        let finished = shard.finish_pass(now, &mut effects);
        let deadline = shard.next_deadline();
        broker.pass_is_due = !broker.inbox.is_empty();
        if broker.pass_is_due {
            self.schedule(self.now_us + 1, Happening::Pass(node, life));
        }
        if self.nodes[node].disk.is_dead() {
            return self.bury_if_dead(node);
        }
        if let Err(error) = finished {
            self.trace.note(self.now_us, format_args!("broker {node} stops: {error}"));
            let disk = &self.nodes[node].disk;
            if disk.is_limited() && !disk.has_failed() {
                return Err(Broken {
                    invariant: "a full disk takes no broker down",
                    detail: format!("broker {node} stops: {error}"),
                });
            }
            return self.power_off(node, Death::AmidPass);
        }
        self.trace.mix(&[effects.len() as u64]);
        let broker = &self.nodes[node];
        let writes = broker.disk.operations() > written;
        if writes && broker.stuck_until_us > self.now_us {
            return self.hold_up(node, effects, deadline);
        }
        self.end_pass(node, effects, deadline)
    }

    /// Looks at what a pass has done, and does what it wants done.
    pub(super) fn end_pass(
        &mut self,
        node: usize,
        effects: Vec<Effect>,
        deadline: Millis,
    ) -> Checked {
        self.note_services(node, &effects);
        self.observe(node)?;
        self.check_nothing_older(node)?;
        self.carry_out(node, effects)?;
        self.wake_at(node, deadline);
        Ok(())
    }

    /// Schedules the tick of a broker unless an earlier one is scheduled.
    pub(super) fn wake_at(&mut self, node: usize, deadline: Millis) {
        let broker = &self.nodes[node];
        if !broker.is_up() {
            return;
        }
        let (life, before) = (broker.life, broker.tick_at_us);
        let at_us = broker.when_clock_shows(deadline).max(self.now_us + TICK_US_MIN);
        if at_us < before {
            self.nodes[node].tick_at_us = at_us;
            self.schedule(at_us, Happening::Tick(node, life));
        }
    }

    /// Where a replica stands, if its broker is up.
    pub fn view(&self, node: usize, partition: TopicPartition) -> Option<View> {
        Some(self.nodes[node].shard.as_ref()?.replica(partition)?.view())
    }

    /// Sends a command about a partition to a broker.
    pub fn command(
        &mut self,
        node: usize,
        partition: TopicPartition,
        command: ReplicaCommand,
    ) -> RequestId {
        let id = self.draw_request();
        self.give(node, Event::Admin(id, partition, command));
        id
    }

    /// An id that no request has had.
    pub(super) fn draw_request(&mut self) -> RequestId {
        self.next_admin += 1;
        RequestId(self.next_admin - 1)
    }
}

/// Flushes files one by one, whatever becomes of the others.
pub(super) fn flush_each(files: &[Arc<dyn File>]) -> Vec<FlushFailure> {
    let flushed = files.iter().enumerate().map(|(file, flushed)| (file, flushed.flush()));
    flushed.filter_map(|(file, done)| Some(FlushFailure { file, error: done.err()? })).collect()
}

/// Where the replica of a partition lies on every broker.
pub(super) fn dir_of(number: usize) -> PathBuf {
    PathBuf::from(format!("/data/topic/{number}"))
}

/// A message without its entries.
fn brief(message: &RaftMessage) -> String {
    match message {
        RaftMessage::Append(AppendRequest { term, prev, commit, start, entries }) => {
            let bytes: usize = entries.iter().map(Bytes::len).sum();
            let start = if start.is_some() { ", the log's start" } else { "" };
            format!("Append in term {term} behind {prev}, commit {commit}, {bytes} bytes{start}")
        }
        RaftMessage::Found(found) => format!("Found behind {}", found.behind),
        RaftMessage::Vote(_)
        | RaftMessage::VoteAnswer(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::Heartbeat(_)
        | RaftMessage::HeartbeatAnswer(_)
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_) => format!("{message:?}"),
    }
}

const EVENTS_MAX: usize = 64;
const INBOX_MAX: usize = 4_096;
/// How long an event waits for company.
const PASS_US_MAX: u64 = 150;
/// How often a flush asks whether its disk is still frozen.
const FROZEN_US: u64 = 50_000;
/// The shortest sleep of a broker.
const TICK_US_MIN: u64 = 1_000;
