//! From a request frame to a call of `api`, and from its result to an answer frame.
//!
//! A body that cannot be read is answered as an invalid request; only a frame too short for a header
//! has no answer. Produce is decoded, checked and queued before `begin` returns; everything else
//! happens in the future that it returns.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::native::admin::{
    CreateTopicRequest, DeleteTopicRequest, DescribePartitionRequest, TrimPartitionRequest,
};
use highwater_protocol::native::alter::{
    AlterTopicRequest, CreatePartitionsRequest, TransferLeaderRequest,
};
use highwater_protocol::native::balance::{
    ListReplicasRequest, ListReplicasResponse, PlanBalanceRequest,
};
use highwater_protocol::native::brokers::{
    ChangeControllerRequest, ListBrokersRequest, ListBrokersResponse, RemoveBrokerRequest,
    SetDutyRequest,
};
use highwater_protocol::native::digest::DigestReplicaRequest;
use highwater_protocol::native::events::ListEventsRequest;
use highwater_protocol::native::fetch::{FetchRequest, FetchResponse, ListOffsetsRequest};
use highwater_protocol::native::frame::{
    AnswerHeader, ApiKey, CorrelationId, HelloRequest, HelloResponse, RequestHeader, error_answer,
    spoken_versions,
};
use highwater_protocol::native::groups::{
    CommitOffsetsRequest, DeleteGroupRequest, DeleteOffsetsRequest, DescribeGroupRequest,
    FetchOffsetsRequest, FindCoordinatorRequest, GroupHeartbeatRequest, ListGroupsRequest,
};
use highwater_protocol::native::inspect::InspectReplicaRequest;
use highwater_protocol::native::metadata::MetadataRequest;
use highwater_protocol::native::moves::{
    CancelMovesRequest, ListMovesRequest, ListMovesResponse, ReassignRequest,
};
use highwater_protocol::native::produce::{AckMode, ProduceRequest, ProduceResponse};
use highwater_protocol::native::recover::RecoverPartitionRequest;
use highwater_protocol::native::repair::RepairReplicaRequest;
use highwater_protocol::native::settings::{
    AlterSettingsRequest, DescribeSettingsRequest, DescribeSettingsResponse,
};
use highwater_protocol::native::throttle::ThrottleMovesRequest;
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use tokio::time::sleep;
use tracing::debug;

use super::tls::Identity;
use crate::api::Api;
use crate::api::quota::{Purse, Way};
use crate::metrics::{Histogram, Metrics};

/// The chunks of an answer frame, length included.
pub(super) type Answer = Vec<Bytes>;

/// An answer on its way.
pub(super) type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The calls that a client may make.
#[derive(Clone)]
pub(super) struct Calls {
    api: Api,
    metrics: Arc<Metrics>,
    purse: Arc<Purse>,
}

/// Reads a whole request and has the api asked for it by the future that answers.
macro_rules! ask {
    ($calls:expr, $correlation:expr, $body:expr, $request:ident, $method:ident) => {
        ask!($calls, $correlation, $body, $request, $method, |answer, writer| answer.encode(writer))
    };
    ($calls:expr, $correlation:expr, $body:expr, $request:ident, $method:ident, $encode:expr) => {{
        let (request, calls) = (whole($body, $request::decode)?, $calls.clone());
        Box::pin(async move {
            let result = calls.api.$method(request).await;
            calls.answer($correlation, result, $encode)
        })
    }};
}

impl Calls {
    pub(super) fn new(api: Api, metrics: Arc<Metrics>, caller: &Identity) -> Calls {
        let purse = api.purse(&caller.to_string(), caller.client());
        Calls { api, metrics, purse }
    }

    /// For how long no more produces are to be read.
    pub(super) fn owes(&self) -> Duration {
        self.purse.owes(Way::Produce)
    }

    /// Begins a request; `None` where the frame is too short to be one. What must happen in the
    /// order of the requests has happened when this returns.
    pub(super) fn begin(&self, mut frame: Bytes, begun: Instant) -> Option<Answering> {
        let header = RequestHeader::take(&mut frame).ok()?;
        let correlation = header.correlation;
        let answering = header.api().and_then(|api| {
            self.count(api);
            self.call(api, header, frame, begun).map_err(|error| {
                let detail = format!("the body of {api:?} cannot be read: {error}");
                WireError::new(ErrorCode::InvalidRequest, detail)
            })
        });
        Some(answering.unwrap_or_else(|error| {
            self.metrics.request_errors.bump();
            Box::pin(ready(error_frame(correlation, &error)))
        }))
    }

    fn call(
        &self,
        api: ApiKey,
        header: RequestHeader,
        body: Bytes,
        begun: Instant,
    ) -> Result<Answering, DecodeError> {
        let (read, correlation) = (&body, header.correlation);
        Ok(match api {
            ApiKey::Hello => self.hello(correlation, &whole(read, HelloRequest::decode)?),
            ApiKey::Produce => self.produce(header, body, begun)?,
            ApiKey::Fetch => {
                let (request, calls) = (whole(read, FetchRequest::decode)?, self.clone());
                Box::pin(async move { fetched(correlation, calls.fetch(request).await) })
            }
            ApiKey::Metadata => ask!(self, correlation, read, MetadataRequest, metadata),
            ApiKey::ListOffsets => ask!(self, correlation, read, ListOffsetsRequest, list_offsets),
            ApiKey::CreateTopic => ask!(self, correlation, read, CreateTopicRequest, create_topic),
            ApiKey::DeleteTopic => {
                ask!(self, correlation, read, DeleteTopicRequest, delete_topic, nothing)
            }
            ApiKey::DescribePartition => {
                ask!(self, correlation, read, DescribePartitionRequest, describe_partition)
            }
            ApiKey::TrimPartition => {
                ask!(self, correlation, read, TrimPartitionRequest, trim_partition)
            }
            ApiKey::AlterTopic => ask!(self, correlation, read, AlterTopicRequest, alter_topic),
            ApiKey::CreatePartitions => {
                ask!(self, correlation, read, CreatePartitionsRequest, create_partitions)
            }
            ApiKey::TransferLeader => {
                ask!(self, correlation, read, TransferLeaderRequest, transfer_leader, nothing)
            }
            ApiKey::Reassign => ask!(self, correlation, read, ReassignRequest, reassign),
            ApiKey::CancelMoves => ask!(self, correlation, read, CancelMovesRequest, cancel_moves),
            ApiKey::ThrottleMoves
            | ApiKey::SetDuty
            | ApiKey::RemoveBroker
            | ApiKey::ChangeController
            | ApiKey::AlterSettings => self.cluster(api, correlation, read)?,
            ApiKey::PlanBalance => ask!(self, correlation, read, PlanBalanceRequest, plan_balance),
            ApiKey::RecoverPartition
            | ApiKey::InspectReplica
            | ApiKey::DigestReplica
            | ApiKey::RepairReplica => self.one_replica(api, correlation, read)?,
            ApiKey::ListEvents => ask!(self, correlation, read, ListEventsRequest, list_events),
            ApiKey::FindCoordinator
            | ApiKey::GroupHeartbeat
            | ApiKey::CommitOffsets
            | ApiKey::FetchOffsets
            | ApiKey::DeleteOffsets
            | ApiKey::ListGroups
            | ApiKey::DescribeGroup
            | ApiKey::DeleteGroup => self.groups(api, correlation, read)?,
            ApiKey::ListMoves | ApiKey::ListBrokers => self.look(api, correlation, read)?,
            ApiKey::ListReplicas | ApiKey::DescribeSettings => self.look(api, correlation, read)?,
        })
    }

    fn hello(&self, correlation: CorrelationId, hello: &HelloRequest) -> Answering {
        debug!(client = hello.client, "hello");
        self.at_once(correlation, Ok(our_hello()), HelloResponse::encode)
    }

    /// What changes how the cluster runs.
    fn cluster(
        &self,
        api: ApiKey,
        correlation: CorrelationId,
        read: &Bytes,
    ) -> Result<Answering, DecodeError> {
        if api == ApiKey::ThrottleMoves {
            return Ok(ask!(self, correlation, read, ThrottleMovesRequest, throttle_moves));
        }
        if api == ApiKey::SetDuty {
            return Ok(ask!(self, correlation, read, SetDutyRequest, set_duty));
        }
        if api == ApiKey::RemoveBroker {
            return Ok(ask!(self, correlation, read, RemoveBrokerRequest, remove_broker));
        }
        if api == ApiKey::ChangeController {
            return Ok(ask!(self, correlation, read, ChangeControllerRequest, change_controller));
        }
        Ok(ask!(self, correlation, read, AlterSettingsRequest, alter_settings))
    }

    /// What concerns one replica of a partition.
    fn one_replica(
        &self,
        api: ApiKey,
        correlation: CorrelationId,
        read: &Bytes,
    ) -> Result<Answering, DecodeError> {
        if api == ApiKey::InspectReplica {
            return Ok(ask!(self, correlation, read, InspectReplicaRequest, inspect_replica));
        }
        if api == ApiKey::DigestReplica {
            return Ok(ask!(self, correlation, read, DigestReplicaRequest, digest_replica));
        }
        if api == ApiKey::RepairReplica {
            return Ok(ask!(self, correlation, read, RepairReplicaRequest, repair_replica));
        }
        Ok(ask!(self, correlation, read, RecoverPartitionRequest, recover_partition))
    }

    /// What concerns a consumer group.
    fn groups(
        &self,
        api: ApiKey,
        correlation: CorrelationId,
        read: &Bytes,
    ) -> Result<Answering, DecodeError> {
        Ok(match api {
            ApiKey::GroupHeartbeat => {
                ask!(self, correlation, read, GroupHeartbeatRequest, group_heartbeat)
            }
            ApiKey::CommitOffsets => {
                ask!(self, correlation, read, CommitOffsetsRequest, commit_offsets)
            }
            ApiKey::FetchOffsets => {
                ask!(self, correlation, read, FetchOffsetsRequest, fetch_offsets)
            }
            ApiKey::DeleteOffsets => {
                ask!(self, correlation, read, DeleteOffsetsRequest, delete_offsets)
            }
            ApiKey::ListGroups => ask!(self, correlation, read, ListGroupsRequest, list_groups),
            ApiKey::DescribeGroup => {
                ask!(self, correlation, read, DescribeGroupRequest, describe_group)
            }
            ApiKey::DeleteGroup => ask!(self, correlation, read, DeleteGroupRequest, delete_group),
            ApiKey::FindCoordinator => {
                ask!(self, correlation, read, FindCoordinatorRequest, find_coordinator)
            }
            other => unreachable!("{other:?} concerns no group"),
        })
    }

    /// What this broker knows by itself.
    fn look(
        &self,
        api: ApiKey,
        correlation: CorrelationId,
        body: &Bytes,
    ) -> Result<Answering, DecodeError> {
        if api == ApiKey::ListMoves {
            whole(body, ListMovesRequest::decode)?;
            let found = Ok(self.api.list_moves());
            return Ok(self.at_once(correlation, found, ListMovesResponse::encode));
        }
        if api == ApiKey::ListBrokers {
            whole(body, ListBrokersRequest::decode)?;
            let found = Ok(self.api.list_brokers());
            return Ok(self.at_once(correlation, found, ListBrokersResponse::encode));
        }
        if api == ApiKey::ListReplicas {
            whole(body, ListReplicasRequest::decode)?;
            let found = Ok(self.api.list_replicas());
            return Ok(self.at_once(correlation, found, ListReplicasResponse::encode));
        }
        let found = self.api.describe_settings(whole(body, DescribeSettingsRequest::decode)?);
        Ok(self.at_once(correlation, found, DescribeSettingsResponse::encode))
    }

    fn at_once<T>(
        &self,
        correlation: CorrelationId,
        result: Result<T, WireError>,
        encode: impl FnOnce(&T, &mut Writer),
    ) -> Answering {
        Box::pin(ready(self.answer(correlation, result, encode)))
    }

    fn produce(
        &self,
        header: RequestHeader,
        body: Bytes,
        begun: Instant,
    ) -> Result<Answering, DecodeError> {
        let bytes = body.len() as u64;
        let request = ProduceRequest::decode(header.version, body)?;
        let charge =
            self.purse.take(Way::Produce, bytes, self.api.quota(&self.purse, Way::Produce));
        let throttle_ms = u32::try_from(charge.pause.as_millis()).unwrap_or(u32::MAX);
        let acks = request.acks;
        let receipt = self.api.produce(request);
        let calls = self.clone();
        Ok(Box::pin(async move {
            let result = receipt.await;
            calls.histogram(acks).record(begun.elapsed());
            if let Err(refusal) = &result {
                calls.purse.refused(charge, refusal.code);
            }
            let result = result.map(|receipt| ProduceResponse { receipt, throttle_ms });
            calls.answer(header.correlation, result, |answer, writer| answer.encode(writer))
        }))
    }

    /// Reads when what was read before is paid for, and then no more than a second's worth.
    async fn fetch(&self, mut request: FetchRequest) -> FetchResponse {
        let quota = self.api.quota(&self.purse, Way::Fetch);
        if let Some(bytes_per_s) = quota {
            sleep(self.purse.owes(Way::Fetch)).await;
            let second = u32::try_from(bytes_per_s).unwrap_or(u32::MAX);
            request.bytes_max = request.bytes_max.min(second);
        }
        let response = self.api.fetch(request).await;
        let read = response.partitions.iter().filter_map(|found| found.result.as_ref().ok());
        let bytes: usize = read.flat_map(|found| &found.records).map(Bytes::len).sum();
        self.purse.take(Way::Fetch, bytes as u64, quota);
        response
    }

    fn answer<T>(
        &self,
        correlation: CorrelationId,
        result: Result<T, WireError>,
        encode: impl FnOnce(&T, &mut Writer),
    ) -> Answer {
        match result {
            Ok(answer) => {
                let mut writer = begin_answer(correlation);
                encode(&answer, &mut writer);
                finish(writer, Vec::new())
            }
            Err(error) => {
                self.metrics.request_errors.bump();
                error_frame(correlation, &error)
            }
        }
    }

    fn histogram(&self, acks: AckMode) -> &Histogram {
        match acks {
            AckMode::Async => &self.metrics.produce_async,
            AckMode::SemiSync => &self.metrics.produce_semi_sync,
            AckMode::Sync => &self.metrics.produce_sync,
        }
    }

    fn count(&self, api: ApiKey) {
        let counter = match api {
            ApiKey::Hello => &self.metrics.requests_hello,
            ApiKey::Produce => &self.metrics.requests_produce,
            ApiKey::Fetch => &self.metrics.requests_fetch,
            ApiKey::Metadata => &self.metrics.requests_metadata,
            ApiKey::ListOffsets => &self.metrics.requests_list_offsets,
            ApiKey::CreateTopic
            | ApiKey::DeleteTopic
            | ApiKey::DescribePartition
            | ApiKey::TrimPartition
            | ApiKey::AlterTopic
            | ApiKey::CreatePartitions
            | ApiKey::TransferLeader
            | ApiKey::InspectReplica
            | ApiKey::RecoverPartition
            | ApiKey::DigestReplica
            | ApiKey::RepairReplica
            | ApiKey::ListEvents
            | ApiKey::DescribeSettings
            | ApiKey::AlterSettings
            | ApiKey::Reassign
            | ApiKey::CancelMoves
            | ApiKey::ListMoves
            | ApiKey::ListBrokers
            | ApiKey::SetDuty
            | ApiKey::RemoveBroker
            | ApiKey::ChangeController
            | ApiKey::ListReplicas
            | ApiKey::PlanBalance
            | ApiKey::ListGroups
            | ApiKey::DescribeGroup
            | ApiKey::DeleteGroup
            | ApiKey::DeleteOffsets
            | ApiKey::ThrottleMoves => &self.metrics.requests_admin,
            ApiKey::FindCoordinator
            | ApiKey::GroupHeartbeat
            | ApiKey::CommitOffsets
            | ApiKey::FetchOffsets => &self.metrics.requests_groups,
        };
        counter.bump();
    }
}

/// The body of an answer that only says that it was done.
fn nothing((): &(), writer: &mut Writer) {
    writer.no_tagged_fields();
}

/// A body that is read to its end.
fn whole<T>(
    body: &Bytes,
    decode: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut reader = Reader::new(body);
    let request = decode(&mut reader)?;
    reader.end()?;
    Ok(request)
}

fn our_hello() -> HelloResponse {
    HelloResponse {
        broker: format!("highwater {}", env!("CARGO_PKG_VERSION")),
        versions: spoken_versions(),
    }
}

/// Records go out as they lie in the log; only what stands before them is written here.
fn fetched(correlation: CorrelationId, response: FetchResponse) -> Answer {
    let mut writer = begin_answer(correlation);
    response.encode_head(&mut writer);
    finish(writer, response.into_records().collect())
}

fn error_frame(correlation: CorrelationId, error: &WireError) -> Answer {
    let frame = error_answer(correlation, error);
    let length = u32::try_from(frame.len()).expect("a detail is a few lines");
    vec![Bytes::copy_from_slice(&length.to_be_bytes()), frame]
}

/// A writer with room for the length and the header behind it.
fn begin_answer(correlation: CorrelationId) -> Writer {
    let mut writer = Writer::with_capacity(ANSWER_BYTES);
    writer.u32(0);
    AnswerHeader { correlation, error: None }.encode(&mut writer);
    writer
}

/// Sets the length, which counts everything behind itself.
fn finish(mut writer: Writer, payload: Vec<Bytes>) -> Answer {
    let bytes = writer.len() - 4 + payload.iter().map(Bytes::len).sum::<usize>();
    writer.set_u32(0, u32::try_from(bytes).expect("fetches are bounded far below"));
    let mut chunks = Vec::with_capacity(1 + payload.len());
    chunks.push(writer.finish());
    chunks.extend(payload);
    chunks
}

/// What most answers fit into.
const ANSWER_BYTES: usize = 64;
