//! Tells the controller, once a minute and only while `balance.auto` is on, how large the partitions
//! are that this broker leads, and what clients did to them in that minute.
//!
//! A report that is lost is not repeated: there is another one in a minute. A partition that has not
//! been led here for the whole minute is left out, so that no part of a minute counts as one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use highwater_protocol::ids::{Term, TopicPartition};
use highwater_protocol::native::balance::Load;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Inner;
use super::ask::Line;
use crate::controller::Command;
use crate::controller::loads::{LoadReport, PartitionLoad, REPORT_EVERY_MS};
use crate::log::LogReader;

/// Tells until the node stops.
pub(super) async fn run(node: Arc<Inner>, line: Arc<Line>) {
    let mut minute = interval(Duration::from_millis(REPORT_EVERY_MS));
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<Look> = None;
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = minute.tick() => {}
        }
        if !node.image.load().settings().balances_itself() {
            last = None;
            continue;
        }
        let look = Look::around(&node);
        if let Some(last) = last.replace(look.clone()) {
            tokio::select! {
                () = node.stop.cancelled() => return,
                () = tell(&node, &line, look.since(&last)) => {}
            }
        }
    }
}

async fn tell(node: &Inner, line: &Line, led: Vec<PartitionLoad>) {
    let mut parts: Vec<Vec<PartitionLoad>> =
        led.chunks(REPORTED_AT_ONCE).map(<[_]>::to_vec).collect();
    if parts.is_empty() {
        // Who leads nothing is heard, too.
        parts.push(Vec::new());
    }
    for led in parts {
        let report = LoadReport { node: node.options.me, led };
        if let Err(error) = line.command(Command::Loads(report), TELL_MAX).await {
            tracing::debug!(%error, "the controller was not told of loads");
            return;
        }
    }
}

/// What was counted of each partition that was led here at that moment.
#[derive(Clone)]
struct Look {
    at: Instant,
    led: HashMap<TopicPartition, Counted>,
}

#[derive(Clone, Copy)]
struct Counted {
    term: Term,
    bytes: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Look {
    fn around(node: &Inner) -> Look {
        let mut led = HashMap::new();
        for news in node.routes.led_here() {
            if news.partition == TopicPartition::CLUSTER {
                continue;
            }
            if let Some(route) = node.routes.get(news.partition) {
                let bytes = route.reader().as_deref().map_or(0, LogReader::bytes);
                let traffic = route.traffic();
                let (bytes_in, bytes_out) = (traffic.bytes_in.get(), traffic.bytes_out.get());
                led.insert(news.partition, Counted { term: news.term, bytes, bytes_in, bytes_out });
            }
        }
        Look { at: Instant::now(), led }
    }

    /// The rates of what was led in one term since then.
    fn since(&self, then: &Look) -> Vec<PartitionLoad> {
        let elapsed_ms = self.at.duration_since(then.at).as_millis().max(1) as u64;
        let rate = |now: u64, was: u64| now.saturating_sub(was).saturating_mul(1_000) / elapsed_ms;
        let told = |(partition, now): (&TopicPartition, &Counted)| {
            let was = then.led.get(partition).filter(|was| was.term == now.term)?;
            let load = Load {
                bytes_in_per_s: rate(now.bytes_in, was.bytes_in),
                bytes_out_per_s: rate(now.bytes_out, was.bytes_out),
            };
            Some(PartitionLoad { partition: *partition, bytes: now.bytes, load })
        };
        self.led.iter().filter_map(told).collect()
    }
}

/// Partitions in one command.
const REPORTED_AT_ONCE: usize = 2_000;
/// How long one command is tried.
const TELL_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use highwater_protocol::ids::{PartitionId, TopicId};
    use uuid::Uuid;

    use super::*;

    fn at(number: u32) -> TopicPartition {
        TopicPartition::new(TopicId(Uuid::from_u128(7)), PartitionId(number))
    }

    #[test]
    fn rates_are_of_what_was_led_in_one_term_for_the_whole_time() {
        let counted =
            |term, bytes_in| Counted { term: Term(term), bytes: 9, bytes_in, bytes_out: 0 };
        let begin = Instant::now();
        let led = HashMap::from([(at(0), counted(1, 500)), (at(1), counted(1, 500))]);
        let then = Look { at: begin, led };
        let led = HashMap::from([
            (at(0), counted(1, 4_500)),
            (at(1), counted(2, 900)),
            (at(2), counted(1, 700)),
        ]);
        let now = Look { at: begin + Duration::from_secs(2), led };
        let load = Load { bytes_in_per_s: 2_000, bytes_out_per_s: 0 };
        assert_eq!(now.since(&then), [PartitionLoad { partition: at(0), bytes: 9, load }]);
    }
}
