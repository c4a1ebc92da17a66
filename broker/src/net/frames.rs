//! Length-prefixed frames on QUIC streams: reading them whole, writing them without copying payload.
//!
//! A frame is a length and that many bytes. The reader survives being dropped between frames or in
//! the middle of one: what has arrived stays with it.

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};

/// Reads frames from one stream.
pub struct FrameReader {
    stream: RecvStream,
    arrived: BytesMut,
    frame_bytes_max: usize,
}

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A length above the bound: garbage, or not our protocol.
    #[error("a frame of {bytes} bytes, and the most is {bytes_max}")]
    TooLarge {
        /// The length announced.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The stream ended in the middle of a frame.
    #[error("the stream ended within a frame")]
    CutOff,
    /// The connection is gone or the stream was reset.
    #[error("{0}")]
    Read(#[from] ReadError),
}

impl FrameReader {
    /// A reader that takes frames of at most so many bytes, without the length itself.
    pub fn new(stream: RecvStream, frame_bytes_max: usize) -> FrameReader {
        FrameReader { stream, arrived: BytesMut::new(), frame_bytes_max }
    }

    /// The next frame without its length; `None` where the other side has finished. May be dropped
    /// and called again without loss.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let missing = match self.take_whole()? {
                Take::Frame(frame) => return Ok(Some(frame)),
                Take::Missing(bytes) => bytes,
            };
            let mut chunks: [Bytes; CHUNKS] = [const { Bytes::new() }; CHUNKS];
            let Some(filled) = self.stream.read_chunks(&mut chunks).await? else {
                return if self.arrived.is_empty() { Ok(None) } else { Err(FrameError::CutOff) };
            };
            let bytes: usize = chunks[..filled].iter().map(Bytes::len).sum();
            self.arrived.reserve(bytes.max(missing.min(RESERVE_MAX)));
            chunks[..filled].iter().for_each(|chunk| self.arrived.extend_from_slice(chunk));
        }
    }

    fn take_whole(&mut self) -> Result<Take, FrameError> {
        let Some(prefix) = self.arrived.first_chunk::<LENGTH_BYTES>() else {
            return Ok(Take::Missing(LENGTH_BYTES));
        };
        let bytes = u32::from_be_bytes(*prefix) as usize;
        if bytes > self.frame_bytes_max {
            return Err(FrameError::TooLarge { bytes, bytes_max: self.frame_bytes_max });
        }
        let whole = LENGTH_BYTES + bytes;
        if self.arrived.len() < whole {
            return Ok(Take::Missing(whole - self.arrived.len()));
        }
        let mut frame = self.arrived.split_to(whole).freeze();
        frame.advance(LENGTH_BYTES);
        Ok(Take::Frame(frame))
    }
}

enum Take {
    Frame(Bytes),
    Missing(usize),
}

/// Gathers chunks for one write: small ones are copied together, large ones go as they are.
#[derive(Default)]
pub struct Gather {
    chunks: Vec<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Gather {
    /// Adds a chunk behind the others.
    pub fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        if chunk.len() <= SMALL_BYTES_MAX {
            self.small.extend_from_slice(&chunk);
        } else {
            self.close_small();
            self.chunks.push(chunk);
        }
    }

    /// How many bytes have gathered.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing has gathered.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Hands everything to the stream and waits until the stream has taken it.
    pub async fn write_to(&mut self, stream: &mut SendStream) -> Result<usize, WriteError> {
        self.close_small();
        let bytes = std::mem::take(&mut self.bytes);
        stream.write_all_chunks(&mut self.chunks).await?;
        self.chunks.clear();
        Ok(bytes)
    }

    /// What would be written.
    #[cfg(test)]
    pub fn written(&mut self) -> Bytes {
        self.close_small();
        self.chunks.concat().into()
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
    }
}

const LENGTH_BYTES: usize = 4;
/// Chunks taken from the connection at once; each is what one datagram carried.
const CHUNKS: usize = 32;
/// What is reserved for a frame before its bytes have arrived: an announced length proves nothing.
const RESERVE_MAX: usize = 256 * 1024;
/// A chunk up to this size is cheaper to copy than to carry along.
const SMALL_BYTES_MAX: usize = 512;
