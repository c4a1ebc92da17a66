//! Starting anew where the leader's log starts: Raft paper, section 7, with next to no snapshot.

use highwater_protocol::ids::{LogIndex, NodeId, Position, Term};
use highwater_protocol::peer::{Ballot, RaftMessage, VoteRequest};

use super::super::{
    Arrival, FrameSpan, HardState, Intake, Millis, Options, Raft, Start, Suspicion, TermStart,
    TermStarts,
};
use super::group::set;

const LEADER: NodeId = NodeId(2);

fn at(term: u32, index: u64) -> Position {
    Position { term: Term(term), index: LogIndex(index) }
}

/// Replica 1 of three, with five entries of term 1 and two of term 3 behind them.
fn replica(suspicion: Suspicion) -> Raft {
    let start = |term, start| TermStart { term: Term(term), start: LogIndex(start) };
    let starts = vec![start(1, 0), start(3, 5)];
    let start = Start {
        me: NodeId(1),
        hard: HardState { term: Term(3), vote: None },
        term_min: Term(0),
        terms: TermStarts::new(Position::default(), starts, LogIndex(7)),
        flushed: LogIndex(7),
        made_with: set(&[1, 2, 3], &[]),
        changes: Vec::new(),
        suspicion,
        seed: 7,
    };
    Raft::new(start, Options::default(), Millis(0))
}

#[test]
fn a_log_is_given_up_only_where_nothing_joins_on_and_for_no_older_leader() {
    let raft = replica(Suspicion::None);
    assert!(raft.must_start_anew(Term(4), at(4, 20)), "it ends before");
    assert!(raft.must_start_anew(Term(4), at(2, 6)), "another leader's entry lies there");
    assert!(!raft.must_start_anew(Term(4), at(1, 4)), "it has that entry");
    assert!(!raft.must_start_anew(Term(2), at(4, 20)), "an older leader decides nothing");
}

#[test]
fn a_log_that_starts_anew_takes_place_commit_and_voters_and_goes_on_from_there() {
    let mut raft = replica(Suspicion::None);
    let voters = set(&[1, 2, 4], &[]);
    raft.started_anew(Millis(1), LEADER, Term(4), at(4, 20), Some((LogIndex(15), voters.clone())));
    assert_eq!(
        (raft.last(), raft.commit(), raft.flushed_end()),
        (at(4, 20), LogIndex(20), LogIndex(20))
    );
    assert_eq!(raft.voter_set(), &voters);
    let frames = &[FrameSpan { term: Term(4), end: LogIndex(21) }];
    let (term, prev, commit) = (Term(4), at(4, 20), LogIndex(21));
    let arrival = Arrival { term, prev, commit, frames, voter_sets: Vec::new() };
    assert_eq!(
        raft.receive_append(Millis(2), LEADER, arrival),
        Intake::Store { cut: None, skip: 0 }
    );
    assert_eq!((raft.last(), raft.commit()), (at(4, 21), LogIndex(21)));
    assert!(!raft.must_start_anew(Term(4), at(4, 20)), "a repeat finds that it joins on");
}

#[test]
fn a_replica_that_started_anew_votes_for_nobody_who_lacks_what_was_given_up() {
    let mut raft = replica(Suspicion::None);
    raft.started_anew(Millis(1), LEADER, Term(4), at(4, 20), None);
    let last = at(3, 30);
    let request = VoteRequest { term: Term(5), ballot: Ballot::Transfer, last };
    raft.receive_vote(Millis(2), NodeId(3), request);
    let votes = raft.take_messages().into_iter().filter_map(|sent| match sent.message {
        RaftMessage::VoteAnswer(answer) => Some(answer.granted),
        RaftMessage::Vote(_)
        | RaftMessage::Append(_)
        | RaftMessage::AppendAnswer(_)
        | RaftMessage::Heartbeat(_)
        | RaftMessage::HeartbeatAnswer(_)
        | RaftMessage::TimeoutNow { .. }
        | RaftMessage::Wanted(_)
        | RaftMessage::Found(_) => None,
    });
    assert_eq!(votes.collect::<Vec<_>>(), [false]);
}

#[test]
fn a_suspect_stays_suspect_when_it_starts_anew_until_it_caught_up() {
    let mut raft = replica(Suspicion::LostTail);
    raft.started_anew(Millis(1), LEADER, Term(4), at(3, 20), None);
    assert!(raft.is_suspect(), "it may have counted entries behind that place");
    let frames = &[FrameSpan { term: Term(4), end: LogIndex(21) }];
    let (term, prev, commit) = (Term(4), at(3, 20), LogIndex(21));
    let arrival = Arrival { term, prev, commit, frames, voter_sets: Vec::new() };
    raft.receive_append(Millis(2), LEADER, arrival);
    raft.flushed(Millis(3), LogIndex(21));
    assert!(!raft.is_suspect(), "it has all that a leader committed in its own term");
}
