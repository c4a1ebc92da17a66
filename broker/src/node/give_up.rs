//! Tells the controller of replicas that were taken from this broker and of which nothing is left: until it
//! knows, nobody brings them back here.

use highwater_protocol::ids::TopicPartition;

use super::Inner;
use super::ask::Line;
use crate::controller::Command;
use crate::controller::moves::dropped::GivenUp;
use crate::controller::moves::{MoveCommand, MoveId};
use crate::shard::handle::CommandReply;

/// Waits for the shards' answers and passes on what is done. What is not, or what nobody heard of, is looked for
/// again by the follower.
pub(super) async fn tell(
    node: &Inner,
    line: &Line,
    asked: Vec<(TopicPartition, MoveId, CommandReply)>,
) {
    let mut drops = Vec::new();
    for (partition, by, reply) in asked {
        match reply.await {
            Ok(Ok(_)) => drops.push((partition, by)),
            Ok(Err(error)) => tracing::warn!(%partition, %error, "a replica is not given up yet"),
            // The shard has stopped.
            Err(_) => {}
        }
    }
    if drops.is_empty() {
        return;
    }
    let count = drops.len();
    let word = GivenUp { node: node.options.me, directory: node.options.directory, drops };
    match line.command(Command::Moves(MoveCommand::GivenUp(word)), TELL_MAX).await {
        Ok(_) => tracing::info!(count, "replicas that were taken from this broker are given up"),
        Err(error) => {
            tracing::debug!(%error, "nobody was told of replicas that are given up");
        }
    }
}

const TELL_MAX: std::time::Duration = std::time::Duration::from_secs(5);
