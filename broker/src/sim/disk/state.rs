//! The state of a simulated disk: page cache and medium, names and their changes, and what each operation does to them.
//!
//! Who holds a handle or asks for a fault is none of its business: `faces` and `SimDisk` are for that.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::contents::Contents;
use super::{Fate, Injected, Unflushed};
use crate::disk::explain;

/// Page cache, medium and names.
#[derive(Clone)]
pub(super) struct State {
    pub life: u64,
    pub chance: u64,
    /// Power goes off amid the operation that brings this to zero.
    pub fuse: Option<u64>,
    pub dead: bool,
    pub flush_fails: FlushFails,
    /// Files of which a flush failed under the present process.
    pub failed: BTreeSet<PathBuf>,
    /// Flushes that were asked for while it hangs, if it does: none of them has reached the medium.
    pub hanging: Option<Vec<Hanging>>,
    /// How all was when the first of them was asked for: whoever asked has come no further.
    before_hanging: Option<Box<State>>,
    pub bytes_max: Option<u64>,
    /// Nothing can be opened, and only so many files be made, with what was kept back.
    pub spares: Option<usize>,
    pub names: Names,
    names_on_medium: Names,
    /// Changes of names since their directories were flushed, oldest first.
    changes: Vec<Change>,
    pub dirs: BTreeSet<OsString>,
    pub files: BTreeMap<u64, Contents>,
    /// Those of them that no name leads to any more.
    unnamed: BTreeSet<u64>,
    pub injected: Injected,
}

/// Where names lead. Whole paths are compared as bytes, which is much faster than part by part.
pub(super) type Names = BTreeMap<OsString, u64>;

/// Which flush fails next.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum FlushFails {
    No,
    Next,
    NextOf(PathBuf),
}

/// A flush under way.
#[derive(Clone)]
pub(super) enum Hanging {
    Contents(u64),
    Names(PathBuf),
}

/// A change of a name.
#[derive(Clone)]
pub(super) enum Change {
    Made(PathBuf, u64),
    Renamed(PathBuf, PathBuf),
    Removed(PathBuf),
}

impl State {
    /// An empty disk.
    pub(super) fn new(chance: u64) -> State {
        State {
            life: 0,
            chance,
            fuse: None,
            dead: false,
            flush_fails: FlushFails::No,
            failed: BTreeSet::new(),
            hanging: None,
            before_hanging: None,
            bytes_max: None,
            spares: None,
            names: BTreeMap::new(),
            names_on_medium: BTreeMap::new(),
            changes: Vec::new(),
            dirs: BTreeSet::new(),
            files: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            injected: Injected::default(),
        }
    }

    /// Counts an operation that changes something. The one at which the fuse burns down is still
    /// carried out in the cache, from where any part of it may reach the medium, but it fails.
    pub(super) fn operate<T>(
        &mut self,
        path: &Path,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        self.powered(path)?;
        self.injected.operations += 1;
        if let Some(fuse) = &mut self.fuse {
            *fuse -= 1;
            if *fuse == 0 {
                (self.fuse, self.dead) = (None, true);
            }
        }
        let done = act(self);
        self.powered(path)?;
        done.map_err(|error| explain(&error, "change", path))
    }

    pub(super) fn contents(&mut self, id: u64) -> &mut Contents {
        self.files.get_mut(&id).expect("contents outlive their names and handles")
    }

    pub(super) fn powered(&self, path: &Path) -> io::Result<()> {
        if self.dead {
            return Err(explain(&io::Error::other("the power is off"), "use", path));
        }
        Ok(())
    }

    /// An error where the process has no descriptor left.
    pub(super) fn may_open(&mut self, path: &Path) -> io::Result<()> {
        self.powered(path)?;
        if self.spares.is_some() {
            self.injected.no_file_errors += 1;
            return Err(explain(&io::ErrorKind::StorageFull.into(), "open", path));
        }
        Ok(())
    }

    /// The same of a file that is to be made.
    pub(super) fn may_make(&mut self, path: &Path) -> io::Result<()> {
        match &mut self.spares {
            Some(left) if *left > 0 => *left -= 1,
            Some(_) | None => self.may_open(path)?,
        }
        Ok(())
    }

    pub(super) fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        if bytes > self.free_bytes() {
            self.injected.full_errors += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(super) fn free_bytes(&self) -> u64 {
        self.bytes_max.unwrap_or(u64::MAX >> 1).saturating_sub(self.used_bytes())
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.len - file.released).sum()
    }

    /// The id behind a name.
    pub(super) fn named(&self, path: &Path) -> Option<u64> {
        self.names.get(path.as_os_str()).copied()
    }

    pub(super) fn has_dir(&self, dir: &Path) -> bool {
        self.dirs.contains(dir.as_os_str())
    }

    /// The names of files in a directory, at any depth.
    pub(super) fn inside(&self, dir: &Path) -> impl Iterator<Item = (&Path, u64)> {
        let begin = dir.as_os_str();
        let names = self.names.range::<OsStr, _>((Bound::Included(begin), Bound::Unbounded));
        names
            .take_while(move |(name, _)| {
                name.as_encoded_bytes().starts_with(begin.as_encoded_bytes())
            })
            .map(|(name, id)| (Path::new(name), *id))
            .filter(move |(name, _)| name.starts_with(dir))
    }

    /// Removes all files in a directory, in the order of their paths.
    pub(super) fn remove_inside(&mut self, dir: &Path) {
        let mut inside: Vec<PathBuf> = self.inside(dir).map(|(name, _)| name.to_owned()).collect();
        inside.sort_unstable();
        inside.into_iter().for_each(|path| self.change(Change::Removed(path)));
    }

    pub(super) fn change(&mut self, change: Change) {
        let lost = change.apply(&mut self.names);
        self.changes.push(change);
        self.drop_unnamed(lost);
    }

    /// Forgets what neither a name nor, after a power cut, a handle leads to. `lost` were behind names that
    /// have just gone.
    fn drop_unnamed(&mut self, lost: impl IntoIterator<Item = u64>) {
        for id in lost {
            let mut named = self.names.values().chain(self.names_on_medium.values());
            let made = |change: &Change| matches!(change, Change::Made(_, made) if *made == id);
            if !named.any(|named| *named == id) && !self.changes.iter().any(made) {
                self.unnamed.insert(id);
            }
        }
        let State { unnamed, files, .. } = self;
        unnamed.retain(|id| {
            let Some(held) = files.get_mut(id) else { return false };
            // They can still be read through handles, but hold no space.
            held.released = held.len;
            let is_open = Arc::strong_count(&held.handles) > 1;
            if !is_open {
                files.remove(id);
            }
            is_open
        });
    }

    /// `told` counts the errors that whoever flushes knows of.
    pub(super) fn flush(&mut self, id: u64, path: &Path, told: &AtomicU64) -> io::Result<()> {
        let fails = match &self.flush_fails {
            FlushFails::No => false,
            FlushFails::Next => true,
            FlushFails::NextOf(of) => path.starts_with(of),
        };
        if fails {
            // The kernel takes the pages for clean, and reports the error once to each handle that was open.
            self.contents(id).forget();
            self.contents(id).flush_errors += 1;
            self.flush_fails = FlushFails::No;
            self.failed.insert(path.to_owned());
            self.injected.flush_errors += 1;
        } else if self.hanging.is_some() {
            self.wait_for(Hanging::Contents(id));
        } else {
            self.contents(id).flush();
        }
        let contents = self.contents(id);
        match told.swap(contents.flush_errors, Ordering::Relaxed) < contents.flush_errors {
            true => Err(io::Error::other("the device failed")),
            false => Ok(()),
        }
    }

    fn wait_for(&mut self, flush: Hanging) {
        if self.before_hanging.is_none() {
            self.before_hanging = Some(Box::new(self.clone()));
        }
        self.hanging.as_mut().expect("it hangs").push(flush);
    }

    /// What it was asked to flush while it hung reaches the medium, and it hangs no more.
    pub(super) fn unhang(&mut self) {
        self.before_hanging = None;
        for flush in self.hanging.take().into_iter().flatten() {
            match flush {
                Hanging::Contents(id) => {
                    // A removed file has nothing left to flush.
                    if let Some(contents) = self.files.get_mut(&id) {
                        contents.flush();
                    }
                }
                Hanging::Names(dir) => self.flush_dir(&dir),
            }
        }
    }

    pub(super) fn flush_dir(&mut self, dir: &Path) {
        if self.hanging.is_some() {
            return self.wait_for(Hanging::Names(dir.to_owned()));
        }
        let (durable, left) = std::mem::take(&mut self.changes).into_iter().partition(|change| {
            let parent = change.path().parent();
            // Nothing leads to what lay in a directory that is gone, once that is on the medium.
            let gone = |inside: &Path| inside.starts_with(dir) && !self.has_dir(inside);
            parent == Some(dir) || parent.is_some_and(gone)
        });
        let durable: Vec<Change> = durable;
        let lost = durable.iter().filter_map(|change| change.apply(&mut self.names_on_medium));
        let lost: Vec<u64> = lost.collect();
        self.changes = left;
        self.drop_unnamed(lost);
    }

    pub(super) fn lose_power(&mut self, fate: &mut dyn FnMut(Unflushed) -> Fate) {
        if let Some(before) = self.before_hanging.take() {
            let State { names, names_on_medium, changes, dirs, files, .. } = *before;
            (self.names, self.names_on_medium) = (names, names_on_medium);
            (self.changes, self.dirs, self.files) = (changes, dirs, files);
        }
        for change in std::mem::take(&mut self.changes) {
            match fate(Unflushed::Name(change.path().to_owned())) {
                Fate::Kept => {
                    change.apply(&mut self.names_on_medium);
                }
                Fate::Lost | Fate::Torn(_) => self.injected.names_lost += 1,
            }
        }
        self.names = self.names_on_medium.clone();
        let left: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| left.contains(id));
        self.unnamed.clear();
        for (id, contents) in &mut self.files {
            contents.lose_power(*id, fate, &mut self.injected);
        }
        let parents = self.names.keys().flat_map(|path| Path::new(path).ancestors().skip(1));
        self.dirs.extend(parents.map(OsString::from));
        self.life += 1;
        self.injected.power_cuts += 1;
        (self.fuse, self.dead, self.hanging) = (None, false, None);
        self.failed.clear();
        self.flush_fails = FlushFails::No;
        self.spares = None;
    }
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Change::Made(path, _) | Change::Renamed(_, path) | Change::Removed(path) => path,
        }
    }

    /// Changes names, as far as what it relies on happened, and says which id a name leads to no more.
    fn apply(&self, names: &mut Names) -> Option<u64> {
        match self {
            Change::Made(path, id) => names.insert(path.into(), *id),
            Change::Renamed(from, to) => {
                let id = names.remove(from.as_os_str())?;
                names.insert(to.into(), id)
            }
            Change::Removed(path) => names.remove(path.as_os_str()),
        }
    }
}
