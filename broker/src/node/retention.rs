//! Tells the shards what time it is, so that they look for what their topics no longer keep.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_protocol::ids::Timestamp;
use tokio::time::MissedTickBehavior;

use super::Inner;
use crate::shard::event::Event;

/// Runs until the node stops.
pub(super) async fn run(node: Arc<Inner>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = look.tick() => {}
        }
        // Before 1970 nothing is old.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        for shard in node.shards.all() {
            // A shard that is too busy looks the next time.
            let _ = shard.submit(Event::Retain(wall));
        }
    }
}

/// A shard looks at a sixtieth of its replicas each time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
