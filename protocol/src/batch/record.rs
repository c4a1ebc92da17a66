//! Records inside an unpacked batch, read one at a time without a copy.

use crate::batch::{BatchError, FrameHeader};
use crate::ids::{Offset, Timestamp};
use crate::wire::Reader;

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: Offset,
    /// When it was made, or appended where the topic says so.
    pub timestamp: Timestamp,
    /// Its key; `None` is not the same as an empty key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// Its headers in order, repeated names and all.
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// The value of the last header with this name, which is the one that was added last.
    pub fn header(&self, name: impl AsRef<[u8]>) -> Option<&'a [u8]> {
        self.headers.filter(|header| header.name == name.as_ref()).last()?.value
    }
}

/// A header: a name that may repeat, and a value that may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, already checked.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    left: u32,
    bytes: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(self.bytes);
        let header = take_header(&mut reader).expect("checked when the record was read");
        self.bytes = reader.rest();
        Some(header)
    }
}

/// The records of a batch in order; ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    batch: FrameHeader,
    next: u32,
    bytes: &'a [u8],
}

impl<'a> Records<'a> {
    pub(crate) fn new(batch: FrameHeader, bytes: &'a [u8]) -> Records<'a> {
        Records { batch, next: 0, bytes }
    }

    pub(crate) fn none(batch: FrameHeader) -> Records<'a> {
        Records { batch, next: batch.records(), bytes: &[] }
    }

    fn take(&mut self) -> Result<Record<'a>, &'static str> {
        let mut reader = Reader::new(self.bytes);
        let length = length(reader.varint()).ok_or("its length is negative or cut off")?;
        let body = reader.take(length).map_err(|_| "ends behind its batch")?;
        self.bytes = reader.rest();
        self.parse(body)
    }

    fn parse(&self, body: &'a [u8]) -> Result<Record<'a>, &'static str> {
        let mut reader = Reader::new(body);
        reader.u8().map_err(|_| "has no attributes")?;
        let timestamp_delta = reader.varlong().map_err(|_| "has no timestamp")?;
        let offset_delta = reader.varint().map_err(|_| "has no offset")?;
        if i64::from(offset_delta) != i64::from(self.next) {
            return Err("its offset delta is not its place in the batch");
        }
        let key = nullable(&mut reader).ok_or("its key is cut off")?;
        let value = nullable(&mut reader).ok_or("its value is cut off")?;
        let count = length(reader.varint()).ok_or("its header count is negative or cut off")?;
        let bytes = reader.rest();
        for _ in 0..count {
            take_header(&mut reader).ok_or("one of its headers is cut off")?;
        }
        if !reader.rest().is_empty() {
            return Err("has bytes behind its headers");
        }
        let timestamp = if self.batch.is_log_append_time() {
            self.batch.max_timestamp
        } else {
            Timestamp(self.batch.base_timestamp.0.wrapping_add(timestamp_delta))
        };
        Ok(Record {
            offset: self.batch.base_offset.advance(u64::from(self.next)),
            timestamp,
            key,
            value,
            headers: Headers { left: count as u32, bytes },
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.batch.records() {
            return None;
        }
        let at = self.next;
        let record = self.take().map_err(|what| BatchError::Record { at, what });
        // After an error the place of the next record is unknown, so there is none.
        self.next = if record.is_ok() { at + 1 } else { self.batch.records() };
        let last = self.next == self.batch.records();
        if record.is_ok() && last && !self.bytes.is_empty() {
            return Some(Err(BatchError::Record { at, what: "is the last, and bytes follow it" }));
        }
        Some(record)
    }
}

fn length(varint: Result<i32, crate::wire::DecodeError>) -> Option<usize> {
    usize::try_from(varint.ok()?).ok()
}

/// `Some(None)` is a null, `None` is an error.
fn nullable<'a>(reader: &mut Reader<'a>) -> Option<Option<&'a [u8]>> {
    match reader.varint().ok()? {
        -1 => Some(None),
        length => reader.take(usize::try_from(length).ok()?).ok().map(Some),
    }
}

fn take_header<'a>(reader: &mut Reader<'a>) -> Option<Header<'a>> {
    let name_bytes = length(reader.varint())?;
    let name = reader.take(name_bytes).ok()?;
    Some(Header { name, value: nullable(reader)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BatchView, BuilderOptions, HEADER_BYTES};

    #[test]
    fn a_broken_record_is_named_and_is_the_last_one() {
        let check = |at: usize, value: u8, complaint: &str| {
            let mut batch = two_records();
            batch[at] = value;
            let view = BatchView::parse(&batch).expect("the header is sound");
            let records: Vec<_> = view.records().expect("not packed").collect();
            let last = records.last().expect("at least the error");
            let said = last.as_ref().expect_err("a broken record").to_string();
            assert!(said.contains(complaint), "{said}");
            assert!(records.len() == 1 || records[0].is_ok());
        };
        check(HEADER_BYTES, 0x01, "record 0: its length is negative");
        check(HEADER_BYTES, 0x7e, "record 0: ends behind its batch");
        check(HEADER_BYTES + 3, 0x02, "record 0: its offset delta is not its place");
        check(HEADER_BYTES + 4, 0x7e, "record 0: its key is cut off");
        check(HEADER_BYTES + 4, 0x03, "record 0: its key is cut off");
        check(HEADER_BYTES + 8, 0x7e, "record 1: ends behind its batch");
    }

    #[test]
    fn bytes_behind_the_last_record_are_noticed() {
        let mut batch = two_records();
        batch.push(0);
        let length = batch.len() as u32 - 12;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let view = BatchView::parse(&batch).expect("the header is sound");
        let records: Vec<_> = view.records().expect("not packed").collect();
        assert_eq!(records.iter().map(|record| record.is_ok()).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn the_brokers_clock_overrules_the_records_where_the_batch_says_so() {
        let mut batch = two_records();
        batch[22] |= 0x08;
        batch[35..43].copy_from_slice(&1234_i64.to_be_bytes());
        let view = BatchView::parse(&batch).expect("a batch");
        for record in view.records().expect("not packed") {
            assert_eq!(record.expect("sound").timestamp, Timestamp(1234));
        }
    }

    #[test]
    fn of_headers_with_one_name_the_last_one_counts() {
        let header = |value| Header { name: b"from", value };
        let headers = [header(Some(b"a")), header(Some(b"b")), Header { name: b"x", value: None }];
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        builder.push(Timestamp(5), None, None, &headers);
        let batch = builder.finish().to_vec();
        let view = BatchView::parse(&batch).expect("a batch");
        let mut records = view.records().expect("not packed");
        let record = records.next().expect("there is one").expect("sound");
        assert_eq!(record.header("from"), Some(&b"b"[..]));
        assert_eq!((record.header("x"), record.header("y")), (None, None));
    }

    /// Two records of eight bytes each: null key, a value of one byte, no headers.
    fn two_records() -> Vec<u8> {
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        for _ in 0..2 {
            builder.push(Timestamp(5), None, Some(b"v"), &[]);
        }
        builder.finish().to_vec()
    }
}
