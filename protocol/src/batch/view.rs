//! One whole data batch, checked and borrowed; and walking over frames that lie end to end.

use bytes::Bytes;

use crate::batch::header::{COMPRESSION_BITS, seal};
use crate::batch::{
    BatchError, Compression, FrameHeader, FrameKind, HEADER_BYTES, Records, UNPACKED_BYTES_MAX,
    codec,
};

/// A data batch whose structure has been checked; its records are read on demand.
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a> {
    header: FrameHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Accepts exactly one data batch: the whole of it and nothing behind it.
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let header = FrameHeader::parse(bytes)?;
        if header.kind() != FrameKind::Data {
            return Err(BatchError::Kind("data batch"));
        }
        let needed = header.frame_bytes();
        if bytes.len() < needed {
            return Err(BatchError::Short { needed, found: bytes.len() });
        }
        if bytes.len() > needed {
            return Err(BatchError::Trailing(bytes.len() - needed));
        }
        Ok(BatchView { header, bytes })
    }

    /// The header.
    pub fn header(&self) -> &FrameHeader {
        &self.header
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the bytes are those that the writer checksummed.
    pub fn verify_checksum(&self) -> Result<(), BatchError> {
        self.header.verify_checksum(self.bytes)
    }

    /// The records in order, of a batch that is not packed; a gap has none.
    pub fn records(&self) -> Result<Records<'a>, BatchError> {
        if self.header.is_gap() {
            return Ok(Records::none(self.header));
        }
        match self.codec()? {
            Compression::None => Ok(Records::new(self.header, &self.bytes[HEADER_BYTES..])),
            packed @ (Compression::Gzip
            | Compression::Snappy
            | Compression::Lz4
            | Compression::Zstd) => Err(BatchError::StillPacked(packed)),
        }
    }

    /// The same batch as if its records had never been packed, with a checksum of its own; nothing
    /// for one that is not packed. Records of more than `bytes_max` bytes are refused, whatever
    /// little they take packed.
    pub fn unpacked(&self, bytes_max: usize) -> Result<Option<Bytes>, BatchError> {
        let codec = self.codec()?;
        if codec == Compression::None {
            return Ok(None);
        }
        let bytes_max = bytes_max.min(UNPACKED_BYTES_MAX);
        let mut batch = self.bytes[..HEADER_BYTES].to_vec();
        codec::unpack(codec, &self.bytes[HEADER_BYTES..], bytes_max, &mut batch)?;
        seal(&mut batch, self.header.attributes() & !COMPRESSION_BITS);
        Ok(Some(batch.into()))
    }

    fn codec(&self) -> Result<Compression, BatchError> {
        let number = self.header.attributes() & COMPRESSION_BITS;
        self.header.compression().ok_or(BatchError::Codec(number))
    }
}

/// Walks over frames that lie end to end; ends after the first error.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = Result<(FrameHeader, &[u8]), BatchError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let step = FrameHeader::parse(rest).and_then(|header| {
            rest.split_at_checked(header.frame_bytes())
                .map(|(frame, behind)| (header, frame, behind))
                .ok_or(BatchError::Short { needed: header.frame_bytes(), found: rest.len() })
        });
        match step {
            Ok((header, frame, behind)) => {
                rest = behind;
                Some(Ok((header, frame)))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BuilderOptions, Mark};
    use crate::ids::{Offset, Term, Timestamp};

    #[test]
    fn a_view_is_one_whole_batch_and_nothing_else() {
        let batch = batch(3);
        assert!(BatchView::parse(&batch).is_ok());
        for end in 0..batch.len() {
            let cut = BatchView::parse(&batch[..end]);
            assert!(matches!(cut, Err(BatchError::Short { .. })), "{end} bytes");
        }
        let two = [batch.clone(), batch.clone()].concat();
        assert_eq!(BatchView::parse(&two).err(), Some(BatchError::Trailing(batch.len())));
    }

    #[test]
    fn packed_records_are_kept_as_they_are_and_not_read() {
        let mut batch = batch(1);
        batch[22] |= 3;
        let view = BatchView::parse(&batch).expect("a batch as far as a broker looks");
        assert_eq!(view.records().err(), Some(BatchError::StillPacked(Compression::Lz4)));
    }

    #[test]
    fn frames_are_walked_to_the_end_or_to_the_first_error() {
        let mark = Mark::TermStart.encode(Offset(3), Term(1));
        let log = [batch(3), mark.to_vec(), batch(2)].concat();
        let entries = |bytes: &[u8]| -> Vec<Option<u64>> {
            frames(bytes).map(|frame| frame.ok().map(|(header, _)| header.entries())).collect()
        };
        assert_eq!(entries(&log), [Some(3), Some(1), Some(2)]);
        assert_eq!(entries(&log[..log.len() - 1]), [Some(3), Some(1), None]);
        assert_eq!(entries(b""), []);
    }

    fn batch(records: u32) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        for _ in 0..records {
            builder.push(Timestamp(5), Some(b"key"), Some(b"value"), &[]);
        }
        builder.finish().to_vec()
    }
}
