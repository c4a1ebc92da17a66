//! Flushes that are under way, and disks that are full or fail.

use super::*;

#[test]
fn a_truncation_is_durable_at_once_and_makes_an_older_flush_prove_less() {
    let mut bench = Bench::new();
    bench.fill(3);
    bench.flush();
    bench.fill(1);
    let (files, upto) = bench.log.take_unflushed().expect("unflushed");
    bench.log.truncate(LogIndex(4)).expect("truncate");
    bench.log.append(Term(2), &batch(4, 10, 0)).expect("append");
    files.iter().try_for_each(|file| file.flush()).expect("flush");
    bench.log.flushed(upto).expect("flushed");
    assert_eq!(bench.log.durable(), LogIndex(4), "the new record was in no flush");
    let (bench, recovered) = bench.lose_power(Fate::Lost);
    assert_eq!((bench.log.end(), recovered.damage), (LogIndex(4), None));
}

#[test]
fn a_later_flush_proves_nothing_while_an_earlier_one_is_under_way() {
    let mut bench = Bench::new();
    bench.fill(1);
    let (_, first) = bench.log.take_unflushed().expect("unflushed");
    bench.fill(1);
    let (_, second) = bench.log.take_unflushed().expect("unflushed");
    assert!(bench.log.take_unflushed().is_none());
    bench.log.flushed(second).expect("flushed");
    assert_eq!(bench.log.durable(), LogIndex(0));
    bench.log.flushed(first).expect("flushed");
    assert_eq!(bench.log.durable(), LogIndex(4));
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() {
    let mut bench = Bench::new();
    bench.fill(2);
    let (end, whole) = (bench.log.end(), bench.everything());
    bench.disk.limit_bytes(Some(100 << 10));
    let error =
        bench.log.append(Term(1), &batch(1, 200_000, 0)).expect_err("no space for a segment");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!((bench.log.end(), bench.everything() == whole), (end, true));
    bench.disk.limit_bytes(None);
    bench.log.append(Term(1), &batch(1, 200_000, 0)).expect("there is space again");
    let (bench, recovered) = bench.kill();
    assert_eq!((bench.log.end(), recovered.damage), (end.advance(1), None));
}

#[test]
fn without_descriptors_a_log_goes_on_with_what_is_open_and_concludes_nothing() {
    let mut bench = Bench::new();
    bench.fill(20);
    bench.flush();
    let (end, whole) = (bench.log.end(), bench.everything());
    bench.disk.take_files(0);
    let error = bench.log.room_for(end, 100_000, 9).expect_err("none for a segment");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let error = bench.log.read_frames(bench.log.start().0, 1).expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let disk = Arc::clone(&bench.disk);
    drop(bench);
    let error = open(&disk).expect_err("not now");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    disk.give_files();
    let (log, recovered) = open(&disk).expect("recovery");
    assert_eq!((log.end(), &recovered.damage, &recovered.faulty[..]), (end, &None, &[][..]));
    let bench = Bench { disk, log };
    assert!(bench.everything() == whole);
}

#[test]
fn a_log_without_its_index_opens_on_a_full_disk_and_makes_it_when_there_is_room() {
    let mut bench = Bench::new();
    bench.fill(2);
    bench.flush();
    let (end, whole, index) = (bench.log.end(), bench.everything(), bench.oldest(".idx"));
    bench.disk.remove(&index).expect("remove");
    bench.disk.limit_bytes(Some(0));
    for _ in 0..2 {
        let (mut opened, recovered) = bench.kill();
        assert_eq!((opened.log.end(), recovered.damage), (end, None));
        opened.log.publish(opened.log.end_offset());
        let read = opened.log.reader().read(Offset(2), 1).expect("it can be read");
        assert_eq!(offsets(&read), [2]);
        let room = opened.log.room_for(end, 5_000, 1).expect_err("there is none");
        let refusal = opened.log.append(Term(1), &batch(1, 10, 0)).expect_err("no room");
        assert_eq!([room.kind(), refusal.kind()], [ErrorKind::StorageFull; 2]);
        assert!(opened.everything() == whole);
        bench = opened;
    }
    bench.disk.limit_bytes(None);
    bench.fill(1);
    bench.flush();
    assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + 9_000) * 8));
    let (_, recovered) = bench.kill();
    assert_eq!((recovered.damage, recovered.faulty.len()), (None, 1), "its entry is there");
}

#[test]
fn what_is_kept_free_is_for_marks_and_cuts_and_not_for_records() {
    let disk = SimDisk::new(7);
    disk.limit_bytes(Some(1 << 20));
    let options = Options { segment_bytes_max: 28 << 10, keep_free_bytes: 512 << 10 };
    let mut log = Log::open(disk.clone(), Path::new(DIR), partition(0), options).expect("new").0;
    let mut taken = 0;
    let refusal = loop {
        match log.room_for(log.end(), 4_200, 1) {
            Ok(()) => log.append(Term(1), &batch(1, 4_000, 0)).expect("there is room"),
            Err(error) => break error,
        };
        taken += 1;
    };
    assert_eq!(refusal.kind(), ErrorKind::StorageFull);
    assert!(refusal.to_string().contains("512 KiB are kept"), "{refusal}");
    assert!(taken > 10, "{taken} were taken");
    let free = disk.free_bytes(Path::new(DIR)).expect("measurable");
    assert!(free >= 512 << 10, "{free} free");
    log.append_mark(Term(2), &Mark::TermStart).expect("a new leader needs its mark");
    log.truncate(LogIndex(taken - 5)).expect("what a leader never had must go");
    log.append_mark(Term(3), &Mark::TermStart).expect("again");
}

#[test]
fn after_a_failed_write_the_log_refuses_everything() {
    let mut bench = Bench::new();
    bench.fill(1);
    bench.disk.arm(1);
    assert!(bench.log.append(Term(1), &batch(1, 10, 0)).is_err());
    bench.disk.lose_power_by(&mut |_| Fate::Kept);
    let error = bench.log.append(Term(1), &batch(1, 10, 0)).expect_err("it failed before");
    assert!(error.to_string().contains("failed before"), "{error}");
}

#[test]
fn room_in_a_segment_without_frames_is_what_its_header_leaves() {
    let mut bench = Bench::new();
    bench.fill(2);
    bench.log.truncate(LogIndex(2)).expect("a segment without frames");
    bench.disk.fill(0);
    let (end, bytes_max) = (bench.log.end(), 28 << 10);
    let most = bytes_max - header::HEADER_PAGE_BYTES;
    assert!(bench.log.room_for(end, most + 1, 3).is_err(), "the last one begins a segment");
    bench.log.room_for(end, most, 2).expect("it is allocated");
    let bytes = batch(1, 20_000, 0);
    bench.log.append(Term(1), &bytes).expect("and so it fits");
}

#[test]
fn room_for_frames_that_share_no_segment_is_room_for_a_segment_each() {
    let frame = batch(1, 13_000, 0);
    let (bytes, frames) = (6 * frame.len() as u64, 6);
    for free in (0..20).map(|times| (times * 48) << 10) {
        let mut bench = Bench::new();
        bench.fill(1);
        bench.disk.fill(free);
        if bench.log.room_for(bench.log.end(), bytes, frames).is_ok() {
            for _ in 0..frames {
                bench.log.append(Term(1), &frame).expect("it fits");
            }
        } else {
            assert!(free < 600 << 10, "{free} bytes are enough");
        }
    }
}
