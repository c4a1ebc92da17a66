//! What stands before every request and every answer, and which versions of what are spoken.
//!
//! A frame on a stream is a length (4 bytes, of what follows), a header and a body. The length belongs
//! to the stream, so it is not coded here.

use bytes::{Buf, Bytes};

use crate::error::{ErrorCode, WireError};
use crate::native::coding;
use crate::wire::{DecodeError, Reader, Writer};

/// The longest frame that either side accepts, without its length.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Pairs an answer with its request; unique among those in flight on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CorrelationId(pub u32);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiKey {
    /// Which versions are spoken.
    Hello,
    /// Append a batch.
    Produce,
    /// Read committed batches.
    Fetch,
    /// Brokers, topics, leaders.
    Metadata,
    /// Find an offset.
    ListOffsets,
    /// Make a topic.
    CreateTopic,
    /// Delete a topic.
    DeleteTopic,
    /// Look closely at a partition.
    DescribePartition,
    /// Give up the oldest records of a partition.
    TrimPartition,
    /// Move replicas to other brokers.
    Reassign,
    /// Have moves go back.
    CancelMoves,
    /// What is moving.
    ListMoves,
    /// Change the settings of a topic.
    AlterTopic,
    /// Add partitions to a topic.
    CreatePartitions,
    /// Hand the leadership of a partition to another broker.
    TransferLeader,
    /// What each broker is for, and what it has.
    ListBrokers = 20,
    /// Drain a broker, retire it, or take it back.
    SetDuty = 21,
    /// Take a broker out of the cluster.
    RemoveBroker = 22,
    /// Give a broker a vote on the cluster's metadata, or take it away.
    ChangeController = 23,
    /// Change how fast moves may copy.
    ThrottleMoves = 30,
    /// Look at one replica from inside.
    InspectReplica = 35,
    /// What the controller decided.
    ListEvents = 36,
    /// What settings are in force, and where they come from.
    DescribeSettings = 37,
    /// Change settings of the cluster or of a broker.
    AlterSettings = 38,
    /// What one broker hosts.
    ListReplicas = 40,
    /// What would even the cluster out.
    PlanBalance = 41,
    /// Go on with what one replica of a partition has.
    RecoverPartition = 50,
    /// The hash of what one replica holds.
    DigestReplica = 51,
    /// What one replica cannot read, and giving it up.
    RepairReplica = 52,
    /// Which broker keeps a consumer group.
    FindCoordinator = 60,
    /// Join a consumer group, stay in it, or leave it.
    GroupHeartbeat = 61,
    /// Note how far a group has come.
    CommitOffsets = 62,
    /// How far a group has come.
    FetchOffsets = 63,
    /// Forget how far a group has come in some partitions.
    DeleteOffsets = 64,
    /// Which groups one broker keeps.
    ListGroups = 65,
    /// How a group is.
    DescribeGroup = 66,
    /// Delete a group without members.
    DeleteGroup = 67,
}

impl ApiKey {
    /// Every API in the order of its number.
    pub const ALL: &'static [ApiKey] = &[
        ApiKey::Hello,
        ApiKey::Produce,
        ApiKey::Fetch,
        ApiKey::Metadata,
        ApiKey::ListOffsets,
        ApiKey::CreateTopic,
        ApiKey::DeleteTopic,
        ApiKey::DescribePartition,
        ApiKey::TrimPartition,
        ApiKey::Reassign,
        ApiKey::CancelMoves,
        ApiKey::ListMoves,
        ApiKey::AlterTopic,
        ApiKey::CreatePartitions,
        ApiKey::TransferLeader,
        ApiKey::ListBrokers,
        ApiKey::SetDuty,
        ApiKey::RemoveBroker,
        ApiKey::ChangeController,
        ApiKey::ThrottleMoves,
        ApiKey::InspectReplica,
        ApiKey::ListEvents,
        ApiKey::DescribeSettings,
        ApiKey::AlterSettings,
        ApiKey::ListReplicas,
        ApiKey::PlanBalance,
        ApiKey::RecoverPartition,
        ApiKey::DigestReplica,
        ApiKey::RepairReplica,
        ApiKey::FindCoordinator,
        ApiKey::GroupHeartbeat,
        ApiKey::CommitOffsets,
        ApiKey::FetchOffsets,
        ApiKey::DeleteOffsets,
        ApiKey::ListGroups,
        ApiKey::DescribeGroup,
        ApiKey::DeleteGroup,
    ];

    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The API of a number, or `None` for one that this build does not know.
    pub fn from_number(number: u16) -> Option<ApiKey> {
        ApiKey::ALL.iter().copied().find(|api| api.number() == number)
    }

    /// The oldest and the newest version that this build speaks.
    pub fn versions(self) -> VersionRange {
        // Version 1 of Produce has a condition.
        let newest = u16::from(self == ApiKey::Produce);
        VersionRange { api: self.number(), oldest: 0, newest }
    }

    /// The newest version that both this build and the other side speak, given what the other side
    /// said in its `Hello`; `None` where there is none and the API cannot be used.
    pub fn newest_common(self, theirs: &[VersionRange]) -> Option<u16> {
        let ours = self.versions();
        let theirs = theirs.iter().find(|range| range.api == ours.api)?;
        let newest = ours.newest.min(theirs.newest);
        (newest >= ours.oldest.max(theirs.oldest)).then_some(newest)
    }
}

/// The versions of one API that somebody speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// The API's number; numbers unknown to the reader are to be ignored.
    pub api: u16,
    /// The oldest version.
    pub oldest: u16,
    /// The newest version.
    pub newest: u16,
}

/// What stands before a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// The number of the API, known or not.
    pub api: u16,
    /// The version of the body.
    pub version: u16,
    /// Comes back with the answer.
    pub correlation: CorrelationId,
}

impl RequestHeader {
    /// The header of a request in the newest version of its API.
    pub fn new(api: ApiKey, correlation: CorrelationId) -> RequestHeader {
        RequestHeader { api: api.number(), version: api.versions().newest, correlation }
    }

    /// The header of a request in an older version of its API.
    pub fn in_version(self, version: u16) -> RequestHeader {
        RequestHeader { version, ..self }
    }

    /// The API, if this build speaks this version of it; otherwise the error to answer with.
    pub fn api(&self) -> Result<ApiKey, WireError> {
        let Some(api) = ApiKey::from_number(self.api) else {
            let detail = format!("API {} is not spoken here; Hello lists those that are", self.api);
            return Err(WireError::new(ErrorCode::UnsupportedVersion, detail));
        };
        let VersionRange { oldest, newest, .. } = api.versions();
        if (oldest..=newest).contains(&self.version) {
            return Ok(api);
        }
        let version = self.version;
        let detail =
            format!("{api:?} version {version} is not spoken here; use {oldest} to {newest}");
        Err(WireError::new(ErrorCode::UnsupportedVersion, detail))
    }

    /// Writes the header.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u16(self.api);
        writer.u16(self.version);
        writer.u32(self.correlation.0);
    }

    /// Takes the header off a frame and leaves the body.
    pub fn take(frame: &mut Bytes) -> Result<RequestHeader, DecodeError> {
        let mut reader = Reader::new(frame);
        reader.within("a request's header");
        let header = RequestHeader {
            api: reader.u16()?,
            version: reader.u16()?,
            correlation: CorrelationId(reader.u32()?),
        };
        frame.advance(frame.len() - reader.rest().len());
        Ok(header)
    }
}

/// What stands before an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerHeader {
    /// The request's.
    pub correlation: CorrelationId,
    /// Set where the body is an error's detail rather than an answer.
    pub error: Option<ErrorCode>,
}

impl AnswerHeader {
    /// Writes the header.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.correlation.0);
        writer.u16(self.error.map_or(0, ErrorCode::number));
    }

    /// Takes the header off a frame and leaves the body. An error number that this build does not know
    /// is taken as `Internal`, which nobody retries.
    pub fn take(frame: &mut Bytes) -> Result<AnswerHeader, DecodeError> {
        let mut reader = Reader::new(frame);
        reader.within("an answer's header");
        let correlation = CorrelationId(reader.u32()?);
        let error = match reader.u16()? {
            0 => None,
            number => Some(ErrorCode::from_number(number).unwrap_or(ErrorCode::Internal)),
        };
        frame.advance(frame.len() - reader.rest().len());
        Ok(AnswerHeader { correlation, error })
    }
}

/// The whole frame of an answer that is an error.
pub fn error_answer(correlation: CorrelationId, error: &WireError) -> Bytes {
    let mut writer = Writer::with_capacity(16 + error.detail.len());
    AnswerHeader { correlation, error: Some(error.code) }.encode(&mut writer);
    writer.text(&error.detail);
    // Only who asked for a condition can be told of one, so only they need to know these bytes.
    if error.end.is_some() {
        coding::put_offset_tagged(&mut writer, TAG_END, error.end);
    }
    writer.finish()
}

/// The error that the body of an answer tells of.
pub fn error_of(code: ErrorCode, body: &[u8]) -> Result<WireError, DecodeError> {
    let mut reader = Reader::new(body);
    let detail = reader.text("an error's detail")?;
    let end = match reader.rest().is_empty() {
        true => None,
        false => coding::offset_tagged(&mut reader, TAG_END)?,
    };
    Ok(WireError { code, detail, end })
}

/// The tagged field of an error: where the partition ends.
const TAG_END: u64 = 0;

/// The first request on a connection: who speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloRequest {
    /// The client's name and version, for the broker's log.
    pub client: String,
    /// What the client speaks.
    pub versions: Vec<VersionRange>,
}

/// The answer to `Hello`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloResponse {
    /// The broker's version, for people.
    pub broker: String,
    /// What the broker speaks.
    pub versions: Vec<VersionRange>,
}

impl HelloRequest {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        encode_hello(writer, &self.client, &self.versions);
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<HelloRequest, DecodeError> {
        coding::open_request(reader, "a hello")?;
        let (client, versions) = decode_hello(reader)?;
        Ok(HelloRequest { client, versions })
    }
}

impl HelloResponse {
    /// Writes the body.
    pub fn encode(&self, writer: &mut Writer) {
        encode_hello(writer, &self.broker, &self.versions);
    }

    /// Reads the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<HelloResponse, DecodeError> {
        reader.within("the answer to a hello");
        let (broker, versions) = decode_hello(reader)?;
        Ok(HelloResponse { broker, versions })
    }
}

/// The versions of every API that this build speaks.
pub fn spoken_versions() -> Vec<VersionRange> {
    ApiKey::ALL.iter().map(|api| api.versions()).collect()
}

fn encode_hello(writer: &mut Writer, name: &str, versions: &[VersionRange]) {
    writer.text(name);
    writer.list(versions, |writer, range| {
        writer.u16(range.api);
        writer.u16(range.oldest);
        writer.u16(range.newest);
    });
    writer.no_tagged_fields();
}

fn decode_hello(reader: &mut Reader<'_>) -> Result<(String, Vec<VersionRange>), DecodeError> {
    let name = reader.text("a name")?;
    let versions = reader.list("versions", 6, |reader| {
        Ok(VersionRange { api: reader.u16()?, oldest: reader.u16()?, newest: reader.u16()? })
    })?;
    reader.tagged_fields()?;
    Ok((name, versions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Offset, Term, TopicPartition};
    use crate::native::fetch::{ListOffsetsRequest, ListOffsetsResponse, OffsetAt};

    #[test]
    fn api_numbers_lead_back_to_their_apis() {
        for api in ApiKey::ALL {
            assert_eq!(ApiKey::from_number(api.number()), Some(*api));
        }
    }

    #[test]
    fn the_table_for_readers_has_every_api_and_the_limit() {
        let wire = include_str!("../../WIRE.md");
        for api in ApiKey::ALL {
            let row = format!("| {api:?} | {} |", api.number());
            assert!(wire.contains(&row), "WIRE.md lacks {row}");
        }
        assert!(wire.contains("at most 16 MiB (16,777,216)") && FRAME_BYTES_MAX == 16_777_216);
    }

    #[test]
    fn the_example_for_readers_is_what_we_write() {
        let correlation = CorrelationId(9);
        let mut writer = Writer::new();
        RequestHeader::new(ApiKey::ListOffsets, correlation).encode(&mut writer);
        let (partition, at) = (TopicPartition::CLUSTER, OffsetAt::End);
        ListOffsetsRequest { partition, at }.encode(&mut writer);
        let request = as_shown(&writer.finish());
        let mut writer = Writer::new();
        AnswerHeader { correlation, error: None }.encode(&mut writer);
        ListOffsetsResponse { offset: Offset(300), timestamp: None, term: Term(2) }
            .encode(&mut writer);
        let answer = as_shown(&writer.finish());
        let wire = include_str!("../../WIRE.md");
        let (_, example) = wire.split_once("```text\n").expect("the example");
        let (example, _) = example.split_once("```").expect("the example's end");
        let example: Vec<String> = example.lines().map(|line| line.replace(' ', "")).collect();
        assert_eq!(example, [request, answer]);
    }

    fn as_shown(frame: &[u8]) -> String {
        let length = u32::try_from(frame.len()).expect("a short frame");
        let bytes = [&length.to_be_bytes()[..], frame].concat();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn an_unknown_api_or_version_is_named_in_the_error() {
        let unknown = RequestHeader { api: 999, version: 0, correlation: CorrelationId(1) };
        assert!(unknown.api().is_err_and(|error| error.detail.contains("API 999")));
        let newer =
            RequestHeader { version: 7, ..RequestHeader::new(ApiKey::Fetch, CorrelationId(1)) };
        assert!(newer.api().is_err_and(|error| error.detail.contains("Fetch version 7")));
    }

    #[test]
    fn an_error_names_the_end_where_it_has_one_and_is_as_it_always_was_where_not() {
        let comes_back = |error: WireError| {
            let mut frame = error_answer(CorrelationId(3), &error);
            let header = AnswerHeader::take(&mut frame).expect("our own");
            let code = header.error.expect("an error");
            assert_eq!(error_of(code, &frame), Ok(error));
            frame.len()
        };
        assert_eq!(comes_back(WireError::new(ErrorCode::NotLeader, "not here")), 9);
        comes_back(WireError::wrong_end(Offset(7), "it ends at 7"));
    }

    #[test]
    fn two_sides_speak_the_newest_version_that_both_know() {
        let theirs = |oldest, newest| {
            let stranger = VersionRange { api: 999, oldest: 0, newest: 9 };
            [stranger, VersionRange { api: ApiKey::Fetch.number(), oldest, newest }]
        };
        assert_eq!(ApiKey::Fetch.newest_common(&theirs(0, 0)), Some(0));
        assert_eq!(ApiKey::Fetch.newest_common(&theirs(0, 7)), Some(0));
        assert_eq!(ApiKey::Fetch.newest_common(&theirs(1, 7)), None);
        assert_eq!(ApiKey::Produce.newest_common(&theirs(0, 7)), None);
    }

    #[test]
    fn headers_are_taken_off_the_front_of_a_frame() {
        let header = RequestHeader::new(ApiKey::Metadata, CorrelationId(9));
        let mut writer = Writer::new();
        header.encode(&mut writer);
        writer.raw(b"body");
        let mut frame = writer.finish();
        assert_eq!(RequestHeader::take(&mut frame), Ok(header));
        assert_eq!(&frame[..], b"body");
    }
}
