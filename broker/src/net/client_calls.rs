//! From a request frame to a call of `api`, and from its result to an answer frame.
//!
//! A body that cannot be read is answered as an invalid request; only a frame too short for a header
//! has no answer. Produce is decoded, checked and queued before `begin` returns; everything else
//! happens in the future that it returns.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

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
use highwater_protocol::native::fetch::{FetchRequest, FetchResponse, ListOffsetsRequest};
use highwater_protocol::native::frame::{
    AnswerHeader, ApiKey, CorrelationId, HelloRequest, HelloResponse, RequestHeader, error_answer,
    spoken_versions,
};
use highwater_protocol::native::metadata::MetadataRequest;
use highwater_protocol::native::moves::{
    CancelMovesRequest, ListMovesRequest, ListMovesResponse, ReassignRequest,
};
use highwater_protocol::native::produce::{AckMode, ProduceRequest};
use highwater_protocol::native::throttle::ThrottleMovesRequest;
use highwater_protocol::wire::{DecodeError, Reader, Writer};
use tracing::debug;

use crate::api::Api;
use crate::metrics::{Histogram, Metrics};

/// The chunks of an answer frame, length included.
pub(super) type Answer = Vec<Bytes>;

/// An answer on its way.
pub(super) type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The calls that a client may make.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) api: Api,
    metrics: Arc<Metrics>,
}

impl Calls {
    pub(super) fn new(api: Api, metrics: Arc<Metrics>) -> Calls {
        Calls { api, metrics }
    }

    /// Begins a request; `None` where the frame is too short to be one. What must happen in the
    /// order of the requests has happened when this returns.
    pub(super) fn begin(&self, mut frame: Bytes, begun: Instant) -> Option<Answering> {
        let header = RequestHeader::take(&mut frame).ok()?;
        let correlation = header.correlation;
        let answering = header.api().and_then(|api| {
            self.count(api);
            self.call(api, correlation, frame, begun).map_err(|error| {
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
        correlation: CorrelationId,
        body: Bytes,
        begun: Instant,
    ) -> Result<Answering, DecodeError> {
        let calls = self.clone();
        Ok(match api {
            ApiKey::Hello => self.hello(correlation, &whole(&body, HelloRequest::decode)?),
            ApiKey::Produce => self.produce(correlation, ProduceRequest::decode(body)?, begun),
            ApiKey::Fetch => {
                let request = whole(&body, FetchRequest::decode)?;
                Box::pin(async move { fetched(correlation, calls.api.fetch(request).await) })
            }
            ApiKey::Metadata => self.metadata(correlation, whole(&body, MetadataRequest::decode)?),
            ApiKey::ListOffsets => {
                self.list_offsets(correlation, whole(&body, ListOffsetsRequest::decode)?)
            }
            ApiKey::CreateTopic => {
                self.create_topic(correlation, whole(&body, CreateTopicRequest::decode)?)
            }
            ApiKey::DeleteTopic => {
                self.delete_topic(correlation, whole(&body, DeleteTopicRequest::decode)?)
            }
            ApiKey::DescribePartition => self
                .describe_partition(correlation, whole(&body, DescribePartitionRequest::decode)?),
            ApiKey::TrimPartition => {
                self.trim_partition(correlation, whole(&body, TrimPartitionRequest::decode)?)
            }
            ApiKey::Reassign | ApiKey::CancelMoves | ApiKey::ListMoves | ApiKey::ThrottleMoves => {
                self.moves(api, correlation, &body)?
            }
            ApiKey::ListBrokers
            | ApiKey::SetDuty
            | ApiKey::RemoveBroker
            | ApiKey::ChangeController => self.brokers(api, correlation, &body)?,
            ApiKey::ListReplicas => self.list_replicas(correlation, &body)?,
            ApiKey::PlanBalance => {
                self.plan_balance(correlation, whole(&body, PlanBalanceRequest::decode)?)
            }
            ApiKey::AlterTopic => {
                self.alter_topic(correlation, whole(&body, AlterTopicRequest::decode)?)
            }
            ApiKey::CreatePartitions => {
                self.create_partitions(correlation, whole(&body, CreatePartitionsRequest::decode)?)
            }
            ApiKey::TransferLeader => {
                self.transfer_leader(correlation, whole(&body, TransferLeaderRequest::decode)?)
            }
            ApiKey::InspectReplica
            | ApiKey::ListEvents
            | ApiKey::DescribeSettings
            | ApiKey::AlterSettings => self.insight(api, correlation, &body)?,
        })
    }

    fn metadata(&self, correlation: CorrelationId, request: MetadataRequest) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.metadata(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        })
    }

    fn create_topic(&self, correlation: CorrelationId, request: CreateTopicRequest) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.create_topic(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        })
    }

    fn hello(&self, correlation: CorrelationId, hello: &HelloRequest) -> Answering {
        debug!(client = hello.client, "hello");
        Box::pin(ready(self.answer(correlation, Ok(our_hello()), HelloResponse::encode)))
    }

    fn delete_topic(&self, correlation: CorrelationId, request: DeleteTopicRequest) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.delete_topic(request).await;
            calls.answer(correlation, result, |(), writer| writer.no_tagged_fields())
        })
    }

    fn list_offsets(&self, correlation: CorrelationId, request: ListOffsetsRequest) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.list_offsets(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        })
    }

    fn describe_partition(
        &self,
        correlation: CorrelationId,
        request: DescribePartitionRequest,
    ) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.describe_partition(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        })
    }

    fn trim_partition(
        &self,
        correlation: CorrelationId,
        request: TrimPartitionRequest,
    ) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.trim_partition(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        })
    }

    fn alter_topic(&self, correlation: CorrelationId, request: AlterTopicRequest) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.alter_topic(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        })
    }

    fn create_partitions(
        &self,
        correlation: CorrelationId,
        request: CreatePartitionsRequest,
    ) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.create_partitions(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        })
    }

    fn transfer_leader(
        &self,
        correlation: CorrelationId,
        request: TransferLeaderRequest,
    ) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.transfer_leader(request).await;
            calls.answer(correlation, result, |(), writer| writer.no_tagged_fields())
        })
    }

    fn list_replicas(
        &self,
        correlation: CorrelationId,
        body: &Bytes,
    ) -> Result<Answering, DecodeError> {
        whole(body, ListReplicasRequest::decode)?;
        let found = Ok(self.api.list_replicas());
        Ok(Box::pin(ready(self.answer(correlation, found, ListReplicasResponse::encode))))
    }

    fn plan_balance(&self, correlation: CorrelationId, request: PlanBalanceRequest) -> Answering {
        let calls = self.clone();
        Box::pin(async move {
            let result = calls.api.plan_balance(request).await;
            calls.answer(correlation, result, |answer, writer| answer.encode(writer))
        })
    }

    fn moves(
        &self,
        api: ApiKey,
        correlation: CorrelationId,
        body: &Bytes,
    ) -> Result<Answering, DecodeError> {
        let calls = self.clone();
        if api == ApiKey::Reassign {
            let request = whole(body, ReassignRequest::decode)?;
            return Ok(Box::pin(async move {
                let result = calls.api.reassign(request).await;
                calls.answer(correlation, result, |answer, writer| answer.encode(writer))
            }));
        }
        if api == ApiKey::CancelMoves {
            let request = whole(body, CancelMovesRequest::decode)?;
            return Ok(Box::pin(async move {
                let result = calls.api.cancel_moves(request).await;
                calls.answer(correlation, result, |answer, writer| answer.encode(writer))
            }));
        }
        if api == ApiKey::ThrottleMoves {
            let request = whole(body, ThrottleMovesRequest::decode)?;
            return Ok(Box::pin(async move {
                let result = calls.api.throttle_moves(request).await;
                calls.answer(correlation, result, |answer, writer| answer.encode(writer))
            }));
        }
        whole(body, ListMovesRequest::decode)?;
        let found = Ok(calls.api.list_moves());
        Ok(Box::pin(ready(self.answer(correlation, found, ListMovesResponse::encode))))
    }

    fn brokers(
        &self,
        api: ApiKey,
        correlation: CorrelationId,
        body: &Bytes,
    ) -> Result<Answering, DecodeError> {
        let calls = self.clone();
        if api == ApiKey::SetDuty {
            let request = whole(body, SetDutyRequest::decode)?;
            return Ok(Box::pin(async move {
                let result = calls.api.set_duty(request).await;
                calls.answer(correlation, result, |answer, writer| answer.encode(writer))
            }));
        }
        if api == ApiKey::RemoveBroker {
            let request = whole(body, RemoveBrokerRequest::decode)?;
            return Ok(Box::pin(async move {
                let result = calls.api.remove_broker(request).await;
                calls.answer(correlation, result, |answer, writer| answer.encode(writer))
            }));
        }
        if api == ApiKey::ChangeController {
            let request = whole(body, ChangeControllerRequest::decode)?;
            return Ok(Box::pin(async move {
                let result = calls.api.change_controller(request).await;
                calls.answer(correlation, result, |answer, writer| answer.encode(writer))
            }));
        }
        whole(body, ListBrokersRequest::decode)?;
        let found = Ok(calls.api.list_brokers());
        Ok(Box::pin(ready(self.answer(correlation, found, ListBrokersResponse::encode))))
    }

    fn produce(
        &self,
        correlation: CorrelationId,
        request: ProduceRequest,
        begun: Instant,
    ) -> Answering {
        let acks = request.acks;
        let receipt = self.api.produce(request);
        let calls = self.clone();
        Box::pin(async move {
            let result = receipt.await;
            calls.histogram(acks).record(begun.elapsed());
            calls.answer(correlation, result, |receipt, writer| receipt.encode(writer))
        })
    }

    pub(super) fn answer<T>(
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
            | ApiKey::ThrottleMoves => &self.metrics.requests_admin,
        };
        counter.bump();
    }
}

/// A body that is read to its end.
pub(super) fn whole<T>(
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
