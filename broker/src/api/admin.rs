//! Topics come and go through the controller, whichever broker was asked.

use std::time::Duration;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::TopicId;
use highwater_protocol::native::admin::{
    CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest, DryRun,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::Api;
use crate::controller::{ClusterImage, Command, CommandReply};

impl Api {
    /// Makes a topic, through the controller.
    pub async fn create_topic(
        &self,
        request: CreateTopicRequest,
    ) -> Result<CreateTopicResponse, WireError> {
        // Drawn here, so that the controller recognises the command when it comes twice.
        let id = TopicId(Uuid::new_v4());
        let dry_run = request.dry_run;
        let reply = self.node.command(Command::CreateTopic { id, request }, COMMAND_MAX).await?;
        let CommandReply::TopicCreated(created) = reply else { return Err(not_the_answer(&reply)) };
        if dry_run == DryRun::No {
            self.seen_here(|image| image.topic(created.id).is_some()).await;
        }
        Ok(created)
    }

    /// Deletes a topic and its data, through the controller.
    pub async fn delete_topic(&self, request: DeleteTopicRequest) -> Result<(), WireError> {
        let name = request.name;
        let id = self.node.image().topic_named(&name).map(|topic| topic.id);
        let reply = self.node.command(Command::DeleteTopic { name, id }, COMMAND_MAX).await?;
        let CommandReply::TopicDeleted { id } = reply else { return Err(not_the_answer(&reply)) };
        self.seen_here(|image| image.topic(id).is_none()).await;
        Ok(())
    }

    /// Waits a moment until this broker has the change, too, so that whoever asked finds what it
    /// made. The change is made in any case; a broker that is behind is not waited for.
    pub(super) async fn seen_here(&self, seen: impl Fn(&ClusterImage) -> bool) {
        let mut changes = self.node.image_changes();
        let _ = timeout(SEEN_MAX, changes.wait_for(|_| seen(&self.node.image()))).await;
    }
}

pub(super) fn not_the_answer(reply: &CommandReply) -> WireError {
    let why = format!("the controller gave another answer than asked for: {reply:?}");
    WireError::new(ErrorCode::Internal, why)
}

pub(super) const COMMAND_MAX: Duration = Duration::from_secs(15);
const SEEN_MAX: Duration = Duration::from_secs(1);
