//! One bad history for each anomaly, made by hand, and good ones that look suspicious.

use std::collections::BTreeMap;

use highwater_client::{AckMode, NodeId, Offset, PartitionId};

use super::file::{Reader, Writer};
use super::{
    Anomaly, Checker, Drained, Ending, Op, Outcome, Poll, PollKind, Process, Report, Seen, Send,
};
use crate::workload::{Nanos, RecordId};

use Anomaly::{
    AbortedRead, Divergence, Duplicate, InconsistentOffset, InternalNonmonotonicPoll,
    InternalPollSkip, LostMiddle, LostPrefix, LostTail, NonmonotonicPoll, NonmonotonicSend,
    PollSkip, RealTime, UnexpectedRead, Unseen,
};
use Outcome::{Fail, Info, Ok};
use PollKind::{Final, Replica, Tail};

const READER: u32 = 9;

/// Record `sequence` of producer 1 in partition 0, sent in the millisecond of its number.
fn sent(sequence: u64, outcome: Outcome) -> Op {
    sent_at(sequence, outcome, (sequence * 10, sequence * 10 + 5))
}

fn sent_at(sequence: u64, outcome: Outcome, (invoke, complete): (u64, u64)) -> Op {
    Op::Send(Send {
        process: Process(1),
        partition: PartitionId(0),
        id: RecordId::new(1, sequence),
        acks: AckMode::SemiSync,
        invoke: Nanos(invoke),
        complete: Nanos(complete),
        outcome,
    })
}

fn ok(offset: u64) -> Outcome {
    Ok(Offset(offset))
}

fn with_acks(op: Op, acks: AckMode) -> Op {
    match op {
        Op::Send(send) => Op::Send(Send { acks, ..send }),
        other => other,
    }
}

/// What one reader of partition 0 gets in one poll, as (offset, sequence).
fn polled(kind: PollKind, records: &[(u64, u64)]) -> Op {
    polled_by(READER, 0, kind, records)
}

fn polled_by(process: u32, partition: u32, kind: PollKind, records: &[(u64, u64)]) -> Op {
    let seen = |(offset, sequence): &(u64, u64)| Seen {
        offset: Offset(*offset),
        id: Some(RecordId::new(1, *sequence)),
    };
    Op::Poll(Poll {
        process: Process(process),
        partition: PartitionId(partition),
        kind,
        invoke: Nanos(1_000),
        complete: Nanos(1_001),
        records: records.iter().map(seen).collect(),
    })
}

fn drained(kind: PollKind, end: u64) -> Op {
    let (process, partition) = (Process(READER), PartitionId(0));
    Op::Drained(Drained { process, partition, kind, end: Offset(end), at: Nanos(2_000) })
}

/// Sends of the sequences 0.. that were acknowledged at the offsets of the same number.
fn all_sent(count: u64) -> Vec<Op> {
    (0..count).map(|sequence| sent(sequence, ok(sequence))).collect()
}

fn judge(ops: &[Op]) -> Report {
    let mut checker = Checker::default();
    ops.iter().for_each(|op| checker.take(op));
    let mut report = checker.finish(Ending::Closed);
    let ops: BTreeMap<u32, Op> = (0..).zip(ops.iter().cloned()).collect();
    report.prove(&ops);
    report
}

/// These anomalies are found, each so often, and no other; each is proved by operations.
fn check(ops: impl IntoIterator<Item = Op>, expected: &[(Anomaly, u64)]) {
    let ops: Vec<Op> = ops.into_iter().collect();
    let report = judge(&ops);
    let found: Vec<(Anomaly, u64)> =
        report.anomalies.iter().map(|(anomaly, finding)| (*anomaly, finding.count)).collect();
    assert_eq!(found, expected, "{}", report.page());
    for example in report.anomalies.values().flat_map(|finding| &finding.examples) {
        assert!(!example.proof.is_empty(), "{} has no proof", example.what);
        assert_eq!(example.proof.len(), example.ops.len(), "{}", report.page());
    }
}

fn chain(first: Vec<Op>, rest: &[Op]) -> Vec<Op> {
    first.into_iter().chain(rest.iter().cloned()).collect()
}

#[test]
fn a_good_history_is_clean() {
    let polls = [
        polled(Tail, &[(0, 0), (1, 1)]),
        polled(Tail, &[(2, 2)]),
        polled_by(10, 0, Final, &[(0, 0), (1, 1), (2, 2)]),
        drained(Final, 3),
        polled_by(11, 0, Replica(NodeId(1)), &[(0, 0), (1, 1), (2, 2)]),
        drained(Replica(NodeId(1)), 3),
        drained(Replica(NodeId(2)), 3),
    ];
    let report = judge(&chain(all_sent(3), &polls));
    assert!(report.is_clean(), "{}", report.page());
    assert_eq!((report.sends, report.acked["semi-sync"], report.records_read), (3, 3, 9));
}

#[test]
fn a_record_may_be_read_before_its_acknowledgement_arrives() {
    check([polled(Tail, &[(0, 0)]), sent(0, ok(0))], &[]);
}

#[test]
fn a_record_of_unknown_fate_may_be_there_or_not() {
    check([sent(0, Info), sent(1, ok(0)), polled(Final, &[(0, 1)]), drained(Final, 1)], &[]);
    check([sent(0, Info), polled(Final, &[(0, 0)]), drained(Final, 1)], &[]);
}

#[test]
fn an_offset_with_two_values_is_found() {
    let reads = [polled(Tail, &[(0, 0)]), polled_by(10, 0, Tail, &[(0, 1)])];
    check(chain(vec![sent(0, Info), sent(1, Info)], &reads), &[(InconsistentOffset, 1)]);
    // Two acknowledgements of one offset, none of it read.
    check([sent(0, ok(0)), sent(1, ok(0))], &[(InconsistentOffset, 1)]);
}

#[test]
fn a_value_in_two_places_is_found() {
    check([sent(0, Info), polled(Tail, &[(0, 0), (1, 0)])], &[(Duplicate, 1)]);
    let partitions = [polled(Tail, &[(0, 0)]), polled_by(READER, 1, Tail, &[(0, 0)])];
    check(chain(vec![sent(0, Info)], &partitions), &[(Duplicate, 1)]);
}

#[test]
fn a_value_elsewhere_than_acknowledged_is_found_in_either_order() {
    check([sent(0, ok(5)), polled(Tail, &[(6, 0)])], &[(Duplicate, 1)]);
    check([polled(Tail, &[(6, 0)]), sent(0, ok(5))], &[(Duplicate, 1)]);
}

#[test]
fn a_failed_write_that_shows_up_is_found() {
    check([sent(0, Fail), polled(Tail, &[(0, 0)])], &[(AbortedRead, 1)]);
    check([polled(Tail, &[(0, 0)]), sent(0, Fail)], &[(AbortedRead, 1)]);
}

#[test]
fn a_value_that_nobody_sent_is_found_unless_the_history_is_cut_off() {
    let ops = [polled(Tail, &[(0, 0)])];
    check(ops.clone(), &[(UnexpectedRead, 1)]);
    let mut checker = Checker::default();
    checker.take(&ops[0]);
    assert!(checker.finish(Ending::CutOff).is_clean());
}

#[test]
fn a_loss_is_found_and_placed() {
    let lost = |kept: &[u64]| {
        let records: Vec<(u64, u64)> = kept.iter().map(|number| (*number, *number)).collect();
        chain(all_sent(5), &[polled(Final, &records), drained(Final, 5)])
    };
    check(lost(&[2, 3, 4]), &[(LostPrefix, 2)]);
    check(lost(&[0, 1, 4]), &[(LostMiddle, 2), (InternalPollSkip, 1)]);
    check(lost(&[0, 1, 2]), &[(LostTail, 2)]);
}

#[test]
fn below_what_was_read_a_loss_is_found_without_a_final_reading() {
    let reads = [polled(Tail, &[(0, 0)]), polled_by(10, 0, Tail, &[(2, 2)])];
    check(chain(all_sent(3), &reads), &[(LostMiddle, 1)]);
    check(chain(all_sent(3), &[polled(Tail, &[(0, 0)])]), &[]);
}

#[test]
fn a_record_that_was_read_and_is_gone_is_lost_whoever_acknowledged_it() {
    let reads =
        [polled(Tail, &[(0, 0), (1, 1)]), polled_by(10, 0, Final, &[(0, 0)]), drained(Final, 1)];
    check(chain(vec![sent(0, Info), sent(1, Info)], &reads), &[(LostTail, 1)]);
}

#[test]
fn an_acknowledged_record_behind_the_end_is_unseen() {
    let reads = [polled(Final, &[(0, 0)]), drained(Final, 1)];
    check(chain(all_sent(3), &reads), &[(Unseen, 2)]);
}

#[test]
fn an_async_acknowledgement_may_be_lost_and_its_offset_given_again() {
    let ops = [
        with_acks(sent(0, ok(0)), AckMode::Async),
        sent(1, ok(0)),
        polled(Final, &[(0, 1)]),
        drained(Final, 1),
    ];
    let report = judge(&ops);
    assert!(report.is_clean(), "{}", report.page());
    assert_eq!(report.async_lost, 1);
}

#[test]
fn an_async_record_that_was_read_must_stay() {
    let ops =
        [with_acks(sent(0, ok(0)), AckMode::Async), polled(Tail, &[(0, 0)]), drained(Final, 0)];
    check(ops, &[(LostTail, 1)]);
}

#[test]
fn a_reader_that_leaves_out_is_found() {
    let within = [polled(Tail, &[(0, 0), (2, 2)]), polled_by(10, 0, Tail, &[(1, 1)])];
    check(chain(all_sent(3), &within), &[(InternalPollSkip, 1)]);
    let across =
        [polled(Tail, &[(0, 0)]), polled(Tail, &[(2, 2)]), polled_by(10, 0, Tail, &[(1, 1)])];
    check(chain(all_sent(3), &across), &[(PollSkip, 1)]);
}

#[test]
fn a_reader_that_goes_back_or_repeats_is_found() {
    let within = [polled(Tail, &[(0, 0), (1, 1), (0, 0), (1, 1)])];
    check(chain(all_sent(2), &within), &[(InternalNonmonotonicPoll, 1)]);
    let across = [polled(Tail, &[(0, 0), (1, 1)]), polled(Tail, &[(1, 1)])];
    check(chain(all_sent(2), &across), &[(NonmonotonicPoll, 1)]);
}

#[test]
fn another_reader_or_partition_begins_where_it_likes() {
    let reads = [polled(Tail, &[(0, 0), (1, 1)]), polled_by(10, 0, Tail, &[(0, 0)])];
    check(chain(all_sent(2), &reads), &[]);
}

#[test]
fn a_producer_whose_records_change_places_is_found() {
    // The calls overlap, so that real time says nothing.
    let sends = vec![sent_at(0, ok(1), (0, 9)), sent_at(1, ok(0), (1, 9))];
    check(chain(sends, &[polled(Tail, &[(0, 1), (1, 0)])]), &[(NonmonotonicSend, 1)]);
}

#[test]
fn an_acknowledgement_that_comes_before_what_lies_below_it_was_sent_is_found() {
    let early = sent_at(0, ok(1), (0, 10));
    let late = Op::Send(Send {
        process: Process(2),
        partition: PartitionId(0),
        id: RecordId::new(2, 0),
        acks: AckMode::Sync,
        invoke: Nanos(11),
        complete: Nanos(20),
        outcome: ok(0),
    });
    check([early, late], &[(RealTime, 1)]);
}

#[test]
fn replicas_that_differ_are_found() {
    let other = [
        polled_by(10, 0, Replica(NodeId(1)), &[(0, 0), (1, 1)]),
        polled_by(11, 0, Replica(NodeId(2)), &[(0, 0), (1, 2)]),
    ];
    check(chain(all_sent(2), &other), &[(Divergence, 1)]);
    let shorter = [drained(Replica(NodeId(1)), 2), drained(Replica(NodeId(2)), 1)];
    check(shorter, &[(Divergence, 1)]);
}

#[test]
fn every_anomaly_has_its_bad_history_here() {
    let text = include_str!("tests.rs");
    for anomaly in Anomaly::ALL {
        let claimed = format!("({anomaly:?}, ");
        assert!(text.contains(&claimed), "no history claims {claimed}");
        let named = serde_json::to_value(anomaly).expect("a name");
        assert_eq!(named, anomaly.name());
    }
}

#[test]
fn a_history_is_read_as_it_was_written() {
    let mut ops = all_sent(3);
    ops.extend([
        sent(3, Fail),
        with_acks(sent(4, Info), AckMode::Async),
        polled(Tail, &[(7, 3), (2, 2), (u64::MAX, 1)]),
        polled_by(1, 7, Replica(NodeId(3)), &[]),
        drained(Final, 3),
    ]);
    if let Op::Poll(poll) = &mut ops[5] {
        poll.records[1].id = None;
    }
    let mut file = written(&ops);
    assert_eq!(read(&file), (ops.clone(), Ending::Closed));
    // Without its end, and cut within a block, it is cut off.
    file.pop();
    assert_eq!(read(&file), (ops, Ending::CutOff));
    file.truncate(30);
    assert_eq!(read(&file), (Vec::new(), Ending::CutOff));
}

#[test]
fn a_damaged_history_is_refused() {
    let file = written(&all_sent(100));
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x10;
        let outcome = Reader::new(&damaged[..]).and_then(|mut reader| {
            while reader.next_op()?.is_some() {}
            std::io::Result::Ok(reader.ending())
        });
        // A length that grew beyond the file is a file cut off; nothing passes for whole.
        assert!(!matches!(outcome, std::io::Result::Ok(Ending::Closed)), "byte {at}");
    }
}

fn written(ops: &[Op]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).expect("memory");
    ops.iter().for_each(|op| writer.add(op).expect("memory"));
    writer.finish().expect("memory")
}

fn read(file: &[u8]) -> (Vec<Op>, Ending) {
    let mut reader = Reader::new(file).expect("a history");
    let mut ops = Vec::new();
    while let Some(op) = reader.next_op().expect("whole blocks") {
        ops.push(op);
    }
    (ops, reader.ending())
}

/// What the quick checker, which keeps bits, says of losses and repeats is what this one says.
#[test]
fn the_quick_checker_agrees() {
    use super::online::{Ledger, Verifier};
    for seed in 0..200_u64 {
        let mut random = seed;
        let mut next = |below: u64| {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (random >> 33) % below
        };
        let (mut ledger, mut verifier, mut checker) =
            (Ledger::default(), Verifier::default(), Checker::default());
        let count = 3 + next(10);
        for sequence in 0..count {
            let id = RecordId::new(1, sequence);
            let outcome = if next(4) == 0 { Fail } else { Info };
            match outcome {
                Fail => ledger.not_written(id),
                Info | Ok(_) => ledger.acked(id),
            }
            // The quick one knows no offsets of acknowledgements; a record that was read once is as binding.
            checker.take(&sent(sequence, outcome));
            if outcome == Info {
                checker.take(&polled_by(sequence as u32, 1, Tail, &[(sequence, sequence)]));
            }
        }
        let mut offset = 0;
        for sequence in 0..count {
            if next(3) > 0 {
                checker.take(&polled_by(READER, 1, Final, &[(sequence, sequence)]));
                verifier.saw(1, offset, RecordId::new(1, sequence));
                offset += 1;
            }
        }
        checker.take(&Op::Drained(Drained {
            process: Process(READER),
            partition: PartitionId(1),
            kind: Final,
            end: Offset(count),
            at: Nanos(0),
        }));
        let (slow, quick) = (checker.finish(Ending::Closed), verifier.finish(&ledger));
        let lost: u64 =
            [LostPrefix, LostMiddle, LostTail].map(|kind| slow.count(kind)).iter().sum();
        assert_eq!((lost, slow.count(AbortedRead)), (quick.lost, quick.phantom), "seed {seed}");
    }
}
