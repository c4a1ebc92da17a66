//! The hash of what a log holds between two indexes, for whoever compares replicas: from any thread, at
//! the price of reading it all.
//!
//! Chained are the hashes of the frames' bytes as they lie there, batches and marks, each compared with its
//! index entry on the way; where segments begin and end plays no part, nor how many frames are hashed at once.
//! So two replicas have the same hash of a range that both hold whole, whenever each of them flushed, rolled, was
//! cut, mended or trimmed.

use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;

use highwater_protocol::ids::{LogIndex, Offset};
use xxhash_rust::xxh3::xxh3_128;

use super::faults::{FaultyRange, faulty_range};
use super::reader::LogReader;
use super::segment::View;

/// The hash of some frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digested {
    /// Behind the last one: where to go on.
    pub end: LogIndex,
    /// The offsets of their records.
    pub offsets: Range<Offset>,
    /// How many bytes they are.
    pub bytes: u64,
    /// Their hash, and that of what came before.
    pub hash: u128,
    /// A frame that is not what the index names; the hash ends before it.
    pub faulty: Option<FaultyRange>,
}

impl LogReader {
    /// Where the log starts; what a trim takes away is not there any more when this still says less.
    pub fn start_index(&self) -> LogIndex {
        LogIndex(self.shared.start_index.load(Ordering::Acquire))
    }

    /// Hashes whole frames behind `range.start` up to `range.end`: about `bytes_max`, but one at least if
    /// there is one. `seed` is the hash of what came before. If the log starts behind `range.start`
    /// afterwards, frames may be missing.
    pub fn digest(
        &self,
        range: Range<LogIndex>,
        seed: u128,
        bytes_max: u64,
    ) -> io::Result<Digested> {
        let nothing = Offset(0)..Offset(0);
        let mut digested =
            Digested { end: range.start, offsets: nothing, bytes: 0, hash: seed, faulty: None };
        let pieces = self.shared.pieces.load_full();
        let first = pieces.partition_point(|piece| piece.base().index <= range.start);
        for piece in &pieces[first.saturating_sub(1)..] {
            let view = self.shared.view(piece)?;
            let base = piece.base();
            let mut slot = view.first_not(|entry| entry.end(base).index <= digested.end)?;
            let last = view.first_not(|entry| entry.end(base).index <= range.end)?;
            while slot < last && (digested.bytes == 0 || digested.bytes < bytes_max) {
                let left = bytes_max.saturating_sub(digested.bytes).min(STEP_BYTES);
                let fits = view.before(slot)?.position() + left;
                let end = view.first_not(|entry| entry.position() <= fits)?;
                let end = end.clamp(slot + 1, last);
                let (frames, bad) = self.shared.checked_frames(piece, &view, slot..end)?;
                let sound = bad.unwrap_or(end);
                digested.take(&view, &frames, slot..sound)?;
                if let Some(bad) = bad {
                    digested.faulty = Some(faulty_range(piece, &view, bad)?);
                    return Ok(digested);
                }
                slot = sound;
            }
            if slot < view.slots() {
                break;
            }
        }
        Ok(digested)
    }
}

impl Digested {
    /// Goes on with the frames of some slots.
    fn take(&mut self, view: &View<'_>, frames: &[u8], slots: Range<usize>) -> io::Result<()> {
        let mut rest = frames;
        for slot in slots {
            let (before, place) = (view.place_before(slot)?, view.place_before(slot + 1)?);
            let length = view.entry(slot)?.position() - view.before(slot)?.position();
            let (frame, behind) = rest.split_at(length as usize);
            if self.bytes == 0 {
                self.offsets.start = before.offset;
            }
            self.hash = chained(self.hash, xxh3_128(frame));
            self.bytes += length;
            (self.end, self.offsets.end) = (place.index, place.offset);
            rest = behind;
        }
        Ok(())
    }
}

fn chained(before: u128, frame: u128) -> u128 {
    let mut both = [0; 32];
    both[..16].copy_from_slice(&before.to_be_bytes());
    both[16..].copy_from_slice(&frame.to_be_bytes());
    xxh3_128(&both)
}

/// What is read and checked at a time.
const STEP_BYTES: u64 = 256 << 10;

#[cfg(all(test, feature = "sim"))]
mod tests {
    use highwater_protocol::ids::Term;

    use super::*;
    use crate::log::tests::{Bench, batch};

    fn whole(bench: &Bench, from: LogIndex) -> Digested {
        let range = from..bench.log.end();
        bench.log.reader().digest(range, 0, u64::MAX).expect("it reads")
    }

    #[test]
    fn the_hash_of_a_range_does_not_depend_on_the_steps_nor_on_the_segments() {
        let bench = Bench::filled(10);
        let at_once = whole(&bench, LogIndex::ZERO);
        assert_eq!(
            (at_once.end, at_once.offsets.clone()),
            (bench.log.end(), Offset(0)..Offset(20))
        );
        let (mut at, mut seed, mut steps) = (LogIndex::ZERO, 0, 0);
        while at < bench.log.end() {
            let step = bench.log.reader().digest(at..bench.log.end(), seed, 1).expect("it reads");
            assert!(step.end > at, "one frame at least");
            (at, seed, steps) = (step.end, step.hash, steps + 1);
        }
        assert_eq!((seed, steps), (at_once.hash, 11));
        let (again, _) = bench.kill();
        assert_eq!(whole(&again, LogIndex::ZERO), at_once);
    }

    #[test]
    fn one_record_that_differs_makes_another_hash_and_one_that_is_beyond_the_range_does_not() {
        let (same, mut other) = (Bench::filled(3), Bench::filled(2));
        other.log.append(Term(1), &batch(2, 4_000, 9)).expect("append");
        let differs = LogIndex(1 + 4);
        let up_to = |bench: &Bench, end| {
            bench.log.reader().digest(LogIndex::ZERO..end, 0, u64::MAX).expect("it reads").hash
        };
        assert_eq!(up_to(&same, differs), up_to(&other, differs));
        assert_ne!(up_to(&same, same.log.end()), up_to(&other, other.log.end()));
    }

    #[test]
    fn what_rotted_ends_the_hash_and_is_named() {
        let (bench, sound) = (Bench::filled(3), Bench::filled(3));
        assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + 9_000) * 8));
        let found = whole(&bench, LogIndex::ZERO);
        let faulty = found.faulty.expect("the second batch");
        assert_eq!((faulty.from, faulty.until, found.end), (Offset(2), Offset(4), LogIndex(3)));
        let before = sound.log.reader().digest(LogIndex::ZERO..found.end, 0, u64::MAX);
        assert_eq!(before.expect("it reads").hash, found.hash);
    }
}
