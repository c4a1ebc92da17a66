//! A group in the words of the protocol.

use highwater_protocol::error::WireError;
use highwater_protocol::native::groups::{
    DescribeGroupRequest, GroupDescription, GroupId, MemberDescription, MemberId,
};

use super::coordinator::{Coordinator, Moment};
use super::image::Member;

impl Coordinator {
    pub(super) fn describe(
        &self,
        at: Moment<'_>,
        request: &DescribeGroupRequest,
    ) -> Result<GroupDescription, WireError> {
        let id = &request.group;
        let group = self.known(id)?;
        Ok(GroupDescription {
            state: group.state(),
            epoch: group.epoch,
            assignor: group.assignor,
            empty_since: group.empty_since,
            members: group
                .members
                .iter()
                .map(|(member, known)| self.describe_member(at, id, *member, known))
                .collect(),
        })
    }

    fn describe_member(
        &self,
        at: Moment<'_>,
        id: &GroupId,
        member: MemberId,
        known: &Member,
    ) -> MemberDescription {
        let heard_at = self.sessions.get(id, member).map_or(at.now, |session| session.heard_at);
        let profile = &known.profile;
        MemberDescription {
            member,
            client_id: profile.client_id.clone(),
            instance: profile.instance.clone(),
            rack: profile.rack.clone(),
            topics: profile.topics.clone(),
            epoch: known.current.epoch,
            heard_ms: at.now.0.saturating_sub(heard_at.0),
            assigned: known.current.assigned.iter().copied().collect(),
            revoking: known.current.revoking.iter().copied().collect(),
            target: known.target.iter().copied().collect(),
        }
    }
}
