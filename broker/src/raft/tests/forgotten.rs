//! A voter that forgot its votes: its word of a later term is broken by no leader of an earlier one.

use highwater_protocol::ids::{LogIndex, NodeId};

use super::super::{Options, Suspicion};
use super::group::Group;

const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);

fn three() -> Group {
    let mut group = Group::new(&[1, 2, 3], &[], 5, Options::default());
    group.run(200);
    assert_eq!(group.leader(), Some(FIRST));
    group.produce(FIRST, 1);
    group.run(200);
    group
}

#[test]
fn a_leader_that_was_passed_by_commits_nothing_with_a_voter_that_forgot_it() {
    let mut group = three();
    // The first stands still, with the others' words of a moment ago; they elect, and go on.
    let passed_by = group.nodes.remove(&FIRST).expect("it leads");
    group.run(5_000);
    assert!(group.produce(group.leader().expect("two of three"), 1));
    group.run(200);
    let committed = group.committed.len();
    // Nobody hears the second any more, and the third comes back with nothing.
    group.nodes.get_mut(&SECOND).expect("it exists").up = false;
    group.letters.clear();
    group.restart(THIRD, LogIndex(0), Suspicion::LostIdentity, 9);
    group.nodes.insert(FIRST, passed_by);
    let now = group.now;
    group.nodes.get_mut(&FIRST).expect("it is back").raft.starved(now, 5_000);
    group.produce(FIRST, 1);
    group.run(300);
    assert_eq!(group.committed.len(), committed, "nobody else has it, and it is no majority");
    group.nodes.get_mut(&SECOND).expect("it exists").up = true;
    group.run(5_000);
    group.assert_converged();
    assert!(group.node(3).is_sound(), "its leader was elected without it");
}

#[test]
fn a_leader_wins_once_more_for_a_voter_that_forgot_its_votes_and_then_counts_it() {
    let mut group = three();
    let (elections, term) = (group.elections, group.node(1).raft.term());
    group.restart(THIRD, LogIndex(0), Suspicion::LostIdentity, 9);
    group.run(1_000);
    assert_eq!((group.leader(), group.elections), (Some(FIRST), elections + 1));
    assert_eq!(group.node(1).raft.term(), term.next());
    assert!(group.node(3).is_sound());
    group.assert_converged();
}

#[test]
fn a_leader_keeps_its_term_while_it_could_not_win_without_the_voter_that_asks() {
    let mut group = three();
    let term = group.node(1).raft.term();
    group.nodes.get_mut(&SECOND).expect("it exists").up = false;
    group.run(2_000);
    group.restart(THIRD, LogIndex(0), Suspicion::LostIdentity, 9);
    group.run(2_000);
    assert_eq!(group.node(1).raft.term(), term);
    group.nodes.get_mut(&SECOND).expect("it exists").up = true;
    group.run(5_000);
    assert!(group.node(3).is_sound());
    group.assert_converged();
}

#[test]
fn of_two_voters_the_leader_counts_the_forgetful_one_at_once() {
    let mut group = Group::new(&[1, 2], &[], 5, Options::default());
    group.run(200);
    assert_eq!(group.leader(), Some(FIRST));
    group.produce(FIRST, 1);
    group.run(200);
    let term = group.node(1).raft.term();
    group.restart(SECOND, LogIndex(0), Suspicion::LostIdentity, 9);
    group.run(500);
    assert_eq!((group.leader(), group.node(1).raft.term()), (Some(FIRST), term));
    assert!(group.node(2).is_sound(), "every majority has the leader in it");
    group.assert_converged();
}

/// The first that it hears is not the only one that others passed by.
#[test]
fn a_leader_that_was_passed_by_is_no_better_for_being_newer_than_another() {
    let mut group = Group::new(&[1, 2, 3, 4, 5], &[], 5, Options::default());
    group.run(200);
    let mut passed_by = Vec::new();
    for _ in 0..2 {
        let leader = group.leader().filter(|leader| *leader != THIRD);
        let leader = leader.expect("the third is slow to stand with this seed");
        passed_by.push((leader, group.nodes.remove(&leader).expect("it leads")));
        group.letters.clear();
        group.run(5_000);
    }
    let newest = group.leader().expect("three of five");
    assert!(group.produce(newest, 1));
    group.run(200);
    let committed = group.committed.len();
    for (id, node) in &mut group.nodes {
        node.up = *id == THIRD;
    }
    group.letters.clear();
    group.restart(THIRD, LogIndex(0), Suspicion::LostIdentity, 9);
    let now = group.now;
    for (id, mut node) in passed_by {
        node.raft.starved(now, 5_000);
        group.nodes.insert(id, node);
        group.run(50);
    }
    let second = group.leader().expect("one of them");
    group.produce(second, 1);
    group.run(300);
    assert_eq!(group.committed.len(), committed, "what was committed is not committed over");
}
