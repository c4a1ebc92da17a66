//! What nobody can read any more, and what takes its place.

use std::path::Path;

use highwater_protocol::batch::frames;
use highwater_protocol::ids::{Offset, Term};

use crate::disk::Disk;
use crate::log::tests::{Bench, DIR, batch, offsets};
use crate::log::{FaultyRange, GivingUp, Left, Listed, ScrubPlace, Unreadable};
use crate::sim::disk::Fate;

/// The same, with a bit of the batch of offsets 2 and 3 turned, opened again.
fn rotten(batches: u64) -> Bench {
    let bench = Bench::filled(batches);
    assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + 9_000) * 8));
    let (bench, _) = bench.kill();
    look(&bench);
    bench
}

/// Reads everything: sealed segments are believed when they are opened.
fn look(bench: &Bench) {
    bench.log.reader().scrub(ScrubPlace::default(), 1 << 30).expect("read");
}

/// Makes gaps of what cannot be read in these offsets.
fn give_up(bench: &mut Bench, from: u64, until: u64) -> u64 {
    let mut giving = GivingUp::new(vec![Offset(from)..Offset(until)]);
    for _ in 0..10 {
        match bench.log.give_up(&mut giving).expect("give up") {
            Left::Nothing => return giving.records(),
            Left::Work => {}
            Left::Waits => bench.flush(),
        }
    }
    panic!("it waits for ever");
}

/// What cannot be read from an offset on, and from where to ask for more.
fn told(bench: &Bench, from: u64, most: usize) -> (Vec<Unreadable>, Option<Offset>) {
    let Listed { runs, next } = bench.log.unreadable(Offset(from), most).expect("told");
    (runs, next)
}

/// Mends what can be mended without anybody.
fn mend_alone(bench: &mut Bench) -> u64 {
    while bench.log.missing().expect("missing").is_some() {
        bench.log.deny_missing();
    }
    let mend = bench.log.take_mend().expect("take");
    mend.map_or(0, |mend| bench.log.mended(mend.run()).expect("mended"))
}

fn read_from(bench: &Bench, from: u64) -> Vec<(u64, u32, bool)> {
    bench.log.publish(bench.log.end_offset());
    let slices = bench.log.reader().read(Offset(from), 1 << 20).expect("it can be read");
    let read = slices.iter().flat_map(|slice| frames(slice));
    let told = read.map(|frame| frame.expect("a frame").0);
    told.map(|header| (header.base_offset.0, header.records(), header.is_gap())).collect()
}

#[test]
fn segments_that_were_read_are_not_opened_again_while_the_rest_is() {
    let mut bench = Bench::filled(700);
    let mut giving = GivingUp::new(vec![Offset(0)..Offset(2_000)]);
    let first = bench.log.give_up(&mut giving).expect("give up");
    assert_eq!(first, Left::Work, "it is more than is read at once");
    for ending in [".log", ".idx"] {
        bench.disk.remove(&bench.oldest(ending)).expect("remove");
    }
    while bench.log.give_up(&mut giving).expect("nobody needs it") == Left::Work {}
}

#[test]
fn what_cannot_be_read_is_named_and_becomes_a_gap_that_stays() {
    let mut bench = rotten(7);
    let (end, file) = (bench.log.end(), bench.oldest(".log"));
    let range = FaultyRange { from: Offset(2), until: Offset(4), file };
    assert_eq!(told(&bench, 0, 10), (vec![Unreadable { range, batches: 1 }], None));
    assert_eq!(give_up(&mut bench, 2, 4), 2);
    assert_eq!(told(&bench, 0, 10), (vec![], None));
    assert_eq!(mend_alone(&mut bench), 1);
    assert!(!bench.log.is_faulty());
    assert_eq!(read_from(&bench, 0)[..3], [(0, 2, false), (2, 2, true), (4, 2, false)]);
    let whole = bench.everything();
    let (bench, recovered) = bench.lose_power(Fate::Lost);
    assert_eq!((&recovered.faulty[..], &recovered.damage), (&[][..], &None));
    assert!(bench.everything() == whole && bench.log.end() == end);
    assert!(!bench.files().iter().any(|name| name.ends_with(".mend")), "{:?}", bench.files());
}

#[test]
fn a_power_cut_behind_the_decision_takes_nothing_back_and_the_gap_makes_itself() {
    for fate in [Fate::Lost, Fate::Kept] {
        let mut bench = rotten(3);
        assert_eq!(give_up(&mut bench, 2, 4), 2);
        let (mut bench, _) = bench.lose_power(fate);
        assert_eq!(give_up(&mut bench, 0, 99), 0, "it is given up already");
        assert!(bench.log.is_faulty(), "the file is as it was");
        assert_eq!(mend_alone(&mut bench), 1);
        assert_eq!(read_from(&bench, 2)[..2], [(2, 2, true), (4, 2, false)]);
    }
}

#[test]
fn nothing_is_given_up_that_can_be_read_or_was_not_named() {
    let mut bench = rotten(3);
    assert_eq!(give_up(&mut bench, 4, 99), 0);
    assert_eq!(give_up(&mut bench, 3, 99), 0, "only whole batches that were named");
    assert_eq!(give_up(&mut bench, 0, 99), 2);
    assert_eq!(mend_alone(&mut bench), 1);
    assert_eq!(read_from(&bench, 0), [(0, 2, false), (2, 2, true), (4, 2, false)]);
}

#[test]
fn what_does_not_fit_one_list_is_told_in_the_next() {
    let bench = Bench::filled(7);
    for at in [1_000, 20_000] {
        assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + at) * 8));
    }
    let (bench, _) = bench.kill();
    look(&bench);
    let (all, none) = told(&bench, 0, 10);
    assert_eq!((all.len(), none), (2, None));
    let (first, next) = told(&bench, 0, 1);
    assert_eq!((&first[..], next), (&all[..1], Some(Offset(4))));
    assert_eq!(told(&bench, 4, 1), (all[1..].to_vec(), None));
}

#[test]
fn a_pass_reads_no_more_than_its_part_of_what_may_be_given_up_and_all_of_it_once() {
    let mut bench = Bench::new();
    for number in 0..5 {
        bench.log.append(Term(1), &batch(1, 2_000_000, number)).expect("append");
    }
    bench.log.close().expect("close");
    let (mut bench, _) = bench.kill();
    let last = bench.files().into_iter().rfind(|name| name.ends_with(".log"));
    let path = Path::new(DIR).join(last.expect("there are five"));
    assert!(bench.disk.flip_bit(&path, (4096 + 9_000) * 8));
    let mut giving = GivingUp::new(vec![Offset(0)..Offset(2), Offset(1)..Offset(99)]);
    let mut passes = 1;
    while bench.log.give_up(&mut giving).expect("give up") == Left::Work {
        passes += 1;
    }
    assert_eq!((passes, giving.records()), (2, 1), "three batches in the first, two in the second");
}

#[test]
fn what_nobody_has_keeps_nothing_else_from_being_mended() {
    let peer = Bench::filled(7);
    let bench = Bench::filled(7);
    for at in [1_000, 20_000] {
        assert!(bench.disk.flip_bit(&bench.oldest(".log"), (4096 + at) * 8));
    }
    let (mut bench, _) = bench.kill();
    look(&bench);
    let lost = bench.log.missing().expect("missing").expect("offsets 0 and 1");
    bench.log.deny_missing();
    let second = bench.log.missing().expect("missing").expect("offsets 4 and 5");
    assert!(lost.behind < second.behind);
    let behind = second.behind.index;
    let read = peer.log.read_frames(behind, second.bytes as usize).expect("read");
    assert_eq!(bench.log.mend(behind, &read.frames).expect("mend"), 1);
    assert_eq!(bench.log.missing().expect("missing"), None, "it is copied first");
    let mend = bench.log.take_mend().expect("take").expect("all has come that will");
    assert_eq!(bench.log.mended(mend.run()).expect("mended"), 1);
    assert_eq!(bench.log.missing().expect("missing"), None);
    assert_eq!(bench.log.missing().expect("missing"), Some(lost), "it is asked for again");
    bench.log.publish(bench.log.end_offset());
    let read = bench.log.reader().read(Offset(4), 1 << 20).expect("it can be read");
    assert_eq!(offsets(&read)[..2], [4, 6]);
}
