//! Appending only where a partition ends as expected: optimistic concurrency for event sourcing.

use std::ops::Range;

use highwater_protocol::ids::{Offset, PartitionId};
use highwater_protocol::native::frame::FRAME_BYTES_MAX;
use highwater_protocol::native::produce::Receipt;

use super::accumulator::Haste;
use super::{Producer, TopicQueues};
use crate::error::{Error, ErrorKind};
use crate::record::{Record, TopicName};

/// Records that were appended together, and what the broker vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Their topic.
    pub topic: TopicName,
    /// Their partition.
    pub partition: PartitionId,
    /// Their offsets; the end is what the next conditional append may expect.
    pub offsets: Range<Offset>,
    /// The receipt of their batch.
    pub receipt: Receipt,
}

impl Producer {
    /// Appends records to one partition, all or none, and only if the partition ends exactly at `end`:
    /// if nobody has appended to it since its end was seen.
    ///
    /// All records need one topic, one ack mode, and one partition, chosen by number or by key. The end
    /// is what a reader has read up to, what [`Appended::offsets`] ends with, or what
    /// [`Error::actual_end`] named. With [`AckMode::SemiSync`](crate::AckMode::SemiSync) or more, success is exact:
    /// what the caller knew up to `end`, then these records, and nothing in between, for good. An async success is
    /// no more than the word of a leader, and may be lost with it.
    ///
    /// The condition is about the whole partition, since brokers do not look into batches: for streams of
    /// one key, read what came in between and try again if it was none of theirs. Of batches of one
    /// producer and partition a conditional one is sent alone, so its price is a round trip.
    ///
    /// ```no_run
    /// # use highwater_client::{Client, Error, Offset, ProducerConfig, Record};
    /// # fn decide(_so_far: Offset) -> Vec<Record> { vec![Record::to("account").partition(0).value("paid")] }
    /// # async fn read_up_to(_end: Offset) -> Result<(), Error> { Ok(()) }
    /// # async fn run(client: Client) -> Result<(), Error> {
    /// let producer = client.producer(ProducerConfig::default());
    /// let mut end = Offset::ZERO; // what we have read of partition 0 of `account`
    /// loop {
    ///     match producer.send_if(end, &decide(end)).await {
    ///         Ok(appended) => break println!("written at {}", appended.offsets.start),
    ///         Err(error) => match error.actual_end() {
    ///             // Somebody was quicker: read what they wrote, and decide anew.
    ///             Some(actual) => {
    ///                 read_up_to(actual).await?;
    ///                 end = actual;
    ///             }
    ///             None => return Err(error),
    ///         },
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Refused(WrongEnd)` where the partition ends elsewhere: [`Error::actual_end`] says where, and that
    /// end is one of the committed history. Beyond what was expected it means that others have written, and
    /// that these records are not written and never will be, whatever became of earlier attempts. An end *before*
    /// what was expected means that this was a guess or an async append that was lost, or that
    /// a broker answered which does not know yet that it leads no more; read again. `InvalidCall` where the
    /// records are none, or do not belong together; and all errors of [`Producer::send_and_wait`].
    ///
    /// # Cancel safety
    /// If the future is dropped, the records may or may not be sent.
    pub async fn send_if(&self, end: Offset, records: &[Record]) -> Result<Appended, Error> {
        let first = records.first().ok_or_else(|| invalid("there are no records to append"))?;
        let topic = self.topic(&first.topic).await?;
        let number = topic.partition_of_all(records)?;
        let mut batch = Vec::with_capacity(records.len());
        for record in records {
            batch.push((record, self.how(record, self.charge(record)?, Haste::Now)));
        }
        if batch.iter().any(|(_, how)| how.acks != batch[0].1.acks) {
            return Err(invalid("the records want different ack modes, and a batch has one"));
        }
        let bytes: usize = batch.iter().map(|(_, how)| how.charged).sum();
        let most = (FRAME_BYTES_MAX / 2).min(self.handle.config.buffer_bytes_max);
        if bytes > most {
            let topic = &first.topic;
            let text = format!("{bytes} bytes for topic {topic} are over the {most} of one batch");
            return Err(Error::new(ErrorKind::RecordTooLarge, text));
        }
        let permit = self.room(u32::try_from(bytes).expect("a batch is below 4 GiB")).await?;
        let queue = &topic.queues[number.0 as usize];
        let delivery = queue
            .append_if(end, &batch, &self.handle.shared.announcements)
            .inspect(|_| permit.forget())?;
        let written = delivery.await?;
        let after = written.offset.advance(records.len() as u64);
        Ok(Appended {
            topic: written.topic,
            partition: written.partition,
            offsets: written.offset..after,
            receipt: written.receipt,
        })
    }
}

impl TopicQueues {
    /// The one partition that all of these records belong to.
    fn partition_of_all(&self, records: &[Record]) -> Result<PartitionId, Error> {
        let topic = &records[0].topic;
        let mut found = None;
        for record in records {
            if record.topic != *topic {
                let text = format!("records for {topic} and {} in one batch", record.topic);
                return Err(invalid(text));
            }
            let chosen = record.partition.is_some() || record.key.is_some();
            if !chosen && self.queues.len() > 1 {
                let text = format!("an end is that of one partition: name it, {topic} has several");
                return Err(invalid(text));
            }
            let partition = self.queue(record, usize::MAX)?.partition.partition;
            if *found.get_or_insert(partition) != partition {
                let text = format!("the keys lead to several partitions of {topic}: name one");
                return Err(invalid(text));
            }
        }
        Ok(found.expect("there is a record"))
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidCall, text)
}
