//! The log as its owner and its readers see it. Crashes at every operation: `tests/crash.rs`.

use super::*;
use crate::sim::disk::{Fate, SimDisk};
use highwater_protocol::batch::{BatchBuilder, BuilderOptions, VoterSet, frames};
use highwater_protocol::ids::{NodeId, PartitionId, ProducerEpoch, ProducerId, Timestamp, TopicId};
use std::io::ErrorKind;
use uuid::Uuid;

pub(super) const DIR: &str = "/data/t-0";

pub(super) struct Bench {
    pub disk: Arc<SimDisk>,
    pub log: Log,
}

impl Bench {
    pub fn new() -> Bench {
        let disk = SimDisk::new(7);
        let log = open(&disk).expect("a new log").0;
        Bench { disk, log }
    }

    /// Drops the log as a killed process does and opens it again.
    pub fn kill(self) -> (Bench, Recovered) {
        let Bench { disk, log } = self;
        drop(log);
        let (log, recovered) = open(&disk).expect("recovery");
        (Bench { disk, log }, recovered)
    }

    pub fn lose_power(self, fate: Fate) -> (Bench, Recovered) {
        self.disk.lose_power_by(&mut |_| fate);
        self.kill()
    }

    pub fn flush(&mut self) {
        let Some((files, upto)) = self.log.take_unflushed() else { return };
        files.iter().try_for_each(|file| file.flush()).expect("flush");
        self.log.flushed(upto).expect("flushed");
    }

    /// Batches of two records with 4,000 bytes each: three to a segment.
    pub fn fill(&mut self, batches: u64) {
        for number in 0..batches {
            self.log.append(Term(1), &batch(2, 4_000, number as i64)).expect("append");
        }
    }

    pub fn files(&self) -> Vec<String> {
        self.disk.list(Path::new(DIR)).expect("list")
    }

    /// The path of the oldest file with this ending.
    pub fn oldest(&self, ending: &str) -> PathBuf {
        let name = self.files().into_iter().find(|name| name.ends_with(ending));
        Path::new(DIR).join(name.expect("there is one"))
    }

    pub fn everything(&self) -> Vec<u8> {
        let read = self.log.read_frames(self.log.start().0, usize::MAX).expect("read");
        assert_eq!(read.end, self.log.end());
        read.frames.concat()
    }
}

fn open(disk: &Arc<SimDisk>) -> io::Result<(Log, Recovered)> {
    let options = Options { segment_bytes_max: 28 << 10, keep_free_bytes: 0 };
    Log::open(disk.clone(), Path::new(DIR), partition(0), options)
}

pub(super) fn partition(number: u32) -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(1)), PartitionId(number))
}

pub(super) fn batch(records: u32, bytes: usize, timestamp: i64) -> Bytes {
    produced(records, bytes, timestamp, None)
}

fn produced(records: u32, bytes: usize, timestamp: i64, producer: Option<ProducerStamp>) -> Bytes {
    let mut builder = BatchBuilder::new(BuilderOptions { producer, ..BuilderOptions::default() });
    for record in 0..records {
        let value = vec![timestamp as u8 | 1; bytes];
        builder.push(Timestamp(timestamp + i64::from(record)), None, Some(&value), &[]);
    }
    builder.finish()
}

pub(super) fn offsets(slices: &[Bytes]) -> Vec<u64> {
    let all = slices.iter().flat_map(|slice| frames(slice));
    all.map(|frame| frame.expect("whole").0.base_offset.0).collect()
}

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
    assert_eq!(log.boundary_at_or_before(LogIndex(16)), LogIndex(15));
    assert_eq!(log.boundary_at_or_before(LogIndex(99)), LogIndex(22));
    assert_eq!(log.offset_at(LogIndex(15)), Offset(14));
    assert_eq!(log.offset_at(LogIndex(21)), log.offset_at(LogIndex(22)));
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

pub(super) fn split(bytes: &[u8]) -> Vec<Bytes> {
    frames(bytes).map(|frame| Bytes::copy_from_slice(frame.expect("whole").1)).collect()
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
