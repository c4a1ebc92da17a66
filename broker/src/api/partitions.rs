//! Questions about single partitions: where an offset lies, and where the replicas stand.

use std::time::Duration;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::native::admin::{DescribePartitionRequest, DescribePartitionResponse};
use highwater_protocol::native::fetch::{ListOffsetsRequest, ListOffsetsResponse, OffsetAt};
use tokio::time::timeout;

use super::{Api, Led, errors};
use crate::shard::event::{AdminReply, ReplicaCommand};

impl Api {
    /// Finds an offset by end or by time; only the leader knows the end.
    pub async fn list_offsets(
        &self,
        request: ListOffsetsRequest,
    ) -> Result<ListOffsetsResponse, WireError> {
        let Led { route, view, reader } = self.led_here(request.partition, None)?;
        let (offset, timestamp) = match request.at {
            OffsetAt::Start => (reader.log_start(), None),
            OffsetAt::End => (reader.high_watermark(), None),
            OffsetAt::Time(time) => {
                let end = reader.high_watermark();
                // Looks into sealed segments, which may have to come from the disk.
                let found = tokio::task::spawn_blocking(move || reader.offset_for(time)).await;
                match found.map_err(|_| errors::stopping())? {
                    Ok(Some((offset, timestamp))) => (offset, Some(timestamp)),
                    Ok(None) => (end, None),
                    Err(error) => return Err(errors::unreadable(&route, end, &error)),
                }
            }
        };
        Ok(ListOffsetsResponse { offset, timestamp, term: view.term })
    }

    /// A partition as this broker's replica sees it.
    pub async fn describe_partition(
        &self,
        request: DescribePartitionRequest,
    ) -> Result<DescribePartitionResponse, WireError> {
        let route = self.route(request.partition)?;
        if let Some(reason) = route.failed() {
            return Err(errors::failed(&route, &reason));
        }
        if route.reader().is_none() {
            return Err(errors::not_leader(&route, &route.leader(), self.node.options().me));
        }
        let shard = self.node.shards().of(request.partition);
        let reply = shard.admin(request.partition, ReplicaCommand::Describe)?;
        match timeout(DESCRIBE_MAX, reply).await {
            Ok(Ok(Ok(AdminReply::Description(description)))) => Ok(description),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Ok(Ok(AdminReply::Done(_) | AdminReply::Trimmed(_)))) => {
                let why =
                    format!("{}: the replica gave another answer than asked for", route.title());
                Err(WireError::new(ErrorCode::Internal, why))
            }
            Ok(Err(_)) => Err(errors::stopping()),
            Err(_) => {
                let why = format!("{}: the replica did not answer within 5 s", route.title());
                Err(WireError::new(ErrorCode::RequestTimedOut, why))
            }
        }
    }
}

const DESCRIBE_MAX: Duration = Duration::from_secs(5);
