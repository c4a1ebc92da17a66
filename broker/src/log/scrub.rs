//! Reading all that a log holds at rest, a piece at a time, to find what has rotted before somebody needs
//! it: from any thread, and only what the caller allows.
//!
//! What is found is noted as by any reader, and mended by the log's owner.

use std::io;
use std::sync::atomic::Ordering;

use highwater_protocol::ids::LogIndex;

use super::reader::LogReader;

/// How far the reading of a log has come; the default is its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubPlace {
    sequence: u64,
    slot: usize,
}

/// What a step of it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Where to go on; nothing at the end.
    pub next: Option<ScrubPlace>,
    /// How much was read.
    pub bytes: u64,
    /// Batches that are not what the index names.
    pub faulty: u64,
}

impl LogReader {
    /// Compares what lies from a place on with its index: about `bytes_max`, but one frame at least.
    pub fn scrub(&self, from: ScrubPlace, bytes_max: u64) -> io::Result<Scrubbed> {
        let mut scrubbed = Scrubbed { next: None, bytes: 0, faulty: 0 };
        let pieces = self.shared.pieces.load_full();
        for piece in pieces.iter() {
            let sequence = piece.segment.header.sequence;
            if sequence < from.sequence {
                continue;
            }
            let view = self.shared.view(piece)?;
            // What was given up need not be whole, and nobody could send it again.
            let start = LogIndex(self.shared.start_index.load(Ordering::Acquire));
            let kept = view.first_not(|entry| entry.end(piece.base()).index <= start)?;
            let mut slot = if sequence == from.sequence { from.slot.max(kept) } else { kept };
            while slot < view.slots() {
                if scrubbed.bytes >= bytes_max {
                    scrubbed.next = Some(ScrubPlace { sequence, slot });
                    return Ok(scrubbed);
                }
                let start = view.before(slot)?.position();
                let fits = start + (bytes_max - scrubbed.bytes).min(STEP_BYTES);
                let end = view.first_not(|entry| entry.position() <= fits)?.max(slot + 1);
                let (_, bad) = self.shared.checked_frames(piece, &view, slot..end)?;
                let end = bad.map_or(end, |bad| bad + 1);
                scrubbed.faulty += u64::from(bad.is_some());
                scrubbed.bytes += view.before(end)?.position() - start;
                slot = end;
            }
        }
        Ok(scrubbed)
    }
}

/// What is brought in at a time.
const STEP_BYTES: u64 = 256 << 10;
