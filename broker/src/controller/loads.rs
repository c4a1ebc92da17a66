//! What brokers say of the partitions that they lead: how large they are, and what clients do to them.
//!
//! Each broker says so once a minute, over that minute, while `balance.auto` is on. What counts of a
//! partition is the middle of its last nine minutes: neither a burst nor a pause of four changes it.
//! What must hold: nothing counts that was not heard for the whole time; of what is not in the image
//! nothing is kept, so that this is no larger than the cluster. Made anew with every term of the
//! controller. Pure.

use std::collections::{BTreeMap, VecDeque};

use highwater_protocol::ids::{NodeId, PartitionId, TopicId, TopicPartition};
use highwater_protocol::native::balance::Load;
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use uuid::Uuid;

use crate::controller::image::{Broker, ClusterImage};
use crate::mutant::{self, Mutant};
use crate::raft::Millis;

/// What a broker says of some of the partitions that it leads; one that leads none says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Who.
    pub node: NodeId,
    /// Partitions that it has led for the whole minute.
    pub led: Vec<PartitionLoad>,
}

/// A partition as its leader saw it over a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLoad {
    /// Which one.
    pub partition: TopicPartition,
    /// The bytes of its log.
    pub bytes: u64,
    /// What clients did to it.
    pub load: Load,
}

/// What all brokers said.
#[derive(Debug, Clone, Default)]
pub struct Loads {
    /// Since when each broker has said something every minute, and when last.
    heard: BTreeMap<NodeId, (Millis, Millis)>,
    known: BTreeMap<TopicPartition, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    at: Millis,
    bytes: u64,
    minutes: VecDeque<Load>,
}

impl Loads {
    /// Takes in a report.
    pub fn hear(&mut self, image: &ClusterImage, report: &LoadReport, now: Millis) {
        if image.broker(report.node).is_none() {
            return;
        }
        let (since, last) = self.heard.entry(report.node).or_insert((now, now));
        if age(now, *last) > STALE_MS {
            *since = now;
        }
        *last = now;
        for told in &report.led {
            let PartitionLoad { partition, bytes, load } = *told;
            let topic = image.topic(partition.topic);
            if topic.is_none_or(|it| it.partitions.len() <= partition.partition.0 as usize) {
                continue;
            }
            let new = || Known { at: now, bytes, minutes: VecDeque::new() };
            let known = self.known.entry(partition).or_insert_with(new);
            if age(now, known.at) > STALE_MS {
                known.minutes.clear();
            } else if age(now, known.at) < REPORT_EVERY_MS / 2 {
                // The same minute once more: a command may be carried out twice.
                known.minutes.pop_back();
            }
            (known.at, known.bytes) = (now, bytes);
            known.minutes.push_back(load);
            if known.minutes.len() > MINUTES {
                known.minutes.pop_front();
            }
        }
    }

    /// Lets go of what is not in the image any more, or has not been heard for long.
    pub fn forget(&mut self, image: &ClusterImage, now: Millis) {
        self.heard
            .retain(|node, (_, last)| image.broker(*node).is_some() && age(now, *last) <= STALE_MS);
        self.known.retain(|partition, known| {
            image.topic(partition.topic).is_some() && age(now, known.at) <= STALE_MS
        });
    }

    /// Whether every broker that takes work has been heard for the whole time.
    pub fn are_whole(&self, image: &ClusterImage, now: Millis) -> bool {
        let whole = |broker: &Broker| {
            self.heard.get(&broker.registration.node).is_some_and(|(since, last)| {
                age(now, *since) >= (MINUTES as u64 - 1) * REPORT_EVERY_MS
                    && age(now, *last) <= STALE_MS
            })
        };
        let mut alive = image.brokers().filter(|broker| broker.takes_work());
        mutant::active(Mutant::BurstsCount) || alive.all(whole)
    }

    /// The size of each partition that was heard of.
    pub fn sizes(&self) -> Vec<(TopicPartition, u64)> {
        self.known.iter().map(|(partition, known)| (*partition, known.bytes)).collect()
    }

    /// The load of each partition that has been heard of for the whole time; of others nothing is known.
    pub fn loads(&self) -> Vec<(TopicPartition, Load)> {
        let known = self.known.iter();
        known.filter_map(|(partition, known)| Some((*partition, known.load()?))).collect()
    }
}

impl Known {
    /// The middle of the minutes.
    fn load(&self) -> Option<Load> {
        if mutant::active(Mutant::BurstsCount) {
            return self.minutes.back().copied();
        }
        let middle = |of: fn(&Load) -> u64| {
            let mut all: Vec<u64> = self.minutes.iter().map(of).collect();
            all.sort_unstable();
            all[MINUTES / 2]
        };
        (self.minutes.len() == MINUTES).then(|| Load {
            bytes_in_per_s: middle(|load| load.bytes_in_per_s),
            bytes_out_per_s: middle(|load| load.bytes_out_per_s),
        })
    }
}

impl LoadReport {
    /// Writes the fields one after another.
    pub fn encode(&self, out: &mut Writer) {
        out.u32(self.node.0);
        out.list(&self.led, |out, told| {
            out.u128(told.partition.topic.0.as_u128());
            out.u32(told.partition.partition.0);
            let Load { bytes_in_per_s, bytes_out_per_s } = told.load;
            for number in [told.bytes, bytes_in_per_s, bytes_out_per_s] {
                out.uvarint(number);
            }
        });
    }

    /// Reads what `encode` wrote.
    pub fn decode(input: &mut Reader<'_>) -> Result<LoadReport, DecodeError> {
        let node = NodeId(input.u32()?);
        let led = input.list("loads", PARTITION_BYTES_MIN, |input| {
            let topic = TopicId(Uuid::from_u128(input.u128()?));
            let partition = TopicPartition::new(topic, PartitionId(input.u32()?));
            let bytes = input.uvarint()?;
            let (bytes_in_per_s, bytes_out_per_s) = (input.uvarint()?, input.uvarint()?);
            let load = Load { bytes_in_per_s, bytes_out_per_s };
            Ok(PartitionLoad { partition, bytes, load })
        })?;
        Ok(LoadReport { node, led })
    }
}

fn age(now: Millis, then: Millis) -> u64 {
    now.0.saturating_sub(then.0)
}

/// How often brokers say what they lead.
pub const REPORT_EVERY_MS: u64 = 60_000;
/// Minutes of which the middle counts.
const MINUTES: usize = 9;
/// Who was not heard for so long is begun anew.
const STALE_MS: u64 = 3 * REPORT_EVERY_MS;
/// A partition and three numbers.
const PARTITION_BYTES_MIN: usize = 20 + 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::record::{BrokerRegistration, MetadataRecord, PlacedReplica};
    use highwater_protocol::ids::{DirectoryId, Incarnation};

    const AT: TopicPartition =
        TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: PartitionId(0) };
    const MINUTE: u64 = REPORT_EVERY_MS;

    fn image() -> ClusterImage {
        let directory = DirectoryId(Uuid::from_u128(1));
        let registration = BrokerRegistration {
            node: NodeId(1),
            incarnation: Incarnation(1),
            directory,
            rack: None,
            client_address: String::new(),
            peer_address: String::new(),
        };
        let (topic, first) = (AT.topic, AT.partition);
        let partitions = vec![vec![PlacedReplica { node: NodeId(1), directory }]];
        let mut image = ClusterImage::default();
        for record in [
            MetadataRecord::RegisterBroker(registration),
            MetadataRecord::CreateTopic { id: topic, name: "t".into(), configs: Vec::new() },
            MetadataRecord::CreatePartitions { topic, first, partitions },
        ] {
            image.apply(&record).expect("it fits");
        }
        image
    }

    fn report(partition: TopicPartition, rate: u64) -> LoadReport {
        let load = Load { bytes_in_per_s: rate, bytes_out_per_s: 0 };
        LoadReport { node: NodeId(1), led: vec![PartitionLoad { partition, bytes: 5, load }] }
    }

    /// What counts after a minute of each of these rates.
    fn after(rates: &[u64]) -> Option<u64> {
        let (image, mut loads) = (image(), Loads::default());
        for (minute, rate) in (1u64..).zip(rates) {
            loads.hear(&image, &report(AT, *rate), Millis(minute * MINUTE));
        }
        let found = loads.loads();
        found.first().map(|(_, load)| load.bytes_in_per_s)
    }

    #[test]
    fn the_middle_of_nine_minutes_counts_and_nothing_before() {
        assert_eq!(after(&[9; 8]), None);
        assert_eq!(after(&[9; 9]), Some(9));
        assert_eq!(
            after(&[9, 9, 9, 9, 9, 500, 500, 500, 500]),
            Some(9),
            "four minutes are a burst"
        );
        assert_eq!(after(&[9, 9, 9, 9, 500, 500, 500, 500, 500]), Some(500), "five are none");
        assert_eq!(after(&[9, 0, 0, 9, 9, 0, 0, 9, 9]), Some(9), "nor do pauses count");
    }

    #[test]
    fn who_was_silent_begins_anew_and_a_report_that_comes_twice_is_one() {
        let (image, mut loads) = (image(), Loads::default());
        for minute in 1..=9 {
            for late_ms in [0, 900] {
                loads.hear(&image, &report(AT, minute), Millis(minute * MINUTE + late_ms));
            }
            assert_eq!(loads.are_whole(&image, Millis(minute * MINUTE + 900)), minute == 9);
            assert_eq!(loads.loads().len(), usize::from(minute == 9));
        }
        loads.forget(&image, Millis(12 * MINUTE));
        assert!(loads.are_whole(&image, Millis(12 * MINUTE)));
        loads.hear(&image, &report(AT, 9), Millis(13 * MINUTE));
        assert!(!loads.are_whole(&image, Millis(13 * MINUTE)), "three minutes are too long");
        loads.forget(&image, Millis(17 * MINUTE));
        assert!(loads.known.is_empty() && loads.heard.is_empty());
    }

    #[test]
    fn of_what_is_not_there_nothing_is_kept() {
        let (image, mut loads) = (image(), Loads::default());
        for (topic, number) in [(7, 1), (7, u32::MAX), (8, 0)] {
            let topic = TopicId(Uuid::from_u128(topic));
            let partition = TopicPartition::new(topic, PartitionId(number));
            loads.hear(&image, &report(partition, 1), Millis(1));
        }
        assert!(loads.known.is_empty());
    }
}
