//! Segments that lost their first page, or their whole file of frames: their index may still say what
//! they were.

use std::io;

use super::{Candidate, Recovery};
use crate::log::header::{Header, Origin};
use crate::log::mend::HEADER_SLOT;
use crate::log::scan::{last_witness, read_slots};
use crate::log::segment::{log_bytes_max, read_seal};

impl Recovery<'_> {
    /// The header of a segment that lost its first page or its whole file, if its index is there to say
    /// that it continues the log. A file that is missing is made, with nothing in it: a mended one takes
    /// its place.
    pub(super) fn made_again(&mut self, candidate: &Candidate) -> io::Result<Option<Header>> {
        let stem = &candidate.stem;
        let base = if self.pieces.is_empty() { self.start.place } else { self.end };
        let known = self.start_known || !self.pieces.is_empty();
        if candidate.header.is_ok() || !known || base.index.0 != stem.base {
            return Ok(None);
        }
        let Some(index) = self.open_index(stem)? else { return Ok(None) };
        let sealed = read_seal(&*index, stem.sequence)?;
        let slots = read_slots(&*index, stem.sequence)?.unwrap_or_default();
        let Some(last) = last_witness(&slots) else { return Ok(None) };
        if sealed.is_some_and(|sealed| sealed.seal.end.term < base.term) {
            return Ok(None);
        }
        let origin = match self.pieces.last() {
            None => Origin::Start,
            Some(piece) => {
                let view = piece.segment.view(piece.slots());
                let cut = view.map(|view| view.before(view.slots())).transpose()?;
                let cut = cut.map_or(0, |last| last.position());
                Origin::After { sequence: piece.segment.header.sequence, cut }
            }
        };
        let header =
            Header { partition: self.partition, sequence: stem.sequence, base, origin, owed: None };
        let there = self.disk.list(self.dir)?;
        if !there.iter().any(|name| self.dir.join(name) == stem.log()) {
            let bytes = last.position();
            // Without a first page, so that every open finds it lacking until a mend has brought the rest.
            self.disk.create(&stem.log(), bytes, log_bytes_max(bytes))?.flush()?;
            self.disk.flush_dir(self.dir)?;
        }
        tracing::error!(file = %stem.log().display(), "a segment has lost its first page");
        self.faulty.push((stem.sequence, vec![HEADER_SLOT]));
        Ok(Some(header))
    }
}
