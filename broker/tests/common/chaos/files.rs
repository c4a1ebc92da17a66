//! What happens to the files of a broker that is down.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::weather::next_random;

/// Damage to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileFault {
    /// Two bits change among the frames of a segment.
    FlipBits,
    /// A segment loses its end.
    Truncate,
    /// A page of a segment reads as zeros.
    ZeroPage,
    /// A page of a segment is as it was earlier.
    StalePage,
    DeleteSegment,
    DeleteIndex,
    /// One of the two copies of terms and votes.
    DeleteVoteCopy,
    /// Two segments of different partitions have changed places.
    SwapSegments,
}

impl FileFault {
    pub const ALL: &[FileFault] = &[
        FileFault::FlipBits,
        FileFault::Truncate,
        FileFault::ZeroPage,
        FileFault::StalePage,
        FileFault::DeleteSegment,
        FileFault::DeleteIndex,
        FileFault::DeleteVoteCopy,
        FileFault::SwapSegments,
    ];

    pub fn name(self) -> &'static str {
        match self {
            FileFault::FlipBits => "flip-bits",
            FileFault::Truncate => "truncate",
            FileFault::ZeroPage => "zero-page",
            FileFault::StalePage => "stale-page",
            FileFault::DeleteSegment => "delete-segment",
            FileFault::DeleteIndex => "delete-index",
            FileFault::DeleteVoteCopy => "delete-vote-copy",
            FileFault::SwapSegments => "swap-segments",
        }
    }

    /// Does it to a data directory; what was done, or nothing where there was nothing to do it to.
    pub fn inflict(self, data: &Path, seed: u64) -> Option<String> {
        let mut dice = seed;
        let mut pick = |files: Vec<PathBuf>| {
            let at = next_random(&mut dice) % (files.len() as u64).max(1);
            files.into_iter().nth(at as usize)
        };
        match self {
            FileFault::DeleteVoteCopy => remove(pick(named(data, &["journal.a", "journal.b"]))?),
            FileFault::DeleteIndex => remove(pick(ending(data, "idx"))?),
            FileFault::DeleteSegment => remove(pick(segments(data))?),
            FileFault::SwapSegments => {
                let all = segments(data);
                let one = pick(all.clone())?;
                let other =
                    pick(all.into_iter().filter(|file| file.parent() != one.parent()).collect())?;
                swap(&one, &other);
                Some(format!("{} and {} changed places", one.display(), other.display()))
            }
            FileFault::FlipBits
            | FileFault::Truncate
            | FileFault::ZeroPage
            | FileFault::StalePage => {
                let path = pick(segments(data))?;
                self.spoil(&path, next_random(&mut dice))
            }
        }
    }

    fn spoil(self, path: &Path, random: u64) -> Option<String> {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("it is ours");
        let used = used_bytes(path);
        let frames = used.checked_sub(HEADER_BYTES).filter(|bytes| *bytes > 0)?;
        let at = HEADER_BYTES + random % frames;
        let page = at / PAGE_BYTES * PAGE_BYTES;
        match self {
            FileFault::FlipBits => {
                for at in [at, HEADER_BYTES + (random >> 20) % frames] {
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, at).expect("it is there");
                    file.write_all_at(&[byte[0] ^ (1 << (random % 8))], at).expect("it is ours");
                }
            }
            FileFault::Truncate => file.set_len(at).expect("it is ours"),
            FileFault::ZeroPage => zero(&file, page, used),
            FileFault::StalePage => {
                // Earlier the second half of a page was not written yet.
                zero(&file, page + PAGE_BYTES / 2, used.min(page + PAGE_BYTES));
            }
            FileFault::DeleteSegment
            | FileFault::DeleteIndex
            | FileFault::DeleteVoteCopy
            | FileFault::SwapSegments => unreachable!("it spoils no bytes"),
        }
        Some(format!("{} of {used} bytes at {at}", path.display()))
    }
}

/// Segments that hold frames.
fn segments(data: &Path) -> Vec<PathBuf> {
    let all = ending(data, "log").into_iter();
    all.filter(|path| used_bytes(path) > HEADER_BYTES).collect()
}

fn ending(data: &Path, extension: &str) -> Vec<PathBuf> {
    let all = walk(data).into_iter();
    all.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

fn named(data: &Path, names: &[&str]) -> Vec<PathBuf> {
    let is_named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(&name))
    };
    walk(data).into_iter().filter(is_named).collect()
}

/// All files, sorted: the same seed hits the same one.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Up to the last byte that is not zero: files are allocated ahead.
fn used_bytes(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn zero(file: &File, from: u64, to: u64) {
    if to > from {
        let zeros = vec![0; (to - from).min(PAGE_BYTES) as usize];
        file.write_all_at(&zeros, from).expect("it is ours");
    }
}

fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    for (from, to) in [(one, aside.as_path()), (other, one), (aside.as_path(), other)] {
        fs::rename(from, to).expect("they are ours");
    }
}

fn remove(path: PathBuf) -> Option<String> {
    fs::remove_file(&path).expect("it is ours");
    Some(format!("{} removed", path.display()))
}

const HEADER_BYTES: u64 = 4_096;
const PAGE_BYTES: u64 = 4_096;
