//! Appends on condition: compared with what, told when.

use super::*;

const SURE: AckMode = AckMode::SemiSync;

#[test]
fn of_two_that_expect_the_same_end_the_first_is_written() {
    let mut trio = Trio::led();
    let first = trio.produce_if(FIRST, SURE, batch(2, None), 0);
    let second = trio.produce_if(FIRST, SURE, batch(3, None), 0);
    let third = trio.produce_if(FIRST, SURE, batch(3, None), 2);
    trio.run(50);
    assert_eq!((trio.offset(first), trio.offset(third)), (0, 2));
    assert_eq!(trio.answer(second), Some(Err(ErrorCode::WrongEnd)));
    assert_eq!(trio.replicas[&FIRST].reader().high_watermark(), Offset(5));
}

#[test]
fn a_conflict_in_any_mode_is_told_once_the_end_is_committed_and_not_if_it_is_cut_away() {
    let mut trio = Trio::led();
    trio.cut_off = vec![FIRST];
    trio.produce(FIRST, AckMode::Async, batch(4, None));
    let all = [AckMode::Async, AckMode::SemiSync, AckMode::Sync];
    let refused = all.map(|acks| trio.produce_if(FIRST, acks, batch(1, None), 0));
    trio.run(20);
    assert_eq!(refused.map(|id| trio.answer(id)), [None; 3], "the four may still be lost");
    trio.run(1_000);
    let leads = |id: &&NodeId| trio.leaders.get(*id) == Some(&Some(**id)) && **id != FIRST;
    let heir = *IDS.iter().find(leads).expect("the others elect a leader");
    let written = trio.produce_if(heir, SURE, batch(1, None), 0);
    trio.cut_off.clear();
    trio.run(500);
    assert_eq!(trio.offset(written), 0);
    assert_eq!(refused.map(|id| trio.answer(id)), [Some(Err(ErrorCode::Superseded)); 3]);
    trio.assert_alike();
}

#[test]
fn a_repeat_of_what_was_written_gets_its_receipt_though_the_end_has_moved() {
    let mut trio = Trio::led();
    let first = trio.produce_if(FIRST, SURE, batch(2, stamp(1, 0)), 0);
    trio.produce(FIRST, SURE, batch(5, None));
    let repeat = trio.produce_if(FIRST, SURE, batch(2, stamp(1, 0)), 0);
    let next = trio.produce_if(FIRST, SURE, batch(1, stamp(1, 2)), 2);
    trio.run(50);
    assert_eq!((trio.offset(first), trio.offset(repeat)), (0, 0));
    assert_eq!(trio.answer(next), Some(Err(ErrorCode::WrongEnd)));
    // What was refused took no place in the sequence.
    let again = trio.produce_if(FIRST, SURE, batch(1, stamp(1, 2)), 7);
    trio.run(50);
    assert_eq!(trio.offset(again), 7);
}

#[test]
fn an_end_that_the_log_has_not_reached_is_a_conflict_too() {
    let mut trio = Trio::led();
    let ahead = trio.produce_if(FIRST, SURE, batch(1, None), 9);
    trio.run(50);
    assert_eq!(trio.answer(ahead), Some(Err(ErrorCode::WrongEnd)));
}

#[test]
fn a_conflict_whose_end_stays_open_is_answered_at_its_deadline() {
    let mut trio = Trio::led();
    trio.slow_disks = IDS.to_vec();
    trio.produce(FIRST, AckMode::Async, batch(4, None));
    let refused = trio.produce_if(FIRST, AckMode::Async, batch(1, None), 0);
    trio.run(1_900);
    assert_eq!(trio.answer(refused), None);
    trio.run(200);
    assert_eq!(trio.answer(refused), Some(Err(ErrorCode::RequestTimedOut)));
}
