//! Beginning a partition anew from one replica, after a majority was lost for good.

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::recover::{RecoverPartitionRequest, RecoverPartitionResponse};

use super::Api;
use super::moves::drawn;
use crate::controller::moves::MoveCommand;

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
}
