//! The journal: term and vote of every replica of a shard, in two files, flushed once per pass.
//!
//! What must hold: a record is flushed to `journal.a` before it is written to `journal.b`, so a crash
//! can damage the tail of one copy only, and two copies that both end in garbage have lost something.
//! A vote that may be lost is never taken for a vote never given: then `memory` says `Lost` for ever, and
//! the shard opens a replica that has files but no entry as one that lost its identity; and so is one whose entry
//! was found beside the damage, for it may be older than the last vote. The bytes are described in `FORMAT.md`. This
//! file does not know what a vote means.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_protocol::ids::TopicPartition;

use crate::crash_point::{self, CrashPoint};
use crate::disk::{Disk, File};
use crate::mutant::{self, Mutant};
use crate::raft::Suspicion;
use crate::replica::{LastLife, Remembered};
use crate::shard::Directory;
use crate::shard::journal_codec::{self as codec, Change};

pub use codec::Memory;

/// Terms and votes, and how complete they are.
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    memory: Memory,
    live: BTreeMap<TopicPartition, Remembered>,
    changes: BTreeMap<TopicPartition, Change>,
    sequence: u64,
    files: [Arc<dyn File>; 2],
    end: u64,
    failed: bool,
}

impl Journal {
    /// Reads both copies and repairs the worse one, or makes both. Only in a directory that is new
    /// may there be no journal. An unclean end is noted for each replica before anything else can
    /// happen: the next life may follow before this one has opened them.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        directory: Directory,
        last_life: LastLife,
    ) -> io::Result<Journal> {
        disk.create_dir(dir)?;
        let names = disk.list(dir)?;
        let mut copies = Vec::new();
        for name in NAMES {
            copies.push(if names.iter().any(|present| present == name) {
                read_copy(disk.as_ref(), &dir.join(name))?
            } else {
                codec::Replayed::nothing()
            });
        }
        let was_never_made = names.is_empty() && directory == Directory::New;
        let lost = !was_never_made && lack_their_end(&copies[0], &copies[1]);
        let newer = copies[1].sequence > copies[0].sequence;
        let best = usize::from(newer && !mutant::active(Mutant::SecondCopyIgnored));
        let worse = 1 - best;
        let codec::Replayed { mut live, sequence, memory, .. } = copies.swap_remove(best);
        let memory = if lost { Memory::Lost } else { memory };
        if lost {
            // What is left of a replica may be older than its last vote.
            live.values_mut().for_each(|known| known.suspicion = Suspicion::LostIdentity);
        }
        if last_life == LastLife::Unclean && !mutant::active(Mutant::UncleanEndForgotten) {
            live.values_mut().for_each(|known| known.last_life = LastLife::Unclean);
        }
        // Always begin with two fresh copies: what a crash left behind the end is gone for good. The
        // worse one first, so that the better one stands until another is as good.
        let sequence = sequence + 1;
        let snapshot = codec::file_of(sequence, memory, &live);
        let rewritten = write_new(disk.as_ref(), dir, NAMES[worse], &snapshot)?;
        let replaced = write_new(disk.as_ref(), dir, NAMES[best], &snapshot)?;
        let files = if worse == 0 { [rewritten, replaced] } else { [replaced, rewritten] };
        let end = snapshot.len() as u64;
        let (changes, dir) = (BTreeMap::new(), dir.to_path_buf());
        Ok(Journal { disk, dir, memory, live, changes, sequence, files, end, failed: false })
    }

    /// Whether anything may have been forgotten before this life.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// What is known of a replica.
    pub fn get(&self, partition: TopicPartition) -> Option<Remembered> {
        self.live.get(&partition).copied()
    }

    /// Notes a change; durable after `flush`.
    pub fn remember(&mut self, partition: TopicPartition, known: Remembered) {
        self.live.insert(partition, known);
        self.changes.insert(partition, Change::Set(known));
    }

    /// Notes that a replica was deleted; durable after `flush`.
    pub fn forget(&mut self, partition: TopicPartition) {
        if self.live.remove(&partition).is_some() {
            self.changes.insert(partition, Change::Gone);
        }
    }

    /// Makes all that was noted durable in both copies; the first error is final.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        if self.failed {
            return Err(io::Error::other("the journal has failed before; restart the broker"));
        }
        let written = self.write_changes();
        self.failed = written.is_err();
        written.map_err(|error| {
            let dir = self.dir.display();
            io::Error::new(error.kind(), format!("writing terms and votes to {dir}: {error}"))
        })
    }

    fn write_changes(&mut self) -> io::Result<()> {
        self.sequence += 1;
        let record = codec::record_of(self.sequence, &self.changes);
        let end = self.end + record.len() as u64;
        let fits = self.files.iter().all(|file| end <= file.len());
        if !fits || end > self.size_worth_rewriting() {
            match self.rewrite() {
                // Rewriting is worth it long before the copies are at their ends, so a disk that is
                // full now need not stop the broker: the next time there may be room. And where only
                // descriptors are lacking, what is open can grow.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    if !fits {
                        self.grow_to(end)?;
                    }
                }
                done => return done,
            }
        }
        let [first, second] = &self.files;
        first.write_at(self.end, &[&record])?;
        first.flush()?;
        crash_point::reached(CrashPoint::JournalHalf);
        second.write_at(self.end, &[&record])?;
        second.flush()?;
        self.end = end;
        self.changes.clear();
        Ok(())
    }

    /// Replaces both copies, one after the other, by what is live. A full disk changes nothing: both
    /// are written aside before either takes its place.
    fn rewrite(&mut self) -> io::Result<()> {
        let snapshot = codec::file_of(self.sequence, self.memory, &self.live);
        let disk = self.disk.as_ref();
        let aside = NAMES.map(|name| write_aside(disk, &self.dir, name, &snapshot));
        let [a, b] = aside;
        let aside = [a?, b?];
        for ((held, new), name) in self.files.iter_mut().zip(aside).zip(NAMES) {
            put_in_place(disk, &self.dir, name)?;
            *held = new;
        }
        self.end = snapshot.len() as u64;
        self.changes.clear();
        Ok(())
    }

    fn grow_to(&self, end: u64) -> io::Result<()> {
        if end > FILE_BYTES_MAX {
            return Err(io::Error::other("it cannot grow any further, nor be rewritten"));
        }
        let bytes = (end + FILE_BYTES_MIN / 2).min(FILE_BYTES_MAX);
        self.files.iter().try_for_each(|file| file.extend(bytes))
    }

    fn size_worth_rewriting(&self) -> u64 {
        let live = codec::file_bytes(self.live.len()) as u64;
        (live * REWRITE_WHEN_LARGER).max(FILE_BYTES_MIN / 2)
    }
}

/// Whether two copies together may have forgotten a record that was flushed to both.
fn lack_their_end(a: &codec::Replayed, b: &codec::Replayed) -> bool {
    let (newer, older) = if b.sequence > a.sequence { (b, a) } else { (a, b) };
    let newer_may_lack_its_end = !newer.is_clean();
    let older_shows_the_end = older.is_clean() && older.sequence == newer.sequence;
    newer.sequence == 0 || (newer_may_lack_its_end && !older_shows_the_end)
}

fn read_copy(disk: &dyn Disk, path: &Path) -> io::Result<codec::Replayed> {
    let file = disk.open(path, FILE_BYTES_MAX)?;
    Ok(match file.read(0..file.len()) {
        Ok(bytes) => codec::replay(&bytes),
        // An unreadable copy is a bad copy; the other one may be well.
        Err(_) => codec::Replayed::nothing(),
    })
}

/// Writes a file under another name and gives it its own only when it is whole.
fn write_new(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    snapshot: &[u8],
) -> io::Result<Arc<dyn File>> {
    let file = write_aside(disk, dir, name, snapshot)?;
    put_in_place(disk, dir, name)?;
    Ok(file)
}

fn write_aside(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    snapshot: &[u8],
) -> io::Result<Arc<dyn File>> {
    let new = dir.join(format!("{name}.new"));
    if disk.list(dir)?.iter().any(|present| *present == format!("{name}.new")) {
        disk.remove(&new)?;
    }
    let bytes = (snapshot.len() as u64 * ROOM_TO_GROW).max(FILE_BYTES_MIN);
    let file = disk.create(&new, bytes, FILE_BYTES_MAX)?;
    file.write_at(0, &[snapshot])?;
    file.flush()?;
    crash_point::reached(CrashPoint::JournalWritten);
    Ok(file)
}

fn put_in_place(disk: &dyn Disk, dir: &Path, name: &str) -> io::Result<()> {
    disk.rename(&dir.join(format!("{name}.new")), &dir.join(name))?;
    crash_point::reached(CrashPoint::JournalRenamed);
    disk.flush_dir(dir)
}

const NAMES: [&str; 2] = ["journal.a", "journal.b"];
/// A copy this many times the size of its live content is rewritten.
const REWRITE_WHEN_LARGER: u64 = 4;
/// How much room a new copy has, as a multiple of its content.
const ROOM_TO_GROW: u64 = 5;
const FILE_BYTES_MIN: u64 = 64 << 10;
/// Room for more replicas than a shard will ever host.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Counts, HardState};
    use crate::replica::Logged;
    use crate::sim::disk::SimDisk;
    use crate::sim::rng::Rng;
    use highwater_protocol::ids::{NodeId, PartitionId, Term, TopicId};

    const DIR: &str = "/data/shard-0";

    fn partition(number: u32) -> TopicPartition {
        TopicPartition::new(TopicId::CLUSTER, PartitionId(number))
    }

    fn voted(term: u32) -> Remembered {
        let hard = HardState { term: Term(term), vote: Some(NodeId(term % 3)) };
        Remembered {
            hard,
            suspicion: Suspicion::None,
            last_life: LastLife::Clean,
            recovery: None,
            vouches: Counts::Flushed,
            logged: Logged::Something,
        }
    }

    fn open(disk: &Arc<SimDisk>, life: u64) -> Journal {
        let disk = Arc::clone(disk) as Arc<dyn Disk>;
        let directory = if life == 1 { Directory::New } else { Directory::Used };
        Journal::open(disk, Path::new(DIR), directory, LastLife::Clean).expect("the journal opens")
    }

    fn spoil(disk: &Arc<SimDisk>, name: &str, at: u64) {
        let path = Path::new(DIR).join(name);
        let file = disk.open(&path, FILE_BYTES_MAX).expect("the copy is there");
        file.write_at(at, &[&[0xee; 8]]).expect("it can be spoilt");
        file.flush().expect("for good");
    }

    #[test]
    fn what_was_flushed_is_remembered_after_a_power_cut_and_the_first_life_lost_nothing() {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk, 1);
        assert_eq!(journal.memory(), Memory::Whole);
        journal.remember(partition(1), voted(7));
        journal.remember(partition(2), voted(8));
        journal.flush().expect("a sound disk");
        journal.forget(partition(2));
        journal.flush().expect("a sound disk");
        journal.remember(partition(3), voted(9));
        disk.lose_power();
        let journal = open(&disk, 2);
        assert_eq!(journal.memory(), Memory::Whole);
        assert_eq!(journal.get(partition(1)), Some(voted(7)));
        assert_eq!(journal.get(partition(2)), None);
        assert_eq!(journal.get(partition(3)), None, "it was never flushed");
    }

    #[test]
    fn one_bad_copy_is_repaired_from_the_other_and_two_bad_copies_are_a_loss() {
        for (names, expected) in [
            (&["journal.a"][..], Memory::Whole),
            (&["journal.b"][..], Memory::Whole),
            (&["journal.a", "journal.b"][..], Memory::Lost),
        ] {
            for at in [0, 24, 60] {
                let disk = SimDisk::new(1);
                let mut journal = open(&disk, 1);
                journal.remember(partition(1), voted(7));
                journal.flush().expect("a sound disk");
                names.iter().for_each(|name| spoil(&disk, name, at));
                let journal = open(&disk, 2);
                assert_eq!(journal.memory(), expected, "{names:?} at {at}");
                if expected == Memory::Whole {
                    assert_eq!(journal.get(partition(1)), Some(voted(7)), "{names:?} at {at}");
                }
                assert_eq!(open(&disk, 3).memory(), expected, "a loss is not forgotten");
            }
        }
    }

    #[test]
    fn a_vote_behind_which_both_copies_are_spoilt_is_not_believed() {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk, 1);
        journal.remember(partition(1), voted(7));
        journal.flush().expect("a sound disk");
        let at = journal.end;
        journal.remember(partition(1), voted(8));
        journal.flush().expect("a sound disk");
        spoil(&disk, "journal.a", at + 20);
        spoil(&disk, "journal.b", at + 30);
        for life in 2..4 {
            let known = open(&disk, life).get(partition(1)).expect("it is older than the damage");
            assert_eq!((known.hard.term, known.suspicion), (Term(7), Suspicion::LostIdentity));
        }
    }

    #[test]
    fn a_journal_that_is_missing_in_a_later_life_is_lost() {
        assert_eq!(open(&SimDisk::new(1), 2).memory(), Memory::Lost);
    }

    #[test]
    fn it_is_rewritten_before_it_grows_large_and_forgets_nothing() {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk, 1);
        for term in 1..20_000 {
            journal.remember(partition(term % 5), voted(term));
            journal.flush().expect("a sound disk");
        }
        assert!(journal.end <= journal.size_worth_rewriting());
        let journal = open(&disk, 2);
        for number in 0..5 {
            assert_eq!(journal.get(partition(number)), Some(voted(19_995 + number)));
        }
    }

    #[test]
    fn a_full_disk_delays_the_rewrite_and_forgets_nothing() {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk, 1);
        disk.limit_bytes(Some(2 * FILE_BYTES_MIN + FILE_BYTES_MIN / 2));
        let mut term = 1;
        while journal.end <= journal.size_worth_rewriting() + FILE_BYTES_MIN / 4 {
            journal.remember(partition(term % 5), voted(term));
            journal.flush().expect("the copies have room left");
            term += 1;
        }
        disk.limit_bytes(None);
        journal.remember(partition(7), voted(term));
        journal.flush().expect("there is room");
        assert!(journal.end <= journal.size_worth_rewriting(), "made up for");
        let journal = open(&disk, 2);
        assert_eq!(journal.get(partition(7)), Some(voted(term)));
        assert_eq!(journal.get(partition((term - 1) % 5)), Some(voted(term - 1)));
    }

    #[test]
    fn a_lack_of_descriptors_stops_no_broker_however_long_it_lasts() {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk, 1);
        disk.take_files(0);
        for term in 1..4_000 {
            journal.remember(partition(term % 5), voted(term));
            journal.flush().expect("what is open can grow");
        }
        assert!(journal.end > FILE_BYTES_MIN);
        disk.give_files();
        journal.remember(partition(7), voted(4_000));
        journal.flush().expect("there are some");
        assert!(journal.end <= journal.size_worth_rewriting(), "made up for");
        let journal = open(&disk, 2);
        assert_eq!(journal.get(partition(7)), Some(voted(4_000)));
        assert_eq!(journal.get(partition(4)), Some(voted(3_999)));
    }

    #[test]
    fn a_failed_flush_is_final() {
        let disk = SimDisk::new(1);
        let mut journal = open(&disk, 1);
        journal.remember(partition(1), voted(7));
        disk.fail_next_flush();
        assert!(journal.flush().is_err());
        assert!(journal.flush().is_err());
    }

    /// Whatever moment the power fails at, what a flush answered for is there, and nothing is lost.
    #[test]
    fn no_moment_for_a_power_cut_loses_a_flushed_vote() {
        for seed in 0..2_000 {
            let mut rng = Rng::new(seed, "journal");
            let disk = SimDisk::new(seed);
            let mut sure = BTreeMap::new();
            drop(open(&disk, 1));
            for life in 2..5 {
                disk.arm(rng.between(1..=60));
                let dir = Path::new(DIR);
                let opened = Journal::open(
                    Arc::clone(&disk) as Arc<dyn Disk>,
                    dir,
                    Directory::Used,
                    LastLife::Clean,
                );
                let Ok(mut journal) = opened else {
                    disk.lose_power();
                    continue;
                };
                assert_eq!(journal.memory(), Memory::Whole, "seed {seed}");
                for (number, term) in &sure {
                    let known = journal.get(partition(*number)).expect("it was flushed");
                    assert!(known.hard.term >= Term(*term), "seed {seed} forgot a vote");
                }
                while !disk.is_dead() {
                    let (number, term) =
                        (rng.below(4) as u32, life as u32 * 1_000 + rng.below(9) as u32);
                    let term = term.max(sure.get(&number).copied().unwrap_or(0));
                    journal.remember(partition(number), voted(term));
                    if journal.flush().is_ok() && !disk.is_dead() {
                        sure.insert(number, term);
                    }
                }
                disk.lose_power();
            }
        }
    }
}
