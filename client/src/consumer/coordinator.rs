//! Reaching the coordinator of a group: the leader of one partition of `__groups`.

use std::sync::Arc;

use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::groups::{FindCoordinatorRequest, GROUPS_TOPIC, GroupId};

use crate::admin::Admin;
use crate::client::Core;
use crate::connection::Call;
use crate::error::Error;
use crate::record::TopicName;

/// The way to a group's coordinator, wherever it leads.
#[derive(Clone)]
pub(crate) struct Coordinator {
    core: Arc<Core>,
    partition: TopicPartition,
}

impl Coordinator {
    /// Finds out where a group is kept; the first group of a cluster makes the topic.
    pub async fn find(core: Arc<Core>, group: &GroupId) -> Result<Coordinator, Error> {
        let question = FindCoordinatorRequest { group: group.clone() };
        let partition = Admin::new(core.clone()).change(&question).await?.partition;
        // So that whoever asks for metadata learns who leads it.
        core.topic(&TopicName::from(GROUPS_TOPIC), core.config.request_timeout).await?;
        Ok(Coordinator { core, partition })
    }

    /// One that nobody has asked where it is.
    #[cfg(test)]
    pub fn at(core: Arc<Core>, partition: TopicPartition) -> Coordinator {
        Coordinator { core, partition }
    }

    /// Asks it, again and again while what fails may pass, until the request's time is up.
    pub async fn ask<C: Call>(&self, request: &C) -> Result<C::Response, Error> {
        self.core.on_leader(self.partition, request).await
    }
}
