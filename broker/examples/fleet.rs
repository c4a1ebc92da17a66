//! Plays the controller of a whole fleet in one thread and says what everything costs.
//!
//! `cargo run --release -p highwater-broker --features sim --example fleet -- --brokers 100 --topics 100 --partitions 100`

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::Parser;
use highwater_broker::disk::mmap::MmapDisk;
use highwater_broker::node::snapshot::{self, Snapshot};
use highwater_broker::sim::fleet::story::{self, Size, Story};
use highwater_protocol::ids::Offset;

/// The controller of a whole fleet, from a seed.
#[derive(Parser)]
struct Args {
    /// The seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Brokers, in ten racks.
    #[arg(long, default_value_t = 100)]
    brokers: u32,
    /// Topics.
    #[arg(long, default_value_t = 100)]
    topics: u32,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 100)]
    partitions: u32,
    /// For how many rounds of 100 ms the storm blows.
    #[arg(long, default_value_t = 600)]
    storm: u64,
}

fn main() {
    let Args { seed, brokers, topics, partitions, storm } = Args::parse();
    let size = Size { brokers, topics, partitions_each: partitions, storm_rounds: storm };
    let began = Instant::now();
    let told = story::play(seed, size, since_start);
    for chapter in &told.chapters {
        println!("{}: {} records", chapter.title, chapter.records);
        for (act, cost) in &chapter.costs {
            let mean = cost.took / u32::try_from(cost.times).unwrap_or(u32::MAX).max(1);
            println!(
                "  {:8} {:>8} times, {mean:>10.1?} each, longest {:>10.1?}, all {:.2?}",
                format!("{act:?}"),
                cost.times,
                cost.worst,
                cost.took
            );
        }
    }
    println!("{:#?}", told.seen);
    save_and_load(&told);
    println!("all of it took {:.1?}", began.elapsed());
}

/// The image as the file that a broker starts with.
fn save_and_load(told: &Story) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let saved = Snapshot { image: told.image.clone(), applied: Offset(1) };
    let began = Instant::now();
    snapshot::save(&MmapDisk::default(), dir.path(), &saved).expect("the image can be saved");
    let took = began.elapsed();
    let bytes = std::fs::metadata(dir.path().join("cluster.image")).map_or(0, |file| file.len());
    let began = Instant::now();
    let loaded = snapshot::load(&MmapDisk::default(), dir.path()).expect("the image can be read");
    let load = began.elapsed();
    assert!(loaded.as_ref() == Some(&saved), "an image is loaded as it was saved");
    println!(
        "image: {} partitions, {} bytes as records, {bytes} as a file; saved in {took:.1?}, loaded in {load:.1?}",
        told.image.partitions(),
        told.image_bytes
    );
}

fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
