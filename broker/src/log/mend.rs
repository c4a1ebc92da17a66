//! Mending: the faulty frames of a sealed segment come from another replica, the others from the old
//! file, into a new file that takes the old one's name once all of it is on disk.
//!
//! What must hold: a frame that came from elsewhere is the very one that the index names (place, term,
//! length, checksum); no byte of the old file changes, so its readers keep what they hold; a crash
//! leaves the old file or the new one. Copying is for a thread of its own (`Mend::run`); all else is
//! quick, and the owner's.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::batch::frames;
use highwater_protocol::ids::{LogIndex, Position};

use super::Log;
use super::faults::is_named;
use super::gap::known_frame;
use super::reader::Shared;
use super::roll::absent_is_fine;
use super::segment::{Body, Piece, View, index_bytes_max, log_bytes_max};
use crate::crash_point::{self, CrashPoint};
use crate::disk::File;
use crate::mutant::{self, Mutant};

/// A run of frames that this log knows and cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The boundary before the first of them.
    pub behind: Position,
    /// How many bytes they are.
    pub bytes: u64,
}

/// A new file for a segment, as far as it has come.
pub(super) struct Mending {
    sequence: u64,
    file: Arc<dyn File>,
    path: PathBuf,
    /// Slots that the new file has from elsewhere.
    fetched: BTreeSet<usize>,
    /// Slots that nobody has, and that stay faulty.
    absent: BTreeSet<usize>,
    handed_out: bool,
}

/// The copying that is left when all that was faulty has come.
pub struct Mend {
    shared: Arc<Shared>,
    piece: Piece,
    file: Arc<dyn File>,
    fetched: BTreeSet<usize>,
    /// What nobody has: it is copied as it lies.
    absent: BTreeSet<usize>,
    /// What lies before this slot was given up: nobody reads it, whatever it is.
    kept_from: usize,
}

/// What became of it: the slots that turned out to be faulty, too.
pub struct Mended {
    file: Arc<dyn File>,
    result: io::Result<Vec<usize>>,
}

impl Log {
    /// Whether there are frames that cannot be read.
    pub fn is_faulty(&self) -> bool {
        self.shared.faults.any()
    }

    /// What to ask another replica for next, if anything. A segment that takes appends is ended first.
    pub fn missing(&mut self) -> io::Result<Option<Missing>> {
        self.usable()?;
        self.wanted = None;
        if self.mending.as_ref().is_some_and(|mending| mending.handed_out) {
            return Ok(None);
        }
        let mut faults = self.shared.faults.all();
        match self.mending.as_ref().map(|mending| mending.sequence) {
            Some(begun) if faults.iter().any(|(sequence, _)| *sequence == begun) => {
                // One after the other: what was found since, further ahead, would undo what has come.
                faults.sort_by_key(|(sequence, _)| (*sequence != begun, *sequence));
            }
            Some(_whole_after_all) => self.give_up_mending(),
            None => {}
        }
        for (sequence, slots) in faults {
            let Some(piece) = self.piece(sequence) else {
                self.shared.faults.retain(sequence, |_| false);
                continue;
            };
            if !piece.segment.is_sealed() {
                self.end_soon(&piece)?;
                return Ok(None);
            }
            let view = self.shared.view(&piece)?;
            let kept = self.kept_from(&piece, &view)?..view.slots();
            let void = |range| slots.range::<usize, Range<usize>>(range).next().is_some();
            if void(0..kept.start) || void(kept.end..HEADER_SLOT) {
                let counts = |slot: usize| kept.contains(&slot) || slot == HEADER_SLOT;
                self.shared.faults.retain(sequence, counts);
                return self.missing();
            }
            if let Some(wanted) = self.first_wanted(&piece, &view, &slots)? {
                let (before, place) =
                    (view.before(wanted.start)?, view.place_before(wanted.start)?);
                let behind = Position { term: place.term, index: place.index };
                let bytes = view.before(wanted.end)?.position() - before.position();
                self.wanted = Some((sequence, wanted));
                return Ok(Some(Missing { behind, bytes }));
            }
            let begun = self.mending.as_ref().is_some_and(|it| it.sequence == sequence);
            if begun || slots.contains(&HEADER_SLOT) {
                // All of it has come that will: it is copied before the next segment's turn.
                return Ok(None);
            }
        }
        // What nobody gave is asked for again.
        self.denied.clear();
        Ok(None)
    }

    /// Nobody who was asked has what was missing: something else is missing first from now on.
    pub fn deny_missing(&mut self) {
        if let Some((sequence, slots)) = self.wanted.take() {
            self.denied.entry(sequence).or_default().extend(slots);
        }
    }

    /// The first slots of a segment that somebody has to be asked for. What needs nobody is made on the way.
    fn first_wanted(
        &mut self,
        piece: &Piece,
        view: &View<'_>,
        slots: &BTreeSet<usize>,
    ) -> io::Result<Option<Range<usize>>> {
        let sequence = piece.segment.header.sequence;
        let (nothing, mut stale) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let mending = self.mending.as_ref().filter(|mending| mending.sequence == sequence);
            let fetched = mending.map_or(&nothing, |mending| &mending.fetched);
            let denied = self.denied.get(&sequence).unwrap_or(&nothing);
            let wanted = |slot: &usize| {
                !fetched.contains(slot) && !denied.contains(slot) && !stale.contains(slot)
            };
            // They come in order, so it is looked for behind the last.
            let behind = fetched.last().map_or(0, |last| last + 1);
            let first = slots.range(behind..HEADER_SLOT).copied().find(wanted);
            let first = first.or_else(|| slots.range(..behind).copied().find(wanted));
            let Some(first) = first else { return Ok(None) };
            if view.sound(first..first + 1)?.1.is_none() {
                // A reader found it through a file that was replaced meanwhile.
                self.shared.faults.retain(sequence, |slot| slot != first);
                stale.insert(first);
            } else if let Some(frame) = known_frame(self, piece, view, first)? {
                let at = view.before(first)?.position();
                let mending = self.begin_mending(piece)?;
                mending.file.write_at(at, &[&frame])?;
                mending.fetched.insert(first);
            } else {
                let end = (first..).find(|slot| !slots.contains(slot) || !wanted(slot));
                return Ok(Some(first..end.expect("the slots come to an end")));
            }
        }
    }

    /// Takes frames that another replica has behind a boundary, as far as they are the faulty ones; says
    /// how many it took.
    pub fn mend(&mut self, behind: LogIndex, slices: &[Bytes]) -> io::Result<u64> {
        self.usable()?;
        for (sequence, slots) in self.shared.faults.all() {
            // A late answer is not worth what another segment's new file has already.
            if self.mending.as_ref().is_some_and(|mending| mending.sequence != sequence) {
                continue;
            }
            let sealed = |piece: &Piece| piece.segment.is_sealed();
            let Some(piece) = self.piece(sequence).filter(sealed) else { continue };
            let view = self.shared.view(&piece)?;
            let first = view.first_not(|entry| entry.end(piece.base()).index <= behind)?;
            if view.place_before(first)?.index == behind && slots.contains(&first) {
                return self.mend_from(&piece, &view, (first, &slots), slices);
            }
        }
        Ok(0)
    }

    fn mend_from(
        &mut self,
        piece: &Piece,
        view: &View<'_>,
        (first, slots): (usize, &BTreeSet<usize>),
        slices: &[Bytes],
    ) -> io::Result<u64> {
        let base = piece.base();
        let mut taken = 0;
        let framed = slices.iter().flat_map(|slice| frames(slice));
        for (slot, framed) in (first..view.slots()).zip(framed) {
            let Ok((_, bytes)) = framed else { break };
            let (before, entry) = (view.before(slot)?, view.entry(slot)?);
            let fits = bytes.len() as u64 == entry.position() - before.position();
            let named = is_named(bytes, &before, &entry, base)
                || (fits && mutant::active(Mutant::MendUnchecked));
            if !named {
                break;
            }
            if slots.contains(&slot) {
                let mending = self.begin_mending(piece)?;
                if mending.handed_out {
                    break;
                }
                mending.file.write_at(before.position(), &[bytes])?;
                taken += u64::from(mending.fetched.insert(slot));
            }
        }
        Ok(taken)
    }

    /// The copying to be done now, if all that is known to be faulty has come; `mended` must follow.
    pub fn take_mend(&mut self) -> io::Result<Option<Mend>> {
        for (sequence, slots) in self.shared.faults.all() {
            let sealed = |piece: &Piece| piece.segment.is_sealed();
            let Some(piece) = self.piece(sequence).filter(sealed) else { continue };
            let begun = self.mending.as_ref().map(|mending| mending.sequence);
            if slots.contains(&HEADER_SLOT) && begun.is_none_or(|begun| begun == sequence) {
                self.begin_mending(&piece)?;
            }
            let mending = self.mending.as_mut().filter(|mending| mending.sequence == sequence);
            let Some(mending) = mending else { continue };
            let empty = BTreeSet::new();
            let denied = self.denied.get(&sequence).unwrap_or(&empty);
            // A large segment may have a million faulty frames, and they come a few at a time.
            let few_are_missing = mending.fetched.len() + denied.len() + 1 >= slots.len();
            let has = |slot: &usize| {
                *slot == HEADER_SLOT || mending.fetched.contains(slot) || denied.contains(slot)
            };
            if mending.handed_out || !few_are_missing || !slots.iter().all(has) {
                return Ok(None);
            }
            let view = self.shared.view(&piece)?;
            let start = self.start.index;
            let kept_from = view.first_not(|entry| entry.end(piece.base()).index <= start)?;
            drop(view);
            mending.handed_out = true;
            mending.absent = denied.difference(&mending.fetched).copied().collect();
            let (file, fetched) = (Arc::clone(&mending.file), mending.fetched.clone());
            let absent = mending.absent.clone();
            let shared = Arc::clone(&self.shared);
            return Ok(Some(Mend { shared, piece, file, fetched, absent, kept_from }));
        }
        Ok(None)
    }

    /// The copying is over: the new file takes the old one's name. Says how many frames are whole again.
    pub fn mended(&mut self, mended: Mended) -> io::Result<u64> {
        self.usable()?;
        let Mended { file, result } = mended;
        let own = |mending: &&mut Mending| Arc::ptr_eq(&mending.file, &file);
        // What an earlier opening of this log asked for, or what was cut since, is nothing to this one.
        let Some(mending) = self.mending.as_mut().filter(own) else { return Ok(0) };
        mending.handed_out = false;
        let (sequence, path) = (mending.sequence, mending.path.clone());
        let Some(piece) = self.piece(sequence).filter(|piece| piece.segment.is_sealed()) else {
            self.give_up_mending();
            return Ok(0);
        };
        match result {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                self.shared.faults.note(sequence, found);
                return Ok(0);
            }
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "mending begins again");
                self.give_up_mending();
                return Ok(0);
            }
        }
        let mending = self.mending.take().expect("it was looked at just now");
        crash_point::reached(CrashPoint::MendWritten);
        let renamed = self.shared.disk.rename(&path, &piece.segment.stem.log());
        crash_point::reached(CrashPoint::MendRenamed);
        if let Err(error) = renamed.and_then(|()| self.shared.disk.flush_dir(&self.dir)) {
            self.failed = true;
            return Err(error);
        }
        self.shared.forget(&piece.segment);
        self.shared.faults.retain(sequence, |slot| mending.absent.contains(&slot));
        Ok(mending.fetched.len() as u64)
    }

    /// Ends a segment that takes appends, because only sealed ones are mended.
    pub(super) fn end_soon(&mut self, piece: &Piece) -> io::Result<()> {
        let last = self.unsealed.back();
        let grows = last.is_some_and(|last| {
            Arc::ptr_eq(&last.segment, &piece.segment) && last.retired.is_none()
        });
        if grows {
            self.roll()?;
            // Where all is on disk already, no flush comes that would seal it.
            self.witness()?;
        }
        Ok(())
    }

    /// Whether a segment's new file is being written by another thread.
    pub(super) fn is_copied(&self, sequence: u64) -> bool {
        self.mending.as_ref().is_some_and(|it| it.sequence == sequence && it.handed_out)
    }

    /// The first slot of a segment that does not lie before the log's start.
    pub(super) fn kept_from(&self, piece: &Piece, view: &View<'_>) -> io::Result<usize> {
        view.first_not(|entry| entry.end(piece.base()).index <= self.start.index)
    }

    pub(super) fn piece(&self, sequence: u64) -> Option<Piece> {
        let pieces = self.shared.pieces.load();
        pieces.iter().find(|piece| piece.segment.header.sequence == sequence).cloned()
    }

    fn begin_mending(&mut self, piece: &Piece) -> io::Result<&mut Mending> {
        let sequence = piece.segment.header.sequence;
        if self.mending.as_ref().is_some_and(|mending| mending.sequence != sequence) {
            self.give_up_mending();
        }
        if self.mending.is_none() {
            let path = piece.segment.stem.mend();
            let bytes = match &piece.segment.body {
                Body::Sealed(sealed) => sealed.position,
                Body::Growing(_) => unreachable!("the caller has a sealed segment"),
            };
            absent_is_fine(self.shared.disk.remove(&path))?;
            let free = self.shared.disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
            if free < bytes.saturating_add(self.options.keep_free_bytes) {
                // What is left is for the controller's log, marks and votes; the mend comes later.
                return Err(io::ErrorKind::StorageFull.into());
            }
            let file = self.shared.disk.create(&path, bytes, log_bytes_max(bytes))?;
            let (fetched, absent) = (BTreeSet::new(), BTreeSet::new());
            self.mending =
                Some(Mending { sequence, file, path, fetched, absent, handed_out: false });
        }
        Ok(self.mending.as_mut().expect("it was begun just now"))
    }

    fn give_up_mending(&mut self) {
        if let Some(mending) = self.mending.take() {
            // What stays behind is removed when the log is opened next.
            let _ = self.shared.disk.remove(&mending.path);
        }
    }
}

impl Mend {
    /// What to report where it cannot be run to its end: the log begins again.
    pub fn undone(&self) -> Mended {
        let result = Err(io::Error::other("the copying did not come to its end"));
        Mended { file: Arc::clone(&self.file), result }
    }

    /// Copies and flushes; blocks for as long as the segment is large.
    pub fn run(self) -> Mended {
        let result = self.copy();
        Mended { file: self.file, result }
    }

    fn copy(&self) -> io::Result<Vec<usize>> {
        let view = self.shared.view(&self.piece)?;
        let mut faulty = Vec::new();
        // What was given up is copied, too: where the index is lost, the frames must speak for themselves.
        let mut slot = 0;
        while slot < view.slots() {
            if self.fetched.contains(&slot) {
                slot += 1;
                continue;
            }
            if self.absent.contains(&slot) {
                // Nobody relies on it; but people may still make something of it.
                let there = view.entry(slot)?.position() <= view.log().len();
                if let Some(bytes) = there.then(|| view.frames(slot..slot + 1).ok()).flatten() {
                    self.file.write_at(view.before(slot)?.position(), &[&bytes])?;
                }
                slot += 1;
                continue;
            }
            let start = view.before(slot)?.position();
            let mut end = slot + 1;
            while end < view.slots()
                && !self.fetched.contains(&end)
                && !self.absent.contains(&end)
                && view.entry(end)?.position() - start <= COPY_BYTES
            {
                end += 1;
            }
            let (bytes, bad) = view.sound(slot..end)?;
            self.file.write_at(start, &[&bytes])?;
            slot = bad.map_or(end, |bad| bad + 1);
            faulty.extend(bad.filter(|bad| *bad >= self.kept_from));
        }
        if faulty.is_empty() {
            self.file.write_at(0, &[&self.piece.segment.header.encode()])?;
            if !mutant::active(Mutant::MendNotFlushed) {
                self.file.flush()?;
            }
            // The seal that the new file is read by may be younger than the last flush.
            let index = self.piece.segment.stem.index();
            let room = index_bytes_max(view.before(view.slots())?.position());
            self.shared.disk.open(&index, room)?.flush()?;
        }
        Ok(faulty)
    }
}

impl fmt::Debug for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mend").field("fetched", &self.fetched).finish_non_exhaustive()
    }
}

impl fmt::Debug for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mended").field("result", &self.result).finish_non_exhaustive()
    }
}

/// Stands for a segment's first page among its faulty slots: nobody need be asked for it.
pub(super) const HEADER_SLOT: usize = usize::MAX;
const COPY_BYTES: u64 = 1 << 20;

#[cfg(all(test, feature = "sim"))]
mod tests;
