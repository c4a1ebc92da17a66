//! Where a record lies, committed or not, for whoever explains a log: from any thread, without the
//! log's owner.

use highwater_protocol::batch::BatchView;
use highwater_protocol::ids::{LogIndex, Offset, Term, Timestamp};

use super::faults::faulty_range;
use super::reader::{LogReader, ReadError};

/// A batch and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// The offset of its first record.
    pub base: Offset,
    /// The offset behind its last record.
    pub end: Offset,
    /// The index behind its last record.
    pub end_index: LogIndex,
    /// The term it was appended in.
    pub term: Term,
    /// The oldest and the newest of its timestamps.
    pub timestamps: (Timestamp, Timestamp),
    /// The checksum of its body.
    pub checksum: u32,
}

impl LogReader {
    /// The batch that holds `offset`, also where it is not committed: such a one may be cut away
    /// at any moment, so nobody may act on it.
    pub fn locate(&self, offset: Offset) -> Result<Option<Located>, ReadError> {
        let pieces = self.shared.pieces.load_full();
        if offset < self.log_start() {
            return Ok(None);
        }
        let after = pieces.partition_point(|piece| piece.base().offset <= offset);
        let Some(piece) = after.checked_sub(1).map(|at| &pieces[at]) else { return Ok(None) };
        let view = self.shared.view(piece)?;
        let base = piece.base();
        let slot = view.first_not(|entry| entry.end(base).offset <= offset)?;
        if slot == view.slots() {
            return Ok(None);
        }
        let (before, end) = (view.place_before(slot)?, view.entry(slot)?.end(base));
        let (frame, bad) = self.shared.frames(piece, &view, slot..slot + 1)?;
        if bad.is_some() {
            return Err(ReadError::Faulty(faulty_range(piece, &view, slot)?));
        }
        let Ok(batch) = BatchView::parse(&frame) else { return Ok(None) };
        let header = batch.header();
        Ok(Some(Located {
            base: before.offset,
            end: end.offset,
            end_index: end.index,
            term: end.term,
            timestamps: (header.base_timestamp, header.max_timestamp),
            checksum: header.checksum,
        }))
    }

    /// The offset behind the last whole batch that ends at or before `index`.
    pub fn offset_until(&self, index: LogIndex) -> Result<Offset, ReadError> {
        let pieces = self.shared.pieces.load_full();
        let after = pieces.partition_point(|piece| piece.base().index <= index);
        let Some(piece) = after.checked_sub(1).map(|at| &pieces[at]) else {
            return Ok(self.log_start());
        };
        let view = self.shared.view(piece)?;
        let slot = view.first_not(|entry| entry.end(piece.base()).index <= index)?;
        Ok(view.place_before(slot)?.offset.max(self.log_start()))
    }
}
