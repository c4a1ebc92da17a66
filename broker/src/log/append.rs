//! Appending, and the road from appended to durable.
//!
//! An append writes once, at the end of the active segment, and changes nothing if the disk is
//! full. A flush goes to whoever carries out effects (`take_unflushed`), and when it is over
//! (`flushed`) the index entries of its frames are written: they witness that the frames were
//! durable. A failed write or flush is final: the kernel forgets what it could not write, so the
//! log refuses everything from then on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use highwater_protocol::batch::{FrameHeader, FrameKind, HEADER_BYTES, Mark, frames, stamp};
use highwater_protocol::ids::{LogIndex, Offset, Term};

use super::header::HEADER_PAGE_BYTES;
use super::index::{ENTRY_BYTES, Entry, slot_at};
use super::roll::{Unsealed, index_of};
use super::segment::{
    INDEX_EXTENT_BYTES, LOG_EXTENT_BYTES, extent, index_bytes_max, log_bytes_max,
};
use super::{Appended, Flush, Log, PlacedMark, scan};
use crate::crash_point::{self, CrashPoint};
use crate::disk::File;
use crate::mutant::{self, Mutant};

impl Log {
    /// Appends a client's batch as the leader of `term`: stamps offset and term into a copy of the
    /// header and writes the rest as it came.
    pub fn append(&mut self, term: Term, batch: &Bytes) -> io::Result<Appended> {
        let (head, body) = batch.split_at(HEADER_BYTES);
        let mut head: [u8; HEADER_BYTES] = head.try_into().expect("split at its length");
        stamp(&mut head, self.end.offset, term);
        let header = FrameHeader::parse(&head).expect("the batch was parsed at the edge");
        assert_eq!(header.frame_bytes(), batch.len(), "exactly one batch");
        self.append_one(&header, &[&head, body])
    }

    /// Appends a mark as the leader of `term`.
    pub fn append_mark(&mut self, term: Term, mark: &Mark) -> io::Result<Appended> {
        let bytes = mark.encode(self.end.offset, term);
        let header = FrameHeader::parse(&bytes).expect("our own mark");
        let appended = self.append_one(&header, &[&bytes])?;
        self.remember(term, mark, Bytes::copy_from_slice(&bytes));
        Ok(appended)
    }

    /// Voters outlive a trim, so the log keeps the few marks that name them; and every mark, until the
    /// segment is sealed that has it.
    fn remember(&mut self, term: Term, mark: &Mark, frame: Bytes) {
        let current = self.current_mut();
        let slot = current.segment.growing().entries.count() - 1;
        current.marks.insert(slot, frame);
        match mark {
            Mark::TermStart | Mark::LogStart(_) => {}
            Mark::Voters(_) => {
                self.voters.push(PlacedMark { end: self.end.index, term, mark: mark.clone() });
            }
        }
    }

    /// Appends a leader's frames as a follower; each slice holds one or more whole frames, which
    /// the caller has parsed and checked.
    pub fn append_frames(&mut self, slices: &[Bytes]) -> io::Result<Appended> {
        let base_offset = self.end.offset;
        let mut batch = Batch::default();
        for slice in slices {
            for framed in frames(slice) {
                let (header, bytes) = framed.expect("the frames were parsed at the edge");
                self.check_next(&header, batch.end.unwrap_or(self.end.offset));
                let fits = self.active && self.next_entry(batch.entries.last(), &header).is_some();
                if !fits {
                    self.write(std::mem::take(&mut batch))?;
                    self.make_room(&header)?;
                }
                let entry = self.next_entry(batch.entries.last(), &header).expect("room was made");
                batch.push(entry, &header, bytes);
                if header.kind() == FrameKind::Mark {
                    // Marks are rare: written at once, so that their end is the log's.
                    self.write(std::mem::take(&mut batch))?;
                    let mark = Mark::parse(bytes).expect("parsed at the edge");
                    self.remember(header.term, &mark, Bytes::copy_from_slice(bytes));
                }
            }
        }
        self.write(batch)?;
        Ok(Appended { base_offset, end: self.end.index })
    }

    fn append_one(&mut self, header: &FrameHeader, parts: &[&[u8]]) -> io::Result<Appended> {
        let base_offset = self.end.offset;
        self.check_next(header, base_offset);
        if !self.active || self.next_entry(None, header).is_none() {
            self.make_room(header)?;
        }
        let entry = self.next_entry(None, header).expect("room was made");
        self.write(Batch { entries: vec![entry], parts: parts.to_vec(), end: None })?;
        Ok(Appended { base_offset, end: self.end.index })
    }

    fn check_next(&self, header: &FrameHeader, next: Offset) {
        assert_eq!(header.base_offset, next, "offsets are dense");
        assert!(header.term >= self.end.term, "terms never fall along a log");
    }

    /// A new segment, if the frame does not fit the active one.
    fn make_room(&mut self, header: &FrameHeader) -> io::Result<()> {
        assert!(header.frame_bytes() as u64 <= scan::FRAME_BYTES_MAX, "a frame above the limit");
        self.usable()?;
        self.roll()
    }

    /// The entry of a frame behind `before` (or the log's end), if the active segment has room.
    fn next_entry(&self, before: Option<&Entry>, header: &FrameHeader) -> Option<Entry> {
        let current = self.current();
        let slots = current.segment.growing().entries.count();
        let last = current.segment.growing().entries.get(slots.wrapping_sub(1)).copied();
        let base = &current.segment.header.base;
        let last = before.copied().or(last).unwrap_or(Entry::before_first(base.term));
        let entry = Entry::after(&last, header)?;
        let alone = slots == 0 && before.is_none();
        (alone || entry.position() <= self.active_bytes_max()).then_some(entry)
    }

    /// The active segment is sealed before it grows past this: what the options say now, as far as
    /// its maps have room.
    fn active_bytes_max(&self) -> u64 {
        self.options.segment_bytes_max.min(self.current().segment.growing().bytes_max)
    }

    /// Writes frames at the end of the active segment and makes them visible.
    fn write(&mut self, batch: Batch<'_>) -> io::Result<()> {
        let Some(last) = batch.entries.last().copied() else { return Ok(()) };
        self.usable()?;
        let segment = Arc::clone(&self.current().segment);
        let growing = segment.growing();
        let slots = growing.entries.count();
        let at = growing.entries.get(slots.wrapping_sub(1)).copied();
        let at = at.unwrap_or(Entry::before_first(Term::default())).position();

        // Both files get their blocks now, so that a full disk is found before anything changed.
        let room = growing.bytes_max;
        self.reserve(&*growing.log, last.position(), log_bytes_max(room))?;
        let entries_end = slot_at(slots + batch.entries.len());
        let index = index_of(&*self.shared.disk, &segment)?;
        self.reserve(&*index, entries_end, index_bytes_max(room))?;

        if let Err(error) = growing.log.write_at(at, &batch.parts) {
            self.failed = true;
            return Err(error);
        }
        for entry in batch.entries {
            growing.entries.push(entry);
        }
        self.end = last.end(&segment.header.base);
        self.shared.log_end.store(self.end.offset.0, Ordering::Release);
        self.current_mut().dirty = true;
        crash_point::reached(CrashPoint::FramesWritten);
        Ok(())
    }

    /// Whether so many bytes of records in so many frames can be put at a place, which is a cut where that lies
    /// in the log: `StorageFull` where the disk lacks the room or the process the descriptors, or the disk has it only in
    /// the part that is kept free. Ask before anything that cannot be undone depends on the append; marks need not ask.
    pub fn room_for(&self, at: LogIndex, bytes: u64, frames: u64) -> io::Result<()> {
        let fits = self.active && self.fits_what_is_allocated(bytes, frames);
        let cuts = at < self.end.index && !mutant::active(Mutant::CutNeedsNoRoom);
        // Behind the end, the log starts anew there: nothing that is allocated is of use.
        let anew = at > self.end.index;
        if fits && !cuts && !anew {
            return Ok(());
        }
        let disk = &self.shared.disk;
        // The cut's, and one for each roll: any two neighbours of them have more than one has room for.
        let each = self.options.segment_bytes_max.saturating_sub(HEADER_PAGE_BYTES).max(1);
        let segments = 1 + frames.min(1 + 2 * bytes / each);
        disk.spare_files(1 + 2 * segments as usize)?;
        // What a cut, or a segment behind a sealed one, needs to know of what it comes after: it stays open.
        self.place_at(at)?;
        self.origin_at(at.min(self.end.index))?;
        let Ok(free) = disk.free_bytes(&self.dir) else { return Ok(()) };
        let files = segments * (LOG_EXTENT_BYTES + INDEX_EXTENT_BYTES);
        let needed = bytes + frames * ENTRY_BYTES as u64 + files;
        // A cut begins a segment, and may use what is kept free.
        let keep = if fits { 0 } else { self.options.keep_free_bytes };
        if free >= keep + needed {
            return Ok(());
        }
        let (kib, keep) = (free >> 10, keep >> 10);
        let why = format!(
            "the disk under {} has {kib} KiB free, of which {keep} KiB are kept for the broker's own \
             needs; delete topics, lower their retention, or make room in another way",
            self.dir.display()
        );
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }

    fn fits_what_is_allocated(&self, bytes: u64, frames: u64) -> bool {
        let growing = self.current().segment.growing();
        let slots = growing.entries.count();
        let last = growing.entries.get(slots.wrapping_sub(1)).copied();
        // One without frames has its header already.
        let at = last.unwrap_or(Entry::before_first(Term::default())).position();
        let entries_end = slot_at(slots) + frames * ENTRY_BYTES as u64;
        at + bytes <= growing.log.len().min(self.active_bytes_max())
            && growing.index.get().is_some_and(|index| entries_end <= index.len())
    }

    /// Allocates a file further, generously where there is space and sparingly where there is little.
    fn reserve(&self, file: &dyn File, needed: u64, bytes_max: u64) -> io::Result<()> {
        let len = file.len();
        if needed <= len {
            return Ok(());
        }
        let wanted = extent(len, needed, bytes_max);
        // What cannot be measured is found out by trying.
        let free = self.shared.disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
        if free.saturating_sub(wanted - len) < self.options.keep_free_bytes {
            return file.extend(needed);
        }
        match file.extend(wanted) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => file.extend(needed),
            done => done,
        }
    }

    pub(super) fn current(&self) -> &Unsealed {
        self.unsealed.back().expect("an active log has a growing segment")
    }

    fn current_mut(&mut self) -> &mut Unsealed {
        self.unsealed.back_mut().expect("an active log has a growing segment")
    }

    /// An error if an earlier one was final.
    pub(super) fn usable(&self) -> io::Result<()> {
        if self.failed {
            let name = self.dir.display();
            return Err(io::Error::other(format!(
                "the log in {name} failed before; unless it is made anew from other replicas, restart the broker to recover it"
            )));
        }
        Ok(())
    }

    /// The files to flush and the end of what will be durable then; nothing if all is flushed.
    ///
    /// Every flush taken must be answered by `flushed`, or the log be dropped.
    pub fn take_unflushed(&mut self) -> Option<(Vec<Arc<dyn File>>, LogIndex)> {
        let mut files = std::mem::take(&mut self.dirty);
        for unsealed in &mut self.unsealed {
            if std::mem::take(&mut unsealed.dirty) {
                files.push(Arc::clone(&unsealed.segment.growing().log));
            }
        }
        if files.is_empty() {
            return None;
        }
        let given = self.end.index;
        self.flushes.push_back(Flush { given, proves: given, done: false });
        Some((files, given))
    }

    /// The flush that was given out up to `upto` succeeded: writes the witnesses of what is durable
    /// now, and seals full segments. See `durable` for what it proved: a truncation in between
    /// makes it prove less.
    pub fn flushed(&mut self, upto: LogIndex) -> io::Result<()> {
        let flush = self.flushes.iter_mut().find(|flush| flush.given == upto && !flush.done);
        flush.expect("every flush is answered once").done = true;
        // A later flush that is over first proves nothing while an earlier one may still fail.
        while let Some(flush) = self.flushes.pop_front_if(|flush| flush.done) {
            self.durable = self.durable.max(flush.proves);
            if mutant::active(Mutant::FlushVouchesForLater) {
                self.durable = self.end.index;
            }
        }
        self.usable()?;
        self.witness()
    }

    /// Up to where the log is known to be on the device.
    pub fn durable(&self) -> LogIndex {
        self.durable
    }

    /// Writes the entries of durable frames, and seals what is complete.
    pub(super) fn witness(&mut self) -> io::Result<()> {
        let durable = match mutant::active(Mutant::WitnessTooEarly) {
            true => self.end.index,
            false => self.durable,
        };
        for unsealed in &mut self.unsealed {
            if let Err(error) = unsealed.witness(&*self.shared.disk, durable) {
                self.failed = true;
                return Err(error);
            }
        }
        while let Some(unsealed) = self.unsealed.front()
            && unsealed.complete()
        {
            match self.seal_first() {
                Ok(()) => {}
                // Sealing can wait for space: until then the segment is recovered by reading it.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                // Nor can a segment be summed up one of whose marks is damaged.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::warn!(%error, "a segment is not sealed");
                    break;
                }
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Makes everything durable and seals the log, so that the next life opens it without reading
    /// frames. Appending goes on in a new segment.
    pub fn close(&mut self) -> io::Result<()> {
        self.usable()?;
        if !self.flushes.is_empty() {
            // A flush under way may fail without our seeing it, so nothing may be witnessed or sealed: the next
            // life checks what it finds.
            let mut files = std::mem::take(&mut self.dirty);
            files.extend(self.unsealed.iter().map(|it| Arc::clone(&it.segment.growing().log)));
            return self.flush_now(&files);
        }
        if let Some((files, upto)) = self.take_unflushed() {
            self.flush_now(&files)?;
            self.flushed(upto)?;
        }
        if self.active {
            self.retire_active();
            self.witness()?;
        }
        let files = std::mem::take(&mut self.dirty);
        self.flush_now(&files)
    }

    fn flush_now(&mut self, files: &[Arc<dyn File>]) -> io::Result<()> {
        for file in files {
            if let Err(error) = file.flush() {
                self.failed = true;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Frames that are written together.
#[derive(Default)]
struct Batch<'b> {
    entries: Vec<Entry>,
    parts: Vec<&'b [u8]>,
    /// The offset behind its last record.
    end: Option<Offset>,
}

impl<'b> Batch<'b> {
    fn push(&mut self, entry: Entry, header: &FrameHeader, bytes: &'b [u8]) {
        self.entries.push(entry);
        self.parts.push(bytes);
        self.end = Some(header.base_offset.advance(u64::from(header.records())));
    }
}
