//! How integers, strings and lists lie in bytes; the only place that reads big-endian bytes.
//!
//! Integers are big-endian; variable-length ones are Kafka's (zig-zag where signed). A list or a
//! string begins with its length as an unsigned varint, an optional value with a byte 0 or 1. A body
//! ends in a section of tagged fields: a count, then tag, size and bytes of each; unknown tags are
//! skipped, which is how bodies grow.
//!
//! Nothing here believes a length that the bytes at hand do not bear out, so what a decoder allocates
//! is a small multiple of what was sent.

use bytes::{BufMut, Bytes, BytesMut};

/// Why bytes could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("the message ends within {0}")]
    Short(&'static str),
    /// They say something that has no meaning.
    #[error("{what} cannot be {found}")]
    Invalid {
        /// What was read.
        what: &'static str,
        /// What was found.
        found: u64,
    },
    /// A string is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
    /// Something follows the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// Reads from the front of some bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    within: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, within: "its fields" }
    }

    /// Names what is being read, for the error if it ends too early.
    pub fn within(&mut self, what: &'static str) {
        self.within = what;
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.bytes.split_at_checked(count).ok_or(DecodeError::Short(self.within))?;
        self.bytes = rest;
        Ok(taken)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    /// Sixteen bytes.
    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_be_bytes)
    }

    /// An unsigned number of one to ten bytes.
    pub fn uvarint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            if shift == 63 && byte > 1 {
                return Err(DecodeError::Invalid {
                    what: "the tenth byte of a varint",
                    found: byte.into(),
                });
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid { what: "a varint's length", found: 11 })
    }

    /// A zig-zag number that fits 32 bits.
    pub fn varint(&mut self) -> Result<i32, DecodeError> {
        let value = self.varlong()?;
        i32::try_from(value)
            .map_err(|_| DecodeError::Invalid { what: "a 32-bit varint", found: value as u64 })
    }

    /// A zig-zag number.
    pub fn varlong(&mut self) -> Result<i64, DecodeError> {
        let value = self.uvarint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A string.
    pub fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let length = self.count(what, 1)?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::NotText(what))
    }

    /// A run of bytes with its length before it.
    pub fn blob(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.count(what, 1)?;
        self.take(length)
    }

    /// The length of a list whose items take at least `item_bytes_min` each, so that a claimed length is
    /// believed only as far as the bytes at hand bear it out.
    pub fn count(
        &mut self,
        what: &'static str,
        item_bytes_min: usize,
    ) -> Result<usize, DecodeError> {
        let claimed = self.uvarint()?;
        let room = self.bytes.len() / item_bytes_min;
        match usize::try_from(claimed) {
            Ok(count) if count <= room => Ok(count),
            Ok(_) | Err(_) => Err(DecodeError::Short(what)),
        }
    }

    /// A list.
    pub fn list<T>(
        &mut self,
        what: &'static str,
        item_bytes_min: usize,
        mut item: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        (0..self.count(what, item_bytes_min)?).map(|_| item(self)).collect()
    }

    /// A value that may be missing.
    pub fn optional<T>(
        &mut self,
        what: &'static str,
        item: impl FnOnce(&mut Reader<'a>) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        match self.u8()? {
            0 => Ok(None),
            1 => item(self).map(Some),
            found => Err(DecodeError::Invalid { what, found: found.into() }),
        }
    }

    /// The tagged fields at the end of a body in which none is defined yet: all are skipped.
    pub fn tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.tagged_fields_with(|_, _| Ok(()))
    }

    /// The tagged fields at the end of a body, each shown to `take`, which passes over unknown ones.
    pub fn tagged_fields_with(
        &mut self,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.count("tagged fields", 2)? {
            let tag = self.uvarint()?;
            take(tag, self.blob("a tagged field")?)?;
        }
        Ok(())
    }

    /// That nothing is left.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.bytes.len())) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) =
            self.bytes.split_first_chunk::<N>().ok_or(DecodeError::Short(self.within))?;
        self.bytes = rest;
        Ok(*taken)
    }
}

/// Writes to the end of a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: BytesMut,
}

impl Writer {
    /// An empty buffer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// An empty buffer with room.
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer { buffer: BytesMut::with_capacity(bytes) }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What was written.
    pub fn finish(self) -> Bytes {
        self.buffer.freeze()
    }

    /// Overwrites four bytes written earlier, as for a length that is known late.
    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.buffer[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) {
        self.buffer.put_u8(value);
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) {
        self.buffer.put_u16(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.buffer.put_u32(value);
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.buffer.put_u64(value);
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// Sixteen bytes.
    pub fn u128(&mut self, value: u128) {
        self.buffer.put_u128(value);
    }

    /// An unsigned number of one to ten bytes.
    pub fn uvarint(&mut self, value: u64) {
        put_uvarint(&mut self.buffer, value);
    }

    /// A string.
    pub fn text(&mut self, value: &str) {
        self.blob(value.as_bytes());
    }

    /// A run of bytes with its length before it.
    pub fn blob(&mut self, value: &[u8]) {
        self.uvarint(value.len() as u64);
        self.raw(value);
    }

    /// A list.
    pub fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Writer, &T)) {
        self.uvarint(items.len() as u64);
        for value in items {
            item(self, value);
        }
    }

    /// A value that may be missing.
    pub fn optional<T>(&mut self, value: Option<T>, item: impl FnOnce(&mut Writer, T)) {
        match value {
            None => self.u8(0),
            Some(value) => {
                self.u8(1);
                item(self, value);
            }
        }
    }

    /// The section of tagged fields, in which nothing is defined yet.
    pub fn no_tagged_fields(&mut self) {
        self.uvarint(0);
    }
}

/// Two bytes of a header whose fields stand at fixed places.
pub(crate) fn u16_at<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes(header[at..at + 2].try_into().expect("two bytes within the header"))
}

/// Four bytes of a header whose fields stand at fixed places.
pub(crate) fn u32_at<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes within the header"))
}

/// Eight bytes of a header whose fields stand at fixed places.
pub(crate) fn u64_at<const N: usize>(header: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes(header[at..at + 8].try_into().expect("eight bytes within the header"))
}

pub(crate) fn put_uvarint(buffer: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

pub(crate) fn put_varint(buffer: &mut BytesMut, value: i32) {
    put_varlong(buffer, value.into());
}

pub(crate) fn put_varlong(buffer: &mut BytesMut, value: i64) {
    put_uvarint(buffer, zig_zag(value));
}

pub(crate) fn varint_bytes(value: i32) -> usize {
    varlong_bytes(value.into())
}

pub(crate) fn varlong_bytes(value: i64) -> usize {
    let bits = 64 - (zig_zag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn zig_zag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varlongs_come_back_and_take_the_bytes_announced(value: i64) {
            let mut buffer = BytesMut::new();
            put_varlong(&mut buffer, value);
            prop_assert_eq!(buffer.len(), varlong_bytes(value));
            prop_assert_eq!(Reader::new(&buffer).varlong(), Ok(value));
        }

        #[test]
        fn uvarints_come_back(value: u64) {
            let mut buffer = BytesMut::new();
            put_uvarint(&mut buffer, value);
            prop_assert_eq!(Reader::new(&buffer).uvarint(), Ok(value));
        }
    }

    #[test]
    fn a_claimed_length_is_not_believed_beyond_the_bytes_at_hand() {
        let mut writer = Writer::new();
        writer.uvarint(u64::MAX);
        let bytes = writer.finish();
        assert_eq!(Reader::new(&bytes).text("a name"), Err(DecodeError::Short("a name")));
        assert!(Reader::new(&bytes).list("items", 1, Reader::u8).is_err());
    }

    #[test]
    fn an_error_names_what_ended_too_early() {
        let mut reader = Reader::new(&[0, 1]);
        reader.within("a receipt");
        let error = reader.u32().expect_err("two bytes are not four");
        assert_eq!(error.to_string(), "the message ends within a receipt");
    }

    #[test]
    fn tagged_fields_that_nobody_here_knows_are_skipped() {
        let mut writer = Writer::new();
        writer.uvarint(2);
        for (tag, field) in [(0, &b"first"[..]), (900, b"")] {
            writer.uvarint(tag);
            writer.blob(field);
        }
        writer.u8(7);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.tagged_fields(), Ok(()));
        assert_eq!(reader.u8(), Ok(7));
        assert!(Reader::new(&bytes[..4]).tagged_fields().is_err());
    }

    #[test]
    fn text_must_be_utf_8_and_a_choice_0_or_1() {
        assert_eq!(Reader::new(&[1, 0xff]).text("a name"), Err(DecodeError::NotText("a name")));
        let choice = Reader::new(&[2]).optional("a rack", Reader::u8);
        assert_eq!(choice, Err(DecodeError::Invalid { what: "a rack", found: 2 }));
    }

    #[test]
    fn a_varint_above_32_bits_is_refused_where_32_are_wanted() {
        let mut buffer = BytesMut::new();
        put_varlong(&mut buffer, i64::from(i32::MIN) - 1);
        assert!(Reader::new(&buffer).varint().is_err());
    }

    #[test]
    fn a_varint_of_eleven_bytes_is_refused() {
        assert!(Reader::new(&[0xff; 11]).uvarint().is_err());
    }
}
