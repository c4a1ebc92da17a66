//! The codecs of packed records, as Kafka's clients write and read them.
//!
//! Whatever the bytes say, unpacking stops at the bound that the caller names: a few KiB of zeros
//! well packed are gigabytes. Each codec can be left out of a build; one that was is an error where
//! it is met, never other bytes.
//!
//! * gzip: one or more members. zstd and LZ4: frames; LZ4 ones with blocks of 64 KiB that do not
//!   lean on each other, which is all that Java reads.
//! * Snappy: the framing of snappy-java, blocks of 32 KiB behind their lengths; what does not begin
//!   with its magic is read as one raw block, as Java does.

use std::io::{self, Read};

use crate::batch::{BatchError, Compression};

/// A batch's records never unpack to more than this: what brokers take a record count by, and
/// readers' bound where they name no smaller one.
pub const UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Compression {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The codec of that name.
    pub fn named(name: &str) -> Option<Compression> {
        Compression::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Whether this program was built with it.
    pub fn is_built(self) -> bool {
        match self {
            Compression::None => true,
            Compression::Gzip => cfg!(feature = "gzip"),
            Compression::Snappy => cfg!(feature = "snappy"),
            Compression::Lz4 => cfg!(feature = "lz4"),
            Compression::Zstd => cfg!(feature = "zstd"),
        }
    }

    /// The codec for the number in the attributes.
    pub(crate) fn from_number(number: u16) -> Option<Compression> {
        Compression::ALL.get(usize::from(number)).copied()
    }

    /// Its number in the attributes.
    pub(crate) fn number(self) -> u16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// `records` packed, behind `room` bytes of zeros for a header; nothing where that saves no byte.
pub(super) fn pack(codec: Compression, records: &[u8], room: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(room + records.len() / 2);
    out.resize(room, 0);
    match codec {
        Compression::None => return None,
        Compression::Gzip => gzip::pack(records, &mut out),
        Compression::Snappy => snappy::pack(records, &mut out),
        Compression::Lz4 => lz4::pack(records, &mut out),
        Compression::Zstd => zstd::pack(records, &mut out),
    }
    .expect("memory takes what is written to it, and builders ask for codecs that are built");
    (out.len() < room + records.len()).then_some(out)
}

/// Unpacks to the end of `out`: no more than `bytes_max` bytes, and no more memory than these and
/// the codec's own window of a few MiB.
pub(super) fn unpack(
    codec: Compression,
    packed: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let bound = Bound { bytes_max, packed_bytes: packed.len() };
    let unpacked = match codec {
        Compression::None => return Err(BatchError::Packed { codec, why: "they are not".into() }),
        Compression::Gzip => gzip::unpack(packed, bound, out),
        Compression::Snappy => snappy::unpack(packed, bound, out),
        Compression::Lz4 => lz4::unpack(packed, bound, out),
        Compression::Zstd => zstd::unpack(packed, bound, out),
    };
    unpacked.map_err(|why| match why {
        Trouble::TooLarge => BatchError::TooLarge { codec, bytes_max },
        Trouble::NotBuilt => BatchError::NotBuilt(codec),
        Trouble::Damaged(why) => BatchError::Packed { codec, why },
    })
}

/// Why bytes were not unpacked.
enum Trouble {
    TooLarge,
    #[cfg_attr(
        all(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"),
        expect(dead_code, reason = "every codec is built")
    )]
    NotBuilt,
    Damaged(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Damaged(error.to_string())
    }
}

#[derive(Clone, Copy)]
struct Bound {
    bytes_max: usize,
    packed_bytes: usize,
}

impl Bound {
    /// Reads `source` to its end. Memory is made in steps, no byte beyond the bound.
    #[cfg_attr(not(any(feature = "gzip", feature = "lz4", feature = "zstd")), expect(dead_code))]
    fn read(self, source: &mut dyn Read, out: &mut Vec<u8>) -> Result<(), Trouble> {
        let start = out.len();
        loop {
            let held = out.len() - start;
            let step = held.max(self.packed_bytes.saturating_mul(3)).max(STEP_BYTES_MIN);
            let step = step.min(self.bytes_max - held);
            if step == 0 {
                return match source.read(&mut [0])? {
                    0 => Ok(()),
                    _ => Err(Trouble::TooLarge),
                };
            }
            out.reserve_exact(step);
            if source.take(step as u64).read_to_end(out)? < step {
                return Ok(());
            }
        }
    }
}

/// A batch is one run of packed bytes, and nothing behind it.
#[cfg_attr(not(any(feature = "snappy", feature = "lz4", feature = "zstd")), expect(dead_code))]
fn at_end(left: &[u8]) -> Result<(), Trouble> {
    match left.len() {
        0 => Ok(()),
        left => Err(Trouble::Damaged(format!("{left} bytes follow the last frame"))),
    }
}

#[cfg(feature = "gzip")]
mod gzip {
    use super::*;

    pub(super) fn pack(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let level = flate2::Compression::default();
        let mut encoder = flate2::write::GzEncoder::new(out, level);
        io::Write::write_all(&mut encoder, records)?;
        encoder.finish().map(drop)
    }

    pub(super) fn unpack(packed: &[u8], bound: Bound, out: &mut Vec<u8>) -> Result<(), Trouble> {
        bound.read(&mut flate2::bufread::MultiGzDecoder::new(packed), out)
    }
}

#[cfg(feature = "snappy")]
mod snappy {
    use super::*;

    /// The magic of snappy-java, its version and the oldest version that reads it.
    const MAGIC: &[u8; 16] = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";
    const MAGIC_BYTES: usize = 8;
    const BLOCK_BYTES: usize = 32 * 1024;

    pub(super) fn pack(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut encoder = snap::raw::Encoder::new();
        out.extend_from_slice(MAGIC);
        for block in records.chunks(BLOCK_BYTES) {
            let length_at = out.len();
            let block_at = length_at + 4;
            out.resize(block_at + snap::raw::max_compress_len(block.len()), 0);
            let bytes = encoder.compress(block, &mut out[block_at..])?;
            out[length_at..block_at].copy_from_slice(&(bytes as u32).to_be_bytes());
            out.truncate(block_at + bytes);
        }
        Ok(())
    }

    pub(super) fn unpack(packed: &[u8], bound: Bound, out: &mut Vec<u8>) -> Result<(), Trouble> {
        let end = out.len() + bound.bytes_max;
        // The versions behind the magic have never changed what follows.
        if packed.len() < MAGIC.len() || packed[..MAGIC_BYTES] != MAGIC[..MAGIC_BYTES] {
            return block(packed, end, out);
        }
        let mut rest = &packed[MAGIC.len()..];
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let cut = || Trouble::Damaged("a block ends behind the batch".into());
            let (packed, behind) = behind.split_at_checked(length).ok_or_else(cut)?;
            block(packed, end, out)?;
            rest = behind;
        }
        at_end(rest)
    }

    fn block(packed: &[u8], end: usize, out: &mut Vec<u8>) -> Result<(), Trouble> {
        let damaged = |error: snap::Error| Trouble::Damaged(error.to_string());
        let bytes = snap::raw::decompress_len(packed).map_err(damaged)?;
        let at = out.len();
        if bytes > end - at {
            return Err(Trouble::TooLarge);
        }
        out.resize(at + bytes, 0);
        snap::raw::Decoder::new().decompress(packed, &mut out[at..]).map_err(damaged)?;
        Ok(())
    }
}

#[cfg(feature = "lz4")]
mod lz4 {
    use super::*;
    use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

    pub(super) fn pack(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let info =
            FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
        let mut encoder = FrameEncoder::with_frame_info(info, out);
        io::Write::write_all(&mut encoder, records)?;
        encoder.finish().map(drop).map_err(io::Error::from)
    }

    pub(super) fn unpack(packed: &[u8], bound: Bound, out: &mut Vec<u8>) -> Result<(), Trouble> {
        let mut decoder = FrameDecoder::new(packed);
        bound.read(&mut decoder, out)?;
        at_end(decoder.get_ref())
    }
}

#[cfg(feature = "zstd")]
mod zstd {
    use super::*;

    /// What Kafka's clients take where nobody says otherwise.
    const LEVEL: i32 = 3;

    pub(super) fn pack(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut encoder = ::zstd::bulk::Compressor::new(LEVEL)?;
        let at = out.len();
        out.resize(at + ::zstd::zstd_safe::compress_bound(records.len()), 0);
        let bytes = encoder.compress_to_buffer(records, &mut out[at..])?;
        out.truncate(at + bytes);
        Ok(())
    }

    pub(super) fn unpack(packed: &[u8], bound: Bound, out: &mut Vec<u8>) -> Result<(), Trouble> {
        let mut decoder = ::zstd::stream::read::Decoder::with_buffer(packed)?;
        bound.read(&mut decoder, out)?;
        at_end(decoder.get_ref())
    }
}

macro_rules! left_out {
    ($($feature:literal $module:ident),*) => {$(
        #[cfg(not(feature = $feature))]
        mod $module {
            use super::*;

            pub(super) fn pack(_: &[u8], _: &mut Vec<u8>) -> io::Result<()> {
                Err(io::ErrorKind::Unsupported.into())
            }

            pub(super) fn unpack(_: &[u8], _: Bound, _: &mut Vec<u8>) -> Result<(), Trouble> {
                Err(Trouble::NotBuilt)
            }
        }
    )*};
}

left_out!("gzip" gzip, "snappy" snappy, "lz4" lz4, "zstd" zstd);

/// The first step of memory; most batches fit into it.
const STEP_BYTES_MIN: usize = 64 * 1024;
