//! Questions about places in the log, and reading for replication.

use std::io;
use std::sync::atomic::Ordering;

use highwater_protocol::ids::{LogIndex, Offset, Term};

use super::reader::LogReader;
use super::{FrameSummary, FramesRead, Log, Place};

impl Log {
    /// The end of what is appended.
    pub fn end(&self) -> LogIndex {
        self.end.index
    }

    /// The offset of the next record.
    pub fn end_offset(&self) -> Offset {
        self.end.offset
    }

    /// The term of the last entry; 0 in an empty log.
    pub fn last_term(&self) -> Term {
        self.end.term
    }

    /// Where the log starts: what was before is trimmed.
    pub fn start(&self) -> (LogIndex, Offset) {
        (self.start.index, self.start.offset)
    }

    /// The term of the entry that ends at `end`; nothing if no frame ends there (any more), or if
    /// the index cannot be read.
    pub fn term_at(&self, end: LogIndex) -> Option<Term> {
        self.place_at(end).ok()?.map(|place| place.term)
    }

    /// The last frame boundary that is not behind `index`, and the offset of the first record behind it. `StorageFull`
    /// where the segment's files cannot be opened now.
    pub fn boundary_until(&self, index: LogIndex) -> io::Result<(LogIndex, Offset)> {
        let place = match self.last_place_until(index) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
            // Where the index cannot be read, the start is a boundary all the same.
            Err(_) => self.start,
        };
        Ok((place.index, place.offset))
    }

    /// Whole frames from a boundary on, marks included: at most `bytes_max`, but one at least
    /// unless the log ends here or the next one cannot be read.
    pub fn read_frames(&self, from: LogIndex, bytes_max: usize) -> io::Result<FramesRead> {
        self.usable()?;
        if self.place_at(from)?.is_none() {
            let why =
                format!("index {from} is no frame boundary of the log in {}", self.dir.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut read = FramesRead { frames: Vec::new(), end: from, bytes: 0 };
        let pieces = self.shared.pieces.load();
        let first = pieces.partition_point(|piece| piece.base().index <= from).saturating_sub(1);
        for piece in &pieces[first..] {
            let view = self.shared.view(piece)?;
            let base = piece.base();
            let slot = view.first_not(|entry| entry.end(base).index <= read.end)?;
            let left = bytes_max.saturating_sub(read.bytes) as u64;
            let fits = view.before(slot)?.position().saturating_add(left);
            let mut end = view.first_not(|entry| entry.position() <= fits)?;
            if read.frames.is_empty() && slot < view.slots() {
                end = end.max(slot + 1);
            }
            if end > slot {
                let (frames, bad) = self.shared.frames(piece, &view, slot..end)?;
                let end = bad.unwrap_or(end);
                if end > slot {
                    read.bytes += frames.len();
                    read.frames.push(frames);
                    read.end = view.place_before(end)?.index;
                }
                if bad.is_some() {
                    break;
                }
            }
            if end < view.slots() {
                break;
            }
        }
        Ok(read)
    }

    /// What the file `start` and the index know of the producers' batches in the newest segments, oldest first. Counted in
    /// frames, because truncations leave segments behind that hold next to nothing.
    pub fn recent_producers(&self) -> io::Result<Vec<FrameSummary>> {
        let mut found = self.start_producers.clone();
        let pieces = self.shared.pieces.load();
        let (mut first, mut frames) = (pieces.len(), 0);
        while first > 0 && frames < PRODUCER_FRAMES_MIN {
            first -= 1;
            frames += self.shared.view(&pieces[first])?.slots();
        }
        for piece in &pieces[first..] {
            let view = self.shared.view(piece)?;
            let mut before = view.place_before(0)?;
            for slot in 0..view.slots() {
                let entry = view.entry(slot)?;
                let end = entry.end(piece.base());
                if end.index <= self.start.index {
                    before = end;
                    continue;
                }
                let records = end.offset.since(before.offset) as u32;
                found.extend(entry.producer().map(|producer| FrameSummary {
                    base_offset: before.offset,
                    end: end.index,
                    records,
                    term: end.term,
                    producer,
                }));
                before = end;
            }
        }
        Ok(found)
    }

    /// Bytes of frames that the log holds, in whole segments.
    pub fn bytes(&self) -> u64 {
        let pieces = self.shared.pieces.load();
        pieces.iter().map(|piece| self.shared.piece_bytes(piece)).sum()
    }

    /// Bytes of frames that somebody lacks who has everything up to `end`.
    pub fn bytes_behind(&self, end: LogIndex) -> io::Result<u64> {
        let pieces = self.shared.pieces.load();
        let first = pieces.partition_point(|piece| piece.base().index <= end).saturating_sub(1);
        let mut bytes = 0;
        for piece in &pieces[first..] {
            let view = self.shared.view(piece)?;
            let base = piece.base();
            let slot = view.first_not(|entry| entry.end(base).index <= end)?;
            let until = view.before(view.slots())?.position();
            bytes += until.saturating_sub(view.before(slot)?.position());
        }
        Ok(bytes)
    }

    /// A reader for other threads; it sees what `publish` lets it see.
    pub fn reader(&self) -> LogReader {
        LogReader { shared: self.shared.clone() }
    }

    /// Lets readers see what lies before `high_watermark`, which is committed. It never falls.
    pub fn publish(&self, high_watermark: Offset) {
        assert!(high_watermark <= self.end.offset, "what is committed was appended");
        self.shared.high_watermark.fetch_max(high_watermark.0, Ordering::AcqRel);
    }

    /// The place of a frame boundary, if it is one.
    pub(super) fn place_at(&self, boundary: LogIndex) -> io::Result<Option<Place>> {
        if boundary == self.end.index {
            return Ok(Some(self.end));
        }
        if boundary < self.start.index || boundary > self.end.index {
            return Ok(None);
        }
        let place = self.last_place_until(boundary)?;
        Ok((place.index == boundary).then_some(place))
    }

    fn last_place_until(&self, index: LogIndex) -> io::Result<Place> {
        if index <= self.start.index {
            return Ok(self.start);
        }
        if index >= self.end.index {
            return Ok(self.end);
        }
        let pieces = self.shared.pieces.load();
        let after = pieces.partition_point(|piece| piece.base().index <= index);
        let piece = &pieces[after.checked_sub(1).expect("a segment holds every place of a log")];
        let view = self.shared.view(piece)?;
        let slot = view.first_not(|entry| entry.end(piece.base()).index <= index)?;
        view.place_before(slot)
    }

    /// The place where the batch begins that holds `offset`.
    pub(super) fn place_before_offset(&self, offset: Offset) -> io::Result<Option<Place>> {
        let pieces = self.shared.pieces.load();
        let after = pieces.partition_point(|piece| piece.base().offset <= offset);
        let Some(piece) = after.checked_sub(1).map(|at| &pieces[at]) else { return Ok(None) };
        let view = self.shared.view(piece)?;
        let slot = view.first_not(|entry| entry.end(piece.base()).offset <= offset)?;
        Ok(Some(view.place_before(slot)?))
    }
}

/// So many frames back, at least, a batch that is sent again is known.
const PRODUCER_FRAMES_MIN: usize = 100_000;
