//! Beginning a partition anew from one replica, after a majority was lost for good, and giving up what the only
//! replica cannot read.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::recover::{RecoverPartitionRequest, RecoverPartitionResponse};
use highwater_protocol::native::repair::{RepairReplicaRequest, RepairReplicaResponse};

use super::Api;
use super::moves::drawn;
use super::partitions::not_the_answer;
use crate::controller::moves::MoveCommand;
use crate::shard::event::{AdminReply, ReplicaCommand};

impl Api {
    /// Has a partition go on with what one replica has.
    pub async fn recover_partition(
        &self,
        mut request: RecoverPartitionRequest,
    ) -> Result<RecoverPartitionResponse, WireError> {
        if request.partition == TopicPartition::CLUSTER {
            let why = "the controller's own partition `__cluster` cannot be recovered so: who decides it is what was \
                       lost; bring a majority of the controller's brokers back with their disks";
            return Err(WireError::new(ErrorCode::InvalidRequest, why));
        }
        // What this broker has heard of the old group counts as well.
        let heard = self.route(request.partition)?.leader().term;
        request.term = request.term.max(heard);
        let moves = self.ask_moves(MoveCommand::Recover(drawn(), request)).await?;
        let replicas_before = moves.into_iter().flat_map(|planned| planned.from).collect();
        Ok(RecoverPartitionResponse { replicas_before })
    }

    /// What this broker's replica of a partition cannot read, and giving it up.
    pub async fn repair_replica(
        &self,
        request: RepairReplicaRequest,
    ) -> Result<RepairReplicaResponse, WireError> {
        let RepairReplicaRequest { partition, give_up, start } = request;
        if partition == TopicPartition::CLUSTER && !give_up.is_empty() {
            let why = "nothing of the controller's own partition `__cluster` can be given up: no broker could tell \
                       what was decided there";
            return Err(WireError::new(ErrorCode::InvalidRequest, why));
        }
        let reply = self.ask_replica(partition, ReplicaCommand::Repair { give_up, start }).await?;
        let AdminReply::Unreadable(seen) = reply else { return Err(not_the_answer()) };
        Ok(seen)
    }
}
