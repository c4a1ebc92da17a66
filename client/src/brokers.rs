//! Brokers that come and go.

use highwater_protocol::ids::NodeId;
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::brokers::{
    BrokerDuty, BrokerStatus, ChangeControllerRequest, ListBrokersRequest, RemoveBrokerRequest,
    RemoveBrokerResponse, SetDutyRequest, SetDutyResponse, Unretired, Vote,
};

use crate::admin::Admin;
use crate::error::Error;

impl Admin {
    /// What each broker is for and has, as one broker knows: it may be a moment late.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where no broker answered.
    pub async fn brokers(&self) -> Result<Vec<BrokerStatus>, Error> {
        Ok(self.change(&ListBrokersRequest).await?.brokers)
    }

    /// Drains a broker, retires it, or takes it back, or says what would move. Leaders and replicas
    /// move by themselves afterwards.
    ///
    /// # Errors
    /// `Refused` with `UnknownBroker`; with `Conflict` where it votes on the metadata and cannot
    /// leave, or a replica is moving to it; with `BrokerNotAvailable` where a replica finds no
    /// other place; otherwise with outcome unknown where the answer was lost.
    pub async fn set_duty(
        &self,
        node: NodeId,
        duty: BrokerDuty,
        dry_run: DryRun,
    ) -> Result<SetDutyResponse, Error> {
        self.change(&SetDutyRequest { node, duty, dry_run }).await
    }

    /// Takes a broker that hosts nothing out of the cluster; its process ends if it runs.
    ///
    /// # Errors
    /// `Refused` with `UnknownBroker`; with `Conflict` where it hosts something, votes on the metadata, or nobody
    /// retired it; otherwise with outcome unknown where the answer was lost.
    pub async fn remove_broker(
        &self,
        node: NodeId,
        unretired: Unretired,
        dry_run: DryRun,
    ) -> Result<(), Error> {
        let request = RemoveBrokerRequest { node, unretired, dry_run };
        self.change(&request).await.map(|RemoveBrokerResponse| ())
    }

    /// Gives a broker a vote on the cluster's metadata or takes it away; returns who votes then.
    ///
    /// # Errors
    /// `Refused` with `UnknownBroker`, `Conflict`, `BrokerNotAvailable` or `NotEnoughReplicas` where the voters
    /// could not decide; otherwise with outcome unknown where the answer was lost.
    pub async fn change_controller(
        &self,
        node: NodeId,
        vote: Vote,
        dry_run: DryRun,
    ) -> Result<Vec<NodeId>, Error> {
        Ok(self.change(&ChangeControllerRequest { node, vote, dry_run }).await?.voters)
    }
}
