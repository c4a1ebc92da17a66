//! What is mended, what is lost, and when nothing is given up.

use highwater_client::{ReplicaIndexes, ReplicaRole, Term};
use highwater_protocol::ids::{LogIndex, RecoveryEpoch};

use super::*;

fn stands(log_end: u64, leader: Option<u32>) -> InspectReplicaResponse {
    let index = LogIndex(log_end + 1);
    InspectReplicaResponse {
        term: Term(9),
        leader: leader.map(NodeId),
        role: ReplicaRole::Follower,
        suspect: false,
        flush_interval_ms: None,
        voters: Vec::new(),
        learners: Vec::new(),
        log_start: Offset(0),
        high_watermark: Offset(log_end),
        flushed: Offset(log_end),
        log_end: Offset(log_end),
        indexes: ReplicaIndexes { committed: index, flushed: index, appended: index },
        peers: Vec::new(),
        last_term: Term(3),
        epoch: RecoveryEpoch(0),
        batch: None,
    }
}

fn replica(node: u32, log_end: u64, lacks: &[(u64, u64)]) -> Replica {
    let unreadable = lacks.iter().map(range).collect();
    let (since_ms, next) = (None, None);
    let seen = RepairReplicaResponse { unreadable, since_ms, others: vec![], given_up: 0, next };
    Replica { node: NodeId(node), stands: Ok(stands(log_end, None)), unreadable: Ok(seen) }
}

fn range((from, until): &(u64, u64)) -> UnreadableRange {
    let (from, until) = (Offset(*from), Offset(*until));
    UnreadableRange { from, until, batches: 1, file: "a.log".to_owned() }
}

fn silent(node: u32) -> Replica {
    let why = || "cannot be reached".to_owned();
    Replica { node: NodeId(node), stands: Err(why()), unreadable: Err(why()) }
}

fn given_up(replicas: &[Replica]) -> Result<(u32, Vec<(u64, u64)>), String> {
    let name: PartitionName = "orders/3".parse().expect("a name");
    let loss = loss(&name, replicas).map_err(|failure| failure.to_string())?;
    let offsets = loss.offsets.iter().map(|range| (range.start.0, range.end.0)).collect();
    Ok((loss.founder.0, offsets))
}

#[test]
fn only_what_nobody_can_read_is_given_up_and_the_best_log_stays() {
    assert_eq!(given_up(&[replica(1, 50, &[(10, 20)])]), Ok((1, vec![(10, 20)])));
    let two_runs = [(10, 15), (15, 20)];
    let three = [replica(1, 50, &two_runs), replica(2, 60, &[(10, 20)]), replica(3, 60, &two_runs)];
    assert_eq!(given_up(&three), Ok((2, vec![(10, 20)])));
    // A replica that is not as long as that cannot have it.
    let behind = [replica(1, 50, &[(10, 20)]), replica(2, 10, &[])];
    assert_eq!(given_up(&behind), Ok((1, vec![(10, 20)])));
}

#[test]
fn what_was_given_up_before_something_failed_is_said() {
    let ranges = [10..12, 20..30, 40..45].map(|range| Offset(range.start)..Offset(range.end));
    let said = cut_short_line("orders/3", 1_012, &ranges[..2], &ranges[2..]);
    assert!(said.contains("1,012 records of offsets 10 to 30 (exclusive) are given up"), "{said}");
    assert!(said.contains("of offsets 40 to 45 (exclusive) some may be"), "{said}");
    let said = cut_short_line("orders/3", 0, &[], &ranges);
    assert!(said.starts_with("orders/3: of offsets 10 to 45 (exclusive) some may be"), "{said}");
}

#[test]
fn nothing_is_given_up_that_may_be_had() {
    let refused = |replicas: &[Replica], why: &str| {
        let error = given_up(replicas).expect_err("refused");
        assert!(error.contains(why), "{error}");
    };
    refused(&[replica(1, 50, &[(10, 20)]), replica(2, 50, &[])], "can be read elsewhere");
    // A part of it.
    refused(&[replica(1, 50, &[(10, 20)]), replica(2, 50, &[(15, 30)])], "can be read elsewhere");
    refused(&[replica(1, 50, &[(10, 20)]), replica(2, 12, &[])], "can be read elsewhere");
    refused(&[replica(1, 50, &[(10, 20)]), silent(2)], "broker 2 does not answer");
    refused(&[replica(1, 50, &[]), replica(2, 50, &[])], "nobody has found anything");
    let mut led = [replica(1, 50, &[(10, 20)]), replica(2, 50, &[(10, 20)])];
    led[1].stands = Ok(stands(50, Some(2)));
    refused(&led, "broker 2 leads it");
}

#[test]
fn what_lies_behind_all_that_a_broker_told_may_be_read_there_and_there_is_more_of_it() {
    let mut cut_short = replica(2, 50, &[(1, 5)]);
    cut_short.unreadable.as_mut().expect("it answers").next = Some(Offset(10));
    let two = [replica(1, 50, &[(12, 20)]), cut_short];
    assert_eq!(way(&two, NodeId(1), &range(&(12, 20))), Way::Perhaps(vec![NodeId(2)]));
    let name: PartitionName = "orders/3".parse().expect("a name");
    let told = lines(&name, &two).join("\n");
    assert!(told.contains("broker 2 cannot read more, from offset 10 on"), "{told}");
}

#[test]
fn people_are_told_how_much_was_given_up_and_when_that_is_nothing() {
    let done = |records, twice| given_up_line("orders/3", records, twice);
    assert!(done(12_000, Asked::Once).contains("12,000 records were given up"));
    assert!(done(0, Asked::Once).contains("nothing was given up"), "{}", done(0, Asked::Once));
    assert!(done(0, Asked::Again).contains("an earlier try"), "{}", done(0, Asked::Again));
}

#[test]
fn only_what_passes_by_itself_is_tried_again() {
    let refused = |code| passes(ErrorKind::Refused(code));
    for code in [ErrorCode::Conflict, ErrorCode::RequestTimedOut, ErrorCode::NotLeader] {
        assert!(refused(code), "{code}");
    }
    for code in [ErrorCode::DiskFull, ErrorCode::StorageFailed, ErrorCode::InvalidRequest] {
        assert!(!refused(code), "{code}");
    }
    assert!(passes(ErrorKind::TimedOut) && !passes(ErrorKind::Identity));
}

#[test]
fn people_are_told_what_happens_by_itself() {
    let name: PartitionName = "orders/3".parse().expect("a name");
    let told = |replicas: &[Replica]| lines(&name, replicas).join("\n");
    let mended = told(&[replica(1, 50, &[(10, 20)]), replica(2, 50, &[])]);
    assert!(mended.contains("of broker 1 are mended by themselves, from broker 2"), "{mended}");
    let waits = told(&[replica(1, 50, &[(10, 20)]), silent(2)]);
    assert!(waits.contains("once broker 2 answers"), "{waits}");
    let lost = told(&[replica(1, 50, &[(10, 20)])]);
    assert!(lost.contains("`hw partition repair orders/3 --accept-loss`"), "{lost}");
}
