//! Registration: this broker tells the controller that it lives, and keeps telling.
//!
//! Repeating it costs no record; it lets the controller tell this data directory from another one
//! that claims the same node id, and heals a registration that was lost or overwritten.
//!
//! A broker that hosts nothing has itself drained, once in its life, or the controller would go on placing
//! replicas on it. Only people take that back: whoever looked why it crashed decides when it is well.

use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use highwater_protocol::native::admin::DryRun;
use highwater_protocol::native::brokers::{BrokerDuty, SetDutyRequest};
use tokio::time::sleep;

use super::ask::Line;
use super::{Hosting, Inner, NodeState};
use crate::controller::Command;
use crate::controller::brokers::BrokerCommand;
use crate::controller::liveness::REGISTRATION_REPEAT_MS;
use crate::controller::moves::MoveId;

/// Registers until the node stops.
pub(super) async fn run(node: Arc<Inner>, line: Arc<Line>) {
    let mut registered = false;
    let mut to_stand_aside = node.options.hosting != Hosting::All;
    let stop = node.stop.clone();
    loop {
        let command = Command::Register(node.registration());
        let asked = line.command(command, Duration::from_millis(REGISTRATION_REPEAT_MS));
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = asked => result,
        };
        let pause_ms = match result {
            Ok(_) => {
                registered = true;
                if to_stand_aside {
                    to_stand_aside = tokio::select! {
                        () = stop.cancelled() => return,
                        done = stand_aside(&node, &line) => !done,
                    };
                }
                if to_stand_aside { RETRY_MS } else { REGISTRATION_REPEAT_MS }
            }
            Err(error) if error.code == ErrorCode::BrokerRemoved => {
                node.fail(error.detail);
                return;
            }
            Err(error) if error.code.retriable() && registered => {
                tracing::debug!(%error, "the registration could not be repeated");
                RETRY_MS
            }
            Err(error) => {
                tracing::warn!(%error, "this broker is not registered");
                RETRY_MS
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(Duration::from_millis(pause_ms)) => {}
        }
    }
}

/// Has this broker drained, unless it has some such duty already; says whether that is settled.
async fn stand_aside(node: &Inner, line: &Line) -> bool {
    // Before that the image may lack a duty that somebody gave it meanwhile.
    if *node.state.borrow() != NodeState::Serving {
        return false;
    }
    let me = node.options.me;
    match node.image.load().broker(me).map(|broker| broker.duty) {
        Some(BrokerDuty::Active) => {}
        Some(BrokerDuty::Draining | BrokerDuty::Leaving) | None => return true,
    }
    let request = SetDutyRequest { node: me, duty: BrokerDuty::Draining, dry_run: DryRun::No };
    // Draining moves nothing, so that its number is never looked for.
    let command = BrokerCommand::SetDuty(MoveId(0), request);
    let wait = Duration::from_millis(REGISTRATION_REPEAT_MS);
    match line.command(Command::Brokers(command), wait).await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!(%error, "this broker hosts nothing and is not drained yet");
            false
        }
    }
}

const RETRY_MS: u64 = 250;
