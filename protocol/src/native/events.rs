//! Admin: what the controller decided, and when.

use crate::ids::{Offset, Timestamp};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// A question for decisions of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListEventsRequest {
    /// Only those from this offset of the controller's log on.
    pub from: Offset,
    /// Only those that are not older.
    pub since: Option<Timestamp>,
    /// Only so many, the newest; at most `EVENTS_MAX` are sent.
    pub events_max: u32,
}

/// Decisions, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEventsResponse {
    /// The decisions.
    pub events: Vec<ClusterEvent>,
}

/// A decision of the controller, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterEvent {
    /// Where it stands in the controller's log.
    pub offset: Offset,
    /// When it was decided, by the clock of the broker that led then.
    pub timestamp: Timestamp,
    /// What kind of decision, such as `broker-fenced`.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// What was decided, and why.
    pub detail: String,
}

impl ListEventsRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.from.0);
        writer.optional(self.since, |writer, since| writer.i64(since.0));
        writer.u32(self.events_max);
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListEventsRequest, DecodeError> {
        coding::open_request(reader, "a question for events")?;
        let from = coding::offset(reader)?;
        let since = reader.optional("a time", Reader::i64)?.map(Timestamp);
        let events_max = reader.u32()?.min(EVENTS_MAX);
        reader.tagged_fields()?;
        Ok(ListEventsRequest { from, since, events_max })
    }
}

impl ListEventsResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        writer.list(&self.events, |writer, event| {
            writer.u64(event.offset.0);
            writer.i64(event.timestamp.0);
            writer.text(&event.kind);
            writer.text(&event.subject);
            writer.text(&event.detail);
        });
        writer.no_tagged_fields();
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<ListEventsResponse, DecodeError> {
        reader.within("events");
        let events = reader.list("events", 19, |reader| {
            Ok(ClusterEvent {
                offset: coding::offset(reader)?,
                timestamp: Timestamp(reader.i64()?),
                kind: reader.text("a kind")?,
                subject: reader.text("a subject")?,
                detail: reader.text("a detail")?,
            })
        })?;
        reader.tagged_fields()?;
        Ok(ListEventsResponse { events })
    }
}

/// Every kind of decision that this build tells of, sorted; a newer broker may know others.
pub const KINDS: [&str; 24] = [
    "broker-fenced",
    "broker-registered",
    "broker-removed",
    "broker-unfenced",
    "controller-voters",
    "duty-changed",
    "log-begun-anew",
    "move-asked",
    "move-automatic",
    "move-begun",
    "move-cancelled",
    "move-dropped",
    "move-ended",
    "move-remembered",
    "moves-throttled",
    "partition-recovered",
    "partitions-placed",
    "recovery-remembered",
    "replica-given-up",
    "replica-refilled",
    "settings-altered",
    "topic-altered",
    "topic-created",
    "topic-deleted",
];

/// The most events that are sent at once.
pub const EVENTS_MAX: u32 = 10_000;
