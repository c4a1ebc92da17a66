//! Writes and reads at once, and compares: what was acknowledged must arrive, once and in order.
//!
//! The consumer has a client, and so connections, of its own, and is in place before the first
//! record is due. Both ends share one monotonic clock, so the time between is exact.

use std::sync::Arc;

use anyhow::{Context, Result};
use highwater_client::Client;
use tokio::sync::watch;

use crate::consume::{self, Consumed, Ours, Until};
use crate::produce::{self, Plan, Produced};
use crate::recorder::Gaps;
use crate::settings::{From, Read};
use crate::verify::Verdict;

/// What both sides of a run tell.
#[derive(Debug)]
pub struct EndToEnd {
    /// The producers' side.
    pub produced: Produced,
    /// The consumer's side.
    pub consumed: ConsumerSide,
    /// The two compared.
    pub verdict: Verdict,
}

/// The consumer's figures, once its records are judged.
#[derive(Debug)]
pub struct ConsumerSide {
    /// From the intended moment of sending to that of reading.
    pub latency: crate::recorder::Series,
    /// Failures of partitions, in words.
    pub errors: Vec<String>,
}

/// Runs both sides to their end.
pub async fn run(
    producing: &Client,
    consuming: &Client,
    plan: &Plan,
    live: &Arc<produce::Live>,
    live_consumer: &Arc<consume::Live>,
    gaps: &Arc<Gaps>,
) -> Result<EndToEnd> {
    let read = Read { from: From::End, until_end: false, duration: 0.0 };
    let reader = consume::open(consuming, plan.topic.as_str(), &read).await?;
    let (all_sent, count) = watch::channel(None);
    let consumer = tokio::spawn(consume::run(
        reader,
        plan.clock,
        plan.window(),
        Ours::Run(plan.run),
        Until::Count(count),
        Arc::clone(live_consumer),
    ));
    let produced = produce::run(producing, plan, live, gaps).await?;
    // Nobody listens any more only if the consumer has failed, which its result tells.
    let _ = all_sent.send(Some(produced.ledger.acked_count()));
    let Consumed { latency, verifier, errors, .. } =
        consumer.await.context("the consumer broke")??;
    let verdict = verifier.finish(&produced.ledger);
    Ok(EndToEnd { produced, consumed: ConsumerSide { latency, errors }, verdict })
}
