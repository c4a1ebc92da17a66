//! Everything that is counted: names, units and help live in this table and nowhere else.
//!
//! Counters, gauges and histograms are plain atomics, cheap enough for every request; they are
//! turned into Prometheus text only when somebody asks. No clock here: durations come in measured.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

/// How often something took how long, in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

macro_rules! metrics {
    ($(#[doc = $doc:literal] $field:ident: $kind:ident = $name:literal, $labels:literal;)*) => {
        /// What this process has counted since it started.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $doc] pub $field: $kind,)*
        }

        impl Metrics {
            /// Everything, in the text format of Prometheus.
            pub fn render(&self) -> String {
                let mut text = String::new();
                let mut last = "";
                $(
                    if last != $name {
                        last = $name;
                        let kind = $kind::KIND;
                        let help = $doc.trim();
                        let _ = writeln!(text, "# HELP {last} {help}\n# TYPE {last} {kind}");
                    }
                    self.$field.render($name, $labels, &mut text);
                )*
                text
            }
        }
    };
}

metrics! {
    /// Connections of clients that are open.
    client_connections: Gauge = "highwater_connections", "listener=\"native\"";
    /// Connections of clients that were accepted.
    client_connections_total: Counter = "highwater_connections_total", "listener=\"native\",result=\"accepted\"";
    /// Connections of clients that were refused.
    client_connections_refused: Counter = "highwater_connections_total", "listener=\"native\",result=\"refused\"";
    /// Requests by API.
    requests_hello: Counter = "highwater_requests_total", "api=\"hello\"";
    /// Requests by API.
    requests_produce: Counter = "highwater_requests_total", "api=\"produce\"";
    /// Requests by API.
    requests_fetch: Counter = "highwater_requests_total", "api=\"fetch\"";
    /// Requests by API.
    requests_metadata: Counter = "highwater_requests_total", "api=\"metadata\"";
    /// Requests by API.
    requests_list_offsets: Counter = "highwater_requests_total", "api=\"list_offsets\"";
    /// Requests by API.
    requests_groups: Counter = "highwater_requests_total", "api=\"groups\"";
    /// Requests by API.
    requests_admin: Counter = "highwater_requests_total", "api=\"admin\"";
    /// Requests that were answered with an error.
    request_errors: Counter = "highwater_request_errors_total", "";
    /// Bytes of requests read from clients.
    bytes_in: Counter = "highwater_client_bytes_total", "dir=\"in\"";
    /// Bytes of answers written to clients.
    bytes_out: Counter = "highwater_client_bytes_total", "dir=\"out\"";
    /// Time from a produce request to its answer.
    produce_async: Histogram = "highwater_produce_ack_seconds", "ack=\"async\"";
    /// Time from a produce request to its answer.
    produce_semi_sync: Histogram = "highwater_produce_ack_seconds", "ack=\"semi_sync\"";
    /// Time from a produce request to its answer.
    produce_sync: Histogram = "highwater_produce_ack_seconds", "ack=\"sync\"";
    /// Peers that are connected.
    peers_connected: Gauge = "highwater_peers_connected", "";
    /// Bytes to and from peers.
    peer_bytes_in: Counter = "highwater_replication_bytes_total", "dir=\"in\"";
    /// Bytes to and from peers.
    peer_bytes_out: Counter = "highwater_replication_bytes_total", "dir=\"out\"";
    /// Frames for or from peers that were dropped because a queue was full.
    peer_frames_dropped: Counter = "highwater_peer_frames_dropped_total", "";
    /// Appends of peers that were dropped because a checksum did not fit.
    peer_frames_corrupt: Counter = "highwater_peer_frames_corrupt_total", "";
    /// Passes of all shards.
    shard_passes: Counter = "highwater_shard_passes_total", "";
    /// Events that the shards took.
    shard_events: Counter = "highwater_shard_events_total", "";
    /// Time from the wish to flush to its fulfilment.
    flushes: Histogram = "highwater_fsync_seconds", "";
    /// Replicas that this broker hosts.
    replicas: Gauge = "highwater_replicas", "";
    /// Changes of leadership seen by the replicas hosted here.
    leader_changes: Counter = "highwater_raft_leader_changes_total", "";
    /// Directories of replicas that the controller did not know and that are set aside.
    strays: Gauge = "highwater_stray_replicas", "";
    /// Replicas that were set aside because the controller did not know them.
    strays_set_aside: Counter = "highwater_strays_set_aside_total", "";
    /// Bytes that the scrub has read and checked.
    scrub_bytes: Counter = "highwater_scrub_bytes_total", "";
    /// How often the scrub has read all that this broker holds.
    scrub_passes: Counter = "highwater_scrub_passes_total", "";
    /// Damaged batches that the scrub came across; the same one again until it is mended.
    scrub_faulty: Counter = "highwater_scrub_faulty_total", "";
    /// Damaged batches that were fetched from another replica and put in their place.
    batches_repaired: Counter = "highwater_batches_repaired_total", "";
    /// Replicas that failed and are out of service until they are made anew, or a restart.
    replicas_failed: Counter = "highwater_replicas_failed_total", "";
    /// Failed replicas that were made anew from the others.
    replicas_rebuilt: Counter = "highwater_replicas_rebuilt_total", "";
}

impl Counter {
    const KIND: &str = "counter";

    /// One more.
    pub fn bump(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How many by now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        line(out, name, labels, &self.get());
    }
}

impl Gauge {
    const KIND: &str = "gauge";

    /// One more.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many now.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// How many now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        line(out, name, labels, &self.get());
    }
}

impl Histogram {
    const KIND: &str = "histogram";

    /// It took so long once more.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    fn render(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let bucket_name = format!("{name}_bucket");
        let mut total = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS_US) {
            total += bucket.load(Ordering::Relaxed);
            let seconds = *bound as f64 / 1e6;
            line(out, &bucket_name, &format!("{labels}{comma}le=\"{seconds}\""), &total);
        }
        total += self.buckets[BOUNDS_US.len()].load(Ordering::Relaxed);
        line(out, &bucket_name, &format!("{labels}{comma}le=\"+Inf\""), &total);
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        line(out, &format!("{name}_sum"), labels, &sum);
        line(out, &format!("{name}_count"), labels, &total);
    }
}

fn line(out: &mut String, name: &str, labels: &str, value: &dyn std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        labels => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

const BOUNDS_US: &[u64] = &[
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_explained_once_and_its_series_follow() {
        let metrics = Metrics::default();
        metrics.requests_fetch.add(3);
        let text = metrics.render();
        assert_eq!(text.matches("# TYPE highwater_requests_total counter").count(), 1);
        assert!(text.contains("highwater_requests_total{api=\"fetch\"} 3\n"));
    }

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        metrics.produce_sync.record(Duration::from_micros(50));
        metrics.produce_sync.record(Duration::from_micros(51));
        metrics.produce_sync.record(Duration::from_secs(60));
        let text = metrics.render();
        for expected in ["le=\"0.00005\"} 1", "le=\"0.0001\"} 2", "le=\"5\"} 2", "le=\"+Inf\"} 3"] {
            assert!(text.contains(&format!("{{ack=\"sync\",{expected}")), "{expected}: {text}");
        }
    }
}
