//! What the controller decided, and when.

use highwater_protocol::ids::{Offset, Timestamp};
use highwater_protocol::native::events::{ClusterEvent, ListEventsRequest};

use crate::admin::Admin;
use crate::error::Error;

impl Admin {
    /// The newest decisions of the controller, at most `events_max` and the oldest of them first: from
    /// an offset of its log on, and not older than `since`. They go back to where that log was begun
    /// anew last; the broker that answers may be a moment late.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut` where no broker answered.
    pub async fn list_events(
        &self,
        from: Offset,
        since: Option<Timestamp>,
        events_max: u32,
    ) -> Result<Vec<ClusterEvent>, Error> {
        Ok(self.change(&ListEventsRequest { from, since, events_max }).await?.events)
    }
}
