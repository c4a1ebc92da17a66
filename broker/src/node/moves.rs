//! Leads moves of the partitions that this broker leads: asks whether the move is still wanted, has
//! Raft change the voters, and tells the controller once they are the ones aimed at.
//!
//! Everything that must be remembered is in the controller's records, so a move goes on with whoever
//! leads the partition next, whoever leads the controller. Asking first keeps a broker whose image is
//! old from leading voters to where nobody wants them any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{Term, TopicPartition};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::Inner;
use super::ask::Line;
use super::reconcile::{self, Led};
use crate::controller::Command;
use crate::controller::moves::{MoveCommand, Step};
use crate::shard::event::ReplicaCommand;

/// Leads moves until the node stops.
pub(super) async fn run(node: Arc<Inner>, line: Arc<Line>) {
    let (mut tasks, mut under_way) = (JoinSet::new(), BTreeSet::new());
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut applied = node.applied.subscribe();
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = look.tick() => {}
            _ = applied.changed() => {}
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                under_way.remove(&ended.expect("leading a move does not panic"));
                // Whatever went wrong would go wrong at once again: the next look tries.
                continue;
            }
        }
        for led in led_here(&node) {
            if under_way.insert(led.clone()) {
                let (node, line) = (node.clone(), line.clone());
                tasks.spawn(async move {
                    if let Err(error) = lead(&node, &line, &led).await {
                        tracing::debug!(partition = %led.partition, %error, "a move has to wait");
                    }
                    led
                });
            }
        }
    }
}

/// The moves under way of partitions led here.
fn led_here(node: &Inner) -> Vec<Led> {
    reconcile::moves_led(&node.image.load(), |partition| leads(node, partition))
}

/// The term in which this broker leads a partition, if it does.
fn leads(node: &Inner, partition: TopicPartition) -> Option<Term> {
    let view = node.routes.get(partition)?.leader();
    (view.leader == Some(node.options.me)).then_some(view.term)
}

async fn lead(node: &Inner, line: &Line, led: &Led) -> Result<(), WireError> {
    let step = |step| Command::Moves(MoveCommand::Step(led.partition, led.id, step));
    line.command(step(Step::Begins), STEP_MAX).await?;
    if !reconcile::may_lead_on(&node.image.load(), |partition| leads(node, partition), led) {
        let why =
            format!("the move of {} was turned back, or another broker leads it", led.partition);
        return Err(WireError::new(ErrorCode::Superseded, why));
    }
    let change = ReplicaCommand::MoveVoters { voters: led.aim.clone(), term: led.term };
    let reached = node.shards.of(led.partition).admin(led.partition, change)?;
    tokio::select! {
        () = node.stop.cancelled() => return Ok(()),
        result = reached => {
            let gone = || WireError::new(ErrorCode::BrokerNotAvailable, "the shard has stopped");
            result.map_err(|_| gone())??;
        }
    }
    tracing::info!(partition = %led.partition, voters = ?led.aim, "the voters are as wished");
    line.command(step(Step::Reached), STEP_MAX).await?;
    Ok(())
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A step whose answer does not come is taken again at the next look.
const STEP_MAX: Duration = Duration::from_secs(15);
