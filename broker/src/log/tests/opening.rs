//! What a life leaves, and what the next one makes of it.

use super::*;

#[test]
fn damage_that_no_entry_describes_is_reported_until_what_was_lost_is_back() {
    let mut bench = Bench::new();
    bench.fill(3);
    bench.flush();
    let whole = bench.everything();
    let path = bench.oldest(".log");
    assert!(bench.disk.flip_bit(&path, (4096 + 9_000) * 8));
    // The entry of that frame, too: nothing is left that says what it was.
    assert!(bench.disk.flip_bit(&bench.oldest(".idx"), (4096 + 48) * 8));

    let (bench, recovered) = bench.kill();
    let damage = recovered.damage.expect("a witness names the frame");
    assert_eq!((damage.at, damage.until, bench.log.end()), (LogIndex(2), LogIndex(6), LogIndex(2)));
    assert!(damage.detail.contains(".log at 12"), "{}", damage.detail);
    let (mut bench, recovered) = bench.kill();
    assert_eq!(recovered.damage.map(|damage| damage.until), Some(LogIndex(6)), "again");

    // A leader sends what is lacking, piece by piece.
    let frames: Vec<Bytes> = split(&whole);
    bench.log.append_frames(&frames[1..2]).expect("append");
    bench.flush();
    let (mut bench, recovered) = bench.lose_power(Fate::Lost);
    let damage = recovered.damage.expect("one frame is not back yet");
    assert_eq!((damage.at, damage.until), (LogIndex(4), LogIndex(6)));
    bench.log.append_frames(&frames[2..]).expect("append");
    bench.flush();
    let (bench, recovered) = bench.lose_power(Fate::Lost);
    assert_eq!((recovered.damage, bench.everything() == whole), (None, true));
}

#[test]
fn a_torn_tail_is_cut_and_what_lies_behind_it_never_comes_back() {
    let mut bench = Bench::new();
    bench.fill(1);
    bench.flush();
    bench.log.append(Term(1), &batch(1, 8_000, 3)).expect("append");
    let ghost = bench.log.append(Term(1), &batch(1, 3_000, 4)).expect("append");
    // The first of the two loses pages, the second is whole.
    let mut page = 0;
    bench.disk.lose_power_by(&mut |_| {
        page += 1;
        if page == 2 { Fate::Lost } else { Fate::Kept }
    });
    let (mut bench, recovered) = bench.kill();
    assert_eq!((bench.log.end(), &recovered.damage), (LogIndex(2), &None));
    assert_eq!(recovered.frames_behind_tear, 1);
    assert!(recovered.torn_tail_bytes > 11_000, "{recovered:?}");

    // A batch of the torn one's length would have the ghost follow it.
    bench.log.append(Term(1), &batch(1, 8_000, 5)).expect("append");
    let (bench, recovered) = bench.kill();
    assert_eq!((bench.log.end(), recovered.torn_tail_bytes), (LogIndex(3), 0));
    assert!(bench.log.end() < ghost.end);
}

#[test]
fn a_segment_missing_with_its_index_is_damage_and_a_missing_or_damaged_index_is_rebuilt() {
    let mut bench = Bench::new();
    bench.fill(9);
    bench.flush();
    bench.log.close().expect("close");
    let whole = bench.everything();
    bench.disk.remove(&bench.oldest(".idx")).expect("remove");
    let (bench, recovered) = bench.kill();
    assert_eq!((recovered.damage, bench.everything() == whole), (None, true));
    let path = bench.oldest(".idx");
    assert!(bench.disk.flip_bit(&path, (4096 + 60) * 8));
    let (bench, recovered) = bench.kill();
    assert_eq!((recovered.damage, bench.everything() == whole), (None, true));

    for ending in [".log", ".idx"] {
        let second = bench.files().into_iter().filter(|name| name.ends_with(ending)).nth(1);
        bench.disk.remove(&Path::new(DIR).join(second.expect("three segments"))).expect("remove");
    }
    let (mut bench, recovered) = bench.kill();
    let damage = recovered.damage.expect("a segment is missing");
    assert_eq!((damage.at, damage.until), (LogIndex(6), LogIndex(18)));
    bench.log.append_frames(&split(&whole)[3..4]).expect("append");
    let lost = bench.files().into_iter().filter(|name| name.ends_with(".log.lost")).count();
    assert_eq!(lost, 1, "what lay behind the gap is kept aside: {:?}", bench.files());
}

#[test]
fn a_later_format_and_another_partitions_file_are_refused() {
    let mut bench = Bench::new();
    bench.fill(1);
    let path = bench.oldest(".log");
    let options = Options { segment_bytes_max: 28 << 10, keep_free_bytes: 0 };
    let error =
        Log::open(bench.disk.clone(), Path::new(DIR), partition(1), options).expect_err("foreign");
    assert!(error.to_string().contains("belongs to partition"), "{error}");

    let file = bench.disk.open(&path, 0).expect("open");
    let mut page = file.read(0..4096).expect("read").to_vec();
    page[12] = 2;
    let checksum = highwater_protocol::batch::crc32c(&page[12..]);
    page[8..12].copy_from_slice(&checksum.to_le_bytes());
    file.write_at(0, &[&page]).expect("write");
    let error = open(&bench.disk).expect_err("newer").to_string();
    for part in [path.to_str().expect("UTF-8"), "version is 2", "up to 1"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn recovery_tells_terms_marks_and_producers() {
    let mut bench = Bench::new();
    let stamp =
        |base_sequence| ProducerStamp { id: ProducerId(9), epoch: ProducerEpoch(1), base_sequence };
    bench.log.append_mark(Term(1), &Mark::TermStart).expect("append");
    bench.log.append(Term(1), &produced(2, 10, 0, Some(stamp(0)))).expect("append");
    bench.fill(1);
    bench.log.append_mark(Term(4), &Mark::TermStart).expect("append");
    bench.log.append(Term(4), &produced(3, 10, 0, Some(stamp(2)))).expect("append");
    bench.flush();
    let expected = |recovered: Recovered| {
        let starts = [(Term(1), LogIndex(0)), (Term(4), LogIndex(5))];
        assert_eq!(recovered.term_starts, starts.map(|(term, start)| TermStart { term, start }));
        let ends: Vec<LogIndex> = recovered.marks.iter().map(|placed| placed.end).collect();
        assert_eq!(ends, [LogIndex(1), LogIndex(6)]);
        let found = recovered.producers_from;
        assert_eq!((found.len(), found[1].base_offset, found[1].records), (2, Offset(4), 3));
        assert_eq!((found[1].end, found[1].producer), (LogIndex(9), stamp(2)));
    };
    let (mut bench, recovered) = bench.kill();
    expected(recovered);
    bench.log.close().expect("close");
    expected(bench.kill().1);
}

#[test]
fn nothing_is_sealed_while_a_flush_may_still_fail() {
    let mut bench = Bench::new();
    bench.fill(3);
    let (full, upto) = bench.log.take_unflushed().expect("unflushed");
    bench.fill(1);
    let under_way = bench.log.take_unflushed().expect("unflushed");
    full.iter().try_for_each(|file| file.flush()).expect("flush");
    bench.log.flushed(upto).expect("a segment is sealed, whose index is to be flushed");
    bench.log.close().expect("close");
    assert_eq!(bench.log.durable(), LogIndex(6), "the close is not the flush that is under way");
    drop(under_way);
    let (bench, recovered) = bench.lose_power(Fate::Lost);
    assert_eq!((bench.log.end(), recovered.damage), (LogIndex(8), None));
}
