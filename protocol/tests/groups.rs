//! Every message about consumer groups comes back as it was sent, and no bytes whatever make a decoder panic, loop or
//! allocate more than they justify.

#[macro_use]
mod common;

use std::collections::BTreeSet;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::*;
use highwater_protocol::native::groups::*;
use highwater_protocol::wire::{Reader, Writer};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

fn partition() -> impl Strategy<Value = TopicPartition> {
    (0..3_u128, any::<u32>()).prop_map(|(topic, partition)| {
        TopicPartition::new(TopicId(Uuid::from_u128(topic)), PartitionId(partition))
    })
}

fn partitions() -> impl Strategy<Value = Vec<TopicPartition>> {
    let sorted = |set: BTreeSet<TopicPartition>| set.into_iter().collect();
    btree_set(partition(), 0..6).prop_map(sorted)
}

fn offset() -> impl Strategy<Value = Offset> {
    (0..=i64::MAX as u64).prop_map(Offset)
}

fn group() -> impl Strategy<Value = GroupId> {
    ".{0,20}".prop_map(GroupId)
}

fn member() -> impl Strategy<Value = MemberId> {
    any::<u128>().prop_map(|number| MemberId(Uuid::from_u128(number)))
}

fn assignor() -> impl Strategy<Value = Assignor> {
    prop_oneof![Just(Assignor::Uniform), Just(Assignor::Range)]
}

fn profile() -> impl Strategy<Value = MemberProfile> {
    let names = (".{0,9}", option::of(".{0,9}"), option::of(".{0,9}"), vec(".{0,9}", 0..4));
    (names, assignor(), any::<u32>(), any::<u32>()).prop_map(
        |(names, assignor, session, rebalance)| {
            let (client_id, instance, rack, topics) = names;
            let (session_ms, rebalance_ms) = (session, rebalance);
            MemberProfile { client_id, instance, rack, topics, assignor, session_ms, rebalance_ms }
        },
    )
}

fn step() -> impl Strategy<Value = MemberStep> {
    let epoch = || any::<u32>().prop_map(MemberEpoch);
    prop_oneof![
        profile().prop_map(MemberStep::Join),
        (epoch(), partitions(), option::of(profile()))
            .prop_map(|(epoch, owned, profile)| MemberStep::Stay { epoch, owned, profile }),
        (epoch(), any::<bool>()).prop_map(|(epoch, soon)| {
            MemberStep::Leave { epoch, returns: if soon { Returns::Soon } else { Returns::No } }
        }),
    ]
}

fn committer() -> impl Strategy<Value = Committer> {
    let known = (member(), any::<u32>(), any::<u64>(), any::<u32>());
    prop_oneof![
        Just(Committer::Outsider),
        known.prop_map(|(member, epoch, beat, heard)| Committer::Member {
            member,
            epoch: MemberEpoch(epoch),
            beat: Beat(beat),
            heard: Term(heard),
        }),
    ]
}

fn described() -> impl Strategy<Value = MemberDescription> {
    let owned = (partitions(), partitions(), partitions());
    (member(), profile(), any::<u32>(), any::<u64>(), owned).prop_map(
        |(member, profile, epoch, heard_ms, (assigned, revoking, target))| {
            let MemberProfile { client_id, instance, rack, topics, .. } = profile;
            let epoch = MemberEpoch(epoch);
            MemberDescription {
                member,
                client_id,
                instance,
                rack,
                topics,
                epoch,
                heard_ms,
                assigned,
                revoking,
                target,
            }
        },
    )
}

fn state() -> impl Strategy<Value = GroupState> {
    prop_oneof![Just(GroupState::Empty), Just(GroupState::Reconciling), Just(GroupState::Stable)]
}

proptest! {
    #[test]
    fn heartbeats_come_back(
        group in group(), member in member(), beat: u64, heard: Option<(u32, u64)>, step in step(),
        term: u32, epoch: u32, heartbeat_ms: u32, assigned in partitions()
    ) {
        let heard = heard.map(|(term, beat)| Heard { term: Term(term), beat: Beat(beat) });
        let beat = Beat(beat);
        let request = GroupHeartbeatRequest { group, member, beat, heard, step };
        comes_back!(request, GroupHeartbeatRequest);
        let (term, epoch) = (Term(term), MemberEpoch(epoch));
        let answer = GroupHeartbeatResponse { term, epoch, heartbeat_ms, assigned };
        comes_back!(answer, GroupHeartbeatResponse);
    }

    #[test]
    fn offsets_come_back(
        group in group(), by in committer(), places in vec((partition(), offset()), 0..4),
        note in ".{0,9}", term: Option<u32>, at: i64, refused in vec(any::<bool>(), 0..4),
        wanted in option::of(partitions())
    ) {
        let term = term.map(Term);
        let to_commit = |(partition, offset): &(TopicPartition, Offset)| OffsetToCommit {
            partition: *partition, offset: *offset, term, note: note.clone(),
        };
        let offsets = places.iter().map(to_commit).collect();
        let commit = CommitOffsetsRequest { group: group.clone(), by, offsets };
        comes_back!(commit, CommitOffsetsRequest);
        let result = |refused: &bool| match refused {
            true => Err(WireError::new(ErrorCode::StaleMemberEpoch, "no")),
            false => Ok(()),
        };
        let results = refused.iter().map(result).collect();
        comes_back!(CommitOffsetsResponse { results }, CommitOffsetsResponse);
        let question =
            FetchOffsetsRequest { group: group.clone(), partitions: wanted.clone(), heard: term };
        comes_back!(question, FetchOffsetsRequest);
        let committed = |(partition, offset): &(TopicPartition, Offset)| CommittedOffset {
            partition: *partition, offset: *offset, term, note: note.clone(),
            committed_at: Timestamp(at),
        };
        let offsets = places.iter().map(committed).collect();
        comes_back!(FetchOffsetsResponse { offsets }, FetchOffsetsResponse);
        let partitions = wanted.unwrap_or_default();
        comes_back!(DeleteOffsetsRequest { group, partitions }, DeleteOffsetsRequest);
        comes_back!(DeleteOffsetsResponse { deleted: 3 }, DeleteOffsetsResponse);
    }

    #[test]
    fn looks_at_groups_come_back(
        group in group(), partition in partition(), state in state(), count: u32,
        members in vec(described(), 0..3), empty_since: Option<i64>, assignor in assignor()
    ) {
        comes_back!(FindCoordinatorRequest { group: group.clone() }, FindCoordinatorRequest);
        comes_back!(FindCoordinatorResponse { partition }, FindCoordinatorResponse);
        comes_back!(ListGroupsRequest {}, ListGroupsRequest);
        let listing =
            GroupListing { group: group.clone(), state, members: count, offsets: count };
        comes_back!(ListGroupsResponse { groups: vec![listing] }, ListGroupsResponse);
        comes_back!(DescribeGroupRequest { group: group.clone() }, DescribeGroupRequest);
        let empty_since = empty_since.map(Timestamp);
        let epoch = MemberEpoch(count);
        let description = GroupDescription { state, epoch, assignor, empty_since, members };
        comes_back!(description, GroupDescription);
        comes_back!(DeleteGroupRequest { group }, DeleteGroupRequest);
        comes_back!(DeleteGroupResponse { offsets: count }, DeleteGroupResponse);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = FindCoordinatorRequest::decode(&mut Reader::new(&bytes));
        let _ = FindCoordinatorResponse::decode(&mut Reader::new(&bytes));
        let _ = GroupHeartbeatRequest::decode(&mut Reader::new(&bytes));
        let _ = GroupHeartbeatResponse::decode(&mut Reader::new(&bytes));
        let _ = CommitOffsetsRequest::decode(&mut Reader::new(&bytes));
        let _ = CommitOffsetsResponse::decode(&mut Reader::new(&bytes));
        let _ = FetchOffsetsRequest::decode(&mut Reader::new(&bytes));
        let _ = FetchOffsetsResponse::decode(&mut Reader::new(&bytes));
        let _ = DeleteOffsetsRequest::decode(&mut Reader::new(&bytes));
        let _ = ListGroupsResponse::decode(&mut Reader::new(&bytes));
        let _ = DescribeGroupRequest::decode(&mut Reader::new(&bytes));
        let _ = GroupDescription::decode(&mut Reader::new(&bytes));
        let _ = DeleteGroupRequest::decode(&mut Reader::new(&bytes));
    }
}

#[test]
fn groups_spread_over_the_partitions_and_stay_where_they_are() {
    let mut hit = BTreeSet::new();
    for number in 0..200 {
        hit.insert(coordinator_partition(&GroupId(format!("group-{number}")), 16));
    }
    assert_eq!(hit.len(), 16);
    // Worked out by clients as well, and where a group's offsets lie: it never changes.
    assert_eq!(coordinator_partition(&GroupId("billing".into()), 16), PartitionId(BILLING));
}

const BILLING: u32 = 14;
