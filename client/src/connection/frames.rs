//! Cuts a stream's bytes into frames: a length, then that many bytes.
//!
//! A frame that lies within one received chunk is a slice of it; only one that spans several is
//! copied together, once, because the batches in a fetch answer must be contiguous.

use bytes::{Buf, Bytes, BytesMut};

/// Collects the chunks of a stream and gives out whole frames without their length.
pub(crate) struct Frames {
    chunk: Bytes,
    partial: BytesMut,
    /// Of the frame in `partial`, with its length prefix; 0 while that is not known.
    wanted: usize,
    frame_bytes_max: usize,
}

/// A frame says that it is longer than any may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FrameTooLong {
    pub(crate) bytes: usize,
}

impl Frames {
    pub(crate) fn new(frame_bytes_max: usize) -> Frames {
        Frames { chunk: Bytes::new(), partial: BytesMut::new(), wanted: 0, frame_bytes_max }
    }

    /// Takes the next chunk; all frames of the last one must have been taken out.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        assert!(self.chunk.is_empty(), "a chunk is used up before the next one is read");
        self.chunk = chunk;
    }

    /// The next whole frame, or `None` when another chunk is needed.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        if self.partial.is_empty() {
            if self.chunk.len() >= LENGTH_BYTES {
                let whole = LENGTH_BYTES + self.length(&self.chunk)?;
                if self.chunk.len() >= whole {
                    let mut frame = self.chunk.split_to(whole);
                    frame.advance(LENGTH_BYTES);
                    return Ok(Some(frame));
                }
            }
            if self.chunk.is_empty() {
                return Ok(None);
            }
        }
        self.gather()
    }

    /// Copies what there is of a frame that spans chunks.
    fn gather(&mut self) -> Result<Option<Bytes>, FrameTooLong> {
        if self.partial.len() < LENGTH_BYTES {
            self.take(LENGTH_BYTES - self.partial.len());
            if self.partial.len() < LENGTH_BYTES {
                return Ok(None);
            }
        }
        if self.wanted == 0 {
            self.wanted = LENGTH_BYTES + self.length(&self.partial)?;
            // What is reserved on a length's word is bounded; more must have arrived to get more.
            self.partial.reserve(self.wanted.min(RESERVE_BYTES_MAX));
        }
        self.take(self.wanted - self.partial.len());
        if self.partial.len() < self.wanted {
            return Ok(None);
        }
        self.wanted = 0;
        let mut frame = std::mem::take(&mut self.partial).freeze();
        frame.advance(LENGTH_BYTES);
        Ok(Some(frame))
    }

    fn take(&mut self, bytes_max: usize) {
        let bytes = bytes_max.min(self.chunk.len());
        self.partial.extend_from_slice(&self.chunk.split_to(bytes));
    }

    fn length(&self, bytes: &[u8]) -> Result<usize, FrameTooLong> {
        let prefix = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let bytes = u32::from_be_bytes(prefix) as usize;
        if bytes > self.frame_bytes_max { Err(FrameTooLong { bytes }) } else { Ok(bytes) }
    }
}

const LENGTH_BYTES: usize = 4;
const RESERVE_BYTES_MAX: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(bodies: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for body in bodies {
            bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        bytes
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_same_frames_come_out(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..8),
            cuts in proptest::collection::vec(1usize..40, 1..60),
        ) {
            let mut rest = Bytes::from(framed(&bodies));
            let mut frames = Frames::new(1 << 20);
            let mut seen = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                frames.push(rest.split_to((*cut).min(rest.len())));
                while let Some(frame) = frames.next().expect("short frames") {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
        }
    }

    #[test]
    fn a_frame_in_one_chunk_is_not_copied() {
        let bytes = Bytes::from(framed(&[vec![7; 100]]));
        let inside = bytes.as_ptr_range();
        let mut frames = Frames::new(1 << 20);
        frames.push(bytes);
        let frame = frames.next().expect("short").expect("whole");
        assert!(inside.contains(&frame.as_ptr()));
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_read() {
        let mut frames = Frames::new(10);
        frames.push(Bytes::from_static(&[0, 0, 0, 11]));
        assert_eq!(frames.next(), Err(FrameTooLong { bytes: 11 }));
    }
}
