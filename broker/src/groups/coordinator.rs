//! The coordinator of some groups, for one term: requests in, records and answers out.
//!
//! `decide` may be called many times; what was decided lies in `decided` and is either all `committed` or
//! all `dropped`. An answer may go out once what it rests on is committed. Nothing here waits.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Term, Timestamp};
use highwater_protocol::native::groups::{
    CommitOffsetsRequest, CommitOffsetsResponse, DeleteGroupRequest, DeleteGroupResponse,
    DeleteOffsetsRequest, DeleteOffsetsResponse, DescribeGroupRequest, FetchOffsetsRequest,
    FetchOffsetsResponse, GroupDescription, GroupHeartbeatRequest, GroupHeartbeatResponse, GroupId,
    GroupListing, ListGroupsResponse, MemberId,
};

use super::image::{Contradiction, Group, Groups};
use super::ledger::Ledger;
use super::record::{GroupChange, GroupRecord};
use super::sessions::{Sessions, Verdict};
use crate::controller::ClusterImage;
use crate::mutant::{self, Mutant};
use crate::raft::Millis;

/// What may be asked of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRequest {
    /// A member's heartbeat.
    Heartbeat(GroupHeartbeatRequest),
    /// Noting how far a group has come.
    CommitOffsets(CommitOffsetsRequest),
    /// How far it has come.
    FetchOffsets(FetchOffsetsRequest),
    /// Forgetting that.
    DeleteOffsets(DeleteOffsetsRequest),
    /// How it is.
    Describe(DescribeGroupRequest),
    /// Deleting it.
    Delete(DeleteGroupRequest),
    /// What groups there are.
    List,
}

/// What a coordinator answers, in the order of the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupAnswer {
    /// What a member may do.
    Heartbeat(GroupHeartbeatResponse),
    /// What became of each offset.
    CommitOffsets(CommitOffsetsResponse),
    /// The offsets.
    FetchOffsets(FetchOffsetsResponse),
    /// They are forgotten.
    DeleteOffsets(DeleteOffsetsResponse),
    /// The group.
    Describe(GroupDescription),
    /// It is deleted.
    Delete(DeleteGroupResponse),
    /// The groups.
    List(ListGroupsResponse),
}

/// What the world is like when something is decided.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The steady clock.
    pub now: Millis,
    /// The wall clock.
    pub wall: Timestamp,
    /// The cluster: topics and racks.
    pub cluster: &'a ClusterImage,
    /// How long offsets of a group are kept after its last member, or the last commit of somebody who is none.
    pub offsets_kept_ms: u64,
}

/// The coordinator of the groups in one partition, in one term.
#[derive(Debug, Clone)]
pub struct Coordinator {
    pub(super) term: Term,
    pub(super) ledger: Ledger,
    pub(super) sessions: Sessions,
}

impl Coordinator {
    /// A coordinator that begins with the groups of a log whose every record is committed.
    pub fn new(term: Term, groups: Groups, now: Millis) -> Coordinator {
        let sessions = Sessions::new(&groups, now);
        Coordinator { term, ledger: Ledger::new(groups), sessions }
    }

    /// What is committed.
    pub fn groups(&self) -> &Groups {
        self.ledger.groups()
    }

    /// What a request comes to.
    ///
    /// # Errors
    /// Refusals name the group, the reason and the way out; nothing is decided then.
    pub fn decide(
        &mut self,
        at: Moment<'_>,
        request: &GroupRequest,
    ) -> Result<GroupAnswer, WireError> {
        let (count, bytes) = (self.decided().len(), self.ledger.bytes());
        let answer = self.answer(at, request)?;
        let bytes = self.ledger.bytes() - bytes;
        if bytes > DECISION_BYTES_MAX {
            self.ledger.forget_after(count);
            let why = format!(
                "what was asked of the group takes {bytes} bytes of its log at once, and {DECISION_BYTES_MAX} are allowed: ask for less \
                 at a time, or have the group read fewer topics"
            );
            return Err(WireError::new(ErrorCode::BatchTooLarge, why));
        }
        Ok(answer)
    }

    fn answer(&mut self, at: Moment<'_>, request: &GroupRequest) -> Result<GroupAnswer, WireError> {
        Ok(match request {
            GroupRequest::Heartbeat(request) => {
                GroupAnswer::Heartbeat(self.heartbeat(at, request)?)
            }
            GroupRequest::CommitOffsets(request) => {
                GroupAnswer::CommitOffsets(self.commit_offsets(at, request)?)
            }
            GroupRequest::FetchOffsets(request) => {
                GroupAnswer::FetchOffsets(self.fetch_offsets(request)?)
            }
            GroupRequest::DeleteOffsets(request) => {
                GroupAnswer::DeleteOffsets(self.delete_offsets(at, request)?)
            }
            GroupRequest::Describe(request) => GroupAnswer::Describe(self.describe(at, request)?),
            GroupRequest::Delete(request) => GroupAnswer::Delete(self.delete(request)?),
            GroupRequest::List => GroupAnswer::List(self.list()),
        })
    }

    /// What is decided and not committed yet.
    pub fn decided(&self) -> &[GroupRecord] {
        self.ledger.decided()
    }

    /// Whether that is a batch's worth: what comes next has to wait until it is settled.
    pub fn is_full(&self) -> bool {
        self.decided().len() >= BATCH_RECORDS || self.ledger.bytes() >= BATCH_BYTES
    }

    /// All of that is committed.
    ///
    /// # Errors
    /// A record contradicts those before it, which is a bug: this coordinator cannot go on.
    pub fn committed(&mut self) -> Result<(), Contradiction> {
        self.ledger.settle()
    }

    /// All of that is dropped: it surely was not written.
    pub fn dropped(&mut self) {
        self.ledger.forget();
    }

    /// Looks for what time alone has brought: members that went silent, topics that changed, groups and offsets
    /// that nobody needs any more. Only on top of nothing undecided.
    pub fn look_around(&mut self, at: Moment<'_>) {
        assert!(self.decided().is_empty(), "what was decided is settled first");
        let groups: Vec<GroupId> = self.groups().iter().map(|(id, _)| id.clone()).collect();
        for id in &groups {
            // What remains is found by the next look.
            if self.is_full() {
                break;
            }
            let (count, bytes) = (self.decided().len(), self.ledger.bytes());
            self.remove_gone(at, id);
            self.follow_topics(at, id);
            self.expire(at, id);
            // A group that cannot be kept in one piece stays as it is.
            if self.ledger.bytes() - bytes > DECISION_BYTES_MAX {
                self.ledger.forget_after(count);
            }
        }
        let (ledger, sessions) = (&self.ledger, &mut self.sessions);
        sessions.keep(|group, member| {
            ledger.group(group).is_some_and(|group| group.members.contains_key(&member))
        });
    }

    fn remove_gone(&mut self, at: Moment<'_>, id: &GroupId) {
        let Some(group) = self.ledger.group(id) else { return };
        let sessions = &mut self.sessions;
        let gone: Vec<(MemberId, Verdict)> = group
            .members
            .iter()
            .filter_map(|(member, known)| {
                Some((*member, sessions.verdict(id, *member, known, at.now)?))
            })
            .collect();
        for (member, _) in &gone {
            self.ledger.put(id, GroupChange::MemberGone(*member));
        }
        if !gone.is_empty() {
            self.members_left(at, id);
        }
    }

    /// Forgets offsets of topics that are deleted, and groups in which nobody was a member or committed for long.
    fn expire(&mut self, at: Moment<'_>, id: &GroupId) {
        let Some(group) = self.ledger.group(id) else { return };
        let kept_ms = i64::try_from(at.offsets_kept_ms).unwrap_or(i64::MAX);
        let over = |since: Timestamp| at.wall.0.saturating_sub(since.0) >= kept_ms;
        let unused =
            || group.empty_since.is_some_and(over) && group.offsets.values().all(|it| over(it.at));
        if group.members.is_empty() && (group.offsets.is_empty() || unused()) {
            self.ledger.put(id, GroupChange::Gone);
            return;
        }
        let deleted = group.offsets.keys().filter(|at_| at.cluster.is_deleted(at_.topic));
        let deleted: Vec<_> = deleted.copied().take(EXPIRED_AT_ONCE).collect();
        for partition in deleted {
            self.ledger.put(id, GroupChange::OffsetGone(partition));
        }
    }

    /// An error for a member that has heard a newer coordinator than this one.
    pub(super) fn check_newest(&self, id: &GroupId, heard: Option<Term>) -> Result<(), WireError> {
        match heard.filter(|heard| *heard > self.term) {
            Some(heard) if !mutant::active(Mutant::OldCoordinatorAnswers) => {
                let why = format!(
                    "group {id} has a newer coordinator, of term {heard}; this one is of term {}; ask there",
                    self.term
                );
                Err(WireError::new(ErrorCode::NotLeader, why))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// An error where no group may begin.
    pub(super) fn check_room(&self, id: &GroupId) -> Result<(), WireError> {
        if self.ledger.group(id).is_some() || self.groups().len() < GROUPS_MAX {
            return Ok(());
        }
        let why = format!(
            "group {id} cannot begin: its coordinator keeps {GROUPS_MAX} groups; delete some that are not needed"
        );
        Err(WireError::new(ErrorCode::Conflict, why))
    }

    /// A group that has members or offsets.
    pub(super) fn known(&self, id: &GroupId) -> Result<&Group, WireError> {
        self.ledger.group(id).ok_or_else(|| {
            let why = format!("group {id} has neither members nor committed offsets");
            WireError::new(ErrorCode::GroupNotFound, why)
        })
    }

    fn delete(&mut self, request: &DeleteGroupRequest) -> Result<DeleteGroupResponse, WireError> {
        let group = self.known(&request.group)?;
        refuse_members(&request.group, group, "be deleted")?;
        let offsets = group.offsets.len() as u32;
        self.ledger.put(&request.group, GroupChange::Gone);
        Ok(DeleteGroupResponse { offsets })
    }

    fn list(&self) -> ListGroupsResponse {
        let listing = |(id, group): (&GroupId, &Group)| GroupListing {
            group: id.clone(),
            state: group.state(),
            members: group.members.len() as u32,
            offsets: group.offsets.len() as u32,
        };
        ListGroupsResponse { groups: self.groups().iter().map(listing).collect() }
    }
}

/// An error if a group has members.
pub(super) fn refuse_members(id: &GroupId, group: &Group, what: &str) -> Result<(), WireError> {
    match group.members.len() {
        0 => Ok(()),
        members => {
            let why = format!(
                "group {id} cannot {what} while it has {members} members; stop them first, and wait until the sessions \
                 of those that were killed have ended"
            );
            Err(WireError::new(ErrorCode::GroupNotEmpty, why))
        }
    }
}

/// Records after which a batch is closed; what one request decides may go beyond.
pub(crate) const BATCH_RECORDS: usize = 2_000;
/// Bytes after which it is closed.
pub(crate) const BATCH_BYTES: usize = 512 * 1024;
/// What one request, or one group at one look, may decide; with a batch that is just not closed it fits a frame.
const DECISION_BYTES_MAX: usize = 8 << 20;
/// What one coordinator keeps at most.
const GROUPS_MAX: usize = 10_000;
/// What remains is found by the next look.
const EXPIRED_AT_ONCE: usize = 1_000;
