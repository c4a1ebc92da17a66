//! What the checker remembers of one replica: its log frame by frame, and what crashes took of it.
//!
//! Two things are told apart that look alike from outside: what a leader's cut took, which is nobody's any
//! more, and what a crash took, on which others go on counting until they hear of the replica again.

use std::collections::{BTreeMap, BTreeSet};

use highwater_protocol::ids::{LogIndex, Term};

use crate::log::Log;
use crate::sim::model::{CommittedLog, Frame};

/// What is remembered of one replica.
#[derive(Debug, Default)]
pub struct Shadow {
    /// Its log.
    pub frames: Vec<Frame>,
    /// What of it is known to be on disk.
    pub flushed: LogIndex,
    /// What it lets others count.
    pub vouched: LogIndex,
    /// What it knew as committed.
    pub commit: LogIndex,
    /// Its term.
    pub term: Term,
    /// The furthest that it ever was.
    pub(super) reached: LogIndex,
    /// The furthest that it ever let others count it.
    pub(super) reached_vouched: LogIndex,
    /// Where it starts: what was before is given up.
    pub(super) log_start: LogIndex,
    /// Where it started when its files were lost: it had all before that once, as others know.
    lost_start: LogIndex,
    /// Set from a crash until the log was read again.
    pub(super) must_survive: Option<LogIndex>,
    /// Whether that crash took something that was not there to be cut.
    losing: bool,
    /// Frames that a crash has taken from it, by end and hash: until it is heard of again, others rightly
    /// count on what it said of them.
    lost: BTreeMap<(LogIndex, u64), Lost>,
    /// Those of them that were committed because it counted them: until it counts them again, it is not to
    /// be trusted.
    owed: BTreeSet<(LogIndex, u64)>,
}

/// How a replica's life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Only what its leader had cut may be gone.
    Whole,
    /// What others count on may be gone as well.
    Losing,
}

/// What a crash took with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost {
    /// It was on disk, and rotted there.
    flushed: bool,
    /// Others may count on it.
    counted: bool,
}

impl Shadow {
    /// Where its log ends.
    pub fn end(&self) -> LogIndex {
        self.frames.last().map_or(self.log_start, |frame| frame.end)
    }

    /// The frame that ends at a boundary.
    pub fn frame_ending_at(&self, end: LogIndex) -> Option<&Frame> {
        let at = self.frames.partition_point(|frame| frame.end < end);
        self.frames.get(at).filter(|frame| frame.end == end)
    }

    /// A gap is there now where a frame was.
    pub(super) fn replace(&mut self, gap: Frame) {
        let at = self.frames.partition_point(|frame| frame.end < gap.end);
        self.frames[at] = gap;
    }

    /// It ended, and comes back with this at least; a second end before that takes nothing back.
    pub(super) fn ended(&mut self, survives: LogIndex, how: Ended) {
        self.losing |= how == Ended::Losing;
        let survives = self.must_survive.map_or(survives, |before| before.min(survives));
        self.must_survive = Some(survives);
        self.commit = LogIndex::ZERO;
    }

    /// Whether it holds a frame now, or held it before a decision gave it up.
    pub(super) fn holds(&self, frame: &Frame) -> bool {
        frame.end <= self.log_start
            || self.frame_ending_at(frame.end).is_some_and(|held| held.hash == frame.hash)
    }

    /// Whether it holds a frame, or held it until a crash took it. What a leader's cut took does not
    /// count, whatever it said before.
    pub(super) fn held(&self, frame: &Frame) -> bool {
        self.holds(frame)
            || frame.end <= self.lost_start
            || self.lost.contains_key(&(frame.end, frame.hash))
    }

    /// Whether it has a frame on disk, or had it there until it rotted.
    pub(super) fn held_on_disk(&self, frame: &Frame) -> bool {
        self.holds(frame) && self.flushed >= frame.end
            || frame.end <= self.lost_start
            || self.lost.get(&(frame.end, frame.hash)).is_some_and(|lost| lost.flushed)
    }

    /// Whether it lets others count a frame, or did so until a crash took it.
    pub(super) fn counts(&self, frame: &Frame) -> bool {
        self.holds(frame) && self.vouched >= frame.end
            || frame.end <= self.lost_start
            || self.lost.get(&(frame.end, frame.hash)).is_some_and(|lost| lost.counted)
    }

    /// It lets others count it up to here; what it said before holds still.
    pub(super) fn vouches(&mut self, until: LogIndex) {
        self.vouched = self.vouched.max(self.flushed).max(until.min(self.end()));
        self.reached_vouched = self.reached_vouched.max(self.vouched);
    }

    /// How much of it is what was committed.
    pub(super) fn agreed(&self, committed: &CommittedLog) -> LogIndex {
        let same = |frame: &&Frame| {
            committed.frame_ending_at(frame.end).is_some_and(|known| known.hash == frame.hash)
        };
        self.frames.iter().rev().find(same).map_or(self.log_start, |frame| frame.end)
    }

    /// Whether its log was given up for its leader's start. Then nothing of it may be compared any
    /// more: it may have been another leader's.
    pub(super) fn starts_anew(&mut self, log: &Log) -> bool {
        let start = log.start().0;
        let same = |held: &Frame| log.term_at(start) == Some(held.term);
        let anew = start > self.log_start && !self.frame_ending_at(start).is_some_and(same);
        if anew {
            self.frames.clear();
            self.log_start = start;
            // What it had flushed behind that was the other leader's as well.
            (self.flushed, self.vouched) = (start, start);
        }
        anew
    }

    /// Lets go of the frames that its log has no more, and says whether there were any.
    pub(super) fn let_go(&mut self, log: &Log, committed: &CommittedLog) -> bool {
        let before = self.frames.len();
        while let Some(last) = self.frames.last() {
            let held = last.end <= log.end() && log.term_at(last.end) == Some(last.term);
            if held || last.end <= log.start().0 {
                break;
            }
            self.let_go_of_last(committed);
        }
        self.losing = false;
        self.vouched = self.vouched.min(self.end());
        self.frames.len() < before
    }

    fn let_go_of_last(&mut self, committed: &CommittedLog) {
        let Some(last) = self.frames.pop() else { return };
        let id = (last.end, last.hash);
        let (flushed, counted) = (last.end <= self.flushed, last.end <= self.vouched);
        let known = committed.frame_ending_at(last.end);
        let committed = known.is_some_and(|known| known.hash == last.hash);
        if self.losing {
            self.lost.insert(id, Lost { flushed, counted });
        }
        if self.losing && committed && counted {
            self.owed.insert(id);
        }
    }

    /// All its files are gone, while it was down.
    pub(super) fn emptied(&mut self, committed: &CommittedLog) {
        self.ended(LogIndex::ZERO, Ended::Losing);
        while !self.frames.is_empty() {
            self.let_go_of_last(committed);
        }
        (self.flushed, self.vouched) = (LogIndex::ZERO, LogIndex::ZERO);
        self.lost_start = self.lost_start.max(self.log_start);
        self.log_start = LogIndex::ZERO;
    }

    /// Takes in what its log has gained. What it has again it may be told to cut: then no crash took it.
    pub(super) fn take_in(&mut self, frames: Vec<Frame>) {
        for frame in &frames {
            self.lost.remove(&(frame.end, frame.hash));
        }
        self.frames.extend(frames);
    }

    /// Up to where it lacks something committed that it once counted, if it does; what was trimmed since, or
    /// given up for a gap, is nobody's any more. It counts what lies before `counted`.
    pub(super) fn owes(
        &mut self,
        log_start: LogIndex,
        counted: LogIndex,
        is_committed: impl Fn(&Frame) -> bool,
    ) -> Option<LogIndex> {
        let mut owed = std::mem::take(&mut self.owed);
        owed.retain(|(end, hash)| {
            let held = self.frame_ending_at(*end);
            let held = held.is_some_and(|held| held.hash == *hash || is_committed(held));
            *end > log_start && (*end > counted || !held)
        });
        self.owed = owed;
        self.owed.first().map(|(end, _)| *end)
    }
}
