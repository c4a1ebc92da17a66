//! How far groups have come: committed by members for what they own, or by anybody while there are none.

use std::collections::BTreeSet;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::groups::{
    CommitOffsetsRequest, CommitOffsetsResponse, CommittedOffset, Committer, DeleteOffsetsRequest,
    DeleteOffsetsResponse, FetchOffsetsRequest, FetchOffsetsResponse, GroupId, MemberId,
    NOTE_BYTES_MAX, OffsetToCommit,
};

use super::coordinator::{Coordinator, Moment, refuse_members};
use super::image::Group;
use super::record::{Committed, GroupChange};
use crate::controller::ClusterImage;
use crate::mutant::{self, Mutant};

impl Coordinator {
    pub(super) fn commit_offsets(
        &mut self,
        at: Moment<'_>,
        request: &CommitOffsetsRequest,
    ) -> Result<CommitOffsetsResponse, WireError> {
        let CommitOffsetsRequest { group: id, by, offsets } = request;
        id.check().map_err(|why| WireError::new(ErrorCode::InvalidGroup, why))?;
        once_each(offsets.iter().map(|it| it.partition))?;
        let member = self.check_committer(at, id, *by)?;
        if self.ledger.group(id).is_none() && !offsets.is_empty() {
            self.check_room(id)?;
            self.ledger.put(id, GroupChange::Emptied(at.wall));
        }
        let results = offsets.iter().map(|offset| self.commit_offset(at, id, member, offset));
        Ok(CommitOffsetsResponse { results: results.collect() })
    }

    /// Which member commits, unless it is none; whether it may at all.
    fn check_committer(
        &mut self,
        at: Moment<'_>,
        id: &GroupId,
        by: Committer,
    ) -> Result<Option<MemberId>, WireError> {
        let (member, epoch, beat, heard) = match by {
            Committer::Member { member, epoch, beat, heard } => (member, epoch, beat, heard),
            Committer::Outsider => {
                let empty = Group::default();
                let group = self.ledger.group(id).unwrap_or(&empty);
                if !mutant::active(Mutant::OutsiderCommits) {
                    refuse_members(id, group, "be given offsets from outside")?;
                }
                return Ok(None);
            }
        };
        let known = self.member(id, member)?.clone();
        let news =
            self.sessions.is_news(id, member, beat) || mutant::active(Mutant::OldCommitCounts);
        let current = &known.current;
        let in_step = epoch == current.epoch || epoch == current.previous;
        let hears_us = heard == self.term || mutant::active(Mutant::OldTermCommits);
        if !(news && in_step && hears_us) {
            let why = format!(
                "a commit of member {member} of group {id} was made in epoch {epoch} and term {heard}, it is in epoch {} and term {} now, or \
                 a newer request of it came first; commit again after the next heartbeat",
                current.epoch, self.term
            );
            return Err(WireError::new(ErrorCode::StaleMemberEpoch, why));
        }
        self.sessions.hear(id, member, &known, (beat, None), at.now);
        Ok(Some(member))
    }

    fn commit_offset(
        &mut self,
        at: Moment<'_>,
        id: &GroupId,
        member: Option<MemberId>,
        asked: &OffsetToCommit,
    ) -> Result<(), WireError> {
        let OffsetToCommit { partition, offset, term, note } = asked;
        check_partition(at.cluster, *partition)?;
        if note.len() > NOTE_BYTES_MAX {
            let bytes = note.len();
            let why = format!("a note of {bytes} bytes is too long: {NOTE_BYTES_MAX} are allowed");
            return Err(WireError::new(ErrorCode::OffsetMetadataTooLarge, why));
        }
        let owner = self.ledger.group(id).and_then(|group| group.owner(*partition));
        if let Some(member) = member
            && owner != Some(member)
            && !mutant::active(Mutant::AnyoneCommits)
        {
            let why = format!("member {member} of group {id} does not own partition {partition}");
            return Err(WireError::new(ErrorCode::StaleMemberEpoch, why));
        }
        if !mutant::active(Mutant::OffsetsWithoutBound) {
            self.check_bounds(id, asked)?;
        }
        let committed = Committed { offset: *offset, term: *term, note: note.clone(), at: at.wall };
        self.ledger.put(id, GroupChange::Offset { partition: *partition, committed });
        Ok(())
    }

    /// All that a group has committed must fit one answer, and the memory of its coordinator. What is there
    /// already, of an older build, may stay and shrink.
    fn check_bounds(&self, id: &GroupId, offset: &OffsetToCommit) -> Result<(), WireError> {
        let empty = Group::default();
        let group = self.ledger.group(id).unwrap_or(&empty);
        let known = group.offsets.get(&offset.partition);
        if known.is_none() && group.offsets.len() >= OFFSETS_MAX {
            let why = format!(
                "group {id} has committed for {OFFSETS_MAX} partitions, and no group may for more: let several groups share the topics"
            );
            return Err(WireError::new(ErrorCode::Conflict, why));
        }
        let before = known.map_or(0, |known| known.note.len());
        let bytes = group.note_bytes() - before + offset.note.len();
        if offset.note.len() > before && bytes > NOTES_BYTES_MAX {
            let why = format!(
                "the notes beside the offsets of group {id} would take {bytes} bytes together, and {NOTES_BYTES_MAX} are allowed: \
                 commit shorter notes"
            );
            return Err(WireError::new(ErrorCode::OffsetMetadataTooLarge, why));
        }
        Ok(())
    }

    pub(super) fn fetch_offsets(
        &self,
        request: &FetchOffsetsRequest,
    ) -> Result<FetchOffsetsResponse, WireError> {
        self.check_newest(&request.group, request.heard)?;
        if let Some(wanted) = &request.partitions {
            if wanted.len() > WANTED_MAX {
                let count = wanted.len();
                let why = format!(
                    "offsets of {count} partitions are too many at once: ask for {WANTED_MAX}, or for all of the group"
                );
                return Err(WireError::new(ErrorCode::InvalidRequest, why));
            }
            once_each(wanted.iter().copied())?;
        }
        let Some(group) = self.ledger.group(&request.group) else {
            return Ok(FetchOffsetsResponse { offsets: Vec::new() });
        };
        let told = |(partition, committed): (&TopicPartition, &Committed)| CommittedOffset {
            partition: *partition,
            offset: committed.offset,
            term: committed.term,
            note: committed.note.clone(),
            committed_at: committed.at,
        };
        let offsets = match &request.partitions {
            None => group.offsets.iter().map(told).collect(),
            Some(wanted) => {
                wanted.iter().filter_map(|at| group.offsets.get_key_value(at)).map(told).collect()
            }
        };
        Ok(FetchOffsetsResponse { offsets })
    }

    pub(super) fn delete_offsets(
        &mut self,
        at: Moment<'_>,
        request: &DeleteOffsetsRequest,
    ) -> Result<DeleteOffsetsResponse, WireError> {
        let DeleteOffsetsRequest { group: id, partitions } = request;
        let group = self.known(id)?;
        for partition in partitions {
            let Some(topic) = at.cluster.topic(partition.topic) else { continue };
            if group.topics.contains_key(&*topic.name) && !group.members.is_empty() {
                let why = format!(
                    "members of group {id} read topic {}: what it has committed there cannot be forgotten now; stop them first",
                    topic.name
                );
                return Err(WireError::new(ErrorCode::GroupNotEmpty, why));
            }
        }
        let known: Vec<TopicPartition> =
            partitions.iter().filter(|at| group.offsets.contains_key(at)).copied().collect();
        for partition in &known {
            self.ledger.put(id, GroupChange::OffsetGone(*partition));
        }
        Ok(DeleteOffsetsResponse { deleted: known.len() as u32 })
    }
}

/// An error where a partition is named twice.
fn once_each(partitions: impl Iterator<Item = TopicPartition>) -> Result<(), WireError> {
    let mut seen = BTreeSet::new();
    for partition in partitions {
        if !seen.insert(partition) {
            let why = format!("partition {partition} is named twice; name it once");
            return Err(WireError::new(ErrorCode::InvalidRequest, why));
        }
    }
    Ok(())
}

fn check_partition(cluster: &ClusterImage, partition: TopicPartition) -> Result<(), WireError> {
    let topic = cluster.topic(partition.topic);
    match topic {
        Some(topic) if (partition.partition.0 as usize) < topic.partitions.len() => Ok(()),
        Some(_) | None => {
            let why = format!("no topic has partition {partition}");
            Err(WireError::new(ErrorCode::UnknownTopicOrPartition, why))
        }
    }
}

/// As many partitions as one may ask for by name.
const WANTED_MAX: usize = OFFSETS_MAX;
/// As many partitions a group commits for: with their notes they fit the 16 MiB of an answer, at 50 bytes each.
pub(super) const OFFSETS_MAX: usize = 100_000;
/// What the notes of a group take together: 2,048 of the longest, or 80 bytes for each of so many partitions.
pub(super) const NOTES_BYTES_MAX: usize = 8 << 20;
