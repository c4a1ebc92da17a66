//! Comparing the replicas of one partition, whoever answers for them: which hold the same, and where one
//! parts from the others.
//!
//! All are asked for the same range from the same place, and stop at the same place if they hold the same. Those
//! that most agree with are taken for right, and where nobody has a majority those that the leader agrees with;
//! whoever differs is not compared any further.

use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use highwater_client::{Digest, DigestRange, DigestReplicaResponse, NodeId, Offset};
use highwater_protocol::ids::LogIndex;

use crate::exit::Exit;
use crate::human;

/// What became of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compared {
    /// What was compared, the end exclusive; nothing where nobody answered.
    pub offsets: Option<(Offset, Offset)>,
    /// How much that is, of one replica.
    pub bytes: u64,
    /// The hash of all of it.
    pub hash: u128,
    /// Who has all of it, the same as the others.
    pub agree: Vec<NodeId>,
    /// What is to be said of the others.
    pub findings: Vec<(NodeId, Finding)>,
}

/// What is to be said of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It holds other records than the others; these are the first.
    Differs((Offset, Offset)),
    /// It has a batch that it cannot read.
    Damaged((Offset, Offset), String),
    /// It agrees, but knows less to be committed.
    Behind { compared: Offset, end: Offset },
    /// It could not be asked.
    Away(String),
}

impl Compared {
    /// How a script should see it: a difference is what it looks for, and not having been able to look is
    /// less.
    pub fn exit(&self) -> Exit {
        match self.verdict() {
            AGREE => Exit::Fine,
            INCOMPLETE => Exit::Partial,
            _ => Exit::Unhealthy,
        }
    }

    /// The whole in a word, the worst first.
    pub fn verdict(&self) -> &'static str {
        let any = |word| self.findings.iter().any(|(_, found)| found.word() == word);
        match (any(DIFFERS), any(DAMAGED), self.findings.is_empty()) {
            (true, _, _) => DIFFER,
            (false, true, _) => DAMAGED,
            (false, false, false) => INCOMPLETE,
            (false, false, true) => AGREE,
        }
    }
}

impl Finding {
    /// The finding in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Finding::Differs(_) => DIFFERS,
            Finding::Damaged(..) => DAMAGED,
            Finding::Behind { .. } => BEHIND,
            Finding::Away(_) => AWAY,
        }
    }

    /// Where it is, if it is in one place.
    pub fn offsets(&self) -> Option<(Offset, Offset)> {
        match self {
            Finding::Differs(offsets) | Finding::Damaged(offsets, _) => Some(*offsets),
            Finding::Behind { .. } | Finding::Away(_) => None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Differs((from, until)) if from == until => {
                write!(f, "differs first in a mark before offset {from}")
            }
            Finding::Differs((from, until)) => {
                write!(f, "differs first in the batch of offsets {from} to {until} (exclusive)")
            }
            Finding::Damaged((from, until), file) => {
                write!(f, "cannot read offsets {from} to {until} (exclusive) from {file}")
            }
            Finding::Behind { compared, end } => {
                let behind = end.0.saturating_sub(compared.0) as usize;
                let behind = human::counted(behind, "record");
                write!(f, "knows of no difference below offset {compared}, and is {behind} behind")
            }
            Finding::Away(why) => write!(f, "could not be asked: {why}"),
        }
    }
}

/// Whoever answers for a replica.
pub trait Ask:
    AsyncFn(NodeId, Option<DigestRange>) -> Result<DigestReplicaResponse, String>
{
}

impl<A: AsyncFn(NodeId, Option<DigestRange>) -> Result<DigestReplicaResponse, String>> Ask for A {}

/// What a replica has that can be compared: index and offset where that starts, and where it ends.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    start: (LogIndex, Offset),
    end: (LogIndex, Offset),
}

impl Bounds {
    fn of(answer: &DigestReplicaResponse) -> Bounds {
        Bounds {
            start: (answer.start, answer.log_start),
            end: (answer.committed, answer.high_watermark),
        }
    }
}

/// A comparison under way.
struct Comparing<A> {
    ask: A,
    /// Who is compared.
    taking: Vec<(NodeId, Bounds)>,
    at: LogIndex,
    /// Where the furthest one ends.
    end: (LogIndex, Offset),
    found: Compared,
}

/// Compares the replicas on these brokers, the leader's first.
pub async fn compare(nodes: Vec<NodeId>, ask: impl Ask) -> Compared {
    let mut comparing = Comparing {
        ask,
        taking: Vec::new(),
        at: LogIndex::ZERO,
        end: (LogIndex::ZERO, Offset::ZERO),
        found: Compared::default(),
    };
    comparing.look(nodes).await;
    while comparing.taking.iter().any(|(_, has)| comparing.at < has.end.0) {
        comparing.step().await;
    }
    comparing.finish()
}

impl<A: Ask> Comparing<A> {
    /// Asks where everybody stands, and gives those some time who are only a moment behind, as followers
    /// are under load.
    async fn look(&mut self, nodes: Vec<NodeId>) {
        let asking = nodes.into_iter().map(|node| {
            let ask = &self.ask;
            async move { (node, ask(node, None).await) }
        });
        for (node, answer) in join_all(asking).await {
            match answer {
                Ok(answer) => self.taking.push((node, Bounds::of(&answer))),
                Err(why) => self.found.findings.push((node, Finding::Away(why))),
            }
        }
        self.end = self.taking.iter().map(|(_, has)| has.end).max().unwrap_or_default();
        for _ in 0..LOOKS_MAX {
            let end = self.end;
            let late = self.taking.iter_mut().filter(|(_, has)| has.end < end);
            let late: Vec<_> = late.collect();
            if late.is_empty() {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            for (node, has) in late {
                // Whoever does not answer is found away when the hashing begins.
                if let Ok(answer) = (self.ask)(*node, None).await {
                    *has = Bounds::of(&answer);
                }
            }
        }
        let start = self.taking.iter().map(|(_, has)| has.start).max();
        if let Some((index, offset)) = start {
            self.at = index;
            self.found.offsets = Some((offset, offset));
        }
    }

    /// Compares one window, or finds out that it has to begin elsewhere.
    async fn step(&mut self) {
        let (at, seed) = (self.at, self.found.hash);
        let asked: Vec<_> = self.taking.iter().filter(|(_, has)| at < has.end.0).collect();
        let until = asked.iter().map(|(_, has)| has.end.0).min();
        let until = until.expect("somebody has more");
        let range = DigestRange { from: at, until, seed, bytes_max: WINDOW_BYTES };
        let asking = asked.into_iter().map(|(node, _)| {
            let ask = &self.ask;
            async move { (*node, ask(*node, Some(range)).await) }
        });
        let answers = join_all(asking).await;
        let mut groups: Vec<(Digest, Vec<NodeId>)> = Vec::new();
        let mut start = at;
        for (node, answer) in answers {
            let answer = match answer {
                Ok(answer) => answer,
                Err(why) => {
                    self.leaves(node, Finding::Away(why));
                    continue;
                }
            };
            start = start.max(answer.start);
            match answer.digest {
                // It says by its start why; otherwise there is no telling.
                None if answer.start > at => {}
                None => self.leaves(node, Finding::Away("its files are gone".to_owned())),
                Some(Digest { unreadable: Some(range), .. }) if answer.start <= at => {
                    self.leaves(node, Finding::Damaged(range.offsets, range.file));
                }
                Some(digest) => match groups.iter_mut().find(|(known, _)| *known == digest) {
                    Some((_, nodes)) => nodes.push(node),
                    None => groups.push((digest, vec![node])),
                },
            }
        }
        if start > at {
            self.begin_at(start).await;
            return;
        }
        self.judge(groups, until).await;
    }

    /// Goes on with those that most agree with, and says of the others where they part.
    async fn judge(&mut self, mut groups: Vec<(Digest, Vec<NodeId>)>, until: LogIndex) {
        // Of several with as many, the first: the leader is asked first.
        let most = groups.iter().map(|(_, nodes)| nodes.len()).max();
        let kept = groups.iter().position(|(_, nodes)| Some(nodes.len()) == most);
        let Some(kept) = kept else { return };
        let (digest, nodes) = groups.remove(kept);
        for (other, strangers) in groups {
            let first = self.parts_at(nodes[0], strangers[0], &digest, &other).await;
            for node in strangers {
                self.leaves(node, Finding::Differs(first));
            }
        }
        if digest.end == self.at {
            self.at = until;
            return;
        }
        if let Some((_, end)) = &mut self.found.offsets {
            *end = digest.offsets.1;
        }
        self.at = digest.end;
        self.found.hash = digest.hash;
        self.found.bytes += digest.bytes;
    }

    /// The first batch in which two replicas differ, by halving the window.
    async fn parts_at(
        &self,
        right: NodeId,
        wrong: NodeId,
        window: &Digest,
        other: &Digest,
    ) -> (Offset, Offset) {
        let (mut from, mut seed, mut offsets) = (self.at, self.found.hash, window.offsets);
        let (mut until, mut bytes) = (window.end.max(other.end), window.bytes);
        for _ in 0..HALVINGS_MAX {
            let bytes_max = u32::try_from(bytes / 2).unwrap_or(u32::MAX).max(1);
            let range = DigestRange { from, until, seed, bytes_max };
            let Ok(Some(known)) = (self.ask)(right, Some(range)).await.map(|it| it.digest) else {
                break;
            };
            let range = DigestRange { until: known.end, ..range };
            let Ok(Some(other)) = (self.ask)(wrong, Some(range)).await.map(|it| it.digest) else {
                break;
            };
            if (known.end, known.hash) == (other.end, other.hash) && known.end > from {
                (from, seed) = (known.end, known.hash);
                bytes = bytes.saturating_sub(known.bytes);
                continue;
            }
            if known.end == from {
                break;
            }
            offsets = known.offsets;
            if bytes_max == 1 || known.end == until {
                break;
            }
            (until, bytes) = (known.end, known.bytes);
        }
        offsets
    }

    /// Somebody gave up, meanwhile, what was to be compared: what is left begins there.
    async fn begin_at(&mut self, start: LogIndex) {
        for (node, has) in &mut self.taking {
            if let Ok(answer) = (self.ask)(*node, None).await {
                has.start = (answer.start, answer.log_start);
            }
        }
        let starts = self.taking.iter().map(|(_, has)| has.start);
        let (index, offset) = starts.max().unwrap_or_default();
        self.at = index.max(start);
        (self.found.offsets, self.found.bytes, self.found.hash) = (Some((offset, offset)), 0, 0);
    }

    fn leaves(&mut self, node: NodeId, why: Finding) {
        self.taking.retain(|(other, _)| *other != node);
        self.found.findings.push((node, why));
    }

    fn finish(mut self) -> Compared {
        for (node, has) in self.taking {
            if has.end >= self.end {
                self.found.agree.push(node);
                continue;
            }
            let behind = Finding::Behind { compared: has.end.1, end: self.end.1 };
            self.found.findings.push((node, behind));
        }
        self.found.agree.sort_unstable();
        self.found.findings.sort_by_key(|(node, _)| *node);
        self.found
    }
}

const AGREE: &str = "agree";
const DIFFER: &str = "differ";
const DAMAGED: &str = "damaged";
const INCOMPLETE: &str = "incomplete";
const DIFFERS: &str = "differs";
const BEHIND: &str = "behind";
const AWAY: &str = "away";
/// Every word for a partition.
pub const VERDICTS: [&str; 4] = [AGREE, DIFFER, DAMAGED, INCOMPLETE];
/// Every word for a replica.
#[cfg(test)]
pub const FINDINGS: [&str; 4] = [DIFFERS, DAMAGED, BEHIND, AWAY];
/// What is compared at a time.
const WINDOW_BYTES: u32 = 4 << 20;
/// Enough to find one batch in any window.
const HALVINGS_MAX: usize = 64;
/// Longer than a follower takes to hear of a commit while its leader is busy.
const LOOKS_MAX: usize = 20;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
