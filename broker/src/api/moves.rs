//! Moves of replicas: asked for and cancelled through the controller, shown from the image.

use highwater_protocol::error::WireError;
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::moves::{
    CancelMovesRequest, CancelMovesResponse, ListMovesResponse, MoveInfo, PlannedMove,
    ReassignRequest, ReassignResponse,
};
use highwater_protocol::native::throttle::{
    ThrottleChange, ThrottleMovesRequest, ThrottleMovesResponse,
};
use uuid::Uuid;

use super::Api;
use super::admin::{COMMAND_MAX, not_the_answer};
use crate::controller::moves::{MoveCommand, MoveId, nodes};
use crate::controller::throttle::ThrottleRecord;
use crate::controller::{Command, CommandReply};

impl Api {
    /// Begins moves, or says which ones there would be.
    pub async fn reassign(&self, request: ReassignRequest) -> Result<ReassignResponse, WireError> {
        let moves = self.ask_moves(MoveCommand::Reassign(drawn(), request)).await?;
        Ok(ReassignResponse { moves })
    }

    /// Has moves go back to where they began.
    pub async fn cancel_moves(
        &self,
        request: CancelMovesRequest,
    ) -> Result<CancelMovesResponse, WireError> {
        let moves = self.ask_moves(MoveCommand::Cancel(drawn(), request)).await?;
        Ok(CancelMovesResponse { moves })
    }

    /// Changes how fast moves may copy, and says what holds.
    pub async fn throttle_moves(
        &self,
        request: ThrottleMovesRequest,
    ) -> Result<ThrottleMovesResponse, WireError> {
        if let Some(ThrottleChange { broker, bytes_per_s }) = request.change {
            let wish = ThrottleRecord { broker, bytes_per_s };
            self.ask_moves(MoveCommand::Throttle(wish)).await?;
        }
        let image = self.node.image();
        let throttle = image.throttle();
        let brokers = throttle.brokers().collect();
        Ok(ThrottleMovesResponse { cluster: throttle.cluster(), brokers })
    }

    /// The moves that are not over, as far as this broker knows.
    pub fn list_moves(&self) -> ListMovesResponse {
        let image = self.node.image();
        let mut moves = Vec::new();
        for topic in image.topics_by_name() {
            for (number, found) in topic.moving() {
                let planned = PlannedMove {
                    partition: TopicPartition::new(topic.id, number),
                    from: nodes(&topic.partitions[number.0 as usize]),
                    to: nodes(&found.target),
                };
                let awaits = topic.move_waits_for(number, found);
                let (topic, stage) = (topic.name.to_string(), found.stage);
                moves.push(MoveInfo { topic, planned, stage, awaits });
            }
        }
        ListMovesResponse { moves }
    }

    pub(super) async fn ask_moves(
        &self,
        command: MoveCommand,
    ) -> Result<Vec<PlannedMove>, WireError> {
        let reply = self.node.command(Command::Moves(command), COMMAND_MAX).await?;
        let CommandReply::Moves(moves) = reply else { return Err(not_the_answer(&reply)) };
        Ok(moves)
    }
}

/// Drawn here, so that the controller recognises the command when it comes twice.
pub(super) fn drawn() -> MoveId {
    MoveId(Uuid::new_v4().as_u64_pair().0)
}
