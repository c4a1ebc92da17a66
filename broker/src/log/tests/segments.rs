//! How segments go, and how large they are.

use super::*;

#[test]
fn a_trim_frees_whole_segments_and_keeps_the_last_voters() {
    let mut bench = Bench::new();
    let voters = VoterSet { voters: vec![NodeId(1), NodeId(2)], learners: vec![] };
    bench.log.append_mark(Term(1), &Mark::Voters(voters.clone())).expect("append");
    bench.fill(9);
    let before = bench.log.bytes();
    bench.log.publish(Offset(18));
    let (to, _) = bench.log.batch_start(Offset(13)).expect("readable").expect("in the log");
    let dropped = bench.log.trim_to(to, Vec::new()).expect("trim");
    let held = bench.files();
    let gone = |dropped: &Dropped| !held.iter().any(|name| dropped.segment.ends_with(name));
    assert!(!dropped.is_empty() && dropped.iter().all(gone), "{dropped:?} of {held:?}");
    assert!(dropped.iter().all(|dropped| dropped.end_offset <= Offset(12)), "{dropped:?}");
    assert_eq!(bench.log.start(), (LogIndex(13), Offset(12)));
    assert!(bench.log.bytes() * 2 < before);
    let reader = bench.log.reader();
    assert!(matches!(
        reader.read(Offset(11), 1),
        Err(ReadError::OutOfRange { start: Offset(12), .. })
    ));
    let whole = bench.everything();
    bench.flush();
    let (bench, recovered) = bench.lose_power(Fate::Lost);
    assert_eq!(
        (bench.log.start(), bench.everything() == whole),
        ((LogIndex(13), Offset(12)), true)
    );
    let kept = PlacedMark { end: LogIndex(1), term: Term(1), mark: Mark::Voters(voters) };
    assert_eq!((recovered.marks, recovered.damage), (vec![kept], None));
}

#[test]
fn a_removed_log_leaves_nothing() {
    let mut bench = Bench::new();
    bench.fill(1);
    remove(&*bench.disk, Path::new(DIR)).expect("remove");
    let (log, _) = open(&bench.disk).expect("a new log");
    assert_eq!(log.end(), LogIndex::ZERO);
}

#[test]
fn a_smaller_size_of_segments_holds_at_once_and_a_larger_one_from_the_next_segment_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let disk = Arc::new(crate::disk::mmap::MmapDisk::default());
    let small = Options { segment_bytes_max: 1 << 20, keep_free_bytes: 0 };
    let (mut log, _) = Log::open(disk, dir.path(), partition(0), small).expect("a new log");
    let segments = |log: &Log| log.shared.pieces.load().len();
    log.append(Term(1), &batch(1, 4_000, 1)).expect("append");
    log.reconfigure(Options { segment_bytes_max: 64 << 20, ..small });
    let mebibyte = batch(1, 1 << 20, 1);
    log.append(Term(1), &mebibyte).expect("append");
    assert_eq!(segments(&log), 2, "the first one has room for no more");
    // More than the map of a segment of one MiB has room for.
    for _ in 0..20 {
        log.append(Term(1), &mebibyte).expect("append");
    }
    assert_eq!(segments(&log), 2);
    log.reconfigure(small);
    log.append(Term(1), &batch(1, 4_000, 1)).expect("append");
    assert_eq!(segments(&log), 3, "what is too long for the new size takes no more");
}
