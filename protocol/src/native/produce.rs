//! Produce: one record batch for one partition, with the promise that the producer wants.

use bytes::Bytes;

use crate::ids::{Offset, Term, Timestamp, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// What must have happened before the broker answers; chosen per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AckMode {
    /// The leader has appended the batch.
    Async,
    /// A majority of the voters counts it: it is committed.
    SemiSync,
    /// Every in-sync voter counts it, and there are at least `min.insync.replicas` of them.
    Sync,
}

/// One batch for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    /// Where the batch goes.
    pub partition: TopicPartition,
    /// When the answer is due.
    pub acks: AckMode,
    /// The leader's term as the client knows it; another term refuses the batch before it is written.
    pub leader_term: Option<Term>,
    /// How long the broker may wait for replicas before it answers `RequestTimedOut`.
    pub timeout_ms: u32,
    /// Append only if the partition ends exactly here; otherwise the answer is `WrongEnd`.
    pub expected_end: Option<Offset>,
    /// Exactly one RecordBatch v2.
    pub batch: Bytes,
}

/// What the broker can vouch for when it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The offset of the batch's first record.
    pub base_offset: Offset,
    /// The term that wrote it.
    pub term: Term,
    /// How many replicas, the leader included, are known to have the batch.
    pub replicas: u8,
    /// How many replicas are known to have it on disk.
    pub flushed: u8,
    /// Set where the topic stamps batches with the broker's clock.
    pub log_append_time: Option<Timestamp>,
}

/// The answer to a produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceResponse {
    /// What the broker can vouch for.
    pub receipt: Receipt,
    /// For how long the client should send nothing more to this broker, for its quota is used up.
    pub throttle_ms: u32,
}

impl AckMode {
    fn number(self) -> u8 {
        match self {
            AckMode::Async => 0,
            AckMode::SemiSync => 1,
            AckMode::Sync => 2,
        }
    }

    fn from_number(number: u8) -> Result<AckMode, DecodeError> {
        match number {
            0 => Ok(AckMode::Async),
            1 => Ok(AckMode::SemiSync),
            2 => Ok(AckMode::Sync),
            found => Err(DecodeError::Invalid { what: "an ack mode", found: found.into() }),
        }
    }
}

impl ProduceRequest {
    /// Writes everything but the batch, which follows as it is to the end of the frame.
    pub fn encode_head(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        writer.u8(self.acks.number());
        coding::put_term(writer, self.leader_term);
        writer.u32(self.timeout_ms);
        if let Some(end) = self.expected_end {
            writer.u64(end.0);
        }
        writer.no_tagged_fields();
    }

    /// The version of its body. A condition is no tagged field: a broker that does not know it must
    /// refuse the request, and not append all the same.
    pub fn version(&self) -> u16 {
        u16::from(self.expected_end.is_some())
    }

    /// Reads the body; the batch stays a slice of it.
    pub fn decode(version: u16, body: Bytes) -> Result<ProduceRequest, DecodeError> {
        let mut reader = Reader::new(&body);
        reader.within("a produce request");
        let partition = coding::partition(&mut reader)?;
        let acks = AckMode::from_number(reader.u8()?)?;
        let leader_term = coding::term(&mut reader)?;
        let timeout_ms = reader.u32()?;
        let expected_end = match version {
            0 => None,
            _ => Some(coding::offset(&mut reader)?),
        };
        reader.tagged_fields()?;
        let batch = body.slice_ref(reader.rest());
        Ok(ProduceRequest { partition, acks, leader_term, timeout_ms, expected_end, batch })
    }
}

impl Receipt {
    /// Writes the body of an answer that asks for no pause.
    pub fn encode(&self, writer: &mut Writer) {
        ProduceResponse { receipt: *self, throttle_ms: 0 }.encode(writer);
    }

    /// Reads the body, whatever pause it asks for.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Receipt, DecodeError> {
        ProduceResponse::decode(reader).map(|response| response.receipt)
    }
}

impl ProduceResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        let ProduceResponse { receipt, throttle_ms } = self;
        writer.u64(receipt.base_offset.0);
        writer.u32(receipt.term.0);
        writer.u8(receipt.replicas);
        writer.u8(receipt.flushed);
        writer.optional(receipt.log_append_time, |writer, time| writer.i64(time.0));
        if *throttle_ms == 0 {
            return writer.no_tagged_fields();
        }
        writer.uvarint(1);
        writer.uvarint(TAG_THROTTLE);
        writer.blob(&throttle_ms.to_be_bytes());
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ProduceResponse, DecodeError> {
        reader.within("a receipt");
        let receipt = Receipt {
            base_offset: coding::offset(reader)?,
            term: Term(reader.u32()?),
            replicas: reader.u8()?,
            flushed: reader.u8()?,
            log_append_time: reader
                .optional("a timestamp", |reader| reader.i64().map(Timestamp))?,
        };
        let mut throttle_ms = 0;
        reader.tagged_fields_with(|tag, field| {
            if tag == TAG_THROTTLE {
                throttle_ms = Reader::new(field).u32()?;
            }
            Ok(())
        })?;
        Ok(ProduceResponse { receipt, throttle_ms })
    }
}

/// The tagged field of an answer that asks for a pause.
const TAG_THROTTLE: u64 = 0;
