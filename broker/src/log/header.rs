//! The pages that say what a file is: a segment's header page and the seal in its index. The file
//! `start` is made alike, see there.
//!
//! Every one carries its own checksum, so that what a crash tore is told apart from what a medium
//! damaged only by where it lies, never by guessing. The first sixteen bytes (magic,
//! checksum of all that follows in the block, version) are the same in every version to come:
//! therefore a newer version is recognised as such, and not taken for damage.
//!
//! Integers are little-endian, and there is no `usize` among them.

use highwater_protocol::batch::crc32c;
use highwater_protocol::ids::{LogIndex, Offset, PartitionId, Term, TopicId, TopicPartition};
use uuid::Uuid;

use super::Place;

/// A segment's first page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub partition: TopicPartition,
    /// Segments are numbered from 1 in the order of their making; a higher one overrules.
    pub sequence: u64,
    /// Where it begins: the end of everything before it.
    pub base: Place,
    pub origin: Origin,
    /// Up to where an earlier life held durable frames that were damaged.
    pub owed: Option<LogIndex>,
}

/// What a segment continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing: every older segment is void, the log starts here.
    Start,
    /// The segment of this number, which ends at this position of its file.
    After { sequence: u64, cut: u64 },
}

/// Why a block is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadBlock {
    /// Nothing was ever written there.
    Blank,
    /// The checksum or the contents are wrong.
    Damaged,
    /// A later build wrote it.
    Newer { version: u32 },
}

/// What is true of a sealed segment; lies in its index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    /// How many index entries count; what lies behind them is void.
    pub slots: u32,
    pub end: Place,
    /// Where the last frame ends in the `.log` file.
    pub position: u64,
    pub max_timestamp: i64,
    pub entries_checksum: u32,
    /// Where the summary lies in the `.idx` file.
    pub summary_at: u64,
    pub summary_bytes: u32,
    pub summary_checksum: u32,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; HEADER_PAGE_BYTES as usize];
        page[16..32].copy_from_slice(self.partition.topic.0.as_bytes());
        put_u32(&mut page, 32, self.partition.partition.0);
        put_u64(&mut page, 40, self.sequence);
        put_u64(&mut page, 48, self.base.index.0);
        put_u64(&mut page, 56, self.base.offset.0);
        put_u32(&mut page, 64, self.base.term.0);
        if let Origin::After { sequence, cut } = self.origin {
            put_u64(&mut page, 72, sequence);
            put_u64(&mut page, 80, cut);
        }
        put_u64(&mut page, 88, self.owed.map_or(0, |owed| owed.0));
        finish(&mut page, SEGMENT_MAGIC);
        page
    }

    pub(super) fn decode(page: &[u8]) -> Result<Header, BadBlock> {
        open(page, SEGMENT_MAGIC)?;
        let topic: [u8; 16] = page[16..32].try_into().expect("sixteen bytes");
        let partition = PartitionId(u32_at(page, 32));
        let origin = match u64_at(page, 72) {
            0 => Origin::Start,
            sequence => Origin::After { sequence, cut: u64_at(page, 80) },
        };
        let owed = u64_at(page, 88);
        Ok(Header {
            partition: TopicPartition::new(TopicId(Uuid::from_bytes(topic)), partition),
            sequence: u64_at(page, 40),
            base: place_at(page, 48),
            origin,
            owed: (owed > 0).then_some(LogIndex(owed)),
        })
    }
}

impl Seal {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        put_u32(&mut block, 16, self.slots);
        put_u32(&mut block, 20, self.entries_checksum);
        put_place(&mut block, 24, &self.end);
        put_u64(&mut block, 48, self.position);
        put_u64(&mut block, 56, self.max_timestamp as u64);
        put_u64(&mut block, 64, self.summary_at);
        put_u32(&mut block, 72, self.summary_bytes);
        put_u32(&mut block, 76, self.summary_checksum);
        finish(&mut block, SEAL_MAGIC);
        block
    }

    pub(super) fn decode(block: &[u8]) -> Result<Seal, BadBlock> {
        open(block, SEAL_MAGIC)?;
        Ok(Seal {
            slots: u32_at(block, 16),
            entries_checksum: u32_at(block, 20),
            end: place_at(block, 24),
            position: u64_at(block, 48),
            max_timestamp: u64_at(block, 56) as i64,
            summary_at: u64_at(block, 64),
            summary_bytes: u32_at(block, 72),
            summary_checksum: u32_at(block, 76),
        })
    }
}

/// The first block of an `.idx` file: which segment it belongs to.
pub(super) fn encode_index_header(sequence: u64) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES as usize];
    put_u64(&mut block, 16, sequence);
    finish(&mut block, INDEX_MAGIC);
    block
}

/// The number of the segment that an `.idx` file belongs to.
pub(super) fn decode_index_header(block: &[u8]) -> Result<u64, BadBlock> {
    open(block, INDEX_MAGIC)?;
    Ok(u64_at(block, 16))
}

pub(super) fn finish(block: &mut [u8], magic: &[u8; 8]) {
    block[..8].copy_from_slice(magic);
    put_u32(block, 12, FORMAT_VERSION);
    let checksum = crc32c(&block[12..]);
    put_u32(block, 8, checksum);
}

pub(super) fn open(block: &[u8], magic: &[u8; 8]) -> Result<(), BadBlock> {
    if block.iter().all(|byte| *byte == 0) {
        // An empty block is blank, too.
        return Err(BadBlock::Blank);
    }
    if block.len() < BLOCK_BYTES as usize
        || &block[..8] != magic
        || u32_at(block, 8) != crc32c(&block[12..])
    {
        return Err(BadBlock::Damaged);
    }
    match u32_at(block, 12) {
        FORMAT_VERSION => Ok(()),
        version => Err(BadBlock::Newer { version }),
    }
}

pub(super) fn put_place(block: &mut [u8], at: usize, place: &Place) {
    put_u64(block, at, place.index.0);
    put_u64(block, at + 8, place.offset.0);
    put_u32(block, at + 16, place.term.0);
}

pub(super) fn place_at(block: &[u8], at: usize) -> Place {
    Place {
        index: LogIndex(u64_at(block, at)),
        offset: Offset(u64_at(block, at + 8)),
        term: Term(u32_at(block, at + 16)),
    }
}

pub(super) fn put_u32(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(block: &mut [u8], at: usize, value: u64) {
    block[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

pub(super) fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(block: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"))
}

/// The format that this build writes, and the newest that it reads.
pub(super) const FORMAT_VERSION: u32 = 1;
/// What comes before the first frame of a segment, and before the first entry of an index.
pub(super) const HEADER_PAGE_BYTES: u64 = 4096;
/// A device writes this much at once or not at all; seals, index headers and `start` are one each.
pub(super) const BLOCK_BYTES: u64 = 512;
/// Where the seal lies in an `.idx` file.
pub(super) const SEAL_AT: u64 = BLOCK_BYTES;

const SEGMENT_MAGIC: &[u8; 8] = b"HWSEGMNT";
const INDEX_MAGIC: &[u8; 8] = b"HWINDEX\0";
const SEAL_MAGIC: &[u8; 8] = b"HWSEAL\0\0";

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            partition: TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionId(3)),
            sequence: 12,
            base: Place { index: LogIndex(90), offset: Offset(80), term: Term(4) },
            origin: Origin::After { sequence: 11, cut: 5000 },
            owed: Some(LogIndex(95)),
        }
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let first = Header { origin: Origin::Start, owed: None, ..header() };
        for header in [header(), first] {
            assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
        let seal = Seal {
            slots: 9,
            end: header().base,
            position: 77,
            max_timestamp: -1,
            entries_checksum: 5,
            summary_at: 6,
            summary_bytes: 7,
            summary_checksum: 8,
        };
        assert_eq!(Seal::decode(&seal.encode()), Ok(seal));
        assert_eq!(decode_index_header(&encode_index_header(12)), Ok(12));
    }

    #[test]
    fn no_flipped_bit_goes_unseen() {
        let page = header().encode();
        for bit in 0..page.len() * 8 {
            let mut flipped = page.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped), Err(BadBlock::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_and_a_blank_page_are_told_apart_from_damage() {
        let mut page = header().encode();
        put_u32(&mut page, 12, 2);
        assert_eq!(Header::decode(&page), Err(BadBlock::Damaged));
        let checksum = crc32c(&page[12..]);
        put_u32(&mut page, 8, checksum);
        assert_eq!(Header::decode(&page), Err(BadBlock::Newer { version: 2 }));
        assert_eq!(Header::decode(&[0; 4096]), Err(BadBlock::Blank));
    }
}
