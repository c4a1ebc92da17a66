//! Fetch and list-offsets: reading committed records, and finding where to start.

use bytes::Bytes;

use crate::error::WireError;
use crate::ids::{Offset, Term, Timestamp, TopicPartition};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// A read from several partitions of one broker, waiting until there is something to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// How long to wait for `bytes_min`.
    pub wait_max_ms: u32,
    /// Answer at once when this many bytes are at hand.
    pub bytes_min: u32,
    /// About how many bytes the whole answer may have; the first batch is sent whatever its size.
    pub bytes_max: u32,
    /// What to read, in the order in which `bytes_max` is spent.
    pub partitions: Vec<FetchPartition>,
    /// Who may answer.
    pub from: FetchFrom,
}

/// Who may answer a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FetchFrom {
    /// The leaders of the partitions.
    #[default]
    Leader,
    /// Whoever has a replica and hears its leader: with what it knows to be committed, which may be less than the leader
    /// does (KIP-392). An offset behind that is no error, and nothing is read there yet.
    AnyReplica,
}

/// The part of a fetch that reads one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPartition {
    /// Which partition.
    pub partition: TopicPartition,
    /// The first offset wanted; the answer may begin earlier, with the batch that holds it.
    pub offset: Offset,
    /// About how many bytes of this partition the answer may have.
    pub bytes_max: u32,
    /// The leader's term as the client knows it.
    pub leader_term: Option<Term>,
}

/// The answer to a fetch, partition by partition, in the order asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResponse {
    /// One entry for each partition asked for.
    pub partitions: Vec<FetchedPartition>,
}

/// What was read of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPartition {
    /// Which partition.
    pub partition: TopicPartition,
    /// The records, or why there are none.
    pub result: Result<FetchedRecords, WireError>,
}

/// Committed batches and the bounds they lie in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecords {
    /// The oldest offset that can still be read.
    pub log_start: Offset,
    /// The end of what can be read now.
    pub high_watermark: Offset,
    /// Whole batches, as one or a few slices of the log.
    pub records: Vec<Bytes>,
}

/// Where in a partition a reader wants to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetAt {
    /// The oldest record.
    Start,
    /// The high watermark.
    End,
    /// The first record whose timestamp is this or later.
    Time(Timestamp),
}

/// A question for an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListOffsetsRequest {
    /// Which partition.
    pub partition: TopicPartition,
    /// Which of its offsets.
    pub at: OffsetAt,
}

/// The offset found; the end where no record is late enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListOffsetsResponse {
    /// The offset asked for.
    pub offset: Offset,
    /// The timestamp of the record there, for a question by time that found one.
    pub timestamp: Option<Timestamp>,
    /// The leader's term.
    pub term: Term,
}

impl FetchRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.wait_max_ms);
        writer.u32(self.bytes_min);
        writer.u32(self.bytes_max);
        writer.list(&self.partitions, |writer, part| {
            coding::put_partition(writer, part.partition);
            writer.u64(part.offset.0);
            writer.u32(part.bytes_max);
            coding::put_term(writer, part.leader_term);
        });
        match self.from {
            FetchFrom::Leader => writer.no_tagged_fields(),
            FetchFrom::AnyReplica => {
                writer.uvarint(1);
                writer.uvarint(TAG_ANY_REPLICA);
                writer.blob(&[]);
            }
        }
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<FetchRequest, DecodeError> {
        coding::open_request(reader, "a fetch request")?;
        let mut request = FetchRequest {
            wait_max_ms: reader.u32()?,
            bytes_min: reader.u32()?,
            bytes_max: reader.u32()?,
            partitions: reader.list("partitions", 33, |reader| {
                Ok(FetchPartition {
                    partition: coding::partition(reader)?,
                    offset: coding::offset(reader)?,
                    bytes_max: reader.u32()?,
                    leader_term: coding::term(reader)?,
                })
            })?,
            from: FetchFrom::Leader,
        };
        reader.tagged_fields_with(|tag, _| {
            if tag == TAG_ANY_REPLICA {
                request.from = FetchFrom::AnyReplica;
            }
            Ok(())
        })?;
        Ok(request)
    }
}

impl FetchResponse {
    /// Writes everything but the records, which follow as they are, partition by partition.
    pub fn encode_head(&self, writer: &mut Writer) {
        writer.list(&self.partitions, |writer, part| {
            coding::put_partition(writer, part.partition);
            coding::put_result(writer, &part.result, |writer, read| {
                writer.u64(read.log_start.0);
                writer.u64(read.high_watermark.0);
                writer.uvarint(read.records.iter().map(|slice| slice.len() as u64).sum());
            });
        });
        writer.no_tagged_fields();
    }

    /// The records that follow the head.
    pub fn into_records(self) -> impl Iterator<Item = Bytes> {
        self.partitions
            .into_iter()
            .filter_map(|part| part.result.ok())
            .flat_map(|read| read.records)
    }

    /// Reads the body; records stay slices of it, one for each partition that has any.
    pub fn decode(body: Bytes) -> Result<FetchResponse, DecodeError> {
        let mut reader = Reader::new(&body);
        reader.within("a fetch answer");
        let heads = reader.list("partitions", 23, |reader| {
            let partition = coding::partition(reader)?;
            let head = coding::result(reader, |reader| {
                let records = FetchedRecords {
                    log_start: coding::offset(reader)?,
                    high_watermark: coding::offset(reader)?,
                    records: Vec::new(),
                };
                Ok((records, reader.uvarint()?))
            })?;
            Ok((partition, head))
        })?;
        reader.tagged_fields()?;
        let mut partitions = Vec::with_capacity(heads.len());
        for (partition, head) in heads {
            let result = match head {
                Err(error) => Err(error),
                Ok((mut read, bytes)) => {
                    let bytes =
                        usize::try_from(bytes).map_err(|_| DecodeError::Short("records"))?;
                    let records = reader.take(bytes).map_err(|_| DecodeError::Short("records"))?;
                    if !records.is_empty() {
                        read.records.push(body.slice_ref(records));
                    }
                    Ok(read)
                }
            };
            partitions.push(FetchedPartition { partition, result });
        }
        reader.end()?;
        Ok(FetchResponse { partitions })
    }
}

impl ListOffsetsRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        coding::put_partition(writer, self.partition);
        match self.at {
            OffsetAt::Start => writer.u8(0),
            OffsetAt::End => writer.u8(1),
            OffsetAt::Time(time) => {
                writer.u8(2);
                writer.i64(time.0);
            }
        }
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListOffsetsRequest, DecodeError> {
        coding::open_request(reader, "a question for an offset")?;
        let partition = coding::partition(reader)?;
        let at = match reader.u8()? {
            0 => OffsetAt::Start,
            1 => OffsetAt::End,
            2 => OffsetAt::Time(Timestamp(reader.i64()?)),
            found => {
                return Err(DecodeError::Invalid {
                    what: "a place in the log",
                    found: found.into(),
                });
            }
        };
        reader.tagged_fields()?;
        Ok(ListOffsetsRequest { partition, at })
    }
}

impl ListOffsetsResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.offset.0);
        writer.optional(self.timestamp, |writer, time| writer.i64(time.0));
        writer.u32(self.term.0);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListOffsetsResponse, DecodeError> {
        reader.within("an answer with an offset");
        let response = ListOffsetsResponse {
            offset: coding::offset(reader)?,
            timestamp: reader.optional("a timestamp", |reader| reader.i64().map(Timestamp))?,
            term: Term(reader.u32()?),
        };
        reader.tagged_fields()?;
        Ok(response)
    }
}

/// The tagged field of a fetch that any replica may answer; it is empty.
const TAG_ANY_REPLICA: u64 = 0;
