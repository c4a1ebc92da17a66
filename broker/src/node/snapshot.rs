//! The image as a file, so that a broker opens its replicas before it hears from anyone.
//!
//! The image is no more than what the controller's log says up to an offset; this file only spares
//! reading the log from its start, and waiting for a leader to say what of it is committed. It is
//! written whole under another name, flushed, and renamed. A damaged one is passed over: the log
//! has everything. One written by a newer build stops the start, as the log itself would.

use std::io;
use std::path::{Path, PathBuf};

use highwater_protocol::batch::crc32c;
use highwater_protocol::ids::Offset;
use highwater_protocol::wire::{DecodeError, Reader, Writer};

use crate::controller::image::ClusterImage;
use crate::controller::record::{MetadataRecord, RecordError};
use crate::crash_point::{self, CrashPoint};
use crate::disk::Disk;

/// An image, and the offset of the first record that is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The image.
    pub image: ClusterImage,
    /// Where in the controller's log to read on.
    pub applied: Offset,
}

/// Writes the image so that a crash leaves either the old file or the new one.
pub fn save(disk: &dyn Disk, data_dir: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let mut body = Writer::new();
    body.u64(snapshot.applied.0);
    body.list(&snapshot.image.to_records(), |body, record| body.blob(&record.encode()));
    let body = body.finish();
    let mut head = Writer::with_capacity(HEAD_BYTES);
    head.raw(MAGIC);
    head.u32(VERSION);
    head.u32(crc32c(&body));
    head.u64(body.len() as u64);

    let new = data_dir.join(NEW_NAME);
    match disk.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let bytes = (HEAD_BYTES + body.len()) as u64;
    let file = disk.create(&new, bytes, bytes)?;
    file.write_at(0, &[&head.finish(), &body])?;
    file.flush()?;
    crash_point::reached(CrashPoint::ImageWritten);
    disk.rename(&new, &path(data_dir))?;
    crash_point::reached(CrashPoint::ImageRenamed);
    disk.flush_dir(data_dir)
}

/// Reads the image; `None` where there is none, or none that can be believed.
pub fn load(disk: &dyn Disk, data_dir: &Path) -> io::Result<Option<Snapshot>> {
    let path = path(data_dir);
    let file = match disk.open(&path, BYTES_MAX) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = file.read(0..file.len())?;
    match parse(&bytes) {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(Unreadable::Newer(why)) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("{}: {why}", path.display())))
        }
        Err(Unreadable::Damaged(why)) => {
            tracing::warn!(path = %path.display(), why, "the saved image is damaged; reading the log instead");
            Ok(None)
        }
    }
}

enum Unreadable {
    Newer(String),
    Damaged(String),
}

impl From<DecodeError> for Unreadable {
    fn from(error: DecodeError) -> Unreadable {
        Unreadable::Damaged(error.to_string())
    }
}

fn parse(bytes: &[u8]) -> Result<Snapshot, Unreadable> {
    let damaged = |why: &str| Unreadable::Damaged(why.to_string());
    let mut head = Reader::new(bytes);
    if head.take(MAGIC.len())? != MAGIC {
        return Err(damaged("it does not begin as an image does"));
    }
    let version = head.u32()?;
    if version != VERSION {
        let why = format!(
            "the image has format {version}, this build knows {VERSION}: start a build that is at least as new"
        );
        return Err(Unreadable::Newer(why));
    }
    let checksum = head.u32()?;
    let length = usize::try_from(head.u64()?).map_err(|_| damaged("its length is absurd"))?;
    let body = head.take(length)?;
    if crc32c(body) != checksum {
        return Err(damaged("its checksum does not fit its bytes"));
    }
    let mut body = Reader::new(body);
    let mut snapshot = Snapshot { image: ClusterImage::default(), applied: Offset(body.u64()?) };
    for _ in 0..body.count("records", 4)? {
        let record =
            MetadataRecord::decode(body.blob("a record")?).map_err(|error| match &error {
                RecordError::Unknown { .. } => Unreadable::Newer(error.to_string()),
                RecordError::Malformed { .. } | RecordError::NoType(_) => {
                    damaged(&error.to_string())
                }
            })?;
        snapshot.image.apply(&record).map_err(|error| damaged(&error.to_string()))?;
    }
    Ok(snapshot)
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("cluster.image")
}

const NEW_NAME: &str = "cluster.image.new";
const MAGIC: &[u8] = b"HWIMAGE\n";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 24;
/// A hundred thousand partitions take about two megabytes.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use highwater_protocol::ids::TopicId;
    use uuid::Uuid;

    use super::*;
    use crate::disk::mmap::MmapDisk;

    fn snapshot(topics: u128) -> Snapshot {
        let mut image = ClusterImage::default();
        for topic in 0..topics {
            let create = MetadataRecord::CreateTopic {
                id: TopicId(Uuid::from_u128(topic)),
                name: format!("topic-{topic}"),
                configs: Vec::new(),
            };
            image.apply(&create).expect("fits");
        }
        Snapshot { image, applied: Offset(topics as u64) }
    }

    #[test]
    fn a_saved_image_is_loaded_and_a_later_one_replaces_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let disk = MmapDisk::default();
        assert_eq!(load(&disk, dir.path()).expect("readable"), None);
        for topics in [3, 200, 0] {
            save(&disk, dir.path(), &snapshot(topics)).expect("writable");
            assert_eq!(load(&disk, dir.path()).expect("readable"), Some(snapshot(topics)));
        }
    }

    #[test]
    fn what_a_crash_left_of_a_save_does_not_hinder_the_next() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(NEW_NAME), b"half").expect("writable");
        save(&MmapDisk::default(), dir.path(), &snapshot(3)).expect("the rest is overwritten");
    }

    #[test]
    fn a_damaged_image_is_passed_over_and_a_newer_one_stops_the_start() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let disk = MmapDisk::default();
        save(&disk, dir.path(), &snapshot(3)).expect("writable");
        let good = fs::read(path(dir.path())).expect("just written");
        for at in [0, 12, 20, 30, good.len().min(60)] {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(path(dir.path()), &bad).expect("writable");
            assert_eq!(load(&disk, dir.path()).expect("passed over"), None, "byte {at}");
        }
        let mut newer = good;
        newer[11] = 9;
        fs::write(path(dir.path()), &newer).expect("writable");
        let error = load(&disk, dir.path()).expect_err("format 9 is not known");
        assert!(error.to_string().contains("start a build that is at least as new"), "{error}");
    }
}
