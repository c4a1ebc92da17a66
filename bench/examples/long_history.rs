//! Writes a history of as many operations as you like, to measure the checker with.
//!
//! `cargo run --release -p highwater-bench --example long_history -- FILE 10000000`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter};

use highwater_bench::history::file::Writer;
use highwater_bench::history::{Drained, Op, Outcome, Poll, PollKind, Process, Seen, Send};
use highwater_bench::workload::{Nanos, RecordId};
use highwater_client::{AckMode, Offset, PartitionId};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(count)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: long_history FILE OPERATIONS"));
    };
    let count: u64 = count.parse().map_err(io::Error::other)?;
    let mut writer = Writer::new(BufWriter::new(File::create(path)?))?;
    let mut logs: BTreeMap<u32, Vec<RecordId>> = BTreeMap::new();
    let mut sent: BTreeMap<u32, u64> = BTreeMap::new();
    let mut read: BTreeMap<u32, usize> = BTreeMap::new();
    for number in 0..count {
        let partition = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as u32;
        let log = logs.entry(partition).or_default();
        // One poll of what has come since for seven sends.
        if number % 8 == 7 {
            let from = read.insert(partition, log.len()).unwrap_or(0);
            writer.add(&polled(partition, PollKind::Tail, from, &log[from..], number))?;
            continue;
        }
        let producer = (number % 4) as u32;
        let sequence = sent.entry(producer).or_default();
        let (id, offset) = (RecordId::new(producer, *sequence), Offset(log.len() as u64));
        *sequence += 1;
        log.push(id);
        writer.add(&Op::Send(Send {
            process: Process(producer),
            partition: PartitionId(partition),
            id,
            acks: AckMode::SemiSync,
            invoke: Nanos(number * 1_000),
            complete: Nanos(number * 1_000 + 900),
            outcome: Outcome::Ok(offset),
        }))?;
    }
    for (partition, log) in &logs {
        for (at, some) in (0..).zip(log.chunks(500)) {
            writer.add(&polled(*partition, PollKind::Final, at * 500, some, count))?;
        }
        writer.add(&Op::Drained(Drained {
            process: Process(99),
            partition: PartitionId(*partition),
            kind: PollKind::Final,
            end: Offset(log.len() as u64),
            at: Nanos(count * 1_000),
        }))?;
    }
    writer.finish().map(drop)
}

fn polled(partition: u32, kind: PollKind, from: usize, records: &[RecordId], number: u64) -> Op {
    let seen = |(offset, id): (u64, &RecordId)| Seen { offset: Offset(offset), id: Some(*id) };
    Op::Poll(Poll {
        process: Process(if kind == PollKind::Final { 99 } else { 98 }),
        partition: PartitionId(partition),
        kind,
        invoke: Nanos(number * 1_000),
        complete: Nanos(number * 1_000 + 500),
        records: (from as u64..).zip(records).map(seen).collect(),
    })
}
