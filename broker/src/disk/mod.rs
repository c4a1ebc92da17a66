//! The one seam between the core and the machine: files and directories.
//!
//! `Disk` and `File` have two implementations, the real one (`mmap`) and the simulator's
//! (`sim::disk`), so that the real log code runs on a disk that tears, forgets and fails. A file
//! is written by `write_at`, read by slices that stay valid for as long as anyone holds them, and
//! durable only after `flush`; a name is durable only after `flush_dir` of its directory. Nothing
//! here truncates or overwrites what a reader may hold: callers never write a range twice once it
//! was handed out.
//!
//! A lack of descriptors is like a full disk: `StorageFull`, from whatever opens something. Nothing was changed, and
//! later there may be some.

mod closer;
pub mod flusher;
pub mod mmap;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

/// A file system, or the part of it that holds a broker's data.
pub trait Disk: Send + Sync {
    /// Makes a new file whose first `bytes` are allocated and read as zero; fails if the name is taken.
    fn create(&self, path: &Path, bytes: u64, bytes_max: u64) -> io::Result<Arc<dyn File>>;
    /// Opens a file that exists, for reading and writing up to `bytes_max` or its length, if longer.
    fn open(&self, path: &Path, bytes_max: u64) -> io::Result<Arc<dyn File>>;
    /// The names in a directory, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a directory and those above it that are missing; their names are durable on return.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; its bytes are free soon after nobody reads it any more.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything in it; one that is missing is no error.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn flush_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes sure that so many files can be made even where others leave no descriptor: `StorageFull` if they cannot.
    fn spare_files(&self, files: usize) -> io::Result<()>;
    /// Bytes that can still be allocated where `dir` lies.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait File: Send + Sync {
    /// Writes the parts one after another from `at`; all of it or an error.
    fn write_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()>;
    /// The bytes of a range that lies within `len`, without a copy where the file is mapped.
    fn read(&self, range: Range<u64>) -> io::Result<Bytes>;
    /// How many bytes are allocated.
    fn len(&self) -> u64;
    /// Whether nothing is allocated.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Allocates up to `bytes`; a full disk shows here, never in a write.
    fn extend(&self, bytes: u64) -> io::Result<()>;
    /// Gives back the blocks from `at` on, which nobody wrote or will write; a hint.
    fn release(&self, at: u64);
    /// Starts writing back what is dirty and returns at once; a hint, without a promise.
    fn start_flush(&self);
    /// Returns when all that was written before is on the device. The first error is final for
    /// whoever relied on the file: the kernel forgets what it could not write.
    fn flush(&self) -> io::Result<()>;
}

/// A file that failed among those that were flushed together.
#[derive(Debug)]
pub struct FlushFailure {
    /// Its place among them.
    pub file: usize,
    /// What the device said.
    pub error: io::Error,
}

/// The same error with the path and the attempted act in front, so that it explains itself.
pub(crate) fn explain(error: &io::Error, act: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {act} {}: {error}", path.display()))
}
