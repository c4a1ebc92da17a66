//! Messages of other replicas. An append is parsed and checked as a whole before Raft hears of it:
//! offsets and terms must run on, and what will be stored must pass its checksum.
//!
//! What does not pass is dropped without an answer, as if the network had lost it: the leader asks
//! again, and a good copy may come. So is what the disk has no room for, before Raft hears of it: Raft
//! takes what it was told for stored, and a full disk is no reason to give up a replica.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use highwater_protocol::batch::{
    FrameHeader, FrameKind, LogStart, Mark, VoterSet, frames, stamp_append_time,
};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{LogIndex, NodeId, Timestamp};
use highwater_protocol::peer::{AppendRequest, RaftMessage, VoteRequest};

use crate::log::StartPoint;
use crate::mutant::{self, Mutant};
use crate::raft::{Arrival, FrameSpan, Intake, Millis};

use super::output::Output;
use super::producers::Placed;
use super::recovery::since;
use super::retention::{Starts, report_deleted};
use super::{Failure, Replica};

/// The frames of an append, side by side with what Raft wants to know of them.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    headers: Vec<FrameHeader>,
    spans: Vec<FrameSpan>,
    /// Of each frame: which slice of the message holds it, and where.
    places: Vec<(usize, Range<usize>)>,
    /// Decisions on where the log starts, with the ends of their marks.
    starts: Vec<(LogIndex, LogStart)>,
}

impl Replica {
    /// Another replica said to this life of ours where its log ends.
    pub fn end_reported(&mut self, from: NodeId, request: VoteRequest) {
        self.raft.end_reported(from, request);
    }

    /// A Raft message of another replica; lives were compared by the shard.
    pub fn receive(&mut self, now: Millis, from: NodeId, message: RaftMessage, out: &mut Output) {
        if let Failure::Final(_) = self.failure {
            return;
        }
        self.now = now;
        match message {
            RaftMessage::Vote(request) => self.raft.receive_vote(now, from, request),
            RaftMessage::VoteAnswer(answer) => self.raft.receive_vote_answer(now, from, answer),
            RaftMessage::Append(request) => self.receive_append(now, from, request, out),
            RaftMessage::AppendAnswer(answer) => self.raft.receive_append_answer(now, from, answer),
            RaftMessage::Heartbeat(heartbeat) => self.raft.receive_heartbeat(now, from, heartbeat),
            RaftMessage::HeartbeatAnswer(answer) => {
                self.raft.receive_heartbeat_answer(now, from, answer);
            }
            RaftMessage::TimeoutNow { term } => self.raft.receive_timeout_now(now, from, term),
            RaftMessage::Wanted(wanted) => self.frames_wanted(from, wanted, out),
            RaftMessage::Found(found) => self.frames_found(now, &found, out),
        }
    }

    fn receive_append(
        &mut self,
        now: Millis,
        from: NodeId,
        request: AppendRequest,
        out: &mut Output,
    ) {
        let mut parsed = std::mem::take(&mut self.parsed);
        parsed.clear();
        match self.check_frames(&request, &mut parsed) {
            Ok(_) if !self.has_room(&request, &parsed) => {}
            Ok(voter_sets) => {
                if let Err(error) = self.start_anew_if_behind(now, from, &request, out) {
                    self.parsed = parsed;
                    self.fail(&error, out);
                    return;
                }
                let AppendRequest { term, prev, commit, start: _, entries } = request;
                let arrival = Arrival { term, prev, commit, frames: &parsed.spans, voter_sets };
                match self.raft.receive_append(now, from, arrival) {
                    Intake::Nothing => {}
                    Intake::Store { cut, skip } => {
                        if let Err(error) = self.store(now, &entries, &parsed, cut, skip, out) {
                            self.fail(&error, out);
                        }
                    }
                }
            }
            Err(why) => {
                let partition = self.partition;
                tracing::warn!(%partition, %from, why, "dropped an append");
            }
        }
        self.parsed = parsed;
    }

    /// Whether the disk takes what these frames bring; says so once when it begins or ceases to. What is sent once
    /// more needs no room, nor does what Raft will refuse.
    fn has_room(&mut self, request: &AppendRequest, parsed: &Parsed) -> bool {
        let held = |span: &&FrameSpan| {
            span.end <= self.raft.commit() || self.raft.terms().term_at(span.end) == Some(span.term)
        };
        let held = parsed.spans.iter().take_while(held).count();
        let bytes: usize = parsed.places[held..].iter().map(|(_, place)| place.len()).sum();
        let refused = request.start.is_none() && !self.raft.joins_on(request.prev);
        if bytes == 0 || refused {
            return true;
        }
        let partition = self.partition;
        let at = held.checked_sub(1).map_or(request.prev.index, |last| parsed.spans[last].end);
        let anew = request.start.is_some() && self.raft.must_start_anew(request.term, request.prev);
        let at = if anew { at.max(self.log.end().advance(1)) } else { at };
        let frames = parsed.spans.len() - held;
        match self.log.room_for(at, bytes as u64, frames as u64) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                if !std::mem::replace(&mut self.disk_is_full, true) {
                    tracing::warn!(%partition, %error, "no room for what the leader sends");
                }
                false
            }
            // Any other trouble shows when it is stored.
            Ok(()) | Err(_) => {
                if std::mem::replace(&mut self.disk_is_full, false) {
                    tracing::info!(%partition, "there is room again for what the leader sends");
                }
                true
            }
        }
    }

    /// Where the leader gave up what this log lacks, this log starts where the leader's does.
    fn start_anew_if_behind(
        &mut self,
        now: Millis,
        from: NodeId,
        request: &AppendRequest,
        out: &mut Output,
    ) -> io::Result<()> {
        let AppendRequest { term, prev, start: Some(block), .. } = request else { return Ok(()) };
        if !self.raft.must_start_anew(*term, *prev) {
            return Ok(());
        }
        let point = match StartPoint::parse(block) {
            Ok(point) if point.position() == *prev => point,
            // As if the network had lost it: the leader asks again.
            Ok(_) | Err(_) => return Ok(()),
        };
        let (partition, end) = (self.partition, self.log.end());
        tracing::info!(%partition, %end, start = %prev, "starting anew where the leader's log starts");
        match self.log.start_at(&point) {
            Ok(dropped) => report_deleted(partition, "the leader gave it up", &dropped),
            // A full disk changed nothing.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        }
        self.raft.started_anew(now, from, *term, *prev, point.voters_since(since(self.recovery)));
        self.starts = Starts::default();
        self.refold_producers()?;
        if !mutant::active(Mutant::StartKeepsWaiters) {
            // They may lie before the new start, committed, or have been replaced.
            let detail = format!("{partition} starts anew at another leader's place");
            let open = WireError::new(ErrorCode::RequestTimedOut, detail);
            self.waiters.fail_all(&open, out);
        }
        Ok(())
    }

    /// Fills `parsed`, or says why the message cannot be what a leader sent.
    fn check_frames(
        &self,
        request: &AppendRequest,
        parsed: &mut Parsed,
    ) -> Result<Vec<(LogIndex, VoterSet)>, &'static str> {
        let mut voter_sets = Vec::new();
        // Where they don't join on, Raft refuses them with a hint, wherever the logs part.
        let mut parted = !self.raft.joins_on(request.prev);
        let (mut end, mut term) = (request.prev.index, request.prev.term);
        for (slice, bytes) in request.entries.iter().enumerate() {
            let mut at = 0;
            for framed in frames(bytes) {
                let (header, frame) = framed.map_err(|_| "a frame is malformed")?;
                let start = end;
                end = end.advance(header.entries());
                if header.term < term || header.term > request.term {
                    return Err("terms do not rise towards the leader's");
                }
                if let Some(before) = parsed.headers.last() {
                    let next = before.base_offset.advance(u64::from(before.records()));
                    if header.base_offset != next {
                        return Err("offsets do not run on");
                    }
                }
                term = header.term;
                if self.raft.terms().term_at(end) != Some(term) {
                    header.verify_checksum(frame).map_err(|_| "a frame's checksum is wrong")?;
                    // The frames behind the first new one follow it, whatever lies there now.
                    if !std::mem::replace(&mut parted, true) {
                        self.check_joint(start, &header)?;
                    }
                }
                if header.kind() == FrameKind::Mark {
                    match Mark::parse(frame).map_err(|_| "a mark is malformed")? {
                        Mark::TermStart => {}
                        Mark::Voters(set) if term >= since(self.recovery) => {
                            voter_sets.push((end, set));
                        }
                        // Those of the group that was given up.
                        Mark::Voters(_) => {}
                        Mark::LogStart(decided) => parsed.starts.push((end, decided)),
                    }
                }
                parsed.headers.push(header);
                parsed.spans.push(FrameSpan { term, end });
                parsed.places.push((slice, at..at + frame.len()));
                at += frame.len();
            }
        }
        Ok(voter_sets)
    }

    /// The first frame that the log lacks must fit where it would go, if that lies in the log.
    fn check_joint(&self, start: LogIndex, header: &FrameHeader) -> Result<(), &'static str> {
        if start < self.log.start().0 || start > self.log.end() {
            return Ok(());
        }
        match self.log.boundary_until(start) {
            Err(_) => Err("what it joins on to cannot be opened now"),
            Ok((at, _)) if at != start => Err("a frame begins within one of ours"),
            Ok((_, offset)) if offset != header.base_offset => {
                Err("a frame's offset is not the next one")
            }
            Ok(_) => Ok(()),
        }
    }

    fn store(
        &mut self,
        now: Millis,
        entries: &[Bytes],
        parsed: &Parsed,
        cut: Option<LogIndex>,
        skip: usize,
        out: &mut Output,
    ) -> io::Result<()> {
        if let Some(cut) = cut {
            let (partition, end) = (self.partition, self.log.end());
            tracing::info!(%partition, %cut, %end, "cutting back what the leader never had");
            self.log.truncate(cut)?;
            self.refold_producers()?;
            self.waiters.truncated(cut, out);
            self.starts.truncate(cut);
        }
        let altered;
        let entries = match mutant::active(Mutant::FollowerAltersRecords) {
            false => entries,
            true => {
                altered = entries.iter().map(with_other_times).collect::<Vec<_>>();
                &altered
            }
        };
        let before = self.log.end();
        let appended = match parsed.places.get(skip).filter(|_| skip > 0) {
            None => self.log.append_frames(entries)?,
            Some((slice, place)) => {
                let mut rest = entries[*slice..].to_vec();
                rest[0] = rest[0].slice(place.start..);
                self.log.append_frames(&rest)?
            }
        };
        let expected = parsed.spans.last().map(|span| span.end);
        assert_eq!(Some(appended.end), expected, "the log and Raft count alike");
        for (end, decided) in parsed.starts.iter().filter(|(end, _)| *end > before) {
            self.starts.appended(*end, *decided);
        }
        for (header, span) in parsed.headers.iter().zip(&parsed.spans).skip(skip) {
            if let Some(stamp) = header.producer() {
                let (base_offset, end, term) = (header.base_offset, span.end, span.term);
                let stamped = header.is_log_append_time().then_some(header.max_timestamp);
                let placed = Placed { base_offset, end, term, stamped };
                self.producers.appended(stamp, header.records(), placed);
            }
        }
        self.noted_append(now);
        Ok(())
    }
}

/// For the mutant: the same frames, sound and of the same lengths, but not the same records.
fn with_other_times(entries: &Bytes) -> Bytes {
    let mut altered = Vec::with_capacity(entries.len());
    for (header, frame) in frames(entries).map_while(Result::ok) {
        let at = altered.len();
        altered.extend_from_slice(frame);
        if header.kind() == FrameKind::Data {
            stamp_append_time(&mut altered[at..], Timestamp(1));
        }
    }
    altered.into()
}

impl Parsed {
    fn clear(&mut self) {
        self.headers.clear();
        self.spans.clear();
        self.places.clear();
        self.starts.clear();
    }
}
