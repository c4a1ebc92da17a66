//! Requests and answers as they lie on a stream: the length, the header, the body.

use bytes::Bytes;
use highwater_protocol::native::admin::{
    CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest, DescribePartitionRequest,
    DescribePartitionResponse, TrimPartitionRequest, TrimPartitionResponse,
};
use highwater_protocol::native::alter::{
    AlterTopicRequest, AlterTopicResponse, CreatePartitionsRequest, CreatePartitionsResponse,
    TransferLeaderRequest,
};
use highwater_protocol::native::balance::{
    ListReplicasRequest, ListReplicasResponse, PlanBalanceRequest, PlanBalanceResponse,
};
use highwater_protocol::native::brokers::{
    BrokerDuty, ChangeControllerRequest, ChangeControllerResponse, ListBrokersRequest,
    ListBrokersResponse, RemoveBrokerRequest, RemoveBrokerResponse, SetDutyRequest,
    SetDutyResponse, Vote,
};
use highwater_protocol::native::digest::{DigestReplicaRequest, DigestReplicaResponse};
use highwater_protocol::native::events::{ListEventsRequest, ListEventsResponse};
use highwater_protocol::native::fetch::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use highwater_protocol::native::frame::{
    AnswerHeader, ApiKey, CorrelationId, HelloRequest, HelloResponse, RequestHeader, error_of,
    spoken_versions,
};
use highwater_protocol::native::groups::{
    CommitOffsetsRequest, CommitOffsetsResponse, DeleteGroupRequest, DeleteGroupResponse,
    DeleteOffsetsRequest, DeleteOffsetsResponse, DescribeGroupRequest, FetchOffsetsRequest,
    FetchOffsetsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupDescription,
    GroupHeartbeatRequest, GroupHeartbeatResponse, ListGroupsRequest, ListGroupsResponse,
};
use highwater_protocol::native::inspect::{InspectReplicaRequest, InspectReplicaResponse};
use highwater_protocol::native::metadata::{MetadataRequest, MetadataResponse};
use highwater_protocol::native::moves::{
    CancelMovesRequest, CancelMovesResponse, ListMovesRequest, ListMovesResponse, ReassignRequest,
    ReassignResponse,
};
use highwater_protocol::native::produce::{ProduceRequest, ProduceResponse};
use highwater_protocol::native::recover::{RecoverPartitionRequest, RecoverPartitionResponse};
use highwater_protocol::native::repair::{RepairReplicaRequest, RepairReplicaResponse};
use highwater_protocol::native::settings::{
    AlterSettingsRequest, AlterSettingsResponse, DescribeSettingsRequest, DescribeSettingsResponse,
};
use highwater_protocol::native::throttle::{ThrottleMovesRequest, ThrottleMovesResponse};
use highwater_protocol::wire::{DecodeError, Reader, Writer};

use super::Answer;
use crate::error::{Error, ErrorKind, Outcome};

/// A request that waits for its correlation id, which only its lane can give.
pub(crate) struct Request {
    api: ApiKey,
    head: Writer,
    payload: Option<Bytes>,
}

/// A request that is answered by one value.
pub(crate) trait Call {
    /// The answer.
    type Response: Response;
    /// Its number on the wire.
    const API: ApiKey;

    /// Writes the body.
    fn body(&self, writer: &mut Writer);

    /// What is asked for, in words that follow "cannot".
    fn act(&self) -> String;
}

/// The body of an answer.
pub(crate) trait Response: Sized {
    /// Reads the body.
    fn read(body: Bytes) -> Result<Self, DecodeError>;
}

/// A topic was deleted; there is nothing more to say.
pub(crate) struct Deleted;

/// Leadership was handed over; there is nothing more to say.
pub(crate) struct HandedOver;

impl Request {
    /// A request that fits one piece.
    pub(super) fn of<C: Call>(call: &C) -> Request {
        let mut head = begin(RequestHeader::new(C::API, CorrelationId(0)), 64);
        call.body(&mut head);
        Request { api: C::API, head, payload: None }
    }

    /// A batch, which is not copied.
    pub(crate) fn produce(request: &ProduceRequest) -> Request {
        let header = RequestHeader::new(ApiKey::Produce, CorrelationId(0));
        let mut head = begin(header.in_version(request.version()), 64);
        request.encode_head(&mut head);
        Request { api: ApiKey::Produce, head, payload: Some(request.batch.clone()) }
    }

    /// What it asks for.
    pub(super) fn api(&self) -> ApiKey {
        self.api
    }

    /// Its length, with the length's own.
    pub(super) fn bytes(&self) -> usize {
        self.head.len() + self.payload.as_ref().map_or(0, Bytes::len)
    }

    /// The frame, in the pieces to write.
    pub(super) fn into_chunks(mut self, correlation: u32) -> (Bytes, Option<Bytes>) {
        let payload_bytes = self.payload.as_ref().map_or(0, Bytes::len);
        let length = u32::try_from(self.head.len() - LENGTH_BYTES + payload_bytes)
            .expect("batches are bounded far below 4 GiB");
        self.head.set_u32(0, length);
        self.head.set_u32(CORRELATION_AT, correlation);
        (self.head.finish(), self.payload)
    }
}

/// The first request on a connection.
pub(super) fn hello(client_id: &str) -> HelloRequest {
    let client = format!("{client_id} (highwater-client {})", env!("CARGO_PKG_VERSION"));
    HelloRequest { client, versions: spoken_versions() }
}

/// Splits an answer's frame.
pub(super) fn answer(mut frame: Bytes) -> Result<(u32, Answer), DecodeError> {
    let header = AnswerHeader::take(&mut frame)?;
    let answer = match header.error {
        None => Ok(frame),
        Some(code) => Err(error_of(code, &frame)?),
    };
    Ok((header.correlation.0, answer))
}

/// Reads an answer's body; `act` and `broker` are for the error.
pub(crate) fn decode<R: Response>(body: Bytes, act: &str, broker: &str) -> Result<R, Error> {
    R::read(body).map_err(|error| {
        let text = format!("cannot {act}: {broker} sent an answer that makes no sense: {error}");
        Error::with_outcome(ErrorKind::Malformed, Outcome::Unknown, text)
    })
}

fn begin(header: RequestHeader, bytes: usize) -> Writer {
    let mut head = Writer::with_capacity(bytes);
    head.u32(0);
    header.encode(&mut head);
    head
}

macro_rules! calls {
    ($($request:ident, $api:ident, $response:ident, $act:expr;)*) => {$(
        impl Call for $request {
            type Response = $response;
            const API: ApiKey = ApiKey::$api;

            fn body(&self, writer: &mut Writer) {
                self.encode(writer);
            }

            fn act(&self) -> String {
                let act: fn(&$request) -> String = $act;
                act(self)
            }
        }
    )*};
}

calls! {
    HelloRequest, Hello, HelloResponse, |_| "say hello".into();
    FetchRequest, Fetch, FetchResponse, |_| "fetch".into();
    MetadataRequest, Metadata, MetadataResponse, |_| "ask for metadata".into();
    ListOffsetsRequest, ListOffsets, ListOffsetsResponse,
        |request| format!("find an offset of partition {}", request.partition.partition);
    CreateTopicRequest, CreateTopic, CreateTopicResponse,
        |request| format!("create topic {}", request.name);
    DeleteTopicRequest, DeleteTopic, Deleted,
        |request| format!("delete topic {}", request.name);
    DescribePartitionRequest, DescribePartition, DescribePartitionResponse,
        |request| format!("describe partition {}", request.partition.partition);
    TrimPartitionRequest, TrimPartition, TrimPartitionResponse,
        |request| format!("trim partition {}", request.partition.partition);
    ReassignRequest, Reassign, ReassignResponse, |_| "move replicas".into();
    CancelMovesRequest, CancelMoves, CancelMovesResponse, |_| "cancel moves".into();
    ListMovesRequest, ListMoves, ListMovesResponse, |_| "list moves".into();
    ThrottleMovesRequest, ThrottleMoves, ThrottleMovesResponse, |_| "throttle moves".into();
    AlterTopicRequest, AlterTopic, AlterTopicResponse,
        |request| format!("alter topic {}", request.name);
    CreatePartitionsRequest, CreatePartitions, CreatePartitionsResponse,
        |request| format!("add partitions to topic {}", request.name);
    TransferLeaderRequest, TransferLeader, HandedOver,
        |request| format!("hand over partition {}", request.partition.partition);
    ListBrokersRequest, ListBrokers, ListBrokersResponse, |_| "list brokers".into();
    SetDutyRequest, SetDuty, SetDutyResponse,
        |request| match request.duty {
            BrokerDuty::Active => format!("take broker {} back", request.node),
            BrokerDuty::Draining => format!("drain broker {}", request.node),
            BrokerDuty::Leaving => format!("retire broker {}", request.node),
        };
    RemoveBrokerRequest, RemoveBroker, RemoveBrokerResponse,
        |request| format!("remove broker {}", request.node);
    ChangeControllerRequest, ChangeController, ChangeControllerResponse,
        |request| match request.vote {
            Vote::Add => format!("give broker {} a vote", request.node),
            Vote::Remove => format!("take the vote of broker {}", request.node),
        };
    ListReplicasRequest, ListReplicas, ListReplicasResponse, |_| "list a broker's replicas".into();
    PlanBalanceRequest, PlanBalance, PlanBalanceResponse, |_| "plan balance".into();
    ListEventsRequest, ListEvents, ListEventsResponse, |_| "list events".into();
    DescribeSettingsRequest, DescribeSettings, DescribeSettingsResponse, |_| "show settings".into();
    AlterSettingsRequest, AlterSettings, AlterSettingsResponse, |_| "change settings".into();
    RecoverPartitionRequest, RecoverPartition, RecoverPartitionResponse,
        |request| format!("recover partition {}", request.partition.partition);
    RepairReplicaRequest, RepairReplica, RepairReplicaResponse,
        |request| format!("repair a replica of partition {}", request.partition.partition);
    DigestReplicaRequest, DigestReplica, DigestReplicaResponse,
        |request| format!("hash a replica of partition {}", request.partition.partition);
    FindCoordinatorRequest, FindCoordinator, FindCoordinatorResponse,
        |request| format!("find the coordinator of group {}", request.group);
    GroupHeartbeatRequest, GroupHeartbeat, GroupHeartbeatResponse,
        |request| format!("be a member of group {}", request.group);
    CommitOffsetsRequest, CommitOffsets, CommitOffsetsResponse,
        |request| format!("commit offsets of group {}", request.group);
    FetchOffsetsRequest, FetchOffsets, FetchOffsetsResponse,
        |request| format!("ask for the offsets of group {}", request.group);
    DeleteOffsetsRequest, DeleteOffsets, DeleteOffsetsResponse,
        |request| format!("delete offsets of group {}", request.group);
    ListGroupsRequest, ListGroups, ListGroupsResponse, |_| "list groups".into();
    DescribeGroupRequest, DescribeGroup, GroupDescription,
        |request| format!("describe group {}", request.group);
    DeleteGroupRequest, DeleteGroup, DeleteGroupResponse,
        |request| format!("delete group {}", request.group);
    InspectReplicaRequest, InspectReplica, InspectReplicaResponse,
        |request| format!("inspect a replica of partition {}", request.partition.partition);
}

macro_rules! responses {
    ($($response:ident)*) => {$(
        impl Response for $response {
            fn read(body: Bytes) -> Result<$response, DecodeError> {
                let mut reader = Reader::new(&body);
                let response = $response::decode(&mut reader)?;
                reader.end()?;
                Ok(response)
            }
        }
    )*};
}

responses! {
    HelloResponse ProduceResponse MetadataResponse ListOffsetsResponse CreateTopicResponse
    DescribePartitionResponse TrimPartitionResponse ReassignResponse CancelMovesResponse
    ListMovesResponse AlterTopicResponse CreatePartitionsResponse ListBrokersResponse
    SetDutyResponse RemoveBrokerResponse ChangeControllerResponse ListReplicasResponse
    PlanBalanceResponse ThrottleMovesResponse InspectReplicaResponse DigestReplicaResponse
    DescribeSettingsResponse AlterSettingsResponse ListEventsResponse RecoverPartitionResponse
    RepairReplicaResponse FindCoordinatorResponse GroupHeartbeatResponse CommitOffsetsResponse
    FetchOffsetsResponse DeleteOffsetsResponse ListGroupsResponse GroupDescription
    DeleteGroupResponse
}

impl Response for FetchResponse {
    fn read(body: Bytes) -> Result<FetchResponse, DecodeError> {
        FetchResponse::decode(body)
    }
}

impl Response for Deleted {
    fn read(_: Bytes) -> Result<Deleted, DecodeError> {
        Ok(Deleted)
    }
}

impl Response for HandedOver {
    fn read(_: Bytes) -> Result<HandedOver, DecodeError> {
        Ok(HandedOver)
    }
}

const LENGTH_BYTES: usize = 4;
const CORRELATION_AT: usize = 8;
