//! How segments come and go: roll, truncate, seal. `start` has the trim and the start anew.
//!
//! A roll and a truncation are one atomic step, the making of a segment: once its header page and
//! its name are durable it overrules everything from its base on, in this life and in the next.
//! What it overrules is removed only afterwards.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use highwater_protocol::ids::{LogIndex, Offset};

use super::header::{self, Header, Origin};
use super::index::slot_at;
use super::segment::{
    Body, Growing, INDEX_EXTENT_BYTES, LOG_EXTENT_BYTES, Piece, Segment, Stem, index_bytes_max,
    log_bytes_max,
};
use super::{Log, Place};
use crate::crash_point::{self, CrashPoint};
use crate::disk::{Disk, File};
use crate::mutant::{self, Mutant};

/// What the owner keeps for a segment until it is sealed.
pub(super) struct Unsealed {
    pub segment: Arc<Segment>,
    /// Entries before this slot are in the `.idx` file.
    pub witnessed: usize,
    /// Set when nothing is added any more: entries from here on are void.
    pub retired: Option<usize>,
    /// Written to since the last flush was taken.
    pub dirty: bool,
    /// The marks in it, by their slots: what a seal says of them must be known, also if one rots.
    pub marks: Marks,
}

/// Marks as they lie in a segment, by their slots.
pub(super) type Marks = BTreeMap<usize, Bytes>;

impl Unsealed {
    fn limit(&self) -> usize {
        self.retired.unwrap_or(self.segment.growing().entries.count())
    }

    /// Whether all that a seal would vouch for is durable and witnessed.
    pub(super) fn complete(&self) -> bool {
        self.retired.is_some_and(|slots| self.witnessed >= slots)
    }

    /// Writes the entries of frames that are durable now. Where there is no room for them, what was flushed is there
    /// without a witness, too, and gets one later.
    pub(super) fn witness(&mut self, disk: &dyn Disk, durable: LogIndex) -> io::Result<()> {
        let (growing, base) = (self.segment.growing(), &self.segment.header.base);
        let (from, limit) = (self.witnessed, self.limit());
        let named = |slot: &usize| {
            let entry = growing.entries.get(*slot).expect("entries below the limit are there");
            entry.end(base).index <= durable
        };
        let to = (from..limit).take_while(named).last().map_or(from, |slot| slot + 1);
        if from == to {
            return Ok(());
        }
        let index = index_of(disk, &self.segment).and_then(|index| {
            if slot_at(to) > index.len() {
                index.extend(slot_at(to).next_multiple_of(4096))?;
            }
            Ok(index)
        });
        let index = match index {
            Ok(index) => index,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        };
        let entries = growing.encoded(self.segment.header.sequence, from..to);
        index.write_at(slot_at(from), &[&entries])?;
        self.witnessed = to;
        Ok(())
    }
}

impl Log {
    /// Cuts everything from `to` on, which must be a frame boundary above the high watermark. When
    /// it returns, the cut is durable.
    pub fn truncate(&mut self, to: LogIndex) -> io::Result<()> {
        self.usable()?;
        if to == self.end.index {
            return Ok(());
        }
        assert!(self.start.index <= to && to < self.end.index, "a cut outside of the log");
        let place = self.place_at(to)?.expect("a cut lies between two frames");
        let committed = Offset(self.shared.high_watermark.load(Ordering::Relaxed));
        assert!(committed <= place.offset, "a committed record would be lost");
        // The leader that asks for the cut vouches for what comes instead of the lost frames.
        self.owed = None;
        self.add_segment(place)?;
        self.durable = self.durable.min(to);
        self.voters.retain(|placed| placed.end <= to);
        for flush in &mut self.flushes {
            flush.proves = flush.proves.min(to);
        }
        Ok(())
    }

    /// Frames that an earlier life found damaged are given up by the operator: no later life asks for them.
    pub fn accept_loss(&mut self) -> io::Result<()> {
        self.usable()?;
        match self.owed.take() {
            Some(_) => self.add_segment(self.end),
            None => Ok(()),
        }
    }

    /// A new segment at the log's end.
    pub(super) fn roll(&mut self) -> io::Result<()> {
        self.owed = self.owed.filter(|owed| *owed > self.end.index);
        self.add_segment(self.end)
    }

    /// Nothing is added to the active segment any more: its spare blocks are given back.
    pub(super) fn retire_active(&mut self) {
        self.active = false;
        let current = self.unsealed.back_mut().expect("an active log has a growing segment");
        let growing = current.segment.growing();
        let slots = growing.entries.count();
        current.retired = Some(slots);
        let end = growing.entries.get(slots.wrapping_sub(1)).map(super::index::Entry::position);
        growing.log.release(end.unwrap_or(header::HEADER_PAGE_BYTES));
    }

    fn add_segment(&mut self, base: Place) -> io::Result<()> {
        let (origin, slots) = self.origin_at(base.index)?;
        self.add_segment_from(base, origin, slots)
    }

    /// What a segment that begins at a boundary comes after, and how many slots of that stay. Where it is sealed, its
    /// files have to be opened.
    pub(super) fn origin_at(&self, base: LogIndex) -> io::Result<(Origin, usize)> {
        let pieces = self.shared.pieces.load();
        let kept = pieces.partition_point(|piece| piece.base().index < base);
        let Some(piece) = pieces[..kept].last() else { return Ok((Origin::Start, 0)) };
        let view = self.shared.view(piece)?;
        let slot = view.first_not(|entry| entry.end(piece.base()).index <= base)?;
        let cut = view.before(slot)?.position();
        Ok((Origin::After { sequence: piece.segment.header.sequence, cut }, slot))
    }

    /// Makes a segment, the atomic step; then lets go of what it overrules: all but the first `slots` of the one before.
    fn add_segment_from(&mut self, base: Place, origin: Origin, slots: usize) -> io::Result<()> {
        // The number is spent also if this fails: a file that stays behind is never mistaken.
        self.sequence_last += 1;
        let header = Header {
            partition: self.partition,
            sequence: self.sequence_last,
            base,
            origin,
            owed: self.owed,
        };
        let stem = Stem::new(&self.dir, header.sequence, base.index.0);
        let growing = match make(&*self.shared.disk, &header, &stem, self.options.segment_bytes_max)
        {
            Ok(growing) => growing,
            Err(error) => {
                // A full disk changes nothing; after any other error the step may have happened.
                self.failed |= error.kind() != io::ErrorKind::StorageFull;
                return Err(error);
            }
        };
        crash_point::reached(CrashPoint::SegmentMade);
        let named = match mutant::active(Mutant::CutNotFlushed) {
            true => Ok(()),
            false => self.shared.disk.flush_dir(&self.dir),
        };
        if let Err(error) = named {
            self.failed = true;
            return Err(error);
        }
        crash_point::reached(CrashPoint::SegmentNamed);
        let segment = Arc::new(Segment { header, stem, body: Body::Growing(Box::new(growing)) });
        self.adopt(segment, slots)
    }

    /// Puts a new segment at the end of the list and removes what it overrules.
    fn adopt(&mut self, segment: Arc<Segment>, slots: usize) -> io::Result<()> {
        let (base, origin) = (segment.header.base, segment.header.origin);
        let pieces = self.shared.pieces.load_full();
        let kept = match origin {
            Origin::Start => 0,
            Origin::After { .. } => pieces.partition_point(|piece| piece.base().index < base.index),
        };
        let mut now = pieces[..kept].to_vec();
        if let Some(last) = now.last_mut() {
            self.retire(&last.segment.clone(), slots);
            last.cut = Some(slots);
        }
        now.push(Piece { segment: Arc::clone(&segment), cut: None });
        self.shared.pieces.store(Arc::new(now));
        self.end = base;
        self.shared.log_end.store(base.offset.0, Ordering::Release);
        let overruled =
            self.unsealed.iter().filter(|held| held.segment.header.base.index >= base.index);
        let overruled: Vec<u64> = overruled.map(|held| held.segment.header.sequence).collect();
        self.unsealed.retain(|held| {
            origin != Origin::Start && !overruled.contains(&held.segment.header.sequence)
        });
        self.unsealed.push_back(Unsealed {
            segment,
            witnessed: 0,
            retired: None,
            dirty: false,
            marks: Marks::new(),
        });
        self.active = true;
        let beyond = std::mem::take(&mut self.beyond);
        discard(&*self.shared.disk, &self.dir, &beyond, self.owed)?;
        self.remove_pieces(&pieces[kept..])
    }

    fn retire(&mut self, segment: &Arc<Segment>, slots: usize) {
        let held = self.unsealed.iter_mut().find(|held| Arc::ptr_eq(&held.segment, segment));
        if let Some(held) = held {
            held.retired = Some(slots);
        }
    }

    pub(super) fn remove_pieces(&mut self, gone: &[Piece]) -> io::Result<()> {
        for piece in gone {
            self.unsealed.retain(|held| !Arc::ptr_eq(&held.segment, &piece.segment));
            self.shared.forget(&piece.segment);
        }
        let stems: Vec<Stem> = gone.iter().map(|piece| piece.segment.stem.clone()).collect();
        discard(&*self.shared.disk, &self.dir, &stems, None)
    }

    /// Seals the oldest growing segment, which is complete.
    pub(super) fn seal_first(&mut self) -> io::Result<()> {
        let held = self.unsealed.front().expect("the caller looked at it");
        let slots = held.retired.expect("only a complete segment is sealed");
        let view = held.segment.view(slots).expect("a growing segment is open");
        let index = index_of(&*self.shared.disk, &held.segment)?;
        let seal = held.segment.growing().seal(&*index, &view, &held.marks)?;
        crash_point::reached(CrashPoint::SegmentSealed);
        let sealed = Segment::sealed(held.segment.header, held.segment.stem.clone(), &seal);
        let sealed = Piece { segment: Arc::new(sealed), cut: Some(slots) };
        let mut pieces = self.shared.pieces.load().to_vec();
        for piece in &mut pieces {
            if Arc::ptr_eq(&piece.segment, &held.segment) {
                *piece = sealed.clone();
            }
        }
        self.dirty.push(index);
        self.shared.pieces.store(Arc::new(pieces));
        self.unsealed.pop_front();
        Ok(())
    }
}

/// Makes a segment's files and the header page durable; their names are not yet.
fn make(disk: &dyn Disk, header: &Header, stem: &Stem, room: u64) -> io::Result<Growing> {
    let made = (|| {
        let log = disk.create(&stem.log(), LOG_EXTENT_BYTES, log_bytes_max(room))?;
        log.write_at(0, &[&header.encode()])?;
        let index = OnceLock::from(make_index(disk, header, stem, room)?);
        log.flush()?;
        Ok(Growing { log, index, entries: boxcar::Vec::new(), bytes_max: room })
    })();
    if made.is_err() {
        // Best effort: what stays behind is recognised as unfinished and removed by recovery.
        let _ = disk.remove(&stem.index());
        let _ = disk.remove(&stem.log());
    }
    made
}

/// Makes an empty index file.
pub(super) fn make_index(
    disk: &dyn Disk,
    header: &Header,
    stem: &Stem,
    room: u64,
) -> io::Result<Arc<dyn File>> {
    let index = disk.create(&stem.index(), INDEX_EXTENT_BYTES, index_bytes_max(room))?;
    index.write_at(0, &[&header::encode_index_header(header.sequence)])?;
    Ok(index)
}

/// The index file of a growing segment: made now where a full disk kept it from being made when the log was opened.
pub(super) fn index_of(disk: &dyn Disk, segment: &Segment) -> io::Result<Arc<dyn File>> {
    let growing = segment.growing();
    if let Some(index) = growing.index.get() {
        return Ok(Arc::clone(index));
    }
    let index = make_index(disk, &segment.header, &segment.stem, growing.bytes_max)?;
    Ok(Arc::clone(growing.index.get_or_init(|| index)))
}

/// Removes segments' files; where damage made them lose their place, the frames are kept aside.
pub(super) fn discard(
    disk: &dyn Disk,
    dir: &Path,
    stems: &[Stem],
    owed: Option<LogIndex>,
) -> io::Result<()> {
    if stems.is_empty() {
        return Ok(());
    }
    for stem in stems {
        absent_is_fine(disk.remove(&stem.index()))?;
        match owed {
            Some(_) => absent_is_fine(disk.rename(&stem.log(), &stem.lost()))?,
            None => absent_is_fine(disk.remove(&stem.log()))?,
        }
    }
    disk.flush_dir(dir)
}

pub(super) fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
