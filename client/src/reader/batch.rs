//! Fetched records, checked once and then borrowed.
//!
//! Checksums, structure and the run of the offsets are checked when a fetch comes in, on the
//! fetcher's task, so that going over the records afterwards cannot fail. Packed batches are unpacked
//! there, too, one by one while there is room: what was sent in a few KiB may be many MiB.

use std::ops::Range;

use bytes::Bytes;
use highwater_protocol::batch::{BatchError, BatchView, Compression, Records, frames};
pub use highwater_protocol::batch::{Header as ReceivedHeader, Record as ReceivedRecord};
use highwater_protocol::ids::{Offset, PartitionId};

use crate::error::{Error, ErrorKind};
use crate::reader::position::Stint;
use crate::record::{Record, TopicName};

/// Consecutive records of one partition, at least one. It begins behind the batch before it, unless records
/// between them are lost for good and were given up (`hw partition repair --accept-loss`), which is logged.
///
/// Records borrow from the fetched bytes; [`RecordBatch::slice`] keeps a part without copying.
#[derive(Debug, Clone)]
pub struct RecordBatch {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: PartitionId,
    /// The end of what could be read when this was fetched: the lag is its distance from
    /// [`RecordBatch::next_offset`].
    pub high_watermark: Offset,
    batches: Vec<Bytes>,
    from: Offset,
    to: Offset,
    /// For which assignment of its partition it was fetched, where that matters.
    stint: Stint,
}

/// The bounds of what is wanted of a fetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) from: Offset,
    pub(super) until: Option<Offset>,
    /// No packed batch is opened after this many bytes.
    pub(super) room: usize,
    /// A packed batch may become this many bytes.
    pub(super) unpacked_bytes_max: usize,
}

/// What fetched bytes came to.
#[derive(Debug)]
pub(super) struct Checked {
    /// What of it was wanted, if anything.
    pub(super) batch: Option<RecordBatch>,
    /// Where to go on.
    pub(super) next: Offset,
}

impl RecordBatch {
    /// Checks fetched bytes. Records that were given up are passed over.
    pub(super) fn check(
        topic: &TopicName,
        partition: PartitionId,
        high_watermark: Offset,
        fetched: &[Bytes],
        wanted: Wanted,
    ) -> Result<Checked, Error> {
        let bad = |what: String| {
            let text = format!("what was fetched of {topic}/{partition} is damaged: {what}");
            Error::new(ErrorKind::Malformed, text)
        };
        let (mut batches, stint) = (Vec::new(), Stint::default());
        let (mut from, mut next, mut taken) = (wanted.from, wanted.from, 0);
        'fetched: for chunk in fetched {
            for frame in frames(chunk) {
                let (header, bytes) = frame.map_err(|error| bad(error.to_string()))?;
                let end = header.base_offset.advance(u64::from(header.records()));
                if end <= next {
                    continue; // Behind us: the broker began with an older batch.
                }
                if header.base_offset > next {
                    let first = next == from && batches.is_empty();
                    let said = if first { "was asked for, not" } else { "is followed by" };
                    return Err(bad(format!("offset {next} {said} {}", header.base_offset)));
                }
                if header.is_gap() && !batches.is_empty() {
                    break 'fetched; // A batch of records is consecutive.
                }
                if header.is_gap() {
                    header.verify_checksum(bytes).map_err(|error| bad(error.to_string()))?;
                    from = wanted.until.map_or(end, |until| until.min(end));
                    let lost = from.since(next);
                    tracing::warn!(%topic, %partition, from = %next, lost, "records were given up");
                    next = from;
                    if wanted.until.is_some_and(|until| until <= next) {
                        break 'fetched;
                    }
                    continue;
                }
                if taken >= wanted.room && header.compression() != Some(Compression::None) {
                    break 'fetched; // It is fetched again when there is room.
                }
                let batch = match checked(bytes, wanted.unpacked_bytes_max) {
                    Ok(plain) => plain.unwrap_or_else(|| chunk.slice_ref(bytes)),
                    // What is good before it is handed out first.
                    Err(_) if !batches.is_empty() => break 'fetched,
                    Err(error) => return Err(unreadable(topic, partition, next..end, &error)),
                };
                taken += batch.len();
                batches.push(batch);
                next = end;
                if wanted.until.is_some_and(|until| until <= next) {
                    break 'fetched;
                }
            }
        }
        let (topic, to) = (topic.clone(), wanted.until.map_or(next, |until| until.min(next)));
        let batch = RecordBatch { topic, partition, high_watermark, batches, from, to, stint };
        Ok(Checked { batch: (from < to).then_some(batch), next: to.max(from) })
    }

    /// The same, fetched for an assignment of its partition.
    pub(crate) fn of_stint(self, stint: Stint) -> RecordBatch {
        RecordBatch { stint, ..self }
    }

    /// For which assignment it was fetched.
    pub(crate) fn stint(&self) -> Stint {
        self.stint
    }

    /// The records in order.
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { batches: self.batches.iter(), records: None, from: self.from, to: self.to }
    }

    /// How many records there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.to.since(self.from) as usize
    }

    /// The offset of the first record.
    pub fn first_offset(&self) -> Offset {
        self.from
    }

    /// The offset after the last record: where to go on.
    pub fn next_offset(&self) -> Offset {
        self.to
    }

    /// The same record for another topic, with its key, value, headers and time, without copying: as for
    /// [`RecordBatch::slice`], all that was fetched together stays in memory until it is sent.
    ///
    /// ```no_run
    /// # use highwater_client::{Error, Producer, RecordBatch};
    /// # async fn run(batch: RecordBatch, producer: Producer) -> Result<(), Error> {
    /// for record in &batch {
    ///     let copy = batch.forward(&record, "archive").header("from", batch.topic.to_string());
    ///     let _delivery = producer.send(copy).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Panics
    /// If the record does not lie within this batch.
    pub fn forward(&self, record: &ReceivedRecord<'_>, topic: impl Into<TopicName>) -> Record {
        let slice = |part: &[u8]| self.slice(part);
        let header = |it: ReceivedHeader<'_>| (slice(it.name), it.value.map(slice));
        Record {
            key: record.key.map(slice),
            value: record.value.map(slice),
            headers: record.headers().map(header).collect(),
            timestamp: Some(record.timestamp),
            ..Record::to(topic)
        }
    }

    /// Marking is about what lies in the batch.
    pub(crate) fn must_reach(&self, offset: Offset) {
        assert!(offset <= self.to, "offset {offset} lies behind the batch");
        assert!(offset >= self.from, "offset {offset} lies before the batch");
    }

    /// `part` of a record of this batch as `Bytes`, without copying. It keeps all that was fetched
    /// together in memory; copy what lives long.
    ///
    /// # Panics
    /// If `part` does not lie within this batch.
    pub fn slice(&self, part: &[u8]) -> Bytes {
        if part.is_empty() {
            return Bytes::new();
        }
        let inside = |batch: &&Bytes| batch.as_ptr_range().contains(&part.as_ptr());
        let batch = self.batches.iter().find(inside).expect("the part lies within this batch");
        batch.slice_ref(part)
    }

    /// Records of `topic`/0, each with its offset as value.
    #[cfg(test)]
    pub(crate) fn for_tests(topic: &str, offsets: Range<u64>) -> RecordBatch {
        let wanted = Wanted {
            from: Offset(offsets.start),
            until: None,
            room: usize::MAX,
            unpacked_bytes_max: usize::MAX,
        };
        let bytes = tests::batch(offsets.start, offsets.end - offsets.start);
        let (topic, fetched) = (TopicName::from(topic), [Bytes::from(bytes)]);
        let end = Offset(offsets.end);
        let checked = RecordBatch::check(&topic, PartitionId(0), end, &fetched, wanted);
        checked.expect("it is good").batch.expect("it is not empty")
    }

    /// Bytes that are kept of it.
    pub(crate) fn bytes(&self) -> usize {
        self.batches.iter().map(Bytes::len).sum()
    }
}

/// The records of a [`RecordBatch`] in order.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    batches: std::slice::Iter<'a, Bytes>,
    records: Option<Records<'a>>,
    from: Offset,
    to: Offset,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = ReceivedRecord<'a>;

    fn next(&mut self) -> Option<ReceivedRecord<'a>> {
        loop {
            let Some(record) = self.records.as_mut().and_then(Iterator::next) else {
                let view = BatchView::parse(self.batches.next()?).expect(CHECKED);
                self.records = Some(view.records().expect(CHECKED));
                continue;
            };
            let record = record.expect(CHECKED);
            if record.offset >= self.to {
                return None;
            }
            if record.offset >= self.from {
                return Some(record);
            }
        }
    }
}

impl<'a> IntoIterator for &'a RecordBatch {
    type Item = ReceivedRecord<'a>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// Checks a batch to its last record; gives another one in its place where it is packed.
fn checked(bytes: &[u8], unpacked_bytes_max: usize) -> Result<Option<Bytes>, BatchError> {
    let view = BatchView::parse(bytes)?;
    view.verify_checksum()?;
    let plain = view.unpacked(unpacked_bytes_max)?;
    let view = plain.as_ref().map_or(Ok(view), |plain| BatchView::parse(plain))?;
    view.records()?.try_for_each(|record| record.map(drop))?;
    Ok(plain)
}

fn unreadable(
    topic: &TopicName,
    partition: PartitionId,
    Range { start, end }: Range<Offset>,
    error: &BatchError,
) -> Error {
    let way_out = match error {
        BatchError::TooLarge { .. } => "raise unpacked_bytes_max, or go on",
        BatchError::NotBuilt(_) => "build it with that feature of the client, or go on",
        BatchError::Short { .. }
        | BatchError::Trailing(_)
        | BatchError::Magic(_)
        | BatchError::Length(_)
        | BatchError::Counts { .. }
        | BatchError::Producer { .. }
        | BatchError::Checksum { .. }
        | BatchError::Kind(_)
        | BatchError::Codec(_)
        | BatchError::StillPacked(_)
        | BatchError::Packed { .. }
        | BatchError::Record { .. }
        | BatchError::Mark(_) => "it is damaged, or was written so; go on",
    };
    let text =
        format!("cannot read {topic}/{partition} at offset {start}: {error}; {way_out} at {end}");
    Error::new(ErrorKind::Malformed, text)
}

const CHECKED: &str = "every record was checked when it was fetched";

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_protocol::batch::{BatchBuilder, BuilderOptions, Gap, HEADER_BYTES, stamp};
    use highwater_protocol::ids::{Term, Timestamp};

    /// A batch of `count` records from offset `base`, each with its offset as value.
    pub(super) fn batch(base: u64, count: u64) -> Vec<u8> {
        packed(base, count, Compression::None)
    }

    fn packed(base: u64, count: u64, compression: Compression) -> Vec<u8> {
        let options = BuilderOptions { compression, ..BuilderOptions::default() };
        let mut builder = BatchBuilder::new(options);
        for offset in base..base + count {
            builder.push(Timestamp(7), None, Some(offset.to_string().as_bytes()), &[]);
        }
        let mut bytes = builder.finish().to_vec();
        let header = bytes.first_chunk_mut::<HEADER_BYTES>().expect("a whole batch");
        stamp(header, Offset(base), Term(1));
        bytes
    }

    fn check(fetched: Vec<u8>, from: u64, until: Option<u64>) -> Result<Vec<u64>, Error> {
        check_within((usize::MAX, 1 << 20), fetched, from, until)
    }

    fn check_within(
        (room, unpacked_bytes_max): (usize, usize),
        fetched: Vec<u8>,
        from: u64,
        until: Option<u64>,
    ) -> Result<Vec<u64>, Error> {
        let (from, until) = (Offset(from), until.map(Offset));
        let wanted = Wanted { from, until, room, unpacked_bytes_max };
        let fetched = [Bytes::from(fetched)];
        let topic = TopicName::from("t");
        let checked = RecordBatch::check(&topic, PartitionId(0), Offset(99), &fetched, wanted)?;
        let Some(batch) = checked.batch else { return Ok(Vec::new()) };
        let offsets: Vec<u64> = batch.iter().map(|record| record.offset.0).collect();
        assert_eq!(offsets.len(), batch.len());
        assert_eq!(batch.first_offset(), Offset(offsets[0]));
        let text = batch.iter().next().and_then(|record| record.value).expect("a value");
        assert_eq!(batch.slice(text), offsets[0].to_string().as_bytes());
        Ok(offsets)
    }

    #[test]
    fn records_before_the_position_and_behind_the_end_are_left_out() {
        let two = [batch(10, 5), batch(15, 5)].concat();
        assert_eq!(check(two.clone(), 10, None).expect("good"), (10..20).collect::<Vec<_>>());
        assert_eq!(check(two.clone(), 13, Some(16)).expect("good"), [13, 14, 15]);
        assert_eq!(check(two.clone(), 17, None).expect("good"), [17, 18, 19]);
        assert_eq!(check(two, 20, None).expect("good"), Vec::<u64>::new());
    }

    #[test]
    fn packed_batches_are_read_like_plain_ones() {
        for codec in Compression::ALL {
            let mixed = [packed(10, 50, codec), batch(60, 5), packed(65, 50, codec)].concat();
            assert_eq!(check(mixed, 12, Some(70)).expect("good"), (12..70).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_more_is_unpacked_than_there_is_room_for() {
        let two = [packed(0, 500, Compression::Zstd), packed(500, 500, Compression::Zstd)].concat();
        let some = check_within((1, 1 << 20), two.clone(), 0, None).expect("good");
        assert_eq!(some.len(), 500, "the second one comes with another fetch");
        assert_eq!(check_within((0, 1 << 20), two.clone(), 0, None).expect("good"), []);
        let error = check_within((1, 100), two, 0, None).expect_err("over the bound").to_string();
        assert!(error.contains("t/0 at offset 0"), "{error}");
        assert!(error.contains("unpacked_bytes_max, or go on at 500"), "{error}");
    }

    #[test]
    fn a_gap_is_an_error_and_not_passed_over() {
        let gap = [batch(10, 2), batch(13, 2)].concat();
        let error = check(gap, 10, None).expect_err("12 is missing");
        assert!(error.to_string().contains("offset 12 is followed by 13"), "{error}");
        check(batch(11, 2), 10, None).expect_err("10 is missing");
    }

    #[test]
    fn what_was_given_up_is_passed_over_and_no_batch_reaches_across_it() {
        let lost = Gap {
            base_offset: Offset(12),
            term: Term(1),
            records: 3,
            frame_bytes: 200,
            max_timestamp: Timestamp(7),
            producer: None,
        };
        let all = [batch(10, 2), lost.encode().to_vec(), batch(15, 2)].concat();
        assert_eq!(check(all.clone(), 10, None).expect("good"), [10, 11]);
        assert_eq!(check(all.clone(), 12, None).expect("good"), [15, 16]);
        assert_eq!(check(all, 13, Some(16)).expect("good"), [15]);
        let wanted =
            Wanted { from: Offset(12), until: Some(Offset(14)), room: 1, unpacked_bytes_max: 1 };
        let (topic, fetched) = (TopicName::from("t"), [lost.encode()]);
        let checked = RecordBatch::check(&topic, PartitionId(0), Offset(99), &fetched, wanted);
        let checked = checked.expect("good");
        assert!(checked.batch.is_none() && checked.next == Offset(14), "{checked:?}");
    }

    #[test]
    fn a_record_is_forwarded_with_all_that_belongs_to_it() {
        let header = ReceivedHeader { name: b"trace", value: Some(b"42") };
        let mut builder = BatchBuilder::new(BuilderOptions::default());
        builder.push(Timestamp(7), Some(b"k"), None, &[header]);
        builder.push(Timestamp(8), None, Some(b""), &[]);
        let fetched = [Bytes::from(builder.finish().to_vec())];
        let topic = TopicName::from("t");
        let wanted =
            Wanted { from: Offset(0), until: None, room: 1, unpacked_bytes_max: usize::MAX };
        let checked = RecordBatch::check(&topic, PartitionId(3), Offset(2), &fetched, wanted);
        let batch = checked.expect("good").batch.expect("not empty");
        let copies: Vec<Record> = batch.iter().map(|it| batch.forward(&it, "copy")).collect();
        let first = Record::to("copy").key("k").header("trace", "42").timestamp(Timestamp(7));
        let second = Record::to("copy").value("").timestamp(Timestamp(8));
        assert_eq!(copies, [first, second], "the partition is chosen anew");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut bytes = batch(0, 3);
        *bytes.last_mut().expect("not empty") ^= 1;
        assert_eq!(check(bytes, 0, None).expect_err("damaged").kind(), ErrorKind::Malformed);
    }
}
