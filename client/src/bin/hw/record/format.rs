//! How one record is printed: as its value, by a pattern, or as JSON.
//!
//! Keys and values are bytes. Where they are text they stand in JSON as strings; where not, the
//! field has the suffix `_base64`. Nothing is ever replaced or dropped to make it printable.

use std::io::{self, Write};
use std::str::FromStr;

use serde_json::{Map, Value, json};

/// A record with its place, borrowed from the reader's buffer.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The partition's number.
    pub partition: u32,
    /// The offset within the partition.
    pub offset: u64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values of the headers, in order, names repeated where the producer did.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// A pattern such as `%p@%o %k=%v\n`, cut into its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key,
    Value,
    Timestamp,
    Headers,
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut pieces = text.split('%');
        literal.extend(unescape(pieces.next().unwrap_or_default())?);
        while let Some(piece) = pieces.next() {
            let Some(letter) = piece.chars().next() else {
                // "%%" leaves an empty piece between its two signs; a lone "%" at the end does too.
                let after =
                    pieces.next().ok_or("a lone % at the end; write %% for a percent sign")?;
                literal.push(b'%');
                literal.extend(unescape(after)?);
                continue;
            };
            let part = Part::of(letter)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
            literal.extend(unescape(&piece[letter.len_utf8()..])?);
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Template(parts))
    }
}

impl Part {
    fn of(letter: char) -> Result<Part, String> {
        match letter {
            't' => Ok(Part::Topic),
            'p' => Ok(Part::Partition),
            'o' => Ok(Part::Offset),
            'k' => Ok(Part::Key),
            'v' => Ok(Part::Value),
            'T' => Ok(Part::Timestamp),
            'h' => Ok(Part::Headers),
            other => Err(format!("%{other} means nothing; there are %t %p %o %k %v %T %h and %%")),
        }
    }
}

impl Template {
    /// Prints `record` by the pattern; what is missing (a key, a value) prints as nothing.
    pub fn write(&self, record: Shown<'_>, out: &mut impl Write) -> io::Result<()> {
        for part in &self.0 {
            match part {
                Part::Literal(bytes) => out.write_all(bytes)?,
                Part::Topic => out.write_all(record.topic.as_bytes())?,
                Part::Partition => write!(out, "{}", record.partition)?,
                Part::Offset => write!(out, "{}", record.offset)?,
                Part::Key => out.write_all(record.key.unwrap_or_default())?,
                Part::Value => out.write_all(record.value.unwrap_or_default())?,
                Part::Timestamp => write!(out, "{}", record.timestamp)?,
                Part::Headers => write_headers(record.headers, out)?,
            }
        }
        Ok(())
    }
}

fn write_headers(headers: &[(&[u8], Option<&[u8]>)], out: &mut impl Write) -> io::Result<()> {
    for (at, (name, value)) in headers.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        out.write_all(name)?;
        out.write_all(b"=")?;
        out.write_all(value.unwrap_or_default())?;
    }
    Ok(())
}

/// Turns `\n \t \r \0 \\ \xHH` into what they mean.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest[at + 1..].chars().next();
        let (byte, used) = match escape {
            Some('n') => (b'\n', 2),
            Some('t') => (b'\t', 2),
            Some('r') => (b'\r', 2),
            Some('0') => (0, 2),
            Some('\\') => (b'\\', 2),
            Some('x') => {
                let digits = rest.get(at + 2..at + 4);
                let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (byte.ok_or_else(|| "\\x wants two hexadecimal digits".to_owned())?, 4)
            }
            Some(other) => {
                return Err(format!("\\{other} means nothing; write \\\\ for a backslash"));
            }
            None => return Err("a lone \\ at the end; write \\\\ for a backslash".to_owned()),
        };
        bytes.push(byte);
        rest = &rest[at + used..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

impl Shown<'_> {
    /// The record as a JSON value; the names of the fields are a promise.
    pub fn to_json(self) -> Value {
        let mut map = Map::new();
        map.insert("topic".to_owned(), json!(self.topic));
        map.insert("partition".to_owned(), json!(self.partition));
        map.insert("offset".to_owned(), json!(self.offset));
        map.insert("timestamp".to_owned(), json!(self.timestamp));
        insert_bytes(&mut map, "key", self.key);
        insert_bytes(&mut map, "value", self.value);
        if !self.headers.is_empty() {
            let headers = self.headers.iter().map(|(name, value)| {
                let mut header = Map::new();
                insert_bytes(&mut header, "name", Some(name));
                insert_bytes(&mut header, "value", *value);
                Value::Object(header)
            });
            map.insert("headers".to_owned(), headers.collect());
        }
        Value::Object(map)
    }
}

/// As text, or where it is none, in base64 under another name.
pub fn insert_bytes(map: &mut Map<String, Value>, field: &str, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => map.insert(field.to_owned(), Value::Null),
        Some((_, Ok(text))) => map.insert(field.to_owned(), json!(text)),
        Some((bytes, Err(_))) => map.insert(format!("{field}_base64"), json!(base64(bytes))),
    };
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = (u32::from(group[0]) << 16)
            | (u32::from(group.get(1).copied().unwrap_or(0)) << 8)
            | u32::from(group.get(2).copied().unwrap_or(0));
        for place in 0..4 {
            if place <= group.len() {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Shown<'static> = Shown {
        topic: "orders",
        partition: 3,
        offset: 42,
        timestamp: 1_700_000_000_000,
        key: Some(b"k"),
        value: Some(b"v"),
        headers: &[(b"a", Some(b"1")), (b"a", None)],
    };

    fn printed(pattern: &str, record: Shown<'_>) -> Vec<u8> {
        let template: Template = pattern.parse().expect(pattern);
        let mut out = Vec::new();
        template.write(record, &mut out).expect("a vector takes everything");
        out
    }

    #[test]
    fn a_pattern_names_every_part_of_a_record() {
        assert_eq!(
            printed("%t/%p@%o %T %k=%v [%h]\\n", RECORD),
            b"orders/3@42 1700000000000 k=v [a=1,a=]\n"
        );
        assert_eq!(printed("100%%\\t%v%%", RECORD), b"100%\tv%");
        assert_eq!(printed("%%%%k", RECORD), b"%%k");
    }

    #[test]
    fn a_pattern_prints_bytes_as_they_are_and_nothing_for_nothing() {
        let record = Shown { key: None, value: Some(b"\xff\0"), ..RECORD };
        assert_eq!(printed("%k|%v", record), b"|\xff\0");
    }

    #[test]
    fn a_wrong_pattern_is_refused() {
        for wrong in ["%", "%v%", "%x", "a\\", "\\q"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn json_keeps_bytes_that_are_not_text() {
        let record = Shown { key: None, value: Some(b"\xff\xfe"), headers: &[], ..RECORD };
        assert_eq!(
            record.to_json().to_string(),
            "{\"topic\":\"orders\",\"partition\":3,\"offset\":42,\"timestamp\":1700000000000,\
             \"key\":null,\"value_base64\":\"//4=\"}"
        );
    }

    #[test]
    fn base64_has_the_vectors_of_its_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
