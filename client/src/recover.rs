//! Going on with what one replica has, after a majority was lost for good.

use highwater_protocol::ids::{NodeId, Term, TopicPartition};
use highwater_protocol::native::recover::RecoverPartitionRequest;

use crate::admin::Admin;
use crate::error::Error;

impl Admin {
    /// Makes one replica the only one of its partition, for one whose majority is lost for good: every
    /// record that it lacks is lost, also where it was acknowledged. `given_up` names brokers whose
    /// replicas are given up although the cluster hears them; `term` is the newest that any replica is
    /// known to have had. Gives the replicas that the partition had.
    ///
    /// # Errors
    /// `Refused` with `MajorityAlive` where the other replicas can elect a leader, `BrokerNotAvailable`
    /// where the survivor is down, `InvalidRequest` where it has no replica; otherwise with outcome
    /// unknown where the answer was lost.
    pub async fn recover_partition(
        &self,
        partition: TopicPartition,
        survivor: NodeId,
        given_up: Vec<NodeId>,
        term: Term,
    ) -> Result<Vec<NodeId>, Error> {
        let wish = RecoverPartitionRequest { partition, survivor, given_up, term };
        Ok(self.change(&wish).await?.replicas_before)
    }
}
