//! Frames that an entry of the index names and that cannot be read as it names them.
//!
//! Any thread that reads may find one; the log's owner alone ends it, when the segment was mended, cut
//! or given up. A faulty frame keeps its place: what it was is known, its bytes are not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use highwater_protocol::batch::{FrameHeader, Mark};
use highwater_protocol::ids::Offset;

use super::Place;
use super::index::Entry;
use super::reader::Shared;
use super::segment::{Piece, View};

/// Records that are known by their index and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultyRange {
    /// The offset of the first one.
    pub from: Offset,
    /// The offset behind the last one.
    pub until: Offset,
    /// The file that should hold them.
    pub file: PathBuf,
}

/// What of a log is known to be faulty: slots, by the numbers of their segments.
#[derive(Debug, Default)]
pub(super) struct Faults {
    count: AtomicUsize,
    found: Mutex<BTreeMap<u64, Arc<BTreeSet<usize>>>>,
}

impl Faults {
    /// Whether anything is: cheap, because every pass asks.
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Notes faulty slots of a segment; says whether one of them is news.
    pub(super) fn note(&self, sequence: u64, slots: impl IntoIterator<Item = usize>) -> bool {
        let mut found = self.found.lock().expect("no thread panics while it holds the lock");
        let known = found.entry(sequence).or_default();
        let before = known.len();
        Arc::make_mut(known).extend(slots);
        let news = known.len() > before;
        found.retain(|_, slots| !slots.is_empty());
        self.count.store(found.values().map(|slots| slots.len()).sum(), Ordering::Release);
        news
    }

    /// All segments with faults, oldest first, and which of their slots they are.
    pub(super) fn all(&self) -> Vec<(u64, Arc<BTreeSet<usize>>)> {
        let found = self.found.lock().expect("no thread panics while it holds the lock");
        found.iter().map(|(sequence, slots)| (*sequence, Arc::clone(slots))).collect()
    }

    /// Keeps those slots of a segment that `keep` names.
    pub(super) fn retain(&self, sequence: u64, keep: impl Fn(usize) -> bool) {
        let mut found = self.found.lock().expect("no thread panics while it holds the lock");
        if let Some(slots) = found.get_mut(&sequence) {
            Arc::make_mut(slots).retain(|slot| keep(*slot));
        }
        found.retain(|_, slots| !slots.is_empty());
        self.count.store(found.values().map(|slots| slots.len()).sum(), Ordering::Release);
    }

    fn has(&self, sequence: u64) -> bool {
        let found = self.found.lock().expect("no thread panics while it holds the lock");
        self.any() && found.contains_key(&sequence)
    }
}

impl Shared {
    /// The frames of some slots up to the first faulty one, and which that is. What was appended in
    /// this life is taken as it is: it was checked on its way in.
    pub(super) fn frames(
        &self,
        piece: &Piece,
        view: &View<'_>,
        slots: Range<usize>,
    ) -> io::Result<(Bytes, Option<usize>)> {
        let sequence = piece.segment.header.sequence;
        if !piece.segment.is_sealed() && !self.faults.has(sequence) {
            return Ok((view.frames(slots)?, None));
        }
        self.checked_frames(piece, view, slots)
    }

    /// The same, with every frame compared with its entry.
    pub(super) fn checked_frames(
        &self,
        piece: &Piece,
        view: &View<'_>,
        slots: Range<usize>,
    ) -> io::Result<(Bytes, Option<usize>)> {
        let (bytes, bad) = view.sound(slots)?;
        if let Some(slot) = bad
            && self.faults.note(piece.segment.header.sequence, [slot])
        {
            let range = faulty_range(piece, view, slot)?;
            let FaultyRange { from, until, file } = &range;
            tracing::error!(%from, %until, file = %file.display(), "a batch cannot be read any more");
        }
        Ok((bytes, bad))
    }
}

pub(super) fn faulty_range(piece: &Piece, view: &View<'_>, slot: usize) -> io::Result<FaultyRange> {
    let (from, until) = (view.place_before(slot)?.offset, view.place_before(slot + 1)?.offset);
    Ok(FaultyRange { from, until, file: piece.segment.stem.log() })
}

/// Whether `bytes` are the frame that an entry names, at its place.
pub(super) fn is_named(bytes: &[u8], before: &Entry, entry: &Entry, base: &Place) -> bool {
    let Ok(header) = FrameHeader::parse(bytes) else { return false };
    header.frame_bytes() == bytes.len()
        && header.base_offset == before.end(base).offset
        && Entry::after(before, &header) == Some(*entry)
        && header.verify_checksum(bytes).is_ok()
}

/// The mark of a term's start, if that is what an entry names: it has no content of its own, so it can
/// be made again.
pub(super) fn term_start(before: &Entry, entry: &Entry, base: &Place) -> Option<Bytes> {
    let bytes = Mark::TermStart.encode(before.end(base).offset, entry.end(base).term);
    is_named(&bytes, before, entry, base).then_some(bytes)
}
