//! Voters are led from one set to another, for replicas that move.

use highwater_protocol::ids::NodeId;

use super::group::{Group, set};
use crate::raft::Options;

const ME: NodeId = NodeId(1);
const THIRD: NodeId = NodeId(3);

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
