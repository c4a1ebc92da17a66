//! One case each, named after the section of the Raft paper or thesis, or the bug of somebody else,
//! that it stands for. A lone replica is driven by hand; `Group` where several are needed.

use highwater_protocol::ids::{LogIndex, NodeId, Position, Term};
use highwater_protocol::peer::{
    AppendAnswer, AppendOutcome, Ballot, Heartbeat, HeartbeatAnswer, Legible, RaftMessage,
    VoteAnswer, VoteRequest,
};

use super::super::{
    Arrival, CommitNews, Counts, FrameSpan, HardState, Intake, Millis, Options, Raft, Start,
    Suspicion, TermStart, TermStarts, TransferRefused,
};
use super::group::{Group, set};

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);

fn at(term: u32, index: u64) -> Position {
    Position { term: Term(term), index: LogIndex(index) }
}

/// Replica 1 of three, whose log holds one entry for each of `terms`.
fn replica(terms: &[u32], hard: (u32, Option<NodeId>), suspicion: Suspicion) -> Raft {
    let mut starts: Vec<TermStart> = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        if starts.last().is_none_or(|last| last.term.0 < *term) {
            starts.push(TermStart { term: Term(*term), start: LogIndex(index as u64) });
        }
    }
    let end = LogIndex(terms.len() as u64);
    let start = Start {
        me: ME,
        hard: HardState { term: Term(hard.0), vote: hard.1 },
        term_min: Term(0),
        terms: TermStarts::new(Position::default(), starts, end),
        flushed: end,
        made_with: set(&[1, 2, 3], &[]),
        changes: Vec::new(),
        suspicion,
        seed: 7,
    };
    Raft::new(start, Options::default(), Millis(0))
}

fn sound(terms: &[u32], term: u32) -> Raft {
    replica(terms, (term, None), Suspicion::None)
}

/// Leader of `term + 1` over a log of `terms`, its mark appended and on disk.
fn leader(terms: &[u32], term: u32) -> Raft {
    let mut raft = replica(terms, (term, Some(OTHER)), Suspicion::None);
    let mut now = raft.next_deadline();
    raft.tick(now);
    for ballot in [Ballot::Pre, Ballot::Real] {
        let answer = VoteAnswer { term: Term(term + 1), ballot, granted: true };
        raft.receive_vote_answer(now, OTHER, answer);
    }
    assert!(raft.is_leader() && raft.term_mark_due());
    now = Millis(now.0 + 1);
    let end = raft.last().index.advance(1);
    raft.appended_term_mark(now, end);
    raft.flushed(now, end);
    raft.take_messages();
    raft
}

fn append(raft: &mut Raft, term: u32, prev: Position, commit: u64, terms: &[u32]) -> Intake {
    let end = |at: usize| prev.index.advance(at as u64 + 1);
    let spans = terms.iter().enumerate();
    let frames: Vec<FrameSpan> =
        spans.map(|(at, term)| FrameSpan { term: Term(*term), end: end(at) }).collect();
    let commit = LogIndex(commit);
    let arrival =
        Arrival { term: Term(term), prev, commit, frames: &frames, voter_sets: Vec::new() };
    raft.receive_append(Millis(1), OTHER, arrival)
}

fn accepted(term: u32, appended: u64, flushed: u64) -> AppendAnswer {
    let (appended, flushed) = (LogIndex(appended), LogIndex(flushed));
    let (vouched, legible) = (flushed, Legible::All);
    let outcome = AppendOutcome::Accepted { appended, flushed, vouched, legible };
    AppendAnswer { term: Term(term), outcome }
}

fn said(raft: &mut Raft) -> Vec<RaftMessage> {
    raft.take_messages().into_iter().map(|sent| sent.message).collect()
}

fn ask(raft: &mut Raft, now: u64, from: NodeId, term: u32, ballot: Ballot, last: Position) -> bool {
    raft.take_messages();
    let request = VoteRequest { term: Term(term), ballot, last };
    raft.receive_vote(Millis(now), from, request);
    let answers = said(raft);
    let [RaftMessage::VoteAnswer(answer)] = answers[..] else { panic!("{answers:?}") };
    answer.granted
}

#[test]
fn section_5_2_a_voter_gives_one_vote_in_a_term() {
    let mut raft = sound(&[], 0);
    assert!(ask(&mut raft, 1, OTHER, 1, Ballot::Real, at(0, 0)));
    assert!(!ask(&mut raft, 1, THIRD, 1, Ballot::Real, at(9, 9)));
    assert!(ask(&mut raft, 1, OTHER, 1, Ballot::Real, at(0, 0)), "the answer may have been lost");
    let saved = raft.take_dirty_hard_state().expect("the vote must be saved");
    assert_eq!(saved, HardState { term: Term(1), vote: Some(OTHER) });
    let mut restarted = replica(&[], (1, saved.vote), Suspicion::None);
    assert!(!ask(&mut restarted, 1, THIRD, 1, Ballot::Real, at(9, 9)));
}

#[test]
fn section_5_2_a_single_voter_elects_itself_at_once() {
    let mut group = Group::new(&[1], &[], 1, Options::default());
    group.run(20);
    assert_eq!(group.leader(), Some(ME));
    assert!(group.produce(ME, 3));
    group.run(20);
    assert_eq!(group.node(1).raft.commit(), LogIndex(4));
}

#[test]
fn section_5_2_a_new_group_does_not_wait_for_a_time_out() {
    let mut group = Group::new(&[1, 2, 3], &[], 1, Options::default());
    group.run(100);
    assert_eq!(group.leader(), Some(ME), "the first voter stands at once");
}

#[test]
fn section_5_3_a_gap_and_a_wrong_term_are_refused_with_a_hint() {
    let mut raft = sound(&[1, 1, 4, 4], 4);
    for (prev, hint) in [(at(5, 9), at(4, 4)), (at(3, 4), at(1, 2)), (at(5, 3), at(4, 3))] {
        assert_eq!(append(&mut raft, 5, prev, 0, &[5]), Intake::Nothing);
        let outcome = AppendOutcome::Rejected { at: prev.index, hint };
        let answer = AppendAnswer { term: Term(5), outcome };
        assert_eq!(said(&mut raft), [RaftMessage::AppendAnswer(answer)]);
    }
}

#[test]
fn section_5_3_only_a_conflict_cuts_the_log() {
    let mut raft = sound(&[1, 1, 1, 2], 2);
    // An older, shorter append that arrives late must not cut what came after it.
    assert_eq!(append(&mut raft, 3, at(1, 1), 0, &[1]), Intake::Nothing);
    assert_eq!(raft.last(), at(2, 4));
    let intake = append(&mut raft, 3, at(1, 1), 0, &[1, 3]);
    assert_eq!(intake, Intake::Store { cut: Some(LogIndex(2)), skip: 1 });
    assert_eq!(raft.last(), at(3, 3));
}

#[test]
fn section_5_3_a_follower_vouches_only_for_what_provably_agrees() {
    let mut raft = sound(&[1, 1, 1, 2], 2);
    append(&mut raft, 3, at(1, 1), 9, &[1]);
    assert_eq!(said(&mut raft), [RaftMessage::AppendAnswer(accepted(3, 2, 2))]);
    assert_eq!(raft.commit(), LogIndex(2), "never beyond what agrees");
    let heartbeat = Heartbeat { term: Term(3), commit: LogIndex(4) };
    raft.receive_heartbeat(Millis(2), OTHER, heartbeat);
    assert_eq!(raft.commit(), LogIndex(2), "nor by a heartbeat");
}

#[test]
fn section_5_3_a_stale_leader_is_told_the_newer_term() {
    let mut raft = sound(&[1], 7);
    append(&mut raft, 3, at(1, 1), 0, &[3]);
    raft.receive_heartbeat(Millis(1), OTHER, Heartbeat { term: Term(3), commit: LogIndex(1) });
    let terms: Vec<Term> = said(&mut raft).iter().filter_map(answer_term).collect();
    assert_eq!(terms, [Term(7), Term(7)]);
    assert_eq!((raft.leader(), raft.commit()), (None, LogIndex(0)));
}

fn answer_term(message: &RaftMessage) -> Option<Term> {
    match message {
        RaftMessage::AppendAnswer(answer) => Some(answer.term),
        RaftMessage::HeartbeatAnswer(answer) => Some(answer.term),
        RaftMessage::Vote(_)
        | RaftMessage::VoteAnswer(_)
        | RaftMessage::Append(_)
        | RaftMessage::Heartbeat(_)
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_)
        | RaftMessage::Found(_) => None,
    }
}

#[test]
fn section_5_4_1_a_shorter_or_older_log_gets_no_vote() {
    let check = |last, expected: bool| {
        let mut raft = sound(&[1, 1, 2], 2);
        assert_eq!(ask(&mut raft, 1, OTHER, 3, Ballot::Real, last), expected, "{last}");
        assert_eq!(ask(&mut sound(&[1, 1, 2], 2), 1, OTHER, 3, Ballot::Pre, last), expected);
    };
    check(at(2, 3), true);
    check(at(3, 1), true);
    check(at(2, 2), false);
    check(at(1, 9), false);
}

#[test]
fn section_5_4_2_figure_8_an_older_term_is_committed_only_by_way_of_the_leaders_own() {
    let mut raft = leader(&[1, 1], 1);
    raft.receive_append_answer(Millis(900), OTHER, accepted(2, 2, 2));
    assert_eq!(raft.commit(), LogIndex(0), "a majority has both, and still");
    raft.receive_append_answer(Millis(900), OTHER, accepted(2, 3, 3));
    assert_eq!(raft.commit(), LogIndex(3));
}

#[test]
fn the_leader_counts_itself_only_by_what_it_has_flushed() {
    let mut raft = leader(&[], 1);
    raft.appended(Millis(900), LogIndex(5));
    raft.receive_append_answer(Millis(900), OTHER, accepted(2, 5, 5));
    assert_eq!(raft.commit(), LogIndex(1), "one of three has it on disk");
    raft.receive_append_answer(Millis(900), THIRD, accepted(2, 5, 5));
    assert_eq!(raft.commit(), LogIndex(5), "two followers make a majority without it");
    raft.appended(Millis(901), LogIndex(6));
    raft.receive_append_answer(Millis(901), OTHER, accepted(2, 6, 5));
    assert_eq!(raft.commit(), LogIndex(5), "appended does not count");
    raft.flushed(Millis(902), LogIndex(6));
    raft.receive_append_answer(Millis(903), OTHER, accepted(2, 6, 6));
    assert_eq!(raft.commit(), LogIndex(6));
}

#[test]
fn answers_of_another_term_prove_nothing() {
    let mut raft = leader(&[1], 1);
    raft.receive_append_answer(Millis(900), OTHER, accepted(1, 2, 2));
    assert_eq!(raft.commit(), LogIndex(0));
    raft.receive_append_answer(Millis(900), OTHER, accepted(3, 2, 2));
    assert!(!raft.is_leader());
    assert_eq!((raft.term(), raft.commit()), (Term(3), LogIndex(0)));
}

#[test]
fn a_follower_that_claims_more_than_its_leader_has_is_not_believed() {
    let mut raft = leader(&[], 1);
    raft.receive_append_answer(Millis(900), OTHER, accepted(2, 8, 8));
    assert_eq!(raft.commit(), LogIndex(0));
}

#[test]
fn a_heartbeat_never_names_a_commit_that_the_peer_did_not_acknowledge() {
    // tikv#7353, qdrant#1235, curvine#532: "to_commit is out of range" when a follower had lost data.
    let mut raft = leader(&[], 1);
    raft.receive_append_answer(Millis(900), OTHER, accepted(2, 1, 1));
    raft.peer_restarted(OTHER);
    raft.heartbeats(Millis(5_000));
    let commits = said(&mut raft).into_iter().map(|message| match message {
        RaftMessage::Heartbeat(heartbeat) => heartbeat.commit.0,
        other => panic!("{other:?}"),
    });
    assert_eq!(commits.collect::<Vec<_>>(), [0, 0]);
    assert_eq!(raft.commit(), LogIndex(1), "what is committed stays committed");
}

#[test]
fn a_follower_that_came_back_with_less_is_counted_for_less() {
    let mut raft = leader(&[], 1);
    raft.appended(Millis(900), LogIndex(5));
    raft.receive_append_answer(Millis(900), OTHER, accepted(2, 5, 5));
    let answer = HeartbeatAnswer { term: Term(2), log_end: LogIndex(2) };
    raft.receive_heartbeat_answer(Millis(901), OTHER, answer);
    raft.flushed(Millis(902), LogIndex(5));
    assert_eq!(raft.commit(), LogIndex(2), "the five are on one disk only");
    assert!(raft.next_send(Millis(903)).is_some_and(|plan| plan.to == OTHER), "it is asked again");
}

#[test]
fn section_6_a_removed_voters_noise_does_not_depose_a_leader() {
    let mut raft = sound(&[1], 1);
    append(&mut raft, 1, at(1, 1), 1, &[]);
    for ballot in [Ballot::Pre, Ballot::Real] {
        assert!(!ask(&mut raft, 300, THIRD, 9, ballot, at(9, 9)));
        assert_eq!((raft.term(), raft.leader()), (Term(1), Some(OTHER)));
    }
    assert!(ask(&mut raft, 900, THIRD, 9, Ballot::Real, at(9, 9)), "the leader fell silent");
}

#[test]
fn thesis_3_10_a_transfer_is_not_refused_for_the_leaders_sake() {
    let mut raft = sound(&[1], 1);
    append(&mut raft, 1, at(1, 1), 1, &[]);
    assert!(ask(&mut raft, 300, THIRD, 2, Ballot::Transfer, at(1, 1)));
}

#[test]
fn thesis_3_10_leadership_moves_to_the_wished_voter_and_loses_nothing() {
    let mut group = Group::new(&[1, 2, 3], &[4], 3, Options::default());
    group.run(200);
    assert!(group.produce(ME, 2));
    let now = group.now;
    let raft = &mut group.nodes.get_mut(&ME).expect("it exists").raft;
    let no_heir = TransferRefused::NotAnHeir(NodeId(4));
    assert_eq!(raft.transfer(now, Some(NodeId(4))), Err(no_heir));
    assert_eq!(raft.transfer(now, Some(THIRD)), Ok(THIRD));
    assert_eq!(raft.transfer(now, None), Err(TransferRefused::UnderWay));
    group.finish(ME);
    assert!(group.node(1).raft.transferring_to().is_some(), "it takes no produce meanwhile");
    group.run(60);
    assert_eq!(group.leader(), Some(THIRD), "within a few round trips");
    group.run(300);
    group.assert_converged();
}

#[test]
fn thesis_3_10_a_transfer_to_a_dead_voter_gives_up() {
    let mut group = Group::new(&[1, 2, 3], &[], 3, Options::default());
    group.run(200);
    group.nodes.get_mut(&THIRD).expect("it exists").up = false;
    assert!(group.produce(ME, 2));
    let now = group.now;
    let asked = group.nodes.get_mut(&ME).expect("it exists").raft.transfer(now, Some(THIRD));
    assert_eq!(asked, Ok(THIRD));
    group.run(1_500);
    let raft = &group.node(1).raft;
    assert!(raft.is_leader() && raft.transferring_to().is_none());
}

#[test]
fn thesis_4_2_2_a_leader_that_removes_itself_commits_that_and_goes() {
    let mut group = Group::new(&[1, 2, 3], &[], 5, Options::default());
    group.run(200);
    group.nodes.get_mut(&ME).expect("it exists").target = Some(set(&[2, 3], &[]));
    group.run(1_500);
    let leader = group.leader().expect("the others elect one");
    assert_ne!(leader, ME);
    assert_eq!(group.nodes[&leader].raft.voter_set(), &set(&[2, 3], &[]));
}

#[test]
fn thesis_4_2_1_a_learner_becomes_a_voter_once_it_has_caught_up() {
    let mut group = Group::new(&[1], &[2], 5, Options::default());
    group.run(100);
    group.nodes.get_mut(&OTHER).expect("it exists").up = false;
    group.produce(ME, 5);
    group.run(20);
    group.nodes.get_mut(&ME).expect("it exists").target = Some(set(&[1, 2], &[]));
    group.run(500);
    assert_eq!(group.node(1).raft.voter_set(), &set(&[1], &[2]), "it lags");
    group.nodes.get_mut(&OTHER).expect("it exists").up = true;
    group.run(1_000);
    assert_eq!(group.node(1).raft.voter_set(), &set(&[1, 2], &[]));
    group.assert_converged();
}

#[test]
fn thesis_6_2_a_leader_without_a_majority_steps_down() {
    let options = Options::default();
    let mut group = Group::new(&[1, 2, 3], &[], 5, options);
    group.run(200);
    for cut in [OTHER, THIRD] {
        group.nodes.get_mut(&cut).expect("it exists").up = false;
    }
    group.run(options.election_ms_max - options.heartbeat_ms * 2);
    assert!(group.node(1).raft.is_leader(), "not before the time-out");
    group.run(options.election_ms_max);
    assert!(!group.node(1).raft.is_leader());
}

#[test]
fn thesis_9_6_a_replica_that_was_cut_off_raises_no_term() {
    let mut raft = sound(&[1], 1);
    let mut now = 0;
    for _ in 0..20 {
        now = raft.next_deadline().0.max(now + 1);
        raft.tick(Millis(now));
    }
    assert_eq!(raft.term(), Term(1));
    assert_eq!(raft.take_dirty_hard_state(), None);
}

#[test]
fn a_host_that_slept_listens_before_it_stands() {
    let mut raft = sound(&[1], 1);
    let deadline = raft.next_deadline().0;
    raft.tick(Millis(deadline + 500));
    assert_eq!(said(&mut raft), [], "it was this host that was late");
    raft.tick(raft.next_deadline());
    assert_eq!(said(&mut raft).len(), 2);
}

#[test]
fn a_suspect_neither_votes_nor_stands_until_it_has_what_is_committed() {
    let mut raft = replica(&[1, 1], (1, None), Suspicion::LostTail);
    assert!(!ask(&mut raft, 1, OTHER, 2, Ballot::Real, at(9, 9)));
    assert!(!ask(&mut raft, 1, OTHER, 9, Ballot::Pre, at(9, 9)));
    raft.tick(raft.next_deadline());
    assert_eq!(raft.take_dirty_hard_state().map(|hard| hard.term), Some(Term(2)), "only adopted");
    append(&mut raft, 3, at(1, 2), 2, &[]);
    assert!(raft.is_suspect(), "the leader has committed nothing of its own term yet");
    append(&mut raft, 3, at(1, 2), 4, &[3]);
    assert!(raft.is_suspect(), "the leader has committed more than came");
    append(&mut raft, 3, at(3, 3), 4, &[3]);
    assert!(raft.is_suspect(), "a power cut would take it again");
    raft.flushed(Millis(2), LogIndex(3));
    assert!(raft.is_suspect(), "half of it still");
    append(&mut raft, 3, at(3, 4), 5, &[3]);
    raft.flushed(Millis(3), LogIndex(4));
    assert!(!raft.is_suspect(), "what was committed since it never counted");
}

#[test]
fn a_suspect_by_an_interval_is_cleared_by_what_it_appended() {
    let mut raft = replica(&[1, 1], (1, None), Suspicion::LostTail);
    append(&mut raft, 3, at(1, 2), 3, &[3]);
    assert!(raft.is_suspect(), "it does not vouch for it yet");
    let options = Options { counts: Counts::Appended, ..Options::default() };
    raft.reconfigure(Millis(2), options);
    assert!(!raft.is_suspect(), "its journal tells, should the power take it once more");
}

/// The simulator's seed 42515 of 60 s: a replica that a move had brought was trusted, lost its tail with the
/// power, was left with a set of voters of long ago in which it was alone, and led.
#[test]
fn a_newcomer_by_an_interval_is_trusted_once_its_voters_are_on_disk() {
    let mut raft = replica(&[1, 1], (1, None), Suspicion::LostIdentity);
    let options = Options { counts: Counts::Appended, ..Options::default() };
    raft.reconfigure(Millis(0), options);
    let frames = &[3, 4].map(|end| FrameSpan { term: Term(3), end: LogIndex(end) });
    let (term, prev, commit) = (Term(3), at(1, 2), LogIndex(4));
    let voter_sets = vec![(LogIndex(3), set(&[2], &[1]))];
    raft.receive_append(Millis(1), OTHER, Arrival { term, prev, commit, frames, voter_sets });
    assert!(raft.is_suspect(), "with this tail it would lose who votes");
    raft.flushed(Millis(2), LogIndex(3));
    assert!(!raft.is_suspect(), "and without the rest it is Suspect again, among the same voters");
}

#[test]
fn a_leader_by_an_interval_counts_nothing_behind_a_change_of_voters_that_it_has_not_on_disk() {
    let mut raft = leader(&[1, 1], 2);
    let options = Options { counts: Counts::Appended, ..Options::default() };
    raft.reconfigure(Millis(900), options);
    raft.receive_append_answer(Millis(900), OTHER, accepted(3, 3, 3));
    assert_eq!(raft.commit(), LogIndex(3));
    raft.appended_voters(Millis(901), LogIndex(4), set(&[1, 2], &[]));
    raft.appended(Millis(901), LogIndex(5));
    raft.receive_append_answer(Millis(902), OTHER, accepted(3, 5, 5));
    assert_eq!(raft.commit(), LogIndex(3), "both voters have it, one of them on disk");
    raft.flushed(Millis(903), LogIndex(4));
    assert_eq!(raft.commit(), LogIndex(5));
}

#[test]
fn an_append_whose_flush_takes_a_moment_is_answered_once() {
    let mut raft = sound(&[1], 1);
    append(&mut raft, 1, at(1, 1), 1, &[1]);
    assert_eq!(said(&mut raft), [], "it is not on disk yet");
    append(&mut raft, 1, at(1, 2), 1, &[1]);
    raft.flushed(Millis(2), LogIndex(2));
    assert_eq!(said(&mut raft), [RaftMessage::AppendAnswer(accepted(1, 3, 2))]);
    raft.flushed(Millis(3), LogIndex(3));
    assert_eq!(said(&mut raft), [RaftMessage::AppendAnswer(accepted(1, 3, 3))]);
    append(&mut raft, 1, at(1, 3), 3, &[]);
    assert_eq!(said(&mut raft), [RaftMessage::AppendAnswer(accepted(1, 3, 3))], "nothing to flush");
}

#[test]
fn an_append_whose_flush_takes_long_is_answered_before_it_passes_for_lost() {
    let mut raft = sound(&[1], 1);
    append(&mut raft, 1, at(1, 1), 1, &[1]);
    let by = raft.next_deadline();
    assert!(by.0 < Options::default().resend_ms);
    raft.tick(Millis(by.0 - 1));
    assert_eq!(said(&mut raft), []);
    raft.tick(by);
    assert_eq!(said(&mut raft), [RaftMessage::AppendAnswer(accepted(1, 2, 1))]);
    assert!(raft.next_deadline() > by, "said once");
}

#[test]
fn a_newcomer_vouches_for_nothing_before_it_is_trusted() {
    let mut raft = replica(&[1, 1], (1, None), Suspicion::LostIdentity);
    let learns = set(&[2], &[1]);
    let frames = &[FrameSpan { term: Term(3), end: LogIndex(3) }];
    let (term, prev) = (Term(3), at(1, 2));
    let voter_sets = vec![(LogIndex(3), learns)];
    let arrival = Arrival { term, prev, commit: LogIndex(2), frames, voter_sets };
    raft.receive_append(Millis(1), OTHER, arrival);
    raft.flushed(Millis(2), LogIndex(3));
    let (appended, flushed, vouched) = (LogIndex(3), LogIndex(3), LogIndex(0));
    let outcome = AppendOutcome::Accepted { appended, flushed, vouched, legible: Legible::All };
    let answer = AppendAnswer { term, outcome };
    assert_eq!(said(&mut raft), [RaftMessage::AppendAnswer(answer)]);
    append(&mut raft, 3, at(3, 3), 3, &[]);
    assert_eq!(said(&mut raft), [RaftMessage::AppendAnswer(accepted(3, 3, 3))]);
}

#[test]
fn a_suspect_is_cleared_by_an_idle_leader_too() {
    // The simulator's seed 13: the last append had left before the leader committed in its own term.
    let mut raft = replica(&[1, 1], (1, None), Suspicion::LostTail);
    append(&mut raft, 3, at(1, 2), 2, &[3]);
    raft.receive_heartbeat(Millis(2), OTHER, Heartbeat { term: Term(3), commit: LogIndex(3) });
    let asks = |message: &RaftMessage| matches!(message, RaftMessage::Vote(_));
    assert_eq!(said(&mut raft).iter().filter(|message| asks(message)).count(), 1);
    assert!(raft.is_suspect(), "a heartbeat may hide how much is committed");
    let mut leads = leader(&[1, 1], 2);
    leads.receive_append_answer(Millis(900), OTHER, accepted(3, 3, 3));
    while let Some(plan) = leads.next_send(Millis(901)) {
        leads.sent(Millis(901), plan.to, plan.from, LogIndex(3), 0);
    }
    leads.receive_append_answer(Millis(902), OTHER, accepted(3, 3, 3));
    let last = at(3, 3);
    let request = VoteRequest { term: Term(4), ballot: Ballot::Pre, last };
    leads.receive_vote(Millis(903), OTHER, request);
    assert!(leads.next_send(Millis(903)).is_some_and(|plan| plan.to == OTHER));
    append(&mut raft, 3, last, 3, &[]);
    raft.flushed(Millis(904), last.index);
    assert!(!raft.is_suspect());
}

#[test]
fn when_all_are_suspect_the_highest_leads() {
    let options = Options { counts: Counts::Appended, ..Options::default() };
    let mut group = Group::new(&[1, 2, 3], &[], 5, options);
    group.run(200);
    group.produce(ME, 1);
    group.run(200);
    for (id, kept) in [(1, 1), (2, 2), (3, 0)] {
        group.committed.truncate(kept.max(group.committed.len().min(2)));
        group.restart(NodeId(id), LogIndex(kept as u64), Suspicion::LostTail, 9);
    }
    group.run(5_000);
    assert_eq!(group.leader(), Some(OTHER));
    group.assert_converged();
}

#[test]
fn committed_news_is_prompt_where_followers_act_on_it() {
    let options = Options { commit_news: CommitNews::Prompt, ..Options::default() };
    let mut group = Group::new(&[1, 2, 3], &[4], 5, options);
    group.run(300);
    group.produce(ME, 1);
    group.run(30);
    for id in 1..=4 {
        assert_eq!(group.node(id).raft.commit(), LogIndex(2), "at {id}");
    }
}

#[test]
fn a_voter_that_falls_silent_leaves_the_in_sync_set() {
    let mut group = Group::new(&[1, 2, 3], &[4], 5, Options::default());
    group.run(300);
    let in_sync = |group: &Group| group.node(1).raft.in_sync(group.now).collect::<Vec<_>>();
    assert_eq!(in_sync(&group), [ME, OTHER, THIRD]);
    group.nodes.get_mut(&THIRD).expect("it exists").up = false;
    group.run(1_000);
    assert_eq!(in_sync(&group), [ME, OTHER]);
}

#[test]
fn a_log_older_than_the_leaders_is_replaced_where_they_part() {
    // Figure 7: followers that miss entries, have extra ones, or both.
    let histories: [&[u32]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    let leader_terms = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    for terms in histories {
        let mut raft = sound(terms, 7);
        let mut prev = at(6, 10);
        let mut asked = 0;
        loop {
            let next = &leader_terms[prev.index.0 as usize..];
            if append(&mut raft, 8, prev, 0, &[next, &[8]].concat()) != Intake::Nothing {
                break;
            }
            let outcome = match &said(&mut raft)[..] {
                [RaftMessage::AppendAnswer(answer)] => answer.outcome,
                other => panic!("{other:?}"),
            };
            let AppendOutcome::Rejected { at: refused, hint } = outcome else { panic!() };
            let shape = sound(&leader_terms, 7).terms().clone();
            prev = shape.last_not_above(hint.index.min(LogIndex(refused.0 - 1)), hint.term);
            asked += 1;
            assert!(asked <= 3, "one question for each term that parts them");
        }
        assert_eq!(raft.last(), at(8, 11));
    }
}
