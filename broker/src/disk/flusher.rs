//! A small pool of threads that makes files durable, many at a time: code of the edge, for whoever
//! carries out `Effect::Flush`.
//!
//! Write-back is started on all files of a round before the first is waited for, because the
//! device then works on all of them at once (measured: a hundred files in 4 ms instead of 37). A
//! round is answered exactly once, after its last file, with the files that failed: a bad file harms
//! nobody but its owner.
//! When `ROUNDS_MAX` rounds wait, `flush` waits too: its callers are shards, and a shard that is
//! slowed down refuses produce requests by its own bounds.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{File, FlushFailure};

/// The pool. Dropping it finishes the rounds that were handed in, then stops the threads.
pub struct Flusher {
    rounds: Option<Sender<Arc<Round>>>,
    threads: Vec<JoinHandle<()>>,
}

/// Called with the files of a round that failed, in the order of their places, from one of the pool's
/// threads; it must not block for long.
pub type Done = Box<dyn FnOnce(Vec<FlushFailure>) + Send>;

struct Round {
    files: Vec<Arc<dyn File>>,
    started: AtomicBool,
    next: AtomicUsize,
    left: AtomicUsize,
    outcome: Mutex<Outcome>,
}

struct Outcome {
    failures: Vec<FlushFailure>,
    done: Option<Done>,
}

impl Flusher {
    /// A pool of `threads` threads, four to eight for a disk of today.
    pub fn new(threads: usize) -> io::Result<Flusher> {
        assert!(threads > 0, "a pool without threads never flushes");
        let (sender, receiver) = bounded::<Arc<Round>>(ROUNDS_MAX);
        let mut pool = Flusher { rounds: Some(sender), threads: Vec::with_capacity(threads) };
        for number in 0..threads {
            let rounds = receiver.clone();
            let thread = thread::Builder::new()
                .name(format!("flush-{number}"))
                .spawn(move || work(&rounds))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Flushes all files, then calls `done` once.
    pub fn flush(&self, files: Vec<Arc<dyn File>>, done: Done) {
        if files.is_empty() {
            return done(Vec::new());
        }
        let helpers = files.len().min(self.threads.len());
        let round = Arc::new(Round {
            started: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            left: AtomicUsize::new(files.len()),
            outcome: Mutex::new(Outcome { failures: Vec::new(), done: Some(done) }),
            files,
        });
        let rounds = self.rounds.as_ref().expect("only drop takes the sender");
        // The round goes in once for every thread that can help with it; whoever finds it
        // finished has nothing to do.
        rounds.send(Arc::clone(&round)).expect("the pool's threads outlive its sender");
        for _ in 1..helpers {
            if rounds.try_send(Arc::clone(&round)).is_err() {
                break;
            }
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.rounds = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Flusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}

fn work(rounds: &Receiver<Arc<Round>>) {
    for round in rounds {
        if round.files.len() > 1 && !round.started.swap(true, Ordering::Relaxed) {
            round.files.iter().for_each(|file| file.start_flush());
        }
        loop {
            let place = round.next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = round.files.get(place) else { break };
            round.finish(place, file.flush());
        }
    }
}

impl Round {
    fn finish(&self, file: usize, flushed: io::Result<()>) {
        let mut outcome = self.outcome.lock().expect("no thread panics while it holds the lock");
        if let Err(error) = flushed {
            outcome.failures.push(FlushFailure { file, error });
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let mut failures = std::mem::take(&mut outcome.failures);
        let done = outcome.done.take().expect("only the last file of a round ends it");
        drop(outcome);
        failures.sort_unstable_by_key(|failure| failure.file);
        done(failures);
    }
}

/// Rounds handed in and not begun.
const ROUNDS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::disk::mmap::MmapDisk;
    use crossbeam::channel::unbounded;

    /// Fails at flush, or counts.
    struct Fake {
        flushes: AtomicUsize,
        fails: bool,
    }

    impl File for Fake {
        fn write_at(&self, _: u64, _: &[&[u8]]) -> io::Result<()> {
            Ok(())
        }
        fn read(&self, _: std::ops::Range<u64>) -> io::Result<bytes::Bytes> {
            Ok(bytes::Bytes::new())
        }
        fn len(&self) -> u64 {
            0
        }
        fn extend(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn release(&self, _: u64) {}
        fn start_flush(&self) {}
        fn flush(&self) -> io::Result<()> {
            self.flushes.fetch_add(1, Ordering::Relaxed);
            if self.fails { Err(io::Error::other("flush failed")) } else { Ok(()) }
        }
    }

    fn fakes(count: usize, failing: usize) -> Vec<Arc<Fake>> {
        (0..count)
            .map(|n| Arc::new(Fake { flushes: AtomicUsize::new(0), fails: n == failing }))
            .collect()
    }

    fn as_files(fakes: &[Arc<Fake>]) -> Vec<Arc<dyn File>> {
        fakes.iter().map(|fake| Arc::clone(fake) as Arc<dyn File>).collect()
    }

    #[test]
    fn every_file_of_every_round_is_flushed_once_and_every_round_answered_once() {
        let (sender, results) = unbounded();
        let rounds: Vec<_> = (0..50).map(|n| fakes(n % 7, usize::MAX)).collect();
        let pool = Flusher::new(3).expect("threads");
        for round in &rounds {
            let sender = sender.clone();
            pool.flush(
                as_files(round),
                Box::new(move |failures| sender.send(failures.is_empty()).expect("open")),
            );
        }
        drop(pool);
        drop(sender);
        assert_eq!(results.iter().collect::<Vec<_>>(), vec![true; 50]);
        let flushed = |fake: &Arc<Fake>| fake.flushes.load(Ordering::Relaxed) == 1;
        assert!(rounds.iter().flatten().all(flushed));
    }

    #[test]
    fn a_bad_file_is_named_and_fails_no_other_of_its_round() {
        let (sender, results) = unbounded();
        let pool = Flusher::new(2).expect("threads");
        let round = fakes(4, 1);
        pool.flush(as_files(&round), Box::new(move |done| sender.send(done).expect("open")));
        let failures = results.recv().expect("one answer");
        assert_eq!(failures.iter().map(|failure| failure.file).collect::<Vec<_>>(), [1]);
        assert!(round.iter().all(|fake| fake.flushes.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn real_files_go_through_it() {
        let dir = tempfile::tempdir().expect("the test's own directory");
        let files: Vec<Arc<dyn File>> = (0..20)
            .map(|n| {
                MmapDisk::default()
                    .create(&dir.path().join(n.to_string()), 4096, 4096)
                    .expect("create")
            })
            .collect();
        files.iter().for_each(|file| file.write_at(0, &[b"x"]).expect("write"));
        let (sender, results) = unbounded();
        let pool = Flusher::new(4).expect("threads");
        pool.flush(files, Box::new(move |done| sender.send(done).expect("open")));
        assert!(results.recv().expect("one result").is_empty());
    }
}
