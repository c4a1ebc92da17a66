//! Where a log starts: the file `start`, giving up what lies before a place, and starting anew.
//!
//! Both are one atomic step, the renaming of the file; segments are removed only afterwards, and
//! the next life removes those that a crash left. The file carries what the frames before the place
//! would have told: the voters that held there, and the last batches of producers that have
//! none behind it, so that a batch sent again is still known. A log that starts anew takes all of
//! this from its leader's file and declares every segment made so far void.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use highwater_protocol::batch::{FrameHeader, Mark, ProducerStamp, VoterSet};
use highwater_protocol::ids::{
    LogIndex, Offset, Position, ProducerEpoch, ProducerId, Term, Timestamp,
};

use super::header::{
    BLOCK_BYTES, BadBlock, finish, open, place_at, put_place, put_u32, put_u64, u32_at, u64_at,
};
use super::index::NO_TIMESTAMP;
use super::roll::absent_is_fine;
use super::segment::{Body, Piece};
use super::{FrameSummary, Log, Place, PlacedMark};
use crate::crash_point::{self, CrashPoint};
use crate::disk::Disk;
use crate::mutant::{self, Mutant};

/// Where a log starts, and what is known of what was before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StartPoint {
    pub(super) place: Place,
    /// The voters that held there: the mark that named them may be given up.
    pub(super) voters: Option<PlacedMark>,
    /// Segments up to this number are void.
    pub(super) void: u64,
    /// Batches of producers that end before the place, oldest first.
    pub(super) producers: Vec<FrameSummary>,
}

/// One segment, for whoever decides what is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Where it ends.
    pub end: LogIndex,
    /// The offset behind its last record.
    pub end_offset: Offset,
    /// Bytes of its frames.
    pub bytes: u64,
    /// The largest timestamp of its records; `None` without records.
    pub newest: Option<Timestamp>,
}

/// A segment that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The path of its `.log` file.
    pub segment: String,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The offset behind its last record.
    pub end_offset: Offset,
    /// Bytes of its frames.
    pub bytes: u64,
}

impl Log {
    /// The place where the batch begins that holds `offset`, if it lies in the log.
    pub fn batch_start(&self, offset: Offset) -> io::Result<Option<(LogIndex, Offset)>> {
        let place = self.place_before_offset(offset)?;
        let place = place.filter(|place| place.offset > self.start.offset);
        Ok(place.map(|place| (place.index, place.offset)))
    }

    /// Gives up everything before a frame boundary, which must be committed, and frees whole
    /// segments. `producers` are the batches worth knowing that end before it, oldest first.
    pub fn trim_to(
        &mut self,
        to: LogIndex,
        producers: Vec<FrameSummary>,
    ) -> io::Result<Vec<Dropped>> {
        self.usable()?;
        if to <= self.start.index {
            return Ok(Vec::new());
        }
        let Some(place) = self.place_at(to)? else {
            let why =
                format!("the log in {} has no boundary at {to} to start at", self.dir.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        };
        let committed = Offset(self.shared.high_watermark.load(Ordering::Relaxed));
        assert!(place.offset <= committed, "what is not committed was given up");
        let start =
            StartPoint { place, voters: self.voters_at(to), void: self.start_void, producers };
        self.set_start(start)?;
        crash_point::reached(CrashPoint::StartMoved);
        let pieces = self.shared.pieces.load_full();
        let gone = pieces.windows(2).take_while(|pair| pair[1].base().index <= to).count();
        self.shared.pieces.store(Arc::new(pieces[gone..].to_vec()));
        let end = pieces.get(gone).map_or(place, |next| *next.base());
        let dropped = self.dropped(&pieces[..gone], end);
        self.remove_pieces(&pieces[..gone])?;
        Ok(dropped)
    }

    /// Lets go of the whole log and starts at another's place, which lies behind all that is
    /// committed here. When it returns, that is durable; a crash leaves the old log or the new one.
    pub fn start_at(&mut self, point: &StartPoint) -> io::Result<Vec<Dropped>> {
        self.usable()?;
        let place = point.place;
        let committed = Offset(self.shared.high_watermark.load(Ordering::Relaxed));
        assert!(committed <= place.offset, "a committed record would be lost");
        let end = self.end;
        self.set_start(StartPoint { void: self.sequence_last, ..point.clone() })?;
        self.end = place;
        self.durable = place.index;
        self.voters = point.voters.iter().cloned().collect();
        // The leader vouches for all that is before.
        self.owed = None;
        self.active = false;
        self.dirty.clear();
        for flush in &mut self.flushes {
            flush.proves = LogIndex::ZERO;
        }
        // Readers look at the list of segments first: they see either an old list or the new start.
        self.shared.log_end.store(place.offset.0, Ordering::Release);
        let pieces = self.shared.pieces.swap(Arc::default());
        let dropped = self.dropped(&pieces, end);
        self.unsealed.clear();
        let beyond = std::mem::take(&mut self.beyond);
        super::roll::discard(&*self.shared.disk, &self.dir, &beyond, None)?;
        self.remove_pieces(&pieces)?;
        Ok(dropped)
    }

    /// What a follower needs that is to start where this log starts.
    pub fn start_point(&self) -> Bytes {
        let voters = match mutant::active(Mutant::StartForgetsVoters) {
            true => None,
            false => self.voters_at(self.start.index),
        };
        let producers = match mutant::active(Mutant::StartForgetsProducers) {
            true => Vec::new(),
            false => self.start_producers.clone(),
        };
        let place = match mutant::active(Mutant::StartAtIndex) {
            true => Place { offset: Offset(self.start.index.0), ..self.start },
            false => self.start,
        };
        Bytes::from(StartPoint { place, voters, void: 0, producers }.encode())
    }

    /// The segments that nothing is added to any more, oldest first.
    pub fn full_segments(&self) -> Vec<SegmentFacts> {
        let pieces = self.shared.pieces.load();
        let full = pieces.len() - usize::from(self.active);
        let ends = pieces.iter().skip(1).map(|next| *next.base()).chain([self.end]);
        let facts = pieces[..full].iter().zip(ends).map(|(piece, end)| SegmentFacts {
            end: end.index,
            end_offset: end.offset,
            bytes: self.shared.piece_bytes(piece),
            newest: self.newest(piece),
        });
        facts.collect()
    }

    /// The number of the newest segment: it rises whenever one becomes full.
    pub fn segments_made(&self) -> u64 {
        self.sequence_last
    }

    /// The oldest and the newest timestamp of the active segment, if it has records.
    pub fn active_times(&self) -> Option<(Timestamp, Timestamp)> {
        if !self.active {
            return None;
        }
        let entries = &self.current().segment.growing().entries;
        let first = entries.iter().map(|(_, entry)| entry).find(|entry| !entry.is_mark())?;
        let last = entries.get(entries.count().checked_sub(1)?)?;
        Some((Timestamp(first.max_timestamp()), Timestamp(last.max_timestamp())))
    }

    /// Adds nothing more to the active segment, so that it can be given up when its time comes.
    pub fn end_segment(&mut self) -> io::Result<()> {
        self.usable()?;
        if self.active {
            self.retire_active();
            self.witness()?;
        }
        Ok(())
    }

    /// Says what segments held that are about to go; the last of them ended at `end` or before.
    fn dropped(&self, pieces: &[Piece], end: Place) -> Vec<Dropped> {
        let ends = pieces.iter().skip(1).map(|next| *next.base()).chain([end]);
        let dropped = pieces.iter().zip(ends).map(|(piece, end)| Dropped {
            segment: piece.segment.stem.log().display().to_string(),
            base_offset: piece.base().offset,
            end_offset: end.offset,
            bytes: self.shared.piece_bytes(piece),
        });
        dropped.collect()
    }

    fn newest(&self, piece: &Piece) -> Option<Timestamp> {
        let newest = match &piece.segment.body {
            // A cut took the youngest: the truth is not above this.
            Body::Sealed(sealed) => sealed.max_timestamp,
            Body::Growing(growing) => {
                let last = piece.slots().checked_sub(1).and_then(|slot| growing.entries.get(slot));
                last.map_or(NO_TIMESTAMP, super::index::Entry::max_timestamp)
            }
        };
        (newest != NO_TIMESTAMP).then_some(Timestamp(newest))
    }

    fn voters_at(&self, index: LogIndex) -> Option<PlacedMark> {
        self.voters.iter().rev().find(|placed| placed.end <= index).cloned()
    }

    fn set_start(&mut self, start: StartPoint) -> io::Result<()> {
        if let Err(error) = write(&*self.shared.disk, &self.dir, &start) {
            // A full disk changes nothing; after any other error the step may have happened.
            self.failed |= error.kind() != io::ErrorKind::StorageFull;
            return Err(error);
        }
        self.start = start.place;
        self.start_void = start.void;
        self.start_producers = start.producers;
        self.shared.start_index.fetch_max(start.place.index.0, Ordering::AcqRel);
        self.shared.log_start.fetch_max(start.place.offset.0, Ordering::AcqRel);
        self.shared.high_watermark.fetch_max(start.place.offset.0, Ordering::AcqRel);
        Ok(())
    }
}

impl StartPoint {
    /// Reads what another log's `start_point` says.
    pub fn parse(block: &[u8]) -> io::Result<StartPoint> {
        StartPoint::decode(block).map_err(|bad| {
            io::Error::new(io::ErrorKind::InvalidData, format!("a log start that is {bad:?}"))
        })
    }

    /// The place, as Raft compares it.
    pub fn position(&self) -> Position {
        Position { term: self.place.term, index: self.place.index }
    }

    /// The voters that hold there, as a mark of this term or a later one named them, and its end.
    pub fn voters_since(&self, since: Term) -> Option<(LogIndex, VoterSet)> {
        match &self.voters {
            Some(PlacedMark { end, term, mark: Mark::Voters(set) }) if *term >= since => {
                Some((*end, set.clone()))
            }
            Some(_) | None => None,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let voters = self.voters.as_ref();
        let mark = voters.map(|voters| voters.mark.encode(self.place.offset, voters.term));
        let mark = mark.unwrap_or_default();
        let rest = MARK_AT + mark.len();
        let bytes = rest + REST_BYTES + self.producers.len() * PRODUCER_BYTES;
        let mut block = vec![0; bytes.next_multiple_of(BLOCK_BYTES as usize)];
        put_place(&mut block, 16, &self.place);
        put_u64(&mut block, 40, voters.map_or(0, |voters| voters.end.0));
        put_u32(&mut block, 48, u32::try_from(mark.len()).expect("a mark is small"));
        block[MARK_AT..rest].copy_from_slice(&mark);
        put_u64(&mut block, rest, self.void);
        put_u32(&mut block, rest + 8, u32::try_from(self.producers.len()).expect("they are few"));
        let slots = block[rest + REST_BYTES..].chunks_exact_mut(PRODUCER_BYTES);
        for (slot, summary) in slots.zip(&self.producers) {
            put_u64(slot, 0, summary.base_offset.0);
            put_u64(slot, 8, summary.end.0);
            put_u32(slot, 16, summary.records);
            put_u32(slot, 20, summary.term.0);
            put_u64(slot, 24, summary.producer.id.0);
            put_u32(slot, 32, u32::from(summary.producer.epoch.0));
            put_u32(slot, 36, summary.producer.base_sequence);
        }
        finish(&mut block, START_MAGIC);
        block
    }

    pub(super) fn decode(block: &[u8]) -> Result<StartPoint, BadBlock> {
        open(block, START_MAGIC)?;
        let place = place_at(block, 16);
        let (end, bytes) = (LogIndex(u64_at(block, 40)), u32_at(block, 48) as usize);
        let frame = block.get(MARK_AT..MARK_AT + bytes).ok_or(BadBlock::Damaged)?;
        let voters = match frame.is_empty() {
            true => None,
            false => {
                let header = FrameHeader::parse(frame).map_err(|_| BadBlock::Damaged)?;
                let mark = Mark::parse(frame).map_err(|_| BadBlock::Damaged)?;
                Some(PlacedMark { end, term: header.term, mark })
            }
        };
        let rest = block.get(MARK_AT + bytes..).filter(|rest| rest.len() >= REST_BYTES);
        let rest = rest.ok_or(BadBlock::Damaged)?;
        let (void, count) = (u64_at(rest, 0), u32_at(rest, 8) as usize);
        let slots = rest[REST_BYTES..].chunks_exact(PRODUCER_BYTES);
        if slots.len() < count {
            return Err(BadBlock::Damaged);
        }
        let producers = slots.take(count).map(decode_producer).collect();
        Ok(StartPoint { place, voters, void, producers })
    }
}

fn decode_producer(slot: &[u8]) -> FrameSummary {
    FrameSummary {
        base_offset: Offset(u64_at(slot, 0)),
        end: LogIndex(u64_at(slot, 8)),
        records: u32_at(slot, 16),
        term: Term(u32_at(slot, 20)),
        producer: ProducerStamp {
            id: ProducerId(u64_at(slot, 24)),
            epoch: ProducerEpoch(u32_at(slot, 32) as u16),
            base_sequence: u32_at(slot, 36),
        },
    }
}

/// Replaces the file `start`, atomically.
fn write(disk: &dyn Disk, dir: &Path, start: &StartPoint) -> io::Result<()> {
    let (new, name) = (dir.join(START_NEW), dir.join(START));
    absent_is_fine(disk.remove(&new))?;
    let contents = start.encode();
    let file = disk.create(&new, contents.len() as u64, contents.len() as u64)?;
    file.write_at(0, &[&contents])?;
    if !mutant::active(Mutant::StartNotFlushed) {
        file.flush()?;
    }
    crash_point::reached(CrashPoint::StartWritten);
    disk.rename(&new, &name)?;
    crash_point::reached(CrashPoint::StartRenamed);
    match mutant::active(Mutant::StartNotFlushed) {
        true => Ok(()),
        false => disk.flush_dir(dir),
    }
}

/// The file that says where a trimmed log starts.
pub(super) const START: &str = "start";
/// The same while it is made.
pub(super) const START_NEW: &str = "start.new";
const START_MAGIC: &[u8; 8] = b"HWSTART\0";
const MARK_AT: usize = 52;
/// The number of the last void segment, and how many batches follow.
const REST_BYTES: usize = 12;
const PRODUCER_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::ids::NodeId;

    #[test]
    fn a_start_point_comes_back_as_it_was_and_no_flipped_bit_goes_unseen() {
        let voters = VoterSet { voters: vec![NodeId(1), NodeId(2)], learners: vec![NodeId(9)] };
        let voters = PlacedMark { end: LogIndex(50), term: Term(3), mark: Mark::Voters(voters) };
        let place = Place { index: LogIndex(90), offset: Offset(80), term: Term(4) };
        let producer =
            ProducerStamp { id: ProducerId(7), epoch: ProducerEpoch(2), base_sequence: 12 };
        let batch = |at: u64| FrameSummary {
            base_offset: Offset(at),
            end: LogIndex(at + 5),
            records: 3,
            term: Term(2),
            producer,
        };
        for voters in [None, Some(voters)] {
            for count in [0, 1, 40] {
                let producers = (0..count).map(batch).collect();
                let start = StartPoint { place, voters: voters.clone(), void: 6, producers };
                let block = start.encode();
                assert_eq!(StartPoint::decode(&block), Ok(start));
                for bit in (0..block.len() * 8).step_by(7) {
                    let mut flipped = block.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(StartPoint::decode(&flipped), Err(BadBlock::Damaged), "bit {bit}");
                }
            }
        }
    }
}
