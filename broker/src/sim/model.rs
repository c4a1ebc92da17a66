//! What is committed, across all replicas and all time: the history that nobody may contradict.
//!
//! One `CommittedLog` per partition, extended by whichever replica is first to show that a frame is
//! committed, and compared with every other replica from then on.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use highwater_protocol::batch::{self, BatchView, FrameHeader, FrameKind, Mark};
use highwater_protocol::ids::{LogIndex, Offset, Term};
use xxhash_rust::xxh3::xxh3_64;

/// One frame of a log, as far as two logs can differ in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Index of its first entry.
    pub start: LogIndex,
    /// Exclusive end of its entries.
    pub end: LogIndex,
    /// Offset of its first record.
    pub base: Offset,
    /// Exclusive end of its records.
    pub base_end: Offset,
    /// The term that wrote it.
    pub term: Term,
    /// Whether it is a mark.
    pub kind: FrameKind,
    /// A hash of all its bytes.
    pub hash: u64,
    /// Its bytes, shared with the log they were read from.
    pub bytes: Bytes,
}

/// Splits slices of a log into frames, checking each.
pub fn parse_frames(from: LogIndex, slices: &[Bytes]) -> Result<Vec<Frame>, String> {
    let mut frames = Vec::new();
    let mut start = from;
    for slice in slices {
        for parsed in batch::frames(slice) {
            let (header, bytes) = parsed.map_err(|error| format!("a frame at {start}: {error}"))?;
            let end = start.advance(header.entries());
            let bytes = slice.slice_ref(bytes);
            check_frame(&header, &bytes).map_err(|error| format!("a frame at {start}: {error}"))?;
            frames.push(Frame {
                start,
                end,
                base: header.base_offset,
                base_end: header.base_offset.advance(u64::from(header.records())),
                term: header.term,
                kind: header.kind(),
                hash: xxh3_64(&bytes),
                bytes,
            });
            start = end;
        }
    }
    Ok(frames)
}

fn check_frame(header: &FrameHeader, bytes: &[u8]) -> Result<(), String> {
    match header.kind() {
        FrameKind::Mark => Mark::parse(bytes).map(|_| ()).map_err(|error| error.to_string()),
        FrameKind::Data => BatchView::parse(bytes)
            .and_then(|view| view.verify_checksum())
            .map_err(|error| error.to_string()),
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frame { start, end, base, base_end, term, .. } = self;
        write!(f, "entries {start}..{end}, offsets {base}..{base_end}, term {term}")
    }
}

impl Frame {
    /// The voters it puts in force, if it is such a mark.
    pub fn voters(&self) -> Option<Vec<highwater_protocol::ids::NodeId>> {
        match self.mark()? {
            Mark::Voters(set) => Some(set.voters),
            Mark::TermStart | Mark::LogStart(_) => None,
        }
    }

    /// Where it decides that the log starts, if it is such a mark.
    pub fn log_start(&self) -> Option<LogIndex> {
        match self.mark()? {
            Mark::LogStart(decided) => Some(decided.index),
            Mark::TermStart | Mark::Voters(_) => None,
        }
    }

    fn mark(&self) -> Option<Mark> {
        match self.kind {
            FrameKind::Data => None,
            FrameKind::Mark => Mark::parse(&self.bytes).ok(),
        }
    }

    /// The simulated clients' values in it, in order.
    pub fn values(&self) -> Vec<u64> {
        match BatchView::parse(&self.bytes) {
            Ok(view) => values_of(&view),
            Err(_) => Vec::new(),
        }
    }
}

/// The values that a workload put into a batch: each is the first eight bytes of a record's value.
pub fn values_of(view: &BatchView<'_>) -> Vec<u64> {
    let records = view.records().expect("the workload does not compress");
    records
        .map(|record| {
            let record = record.expect("only whole batches are logged");
            let value = record.value.expect("the workload writes values");
            u64::from_le_bytes(value[..8].try_into().expect("eight bytes"))
        })
        .collect()
}

/// The committed history of one partition.
#[derive(Debug, Default)]
pub struct CommittedLog {
    frames: Vec<(Frame, Term)>,
    offsets: BTreeMap<u64, u64>,
    values: BTreeMap<u64, u64>,
    /// It goes on here after a part that nobody watched.
    resumed: (LogIndex, Offset),
}

impl CommittedLog {
    /// Where it ends.
    pub fn end(&self) -> LogIndex {
        self.frames.last().map_or(LogIndex::ZERO, |(frame, _)| frame.end).max(self.resumed.0)
    }

    /// Where its records end.
    pub fn end_offset(&self) -> Offset {
        self.frames.last().map_or(Offset::ZERO, |(frame, _)| frame.base_end).max(self.resumed.1)
    }

    /// Its frames, oldest first, each with the term in which its commit was first seen.
    pub fn frames(&self) -> &[(Frame, Term)] {
        &self.frames
    }

    /// The frame that ends at a boundary.
    pub fn frame_ending_at(&self, end: LogIndex) -> Option<&Frame> {
        let at = self.frames.partition_point(|(frame, _)| frame.end < end);
        self.frames.get(at).map(|(frame, _)| frame).filter(|frame| frame.end == end)
    }

    /// The value at an offset.
    pub fn value_at(&self, offset: Offset) -> Option<u64> {
        self.offsets.get(&offset.0).copied()
    }

    /// The offset of a value.
    pub fn offset_of(&self, value: u64) -> Option<Offset> {
        self.values.get(&value).copied().map(Offset)
    }

    /// How many values are committed.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing is committed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Forgets what lies behind `to`: a recovery has given it up.
    pub fn truncate(&mut self, to: LogIndex) {
        while let Some((frame, _)) = self.frames.pop_if(|(frame, _)| frame.end > to) {
            for (at, value) in frame.values().into_iter().enumerate() {
                self.values.remove(&value);
                self.offsets.remove(&(frame.base.0 + at as u64));
            }
        }
    }

    /// Takes a gap in place of a frame that ends there, and says which values went.
    pub fn replace(&mut self, gap: Frame) -> Vec<u64> {
        let at = self.frames.partition_point(|(frame, _)| frame.end < gap.end);
        let lost = std::mem::replace(&mut self.frames[at].0, gap);
        let values = lost.values();
        for (value, offset) in values.iter().zip(lost.base.0..) {
            self.values.remove(value);
            self.offsets.remove(&offset);
        }
        values
    }

    /// A log begins at `start`, and what was committed before that was not watched to its end.
    pub fn resume_at(&mut self, start: (LogIndex, Offset)) {
        self.resumed = start;
    }

    /// What lies before this offset was given up before anybody watched it: the survivor of a recovery may
    /// still know of a batch there when it is sent again.
    pub fn unwatched_before(&self) -> Offset {
        self.resumed.1
    }

    /// Takes in the next frame, seen committed in `term`. An error names a value committed twice.
    pub fn push(&mut self, frame: Frame, term: Term) -> Result<(), String> {
        assert_eq!(frame.start, self.end(), "frames are committed one after another");
        if frame.base != self.end_offset() {
            let end = self.end_offset();
            return Err(format!("a frame begins at offset {} where {end} is next", frame.base));
        }
        for (at, value) in frame.values().into_iter().enumerate() {
            let offset = frame.base.0 + at as u64;
            if let Some(first) = self.values.insert(value, offset) {
                return Err(format!(
                    "value {value:x} is committed at offsets {first} and {offset}"
                ));
            }
            self.offsets.insert(offset, value);
        }
        self.frames.push((frame, term));
        Ok(())
    }
}
