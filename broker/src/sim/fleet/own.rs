//! What must hold of moves that the controller begins by itself, seen from outside: by who really is
//! away, and since when.

use std::collections::BTreeMap;

use highwater_protocol::ids::NodeId;
use highwater_protocol::native::moves::MoveStage;

use super::host::Host;
use crate::controller::moves::{MoveRecord, Why, nodes};
use crate::controller::{ClusterImage, MetadataRecord, throttle};
use crate::raft::Millis;

/// What all leaders together may send stays within what the cluster and each broker may receive.
pub fn check_rates(image: &ClusterImage) {
    let (mut all, mut to_each) = (0, BTreeMap::<NodeId, u64>::new());
    for (partition, rate) in throttle::learner_rates(image) {
        let topic = image.topic(partition.topic).expect("it moves");
        let found = topic.move_of(partition.partition).expect("it moves");
        let set = nodes(&topic.partitions[partition.partition.0 as usize]);
        let (from, to) = match found.stage {
            MoveStage::GoingBack => (nodes(&found.target), set),
            MoveStage::Running | MoveStage::Waiting => (set, nodes(&found.target)),
        };
        for node in to.into_iter().filter(|node| !from.contains(node)) {
            all += rate;
            *to_each.entry(node).or_default() += rate;
        }
    }
    let may = image.throttle().cluster();
    assert!(may.is_none_or(|may| all <= may), "{all} B/s for all, {may:?} are allowed");
    for (node, may) in image.throttle().brokers() {
        let sum = to_each.get(&node).copied().unwrap_or_default();
        assert!(sum <= may, "{sum} B/s to broker {node}, {may} are allowed");
    }
}

/// Checks the moves of its own among what a look around decided; gives how many it began.
pub fn check(
    before: &ClusterImage,
    records: &[MetadataRecord],
    hosts: &[Host],
    now: Millis,
) -> u64 {
    let after_ms = before.settings().replaces_after_ms().unwrap_or(u64::MAX);
    if records.is_empty() {
        check_returned(before);
    }
    let mut begun = 0;
    for record in records {
        let MetadataRecord::Move(MoveRecord::Because(partition, why)) = record else { continue };
        begun += 1;
        match why {
            Why::Evens(_) => {
                let quiet = before.topics().all(|topic| topic.moving().next().is_none());
                assert!(quiet, "{partition} is evened out amid other moves");
                let away = before.brokers().filter(|broker| broker.fenced);
                let held = |node| {
                    before.topics().any(|topic| {
                        let mut all = topic.partitions.iter().flat_map(|set| set.iter());
                        all.any(|replica| replica.node == node)
                    })
                };
                let mut held = away.filter(|broker| held(broker.registration.node));
                assert!(held.next().is_none(), "{partition} is evened out while a broker is away");
            }
            Why::Replaces(node) => {
                let host = &hosts[node.0 as usize - 1];
                let away_ms = host.down_since().map_or(0, |since| now.0 - since.0);
                assert!(away_ms >= after_ms, "broker {node} is replaced after {away_ms} ms");
            }
        }
    }
    begun
}

/// When a look finds nothing to decide, no move waits to replace a broker that is back.
fn check_returned(image: &ClusterImage) {
    for topic in image.topics() {
        for (number, _) in topic.moving().filter(|(_, it)| it.stage == MoveStage::Waiting) {
            let Some(Why::Replaces(node)) = topic.why_moved(number) else { continue };
            let back = image.broker(node).is_some_and(|broker| !broker.fenced);
            assert!(!back, "{}/{number} waits to replace broker {node}, which is back", topic.name);
        }
    }
}
