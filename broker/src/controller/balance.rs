//! Evening out: which replicas and leaders go where so that brokers and racks carry alike.
//!
//! By count first: a broker gives only while another has at least two less, so that nothing moves
//! that need not, and a broker that was added gets its share and no more. Among the replicas that
//! could go it chooses those that even out the bytes and what is written. Then replicas are exchanged,
//! counts staying as they are: by bytes where a broker is a tenth off the mean, and by what is written
//! to them, as far as that puts no bytes out of their tenth. Leaders last: they change places within
//! the sets, which copies nothing, by count and then by the load of leading.
//!
//! What must hold: no partition gets more replicas into one rack than it had, and one that has several
//! there although another rack is free is mended; nothing goes to a broker that takes nothing; what
//! moves already is counted and left alone; the same input gives the same plan, and a plan carried
//! out leaves nothing to plan. It ends because every step makes one of these smaller and none of those
//! before it larger: replicas that share a rack, squares of counts, bytes beyond the tenth, squares of
//! what is written; then squares of leaders' counts, and of their loads. Pure arithmetic; `reassign`
//! carries it out.
//!
//! Read `planner`, then `counts`, `exchange`, `leaders`.

mod counts;
mod exchange;
mod leaders;
mod planner;

use std::collections::BTreeMap;

use highwater_protocol::ids::{NodeId, TopicPartition};
use highwater_protocol::native::balance::Load;
use highwater_protocol::native::moves::PlannedMove;

use self::exchange::Weight;
use self::leaders::ByLoad;
use self::planner::Planner;
use crate::controller::image::{Broker, ClusterImage};
use crate::controller::moves;
use crate::controller::record::BrokerRegistration;

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Which one.
    pub node: NodeId,
    /// Its failure domain; a broker without one is a domain of its own.
    pub rack: Option<String>,
    /// Whether it takes replicas.
    pub takes: Takes,
}

/// Whether a broker takes replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// It does, and is evened out.
    Replicas,
    /// It is not alive, or is being emptied: it gets nothing, and what it has is not counted.
    Nothing,
}

/// A partition as it is placed, or will be once its move is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Which one.
    pub partition: TopicPartition,
    /// Its replicas, the preferred leader first.
    pub replicas: Vec<NodeId>,
    /// The bytes of one replica.
    pub bytes: u64,
    /// What clients do to it.
    pub load: Load,
    /// Whether it may be moved.
    pub movable: Movable,
}

impl Placed {
    /// What leading it costs beyond what every replica pays: sending to followers and to readers.
    fn leader_load(&self) -> u64 {
        let followers = self.replicas.len() as u64 - 1;
        followers * self.load.bytes_in_per_s + self.load.bytes_out_per_s
    }
}

/// Whether a partition may be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movable {
    /// It may.
    Yes,
    /// It moves already.
    No,
}

/// What a broker carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Which broker.
    pub node: NodeId,
    /// Its replicas.
    pub replicas: usize,
    /// Those of them that are preferred leaders.
    pub leaders: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes a second that are written to them.
    pub write_load: u64,
    /// Bytes a second that those that lead send to followers and to readers.
    pub leader_load: u64,
}

/// What there is to even out: the brokers and partitions of an image, the bytes of a replica of
/// each partition, and its load; who is not named has none. What moves is counted where it goes. A
/// partition that has a replica on a broker that takes nothing is left to whoever empties that broker,
/// or to its return.
pub fn inputs(
    image: &ClusterImage,
    sizes: &[(TopicPartition, u64)],
    loads: &[(TopicPartition, Load)],
) -> (Vec<Host>, Vec<Placed>) {
    let host = |broker: &Broker| {
        let BrokerRegistration { node, rack, .. } = &broker.registration;
        Host { node: *node, rack: rack.clone(), takes: takes(broker) }
    };
    let mut hosts: BTreeMap<NodeId, Host> =
        image.brokers().map(host).map(|host| (host.node, host)).collect();
    let sizes: BTreeMap<TopicPartition, u64> = sizes.iter().copied().collect();
    let loads: BTreeMap<TopicPartition, Load> = loads.iter().copied().collect();
    let mut placed = Vec::with_capacity(image.partitions());
    for (topic, number) in image.every_partition() {
        let partition = TopicPartition::new(topic.id, number);
        let replicas = moves::nodes(topic.settles_on(number));
        for node in &replicas {
            let gone = || Host { node: *node, rack: None, takes: Takes::Nothing };
            hosts.entry(*node).or_insert_with(gone);
        }
        let kept = |node: &NodeId| hosts[node].takes == Takes::Replicas;
        let free = topic.move_of(number).is_none() && replicas.iter().all(kept);
        let movable = if free { Movable::Yes } else { Movable::No };
        let bytes = sizes.get(&partition).copied().unwrap_or_default().min(BYTES_MAX);
        let load = bounded(loads.get(&partition).copied().unwrap_or_default());
        placed.push(Placed { partition, replicas, bytes, load, movable });
    }
    (hosts.into_values().collect(), placed)
}

/// Whether a broker may be given replicas.
fn takes(broker: &Broker) -> Takes {
    if broker.takes_work() { Takes::Replicas } else { Takes::Nothing }
}

/// What each broker that takes replicas carries.
pub fn shares(hosts: &[Host], partitions: &[Placed]) -> Vec<Share> {
    let planner = Planner::new(hosts, partitions);
    let (mut leaders, mut leader_load) = (vec![0; hosts.len()], vec![0; hosts.len()]);
    for (set, at) in planner.sets.iter().zip(partitions) {
        leaders[set[0]] += 1;
        leader_load[set[0]] += at.leader_load();
    }
    let takers = planner.takers.iter();
    let share = |at: &usize| Share {
        node: hosts[*at].node,
        replicas: planner.held[*at].len(),
        leaders: leaders[*at],
        bytes: planner.carried(Weight::Bytes)[*at],
        write_load: planner.carried(Weight::Writes)[*at],
        leader_load: leader_load[*at],
    };
    takers.map(share).collect()
}

/// Whether replicas of a partition share a rack that could be apart.
pub fn shares_a_rack(hosts: &[Host], partitions: &[Placed]) -> bool {
    let mut planner = Planner::new(hosts, partitions);
    planner.mend_racks();
    planner.relocated() > 0
}

/// What a plan is to even out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aim {
    /// Racks, and how many replicas and leaders brokers have.
    Counts,
    /// Who leads: nothing is copied.
    Leaders,
    /// All that there is.
    All,
}

/// The partitions that change, with their replicas before and after. A set that only changes its
/// order changes who leads. Every replica must be on one of the hosts, and every set have one.
pub fn plan(hosts: &[Host], partitions: &[Placed]) -> Vec<PlannedMove> {
    first_steps(hosts, partitions, Aim::All, usize::MAX)
}

/// The first steps of a plan, which change about so many partitions at most. Each is a step of its own
/// towards the aim: planning and carrying out again and again ends, however few are done at a time.
pub fn first_steps(
    hosts: &[Host],
    partitions: &[Placed],
    aim: Aim,
    changes_max: usize,
) -> Vec<PlannedMove> {
    let mut planner = Planner::new(hosts, partitions);
    planner.changes_max = changes_max;
    match aim {
        Aim::Counts => {
            planner.mend_racks();
            planner.even_counts();
            planner.even_leaders(ByLoad::No);
        }
        Aim::Leaders => planner.even_leaders(ByLoad::Yes),
        Aim::All => {
            planner.even_replicas();
            planner.even_leaders(ByLoad::Yes);
        }
    }
    planner.changes(hosts)
}

/// Partitions as they are placed once a plan for them is carried out.
pub fn carried_out(partitions: &[Placed], plan: &[PlannedMove]) -> Vec<Placed> {
    let mut after = partitions.to_vec();
    let mut planned = plan.iter().peekable();
    for at in &mut after {
        if let Some(planned) = planned.next_if(|planned| planned.partition == at.partition) {
            at.replicas.clone_from(&planned.to);
        }
    }
    after
}

/// Sums over all replicas of a cluster must fit, and their squares in twice the bits.
fn bounded(load: Load) -> Load {
    let Load { bytes_in_per_s, bytes_out_per_s } = load;
    Load {
        bytes_in_per_s: bytes_in_per_s.min(LOAD_MAX),
        bytes_out_per_s: bytes_out_per_s.min(LOAD_MAX),
    }
}

/// No partition counts as larger, whatever somebody says of it: sums over all replicas of a cluster
/// must fit.
const BYTES_MAX: u64 = 1 << 44;
/// Nor as busier.
const LOAD_MAX: u64 = 1 << 40;

#[cfg(test)]
mod tests;
