//! Gives leadership away: a broker that leads what another one is preferred for hands it over once
//! that one was in sync for a while; a broker that is drained hands over all that it leads at once.
//!
//! Each leader decides for itself, from the image and what it knows of its followers, so nobody has
//! to be asked and nothing is recorded. What must hold: leadership does not flap. The preferred replica
//! must have been in sync and its broker alive through all of a wait, within one term of ours; each
//! try doubles the wait for that partition, until none was needed for a long time; and few are handed
//! over at once, because each costs its producers a moment. Nobody is given anything while it is drained,
//! or what a drain took away would come back by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::ids::{NodeId, Term, TopicPartition};
use highwater_protocol::native::brokers::BrokerDuty;
use highwater_protocol::peer::LeaderNews;
use tokio::time::{MissedTickBehavior, timeout};

use super::Inner;
use crate::controller::ClusterImage;
use crate::controller::image::Broker;
use crate::raft::Millis;
use crate::shard::event::ReplicaCommand;

/// Runs until the node stops.
pub(super) async fn run(node: Arc<Inner>) {
    let mut returns = Returns::new(node.options.me, node.options.leaders_return_after_ms);
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let now = node.shards.of(TopicPartition::CLUSTER).clock().now();
        let due = returns.due(now, node.routes.led_here(), &node.image.load());
        hand_over(&node, due).await;
    }
}

async fn hand_over(node: &Inner, due: Vec<Return>) {
    let asked: Vec<_> = due
        .into_iter()
        .filter_map(|Return { partition, to }| {
            let command = ReplicaCommand::TransferLeader(Some(to));
            // A shard that is too busy is asked again after a longer wait.
            let reply = node.shards.of(partition).admin(partition, command).ok()?;
            Some((partition, to, reply))
        })
        .collect();
    for (partition, to, reply) in asked {
        match timeout(HAND_OVER_MAX, reply).await {
            Ok(Ok(Ok(_))) => tracing::info!(%partition, %to, "gave leadership away"),
            Ok(Ok(Err(error))) => {
                tracing::info!(%partition, %to, %error, "leadership was not taken over");
            }
            Ok(Err(_)) | Err(_) => {
                tracing::info!(%partition, %to, "nobody said whether leadership was taken over");
            }
        }
    }
}

/// A partition to hand over, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Return {
    partition: TopicPartition,
    to: NodeId,
}

/// What this broker leads in the place of others.
struct Returns {
    me: NodeId,
    /// How long the preferred one must have been in sync; `None` gives nothing back.
    after_ms: Option<u64>,
    /// Since when nothing spoke against handing a partition back.
    ready: BTreeMap<TopicPartition, Ready>,
    /// What was handed back, or tried, not long ago.
    tried: BTreeMap<TopicPartition, Tried>,
}

#[derive(Debug, Clone, Copy)]
struct Ready {
    to: NodeId,
    term: Term,
    since: Millis,
}

#[derive(Debug, Clone, Copy)]
struct Tried {
    at: Millis,
    next_wait_ms: u64,
}

impl Returns {
    fn new(me: NodeId, after_ms: Option<u64>) -> Returns {
        Returns { me, after_ms, ready: BTreeMap::new(), tried: BTreeMap::new() }
    }

    /// What is to be handed back now; whoever asks carries it out.
    fn due(&mut self, now: Millis, mut led: Vec<LeaderNews>, image: &ClusterImage) -> Vec<Return> {
        led.sort_by_key(|news| news.partition);
        let before = std::mem::take(&mut self.ready);
        self.tried.retain(|_, tried| now.0.saturating_sub(tried.at.0) < FORGET_MS);
        let mut due = Vec::new();
        // One that is drained does not wait until an heir has proved itself, nor long between tries.
        let drained = is_drained(self.me, image);
        let (after_ms, wait_ms_max) = match drained {
            true => (Some(0), DRAIN_WAIT_MS_MAX),
            false => (self.after_ms.filter(|_| image.settings().leaders_return()), WAIT_MS_MAX),
        };
        for LeaderNews { partition, term, in_sync } in led {
            let preferred = preferred(partition, image).filter(|to| in_sync.contains(to));
            let to = match drained {
                true => preferred.or_else(|| in_sync.iter().copied().find(|to| takes(*to, image))),
                false => preferred,
            };
            let (Some(to), Some(after_ms)) = (to.filter(|to| *to != self.me), after_ms) else {
                continue;
            };
            let fresh = Ready { to, term, since: now };
            let known = before.get(&partition).filter(|known| (known.to, known.term) == (to, term));
            let ready = known.copied().unwrap_or(fresh);
            self.ready.insert(partition, ready);
            let wait_ms = self.tried.get(&partition).map_or(after_ms, |tried| tried.next_wait_ms);
            let waited = now.0.saturating_sub(ready.since.0) >= wait_ms.min(wait_ms_max);
            if waited && due.len() < AT_ONCE_MAX {
                let next_wait_ms = (wait_ms * 2).clamp(WAIT_MS_MIN, WAIT_MS_MAX);
                self.tried.insert(partition, Tried { at: now, next_wait_ms });
                self.ready.insert(partition, fresh);
                due.push(Return { partition, to });
            }
        }
        due
    }
}

/// The broker that should lead a partition, if it can: the first that is not drained.
fn preferred(partition: TopicPartition, image: &ClusterImage) -> Option<NodeId> {
    let topic = image.topic(partition.topic)?;
    let set = topic.partitions.get(partition.partition.0 as usize)?;
    let first = set.iter().map(|replica| replica.node).find(|node| !is_drained(*node, image))?;
    takes(first, image).then_some(first)
}

fn takes(node: NodeId, image: &ClusterImage) -> bool {
    image.broker(node).is_some_and(Broker::takes_work)
}

fn is_drained(node: NodeId, image: &ClusterImage) -> bool {
    image.broker(node).is_some_and(|broker| match broker.duty {
        BrokerDuty::Active => false,
        BrokerDuty::Draining | BrokerDuty::Leaving => true,
    })
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
const AT_ONCE_MAX: usize = 8;
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// A drained broker tries again after this time at the earliest.
const WAIT_MS_MIN: u64 = 100;
/// However often it was in vain, another try comes within this time.
const WAIT_MS_MAX: u64 = 600_000;
/// Somebody waits for a drained broker to lead nothing.
const DRAIN_WAIT_MS_MAX: u64 = 1_000;
/// After this long, the first wait is the short one again.
const FORGET_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{DirectoryId, Incarnation, PartitionId, TopicId};
    use highwater_protocol::native::settings::SettingScope;
    use uuid::Uuid;

    use super::*;
    use crate::controller::MetadataRecord;
    use crate::controller::brokers::BrokerRecord;
    use crate::controller::record::{BrokerRegistration, PlacedReplica};

    const TOPIC: TopicId = TopicId(Uuid::from_u128(7));
    const ME: NodeId = NodeId(1);

    /// Broker 2 is preferred for every partition, broker 1 has the other replica.
    fn image(partitions: usize) -> ClusterImage {
        let directory = DirectoryId(Uuid::nil());
        let register = |node| {
            MetadataRecord::RegisterBroker(BrokerRegistration {
                node: NodeId(node),
                incarnation: Incarnation(1),
                directory,
                rack: None,
                client_address: String::new(),
                peer_address: String::new(),
            })
        };
        let place = |node| PlacedReplica { node: NodeId(node), directory };
        let (name, configs) = ("orders".to_string(), Vec::new());
        let (first, sets) = (PartitionId(0), vec![vec![place(2), place(1)]; partitions]);
        let mut image = ClusterImage::default();
        for record in [
            register(1),
            register(2),
            MetadataRecord::CreateTopic { id: TOPIC, name, configs },
            MetadataRecord::CreatePartitions { topic: TOPIC, first, partitions: sets },
        ] {
            image.apply(&record).expect("fits");
        }
        image
    }

    fn led(partitions: u32, term: u32, in_sync: &[u32]) -> Vec<LeaderNews> {
        let news = |number| LeaderNews {
            partition: TopicPartition::new(TOPIC, PartitionId(number)),
            term: Term(term),
            in_sync: in_sync.iter().copied().map(NodeId).collect(),
        };
        (0..partitions).rev().map(news).collect()
    }

    #[test]
    fn leadership_goes_back_after_the_preferred_one_was_in_sync_for_a_while() {
        let (image, mut returns) = (image(1), Returns::new(ME, Some(100)));
        let mut due = |now, in_sync: &[u32]| returns.due(Millis(now), led(1, 3, in_sync), &image);
        assert_eq!(due(0, &[1, 2]), []);
        assert_eq!(due(99, &[1]), [], "it fell behind, and the wait begins again");
        assert_eq!(due(150, &[1, 2]), []);
        assert_eq!(due(249, &[1, 2]), []);
        let partition = TopicPartition::new(TOPIC, PartitionId(0));
        assert_eq!(due(250, &[1, 2]), [Return { partition, to: NodeId(2) }]);
    }

    #[test]
    fn each_try_makes_the_next_wait_longer_and_a_new_term_begins_it_anew() {
        let (image, mut returns) = (image(1), Returns::new(ME, Some(100)));
        let mut tries = |now, term| returns.due(Millis(now), led(1, term, &[1, 2]), &image).len();
        let seen: Vec<_> = [0, 100, 299, 300, 699, 700].map(|now| tries(now, 3)).into();
        assert_eq!(seen, [0, 1, 0, 1, 0, 1]);
        assert_eq!([1_500, 1_501].map(|now| tries(now, 3)), [1, 0]);
        assert_eq!([2_000, 3_599, 3_600].map(|now| tries(now, 5)), [0, 0, 1]);
        let later = 3_600 + FORGET_MS;
        assert_eq!([later, later + 100].map(|now| tries(now, 7)), [0, 1], "all is forgotten");
    }

    #[test]
    fn while_balancing_is_off_nothing_goes_back_and_the_wait_begins_when_it_is_on() {
        let (mut image, mut returns) = (image(1), Returns::new(ME, Some(100)));
        let mut due =
            |now, image: &ClusterImage| returns.due(Millis(now), led(1, 3, &[1, 2]), image);
        let balance = |value: &str| {
            let configs = vec![("leader.balance".to_string(), value.to_string())];
            MetadataRecord::AlterSettings { scope: SettingScope::Cluster, configs }
        };
        image.apply(&balance("off")).expect("fits");
        assert_eq!([0, 100, 10_000].map(|now| due(now, &image).len()), [0, 0, 0]);
        image.apply(&balance("on")).expect("fits");
        assert_eq!([10_001, 10_100, 10_101].map(|now| due(now, &image).len()), [0, 0, 1]);
    }

    #[test]
    fn a_drained_broker_gives_up_what_it_leads_while_balancing_is_off_and_after_many_tries() {
        let (mut image, mut returns) = (image(1), Returns::new(ME, Some(10_000)));
        let mut due =
            |now, image: &ClusterImage| returns.due(Millis(now), led(1, 3, &[1, 2]), image).len();
        assert_eq!([0, 10_000].map(|now| due(now, &image)), [0, 1]);
        let configs = vec![("leader.balance".to_string(), "off".to_string())];
        let off = MetadataRecord::AlterSettings { scope: SettingScope::Cluster, configs };
        image.apply(&off).expect("fits");
        set_duty(&mut image, 1, BrokerDuty::Draining);
        assert_eq!(
            [10_500, 11_500].map(|now| due(now, &image)),
            [0, 1],
            "not after twenty seconds"
        );
    }

    #[test]
    fn a_fenced_broker_gets_nothing_and_few_partitions_go_at_once() {
        let (mut image, mut returns) = (image(20), Returns::new(ME, Some(100)));
        let mut due = |now, image: &ClusterImage| {
            let due = returns.due(Millis(now), led(20, 3, &[1, 2]), image);
            due.iter().map(|given| given.partition.partition.0).collect::<Vec<_>>()
        };
        assert!(due(0, &image).is_empty());
        assert_eq!(due(100, &image), (0..8).collect::<Vec<_>>());
        assert_eq!(due(150, &image), (8..16).collect::<Vec<_>>());
        let fence = MetadataRecord::FenceBroker { node: NodeId(2), fenced: true };
        image.apply(&fence).expect("fits");
        assert!(due(1_000, &image).is_empty());
    }

    fn set_duty(image: &mut ClusterImage, node: u32, duty: BrokerDuty) {
        let record = MetadataRecord::Broker(BrokerRecord::SetDuty(NodeId(node), duty));
        image.apply(&record).expect("fits");
    }

    #[test]
    fn a_drained_broker_gives_up_all_it_leads_to_whoever_is_in_sync_and_nobody_gives_it_back() {
        let (mut image, mut returns) = (image(10), Returns::new(ME, None));
        let partition = TopicPartition::new(TOPIC, PartitionId(0));
        let mut due = |now, image: &ClusterImage, in_sync: &[u32]| {
            returns.due(Millis(now), led(10, 3, in_sync), image)
        };
        assert_eq!(due(0, &image, &[1, 2]), [], "nothing is given back here");
        set_duty(&mut image, 1, BrokerDuty::Draining);
        assert_eq!(due(1, &image, &[1]), [], "nobody else has everything");
        let first = due(2, &image, &[1, 2]);
        assert_eq!((first.len(), first[0]), (8, Return { partition, to: NodeId(2) }));
        assert_eq!(due(3, &image, &[1, 2]).len(), 2);
        assert_eq!(due(150, &image, &[1, 2]).len(), 8, "what was in vain is tried again");
        set_duty(&mut image, 2, BrokerDuty::Leaving);
        assert_eq!(due(900, &image, &[1, 2]), [], "both are drained");

        let mut returns = Returns::new(ME, Some(100));
        set_duty(&mut image, 1, BrokerDuty::Active);
        let mut due =
            |now, image: &ClusterImage| returns.due(Millis(now), led(1, 3, &[1, 2]), image).len();
        assert_eq!([due(0, &image), due(500, &image)], [0, 0], "2 is drained");
        set_duty(&mut image, 2, BrokerDuty::Active);
        assert_eq!([due(600, &image), due(700, &image)], [0, 1]);
    }
}
