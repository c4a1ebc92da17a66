//! Whether the records inside an unpacked batch are what its header says, quickly.
//!
//! A broker checks this at its edge: a checksum only proves that the bytes are the writer's, and a
//! batch with a record too few or a length that leads nowhere would stop every consumer for ever.
//! The walk looks at lengths and never at contents, takes the roads that honest records take, and
//! leaves whatever is odd to the iterator, which has the last word and the words for it.

use crate::batch::header::RECORD_BYTES_MIN;
use crate::batch::{BatchError, BatchView, Compression, HEADER_BYTES, UNPACKED_BYTES_MAX};

impl BatchView<'_> {
    /// Whether every record is sound and in its place, and nothing follows the last one. Packed
    /// records are not looked at, but they cannot be more than anybody would unpack: each is an
    /// offset that is gone for good.
    pub fn verify_records(&self) -> Result<(), BatchError> {
        let records = self.header().records();
        if self.header().compression() != Some(Compression::None) {
            let most = UNPACKED_BYTES_MAX as u32 / RECORD_BYTES_MIN;
            let what = "there is no room for it in what a batch may unpack to";
            return match records {
                records if records > most => Err(BatchError::Record { at: most, what }),
                _ => Ok(()),
            };
        }
        if certainly_sound(records, &self.bytes()[HEADER_BYTES..]).is_some() {
            return Ok(());
        }
        self.records()?.try_for_each(|record| record.map(|_| ()))
    }
}

/// `None` where a closer look is needed.
fn certainly_sound(records: u32, bytes: &[u8]) -> Option<()> {
    let mut at = 0;
    for place in 0..records {
        let (length, body) = length(bytes, at)?;
        let end = body + length;
        if end > bytes.len() || record(place, bytes, body)? != end {
            return None;
        }
        at = end;
    }
    (at == bytes.len()).then_some(())
}

/// Where a record ends that begins at `at`, its length taken off.
#[inline]
fn record(place: u32, bytes: &[u8], at: usize) -> Option<usize> {
    // Behind the attributes comes the timestamp: any number of up to nine bytes is one.
    let mut at = at + 1;
    let ninth = at + 8;
    while *bytes.get(at)? >= 0x80 {
        if at == ninth {
            return None;
        }
        at += 1;
    }
    let (offset_delta, at) = short(bytes, at + 1)?;
    if offset_delta != place.checked_mul(2)? {
        return None;
    }
    let at = nullable(bytes, at)?;
    let at = nullable(bytes, at)?;
    let (headers, mut at) = length(bytes, at)?;
    for _ in 0..headers {
        let (name, behind) = length(bytes, at)?;
        at = nullable(bytes, behind + name)?;
    }
    Some(at)
}

/// Where a nullable run of bytes ends. It may lie behind `bytes`: whoever reads on finds out.
#[inline]
fn nullable(bytes: &[u8], at: usize) -> Option<usize> {
    let (zig_zag, at) = short(bytes, at)?;
    match zig_zag {
        // -1, for null.
        1 => Some(at),
        negative if negative & 1 == 1 => None,
        length => Some(at + (length >> 1) as usize),
    }
}

/// A length that is not negative, and where what it counts begins.
#[inline]
fn length(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (zig_zag, at) = short(bytes, at)?;
    (zig_zag & 1 == 0).then_some(((zig_zag >> 1) as usize, at))
}

/// A varint of up to four bytes, its sign still folded in, and where it ends.
#[inline]
fn short(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    let first = u32::from(*bytes.get(at)?);
    if first < 0x80 {
        return Some((first, at + 1));
    }
    let mut value = first & 0x7f;
    for more in 1..4 {
        let byte = u32::from(*bytes.get(at + more)?);
        value |= (byte & 0x7f) << (7 * more);
        if byte < 0x80 {
            return Some((value, at + more + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, BuilderOptions, Header};
    use crate::ids::Timestamp;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn plain() -> impl Strategy<Value = Plain> {
        let bytes = || option::of(prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 60..200)]);
        let headers = vec((vec(any::<u8>(), 0..9), bytes()), 0..3);
        let time = prop_oneof![0..4_000_000_000_000_i64, -5_000..5_000_i64];
        (time, bytes(), bytes(), headers)
    }

    fn batch(records: &[Plain]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        for (time, key, value, headers) in records {
            let headers: Vec<Header<'_>> = headers
                .iter()
                .map(|(name, value)| Header { name, value: value.as_deref() })
                .collect();
            builder.push(Timestamp(*time), key.as_deref(), value.as_deref(), &headers);
        }
        builder.finish().to_vec()
    }

    /// What the iterator thinks.
    fn verdict(view: &BatchView<'_>) -> Result<(), BatchError> {
        view.records().expect("not packed").try_for_each(|record| record.map(|_| ()))
    }

    proptest! {
        #[test]
        fn honest_batches_pass_without_a_closer_look(records in vec(plain(), 1..40)) {
            let batch = batch(&records);
            let view = BatchView::parse(&batch).expect("our own");
            prop_assert_eq!(certainly_sound(view.header().records(), &batch[HEADER_BYTES..]), Some(()));
            prop_assert_eq!(view.verify_records(), Ok(()));
        }

        #[test]
        fn the_quick_look_never_passes_what_a_reader_would_stumble_over(
            records in vec(plain(), 1..6),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut batch = batch(&records);
            for (at, byte) in damage {
                let body = batch.len() - HEADER_BYTES;
                batch[HEADER_BYTES + at.index(body)] = byte;
            }
            let view = BatchView::parse(&batch).expect("the header is sound");
            prop_assert_eq!(view.verify_records(), verdict(&view));
        }

        #[test]
        fn no_bytes_make_the_quick_look_panic_or_pass_wrongly(
            count in 1..20_u32,
            body in vec(prop_oneof![Just(0_u8), Just(2), Just(0x0e), Just(0x80), any::<u8>()], 140..300),
        ) {
            let mut batch = batch(&[(0, None, None, Vec::new())]);
            batch.truncate(HEADER_BYTES);
            batch.extend_from_slice(&body);
            let length = batch.len() as u32 - 12;
            batch[8..12].copy_from_slice(&length.to_be_bytes());
            batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
            batch[57..61].copy_from_slice(&count.to_be_bytes());
            let view = BatchView::parse(&batch).expect("the header is sound");
            prop_assert_eq!(view.verify_records(), verdict(&view));
        }
    }

    #[test]
    fn a_count_that_differs_from_the_records_is_found_either_way() {
        let three = batch(&[(0, None, Some(vec![7; 9]), Vec::new()), (0, None, None, Vec::new())]);
        for count in [1_u32, 3] {
            let mut lying = three.clone();
            lying[23..27].copy_from_slice(&(count - 1).to_be_bytes());
            lying[57..61].copy_from_slice(&count.to_be_bytes());
            let view = BatchView::parse(&lying).expect("the header agrees with itself");
            assert!(matches!(view.verify_records(), Err(BatchError::Record { .. })), "{count}");
        }
    }
}
