//! Kafka RecordBatch v2, byte for byte: parsed once, borrowed ever after.
//!
//! ```text
//!  at  bytes  field                 who writes it
//!   0   8     base offset           broker (outside the checksum)
//!   8   4     batch length          client: bytes after this field
//!  12   4     partition leader epoch broker: the Raft term (outside the checksum)
//!  16   1     magic                 client: 2
//!  17   4     CRC-32C of 21..end    client
//!  21   2     attributes            client: 0-2 codec, 3 log-append time, 4 transactional, 5 control, 15 mark
//!  23   4     last offset delta     client: records - 1
//!  27   8     base timestamp        client
//!  35   8     max timestamp         client
//!  43   8     producer id           client: -1 for none
//!  51   2     producer epoch        client
//!  53   4     base sequence         client
//!  57   4     records               client: 1 or more; 0 for a mark
//!  61   ..    records, packed as one block where a codec is named
//! ```
//!
//! A *mark* has the same shape and no records: the log keeps it, Raft counts it, consumers never see
//! it. A *gap* keeps the place of records that are lost for good: a control batch without records that takes
//! their offsets. A *frame* is a data batch, a mark or a gap.

mod builder;
pub mod checksum;
mod codec;
mod gap;
mod header;
mod mark;
mod record;
mod sound;
mod view;

pub use builder::{BatchBuilder, BuilderOptions};
pub use checksum::{crc32c, crc32c_of_parts};
pub use codec::UNPACKED_BYTES_MAX;
pub use gap::Gap;
pub use header::{FrameHeader, FrameKind, HEADER_BYTES, ProducerStamp, stamp, stamp_append_time};
pub use mark::{LogStart, Mark, TrimReason, VoterSet};
pub use record::{Header, Headers, Record, Records};
pub use view::{BatchView, frames};

/// How the records of a batch are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Snappy, in Kafka's framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What is wrong with bytes that should be a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end too early.
    #[error("the batch needs {needed} bytes and has {found}")]
    Short {
        /// Bytes needed.
        needed: usize,
        /// Bytes there are.
        found: usize,
    },
    /// There is something behind the batch.
    #[error("{0} bytes follow the batch: send exactly one batch")]
    Trailing(usize),
    /// A record format that is not version 2.
    #[error("record format (magic) {0} is not supported: use 2")]
    Magic(u8),
    /// A length that no batch can have.
    #[error("batch length {0} is impossible")]
    Length(u32),
    /// Record count and last offset delta contradict each other.
    #[error(
        "a batch of {records} records with last offset delta {last_offset_delta} contradicts itself"
    )]
    Counts {
        /// The count.
        records: i32,
        /// The delta.
        last_offset_delta: i32,
    },
    /// Producer fields of which only some are set.
    #[error(
        "producer id {id} with epoch {epoch} and base sequence {base_sequence} contradicts itself"
    )]
    Producer {
        /// The id.
        id: i64,
        /// The epoch.
        epoch: i16,
        /// The sequence.
        base_sequence: i32,
    },
    /// The checksum does not fit the bytes.
    #[error("checksum {stored:#010x} does not fit the bytes, which have {computed:#010x}")]
    Checksum {
        /// The one in the header.
        stored: u32,
        /// The one computed.
        computed: u32,
    },
    /// A mark where a data batch is wanted, or the other way round.
    #[error("the frame is not a {0}")]
    Kind(&'static str),
    /// A codec that nobody has defined.
    #[error("the records are packed with codec {0}, which nobody has defined")]
    Codec(u16),
    /// Packed records where only plain ones are looked at.
    #[error("the records are packed with {0}: unpack them first")]
    StillPacked(Compression),
    /// A codec that this program was built without.
    #[error("the records are packed with {0}, and this program was built without it")]
    NotBuilt(Compression),
    /// Packed records that do not unpack.
    #[error("the records do not unpack with {codec}: {why}")]
    Packed {
        /// The codec.
        codec: Compression,
        /// What it says.
        why: String,
    },
    /// Packed records that are more than the reader takes.
    #[error(
        "the records, packed with {codec}, unpack to more than {bytes_max} bytes, which is the bound here"
    )]
    TooLarge {
        /// The codec.
        codec: Compression,
        /// The bound.
        bytes_max: usize,
    },
    /// A record inside the batch breaks the format.
    #[error("record {at}: {what}")]
    Record {
        /// Its place in the batch, from 0.
        at: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The body of a mark breaks the format.
    #[error("mark: {0}")]
    Mark(&'static str),
}
