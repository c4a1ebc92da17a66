//! The rules of groups, step by step; the simulator attacks them with everything at once.

mod rig;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::ids::{Offset, Term, TopicPartition};
use highwater_protocol::native::groups::*;
use uuid::Uuid;

use super::offsets::{NOTES_BYTES_MAX, OFFSETS_MAX};
use super::record::GroupRecord;
use super::{GroupAnswer, GroupRequest, Groups};
use crate::controller::MetadataRecord;
use rig::*;

#[test]
fn the_first_member_gets_everything_and_a_second_one_half_after_the_first_gave_it_up() {
    let mut rig = Rig::new(&[6]);
    let mut one = Reader::new(1, &["t1"]);
    rig.beat(&mut one).expect("it joins");
    assert_eq!(one.owned.len(), 6);
    let mut two = Reader::new(2, &["t1"]);
    rig.beat(&mut two).expect("it joins");
    assert!(two.owned.is_empty(), "the first one owns all");
    let before = one.owned.clone();
    rig.beat(&mut one).expect("it stays");
    assert_eq!(one.owned.len(), 3, "it is told to give half of it up");
    assert!(one.owned.iter().all(|partition| before.contains(partition)), "and keeps the rest");
    rig.beat(&mut two).expect("it stays");
    assert!(two.owned.is_empty(), "the first one has not said that it has");
    rig.beat(&mut one).expect("it stays");
    rig.beat(&mut two).expect("it stays");
    assert_eq!(two.owned.len(), 3);
    assert_eq!(rig.describe().expect("it is there").state, GroupState::Stable);
}

/// A member must give two partitions up when another coordinator takes over, and that one gets a request of the
/// member that was held up since before it owned anything; gives the rig, the member, and that request.
fn held_up_over_a_failover() -> (Rig, Reader, GroupHeartbeatRequest) {
    let mut rig = Rig::new(&[4]);
    let mut readers = [Reader::new(1, &["t1"])];
    rig.come_to_rest(&mut readers);
    let [mut one] = readers;
    rig.beat(&mut Reader::new(2, &["t1"])).expect("it joins");
    rig.beat(&mut one).expect("it stays, and is told to give up");
    rig.fail_over();
    let held_up = GroupHeartbeatRequest {
        group: group(),
        member: one.id,
        beat: Beat(one.beat + 5),
        heard: Some(Heard { term: Term(1), beat: Beat(1) }),
        step: MemberStep::Stay { epoch: one.epoch, owned: Vec::new(), profile: None },
    };
    (rig, one, held_up)
}

#[test]
fn what_a_member_says_counts_only_after_it_has_heard_this_coordinator_and_only_its_newest() {
    let (mut rig, mut one, old) = held_up_over_a_failover();
    rig.ask(GroupRequest::Heartbeat(old.clone())).expect("it is answered");
    assert_eq!(rig.revoking(), 2, "its word is not taken for it");
    let copy = GroupHeartbeatRequest {
        heard: Some(Heard { term: Term(2), beat: Beat(1) }),
        ..old.clone()
    };
    let copied = rig.ask(GroupRequest::Heartbeat(copy));
    assert_eq!(copied, Err(ErrorCode::StaleMemberEpoch), "a copy of it neither");
    one.beat += 5;
    rig.beat(&mut one).expect("it hears the new coordinator");
    rig.beat(&mut one).expect("and says that it gave it up");
    assert_eq!(rig.revoking(), 0);
    let newer = GroupHeartbeatRequest {
        beat: Beat(one.beat + 1),
        heard: Some(Heard { term: Term(3), beat: Beat(1) }),
        ..old
    };
    let refused = rig.ask(GroupRequest::Heartbeat(newer));
    assert_eq!(refused, Err(ErrorCode::NotLeader), "it has heard a newer coordinator");
}

#[test]
fn a_join_that_was_held_up_over_a_failover_takes_nothing_away() {
    let mut rig = Rig::new(&[4]);
    let mut readers = [Reader::new(1, &["t1"])];
    rig.come_to_rest(&mut readers);
    let [mut one] = readers;
    rig.fail_over();
    let (member, step) = (one.id, MemberStep::Join(one.profile.clone()));
    let copy = GroupHeartbeatRequest { group: group(), member, beat: Beat(1), heard: None, step };
    let refused = rig.ask(GroupRequest::Heartbeat(copy));
    assert_eq!(refused, Err(ErrorCode::StaleMemberEpoch));
    rig.beat(&mut one).expect("it stays");
    assert_eq!(one.owned.len(), 4);
}

#[test]
fn a_silent_member_is_taken_for_gone_after_its_session_and_fenced_from_then_on() {
    let mut rig = Rig::new(&[4]);
    let mut readers = [Reader::new(1, &["t1"]), Reader::new(2, &["t1"])];
    rig.come_to_rest(&mut readers);
    let [mut one, mut two] = readers;
    for _ in 0..3 {
        rig.pass(SILENCE_MS / 2);
        rig.beat(&mut one).expect("it stays");
    }
    assert_eq!(one.owned.len(), 4, "it has what the other one had");
    assert_eq!(rig.beat(&mut two), Err(ErrorCode::UnknownMember));
    assert_eq!(rig.commit(&mut two, at(1, 0), 5), Err(ErrorCode::UnknownMember));
    (two.epoch, two.owned) = (MemberEpoch(0), Vec::new());
    rig.come_to_rest(&mut [one, two]);
    assert_eq!(rig.describe().expect("it is there").state, GroupState::Stable);
}

#[test]
fn a_new_coordinator_gives_everybody_a_session_and_the_time_of_the_old_one() {
    let mut rig = Rig::new(&[4]);
    let mut readers = [Reader::new(1, &["t1"])];
    rig.come_to_rest(&mut readers);
    rig.pass(SILENCE_MS - 1);
    rig.fail_over();
    rig.pass(SILENCE_MS + 4_999);
    assert_eq!(rig.describe().expect("it is there").members.len(), 1);
    rig.pass(1);
    assert_eq!(rig.describe(), Err(ErrorCode::GroupNotFound), "nothing is left of it");
}

#[test]
fn a_member_that_keeps_what_it_was_told_to_give_up_is_taken_for_gone() {
    let mut rig = Rig::new(&[2]);
    let mut readers = [Reader::new(1, &["t1"])];
    rig.come_to_rest(&mut readers);
    let [mut slow] = readers;
    let mut other = Reader::new(2, &["t1"]);
    let kept = slow.owned.clone();
    for second in 0..25 {
        if rig.beat(&mut other).is_err() || rig.beat(&mut slow).is_err() {
            assert!(second >= 20, "it has its time");
            break;
        }
        slow.owned.clone_from(&kept);
        rig.pass(1_000);
    }
    rig.beat(&mut other).expect("it stays");
    assert_eq!(other.owned, kept);
}

#[test]
fn who_may_not_know_that_it_must_give_up_stays_a_member() {
    let mut rig = Rig::new(&[2]);
    let mut readers = [Reader::new(1, &["t1"])];
    rig.come_to_rest(&mut readers);
    let [mut deaf] = readers;
    let mut other = Reader::new(2, &["t1"]);
    let before = (deaf.heard, deaf.epoch, deaf.owned.clone());
    for _ in 0..30 {
        rig.beat(&mut other).expect("it stays");
        rig.beat(&mut deaf).expect("it stays");
        // No answer reaches it.
        (deaf.heard, deaf.epoch, deaf.owned) = before.clone();
        rig.pass(1_000);
    }
    assert_eq!(rig.revoking(), 1);
}

#[test]
fn a_named_member_that_comes_back_finds_its_partitions_and_nobody_else_moves() {
    let mut rig = Rig::new(&[6]);
    let mut readers = [
        Reader::new(1, &["t1"]).named("a"),
        Reader::new(2, &["t1"]).named("b"),
        Reader::new(3, &["t1"]),
    ];
    rig.come_to_rest(&mut readers);
    let [mut one, mut two, _] = readers;
    let (had, epoch) = (one.owned.clone(), two.epoch);
    let impostor = rig.beat(&mut Reader::new(4, &["t1"]).named("a"));
    assert_eq!(impostor, Err(ErrorCode::UnreleasedInstance));
    let step = MemberStep::Leave { epoch: one.epoch, returns: Returns::Soon };
    rig.send(&mut one, step).expect("it steps out");
    rig.beat(&mut two).expect("it stays");
    assert_eq!(two.epoch, epoch, "nothing has changed for it");
    let mut again = Reader::new(5, &["t1"]).named("a");
    rig.beat(&mut again).expect("it is back");
    assert_eq!(again.owned, had);
    rig.beat(&mut two).expect("it stays");
    assert_eq!(two.epoch, epoch, "nothing has changed for it");
}

#[test]
fn who_leaves_for_good_makes_room_at_once_and_the_last_one_leaves_the_offsets() {
    let mut rig = Rig::new(&[4]);
    let mut readers = [Reader::new(1, &["t1"]), Reader::new(2, &["t1"])];
    rig.come_to_rest(&mut readers);
    let [mut one, mut two] = readers;
    let mine = one.owned[0];
    rig.commit(&mut one, mine, 7).expect("it is its own");
    for reader in [&mut one, &mut two] {
        let step = MemberStep::Leave { epoch: reader.epoch, returns: Returns::No };
        rig.send(reader, step.clone()).expect("it leaves");
        rig.send(reader, step).expect("and may say so again");
    }
    assert_eq!(rig.describe().expect("it has offsets").state, GroupState::Empty);
    assert_eq!(rig.committed(mine), Some(7));
    rig.pass(3_600_000);
    assert_eq!(rig.committed(mine), None, "nobody came back for them");
}

#[test]
fn a_group_is_kept_as_long_as_somebody_commits_who_is_no_member() {
    let mut rig = Rig::new(&[4]);
    for offset in 1..=4 {
        rig.commit_by(Committer::Outsider, at(1, 0), offset).expect("nobody else is there");
        rig.pass(1_800_000);
    }
    assert_eq!(rig.committed(at(1, 0)), Some(4), "the last commit is not an hour old");
    rig.pass(1_800_000);
    assert_eq!(rig.committed(at(1, 0)), None, "and now it is");
}

#[test]
fn offsets_are_committed_by_owners_or_by_anybody_while_there_are_no_members() {
    let mut rig = Rig::new(&[4]);
    rig.commit_by(Committer::Outsider, at(1, 0), 3).expect("nobody is there");
    let mut readers = [Reader::new(1, &["t1"]), Reader::new(2, &["t1"])];
    rig.come_to_rest(&mut readers);
    let [mut one, two] = readers;
    let outside = rig.commit_by(Committer::Outsider, at(1, 0), 4);
    assert_eq!(outside, Err(ErrorCode::GroupNotEmpty));
    assert_eq!(rig.commit(&mut one, two.owned[0], 5), Err(ErrorCode::StaleMemberEpoch));
    let unknown = rig.commit(&mut one, at(9, 0), 5);
    assert_eq!(unknown, Err(ErrorCode::UnknownTopicOrPartition));
    let mine = one.owned[0];
    rig.commit(&mut one, mine, 5).expect("it is its own");
    one.beat -= 1;
    assert_eq!(
        rig.commit(&mut one, mine, 4),
        Err(ErrorCode::StaleMemberEpoch),
        "a copy of an old one"
    );
    rig.fail_over();
    assert_eq!(rig.commit(&mut one, mine, 6), Err(ErrorCode::StaleMemberEpoch), "not heard yet");
    rig.beat(&mut one).expect("it stays");
    rig.commit(&mut one, mine, 6).expect("now it has");
    assert_eq!(rig.committed(mine), Some(6));
}

#[test]
fn offsets_are_asked_for_once_each_and_not_too_many_at_once() {
    let mut rig = Rig::new(&[1]);
    rig.commit_by(Committer::Outsider, at(1, 0), 3).expect("nobody is there");
    let mut fetch = |partitions: Vec<TopicPartition>| {
        let (group, partitions) = (group(), Some(partitions));
        let request = FetchOffsetsRequest { group, partitions, heard: None };
        rig.ask(GroupRequest::FetchOffsets(request)).map(drop)
    };
    assert_eq!(fetch(vec![at(1, 0), at(1, 1)]), Ok(()));
    assert_eq!(fetch(vec![at(1, 0), at(1, 0)]), Err(ErrorCode::InvalidRequest));
    let many = (0..=100_000).map(|partition| at(1, partition)).collect();
    assert_eq!(fetch(many), Err(ErrorCode::InvalidRequest));
}

#[test]
fn a_decision_too_large_for_a_frame_is_refused_and_leaves_what_was_decided_before() {
    let mut rig = Rig::new(&[2_500]);
    let offset = |partition: u32| OffsetToCommit {
        partition: at(1, partition),
        offset: Offset(1),
        term: None,
        note: "n".repeat(NOTE_BYTES_MAX),
    };
    let mut decide = |partitions: Vec<u32>| {
        let offsets = partitions.into_iter().map(offset).collect();
        let request = CommitOffsetsRequest { group: group(), by: Committer::Outsider, offsets };
        let mut coordinator = rig.coordinator.clone();
        let answer = coordinator.decide(rig.moment(), &GroupRequest::CommitOffsets(request));
        rig.coordinator = coordinator;
        (answer.err().map(|error| error.code), rig.coordinator.decided().len())
    };
    assert_eq!(decide(vec![0]), (None, 2));
    assert_eq!(decide((0..2_500).collect()), (Some(ErrorCode::BatchTooLarge), 2));
    assert_eq!(decide(vec![1, 1]), (Some(ErrorCode::InvalidRequest), 2), "named twice");
    assert_eq!(decide((0..120).collect()).0, None);
    assert!(!rig.coordinator.is_full());
    rig.commit_by(Committer::Outsider, at(1, 7), 3).expect("what was kept fits");
    assert_eq!(rig.committed(at(1, 119)), Some(1));
}

#[test]
fn all_that_a_group_has_committed_is_bounded() {
    let mut rig = Rig::new(&[OFFSETS_MAX as u32 + 1]);
    let mut commit = |partitions: std::ops::Range<u32>, note_bytes: usize| {
        let offset = |partition| OffsetToCommit {
            partition: at(1, partition),
            offset: Offset(1),
            term: None,
            note: "n".repeat(note_bytes),
        };
        let offsets = partitions.map(offset).collect();
        let request = CommitOffsetsRequest { group: group(), by: Committer::Outsider, offsets };
        match rig.ask(GroupRequest::CommitOffsets(request)).expect("it is asked well") {
            GroupAnswer::CommitOffsets(answer) => {
                answer.results.into_iter().find_map(Result::err).map(|error| error.code)
            }
            other => panic!("an answer to something else: {other:?}"),
        }
    };
    let longest = (NOTES_BYTES_MAX / NOTE_BYTES_MAX) as u32;
    assert_eq!(commit(0..longest / 2, NOTE_BYTES_MAX), None);
    assert_eq!(commit(longest / 2..longest, NOTE_BYTES_MAX), None);
    assert_eq!(commit(longest..longest + 1, 1), Some(ErrorCode::OffsetMetadataTooLarge));
    assert_eq!(commit(0..1, NOTE_BYTES_MAX), None, "one that is known takes no more");
    assert_eq!(commit(0..1, NOTE_BYTES_MAX - 1), None);
    assert_eq!(commit(longest..longest + 1, 1), None, "there is room again");
    for first in (longest + 1..OFFSETS_MAX as u32).step_by(25_000) {
        assert_eq!(commit(first..(first + 25_000).min(OFFSETS_MAX as u32), 0), None);
    }
    let beyond = OFFSETS_MAX as u32;
    assert_eq!(commit(beyond..beyond + 1, 0), Some(ErrorCode::Conflict));
    assert_eq!(commit(beyond - 1..beyond, 0), None, "it is known");
}

#[test]
fn topics_that_come_and_grow_are_taken_up_and_those_that_go_forgotten() {
    let mut rig = Rig::new(&[2]);
    let mut readers = [Reader::new(1, &["t1", "t2"])];
    rig.come_to_rest(&mut readers);
    let [mut one] = readers;
    assert_eq!(one.owned.len(), 2);
    rig.grow(1, 2, 2);
    rig.pass(1);
    rig.beat(&mut one).expect("it stays");
    assert_eq!(one.owned.len(), 4);
    rig.commit(&mut one, at(1, 3), 9).expect("it is its own");
    rig.cluster.apply(&MetadataRecord::DeleteTopic { id: topic(1) }).expect("fits");
    rig.pass(1);
    rig.beat(&mut one).expect("it stays");
    rig.beat(&mut one).expect("it gave all up");
    assert!(one.owned.is_empty());
    assert_eq!(rig.committed(at(1, 3)), None);
}

#[test]
fn a_log_begun_anew_says_the_same() {
    let mut rig = Rig::new(&[5, 3]);
    let mut readers = [
        Reader::new(1, &["t1"]).named("a"),
        Reader::new(2, &["t1", "t2"]),
        Reader::new(3, &["t2"]),
    ];
    rig.come_to_rest(&mut readers);
    let mine = readers[1].owned[0];
    rig.commit(&mut readers[1], mine, 11).expect("it is its own");
    rig.beat(&mut Reader::new(4, &["t1"])).expect("it joins");
    rig.beat(&mut readers[0]).expect("it stays");
    assert!(rig.revoking() > 0, "it is to give something up");
    let groups = rig.coordinator.groups().clone();
    let image: Vec<GroupRecord> = groups.to_records().collect();
    assert_eq!(image.len() as u64, groups.records());
    let mut anew = Groups::default();
    // Twice: what is said again changes nothing, so it does not matter how far a crash let it come.
    for record in image.iter().chain(&image) {
        anew.apply(record).expect("it makes sense");
    }
    assert_eq!(anew, groups);
}

#[test]
fn bad_names_and_times_are_refused_with_the_reason() {
    let mut rig = Rig::new(&[1]);
    let join = |change: fn(&mut MemberProfile)| {
        let mut reader = Reader::new(1, &["t1"]);
        change(&mut reader.profile);
        reader
    };
    for mut reader in [
        join(|profile| profile.topics.clear()),
        join(|profile| profile.session_ms = 10),
        join(|profile| profile.rebalance_ms = u32::MAX),
        join(|profile| profile.rack = Some("r".repeat(250))),
    ] {
        assert_eq!(rig.beat(&mut reader), Err(ErrorCode::InvalidRequest));
    }
    let unnamed = GroupHeartbeatRequest {
        group: GroupId(String::new()),
        member: MemberId(Uuid::from_u128(1)),
        beat: Beat(1),
        heard: None,
        step: MemberStep::Join(Reader::new(1, &["t1"]).profile),
    };
    let refused = rig.ask(GroupRequest::Heartbeat(unnamed));
    assert_eq!(refused, Err(ErrorCode::InvalidGroup));
}

/// Bugs that members who keep the rules never meet, and some that take too rare a coincidence for the simulator.
#[cfg(feature = "mutants")]
#[test]
fn planted_bugs_that_chance_does_not_find_fail_these_scripts() {
    use crate::mutant::{self, Mutant};
    let scripts: [(Mutant, fn()); 11] = [
        (Mutant::JoinedTwice, a_join_that_was_held_up_over_a_failover_takes_nothing_away),
        (
            Mutant::OwnedBelievedUnheard,
            what_a_member_says_counts_only_after_it_has_heard_this_coordinator_and_only_its_newest,
        ),
        (
            Mutant::OldCoordinatorAnswers,
            what_a_member_says_counts_only_after_it_has_heard_this_coordinator_and_only_its_newest,
        ),
        (Mutant::ToldCountsAsKnown, who_may_not_know_that_it_must_give_up_stays_a_member),
        (Mutant::AnewForgetsRevoking, a_log_begun_anew_says_the_same),
        (Mutant::KeepersStay, a_member_that_keeps_what_it_was_told_to_give_up_is_taken_for_gone),
        (
            Mutant::TakeoverUncounted,
            a_new_coordinator_gives_everybody_a_session_and_the_time_of_the_old_one,
        ),
        (
            Mutant::PlaceNotKept,
            a_named_member_that_comes_back_finds_its_partitions_and_nobody_else_moves,
        ),
        (
            Mutant::AnyoneCommits,
            offsets_are_committed_by_owners_or_by_anybody_while_there_are_no_members,
        ),
        (
            Mutant::OutsiderCommits,
            offsets_are_committed_by_owners_or_by_anybody_while_there_are_no_members,
        ),
        (Mutant::OffsetsWithoutBound, all_that_a_group_has_committed_is_bounded),
    ];
    for (bug, script) in scripts {
        mutant::choose(Some(bug));
        let found = std::panic::catch_unwind(script).is_err();
        mutant::choose(None);
        assert!(found, "{bug:?} ({}) is not found", bug.breaks());
    }
}
