//! The network side of a fake broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use highwater_client::NodeId;
use highwater_protocol::batch::FrameHeader;
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::TopicPartition;
use highwater_protocol::native::fetch::{
    FetchRequest, FetchResponse, FetchedPartition, FetchedRecords, ListOffsetsRequest,
    ListOffsetsResponse, OffsetAt,
};
use highwater_protocol::native::frame::{
    AnswerHeader, ApiKey, CorrelationId, HelloResponse, RequestHeader, error_answer,
    spoken_versions,
};
use highwater_protocol::native::metadata::MetadataRequest;
use highwater_protocol::native::produce::{ProduceRequest, Receipt};
use highwater_protocol::wire::{Reader, Writer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use tokio::sync::mpsc;

use super::{Fault, Pki, Shared};

/// One connection of one broker.
#[derive(Clone)]
struct Session {
    node: NodeId,
    shared: Arc<Shared>,
    connection: quinn::Connection,
}

pub fn start(pki: &Pki, node: NodeId, shared: Arc<Shared>) -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(pki.ca_pem.as_bytes()).expect("PEM");
    roots.add(ca).expect("a CA");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let (chain, key) = pki.node(node);
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(chain, key)
        .expect("a certificate");
    tls.alpn_protocols = vec![highwater_protocol::native::ALPN.to_vec()];
    let quic = quinn::crypto::rustls::QuicServerConfig::try_from(tls).expect("QUIC");
    let config = quinn::ServerConfig::with_crypto(Arc::new(quic));
    let address = "127.0.0.1:0".parse().expect("an address");
    let endpoint = quinn::Endpoint::server(config, address).expect("a socket");
    tokio::spawn(accept(endpoint.clone(), node, shared));
    endpoint
}

async fn accept(endpoint: quinn::Endpoint, node: NodeId, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let session = Session { node, shared, connection };
            while let Ok((send, receive)) = session.connection.accept_bi().await {
                tokio::spawn(session.clone().stream(send, receive));
            }
        });
    }
}

impl Session {
    async fn stream(self, mut send: quinn::SendStream, mut receive: quinn::RecvStream) {
        let (answers, mut outgoing) = mpsc::unbounded_channel::<Bytes>();
        tokio::spawn(async move {
            while let Some(frame) = outgoing.recv().await {
                let length = (frame.len() as u32).to_be_bytes();
                if send.write_all(&length).await.is_err() || send.write_chunk(frame).await.is_err()
                {
                    return;
                }
            }
        });
        loop {
            let mut length = [0; 4];
            if receive.read_exact(&mut length).await.is_err() {
                return;
            }
            let mut frame = BytesMut::zeroed(u32::from_be_bytes(length) as usize);
            if receive.read_exact(&mut frame).await.is_err() {
                return;
            }
            self.request(frame.freeze(), &answers);
        }
    }

    fn request(&self, mut frame: Bytes, answers: &mpsc::UnboundedSender<Bytes>) {
        if self.shared.lock().silent.contains(&self.node) {
            return;
        }
        let header = RequestHeader::take(&mut frame).expect("a header");
        let id = header.correlation;
        let mut reader = Reader::new(&frame);
        let answer = match header.api().expect("a known API") {
            ApiKey::Produce => {
                let request = ProduceRequest::decode(header.version, frame).expect("valid");
                let Some(result) = self.produce(request) else { return };
                answer(id, result, |receipt, writer| receipt.encode(writer))
            }
            ApiKey::Fetch => {
                let request = FetchRequest::decode(&mut reader).expect("valid");
                return self.fetch_beside(id, request, answers.clone());
            }
            ApiKey::Metadata => {
                let request = MetadataRequest::decode(&mut reader).expect("valid");
                let response = self.shared.metadata(self.node, &request);
                answer(id, Ok(response), |response, writer| response.encode(writer))
            }
            ApiKey::ListOffsets => {
                let request = ListOffsetsRequest::decode(&mut reader).expect("valid");
                answer(id, self.list_offsets(request), |response, writer| response.encode(writer))
            }
            ApiKey::Hello => hello(id),
            ApiKey::CreateTopic
            | ApiKey::DeleteTopic
            | ApiKey::DescribePartition
            | ApiKey::TrimPartition
            | ApiKey::AlterTopic
            | ApiKey::CreatePartitions
            | ApiKey::TransferLeader
            | ApiKey::ListReplicas
            | ApiKey::PlanBalance
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
            | ApiKey::ThrottleMoves
            | ApiKey::FindCoordinator
            | ApiKey::GroupHeartbeat
            | ApiKey::CommitOffsets
            | ApiKey::FetchOffsets
            | ApiKey::DeleteOffsets
            | ApiKey::ListGroups
            | ApiKey::DescribeGroup
            | ApiKey::DeleteGroup => unfaked(id),
        };
        let _ = answers.send(answer);
    }

    /// A fetch may wait; what comes behind it does not.
    fn fetch_beside(
        &self,
        id: CorrelationId,
        request: FetchRequest,
        answers: mpsc::UnboundedSender<Bytes>,
    ) {
        let session = self.clone();
        tokio::spawn(async move {
            let response = session.fetch(&request).await;
            let _ = answers.send(fetch_answer(id, response));
        });
    }

    /// `None` where no answer is sent.
    fn produce(&self, request: ProduceRequest) -> Option<Result<Receipt, WireError>> {
        let mut state = self.shared.lock();
        state.produced += 1;
        let fault = (state.script)(&request);
        if let Fault::Refuse(code) = fault {
            return Some(Err(WireError::new(code, "as the test wants")));
        }
        if fault == Fault::Cut {
            self.connection.close(quinn::VarInt::from_u32(9), b"cut");
            return None;
        }
        if fault == Fault::Swallow {
            return None;
        }
        let TopicPartition { topic, partition } = request.partition;
        let header = FrameHeader::parse(&request.batch).expect("the client sends whole batches");
        if !header.compression().is_some_and(|codec| state.takes(topic, codec)) {
            let error = WireError::new(ErrorCode::UnsupportedCompression, "another codec");
            return Some(Err(error));
        }
        let Some(partition) = state.by_id(topic, partition) else {
            return Some(Err(WireError::new(ErrorCode::UnknownTopicOrPartition, "no such")));
        };
        if partition.leader != Some(self.node) {
            return Some(Err(WireError::new(ErrorCode::NotLeader, "not here")));
        }
        if request.leader_term != Some(partition.term) {
            return Some(Err(WireError::new(ErrorCode::FencedLeaderEpoch, "another term")));
        }
        let term = partition.term;
        let result = partition.log.append(&request.batch, term);
        drop(state);
        self.shared.news.notify_waiters();
        match fault {
            Fault::DropAnswer => None,
            Fault::WriteAndCut => {
                self.connection.close(quinn::VarInt::from_u32(9), b"cut");
                None
            }
            Fault::None | Fault::Refuse(_) | Fault::Cut | Fault::Swallow => Some(result),
        }
    }

    async fn fetch(&self, request: &FetchRequest) -> FetchResponse {
        let wait = Duration::from_millis(u64::from(request.wait_max_ms));
        let patience = tokio::time::sleep(wait);
        tokio::pin!(patience);
        loop {
            let news = self.shared.news.notified();
            let (response, worth) = self.read(request);
            if worth {
                return response;
            }
            tokio::select! {
                () = &mut patience => return response,
                () = news => {}
            }
        }
    }

    /// What there is to read, and whether it is worth an answer.
    fn read(&self, request: &FetchRequest) -> (FetchResponse, bool) {
        let mut state = self.shared.lock();
        let mut worth = false;
        let mut left = request.bytes_max as usize;
        let mut partitions = Vec::new();
        for asked in &request.partitions {
            let TopicPartition { topic, partition } = asked.partition;
            let result = match state.by_id(topic, partition) {
                None => Err(WireError::new(ErrorCode::UnknownTopicOrPartition, "no such")),
                Some(found) if found.leader != Some(self.node) => {
                    Err(WireError::new(ErrorCode::NotLeader, "not here"))
                }
                Some(found) if asked.offset > found.log.end() || asked.offset < found.log.start => {
                    Err(WireError::new(ErrorCode::OffsetOutOfRange, "outside"))
                }
                Some(found) => {
                    let most = left.min(asked.bytes_max as usize);
                    let records =
                        if left > 0 { found.log.read(asked.offset, most) } else { Vec::new() };
                    let bytes: usize = records.iter().map(Bytes::len).sum();
                    left = left.saturating_sub(bytes);
                    worth |= bytes > 0;
                    let high_watermark = found.log.end();
                    Ok(FetchedRecords { log_start: found.log.start, high_watermark, records })
                }
            };
            worth |= result.is_err();
            partitions.push(FetchedPartition { partition: asked.partition, result });
        }
        (FetchResponse { partitions }, worth)
    }

    fn list_offsets(&self, request: ListOffsetsRequest) -> Result<ListOffsetsResponse, WireError> {
        let mut state = self.shared.lock();
        let TopicPartition { topic, partition } = request.partition;
        let found = state
            .by_id(topic, partition)
            .ok_or_else(|| WireError::new(ErrorCode::UnknownTopicOrPartition, "no such"))?;
        if found.leader != Some(self.node) {
            return Err(WireError::new(ErrorCode::NotLeader, "not here"));
        }
        let offset = match request.at {
            OffsetAt::Start | OffsetAt::Time(_) => found.log.start,
            OffsetAt::End => found.log.end(),
        };
        Ok(ListOffsetsResponse { offset, timestamp: None, term: found.term })
    }
}

fn hello(correlation: CorrelationId) -> Bytes {
    let hello = HelloResponse { broker: "fake".into(), versions: spoken_versions() };
    answer(correlation, Ok(hello), |hello, writer| hello.encode(writer))
}

fn answer<T>(
    correlation: CorrelationId,
    result: Result<T, WireError>,
    encode: impl FnOnce(&T, &mut Writer),
) -> Bytes {
    match result {
        Err(error) => error_answer(correlation, &error),
        Ok(value) => {
            let mut writer = Writer::new();
            AnswerHeader { correlation, error: None }.encode(&mut writer);
            encode(&value, &mut writer);
            writer.finish()
        }
    }
}

fn unfaked(id: CorrelationId) -> Bytes {
    error_answer(id, &WireError::new(ErrorCode::InvalidRequest, "not in the fake"))
}

fn fetch_answer(correlation: CorrelationId, response: FetchResponse) -> Bytes {
    let mut writer = Writer::new();
    AnswerHeader { correlation, error: None }.encode(&mut writer);
    response.encode_head(&mut writer);
    for records in response.into_records() {
        writer.raw(&records);
    }
    writer.finish()
}
