//! The test of the tests: every planted bug is found by the simulator within a bounded number of seeds.
//!
//! What each breaks, and which invariant found it when, is listed in `MUTANTS.md`. Some need a coincidence
//! that chance does not bring about in thousands of seeds: for them there is a script.

use std::collections::BTreeSet;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use highwater_broker::controller::ClusterImage;
use highwater_broker::controller::moves::MoveId;
use highwater_broker::log::{self, Log, StartPoint};
use highwater_broker::mutant::{self, Mutant};
use highwater_broker::node::reconcile::{self, Led};
use highwater_broker::raft::{
    Arrival, FrameSpan, HardState, Millis, Options, Raft, Start, Suspicion, TermStart, TermStarts,
};
use highwater_broker::replica::{FlushPolicy, LastLife, ReplicaOptions, Retention};
use highwater_broker::shard::event::{Event, Identity, Moving, OpenReplica, ReplicaCommand};
use highwater_broker::shard::{Directory, Shard, ShardOptions};
use highwater_broker::sim::checker::Death;
use highwater_broker::sim::cluster::Cluster;
use highwater_broker::sim::disk::SimDisk;
use highwater_broker::sim::fleet::busy;
use highwater_broker::sim::fleet::story::{self, Size};
use highwater_broker::sim::network::Cut;
use highwater_broker::sim::swarm::Swarm;
use highwater_broker::sim::{self, RunOptions, Verbose, dropped, wishes};
use highwater_protocol::batch::{BatchBuilder, BuilderOptions, ProducerStamp, VoterSet};
use highwater_protocol::ids::{
    Incarnation, LogIndex, NodeId, PartitionId, Position, ProducerEpoch, ProducerId, RecoveryEpoch,
    Term, Timestamp, TopicId, TopicPartition,
};
use highwater_protocol::peer::{
    AppendAnswer, AppendOutcome, Ballot, GroupMessage, Legible, RaftMessage, VoteAnswer,
    VoteRequest,
};

const RUN: RunOptions = RunOptions { fault_ms: 20_000, verbose: Verbose::No };

/// Those that the scripts below find.
const SCRIPTED: &[Mutant] = &[
    Mutant::FollowerAltersRecords,
    Mutant::CommitUnmatched,
    Mutant::ChangeVotersEarly,
    Mutant::SuspectClearedEarly,
    Mutant::SuspectWinsUnflushed,
    Mutant::ForgottenVotesIgnored,
    Mutant::TrustOldLife,
    Mutant::UncleanEndForgotten,
    Mutant::ReopenedUnheard,
    Mutant::StaleReportCounts,
    Mutant::VoteWithGaps,
    Mutant::StartForgetsProducers,
    Mutant::ShrinksBlindly,
    Mutant::BackInTheSameTerm,
    Mutant::MoveOutlivesItsTerm,
    Mutant::OldMoveLed,
    Mutant::ReturnsBeforeGivenUp,
    Mutant::GivesUpUnsaved,
    Mutant::LateWordCounts,
    Mutant::GivesUpBeforeCaughtUp,
    Mutant::FollowsBlindly,
    Mutant::SavesBlindly,
    Mutant::MovesUnbounded,
    // Of the repair of what rotted, in `repair_mutants`.
    Mutant::DamageCutsLog,
    Mutant::MendUnchecked,
    Mutant::GivesUpReadable,
    Mutant::GapsNotFlushed,
    Mutant::GivesUpForOthers,
    Mutant::MendNotFlushed,
    Mutant::FaultyStands,
    Mutant::SealedTakesAppends,
    // And of what follows a failed flush, there as well.
    Mutant::RebuiltForgetsItsWord,
    // Of a leader that was passed by, in `replica::tests::operations`.
    Mutant::MoveOverUnproven,
    // Of who is alone, in `shard::tests`.
    Mutant::AloneAmidMove,
    // Of the clock of retention, in `shard::retention`.
    Mutant::TenthEachLook,
    // Of the controller, in `controller_mutants`.
    Mutant::CancelGoesOn,
    Mutant::HostRemoved,
    Mutant::RemovedReturns,
    Mutant::ReplacedReturns,
    Mutant::DrainedTakesWork,
    Mutant::DutyForgotten,
    Mutant::RetiredOverMove,
    Mutant::LastVotersRemoved,
];

/// Those of consumer groups, in `groups`, and in `groups::tests` of the core.
const OF_GROUPS: &[Mutant] = &[
    Mutant::OldBeatCounts,
    Mutant::OwnedBelievedUnheard,
    Mutant::RevokedAtOnce,
    Mutant::GivenBeforeTaken,
    Mutant::TargetGivenAtOnce,
    Mutant::OldCommitCounts,
    Mutant::AnyoneCommits,
    Mutant::OldCoordinatorAnswers,
    Mutant::SessionsEndEarly,
    Mutant::JoinedTwice,
    Mutant::OldTermCommits,
    Mutant::SilentStay,
    Mutant::KeepersStay,
    Mutant::ToldCountsAsKnown,
    Mutant::TakeoverUncounted,
    Mutant::PlaceTaken,
    Mutant::PlaceNotKept,
    Mutant::OffsetsGoWithMembers,
    Mutant::OutsiderCommits,
    Mutant::OffsetsWithoutBound,
    Mutant::LeaverNotMissed,
    Mutant::GrowthUnseen,
    Mutant::NotEvened,
    Mutant::NotSticky,
    Mutant::AnewForgetsRevoking,
];

/// Those of the controller, which a fleet finds.
const BY_FLEET: &[Mutant] = &[
    Mutant::MoveBeginsUnasked,
    Mutant::MovedStaysOpen,
    Mutant::ImageForgetsMoves,
    Mutant::ImageForgetsFenced,
    Mutant::PlacementIgnoresRacks,
    Mutant::BalanceIgnoresRacks,
    Mutant::PlacementIgnoresMoves,
    Mutant::ShareNotDivided,
    Mutant::ReplacedTooSoon,
    Mutant::ReturnedStillReplaced,
    Mutant::BalanceAmidMoves,
];

/// Those of moves for load, which a busy fleet finds.
const BY_BUSY_FLEET: &[Mutant] = &[Mutant::BurstsCount, Mutant::LoadMovesUnrested];

#[test]
fn a_follower_that_commits_beyond_what_agrees_is_found_by_a_script() {
    check_script(Mutant::CommitUnmatched, || {
        // Five entries of term 1; the new leader shares three of them and says that five are committed.
        let mut raft = raft_with_five_entries(Suspicion::None);
        let prev = Position { term: Term(1), index: LogIndex(2) };
        let frames = &[FrameSpan { term: Term(1), end: LogIndex(3) }];
        let (term, commit) = (Term(2), LogIndex(5));
        let arrival = Arrival { term, prev, commit, frames, voter_sets: Vec::new() };
        raft.receive_append(Millis(1), NodeId(2), arrival);
        raft.commit() <= LogIndex(3)
    });
}

/// The bug of the Raft dissertation's single-server changes (raft-dev list, July 2015).
#[test]
fn a_leader_that_changes_voters_before_it_committed_in_its_term_is_found_by_a_script() {
    check_script(Mutant::ChangeVotersEarly, || {
        let raft = leader_over_five_entries();
        let target = VoterSet { voters: nodes(&[1, 2, 3]), learners: nodes(&[4]) };
        raft.next_voter_set(Millis(1_002), &target).is_none()
    });
}

/// The checker sees it at once; what counts here is that the replicas' own hashes tell it, as they would
/// `hw cluster verify`.
#[test]
fn a_replica_that_holds_other_records_is_found_by_its_hash() {
    check_script(Mutant::FollowerAltersRecords, || {
        let mut cluster = Cluster::new(1, Swarm::quiet(3, vec![FlushPolicy::Ack]));
        for _ in 0..300 {
            let _ = sim::judge(&mut cluster, |cluster| cluster.run_for_ms(10));
        }
        let compared = cluster.hashes_agree();
        let known = cluster.checker.committed(cluster.partitions[0]).end();
        assert!(known > LogIndex(1), "something was written");
        compared.is_ok()
    });
}

#[test]
fn a_group_that_shrinks_to_those_who_are_away_is_found_by_a_script() {
    check_script(Mutant::ShrinksBlindly, || {
        let mut cluster = Cluster::new(1, Swarm::quiet(3, vec![FlushPolicy::Ack]));
        let partition = cluster.partitions[0];
        let mut went_on = false;
        let verdict = sim::judge(&mut cluster, |cluster| {
            cluster.run_for_ms(2_000)?;
            let (leader, view) = cluster.leader_view(partition).expect("a quiet cluster has one");
            let away = (leader + 1) % 3;
            cluster.kill(away)?;
            cluster.run_for_ms(1_000)?;
            let stays = |node: &NodeId| [leader, away].contains(&(node.0 as usize - 1));
            let voters = view.voters.iter().copied().filter(stays).collect();
            let learners = Vec::new();
            let change = ReplicaCommand::ChangeVoters { voters, learners };
            cluster.command(leader, partition, change);
            cluster.run_for_ms(2_000)?;
            let before = cluster.checker.committed(partition).end();
            cluster.run_for_ms(2_000)?;
            went_on = cluster.checker.committed(partition).end() > before;
            Ok(())
        });
        verdict.is_ok() && went_on
    });
}

#[test]
fn a_change_of_voters_for_a_move_of_an_earlier_term_is_found_by_a_script() {
    check_script(Mutant::MoveOutlivesItsTerm, || {
        let mut cluster = Cluster::new(1, Swarm::quiet(3, vec![FlushPolicy::Ack]));
        let partition = cluster.partitions[0];
        let mut voters = 0;
        let verdict = sim::judge(&mut cluster, |cluster| {
            cluster.run_for_ms(2_000)?;
            let (leader, view) = cluster.leader_view(partition).expect("a quiet cluster has one");
            let (aim, term) = (view.voters[..2].to_vec(), Term(view.term.0 - 1));
            let change = ReplicaCommand::MoveVoters { voters: aim, term };
            cluster.command(leader, partition, change);
            cluster.run_for_ms(2_000)?;
            voters = cluster.leader_view(partition).expect("still").1.voters.len();
            Ok(())
        });
        verdict.is_ok() && voters == 3
    });
}

/// What a deleted replica said in this term would count for the one that is opened in its place.
#[test]
fn a_broker_that_comes_back_in_the_term_it_left_in_is_found_by_a_script() {
    check_script(Mutant::BackInTheSameTerm, || {
        let mut raft = leader_over_five_entries();
        let held = |raft: &mut Raft, node: u32, end: u64| {
            let (appended, flushed) = (LogIndex(end), LogIndex(end));
            let outcome = AppendOutcome::Accepted {
                appended,
                flushed,
                vouched: flushed,
                legible: Legible::All,
            };
            let answer = AppendAnswer { term: Term(2), outcome };
            raft.receive_append_answer(Millis(1_002), NodeId(node), answer);
        };
        raft.flushed(Millis(1_002), LogIndex(6));
        held(&mut raft, 2, 6);
        held(&mut raft, 3, 6);
        let set = |ids: &[u32]| VoterSet { voters: nodes(ids), learners: Vec::new() };
        let next = raft.next_voter_set(Millis(1_003), &set(&[1, 2])).expect("2 keeps up");
        raft.appended_voters(Millis(1_003), LogIndex(7), next);
        raft.flushed(Millis(1_003), LogIndex(7));
        held(&mut raft, 2, 7);
        assert_eq!(raft.commit(), LogIndex(7));
        raft.next_voter_set(Millis(1_004), &set(&[1, 2, 3])).is_none()
    });
}

/// It would take the place of a voter that can read what is missing.
#[test]
fn a_learner_that_gets_its_vote_with_a_gap_in_its_log_is_found_by_a_script() {
    check_script(Mutant::VoteWithGaps, || {
        let mut raft = leader_over_five_entries();
        let says = |raft: &mut Raft, node: u32, legible: Legible| {
            let end = raft.last().index;
            let outcome =
                AppendOutcome::Accepted { appended: end, flushed: end, vouched: end, legible };
            let answer = AppendAnswer { term: Term(2), outcome };
            raft.receive_append_answer(Millis(1_002), NodeId(node), answer);
        };
        raft.flushed(Millis(1_002), LogIndex(6));
        says(&mut raft, 2, Legible::All);
        let target = VoterSet { voters: nodes(&[1, 2, 3, 4]), learners: Vec::new() };
        let next = raft.next_voter_set(Millis(1_003), &target).expect("4 begins to learn");
        raft.appended_voters(Millis(1_003), LogIndex(7), next);
        raft.flushed(Millis(1_003), LogIndex(7));
        says(&mut raft, 2, Legible::All);
        says(&mut raft, 4, Legible::Gaps);
        let refused = raft.next_voter_set(Millis(1_004), &target).is_none();
        says(&mut raft, 4, Legible::All);
        refused && raft.next_voter_set(Millis(1_005), &target).is_some()
    });
}

#[test]
fn a_move_led_on_an_answer_that_came_too_late_is_found_by_a_script() {
    check_script(Mutant::OldMoveLed, || {
        let partition = TopicPartition::new(TopicId::CLUSTER, PartitionId(1));
        let led = Led { partition, id: MoveId(9), aim: nodes(&[1, 2]), term: Term(3) };
        // The image has no such move any more.
        !reconcile::may_lead_on(&ClusterImage::default(), |_| Some(Term(3)), &led)
    });
}

#[test]
fn a_replica_that_goes_back_to_who_has_not_given_it_up_is_found_by_a_script() {
    let script = dropped::comes_back_unheard;
    check_script(Mutant::ReturnsBeforeGivenUp, || {
        (0..3).all(|seed| script(seed).failure.is_none())
    });
}

#[test]
fn a_broker_that_gives_up_what_is_not_saved_as_taken_is_found_by_a_script() {
    let script = dropped::comes_back_unsaved;
    check_script(Mutant::GivesUpUnsaved, || (0..3).all(|seed| script(seed).failure.is_none()));
}

#[test]
fn a_broker_that_boots_and_deletes_what_came_back_to_it_is_found_by_a_script() {
    let script = dropped::is_back_with_an_old_image;
    check_script(Mutant::GivesUpBeforeCaughtUp, || {
        (0..3).all(|seed| script(seed).failure.is_none())
    });
}

#[test]
fn a_broker_that_follows_old_records_without_an_image_is_found_by_a_script() {
    let script = dropped::is_back_without_an_image;
    check_script(Mutant::FollowsBlindly, || (0..3).all(|seed| script(seed).failure.is_none()));
}

#[test]
fn a_broker_that_saves_half_an_image_is_found_by_a_script() {
    let script = dropped::is_back_after_a_life_without_an_image;
    check_script(Mutant::SavesBlindly, || (0..5).all(|seed| script(seed).failure.is_none()));
}

#[test]
fn word_about_an_earlier_replica_that_counts_for_a_later_one_is_found_by_wishes_at_random() {
    check_script(Mutant::LateWordCounts, || (0..20).all(|seed| wishes::run(seed).is_ok()));
}

#[test]
fn more_moves_at_once_than_allowed_are_found_by_wishes_at_random() {
    check_script(Mutant::MovesUnbounded, || (0..20).all(|seed| wishes::run(seed).is_ok()));
}

#[test]
fn a_suspect_that_is_trusted_before_it_caught_up_is_found_by_a_script() {
    check_script(Mutant::SuspectClearedEarly, || {
        let mut raft = raft_with_five_entries(Suspicion::LostTail);
        // The leader has not committed in its own term: what it will commit may be what was lost here.
        let prev = Position { term: Term(1), index: LogIndex(5) };
        let frames = &[FrameSpan { term: Term(2), end: LogIndex(6) }];
        let (term, commit) = (Term(2), LogIndex(4));
        let arrival = Arrival { term, prev, commit, frames, voter_sets: Vec::new() };
        raft.receive_append(Millis(1), NodeId(2), arrival);
        raft.is_suspect()
    });
}

/// Found by seed 41846 of 60 s: its leader handed over before the flush was through.
#[test]
fn a_suspect_that_wins_with_a_tail_that_is_not_on_disk_is_found_by_a_script() {
    check_script(Mutant::SuspectWinsUnflushed, || {
        let mut raft = raft_with_five_entries(Suspicion::LostTail);
        for voter in [2, 3] {
            let last = Position { term: Term(1), index: LogIndex(5) };
            let request = VoteRequest { term: Term(2), ballot: Ballot::Pre, last };
            raft.end_reported(NodeId(voter), request);
        }
        let prev = Position { term: Term(1), index: LogIndex(5) };
        let frames = &[FrameSpan { term: Term(2), end: LogIndex(7) }];
        let (term, commit) = (Term(2), LogIndex(0));
        let arrival = Arrival { term, prev, commit, frames, voter_sets: Vec::new() };
        raft.receive_append(Millis(1), NodeId(2), arrival);
        raft.receive_timeout_now(Millis(2), NodeId(2), Term(2));
        let answer = VoteAnswer { term: Term(3), ballot: Ballot::Transfer, granted: true };
        raft.receive_vote_answer(Millis(3), NodeId(2), answer);
        let waited = !raft.is_leader();
        raft.flushed(Millis(4), LogIndex(7));
        raft.receive_timeout_now(Millis(5), NodeId(2), Term(2));
        raft.receive_vote_answer(Millis(6), NodeId(2), answer);
        waited && raft.is_leader()
    });
}

/// It may have voted in term 3, and committed with that leader, before it forgot. What comes of that is told
/// with three replicas in `raft::tests::forgotten`.
#[test]
fn a_voter_that_forgot_its_votes_and_counts_for_the_first_leader_it_hears_is_found_by_a_script() {
    check_script(Mutant::ForgottenVotesIgnored, || {
        let mut raft = raft_with_five_entries(Suspicion::LostIdentity);
        let prev = Position { term: Term(1), index: LogIndex(5) };
        let frames = &[FrameSpan { term: Term(2), end: LogIndex(6) }];
        let (term, commit) = (Term(2), LogIndex(6));
        let arrival = Arrival { term, prev, commit, frames, voter_sets: Vec::new() };
        raft.receive_append(Millis(1), NodeId(2), arrival);
        raft.flushed(Millis(2), LogIndex(6));
        let barred = raft.is_suspect();
        let last = Position { term: Term(2), index: LogIndex(6) };
        let request = VoteRequest { term: Term(4), ballot: Ballot::Real, last };
        raft.end_reported(NodeId(3), request);
        raft.receive_vote(Millis(3), NodeId(3), request);
        let (term, prev) = (Term(4), Position { term: Term(2), index: LogIndex(6) });
        let frames = &[FrameSpan { term, end: LogIndex(7) }];
        let commit = LogIndex(7);
        let arrival = Arrival { term, prev, commit, frames, voter_sets: Vec::new() };
        raft.receive_append(Millis(3), NodeId(3), arrival);
        raft.flushed(Millis(4), LogIndex(7));
        barred && !raft.is_suspect()
    });
}

#[test]
fn a_leader_that_believes_what_it_knew_of_an_earlier_life_is_found_by_a_script() {
    check_script(Mutant::TrustOldLife, || {
        let mut raft = leader_over_five_entries();
        let (appended, flushed) = (LogIndex(6), LogIndex(6));
        let outcome =
            AppendOutcome::Accepted { appended, flushed, vouched: flushed, legible: Legible::All };
        let answer = AppendAnswer { term: Term(2), outcome };
        raft.receive_append_answer(Millis(1_002), NodeId(2), answer);
        assert_eq!(raft.holders(LogIndex(6)).appended, 2);
        raft.peer_restarted(NodeId(2));
        raft.holders(LogIndex(6)).appended == 1
    });
}

#[test]
fn a_life_too_short_to_open_anything_that_forgets_an_unclean_end_is_found_by_a_script() {
    check_script(Mutant::UncleanEndForgotten, || {
        let policy = FlushPolicy::Interval { ms: 60_000 };
        let mut cluster = Cluster::new(1, Swarm::quiet(3, vec![policy]));
        let partition = cluster.partitions[0];
        let verdict = sim::judge(&mut cluster, |cluster| {
            cluster.run_for_ms(2_000)?;
            cluster.power_off(0, Death::PowerLost)?;
            cluster.start(0)?;
            cluster.kill(0)?;
            cluster.network.cut(Cut::Between(BTreeSet::from([0])));
            cluster.start(0)?;
            cluster.run_for_ms(500)
        });
        verdict.is_ok() && cluster.view(0, partition).is_some_and(|view| view.suspect)
    });
}

#[test]
fn a_reopened_follower_that_waits_for_an_idle_leader_is_found_by_a_script() {
    check_script(Mutant::ReopenedUnheard, || {
        let mut cluster = Cluster::new(1, Swarm::quiet(3, vec![FlushPolicy::Ack]));
        let partition = cluster.partitions[0];
        let verdict = sim::judge(&mut cluster, |cluster| {
            cluster.run_for_ms(2_000)?;
            cluster.workload.stop();
            cluster.run_for_ms(2_000)?;
            let (leader, _) = cluster.leader_view(partition).expect("there is a leader");
            cluster.reopen((leader + 1) % 3, 0, 0);
            cluster.run_for_ms(2_000)
        });
        let committed = cluster.checker.committed(partition).end();
        let knows =
            |node| cluster.view(node, partition).is_some_and(|view| view.commit == committed);
        verdict.is_ok() && (0..3).all(knows)
    });
}

#[test]
fn a_replica_that_starts_anew_without_the_producers_is_found_by_a_script() {
    check_script(Mutant::StartForgetsProducers, || {
        let producer =
            ProducerStamp { id: ProducerId(9), epoch: ProducerEpoch(1), base_sequence: 0 };
        let mut builder =
            BatchBuilder::new(BuilderOptions { producer: Some(producer), ..Default::default() });
        builder.push(Timestamp(1), None, Some(b"once"), &[]);
        let mut leader = empty_log(1);
        leader.append(Term(1), &builder.finish()).expect("append");
        leader.publish(leader.end_offset());
        let sent = leader.recent_producers().expect("readable");
        leader.trim_to(leader.end(), sent.clone()).expect("trim");
        let mut follower = empty_log(2);
        let point = StartPoint::parse(&leader.start_point()).expect("its own");
        follower.start_at(&point).expect("it starts there");
        // What it does not know it would append again.
        sent.len() == 1 && follower.recent_producers().expect("readable") == sent
    });
}

fn empty_log(seed: u64) -> Log {
    let partition = TopicPartition::new(TopicId::CLUSTER, PartitionId(1));
    let options = log::Options { segment_bytes_max: 1 << 20, keep_free_bytes: 0 };
    Log::open(SimDisk::new(seed), Path::new("/data"), partition, options).expect("a new log").0
}

/// A script holds for the sound code and does not for the mutant.
fn check_script(mutant: Mutant, holds: impl Fn() -> bool) {
    assert!(holds());
    mutant::choose(Some(mutant));
    let survived = holds();
    mutant::choose(None);
    assert!(!survived, "{mutant:?} is not found");
}

/// In term 2, its mark appended as the sixth entry.
fn leader_over_five_entries() -> Raft {
    let mut raft = raft_with_five_entries(Suspicion::None);
    raft.tick(raft.next_deadline());
    for ballot in [Ballot::Pre, Ballot::Real] {
        let answer = VoteAnswer { term: Term(2), ballot, granted: true };
        raft.receive_vote_answer(Millis(1_000), NodeId(2), answer);
    }
    assert!(raft.is_leader(), "two of three votes are a majority");
    raft.appended_term_mark(Millis(1_001), LogIndex(6));
    raft
}

fn raft_with_five_entries(suspicion: Suspicion) -> Raft {
    let starts = vec![TermStart { term: Term(1), start: LogIndex(0) }];
    let start = Start {
        me: NodeId(1),
        hard: HardState { term: Term(1), vote: None },
        term_min: Term(0),
        terms: TermStarts::new(Position::default(), starts, LogIndex(5)),
        flushed: LogIndex(5),
        made_with: VoterSet { voters: nodes(&[1, 2, 3]), learners: Vec::new() },
        changes: Vec::new(),
        suspicion,
        seed: 7,
    };
    Raft::new(start, Options::default(), Millis(0))
}

fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

/// What was said to no life in particular may be older than this one, and than what the last one
/// counted: with both other voters' word of that age, a replica that lost power would help a candidate
/// without a committed entry to the lead (`model/Suspect.tla`).
#[test]
fn a_suspect_that_believes_what_was_said_before_its_life_is_found_by_a_script() {
    check_script(Mutant::StaleReportCounts, || {
        assert!(votes_when_all_ends_are_told(Some(Incarnation(2))), "said to this life");
        !votes_when_all_ends_are_told(None)
    });
}

/// Whether a replica whose broker lost power gives its vote once the others told it their ends.
fn votes_when_all_ends_are_told(to: Option<Incarnation>) -> bool {
    let disk = SimDisk::new(1);
    let mut shard = Shard::open(shard_options(1), disk.clone(), Millis(0)).expect("a sound disk");
    pass(&mut shard, vec![open_lazy()]);
    let mut shard = Shard::open(shard_options(2), disk, Millis(0)).expect("a sound disk");
    pass(&mut shard, vec![open_lazy()]);
    let ask = |from| {
        let (term, ballot, last) = (Term(9), Ballot::Transfer, Position::default());
        let message = RaftMessage::Vote(VoteRequest { term, ballot, last });
        let messages = vec![GroupMessage { group: LAZY, epoch: RecoveryEpoch::default(), message }];
        Event::Peer { from: NodeId(from), incarnation: Incarnation(1), to, messages }
    };
    pass(&mut shard, vec![ask(2), ask(3)]);
    shard.replica(LAZY).expect("it is open").raft().hard_state().vote.is_some()
}

const LAZY: TopicPartition = TopicPartition { topic: TopicId::CLUSTER, partition: PartitionId(1) };

fn open_lazy() -> Event {
    let options = ReplicaOptions {
        log: log::Options { segment_bytes_max: 1 << 20, keep_free_bytes: 0 },
        flush: FlushPolicy::Interval { ms: 1_000 },
        insync_replicas_min: 1,
        lag_ms_max: 1_000,
        retention: Retention::FOREVER,
        learner_bytes_per_s: None,
    };
    Event::Open(Box::new(OpenReplica {
        partition: LAZY,
        dir: PathBuf::from("/data/topic/1"),
        voters: nodes(&[1, 2, 3]),
        learners: Vec::new(),
        identity: Identity::Same,
        moving: Moving::No,
        recovery: None,
        options,
    }))
}

fn shard_options(life: u64) -> ShardOptions {
    let (last_life, directory) = match life {
        1 => (LastLife::Clean, Directory::New),
        _ => (LastLife::Unclean, Directory::Used),
    };
    ShardOptions {
        me: NodeId(1),
        incarnation: Incarnation(life),
        seed: 7,
        heartbeat_ms: 100,
        dir: PathBuf::from("/data/shard-0"),
        stray_dir: PathBuf::from("/data/stray"),
        last_life,
        directory,
        keep_free_bytes: 0,
    }
}

fn pass(shard: &mut Shard, events: Vec<Event>) {
    let mut effects = Vec::new();
    for event in events {
        shard.step(Millis(1), event, &mut effects);
    }
    shard.finish_pass(Millis(1), &mut effects).expect("a sound disk");
}

#[test]
fn every_other_planted_bug_is_found_by_a_seed() {
    panic::set_hook(Box::new(|_| {}));
    let found_elsewhere =
        |mutant: &Mutant| [SCRIPTED, OF_GROUPS, BY_FLEET, BY_BUSY_FLEET].concat().contains(mutant);
    let hunted = Mutant::ALL.iter().filter(|mutant| !found_elsewhere(mutant));
    let waiting = Mutex::new(hunted.copied().collect::<Vec<_>>());
    let survivors = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("no thread panics with it").pop();
                    let Some(mutant) = next else { return };
                    match hunt(mutant) {
                        Some(found) => println!("{found}"),
                        None => survivors.lock().expect("no thread panics with it").push(mutant),
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().expect("no thread panicked with it");
    assert!(survivors.is_empty(), "not found within {SEEDS_MAX} seeds: {survivors:?}");
}

/// Runs seeds as a mutant until one fails, and says how it was found.
fn hunt(mutant: Mutant) -> Option<String> {
    mutant::choose(Some(mutant));
    let found = (0..SEEDS_MAX).find_map(|seed| {
        let failure = sim::run(seed, RUN).failure?;
        Some(format!("{mutant:?}: seed {seed}, {}", failure.broken.invariant))
    });
    mutant::choose(None);
    found
}

#[test]
fn every_planted_bug_of_the_controller_is_found_by_a_fleet() {
    let size = Size { brokers: 12, topics: 6, partitions_each: 12, storm_rounds: 600 };
    let mut survivors = Vec::new();
    for mutant in BY_FLEET.iter().chain(BY_BUSY_FLEET) {
        mutant::choose(Some(*mutant));
        let is_busy = BY_BUSY_FLEET.contains(mutant);
        let play = |seed: u64| match is_busy {
            true => drop(busy::play(seed)),
            false => drop(story::play(seed, size, || Duration::ZERO)),
        };
        let fails = |seed: &u64| panic::catch_unwind(|| play(*seed)).is_err();
        let found = (0..FLEET_SEEDS_MAX).find(fails);
        mutant::choose(None);
        println!("{mutant:?}: {found:?}");
        if found.is_none() {
            survivors.push(mutant);
        }
    }
    assert!(survivors.is_empty(), "not found within {FLEET_SEEDS_MAX} seeds: {survivors:?}");
}

const SEEDS_MAX: u64 = 2_000;
const FLEET_SEEDS_MAX: u64 = 30;
