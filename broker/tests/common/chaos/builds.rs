//! Two builds of the broker: who runs which, and what was written under the first one.
//!
//! All brokers begin with the other build, which also makes the cluster, so that its files and its records are what
//! this one finds.

use std::collections::BTreeMap;

use highwater_client::{
    AckMode, Client, ConsumerConfig, NewTopic, ProducerConfig, Record, StartAt,
};
use tokio::time::{Instant, timeout};

use super::super::weather::next_random;
use super::super::{PATIENCE, Place, has_crash_points, read_all};
use super::stage::Stage;

/// Records written before any broker has changed its build.
pub struct Keepsake {
    written: BTreeMap<Place, String>,
}

impl Keepsake {
    /// Writes them to a topic of their own.
    pub async fn leave(client: &Client) -> Keepsake {
        let topic = NewTopic::new(KEPT, 3)
            .replication(3)
            .config("segment.bytes", "1048576")
            .config("max.message.bytes", "65536");
        client.admin().create_topic(topic).await.expect("the other build makes a topic");
        let producer = client.producer(ProducerConfig::default().acks(AckMode::Sync));
        let mut sent = Vec::new();
        for number in 0..KEPT_RECORDS {
            let value = format!("{number:01000}");
            let record = Record::to(KEPT).key(format!("{}", number % 100)).value(value.clone());
            sent.push((value, producer.send(record).await.expect("it is taken")));
        }
        let mut written = BTreeMap::new();
        for (value, delivery) in sent {
            let done = timeout(PATIENCE, delivery).await.expect("in time").expect("acknowledged");
            written.insert((done.partition, done.offset), value);
        }
        Keepsake { written }
    }
}

impl Stage {
    /// Stops a broker, two times of three as one should, and has its next start be one of the other build.
    pub fn change_build(&mut self, node: usize, number: usize) {
        // Runs of neighbouring seeds are to differ, too.
        let mut dice = (self.seed << 16) ^ number as u64;
        let asks = !next_random(&mut dice).is_multiple_of(3);
        match asks {
            true => self.stop(node),
            false => self.kill(node),
        }
        let goes_back = self.cluster.other_program(node).is_none();
        let next = self.other.as_deref().filter(|_| goes_back);
        self.cluster.use_program(node, next);
        let how = if asks { "SIGTERM" } else { "SIGKILL" };
        let to = if goes_back { "back to the other build" } else { "to this build" };
        self.notes.push(format!("broker {node} goes {to} by {how}"));
    }

    /// Whether a broker's build can end at no crash point.
    pub fn lacks_crash_points(&self, node: usize) -> bool {
        self.cluster.other_program(node).is_some_and(|other| !has_crash_points(other))
    }

    /// Reads what was written first, with a client that saw nothing before; says how many records are as they were.
    pub async fn look_for(&mut self, keepsake: &Keepsake) -> u64 {
        self.look_for_the_dead();
        let began = Instant::now();
        let fresh = self.cluster.client().await;
        let read = read_all(&fresh, KEPT).await;
        let is_whole = |place: &&Place| read.get(*place) == keepsake.written.get(*place);
        let whole = keepsake.written.keys().filter(is_whole).count();
        let (wanted, found) = (keepsake.written.len(), read.len());
        if (whole, found) != (wanted, wanted) || wanted != KEPT_RECORDS {
            self.failures.push(format!(
                "of {wanted} records of the other build {whole} are as they were, and {found} were read"
            ));
        }
        if began.elapsed() > PATIENCE {
            self.failures
                .push(format!("what was written first is read after {:?}", began.elapsed()));
        }
        // A group is news to builds that knew none, and their leaders and their controller have to make room for it.
        let all_are_here = (1..=self.nodes).all(|node| self.cluster.other_program(node).is_none());
        if all_are_here {
            match read_in_group(&fresh, wanted).await {
                Ok(read) if read == keepsake.written => {}
                Ok(_) => self.failures.push("a group reads other records".to_owned()),
                Err(what) => self.failures.push(format!("a group cannot read: {what}")),
            }
        }
        whole as u64
    }
}

async fn read_in_group(client: &Client, wanted: usize) -> Result<BTreeMap<Place, String>, String> {
    let config = ConsumerConfig::new("after", [KEPT]).when_no_offset(StartAt::Start);
    let mut consumer = client.consumer(config).await.map_err(|error| error.to_string())?;
    let mut read = BTreeMap::new();
    while read.len() < wanted {
        let batch = timeout(PATIENCE, consumer.next_batch()).await;
        let batch = batch.map_err(|_| format!("{} of {wanted} came in time", read.len()))?;
        let batch = batch.map_err(|error| error.to_string())?;
        for record in &batch {
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            read.insert((batch.partition, record.offset), value);
        }
        consumer.mark(&batch);
    }
    consumer.close(PATIENCE).await.map_err(|error| error.to_string())?;
    Ok(read)
}

const KEPT: &str = "kept";
const KEPT_RECORDS: usize = 3_000;
