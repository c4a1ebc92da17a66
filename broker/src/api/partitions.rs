//! Single partitions: where an offset lies, where the replicas stand, and giving up records.

use std::time::Duration;

use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::admin::{
    DescribePartitionRequest, DescribePartitionResponse, TrimPartitionRequest,
    TrimPartitionResponse,
};
use highwater_protocol::native::alter::TransferLeaderRequest;
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
        let reply = self.ask_replica(request.partition, ReplicaCommand::Describe).await?;
        let AdminReply::Description(description) = reply else { return Err(not_the_answer()) };
        Ok(description)
    }

    /// Gives up the oldest records of a partition that this broker leads.
    pub async fn trim_partition(
        &self,
        request: TrimPartitionRequest,
    ) -> Result<TrimPartitionResponse, WireError> {
        let route = self.route(request.partition)?;
        if route.is_internal() {
            let why =
                format!("{} is the cluster's own and is not trimmed by request", route.title());
            return Err(WireError::new(ErrorCode::InvalidRequest, why));
        }
        self.led_here(request.partition, None)?;
        let command = ReplicaCommand::TrimBefore(request.before);
        let reply = self.ask_replica(request.partition, command).await?;
        let AdminReply::Trimmed(log_start) = reply else { return Err(not_the_answer()) };
        Ok(TrimPartitionResponse { log_start })
    }

    /// Hands the leadership of a partition that this broker leads to another replica.
    pub async fn transfer_leader(&self, request: TransferLeaderRequest) -> Result<(), WireError> {
        let TransferLeaderRequest { partition, to } = request;
        let Led { route, view, reader: _ } = self.led_here(partition, None)?;
        if let Some(to) = to.filter(|to| self.node.image().broker(*to).is_none()) {
            let why = format!(
                "broker {to} is not part of the cluster; `hw cluster brokers` shows those that are"
            );
            return Err(WireError::new(ErrorCode::UnknownBroker, why));
        }
        if let Some(to) = to.filter(|to| !view.in_sync.contains(to)) {
            let why = format!(
                "broker {to} cannot lead {}: it is not one of its in-sync replicas, which are on {:?}",
                route.title(),
                view.in_sync.iter().map(|node| node.0).collect::<Vec<_>>()
            );
            return Err(WireError::new(ErrorCode::Conflict, why));
        }
        let reply = self.ask_replica(partition, ReplicaCommand::TransferLeader(to)).await?;
        let AdminReply::Done(_) = reply else { return Err(not_the_answer()) };
        Ok(())
    }

    pub(super) async fn ask_replica(
        &self,
        partition: TopicPartition,
        command: ReplicaCommand,
    ) -> Result<AdminReply, WireError> {
        let route = self.route(partition)?;
        if let Some(reason) = route.failed() {
            return Err(errors::failed(&route, &reason));
        }
        if route.reader().is_none() {
            return Err(errors::not_leader(&route, &route.leader(), self.node.options().me));
        }
        let reply = self.node.shards().of(partition).admin(partition, command)?;
        match timeout(REPLICA_MAX, reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(errors::stopping()),
            Err(_) => {
                let why = format!("{}: the replica did not answer within 5 s", route.title());
                Err(WireError::new(ErrorCode::RequestTimedOut, why))
            }
        }
    }
}

pub(super) fn not_the_answer() -> WireError {
    WireError::new(ErrorCode::Internal, "the replica gave another answer than asked for")
}

const REPLICA_MAX: Duration = Duration::from_secs(5);
