//! Directories of replicas that the image does not give us. What a committed tombstone names is removed; what
//! was taken from this broker is left to the shards, which note the loss first. What the controller does not know is set aside in `stray/`, where nobody opens it by
//! mistake, and stays there until a tombstone names it and a day has passed.
//!
//! The first are left behind by a crash between a tombstone and the removal of its files; the others by a
//! controller that was put back to an older state, by moves that this broker slept through, or by hands. A
//! replica that the image gives us again is taken back, so that a controller that was only behind costs nothing.
//! What this life has opened is the shards' and never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_protocol::ids::TopicPartition;

use super::reconcile::{Me, parse_dir_name, strays_dir, topics_dir};
use crate::controller::ClusterImage;
use crate::controller::image::Topic;
use crate::disk::Disk;
use crate::log;
use crate::shard::FAILED;

/// What became of the directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tended {
    /// How many were set aside just now.
    pub set_aside: u64,
    /// How many are set aside, all together.
    pub kept: u64,
}

/// Looks through the directories of topics, once the image has caught up, and through what was set aside before.
/// `now_s` is the wall clock; one that jumps ahead shortens the day, but deletes nothing without a tombstone.
pub fn tend(
    disk: &dyn Disk,
    me: Me<'_>,
    image: &ClusterImage,
    touched: &BTreeSet<TopicPartition>,
    now_s: u64,
) -> Tended {
    let mut tended = Tended::default();
    let topics = topics_dir(me.data_dir);
    finish_removing(disk, me.data_dir);
    for name in names(disk, &topics) {
        let dir = topics.join(&name);
        match parse_dir_name(&name) {
            Some(partition) if touched.contains(&partition) => {}
            // It could not be opened in this life; the next one may.
            Some(partition) if is_ours(image, me, partition) => {}
            Some(partition) if image.is_deleted(partition.topic) => {
                remove(disk, me.data_dir, &dir, "removing what is left of a deleted replica");
            }
            // Its shard gives it up, after it has noted that.
            Some(partition) if is_dropped(image, me, partition) => {}
            Some(_) => match set_aside(disk, me.data_dir, &name, now_s) {
                Ok(stray) => {
                    tracing::warn!(
                        dir = %dir.display(), to = %stray.display(),
                        "the controller does not know of this replica; it is set aside, and taken back if the \
                         cluster places it here again"
                    );
                    tended.set_aside += 1;
                }
                Err(error) => {
                    tracing::warn!(dir = %dir.display(), %error, "a stray directory stays where it is");
                }
            },
            None => {
                tracing::warn!(dir = %dir.display(), "this is no replica's directory; it is left alone");
            }
        }
    }
    tended.kept = tend_strays(disk, me.data_dir, image, now_s);
    tended
}

/// Has replicas that are about to be opened go on with what was set aside of them, the newest where there are
/// several, unless they have a directory.
pub fn take_back(disk: &dyn Disk, data_dir: &Path, opening: &[(TopicPartition, PathBuf)]) {
    let (strays, topics) = (strays_dir(data_dir), topics_dir(data_dir));
    let newest: BTreeMap<TopicPartition, (u64, String)> = listed(disk, &strays)
        .filter(|(_, name)| !name.starts_with(FAILED))
        .map(|(stray, name)| (stray.partition, (stray.since_s, name)))
        .fold(BTreeMap::new(), |mut newest, (partition, found)| {
            let known = newest.entry(partition).or_insert_with(|| found.clone());
            *known = found.max(known.clone());
            newest
        });
    for (partition, dir) in opening {
        let Some((_, name)) = newest.get(partition) else { continue };
        match disk.list(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => continue,
        }
        let moved = disk.rename(&strays.join(name), dir).and_then(|()| {
            disk.flush_dir(&topics)?;
            disk.flush_dir(&strays)
        });
        let dir = dir.display();
        match moved {
            Ok(()) => {
                tracing::info!(%dir, "the cluster places this replica here; it is taken back")
            }
            Err(error) => {
                tracing::warn!(%dir, %error, "what was set aside could not be taken back");
            }
        }
    }
}

/// A directory that was set aside: `<unix seconds>-<its name before>`. Behind `failed-` it is one whose files
/// failed: the replica was made anew, so nobody goes on with it.
struct Stray {
    since_s: u64,
    partition: TopicPartition,
}

impl Stray {
    fn parse(name: &str) -> Option<Stray> {
        let (since_s, name) = name.strip_prefix(FAILED).unwrap_or(name).split_once('-')?;
        Some(Stray { since_s: since_s.parse().ok()?, partition: parse_dir_name(name)? })
    }
}

fn set_aside(disk: &dyn Disk, data_dir: &Path, name: &str, now_s: u64) -> io::Result<PathBuf> {
    let (topics, strays) = (topics_dir(data_dir), strays_dir(data_dir));
    disk.create_dir(&strays)?;
    let stray = strays.join(format!("{now_s}-{name}"));
    disk.rename(&topics.join(name), &stray)?;
    disk.flush_dir(&strays)?;
    disk.flush_dir(&topics)?;
    Ok(stray)
}

/// Removes what may be removed by now, and says how many stay.
fn tend_strays(disk: &dyn Disk, data_dir: &Path, image: &ClusterImage, now_s: u64) -> u64 {
    let strays = strays_dir(data_dir);
    let mut kept = 0;
    for (Stray { since_s, partition }, name) in listed(disk, &strays) {
        let due = now_s.saturating_sub(since_s) >= KEPT_S;
        if due && image.is_deleted(partition.topic) {
            let why = "removing a stray replica a day after it was set aside: it was deleted";
            remove(disk, data_dir, &strays.join(&name), why);
        } else {
            kept += 1;
        }
    }
    kept
}

/// Under another name first: what a crash leaves of it must not pass for a replica.
fn remove(disk: &dyn Disk, data_dir: &Path, dir: &Path, why: &str) {
    tracing::info!(dir = %dir.display(), "{why}");
    let strays = strays_dir(data_dir);
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let doomed = strays.join(format!("{REMOVING}{name}"));
    let removed = disk.create_dir(&strays).and_then(|()| {
        disk.rename(dir, &doomed)?;
        disk.flush_dir(&strays)?;
        disk.flush_dir(dir.parent().unwrap_or(data_dir))?;
        log::remove(disk, &doomed)
    });
    if let Err(error) = removed {
        tracing::warn!(dir = %dir.display(), %error, "it could not be removed");
    }
}

/// Removes what an earlier life had begun to remove.
fn finish_removing(disk: &dyn Disk, data_dir: &Path) {
    let strays = strays_dir(data_dir);
    for name in names(disk, &strays).into_iter().filter(|name| name.starts_with(REMOVING)) {
        if let Err(error) = log::remove(disk, &strays.join(&name)) {
            tracing::warn!(%name, %error, "what was deleted could not be removed");
        }
    }
}

fn listed(disk: &dyn Disk, strays: &Path) -> impl Iterator<Item = (Stray, String)> {
    let names = names(disk, strays).into_iter();
    names.filter_map(|name| Some((Stray::parse(&name)?, name)))
}

fn names(disk: &dyn Disk, dir: &Path) -> Vec<String> {
    match disk.list(dir) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "left-over directories cannot be looked for");
            Vec::new()
        }
    }
}

fn is_dropped(image: &ClusterImage, me: Me<'_>, partition: TopicPartition) -> bool {
    let taken = |topic: &Arc<Topic>| topic.is_dropped(partition.partition, me.node);
    image.topic(partition.topic).is_some_and(taken)
}

fn is_ours(image: &ClusterImage, me: Me<'_>, partition: TopicPartition) -> bool {
    let mine = |topic: &Arc<Topic>| topic.hosts(partition.partition).any(|it| it.node == me.node);
    image.topic(partition.topic).is_some_and(mine)
}

/// So begins the name of what is being removed.
const REMOVING: &str = "removing-";
/// How long something is kept at least, with a tombstone or without.
const KEPT_S: u64 = 24 * 3_600;

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{DirectoryId, NodeId, PartitionId, TopicId};
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;
    use crate::controller::record::MetadataRecord;
    use crate::disk::mmap::MmapDisk;
    use crate::node::reconcile::dir_name;

    const NOW_S: u64 = 1_800_000_000;

    fn partition(topic: u128) -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::from_u128(topic)), PartitionId(0))
    }

    /// A data directory with a replica of one topic.
    fn data() -> (TempDir, PathBuf) {
        let data = tempfile::tempdir().expect("a temporary directory");
        let dir = topics_dir(data.path()).join(dir_name("orders", partition(7)));
        std::fs::create_dir_all(&dir).expect("it is ours");
        std::fs::write(dir.join("records"), "r").expect("it is ours");
        (data, dir)
    }

    /// An image in which the topic was made and, perhaps, deleted.
    fn image(deleted: bool) -> ClusterImage {
        let mut image = ClusterImage::default();
        let id = partition(7).topic;
        let name = "orders".to_owned();
        let create = MetadataRecord::CreateTopic { id, name, configs: Vec::new() };
        image.apply(&create).expect("it fits");
        if deleted {
            image.apply(&MetadataRecord::DeleteTopic { id }).expect("it fits");
        }
        image
    }

    fn tended(data: &TempDir, image: &ClusterImage, now_s: u64) -> Tended {
        let directory = DirectoryId(Uuid::from_u128(1));
        let me = Me { node: NodeId(1), directory, data_dir: data.path() };
        tend(&MmapDisk::default(), me, image, &BTreeSet::new(), now_s)
    }

    #[test]
    fn what_the_controller_does_not_know_is_set_aside_and_kept_however_old_it_gets() {
        let (data, dir) = data();
        let nothing_known = ClusterImage::default();
        assert_eq!(tended(&data, &nothing_known, NOW_S), Tended { set_aside: 1, kept: 1 });
        assert!(!dir.exists());
        let later = tended(&data, &nothing_known, NOW_S + 1_000 * KEPT_S);
        assert_eq!(later, Tended { set_aside: 0, kept: 1 });
        let name = dir.file_name().expect("it has one").to_string_lossy().into_owned();
        assert!(strays_dir(data.path()).join(format!("{NOW_S}-{name}")).join("records").exists());
    }

    #[test]
    fn it_goes_only_a_day_after_it_was_set_aside_and_only_with_a_tombstone() {
        let (data, _) = data();
        tended(&data, &ClusterImage::default(), NOW_S);
        assert_eq!(tended(&data, &image(true), NOW_S + KEPT_S - 1).kept, 1, "not yet a day");
        assert_eq!(tended(&data, &image(false), NOW_S + KEPT_S).kept, 1, "no tombstone");
        assert_eq!(tended(&data, &image(true), NOW_S - 5).kept, 1, "the clock was set back");
        assert_eq!(tended(&data, &image(true), NOW_S + KEPT_S).kept, 0);
        assert!(names(&MmapDisk::default(), &strays_dir(data.path())).is_empty());
    }

    #[test]
    fn what_a_tombstone_names_is_removed_at_once_where_it_was_deleted() {
        let (data, dir) = data();
        assert_eq!(tended(&data, &image(true), NOW_S), Tended::default());
        assert!(!dir.exists());
    }

    #[test]
    fn what_a_crash_left_of_a_removal_is_never_taken_back_and_goes_with_the_next_look() {
        let (data, dir) = data();
        let name = dir.file_name().expect("it has one").to_string_lossy().into_owned();
        std::fs::create_dir_all(strays_dir(data.path())).expect("it is ours");
        for begun in [name.clone(), format!("{NOW_S}-{name}")] {
            let begun = strays_dir(data.path()).join(format!("{REMOVING}{begun}"));
            std::fs::rename(&dir, &begun).expect("it is ours");
            take_back(&MmapDisk::default(), data.path(), &[(partition(7), dir.clone())]);
            assert!(!dir.exists());
            assert_eq!(tended(&data, &ClusterImage::default(), NOW_S), Tended::default());
            assert!(!begun.exists());
            std::fs::create_dir_all(&dir).expect("it is ours");
        }
    }

    #[test]
    fn a_replica_that_is_placed_here_again_is_taken_back_but_never_over_another() {
        let (data, dir) = data();
        tended(&data, &ClusterImage::default(), NOW_S);
        let take_back = |number| {
            let opening = [(partition(number), dir.clone())];
            take_back(&MmapDisk::default(), data.path(), &opening);
        };
        take_back(8);
        assert!(!dir.exists(), "that is another one's");
        take_back(7);
        assert!(dir.join("records").exists());

        tended(&data, &ClusterImage::default(), NOW_S);
        std::fs::create_dir_all(&dir).expect("it is ours");
        take_back(7);
        assert!(!dir.join("records").exists());
        std::fs::remove_dir_all(&dir).expect("it is ours");
        take_back(7);
        assert!(dir.join("records").exists());
    }

    #[test]
    fn what_had_failed_is_never_taken_back_and_goes_with_a_tombstone() {
        let (data, dir) = data();
        let name = dir.file_name().expect("it has one").to_string_lossy().into_owned();
        let aside = strays_dir(data.path()).join(format!("{FAILED}{NOW_S}-{name}"));
        std::fs::create_dir_all(strays_dir(data.path())).expect("it is ours");
        std::fs::rename(&dir, &aside).expect("it is ours");
        take_back(&MmapDisk::default(), data.path(), &[(partition(7), dir.clone())]);
        assert!(!dir.exists());
        assert_eq!(tended(&data, &image(false), NOW_S + KEPT_S).kept, 1);
        assert_eq!(tended(&data, &image(true), NOW_S + KEPT_S).kept, 0);
        assert!(!aside.exists());
    }

    #[test]
    fn what_this_life_has_opened_and_what_is_not_ours_stays() {
        let (data, dir) = data();
        let other = topics_dir(data.path()).join("lost+found");
        std::fs::create_dir_all(&other).expect("it is ours");
        let directory = DirectoryId(Uuid::from_u128(1));
        let me = Me { node: NodeId(1), directory, data_dir: data.path() };
        let touched = BTreeSet::from([partition(7)]);
        let disk = MmapDisk::default();
        let found = tend(&disk, me, &ClusterImage::default(), &touched, NOW_S);
        assert_eq!(found, Tended::default());
        assert!(dir.exists() && other.exists());
    }
}
