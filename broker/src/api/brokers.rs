//! Brokers that come and go: shown from the image, drained and removed through the controller.

use std::collections::BTreeMap;

use highwater_protocol::error::WireError;
use highwater_protocol::ids::{NodeId, PartitionId, TopicPartition};
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::brokers::{
    BrokerStatus, ChangeControllerRequest, ChangeControllerResponse, ListBrokersResponse,
    RemoveBrokerRequest, RemoveBrokerResponse, SetDutyRequest, SetDutyResponse,
};
use uuid::Uuid;

use super::Api;
use super::admin::{COMMAND_MAX, not_the_answer};
use crate::controller::brokers::{BrokerCommand, BrokerReply};
use crate::controller::image::{ClusterImage, Topic};
use crate::controller::moves::{MoveId, nodes};
use crate::controller::{Command, CommandReply};

impl Api {
    /// What every broker is for and has, as this broker knows it.
    pub fn list_brokers(&self) -> ListBrokersResponse {
        let image = self.node.image();
        let mut found: BTreeMap<NodeId, BrokerStatus> = BTreeMap::new();
        for broker in image.brokers() {
            let node = broker.registration.node;
            let controller = match image.voters() {
                [] => self.node.options().controllers.contains(&node),
                voters => voters.contains(&node),
            };
            let duty = broker.duty;
            let (replicas, leads, going, coming, lost) = (0, 0, 0, 0, 0);
            let status =
                BrokerStatus { node, duty, controller, replicas, leads, going, coming, lost };
            found.insert(node, status);
        }
        for topic in image.topics() {
            for number in (0u32..).map(PartitionId).take(topic.partitions.len()) {
                count_replicas(&image, topic, number, &mut found);
                let route = self.node.routes().get(TopicPartition::new(topic.id, number));
                let leader = route.and_then(|route| route.leader().leader);
                if let Some(status) = leader.and_then(|leader| found.get_mut(&leader)) {
                    status.leads += 1;
                }
            }
        }
        ListBrokersResponse { brokers: found.into_values().collect() }
    }

    /// Drains a broker, retires it or takes it back, through the controller.
    pub async fn set_duty(&self, request: SetDutyRequest) -> Result<SetDutyResponse, WireError> {
        // Drawn here, so that the controller recognises the command when it comes twice.
        let id = MoveId(Uuid::new_v4().as_u64_pair().0);
        let SetDutyRequest { node, duty, dry_run } = request;
        let reply = self.ask_brokers(BrokerCommand::SetDuty(id, request)).await?;
        let BrokerReply::DutySet(response) = reply else {
            return Err(not_the_answer(&CommandReply::Broker(reply)));
        };
        if dry_run == DryRun::No {
            self.seen_here(|image| image.broker(node).is_none_or(|it| it.duty == duty)).await;
        }
        Ok(response)
    }

    /// Takes a broker out of the cluster, through the controller.
    pub async fn remove_broker(
        &self,
        request: RemoveBrokerRequest,
    ) -> Result<RemoveBrokerResponse, WireError> {
        let reply = self.ask_brokers(BrokerCommand::Remove(request)).await?;
        let BrokerReply::Removed = reply else {
            return Err(not_the_answer(&CommandReply::Broker(reply)));
        };
        if request.dry_run == DryRun::No {
            self.seen_here(|image| image.broker(request.node).is_none()).await;
        }
        Ok(RemoveBrokerResponse)
    }

    /// Gives a broker a vote on the metadata or takes it away, through the controller.
    pub async fn change_controller(
        &self,
        request: ChangeControllerRequest,
    ) -> Result<ChangeControllerResponse, WireError> {
        let reply = self.ask_brokers(BrokerCommand::ChangeController(request)).await?;
        let BrokerReply::Voters { target, dry_run } = reply else {
            return Err(not_the_answer(&CommandReply::Broker(reply)));
        };
        if dry_run == DryRun::No {
            self.seen_here(|image| image.voters() == target).await;
        }
        Ok(ChangeControllerResponse { voters: target })
    }

    async fn ask_brokers(&self, command: BrokerCommand) -> Result<BrokerReply, WireError> {
        let reply = self.node.command(Command::Brokers(command), COMMAND_MAX).await?;
        let CommandReply::Broker(reply) = reply else { return Err(not_the_answer(&reply)) };
        Ok(reply)
    }
}

fn count_replicas(
    image: &ClusterImage,
    topic: &Topic,
    number: PartitionId,
    found: &mut BTreeMap<NodeId, BrokerStatus>,
) {
    let set = &topic.partitions[number.0 as usize];
    let from = nodes(set);
    // A move that goes back takes nothing away from those that it began with.
    let to = topic
        .aim(number)
        .map(nodes)
        .or_else(|| topic.move_of(number).map(|waiting| nodes(&waiting.target)));
    let to = to.unwrap_or_else(|| from.clone());
    for replica in set.iter() {
        let Some(status) = found.get_mut(&replica.node) else { continue };
        status.replicas += 1;
        status.going += u32::from(!to.contains(&replica.node));
        let elsewhere = image.directory_of(replica.node) != Some(replica.directory);
        status.lost += u32::from(elsewhere);
    }
    for node in to.iter().filter(|node| !from.contains(node)) {
        if let Some(status) = found.get_mut(node) {
            status.coming += 1;
        }
    }
}
