//! A disk in memory that keeps what was flushed and may forget everything else.
//!
//! It has a page cache (what a running system reads) and a medium (what a power cut leaves). Writes
//! go to the cache; `flush` brings a file's pages and length to the medium, `flush_dir` a
//! directory's names. When power is lost, every unflushed page survives, vanishes or is torn at 512
//! bytes; an unflushed length or name may vanish too: a made file is gone, a rename undone, a
//! removed file back. Handles from before give errors ever after.
//!
//! Faults are asked for: power lost amid the n-th operation from now (`arm`), a flush that fails
//! once (`fail_next_flush`) and whose pages are then lost for good although the next flush succeeds,
//! as Linux does it; a full disk; flipped bits. What struck is counted in `Injected`, so that a test
//! can tell that it tested something. Directories themselves are durable at once.

mod contents;
mod faces;
mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use state::{FlushFails, State};

/// The simulated disk of one machine, through all of its lives.
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What was not on the medium when power was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unflushed {
    /// A page of 4 KiB: of which file, and which one.
    Page(u64, u64),
    /// A file's length.
    Length(u64),
    /// A change of a name.
    Name(PathBuf),
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It reached the medium by itself.
    Kept,
    /// It did not.
    Lost,
    /// Those of a page's eight sectors whose bit is set reached it. For a length or name: lost.
    Torn(u8),
}

/// How often what struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injected {
    /// Operations that change something.
    pub operations: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// Unflushed pages that survived a power cut.
    pub pages_kept: u64,
    /// Unflushed pages that did not.
    pub pages_lost: u64,
    /// Unflushed pages of which a part survived.
    pub pages_torn: u64,
    /// Lengths and changes of names that a power cut undid.
    pub names_lost: u64,
    /// Flushes that failed.
    pub flush_errors: u64,
    /// Allocations refused because the disk was full.
    pub full_errors: u64,
    /// Files that could not be opened or made for want of descriptors.
    pub no_file_errors: u64,
    /// Pages that hold what does not belong there.
    pub pages_spoilt: u64,
    /// Bits flipped on the medium.
    pub bits_flipped: u64,
}

impl SimDisk {
    /// An empty disk whose luck comes from a seed.
    pub fn new(seed: u64) -> Arc<SimDisk> {
        let state = State::new(seed);
        Arc::new(SimDisk { state: Arc::new(Mutex::new(state)) })
    }

    /// A second disk in exactly this state, its unflushed pages and armed faults included.
    pub fn fork(&self) -> Arc<SimDisk> {
        Arc::new(SimDisk { state: Arc::new(Mutex::new(self.lock().clone())) })
    }

    /// Power goes off amid the `operations`-th changing operation from now: it and all later ones
    /// fail, until `lose_power` begins the next life.
    pub fn arm(&self, operations: u64) {
        assert!(operations > 0, "a fuse burns for one operation at least");
        self.lock().fuse = Some(operations);
    }

    /// Whether power will go off by itself, or a flush fail, after which it may have to.
    pub fn is_armed(&self) -> bool {
        let state = self.lock();
        state.fuse.is_some() || state.flush_fails != FlushFails::No
    }

    /// Takes back what was armed and has not struck.
    pub fn disarm(&self) {
        let mut state = self.lock();
        (state.fuse, state.flush_fails) = (None, FlushFails::No);
    }

    /// Whether power went off by itself.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// The next flush of any file fails.
    pub fn fail_next_flush(&self) {
        self.lock().flush_fails = FlushFails::Next;
    }

    /// The next flush of this file, or of one in this directory, fails.
    pub fn fail_next_flush_of(&self, path: &Path) {
        self.lock().flush_fails = FlushFails::NextOf(path.to_owned());
    }

    /// Flushes hang from now on: whoever asks for one has to wait until `unhang`, and must not be heard before. When
    /// the power fails before that, nothing has happened since the first of them was asked for.
    pub fn hang(&self) {
        self.lock().hanging.get_or_insert_default();
    }

    /// They go through.
    pub fn unhang(&self) {
        self.lock().unhang();
    }

    /// A process starts on it: what failed under the one before is history.
    pub fn begin_process(&self) {
        let mut state = self.lock();
        state.failed.clear();
        state.spares = None;
    }

    /// Whether a flush failed under the present process.
    pub fn has_failed(&self) -> bool {
        !self.lock().failed.is_empty()
    }

    /// The same of a file in this directory.
    pub fn has_failed_in(&self, dir: &Path) -> bool {
        self.lock().failed.iter().any(|file| file.starts_with(dir))
    }

    /// How much can be allocated in all; without a limit at first.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.lock().bytes_max = bytes_max;
    }

    /// Somebody takes the disk's space but for so many bytes, until it is given back without a limit.
    pub fn fill(&self, free_bytes: u64) {
        let mut state = self.lock();
        state.bytes_max = Some(state.used_bytes() + free_bytes);
    }

    /// The process that uses it has no descriptor left, but for so many that it kept back for files that it must make;
    /// until it gets some or another process begins.
    pub fn take_files(&self, spares: usize) {
        self.lock().spares = Some(spares);
    }

    /// It gets some; says what it had kept back, if it had no others.
    pub fn give_files(&self) -> Option<usize> {
        self.lock().spares.take()
    }

    /// Whether its space has a limit now, or nothing can be opened.
    pub fn is_limited(&self) -> bool {
        let state = self.lock();
        state.bytes_max.is_some() || state.spares.is_some()
    }

    /// Flips one bit of a file, in the cache and on the medium; false if there is no such bit.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> bool {
        let mut state = self.lock();
        let Some(id) = state.named(path) else { return false };
        let flipped = state.contents(id).flip_bit(bit);
        state.injected.bits_flipped += u64::from(flipped);
        flipped
    }

    /// Puts into a page of a file what another page of it holds, or zeros, in the cache and on the medium.
    pub fn spoil_page(&self, path: &Path, page: u64, with: Option<u64>) {
        let mut state = self.lock();
        let id = state.named(path).expect("the caller found the file");
        state.contents(id).spoil_page(page, with);
        state.injected.pages_spoilt += 1;
    }

    /// A page of a file cannot be read any more: whoever tries gets an error.
    pub fn make_unreadable(&self, path: &Path, page: u64) {
        let mut state = self.lock();
        let id = state.named(path).expect("the caller found the file");
        state.contents(id).unreadable.insert(page);
        state.injected.pages_spoilt += 1;
    }

    /// Brings all that lies in a directory to the medium, as a machine does that has the time; what a
    /// failed flush took for clean stays lost.
    pub fn write_back(&self, dir: &Path) {
        let mut state = self.lock();
        state.flush_dir(dir);
        for id in state.inside(dir).map(|(_, id)| id).collect::<Vec<_>>() {
            state.contents(id).flush();
        }
    }

    /// Takes all files out of a directory, for good.
    pub fn remove_all_in(&self, dir: &Path) {
        let mut state = self.lock();
        state.remove_inside(dir);
        state.flush_dir(dir);
    }

    /// What has struck so far.
    pub fn injected(&self) -> Injected {
        self.lock().injected
    }

    /// How many operations have changed something so far.
    pub fn operations(&self) -> u64 {
        self.lock().injected.operations
    }

    /// What a power cut could take now, in a fixed order.
    pub fn unflushed(&self) -> Vec<Unflushed> {
        let mut found = Vec::new();
        self.fork().lose_power_by(&mut |what| {
            found.push(what);
            Fate::Lost
        });
        found
    }

    /// Cuts the power and begins the next life with what chance left on the medium.
    pub fn lose_power(&self) {
        let mut chance = self.lock().chance;
        // Some cuts keep nearly all, some nearly nothing, most are in between.
        let kept = draw(&mut chance) % 5;
        self.lose_power_by(&mut |_| match draw(&mut chance) % 8 {
            0 => Fate::Torn(draw(&mut chance) as u8),
            luck if luck % 4 < kept => Fate::Kept,
            _ => Fate::Lost,
        });
        self.lock().chance = chance;
    }

    /// The same with fates of the caller's choice.
    pub fn lose_power_by(&self, fate: &mut dyn FnMut(Unflushed) -> Fate) {
        self.lock().lose_power(fate);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no test goes on after a panic inside the disk")
}

/// SplitMix64.
fn draw(chance: &mut u64) -> u64 {
    *chance = chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*chance ^ (*chance >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::disk::{Disk, File};

    const DIR: &str = "/d";

    fn disk() -> Arc<SimDisk> {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new(DIR)).expect("create_dir");
        disk
    }

    fn path(name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    fn durable_file(disk: &SimDisk, name: &str) -> Arc<dyn File> {
        let file = disk.create(&path(name), 8192, 8192).expect("create");
        file.flush().expect("flush");
        disk.flush_dir(Path::new(DIR)).expect("flush_dir");
        file
    }

    #[test]
    fn what_was_flushed_survives_and_the_rest_as_fate_wills() {
        for (fate, expected) in
            [(Fate::Kept, *b"new"), (Fate::Lost, *b"old"), (Fate::Torn(1), *b"new")]
        {
            let disk = disk();
            let file = durable_file(&disk, "a");
            file.write_at(10, &[b"old"]).expect("write");
            file.flush().expect("flush");
            file.write_at(10, &[b"new"]).expect("write");
            disk.lose_power_by(&mut |_| fate);
            assert!(file.read(0..1).is_err(), "a handle from before");
            let file = disk.open(&path("a"), 0).expect("open");
            assert_eq!(&file.read(10..13).expect("read")[..], expected, "{fate:?}");
        }
    }

    #[test]
    fn a_name_lasts_only_after_its_directory_was_flushed() {
        let disk = disk();
        durable_file(&disk, "a");
        disk.create(&path("b"), 1, 1).expect("create").flush().expect("flush");
        disk.rename(&path("a"), &path("c")).expect("rename");
        assert_eq!(disk.list(Path::new(DIR)).expect("list"), ["b", "c"]);
        assert_eq!(disk.unflushed(), [Unflushed::Name(path("b")), Unflushed::Name(path("c"))]);
        disk.lose_power_by(&mut |_| Fate::Lost);
        assert_eq!(disk.list(Path::new(DIR)).expect("list"), ["a"]);
    }

    #[test]
    fn the_fuse_burns_down_amid_an_operation_and_all_later_ones_fail() {
        let disk = disk();
        let file = durable_file(&disk, "a");
        disk.arm(2);
        file.write_at(0, &[b"x"]).expect("one operation is left");
        assert!(file.write_at(4096, &[b"y"]).is_err());
        assert!(disk.is_dead() && file.flush().is_err() && disk.list(Path::new(DIR)).is_err());
        disk.lose_power_by(&mut |_| Fate::Kept);
        assert!(!disk.is_dead() && !disk.is_armed());
        let file = disk.open(&path("a"), 0).expect("open");
        assert_eq!(file.read(4096..4097).expect("read")[..], *b"y", "the last write got through");
    }

    #[test]
    fn what_a_failed_flush_did_not_write_is_lost_although_the_next_one_succeeds() {
        let disk = disk();
        let file = durable_file(&disk, "a");
        file.write_at(0, &[b"x"]).expect("write");
        disk.fail_next_flush();
        assert!(file.flush().is_err() && disk.has_failed());
        file.flush().expect("the error is reported once");
        assert_eq!(file.read(0..1).expect("read")[..], *b"x", "the cache still has it");
        disk.lose_power_by(&mut |_| Fate::Kept);
        let file = disk.open(&path("a"), 0).expect("open");
        assert_eq!(file.read(0..1).expect("read")[..], [0]);
    }

    #[test]
    fn a_failed_flush_is_told_once_to_each_handle_that_was_open_and_to_no_later_one() {
        let disk = disk();
        let one = durable_file(&disk, "a");
        let other = disk.open(&path("a"), 0).expect("open");
        disk.fail_next_flush();
        assert!(one.flush().is_err() && other.flush().is_err());
        one.flush().expect("told");
        other.flush().expect("told");
        disk.open(&path("a"), 0).expect("open").flush().expect("it was not there");
    }

    #[test]
    fn what_a_hanging_disk_was_asked_to_flush_is_safe_only_when_it_hangs_no_more() {
        for (unhung, expected) in [(false, *b"\0\0"), (true, *b"xy")] {
            let disk = disk();
            let file = durable_file(&disk, "a");
            disk.hang();
            file.write_at(0, &[b"x"]).expect("write");
            file.flush().expect("flush");
            file.write_at(1, &[b"y"]).expect("write");
            file.flush().expect("flush");
            if unhung {
                disk.unhang();
            }
            disk.lose_power_by(&mut |_| Fate::Lost);
            let file = disk.open(&path("a"), 0).expect("open");
            assert_eq!(file.read(0..2).expect("read")[..], expected);
        }
    }

    #[test]
    fn a_full_disk_refuses_and_takes_again_what_was_freed() {
        let disk = disk();
        disk.limit_bytes(Some(10_000));
        let file = durable_file(&disk, "a");
        assert_eq!(
            file.extend(12_000).err().map(|error| error.kind()),
            Some(io::ErrorKind::StorageFull)
        );
        assert_eq!(disk.free_bytes(Path::new(DIR)).expect("free"), 10_000 - 8192);
        disk.remove(&path("a")).expect("remove");
        disk.flush_dir(Path::new(DIR)).expect("flush_dir");
        disk.create(&path("b"), 9_000, 9_000).expect("create");
        assert_eq!(disk.injected().full_errors, 1);
    }

    #[test]
    fn a_flipped_bit_is_there_before_and_after_a_power_cut() {
        let disk = disk();
        let file = durable_file(&disk, "a");
        assert!(disk.flip_bit(&path("a"), 4096 * 8 + 3));
        assert_eq!(file.read(4096..4097).expect("read")[..], [8]);
        disk.lose_power();
        let file = disk.open(&path("a"), 0).expect("open");
        assert_eq!(file.read(4096..4097).expect("read")[..], [8]);
        assert!(!disk.flip_bit(&path("a"), 1 << 30) && !disk.flip_bit(&path("b"), 0));
    }
}
