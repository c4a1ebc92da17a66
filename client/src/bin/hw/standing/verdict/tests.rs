//! Every word about a record, from made-up replicas.

use highwater_client::{ReplicaIndexes, Term, Timestamp};
use highwater_protocol::ids::{LogIndex, RecoveryEpoch};

use super::*;

/// A replica of three; in this log there are no marks, so that indexes are offsets.
fn replica(node: u32, role: ReplicaRole, committed: u64, flushed: u64, end: u64) -> Seen {
    let answer = InspectReplicaResponse {
        term: Term(4),
        leader: Some(NodeId(1)),
        role,
        suspect: false,
        flush_interval_ms: None,
        voters: [1, 2, 3].map(NodeId).to_vec(),
        learners: Vec::new(),
        log_start: Offset(10),
        high_watermark: Offset(committed),
        flushed: Offset(flushed),
        log_end: Offset(end),
        indexes: ReplicaIndexes {
            committed: LogIndex(committed),
            flushed: LogIndex(flushed),
            appended: LogIndex(end),
        },
        last_term: Term(4),
        epoch: RecoveryEpoch(0),
        peers: Vec::new(),
        batch: None,
    };
    Seen { node: NodeId(node), fenced: false, answer: Ok(answer) }
}

/// The same replicas, asked for this offset: batches hold one record each.
fn asked(offset: u64, mut seen: Vec<Seen>) -> Vec<Seen> {
    for answer in seen.iter_mut().flat_map(|seen| &mut seen.answer) {
        answer.batch = (offset < answer.log_end.0).then_some(HeldBatch {
            base: Offset(offset),
            end: Offset(offset + 1),
            end_index: LogIndex(offset + 1),
            term: Term(3),
            timestamps: (Timestamp(0), Timestamp(0)),
            checksum: 7,
        });
    }
    seen
}

fn three() -> Vec<Seen> {
    vec![
        replica(1, ReplicaRole::Leader, 20, 22, 25),
        replica(2, ReplicaRole::Follower, 18, 20, 22),
        replica(3, ReplicaRole::Follower, 15, 15, 15),
    ]
}

fn verdict(offset: u64, seen: Vec<Seen>) -> (&'static str, String) {
    let verdict = of_offset("orders/3", Offset(offset), &asked(offset, seen)).expect("it is there");
    (verdict.word, verdict.words.join(" "))
}

#[test]
fn a_record_that_any_replica_calls_committed_is_committed_and_said_to_be_safe() {
    let (word, words) = verdict(19, three());
    assert_eq!(word, "committed");
    for part in ["leader of term 3", "On disk at brokers 1,2.", "Safe", "loss of any 1 of its 3"] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[test]
fn a_record_that_too_few_count_is_not_committed_and_the_reason_is_named() {
    let mut seen = three();
    seen[2].answer = Err("node 3 did not answer in 3s".to_owned());
    seen[2].fenced = true;
    let (word, words) = verdict(21, seen);
    assert_eq!(word, "uncommitted");
    for part in ["1 of 3 voters count it (1), 2 are needed", "not flushed at brokers 2", "fenced"] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[test]
fn what_only_a_deposed_leader_has_is_abandoned() {
    let mut seen = three();
    seen[0] = replica(1, ReplicaRole::Follower, 20, 25, 25);
    seen[1] = replica(2, ReplicaRole::Leader, 20, 22, 22);
    let (word, words) = verdict(23, seen);
    assert_eq!(word, "abandoned");
    assert!(words.contains("broker 2, which leads: brokers 1 cut it away"), "{words}");
    let mut seen = three();
    seen[0] = replica(1, ReplicaRole::Follower, 20, 25, 25);
    assert_eq!(verdict(23, seen).0, "undecided");
}

#[test]
fn two_committed_batches_at_one_offset_raise_the_alarm() {
    let mut seen = asked(17, three());
    let other = seen[1].answer.as_mut().expect("it answers");
    other.batch.as_mut().expect("it holds it").checksum = 8;
    let found = of_offset("orders/3", Offset(17), &seen).expect("it is there");
    assert_eq!(found.word, "diverged");
    assert!(found.words.iter().any(|line| line.starts_with("ALARM")), "{:?}", found.words);
}

#[test]
fn an_interval_is_no_promise_before_the_flush() {
    let mut seen = three();
    for answer in seen.iter_mut().flat_map(|seen| &mut seen.answer) {
        answer.flush_interval_ms = Some(100);
        answer.indexes.flushed = LogIndex(0);
    }
    let (word, words) = verdict(19, seen);
    assert_eq!(word, "committed");
    assert!(words.contains("within 100 ms of the append"), "{words}");
}

#[test]
fn offsets_that_are_no_more_or_not_yet_are_refused_with_the_range() {
    let refused = |offset| {
        let failure = of_offset("orders/3", Offset(offset), &asked(offset, three()));
        let failure = failure.expect_err("there is no such record");
        assert_eq!(failure.exit, Exit::NotFound);
        failure.to_string()
    };
    assert!(refused(9).contains("starts at offset 10"), "{}", refused(9));
    assert!(refused(25).contains("ends at offset 25"), "{}", refused(25));
}

#[test]
fn a_partition_without_a_leader_says_how_many_are_missing() {
    let mut seen = three();
    seen[0].answer = Err("no connection".to_owned());
    seen[1].answer.as_mut().expect("it answers").suspect = true;
    let words = of_partition(&seen).join(" ");
    for part in
        ["Nobody leads", "1 of 3 voters answer", "broker 2 is Suspect", "Broker 1 says nothing"]
    {
        assert!(words.contains(part), "{part}: {words}");
    }
    let words = of_partition(&three()).join(" ");
    assert!(words.contains("Broker 1 leads in term 4; 10 records are committed and 5"), "{words}");
}
