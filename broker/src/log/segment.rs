//! One segment: a `.log` file of frames and its `.idx` file.
//!
//! A growing segment has its entries in memory, where any thread reads them while the owner adds
//! to them. A sealed one keeps nothing but its header in memory: its files are opened when someone
//! reads, and a bounded number of them stays open (see `reader::Shared`).

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use highwater_protocol::batch::crc32c;

use super::faults::{is_named, term_start};
use super::header::{self, BadBlock, Header, Seal};
use super::index::{ENTRY_BYTES, Entry, Slot, slot_at};
use super::roll::Marks;
use super::{Place, scan};
use crate::disk::{Disk, File, explain};
use crate::mutant::{self, Mutant};

/// A segment and how much of it belongs to the log.
#[derive(Clone)]
pub(super) struct Piece {
    pub segment: Arc<Segment>,
    /// Entries from this slot on are void: a newer segment overrules them.
    pub cut: Option<usize>,
}

/// A pair of files.
pub(super) struct Segment {
    pub header: Header,
    pub stem: Stem,
    pub body: Body,
}

/// The name of a segment's files, without the ending: `<sequence>-<base index>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stem {
    dir: PathBuf,
    pub sequence: u64,
    pub base: u64,
}

pub(super) enum Body {
    Growing(Box<Growing>),
    Sealed(Sealed),
}

/// A segment that is written to, or was and is not sealed yet.
pub(super) struct Growing {
    pub log: Arc<dyn File>,
    /// Not there where a full disk kept it from being made again: then `roll::index_of` makes it later.
    pub index: OnceLock<Arc<dyn File>>,
    pub entries: boxcar::Vec<Entry>,
    /// The largest segment that the files' maps have room for.
    pub bytes_max: u64,
}

/// A segment that nothing is added to any more.
pub(super) struct Sealed {
    pub slots: usize,
    /// Where its last frame ends in the `.log` file.
    pub position: u64,
    /// No record of it is younger; after a cut, all may be older.
    pub max_timestamp: i64,
    opened: ArcSwapOption<Opened>,
}

/// The files of a sealed segment while someone reads them.
pub(super) struct Opened {
    log: Arc<dyn File>,
    entries: Bytes,
}

/// A segment in a state to be read.
pub(super) struct View<'a> {
    segment: &'a Segment,
    slots: usize,
    source: Source<'a>,
}

enum Source<'a> {
    Growing(&'a Growing),
    Sealed(Arc<Opened>),
}

impl Piece {
    pub(super) fn base(&self) -> &Place {
        &self.segment.header.base
    }

    pub(super) fn slots(&self) -> usize {
        let slots = match &self.segment.body {
            Body::Growing(growing) => growing.entries.count(),
            Body::Sealed(sealed) => sealed.slots,
        };
        self.cut.map_or(slots, |cut| cut.min(slots))
    }
}

impl Stem {
    pub(super) fn new(dir: &Path, sequence: u64, base: u64) -> Stem {
        Stem { dir: dir.to_owned(), sequence, base }
    }

    /// The segment and the ending that a file name stands for, if it is one of ours.
    pub(super) fn parse<'n>(dir: &Path, name: &'n str) -> Option<(Stem, &'n str)> {
        let (stem, ending) = name.split_once('.')?;
        let (sequence, base) = stem.split_once('-')?;
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let whole = sequence.len() == 10 && base.len() == 20;
        if !whole || !all_digits(sequence) || !all_digits(base) {
            return None;
        }
        Some((Stem::new(dir, sequence.parse().ok()?, base.parse().ok()?), ending))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path("log")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.path("idx")
    }

    /// Where the frames go when damage made a newer segment overrule them.
    pub(super) fn lost(&self) -> PathBuf {
        self.path("log.lost")
    }

    /// The file that is being made in place of the frames' own.
    pub(super) fn mend(&self) -> PathBuf {
        self.path(MEND)
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{:010}-{:020}.{ending}", self.sequence, self.base))
    }
}

impl Segment {
    pub(super) fn sealed(header: Header, stem: Stem, seal: &Seal) -> Segment {
        let sealed = Sealed {
            slots: seal.slots as usize,
            position: seal.position,
            max_timestamp: seal.max_timestamp,
            opened: ArcSwapOption::empty(),
        };
        Segment { header, stem, body: Body::Sealed(sealed) }
    }

    pub(super) fn is_sealed(&self) -> bool {
        match &self.body {
            Body::Growing(_) => false,
            Body::Sealed(_) => true,
        }
    }

    pub(super) fn growing(&self) -> &Growing {
        match &self.body {
            Body::Growing(growing) => growing,
            Body::Sealed(_) => panic!("a sealed segment is written to"),
        }
    }

    /// The segment's files as they are open now; `None` for a sealed one that has to be opened.
    pub(super) fn view(&self, slots: usize) -> Option<View<'_>> {
        let source = match &self.body {
            Body::Growing(growing) => Source::Growing(growing),
            Body::Sealed(sealed) => Source::Sealed(sealed.opened.load_full()?),
        };
        Some(View { segment: self, slots, source })
    }

    /// Gives a sealed segment files that are open already.
    pub(super) fn opened_as(&self, log: Arc<dyn File>, entries: Bytes) {
        match &self.body {
            Body::Growing(_) => {}
            Body::Sealed(sealed) => sealed.opened.store(Some(Arc::new(Opened { log, entries }))),
        }
    }

    /// Opens the files of a sealed segment for all who read it from now on.
    pub(super) fn open(&self, disk: &dyn Disk) -> io::Result<()> {
        let Body::Sealed(sealed) = &self.body else { return Ok(()) };
        let log = disk.open(&self.stem.log(), 0)?;
        let index = disk.open(&self.stem.index(), 0)?;
        let entries = index.read(slot_at(0)..slot_at(sealed.slots))?;
        self.opened_as(log, entries);
        Ok(())
    }

    /// Lets go of the files of a sealed segment; who reads it at this moment keeps them.
    pub(super) fn close(&self) {
        match &self.body {
            Body::Growing(_) => {}
            Body::Sealed(sealed) => sealed.opened.store(None),
        }
    }
}

impl View<'_> {
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn entry(&self, slot: usize) -> io::Result<Entry> {
        assert!(slot < self.slots, "an entry behind the cut");
        match &self.source {
            Source::Growing(growing) => {
                Ok(*growing.entries.get(slot).expect("entries below the count are there"))
            }
            Source::Sealed(opened) => {
                let at = slot * ENTRY_BYTES;
                let bytes = &opened.entries[at..at + ENTRY_BYTES];
                match Slot::decode(bytes, self.segment.header.sequence, slot) {
                    Slot::Entry(entry) => Ok(entry),
                    Slot::Blank | Slot::Damaged => Err(self.bad_entry(slot)),
                }
            }
        }
    }

    /// What lies before a slot: the entry before it, or the segment's begin.
    pub(super) fn before(&self, slot: usize) -> io::Result<Entry> {
        match slot {
            0 => Ok(Entry::before_first(self.segment.header.base.term)),
            slot => self.entry(slot - 1),
        }
    }

    /// The place before a slot.
    pub(super) fn place_before(&self, slot: usize) -> io::Result<Place> {
        Ok(self.before(slot)?.end(&self.segment.header.base))
    }

    /// The first slot whose entry fails the test, which must hold for a prefix of the entries.
    pub(super) fn first_not(&self, holds: impl Fn(&Entry) -> bool) -> io::Result<usize> {
        let (mut low, mut high) = (0, self.slots);
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(&self.entry(middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The frames of some slots, which lie one behind the other.
    pub(super) fn frames(&self, slots: Range<usize>) -> io::Result<Bytes> {
        let (start, end) = (self.before(slots.start)?, self.before(slots.end)?);
        self.log().read(start.position()..end.position())
    }

    /// The frames of some slots up to the first that is not what its entry says, and which that is. What
    /// cannot be read at all is none of its frames.
    pub(super) fn sound(&self, slots: Range<usize>) -> io::Result<(Bytes, Option<usize>)> {
        let mut readable = slots.start;
        while readable < slots.end && self.entry(readable)?.position() <= self.log().len() {
            readable += 1;
        }
        if readable == slots.start && !slots.is_empty() {
            return Ok((Bytes::new(), Some(slots.start)));
        }
        let Ok(bytes) = self.frames(slots.start..readable) else {
            return self.sound_one_by_one(slots);
        };
        let mut before = self.before(slots.start)?;
        let start = before.position();
        for slot in slots.start..readable {
            let entry = self.entry(slot)?;
            let frame = (before.position() - start) as usize..(entry.position() - start) as usize;
            if !is_named(&bytes[frame.clone()], &before, &entry, &self.segment.header.base) {
                return Ok((bytes.slice(..frame.start), Some(slot)));
            }
            before = entry;
        }
        Ok((bytes, (readable < slots.end).then_some(readable)))
    }

    /// Where a run cannot be read as a whole, the frames before the page that cannot.
    fn sound_one_by_one(&self, slots: Range<usize>) -> io::Result<(Bytes, Option<usize>)> {
        if slots.len() == 1 {
            return Ok((Bytes::new(), Some(slots.start)));
        }
        let middle = slots.start + slots.len() / 2;
        match self.sound(slots.start..middle)? {
            (bytes, Some(bad)) => Ok((bytes, Some(bad))),
            // Whoever asks goes on behind them, and finds the page then.
            (_, None) => {
                let (_, bad) = self.sound(middle..slots.end)?;
                let bad = bad.unwrap_or(middle);
                Ok((self.frames(slots.start..bad)?, Some(bad)))
            }
        }
    }

    /// The frame of a mark; the start of a term is known without its bytes.
    pub(super) fn mark(&self, slot: usize) -> io::Result<Bytes> {
        let (bytes, bad) = self.sound(slot..slot + 1)?;
        if bad.is_none() {
            return Ok(bytes);
        }
        let (before, entry) = (self.before(slot)?, self.entry(slot)?);
        term_start(&before, &entry, &self.segment.header.base).ok_or_else(|| {
            let error = io::Error::new(io::ErrorKind::InvalidData, "its frame is damaged");
            explain(&error, &format!("read the mark of entry {slot} of"), &self.segment.stem.log())
        })
    }

    pub(super) fn log(&self) -> &dyn File {
        match &self.source {
            Source::Growing(growing) => &*growing.log,
            Source::Sealed(opened) => &*opened.log,
        }
    }

    fn bad_entry(&self, slot: usize) -> io::Error {
        let error = io::Error::new(io::ErrorKind::InvalidData, "its checksum is wrong");
        explain(&error, &format!("read entry {slot} of"), &self.segment.stem.index())
    }
}

impl Growing {
    /// The entries of some slots, as the index file holds them.
    pub(super) fn encoded(&self, sequence: u64, slots: Range<usize>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(slots.len() * ENTRY_BYTES);
        for slot in slots {
            let entry = self.entries.get(slot).expect("entries below the count are there");
            bytes.extend_from_slice(&entry.encode(sequence, slot));
        }
        bytes
    }

    /// Ends the index file with a summary and the seal; all entries must have been written.
    pub(super) fn seal(
        &self,
        index: &dyn File,
        view: &View<'_>,
        marks: &Marks,
    ) -> io::Result<Seal> {
        let (slots, header) = (view.slots(), &view.segment.header);
        let entries = self.encoded(header.sequence, 0..slots);
        let summary = summarize(view, marks)?;
        // Behind the entries that a cut made void: they stay what they are.
        let summary_at = slot_at(self.entries.count());
        index.extend(index.len().max(summary_at + summary.len() as u64))?;
        let last = view.before(slots)?;
        let seal = Seal {
            slots: u32::try_from(slots).expect("a segment is smaller than 4 GiB"),
            end: last.end(&header.base),
            position: last.position(),
            max_timestamp: last.max_timestamp(),
            entries_checksum: crc32c(&entries),
            summary_at,
            summary_bytes: u32::try_from(summary.len()).expect("smaller than the frames"),
            summary_checksum: crc32c(&summary),
        };
        index.write_at(summary_at, &[&summary])?;
        index.write_at(header::SEAL_AT, &[&seal.encode()])?;
        Ok(seal)
    }
}

/// What a reader of a sealed index wants to know without reading the frames: the slots where the
/// term changes, and the marks as they are.
fn summarize(view: &View<'_>, marks: &Marks) -> io::Result<Vec<u8>> {
    let mut summary = Vec::new();
    for slot in notable(view)? {
        let frame = match (view.entry(slot)?.is_mark(), marks.get(&slot)) {
            (false, _) => Bytes::new(),
            (true, Some(known)) => known.clone(),
            (true, None) => view.mark(slot)?,
        };
        let number = u32::try_from(slot).expect("a segment is smaller than 4 GiB");
        summary.extend_from_slice(&number.to_le_bytes());
        summary.extend_from_slice(&(frame.len() as u32).to_le_bytes());
        summary.extend_from_slice(&frame);
    }
    Ok(summary)
}

/// The slots of marks and of the first frames of terms.
pub(super) fn notable(view: &View<'_>) -> io::Result<Vec<usize>> {
    let mut found = Vec::new();
    let mut before = view.place_before(0)?;
    for slot in 0..view.slots() {
        let entry = view.entry(slot)?;
        let place = view.place_before(slot + 1)?;
        if entry.is_mark() || place.term != before.term {
            found.push(slot);
        }
        before = place;
    }
    Ok(found)
}

/// What a valid seal says, with its summary taken apart.
pub(super) struct SealedIndex {
    pub seal: Seal,
    pub entries: Bytes,
    /// Slots of marks and of first frames of terms; the frame itself for marks.
    pub notable: Vec<(usize, Bytes)>,
}

/// Reads a sealed index and checks all of it; `None` if it is not sealed or not whole.
pub(super) fn read_seal(index: &dyn File, sequence: u64) -> io::Result<Option<SealedIndex>> {
    if index.len() < header::HEADER_PAGE_BYTES {
        return Ok(None);
    }
    if header::decode_index_header(&index.read(0..header::BLOCK_BYTES)?) != Ok(sequence) {
        return Ok(None);
    }
    let seal =
        match Seal::decode(&index.read(header::SEAL_AT..header::SEAL_AT + header::BLOCK_BYTES)?) {
            Ok(seal) => seal,
            Err(BadBlock::Blank | BadBlock::Damaged | BadBlock::Newer { .. }) => return Ok(None),
        };
    let entries_end = slot_at(seal.slots as usize);
    let summary_end = seal.summary_at + u64::from(seal.summary_bytes);
    if entries_end > seal.summary_at || summary_end > index.len() {
        return Ok(None);
    }
    let entries = index.read(slot_at(0)..entries_end)?;
    let summary = index.read(seal.summary_at..summary_end)?;
    if crc32c(&entries) != seal.entries_checksum || crc32c(&summary) != seal.summary_checksum {
        return Ok(None);
    }
    let Some(notable) = take_apart(&summary, seal.slots) else { return Ok(None) };
    Ok(Some(SealedIndex { seal, entries, notable }))
}

/// Whether a seal was ever written for a segment, whole or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was: nothing may be added to it any more.
    Yes,
    /// None that reached the disk.
    No,
}

/// Whether a seal lies in an index, though what it vouches for may not be there.
pub(super) fn was_sealed(index: &dyn File) -> io::Result<Ended> {
    let block = index.read(header::SEAL_AT..header::SEAL_AT + header::BLOCK_BYTES)?;
    let blank = matches!(Seal::decode(&block), Err(BadBlock::Blank));
    Ok(match blank || mutant::active(Mutant::SealedTakesAppends) {
        true => Ended::No,
        false => Ended::Yes,
    })
}

fn take_apart(summary: &Bytes, slots: u32) -> Option<Vec<(usize, Bytes)>> {
    let (mut at, mut notable) = (0, Vec::new());
    while at < summary.len() {
        let head = summary.get(at..at + 8)?;
        let (slot, bytes) = (header::u32_at(head, 0), header::u32_at(head, 4) as usize);
        summary.get(at + 8..at + 8 + bytes)?;
        if slot >= slots {
            return None;
        }
        notable.push((slot as usize, summary.slice(at + 8..at + 8 + bytes)));
        at += 8 + bytes;
    }
    Some(notable)
}

/// How large a file should be allocated to hold `needed` bytes: small logs stay small, and large
/// ones are not extended often.
pub(super) fn extent(len: u64, needed: u64, bytes_max: u64) -> u64 {
    let grown = len.saturating_mul(2).min(len + EXTENT_BYTES_MAX);
    grown.max(needed.next_multiple_of(4096)).min(bytes_max)
}

/// The room that a `.log` file's map is given: one frame always fits.
pub(super) fn log_bytes_max(segment_bytes_max: u64) -> u64 {
    segment_bytes_max.max(header::HEADER_PAGE_BYTES + scan::FRAME_BYTES_MAX)
}

/// The room that an `.idx` file's map is given: the entries and the summary of the smallest frames.
pub(super) fn index_bytes_max(segment_bytes_max: u64) -> u64 {
    header::HEADER_PAGE_BYTES + 2 * log_bytes_max(segment_bytes_max)
}

/// What a new `.log` file is allocated.
pub(super) const LOG_EXTENT_BYTES: u64 = 64 << 10;
/// What a new `.idx` file is allocated.
pub(super) const INDEX_EXTENT_BYTES: u64 = 8 << 10;
/// How the name of a segment ends that is being mended.
pub(super) const MEND: &str = "log.mend";
const EXTENT_BYTES_MAX: u64 = 64 << 20;
