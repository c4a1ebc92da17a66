//! Reading a segment that no seal vouches for: which frames are whole, and what lies behind them.
//!
//! Frames far below the last witness are taken from their index entries; everything nearer to the
//! end is read and checked, and must agree with its entry where there is one, because a frame's
//! checksum covers neither its offset nor its length nor its term.

use std::io;

use highwater_protocol::batch::{FrameHeader, HEADER_BYTES};
use highwater_protocol::ids::{LogIndex, Offset, Term};

use super::Place;
use super::faults::term_start;
use super::header::{BadBlock, HEADER_PAGE_BYTES, Header, decode_index_header};
use super::index::{ENTRY_BYTES, Entry, Slot};
use crate::disk::File;
use crate::mutant::{self, Mutant};

/// What a scan found.
pub(super) struct Scanned {
    /// Entries of the whole frames from the segment's begin.
    pub entries: Vec<Entry>,
    /// How many of them the index file has already.
    pub witnessed: usize,
    /// Up to where the index witnesses that frames were durable.
    pub durable: LogIndex,
    /// Slots whose entries stand for frames that are not whole any more.
    pub faulty: Vec<usize>,
    pub stop: Stop,
}

/// Why a scan ended where it did.
pub(super) enum Stop {
    /// The next segment begins here.
    Limit,
    /// Nothing but zeros up to the end of the file.
    Blank,
    /// Something that is no whole frame.
    Bad { why: String, bytes: u64, frames_behind: u64 },
}

/// All slots of an index file; none if it is not the index of this segment.
pub(super) fn read_slots(index: &dyn File, sequence: u64) -> io::Result<Option<Vec<Slot>>> {
    if index.len() < HEADER_PAGE_BYTES {
        return Ok(None);
    }
    match decode_index_header(&index.read(0..super::header::BLOCK_BYTES)?) {
        Ok(found) if found == sequence => {}
        Ok(_) | Err(BadBlock::Blank | BadBlock::Damaged | BadBlock::Newer { .. }) => {
            return Ok(None);
        }
    }
    let bytes = index.read(HEADER_PAGE_BYTES..index.len())?;
    let slots = bytes.chunks_exact(ENTRY_BYTES).enumerate();
    let mut slots: Vec<Slot> =
        slots.map(|(slot, bytes)| Slot::decode(bytes, sequence, slot)).collect();
    let used = slots.iter().rposition(|slot| *slot != Slot::Blank).map_or(0, |last| last + 1);
    slots.truncate(used);
    Ok(Some(slots))
}

/// The last entry that an index holds, if any.
pub(super) fn last_witness(slots: &[Slot]) -> Option<Entry> {
    slots.iter().rev().find_map(|slot| match slot {
        Slot::Entry(entry) => Some(*entry),
        Slot::Blank | Slot::Damaged => None,
    })
}

/// Walks the frames of a segment up to `limit` or as far as they are whole.
pub(super) fn scan(
    log: &dyn File,
    header: &Header,
    slots: &[Slot],
    limit: Option<LogIndex>,
) -> io::Result<Scanned> {
    let witness = last_witness(slots);
    let trusted = witness.map_or(0, |last| last.position().saturating_sub(VERIFY_BYTES));
    let durable = witness.map_or(header.base.index, |last| last.end(&header.base).index);
    let (entries, faulty) = (Vec::new(), Vec::new());
    let mut scanned = Scanned { entries, witnessed: 0, durable, faulty, stop: Stop::Limit };
    let mut before = Entry::before_first(header.base.term);
    while limit != Some(before.end(&header.base).index) {
        let slot = scanned.entries.len();
        let named = match slots.get(slot) {
            Some(Slot::Entry(entry)) => Some(*entry),
            Some(Slot::Blank | Slot::Damaged) | None => None,
        };
        let checked = match named {
            Some(entry) if entry.position() <= trusted => Ok(entry),
            // What cannot be read is as good as what is wrong, where an entry says what it was.
            Some(_) => check_frame(log, &before, &header.base, named)
                .unwrap_or_else(|error| Err(error.to_string())),
            None => check_frame(log, &before, &header.base, named)?,
        };
        let checked = checked.or_else(|why| {
            let kept = named.filter(|entry| stands_for(&before, entry, &header.base));
            scanned.faulty.extend(kept.map(|_| slot));
            kept.ok_or(why)
        });
        let checked = checked.and_then(|entry| within(entry, &header.base, limit));
        match checked {
            Ok(entry) => {
                if named.is_some() && scanned.witnessed == slot {
                    scanned.witnessed += 1;
                }
                scanned.entries.push(entry);
                before = entry;
            }
            Err(why) => {
                scanned.stop = what_follows(log, &before, &header.base, why)?;
                break;
            }
        }
    }
    Ok(scanned)
}

/// Whether an entry is as good as the frame that it names, for all but the frame's readers: what a mark
/// says must be known, and of marks only the start of a term says nothing else.
fn stands_for(before: &Entry, entry: &Entry, base: &Place) -> bool {
    if mutant::active(Mutant::DamageCutsLog) {
        return false;
    }
    let (last, next) = (before.end(base), entry.end(base));
    let continues = before.position() + (HEADER_BYTES as u64) <= entry.position()
        && last.index < next.index
        && last.offset <= next.offset
        && last.term <= next.term;
    continues && (!entry.is_mark() || term_start(before, entry, base).is_some())
}

fn within(entry: Entry, base: &Place, limit: Option<LogIndex>) -> Result<Entry, String> {
    match limit {
        Some(limit) if entry.end(base).index > limit => {
            Err(format!("it reaches across index {limit}, where the next segment begins"))
        }
        Some(_) | None => Ok(entry),
    }
}

/// Reads and checks the frame behind `before`; the inner error says what is wrong with it.
fn check_frame(
    log: &dyn File,
    before: &Entry,
    base: &Place,
    named: Option<Entry>,
) -> io::Result<Result<Entry, String>> {
    let (at, len, place) = (before.position(), log.len(), before.end(base));
    if at + HEADER_BYTES as u64 > len {
        return Ok(Err("the file ends there".to_owned()));
    }
    let header = match FrameHeader::parse(&log.read(at..at + HEADER_BYTES as u64)?) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let end = at + header.frame_bytes() as u64;
    if header.frame_bytes() as u64 > FRAME_BYTES_MAX || end > len {
        return Ok(Err(format!("a length of {} bytes is impossible", header.frame_bytes())));
    }
    if header.base_offset != place.offset || header.term < place.term {
        let (offset, term) = (header.base_offset, header.term);
        let expected = format!("offset {} and term {} or later", place.offset, place.term);
        return Ok(Err(format!("it names offset {offset} and term {term}, not {expected}")));
    }
    if let Err(error) = header.verify_checksum(&log.read(at..end)?) {
        return Ok(Err(error.to_string()));
    }
    let Some(entry) = Entry::after(before, &header) else {
        return Ok(Err("it does not fit into a segment".to_owned()));
    };
    if named.is_some_and(|named| named != entry) {
        return Ok(Err("it is not what its index entry says".to_owned()));
    }
    Ok(Ok(entry))
}

/// Looks behind the last whole frame.
fn what_follows(log: &dyn File, before: &Entry, base: &Place, why: String) -> io::Result<Stop> {
    let at = before.position();
    let mut used_end = at;
    let mut window = at;
    while window < log.len() {
        let end = log.len().min(window + WINDOW_BYTES);
        let bytes = log.read(window..end)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            used_end = window + last as u64 + 1;
        }
        window = end;
    }
    if used_end == at {
        return Ok(Stop::Blank);
    }
    let place = before.end(base);
    // A frame may well end in zeros.
    let behind = used_end.next_multiple_of(4096).min(log.len()).min(at + SEARCH_BYTES_MAX);
    let searched = log.read(at..behind)?;
    let frames_behind = count_frames(&searched, place.offset, place.term);
    Ok(Stop::Bad { why, bytes: used_end - at, frames_behind })
}

/// Whole frames of this log that start anywhere in `bytes`.
fn count_frames(bytes: &[u8], offset: Offset, term: Term) -> u64 {
    let (mut at, mut count) = (0, 0);
    while at + HEADER_BYTES <= bytes.len() {
        at += match frame_at(&bytes[at..], offset, term) {
            Some(frame_bytes) => {
                count += 1;
                frame_bytes
            }
            None => 1,
        };
    }
    count
}

fn frame_at(bytes: &[u8], offset: Offset, term: Term) -> Option<usize> {
    let header = FrameHeader::parse(bytes).ok()?;
    let near =
        offset <= header.base_offset && header.base_offset.0 - offset.0 <= u64::from(u32::MAX);
    let whole = header.frame_bytes() <= bytes.len();
    let plausible = near && whole && header.term >= term;
    (plausible && header.verify_checksum(bytes).is_ok()).then_some(header.frame_bytes())
}

/// The largest frame: what the limits of the wire and of topics allow.
pub(super) const FRAME_BYTES_MAX: u64 = 16 << 20;
/// How far below its last witness an unsealed segment is read and checked.
const VERIFY_BYTES: u64 = 64 << 20;
const WINDOW_BYTES: u64 = 1 << 20;
/// How far behind a torn place frames are searched: it only serves the report.
const SEARCH_BYTES_MAX: u64 = 32 << 20;
