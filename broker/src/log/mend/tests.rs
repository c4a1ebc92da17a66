//! What rots, and how it comes back.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use highwater_protocol::batch::Mark;
use highwater_protocol::ids::{LogIndex, NodeId, Offset, Term};

use crate::disk::Disk;
use crate::log::tests::{Bench, DIR, batch, offsets, partition};
use crate::log::{Log, Options, ReadError, ScrubPlace};
use crate::sim::disk::Fate;

/// Batches of two records, three to a segment, behind the start of a term; the last segment is not sealed.
fn filled(batches: u64) -> (Bench, Vec<u8>) {
    let bench = Bench::filled(batches);
    let whole = bench.everything();
    (bench, whole)
}

fn nth_file(bench: &Bench, nth: usize, ending: &str) -> PathBuf {
    let name = bench.files().into_iter().filter(|name| name.ends_with(ending)).nth(nth);
    Path::new(DIR).join(name.expect("there are three"))
}

/// Has the log fetch what it lacks from `peer`, and mends it.
fn repair(bench: &mut Bench, peer: &Bench) -> u64 {
    let mut repaired = 0;
    for _ in 0..100 {
        let missing = bench.log.missing().expect("missing");
        if let Some(missing) = missing {
            let behind = missing.behind.index;
            let read = peer.log.read_frames(behind, missing.bytes as usize).expect("read");
            assert!(bench.log.mend(behind, &read.frames).expect("mend") > 0);
        }
        if let Some(mend) = bench.log.take_mend().expect("take") {
            repaired += bench.log.mended(mend.run()).expect("mended");
        }
        bench.flush();
        if !bench.log.is_faulty() {
            return repaired;
        }
    }
    panic!("it is never whole again");
}

#[test]
fn a_frame_that_rotted_in_the_middle_keeps_its_place_and_comes_back_from_a_peer() {
    let ((bench, whole), (peer, _)) = (filled(3), filled(3));
    let path = bench.oldest(".log");
    assert!(bench.disk.flip_bit(&path, (4096 + 9_000) * 8));
    let end = bench.log.end();

    let (mut bench, recovered) = bench.kill();
    assert_eq!((bench.log.end(), &recovered.damage), (end, &None), "nothing is cut");
    let [range] = &recovered.faulty[..] else { panic!("one batch: {:?}", recovered.faulty) };
    assert_eq!((range.from, range.until, &range.file), (Offset(2), Offset(4), &path));

    assert_eq!(repair(&mut bench, &peer), 1);
    assert!(bench.everything() == whole);
    let (bench, recovered) = bench.lose_power(Fate::Lost);
    assert_eq!((&recovered.faulty[..], bench.everything() == whole), (&[][..], true));
    assert!(!bench.files().iter().any(|name| name.ends_with(".mend")), "{:?}", bench.files());
}

#[test]
fn a_spoilt_page_with_the_start_of_a_term_in_it_is_mended() {
    let ((bench, whole), (peer, _)) = (filled(3), filled(3));
    bench.disk.spoil_page(&bench.oldest(".log"), 1, None);
    let (mut bench, recovered) = bench.kill();
    assert_eq!((recovered.damage, recovered.faulty.len()), (None, 2));
    assert_eq!(recovered.term_starts.len(), 1, "the start of a term says nothing else");
    assert_eq!(repair(&mut bench, &peer), 2);
    assert!(bench.everything() == whole);
}

#[test]
fn a_page_that_cannot_be_read_is_mended_like_one_that_is_spoilt() {
    for page in [0, 1] {
        let ((bench, whole), (peer, _)) = (filled(3), filled(3));
        bench.disk.make_unreadable(&bench.oldest(".log"), page);
        let (mut bench, recovered) = bench.kill();
        assert_eq!((recovered.damage, bench.log.end()), (None, peer.log.end()), "page {page}");
        assert!(bench.log.is_faulty(), "page {page}");
        repair(&mut bench, &peer);
        assert!(bench.everything() == whole, "page {page}");
    }
}

#[test]
fn a_mark_that_rots_while_its_segment_grows_does_not_keep_it_from_being_sealed_and_mended() {
    let set =
        || highwater_protocol::batch::VoterSet { voters: vec![NodeId(1)], learners: Vec::new() };
    let marked = || {
        let mut bench = Bench::new();
        bench.log.append_mark(Term(1), &Mark::Voters(set())).expect("append");
        bench.fill(1);
        bench.flush();
        bench
    };
    let (mut bench, peer) = (marked(), marked());
    assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + 62) * 8));
    bench.log.end_segment().expect("end");
    scrub(&bench);
    assert_eq!(repair(&mut bench, &peer), 1);
    assert!(bench.everything() == peer.everything());
    let (bench, recovered) = bench.kill();
    let known = recovered.marks.iter().map(|placed| placed.mark.clone()).collect::<Vec<_>>();
    assert_eq!(known, [Mark::Voters(set())]);
    assert!(bench.everything() == peer.everything());
}

#[test]
fn a_file_of_another_partition_is_set_aside_and_our_own_frames_come_back() {
    let ((bench, whole), (peer, _)) = (filled(7), filled(7));
    let ours = bench.oldest(".log");
    let dir = Path::new("/data/t-1");
    let options = Options { segment_bytes_max: 28 << 10, keep_free_bytes: 0 };
    let (mut other, _) = Log::open(bench.disk.clone(), dir, partition(1), options).expect("open");
    other.append_mark(Term(1), &Mark::TermStart).expect("append");
    other.append(Term(1), &batch(3, 900, 1)).expect("append");
    other.close().expect("close");
    drop(other);
    let name = bench.disk.list(dir).expect("list").into_iter().find(|name| name.ends_with(".log"));
    let theirs = dir.join(name.expect("there is one"));
    bench.disk.rename(&ours, Path::new("/data/aside")).expect("rename");
    bench.disk.rename(&theirs, &ours).expect("rename");
    bench.disk.rename(Path::new("/data/aside"), &theirs).expect("rename");

    let (mut bench, recovered) = bench.kill();
    assert_eq!((&recovered.damage, bench.log.end()), (&None, peer.log.end()));
    repair(&mut bench, &peer);
    assert!(bench.everything() == whole);
    let kept = bench.files().into_iter().filter(|name| name.ends_with(".log.foreign-1")).count();
    assert_eq!(kept, 1, "nobody's file is removed");
    // The other partition has ours, whose frames are not those of its index.
    let (_, recovered) =
        Log::open(bench.disk.clone(), dir, partition(1), options).expect("it opens as well");
    assert!(recovered.damage.is_none() && !recovered.faulty.is_empty());
    // A whole pair of files is somebody else's directory: nothing is touched.
    let error = Log::open(bench.disk.clone(), Path::new(DIR), partition(1), options).err();
    let error = error.expect("it is refused").to_string();
    assert!(error.contains("it belongs to partition"), "{error}");
}

#[test]
fn a_mend_that_nobody_carried_out_begins_again() {
    let ((bench, whole), (peer, _)) = (filled(3), filled(3));
    assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + 9_000) * 8));
    let (mut bench, _) = bench.kill();
    let missing = bench.log.missing().expect("missing").expect("a batch rotted");
    let read = peer.log.read_frames(missing.behind.index, 1 << 20).expect("read");
    assert_eq!(bench.log.mend(missing.behind.index, &read.frames).expect("mend"), 1);
    let mend = bench.log.take_mend().expect("take").expect("all has come");
    assert_eq!(bench.log.mended(mend.undone()).expect("mended"), 0);
    drop(mend);
    assert_eq!(repair(&mut bench, &peer), 1);
    assert!(bench.everything() == whole);
}

#[test]
fn neither_a_late_answer_nor_a_new_fault_undoes_what_has_come_for_another_segment() {
    let ((bench, whole), (peer, _)) = (filled(9), filled(9));
    for (nth, at) in [(1, 1_000), (1, 20_000), (0, 9_000)] {
        assert!(bench.disk.flip_bit(&nth_file(&bench, nth, ".log"), (4096 + at) * 8));
    }
    let (mut bench, _) = bench.kill();
    scrub(&bench);
    let [late, first] = [(); 2].map(|()| {
        let missing = bench.log.missing().expect("missing").expect("it rotted");
        bench.log.deny_missing();
        (missing, peer.log.read_frames(missing.behind.index, 1).expect("read").frames)
    });
    assert!(late.0.behind < first.0.behind);
    assert_eq!(bench.log.mend(first.0.behind.index, &first.1).expect("mend"), 1);
    assert_eq!(bench.log.mend(late.0.behind.index, &late.1).expect("mend"), 0);
    let second = bench.log.missing().expect("missing").expect("the other batch of the segment");
    assert!(first.0.behind < second.behind);
    assert_eq!(repair(&mut bench, &peer), 3);
    assert!(bench.everything() == whole);
}

#[test]
fn a_mark_that_names_voters_is_never_guessed() {
    let mut bench = Bench::new();
    let set = highwater_protocol::batch::VoterSet { voters: Vec::new(), learners: Vec::new() };
    bench.log.append_mark(Term(1), &Mark::Voters(set)).expect("append");
    bench.fill(1);
    bench.flush();
    assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + 62) * 8));
    let (bench, recovered) = bench.kill();
    assert_eq!(bench.log.end(), LogIndex::ZERO);
    assert_eq!(recovered.damage.map(|damage| damage.until), Some(LogIndex(3)));
}

#[test]
fn a_segment_whose_frames_are_gone_as_a_whole_is_fetched_again() {
    for spoil in [remove as fn(&Bench, &Path), spoil_first_page] {
        let ((mut bench, whole), (peer, _)) = (filled(9), filled(9));
        bench.log.close().expect("close");
        spoil(&bench, &nth_file(&bench, 1, ".log"));
        let (mut bench, recovered) = bench.kill();
        assert_eq!((recovered.damage, bench.log.end()), (None, peer.log.end()));
        assert!(bench.log.is_faulty());
        // A file of zeros was made: what is in it shows when it is read.
        scrub(&bench);
        repair(&mut bench, &peer);
        assert!(bench.everything() == whole);
        let (bench, recovered) = bench.lose_power(Fate::Lost);
        assert_eq!((&recovered.faulty[..], bench.everything() == whole), (&[][..], true));
    }
}

/// Reads all of it: sealed segments are believed until then.
fn scrub(bench: &Bench) {
    let mut place = Some(ScrubPlace::default());
    while let Some(from) = place {
        place = bench.log.reader().scrub(from, 1 << 20).expect("scrub").next;
    }
}

fn remove(bench: &Bench, path: &Path) {
    bench.disk.remove(path).expect("remove");
}

fn spoil_first_page(bench: &Bench, path: &Path) {
    bench.disk.spoil_page(path, 0, None);
}

#[test]
fn readers_get_what_is_sound_and_an_error_that_names_the_rest() {
    let (mut bench, _) = filled(9);
    bench.log.publish(Offset(18));
    bench.log.close().expect("close");
    let path = bench.oldest(".log");
    assert!(bench.disk.flip_bit(&path, (4096 + 9_000) * 8));
    let reader = bench.log.reader();
    assert_eq!(offsets(&reader.read(Offset(0), 1 << 20).expect("read")), [0], "up to the fault");
    match reader.read(Offset(3), 1) {
        Err(ReadError::Faulty(range)) => {
            assert_eq!((range.from, range.until, range.file), (Offset(2), Offset(4), path));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(offsets(&reader.read(Offset(4), 1).expect("behind it")), [4]);
    let read = bench.log.read_frames(LogIndex(3), 1 << 20).expect("read");
    assert!(read.frames.is_empty(), "nor does a follower get it");
}

#[test]
fn scrubbing_finds_what_nobody_reads_also_where_appends_go() {
    let ((mut bench, whole), (peer, _)) = (filled(9), filled(9));
    for nth in [0, 2] {
        assert!(bench.disk.flip_bit(&nth_file(&bench, nth, ".log"), (4096 + 9_000) * 8));
    }
    let reader = bench.log.reader();
    let (mut place, mut steps, mut faulty) = (Some(ScrubPlace::default()), 0, 0);
    while let Some(from) = place {
        let scrubbed = reader.scrub(from, 10_000).expect("scrub");
        (place, steps, faulty) = (scrubbed.next, steps + 1, faulty + scrubbed.faulty);
    }
    assert!(steps >= 4, "a step is bounded");
    assert_eq!(faulty, 2);
    assert_eq!(repair(&mut bench, &peer), 2);
    assert!(bench.everything() == whole);
    bench.fill(1);
}

#[test]
fn nothing_but_the_named_frame_is_taken() {
    let ((bench, _), mut other) = (filled(3), Bench::new());
    other.log.append_mark(Term(1), &Mark::TermStart).expect("append");
    for number in 0..9 {
        // The same lengths, other bytes.
        let batch = crate::log::tests::batch(2, 4_000, 50 + number);
        other.log.append(Term(1), &batch).expect("append");
    }
    assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + 9_000) * 8));
    let (mut bench, _) = bench.kill();
    let missing = bench.log.missing().expect("missing").expect("a batch");
    let read = other.log.read_frames(missing.behind.index, 1 << 20).expect("read");
    assert_eq!(bench.log.mend(missing.behind.index, &read.frames).expect("mend"), 0);
    assert_eq!(bench.log.mend(LogIndex(4), &[Bytes::from_static(b"junk")]).expect("mend"), 0);
    assert!(bench.log.take_mend().expect("take").is_none() && bench.log.is_faulty());
}

#[test]
fn power_lost_at_any_step_of_a_mend_leaves_the_old_file_or_the_new_one() {
    for operations in 1.. {
        let ((bench, whole), (peer, _)) = (filled(3), filled(3));
        // Its entry is on disk, too: otherwise nothing would tell it from a torn write.
        bench.disk.write_back(Path::new(DIR));
        assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + 9_000) * 8));
        let (mut bench, _) = bench.kill();
        let missing = bench.log.missing().expect("missing").expect("a batch");
        let read =
            peer.log.read_frames(missing.behind.index, missing.bytes as usize).expect("read");
        bench.disk.arm(operations);
        let mended = bench.log.mend(missing.behind.index, &read.frames).and_then(|_| {
            let mend = bench.log.take_mend()?.expect("all has come");
            bench.log.mended(mend.run())
        });
        let done = !bench.disk.is_dead();
        if done {
            assert_eq!(mended.expect("nothing failed"), 1);
        }
        bench.disk.disarm();
        let fate = [Fate::Lost, Fate::Kept, Fate::Torn(5)][operations as usize % 3];
        let (mut bench, recovered) = bench.lose_power(fate);
        assert_eq!(recovered.damage, None, "{operations}");
        scrub(&bench);
        if bench.log.is_faulty() {
            repair(&mut bench, &peer);
        }
        assert!(bench.everything() == whole, "{operations}");
        if done {
            return;
        }
    }
}
