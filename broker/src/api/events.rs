//! What the controller decided, read from this broker's copy of its log.
//!
//! The log is read from where it starts, because a record is told by what was before it. It is
//! bounded (see `node::controller_task`), so that this is a matter of milliseconds; and it is done
//! off the threads that serve, because people ask for it rarely and in a hurry.

use highwater_protocol::batch::{BatchView, frames};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::Offset;
use highwater_protocol::native::events::{ClusterEvent, ListEventsRequest, ListEventsResponse};

use super::{Api, errors};
use crate::controller::events::{Story, tell};
use crate::controller::{ClusterImage, MetadataRecord};
use crate::log::{LogReader, ReadError};

impl Api {
    /// The newest decisions that fit the question, the oldest of them first.
    pub async fn list_events(
        &self,
        request: ListEventsRequest,
    ) -> Result<ListEventsResponse, WireError> {
        let route = self.node.routes().cluster();
        let reader = route.reader().ok_or_else(|| errors::starting(self.node.options().me))?;
        let read = tokio::task::spawn_blocking(move || read(&reader, request));
        let events = read.await.map_err(|_| errors::stopping())?;
        let why = |why| format!("the controller's log cannot be told: {why}");
        let events = events.map_err(|error| WireError::new(ErrorCode::Internal, why(error)))?;
        Ok(ListEventsResponse { events })
    }
}

fn read(reader: &LogReader, request: ListEventsRequest) -> Result<Vec<ClusterEvent>, String> {
    let mut telling = Telling { request, image: ClusterImage::default(), events: Vec::new() };
    let mut at = reader.log_start();
    while at < reader.high_watermark() {
        let slices = match reader.read(at, READ_BYTES) {
            Ok(slices) => slices,
            // The log was begun anew meanwhile, with an image that has what was before.
            Err(ReadError::OutOfRange { start, .. }) if at < start => {
                at = start;
                continue;
            }
            Err(error) => return Err(error.to_string()),
        };
        for slice in slices {
            for frame in frames(&slice) {
                let (_, bytes) = frame.map_err(|error| error.to_string())?;
                at = telling.batch(bytes, at)?;
            }
        }
    }
    Ok(telling.events)
}

struct Telling {
    request: ListEventsRequest,
    image: ClusterImage,
    events: Vec<ClusterEvent>,
}

impl Telling {
    /// Tells a batch; gives the offset behind it.
    fn batch(&mut self, bytes: &[u8], from: Offset) -> Result<Offset, String> {
        let batch = BatchView::parse(bytes).map_err(|error| error.to_string())?;
        let (mut end, mut repeats) = (from, false);
        for record in batch.records().map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let value = record.value.ok_or("a metadata record without a value")?;
            let decided = MetadataRecord::decode(value).map_err(|error| error.to_string())?;
            let Story { kind, subject, detail } = tell(&self.image, &decided);
            self.image.apply(&decided).map_err(|error| error.to_string())?;
            end = record.offset.advance(1);
            let (offset, timestamp) = (record.offset, record.timestamp);
            if !repeats && self.is_wanted(offset, timestamp.0) {
                let kind = kind.to_owned();
                self.events.push(ClusterEvent { offset, timestamp, kind, subject, detail });
            }
            // The rest of such a batch only repeats what there is.
            repeats |= decided == MetadataRecord::BeginImage;
        }
        let over = self.events.len().saturating_sub(self.request.events_max as usize);
        self.events.drain(..over);
        Ok(end)
    }

    fn is_wanted(&self, offset: Offset, timestamp: i64) -> bool {
        let ListEventsRequest { from, since, .. } = self.request;
        offset >= from && since.is_none_or(|since| timestamp >= since.0)
    }
}

const READ_BYTES: u32 = 1024 * 1024;
