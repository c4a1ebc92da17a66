//! Registration: this broker tells the controller that it lives, and keeps telling.
//!
//! Repeating it costs no record; it lets the controller tell this data directory from another one
//! that claims the same node id, and heals a registration that was lost or overwritten.

use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::error::ErrorCode;
use tokio::time::sleep;

use super::Inner;
use super::ask::Line;
use crate::controller::Command;
use crate::controller::liveness::REGISTRATION_REPEAT_MS;

/// Registers until the node stops.
pub(super) async fn run(node: Arc<Inner>, line: Arc<Line>) {
    let mut registered = false;
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
                REGISTRATION_REPEAT_MS
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

const RETRY_MS: u64 = 250;
