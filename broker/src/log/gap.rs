//! Giving up what nobody can read any more: a person's decision, for the only replica of a partition.
//!
//! The decision is the index: the entry of each lost batch is replaced by that of a gap (`batch::Gap`), which is a
//! function of the entry, so that the frame itself is made again whenever it is missing, and mended like any other. What
//! must hold: nothing that can be read is given up, whoever says so; places, offsets, terms and all that lies
//! elsewhere stay; a crash leaves the old index or the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;

use bytes::Bytes;
use highwater_protocol::batch::{FrameHeader, Gap, crc32c};
use highwater_protocol::ids::{Offset, Timestamp};

use super::faults::{FaultyRange, faulty_range, is_named, term_start};
use super::header::{BLOCK_BYTES, SEAL_AT, Seal};
use super::index::{ENTRY_BYTES, Entry, slot_at};
use super::mend::HEADER_SLOT;
use super::roll::absent_is_fine;
use super::segment::{Piece, View, index_bytes_max, read_seal};
use super::{Log, Place};
use crate::disk::explain;
use crate::mutant::{self, Mutant};

/// Batches that lie one behind the other in one file, and that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Their offsets and their file.
    pub range: FaultyRange,
    /// How many they are.
    pub batches: u32,
}

/// What is known to be unreadable, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// In the order of the log.
    pub runs: Vec<Unreadable>,
    /// From where to go on where there is more.
    pub next: Option<Offset>,
}

/// Offsets in which is given up what cannot be read, and how far that has come.
#[derive(Debug)]
pub struct GivingUp {
    /// In their order, none touching another.
    offsets: Vec<Range<Offset>>,
    /// What lies before has been read.
    looked: Offset,
    /// What could not be read and is no gap yet: slots, by the numbers of their segments.
    found: BTreeMap<u64, Vec<usize>>,
    records: u64,
}

/// What is left to be done of a `GivingUp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// A pass does no more than so much: go on in the next one.
    Work,
    /// It lies in segments that are being ended or copied first: try again when that is over.
    Waits,
}

impl GivingUp {
    /// Of these offsets, nothing of which has been looked at.
    pub fn new(mut offsets: Vec<Range<Offset>>) -> GivingUp {
        offsets.retain(|range| range.start < range.end);
        offsets.sort_unstable_by_key(|range| range.start);
        offsets.dedup_by(|range, before| {
            let joins = range.start <= before.end;
            if joins {
                before.end = before.end.max(range.end);
            }
            joins
        });
        GivingUp { offsets, looked: Offset::ZERO, found: BTreeMap::new(), records: 0 }
    }

    /// How many records have become gaps, also after a crash.
    pub fn records(&self) -> u64 {
        self.records
    }
}

impl Log {
    /// What is known to be unreadable from an offset on; no more than `most` runs of batches. What can be made
    /// again without anybody's help is left out.
    pub fn unreadable(&self, start: Offset, most: usize) -> io::Result<Listed> {
        let mut found: Vec<Unreadable> = Vec::new();
        let faults: BTreeMap<_, _> = self.shared.faults.all().into_iter().collect();
        let pieces = self.shared.pieces.load_full();
        for (at, piece) in pieces.iter().enumerate() {
            let Some(slots) = faults.get(&piece.segment.header.sequence) else { continue };
            if self.end_of(&pieces, at) <= start {
                continue;
            }
            let view = self.shared.view(piece)?;
            let first = view.first_not(|entry| entry.end(piece.base()).offset <= start)?;
            let kept = self.kept_from(piece, &view)?.max(first)..view.slots();
            for slot in slots.range(kept).copied() {
                let range = faulty_range(piece, &view, slot)?;
                let shown = start <= range.from && range.from < range.until;
                if !shown || known_frame(self, piece, &view, slot)?.is_some() {
                    continue;
                }
                let joins = |last: &&mut Unreadable| {
                    last.range.until == range.from && last.range.file == range.file
                };
                if let Some(last) = found.last_mut().filter(joins) {
                    last.range.until = range.until;
                    last.batches += 1;
                } else if found.len() < most {
                    found.push(Unreadable { range, batches: 1 });
                } else {
                    return Ok(Listed { runs: found, next: Some(range.from) });
                }
            }
        }
        Ok(Listed { runs: found, next: None })
    }

    /// The offset behind the last record of a segment.
    fn end_of(&self, pieces: &[Piece], at: usize) -> Offset {
        pieces.get(at + 1).map_or(self.end.offset, |next| next.base().offset)
    }

    /// Makes gaps of the batches in these offsets that cannot be read, and of no others. First all of them are read, a
    /// bounded part in each call: a sealed segment is believed when it is opened, and nobody may have looked since.
    pub fn give_up(&mut self, giving: &mut GivingUp) -> io::Result<Left> {
        self.usable()?;
        if self.look_on(giving)? == Left::Work {
            return Ok(Left::Work);
        }
        let mut left = Left::Nothing;
        for sequence in giving.found.keys().copied().collect::<Vec<_>>() {
            let Some(piece) = self.piece(sequence) else {
                giving.found.remove(&sequence);
                continue;
            };
            if !piece.segment.is_sealed() {
                self.end_soon(&piece)?;
                left = Left::Waits;
            } else if self.is_copied(sequence) {
                left = Left::Waits;
            } else {
                giving.records += self.make_gaps(&piece, &giving.found[&sequence])?;
                giving.found.remove(&sequence);
                left = Left::Work;
                break;
            }
        }
        Ok(if giving.found.is_empty() { Left::Nothing } else { left })
    }

    /// Reads on in these offsets, and remembers what cannot be read.
    fn look_on(&self, giving: &mut GivingUp) -> io::Result<Left> {
        let all = mutant::active(Mutant::GivesUpReadable);
        let pieces = self.shared.pieces.load_full();
        let mut bytes = 0;
        for (at, piece) in pieces.iter().enumerate() {
            let base = piece.base();
            let end = self.end_of(&pieces, at);
            if end <= giving.looked {
                continue;
            }
            let from = base.offset.max(giving.looked);
            let first = giving.offsets.partition_point(|range| range.end <= from);
            // Which segments are looked into is told without opening any other.
            let within = giving.offsets[first..].iter().take_while(|range| range.start < end);
            let within: Vec<Range<Offset>> = within.cloned().collect();
            if within.is_empty() {
                continue;
            }
            let view = self.shared.view(piece)?;
            for Range { start, end } in within {
                let whole = |slot| view.place_before(slot).map(|place| place.offset >= start);
                let looked = giving.looked.max(start);
                let mut slot = view.first_not(|entry| entry.end(base).offset <= looked)?;
                let behind = view.first_not(|entry| entry.end(base).offset <= end)?;
                while slot < behind {
                    if bytes >= LOOK_BYTES_MAX {
                        return Ok(Left::Work);
                    }
                    let bad = self.shared.checked_frames(piece, &view, slot..slot + 1)?.1.is_some();
                    if (bad || all) && whole(slot)? {
                        let sequence = piece.segment.header.sequence;
                        giving.found.entry(sequence).or_default().push(slot);
                    }
                    bytes += view.before(slot + 1)?.position() - view.before(slot)?.position();
                    slot += 1;
                    giving.looked = view.place_before(slot)?.offset;
                }
            }
        }
        Ok(Left::Nothing)
    }

    /// Makes gaps of what was found in a segment and has not come back meanwhile; says of how many records.
    fn make_gaps(&mut self, piece: &Piece, found: &[usize]) -> io::Result<u64> {
        let sequence = piece.segment.header.sequence;
        let faults = self.shared.faults.all().into_iter().find(|(of, _)| *of == sequence);
        let faulty = |slot: &usize| {
            faults.as_ref().is_some_and(|(_, slots)| slots.contains(slot))
                || mutant::active(Mutant::GivesUpReadable)
        };
        let view = self.shared.view(piece)?;
        let kept = self.kept_from(piece, &view)?..view.slots();
        let mut gaps = Vec::new();
        let unnamed = faults.iter().flat_map(|(_, slots)| slots.iter());
        let unnamed = unnamed.filter(|_| mutant::active(Mutant::GivesUpUnnamed));
        let slots: BTreeSet<usize> = found.iter().chain(unnamed).copied().collect();
        for slot in slots.into_iter().filter(|slot| kept.contains(slot) && faulty(slot)) {
            let FaultyRange { from, until, .. } = faulty_range(piece, &view, slot)?;
            if from < until && known_frame(self, piece, &view, slot)?.is_none() {
                gaps.push((slot, gap_entry(&view, slot, piece.base())?, until.since(from)));
            }
        }
        drop(view);
        if !gaps.is_empty() {
            self.replace_entries(piece, &gaps)?;
        }
        Ok(gaps.iter().map(|(_, _, records)| records).sum())
    }

    /// A new index in place of a sealed segment's own, with other entries in some slots.
    fn replace_entries(&mut self, piece: &Piece, gaps: &[(usize, Entry, u64)]) -> io::Result<()> {
        let (stem, disk) = (&piece.segment.stem, &*self.shared.disk);
        let (path, aside) = (stem.index(), stem.index().with_extension(INDEX_MEND));
        let old = disk.open(&path, 0)?;
        let Some(sealed) = read_seal(&*old, stem.sequence)? else {
            let error = io::Error::new(io::ErrorKind::InvalidData, "its seal is damaged");
            return Err(explain(&error, "give up what cannot be read by", &path));
        };
        let seal = sealed.seal;
        let length = seal.summary_at + u64::from(seal.summary_bytes);
        let mut bytes = old.read(0..length)?.to_vec();
        for (slot, entry, _) in gaps {
            let at = slot_at(*slot) as usize;
            bytes[at..at + ENTRY_BYTES].copy_from_slice(&entry.encode(stem.sequence, *slot));
        }
        let entries = slot_at(0) as usize..slot_at(seal.slots as usize) as usize;
        let seal = Seal { entries_checksum: crc32c(&bytes[entries]), ..seal };
        let at = SEAL_AT as usize;
        bytes[at..at + BLOCK_BYTES as usize].copy_from_slice(&seal.encode());
        absent_is_fine(disk.remove(&aside))?;
        let file = disk.create(&aside, length, index_bytes_max(length))?;
        let written = file.write_at(0, &[&bytes]);
        let flushed = match mutant::active(Mutant::GapsNotFlushed) {
            true => written,
            false => written.and_then(|()| file.flush()),
        };
        let renamed = flushed.and_then(|()| disk.rename(&aside, &path));
        if let Err(error) = renamed.and_then(|()| disk.flush_dir(&self.dir)) {
            self.failed = true;
            return Err(error);
        }
        self.shared.forget(&piece.segment);
        Ok(())
    }
}

/// The frame of a slot, where it can be made without the file: a gap and the start of a term are known from
/// their entries, and what other marks said from the seal.
pub(super) fn known_frame(
    log: &Log,
    piece: &Piece,
    view: &View<'_>,
    slot: usize,
) -> io::Result<Option<Bytes>> {
    assert!(slot != HEADER_SLOT, "a header is no frame");
    let (before, entry, base) = (view.before(slot)?, view.entry(slot)?, piece.base());
    if entry.is_gap() {
        let frame = gap(&before, &entry, base).encode();
        return Ok(is_named(&frame, &before, &entry, base).then_some(frame));
    }
    if !entry.is_mark() {
        return Ok(None);
    }
    let start = term_start(&before, &entry, base);
    if start.is_some() || !piece.segment.is_sealed() {
        return Ok(start);
    }
    let index = log.shared.disk.open(&piece.segment.stem.index(), 0)?;
    let sealed = read_seal(&*index, piece.segment.stem.sequence)?;
    let mut marks = sealed.into_iter().flat_map(|sealed| sealed.notable);
    let mark = marks.find(|(at, _)| *at == slot).map(|(_, frame)| frame);
    Ok(mark.filter(|frame| is_named(frame, &before, &entry, base)))
}

/// The gap in place of the batch that an entry names.
fn gap(before: &Entry, entry: &Entry, base: &Place) -> Gap {
    let (from, end) = (before.end(base), entry.end(base));
    let records = end.offset.since(from.offset);
    Gap {
        base_offset: from.offset,
        term: end.term,
        records: u32::try_from(records).expect("an entry's offsets are a difference of 32 bits"),
        frame_bytes: (entry.position() - before.position()) as usize,
        max_timestamp: Timestamp(entry.max_timestamp()),
        producer: entry.producer().filter(|_| !mutant::active(Mutant::GapForgetsProducer)),
    }
}

fn gap_entry(view: &View<'_>, slot: usize, base: &Place) -> io::Result<Entry> {
    let (before, entry) = (view.before(slot)?, view.entry(slot)?);
    let frame = gap(&before, &entry, base).encode();
    let header = FrameHeader::parse(&frame).expect("a gap is a frame");
    Ok(Entry::after(&before, &header).expect("it takes the room of the batch"))
}

/// So much is read in one pass of what may be given up: the shard has other replicas.
const LOOK_BYTES_MAX: u64 = 4 << 20;
/// How the name of an index ends that is being made anew.
pub(super) const INDEX_MEND: &str = "idx.mend";

#[cfg(all(test, feature = "sim"))]
mod tests;
