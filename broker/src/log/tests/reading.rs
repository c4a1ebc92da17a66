//! What is appended, and where it is found again.

use super::*;

#[test]
fn a_new_log_is_empty_and_has_no_files_before_the_first_append() {
    let bench = Bench::new();
    assert_eq!(
        (bench.log.start(), bench.log.end()),
        ((LogIndex::ZERO, Offset::ZERO), LogIndex::ZERO)
    );
    assert_eq!(bench.log.term_at(LogIndex::ZERO), Some(Term(0)));
    assert!(bench.files().is_empty());
    assert!(bench.log.read_frames(LogIndex::ZERO, 100).expect("read").frames.is_empty());
}

#[test]
fn a_log_with_one_record_takes_eighty_kilobytes_at_most() {
    let mut bench = Bench::new();
    bench.disk.limit_bytes(Some(80 << 10));
    bench.log.append_mark(Term(1), &Mark::TermStart).expect("append");
    bench.log.append(Term(1), &batch(1, 10, 0)).expect("append");
}

#[test]
fn the_leader_stamps_offset_and_term_and_the_follower_gets_the_same_bytes() {
    let (mut leader, mut follower) = (Bench::new(), Bench::new());
    leader.log.append_mark(Term(3), &Mark::TermStart).expect("append");
    leader.log.append(Term(3), &batch(5, 100, 0)).expect("append");
    let appended = leader.log.append(Term(4), &batch(2, 9_000, 0)).expect("append");
    assert_eq!(appended, Appended { base_offset: Offset(5), end: LogIndex(8) });
    leader.log.append(Term(4), &batch(2, 9_000, 0)).expect("append");

    // All frames in one slice: the follower rolls in the midst of it.
    let all = Bytes::from(leader.everything());
    let appended = follower.log.append_frames(std::slice::from_ref(&all)).expect("append");
    assert_eq!(appended, Appended { base_offset: Offset(0), end: LogIndex(10) });
    assert_eq!(follower.everything(), all);
    assert_eq!(follower.log.last_term(), Term(4));
    assert_eq!(offsets(&[all]), [0, 0, 5, 7]);
}

#[test]
fn places_are_found_across_segments() {
    let mut bench = Bench::new();
    bench.log.append_mark(Term(1), &Mark::TermStart).expect("append");
    bench.fill(10);
    bench.log.append_mark(Term(2), &Mark::TermStart).expect("append");
    check_places(&bench.log);
    check_places(&bench.kill().0.log);
}

fn check_places(log: &Log) {
    assert_eq!(log.term_at(LogIndex(1)), Some(Term(1)));
    assert_eq!(log.term_at(LogIndex(15)), Some(Term(1)));
    assert_eq!(log.term_at(LogIndex(16)), None, "in the middle of a batch");
    assert_eq!(log.term_at(LogIndex(22)), Some(Term(2)));
    assert_eq!(log.term_at(LogIndex(23)), None);
    let until = |index| log.boundary_until(LogIndex(index)).expect("a sound index");
    assert_eq!(until(16), (LogIndex(15), Offset(14)));
    assert_eq!(until(99).0, LogIndex(22));
    assert_eq!(until(21).1, until(22).1);
    let read = log.read_frames(LogIndex(9), 1).expect("one frame at least");
    assert_eq!((read.end, offsets(&read.frames)), (LogIndex(11), vec![8]));
    let read = log.read_frames(LogIndex(9), 20_000).expect("what fits");
    assert_eq!((read.end, offsets(&read.frames)), (LogIndex(13), vec![8, 10]));
    assert_eq!(
        log.read_frames(LogIndex(10), 1).err().map(|e| e.kind()),
        Some(ErrorKind::InvalidInput)
    );
}

#[test]
fn readers_get_whole_batches_below_the_high_watermark_and_no_marks() {
    let mut bench = Bench::new();
    let reader = bench.log.reader();
    bench.log.append_mark(Term(1), &Mark::TermStart).expect("append");
    bench.fill(7);
    bench.log.append_mark(Term(2), &Mark::TermStart).expect("append");
    bench.log.append(Term(2), &batch(3, 10, 0)).expect("append");
    assert!(reader.read(Offset(0), 1 << 20).expect("nothing yet").is_empty());
    bench.log.publish(Offset(14));
    assert_eq!(offsets(&reader.read(Offset(0), 1 << 20).expect("read")), [0, 2, 4, 6, 8, 10, 12]);
    bench.log.publish(Offset(17));
    assert_eq!(offsets(&reader.read(Offset(13), 1 << 20).expect("read")), [12, 14]);
    assert_eq!(offsets(&reader.read(Offset(3), 1).expect("one at least")), [2]);
    assert!(reader.read(Offset(17), 1).expect("at the end").is_empty());
    assert!(matches!(
        reader.read(Offset(18), 1),
        Err(ReadError::OutOfRange { end: Offset(17), .. })
    ));
    assert_eq!((reader.log_end(), reader.high_watermark()), (Offset(17), Offset(17)));
}

#[test]
fn sealed_segments_are_read_although_few_stay_open() {
    let mut bench = Bench::new();
    bench.fill(60);
    bench.flush();
    bench.log.publish(Offset(120));
    let reader = bench.log.reader();
    for from in (0..120).step_by(2).chain((0..120).rev()) {
        assert_eq!(offsets(&reader.read(Offset(from), 1).expect("read")), [from - from % 2]);
    }
    bench.log.close().expect("close");
    let whole = bench.everything();
    let (bench, recovered) = bench.lose_power(Fate::Lost);
    assert_eq!((bench.everything() == whole, recovered.damage), (true, None));
}

#[test]
fn a_time_leads_to_the_first_record_that_is_not_older() {
    let mut bench = Bench::new();
    // Two records each: at t and t + 1. The fourth batch is late.
    for timestamp in [100, 200, 300, 150, 400] {
        bench.log.append(Term(1), &batch(2, 5_000, timestamp)).expect("append");
    }
    bench.log.publish(Offset(10));
    let found = |wanted| bench.log.reader().offset_for(Timestamp(wanted)).expect("read");
    for (wanted, expected) in
        [(0, (0, 100)), (101, (1, 101)), (150, (2, 200)), (302, (8, 400)), (401, (9, 401))]
    {
        assert_eq!(found(wanted), Some((Offset(expected.0), Timestamp(expected.1))), "{wanted}");
    }
    assert_eq!(found(402), None);
}
