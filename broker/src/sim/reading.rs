//! Reading from a simulated replica as a consumer does, and checking what comes out.

use std::io;

use highwater_protocol::batch::{BatchView, FrameHeader};
use highwater_protocol::ids::{LogIndex, NodeId, Offset, TopicPartition};

use crate::log::{Log, LogReader, ReadError};
use crate::sim::checker::{Broken, Checker};
use crate::sim::model::{self, Frame};

/// Reads once from `from` and returns how many records were checked.
pub fn check_read(
    checker: &Checker,
    node: NodeId,
    partition: TopicPartition,
    reader: &LogReader,
    from: u64,
    bytes_max: u32,
) -> Result<u64, Broken> {
    let batches = match reader.read(Offset(from), bytes_max) {
        Ok(batches) => batches,
        // What rotted is no answer, until it was mended.
        Err(ReadError::OutOfRange { .. } | ReadError::Faulty(_)) => return Ok(0),
        // Clients ask again when there are descriptors.
        Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::StorageFull => return Ok(0),
        Err(ReadError::Io(error)) => {
            return Err(unreadable(node, partition, format!("reading {from}: {error}")));
        }
    };
    let mut records = 0;
    for slice in &batches {
        for parsed in highwater_protocol::batch::frames(slice) {
            let (header, bytes): (FrameHeader, &[u8]) =
                parsed.map_err(|error| unreadable(node, partition, error.to_string()))?;
            let view = BatchView::parse(bytes).map_err(|error| {
                unreadable(node, partition, format!("a mark or worse: {error}"))
            })?;
            let values = model::values_of(&view);
            checker.read(node, partition, header.base_offset, &values)?;
            records += values.len() as u64;
        }
    }
    Ok(records)
}

/// Some frames of a replica's own log from a boundary on, and where they end: there, if the next one cannot be read.
pub fn next_frames(
    node: NodeId,
    partition: TopicPartition,
    log: &Log,
    from: LogIndex,
) -> Result<(Vec<Frame>, LogIndex), Broken> {
    let read = log
        .read_frames(from, READ_BYTES)
        .map_err(|error| unreadable(node, partition, format!("at {from}: {error}")))?;
    let frames = model::parse_frames(from, &read.frames)
        .map_err(|detail| unreadable(node, partition, detail))?;
    Ok((frames, read.end))
}

/// Reads everything that a replica has and returns how many records that were.
pub fn check_all(
    checker: &Checker,
    node: NodeId,
    partition: TopicPartition,
    reader: &LogReader,
) -> Result<u64, Broken> {
    let (mut at, end) = (reader.log_start(), reader.high_watermark());
    let mut records = 0;
    while at < end {
        let batches = reader
            .read(at, 1 << 20)
            .map_err(|error| unreadable(node, partition, format!("reading {at}: {error:?}")))?;
        let before = at;
        for slice in &batches {
            for parsed in highwater_protocol::batch::frames(slice) {
                let (header, bytes) =
                    parsed.map_err(|error| unreadable(node, partition, error.to_string()))?;
                let view = BatchView::parse(bytes)
                    .map_err(|error| unreadable(node, partition, error.to_string()))?;
                let values = model::values_of(&view);
                checker.read(node, partition, header.base_offset, &values)?;
                // A gap takes the offsets of the records that it stands for.
                records += u64::from(header.records());
                at = header.base_offset.advance(u64::from(header.records()));
            }
        }
        if at <= before {
            return Err(unreadable(node, partition, format!("reading {before} goes nowhere")));
        }
    }
    Ok(records)
}

fn unreadable(node: NodeId, partition: TopicPartition, detail: String) -> Broken {
    Broken {
        invariant: "S2: every record returned passes its checks",
        detail: format!("{node}, {partition}: {detail}"),
    }
}

/// What the checker reads at once.
const READ_BYTES: usize = 1 << 20;
