//! What is given up: decided by the leader, appended as a mark, carried out by every replica once
//! the mark is committed.
//!
//! So the start of a log is a function of its committed entries, like everything else in it: it
//! survives the leader that decided it, it never goes back, and nothing that is not committed is ever
//! given up, for what a decision names lies before it. A segment's file is removed only for such a
//! decision, which the log of the broker then names with its reason. The leader decides in whole
//! segments of its own; a follower's may have other bounds, and it keeps the one that the start
//! lies in until a later decision.

use std::collections::VecDeque;
use std::io;

use highwater_protocol::batch::{LogStart, Mark, TrimReason};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{LogIndex, Offset, Timestamp, TopicPartition};

use super::event::{AdminReply, RequestId};
use super::output::Output;
use super::{Failure, Replica};
use crate::log::{Dropped, Log, PlacedMark, SegmentFacts};
use crate::mutant::{self, Mutant};
use crate::raft::Millis;

/// How far `retention.ms` may go: the wall clock is not always to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByAge {
    /// Whatever is too old is given up.
    All,
    /// The clock jumped: no more than a tenth of a partition.
    ATenth,
    /// A tenth was given up a short while ago.
    Nothing,
}

/// Decisions in the log that are not carried out yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Starts {
    decided: VecDeque<(LogIndex, LogStart)>,
    /// When those that were committed up to here are to be carried out.
    due: Option<(Millis, LogIndex)>,
    /// The number of the segment at which the size was last looked at.
    sized_at: u64,
}

impl Starts {
    /// Those that a log brings from an earlier life.
    pub(super) fn recovered(log: &Log, marks: &[PlacedMark]) -> Starts {
        let (start, _) = log.start();
        let decided = marks.iter().filter_map(|placed| match &placed.mark {
            Mark::LogStart(decided) if decided.index > start => Some((placed.end, *decided)),
            Mark::LogStart(_) | Mark::TermStart | Mark::Voters(_) => None,
        });
        Starts { decided: decided.collect(), ..Starts::default() }
    }

    /// A decision was appended; its mark ends at `end`.
    pub(super) fn appended(&mut self, end: LogIndex, decided: LogStart) {
        self.decided.push_back((end, decided));
    }

    /// The log was cut.
    pub(super) fn truncate(&mut self, to: LogIndex) {
        self.decided.retain(|(end, _)| *end <= to);
    }

    /// When there is something to carry out.
    pub(super) fn due(&self) -> Option<Millis> {
        self.due.map(|(due, _)| due)
    }

    fn committed(&self, commit: LogIndex) -> Option<LogStart> {
        let committed = self.decided.iter().take_while(|(end, _)| *end <= commit);
        committed.map(|(_, decided)| *decided).max_by_key(|decided| decided.index)
    }
}

impl Replica {
    /// Time to look: ends a segment that is old enough, and as the leader decides what is given up.
    pub fn retain(&mut self, now: Millis, wall: Timestamp, by_age: ByAge, out: &mut Output) {
        self.now = now;
        if let Failure::Final(_) = self.failure {
            return;
        }
        if let Err(error) = self.end_old_segment(wall) {
            self.fail(&error, out);
            return;
        }
        let Some((segments, bytes)) = self.may_give_up() else { return };
        let by_size = self.beyond_size(&segments, bytes);
        let by_age = self.beyond_age(&segments, bytes, wall, by_age);
        let (count, reason) = match by_size >= by_age {
            true => (by_size, TrimReason::Size),
            false => (by_age, TrimReason::Age),
        };
        self.decide(now, &segments[..count], reason, out);
    }

    /// As the leader, gives up what is beyond `retention.bytes` whenever a segment became full.
    pub(super) fn keep_within_size(&mut self, now: Millis, out: &mut Output) {
        let made = self.log.segments_made();
        if self.options.retention.bytes.is_none() || self.starts.sized_at == made {
            return;
        }
        let Some((segments, bytes)) = self.may_give_up() else { return };
        self.starts.sized_at = made;
        let count = self.beyond_size(&segments, bytes);
        self.decide(now, &segments[..count], TrimReason::Size, out);
    }

    /// Carries out what was found decided and committed when an earlier pass ended: readers and
    /// whoever waits for an acknowledgement come first.
    pub(super) fn give_up_decided(&mut self, now: Millis, out: &mut Output) {
        let Some((_, commit)) = self.starts.due.filter(|(due, _)| now >= *due) else { return };
        let Some(decided) = self.starts.committed(commit) else { return };
        if self.shortage.producers_due() || !self.is_published(decided.offset) {
            // The start has to say what producers sent, and readers see first what was committed before it.
            self.starts.due = Some((Millis(now.0 + FULL_RETRY_MS), commit));
            return;
        }
        match self.give_up(decided) {
            Ok(()) => self.starts.decided.retain(|(end, _)| *end > commit),
            // A full disk changed nothing.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(partition = %self.partition, %error, "no room to note the log's start");
                self.starts.due = Some((Millis(now.0 + FULL_RETRY_MS), commit));
            }
            Err(error) => self.fail(&error, out),
        }
    }

    /// Has another pass carry out what is committed now.
    pub(super) fn plan_giving_up(&mut self, now: Millis) {
        let commit = self.committed_for_trims();
        self.starts.due = match (self.starts.committed(commit), self.starts.due) {
            (None, _) => None,
            (Some(_), None) => Some((now, commit)),
            (Some(_), Some((due, _))) => Some((due.max(now), commit)),
        };
    }

    fn committed_for_trims(&self) -> LogIndex {
        match mutant::active(Mutant::TrimAtAppend) {
            true => self.log.end(),
            false => self.raft.commit(),
        }
    }

    /// Somebody wants everything before an offset given up.
    pub(super) fn start_trim(
        &mut self,
        now: Millis,
        id: RequestId,
        before: Offset,
        out: &mut Output,
    ) {
        match self.decide_before(now, before) {
            Ok(None) => {
                let start = self.log.reader().log_start();
                out.answered.push((id, Ok(AdminReply::Trimmed(start))));
            }
            Ok(Some(start)) => self.wishes.trims.push_back((id, start)),
            Err(refusal) => out.answered.push((id, Err(refusal))),
        }
    }

    fn decide_before(
        &mut self,
        now: Millis,
        before: Offset,
    ) -> Result<Option<LogIndex>, WireError> {
        let partition = self.partition;
        if !self.raft.is_leader() {
            return Err(self.not_leader());
        }
        if !self.raft.leads_committed() {
            let detail = format!("the leader of {partition} does not know what is committed yet");
            return Err(WireError::new(ErrorCode::OffsetNotAvailable, detail));
        }
        if self.wishes.trims.len() >= TRIMS_MAX {
            let detail = format!("{TRIMS_MAX} trims of {partition} wait to be committed");
            return Err(WireError::new(ErrorCode::Overloaded, detail));
        }
        let reader = self.log.reader();
        let (start, end) = (reader.log_start(), reader.high_watermark());
        if before > end {
            let detail =
                format!("{partition} holds offsets {start} to {end} (exclusive), not {before}");
            return Err(WireError::new(ErrorCode::OffsetOutOfRange, detail));
        }
        let appended = self.batch_before(before).and_then(|place| {
            let Some((index, offset)) = place else { return Ok(None) };
            self.append_decision(now, LogStart { index, offset, reason: TrimReason::Asked })?;
            Ok(Some(index))
        });
        appended.map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::StorageFull => ErrorCode::DiskFull,
                _ => ErrorCode::StorageFailed,
            };
            WireError::new(code, format!("{partition}: {error}"))
        })
    }

    /// The begin of the batch that holds an offset, if the log starts before it. Marks that stand
    /// at the high watermark may not be committed: they are not given up.
    fn batch_before(&self, offset: Offset) -> io::Result<Option<(LogIndex, Offset)>> {
        let place = self.log.batch_start(offset)?;
        let commit = self.raft.commit();
        let Some((_, offset)) = place.filter(|(index, _)| *index > commit) else {
            return Ok(place);
        };
        Ok(Some((self.log.boundary_until(commit)?.0, offset)))
    }

    /// The committed full segments and the bytes of the log, if this replica may decide now.
    fn may_give_up(&self) -> Option<(Vec<SegmentFacts>, u64)> {
        let may = self.raft.leads_committed() && self.raft.transferring_to().is_none();
        if !may || !self.starts.decided.is_empty() {
            return None;
        }
        let commit = self.raft.commit();
        let mut segments = self.log.full_segments();
        segments.retain(|segment| segment.end <= commit);
        Some((segments, self.log.bytes()))
    }

    /// How many of the oldest segments `retention.bytes` gives up: what is left is at least as large.
    fn beyond_size(&self, segments: &[SegmentFacts], bytes: u64) -> usize {
        let Some(kept) = self.options.retention.bytes else { return 0 };
        let mut left = bytes;
        let mut count = 0;
        for segment in segments {
            left = left.saturating_sub(segment.bytes);
            if left < kept {
                break;
            }
            count += 1;
        }
        count
    }

    /// How many of the oldest segments `retention.ms` gives up.
    fn beyond_age(
        &self,
        segments: &[SegmentFacts],
        bytes: u64,
        wall: Timestamp,
        by_age: ByAge,
    ) -> usize {
        let Some(ms) = self.options.retention.ms else { return 0 };
        let mut allowed = match by_age {
            ByAge::All => u64::MAX,
            ByAge::ATenth => bytes / 10,
            ByAge::Nothing => return 0,
        };
        let old =
            |segment: &&SegmentFacts| segment.newest.is_none_or(|newest| age(newest, wall) > ms);
        let mut count = 0;
        for segment in segments.iter().take_while(old) {
            if segment.bytes > allowed {
                let (partition, allowed) = (self.partition, bytes / 10);
                tracing::warn!(%partition, allowed, "the clock jumped: older segments are kept for now");
                break;
            }
            allowed -= segment.bytes;
            count += 1;
        }
        count
    }

    fn decide(&mut self, now: Millis, gone: &[SegmentFacts], reason: TrimReason, out: &mut Output) {
        let Some(last) = gone.last() else { return };
        // Segments that hold nothing but marks wait for one with records: a decision is a mark, too.
        if last.end_offset <= self.log.start().1 {
            return;
        }
        let decided = LogStart { index: last.end, offset: last.end_offset, reason };
        match self.append_decision(now, decided) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                tracing::warn!(partition = %self.partition, %error, "no room to decide what is given up");
            }
            Err(error) => self.fail(&error, out),
        }
    }

    fn append_decision(&mut self, now: Millis, decided: LogStart) -> io::Result<()> {
        let appended = self.log.append_mark(self.raft.term(), &Mark::LogStart(decided))?;
        self.noted_append(now);
        self.starts.appended(appended.end, decided);
        self.raft.appended(now, appended.end);
        Ok(())
    }

    fn give_up(&mut self, decided: LogStart) -> io::Result<()> {
        let LogStart { index, offset, reason } = decided;
        let partition = self.partition;
        let dropped = self.log.trim_to(index, self.producers.before(index))?;
        let (start, _) = self.log.start();
        self.raft.trimmed(start);
        let reason = match reason {
            TrimReason::Asked => "asked for",
            TrimReason::Age => "retention.ms",
            TrimReason::Size => "retention.bytes",
        };
        let segments = dropped.len();
        tracing::info!(%partition, start = %offset, reason, segments, "the log starts later");
        report_deleted(partition, reason, &dropped);
        Ok(())
    }

    fn end_old_segment(&mut self, wall: Timestamp) -> io::Result<()> {
        let Some((oldest, newest)) = self.log.active_times() else { return Ok(()) };
        let retention = self.options.retention;
        let too_old = retention.ms.is_some_and(|ms| age(newest, wall) > ms);
        match age(oldest, wall) > retention.segment_ms || too_old {
            true => self.log.end_segment(),
            false => Ok(()),
        }
    }
}

/// No file goes unnamed.
pub(super) fn report_deleted(partition: TopicPartition, reason: &str, dropped: &[Dropped]) {
    for Dropped { segment, base_offset, end_offset, bytes } in dropped {
        tracing::info!(
            %partition, segment, reason, from = %base_offset, to = %end_offset, bytes,
            "deleted a segment"
        );
    }
}

/// How old a record is. One from the future is new, and so is one whose producer gave no time (-1):
/// nobody knows better.
fn age(of: Timestamp, wall: Timestamp) -> u64 {
    match of.0 {
        ..0 => 0,
        known => u64::try_from(wall.0.saturating_sub(known)).unwrap_or(0),
    }
}

/// Trims of one replica that may wait for their commit.
const TRIMS_MAX: usize = 64;
/// How long a full disk is left alone.
const FULL_RETRY_MS: u64 = 1_000;
