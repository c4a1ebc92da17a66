//! The Raft groups of moving partitions, as far as moves need them: who votes, who leads, and the
//! change of voters that the leader has under way.
//!
//! Votes change one at a time and only while a majority of them runs, a newcomer gets one only once
//! its replica is open, and a change is forgotten with its leader: that is what Raft promises, and
//! the rest is up to the controller. What is watched: no broker deletes a replica that votes.

use std::collections::BTreeMap;

use highwater_protocol::ids::{NodeId, PartitionId, TopicPartition};

use super::host::Host;
use crate::controller::ClusterImage;
use crate::controller::moves::{MoveId, Step, nodes};
use crate::sim::rng::Rng;

/// The groups of all partitions that ever moved.
#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<TopicPartition, Group>,
}

#[derive(Debug)]
struct Group {
    voters: Vec<NodeId>,
    leader: Option<NodeId>,
    change: Option<Change>,
}

/// A change of voters, as `node::moves` leads it.
#[derive(Debug)]
struct Change {
    id: MoveId,
    aim: Vec<NodeId>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asking,
    Granted,
    Reached,
}

/// What a leader has to say to the controller.
pub type Word = (TopicPartition, MoveId, Step);

impl Groups {
    /// One round of every group that moves in this image or did before, for a leader's own image may
    /// tell of a move that is over; gives what their leaders have to say.
    pub fn step(&mut self, image: &ClusterImage, hosts: &[Host], rng: &mut Rng) -> Vec<Word> {
        for topic in image.topics() {
            for (number, _) in topic.moving() {
                let partition = TopicPartition::new(topic.id, number);
                let set = &topic.partitions[number.0 as usize];
                // A partition that never moved has the voters that it was made with.
                self.groups.entry(partition).or_insert_with(|| Group {
                    voters: nodes(set),
                    leader: None,
                    change: None,
                });
            }
        }
        self.groups.retain(|partition, _| image.topic(partition.topic).is_some());
        let groups = self.groups.iter_mut();
        groups.filter_map(|(partition, group)| group.step(*partition, hosts, rng)).collect()
    }

    /// What the controller answered.
    pub fn answered(&mut self, (partition, id, step): Word, granted: bool) {
        let Some(group) = self.groups.get_mut(&partition) else { return };
        let Some(change) = group.change.as_mut().filter(|change| change.id == id) else { return };
        match (step, granted) {
            (Step::Begins, true) => change.stage = Stage::Granted,
            (Step::Begins, false) | (Step::Reached, _) => group.change = None,
        }
    }

    /// A broker deletes its replica: it must not vote.
    pub fn check_delete(&self, partition: TopicPartition, node: NodeId) {
        // Of a topic that is deleted meanwhile everything goes.
        let Some(group) = self.groups.get(&partition) else { return };
        assert!(!group.voters.contains(&node), "{partition}: broker {node} deletes a voter");
    }

    /// When all is over the voters are those that the records name.
    pub fn check_settled(&self, image: &ClusterImage) {
        for (partition, group) in &self.groups {
            let Some(topic) = image.topic(partition.topic) else { continue };
            let mut set = nodes(&topic.partitions[partition.partition.0 as usize]);
            let mut voters = group.voters.clone();
            set.sort_unstable();
            voters.sort_unstable();
            assert_eq!(voters, set, "{partition}: the voters are those that the records name");
        }
    }
}

impl Group {
    fn step(&mut self, partition: TopicPartition, hosts: &[Host], rng: &mut Rng) -> Option<Word> {
        self.elect(partition, hosts, rng);
        let leader = host(hosts, self.leader?);
        self.look(leader, partition.topic, partition.partition);
        let change = self.change.as_mut()?;
        match change.stage {
            Stage::Asking => Some((partition, change.id, Step::Begins)),
            Stage::Reached => Some((partition, change.id, Step::Reached)),
            Stage::Granted => {
                if rng.per_mille(600) {
                    self.change_one(partition, hosts);
                }
                None
            }
        }
    }

    /// Sees that a majority of the voters runs and one of them leads; another one at random.
    fn elect(&mut self, partition: TopicPartition, hosts: &[Host], rng: &mut Rng) {
        let serves = |node: &NodeId| {
            let host = host(hosts, *node);
            host.is_up() && host.open().contains(&partition)
        };
        let able: Vec<NodeId> = self.voters.iter().copied().filter(serves).collect();
        let leads = self.leader.is_some_and(|leader| able.contains(&leader));
        if able.len() * 2 <= self.voters.len() {
            (self.leader, self.change) = (None, None);
        } else if !leads || rng.per_mille(30) {
            (self.leader, self.change) = (Some(*rng.pick(&able)), None);
        }
    }

    /// Takes up the move that the leader's own image, which may be old, tells of.
    fn look(&mut self, leader: &Host, topic: highwater_protocol::ids::TopicId, at: PartitionId) {
        let Some(topic) = leader.image().topic(topic) else { return };
        let (Some(found), Some(aim)) = (topic.move_of(at), topic.aim(at)) else { return };
        if self.change.as_ref().is_none_or(|change| change.id != found.id) {
            self.change = Some(Change { id: found.id, aim: nodes(aim), stage: Stage::Asking });
        }
    }

    /// One newcomer gets its vote, or one that goes loses it.
    fn change_one(&mut self, partition: TopicPartition, hosts: &[Host]) {
        let change = self.change.as_mut().expect("a granted change is there");
        let new = change.aim.iter().find(|node| !self.voters.contains(node));
        if let Some(new) = new {
            let newcomer = host(hosts, *new);
            if newcomer.is_up() && newcomer.open().contains(&partition) {
                self.voters.push(*new);
            }
            return;
        }
        let last = self.voters.iter().rposition(|node| !change.aim.contains(node));
        match last {
            Some(at) => drop(self.voters.remove(at)),
            None => change.stage = Stage::Reached,
        }
        if self.leader.is_some_and(|leader| !self.voters.contains(&leader)) {
            (self.leader, self.change) = (None, None);
        }
    }
}

fn host(hosts: &[Host], node: NodeId) -> &Host {
    &hosts[node.0 as usize - 1]
}
