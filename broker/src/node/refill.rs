//! Replicas that were lost with a disk: once their leaders say that they keep up again, the
//! controller is told that they are on the disk which this broker has now.
//!
//! Until then each life of the broker opens them as lost: they neither vote nor stand before they
//! have caught up. Afterwards they are replicas like any others.

use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::ids::{PartitionId, TopicPartition};
use tokio::time::{MissedTickBehavior, interval};

use super::Inner;
use super::ask::Line;
use crate::controller::Command;
use crate::controller::brokers::BrokerCommand;

/// Tells until the node stops.
pub(super) async fn run(node: Arc<Inner>, line: Arc<Line>) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let partitions = filled_again(&node);
        if partitions.is_empty() {
            continue;
        }
        let (count, options) = (partitions.len(), &node.options);
        let (me, directory) = (options.me, options.directory);
        let command = BrokerCommand::Refilled { node: me, directory, partitions };
        let told = tokio::select! {
            () = node.stop.cancelled() => return,
            told = line.command(Command::Brokers(command), TELL_MAX) => told,
        };
        match told {
            Ok(_) => tracing::info!(count, "replicas lost with an earlier disk are whole again"),
            // The next look finds the same.
            Err(error) => {
                tracing::debug!(%error, "nobody was told of replicas that are whole again")
            }
        }
    }
}

/// Some of the replicas that were placed on an earlier disk and keep up on this one.
fn filled_again(node: &Inner) -> Vec<TopicPartition> {
    let (me, here) = (node.options.me, node.options.directory);
    let image = node.image.load();
    if image.directory_of(me) != Some(here) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for topic in image.topics() {
        for (number, set) in (0u32..).map(PartitionId).zip(&topic.partitions) {
            let elsewhere = set.iter().any(|it| it.node == me && it.directory != here);
            let partition = TopicPartition::new(topic.id, number);
            let keeps_up = || {
                let view = node.routes.get(partition).map(|route| route.leader());
                view.is_some_and(|view| view.leader.is_some() && view.in_sync.contains(&me))
            };
            if elsewhere && keeps_up() && found.len() < AT_ONCE_MAX {
                found.push(partition);
            }
        }
    }
    found
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
const TELL_MAX: Duration = Duration::from_secs(5);
const AT_ONCE_MAX: usize = 500;
