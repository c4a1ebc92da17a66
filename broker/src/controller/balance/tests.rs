//! Plans on small clusters with numbers that can be checked by hand, and on any cluster by their properties.

use std::collections::BTreeSet;

use highwater_protocol::ids::{PartitionId, TopicId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::controller::placement;
use crate::controller::record::{MetadataRecord, PlacedReplica};

const MIB: u64 = 1024 * 1024;

fn hosts(count: u32, racks: u32) -> Vec<Host> {
    let host = |at: u32| Host {
        node: NodeId(at + 1),
        rack: (racks > 0).then(|| format!("rack-{}", at % racks)),
        takes: Takes::Replicas,
    };
    (0..count).map(host).collect()
}

/// Partitions of several topics, placed as the controller places them on the first brokers.
fn placed(
    hosts: &[Host],
    topics: u128,
    partitions: usize,
    bytes: impl Fn(usize) -> u64,
) -> Vec<Placed> {
    let mut candidates: Vec<placement::Candidate> = hosts
        .iter()
        .map(|host| placement::Candidate {
            node: host.node,
            rack: host.rack.clone(),
            replicas: 0,
            leaders: 0,
        })
        .collect();
    let mut placed = Vec::new();
    for topic in 0..topics {
        let topic = TopicId(Uuid::from_u128(topic));
        let first = PartitionId(0);
        let wanted = placement::Wanted { topic, first, partitions, replication: 3 };
        for (number, replicas) in (0u32..).zip(placement::assign(wanted, &candidates)) {
            for (at, node) in replicas.iter().enumerate() {
                let candidate = candidates.iter_mut().find(|candidate| candidate.node == *node);
                let candidate = candidate.expect("placed on a candidate");
                candidate.replicas += 1;
                candidate.leaders += usize::from(at == 0);
            }
            let partition = TopicPartition::new(topic, PartitionId(number));
            let bytes = bytes(placed.len());
            placed.push(Placed {
                partition,
                replicas,
                bytes,
                load: Load::default(),
                movable: Movable::Yes,
            });
        }
    }
    placed
}

/// Replicas and bytes that a plan copies, and to whom.
fn copied(partitions: &[Placed], plan: &[PlannedMove]) -> (usize, u64, BTreeSet<NodeId>) {
    let (mut replicas, mut bytes, mut to) = (0, 0, BTreeSet::new());
    for planned in plan {
        let at = partitions.iter().find(|at| at.partition == planned.partition);
        for node in planned.to.iter().filter(|node| !planned.from.contains(node)) {
            replicas += 1;
            bytes += at.expect("a plan is about what is there").bytes;
            to.insert(*node);
        }
    }
    (replicas, bytes, to)
}

fn spread(values: impl Iterator<Item = usize> + Clone) -> usize {
    values.clone().max().unwrap_or(0) - values.min().unwrap_or(0)
}

#[test]
fn a_broker_that_is_added_gets_its_share_of_the_data_and_nothing_else_moves() {
    // 300 partitions of 1 to 20 MiB, three replicas each: 900 replicas on ten brokers, then eleven.
    let size = |number: usize| (1 + number as u64 * 7 % 20) * MIB;
    for racks in [0, 5] {
        let ten = hosts(10, racks);
        let before = placed(&ten, 10, 30, size);
        assert_eq!(plan(&ten, &before), [], "what was just placed is even");
        let eleven = hosts(11, racks);
        let plan = plan(&eleven, &before);
        let (replicas, bytes, to) = copied(&before, &plan);
        let total: u64 = before.iter().map(|at| 3 * at.bytes).sum();
        assert_eq!((replicas, to), (900 / 11, BTreeSet::from([NodeId(11)])));
        let share = total / 11;
        assert!(bytes.abs_diff(share) <= share / 10, "{bytes} moved, a share is {share}");
        let after = shares(&eleven, &carried_out(&before, &plan));
        assert!(spread(after.iter().map(|share| share.replicas)) <= 2);
        assert!(spread(after.iter().map(|share| share.leaders)) <= 1);
    }
}

#[test]
fn a_broker_that_takes_nothing_gets_nothing_and_what_moves_is_left_alone() {
    let mut six = hosts(6, 0);
    let mut before = placed(&six[..4], 3, 20, |_| MIB);
    six[5].takes = Takes::Nothing;
    for at in before.iter_mut().step_by(2) {
        at.movable = Movable::No;
    }
    let plan = plan(&six, &before);
    let fixed = |planned: &PlannedMove| {
        before.iter().any(|at| at.partition == planned.partition && at.movable == Movable::No)
    };
    assert!(!plan.is_empty() && !plan.iter().any(fixed));
    assert_eq!(copied(&before, &plan).2, BTreeSet::from([NodeId(5)]));
}

#[test]
fn replicas_that_share_a_rack_are_parted() {
    let four = hosts(4, 2);
    let at = |number, nodes: [u32; 2]| Placed {
        partition: TopicPartition::new(TopicId(Uuid::nil()), PartitionId(number)),
        replicas: nodes.into_iter().map(NodeId).collect(),
        bytes: MIB,
        load: Load::default(),
        movable: Movable::Yes,
    };
    // Brokers 1 and 3 share a rack, and so do 2 and 4.
    let before = [at(0, [1, 3]), at(1, [2, 4]), at(2, [1, 2])];
    for placed in carried_out(&before, &plan(&four, &before)) {
        let racks: BTreeSet<u32> = placed.replicas.iter().map(|node| node.0 % 2).collect();
        assert_eq!(racks.len(), 2, "{placed:?}");
    }
}

#[test]
fn a_broker_with_as_many_but_larger_replicas_exchanges_some_for_smaller_ones() {
    let four = hosts(4, 0);
    let at = |number: u32| Placed {
        partition: TopicPartition::new(TopicId(Uuid::nil()), PartitionId(number)),
        replicas: vec![NodeId(number % 4 + 1)],
        bytes: if number.is_multiple_of(4) { 100 * MIB } else { MIB },
        load: Load::default(),
        movable: Movable::Yes,
    };
    let before: Vec<Placed> = (0..40).map(at).collect();
    let plan = plan(&four, &before);
    let after = shares(&four, &carried_out(&before, &plan));
    assert!(after.iter().all(|share| share.replicas == 10), "{after:?}");
    let mean = 1030 * MIB / 4;
    assert!(after.iter().all(|share| share.bytes.abs_diff(mean) <= mean * 3 / 10), "{after:?}");
    assert!(copied(&before, &plan).1 <= 800 * MIB, "seven large ones leave, seven small ones come");
}

fn rate(bytes_in_per_s: u64, bytes_out_per_s: u64) -> Load {
    Load { bytes_in_per_s, bytes_out_per_s }
}

/// The most that a broker has, in percent of the mean.
fn most(hosts: &[Host], partitions: &[Placed], of: impl Fn(&Share) -> u64) -> u64 {
    let all: Vec<u64> = shares(hosts, partitions).iter().map(of).collect();
    let mean = all.iter().sum::<u64>() / all.len() as u64;
    100 * all.iter().max().copied().unwrap_or_default() / mean.max(1)
}

/// Twelve brokers in three racks, 120 quiet partitions of three replicas each, and a topic of four
/// that all came to lie on the same three brokers, where one leads them all.
fn hot_topic(twelve: &[Host]) -> Vec<Placed> {
    let mut before = placed(twelve, 4, 30, |number| (10 + number as u64 % 7) * MIB);
    before.iter_mut().for_each(|at| at.load = rate(20 * 1024, 20 * 1024));
    let hot = TopicId(Uuid::from_u128(99));
    for number in 0..4 {
        let replicas = [1, 2, 3].map(NodeId).to_vec();
        let partition = TopicPartition::new(hot, PartitionId(number));
        let (bytes, load, movable) = (12 * MIB, rate(10 * MIB, 30 * MIB), Movable::Yes);
        before.push(Placed { partition, replicas, bytes, load, movable });
    }
    before
}

#[test]
fn a_hot_topic_of_few_partitions_is_spread_over_many_brokers() {
    let twelve = hosts(12, 3);
    let before = hot_topic(&twelve);
    let plan = plan(&twelve, &before);
    let after = carried_out(&before, &plan);
    // Twelve hot replicas, of which four lead: one for each broker is the best that there is.
    let writes = |at: &[Placed]| most(&twelve, at, |share| share.write_load);
    let leading = |at: &[Placed]| most(&twelve, at, |share| share.leader_load);
    assert_eq!((writes(&before), writes(&after)), (383, 100));
    assert_eq!((leading(&before), leading(&after)), (1162, 292));
    let counts = shares(&twelve, &after);
    assert!(spread(counts.iter().map(|share| share.replicas)) <= 1, "{counts:?}");
    assert!(spread(counts.iter().map(|share| share.leaders)) <= 1, "{counts:?}");
    assert!(most(&twelve, &after, |share| share.bytes) <= 110);
    // Nine hot replicas go elsewhere, and no more than nine quiet ones come back for them; the counts
    // that the new topic put out of line take a few more.
    let (replicas, _, _) = copied(&before, &plan);
    assert!(replicas <= 26, "{replicas} replicas are copied");
}

#[test]
fn rates_that_vary_a_little_are_no_reason_to_move_anything() {
    let twelve = hosts(12, 3);
    let mut even = placed(&twelve, 4, 30, |_| MIB);
    even.iter_mut().for_each(|at| at.load = rate(MIB, MIB));
    let even = carried_out(&even, &plan(&twelve, &even));
    for seed in 0..50usize {
        let mut measured = even.clone();
        for (number, at) in measured.iter_mut().enumerate() {
            // Each is measured a fifth higher or lower, by chance.
            let off = (number * 2_654_435_761 + seed * 40_503) >> 7;
            let percent = 80 + (off % 41) as u64;
            at.load = rate(MIB * percent / 100, MIB * percent / 100);
        }
        assert_eq!(plan(&twelve, &measured), [], "seed {seed}");
    }
}

#[test]
fn a_lone_hot_partition_is_left_where_it_is() {
    let six = hosts(6, 3);
    let mut before = placed(&six, 2, 6, |_| MIB);
    before[3].load = rate(100 * MIB, 100 * MIB);
    assert_eq!(plan(&six, &before), [], "every broker that got it would carry as much");
}

proptest! {
    #[test]
    fn any_placement_is_evened_out_once_and_no_rack_gets_more(
        count in 3u32..9, racks in 0u32..4, idle in 0usize..2, busy in 0u64..3,
        sets in prop::collection::vec(
            (prop::array::uniform3(0u32..64), 0u64..64, 0u64..9, 0u64..9), 1..60
        ),
    ) {
        let mut hosts = hosts(count, racks);
        hosts[0].takes = if idle == 0 { Takes::Replicas } else { Takes::Nothing };
        let mut before = Vec::new();
        for (number, (picks, bytes, written, read)) in (0u32..).zip(sets) {
            let mut replicas: Vec<NodeId> = Vec::new();
            for pick in picks {
                let mut node = pick % count;
                while replicas.contains(&NodeId(node + 1)) { node = (node + 1) % count; }
                replicas.push(NodeId(node + 1));
            }
            let partition = TopicPartition::new(TopicId(Uuid::nil()), PartitionId(number));
            // Most write little, and some very much.
            let load = rate(busy * (MIB << written) / 16, busy * (MIB << read) / 16);
            before.push(Placed { partition, replicas, bytes: bytes * MIB, load, movable: Movable::Yes });
        }
        let planned = plan(&hosts, &before);
        let after = carried_out(&before, &planned);
        for (old, new) in before.iter().zip(&after) {
            let crowd = |set: &[NodeId]| {
                let rack = |node: &NodeId| &hosts[node.0 as usize - 1].rack;
                let same = |node| set.iter().filter(|other| rack(other) == rack(node)).count();
                if racks == 0 { 1 } else { set.iter().map(same).max().unwrap_or(0) }
            };
            prop_assert!(crowd(&new.replicas) <= crowd(&old.replicas));
            let distinct: BTreeSet<&NodeId> = new.replicas.iter().collect();
            prop_assert_eq!(distinct.len(), 3);
            let came = new.replicas.contains(&NodeId(1)) && !old.replicas.contains(&NodeId(1));
            prop_assert!(!came || hosts[0].takes == Takes::Replicas);
        }
        // Racks come before counts, so that only without them all can be even.
        let is = shares(&hosts, &after);
        let uneven = spread(is.iter().map(|share| share.replicas));
        prop_assert!(racks > 0 || uneven <= 1, "{:?}", is);
        prop_assert_eq!(plan(&hosts, &after), []);
    }

    /// What comes later in a plan takes nothing back: with the same brokers and sizes, loads put no
    /// broker further off in bytes than a plan without them may leave it.
    #[test]
    fn loads_change_neither_counts_nor_put_bytes_out_of_their_tenth(
        count in 3u32..9, racks in 0u32..4,
        partitions in prop::collection::vec((1u64..8, 0u64..9, 0u64..9), 12..80),
    ) {
        let hosts = hosts(count, racks);
        let mut quiet = placed(&hosts, 1, partitions.len(), |number| partitions[number].0 * MIB);
        quiet = carried_out(&quiet, &plan(&hosts, &quiet));
        let mut busy = quiet.clone();
        for (at, (_, written, read)) in busy.iter_mut().zip(&partitions) {
            at.load = rate(MIB << written, MIB << read);
        }
        let after = carried_out(&busy, &plan(&hosts, &busy));
        let (was, is) = (shares(&hosts, &busy), shares(&hosts, &after));
        let counts = |of: fn(&Share) -> usize, shares: &[Share]| spread(shares.iter().map(of));
        prop_assert!(counts(|share| share.replicas, &is) <= counts(|share| share.replicas, &was).max(1));
        prop_assert!(counts(|share| share.leaders, &is) <= counts(|share| share.leaders, &was).max(1));
        let mean = was.iter().map(|share| share.bytes).sum::<u64>() / was.len() as u64;
        let beyond = |share: &Share| share.bytes.abs_diff(mean).saturating_sub(mean / 10);
        let sum = |shares: &[Share]| shares.iter().map(beyond).sum::<u64>();
        prop_assert!(sum(&is) <= sum(&was), "{:?} {:?}", was, is);
        let squares = |shares: &[Share]| -> u128 {
            shares.iter().map(|share| u128::from(share.write_load).pow(2)).sum()
        };
        prop_assert!(squares(&is) <= squares(&was), "what is written is no less even");
    }
}

#[test]
fn a_plan_that_is_carried_out_by_a_few_partitions_at_a_time_comes_to_an_end() {
    let twelve = hosts(12, 3);
    for aim in [Aim::Leaders, Aim::All] {
        let mut now = hot_topic(&twelve);
        for round in 0.. {
            let some = first_steps(&twelve, &now, aim, 3);
            if some.is_empty() {
                break;
            }
            assert!(some.len() <= 4 && round < 60, "round {round}: {} change", some.len());
            let copies = copied(&now, &some).0;
            assert!(copies == 0 || aim == Aim::All, "who leads changes without a copy");
            now = carried_out(&now, &some);
        }
        assert_eq!(first_steps(&twelve, &now, aim, usize::MAX), [], "nothing is left to plan");
    }
}

/// Sizes and loads come from whoever asks.
#[test]
fn sizes_and_loads_that_nobody_has_do_not_overflow() {
    let mut image = ClusterImage::default();
    let directory = highwater_protocol::ids::DirectoryId(Uuid::from_u128(1));
    let place = |node| PlacedReplica { node: NodeId(node), directory };
    let topic = TopicId(Uuid::from_u128(7));
    let first = PartitionId(0);
    let partitions = vec![vec![place(1), place(2)]; 8];
    let create = MetadataRecord::CreateTopic { id: topic, name: "t".into(), configs: Vec::new() };
    image.apply(&create).expect("fits");
    let create = MetadataRecord::CreatePartitions { topic, first, partitions };
    image.apply(&create).expect("fits");
    let at = |number| TopicPartition::new(topic, PartitionId(number));
    let sizes: Vec<_> = (0..8).map(|number| (at(number), u64::MAX)).collect();
    let loads: Vec<_> = (0..8).map(|number| (at(number), rate(u64::MAX, u64::MAX))).collect();
    let (hosts, placed) = inputs(&image, &sizes, &loads);
    plan(&hosts, &placed);
    shares(&hosts, &placed);
}
