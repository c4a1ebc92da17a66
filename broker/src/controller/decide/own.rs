//! Topics of the cluster's own: made when they are first needed, and by nobody else changed or deleted.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::TopicId;
use highwater_protocol::native::admin::{CreateTopicRequest, DryRun};
use highwater_protocol::native::groups::GROUPS_TOPIC;
use highwater_protocol::topic_name::INTERNAL_PREFIX;

use super::{Decision, created, place_topic};
use crate::controller::image::ClusterImage;

/// Makes the topic that keeps the consumer groups; who asks again gets the one that is there.
pub(super) fn create_groups_topic(
    image: &ClusterImage,
    id: TopicId,
) -> Result<Decision, WireError> {
    if let Some(topic) = image.topic_named(GROUPS_TOPIC) {
        return Ok((Vec::new(), created(topic)));
    }
    // Its coordinators begin its log anew by themselves; nothing else may take from it.
    let configs = [("flush", "ack"), ("retention.bytes", "-1"), ("retention.ms", "-1")];
    let request = CreateTopicRequest {
        name: GROUPS_TOPIC.to_owned(),
        partitions: GROUPS_PARTITIONS,
        replication: None,
        configs: configs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        dry_run: DryRun::No,
    };
    place_topic(image, id, &request)
}

/// An error for a topic that is the cluster's own.
pub(super) fn refuse(name: &str) -> Result<(), WireError> {
    if !name.starts_with(INTERNAL_PREFIX) {
        return Ok(());
    }
    let why = format!(
        "topic {name} is the cluster's own: it is neither changed nor deleted by request; its replicas may be moved"
    );
    Err(WireError::new(ErrorCode::InvalidRequest, why))
}

/// So many coordinators share the groups; the number stays, for a group's partition is worked out from it.
const GROUPS_PARTITIONS: u32 = 16;
