//! Every message comes back as it was sent, and no bytes whatever make a decoder panic, loop or
//! allocate more than they justify.

#[macro_use]
mod common;

use bytes::Bytes;
use highwater_protocol::batch::{
    BatchBuilder, BatchView, BuilderOptions, Compression, FrameHeader, Header, LogStart, Mark,
    TrimReason, VoterSet, frames,
};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::*;
use highwater_protocol::native::admin::*;
use highwater_protocol::native::alter::SettingChange;
use highwater_protocol::native::brokers::*;
use highwater_protocol::native::digest::*;
use highwater_protocol::native::events::*;
use highwater_protocol::native::fetch::*;
use highwater_protocol::native::frame::*;
use highwater_protocol::native::inspect::*;
use highwater_protocol::native::metadata::*;
use highwater_protocol::native::moves::*;
use highwater_protocol::native::produce::*;
use highwater_protocol::native::recover::*;
use highwater_protocol::native::repair::*;
use highwater_protocol::native::settings::*;
use highwater_protocol::native::throttle::{ThrottleMovesRequest, ThrottleMovesResponse};
use highwater_protocol::peer::*;
use highwater_protocol::wire::{Reader, Writer};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

fn partition() -> impl Strategy<Value = TopicPartition> {
    (any::<u128>(), any::<u32>()).prop_map(|(topic, partition)| {
        TopicPartition::new(TopicId(Uuid::from_u128(topic)), PartitionId(partition))
    })
}

/// What an offset or an index may be: small as on most days, or anything below 2^63.
fn countable() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000_u64, 0..=i64::MAX as u64]
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u32>(), countable())
        .prop_map(|(term, index)| Position { term: Term(term), index: LogIndex(index) })
}

fn wire_error() -> impl Strategy<Value = WireError> {
    (0..ErrorCode::ALL.len(), ".*")
        .prop_map(|(at, detail)| WireError::new(ErrorCode::ALL[at], detail))
}

fn payload() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 1..64).prop_map(Bytes::from)
}

fn nodes() -> impl Strategy<Value = Vec<NodeId>> {
    vec(any::<u32>().prop_map(NodeId), 0..5)
}

fn acks() -> impl Strategy<Value = AckMode> {
    prop_oneof![Just(AckMode::Async), Just(AckMode::SemiSync), Just(AckMode::Sync)]
}

fn ballot() -> impl Strategy<Value = Ballot> {
    prop_oneof![Just(Ballot::Pre), Just(Ballot::Real), Just(Ballot::Transfer)]
}

fn raft_message() -> impl Strategy<Value = RaftMessage> {
    let term = || any::<u32>().prop_map(Term);
    let index = || countable().prop_map(LogIndex);
    prop_oneof![
        (term(), ballot(), position())
            .prop_map(|(term, ballot, last)| RaftMessage::Vote(VoteRequest { term, ballot, last })),
        (term(), ballot(), any::<bool>()).prop_map(|(term, ballot, granted)| {
            RaftMessage::VoteAnswer(VoteAnswer { term, ballot, granted })
        }),
        (term(), position(), index(), option::of(payload()), vec(payload(), 0..4)).prop_map(
            |(term, prev, commit, start, entries)| {
                RaftMessage::Append(AppendRequest { term, prev, commit, start, entries })
            }
        ),
        (term(), index(), index(), index(), any::<bool>()).prop_map(|it| {
            let (term, appended, flushed, vouched, gaps) = it;
            let legible = if gaps { Legible::Gaps } else { Legible::All };
            let outcome = AppendOutcome::Accepted { appended, flushed, vouched, legible };
            RaftMessage::AppendAnswer(AppendAnswer { term, outcome })
        }),
        (term(), index(), position()).prop_map(|(term, at, hint)| {
            let outcome = AppendOutcome::Rejected { at, hint };
            RaftMessage::AppendAnswer(AppendAnswer { term, outcome })
        }),
        (term(), index())
            .prop_map(|(term, commit)| RaftMessage::Heartbeat(Heartbeat { term, commit })),
        (term(), index()).prop_map(|(term, log_end)| RaftMessage::HeartbeatAnswer(
            HeartbeatAnswer { term, log_end }
        )),
        term().prop_map(|term| RaftMessage::TimeoutNow { term }),
        (position(), any::<u32>()).prop_map(|(behind, bytes_max)| {
            RaftMessage::Wanted(FramesWanted { behind, bytes_max })
        }),
        (position(), vec(payload(), 0..4))
            .prop_map(|(behind, entries)| { RaftMessage::Found(FramesFound { behind, entries }) }),
    ]
}

fn peer_body() -> impl Strategy<Value = PeerBody> {
    let epoch = prop_oneof![Just(0), any::<u32>()].prop_map(RecoveryEpoch);
    let message = (partition(), epoch, raft_message())
        .prop_map(|(group, epoch, message)| GroupMessage { group, epoch, message });
    let news = (partition(), any::<u32>(), nodes())
        .prop_map(|(partition, term, in_sync)| LeaderNews { partition, term: Term(term), in_sync });
    prop_oneof![
        vec(message, 0..8).prop_map(PeerBody::Raft),
        vec(news, 0..4).prop_map(PeerBody::Leaders),
        (any::<u64>(), payload()).prop_map(|(id, command)| PeerBody::Command { id, command }),
        (any::<u64>(), prop_oneof![payload().prop_map(Ok), wire_error().prop_map(Err)])
            .prop_map(|(id, result)| PeerBody::CommandAnswer { id, result }),
    ]
}

fn fetched() -> impl Strategy<Value = FetchedPartition> {
    let records =
        (countable(), countable(), option::of(payload())).prop_map(|(start, end, records)| {
            FetchedRecords {
                log_start: Offset(start),
                high_watermark: Offset(end),
                records: records.into_iter().collect(),
            }
        });
    (partition(), prop_oneof![records.prop_map(Ok), wire_error().prop_map(Err)])
        .prop_map(|(partition, result)| FetchedPartition { partition, result })
}

fn whole(chunks: impl IntoIterator<Item = Bytes>) -> Bytes {
    chunks.into_iter().flatten().collect::<Vec<u8>>().into()
}

/// One valid encoding of everything that can be decoded, to be damaged.
fn valid_encodings(body: PeerBody, fetched: Vec<FetchedPartition>) -> Vec<Vec<u8>> {
    let frame = PeerFrame { from: Incarnation(1), to: Some(Incarnation(2)), body };
    let mut encodings = vec![whole(frame.encode_chunks()).to_vec(), batch()];
    let mut add = |encode: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new();
        encode(&mut writer);
        encodings.push(writer.finish().to_vec());
    };
    let partition = TopicPartition::CLUSTER;
    let name = "orders".to_string();
    let configs = vec![("flush".to_string(), "ack".to_string())];
    add(&|writer| FetchResponse { partitions: fetched.clone() }.encode_head(writer));
    add(&|writer| {
        HelloRequest { client: name.clone(), versions: spoken_versions() }.encode(writer)
    });
    add(&|writer| MetadataRequest::Topics(vec![name.clone(), name.clone()]).encode(writer));
    add(&|writer| metadata(&name, &configs).encode(writer));
    add(&|writer| {
        let partitions = vec![FetchPartition {
            partition,
            offset: Offset(7),
            bytes_max: 9,
            leader_term: Some(Term(1)),
        }];
        let from = FetchFrom::AnyReplica;
        FetchRequest { wait_max_ms: 1, bytes_min: 2, bytes_max: 3, partitions, from }.encode(writer)
    });
    add(&|writer| {
        let (name, configs) = (name.clone(), configs.clone());
        CreateTopicRequest {
            name,
            partitions: 3,
            replication: Some(3),
            configs,
            dry_run: DryRun::No,
        }
        .encode(writer)
    });
    add(&|writer| {
        let replicas = vec![vec![NodeId(1), NodeId(2)], vec![NodeId(2)]];
        CreateTopicResponse { id: partition.topic, replicas }.encode(writer)
    });
    let reason = TrimReason::Age;
    let marks = [
        Mark::TermStart,
        Mark::Voters(VoterSet { voters: vec![NodeId(1)], learners: vec![] }),
        Mark::LogStart(LogStart { index: LogIndex(9), offset: Offset(7), reason }),
    ];
    encodings.extend(marks.iter().map(|mark| mark.encode(Offset(1), Term(1)).to_vec()));
    encodings
}

fn metadata(name: &str, configs: &[(String, String)]) -> MetadataResponse {
    let (node, id) = (NodeId(1), Uuid::from_u128(9));
    let broker = BrokerInfo {
        node,
        address: "a:1".to_string(),
        rack: Some("r".to_string()),
        incarnation: Incarnation(4),
        directory: DirectoryId(id),
        fenced: false,
    };
    let partition = PartitionInfo {
        partition: PartitionId(0),
        leader: Some(node),
        term: Term(3),
        replicas: vec![node],
        in_sync: vec![node],
    };
    let detail = TopicDetail {
        id: TopicId(id),
        configs: configs.to_vec(),
        partitions: vec![partition],
        codec: None,
    };
    let topics = vec![TopicInfo { name: name.to_string(), result: Ok(detail) }];
    let (cluster_id, controller) = ("c".to_string(), Some(node));
    MetadataResponse { cluster_id, node, controller, brokers: vec![broker], topics }
}

fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new(BuilderOptions::default());
    let headers = [Header { name: b"h", value: Some(b"x") }, Header { name: b"h", value: None }];
    builder.push(Timestamp(5), Some(b"key"), Some(b"value"), &headers);
    builder.push(Timestamp(4), None, Some(b"value"), &[]);
    builder.finish().to_vec()
}

/// Heartbeats come first and sorted, whatever the order in which they were given.
fn as_decoded(mut frame: PeerFrame) -> PeerFrame {
    if let PeerBody::Raft(messages) = &mut frame.body {
        messages.sort_by_key(|one| match one.message {
            _ if one.epoch > RecoveryEpoch::default() => (2, None),
            RaftMessage::Heartbeat(_) => (0, Some(one.group)),
            RaftMessage::HeartbeatAnswer(_) => (1, Some(one.group)),
            RaftMessage::Vote(_)
            | RaftMessage::VoteAnswer(_)
            | RaftMessage::Append(_)
            | RaftMessage::AppendAnswer(_)
            | RaftMessage::TimeoutNow { .. }
            | RaftMessage::Wanted(_)
            | RaftMessage::Found(_) => (2, None),
        });
    }
    frame
}

proptest! {
    #[test]
    fn peer_frames_come_back(from: u64, to: Option<u64>, body in peer_body()) {
        let frame = PeerFrame { from: Incarnation(from), to: to.map(Incarnation), body };
        let bytes = whole(frame.encode_chunks());
        prop_assert_eq!(PeerFrame::decode(bytes.clone()), Ok(as_decoded(frame)));
        for end in 0..bytes.len() {
            prop_assert!(PeerFrame::decode(bytes.slice(..end)).is_err());
        }
    }

    #[test]
    fn produce_requests_come_back(
        partition in partition(), acks in acks(), term: Option<u32>, timeout_ms: u32,
        end in proptest::option::of(countable()), batch in payload()
    ) {
        let (leader_term, expected_end) = (term.map(Term), end.map(Offset));
        let batch_sent = batch.clone();
        let request = ProduceRequest {
            partition, acks, leader_term, timeout_ms, expected_end, batch: batch_sent
        };
        let mut writer = Writer::new();
        request.encode_head(&mut writer);
        let bytes = whole([writer.finish(), batch]);
        prop_assert_eq!(ProduceRequest::decode(request.version(), bytes), Ok(request));
    }

    #[test]
    fn receipts_come_back(base in countable(), term: u32, replicas: u8, flushed: u8, time: Option<i64>) {
        let log_append_time = time.map(Timestamp);
        let base_offset = Offset(base);
        let term = Term(term);
        comes_back!(Receipt { base_offset, term, replicas, flushed, log_append_time }, Receipt);
    }

    #[test]
    fn answers_to_produces_come_back_with_the_pause_they_ask_for(base in countable(), throttle_ms: u32) {
        let (base_offset, term, log_append_time) = (Offset(base), Term(3), None);
        let receipt = Receipt { base_offset, term, replicas: 3, flushed: 2, log_append_time };
        comes_back!(ProduceResponse { receipt, throttle_ms }, ProduceResponse);
    }

    #[test]
    fn fetch_requests_come_back(
        wait_max_ms: u32, bytes_min: u32, bytes_max: u32, nearby: bool,
        parts in vec((partition(), countable(), any::<u32>(), any::<Option<u32>>()), 0..4)
    ) {
        let partitions = parts.into_iter().map(|(partition, offset, bytes_max, term)| FetchPartition {
            partition, offset: Offset(offset), bytes_max, leader_term: term.map(Term),
        }).collect();
        let from = if nearby { FetchFrom::AnyReplica } else { FetchFrom::Leader };
        comes_back!(FetchRequest { wait_max_ms, bytes_min, bytes_max, partitions, from }, FetchRequest);
    }

    #[test]
    fn fetch_answers_come_back(partitions in vec(fetched(), 0..5)) {
        let response = FetchResponse { partitions };
        let mut writer = Writer::new();
        response.encode_head(&mut writer);
        let bytes = whole([writer.finish()].into_iter().chain(response.clone().into_records()));
        prop_assert_eq!(FetchResponse::decode(bytes.clone()), Ok(response));
        for end in 0..bytes.len() {
            prop_assert!(FetchResponse::decode(bytes.slice(..end)).is_err());
        }
    }

    #[test]
    fn offsets_and_their_questions_come_back(partition in partition(), offset in countable(), time: i64, term: u32) {
        for at in [OffsetAt::Start, OffsetAt::End, OffsetAt::Time(Timestamp(time))] {
            comes_back!(ListOffsetsRequest { partition, at }, ListOffsetsRequest);
        }
        let (offset, timestamp, term) = (Offset(offset), Some(Timestamp(time)), Term(term));
        comes_back!(ListOffsetsResponse { offset, timestamp, term }, ListOffsetsResponse);
    }

    #[test]
    fn metadata_comes_back(
        cluster_id in ".*", node: u32, controller: Option<u32>, name in ".*", error in wire_error(),
        id: u128, leader: Option<u32>, replicas in nodes(), rack in option::of(".*"), fenced: bool
    ) {
        comes_back!(MetadataRequest::All, MetadataRequest);
        comes_back!(MetadataRequest::Topics(vec![name.clone(), String::new()]), MetadataRequest);
        let detail = TopicDetail {
            id: TopicId(Uuid::from_u128(id)),
            configs: vec![("flush".to_string(), "ack".to_string())],
            partitions: vec![PartitionInfo {
                partition: PartitionId(0), leader: leader.map(NodeId), term: Term(3),
                replicas: replicas.clone(), in_sync: replicas,
            }],
            codec: Compression::ALL.get(id as usize % 6).copied(),
        };
        let broker = BrokerInfo {
            node: NodeId(node), address: "a:1".to_string(), rack, incarnation: Incarnation(4),
            directory: DirectoryId(Uuid::from_u128(id)), fenced,
        };
        let topics = vec![
            TopicInfo { name: name.clone(), result: Ok(detail) },
            TopicInfo { name, result: Err(error) },
        ];
        let controller = controller.map(NodeId);
        let response =
            MetadataResponse { cluster_id, node: NodeId(node), controller, brokers: vec![broker], topics };
        comes_back!(response, MetadataResponse);
    }

    #[test]
    fn admin_messages_come_back(
        name in ".*", partitions: u32, replication: Option<u8>, id: u128, replicas in vec(nodes(), 0..4),
        partition in partition(), leader: Option<u32>, heard_ms: Option<u64>, in_sync: bool
    ) {
        for dry_run in [DryRun::Yes, DryRun::No] {
            let configs = vec![("retention.ms".to_string(), "5".to_string())];
            let name = name.clone();
            comes_back!(
                CreateTopicRequest { name, partitions, replication, configs, dry_run }, CreateTopicRequest
            );
        }
        comes_back!(CreateTopicResponse { id: TopicId(Uuid::from_u128(id)), replicas }, CreateTopicResponse);
        comes_back!(DeleteTopicRequest { name: name.clone() }, DeleteTopicRequest);
        comes_back!(DescribePartitionRequest { partition }, DescribePartitionRequest);
        let (before, log_start) = (Offset(5), Offset(4));
        comes_back!(TrimPartitionRequest { partition, before }, TrimPartitionRequest);
        comes_back!(TrimPartitionResponse { log_start }, TrimPartitionResponse);
        let replicas = [ReplicaRole::Leader, ReplicaRole::Follower, ReplicaRole::Learner].map(|role| {
            let (appended, flushed) = (LogIndex(9), LogIndex(8));
            ReplicaStatus {
                node: NodeId(1),
                role,
                appended,
                flushed,
                heard_ms,
                in_sync,
                behind_bytes: heard_ms,
            }
        });
        let response = DescribePartitionResponse {
            leader: leader.map(NodeId), term: Term(2), log_start: Offset(1), high_watermark: Offset(2),
            log_end: Offset(3), bytes: 4, replicas: replicas.to_vec(),
        };
        comes_back!(response, DescribePartitionResponse);
    }

    #[test]
    fn wishes_to_recover_come_back(
        partition in partition(), survivor: u32, given_up in nodes(), term: u32
    ) {
        let (replicas_before, survivor) = (given_up.clone(), NodeId(survivor));
        let wish = RecoverPartitionRequest { partition, survivor, given_up, term: Term(term) };
        comes_back!(wish, RecoverPartitionRequest);
        comes_back!(RecoverPartitionResponse { replicas_before }, RecoverPartitionResponse);
    }

    #[test]
    fn what_cannot_be_read_comes_back(
        partition in partition(), offsets in vec((countable(), countable()), 0..5), since_ms: Option<u64>,
        others in nodes(), given_up: u64, file in ".{0,40}", next in option::of(countable())
    ) {
        let give_up = offsets.iter().map(|(from, until)| Offset(*from)..Offset(*until)).collect();
        let (start, next) = (Offset(next.unwrap_or(0)), next.map(Offset));
        comes_back!(RepairReplicaRequest { partition, give_up, start }, RepairReplicaRequest);
        let unreadable = offsets.into_iter().map(|(from, until)| UnreadableRange {
            from: Offset(from), until: Offset(until), batches: 3, file: file.clone(),
        });
        let response =
            RepairReplicaResponse { unreadable: unreadable.collect(), since_ms, others, given_up, next };
        comes_back!(response, RepairReplicaResponse);
    }

    #[test]
    fn questions_for_replicas_come_back(
        partition in partition(), offset in option::of(countable()), leader: Option<u32>, suspect: bool,
        flush_interval_ms: Option<u64>, voters in nodes(), learners in nodes(), time: i64, checksum: u32
    ) {
        let offset = offset.map(Offset);
        comes_back!(InspectReplicaRequest { partition, offset }, InspectReplicaRequest);
        for role in [ReplicaRole::Leader, ReplicaRole::Follower, ReplicaRole::Learner] {
            let (appended, flushed) = (LogIndex(9), LogIndex(8));
            let peer = ReplicaStatus { node: NodeId(1), role, appended, flushed, heard_ms: None, in_sync: true, behind_bytes: None };
            let batch = offset.map(|base| HeldBatch {
                base, end: Offset(7), end_index: LogIndex(9), term: Term(3), timestamps: (Timestamp(0), Timestamp(time)),
                checksum,
            });
            let response = InspectReplicaResponse {
                term: Term(3), leader: leader.map(NodeId), role, suspect, flush_interval_ms,
                voters: voters.clone(), learners: learners.clone(), log_start: Offset(1), high_watermark: Offset(2),
                flushed: Offset(3), log_end: Offset(4), last_term: Term(2), epoch: RecoveryEpoch(1), peers: vec![peer], batch,
                indexes: ReplicaIndexes { committed: LogIndex(5), flushed, appended },
            };
            comes_back!(response, InspectReplicaResponse);
        }
    }

    #[test]
    fn hashes_of_replicas_come_back(
        partition in partition(), from in countable(), until in countable(), seed: u128, bytes_max: u32, file in ".*"
    ) {
        let (from, until) = (LogIndex(from), LogIndex(until));
        let range = DigestRange { from, until, seed, bytes_max };
        let offsets = (Offset(from.0), Offset(until.0));
        let unreadable = Unreadable { offsets, file };
        let digest = |unreadable| Digest { end: until, offsets, bytes: 9, hash: seed, unreadable };
        for (range, digest) in [
            (None, None), (Some(range), Some(digest(None))), (Some(range), Some(digest(Some(unreadable)))),
        ] {
            comes_back!(DigestReplicaRequest { partition, range }, DigestReplicaRequest);
            let response = DigestReplicaResponse {
                start: from, log_start: Offset(1), committed: until, high_watermark: Offset(2), digest,
            };
            comes_back!(response, DigestReplicaResponse);
        }
    }

    #[test]
    fn settings_and_their_changes_come_back(
        node: u32, set in vec((".*", ".*"), 0..4), unset in vec(".*", 0..4), name in ".*", value: Option<u8>
    ) {
        let value = value.map(|value| value.to_string());
        let client = SettingScope::Client(name.clone());
        for scope in [SettingScope::Cluster, SettingScope::Broker(NodeId(node)), client] {
            let (set, unset, dry_run) = (set.clone(), unset.clone(), DryRun::Yes);
            comes_back!(DescribeSettingsRequest { scope: scope.clone() }, DescribeSettingsRequest);
            comes_back!(AlterSettingsRequest { scope, set, unset, dry_run }, AlterSettingsRequest);
        }
        let change = SettingChange { name: name.clone(), before: value.clone(), after: None };
        comes_back!(AlterSettingsResponse { changes: vec![change] }, AlterSettingsResponse);
        let sources = [
            SettingSource::Default, SettingSource::File, SettingSource::Cluster, SettingSource::Broker, SettingSource::Client,
        ];
        let settings = sources.map(|source| SettingValue { name: name.clone(), value: value.clone(), source });
        for clients in [Vec::new(), vec![ClientSettings { client: name.clone(), settings: set }]] {
            let settings = settings.to_vec();
            comes_back!(DescribeSettingsResponse { settings, clients }, DescribeSettingsResponse);
        }
    }

    #[test]
    fn events_and_questions_for_them_come_back(
        from in countable(), since: Option<i64>, events_max in 0..=EVENTS_MAX, kind in ".*", detail in ".*"
    ) {
        let (from, since) = (Offset(from), since.map(Timestamp));
        comes_back!(ListEventsRequest { from, since, events_max }, ListEventsRequest);
        let (timestamp, subject) = (Timestamp(5), kind.clone());
        let event = ClusterEvent { offset: from, timestamp, kind, subject, detail };
        comes_back!(ListEventsResponse { events: vec![event.clone(), event] }, ListEventsResponse);
    }

    #[test]
    fn greetings_come_back(name in ".*") {
        let versions = spoken_versions();
        comes_back!(HelloRequest { client: name.clone(), versions: versions.clone() }, HelloRequest);
        comes_back!(HelloResponse { broker: name, versions }, HelloResponse);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..512)) {
        decode_everything(bytes.into());
    }

    #[test]
    fn no_damage_makes_a_decoder_panic(
        body in peer_body(), fetched in vec(fetched(), 0..3),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        for mut bytes in valid_encodings(body, fetched) {
            for (at, value) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            decode_everything(bytes.into());
        }
    }

    /// Wherever a count stands, one of these writes "nearly all numbers there are" over it. A decoder
    /// that believed it would ask for more memory than there is, and die here.
    #[test]
    fn no_claimed_count_is_believed(body in peer_body(), fetched in vec(fetched(), 0..3)) {
        for bytes in valid_encodings(body, fetched) {
            for at in 0..bytes.len() {
                let claim: [&[u8]; 3] = [
                    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                    &[0xff, 0xff, 0xff, 0xff, 0x0f],
                    &[0x7f, 0xff, 0xff, 0xff],
                ];
                for claim in claim {
                    decode_everything([&bytes[..at], claim, &bytes[at + 1..]].concat().into());
                }
            }
        }
    }
}

#[test]
fn offsets_and_indexes_that_cannot_be_counted_on_from_are_refused() {
    let receipt = |base: u64| {
        let (term, log_append_time) = (Term(1), None);
        let mut writer = Writer::new();
        Receipt { base_offset: Offset(base), term, replicas: 1, flushed: 1, log_append_time }
            .encode(&mut writer);
        Receipt::decode(&mut Reader::new(&writer.finish()))
    };
    assert!(receipt(i64::MAX as u64).is_ok());
    assert!(receipt(i64::MAX as u64 + 1).is_err());
    let frame = |index: u64| {
        let message = RaftMessage::Heartbeat(Heartbeat { term: Term(1), commit: LogIndex(index) });
        let body = PeerBody::Raft(vec![GroupMessage {
            group: TopicPartition::CLUSTER,
            epoch: RecoveryEpoch::default(),
            message,
        }]);
        let frame = PeerFrame { from: Incarnation(1), to: None, body };
        PeerFrame::decode(whole(frame.encode_chunks()))
    };
    assert!(frame(i64::MAX as u64).is_ok());
    assert!(frame(u64::MAX).is_err());
}

#[test]
fn batches_and_entries_are_slices_of_the_frame_they_came_in() {
    let lies_within = |part: &Bytes, all: &Bytes| all.as_ptr_range().contains(&part.as_ptr());
    let (partition, acks) = (TopicPartition::CLUSTER, AckMode::Sync);
    let batch = Bytes::from(batch());
    let request = ProduceRequest {
        partition,
        acks,
        leader_term: None,
        timeout_ms: 5,
        expected_end: None,
        batch: batch.clone(),
    };
    let mut head = Writer::new();
    request.encode_head(&mut head);
    let body = whole([head.finish(), batch.clone()]);
    let read = ProduceRequest::decode(0, body.clone()).expect("our own request");
    assert!(lies_within(&read.batch, &body));

    let (term, prev, commit) = (Term(1), Position::default(), LogIndex::ZERO);
    let append = AppendRequest { term, prev, commit, start: None, entries: vec![batch.clone()] };
    let message = GroupMessage {
        group: partition,
        epoch: RecoveryEpoch::default(),
        message: RaftMessage::Append(append),
    };
    let frame = PeerFrame { from: Incarnation(1), to: None, body: PeerBody::Raft(vec![message]) };
    let chunks = frame.encode_chunks();
    assert_eq!(chunks[1].as_ptr(), batch.as_ptr(), "not copied on the way out");
    let bytes = whole(chunks);
    let read = PeerFrame::decode(bytes.clone()).expect("our own frame");
    let PeerBody::Raft(messages) = read.body else { panic!("Raft messages went in") };
    let RaftMessage::Append(append) = &messages[0].message else { panic!("an append went in") };
    assert!(lies_within(&append.entries[0], &bytes));
}

/// Gives any bytes to every decoder, as the property test below and the fuzzer do: none panics.
pub fn decode_everything(bytes: Bytes) {
    let _ = PeerFrame::decode(bytes.clone());
    let _ = ProduceRequest::decode(0, bytes.clone());
    let _ = ProduceRequest::decode(1, bytes.clone());
    let _ = FetchResponse::decode(bytes.clone());
    let _ = RequestHeader::take(&mut bytes.clone());
    let _ = AnswerHeader::take(&mut bytes.clone());
    let _ = error_of(ErrorCode::WrongEnd, &bytes);
    let _ = Receipt::decode(&mut Reader::new(&bytes));
    let _ = FetchRequest::decode(&mut Reader::new(&bytes));
    let _ = ListOffsetsRequest::decode(&mut Reader::new(&bytes));
    let _ = ListOffsetsResponse::decode(&mut Reader::new(&bytes));
    let _ = MetadataRequest::decode(&mut Reader::new(&bytes));
    let _ = MetadataResponse::decode(&mut Reader::new(&bytes));
    let _ = CreateTopicRequest::decode(&mut Reader::new(&bytes));
    let _ = CreateTopicResponse::decode(&mut Reader::new(&bytes));
    let _ = DeleteTopicRequest::decode(&mut Reader::new(&bytes));
    let _ = DescribePartitionRequest::decode(&mut Reader::new(&bytes));
    let _ = TrimPartitionRequest::decode(&mut Reader::new(&bytes));
    let _ = ReassignRequest::decode(&mut Reader::new(&bytes));
    let _ = ReassignResponse::decode(&mut Reader::new(&bytes));
    let _ = CancelMovesRequest::decode(&mut Reader::new(&bytes));
    let _ = CancelMovesResponse::decode(&mut Reader::new(&bytes));
    let _ = ListMovesResponse::decode(&mut Reader::new(&bytes));
    let _ = ListBrokersResponse::decode(&mut Reader::new(&bytes));
    let _ = SetDutyRequest::decode(&mut Reader::new(&bytes));
    let _ = SetDutyResponse::decode(&mut Reader::new(&bytes));
    let _ = RemoveBrokerRequest::decode(&mut Reader::new(&bytes));
    let _ = ChangeControllerRequest::decode(&mut Reader::new(&bytes));
    let _ = ChangeControllerResponse::decode(&mut Reader::new(&bytes));
    let _ = ThrottleMovesRequest::decode(&mut Reader::new(&bytes));
    let _ = ThrottleMovesResponse::decode(&mut Reader::new(&bytes));
    let _ = TrimPartitionResponse::decode(&mut Reader::new(&bytes));
    let _ = DescribePartitionResponse::decode(&mut Reader::new(&bytes));
    let _ = RecoverPartitionRequest::decode(&mut Reader::new(&bytes));
    let _ = RecoverPartitionResponse::decode(&mut Reader::new(&bytes));
    let _ = RepairReplicaRequest::decode(&mut Reader::new(&bytes));
    let _ = RepairReplicaResponse::decode(&mut Reader::new(&bytes));
    let _ = DigestReplicaRequest::decode(&mut Reader::new(&bytes));
    let _ = DigestReplicaResponse::decode(&mut Reader::new(&bytes));
    let _ = InspectReplicaRequest::decode(&mut Reader::new(&bytes));
    let _ = InspectReplicaResponse::decode(&mut Reader::new(&bytes));
    let _ = AlterSettingsRequest::decode(&mut Reader::new(&bytes));
    let _ = AlterSettingsResponse::decode(&mut Reader::new(&bytes));
    let _ = DescribeSettingsRequest::decode(&mut Reader::new(&bytes));
    let _ = DescribeSettingsResponse::decode(&mut Reader::new(&bytes));
    let _ = ListEventsRequest::decode(&mut Reader::new(&bytes));
    let _ = ListEventsResponse::decode(&mut Reader::new(&bytes));
    let _ = HelloRequest::decode(&mut Reader::new(&bytes));
    let _ = HelloResponse::decode(&mut Reader::new(&bytes));
    let _ = FrameHeader::parse(&bytes);
    let _ = Mark::parse(&bytes);
    let _ = frames(&bytes).count();
    if let Ok(view) = BatchView::parse(&bytes) {
        let _ = view.verify_checksum();
        for record in view.records().into_iter().flatten().flatten() {
            let _ = record.headers().count();
        }
    }
}
