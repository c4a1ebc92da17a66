//! Directories of replicas that the image does not give us: removed where the topic's tombstone is
//! known or a move has taken the replica from us, left alone and named otherwise.
//!
//! They are left behind by a crash between a tombstone and the removal of its files. Run once in a
//! life, after the image has caught up; what this life has opened is the shards' and never touched.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use highwater_protocol::ids::TopicPartition;

use super::reconcile::{Me, parse_dir_name, topics_dir};
use crate::controller::ClusterImage;
use crate::controller::image::Topic;
use crate::disk::Disk;
use crate::log;

/// Looks through the topics' directory.
pub fn remove(
    disk: &dyn Disk,
    me: Me<'_>,
    image: &ClusterImage,
    touched: &BTreeSet<TopicPartition>,
) {
    let topics = topics_dir(me.data_dir);
    let names = match disk.list(&topics) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            tracing::warn!(dir = %topics.display(), %error, "left-over directories cannot be looked for");
            return;
        }
    };
    for name in names {
        let dir = topics.join(&name);
        match parse_dir_name(&name) {
            Some(partition) if touched.contains(&partition) => {}
            Some(partition) if may_go(image, me, partition) => {
                tracing::info!(dir = %dir.display(), "removing what is left of a deleted replica");
                if let Err(error) = log::remove(disk, &dir) {
                    tracing::warn!(dir = %dir.display(), %error, "it could not be removed");
                }
            }
            Some(_) | None => {
                tracing::warn!(
                    dir = %dir.display(),
                    "the cluster does not place this directory here; it is left alone"
                );
            }
        }
    }
}

fn may_go(image: &ClusterImage, me: Me<'_>, partition: TopicPartition) -> bool {
    let taken = |topic: &Arc<Topic>| topic.is_dropped(partition.partition, me.node);
    image.is_deleted(partition.topic) || image.topic(partition.topic).is_some_and(taken)
}
