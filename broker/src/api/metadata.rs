//! The cluster as this broker knows it: from the image, and from what is known of leaders.
//!
//! A broker that has not caught up with the controller since its start knows some topics from the
//! image that it saved, and says of no other that it does not exist. One that does not know a single
//! broker yet, having no saved image, says so instead of an answer without brokers: another one knows.

use highwater_protocol::error::WireError;
use highwater_protocol::ids::{PartitionId, TopicPartition};
use highwater_protocol::native::metadata::{
    BrokerInfo, MetadataRequest, MetadataResponse, PartitionInfo, TopicDetail, TopicInfo,
};

use super::{Api, errors};
use crate::controller::image::{Broker, ReplicaSet, Topic};
use crate::node::{LeaderView, NodeState, Routes};

impl Api {
    /// The cluster as this broker knows it.
    pub async fn metadata(&self, request: MetadataRequest) -> Result<MetadataResponse, WireError> {
        let image = self.node.image();
        let routes = self.node.routes();
        let caught_up = match *self.node.state().borrow() {
            NodeState::Starting => false,
            NodeState::Serving | NodeState::Failed(_) => true,
        };
        let starting = || errors::starting(self.node.options().me);
        if !caught_up && image.brokers().next().is_none() {
            return Err(starting());
        }
        let topics = match request {
            MetadataRequest::All if !caught_up => return Err(starting()),
            MetadataRequest::All => {
                image.topics_by_name().map(|topic| topic_info(topic, routes)).collect()
            }
            MetadataRequest::Topics(names) => names
                .into_iter()
                .map(|name| match image.topic_named(&name) {
                    Some(topic) => topic_info(topic, routes),
                    None if !caught_up => TopicInfo { result: Err(starting()), name },
                    None => TopicInfo { result: Err(errors::unknown_topic(&name)), name },
                })
                .collect(),
        };
        Ok(MetadataResponse {
            cluster_id: self.node.options().cluster_id.clone(),
            node: self.node.options().me,
            controller: routes.cluster().leader().leader,
            brokers: image.brokers().map(broker_info).collect(),
            topics,
        })
    }
}

fn broker_info(broker: &Broker) -> BrokerInfo {
    let registration = &broker.registration;
    BrokerInfo {
        node: registration.node,
        address: registration.client_address.clone(),
        rack: registration.rack.clone(),
        incarnation: registration.incarnation,
        directory: registration.directory,
        fenced: broker.fenced,
    }
}

fn topic_info(topic: &Topic, routes: &Routes) -> TopicInfo {
    let partition = |(number, replicas): (u32, &ReplicaSet)| {
        let partition = PartitionId(number);
        let route = routes.get(TopicPartition::new(topic.id, partition));
        let LeaderView { term, leader, in_sync } =
            route.map(|route| LeaderView::clone(&route.leader())).unwrap_or_default();
        let replicas = replicas.iter().map(|replica| replica.node).collect();
        PartitionInfo { partition, leader, term, replicas, in_sync }
    };
    let partitions = (0u32..).zip(&topic.partitions).map(partition).collect();
    let detail = TopicDetail {
        id: topic.id,
        configs: topic.configs.clone(),
        partitions,
        codec: topic.config.codec,
    };
    TopicInfo { name: topic.name.to_string(), result: Ok(detail) }
}
