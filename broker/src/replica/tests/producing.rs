//! Produces: what is answered when, and what a repeat gets.

use super::*;

#[test]
fn async_is_answered_at_once_and_semi_sync_when_a_majority_has_it_on_disk() {
    let mut trio = Trio::led();
    let quick = trio.produce(FIRST, AckMode::Async, batch(3, None));
    let sure = trio.produce(FIRST, AckMode::SemiSync, batch(2, None));
    let receipt = trio.answer(quick).expect("at once").expect("fine");
    assert_eq!((receipt.base_offset, receipt.replicas, receipt.flushed), (Offset(0), 1, 0));
    assert_eq!(trio.answer(sure), None);
    trio.run(20);
    let receipt = trio.answer(sure).expect("by now").expect("fine");
    assert_eq!(receipt.base_offset, Offset(3));
    assert!(receipt.replicas >= 2 && receipt.flushed >= 2, "{receipt:?}");
    trio.run(200);
    trio.assert_alike();
    assert_eq!(trio.replicas[&FIRST].reader().high_watermark(), Offset(5));
}

#[test]
fn sync_waits_for_every_in_sync_voter() {
    let mut trio = Trio::led();
    trio.slow_disks = vec![NodeId(3)];
    let semi = trio.produce(FIRST, AckMode::SemiSync, batch(1, None));
    let all = trio.produce(FIRST, AckMode::Sync, batch(1, None));
    trio.run(100);
    assert!(trio.answer(semi).is_some_and(|answer| answer.is_ok()));
    assert_eq!(trio.answer(all), None, "one in-sync voter has not flushed it");
    trio.slow_disks.clear();
    trio.run(100);
    let receipt = trio.answer(all).expect("by now").expect("fine");
    assert_eq!((receipt.replicas, receipt.flushed), (3, 3));
}

#[test]
fn sync_is_refused_before_the_append_when_too_few_are_in_sync() {
    let mut trio = Trio::led();
    trio.cut_off = vec![NodeId(2), NodeId(3)];
    let waiting = trio.produce(FIRST, AckMode::Sync, batch(1, None));
    trio.run(850);
    assert_eq!(trio.answer(waiting), Some(Err(ErrorCode::NotEnoughReplicasAfterAppend)));
    let end = trio.replicas[&FIRST].log.end();
    let refused = trio.produce(FIRST, AckMode::Sync, batch(1, None));
    let code = trio.answer(refused).expect("at once").expect_err("too few");
    assert!(matches!(code, ErrorCode::NotEnoughReplicas | ErrorCode::NotLeader), "{code}");
    assert_eq!(trio.replicas[&FIRST].log.end(), end, "nothing was written");
}

#[test]
fn only_the_leader_of_the_clients_term_takes_a_batch() {
    let mut trio = Trio::led();
    let elsewhere = trio.produce(NodeId(2), AckMode::Async, batch(1, None));
    assert_eq!(trio.answer(elsewhere), Some(Err(ErrorCode::NotLeader)));
    for (term, code) in [(0, ErrorCode::FencedLeaderEpoch), (9, ErrorCode::UnknownLeaderEpoch)] {
        let fenced = trio.produce_in(FIRST, AckMode::Async, batch(1, None), Some(Term(term)));
        assert_eq!(trio.answer(fenced), Some(Err(code)));
    }
    let right = trio.produce_in(FIRST, AckMode::Async, batch(1, None), Some(Term(1)));
    assert_eq!(trio.offset(right), 0);
}

#[test]
fn a_repeated_batch_gets_the_original_receipt_and_is_not_written_again() {
    let mut trio = Trio::led();
    let first = trio.produce(FIRST, AckMode::SemiSync, batch(4, stamp(1, 0)));
    let repeat = trio.produce(FIRST, AckMode::SemiSync, batch(4, stamp(1, 0)));
    assert_eq!(trio.answer(repeat), None, "the original is not committed yet");
    let gap = trio.produce(FIRST, AckMode::SemiSync, batch(4, stamp(1, 9)));
    assert_eq!(trio.answer(gap), Some(Err(ErrorCode::OutOfOrderSequence)));
    trio.run(20);
    assert_eq!((trio.offset(first), trio.offset(repeat)), (0, 0));
    assert_eq!(trio.replicas[&FIRST].reader().log_end(), Offset(4));
}

#[test]
fn producers_are_remembered_by_the_next_leader_and_over_a_restart() {
    let mut trio = Trio::led();
    trio.produce(FIRST, AckMode::SemiSync, batch(4, stamp(1, 0)));
    trio.run(200);
    trio.restart(NodeId(2), LastLife::Clean);
    trio.run(100);
    let moved = trio.command(FIRST, ReplicaCommand::TransferLeader(Some(NodeId(2))));
    trio.run(300);
    assert!(matches!(trio.admin[&moved], Ok(AdminReply::Done(_))));
    let repeat = trio.produce(NodeId(2), AckMode::SemiSync, batch(4, stamp(1, 0)));
    let next = trio.produce(NodeId(2), AckMode::SemiSync, batch(1, stamp(1, 4)));
    let unknown = trio.produce(NodeId(2), AckMode::SemiSync, batch(1, stamp(0, 4)));
    trio.run(50);
    assert_eq!((trio.offset(repeat), trio.offset(next)), (0, 4), "marks take no offset");
    assert_eq!(trio.answer(unknown), Some(Err(ErrorCode::ProducerFenced)));
}

#[test]
fn a_waiter_whose_leader_lost_its_place_is_answered_by_the_next_leaders_commit() {
    let mut trio = Trio::led();
    trio.slow_disks = IDS.to_vec();
    let pending = trio.produce(FIRST, AckMode::SemiSync, batch(2, None));
    trio.run(50);
    trio.slow_disks.clear();
    let moved = trio.command(FIRST, ReplicaCommand::TransferLeader(None));
    trio.run(200);
    assert!(trio.admin[&moved].is_ok());
    assert_eq!(trio.offset(pending), 0);
}

#[test]
fn a_deadline_is_answered_with_an_open_outcome() {
    let mut trio = Trio::led();
    trio.slow_disks = IDS.to_vec();
    let slow = trio.produce(FIRST, AckMode::SemiSync, batch(2, None));
    trio.run(2_100);
    assert_eq!(trio.answer(slow), Some(Err(ErrorCode::RequestTimedOut)));
}

#[test]
fn closing_answers_everyone_who_waits() {
    let mut trio = Trio::led();
    let waiting = trio.produce(FIRST, AckMode::SemiSync, batch(5, None));
    trio.with(FIRST, |replica, _, out| replica.close(out).expect("it closes"));
    assert_eq!(trio.answer(waiting), Some(Err(ErrorCode::RequestTimedOut)));
}
