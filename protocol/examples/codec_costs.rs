//! What a codec costs and saves on a producer's usual batch: 64 KiB of 1 KiB records, of events as
//! programs write them and of bytes at random.
//! `cargo run --release -p highwater-protocol --example codec_costs`

use std::hint::black_box;
use std::time::Instant;

use highwater_protocol::batch::{
    BatchBuilder, BatchView, BuilderOptions, Compression, UNPACKED_BYTES_MAX,
};
use highwater_protocol::ids::Timestamp;

fn main() {
    println!("records   codec    bytes of 64 KiB   pack MB/s   unpack MB/s");
    for (kind, record) in [("events", events as fn(u64) -> Vec<u8>), ("random", random)] {
        for codec in Compression::ALL {
            let packed = batch(record, codec).finish();
            let view = BatchView::parse(&packed).expect("our own batch");
            let plain = batch(record, Compression::None).bytes() as f64;
            // Filling the buffer is no part of it.
            let filled = || batch(record, codec);
            let pack = best(filled, |builder| builder.finish().len());
            let unpacked = || view.unpacked(UNPACKED_BYTES_MAX).expect("our own batch");
            let unpack =
                unpacked().is_some().then(|| best(|| (), |()| unpacked().map_or(0, |it| it.len())));
            let speed = |seconds: f64| plain / seconds / 1e6;
            let unpack = unpack.map_or("-".to_owned(), |unpack| format!("{:.0}", speed(unpack)));
            let (name, bytes, pack) = (codec.name(), packed.len(), speed(pack));
            println!("{kind:<8}  {name:<7}  {bytes:>15}  {pack:>10.0}  {unpack:>12}");
        }
    }
}

fn batch(record: fn(u64) -> Vec<u8>, compression: Compression) -> BatchBuilder {
    let options = BuilderOptions { compression, ..BuilderOptions::default() };
    let mut builder = BatchBuilder::new(options);
    let mut number = 0;
    while builder.bytes() < 63 << 10 {
        builder.push(Timestamp(number as i64), None, Some(&record(number)), &[]);
        number += 1;
    }
    builder
}

fn events(number: u64) -> Vec<u8> {
    let mut text = String::new();
    for line in 0.. {
        let id = mix(number * 100 + line);
        text.push_str(&format!(
            r#"{{"id":"{id:016x}","type":"order.created","customer":{},"amount":{}.{:02},"currency":"EUR"}}"#,
            id % 100_000,
            id % 977,
            id % 100,
        ));
        if text.len() > 1024 {
            break;
        }
    }
    text.truncate(1024);
    text.into_bytes()
}

fn random(number: u64) -> Vec<u8> {
    (0..128).flat_map(|word| mix(number * 128 + word).to_le_bytes()).collect()
}

/// Numbers that look random: the finalizer of splitmix64.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Seconds of the best of many rounds: what disturbs only ever adds.
fn best<T>(mut prepare: impl FnMut() -> T, mut work: impl FnMut(T) -> usize) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..300 {
        let prepared = prepare();
        let begun = Instant::now();
        black_box(work(black_box(prepared)));
        best = best.min(begun.elapsed().as_secs_f64());
    }
    best
}
