//! What goes in: records to send, and what comes back for them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::ids::{Offset, PartitionId, Timestamp};
use highwater_protocol::native::produce::{AckMode, Receipt};

/// A topic's name. Cloning it copies no text: on a hot path make it once and clone it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// A record on its way to a topic.
///
/// ```
/// use highwater_client::{AckMode, Record};
/// let record = Record::to("orders").key("k1").value("hello").header("trace", "42");
/// let urgent = record.clone().acks(AckMode::Sync);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it goes.
    pub topic: TopicName,
    /// The partition; without one, the key decides, and without a key, the sticky partitioner.
    pub partition: Option<PartitionId>,
    /// Records with equal keys go to one partition and keep their order.
    pub key: Option<Bytes>,
    /// The payload; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Names and values, in order; a name may occur more than once.
    pub headers: Vec<Header>,
    /// When it happened; `None` for the time of sending.
    pub timestamp: Option<Timestamp>,
    /// The ack mode of this record; `None` for the producer's.
    pub acks: Option<AckMode>,
}

/// A header of a record.
pub type Header = (Bytes, Option<Bytes>);

/// Where a record was written, and what the broker vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordMetadata {
    /// Its topic.
    pub topic: TopicName,
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// The receipt of the batch it travelled in: its term, and on how many replicas and disks.
    pub receipt: Receipt,
}

impl TopicName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TopicName {
    fn from(name: &str) -> TopicName {
        TopicName(Arc::from(name))
    }
}

impl From<String> for TopicName {
    fn from(name: String) -> TopicName {
        TopicName(Arc::from(name))
    }
}

impl From<&TopicName> for TopicName {
    fn from(name: &TopicName) -> TopicName {
        name.clone()
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Record {
    /// An empty record for `topic`.
    pub fn to(topic: impl Into<TopicName>) -> Record {
        Record {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
            acks: None,
        }
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<Bytes>) -> Record {
        self.key = Some(key.into());
        self
    }

    /// Sets the payload.
    pub fn value(mut self, value: impl Into<Bytes>) -> Record {
        self.value = Some(value.into());
        self
    }

    /// Adds a header; a name may be added more than once.
    pub fn header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Record {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Chooses the partition, whatever the key.
    pub fn partition(mut self, partition: u32) -> Record {
        self.partition = Some(PartitionId(partition));
        self
    }

    /// Sets the time at which it happened.
    pub fn timestamp(mut self, timestamp: Timestamp) -> Record {
        self.timestamp = Some(timestamp);
        self
    }

    /// Chooses the ack mode of this record.
    ///
    /// A batch has one mode, so records of alternating modes in one partition travel in small
    /// batches.
    pub fn acks(mut self, acks: AckMode) -> Record {
        self.acks = Some(acks);
        self
    }

    /// Bytes of key, value and headers.
    pub fn payload_bytes(&self) -> usize {
        let part = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + part(value));
        part(&self.key) + part(&self.value) + headers.sum::<usize>()
    }
}
