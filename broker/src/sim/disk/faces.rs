//! The simulated disk as the core sees it: `Disk` and `File`.

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;

use super::contents::Contents;
use super::state::{Change, State};
use super::{SimDisk, lock};
use crate::disk::{Disk, File, explain};

struct SimFile {
    state: Arc<Mutex<State>>,
    id: u64,
    life: u64,
    path: PathBuf,
    /// The errors of flushes that it was told of, or that came before it.
    told: AtomicU64,
    _handle: Arc<()>,
}

impl SimDisk {
    fn file(&self, state: &State, id: u64, path: &Path) -> Arc<dyn File> {
        let held = state.files.get(&id).expect("a name leads to contents");
        let (_handle, told) = (Arc::clone(&held.handles), AtomicU64::new(held.flush_errors));
        let (state, life) = (Arc::clone(&self.state), state.life);
        Arc::new(SimFile { state, id, life, path: path.to_owned(), told, _handle })
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, bytes: u64, _bytes_max: u64) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        let id = state.operate(path, |state| {
            if state.named(path).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.may_make(path)?;
            if !path.parent().is_some_and(|dir| state.has_dir(dir)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.allocate(bytes)?;
            // Ids are never used again, also not after the contents are gone.
            let id = state.injected.operations << 16 | state.life & 0xffff;
            state.files.insert(id, Contents::new(bytes));
            state.change(Change::Made(path.to_owned(), id));
            Ok(id)
        })?;
        Ok(self.file(&state, id, path))
    }

    fn open(&self, path: &Path, _bytes_max: u64) -> io::Result<Arc<dyn File>> {
        let mut state = self.lock();
        state.may_open(path)?;
        let missing = || explain(&io::ErrorKind::NotFound.into(), "open", path);
        let id = state.named(path).ok_or_else(missing)?;
        Ok(self.file(&state, id, path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.powered(dir)?;
        if !state.has_dir(dir) {
            return Err(explain(&io::ErrorKind::NotFound.into(), "list", dir));
        }
        state.may_open(dir)?;
        let files = state.inside(dir).map(|(path, _)| path);
        let paths = files.chain(state.dirs.iter().map(Path::new));
        let names =
            paths.filter(|path| path.parent() == Some(dir)).filter_map(|path| path.file_name());
        let mut names: Vec<String> =
            names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.has_dir(dir) {
            return state.powered(dir);
        }
        state.operate(dir, |state| {
            state.dirs.extend(dir.ancestors().map(OsString::from));
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.lock().operate(from, |state| {
            if state.named(from).is_none() {
                return Err(io::ErrorKind::NotFound.into());
            }
            if from.parent() != to.parent() {
                // It is set aside, and nobody relies on it any more.
                state.failed.remove(from);
            }
            state.change(Change::Renamed(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.lock().operate(path, |state| {
            if state.named(path).is_none() {
                return Err(io::ErrorKind::NotFound.into());
            }
            state.change(Change::Removed(path.to_owned()));
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.lock().operate(dir, |state| {
            if state.has_dir(dir) {
                state.may_open(dir)?;
            }
            state.remove_inside(dir);
            state.dirs.retain(|held| !Path::new(held).starts_with(dir));
            Ok(())
        })
    }

    fn flush_dir(&self, dir: &Path) -> io::Result<()> {
        self.lock().operate(dir, |state| {
            if !state.dead {
                state.flush_dir(dir);
            }
            Ok(())
        })
    }

    fn spare_files(&self, files: usize) -> io::Result<()> {
        let mut state = self.lock();
        match state.spares {
            Some(left) if left < files => state.may_open(Path::new("/dev/null")),
            Some(_) | None => Ok(()),
        }
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let state = self.lock();
        state.powered(dir)?;
        Ok(state.free_bytes())
    }
}

impl SimFile {
    /// The state, if this handle belongs to the present life and the power is on.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        state.powered(&self.path)?;
        if state.life != self.life {
            let error = io::Error::other("the handle is from before the power cut");
            return Err(explain(&error, "use", &self.path));
        }
        Ok(state)
    }

    fn operate<T>(&self, act: impl FnOnce(&mut Contents) -> T) -> io::Result<T> {
        self.alive()?.operate(&self.path, |state| Ok(act(state.contents(self.id))))
    }
}

impl File for SimFile {
    fn write_at(&self, at: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.operate(|contents| {
            let mut at = at;
            for part in parts {
                assert!(at + part.len() as u64 <= contents.len, "a write behind what is allocated");
                contents.write(at, part);
                at += part.len() as u64;
            }
        })
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let mut state = self.alive()?;
        let contents = state.contents(self.id);
        assert!(range.start <= range.end && range.end <= contents.len, "a read behind the end");
        let (first, last) = (range.start / PAGE_BYTES, range.end.div_ceil(PAGE_BYTES));
        if contents.unreadable.range(first..last.max(first)).next().is_some() {
            return Err(explain(&io::Error::other("a sector cannot be read"), "read", &self.path));
        }
        Ok(contents.read(range))
    }

    fn len(&self) -> u64 {
        let state = lock(&self.state);
        state.files.get(&self.id).map_or(0, |contents| contents.len)
    }

    fn extend(&self, bytes: u64) -> io::Result<()> {
        self.alive()?.operate(&self.path, |state| {
            let more = bytes.saturating_sub(state.contents(self.id).len);
            state.allocate(more)?;
            state.contents(self.id).len += more;
            Ok(())
        })
    }

    fn release(&self, at: u64) {
        // A hint: it may fail, and then the space stays taken.
        let _ = self.operate(|contents| contents.released = contents.len.saturating_sub(at));
    }

    fn start_flush(&self) {}

    fn flush(&self) -> io::Result<()> {
        self.alive()?.operate(&self.path, |state| {
            if state.dead { Ok(()) } else { state.flush(self.id, &self.path, &self.told) }
        })
    }
}

const PAGE_BYTES: u64 = 4096;
