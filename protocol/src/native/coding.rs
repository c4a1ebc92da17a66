//! How ids, errors and small enums lie in the bodies of requests and answers.

use uuid::Uuid;

use crate::error::{ErrorCode, WireError};
use crate::ids::{LogIndex, NodeId, Offset, PartitionId, Term, TopicId, TopicPartition};
use crate::wire::{DecodeError, Reader, Writer};

/// The longest body of a request that carries no batch. A list of many small things takes more room
/// in memory than on the wire, so a frame full of them would be worth hundreds of megabytes.
pub(crate) const CONTROL_BODY_BYTES_MAX: usize = 1 << 20;

/// Opens a request that carries no batch; `what` names it in errors.
pub(crate) fn open_request(reader: &mut Reader<'_>, what: &'static str) -> Result<(), DecodeError> {
    reader.within(what);
    match reader.rest().len() {
        0..=CONTROL_BODY_BYTES_MAX => Ok(()),
        bytes => {
            Err(DecodeError::Invalid { what: "a request's length in bytes", found: bytes as u64 })
        }
    }
}

pub(crate) fn put_partition(writer: &mut Writer, partition: TopicPartition) {
    writer.u128(partition.topic.0.as_u128());
    writer.u32(partition.partition.0);
}

pub(crate) fn partition(reader: &mut Reader<'_>) -> Result<TopicPartition, DecodeError> {
    Ok(TopicPartition { topic: topic_id(reader)?, partition: PartitionId(reader.u32()?) })
}

pub(crate) fn topic_id(reader: &mut Reader<'_>) -> Result<TopicId, DecodeError> {
    Ok(TopicId(Uuid::from_u128(reader.u128()?)))
}

pub(crate) fn offset(reader: &mut Reader<'_>) -> Result<Offset, DecodeError> {
    countable(reader.u64()?, "an offset").map(Offset)
}

pub(crate) fn log_index(reader: &mut Reader<'_>) -> Result<LogIndex, DecodeError> {
    countable(reader.u64()?, "a log index").map(LogIndex)
}

/// A log index of as few bytes as it needs.
pub(crate) fn short_log_index(reader: &mut Reader<'_>) -> Result<LogIndex, DecodeError> {
    countable(reader.uvarint()?, "a log index").map(LogIndex)
}

/// Counting on from an offset or an index must not overflow, so what comes from outside stays below
/// 2^63, as in Kafka.
fn countable(found: u64, what: &'static str) -> Result<u64, DecodeError> {
    if found <= i64::MAX as u64 { Ok(found) } else { Err(DecodeError::Invalid { what, found }) }
}

pub(crate) fn node(reader: &mut Reader<'_>) -> Result<NodeId, DecodeError> {
    reader.u32().map(NodeId)
}

pub(crate) fn put_nodes(writer: &mut Writer, nodes: &[NodeId]) {
    writer.list(nodes, |writer, node| writer.u32(node.0));
}

pub(crate) fn nodes(reader: &mut Reader<'_>) -> Result<Vec<NodeId>, DecodeError> {
    reader.list("nodes", 4, node)
}

pub(crate) fn put_term(writer: &mut Writer, term: Option<Term>) {
    writer.optional(term, |writer, term| writer.u32(term.0));
}

pub(crate) fn term(reader: &mut Reader<'_>) -> Result<Option<Term>, DecodeError> {
    reader.optional("a term", |reader| reader.u32().map(Term))
}

pub(crate) fn put_flag(writer: &mut Writer, flag: bool) {
    writer.u8(u8::from(flag));
}

pub(crate) fn flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(DecodeError::Invalid { what, found: found.into() }),
    }
}

/// The tagged fields of a body: one offset, or none.
pub(crate) fn put_offset_tagged(writer: &mut Writer, tag: u64, offset: Option<Offset>) {
    let Some(offset) = offset else { return writer.no_tagged_fields() };
    let mut field = Writer::new();
    field.u64(offset.0);
    writer.uvarint(1);
    writer.uvarint(tag);
    writer.blob(&field.finish());
}

pub(crate) fn offset_tagged(
    reader: &mut Reader<'_>,
    wanted: u64,
) -> Result<Option<Offset>, DecodeError> {
    let mut found = None;
    reader.tagged_fields_with(|tag, field| {
        if tag == wanted {
            found = Some(offset(&mut Reader::new(field))?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// A result: 0 and the value, or the error's number and detail.
pub(crate) fn put_result<T>(
    writer: &mut Writer,
    result: &Result<T, WireError>,
    value: impl FnOnce(&mut Writer, &T),
) {
    match result {
        Ok(fine) => {
            writer.u16(0);
            value(writer, fine);
        }
        Err(error) => {
            writer.u16(error.code.number());
            writer.text(&error.detail);
        }
    }
}

pub(crate) fn result<'a, T>(
    reader: &mut Reader<'a>,
    value: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Result<T, WireError>, DecodeError> {
    match reader.u16()? {
        0 => value(reader).map(Ok),
        number => {
            let code = ErrorCode::from_number(number).unwrap_or(ErrorCode::Internal);
            Ok(Err(WireError::new(code, reader.text("an error's detail")?)))
        }
    }
}

pub(crate) fn put_pairs(writer: &mut Writer, pairs: &[(String, String)]) {
    writer.list(pairs, |writer, (name, value)| {
        writer.text(name);
        writer.text(value);
    });
}

pub(crate) fn pairs(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, DecodeError> {
    reader.list("settings", 2, |reader| {
        Ok((reader.text("a setting's name")?, reader.text("its value")?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_from_which_nobody_can_count_on_is_refused() {
        let read = |value: u64| {
            let mut writer = Writer::new();
            writer.u64(value);
            offset(&mut Reader::new(&writer.finish()))
        };
        assert_eq!(read(i64::MAX as u64), Ok(Offset(i64::MAX as u64)));
        assert!(read(1 << 63).is_err());
        assert!(read(u64::MAX).is_err());
    }

    #[test]
    fn a_control_request_larger_than_any_sensible_one_is_refused_unread() {
        let bytes = vec![0; CONTROL_BODY_BYTES_MAX + 1];
        assert!(open_request(&mut Reader::new(&bytes[1..]), "a question").is_ok());
        let error = open_request(&mut Reader::new(&bytes), "a question").expect_err("too long");
        assert_eq!(error.to_string(), "a request's length in bytes cannot be 1048577");
    }

    #[test]
    fn an_error_of_a_newer_build_comes_through_as_internal_with_its_detail() {
        let mut writer = Writer::new();
        writer.u16(65_000);
        writer.text("said in 2040");
        let read = result(&mut Reader::new(&writer.finish()), Reader::u8);
        assert_eq!(read, Ok(Err(WireError::new(ErrorCode::Internal, "said in 2040"))));
    }
}
