//! What the records of a topic are like: how many, how large, of what time, and how they are spread.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use highwater_client::ReceivedRecord;

use super::hot::HotKeys;

/// What was seen of a topic.
#[derive(Debug)]
pub struct Tally {
    /// Records without a key.
    pub keyless: u64,
    /// Records with a key and without a value.
    pub tombstones: u64,
    /// Lengths of keys, of records that have one.
    pub keys: Histogram<u64>,
    /// Lengths of values, of records that have one.
    pub values: Histogram<u64>,
    /// The oldest and the newest timestamp.
    pub times: Option<(i64, i64)>,
    /// What lies where.
    pub partitions: BTreeMap<u32, Share>,
    /// Which keys occur most.
    pub hot: HotKeys,
}

/// What a partition has of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Records.
    pub records: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

impl Tally {
    /// Nothing was seen yet; so many keys are told apart.
    pub fn new(keys_max: usize) -> Tally {
        // Three digits are more than anybody reads.
        let lengths = || Histogram::new(3).expect("three digits are allowed");
        Tally {
            keyless: 0,
            tombstones: 0,
            keys: lengths(),
            values: lengths(),
            times: None,
            partitions: BTreeMap::new(),
            hot: HotKeys::new(keys_max),
        }
    }

    /// A record of this partition.
    pub fn saw(&mut self, partition: u32, record: &ReceivedRecord<'_>) {
        let time = record.timestamp.0;
        let (oldest, newest) = self.times.unwrap_or((time, time));
        self.times = Some((oldest.min(time), newest.max(time)));
        match record.key {
            Some(key) => {
                note(&mut self.keys, key.len());
                self.hot.saw(key, partition);
            }
            None => self.keyless += 1,
        }
        match (record.key, record.value) {
            (_, Some(value)) => note(&mut self.values, value.len()),
            (Some(_), None) => self.tombstones += 1,
            (None, None) => {}
        }
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        let share = self.partitions.entry(partition).or_default();
        share.records += 1;
        share.bytes += bytes as u64;
    }

    /// All of it.
    pub fn total(&self) -> Share {
        self.partitions.values().fold(Share::default(), |sum, it| Share {
            records: sum.records + it.records,
            bytes: sum.bytes + it.bytes,
        })
    }

    /// The partition with the most records.
    pub fn fullest(&self) -> Option<(u32, Share)> {
        let most = self.partitions.iter().max_by_key(|(_, share)| share.records)?;
        Some((*most.0, *most.1))
    }
}

fn note(lengths: &mut Histogram<u64>, length: usize) {
    lengths.record(length as u64).expect("it grows by itself");
}
