//! Voters are led from one set to another, for replicas that move.

use highwater_protocol::ids::NodeId;
use highwater_protocol::peer::{AppendAnswer, AppendOutcome, RaftMessage};

use super::group::{Group, Letter, Payload, set};
use crate::raft::Options;

const ME: NodeId = NodeId(1);
const THIRD: NodeId = NodeId(3);
const FOURTH: NodeId = NodeId(4);

#[test]
fn a_learner_gets_its_vote_although_its_word_of_the_flush_was_lost() {
    let mut group = Group::new(&[1, 2, 3], &[4], 5, Options::default());
    group.run(1_000);
    let leader = group.leader().expect("one is elected");
    assert!(group.produce(leader, 1));
    for _ in 0..6 {
        for letter in std::mem::take(&mut group.letters) {
            if !is_word_of_the_flush(&letter) {
                group.deliver(letter);
            }
        }
        [1, 2, 3, 4].into_iter().for_each(|id| group.flush(NodeId(id)));
    }
    group.letters.clear();
    let committed = group.nodes[&leader].raft.commit();
    assert_eq!(group.flushed_end(FOURTH), committed, "it is there, and nobody knows");
    group.nodes.get_mut(&leader).expect("it exists").target = Some(set(&[1, 2, 3, 4], &[]));
    group.run(1_000);
    assert!(group.nodes[&leader].raft.voter_set().voters.contains(&FOURTH));
    group.assert_converged();
}

fn is_word_of_the_flush(letter: &Letter) -> bool {
    let Payload::Raft(RaftMessage::AppendAnswer(AppendAnswer { outcome, .. })) = &letter.payload
    else {
        return false;
    };
    let whole =
        matches!(outcome, AppendOutcome::Accepted { appended, flushed, .. } if appended == flushed);
    letter.from == FOURTH && whole
}

#[test]
fn nobody_loses_a_vote_without_whom_the_others_would_stand_still() {
    let mut group = Group::new(&[1, 2, 3], &[], 5, Options::default());
    group.run(200);
    group.nodes.get_mut(&THIRD).expect("it exists").up = false;
    group.run(1_000);
    group.nodes.get_mut(&ME).expect("it exists").target = Some(set(&[1, 3], &[]));
    group.run(500);
    let raft = &group.node(1).raft;
    assert_eq!(raft.voter_set(), &set(&[1, 2, 3], &[]), "1 and 3 could commit nothing");
    assert!(raft.is_leader());
    group.nodes.get_mut(&THIRD).expect("it exists").up = true;
    group.run(1_000);
    assert_eq!(group.node(1).raft.voter_set(), &set(&[1, 3], &[]));
    group.assert_converged();
}
