//! Cuts a stream of bytes into lines without copying them.
//!
//! Every newline ends a line, whatever else the line holds; bytes after the last newline are a
//! line too. Lines are slices of the chunks that were read; only a line that lies across two
//! chunks is moved. What is read ahead is bounded by the queue that the caller gives.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};

/// Lines that arrived together.
#[derive(Debug)]
pub struct Chunk {
    /// The number of the first of them, from 1.
    pub first_line: u64,
    /// The lines, without their newlines.
    pub lines: Vec<Bytes>,
}

/// Reads lines until the source ends or breaks.
#[derive(Debug)]
pub struct Lines<R> {
    source: R,
    rest: BytesMut,
    searched: usize,
    next_line: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    /// Lines of `source`, numbered from 1.
    pub fn new(source: R) -> Lines<R> {
        Lines { source, rest: BytesMut::new(), searched: 0, next_line: 1, ended: false }
    }

    /// The next lines that are there, waiting for at least one; `None` at the end.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        while !self.ended {
            if self.rest.len() > LINE_BYTES_MAX {
                return Err(self.too_long());
            }
            let read = self.fill()?;
            self.ended = read == 0;
            let mut lines = self.cut();
            if self.ended && !self.rest.is_empty() {
                lines.push(self.rest.split().freeze());
            }
            if !lines.is_empty() {
                let first_line = self.next_line;
                self.next_line += lines.len() as u64;
                return Ok(Some(Chunk { first_line, lines }));
            }
        }
        Ok(None)
    }

    fn fill(&mut self) -> io::Result<usize> {
        let start = self.rest.len();
        self.rest.resize(start + CHUNK_BYTES, 0);
        let result = loop {
            match self.source.read(&mut self.rest[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.rest.truncate(start + result.as_ref().copied().unwrap_or(0));
        result
    }

    fn cut(&mut self) -> Vec<Bytes> {
        let Some(last) = self.rest[self.searched..].iter().rposition(|&byte| byte == b'\n') else {
            self.searched = self.rest.len();
            return Vec::new();
        };
        let mut whole = self.rest.split_to(self.searched + last + 1).freeze();
        self.searched = self.rest.len();
        let mut lines = Vec::with_capacity(whole.len() / 64 + 1);
        while let Some(end) = whole.iter().position(|&byte| byte == b'\n') {
            lines.push(whole.split_to(end));
            bytes::Buf::advance(&mut whole, 1);
        }
        lines
    }

    fn too_long(&self) -> io::Error {
        let text =
            format!("it is longer than {} MiB, which no record may be", LINE_BYTES_MAX >> 20);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// Splits a line at the first separator; a line without one is all value.
pub fn split_key(line: &Bytes, separator: &[u8]) -> (Option<Bytes>, Bytes) {
    let found = match separator {
        [one] => line.iter().position(|byte| byte == one),
        several => line.windows(several.len()).position(|window| window == several),
    };
    match found {
        Some(at) => (Some(line.slice(..at)), line.slice(at + separator.len()..)),
        None => (None, line.clone()),
    }
}

const CHUNK_BYTES: usize = 256 << 10;
/// No batch may be larger than the wire's frame, so no line can be either.
const LINE_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that gives at most `step` bytes at a time.
    struct Drip<'a> {
        bytes: &'a [u8],
        step: usize,
    }

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.step.min(self.bytes.len()).min(into.len());
            into[..count].copy_from_slice(&self.bytes[..count]);
            self.bytes = &self.bytes[count..];
            Ok(count)
        }
    }

    fn lines_of(bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(Drip { bytes, step });
        let mut all = Vec::new();
        while let Some(chunk) = lines.next_chunk().expect("a slice does not break") {
            assert_eq!(chunk.first_line, all.len() as u64 + 1, "no number is left out");
            all.extend(chunk.lines.iter().map(|line| line.to_vec()));
        }
        all
    }

    fn check(input: &[u8], expected: &[&[u8]]) {
        for step in [1, 2, 3, 7, usize::MAX] {
            assert_eq!(lines_of(input, step), expected, "{input:?} by {step}");
        }
    }

    #[test]
    fn every_newline_ends_a_record_and_so_does_the_end() {
        check(b"", &[]);
        check(b"\n", &[b""]);
        check(b"a", &[b"a"]);
        check(b"a\n", &[b"a"]);
        check(b"a\n\n\nb", &[b"a", b"", b"", b"b"]);
        check(b"\n\n", &[b"", b""]);
    }

    #[test]
    fn any_byte_but_a_newline_is_kept() {
        check(b"a\r\n\0\xff\xfe\n \t ", &[b"a\r", b"\0\xff\xfe", b" \t "]);
    }

    #[test]
    fn lines_longer_than_a_chunk_arrive_whole() {
        let mut input = vec![b'x'; 3 * CHUNK_BYTES + 17];
        input.extend_from_slice(b"\nshort\n");
        let lines = lines_of(&input, 100_000);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), 3 * CHUNK_BYTES + 17);
        assert_eq!(lines[1], b"short");
    }

    #[test]
    fn a_line_without_end_is_refused_before_memory_runs_out() {
        let mut lines = Lines::new(io::repeat(b'x'));
        let error = lines.next_chunk().expect_err("no record can be that long");
        assert!(error.to_string().contains("longer than 16 MiB"), "{error}");
    }

    #[test]
    fn a_line_is_split_at_the_first_separator_only() {
        let split = |line: &'static str, separator: &str| {
            let (key, value) =
                split_key(&Bytes::from_static(line.as_bytes()), separator.as_bytes());
            (key.map(|key| key.to_vec()), value.to_vec())
        };
        assert_eq!(split("k:v", ":"), (Some(b"k".to_vec()), b"v".to_vec()));
        assert_eq!(split("k:v:w", ":"), (Some(b"k".to_vec()), b"v:w".to_vec()));
        assert_eq!(split(":v", ":"), (Some(b"".to_vec()), b"v".to_vec()));
        assert_eq!(split("k:", ":"), (Some(b"k".to_vec()), b"".to_vec()));
        assert_eq!(split("no key", ":"), (None, b"no key".to_vec()));
        assert_eq!(split("a=b=>c=>d", "=>"), (Some(b"a=b".to_vec()), b"c=>d".to_vec()));
    }
}
