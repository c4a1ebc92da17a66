//! A history on disk: written as it happens, read as a stream.
//!
//! Blocks of operations, each with its length and checksum; `HISTORY.md` has the bytes. A file whose
//! end is missing can be read up to there, and says so; one whose middle is damaged is refused.

use std::io::{self, Read, Write};

use highwater_client::{AckMode, NodeId, Offset, PartitionId};
use highwater_protocol::batch::crc32c;

use super::judge::Ending;
use super::op::{Drained, Op, Outcome, Poll, PollKind, Process, Seen, Send};
use crate::workload::{Nanos, RecordId};

/// Writes a history.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    block: Vec<u8>,
    /// The time before, for the times are written as differences.
    time: u64,
    count: u64,
}

/// Reads a history.
#[derive(Debug)]
pub struct Reader<R: Read> {
    from: R,
    block: Vec<u8>,
    at: usize,
    time: u64,
    count: u64,
    /// Set once nothing more comes.
    ending: Option<Ending>,
}

impl<W: Write> Writer<W> {
    /// Begins a history.
    pub fn new(mut to: W) -> io::Result<Writer<W>> {
        to.write_all(MAGIC)?;
        to.write_all(&VERSION.to_le_bytes())?;
        Ok(Writer { to, block: Vec::new(), time: 0, count: 0 })
    }

    /// Adds an operation.
    pub fn add(&mut self, op: &Op) -> io::Result<()> {
        match op {
            Op::Send(send) => self.add_send(send),
            Op::Poll(poll) => self.add_poll(poll),
            Op::Drained(drained) => {
                self.put_head(DRAINED, drained.process, drained.partition);
                self.put_kind(drained.kind);
                self.put_time(drained.at);
                put(&mut self.block, drained.end.0);
            }
        }
        self.count += 1;
        if self.block.len() >= BLOCK_BYTES { self.close_block() } else { Ok(()) }
    }

    /// Closes the history; what is missing this is taken as cut off.
    pub fn finish(mut self) -> io::Result<W> {
        self.close_block()?;
        self.block.push(END);
        put(&mut self.block, self.count);
        self.close_block()?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn add_send(&mut self, send: &Send) {
        self.put_head(SEND, send.process, send.partition);
        put(&mut self.block, send.id.0);
        self.block.push(match send.acks {
            AckMode::Async => 0,
            AckMode::SemiSync => 1,
            AckMode::Sync => 2,
        });
        self.put_time(send.invoke);
        self.put_time(send.complete);
        match send.outcome {
            Outcome::Fail => self.block.push(0),
            Outcome::Info => self.block.push(1),
            Outcome::Ok(offset) => {
                self.block.push(2);
                put(&mut self.block, offset.0);
            }
        }
    }

    fn add_poll(&mut self, poll: &Poll) {
        self.put_head(POLL, poll.process, poll.partition);
        self.put_kind(poll.kind);
        self.put_time(poll.invoke);
        self.put_time(poll.complete);
        put(&mut self.block, poll.records.len() as u64);
        let (mut offset, mut id) = (0, 0);
        for seen in &poll.records {
            put_difference(&mut self.block, offset, seen.offset.0);
            offset = seen.offset.0.wrapping_add(1);
            self.block.push(u8::from(seen.id.is_some()));
            if let Some(RecordId(value)) = seen.id {
                put_difference(&mut self.block, id, value);
                id = value;
            }
        }
    }

    fn put_head(&mut self, tag: u8, process: Process, partition: PartitionId) {
        self.block.push(tag);
        put(&mut self.block, u64::from(process.0));
        put(&mut self.block, u64::from(partition.0));
    }

    fn put_kind(&mut self, kind: PollKind) {
        match kind {
            PollKind::Tail => self.block.push(0),
            PollKind::Final => self.block.push(1),
            PollKind::Replica(node) => {
                self.block.push(2);
                put(&mut self.block, u64::from(node.0));
            }
        }
    }

    fn put_time(&mut self, time: Nanos) {
        put_difference(&mut self.block, self.time, time.0);
        self.time = time.0;
    }

    fn close_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.to.write_all(&(self.block.len() as u32).to_le_bytes())?;
        self.to.write_all(&crc32c(&self.block).to_le_bytes())?;
        self.to.write_all(&self.block)?;
        self.block.clear();
        // A block can be read without those before it.
        self.time = 0;
        Ok(())
    }
}

impl<R: Read> Reader<R> {
    /// Begins to read; refuses what is no history.
    pub fn new(mut from: R) -> io::Result<Reader<R>> {
        let mut head = [0; 10];
        let whole = from.read_exact(&mut head);
        if whole.is_err() || head[..8] != *MAGIC {
            return Err(wrong("this is no history: it does not begin like one"));
        }
        let version = u16::from_le_bytes([head[8], head[9]]);
        if version != VERSION {
            return Err(wrong(&format!("a history of version {version}; {VERSION} can be read")));
        }
        Ok(Reader { from, block: Vec::new(), at: 0, time: 0, count: 0, ending: None })
    }

    /// The next operation; `None` at the end.
    pub fn next_op(&mut self) -> io::Result<Option<Op>> {
        while self.at == self.block.len() {
            if self.ending.is_some() || !self.next_block()? {
                return Ok(None);
            }
        }
        let tag = self.byte()?;
        if tag == END {
            let count = self.number()?;
            if count != self.count || self.at != self.block.len() {
                return Err(wrong(&format!("it ends after {} operations of {count}", self.count)));
            }
            self.ending = Some(Ending::Closed);
            return Ok(None);
        }
        let (process, partition) = (Process(self.small()?), PartitionId(self.small()?));
        let op = match tag {
            SEND => Op::Send(self.send(process, partition)?),
            POLL => Op::Poll(self.poll(process, partition)?),
            DRAINED => {
                let (kind, at) = (self.kind()?, self.time()?);
                Op::Drained(Drained { process, partition, kind, at, end: Offset(self.number()?) })
            }
            other => return Err(wrong(&format!("{other} is no operation"))),
        };
        self.count += 1;
        Ok(Some(op))
    }

    /// How it ended, once [`Reader::next_op`] gave `None`.
    pub fn ending(&self) -> Ending {
        self.ending.unwrap_or(Ending::CutOff)
    }

    /// Takes up the next block; whether there is one.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut head = [0; 8];
        let got = read_up_to(&mut self.from, &mut head)?;
        if got < head.len() {
            self.ending = Some(Ending::CutOff);
            return Ok(false);
        }
        let word =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (bytes, checksum) = (word(0) as usize, word(4));
        if bytes == 0 || bytes > BLOCK_BYTES_MAX {
            return Err(wrong(&format!(
                "a block of {bytes} bytes behind operation {}",
                self.count
            )));
        }
        self.block.resize(bytes, 0);
        if read_up_to(&mut self.from, &mut self.block)? < bytes {
            self.block.clear();
            self.at = 0;
            self.ending = Some(Ending::CutOff);
            return Ok(false);
        }
        if crc32c(&self.block) != checksum {
            return Err(wrong(&format!("the block behind operation {} is damaged", self.count)));
        }
        (self.at, self.time) = (0, 0);
        Ok(true)
    }

    fn send(&mut self, process: Process, partition: PartitionId) -> io::Result<Send> {
        let id = RecordId(self.number()?);
        let acks = match self.byte()? {
            0 => AckMode::Async,
            1 => AckMode::SemiSync,
            2 => AckMode::Sync,
            other => return Err(wrong(&format!("{other} is no ack mode"))),
        };
        let (invoke, complete) = (self.time()?, self.time()?);
        let outcome = match self.byte()? {
            0 => Outcome::Fail,
            1 => Outcome::Info,
            2 => Outcome::Ok(Offset(self.number()?)),
            other => return Err(wrong(&format!("{other} is no outcome"))),
        };
        Ok(Send { process, partition, id, acks, invoke, complete, outcome })
    }

    fn poll(&mut self, process: Process, partition: PartitionId) -> io::Result<Poll> {
        let kind = self.kind()?;
        let (invoke, complete) = (self.time()?, self.time()?);
        let count = self.number()?;
        if count > self.block.len() as u64 {
            return Err(wrong(&format!("a poll of {count} records in a smaller block")));
        }
        let mut records = Vec::with_capacity(count as usize);
        let (mut offset, mut id) = (0, 0);
        for _ in 0..count {
            let at: u64 = self.difference(offset)?;
            offset = at.wrapping_add(1);
            let value = match self.byte()? {
                0 => None,
                _ours => {
                    id = self.difference(id)?;
                    Some(RecordId(id))
                }
            };
            records.push(Seen { offset: Offset(at), id: value });
        }
        Ok(Poll { process, partition, kind, invoke, complete, records })
    }

    fn kind(&mut self) -> io::Result<PollKind> {
        match self.byte()? {
            0 => Ok(PollKind::Tail),
            1 => Ok(PollKind::Final),
            2 => Ok(PollKind::Replica(NodeId(self.small()?))),
            other => Err(wrong(&format!("{other} is no kind of poll"))),
        }
    }

    fn time(&mut self) -> io::Result<Nanos> {
        self.time = self.difference(self.time)?;
        Ok(Nanos(self.time))
    }

    fn difference(&mut self, from: u64) -> io::Result<u64> {
        let zigzag = self.number()?;
        Ok(from.wrapping_add((zigzag >> 1) ^ (zigzag & 1).wrapping_neg()))
    }

    fn small(&mut self) -> io::Result<u32> {
        u32::try_from(self.number()?).map_err(|_| wrong("a number is too large"))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(wrong("a number does not end"))
    }

    fn byte(&mut self) -> io::Result<u8> {
        let byte = self.block.get(self.at).copied();
        self.at += 1;
        byte.ok_or_else(|| wrong("an operation goes beyond its block"))
    }
}

fn put(block: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        block.push(number as u8 | 0x80);
        number >>= 7;
    }
    block.push(number as u8);
}

fn put_difference(block: &mut Vec<u8>, from: u64, to: u64) {
    let difference = to.wrapping_sub(from);
    put(block, (difference << 1) ^ (difference >> 63).wrapping_neg());
}

fn read_up_to(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < bytes.len() {
        match from.read(&mut bytes[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const MAGIC: &[u8; 8] = b"HWHISTRY";
const VERSION: u16 = 1;
const SEND: u8 = 1;
const POLL: u8 = 2;
const DRAINED: u8 = 3;
const END: u8 = 255;
/// A block is closed once it is this long; an operation is never split.
const BLOCK_BYTES: usize = 64 << 10;
/// A poll brings at most some 8 MiB of records; what claims more is damaged.
const BLOCK_BYTES_MAX: usize = 64 << 20;
