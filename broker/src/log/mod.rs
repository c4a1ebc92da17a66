//! One partition's log: frames in segments, an index that is also their second witness, and the
//! rules by which all of it comes back after a crash.
//!
//! What must hold: a frame (a record batch or a mark) is written once and never changes under a
//! reader; every frame that was flushed survives, and every frame that recovery returns passed its
//! checks; recovering twice gives the same log. Truncation is a new segment whose header names the
//! cut, so a newer segment always overrules an older one from its base on.
//!
//! What this does not do: it knows nothing of Raft, of commit or of votes, starts no thread, reads
//! no clock, and never decides by itself to delete a record. `broker/FORMAT.md` has every byte.
//!
//! Read in this order: `header` and `index` (what lies on disk), `segment` (one pair of files),
//! `reader` (what any thread may do), this file (appends and flushes), `roll` and `start` (how
//! segments come and go), `lookup`, `locate` and `digest`, and for opening `chain`, `scan` and `recovery`.

mod append;
mod chain;
mod digest;
mod faults;
mod gap;
mod header;
mod index;
mod locate;
mod lookup;
mod mend;
mod reader;
mod recovery;
mod roll;
mod scan;
mod scrub;
mod segment;
mod start;
#[cfg(all(test, feature = "sim"))]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use highwater_protocol::batch::{Mark, ProducerStamp};
use highwater_protocol::ids::{LogIndex, Offset, Term, TopicPartition};

use crate::disk::{Disk, File};
use roll::{Unsealed, absent_is_fine};
use segment::Stem;

pub use digest::Digested;
pub use faults::FaultyRange;
pub use gap::{GivingUp, Left, Listed, Unreadable};
pub use locate::Located;
pub use mend::{Mend, Mended, Missing};
pub use reader::{LogReader, ReadError};
pub use scrub::{ScrubPlace, Scrubbed};
pub use start::{Dropped, SegmentFacts, StartPoint};

/// How a partition's log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A segment is sealed before it grows past this.
    pub segment_bytes_max: u64,
    /// Records are refused rather than leave less than this free on the disk: metadata, cuts and
    /// changes of leaders must still find room, or nobody could delete anything any more.
    pub keep_free_bytes: u64,
}

impl Options {
    fn check(&self) {
        let fits = self.segment_bytes_max <= SEGMENT_BYTES_MAX;
        assert!(fits, "positions in a segment have 32 bits");
    }
}

/// One partition's log, owned by one shard.
pub struct Log {
    dir: PathBuf,
    partition: TopicPartition,
    options: Options,
    shared: Arc<reader::Shared>,
    start: Place,
    /// Segments up to this number belong to a log that was given up as a whole.
    start_void: u64,
    /// Batches before the start that their producers may send again.
    start_producers: Vec<FrameSummary>,
    end: Place,
    /// The last piece takes appends; without it, the next append makes a new segment.
    active: bool,
    /// Segments that are not sealed, oldest first; the last one may be the active one.
    unsealed: VecDeque<Unsealed>,
    /// Segments behind a damaged place: out of reach, and removed once something overrules them.
    beyond: Vec<Stem>,
    /// The marks that name voters.
    voters: Vec<PlacedMark>,
    sequence_last: u64,
    /// Up to where an earlier life held flushed frames that damage took: carried by every header
    /// until the log is that long again.
    owed: Option<LogIndex>,
    durable: LogIndex,
    dirty: Vec<Arc<dyn File>>,
    flushes: VecDeque<Flush>,
    failed: bool,
    /// A new file for a segment with faulty frames.
    mending: Option<mend::Mending>,
    /// What was named as missing last: a segment's number and slots.
    wanted: Option<(u64, Range<usize>)>,
    /// What nobody gave who was asked, by segments' numbers.
    denied: BTreeMap<u64, BTreeSet<usize>>,
}

/// A frame boundary: the exclusive end of everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Place {
    index: LogIndex,
    offset: Offset,
    /// Term of the frame that ends here.
    term: Term,
}

/// What `open` found, for whoever builds state from the log.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recovered {
    /// Every change of term in the log, oldest first.
    pub term_starts: Vec<TermStart>,
    /// Every mark in the log, oldest first.
    pub marks: Vec<PlacedMark>,
    /// The producers' frames of the last two segments, oldest first.
    pub producers_from: Vec<FrameSummary>,
    /// Bytes behind the log's end that no witness names: a write that a crash cut short.
    pub torn_tail_bytes: u64,
    /// Whole frames found behind the torn place. Their flush was never witnessed: after a power
    /// cut they prove nothing, after the mere death of the process they prove damage.
    pub frames_behind_tear: u64,
    /// Set when frames that were durable are gone: the log ends before them, the files are kept.
    pub damage: Option<Damage>,
    /// Frames that are known by their entries and cannot be read: the log goes on behind them.
    pub faulty: Vec<FaultyRange>,
}

/// The first entry of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermStart {
    /// The term.
    pub term: Term,
    /// Where its first entry begins.
    pub start: LogIndex,
}

/// A mark and where it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedMark {
    /// The exclusive end of the mark's entry.
    pub end: LogIndex,
    /// The term it was written in.
    pub term: Term,
    /// What it says.
    pub mark: Mark,
}

/// What the index knows of a producer's batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSummary {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The exclusive end of its entries.
    pub end: LogIndex,
    /// How many records it has.
    pub records: u32,
    /// The term it was appended in.
    pub term: Term,
    /// Who produced it.
    pub producer: ProducerStamp,
}

/// Durable frames that cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where the log ends now: the damage begins here.
    pub at: LogIndex,
    /// Up to where the log was durable once.
    pub until: LogIndex,
    /// Names the file, the place and what is wrong.
    pub detail: String,
}

/// Where an append ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record, or of the next record if marks only were appended.
    pub base_offset: Offset,
    /// The end of the log after it.
    pub end: LogIndex,
}

/// Frames for replication, marks included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramesRead {
    /// Whole frames, each slice holding one or more.
    pub frames: Vec<Bytes>,
    /// Where they end.
    pub end: LogIndex,
    /// How many bytes they are.
    pub bytes: usize,
}

/// A flush that was handed out and is not over.
struct Flush {
    given: LogIndex,
    /// What it proves: less than `given` once a truncation came between.
    proves: LogIndex,
    done: bool,
}

impl Log {
    /// Opens or makes the log in `dir`; makes the directory, but no file before the first append.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        partition: TopicPartition,
        options: Options,
    ) -> io::Result<(Log, Recovered)> {
        options.check();
        recovery::open(disk, dir, partition, options)
    }

    /// Takes changed options: a smaller size of segments holds at once, a larger one from the next
    /// segment on.
    pub fn reconfigure(&mut self, options: Options) {
        options.check();
        self.options = options;
    }
}

#[cfg(feature = "sim")]
impl Log {
    /// The files of frames, and between which indexes they hold them, for the simulator to spoil.
    pub fn files(&self) -> Vec<(PathBuf, std::ops::Range<LogIndex>)> {
        let pieces = self.shared.pieces.load();
        let bases = pieces.iter().map(|piece| piece.base().index);
        let ends = bases.clone().skip(1).chain([self.end.index]);
        let files = pieces.iter().map(|piece| piece.segment.stem.log());
        files.zip(bases.zip(ends).map(|(base, end)| base..end)).collect()
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.dir)
            .field("start", &self.start)
            .field("end", &self.end)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

/// Whether a directory with these names in it holds a log: a segment, or a start that voids them all.
pub fn lies_in(dir: &Path, names: &[String]) -> bool {
    names.iter().any(|name| name == start::START || segment::Stem::parse(dir, name).is_some())
}

/// Deletes a partition's directory, for good: only for a committed record that names it.
pub fn remove(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.remove_dir(dir)?;
    match dir.parent() {
        Some(parent) => absent_is_fine(disk.flush_dir(parent)),
        None => Ok(()),
    }
}

/// The largest segment that can be asked for: a frame of the largest size still fits behind it.
pub const SEGMENT_BYTES_MAX: u64 = (4 << 30) - (32 << 20);
