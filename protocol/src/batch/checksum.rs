//! CRC-32C, the checksum of record batches and of everything that Highwater writes to disk.

use crc_fast::{CrcAlgorithm, Digest, checksum};

/// The CRC-32C (Castagnoli) of some bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    narrow(checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// The CRC-32C of several parts as if they were one.
pub fn crc32c_of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    narrow(digest.finalize())
}

fn narrow(sum: u64) -> u32 {
    u32::try_from(sum).expect("a 32-bit checksum fits 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_check_value_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_of_parts([&b"1234"[..], b"56789"]), 0xE306_9283);
    }
}
