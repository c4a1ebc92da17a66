//! Brokers that read what lies on their disks, as one does in the background.

use highwater_protocol::ids::TopicPartition;

use crate::log::ScrubPlace;
use crate::sim::cluster::{Cluster, Happening};

impl Cluster {
    /// A broker reads all of its logs. Those in which nothing is rotten may be spoilt again.
    pub(super) fn scrub(&mut self, node: usize) {
        self.schedule(self.now_us + SCRUB_EVERY_US, Happening::Scrub(node));
        let broker = &mut self.nodes[node];
        if broker.disk.is_dead() {
            return;
        }
        let mut sound: Vec<TopicPartition> = Vec::new();
        for (partition, reader) in &broker.readers {
            let replica = broker.shard.as_ref().and_then(|shard| shard.replica(*partition));
            let (mut place, mut faulty) = (Some(ScrubPlace::default()), 0);
            while let Some(from) = place {
                // What was trimmed meanwhile cannot be read, and need not be.
                let Ok(scrubbed) = reader.scrub(from, 1 << 20) else {
                    faulty += 1;
                    break;
                };
                (place, faulty) = (scrubbed.next, faulty + scrubbed.faulty);
            }
            if faulty == 0 && replica.is_some_and(|replica| !replica.log().is_faulty()) {
                sound.push(*partition);
            }
        }
        for partition in sound {
            broker.rotten.remove(&partition);
        }
    }
}

const SCRUB_EVERY_US: u64 = 2_000_000;
