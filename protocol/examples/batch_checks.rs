//! What it costs a broker to look into a batch, beside what it pays for it anyway: the checksum and
//! one copy. `cargo run --release -p highwater-protocol --example batch_checks`

use std::hint::black_box;
use std::time::Instant;

use highwater_protocol::batch::{BatchBuilder, BatchView, BuilderOptions, Header};
use highwater_protocol::ids::Timestamp;

fn main() {
    println!("bytes/record  records/batch  checksum ns  copy ns  records ns (iterator ns)");
    for (value_bytes, headers) in [(10, 0), (100, 0), (100, 2), (1024, 0), (10_240, 0)] {
        let batch = batch(value_bytes, headers);
        let view = BatchView::parse(&batch).expect("our own batch");
        let mut room = vec![0_u8; batch.len()];
        let checksum = ns(|| view.verify_checksum().is_ok());
        let copy = ns(|| {
            room.copy_from_slice(black_box(&batch));
            black_box(&room)[0] < 255
        });
        let quick = ns(|| view.verify_records().is_ok());
        let iterator = ns(|| view.records().expect("not packed").all(|record| record.is_ok()));
        let records = view.header().records();
        println!(
            "{:>12}  {records:>13}  {checksum:>11}  {copy:>7}  {quick:>10} ({iterator})",
            batch.len() / records as usize
        );
    }
}

/// A batch of about 16 KiB, the client's default.
fn batch(value_bytes: usize, headers: usize) -> Vec<u8> {
    let value = vec![7; value_bytes];
    let header = Header { name: b"trace-id", value: Some(b"0123456789abcdef") };
    let headers = vec![header; headers];
    let mut builder = BatchBuilder::new(BuilderOptions::default());
    let mut time = 0;
    while builder.push(Timestamp(time), Some(b"key-0001"), Some(&value), &headers) < 16 << 10 {
        time += 1;
    }
    builder.finish().to_vec()
}

/// The best of many rounds: what disturbs only ever adds.
fn ns(mut work: impl FnMut() -> bool) -> u128 {
    let mut best = u128::MAX;
    for _ in 0..200 {
        let begun = Instant::now();
        for _ in 0..50 {
            assert!(black_box(work()), "the batch is sound");
        }
        best = best.min(begun.elapsed().as_nanos() / 50);
    }
    best
}
