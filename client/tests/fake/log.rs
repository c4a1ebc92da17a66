//! One partition's log in memory, with the last five batches of each producer.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use highwater_client::{Offset, Receipt, Term};
use highwater_protocol::batch::{BatchView, Compression, HEADER_BYTES, ProducerStamp, stamp};
use highwater_protocol::error::{ErrorCode, WireError};
use highwater_protocol::ids::{ProducerEpoch, ProducerId};

#[derive(Default)]
pub struct Log {
    batches: Vec<(Offset, Bytes)>,
    end: Offset,
    pub start: Offset,
    producers: BTreeMap<ProducerId, Known>,
}

struct Known {
    epoch: ProducerEpoch,
    /// First sequence, sequence after the last, and base offset.
    last: VecDeque<(u32, u32, Offset)>,
}

impl Log {
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Appends a batch, or recognises it.
    pub fn append(&mut self, batch: &Bytes, term: Term) -> Result<Receipt, WireError> {
        let view = BatchView::parse(batch).expect("the client sends whole batches");
        view.verify_checksum().expect("the client sends right checksums");
        let header = *view.header();
        let receipt = |base_offset| Receipt {
            base_offset,
            term,
            replicas: 3,
            flushed: 3,
            log_append_time: None,
        };
        let producer = header.producer().expect("the client is idempotent");
        if let Some(base) = self.check(producer, header.records())? {
            return Ok(receipt(base));
        }
        let base = self.end;
        let mut bytes = BytesMut::from(&batch[..]);
        stamp(bytes.first_chunk_mut::<HEADER_BYTES>().expect("whole"), base, term);
        self.batches.push((base, bytes.freeze()));
        self.end = base.advance(u64::from(header.records()));
        let known = self.producers.get_mut(&producer.id).expect("made by the check");
        let next = (producer.base_sequence + header.records()) & 0x7fff_ffff;
        known.last.push_back((producer.base_sequence, next, base));
        if known.last.len() > 5 {
            known.last.pop_front();
        }
        Ok(receipt(base))
    }

    /// Kafka's rules; gives the first offset of a repeated batch.
    fn check(&mut self, stamp: ProducerStamp, records: u32) -> Result<Option<Offset>, WireError> {
        let refuse = |code, text: String| Err(WireError::new(code, text));
        let ProducerStamp { id, epoch, base_sequence } = stamp;
        let next = (base_sequence + records) & 0x7fff_ffff;
        let Some(known) = self.producers.get_mut(&id) else {
            if base_sequence != 0 {
                return refuse(ErrorCode::UnknownProducer, format!("producer {id} is unknown"));
            }
            self.producers.insert(id, Known { epoch, last: VecDeque::new() });
            return Ok(None);
        };
        if epoch < known.epoch {
            return refuse(ErrorCode::ProducerFenced, format!("epoch {epoch} is over"));
        }
        if epoch > known.epoch {
            if base_sequence != 0 {
                return refuse(ErrorCode::OutOfOrderSequence, "a new epoch starts at 0".into());
            }
            *known = Known { epoch, last: VecDeque::new() };
            return Ok(None);
        }
        let same = |held: &&(u32, u32, Offset)| (held.0, held.1) == (base_sequence, next);
        if let Some((_, _, base)) = known.last.iter().find(same) {
            return Ok(Some(*base));
        }
        let expected = known.last.back().map_or(0, |(_, next, _)| *next);
        if base_sequence != expected {
            let text = format!("sequence {base_sequence} where {expected} is next");
            return refuse(ErrorCode::OutOfOrderSequence, text);
        }
        Ok(None)
    }

    /// Loses everything from the last `batches` on, with what producers wrote there, as an
    /// uncommitted tail is lost in a failover.
    pub fn lose_tail(&mut self, batches: usize) {
        for _ in 0..batches {
            let Some((base, _)) = self.batches.pop() else { return };
            self.end = base;
            for known in self.producers.values_mut() {
                known.last.retain(|(_, _, offset)| *offset < base);
            }
        }
    }

    /// Whole batches from the one that holds `from`.
    pub fn read(&self, from: Offset, bytes_max: usize) -> Vec<Bytes> {
        let first = self.batches.partition_point(|(base, _)| *base <= from).saturating_sub(1);
        let mut bytes = 0;
        let mut read = Vec::new();
        for (_, batch) in self.batches[first..].iter().filter(|_| from < self.end) {
            if bytes > 0 && bytes + batch.len() > bytes_max {
                break;
            }
            bytes += batch.len();
            read.push(batch.clone());
        }
        read
    }

    pub fn values(&self) -> Vec<String> {
        let mut values = Vec::new();
        for (_, batch) in &self.batches {
            let view = BatchView::parse(batch).expect("parsed before");
            let plain = view.unpacked(1 << 20).expect("packed by the client");
            let view = plain.as_ref().map_or(view, |it| BatchView::parse(it).expect("a batch"));
            for record in view.records().expect("not packed") {
                let value = record.expect("whole records").value.expect("tests send values");
                values.push(String::from_utf8(value.to_vec()).expect("tests send text"));
            }
        }
        values
    }

    pub fn codecs(&self) -> Vec<Compression> {
        let codec = |(_, batch): &(_, Bytes)| {
            let header = *BatchView::parse(batch).expect("parsed before").header();
            header.compression().expect("one that is defined")
        };
        self.batches.iter().map(codec).collect()
    }

    pub fn batches(&self) -> usize {
        self.batches.len()
    }
}
