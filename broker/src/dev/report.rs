//! What `highwater dev` tells the person in front of it.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use highwater_client::AckMode;

use super::brokers::Brokers;
use super::round_trip::{TOPIC, Trip};

/// The figures of each ack mode.
pub(super) fn table(trips: &[Trip]) {
    println!("1 KiB records, every ack after fdatasync where it counts, encrypted, one client:\n");
    println!("  acks       records  came back   MB/s   p50 ack   p99 ack");
    for trip in trips {
        let bytes = f64::from(trip.sent) * 1024.0;
        let rate = bytes / 1e6 / trip.producing.as_secs_f64().max(1e-9);
        println!(
            "  {:<9} {:>8}  {:>9}  {rate:>5.0}  {:>8}  {:>8}",
            name(trip.mode),
            trip.sent,
            trip.received,
            milliseconds(trip.ack(0.5)),
            milliseconds(trip.ack(0.99)),
        );
        if trip.wrong > 0 || trip.acked < trip.sent {
            println!("    {} acknowledged, {} wrong", trip.acked, trip.wrong);
        }
    }
    println!();
}

/// Where the brokers are.
pub(super) fn status(brokers: &Brokers) -> String {
    let mut text =
        String::from("  broker  address            metrics                          process\n");
    for broker in brokers.iter() {
        let config = &broker.config;
        let http = config.http_listen.map_or("-".to_owned(), |at| format!("http://{at}/metrics"));
        let pid = broker.pid().map_or("not running".to_owned(), |pid| pid.to_string());
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {:<6}  {:<17}  {http:<31}  {pid}",
            config.node.id.to_string(),
            config.advertise
        );
    }
    text
}

/// What to do next.
pub(super) fn invite(brokers: &Brokers, dir: &Path) {
    println!("\n{}", status(brokers));
    if let Some(broker) = brokers.iter().next() {
        println!("their logs are like {}\n", broker.log().display());
    }
    println!("try:");
    println!("  hw topic list");
    println!("  seq 1000 | hw produce {TOPIC}");
    println!("  hw consume {TOPIC} --from start -n 5");
    println!("\nand while something runs:");
    let dir = dir.display();
    println!("  highwater dev kill 2 --dir {dir}");
    println!("  highwater dev restart 2 --dir {dir}");
    println!("\nCtrl-C stops the brokers; the data stays in {dir}");
}

fn name(mode: AckMode) -> &'static str {
    match mode {
        AckMode::Async => "async",
        AckMode::SemiSync => "semi-sync",
        AckMode::Sync => "sync",
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}
