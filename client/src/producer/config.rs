//! How a producer batches, packs, waits and gives up.

use std::time::Duration;

use highwater_protocol::batch::Compression;
use highwater_protocol::native::frame::FRAME_BYTES_MAX;
use highwater_protocol::native::produce::AckMode;

use super::partition;
use crate::metadata::Snapshot;
use crate::record::TopicName;

/// How a producer batches, waits and gives up.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    /// The ack mode of records that don't choose their own. Default semi-sync.
    pub acks: AckMode,
    /// How long a batch waits for more records. Default 5 ms; zero sends as soon as possible.
    pub linger: Duration,
    /// A batch is sent when it has grown to this many bytes. Default 64 KiB.
    pub batch_bytes_max: usize,
    /// All records not yet settled may take this many bytes; then `send` waits. Default 32 MiB, at
    /// most 2 GiB.
    pub buffer_bytes_max: usize,
    /// From `send` to a final answer; retries are bounded by this alone. Default 30 s.
    pub delivery_timeout: Duration,
    /// Batches of one partition under way at once, 1 to 5 (more are taken as 5, because brokers
    /// remember five batches of a producer). Default 5.
    pub in_flight_max: usize,
    /// What batches are packed with, where that makes them smaller; a topic whose
    /// `compression.type` names a codec has the last word. Default: what the client's profile says,
    /// else LZ4, or nothing in a build without it.
    pub compression: Option<Compression>,
}

impl ProducerConfig {
    /// Sets the ack mode of records that don't choose their own.
    pub fn acks(mut self, acks: AckMode) -> ProducerConfig {
        self.acks = acks;
        self
    }

    /// Sets how long a batch waits for more records.
    pub fn linger(mut self, linger: Duration) -> ProducerConfig {
        self.linger = linger;
        self
    }

    /// Sets the size at which a batch is sent.
    pub fn batch_bytes_max(mut self, bytes: usize) -> ProducerConfig {
        self.batch_bytes_max = bytes;
        self
    }

    /// Sets the bound on the bytes of all records not yet settled.
    pub fn buffer_bytes_max(mut self, bytes: usize) -> ProducerConfig {
        self.buffer_bytes_max = bytes;
        self
    }

    /// Sets the time from `send` to a final answer.
    pub fn delivery_timeout(mut self, timeout: Duration) -> ProducerConfig {
        self.delivery_timeout = timeout;
        self
    }

    /// Sets what batches are packed with.
    pub fn compression(mut self, compression: Compression) -> ProducerConfig {
        self.compression = Some(compression);
        self
    }

    /// The same with every number within its bounds, and with a codec: the one chosen, else the
    /// client's, else LZ4; none where this program was built without it.
    pub(super) fn within_bounds(mut self, of_client: Option<Compression>) -> ProducerConfig {
        self.in_flight_max = self.in_flight_max.clamp(1, partition::IN_FLIGHT_MAX);
        self.batch_bytes_max = self.batch_bytes_max.clamp(1, FRAME_BYTES_MAX / 2);
        self.buffer_bytes_max = self.buffer_bytes_max.clamp(1, BUFFER_BYTES_MOST);
        let wished = self.compression.or(of_client);
        let codec = wished.unwrap_or(Compression::Lz4);
        if !codec.is_built() && wished.is_some() {
            tracing::warn!(%codec, "this program was built without the codec: batches are sent plain");
        }
        self.compression = Some(if codec.is_built() { codec } else { Compression::None });
        self
    }

    /// What batches for `topic` are packed with, as far as metadata knows.
    pub(super) fn codec_for(&self, topic: &TopicName, metadata: &Snapshot) -> Compression {
        let own = self.compression.unwrap_or_default();
        match metadata.topic(topic) {
            Some(Ok(shape)) => shape.codec(own),
            Some(Err(_)) | None => own,
        }
    }
}

impl Default for ProducerConfig {
    fn default() -> ProducerConfig {
        ProducerConfig {
            acks: AckMode::SemiSync,
            linger: Duration::from_millis(5),
            batch_bytes_max: 64 * 1024,
            buffer_bytes_max: 32 * 1024 * 1024,
            delivery_timeout: Duration::from_secs(30),
            in_flight_max: partition::IN_FLIGHT_MAX,
            compression: None,
        }
    }
}

const BUFFER_BYTES_MOST: usize = 2 << 30;
