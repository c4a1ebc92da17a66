//! What can be wrong with a history, and the report that says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;

use super::op::Op;

/// Ways in which a history can be wrong. Definitions: Jepsen's queue workload, narrowed to a log
/// without holes and without transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anomaly {
    /// One offset, two values.
    InconsistentOffset,
    /// One value, two places.
    Duplicate,
    /// A value that was surely not written was read.
    AbortedRead,
    /// A value was read that nobody sent.
    UnexpectedRead,
    /// Acknowledged or read, and gone: before everything else of its producer that is left.
    LostPrefix,
    /// The same, with others of its producer left before and after it.
    LostMiddle,
    /// The same, behind everything else of its producer that is left.
    LostTail,
    /// Acknowledged at or behind the end that the final reading reached.
    Unseen,
    /// A reader's next poll left offsets out.
    PollSkip,
    /// A reader's next poll went back or repeated.
    NonmonotonicPoll,
    /// Offsets are missing within one poll.
    InternalPollSkip,
    /// Offsets go back or repeat within one poll.
    InternalNonmonotonicPoll,
    /// A producer's later record lies before its earlier one.
    NonmonotonicSend,
    /// A record sent after another one was acknowledged lies before that one.
    RealTime,
    /// Replicas differ after everything is healed and nobody writes.
    Divergence,
}

/// What was found of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How often.
    pub count: u64,
    /// The first few.
    pub examples: Vec<Example>,
}

/// One case, and the operations that prove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// What is wrong, in words.
    pub what: String,
    /// The numbers of the operations that prove it, from 0.
    pub ops: Vec<u32>,
    /// Those operations in words, once they were looked up.
    pub proof: Vec<String>,
}

/// What a history amounts to. The names of the fields are a promise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Operations.
    pub operations: u64,
    /// Records sent.
    pub sends: u64,
    /// Acknowledged, by mode.
    pub acked: BTreeMap<&'static str, u64>,
    /// Surely not written.
    pub failed: u64,
    /// Of unknown fate.
    pub unknown: u64,
    /// Polls.
    pub polls: u64,
    /// Records read, counted as often as they were.
    pub records_read: u64,
    /// Of those, such as are not of this history.
    pub strangers: u64,
    /// Partitions that were read to their end in the end.
    pub drained: u64,
    /// Acknowledged with `async` and gone: that mode permits it in a failover.
    pub async_lost: u64,
    /// Whether the history ends where its writer did; else sends may be missing in it.
    pub complete: bool,
    /// What is wrong.
    pub anomalies: BTreeMap<Anomaly, Finding>,
}

impl Anomaly {
    /// Every kind.
    pub const ALL: &[Anomaly] = &[
        Anomaly::InconsistentOffset,
        Anomaly::Duplicate,
        Anomaly::AbortedRead,
        Anomaly::UnexpectedRead,
        Anomaly::LostPrefix,
        Anomaly::LostMiddle,
        Anomaly::LostTail,
        Anomaly::Unseen,
        Anomaly::PollSkip,
        Anomaly::NonmonotonicPoll,
        Anomaly::InternalPollSkip,
        Anomaly::InternalNonmonotonicPoll,
        Anomaly::NonmonotonicSend,
        Anomaly::RealTime,
        Anomaly::Divergence,
    ];

    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Anomaly::InconsistentOffset => "inconsistent-offset",
            Anomaly::Duplicate => "duplicate",
            Anomaly::AbortedRead => "aborted-read",
            Anomaly::UnexpectedRead => "unexpected-read",
            Anomaly::LostPrefix => "lost-prefix",
            Anomaly::LostMiddle => "lost-middle",
            Anomaly::LostTail => "lost-tail",
            Anomaly::Unseen => "unseen",
            Anomaly::PollSkip => "poll-skip",
            Anomaly::NonmonotonicPoll => "nonmonotonic-poll",
            Anomaly::InternalPollSkip => "internal-poll-skip",
            Anomaly::InternalNonmonotonicPoll => "internal-nonmonotonic-poll",
            Anomaly::NonmonotonicSend => "nonmonotonic-send",
            Anomaly::RealTime => "real-time",
            Anomaly::Divergence => "divergence",
        }
    }
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// How often something of a kind was found.
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.anomalies.get(&anomaly).map_or(0, |finding| finding.count)
    }

    /// The operations that [`Report::prove`] wants to see again.
    pub fn wanted(&self) -> BTreeSet<u32> {
        let examples = self.anomalies.values().flat_map(|finding| &finding.examples);
        examples.flat_map(|example| example.ops.iter().copied()).collect()
    }

    /// Puts the operations that prove the examples into words.
    pub fn prove(&mut self, ops: &BTreeMap<u32, Op>) {
        let examples = self.anomalies.values_mut().flat_map(|finding| &mut finding.examples);
        for example in examples {
            let found = example.ops.iter().filter_map(|number| Some((number, ops.get(number)?)));
            example.proof = found.map(|(number, op)| format!("op {number}: {op}")).collect();
        }
    }

    /// The report for people.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(page, "{name:<20}{value}").expect("a string takes everything");
        };
        line("operations", self.operations.to_string());
        line("sent", self.sends.to_string());
        for (mode, count) in &self.acked {
            line(&format!("  acked {mode}"), count.to_string());
        }
        line("  not written", self.failed.to_string());
        line("  unknown", self.unknown.to_string());
        line("read", format!("{} in {} polls", self.records_read, self.polls));
        line("  strangers", self.strangers.to_string());
        line("drained", format!("{} partitions", self.drained));
        line("async lost", format!("{} (a failover may do that)", self.async_lost));
        if !self.complete {
            line("warning", "the history is cut off: sends may be missing in it".to_owned());
        }
        if self.is_clean() {
            line("anomalies", "none".to_owned());
        }
        for (anomaly, finding) in &self.anomalies {
            line("ANOMALY", format!("{}: {}", anomaly.name(), finding.count));
            for example in &finding.examples {
                line("", example.what.clone());
                example.proof.iter().for_each(|op| line("", format!("  {op}")));
            }
        }
        page
    }

    /// Takes note of a case.
    pub(super) fn add(&mut self, anomaly: Anomaly, ops: &[u32], what: impl FnOnce() -> String) {
        let finding = self.anomalies.entry(anomaly).or_default();
        finding.count += 1;
        if finding.examples.len() < EXAMPLES_MAX {
            let ops = ops.iter().copied().filter(|op| *op != super::check::NO_OP).collect();
            finding.examples.push(Example { what: what(), ops, proof: Vec::new() });
        }
    }
}

const EXAMPLES_MAX: usize = 5;
