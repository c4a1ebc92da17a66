//! Which files of a directory are segments of the log, and which of them count.
//!
//! Judged by names and first pages alone: a newer segment overrules all older ones from its base on,
//! and what lies wholly before the start was trimmed. A segment that was in use and whose first page
//! is lost still counts by its name, so that its loss shows as a gap and not as a shorter log.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use highwater_protocol::ids::{LogIndex, TopicPartition};

use super::Place;
use super::faults::is_named;
use super::header::{BadBlock, FORMAT_VERSION, HEADER_PAGE_BYTES, Header, Origin};
use super::index::{Entry, Slot};
use super::scan::{last_witness, read_slots};
use super::segment::Stem;
use super::start::{START, StartPoint};
use crate::disk::{Disk, File, explain};
use crate::mutant::{self, Mutant};

/// A segment that may belong to the log.
pub(super) struct Candidate {
    pub stem: Stem,
    /// Or what is wrong with its first page.
    pub header: Result<Header, String>,
}

/// The segments in the order of their making, and the files of those whose making was cut short.
pub(super) fn candidates(
    disk: &dyn Disk,
    dir: &Path,
    names: &[String],
    partition: TopicPartition,
) -> io::Result<(Vec<Candidate>, Vec<Stem>)> {
    let mut stems: BTreeMap<(u64, u64), Stem> = BTreeMap::new();
    for (stem, ending) in names.iter().filter_map(|name| Stem::parse(dir, name)) {
        if ending == "log" || ending == "idx" {
            stems.insert((stem.sequence, stem.base), stem);
        }
    }
    let (mut found, mut unfinished) = (Vec::new(), Vec::new());
    for stem in stems.into_values() {
        let header = read_header(disk, &stem, names, partition)?;
        if header.is_err() && !has_evidence(disk, &stem)? {
            unfinished.push(stem);
        } else {
            found.push(Candidate { stem, header });
        }
    }
    Ok((found, unfinished))
}

/// A segment's header page, or what is wrong with it. A later format and another partition's files
/// are errors: going on would destroy what somebody else can read. A single file of another partition, beside an
/// index of ours, is set aside.
fn read_header(
    disk: &dyn Disk,
    stem: &Stem,
    names: &[String],
    partition: TopicPartition,
) -> io::Result<Result<Header, String>> {
    let path = stem.log();
    let log = match disk.open(&path, 0) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err("the file is missing".to_owned()));
        }
        Err(error) => return Err(error),
    };
    if log.len() < HEADER_PAGE_BYTES {
        return Ok(Err("the file is shorter than its first page".to_owned()));
    }
    let refuse = |why: String| {
        let error = io::Error::new(io::ErrorKind::InvalidData, why);
        Err(explain(&error, "use the segment", &path))
    };
    let page = match log.read(0..HEADER_PAGE_BYTES) {
        Ok(page) => page,
        Err(error) => return Ok(Err(error.to_string())),
    };
    match Header::decode(&page) {
        Ok(header) if header.partition != partition => {
            let whose = header.partition;
            if !is_described(disk, stem, &header, &*log)? {
                return set_aside(disk, stem, names).map(|name| {
                    Err(format!("it was a file of partition {whose}, and is {name} now"))
                });
            }
            refuse(format!("it belongs to partition {whose}, not {partition}"))
        }
        Ok(header) if (header.sequence, header.base.index.0) != (stem.sequence, stem.base) => {
            Ok(Err("the first page names another file".to_owned()))
        }
        Ok(header) => Ok(Ok(header)),
        Err(BadBlock::Newer { version }) => refuse(format!(
            "its format version is {version} and this build knows versions up to {FORMAT_VERSION}; \
             start a newer build"
        )),
        Err(BadBlock::Blank | BadBlock::Damaged) => Ok(Err("the first page is damaged".to_owned())),
    }
}

/// Whether the index beside a file may be that of its frames: then both are somebody else's.
fn is_described(disk: &dyn Disk, stem: &Stem, header: &Header, log: &dyn File) -> io::Result<bool> {
    let Some(index) = opened(disk, &stem.index())? else { return Ok(true) };
    let mut before = Entry::before_first(header.base.term);
    for slot in read_slots(&*index, stem.sequence)?.unwrap_or_default() {
        let Slot::Entry(entry) = slot else { return Ok(true) };
        if entry.is_mark() {
            // Terms begin alike in many partitions.
            before = entry;
            continue;
        }
        if entry.position() > log.len() {
            return Ok(false);
        }
        if entry.position() < before.position() {
            // An index that contradicts itself describes nothing.
            return Ok(true);
        }
        let frame = log.read(before.position()..entry.position())?;
        return Ok(is_named(&frame, &before, &entry, &header.base));
    }
    Ok(true)
}

/// Gives a file that somebody else may want a name under which nobody here looks at it; says which.
fn set_aside(disk: &dyn Disk, stem: &Stem, names: &[String]) -> io::Result<String> {
    let path = stem.log();
    let (dir, own) = (path.parent(), path.file_name().map(|name| name.to_string_lossy()));
    let (dir, own) = dir.zip(own).expect("a segment lies in a directory");
    let numbered = (1_u64..).map(|number| format!("{own}.foreign-{number}"));
    let mut free = numbered.filter(|name| !names.contains(name));
    let name = free.next().expect("a directory has fewer names than there are numbers");
    disk.rename(&path, &dir.join(&name))?;
    disk.flush_dir(dir)?;
    tracing::error!(file = %path.display(), %name, "a file of another partition lay here, and was set aside");
    Ok(name)
}

/// Whether a segment without a readable first page was ever in use: frames are only written after
/// the first page is durable.
fn has_evidence(disk: &dyn Disk, stem: &Stem) -> io::Result<bool> {
    if witnessed_until(disk, stem)?.is_some() {
        return Ok(true);
    }
    let Some(log) = opened(disk, &stem.log())? else { return Ok(false) };
    if log.len() < HEADER_PAGE_BYTES {
        return Ok(false);
    }
    // What cannot be read was written once.
    let rest = log.read(HEADER_PAGE_BYTES..log.len());
    Ok(rest.map_or(true, |bytes| bytes.iter().any(|byte| *byte != 0)))
}

/// Up to where a segment's index witnesses durable frames.
pub(super) fn witnessed_until(disk: &dyn Disk, stem: &Stem) -> io::Result<Option<LogIndex>> {
    let Some(index) = opened(disk, &stem.index())? else { return Ok(None) };
    let slots = read_slots(&*index, stem.sequence)?.unwrap_or_default();
    let base = Place { index: LogIndex(stem.base), ..Place::default() };
    Ok(last_witness(&slots).map(|entry| entry.end(&base).index))
}

/// A file, if it can be opened. That there is no descriptor for it says nothing about the file.
fn opened(disk: &dyn Disk, path: &Path) -> io::Result<Option<Arc<dyn File>>> {
    match disk.open(path, 0) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(error),
        Err(_) => Ok(None),
    }
}

/// Which segments count, and which are overruled as a whole.
pub(super) fn resolve(candidates: Vec<Candidate>) -> (Vec<Candidate>, Vec<Stem>) {
    let (mut live, mut dead): (Vec<Candidate>, Vec<Stem>) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let starts = candidate.header.as_ref().is_ok_and(|header| header.origin == Origin::Start);
        while let Some(last) = live.pop_if(|last| starts || last.stem.base >= candidate.stem.base) {
            dead.push(last.stem);
        }
        live.push(candidate);
    }
    (live, dead)
}

/// How many of the oldest segments a trim had yet to remove, or to remove the rest of.
pub(super) fn trimmed(live: &[Candidate], start: &StartPoint) -> usize {
    let before = |pair: &&[Candidate]| LogIndex(pair[1].stem.base) <= start.place.index;
    live.windows(2).take_while(before).count()
}

/// Where the log starts according to the file `start`; at 0 if it was never trimmed.
pub(super) fn read_start(
    disk: &dyn Disk,
    dir: &Path,
    names: &[String],
) -> io::Result<Option<StartPoint>> {
    if !names.iter().any(|name| name == START) {
        return Ok(Some(StartPoint::default()));
    }
    let path = dir.join(START);
    let file = disk.open(&path, 0)?;
    match StartPoint::decode(&file.read(0..file.len())?) {
        Ok(_) if mutant::active(Mutant::StartGoesBack) => Ok(None),
        Ok(start) => Ok(Some(start)),
        Err(BadBlock::Blank | BadBlock::Damaged) => Ok(None),
        Err(BadBlock::Newer { version }) => {
            let why = format!("its format version is {version}, this build knows {FORMAT_VERSION}");
            Err(explain(&io::Error::new(io::ErrorKind::InvalidData, why), "use", &path))
        }
    }
}
