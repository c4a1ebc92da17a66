//! Which replica is chosen, when the command refuses, and what it says is lost.

use highwater_client::{ReplicaIndexes, ReplicaRole, TopicId};
use highwater_protocol::ids::{LogIndex, RecoveryEpoch};

use super::*;

fn answers(last_term: u32, log_end: u64, suspect: bool) -> Result<InspectReplicaResponse, String> {
    let index = LogIndex(log_end + 1);
    Ok(InspectReplicaResponse {
        term: Term(9),
        leader: None,
        role: ReplicaRole::Follower,
        suspect,
        flush_interval_ms: None,
        voters: Vec::new(),
        learners: Vec::new(),
        log_start: Offset(0),
        high_watermark: Offset(log_end / 2),
        flushed: Offset(log_end),
        log_end: Offset(log_end),
        indexes: ReplicaIndexes { committed: index, flushed: index, appended: index },
        peers: Vec::new(),
        last_term: Term(last_term),
        epoch: RecoveryEpoch(0),
        batch: None,
    })
}

fn down() -> Result<InspectReplicaResponse, String> {
    Err("cannot be reached".to_owned())
}

/// A partition with a replica on brokers 1, 2 and so on; who does not answer is fenced.
fn case(answers: Vec<Result<InspectReplicaResponse, String>>) -> Case {
    let seen = |(at, answer): (usize, Result<InspectReplicaResponse, String>)| Seen {
        node: NodeId(at as u32 + 1),
        fenced: answer.is_err(),
        since: None,
        answer,
    };
    let replicas = (1..=answers.len() as u32).map(NodeId).collect();
    let partition = TopicPartition::new(TopicId::CLUSTER, PartitionId(3));
    let name = PartitionName { topic: "orders".to_owned(), partition: 3 };
    Case { name, partition, replicas, seen: answers.into_iter().enumerate().map(seen).collect() }
}

#[test]
fn the_replica_with_the_newest_term_and_then_the_longest_log_goes_on() {
    let lost = case(vec![answers(2, 90, false), answers(3, 80, true), down(), down(), down()]);
    assert_eq!(choose(&lost, None).expect("a majority is lost"), NodeId(2));
    let lost = case(vec![answers(3, 70, false), answers(3, 80, true), down()]);
    assert_eq!(choose(&lost, None).expect("a majority is lost"), NodeId(2));
    assert_eq!(choose(&lost, Some(NodeId(1))).expect("it has one"), NodeId(1));
    assert!(choose(&lost, Some(NodeId(7))).is_err());
    assert!(choose(&case(vec![down(), down()]), None).is_err(), "there is nothing to go on with");
}

#[test]
fn a_partition_with_a_majority_is_left_alone() {
    let alive = case(vec![answers(2, 90, false), answers(2, 80, false), down()]);
    let refused = choose(&alive, Some(NodeId(1))).expect_err("two of three can elect").to_string();
    assert!(
        refused.contains("1,2") && refused.contains("hw partition explain orders/3"),
        "{refused}"
    );
}

#[test]
fn who_votes_is_what_the_logs_say() {
    let voting = |voters: &[u32], log_end| {
        let mut answer = answers(3, log_end, false).expect("it answers");
        answer.voters = voters.iter().copied().map(NodeId).collect();
        Ok(answer)
    };
    // The controller has yet to hear that a move brought the votes to brokers 3, 4 and 5.
    let moved = voting(&[3, 4, 5], 90);
    let mut alive = case(vec![down(), down(), moved.clone(), voting(&[1, 2, 3], 80), down()]);
    alive.replicas.truncate(3);
    assert!(
        choose(&alive, None).expect_err("3 and 4 elect one").to_string().contains("3,4 of 3,4,5")
    );
    // Of the old set two are alive, and only one of those that vote now.
    let mut lost = case(vec![voting(&[1, 2, 3, 4, 5], 70), moved, down(), down(), down()]);
    lost.replicas.truncate(3);
    assert_eq!(choose(&lost, None).expect("neither set has a majority"), NodeId(2));
}

#[test]
fn what_is_lost_is_said_with_offsets() {
    let lost = case(vec![answers(3, 70, false), answers(2, 80, true), down()]);
    let said = lines(&lost, NodeId(1)).join("\n");
    for part in [
        "broker 1: log end 70, high watermark 35, last written in term 3 <- goes on with this",
        "broker 2: log end 80, high watermark 40, last written in term 2, may have forgotten",
        "broker 3: its broker is down (fenced)",
        "kept: offsets 0 up to 70 (exclusive), of which broker 1 knew those before 35",
        "lost: every record from offset 70 on",
        "lost: 10 records that broker 2 still has, offsets 70 up to 80; --broker 2 keeps them",
        "if 3 still run somewhere out of reach",
    ] {
        assert!(said.contains(part), "{part}\nis not in\n{said}");
    }
}
