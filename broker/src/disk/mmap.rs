//! The real disk: files written by `pwritev` and read through one shared read-only map each.
//!
//! What must hold: a descriptor stays open for the life of its file, so that a failed write-back is
//! reported to whoever flushes; blocks are allocated before they are written, so that a full disk
//! is an error of `create` or `extend` and never a signal; the map is made once, at the first read,
//! with room for the file to grow into, and nobody touches it beyond the allocated length. Files
//! are never shortened. A removed file's blocks are freed by the `closer`'s thread, soon after
//! nobody has the file open or mapped.
//!
//! A page that cannot be read is an error of `read`, which brings it in, and for whoever touches it later it reads as
//! zeros (`guard`), after which the file is mapped anew.
//!
//! All `unsafe` code of the project is in this file and in `guard`.

#![allow(unsafe_code)]

mod guard;

use std::fs::{self, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};

use super::closer::{Closer, Held};
use super::{Disk, File, explain};
use guard::Guarded;

/// The machine's file system.
#[derive(Debug, Clone, Default)]
pub struct MmapDisk {
    closer: Arc<Closer>,
    /// The first directory that was flushed, for when no other can be opened.
    flushed: Arc<OnceLock<fs::File>>,
    /// Descriptors kept back for files that have to be made when others have taken all there are.
    spares: Arc<Mutex<Vec<fs::File>>>,
}

struct MmapFile {
    file: Arc<Held>,
    path: PathBuf,
    len: AtomicU64,
    bytes_max: u64,
    map: ArcSwapOption<Map>,
}

/// A read-only view of a file, longer than the file so that it can grow underneath.
struct Map {
    start: NonNull<u8>,
    bytes: usize,
    /// Let go of before the mapping is.
    guarded: Option<Guarded>,
    /// Goes after the mapping, so that unmapping is never what frees a deleted file's blocks.
    _file: Arc<Held>,
}

/// A part of a map that keeps the whole of it alive.
struct Slice {
    map: Arc<Map>,
    range: Range<usize>,
}

impl Disk for MmapDisk {
    fn create(&self, path: &Path, bytes: u64, bytes_max: u64) -> io::Result<Arc<dyn File>> {
        let file = self
            .with_spares(|| OpenOptions::new().read(true).write(true).create_new(true).open(path))
            .map_err(|error| explain(&without_room(error), "create", path))?;
        let file = MmapFile::new(self.hold(file), path, 0, bytes_max);
        if let Err(error) = file.extend(bytes) {
            // Without its blocks the file is of no use; if it stays, recovery removes it.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path, bytes_max: u64) -> io::Result<Arc<dyn File>> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(|error| explain(&without_room(error), "open", path))?;
        let len = file.metadata().map_err(|error| explain(&error, "measure", path))?.len();
        Ok(Arc::new(MmapFile::new(self.hold(file), path, len, bytes_max.max(len))))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let failed = |error: io::Error| explain(&without_room(error), "list", dir);
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // A name that is not UTF-8 is none of ours.
            names.extend(name.into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::create_dir_all(dir).map_err(|error| explain(&error, "make the directory", dir))?;
        for made in missing {
            self.flush_dir(
                made.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new(".")),
            )?;
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
            .map_err(|error| explain(&error, &format!("rename to {} the file", to.display()), from))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        // A handle of ours over the act hands the blocks of a file that nobody has open to the closer.
        let _held = fs::File::open(path).map(|file| self.hold(file));
        fs::remove_file(path).map_err(|error| explain(&error, "remove", path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let names = match self.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        for path in names.into_iter().map(|name| dir.join(name)).filter(|path| path.is_file()) {
            self.remove(&path)?;
        }
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(explain(&without_room(error), "remove the directory", dir))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn flush_dir(&self, dir: &Path) -> io::Result<()> {
        let flushed = match fs::File::open(dir) {
            Ok(opened) => opened.sync_all().map(|()| drop(self.flushed.set(opened))),
            Err(error) => self.flush_all_around(dir, error),
        };
        flushed.map_err(|error| explain(&error, "flush the directory", dir))
    }

    fn spare_files(&self, files: usize) -> io::Result<()> {
        let mut spares = self.spares.lock().expect("nothing panics while it holds the lock");
        while spares.len() < files.max(SPARES) {
            match fs::File::open("/dev/null") {
                Ok(spare) => spares.push(spare),
                Err(_) if spares.len() >= files => break,
                Err(error) => {
                    let act = format!("keep {files} descriptors back beside");
                    return Err(explain(&without_room(error), &act, Path::new("/dev/null")));
                }
            }
        }
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stats = rustix::fs::statvfs(dir)
            .map_err(|error| explain(&error.into(), "measure the free space of", dir))?;
        Ok(stats.f_bavail * stats.f_frsize)
    }
}

impl MmapDisk {
    fn hold(&self, file: fs::File) -> Arc<Held> {
        Arc::new(Held::new(file, &self.closer))
    }

    /// Makes a file, with what was kept back if there is no other descriptor.
    fn with_spares(&self, make: impl Fn() -> io::Result<fs::File>) -> io::Result<fs::File> {
        loop {
            match make() {
                Err(error) if lacks_descriptors(&error) => {
                    let mut spares =
                        self.spares.lock().expect("nothing panics while it holds the lock");
                    // Another thread may be quicker to take what this gives free.
                    drop(spares.pop().ok_or(error)?);
                }
                made => return made,
            }
        }
    }

    /// Flushes the file system of a directory that cannot be opened for want of descriptors: that none is left
    /// is not the disk's failure, and what was done in the directory must be made durable or be final.
    fn flush_all_around(&self, dir: &Path, error: io::Error) -> io::Result<()> {
        let Some(known) = self.flushed.get().filter(|_| lacks_descriptors(&error)) else {
            return Err(error);
        };
        if known.metadata()?.dev() != fs::metadata(dir)?.dev() {
            return Err(error);
        }
        Ok(rustix::fs::syncfs(known)?)
    }
}

fn lacks_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| Some(errno.raw_os_error()) == code)
}

/// What could not be opened for want of descriptors changed nothing, and later there may be some: it is as with a full
/// disk.
fn without_room(error: io::Error) -> io::Error {
    match lacks_descriptors(&error) {
        true => io::Error::new(io::ErrorKind::StorageFull, error),
        false => error,
    }
}

impl MmapFile {
    fn new(file: Arc<Held>, path: &Path, len: u64, bytes_max: u64) -> MmapFile {
        let (path, len) = (path.to_owned(), AtomicU64::new(len));
        MmapFile { file, path, len, bytes_max, map: ArcSwapOption::empty() }
    }

    fn map(&self) -> io::Result<Arc<Map>> {
        match self.map.load_full() {
            Some(map) if !map.is_poisoned() => return Ok(map),
            Some(_) => {
                let file = self.path.display();
                tracing::error!(%file, "a page could not be read when it was touched: it read as zeros");
            }
            None => {}
        }
        let made = Map::new(&self.file, self.bytes_max)
            .map_err(|error| explain(&error, "map", &self.path))?;
        // Two threads may come here at once: each reads through its own, and the later one stays.
        let made = Arc::new(made);
        self.map.store(Some(Arc::clone(&made)));
        Ok(made)
    }

    fn write_slices(&self, mut at: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            let some = slices.len().min(SLICES_MAX);
            match rustix::io::pwritev(&self.file, &slices[..some], at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl File for MmapFile {
    fn write_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        assert!(at + bytes as u64 <= self.len(), "a write behind what is allocated");
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        self.write_slices(at, &mut slices).map_err(|error| {
            explain(&error, &format!("write {bytes} bytes at {at} to"), &self.path)
        })
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        assert!(range.start <= range.end && range.end <= self.len(), "a read behind the end");
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let map = self.map()?;
        let range = range.start as usize..range.end as usize;
        map.populate(&range)
            .map_err(|error| explain(&error, &format!("read {range:?} of"), &self.path))?;
        Ok(Bytes::from_owner(Slice { map, range }))
    }

    fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    fn extend(&self, bytes: u64) -> io::Result<()> {
        assert!(bytes <= self.bytes_max, "a file grows past the room that its map was given");
        let len = self.len();
        if bytes <= len {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), len, bytes - len) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // What could be had was allocated: it must not be kept from others.
                    self.release(len);
                    let act = format!("allocate {} bytes more for", bytes - len);
                    return Err(explain(&error.into(), &act, &self.path));
                }
            }
        }
        self.len.store(bytes, Ordering::Release);
        Ok(())
    }

    fn release(&self, at: u64) {
        let at = at.next_multiple_of(PAGE_BYTES as u64);
        if at < self.bytes_max {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Some file systems cannot; then the blocks stay allocated, which harms nobody.
            let _ = rustix::fs::fallocate(&self.file, hole, at, self.bytes_max - at);
        }
    }

    fn start_flush(&self) {
        let (all, write) = (0, libc::SYNC_FILE_RANGE_WRITE);
        // SAFETY: the descriptor is open for as long as `self.file` lives, and the call takes no
        // pointers. Its result does not matter: whatever fails here fails again in `flush`.
        let _ = unsafe { libc::sync_file_range(self.file.as_fd().as_raw_fd(), 0, all, write) };
    }

    fn flush(&self) -> io::Result<()> {
        rustix::fs::fdatasync(&self.file)
            .map_err(|error| explain(&error.into(), "flush", &self.path))
    }
}

impl Map {
    fn new(file: &Arc<Held>, bytes: u64) -> io::Result<Map> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            mm::mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, 0)?
        };
        let start = NonNull::new(start.cast()).expect("the kernel never maps the null page for us");
        let guarded = Some(Guarded::new(start, bytes));
        Ok(Map { start, bytes, guarded, _file: Arc::clone(file) })
    }

    fn is_poisoned(&self) -> bool {
        self.guarded.as_ref().is_some_and(Guarded::is_poisoned)
    }

    /// Brings the pages in, so that a medium that cannot be read is an error here instead of a
    /// signal at the first touch.
    fn populate(&self, range: &Range<usize>) -> io::Result<()> {
        let start = range.start - range.start % PAGE_BYTES;
        assert!(range.end <= self.bytes, "a range behind the map");
        // SAFETY: the range lies within the mapping, which lives as long as `self`; populating
        // for reading changes no contents.
        let populated = unsafe {
            let at = self.start.as_ptr().add(start);
            mm::madvise(at.cast(), range.end - start, Advice::LinuxPopulateRead)
        };
        match populated {
            // Kernels before 5.14 don't know the advice: pages come in when touched.
            Ok(()) | Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        self.guarded = None;
        // SAFETY: the mapping was made by `Map::new` with this length, and every slice of it holds
        // an `Arc` of this value, so none is left.
        let unmapped = unsafe { mm::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours cannot be unknown to the kernel");
    }
}

// SAFETY: the mapping is read-only memory that belongs to no thread, and it is unmapped only when
// the last owner drops it.
unsafe impl Send for Map {}
// SAFETY: as above; there is no way to write through a `Map`.
unsafe impl Sync for Map {}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `MmapFile::read` checked the range against the allocated length, files are never
        // shortened, and nobody writes a range again that was handed out (the contract of `File`),
        // so these bytes are mapped and do not change while `self.map` keeps the mapping alive.
        unsafe {
            let start = self.map.start.as_ptr().add(self.range.start);
            std::slice::from_raw_parts(start, self.range.len())
        }
    }
}

/// `IOV_MAX` of Linux.
const SLICES_MAX: usize = 1024;
/// Descriptors kept back: two for a segment, and those of a few segments at once.
const SPARES: usize = 8;
/// The smallest page; where pages are larger, `populate` is refused and changes nothing.
const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
