//! One replica as it sees itself, for whoever explains a partition.

use highwater_protocol::error::WireError;
use highwater_protocol::native::inspect::{
    HeldBatch, InspectReplicaRequest, InspectReplicaResponse,
};

use super::partitions::not_the_answer;
use super::{Api, errors};
use crate::log::{Located, LogReader, ReadError};
use crate::shard::event::{AdminReply, ReplicaCommand};

impl Api {
    /// This broker's replica of a partition, whether it leads or not.
    pub async fn inspect_replica(
        &self,
        request: InspectReplicaRequest,
    ) -> Result<InspectReplicaResponse, WireError> {
        let InspectReplicaRequest { partition, offset } = request;
        let reply = self.ask_replica(partition, ReplicaCommand::Inspect).await?;
        let AdminReply::Inspection(mut seen) = reply else {
            return Err(not_the_answer());
        };
        let route = self.route(partition)?;
        let reader = route.reader().ok_or_else(errors::stopping)?;
        let flushed = seen.indexes.flushed;
        // Sealed segments may have to come from the disk.
        let look = move || -> Result<_, ReadError> {
            let batch = offset.map(|offset| reader.locate(offset)).transpose()?.flatten();
            Ok((reader.offset_until(flushed)?, batch, LogReader::log_end(&reader)))
        };
        let found = tokio::task::spawn_blocking(look).await.map_err(|_| errors::stopping())?;
        let (flushed, batch, log_end) =
            found.map_err(|error| errors::unreadable(&route, seen.log_start, &error))?;
        seen.flushed = flushed;
        seen.log_end = log_end;
        seen.batch = batch.map(held);
        Ok(seen)
    }
}

fn held(located: Located) -> HeldBatch {
    let Located { base, end, end_index, term, timestamps, checksum } = located;
    HeldBatch { base, end, end_index, term, timestamps, checksum }
}
