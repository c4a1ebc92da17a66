//! Topics change while they are in use, through the controller, whichever broker was asked.

use highwater_protocol::error::WireError;
use highwater_protocol::ids::TopicId;
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::alter::{
    AlterTopicRequest, AlterTopicResponse, CreatePartitionsRequest, CreatePartitionsResponse,
};

use super::Api;
use super::admin::{COMMAND_MAX, not_the_answer};
use crate::controller::{Command, CommandReply};

impl Api {
    /// Changes the settings of a topic, through the controller.
    pub async fn alter_topic(
        &self,
        request: AlterTopicRequest,
    ) -> Result<AlterTopicResponse, WireError> {
        let (id, dry_run) = (self.topic_id(&request.name), request.dry_run);
        let reply = self.node.command(Command::AlterTopic { id, request }, COMMAND_MAX).await?;
        let CommandReply::TopicAltered(altered) = reply else { return Err(not_the_answer(&reply)) };
        if dry_run == DryRun::No {
            let AlterTopicResponse { id, changes } = &altered;
            self.seen_here(|image| {
                let topic = image.topic(*id);
                topic.is_none_or(|topic| changes.iter().all(|change| change.is_in(&topic.configs)))
            })
            .await;
        }
        Ok(altered)
    }

    /// Adds partitions to a topic, through the controller.
    pub async fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
    ) -> Result<CreatePartitionsResponse, WireError> {
        let (id, dry_run) = (self.topic_id(&request.name), request.dry_run);
        let reply =
            self.node.command(Command::CreatePartitions { id, request }, COMMAND_MAX).await?;
        let CommandReply::PartitionsCreated(created) = reply else {
            return Err(not_the_answer(&reply));
        };
        if dry_run == DryRun::No {
            let count = created.first.0 as usize + created.replicas.len();
            self.seen_here(|image| {
                let topic = image.topic(created.id);
                topic.is_none_or(|topic| topic.partitions.len() >= count)
            })
            .await;
        }
        Ok(created)
    }

    fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.node.image().topic_named(name).map(|topic| topic.id)
    }
}
