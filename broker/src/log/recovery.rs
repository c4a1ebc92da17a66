//! Opening a log: which segments count, how far they are whole, and what a crash left undone.
//!
//! The rules, each of which gives the same result when it is applied again:
//! * a segment overrules all older ones from its base on; what is overruled as a whole is removed,
//!   but only after the overruling segment and its name were made durable;
//! * a sealed segment is believed; any other is scanned. A frame that is not whole keeps its place if its
//!   index entry is there to say what it was (`faults`); else the log ends at the first such frame. Nothing is erased there: if anything but zeros lies behind the end, the next
//!   append goes to a new segment, which overrules it;
//! * what ends before a witness is damage and reported as such, in this life and in every later
//!   one until the log has grown past it again (`Header::owed`);
//! * what recovery returns is durable: it is flushed before it is believed.

mod lost_page;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use highwater_protocol::batch::Mark;
use highwater_protocol::ids::{LogIndex, TopicPartition};

use super::chain::{Candidate, candidates, read_start, resolve, trimmed, witnessed_until};
use super::faults::faulty_range;
use super::gap::INDEX_MEND;
use super::header::{HEADER_PAGE_BYTES, Header, Origin};
use super::mend::HEADER_SLOT;
use super::reader::Shared;
use super::roll::{Marks, Unsealed, discard, make_index};
use super::scan::{Scanned, Stop, read_slots, scan};
use super::segment::{
    Body, Ended, Growing, MEND, Piece, SealedIndex, Segment, Stem, View, index_bytes_max,
    log_bytes_max, notable, read_seal, was_sealed,
};
use super::start::{START_NEW, StartPoint};
use super::{Damage, Log, Options, Place, PlacedMark, Recovered, TermStart};
use crate::disk::{Disk, File};

/// A log on its way to being open.
struct Recovery<'a> {
    disk: &'a Arc<dyn Disk>,
    dir: &'a Path,
    partition: TopicPartition,
    options: Options,
    start: StartPoint,
    /// Otherwise the oldest segment says it, if less exactly.
    start_known: bool,
    end: Place,
    pieces: Vec<Piece>,
    unsealed: VecDeque<Unsealed>,
    /// The last piece may be appended to.
    active: bool,
    /// Live segments that cannot be reached.
    beyond: Vec<Stem>,
    /// Up to where witnesses say that the log was durable, and what keeps it from being so.
    durable: LogIndex,
    why: String,
    recovered: Recovered,
    /// Frames that only their entries are left of: segments' numbers and slots.
    faulty: Vec<(u64, Vec<usize>)>,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    partition: TopicPartition,
    options: Options,
) -> io::Result<(Log, Recovered)> {
    disk.create_dir(dir)?;
    let names = disk.list(dir)?;
    let unfinished =
        |name: &&String| *name == START_NEW || name.ends_with(MEND) || name.ends_with(INDEX_MEND);
    for name in names.iter().filter(unfinished) {
        disk.remove(&dir.join(name))?;
    }
    let start = read_start(&*disk, dir, &names)?;
    let void = start.as_ref().map_or(0, |start| start.void);
    let (candidates, unfinished) = candidates(&*disk, dir, &names, partition)?;
    let (void_ones, candidates): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| candidate.stem.sequence <= void);
    let sequence_last = names.iter().filter_map(|name| Stem::parse(dir, name));
    let sequence_last = sequence_last.map(|(stem, _)| stem.sequence).max().unwrap_or(0).max(void);
    let owed = candidates.iter().rev().find_map(|candidate| candidate.header.as_ref().ok());
    let owed = owed.and_then(|header| header.owed);
    let (mut live, dead) = resolve(candidates);
    let trimmed = start.as_ref().map_or(0, |start| trimmed(&live, start));
    let done_with = live.drain(..trimmed).chain(void_ones).map(|candidate| candidate.stem);
    let done_with: Vec<Stem> = done_with.chain(unfinished).collect();

    let mut recovery = Recovery::new(&disk, dir, partition, options, start);
    recovery.walk(&live)?;
    recovery.settle(&dead, &done_with, owed)?;
    recovery.report(owed);
    let (mut log, mut recovered) = recovery.finish(sequence_last)?;
    log.witness()?;
    recovered.producers_from = log.recent_producers()?;
    Ok((log, recovered))
}

/// Writes what no witness names once more, the same bytes: after a flush that failed, the kernel takes
/// pages for clean that it never wrote, and only a new write makes the next flush mean anything.
fn rewrite_unproven(growing: &Growing, witnessed: usize) -> io::Result<()> {
    let end_of = |slots: usize| {
        let last = slots.checked_sub(1).and_then(|slot| growing.entries.get(slot));
        last.map(super::index::Entry::position)
    };
    let from = end_of(witnessed).unwrap_or(0);
    let to = end_of(growing.entries.count()).unwrap_or(HEADER_PAGE_BYTES);
    let bytes = growing.log.read(from..to)?;
    growing.log.write_at(from, &[&bytes])
}

/// The slots that a summary names, with the frames of marks; and the latter by themselves.
fn marks_in(view: &View<'_>) -> io::Result<(Vec<(usize, Bytes)>, Marks)> {
    let (mut notables, mut marks) = (Vec::new(), Marks::new());
    for slot in notable(view)? {
        let frame = if view.entry(slot)?.is_mark() { view.mark(slot)? } else { Bytes::new() };
        if !frame.is_empty() {
            // Not the mapped bytes themselves: those are what may rot.
            marks.insert(slot, Bytes::copy_from_slice(&frame));
        }
        notables.push((slot, frame));
    }
    Ok((notables, marks))
}

impl<'a> Recovery<'a> {
    fn new(
        disk: &'a Arc<dyn Disk>,
        dir: &'a Path,
        partition: TopicPartition,
        options: Options,
        start: Option<StartPoint>,
    ) -> Self {
        let start_known = start.is_some();
        let start = start.unwrap_or_default();
        Recovery {
            disk,
            dir,
            partition,
            options,
            end: start.place,
            start,
            start_known,
            pieces: Vec::new(),
            unsealed: VecDeque::new(),
            active: false,
            beyond: Vec::new(),
            durable: LogIndex::ZERO,
            why: String::new(),
            recovered: Recovered::default(),
            faulty: Vec::new(),
        }
    }

    /// Goes along the live segments for as long as each continues the one before it.
    fn walk(&mut self, live: &[Candidate]) -> io::Result<()> {
        let mut reached = 0;
        for (at, candidate) in live.iter().enumerate() {
            let header = match self.continued_by(candidate) {
                Ok(header) => Ok(header),
                Err(why) => self.made_again(candidate)?.ok_or(why),
            };
            let header = match header {
                Ok(header) => header,
                Err(why) => {
                    self.why = format!("{}: {why}", candidate.stem.log().display());
                    break;
                }
            };
            reached = at + 1;
            let next = live.get(at + 1).map(|next| LogIndex(next.stem.base));
            self.load(candidate, header, next)?;
            if next.is_some_and(|next| self.end.index < next) {
                self.active = false;
                break;
            }
        }
        for candidate in &live[reached..] {
            // Sealed or not: the last entry of the index says how far it went.
            let until = witnessed_until(&**self.disk, &candidate.stem)?;
            self.durable = self.durable.max(until.unwrap_or_default());
            self.beyond.push(candidate.stem.clone());
        }
        if self.end.index < self.start.place.index {
            // The tail that a crash took lay before the start of the log.
            self.end = self.start.place;
            self.beyond.extend(self.pieces.drain(..).map(|piece| piece.segment.stem.clone()));
            self.unsealed.clear();
            self.active = false;
        }
        Ok(())
    }

    /// The header of a candidate that continues the log, or why it does not.
    fn continued_by(&mut self, candidate: &Candidate) -> Result<Header, String> {
        let header = candidate.header.clone()?;
        if !self.pieces.is_empty() {
            let place = header.base;
            return if place == self.end {
                Ok(header)
            } else {
                Err(format!("it begins at {place:?}, the log before it ends at {:?}", self.end))
            };
        }
        let anew = header.origin == Origin::Start && self.start.place.index < header.base.index;
        if anew || !self.start_known {
            self.start.place = header.base;
        }
        if header.base.index > self.start.place.index {
            let start = self.start.place.index;
            return Err(format!("segments before it are missing, the log starts at index {start}"));
        }
        Ok(header)
    }

    /// Takes a segment into the log, as far as it is whole and not overruled.
    fn load(
        &mut self,
        candidate: &Candidate,
        header: Header,
        next: Option<LogIndex>,
    ) -> io::Result<()> {
        let log =
            self.disk.open(&candidate.stem.log(), log_bytes_max(self.options.segment_bytes_max))?;
        let index = self.open_index(&candidate.stem)?;
        if let Some(index) = &index
            && let Some(sealed) = read_seal(&**index, header.sequence)?
            && sealed.seal.position <= log.len()
        {
            return self.load_sealed(candidate, header, next, sealed, log);
        }
        let slots = match &index {
            Some(index) => read_slots(&**index, header.sequence)?,
            None => None,
        };
        let usable = slots.is_some();
        let ended = match &index {
            Some(index) if usable => was_sealed(&**index)?,
            Some(_) | None => Ended::No,
        };
        let scanned = scan(&*log, &header, &slots.unwrap_or_default(), next)?;
        let index = match index {
            Some(index) if usable => OnceLock::from(index),
            Some(_) | None => self.remake_index(&candidate.stem, &header)?,
        };
        let bytes_max = self.options.segment_bytes_max;
        let growing = Growing { log, index, entries: boxcar::Vec::new(), bytes_max };
        self.load_growing(candidate, (header, ended), next, scanned, growing)
    }

    fn load_sealed(
        &mut self,
        candidate: &Candidate,
        header: Header,
        next: Option<LogIndex>,
        sealed: SealedIndex,
        log: Arc<dyn File>,
    ) -> io::Result<()> {
        let segment = Segment::sealed(header, candidate.stem.clone(), &sealed.seal);
        segment.opened_as(log, sealed.entries);
        let segment = Arc::new(segment);
        let slots = sealed.seal.slots as usize;
        let view = segment.view(slots).expect("it was opened just now");
        let upto = |entry: &super::index::Entry| {
            next.is_none_or(|next| entry.end(&header.base).index <= next)
        };
        let slots = view.first_not(upto)?;
        let view = segment.view(slots).expect("it was opened just now");
        self.end = view.place_before(slots)?;
        self.durable = self.durable.max(self.end.index);
        self.note(&view, sealed.notable.into_iter().filter(|(slot, _)| *slot < slots))?;
        segment.close();
        self.active = false;
        self.pieces.push(Piece { segment: Arc::clone(&segment), cut: Some(slots) });
        Ok(())
    }

    fn load_growing(
        &mut self,
        candidate: &Candidate,
        (header, ended): (Header, Ended),
        next: Option<LogIndex>,
        scanned: Scanned,
        mut growing: Growing,
    ) -> io::Result<()> {
        let slots = scanned.entries.len();
        let needed = scanned.entries.last().map_or(0, super::index::Entry::position);
        if needed > growing.log.len() {
            // A file that was cut short: its lost frames are faulty like any others.
            growing.log = self.disk.open(&candidate.stem.log(), needed)?;
            growing.log.extend(needed)?;
        }
        for entry in scanned.entries {
            growing.entries.push(entry);
        }
        let segment = Arc::new(Segment {
            header,
            stem: candidate.stem.clone(),
            body: Body::Growing(Box::new(growing)),
        });
        let view = segment.view(slots).expect("a growing segment is open");
        self.end = view.place_before(slots)?;
        let (notable, marks) = marks_in(&view)?;
        self.note(&view, notable.into_iter())?;
        // Behind the next segment's base, witnesses are void: a truncation came after them.
        let durable = next.map_or(scanned.durable, |next| scanned.durable.min(next));
        let whole = self.end.index >= durable;
        let faulty = !scanned.faulty.is_empty();
        let (retired, active) = match scanned.stop {
            Stop::Limit => (Some(slots), false),
            // A segment can be mended once it is sealed. And where a seal was written that is not whole,
            // what is appended would be void again should that one come to fit once more.
            Stop::Blank if (faulty || ended == Ended::Yes) && whole => (Some(slots), false),
            Stop::Blank => (None, whole),
            Stop::Bad { why, bytes, frames_behind } => {
                let at = view.before(slots)?.position();
                self.why = format!("{} at {at}: {why}", candidate.stem.log().display());
                self.recovered.torn_tail_bytes += bytes;
                self.recovered.frames_behind_tear += frames_behind;
                (None, false)
            }
        };
        if !whole && self.why.is_empty() {
            self.why = format!("{}: frames are missing", candidate.stem.log().display());
        }
        self.durable = self.durable.max(durable);
        self.active = active;
        let cut = (!active).then_some(slots);
        self.pieces.push(Piece { segment: Arc::clone(&segment), cut });
        if faulty {
            self.faulty.push((segment.header.sequence, scanned.faulty));
        }
        let witnessed = scanned.witnessed;
        self.unsealed.push_back(Unsealed { segment, witnessed, retired, dirty: false, marks });
        Ok(())
    }

    fn open_index(&self, stem: &Stem) -> io::Result<Option<Arc<dyn File>>> {
        let room = index_bytes_max(self.options.segment_bytes_max);
        match self.disk.open(&stem.index(), room) {
            Ok(index) => Ok(Some(index)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new index file in place of one that is missing or not to be believed; none yet where the disk is full, for
    /// all that it says was read from the frames.
    fn remake_index(&self, stem: &Stem, header: &Header) -> io::Result<OnceLock<Arc<dyn File>>> {
        match self.disk.remove(&stem.index()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        match make_index(&**self.disk, header, stem, self.options.segment_bytes_max) {
            Ok(index) => Ok(OnceLock::from(index)),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(OnceLock::new()),
            Err(error) => Err(error),
        }
    }

    /// Remembers changes of term and marks.
    fn note(
        &mut self,
        view: &View<'_>,
        notable: impl Iterator<Item = (usize, Bytes)>,
    ) -> io::Result<()> {
        let base = view.place_before(0)?;
        for (slot, frame) in notable {
            let (before, end) = (view.place_before(slot)?, view.place_before(slot + 1)?);
            let known = self.recovered.term_starts.last().map_or(base.term, |last| last.term);
            if end.term != known {
                let start = before.index;
                self.recovered.term_starts.push(TermStart { term: end.term, start });
            }
            if view.entry(slot)?.is_mark() {
                let frame = if frame.is_empty() { view.mark(slot)? } else { frame };
                let mark = Mark::parse(&frame).map_err(|error| {
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("index {}: {error}", end.index),
                    )
                })?;
                self.recovered.marks.push(PlacedMark { end: end.index, term: end.term, mark });
            }
        }
        Ok(())
    }

    /// Makes durable what was found, then carries out what a crash left undone.
    fn settle(
        &mut self,
        dead: &[Stem],
        done_with: &[Stem],
        owed: Option<LogIndex>,
    ) -> io::Result<()> {
        let mut flushed = false;
        for unsealed in &self.unsealed {
            let growing = unsealed.segment.growing();
            // Without a witness, not even the segment's name is known to be durable.
            let proven = unsealed.witnessed > 0 && unsealed.witnessed >= growing.entries.count();
            if !proven {
                rewrite_unproven(growing, unsealed.witnessed)?;
            }
            if !proven || !dead.is_empty() {
                growing.log.flush()?;
                flushed = true;
            }
        }
        if flushed || !dead.is_empty() {
            self.disk.flush_dir(self.dir)?;
        }
        discard(&**self.disk, self.dir, dead, owed)?;
        discard(&**self.disk, self.dir, done_with, None)?;
        for unsealed in &mut self.unsealed {
            unsealed.witness(&**self.disk, self.end.index)?;
        }
        Ok(())
    }

    /// Says what was lost, if anything.
    fn report(&mut self, owed: Option<LogIndex>) {
        if let Some(owed) = owed.filter(|owed| *owed > self.durable) {
            self.durable = owed;
            if self.why.is_empty() {
                self.why =
                    "an earlier life found damage, and the lost frames are not back".to_owned();
            }
        }
        if self.durable > self.end.index {
            self.recovered.damage = Some(Damage {
                at: self.end.index,
                until: self.durable,
                detail: std::mem::take(&mut self.why),
            });
        }
        if let Some(kept) = self.start.voters.take() {
            self.recovered.marks.retain(|placed| placed.end > kept.end);
            self.recovered.marks.insert(0, kept);
        }
    }

    fn finish(mut self, sequence_last: u64) -> io::Result<(Log, Recovered)> {
        let shared = Arc::new(Shared::new(Arc::clone(self.disk)));
        for piece in &self.pieces {
            let sequence = piece.segment.header.sequence;
            let found = self.faulty.iter().filter(|(of, _)| *of == sequence);
            for slot in found.flat_map(|(_, slots)| slots.iter().copied()) {
                if piece.slots() > 0 && (slot == HEADER_SLOT || slot < piece.slots()) {
                    let view = shared.view(piece)?;
                    let named = if slot == HEADER_SLOT { 0 } else { slot };
                    self.recovered.faulty.push(faulty_range(piece, &view, named)?);
                    shared.faults.note(sequence, [slot]);
                }
            }
        }
        shared.pieces.store(Arc::new(self.pieces));
        shared.start_index.store(self.start.place.index.0, Ordering::Release);
        shared.log_start.store(self.start.place.offset.0, Ordering::Release);
        shared.high_watermark.store(self.start.place.offset.0, Ordering::Release);
        shared.log_end.store(self.end.offset.0, Ordering::Release);
        let voters = self.recovered.marks.iter();
        let voters =
            voters.filter(|placed| matches!(placed.mark, Mark::Voters(_))).cloned().collect();
        let log = Log {
            dir: self.dir.to_owned(),
            partition: self.partition,
            options: self.options,
            shared,
            start: self.start.place,
            start_void: self.start.void,
            start_producers: self.start.producers,
            end: self.end,
            active: self.active,
            unsealed: self.unsealed,
            beyond: self.beyond,
            voters,
            sequence_last,
            owed: self.recovered.damage.as_ref().map(|damage| damage.until),
            durable: self.end.index,
            dirty: Vec::new(),
            flushes: VecDeque::new(),
            failed: false,
            mending: None,
            wanted: None,
            denied: BTreeMap::new(),
        };
        Ok((log, self.recovered))
    }
}
