//! Power cuts at every operation of small histories, and what recovery makes of what is left.
//!
//! A history is run again and again on the simulated disk, each time with the power cut amid
//! another operation; every subset of what was not flushed (random ones where there are too many)
//! is tried as what survives. Then must hold: everything flushed is there, byte for byte; nothing is
//! there that was not written; nobody calls it damage; recovering twice, also with power cuts amid
//! recovery, gives the same; and the log can be used and recovered again.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use highwater_broker::disk::Disk;
use highwater_broker::disk::mmap::MmapDisk;
use highwater_broker::log::{Appended, Log, Options, Recovered, StartPoint};
use highwater_broker::sim::disk::{Fate, SimDisk};
use highwater_protocol::batch::{BatchBuilder, BuilderOptions, Mark, VoterSet, frames, stamp};
use highwater_protocol::ids::{
    LogIndex, NodeId, Offset, PartitionId, Term, Timestamp, TopicId, TopicPartition,
};
use uuid::Uuid;

/// What is done to a log.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Appends a batch of so many records of so many bytes.
    Append(u32, usize),
    /// A new term begins.
    NewTerm,
    Voters(u32),
    Flush,
    /// Cuts the last so many frames, as far as they are not trimmed.
    Truncate(usize),
    /// Gives up all but the last so many frames.
    Trim(usize),
    /// Gives up everything and starts where another log starts, further on.
    Anew,
    /// Stops and starts, cleanly.
    Reopen,
}

use Act::{Anew, Append, Flush, NewTerm, Reopen, Trim, Truncate, Voters};

/// What a log should hold.
#[derive(Debug, Clone, Default)]
struct Model {
    /// All frames since the log was made or started anew, trimmed ones too, and where they end.
    frames: Vec<(Bytes, LogIndex, Offset)>,
    /// Where they begin.
    base: (LogIndex, Offset),
    term: u32,
    start: LogIndex,
    durable: LogIndex,
}

impl Model {
    fn end(&self) -> LogIndex {
        self.frames.last().map_or(self.base.0, |frame| frame.1)
    }

    /// The place before the last `count` frames.
    fn place_before_last(&self, count: usize) -> (LogIndex, Offset) {
        let kept = self.frames.len().saturating_sub(count);
        kept.checked_sub(1).map_or(self.base, |last| (self.frames[last].1, self.frames[last].2))
    }

    fn cut(&mut self, to: LogIndex) {
        self.frames.retain(|frame| frame.1 <= to);
        self.durable = self.durable.min(to);
    }

    /// The bytes between two places.
    fn bytes(&self, from: LogIndex, to: LogIndex) -> Vec<u8> {
        let inside = self.frames.iter().filter(|frame| from < frame.1 && frame.1 <= to);
        inside.flat_map(|frame| frame.0.iter().copied()).collect()
    }
}

/// A log, what it should hold, and what it would hold if the last act had succeeded.
struct Run {
    disk: Arc<dyn Disk>,
    log: Option<Log>,
    before: Model,
    after: Model,
}

impl Run {
    fn start(disk: Arc<dyn Disk>) -> io::Result<Run> {
        let log = Some(open(&disk)?.0);
        Ok(Run { disk, log, before: Model::default(), after: Model::default() })
    }

    fn perform(&mut self, act: Act) -> io::Result<()> {
        self.before = self.after.clone();
        let model = &mut self.after;
        let log = self.log.as_mut().expect("a run has a log but while it reopens");
        match act {
            Append(records, bytes) => {
                let batch = batch(records, bytes, log.end().0);
                let frame = stamped(log, Term(model.term), &batch);
                model.append(log, frame, |log, term| log.append(term, &batch))?;
            }
            NewTerm => {
                model.term += 1;
                model.append_mark(log, &Mark::TermStart)?;
            }
            Voters(node) => {
                let voters = VoterSet { voters: vec![NodeId(node)], learners: vec![] };
                model.append_mark(log, &Mark::Voters(voters))?;
            }
            Flush => flush(log)?,
            Truncate(count) => {
                let to = model.place_before_last(count).0.max(model.start);
                model.cut(to);
                log.truncate(to)?;
            }
            Trim(count) => {
                let (_, offset) = model.place_before_last(count);
                log.publish(offset);
                // The start lies behind marks that stand at this offset.
                let given_up = model.frames.iter().take_while(|frame| frame.2 <= offset);
                if let Some(last) = given_up.last().filter(|last| last.2 > log.start().1) {
                    model.start = last.1;
                }
                if let Some((to, _)) = log.batch_start(offset)? {
                    log.trim_to(to, Vec::new())?;
                }
            }
            Anew => {
                let point = start_further_on(log, Term(model.term));
                let base = (point.position().index, Offset(log.end_offset().0 + 5));
                model.frames.clear();
                (model.base, model.start) = (base, base.0);
                log.start_at(&point)?;
                model.durable = base.0;
                assert_eq!((log.start(), log.end()), (base, base.0));
            }
            Reopen => {
                log.close()?;
                model.durable = model.end();
                self.log = None;
                let (log, recovered) = open(&self.disk)?;
                assert_eq!((recovered.torn_tail_bytes, &recovered.damage), (0, &None));
                self.log = Some(log);
            }
        }
        let log = self.log.as_ref().expect("it was opened again");
        self.after.durable = self.after.durable.max(log.durable());
        self.before = self.after.clone();
        Ok(())
    }
}

impl Model {
    fn append_mark(&mut self, log: &mut Log, mark: &Mark) -> io::Result<()> {
        let frame = mark.encode(log.end_offset(), Term(self.term));
        self.append(log, frame, |log, term| log.append_mark(term, mark))
    }

    fn append(
        &mut self,
        log: &mut Log,
        frame: Bytes,
        append: impl FnOnce(&mut Log, Term) -> io::Result<Appended>,
    ) -> io::Result<()> {
        let (header, _) = frames(&frame).next().expect("a frame").expect("a frame of ours");
        let end = log.end().advance(header.entries());
        // If the power goes off now, the frame may be there all the same.
        self.frames.push((frame, end, log.end_offset().advance(u64::from(header.records()))));
        assert_eq!(append(log, Term(self.term))?.end, end);
        Ok(())
    }
}

/// Where another log starts, five records behind this one's end.
fn start_further_on(log: &Log, term: Term) -> StartPoint {
    let disk: Arc<dyn Disk> = SimDisk::new(99);
    let options = Options { segment_bytes_max: 1 << 20, keep_free_bytes: 0 };
    let (mut other, _) =
        Log::open(disk, Path::new("/data/other"), partition(), options).expect("a new log");
    let voters = VoterSet { voters: vec![NodeId(7)], learners: vec![] };
    other.append_mark(term, &Mark::Voters(voters)).expect("append");
    let records = u32::try_from(log.end_offset().0 + 5).expect("few");
    other.append(term, &batch(records, 10, 5)).expect("append");
    while other.end() <= log.end() {
        other.append_mark(term, &Mark::TermStart).expect("append");
    }
    other.publish(other.end_offset());
    other.trim_to(other.end(), Vec::new()).expect("trim");
    StartPoint::parse(&other.start_point()).expect("its own")
}

/// What the log makes of a batch.
fn stamped(log: &Log, term: Term, batch: &Bytes) -> Bytes {
    let mut bytes = batch.to_vec();
    let head = bytes.first_chunk_mut().expect("a batch has a header");
    stamp(head, log.end_offset(), term);
    bytes.into()
}

fn partition() -> TopicPartition {
    TopicPartition::new(TopicId(Uuid::from_u128(5)), PartitionId(0))
}

fn open(disk: &Arc<dyn Disk>) -> io::Result<(Log, Recovered)> {
    let options = Options { segment_bytes_max: 24 << 10, keep_free_bytes: 0 };
    Log::open(Arc::clone(disk), Path::new(&dir(&**disk)), partition(), options)
}

/// On a real disk, a directory of this test's own; names don't matter on a simulated one.
fn dir(_: &dyn Disk) -> String {
    REAL_DIR.with(|dir| dir.borrow().clone()).unwrap_or_else(|| "/data/partition".to_owned())
}

thread_local! {
    static REAL_DIR: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

fn flush(log: &mut Log) -> io::Result<()> {
    if let Some((files, upto)) = log.take_unflushed() {
        files.iter().try_for_each(|file| file.flush())?;
        log.flushed(upto)?;
    }
    Ok(())
}

/// A batch whose bytes differ from any other's.
fn batch(records: u32, bytes: usize, salt: u64) -> Bytes {
    let mut builder = BatchBuilder::new(BuilderOptions::default());
    for record in 0..records {
        let mut value: Vec<u8> =
            (0..bytes).map(|at| (at as u64 * 31 + salt * 7) as u8 | 1).collect();
        value[..4].copy_from_slice(&record.to_be_bytes());
        builder.push(Timestamp(salt as i64), None, Some(&value), &[]);
    }
    builder.finish()
}

/// Everything that a log holds, its checksums verified.
fn contents(log: &Log) -> Vec<u8> {
    let (mut from, mut all) = (log.start().0, Vec::new());
    while from < log.end() {
        let read = log.read_frames(from, 10_000).expect("what was recovered can be read");
        for slice in &read.frames {
            for frame in frames(slice) {
                let (header, bytes) = frame.expect("frames are whole");
                header.verify_checksum(bytes).expect("what is returned passes its checks");
            }
            all.extend_from_slice(slice);
        }
        assert!(read.end > from, "a read goes on");
        from = read.end;
    }
    all
}

/// What recovery must give after a run that the power ended.
fn check_recovered(log: &Log, recovered: &Recovered, run: &Run, what: &str) {
    assert_eq!(recovered.damage, None, "{what}");
    let (start, end) = (log.start().0, log.end());
    let fits = [&run.before, &run.after].into_iter().any(|model| {
        let durable = run.before.durable.min(run.after.end());
        let expected = model.bytes(start, end);
        let right_end = end == start || model.frames.iter().any(|frame| frame.1 == end);
        right_end && durable <= end && contents(log) == expected
    });
    let (before, after) = (&run.before, &run.after);
    assert!(fits, "{what}: {start}..{end}, durable {} then {}", before.durable, after.durable);
    assert!([before.start, after.start].contains(&start), "{what}: it starts at {start}");
}

/// Opens a disk twice and with a power cut in between, checks that all are the same, then uses it.
fn check_disk(disk: &Arc<SimDisk>, run: &Run, what: &str) {
    let dynamic: Arc<dyn Disk> = disk.clone();
    let (log, recovered) = open(&dynamic).unwrap_or_else(|error| panic!("{what}: {error}"));
    check_recovered(&log, &recovered, run, what);
    let (first, end) = (contents(&log), log.end());
    drop(log);
    let (again, _) = open(&dynamic).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert!(contents(&again) == first && again.end() == end, "{what}: recovered twice");
    drop(again);
    disk.lose_power_by(&mut |_| Fate::Lost);
    let (mut log, _) = open(&dynamic).unwrap_or_else(|error| panic!("{what}, cut again: {error}"));
    assert!(contents(&log) == first && log.end() == end, "{what}: what was recovered is durable");

    let mut all = first;
    for records in 1..4 {
        let batch = batch(records, 5_000, 1_000 + u64::from(records));
        let term = Term(run.after.term + 1);
        all.extend_from_slice(&stamped(&log, term, &batch));
        log.append(term, &batch).unwrap_or_else(|error| panic!("{what}, append: {error}"));
    }
    flush(&mut log).unwrap_or_else(|error| panic!("{what}, flush: {error}"));
    drop(log);
    disk.lose_power_by(&mut |_| Fate::Lost);
    let (log, recovered) = open(&dynamic).unwrap_or_else(|error| panic!("{what}, used: {error}"));
    assert_eq!(recovered.damage, None, "{what}, used");
    assert!(contents(&log) == all, "{what}: what was appended afterwards is there");
}

/// Calls `check` with what may be left after a power cut: all subsets if there are few.
fn each_survival(dead: &Arc<SimDisk>, seed: u64, mut check: impl FnMut(Arc<SimDisk>, String)) {
    let unflushed = dead.unflushed().len() as u32;
    if unflushed <= SUBSETS_OF_MAX {
        for subset in 0..1_u32 << unflushed {
            let (disk, mut bit) = (dead.fork(), 0);
            disk.lose_power_by(&mut |_| {
                bit += 1;
                if subset & 1 << (bit - 1) == 0 { Fate::Lost } else { Fate::Kept }
            });
            check(disk, format!("subset {subset:b} of {unflushed}"));
        }
    }
    let mut luck = seed;
    for round in 0..RANDOM_CUTS {
        let disk = dead.fork();
        disk.lose_power_by(&mut |_| {
            luck = luck
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match luck >> 61 {
                0..3 => Fate::Kept,
                3..5 => Fate::Torn((luck >> 40) as u8),
                _ => Fate::Lost,
            }
        });
        check(disk, format!("random cut {round}"));
    }
}

/// Cuts the power at every operation of a history.
fn check_history(history: &[Act]) -> u64 {
    check_kills(history);
    let mut cuts = 0;
    for operation in 1.. {
        let disk = SimDisk::new(operation);
        disk.arm(operation);
        let Some(run) = run_until_dark(&disk, history) else { break };
        each_survival(&disk, operation, |left, how| {
            check_disk(&left, &run, &format!("{history:?}, operation {operation}, {how}"));
            cuts += 1;
        });
        cut_amid_recovery(&disk, &run, &format!("{history:?}, operation {operation}"));
    }
    cuts
}

/// Runs a history until the power goes off; nothing if it does not.
fn run_until_dark(disk: &Arc<SimDisk>, history: &[Act]) -> Option<Run> {
    let mut run = match Run::start(disk.clone()) {
        Ok(run) => run,
        Err(_) => {
            let (before, after) = (Model::default(), Model::default());
            return Some(Run { disk: disk.clone(), log: None, before, after });
        }
    };
    for act in history {
        if run.perform(*act).is_err() {
            assert!(disk.is_dead(), "nothing but the power fails");
            return Some(run);
        }
    }
    None
}

/// Kills the process after every act, without a power cut: recovery sees what is in the page cache,
/// and must make durable what it returns.
fn check_kills(history: &[Act]) {
    let disk = SimDisk::new(1);
    let mut run = Run::start(disk.clone()).expect("nothing fails");
    for (at, act) in history.iter().enumerate() {
        run.perform(*act).expect("nothing fails");
        check_disk(&disk.fork(), &run, &format!("{history:?}, killed after {at}"));
    }
}

fn cut_amid_recovery(dead: &Arc<SimDisk>, run: &Run, what: &str) {
    for operation in 1.. {
        let disk = dead.fork();
        disk.lose_power();
        disk.arm(operation);
        let dynamic: Arc<dyn Disk> = disk.clone();
        let opened = open(&dynamic);
        if opened.is_ok() && !disk.is_dead() {
            disk.disarm();
            break;
        }
        drop(opened);
        disk.lose_power();
        check_disk(&disk, run, &format!("{what}, cut at {operation} amid recovery"));
    }
}

const SUBSETS_OF_MAX: u32 = 8;
const RANDOM_CUTS: u64 = 24;

#[test]
fn appends_and_flushes_survive_a_cut_at_every_operation() {
    let cuts = check_history(&[
        NewTerm,
        Append(1, 100),
        Flush,
        Append(3, 2_000),
        Append(1, 30),
        Flush,
        Append(2, 50),
        Append(1, 9_000),
    ]);
    assert!(cuts > 500, "only {cuts} cuts");
}

#[test]
fn rolls_survive_a_cut_at_every_operation() {
    let big = Append(2, 5_000);
    check_history(&[
        NewTerm,
        big,
        Flush,
        big,
        big,
        big,
        Flush,
        big,
        NewTerm,
        big,
        Flush,
        Append(1, 40_000),
        big,
    ]);
}

#[test]
fn truncations_survive_a_cut_at_every_operation() {
    let small = Append(2, 200);
    check_history(&[
        NewTerm,
        small,
        small,
        Flush,
        small,
        Truncate(1),
        NewTerm,
        small,
        Flush,
        small,
        Truncate(2),
        Truncate(1),
        NewTerm,
        Append(2, 200),
        Flush,
    ]);
}

#[test]
fn truncations_across_segments_survive_a_cut_at_every_operation() {
    let big = Append(2, 5_000);
    check_history(&[
        NewTerm,
        big,
        big,
        Flush,
        big,
        big,
        big,
        Flush,
        Truncate(4),
        NewTerm,
        big,
        big,
        Flush,
        Truncate(100),
        big,
    ]);
}

#[test]
fn trims_survive_a_cut_at_every_operation() {
    let big = Append(2, 5_000);
    check_history(&[
        NewTerm,
        Voters(3),
        big,
        big,
        big,
        Flush,
        Trim(2),
        big,
        big,
        Flush,
        Trim(1),
        Voters(4),
        big,
        Trim(0),
        big,
    ]);
}

#[test]
fn starting_anew_survives_a_cut_at_every_operation() {
    let big = Append(2, 5_000);
    check_history(&[NewTerm, big, big, Flush, big, Anew, big, big, Flush, Trim(1), Reopen, big]);
    check_history(&[Anew, NewTerm, big, Truncate(1), big, Flush, Anew, Anew, big, big]);
}

#[test]
fn clean_stops_survive_a_cut_at_every_operation() {
    let small = Append(1, 300);
    check_history(&[
        NewTerm,
        small,
        Reopen,
        Reopen,
        small,
        small,
        Flush,
        Reopen,
        Truncate(1),
        Reopen,
        small,
        Trim(1),
        Reopen,
        small,
    ]);
}

#[test]
fn random_histories_survive_a_cut_at_every_operation() {
    for seed in 0..RANDOM_HISTORIES {
        let mut luck: u64 = seed;
        let mut draw = |end: u64| {
            luck = luck
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (luck >> 33) % end
        };
        let history: Vec<Act> = (0..9)
            .map(|_| match draw(12) {
                0..5 => Append(draw(3) as u32 + 1, draw(6_000) as usize + 10),
                5..7 => Flush,
                7 => NewTerm,
                8 => Voters(draw(9) as u32),
                9 => Truncate(draw(4) as usize),
                10 if draw(3) == 0 => Anew,
                10 => Trim(draw(4) as usize),
                _ => Reopen,
            })
            .collect();
        check_history(&history);
    }
}

const RANDOM_HISTORIES: u64 = 12;

#[test]
fn on_a_real_disk_a_killed_process_loses_nothing() {
    let dir = tempfile::tempdir().expect("the test's own directory");
    REAL_DIR.with(|real| *real.borrow_mut() = Some(dir.path().join("p").display().to_string()));
    let disk: Arc<dyn Disk> = Arc::new(MmapDisk::default());
    let mut run = Run::start(Arc::clone(&disk)).expect("a new log");
    let (big, small) = (Append(2, 5_000), Append(3, 100));
    let history = [
        NewTerm,
        small,
        big,
        Flush,
        big,
        big,
        big,
        small,
        Truncate(2),
        NewTerm,
        big,
        Flush,
        Reopen,
        small,
        Voters(2),
        big,
        Trim(3),
        big,
        Flush,
        Append(1, 60_000),
        small,
        Truncate(1),
        Reopen,
        small,
        Anew,
        small,
        big,
        Reopen,
        Anew,
    ];
    for act in history {
        run.perform(act).expect("a real disk with space");
        run.log = None;
        let (log, recovered) = open(&disk).expect("recovery");
        assert_eq!(log.end(), run.after.end(), "{act:?}");
        check_recovered(&log, &recovered, &run, &format!("{act:?}"));
        run.log = Some(log);
    }
    REAL_DIR.with(|real| *real.borrow_mut() = None);
}
