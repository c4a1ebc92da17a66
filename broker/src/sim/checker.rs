//! The invariants of `FAULTS.md`, checked on the whole cluster after every pass.
//!
//! The checker keeps a shadow of every replica's log (`shadow`), frame by frame, and the committed history
//! of every partition. A pass costs as much as it changed. What a crash may take away is decided in
//! `endings` and nowhere else: `crashed` is told how a broker died, and what must have survived is demanded here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use highwater_protocol::ids::{LogIndex, NodeId, Term, TopicPartition};
use highwater_protocol::peer::{Ballot, RaftMessage};

use crate::log::Log;
use crate::raft::Counts;
use crate::replica::View;
use crate::sim::accepted::Losses;
use crate::sim::model::{CommittedLog, Frame};
use crate::sim::reading;
use crate::sim::recovery::World;
use crate::sim::shadow::Shadow;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which invariant, in words.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

/// Whether everything that was checked holds.
pub type Checked = Result<(), Broken>;

/// How a broker died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// Its process ended; the page cache lives on.
    Killed,
    /// What was not flushed may be gone.
    PowerLost,
    /// The same, in the middle of a pass.
    AmidPass,
}

/// What is remembered of the whole cluster.
#[derive(Debug, Default)]
pub struct Checker {
    pub(super) committed: BTreeMap<TopicPartition, CommittedLog>,
    pub(super) shadows: BTreeMap<(NodeId, TopicPartition), Shadow>,
    /// What replicas were when moves took them: a leader that stood still may speak of them yet.
    pub(super) taken: BTreeMap<TopicPartition, Vec<(NodeId, Shadow)>>,
    pub(super) leaders: BTreeMap<(TopicPartition, Term), NodeId>,
    pub(super) votes: BTreeMap<(TopicPartition, NodeId, Term), NodeId>,
    pub(super) voters: BTreeMap<TopicPartition, Vec<NodeId>>,
    /// Where committed decisions let logs start.
    pub(super) starts: BTreeSet<(TopicPartition, LogIndex)>,
    /// Which group of a partition is judged, where one was begun anew.
    pub(super) worlds: BTreeMap<TopicPartition, World>,
    /// What nobody can read any more, where that was accepted.
    pub(super) losses: BTreeMap<TopicPartition, Losses>,
    /// How many terms had a leader.
    pub elections: u64,
    /// How often a log was cut.
    pub truncations: u64,
    /// How often a log started later.
    pub trims: u64,
    /// How often a log was given up for its leader's start.
    pub starts_anew: u64,
}

pub(super) fn broken(invariant: &'static str, detail: fmt::Arguments<'_>) -> Checked {
    Err(Broken { invariant, detail: detail.to_string() })
}

impl Checker {
    /// A partition exists from now on.
    pub fn add_partition(&mut self, partition: TopicPartition, voters: Vec<NodeId>) {
        self.committed.insert(partition, CommittedLog::default());
        self.voters.insert(partition, voters);
    }

    /// The committed history of a partition.
    pub fn committed(&self, partition: TopicPartition) -> &CommittedLog {
        self.committed.get(&partition).expect("every partition was added")
    }

    /// What is remembered of a replica.
    pub fn shadow(&self, node: NodeId, partition: TopicPartition) -> Option<&Shadow> {
        self.shadows.get(&(node, partition))
    }

    /// The committed voters of a partition.
    pub fn voters(&self, partition: TopicPartition) -> &[NodeId] {
        self.voters.get(&partition).expect("every partition was added")
    }

    /// The sets of voters that lie in some log and are not committed.
    pub fn voters_to_come(&self, partition: TopicPartition) -> Vec<Vec<NodeId>> {
        let committed = self.committed(partition).end();
        let shadows = self.shadows.iter().filter(|((_, of), _)| *of == partition);
        let logs = shadows.flat_map(|(_, shadow)| {
            let from = shadow.frames.partition_point(|frame| frame.end <= committed);
            &shadow.frames[from..]
        });
        logs.filter_map(|frame| self.voters_named(partition, frame)).collect()
    }

    /// Looks at a replica after a pass of its shard.
    pub fn observe(
        &mut self,
        node: NodeId,
        partition: TopicPartition,
        view: &View,
        log: &Log,
    ) -> Checked {
        if view.epoch != self.epoch(partition) {
            return Ok(());
        }
        self.follow_log(node, partition, log, view)?;
        self.founded(node, partition, view, log.start())?;
        let shadow = self.shadows.get_mut(&(node, partition)).expect("followed just now");
        check_watermarks(shadow, node, partition, view)?;
        let (committed, losses) = (&self.committed[&partition], self.losses.get(&partition));
        let is_committed = |held: &Frame| {
            committed.frame_ending_at(held.end).is_some_and(|known| {
                known.hash == held.hash || losses.is_some_and(|it| it.allow(known, held))
            })
        };
        check_trust(shadow, (node, partition), view, is_committed)?;
        let commits = view.commit != shadow.commit;
        self.check_voters_kept(node, partition, view)?;
        if commits {
            self.check_commit(node, partition, view)?;
        }
        self.check_start(node, partition, view)?;
        if view.leads {
            self.check_leader(node, partition, view)?;
        }
        Ok(())
    }

    /// Looks at a replica amid the pass that closes it: what it has taken in there it may have said.
    pub fn last_seen(
        &mut self,
        node: NodeId,
        partition: TopicPartition,
        view: &View,
        log: &Log,
    ) -> Checked {
        if view.epoch != self.epoch(partition) {
            return Ok(());
        }
        self.follow_log(node, partition, log, view)?;
        let shadow = self.shadows.get_mut(&(node, partition)).expect("followed just now");
        // Its term may be gone again if this pass does not come to its end.
        shadow.flushed = shadow.flushed.max(view.flushed.min(shadow.end()));
        shadow.vouches(view.vouched);
        Ok(())
    }

    /// Brings the shadow up to date with the log.
    fn follow_log(
        &mut self,
        node: NodeId,
        partition: TopicPartition,
        log: &Log,
        view: &View,
    ) -> Checked {
        let shadow = self.shadows.entry((node, partition)).or_default();
        if shadow.starts_anew(log) {
            self.starts_anew += 1;
        }
        let cut = shadow.let_go(log, &self.committed[&partition]);
        let end = shadow.end();
        if let Some(survives) = shadow.must_survive.take() {
            if end < survives {
                return broken(
                    "S2: every flushed record survives",
                    format_args!("{node} kept {partition} up to {end} of {survives} flushed"),
                );
            }
            shadow.flushed = shadow.flushed.min(end);
        } else if cut {
            self.truncations += 1;
            shadow.flushed = shadow.flushed.min(end);
            if end < shadow.commit {
                return broken(
                    "I7: nothing is truncated below the commit point",
                    format_args!("{node} cut {partition} to {end}, committed {}", shadow.commit),
                );
            }
        }
        let known = shadow.frames.len();
        let mut from = shadow.end();
        while from < log.end() {
            let (frames, end) = reading::next_frames(node, partition, log, from)?;
            shadow.take_in(frames);
            if end == from {
                // It rotted before it was ever looked at: when it is mended, it is.
                break;
            }
            from = end;
        }
        shadow.reached = shadow.reached.max(shadow.end());
        match view.leads && shadow.frames.len() > known {
            true => self.check_new_voters(node, partition, view, known),
            false => Ok(()),
        }
    }

    /// S3: a log starts where a committed decision says, and its records before that are given up.
    fn check_start(&mut self, node: NodeId, partition: TopicPartition, view: &View) -> Checked {
        let shadow = self.shadows.get_mut(&(node, partition)).expect("followed before");
        let start = view.log_start;
        if start > LogIndex::ZERO && !self.starts.contains(&(partition, start)) {
            return broken(
                "S3: nothing is given up without a committed decision that names it",
                format_args!("{node}, {partition}: the log starts at {start}"),
            );
        }
        if view.commit < start {
            return broken(
                "I7: nothing is truncated below the commit point",
                format_args!("{node}, {partition}: start {start}, committed {}", view.commit),
            );
        }
        if start > shadow.log_start {
            self.trims += 1;
            shadow.log_start = start;
            shadow.frames.drain(..shadow.frames.partition_point(|frame| frame.end <= start));
        }
        Ok(())
    }

    /// I3, I4, I6, I10: what this replica newly takes for committed.
    fn check_commit(&mut self, node: NodeId, partition: TopicPartition, view: &View) -> Checked {
        let shadow = self.shadows.get_mut(&(node, partition)).expect("followed before");
        let before = std::mem::replace(&mut shadow.commit, view.commit);
        let shadow = &self.shadows[&(node, partition)];
        let committed = self.committed.get_mut(&partition).expect("every partition was added");
        let from = shadow.frames.partition_point(|frame| frame.end <= before);
        let (mut fresh, mut others) = (Vec::new(), Vec::new());
        for frame in shadow.frames[from..].iter().take_while(|frame| frame.end <= view.commit) {
            if frame.start >= committed.end() {
                fresh.push(frame.clone());
                committed.push(frame.clone(), view.term).map_err(|detail| Broken {
                    invariant: "I1: a record is readable exactly once, at its offset",
                    detail: format!("{partition}: {detail}"),
                })?;
                continue;
            }
            let known = committed.frame_ending_at(frame.end);
            if known.is_none_or(|known| known.hash != frame.hash) {
                others.push(frame.clone());
            }
        }
        for frame in others {
            if !self.takes_gap(partition, &frame) {
                let known = self.committed(partition).frame_ending_at(frame.end);
                return broken(
                    "I4: committed prefixes are byte-equal on all replicas",
                    format_args!(
                        "{node}, {partition}: {frame:?} is not what was committed there: {known:?}"
                    ),
                );
            }
        }
        for frame in fresh {
            self.check_counted(node, partition, &frame)?;
            self.check_voters(partition, &frame)?;
            self.starts.extend(frame.log_start().map(|start| (partition, start)));
        }
        Ok(())
    }

    /// I6: a majority counts what is committed, by a set of voters that was in force since: the pass that
    /// commits one change of voters may append the next.
    fn check_counted(&self, seen_at: NodeId, partition: TopicPartition, frame: &Frame) -> Checked {
        let log = &self.shadows[&(seen_at, partition)].frames;
        let since = log.iter().rev().take_while(|later| later.start >= frame.start);
        let named = |frame| self.voters_named(partition, frame);
        let mut sets: Vec<_> = since.filter_map(named).collect();
        sets.push(self.voters(partition).to_vec());
        let counted = |voters: &Vec<NodeId>| {
            let count =
                voters.iter().filter(|voter| self.counts(**voter, partition, frame)).count();
            count * 2 > voters.len()
        };
        if !sets.iter().any(counted) {
            let holders: Vec<_> = self.nodes_that_count(partition, frame);
            return broken(
                "I6: the high watermark is never above what a majority counts",
                format_args!(
                    "{seen_at} takes {frame:?} of {partition} for committed, but of the voters {sets:?} only {holders:?} count it",
                ),
            );
        }
        Ok(())
    }

    fn nodes_that_count(&self, partition: TopicPartition, frame: &Frame) -> Vec<NodeId> {
        let nodes = self.shadows.keys().filter(|(_, of)| *of == partition).map(|(node, _)| *node);
        nodes.filter(|node| self.counts(*node, partition, frame)).collect()
    }

    pub(super) fn counts(&self, node: NodeId, partition: TopicPartition, frame: &Frame) -> bool {
        self.shadow(node, partition).is_some_and(|shadow| shadow.counts(frame))
    }

    /// I10: one voter change at a time.
    fn check_voters(&mut self, partition: TopicPartition, frame: &Frame) -> Checked {
        let Some(next) = self.voters_named(partition, frame) else { return Ok(()) };
        let last = self.voters.get_mut(&partition).expect("every partition was added");
        let only_in =
            |a: &[NodeId], b: &[NodeId]| a.iter().filter(|node| !b.contains(node)).count();
        if only_in(&next, last) + only_in(last, &next) > 1 {
            return broken(
                "I10: one voter change at a time",
                format_args!("{partition}: from {last:?} to {next:?}"),
            );
        }
        *last = next;
        Ok(())
    }

    /// I2 and I3: one leader a term, and it has everything.
    fn check_leader(&mut self, node: NodeId, partition: TopicPartition, view: &View) -> Checked {
        match self.leaders.insert((partition, view.term), node) {
            Some(other) if other == node => return Ok(()),
            Some(other) => {
                return broken(
                    "I2: at most one leader per partition and term",
                    format_args!("{partition}: {other} and {node} both lead term {}", view.term),
                );
            }
            None => self.elections += 1,
        }
        self.note_vote(partition, node, view.term, node)?;
        if view.suspect {
            return broken(
                "I8: a Suspect replica grants no vote and does not stand",
                format_args!("{node} leads {partition} in term {}", view.term),
            );
        }
        let shadow = &self.shadows[&(node, partition)];
        let must_have =
            self.committed[&partition].frames().iter().rev().find(|(_, term)| *term < view.term);
        let Some((frame, term)) = must_have else { return Ok(()) };
        if !shadow.holds(frame) {
            return broken(
                "I3: a leader has all that was committed before its term",
                format_args!(
                    "{node} leads {partition} in term {} without {}..{}, committed in term {term}",
                    view.term, frame.start, frame.end
                ),
            );
        }
        Ok(())
    }

    /// I8 and I9: looks at a message that is about to leave a broker.
    pub fn sent(
        &mut self,
        from: NodeId,
        to: NodeId,
        partition: TopicPartition,
        message: &RaftMessage,
        suspect: bool,
    ) -> Checked {
        match message {
            RaftMessage::VoteAnswer(answer) if answer.granted => {
                if suspect {
                    return broken(
                        "I8: a Suspect replica grants no vote and does not stand",
                        format_args!("{from} votes for {to} in {partition}: {answer:?}"),
                    );
                }
                match answer.ballot {
                    Ballot::Pre => Ok(()),
                    Ballot::Real | Ballot::Transfer => {
                        self.note_vote(partition, from, answer.term, to)
                    }
                }
            }
            RaftMessage::VoteAnswer(_)
            | RaftMessage::Vote(_)
            | RaftMessage::Append(_)
            | RaftMessage::AppendAnswer(_)
            | RaftMessage::Heartbeat(_)
            | RaftMessage::HeartbeatAnswer(_)
            | RaftMessage::TimeoutNow { .. }
            | RaftMessage::Wanted(_)
            | RaftMessage::Found(_) => Ok(()),
        }
    }

    fn note_vote(
        &mut self,
        partition: TopicPartition,
        voter: NodeId,
        term: Term,
        candidate: NodeId,
    ) -> Checked {
        match self.votes.insert((partition, voter, term), candidate) {
            Some(other) if other != candidate => broken(
                "I9: a vote never changes within a term",
                format_args!(
                    "{voter} voted in term {term} of {partition} for {other} and {candidate}"
                ),
            ),
            Some(_) | None => Ok(()),
        }
    }
}

/// I5: what only ever grows.
fn check_watermarks(
    shadow: &mut Shadow,
    node: NodeId,
    partition: TopicPartition,
    view: &View,
) -> Checked {
    let monotone = "I5: high watermark, log start and term are monotone";
    if view.term < shadow.term {
        return broken(
            monotone,
            format_args!("{node} went from term {} to {} in {partition}", shadow.term, view.term),
        );
    }
    if view.commit < shadow.commit || view.log_start < shadow.log_start {
        return broken(
            monotone,
            format_args!(
                "{node}, {partition}: commit {} to {}, start {} to {}",
                shadow.commit, view.commit, shadow.log_start, view.log_start
            ),
        );
    }
    if view.flushed > view.log_end || view.commit > view.log_end {
        return broken(
            "a watermark lies within the log",
            format_args!(
                "{node}, {partition}: flushed {}, commit {}, end {}",
                view.flushed, view.commit, view.log_end
            ),
        );
    }
    shadow.term = view.term;
    // After a restart a replica may not know what of its log is on disk; it is there all the same.
    // Nor is there any promise about what it only knows by its index.
    shadow.flushed = shadow.flushed.max(view.flushed.min(shadow.end()));
    Ok(())
}

/// I8: whoever lost what it once counted is Suspect until it has it again, and counts it. I12: an end
/// that may take what is counted is one that the journal tells of.
fn check_trust(
    shadow: &mut Shadow,
    (node, partition): (NodeId, TopicPartition),
    view: &View,
    is_committed: impl Fn(&Frame) -> bool,
) -> Checked {
    shadow.vouches(view.vouched);
    if view.noted == Counts::Flushed && shadow.vouched > shadow.flushed {
        return broken(
            "I12: who lets others count what is not on disk has noted that",
            format_args!(
                "{node} has {partition} on disk up to {}, and lets others count it up to {}",
                shadow.flushed, shadow.vouched
            ),
        );
    }
    match shadow.owes(view.log_start, shadow.vouched, is_committed) {
        Some(end) if view.trusted => broken(
            "I8: a replica that lost what it counted is not trusted until it has it again",
            format_args!("{node} lacks what it had of {partition} up to {end}"),
        ),
        Some(_) | None => Ok(()),
    }
}
