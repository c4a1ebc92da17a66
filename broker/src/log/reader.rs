//! Reading committed records from any thread, without a lock and without the log's owner.
//!
//! The owner publishes a list of segments and three watermarks; a reader never looks at or above
//! the high watermark, below which nothing is ever truncated. What a reader got stays valid for as
//! long as it holds it, also when the segment is removed meanwhile.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bytes::Bytes;
use highwater_protocol::batch::BatchView;
use highwater_protocol::ids::{Offset, Timestamp};

use super::faults::{Faults, FaultyRange, faulty_range};
use super::header::HEADER_PAGE_BYTES;
use super::segment::{Body, Piece, Segment, View};
use crate::disk::Disk;
use crate::mutant::{self, Mutant};

/// Reads committed records of one partition; clones read the same log.
#[derive(Clone)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No record of that offset can be read here.
    #[error("the log holds offsets {start} to {end} (exclusive)")]
    OutOfRange {
        /// The first offset that can be read.
        start: Offset,
        /// The high watermark.
        end: Offset,
    },
    /// The batch is known and cannot be read; it is fetched from another replica, so ask again.
    #[error(
        "offsets {} to {} (exclusive) cannot be read from {}: the batch is damaged there, and is being \
         fetched from another replica if there is one",
        .0.from, .0.until, .0.file.display()
    )]
    Faulty(FaultyRange),
    /// The files failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the owner of a log and its readers have in common.
pub(super) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub pieces: ArcSwap<Vec<Piece>>,
    pub log_start: AtomicU64,
    /// The same place as an index.
    pub start_index: AtomicU64,
    pub high_watermark: AtomicU64,
    pub log_end: AtomicU64,
    pub faults: Faults,
    /// Sealed segments whose files are open, oldest first.
    opened: Mutex<VecDeque<Arc<Segment>>>,
}

impl LogReader {
    /// Whole batches from the one that holds `from` on, all below the high watermark: at most
    /// `bytes_max`, but one at least. Nothing at the high watermark itself, where one waits.
    pub fn read(&self, from: Offset, bytes_max: u32) -> Result<Vec<Bytes>, ReadError> {
        // In this order: a list of segments that lacks what a trim took comes with a start that says
        // so, and one that is older than the high watermark never comes at all.
        let end = self.high_watermark();
        let pieces = self.shared.pieces.load_full();
        let start = self.log_start();
        if from < start || from > end {
            return Err(ReadError::OutOfRange { start, end });
        }
        if from == end {
            return Ok(Vec::new());
        }
        let first = pieces.partition_point(|piece| piece.base().offset <= from);
        let shared = &self.shared;
        let mut reading =
            Reading { shared, from, end, left: bytes_max as usize, slices: Vec::new() };
        for piece in &pieces[first.saturating_sub(1)..] {
            let read = self.shared.view(piece).and_then(|view| reading.take(&view, piece));
            match read {
                Ok(Progress::More) => {}
                Ok(Progress::Done) => break,
                Ok(Progress::Faulty(range)) if reading.slices.is_empty() => {
                    return Err(ReadError::Faulty(range));
                }
                Ok(Progress::Faulty(_)) => break,
                // Retention removed the file after the watermark was looked at.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound && from < self.log_start() =>
                {
                    return Err(ReadError::OutOfRange { start: self.log_start(), end });
                }
                Err(error) => return Err(error.into()),
            }
        }
        assert!(!reading.slices.is_empty(), "no batch holds an offset below the high watermark");
        Ok(reading.slices)
    }

    /// The first offset that can be read.
    pub fn log_start(&self) -> Offset {
        Offset(self.shared.log_start.load(Ordering::Acquire))
    }

    /// The end of what is committed.
    pub fn high_watermark(&self) -> Offset {
        if mutant::active(Mutant::ReadUncommitted) {
            return self.log_end();
        }
        Offset(self.shared.high_watermark.load(Ordering::Acquire))
    }

    /// The end of what is appended.
    pub fn log_end(&self) -> Offset {
        Offset(self.shared.log_end.load(Ordering::Acquire))
    }

    /// Bytes of frames that the log holds, in whole segments.
    pub fn bytes(&self) -> u64 {
        let pieces = self.shared.pieces.load();
        pieces.iter().map(|piece| self.shared.piece_bytes(piece)).sum()
    }

    /// The first committed record that is not older than `wanted`, and its timestamp.
    pub fn offset_for(&self, wanted: Timestamp) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let (start, end) = (self.log_start(), self.high_watermark());
        for piece in self.shared.pieces.load_full().iter() {
            if matches!(&piece.segment.body, Body::Sealed(sealed) if sealed.max_timestamp < wanted.0)
            {
                continue;
            }
            let view = self.shared.view(piece)?;
            let base = piece.base();
            let from = view.first_not(|entry| entry.end(base).offset <= start)?;
            let reached = view.first_not(|entry| entry.max_timestamp() < wanted.0)?;
            // A batch's largest timestamp promises a record; one below the log's start that
            // promised it is passed over.
            for slot in reached.max(from)..view.slots() {
                let entry = view.entry(slot)?;
                if entry.end(base).offset > end {
                    return Ok(None);
                }
                if entry.is_mark() {
                    continue;
                }
                let (frame, bad) = self.shared.frames(piece, &view, slot..slot + 1)?;
                if bad.is_some() {
                    return Err(ReadError::Faulty(faulty_range(piece, &view, slot)?));
                }
                let found = first_record_from(&frame, wanted, start);
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogReader")
            .field("log_start", &self.log_start())
            .field("high_watermark", &self.high_watermark())
            .field("log_end", &self.log_end())
            .finish()
    }
}

/// A read under way.
struct Reading<'r> {
    shared: &'r Shared,
    from: Offset,
    end: Offset,
    left: usize,
    slices: Vec<Bytes>,
}

enum Progress {
    More,
    Done,
    /// What comes next cannot be read.
    Faulty(FaultyRange),
}

impl Reading<'_> {
    /// Takes what fits of one segment: runs of batches, with the marks between them left out.
    fn take(&mut self, view: &View<'_>, piece: &Piece) -> io::Result<Progress> {
        let base = piece.base();
        // A mark ends at the offset at which it stands, so this passes over marks, too.
        let mut slot = view.first_not(|entry| entry.end(base).offset <= self.from)?;
        let mut run = slot..slot;
        let mut before = view.before(slot)?;
        let mut progress = Progress::More;
        while slot < view.slots() {
            let entry = view.entry(slot)?;
            let bytes = (entry.position() - before.position()) as usize;
            if !entry.is_mark() {
                let first = self.slices.is_empty() && run.is_empty();
                if entry.end(base).offset > self.end || bytes > self.left && !first {
                    progress = Progress::Done;
                    break;
                }
                self.left = self.left.saturating_sub(bytes);
                run.end = slot + 1;
            } else {
                if let Some(faulty) = self.finish(view, piece, run)? {
                    return Ok(Progress::Faulty(faulty));
                }
                run = slot + 1..slot + 1;
            }
            (before, slot) = (entry, slot + 1);
        }
        let faulty = self.finish(view, piece, run)?;
        Ok(faulty.map_or(progress, Progress::Faulty))
    }

    /// Takes a run of batches, and says which of them cannot be read, if one cannot.
    fn finish(
        &mut self,
        view: &View<'_>,
        piece: &Piece,
        run: std::ops::Range<usize>,
    ) -> io::Result<Option<FaultyRange>> {
        if run.is_empty() {
            return Ok(None);
        }
        let (frames, bad) = self.shared.frames(piece, view, run)?;
        if !frames.is_empty() {
            self.slices.push(frames);
        }
        bad.map(|slot| faulty_range(piece, view, slot)).transpose()
    }
}

fn first_record_from(
    batch: &[u8],
    wanted: Timestamp,
    start: Offset,
) -> Option<(Offset, Timestamp)> {
    let plain = BatchView::parse(batch).ok()?.unpacked(UNPACKED_FOR_LOOKUP_MAX);
    let view = match &plain {
        Ok(Some(plain)) => BatchView::parse(plain).ok()?,
        Ok(None) | Err(_) => BatchView::parse(batch).ok()?,
    };
    let Ok(records) = view.records() else {
        // What does not unpack, or to more than a question is worth, is answered with the batch's
        // begin, which is never too late.
        let header = view.header();
        let fits = header.max_timestamp >= wanted;
        return fits.then_some((header.base_offset.max(start), header.max_timestamp));
    };
    let mut found = records.filter_map(Result::ok);
    let found = found.find(|record| record.timestamp >= wanted && record.offset >= start)?;
    Some((found.offset, found.timestamp))
}

impl Shared {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Shared {
        Shared {
            disk,
            pieces: ArcSwap::default(),
            log_start: AtomicU64::new(0),
            start_index: AtomicU64::new(0),
            high_watermark: AtomicU64::new(0),
            log_end: AtomicU64::new(0),
            faults: Faults::default(),
            opened: Mutex::new(VecDeque::new()),
        }
    }

    /// A piece in a state to be read; opens a sealed segment's files, and closes others for them.
    pub(super) fn view<'p>(&self, piece: &'p Piece) -> io::Result<View<'p>> {
        loop {
            if let Some(view) = piece.segment.view(piece.slots()) {
                return Ok(view);
            }
            // Held while opening, so that two readers don't open one segment twice.
            let mut opened = self.opened.lock().expect("no thread panics while it holds the lock");
            if piece.segment.view(0).is_some() {
                continue;
            }
            piece.segment.open(&*self.disk)?;
            opened.push_back(Arc::clone(&piece.segment));
            if opened.len() > OPENED_MAX {
                opened.pop_front().expect("it is not empty").close();
            }
        }
    }

    /// Bytes of frames in a piece.
    pub(super) fn piece_bytes(&self, piece: &Piece) -> u64 {
        let end = match &piece.segment.body {
            Body::Sealed(sealed) if piece.slots() == sealed.slots => Ok(sealed.position),
            Body::Sealed(_) | Body::Growing(_) => self
                .view(piece)
                .and_then(|view| view.before(view.slots()))
                .map(|entry| entry.position()),
        };
        // Where an index cannot be read its segment is not counted; reads report the error.
        end.unwrap_or(HEADER_PAGE_BYTES) - HEADER_PAGE_BYTES
    }

    /// Forgets the open files of a segment that leaves the log.
    pub(super) fn forget(&self, segment: &Arc<Segment>) {
        let mut opened = self.opened.lock().expect("no thread panics while it holds the lock");
        opened.retain(|held| !Arc::ptr_eq(held, segment));
        segment.close();
    }
}

/// Batches are stored as sent; only the one that holds a time asked for is opened, up to this.
const UNPACKED_FOR_LOOKUP_MAX: usize = 16 * 1024 * 1024;
/// Sealed segments of one log whose files stay open, two descriptors and two maps each.
const OPENED_MAX: usize = 4;
